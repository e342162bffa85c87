/**
 * `sunwise backup` as a process beside a server under load, and kills of either at any time: a backup has everything that was
 * acknowledged before it began, an attempt that was cut short harms no earlier one, and the server goes on.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { bulky, readBack, startLoad } from './load.ts'
import { ServerProcess } from './server-process.ts'
import { type Held, Witness } from './witness.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const program = join(import.meta.dirname, '..', '..', 'src', 'main.ts')

/** A witness that tells another what is written after a moment: to that one, it may or may not be in the backup. */
class ForkedWitness extends Witness {
  fork: Witness | undefined

  override acknowledged(key: string, value: Held): void {
    super.acknowledged(key, value)
    this.fork?.unknown(key, value)
  }

  override unknown(key: string, value: Held): void {
    super.unknown(key, value)
    this.fork?.unknown(key, value)
  }
}

type Ended = { readonly code: number | null; readonly output: string; readonly errors: string }

/** One command of the program; `kill` ends it without a word. */
function command(...words: readonly string[]): { readonly ended: Promise<Ended>; kill(): void } {
  const child = spawn(process.execPath, [program, ...words], { stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  let errors = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text
  })
  const ended = new Promise<Ended>((resolve) => child.on('close', (code) => resolve({ code, output, errors })))
  return { ended, kill: () => child.kill('SIGKILL') }
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

async function run(...words: readonly string[]): Promise<Ended> {
  const ended = await command(...words).ended
  assert.equal(ended.code, 0, `${words.join(' ')}: ${ended.errors}`)
  return ended
}

test('sunwise backup: kills of the copying process and of the server, under load', {
  timeout: 300_000 * Math.max(1, scale),
}, async (context) => {
  const root = mkdtempSync(join(tmpdir(), 'sunwise-backup-process-'))
  const [data, backups] = [join(root, 'data'), join(root, 'backups')]
  const witness = new ForkedWitness()
  const flags = ['--durability', 'os', '--shards', '2', '--memory', '140mb']
  const create = ['backup', 'create', backups, '--data-dir', data, '-o', 'json'] as const
  const tally = { cutShort: 0, wentThrough: 0, nodeKills: 0, restored: 0 }
  for (let round = 0; round < Math.ceil(3 * scale); round++) {
    await using server = await ServerProcess.start(data, { flags })
    assert.deepEqual(await readBack(server, witness), [], `Round ${round}; ${root} is kept`)
    const load = startLoad(server, witness, 8, '', bulky)
    while (readdirSync(join(data, 'tables')).length < 4) await wait(20)

    for (let kill = 0; kill < 3; kill++) {
      const attempt = command(...create)
      await wait(150 + randomInt(400))
      attempt.kill()
      if ((await attempt.ended).code === 0) tally.wentThrough++
      else tally.cutShort++
    }
    const before = witness.copy()
    witness.fork = before
    const made = JSON.parse((await run(...create)).output) as { number: number; files: number }
    witness.fork = undefined
    assert.ok(made.files > 4)
    for (const code of load.refusals.keys()) assert.match(code, /^(OVERLOADED|TIMEOUT)$/)

    // The server dies in the middle of the next one.
    const attempt = command(...create)
    await wait(150 + randomInt(300))
    await server.kill()
    const cut = await attempt.ended
    if (cut.code !== 0) assert.match(cut.errors, /NOT_READY|DISK_FAILED/)
    tally.nodeKills++
    await load.stop()

    const number = String(made.number)
    await run('backup', 'verify', backups, '--number', number)
    const restored = join(root, `restored-${round}`)
    await run('backup', 'restore', backups, '--number', number, '--data-dir', restored)
    await using copy = await ServerProcess.start(restored, { flags: ['--shards', '1', '--memory', '96mb'] })
    assert.deepEqual(await readBack(copy, before), [], `Round ${round}; ${root} is kept`)
    assert.equal((await copy.stop()).code, 0)
    rmSync(restored, { recursive: true, force: true })
    tally.restored++
  }
  context.diagnostic(JSON.stringify(tally))
  assert.ok(tally.cutShort > 0, 'Some attempt was cut short')
  const listed = (await run('backup', 'list', backups, '-o', 'json')).output.trim().split('\n')
  assert.ok(listed.length >= tally.restored && listed.length <= 7)
  rmSync(root, { recursive: true, force: true })
})
