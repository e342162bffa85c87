/** Hints as records of a shard: what they hold, what they leave alone, and that they go without remains. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { partitionOfSlot, shardOfPartition, slotOfKey } from '../../src/cluster/slots.ts'
import { hintBucketId, Limits } from '../../src/config.ts'
import type { HeldHint, HintPage, HintPlace, ListedHint } from '../../src/replication/local-replica.ts'
import { decodeHintKey, encodeHintKey, mergeHintValues } from '../../src/shard/hint-record.ts'
import { compact } from '../../src/storage/compaction.ts'
import { flush } from '../../src/storage/flush.ts'
import { dealLogs } from '../../src/storage/log-dealer.ts'
import { ActorRegistry } from '../../src/versions/actor-registry.ts'
import { decodeSet, encodeSet } from '../../src/versions/set-codec.ts'
import { emptyVersionSet, update } from '../../src/versions/version-set.ts'
import { SimCatalog } from '../sim/sim-catalog.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { SimJobs } from '../sim/sim-jobs.ts'
import { bytesOf, crc32, textOf } from '../storage/store-rig.ts'
import { bucketOf, directoryOf, ShardRig, type ShardRigOptions, send } from './shard-rig.ts'

const key = bytesOf('key')
const partition = partitionOfSlot(slotOfKey(key, 0, key.length))
const about = { target: 'n1', bucketId: 7, key }

/** A version set of one value, written by an actor of its own. */
function setOf(value: string, actorLow: number): Uint8Array {
  const actors = new ActorRegistry()
  const version = {
    actor: actors.indexOf(actorLow, 9),
    counter: 1,
    tombstone: false,
    expiresAtMs: 0,
    timestamp: 0,
    contentType: 'text/plain',
    value: bytesOf(value),
  }
  return encodeSet(update(emptyVersionSet, undefined, version), actors)
}

function valuesOf(set: Uint8Array): string[] {
  const decoded = decodeSet(set, 0, set.length, new ActorRegistry().indexOf)
  assert.ok(typeof decoded !== 'string')
  return decoded.versions.map(({ value }) => textOf(value)).sort()
}

type Durable = { readonly isDurable: boolean }

function keep(rig: ShardRig, hint = about, set?: Uint8Array, durability: 'sync' | 'os' = 'sync'): boolean {
  const { error, answer } = rig.wait<Durable>((done) => rig.replica.keepHint(hint, set, durability, 1000, done))
  if (error !== undefined) throw error
  return answer!.isDurable
}

function drop(rig: ShardRig, hint = about): void {
  const { error } = rig.wait<true>((done) =>
    rig.replica.dropHint(hint, 1000, (failure) => done(failure, failure ? undefined : true)),
  )
  if (error !== undefined) throw error
}

function read(rig: ShardRig, hint = about): HeldHint | undefined {
  const { error, answer } = rig.wait<{ readonly hint: HeldHint | undefined }>((done) =>
    rig.replica.readHint(hint, 1000, done),
  )
  if (error !== undefined) throw error
  return answer!.hint
}

/** All hints, a little at a time. */
function listed(rig: ShardRig): ListedHint[] {
  const hints: ListedHint[] = []
  let place: HintPlace | undefined = { partition: 0, after: undefined }
  while (place !== undefined) {
    const from: HintPlace = place
    const { error, answer } = rig.wait<HintPage>((done) => rig.replica.listHints(from, false, 200, 1000, done))
    if (error !== undefined) throw error
    hints.push(...answer!.hints)
    place = answer!.next
  }
  return hints
}

function rigOf(disk: SimDisk, options: Partial<ShardRigOptions> = {}): ShardRig {
  return new ShardRig({ disk, clock: new SimClock(), ...options }).open()
}

const diskOf = (seed: string): SimDisk => new SimDisk({ random: new SeededRandom(seed) })

