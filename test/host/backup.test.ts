/** Backups through the library, as its users make them: what is in them, what they cost again, and what is said of damage. */
import assert from 'node:assert/strict'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { open as openFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, before, mock, test } from 'node:test'
import type { ErrorCode } from '../../src/base/errors.ts'
import { SunwiseError } from '../../src/base/errors.ts'
import { restoreBackup, verifyBackup } from '../../src/host/backup.ts'
import { manifestName, readManifest, restoringName } from '../../src/host/backup-manifest.ts'
import { createBackup } from '../../src/host/backup-source.ts'
import { HostCatalog } from '../../src/host/catalog.ts'
import { ControlClient } from '../../src/host/control-socket.ts'
import { NodeRecord } from '../../src/host/node-record.ts'
import { type OpenOptions, open, type Store } from '../../src/index.ts'

const MiB = 1024 * 1024
const root = mkdtempSync(join(tmpdir(), 'sunwise-backup-'))
let directories = 0
const newDirectory = (name: string): string => join(root, `${name}-${directories++}`)
const nothing = (): void => {}

after(() => rmSync(root, { recursive: true, force: true }))

const openStore = (dir: string, options: Partial<OpenOptions> = {}): Promise<Store> =>
  open({ dir, shards: 1, memoryBytes: 72 * MiB, valueBytesMax: 16_384, durability: 'os', ...options })

const contentOf = (key: number, round: number): string => `${key}/${round}/${'x'.repeat(4000 + (key % 7) * 300)}`

/** Writes keys `from` to `to`, and lets none be under way afterwards. */
async function fill(store: Store, from: number, to: number, round: number): Promise<void> {
  for (let first = from; first < to; first += 256) {
    const keys = Array.from({ length: Math.min(256, to - first) }, (_, index) => first + index)
    await Promise.all(keys.map((key) => store.put(`key ${key}`, contentOf(key, round))))
  }
}

async function textOf(store: Store, key: number): Promise<string | undefined> {
  const entry = await store.get(`key ${key}`)
  return entry === undefined ? undefined : new TextDecoder().decode(entry.value)
}

async function rejectsWith(code: ErrorCode, promise: Promise<unknown>): Promise<SunwiseError> {
  const [outcome] = await Promise.allSettled([promise])
  assert.equal(outcome.status, 'rejected')
  const { reason } = outcome as PromiseRejectedResult
  assert.ok(reason instanceof SunwiseError, String(reason))
  assert.equal(reason.code, code, reason.message)
  return reason
}

async function actorOf(directory: string): Promise<string> {
  const catalog = await HostCatalog.open(join(directory, 'catalog'))
  try {
    const { low, high } = new NodeRecord(catalog).actor!
    return `${low}/${high}`
  } finally {
    await catalog.close()
  }
}

const tablesOf = (backups: string): string[] => readdirSync(join(backups, 'tables')).sort()

/** A data directory with tables and a log, and a backup of it that no test changes. */
const present = { data: newDirectory('data'), backups: newDirectory('backups') }
const keys = 16_000

before(async () => {
  await using store = await openStore(present.data)
  await fill(store, 0, keys, 1)
  await store.putBucket('other', { ttlMs: 3_600_000 })
  await store.bucket('other').put('a', 'b')
  await store.backup(present.backups)
})

