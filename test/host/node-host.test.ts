/** The node thread's object: what a start leaves behind when it fails, and what it keeps from run to run. */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { ErrorCode } from '../../src/base/errors.ts'
import { SunwiseError } from '../../src/base/errors.ts'
import { type Config, ConfigDefaults } from '../../src/config.ts'
import { HostCatalog } from '../../src/host/catalog.ts'
import { acquireDirectoryLock } from '../../src/host/directory-lock.ts'
import { NodeHost } from '../../src/host/node-host.ts'
import { NodeRecord } from '../../src/host/node-record.ts'
import { open } from '../../src/index.ts'

const MiB = 1024 * 1024
const root = mkdtempSync(join(tmpdir(), 'sunwise-node-'))
let directories = 0
const newDirectory = (): string => join(root, `data-${directories++}`)

after(() => rmSync(root, { recursive: true, force: true }))

function start(directory: string, changes: Partial<Config> = {}, log: string[] = []): Promise<NodeHost> {
  const config: Config = { ...ConfigDefaults, directory, shards: 1, memoryBytes: 96 * MiB, ...changes }
  return NodeHost.start(
    {
      config,
      http: undefined,
      frontEnd: false,
      salvage: false,
      log: (line) => log.push(line),
      onFatal: (error) => assert.fail(error),
    },
    64,
  )
}

async function rejectsWith(code: ErrorCode, promise: Promise<unknown>): Promise<SunwiseError> {
  const [outcome] = await Promise.allSettled([promise])
  assert.equal(outcome.status, 'rejected')
  const { reason } = outcome as PromiseRejectedResult
  assert.ok(reason instanceof SunwiseError, String(reason))
  assert.equal(reason.code, code, reason.message)
  return reason
}

/** The rows of a node that is not running. */
async function rowsOf<Row>(directory: string, read: (record: NodeRecord) => Row | Promise<Row>): Promise<Row> {
  const catalog = await HostCatalog.open(join(directory, 'catalog'))
  try {
    return await read(new NodeRecord(catalog))
  } finally {
    await catalog.close()
  }
}

test('NodeHost.start() makes a directory that only its owner can enter, and all shards serve', async () => {
  const directory = join(newDirectory(), 'deep', 'inside')
  const node = await start(directory, { shards: 2, memoryBytes: 160 * MiB })
  assert.equal(node.shards, 2)
  assert.equal(statSync(directory).mode & 0o777, 0o700)
  assert.equal(node.memories.length, 2)
  assert.equal(node.httpCounters.length, 2)
  assert.deepEqual(node.problems, [])
  assert.equal(node.crashes, 0)
  assert.deepEqual(readdirSync(join(directory, 'log', '1')).sort(), ['0', '1'])
  await node.drain(100)
  assert.deepEqual(node.problems, ['the node is stopping'])
  await node.close()
})

test('NodeHost keeps identity and actor over clean stops, and notes unsynced writes only while they may exist', async () => {
  const directory = newDirectory()
  const first = await start(directory, { durability: 'os' })
  const { nodeId } = first.identity
  await first.close()
  const actor = await rowsOf(directory, (record) => {
    assert.equal(record.isUnsynced, false, 'A clean stop clears the note')
    return record.actor
  })
  const second = await start(directory)
  assert.equal(second.identity.nodeId, nodeId)
  await second.close()
  assert.deepEqual(await rowsOf(directory, (record) => record.actor), actor)
})

test('NodeHost takes a new actor where the note of unsynced writes was left', async () => {
  const directory = newDirectory()
  await (await start(directory)).close()
  const before = await rowsOf(directory, async (record) => {
    await record.noteUnsynced(1)
    return record.actor!
  })
  await (await start(directory)).close()
  const now = await rowsOf(directory, (record) => record.actor!)
  assert.notDeepEqual([now.low, now.high], [before.low, before.high])
  assert.deepEqual([now.device, now.inode], [before.device, before.inode])
})

test('NodeHost.start() that fails leaves the directory free', async () => {
  const directory = newDirectory()
  const error = await rejectsWith('BAD_CONFIG', start(directory, { memoryBytes: 20 * MiB }))
  assert.match(error.message, /--memory \d+mb/)
  const least = Number(/--memory (\d+)mb/.exec(error.message)![1])
  await (await acquireDirectoryLock(directory)).release()
  // What the message says is enough, is enough.
  await (await start(directory, { memoryBytes: (least + 1) * MiB })).close()
})

test('NodeHost.start() refuses a directory of another format', async () => {
  const directory = newDirectory()
  await (await start(directory)).close()
  await rowsOf(directory, async (record) => {
    await record.putIdentity({ ...record.identity!, format: 99 })
  })
  const error = await rejectsWith('CATALOG_CORRUPT', start(directory))
  assert.match(error.message, /format 99/)
  await (await acquireDirectoryLock(directory)).release()
})