test('Hint keys: the longest fits, and bytes that are none are told apart', () => {
  const longest = {
    target: 'n'.repeat(Limits.hintTargetBytesMax),
    bucketId: 0xffff_fffd,
    key: new Uint8Array(Limits.keyBytesMax).fill(0xff),
  }
  const bytes = encodeHintKey(longest)
  assert.equal(bytes.length, Limits.storedKeyBytesMax)
  assert.deepEqual(decodeHintKey(bytes), longest)
  assert.equal(encodeHintKey(about).toHex(), `026e3100000007${Buffer.from(key).toString('hex')}`)
  for (const wrong of [[], [0, 1, 2, 3, 4, 5], [2, 0x6e, 0x31, 0, 0, 0, 7]]) {
    assert.equal(decodeHintKey(Uint8Array.from(wrong)), undefined)
  }
})

test('Hint values: what adds nothing leaves the bytes as they are, versions of both are kept', () => {
  const a = setOf('a', 1)
  const none = new Uint8Array(0)
  assert.equal(mergeHintValues(a, none), a)
  assert.equal(mergeHintValues(none, a), a)
  assert.equal(mergeHintValues(a, a.slice()), a)
  assert.deepEqual(valuesOf(mergeHintValues(a, setOf('b', 2))), ['a', 'b'])
})

test('Shard: hints survive a power cut, merge what comes later, and go when they are dropped', () => {
  const disk = diskOf('hints survive')
  const random = new SeededRandom('power')
  let rig = rigOf(disk)
  assert.equal(keep(rig), true)
  assert.deepEqual(read(rig), { set: undefined })
  assert.equal(keep(rig, about, setOf('a', 1)), true)
  keep(rig, { ...about, target: 'n2' })
  disk.crash(random)
  rig = rigOf(disk)
  keep(rig, about, setOf('b', 2))
  keep(rig)
  assert.deepEqual(valuesOf(read(rig)!.set!), ['a', 'b'])
  assert.deepEqual(
    listed(rig).map(({ target }) => target),
    ['n1', 'n2'],
  )
  drop(rig)
  drop(rig)
  assert.equal(read(rig), undefined)
  assert.deepEqual(
    listed(rig).map(({ target }) => target),
    ['n2'],
  )
  keep(rig)
  assert.deepEqual(read(rig), { set: undefined }, 'A hint that was dropped begins anew')
  disk.kill(random)
  rig = rigOf(disk)
  assert.deepEqual(
    listed(rig).map(({ target, setBytes }) => [target, setBytes]),
    [
      ['n1', 0],
      ['n2', 0],
    ],
  )
})

test('Shard: what is said of the durability of a hint is true', () => {
  const disk = diskOf('hints durable')
  const rig = rigOf(disk, { unsyncedNoted: true })
  const syncs = rig.shards[0]!.store.syncs
  assert.equal(keep(rig, about, undefined, 'os'), false)
  assert.equal(rig.shards[0]!.store.syncs, syncs)
  assert.equal(keep(rig, about, undefined, 'sync'), true)
  assert.equal(rig.shards[0]!.store.syncs, syncs + 1)
  drop(rig)
  assert.equal(rig.shards[0]!.store.syncs, syncs + 1, 'Nothing is synced for a hint that goes')
  disk.crash(new SeededRandom('late'))
  assert.ok(listed(rigOf(disk)).length <= 1)
})

test('Shard: a hint shares the group of the write behind it, and stands in the log before it', () => {
  const rig = rigOf(diskOf('hints group'))
  rig.wait((done) => rig.replica.track([partition], true, 1000, (error) => done(error, error ? undefined : true)))
  const { groups, syncs } = rig.shards[0]!.store
  const hint = send<Durable>((done) => rig.replica.keepHint(about, undefined, 'sync', 1000, done))
  assert.equal(rig.put(key, bytesOf('value')).error, undefined)
  assert.equal(hint.answer?.isDurable, true)
  assert.equal(rig.shards[0]!.store.groups, groups + 1)
  assert.equal(rig.shards[0]!.store.syncs, syncs + 1)
})