test('Store.backup() has every write that was acknowledged before it, while writes go on', async () => {
  const [data, backups, restored] = [newDirectory('data'), newDirectory('backups'), newDirectory('restored')]
  const deleted = 500
  {
    await using store = await openStore(data, { shards: 2, memoryBytes: 140 * MiB })
    await fill(store, 0, 2 * keys, 1)
    for (let key = 0; key < deleted; key++) await store.delete(`key ${key}`)
    await store.putBucket('other')
    await store.bucket('other').put('a', 'b')
    let rounds = 0
    let isOver = false
    const writing = (async () => {
      for (let round = 2; !isOver; round++) {
        await fill(store, deleted, 4000, round)
        rounds = round
      }
    })()
    const seen: number[] = []
    await store.backup(backups, { onProgress: ({ bytes }) => seen.push(bytes) })
    isOver = true
    await writing
    assert.ok(rounds >= 2, 'Writes went on')
    assert.ok(seen.length > 2 && seen.every((bytes, index) => index === 0 || bytes >= seen[index - 1]!))
  }
  assert.ok(tablesOf(backups).length > 0, 'Some of it stands in tables')
  assert.deepEqual(await verifyBackup(backups, 1, nothing), [])
  await restoreBackup(backups, 1, restored, nothing)
  for (const shards of [2, 1]) {
    await using store = await openStore(restored, { shards, memoryBytes: 140 * MiB })
    for (let key = 0; key < 2 * keys; key++) {
      const text = await textOf(store, key)
      if (key < deleted) assert.equal(text, undefined, `key ${key} was deleted before`)
      else if (key >= 4000) assert.equal(text, contentOf(key, 1))
      else
        assert.equal(text, contentOf(key, Number(text?.split('/')[1] ?? 0)), `key ${key} has a value that it once had`)
    }
    assert.equal(new TextDecoder().decode((await store.bucket('other').get('a'))?.value), 'b')
    await fill(store, 0, 10, 99)
    assert.equal(await textOf(store, 5), contentOf(5, 99))
    await store.delete('key 5')
    for (let key = 0; key < deleted; key++) await store.delete(`key ${key}`)
  }
  assert.notEqual(await actorOf(restored), await actorOf(data), 'What it writes has another name')
})

test('a backup of a directory that nobody uses is the same, and locks it meanwhile', async () => {
  const [backups, restored] = [newDirectory('backups'), newDirectory('restored')]
  const { number } = await createBackup({
    dataDirectory: present.data,
    directory: backups,
    keep: 1,
    onProgress: nothing,
  })
  assert.equal(number, 1)
  await restoreBackup(backups, 1, restored, nothing)
  await using store = await openStore(restored)
  for (let key = 0; key < keys; key += 7) assert.equal(await textOf(store, key), contentOf(key, 1))
  const other = store.buckets().find(({ name }) => name === 'other')
  assert.equal(other?.ttlMs, 3_600_000)
})

test('a second backup copies only new tables; the oldest beyond `keep` go, and what only they named', async () => {
  const backups = newDirectory('backups')
  cpSync(present.data, `${present.data}-copy`, { recursive: true, filter: (path) => !/\/(lock\.|control)/.test(path) })
  await using store = await openStore(`${present.data}-copy`)
  const first = await store.backup(backups, { keep: 2 })
  const early = new Set(tablesOf(backups))
  const second = await store.backup(backups, { keep: 2 })
  assert.ok(first.bytes > 4 * MiB && early.size > 0)
  assert.equal(first.bytesCopied, first.bytes)
  // What was merged between the two is new.
  const fresh = readManifest(backups, 2).files.filter(([path]) => !early.has(path.replace('tables/', '')))
  const freshBytes = fresh.reduce((sum, [, bytes]) => sum + bytes, 0)
  assert.ok(second.bytesCopied <= freshBytes, `${second.bytesCopied} bytes copied, of ${freshBytes} that are new`)
  for (let round = 2; round < 8; round++) {
    await fill(store, 0, keys, round)
    await store.backup(backups, { keep: 2 })
  }
  assert.deepEqual(
    readdirSync(backups).filter((name) => name.endsWith('.json')),
    [manifestName(7), manifestName(8)],
  )
  assert.deepEqual(readdirSync(join(backups, 'logs')), ['000007', '000008'])
  const named = new Set([7, 8].flatMap((number) => readManifest(backups, number).files.map(([path]) => path)))
  assert.deepEqual(
    tablesOf(backups),
    [...named].flatMap((path) => (path.startsWith('tables/') ? [path.slice(7)] : [])).sort(),
  )
  assert.ok(tablesOf(backups).some((name) => !early.has(name)))
  assert.deepEqual(await verifyBackup(backups, 7, nothing), [])
  assert.deepEqual(await verifyBackup(backups, 8, nothing), [])
})

