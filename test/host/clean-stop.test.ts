/** What a clean stop has written down is asked for at the next start: a log that ends earlier is damage, not a torn tail. */
import assert from 'node:assert/strict'
import { cpSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { checkLogs } from '../../src/host/log-check.ts'
import { startServer } from '../../src/host/server.ts'
import { open } from '../../src/index.ts'

const root = mkdtempSync(join(tmpdir(), 'sunwise-clean-stop-'))
const stopped = join(root, 'stopped')
const options = { shards: 1, memoryBytes: 160 * 1024 * 1024 }
const serverOptions = {
  ...options,
  http: { host: '127.0.0.1', port: 0 },
  durability: 'sync',
  syncIntervalMs: 100,
  valueBytesMax: 1024 * 1024,
  insecure: false,
  salvage: true,
  onFatal: (error: Error) => assert.fail(error),
} as const
const keys = Array.from({ length: 50 }, (_, index) => `key ${index}`)
const recordsMagic = Buffer.from('SWG1')

after(() => rmSync(root, { recursive: true, force: true }))

before(async () => {
  const store = await open({ ...options, dir: stopped })
  for (const key of keys) await store.put(key, key)
  await store.close()
})

/** Neither the socket of the lock nor the catalog's lock file belongs to the data. */
const isData = (path: string): boolean => !lstatSync(path).isSocket() && !path.endsWith('lock.mdb')

let copies = 0

function copyOf(): string {
  const copy = join(root, `copy-${copies++}`)
  cpSync(stopped, copy, { recursive: true })
  return copy
}

/** The file of the newest segment: a group says its segment's sequence at byte 8. */
function logOf(directory: string): string {
  const log = join(directory, 'log', '1', '0')
  const files = readdirSync(log).map((name) => ({ path: join(log, name), bytes: readFileSync(join(log, name)) }))
  const written = files.filter(({ bytes }) => bytes.subarray(0, 4).equals(recordsMagic))
  written.sort((a, b) => a.bytes.readUInt32LE(8) - b.bytes.readUInt32LE(8))
  return written.at(-1)!.path
}

const damages: readonly (readonly [string, number, (path: string) => void])[] = [
  ['is gone', 0, (path) => rmSync(path)],
  ['is empty', 0, (path) => truncateSync(path, 0)],
  [
    'lacks its last group',
    keys.length - 1,
    (path) => {
      const bytes = readFileSync(path)
      bytes.fill(0, bytes.lastIndexOf(recordsMagic))
      writeFileSync(path, bytes)
    },
  ],
]

for (const [what, left, damage] of damages) {
  test(`A log whose newest segment ${what} is refused after a clean stop; salvage keeps the rest`, async () => {
    const dir = copyOf()
    damage(logOf(dir))
    const [finding] = await checkLogs(dir)
    assert.equal(finding!.error?.code, 'LOG_CORRUPT')
    await assert.rejects(open({ ...options, dir }), { code: 'LOG_CORRUPT' })
    await assert.rejects(open({ ...options, dir, shards: 2 }), { code: 'LOG_CORRUPT' }, 'Dealt to other shards, too')
    const said: string[] = []
    const salvaging = await startServer({ ...serverOptions, directory: dir, log: (line) => said.push(line) })
    await salvaging.close()
    assert.ok(
      said.some((line) => /[Ss]alvaged around damage/.test(line)),
      said.join(),
    )
    await using store = await open({ ...options, dir })
    const kept = keys.filter((key) => store.getSync(key) !== undefined).length
    assert.equal(kept, left)
  })
}

test('A whole log opens after a clean stop, as often as one likes, and after a stop that was not clean', async () => {
  const dir = copyOf()
  for (let start = 0; start < 3; start++) {
    const store = await open({ ...options, dir })
    for (const key of keys) assert.equal(Buffer.from(store.getSync(key)!).toString(), key)
    await store.put(`start ${start}`, 'x')
    await store.close()
  }
  await using store = await open({ ...options, dir, shards: 2 })
  for (const key of [...keys, 'start 0', 'start 2']) assert.ok(store.getSync(key) !== undefined)
})

test('While a node runs nothing is promised about the end of its log', async () => {
  const dir = copyOf()
  const store = await open({ ...options, dir })
  const running = join(root, 'running')
  await store.put('late', 'x')
  cpSync(dir, running, { recursive: true, filter: isData })
  await store.close()
  const path = logOf(running)
  const bytes = readFileSync(path)
  bytes.fill(0, bytes.lastIndexOf(recordsMagic))
  writeFileSync(path, bytes)
  await using again = await open({ ...options, dir: running })
  for (const key of keys) assert.ok(again.getSync(key) !== undefined)
})