test('Shard: a hint takes no dot of its partition, and neither clock nor counter hears of it', () => {
  const disk = diskOf('hints dots')
  let rig = rigOf(disk)
  const track = (): void => {
    rig.wait((done) => rig.replica.track([partition], false, 1000, (error) => done(error, error ? undefined : true)))
  }
  track()
  rig.put(key, bytesOf('value'))
  const factsOf = (): unknown => {
    const { store } = rig.shards[0]!
    const clock = store
      .clockOf(partition)!
      .encode({ lowOf: (index) => store.actorLow(index), highOf: (index) => store.actorHigh(index) })
    return [store.nextCounter(partition), clock.toHex(), rig.get(key)]
  }
  const before = factsOf()
  keep(rig)
  keep(rig, { ...about, target: 'n2' }, setOf('a', 1))
  drop(rig)
  assert.deepEqual(factsOf(), before)
  disk.kill(new SeededRandom('kill'))
  rig = rigOf(disk)
  track()
  assert.deepEqual(factsOf(), before)
  assert.equal(listed(rig).length, 1)
})

test('Shard: hints are in no list of a bucket, and bytes that are no versions are refused', () => {
  const rig = rigOf(diskOf('hints lists'))
  rig.put(key, bytesOf('value'))
  keep(rig)
  const { answer } = rig.wait<{ readonly keys: readonly unknown[] }>((done) =>
    rig.coordinator.list(bucketOf(), { limit: 10, values: false }, done),
  )
  assert.equal(answer!.keys.length, 1)
  assert.throws(() => keep(rig, about, bytesOf('nonsense')), { code: 'UNPROCESSABLE' })
  assert.deepEqual(read(rig), { set: undefined })
})

test('Shard: hints that come and go leave nothing behind in memory and log', () => {
  const disk = diskOf('hints go')
  const rig = rigOf(disk, { segmentBytes: 16384, segments: 48, budgetBytes: 16 * 16384 })
  const all = Array.from({ length: Limits.partitions }, (_, index) => index)
  rig.wait((done) => rig.replica.track(all, true, 1000, (error) => done(error, error ? undefined : true)))
  const set = setOf('v'.repeat(400), 1)
  for (let index = 0; index < 4000; index++) {
    const hint = { ...about, key: bytesOf(`key ${index}`) }
    keep(rig, hint, set)
    drop(rig, hint)
    if (index % 20 === 0) {
      rig.options.clock.advance(100)
      rig.tick()
    }
  }
  const { store } = rig.shards[0]!
  assert.ok(store.recycledSegments > 20, `${store.recycledSegments} segments were recycled`)
  assert.ok(store.index.entries < 3000, `${store.index.entries} tombstones are left of 4000`)
  assert.deepEqual(listed(rig), [])
})