test('NodeHost.start() refuses a directory that another node holds', async () => {
  const directory = newDirectory()
  const node = await start(directory)
  await rejectsWith('DIRECTORY_LOCKED', start(directory))
  assert.deepEqual(node.problems, [])
  await node.close()
})

test('NodeHost deals the log anew for other shards, and removes the old generation', async () => {
  const directory = newDirectory()
  const log: string[] = []
  await (await start(directory)).close()
  const node = await start(directory, { shards: 3, memoryBytes: 256 * MiB }, log)
  assert.equal(node.shards, 3)
  await node.close()
  assert.ok(log.some((line) => /Dealt \d+ log records of 1 shards to 3/.test(line)))
  assert.deepEqual(readdirSync(join(directory, 'log')), ['2'])
  const row = await rowsOf(directory, (record) => record.log!)
  assert.equal(row.generation, 2)
  assert.deepEqual(row.retired, [])
})

test('NodeHost.start() finishes the removal of a generation that a crash left', async () => {
  const directory = newDirectory()
  await (await start(directory)).close()
  await (await start(directory, { shards: 2, memoryBytes: 160 * MiB })).close()
  await rowsOf(directory, async (record) => {
    await record.putLog({ ...record.log!, retired: [1] })
  })
  await (await start(directory, { shards: 2, memoryBytes: 160 * MiB })).close()
  assert.equal(existsSync(join(directory, 'log', '1')), false)
  assert.deepEqual((await rowsOf(directory, (record) => record.log!)).retired, [])
})

test('NodeHost.admin() changes buckets durably and one after the other', async () => {
  const directory = newDirectory()
  const node = await start(directory)
  const made = await Promise.all(
    ['a', 'b', 'c'].map((name) => node.admin({ op: 'putBucket', name, properties: { ttlMs: 1000 } })),
  )
  const ids = (made as { bucket: { id: number } }[]).map(({ bucket }) => bucket.id)
  assert.equal(new Set(ids).size, 3)
  await node.admin({ op: 'deleteBucket', name: 'b' })
  await rejectsWith('BUCKET_NOT_FOUND', node.admin({ op: 'deleteBucket', name: 'b' }))
  await rejectsWith('CONFLICT', node.admin({ op: 'deleteBucket', name: 'default' }))
  await rejectsWith('BAD_BUCKET', node.admin({ op: 'putBucket', name: 'd', properties: { n: 6 } }))
  await node.close()
  const names = await rowsOf(directory, (record) => record.buckets().map(({ name }) => name))
  assert.deepEqual(names.sort(), ['a', 'c', 'default'])
  const again = await start(directory)
  const { bucket } = (await again.admin({ op: 'putBucket', name: 'b', properties: {} })) as { bucket: { id: number } }
  assert.ok(!ids.includes(bucket.id), 'A bucket id is never used again')
  await again.close()
})

for (const shards of [1, 2, 3]) {
  test(`NodeHost.start() with ${shards} shards does not take a missing log of one of two for an empty one`, async () => {
    const directory = newDirectory()
    const memoryBytes = 256 * MiB
    await (await start(directory, { shards: 2, memoryBytes })).close()
    rmSync(join(directory, 'log', '1', '1'), { recursive: true })
    const error = await rejectsWith('LOG_CORRUPT', start(directory, { shards, memoryBytes }))
    assert.match(error.message, /shard 1/)
    assert.deepEqual(error.extra, { path: 'log/1/1' })
    assert.deepEqual(readdirSync(join(directory, 'log')), ['1'], 'Nothing was dealt')
  })
}

test('NodeHost.start() refuses logs that its catalog does not know, and goes on when the catalog is back', async () => {
  const directory = newDirectory()
  await (await start(directory)).close()
  const catalog = join(directory, 'catalog')
  renameSync(catalog, `${catalog}.kept`)
  for (let attempt = 0; attempt < 2; attempt++) await rejectsWith('CATALOG_CORRUPT', start(directory))
  rmSync(catalog, { recursive: true })
  renameSync(`${catalog}.kept`, catalog)
  await (await start(directory)).close()
})

test("NodeHost.start() refuses the logs of two shards in each other's place", async () => {
  const directory = newDirectory()
  const changes = { shards: 2, memoryBytes: 160 * MiB }
  const log = join(directory, 'log', '1')
  const first = await open({ dir: directory, ...changes })
  for (let key = 0; key < 50; key++) await first.put(`key ${key}`, 'value')
  await first.close()
  renameSync(join(log, '0'), join(log, 'aside'))
  renameSync(join(log, '1'), join(log, '0'))
  renameSync(join(log, 'aside'), join(log, '1'))
  await rejectsWith('LOG_CORRUPT', start(directory, changes))
})
