/** What a shard does with commands: groups, order, visibility, preconditions, caps, and what it says of each. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { Limits, versionSetBytesMax } from '../../src/config.ts'
import type { ReadAnswer, WriteAnswer, WriteOptions } from '../../src/replication/requests.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { bytesOf, textOf } from '../storage/store-rig.ts'
import { bucketOf, type Result, ShardRig, type ShardRigOptions, send } from './shard-rig.ts'

const bucket = bucketOf()
const key = bytesOf('key')

function openRig(options: Partial<ShardRigOptions> = {}): { rig: ShardRig; disk: SimDisk; clock: SimClock } {
  const disk = options.disk ?? new SimDisk()
  const clock = options.clock ?? new SimClock()
  const rig = new ShardRig({ ...options, disk, clock }).open(() => disk.drain(new SeededRandom(1)))
  disk.drain(new SeededRandom(1))
  return { rig, disk, clock }
}

const sendPut = (rig: ShardRig, text: string, options: WriteOptions = {}, of = key): Result<WriteAnswer> =>
  send((done) => rig.coordinator.put(bucket, of, bytesOf(text), options, done))
const sendDelete = (rig: ShardRig, options: WriteOptions = {}): Result<WriteAnswer> =>
  send((done) => rig.coordinator.delete(bucket, key, options, done))
const textsOf = ({ values }: ReadAnswer): string[] => values.map(({ value }) => textOf(value)).sort()
/** A read that lets no time pass. */
const readNow = (rig: ShardRig): ReadAnswer =>
  send<ReadAnswer>((done) => rig.coordinator.get(bucket, key, {}, done)).answer!
const codeOf = ({ error }: Result<unknown>): string | undefined =>
  error === undefined ? undefined : `${error.code} ${error.outcome}`

test('Shard: what comes in one turn is one write and one sync, and is answered after it', () => {
  const { rig, disk } = openRig()
  rig.put(key, bytesOf('before'))
  const { write, sync } = disk.calls
  const results = Array.from({ length: 50 }, (_, index) => sendPut(rig, `value ${index}`, {}, bytesOf(`key ${index}`)))
  assert.ok(results.every(({ calls }) => calls === 0))
  rig.turn()
  assert.ok(results.every(({ calls, error }) => calls === 1 && error === undefined))
  // Fifty records of some 40 bytes fit into one segment.
  assert.deepEqual([disk.calls.write - write, disk.calls.sync - sync], [1, 1])
})

test('Shard: nobody sees a synced write before it is on stable storage, and answers keep the order of commands', () => {
  const { rig, disk } = openRig({ disk: new SimDisk({ completions: 'queued' }), segmentBytes: 1 << 20, segments: 12 })
  const random = new SeededRandom(2)
  const results = [
    sendPut(rig, 'first'),
    sendDelete(rig),
    sendPut(rig, 'second'),
    sendPut(rig, 'other', {}, bytesOf('o')),
  ]
  rig.turn()
  assert.ok(disk.pendingOperations > 0, 'A sync is under way')
  assert.deepEqual(
    results.map(({ calls }) => calls),
    [0, 0, 0, 0],
  )
  assert.deepEqual(textsOf(readNow(rig)), [])
  // What comes while the sync is under way waits for the next one.
  const late = sendPut(rig, 'late')
  rig.turn()
  assert.equal(late.calls, 0)
  assert.equal(rig.shards[0]!.store.nextOrdinal, 5, 'It has been taken')
  while (results[0]!.calls === 0) {
    assert.ok(disk.step(random))
    rig.deliverReplies()
  }
  assert.ok(results.every(({ calls, answer }) => calls === 1 && answer!.receipt.durable))
  assert.deepEqual(textsOf(readNow(rig)), ['second'])
  assert.equal(late.calls, 0)
  disk.drain(random)
  rig.deliverReplies()
  assert.equal(late.answer?.receipt.durable, true)
  assert.deepEqual(textsOf(readNow(rig)), ['late'])
})