test('Shard: hints go to tables and come back from them, and what was dropped goes with the next merges', () => {
  const random = new SeededRandom('hints tables')
  const disk = diskOf('hints tables')
  const catalog = new SimCatalog({ random: random.fork('catalog'), completions: 'immediate' })
  const tools = { crc32, codec: undefined }
  const jobs = new SimJobs(disk, {
    flush: (input: never, world) => flush(input, world, tools),
    compact: (input: never, world) => compact(input, world, tools),
  })
  const segmentBytes = 32768
  const rig = rigOf(disk, {
    segmentBytes,
    segments: 48,
    budgetBytes: 16 * segmentBytes,
    tables: { catalog, jobs, random: random.fork('tables') },
  })
  const go = <Answer>(start: Parameters<typeof rig.wait<Answer>>[0]): Answer => {
    const result = send<Answer>(start)
    for (let round = 0; result.calls === 0; round++) {
      assert.ok(round < 5000)
      rig.turn()
      jobs.runNext(random)
      rig.options.clock.advance(20)
      rig.tick()
    }
    if (result.error !== undefined) throw result.error
    return result.answer!
  }
  const target = 'n'.repeat(Limits.hintTargetBytesMax)
  const hintOf = (index: number): typeof about => ({
    target,
    bucketId: 7,
    key: bytesOf(`${'k'.repeat(Limits.keyBytesMax - 5)}${String(index).padStart(5, '0')}`),
  })
  const count = 600
  for (let index = 0; index < count; index++) {
    go((done) => rig.replica.keepHint(hintOf(index), setOf(`value ${index}`, 1), 'sync', 1000, done))
  }
  const { tables, index: inMemory } = rig.shards[0]!.store
  assert.ok(tables!.flushes > 0)
  assert.ok(inMemory.entries < count)
  const list = (): number => {
    let found = 0
    let place: HintPlace | undefined = { partition: 0, after: undefined }
    while (place !== undefined) {
      const from: HintPlace = place
      const page: HintPage = go((done) => rig.replica.listHints(from, false, 64 * 1024, 1000, done))
      found += page.hints.length
      place = page.next
    }
    return found
  }
  assert.equal(list(), count)
  for (let index = 0; index < count; index++) {
    go((done) => rig.replica.keepHint(hintOf(index), setOf(`more ${index}`, 2), 'sync', 1000, done))
    const { hint } = go<{ readonly hint: HeldHint | undefined }>((done) =>
      rig.replica.readHint(hintOf(index), 1000, done),
    )
    assert.deepEqual(valuesOf(hint!.set!), [`more ${index}`, `value ${index}`])
    go((done) => rig.replica.dropHint(hintOf(index), 1000, (error) => done(error, error ? undefined : true)))
  }
  assert.equal(list(), 0)
  const bytes = tables!.fileBytes
  // Other data makes the shard flush and merge.
  for (let index = 0; index < 1500; index++) {
    go((done) => rig.coordinator.put(bucketOf(), bytesOf(`other ${index % 50}`), new Uint8Array(1000), {}, done))
  }
  assert.ok(tables!.fileBytes < bytes, `${tables!.fileBytes} of ${bytes} bytes are left`)
  assert.equal(list(), 0)
  assert.equal(hintBucketId, 0xffff_fffe)
})

test('Shard: hints are dealt to another number of shards with the keys that they are about', () => {
  const disk = diskOf('hints dealt')
  const rig = rigOf(disk)
  const keys = Array.from({ length: 60 }, (_, index) => `key ${index}`)
  for (const text of keys) keep(rig, { ...about, key: bytesOf(text) }, setOf(text, 1))
  for (const text of keys.slice(0, 10)) drop(rig, { ...about, key: bytesOf(text) })
  rig.close()
  const newDirectories = [0, 1, 2].map((shard) => directoryOf(shard, 1))
  for (const directory of newDirectories) disk.makeDirectoryNow(directory)
  let failure: unknown = 'not dealt'
  dealLogs(
    {
      disk,
      crc32,
      oldDirectories: [directoryOf(0)],
      oldSegmentBytes: 8192,
      newDirectories,
      newSegmentBytes: 8192,
      salvage: false,
      actor: undefined,
      skipped: () => assert.fail('Nothing is damaged'),
      shardOfSlot: (slot) => shardOfPartition(partitionOfSlot(slot), 3),
      partitionOfSlot,
    },
    (error) => {
      failure = error
    },
  )
  assert.equal(failure, undefined)
  const dealt = rigOf(disk, { shards: 3, generation: 1 })
  const found = listed(dealt).map(({ key: of }) => textOf(of))
  assert.deepEqual(found.sort(), keys.slice(10).sort())
  for (const text of keys.slice(10)) {
    assert.deepEqual(valuesOf(read(dealt, { ...about, key: bytesOf(text) })!.set!), [text])
  }
  for (let of = 0; of < Limits.partitions; of++) {
    assert.equal(dealt.shards[shardOfPartition(of, 3)]!.store.nextCounter(of), 1)
  }
})
