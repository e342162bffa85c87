/** A server on a small file system that runs full, as far as the system lets a test mount one of its own. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

type Findings = {
  readonly reserve: number
  readonly stored: number
  readonly refusal: { readonly status: number; readonly body: { readonly code: string; readonly outcome: string } }
  readonly others: readonly number[]
  readonly ready: { readonly status: number; readonly body: unknown }
  readonly metrics: string
  readonly wrong: number
  readonly deletes: readonly number[]
  /** What a start with another number of shards said, and the generations of the log behind it. */
  readonly otherShards: string
  readonly generations: readonly string[]
  readonly restarted: { readonly ready: unknown; readonly put: number; readonly wrong: number }
  readonly recoveryMs: number
  readonly wrongAtLast: number
  readonly log: string
}

const program = `
  import { spawn } from 'node:child_process'
  import { readdirSync, rmSync, statfsSync, statSync, writeFileSync } from 'node:fs'
  const [root, main] = process.argv.slice(1)
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
  let server, base, log = ''
  const start = async (shards = '2') => {
    const flags = ['--data-dir', root + '/data', '--http', '127.0.0.1:0', '--shards', shards, '--memory', '160mb', '-o', 'json']
    server = spawn(process.execPath, [main, 'start', ...flags], { stdio: ['ignore', 'pipe', 'pipe'] })
    server.stderr.on('data', (text) => { log += text })
    base = await new Promise((resolve, reject) => {
      let said = ''
      server.stdout.on('data', (text) => {
        said += text
        const url = /http:\\/\\/[0-9.:]+/.exec(said)
        if (url !== null) resolve(url[0])
      })
      server.on('exit', () => reject(new Error('The server ended: ' + log)))
    })
  }
  const stop = async () => {
    const gone = new Promise((resolve) => server.on('exit', resolve))
    server.kill('SIGTERM')
    await gone
  }
  const value = (key) => Buffer.alloc(200_000, String(key))
  const url = (key) => base + '/v1/kv/default/k' + key
  const put = (key) => fetch(url(key), { method: 'PUT', body: value(key) })
  const remove = async (key) => (await fetch(url(key), { method: 'DELETE' })).status
  const held = new Set()
  const countWrong = async () => {
    let wrong = 0
    for (const key of held) {
      const answer = await fetch(url(key))
      if (answer.status !== 200 || !Buffer.from(await answer.arrayBuffer()).equals(value(key))) wrong++
    }
    return wrong
  }
  const seen = async (path) => {
    const answer = await fetch(base + path)
    return { status: answer.status, body: await answer.json() }
  }
  await start()
  for (let tries = 0; tries < 100 && statSync(root + '/data/reserve', { throwIfNoEntry: false }) === undefined; tries++) await sleep(50)
  await sleep(500)
  const reserve = statSync(root + '/data/reserve').size
  // Somebody else fills the disk, all but what a few writes need.
  const { bavail, bsize } = statfsSync(root)
  writeFileSync(root + '/filler', new Uint8Array(Math.max(0, bavail * bsize - 60_000_000)))
  let refusal
  for (let key = 0; refusal === undefined; key++) {
    const answer = await put(key)
    if (answer.status === 204) held.add(key)
    else if (answer.status === 507) refusal = { status: answer.status, body: await answer.json() }
    else if (answer.status !== 503) throw new Error(answer.status + ' ' + await answer.text())
    if (key > 5000) throw new Error('The disk does not end')
  }
  const stored = held.size
  const others = []
  for (let key = 10_000; key < 10_016; key++) others.push((await put(key)).status)
  const ready = await seen('/readyz')
  // Shards publish what they count a few times a second.
  let metrics
  for (let tries = 0; tries < 50; tries++) {
    metrics = (await (await fetch(base + '/metrics')).text()).split('\\n').filter((line) => /^sunwise_(disk|shard_write_refusal)/.test(line)).join('\\n')
    if (metrics.match(/^sunwise_shard_write_refusal.* 2$/mg)?.length === 2) break
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  const wrong = await countWrong()
  const deletes = []
  for (const key of [...held].slice(0, 5)) {
    deletes.push(await remove(key))
    held.delete(key)
  }
  await stop()
  const { bavail: left } = statfsSync(root)
  writeFileSync(root + '/second', new Uint8Array(Math.max(0, left * bsize - 4_000_000)))
  const otherShards = await start('1').then(() => 'it started', (error) => error.message)
  const generations = readdirSync(root + '/data/log')
  rmSync(root + '/second')
  await start()
  await sleep(700)
  const restarted = { ready: (await seen('/readyz')).body, put: (await put(20_000)).status, wrong: await countWrong() }
  rmSync(root + '/filler')
  const freedMs = performance.now()
  while ((await put(30_000)).status !== 204 && performance.now() - freedMs < 20_000) await sleep(20)
  const recoveryMs = performance.now() - freedMs
  held.add(30_000)
  const wrongAtLast = await countWrong()
  await stop()
  console.log(JSON.stringify({ otherShards, generations, reserve, stored, refusal, others, ready, metrics, wrong, deletes, restarted, recoveryMs, wrongAtLast, log }))
`