test('Shard: a write below sync is synced until the catalog knows of such writes, and not afterwards', () => {
  for (const unsyncedNoted of [false, true]) {
    const { rig, disk } = openRig({ unsyncedNoted })
    const { sync } = disk.calls
    const first = sendPut(rig, 'first', { durability: 'os' })
    rig.turn()
    assert.equal(first.answer?.receipt.durable, !unsyncedNoted)
    assert.equal(disk.calls.sync - sync, unsyncedNoted ? 0 : 1)
    assert.equal(rig.shards[0]!.unsyncedNoted, true, 'It asked for the note')
    assert.equal(rig.put(key, bytesOf('second'), { durability: 'os' }).answer?.receipt.durable, false)
    assert.equal(rig.put(key, bytesOf('third'), { durability: 'sync' }).answer?.receipt.durable, true)
  }
})

test('Shard: writes below sync are synced after the interval', () => {
  const { rig, disk, clock } = openRig({ unsyncedNoted: true })
  rig.put(key, bytesOf('value'), { durability: 'interval' })
  const { sync } = disk.calls
  clock.advance(100)
  rig.tick()
  assert.equal(disk.calls.sync - sync, 1)
  disk.crash(new SeededRandom(3))
  assert.deepEqual(textsOf(openRig({ disk, clock, actor: { low: 9, high: 9 } }).rig.get(key)), ['value'])
})

test('Shard: preconditions see what was staged before them in the same turn', () => {
  const { rig } = openRig()
  const results = [
    sendPut(rig, 'one', { ifNoneMatch: '*' }),
    sendPut(rig, 'two', { ifNoneMatch: '*' }),
    sendDelete(rig, { ifMatch: '*' }),
    sendDelete(rig, { ifMatch: '*' }),
    sendPut(rig, 'three', { ifMatch: '*' }),
    sendPut(rig, 'four', { ifNoneMatch: '*' }),
  ]
  rig.settle()
  const failed = 'PRECONDITION_FAILED none'
  assert.deepEqual(results.map(codeOf), [undefined, failed, undefined, failed, failed, undefined])
  assert.deepEqual(textsOf(rig.get(key)), ['four'])
})

test('Shard: If-Match holds for the present etag alone, among several, and never for what is gone', () => {
  const { rig, clock } = openRig()
  const first = rig.put(key, bytesOf('one')).answer!.etag!
  const second = rig.put(key, bytesOf('two'), { ifMatch: ['ffffffffffffffff', first] }).answer!.etag!
  assert.notEqual(first, second)
  assert.equal(rig.get(key).etag, second)
  const failed = rig.put(key, bytesOf('three'), { ifMatch: [first] })
  assert.equal(codeOf(failed), 'PRECONDITION_FAILED none')
  assert.equal(failed.error!.extra?.['etag'], second, 'It says what is there')
  assert.equal(codeOf(rig.put(key, bytesOf('three'), { ifMatch: [] })), 'PRECONDITION_FAILED none')
  assert.equal(codeOf(rig.put(key, bytesOf('three'), { ifMatch: ['nonsense'] })), 'PRECONDITION_FAILED none')
  const gone = rig.delete(key, { ifMatch: [second] }).answer!.etag!
  assert.equal(codeOf(rig.put(key, bytesOf('three'), { ifMatch: [gone] })), 'PRECONDITION_FAILED none')
  // What has expired is not there, either.
  const brief = rig.put(key, bytesOf('brief'), { ttlMs: 100 }).answer!.etag!
  clock.advance(100)
  assert.equal(codeOf(rig.put(key, bytesOf('three'), { ifMatch: [brief] })), 'PRECONDITION_FAILED none')
  assert.equal(codeOf(rig.put(key, bytesOf('three'), { ifNoneMatch: '*' })), undefined)
})