test('verify names every file that is not as it was written, and restore refuses it before it changes anything', async () => {
  const backups = newDirectory('backups')
  cpSync(present.backups, backups, { recursive: true })
  const { files } = readManifest(backups, 1)
  assert.ok(files.some(([path]) => path.startsWith('tables/')) && files.some(([path]) => path.startsWith('logs/')))
  for (const [index, [path, bytes]] of files.entries()) {
    const file = join(backups, path)
    const whole = readFileSync(file)
    assert.equal(whole.length, bytes)
    if (index % 3 === 0) {
      const flipped = Buffer.from(whole)
      const at = (bytes * 7919) % Math.max(1, bytes - 1)
      flipped[at] = flipped[at]! ^ (1 << (index % 8))
      writeFileSync(file, flipped)
    } else if (index % 3 === 1) truncateSync(file, bytes - 1)
    else unlinkSync(file)
    const findings = await verifyBackup(backups, 1, nothing)
    assert.equal(findings.length, 1)
    assert.ok(findings[0]!.startsWith(`${path}: `), findings[0]!)
    const target = newDirectory('restored')
    const { message } = await rejectsWith('BACKUP_CORRUPT', restoreBackup(backups, 1, target, nothing))
    assert.ok(message.includes(path))
    assert.equal(existsSync(target), false)
    writeFileSync(file, whole)
  }
  assert.deepEqual(await verifyBackup(backups, 1, nothing), [])
  // What is removed is copied anew, and the earlier backup is whole again.
  const [lost] = tablesOf(backups)
  unlinkSync(join(backups, 'tables', lost!))
  const options = { dataDirectory: present.data, directory: backups, keep: 3, onProgress: nothing, checks: true }
  await createBackup(options)
  for (const number of [1, 2]) assert.deepEqual(await verifyBackup(backups, number, nothing), [])
})

test('a manifest is refused when a bit of it is flipped, when its end is missing, and when it names files elsewhere', () => {
  const backups = newDirectory('backups')
  mkdirSync(backups)
  const whole = readFileSync(join(present.backups, manifestName(1)))
  const refuses = (content: Buffer): void => {
    writeFileSync(join(backups, manifestName(1)), content)
    assert.throws(() => readManifest(backups, 1), { code: 'BACKUP_CORRUPT' })
  }
  for (let bit = 0; bit < whole.length * 8; bit += 997) {
    const flipped = Buffer.from(whole)
    flipped[bit >> 3] = flipped[bit >> 3]! ^ (1 << (bit & 7))
    // The line's end may turn into something else, but no bit of it is without meaning.
    if (bit >> 3 < whole.length - 1) refuses(flipped)
  }
  for (let bytes = 0; bytes < whole.length - 1; bytes += 501) refuses(whole.subarray(0, bytes))
})

test('a backup goes only where there is nothing else, and nothing starts on one', async () => {
  await using store = await openStore(newDirectory('data'))
  await store.put('a', 'b')
  const strange = newDirectory('strange')
  mkdirSync(strange)
  writeFileSync(join(strange, 'letters'), 'dear')
  await rejectsWith('DIRECTORY_UNUSABLE', store.backup(strange))
  assert.deepEqual(readdirSync(strange), ['letters'])
  const { dataDirectory } = { dataDirectory: present.data }
  const tables = readdirSync(join(dataDirectory, 'tables'))
  await rejectsWith('DIRECTORY_UNUSABLE', store.backup(dataDirectory))
  assert.deepEqual(readdirSync(join(dataDirectory, 'tables')), tables)
  const { message } = await rejectsWith('BACKUP_CORRUPT', store.backup(present.backups))
  assert.match(message, /another node/)
  const before = tablesOf(present.backups)
  await rejectsWith('DIRECTORY_UNUSABLE', openStore(present.backups))
  assert.deepEqual(tablesOf(present.backups), before)
  await rejectsWith('DIRECTORY_UNUSABLE', restoreBackup(present.backups, 1, present.data, nothing))
  const none = newDirectory('none')
  await rejectsWith(
    'DIRECTORY_UNUSABLE',
    createBackup({ dataDirectory: none, directory: newDirectory('backups'), keep: 1, onProgress: nothing }),
  )
})