test('A server on a full disk refuses growth with 507, serves the rest, starts again, and takes writes 2 s after space came back', {
  timeout: 120_000,
}, (t) => {
  const root = mkdtempSync(join(tmpdir(), 'sunwise-full-'))
  t.after(() => rmSync(root, { recursive: true, force: true }))
  const mount = ['-rm', 'sh', '-c', `mount -t tmpfs -o size=384m none ${root} && exec "$0" "$@"`, process.execPath]
  if (spawnSync('unshare', [...mount, '-e', 'console.log(1)'], { encoding: 'utf8' }).stdout?.trim() !== '1') {
    t.skip('needs unshare')
    return
  }
  const main = join(import.meta.dirname, '../../src/main.ts')
  const args = [...mount, '--input-type=module', '-e', program, root, main]
  const { stdout, stderr, status } = spawnSync('unshare', args, { encoding: 'utf8', timeout: 100_000 })
  assert.equal(status, 0, `${stdout}\n${stderr}`)
  const found = JSON.parse(stdout) as Findings
  assert.ok(found.reserve > 1024 * 1024 && found.reserve <= 384 * 1024 * 1024 * (1 / 32), `${found.reserve} bytes`)
  assert.ok(found.stored > 20, `${found.stored} values`)
  assert.deepEqual(
    [found.refusal.status, found.refusal.body.code, found.refusal.body.outcome],
    [507, 'DISK_FULL', 'none'],
  )
  assert.deepEqual(new Set(found.others), new Set([507]), 'On every shard')
  const warned = { ok: true, reasons: [], warnings: ['the disk is full: writes that grow are refused'] }
  assert.deepEqual(found.ready, { status: 200, body: warned })
  assert.match(found.metrics, /^sunwise_disk_full 1$/m)
  assert.match(found.metrics, /^sunwise_disk_free_bytes \d+$/m)
  assert.match(found.metrics, /^sunwise_shard_write_refusal\{shard="1"\} 2$/m)
  assert.equal(found.wrong, 0, 'Reads are right')
  assert.deepEqual(new Set(found.deletes), new Set([204]))
  assert.match(found.otherShards, /no space is left.*start with --shards 2/)
  assert.deepEqual(found.generations, ['1'], 'What was dealt in vain is gone')
  assert.deepEqual(found.restarted, { ready: warned, put: 507, wrong: 0 })
  assert.ok(found.recoveryMs < 3000, `${found.recoveryMs} ms`)
  assert.equal(found.wrongAtLast, 0)
  assert.match(found.log, /The disk is full, \d+ MiB are free/)
  assert.match(found.log, /There is room on the disk again/)
})