test('Shard: a write with a context replaces what it covers and stands beside the rest', () => {
  const { rig } = openRig()
  const context = rig.put(key, bytesOf('base')).answer!.context!
  assert.equal(rig.put(key, bytesOf('a'), { context }).answer!.siblings, 1)
  assert.equal(rig.put(key, bytesOf('b'), { context }).answer!.siblings, 2)
  const both = rig.get(key)
  assert.deepEqual(textsOf(both), ['a', 'b'])
  assert.equal(rig.delete(key, { context }).answer!.siblings, 2, 'A delete that saw neither')
  assert.deepEqual(textsOf(rig.get(key)), ['a', 'b'])
  assert.equal(rig.put(key, bytesOf('merged'), { context: both.context }).answer!.siblings, 1)
  assert.deepEqual(textsOf(rig.get(key)), ['merged'])
  // Without a context it replaces all that the shard sees.
  rig.put(key, bytesOf('c'), { context })
  assert.equal(rig.put(key, bytesOf('blind')).answer!.siblings, 1)
  assert.deepEqual(textsOf(rig.get(key)), ['blind'])
})

test('Shard: a context with an actor that it does not know is taken, and survives a restart', () => {
  const { rig: other } = openRig({ actor: { low: 77, high: 78 } })
  const context = other.put(key, bytesOf('elsewhere')).answer!.context!
  const { rig, disk, clock } = openRig()
  const written = rig.put(key, bytesOf('here'), { context }).answer!
  assert.equal(written.siblings, 1)
  const { context: seen } = rig.get(key)
  assert.deepEqual(seen, written.context)
  rig.close()
  assert.deepEqual(openRig({ disk, clock }).rig.get(key).context, seen)
})

test('Shard: a context that names more writes of its own actor than there were makes it ask for a new actor', () => {
  const { rig: ahead } = openRig()
  for (let write = 0; write < 5; write++) ahead.put(key, bytesOf('lost'))
  const context = ahead.get(key).context!
  const { rig } = openRig()
  assert.equal(codeOf(rig.put(key, bytesOf('value'), { context })), 'NOT_READY none')
  assert.equal(rig.actorIsStale, 1)
  assert.deepEqual(textsOf(rig.get(key)), [])
  assert.equal(rig.put(key, bytesOf('value')).error, undefined, 'Others go on')
})

test('Shard: deletes of what is not there change nothing and say so', () => {
  const { rig, disk } = openRig()
  const { write } = disk.calls
  const absent = rig.delete(key).answer!
  assert.deepEqual([absent.etag, absent.context, absent.siblings], [undefined, undefined, 0])
  assert.equal(disk.calls.write, write)
  rig.put(key, bytesOf('value'))
  const gone = rig.delete(key).answer!
  assert.ok(gone.etag !== undefined && gone.context !== undefined)
  const again = rig.delete(key).answer!
  assert.equal(again.etag, gone.etag)
  assert.equal(disk.calls.write, write + 2)
})

test('Shard: at the cap of siblings it refuses one more, and takes what makes none', () => {
  const { rig } = openRig({ segmentBytes: 65536 })
  const context = rig.put(key, bytesOf('base')).answer!.context!
  for (let sibling = 0; sibling < Limits.siblingsMax; sibling++) {
    assert.equal(rig.put(key, bytesOf(`${sibling}`), { context }).error, undefined)
  }
  assert.equal(rig.get(key).values.length, Limits.siblingsMax)
  assert.equal(codeOf(rig.put(key, bytesOf('one more'), { context })), 'TOO_MANY_SIBLINGS none')
  assert.equal(rig.get(key).values.length, Limits.siblingsMax)
  const { context: all } = rig.get(key)
  assert.equal(rig.put(key, bytesOf('merged'), { context: all }).answer!.siblings, 1)
})

test('Shard: siblings that are too large together are refused', () => {
  const valueBytesMax = Limits.valueBytesDefault
  const { rig } = openRig({ segmentBytes: 16 * 1024 * 1024, segments: 12 })
  const value = new Uint8Array(valueBytesMax - 100)
  const context = rig.put(key, bytesOf('base')).answer!.context!
  let taken = 0
  for (;;) {
    const result = rig.put(key, value, { context })
    if (result.error !== undefined) {
      assert.equal(codeOf(result), 'VERSION_SET_TOO_LARGE none')
      break
    }
    taken++
  }
  assert.equal(taken, Math.floor(versionSetBytesMax(valueBytesMax) / value.length))
  assert.equal(rig.get(key).values.length, taken)
})

