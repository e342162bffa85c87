/** Shard workers that crash below an embedded store: the application goes on, or is told for good, and loses nothing. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { open } from '../../src/index.ts'
import { faultEnvironment, giveOrder } from './faults.ts'
import { Witness } from './witness.ts'

type Line = {
  readonly log?: string
  readonly key?: string
  readonly value?: string
  readonly acknowledged?: boolean
  readonly code?: string
  readonly outcome?: string
  readonly readCode?: string
}

test('An embedded store outlives two crashes of a shard; the third fails every call with WORKERS_FAILED', {
  timeout: 240_000,
}, async () => {
  const root = mkdtempSync(join(tmpdir(), 'sunwise-embedded-'))
  const data = join(root, 'data')
  const orders = join(root, 'orders')
  const witness = new Witness()
  const codes = new Map<string, number>()
  const logs: string[] = []
  let readCode: string | undefined
  const take = (line: Line): void => {
    if (line.log !== undefined) logs.push(line.log)
    if (line.readCode !== undefined) readCode = line.readCode
    if (line.key === undefined) return
    if (line.acknowledged) return witness.acknowledged(line.key, line.value)
    codes.set(line.code!, (codes.get(line.code!) ?? 0) + 1)
    if (line.outcome !== 'none') witness.unknown(line.key, line.value)
  }
  const child = spawn(process.execPath, [join(import.meta.dirname, 'embedded-writer.ts'), data], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...faultEnvironment({ data, orders }) },
  })
  try {
    let rest = ''
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      const lines = (rest + part).split('\n')
      rest = lines.pop()!
      for (const line of lines) take(JSON.parse(line) as Line)
    })
    const ended = new Promise((resolve) => child.on('close', (code, signal) => resolve(signal ?? code)))
    const until = async (what: string, holds: () => boolean): Promise<void> => {
      const by = performance.now() + 60_000
      while (!holds()) {
        assert.ok(performance.now() < by, `It never came about that ${what}`)
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    }
    for (let crash = 1; crash <= 3; crash++) {
      // 50 keys lie in both shards: a hundred acknowledged in a row show that both serve.
      const before = witness.acknowledgedWrites
      await until('writes go on', () => witness.acknowledgedWrites > before + 100)
      await giveOrder(orders, crash % 2, 'throw')
    }
    assert.equal(await ended, 0, 'A failed store must not hold the process')
  } finally {
    child.kill('SIGKILL')
  }
  assert.equal(logs.filter((line) => /^Shard \d crashed: .*Thrown by order/.test(line)).length, 3)
  for (const code of codes.keys()) assert.match(code, /^(SHARD_UNAVAILABLE|WORKERS_FAILED)$/)
  assert.equal(codes.get('WORKERS_FAILED'), 1)
  assert.equal(readCode, 'WORKERS_FAILED')
  const again = await open({ dir: data, shards: 2, memoryBytes: 160 * 1024 * 1024 })
  for (const key of witness.keys) {
    const value = again.getSync(key)
    assert.equal(witness.judge(key, value === undefined ? undefined : Buffer.from(value).toString()), undefined)
  }
  assert.ok(witness.acknowledgedWrites > 300)
  await again.close()
  rmSync(root, { recursive: true, force: true })
})