test('a backup removes nothing that is not of backups, wherever it lies', async () => {
  await using store = await openStore(newDirectory('data'))
  await store.put('a', 'b')
  for (const [folder, name] of [
    ['tables', 'customers.csv'],
    ['tables', 'letters.part'],
    ['tables', '0123456789abcdef'],
    ['logs', 'app.log'],
    ['', 'draft.json.part'],
  ] as const) {
    const strange = newDirectory('strange')
    mkdirSync(join(strange, folder), { recursive: true })
    writeFileSync(join(strange, folder, name), 'dear')
    const { message } = await rejectsWith('DIRECTORY_UNUSABLE', store.backup(strange))
    assert.ok(message.includes(name), message)
    assert.deepEqual(readdirSync(join(strange, folder)), [name])
  }
  const shared = newDirectory('backups')
  await store.backup(shared)
  mkdirSync(join(shared, 'tables', 'notes'))
  await rejectsWith('DIRECTORY_UNUSABLE', store.backup(shared))
  assert.ok(existsSync(join(shared, 'tables', 'notes')))
})

test('a backup and what it is of do not lie in each other; a refusal changes nothing', async () => {
  const data = newDirectory('data')
  await using store = await openStore(data)
  await store.put('a', 'b')
  const link = newDirectory('link')
  symlinkSync(data, link)
  for (const inside of [
    data,
    join(data, 'backups'),
    join(data, 'tables', 'b'),
    join(link, 'x', 'y'),
    `${data}/../${basename(data)}/z`,
  ]) {
    await rejectsWith('DIRECTORY_UNUSABLE', store.backup(inside))
    assert.equal(existsSync(inside) && inside !== data, false, inside)
  }
  await rejectsWith('DIRECTORY_UNUSABLE', store.backup(''))
  const backups = newDirectory('backups')
  await store.backup(backups)
  const before = readdirSync(backups)
  for (const target of [backups, join(backups, 'new'), join(backups, 'tables', 'new')]) {
    await rejectsWith('DIRECTORY_UNUSABLE', restoreBackup(backups, 1, target, nothing))
    assert.deepEqual(readdirSync(backups), before)
  }
  const strange = newDirectory('strange')
  mkdirSync(strange)
  writeFileSync(join(strange, 'letters'), 'dear')
  await rejectsWith('DIRECTORY_UNUSABLE', restoreBackup(backups, 1, strange, nothing))
  assert.deepEqual(readdirSync(strange), ['letters'], 'not even the name of a lock')
  await store.backup(backups)
})

test('a target that cannot be a directory is refused as such', { timeout: 60_000 }, async () => {
  await using store = await openStore(newDirectory('data'))
  const file = newDirectory('file')
  writeFileSync(file, '')
  const dangling = newDirectory('dangling')
  symlinkSync(join(root, 'nowhere'), dangling)
  for (const target of [file, join(file, 'below'), dangling, '/proc/sunwise/below']) {
    await rejectsWith('DIRECTORY_UNUSABLE', store.backup(target))
    await rejectsWith('DIRECTORY_UNUSABLE', restoreBackup(present.backups, 1, target, nothing))
  }
})

test('a restore that was cut short keeps a node from starting, and can be done again', async () => {
  const restored = newDirectory('restored')
  let isFirst = true
  await assert.rejects(
    restoreBackup(present.backups, 1, restored, ({ files }) => {
      if (files === 2 && isFirst) throw new Error('cut')
      isFirst = files < 2
    }),
  )
  assert.ok(existsSync(join(restored, restoringName)))
  const { message } = await rejectsWith('DIRECTORY_UNUSABLE', openStore(restored))
  assert.match(message, /restore to it again/)
  await restoreBackup(present.backups, 1, restored, nothing)
  await using store = await openStore(restored)
  for (let key = 0; key < keys; key += 11) assert.equal(await textOf(store, key), contentOf(key, 1))
})

test('a full disk fails a backup with DISK_FULL; the earlier ones are whole, and the next attempt succeeds', async () => {
  const backups = newDirectory('backups')
  await using store = await openStore(newDirectory('data'))
  await fill(store, 0, keys, 1)
  await store.backup(backups)
  await fill(store, 0, keys, 2)
  const handle = await openFile(join(root, 'any'), 'w')
  const prototype = Object.getPrototypeOf(handle) as { write: (...values: unknown[]) => Promise<unknown> }
  await handle.close()
  const { write } = prototype
  for (const nth of [1, 20, 60]) {
    let calls = 0
    const full = mock.method(prototype, 'write', function (this: unknown, ...values: unknown[]) {
      if (++calls >= nth) return Promise.reject(Object.assign(new Error('no space'), { code: 'ENOSPC' }))
      return write.apply(this as never, values)
    })
    await rejectsWith('DISK_FULL', store.backup(backups)).finally(() => full.mock.restore())
    assert.deepEqual(await verifyBackup(backups, 1, nothing), [])
    assert.equal(existsSync(join(backups, manifestName(2))), false)
  }
  await store.backup(backups)
  assert.deepEqual(await verifyBackup(backups, 2, nothing), [])
  assert.deepEqual(
    tablesOf(backups).filter((name) => name.endsWith('.part')),
    [],
  )
})