test('Shard: a version expires for readers at its time, and becomes a tombstone after the grace', () => {
  const { rig, clock } = openRig()
  const expiresAtMs = clock.epochMs() + 1000
  assert.equal(rig.put(key, bytesOf('value'), { ttlMs: 1000 }).answer!.expiresAtMs, expiresAtMs)
  assert.equal(rig.get(key).values[0]!.expiresAtMs, expiresAtMs)
  clock.advance(999)
  assert.deepEqual(textsOf(rig.get(key)), ['value'])
  clock.advance(1)
  const expired = rig.get(key)
  assert.deepEqual(expired.values, [])
  const { store } = rig.shards[0]!
  clock.advance(Limits.expiryGraceMs - 20)
  for (let tick = 0; tick < 200; tick++) rig.tick()
  assert.equal(store.expired, 0)
  clock.advance(20)
  for (let tick = 0; tick < 200; tick++) rig.tick()
  assert.equal(store.expired, 1)
  // A clock that is set back no longer shows it; its dot is the same.
  clock.jumpEpoch(-Limits.expiryGraceMs - 500)
  assert.deepEqual(rig.get(key).values, [])
  assert.deepEqual(rig.get(key).context, expired.context)
})

test('Shard: keys of a deleted bucket go from memory, and a list does not show them', () => {
  const retiredBuckets = new Set<number>()
  const { rig, disk, clock } = openRig({ retiredBuckets })
  const other = bucketOf({ id: 2 as never })
  for (let index = 0; index < 40; index++) {
    rig.put(bytesOf(`key${index}`), bytesOf('value'), {}, index % 2 === 0 ? bucket : other)
  }
  const { store } = rig.shards[0]!
  assert.equal(store.index.entries, 40)
  retiredBuckets.add(2)
  store.reclaimRetired()
  for (let tick = 0; tick < 200; tick++) rig.tick()
  assert.equal(store.index.entries, 20)
  for (let index = 0; index < 40; index += 2) assert.deepEqual(textsOf(rig.get(bytesOf(`key${index}`))), ['value'])
  rig.close()
  const next = openRig({ disk, clock, retiredBuckets }).rig
  assert.equal(next.shards[0]!.store.index.entries, 20)
})

test('Shard: after its log has failed it refuses writes with the code of the failure, tells once, and serves reads', () => {
  const { rig, disk } = openRig()
  rig.put(key, bytesOf('kept'))
  disk.fail({ kind: 'sync', error: 'EIO' })
  const doubtful = [sendPut(rig, 'doubtful'), sendDelete(rig), sendPut(rig, 'another', {}, bytesOf('other'))]
  rig.settle()
  assert.deepEqual(doubtful.map(codeOf), new Array(3).fill('DISK_FAILED unknown'))
  for (let attempt = 0; attempt < 3; attempt++) {
    assert.equal(codeOf(rig.put(key, bytesOf('later'))), 'DISK_FAILED none')
    assert.equal(codeOf(rig.delete(bytesOf('absent'))), 'DISK_FAILED none')
    rig.tick()
  }
  assert.equal(rig.failures.length, 1)
  assert.equal(rig.failures[0]!.code, 'DISK_FAILED')
  assert.deepEqual(textsOf(rig.get(key)), ['kept'])
})

test('Shard: replies that find no room are dropped, and the shard goes on', () => {
  const { rig } = openRig()
  const lost = sendPut(rig, 'value', { timeoutMs: 1000 })
  rig.shardTurn()
  rig.deliverReplies(true)
  assert.equal(lost.calls, 0)
  rig.options.clock.advance(1000)
  rig.tick()
  assert.equal(codeOf(lost), 'TIMEOUT unknown')
  assert.deepEqual(textsOf(rig.get(key)), ['value'], 'It had been applied')
})
