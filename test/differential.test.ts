/**
 * An embedded store whose data goes beyond its memory, against a map and against LMDB, with the same operations on all three: puts,
 * deletes, batches, times to live that do not end, several buckets and the deletion of one, stops and starts with other numbers of
 * shards. LMDB holds (partition, bucket, key), so that its order is that of lists. The three agree always.
 *
 * Not here: values that expire and crashes (test/storage/shard-model.test.ts has both), and versions that are siblings.
 */
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { open as openLmdb } from 'lmdb'
import { SeededRandom } from '../src/base/seeded-random.ts'
import { partitionOfSlot, slotOfKey } from '../src/cluster/slots.ts'
import { type BatchOperation, type BucketStore, open, type Store } from '../src/index.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const MiB = 1024 * 1024
const bucketNames = ['default', 'left', 'right'] as const
const keyCount = 6000
const deadline = 60_000

/** Bytes that tell the number of their write everywhere, so that no part of one value passes for one of another. */
function bytesOfWrite(number: number, bytes: number): Buffer {
  const value = Buffer.alloc(bytes)
  for (let at = 0; at + 4 <= bytes; at += 4) value.writeUInt32LE((number * 2_654_435_761 + at) >>> 0, at)
  return value
}

test('A store beyond its memory, a map and LMDB agree through everything that one can do', {
  timeout: 120_000 * Math.max(1, scale),
}, async (t) => {
  const seed = Number(process.env['SUNWISE_TEST_SEED'] ?? randomInt(2 ** 31))
  t.diagnostic(`SUNWISE_TEST_SEED=${seed}`)
  const random = new SeededRandom(seed)
  const root = mkdtempSync(join(tmpdir(), 'sunwise-differential-'))
  t.after(() => rmSync(root, { recursive: true, force: true }))
  const dir = join(root, 'data')
  const lmdb = openLmdb<Buffer, Buffer>({
    path: join(root, 'lmdb'),
    keyEncoding: 'binary',
    encoding: 'binary',
    noSync: true,
  })
  t.after(() => lmdb.close())
  const start = (shards: number): Promise<Store> =>
    open({ dir, shards, memoryBytes: (4 + 64 * shards) * MiB, durability: 'os' })
  let store = await start(1)
  for (const name of bucketNames.slice(1)) await store.putBucket(name)
  const model = new Map<string, Buffer>()
  const into = Buffer.alloc(64 * 1024)
  let writes = 0
  const tally = { puts: 0, deletes: 0, reads: 0, lists: 0, starts: 1, bucketsDeleted: 0, tables: 0 }

  const keyOf = (): Buffer => {
    const index = random.chance(1, 3) ? random.below(200) : random.below(keyCount)
    // Some partitions hold many keys, most hold few.
    return Buffer.from(index % 2 === 0 ? `{${index % 7}}key ${index}` : `key ${index}`)
  }
  const bucketOf = (bucket: number): BucketStore => store.bucket(bucketNames[bucket]!)

  const writeGroup = async (): Promise<void> => {
    const bucket = random.below(bucketNames.length)
    const operations: BatchOperation[] = []
    const expected: (Buffer | undefined | 'written')[] = []
    await lmdb.transaction(() => {
      for (let left = random.between(40, 120); left > 0; left--) {
        const key = keyOf()
        const row = rowOf(bucket, key)
        const name = row.toString('latin1')
        const draw = random.below(10)
        if (draw < 7) {
          const value = bytesOfWrite(++writes, random.chance(1, 20) ? random.below(60_000) : random.below(9000))
          const options = random.chance(1, 10) ? { options: { ttl: 3_600_000 } } : {}
          operations.push({ op: 'put', key, value, ...options })
          expected.push('written')
          model.set(name, value)
          lmdb.putSync(row, value)
          tally.puts++
        } else if (draw < 9) {
          operations.push({ op: 'delete', key })
          expected.push('written')
          model.delete(name)
          lmdb.removeSync(row)
          tally.deletes++
        } else {
          operations.push({ op: 'get', key })
          expected.push(model.get(name))
        }
      }
    })
    const results = await bucketOf(bucket).batch(operations, { deadline })
    for (const [index, { error, entry }] of results.entries()) {
      assert.equal(error, undefined)
      const wanted = expected[index]
      if (wanted !== 'written') assertSame(entry?.value, wanted, operations[index]!.key.toString())
    }
  }

  const readOne = async (): Promise<void> => {
    tally.reads++
    const bucket = random.below(bucketNames.length)
    const key = keyOf()
    const row = rowOf(bucket, key)
    const wanted = model.get(row.toString('latin1'))
    const what = `${bucketNames[bucket]} ${key}`
    assertSame(lmdb.get(row), wanted, `LMDB, ${what}`)
    const entry = await bucketOf(bucket).get(key, { deadline })
    assertSame(entry?.value, wanted, `get, ${what}`)
    assertSame(bucketOf(bucket).getSync(key), wanted, `getSync, ${what}`)
    const length = bucketOf(bucket).getInto(key, into)
    assertSame(length === -1 ? undefined : into.subarray(0, length), wanted, `getInto, ${what}`)
  }

  /** A prefix, or everything, of a bucket. */
  const list = async (bucket: number, prefix: string): Promise<void> => {
    tally.lists++
    const wanted = lmdb
      .getRange({})
      .filter(({ key }) => key[2] === bucket && key.toString('latin1', 3).startsWith(prefix))
    const rows = wanted[Symbol.iterator]()
    for await (const { key, value } of bucketOf(bucket).list({ ...(prefix === '' ? {} : { prefix }), deadline })) {
      const next = rows.next()
      assert.ok(next.done !== true, `The list has ${Buffer.from(key)} behind its end`)
      assert.equal(Buffer.from(key).toString(), next.value.key.toString('latin1', 3))
      assertSame(value, next.value.value, `list, ${Buffer.from(key)}`)
      assertSame(value, model.get(next.value.key.toString('latin1')), `list and map, ${Buffer.from(key)}`)
    }
    assert.equal(rows.next().done, true, 'The list is whole')
  }

  const groups = Math.ceil(200 * scale)
  try {
    for (let group = 0; group < groups; group++) {
      await writeGroup()
      for (let left = 10; left > 0; left--) await readOne()
      if (group % 20 === 7)
        await list(random.below(bucketNames.length), random.pick(['key 1', '{3}', '{5}key 10', 'key 99', 'no']))
      if (group % 67 === 40) {
        const bucket = random.between(1, bucketNames.length - 1)
        await store.deleteBucket(bucketNames[bucket]!)
        await store.putBucket(bucketNames[bucket]!)
        for (const name of [...model.keys()]) {
          if (name.charCodeAt(2) !== bucket) continue
          model.delete(name)
          lmdb.removeSync(Buffer.from(name, 'latin1'))
        }
        tally.bucketsDeleted++
        await list(bucket, '')
      }
      if (group % 50 === 49) {
        for (const bucket of bucketNames.keys()) await list(bucket, '')
        await store.close()
        store = await start(random.between(1, 3))
        tally.starts++
        for (const bucket of bucketNames.keys()) await list(bucket, '')
      }
    }
    tally.tables = readdirSync(dir, { recursive: true }).filter((name) => String(name).endsWith('.sst')).length
  } finally {
    await store.close()
  }
  t.diagnostic(JSON.stringify({ ...tally, keys: model.size }))
  for (const [what, count] of Object.entries(tally)) assert.ok(count > 0, `Some ${what}`)
})

function rowOf(bucket: number, key: Buffer): Buffer {
  const row = Buffer.alloc(3 + key.length)
  row.writeUInt16BE(partitionOfSlot(slotOfKey(key, 0, key.length)))
  row[2] = bucket
  key.copy(row, 3)
  return row
}

function assertSame(actual: Uint8Array | undefined, wanted: Uint8Array | undefined, what: string): void {
  const isSame = actual === undefined || wanted === undefined ? actual === wanted : Buffer.compare(actual, wanted) === 0
  assert.ok(isSame, `${what}: ${brief(actual)} instead of ${brief(wanted)}`)
}

const brief = (bytes: Uint8Array | undefined): string =>
  bytes === undefined ? 'nothing' : `${bytes.length} bytes ${Buffer.from(bytes.subarray(0, 8)).toString('hex')}`