test('one backup at a time; one that is aborted, or whose asker goes away, lets go of the files', async () => {
  const data = newDirectory('data')
  await using store = await openStore(data)
  await fill(store, 0, keys, 1)
  const client = await ControlClient.connect(data)
  assert.ok(client !== undefined)
  await client.hold()
  await rejectsWith('OVERLOADED', store.backup(newDirectory('backups')))
  const held = readdirSync(join(data, 'tables'))
  await client.check()
  await client.releaseLogs()
  for (let round = 2; round < 6; round++) await fill(store, 0, keys, round)
  const during = new Set(readdirSync(join(data, 'tables')))
  assert.ok(
    held.every((name) => during.has(name)),
    'Tables stay while they are held',
  )
  client.close()
  for (let round = 6; held.every((name) => existsSync(join(data, 'tables', name))); round++) {
    assert.ok(round < 60, 'What was held goes in the end')
    await fill(store, 0, 1000, round)
  }
  const backups = newDirectory('backups')
  const aborting = new AbortController()
  const { outcome } = await rejectsWith(
    'ABORTED',
    store.backup(backups, { signal: aborting.signal, onProgress: () => aborting.abort() }),
  )
  assert.equal(outcome, 'none')
  assert.deepEqual(
    readdirSync(backups).filter((name) => name.endsWith('.json')),
    [],
  )
  await store.backup(backups)
  assert.deepEqual(await verifyBackup(backups, 1, nothing), [])
})

test('the control socket answers nonsense with an error, takes no long lines, and is replaced after a crash', async () => {
  const data = newDirectory('data')
  {
    await using store = await openStore(data)
    await store.put('a', 'b')
    const client = await ControlClient.connect(data)
    await rejectsWith('BAD_REQUEST', client!.check())
    await rejectsWith('BAD_REQUEST', client!.releaseLogs())
    client!.close()
    const { createConnection } = await import('node:net')
    const socket = createConnection(join(data, 'control'))
    const answer = await new Promise<string>((resolve) => {
      socket.on('data', (bytes) => resolve(bytes.toString()))
      socket.write('what?\n')
    })
    assert.equal(JSON.parse(answer).error.code, 'BAD_REQUEST')
    const closed = new Promise((resolve) => socket.on('close', resolve))
    socket.on('error', nothing)
    socket.write('x'.repeat(5000))
    await closed
  }
  assert.equal(await ControlClient.connect(data), undefined)
  // What a dead node left has the name, but listens to nobody.
  writeFileSync(join(data, 'control'), '')
  await using store = await openStore(data)
  await store.backup(newDirectory('backups'))
  assert.equal(new TextDecoder().decode((await store.get('a'))?.value), 'b')
})

test('a table that is missing at its source, or lost its end, fails the backup and is named', async () => {
  const data = newDirectory('data')
  cpSync(present.data, data, { recursive: true, filter: (path) => !/\/(lock\.|control)/.test(path) })
  const [table] = readdirSync(join(data, 'tables'))
  renameSync(join(data, 'tables', table!), join(data, 'gone'))
  const backups = newDirectory('backups')
  const options = { dataDirectory: data, directory: backups, keep: 1, onProgress: nothing }
  const { message } = await rejectsWith('TABLE_CORRUPT', createBackup(options))
  assert.ok(message.includes(`${table!}": it is missing`), message)
  writeFileSync(join(data, 'tables', table!), readFileSync(join(data, 'gone')).subarray(0, 70_000))
  const short = await rejectsWith('TABLE_CORRUPT', createBackup(options))
  assert.match(short.message, /it ends after 70000 of \d+ bytes/)
  renameSync(join(data, 'gone'), join(data, 'tables', table!))
  await createBackup(options)
})
