/** Dealing logs to another number of shards, with other segments: nothing is lost, nothing comes back, and a crash is harmless. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { partitionOfSlot, shardOfPartition } from '../../src/cluster/slots.ts'
import { Limits } from '../../src/config.ts'
import type { ReadAnswer } from '../../src/replication/requests.ts'
import { type ActorId, clockEntriesMax } from '../../src/storage/log-control.ts'
import { dealLogs } from '../../src/storage/log-dealer.ts'
import type { Damage } from '../../src/storage/log-recovery.ts'
import { bucketOf, directoryOf, ShardRig } from '../shard/shard-rig.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimCrash, SimDisk } from '../sim/sim-disk.ts'
import { bytesOf, crc32, textOf } from './store-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

type Shape = { readonly shards: number; readonly segmentBytes: number }

const keys = Array.from({ length: 60 }, (_, index) => `key${index}`)

const actorOf = (low: number): ActorId => ({ low, high: 0x8000_0000 })

function openRig(disk: SimDisk, shape: Shape, actor: number, clock = new SimClock()): ShardRig {
  const options = { ...shape, segments: 64, actor: actorOf(actor) }
  return new ShardRig({ disk, clock, ...options, preallocate: false }).open()
}

/** Values with siblings, deletes, expiry, content types, several actors. Every incarnation writes a part of it. */
function write(rig: ShardRig, random: SeededRandom, writes: number): void {
  const bucket = [bucketOf(), bucketOf({ id: 7 as never, conflict: 'siblings' })]
  for (let left = writes; left > 0; left--) {
    const key = bytesOf(random.pick(keys))
    // An actor of another node: the table of one shard then differs from those of the others.
    if (left % 16 === 0) {
      const other = openRig(new SimDisk(), { shards: 1, segmentBytes: 8192 }, random.between(50, 60))
      const { context } = other.put(key, bytesOf('elsewhere')).answer!
      assert.equal(rig.put(key, bytesOf('here'), { context }).error, undefined)
      continue
    }
    const draw = random.below(10)
    const of = random.pick(bucket)
    if (draw < 2) assert.equal(rig.delete(key, {}, of).error, undefined)
    else if (draw < 4) {
      // Two writes with the same past are siblings.
      const { context } = rig.get(key, of)
      for (const text of ['one', 'two']) {
        rig.put(key, bytesOf(`${text} ${left}`), context === undefined ? {} : { context }, of)
      }
    } else {
      const options = { ttlMs: draw === 4 ? 1e9 : undefined, contentType: draw === 5 ? 'text/x-own; a=b' : undefined }
      const { error } = rig.put(
        key,
        random.chance(1, 5) ? new Uint8Array(0) : bytesOf('v'.repeat(random.below(900))),
        options,
        of,
      )
      assert.equal(error, undefined)
    }
  }
}

/** All that a client can see: values, etags, contexts, expiry, types. */
function stateOf(rig: ShardRig): Map<string, unknown> {
  const state = new Map<string, unknown>()
  for (const bucket of [bucketOf(), bucketOf({ id: 7 as never })]) {
    for (const key of keys) {
      const { values, etag, context }: ReadAnswer = rig.get(bytesOf(key), bucket)
      const seen = values.map(({ value, contentType, expiresAtMs }) => [textOf(value), contentType, expiresAtMs])
      state.set(`${bucket.id} ${key}`, { seen, etag, context: context?.toHex() })
    }
  }
  return state
}

/** The next counter of an actor in every partition. */
function countersOf(rig: ShardRig): number[] {
  return Array.from({ length: Limits.partitions }, (_, partition) =>
    rig.shards[shardOfPartition(partition, rig.shards.length)]!.store.nextCounter(partition),
  )
}

/** Deals the logs under `log` to those under `next`. */
function deal(
  disk: SimDisk,
  from: Shape,
  to: Shape,
  salvage = false,
  actor?: ActorId,
): { readonly error: SunwiseError | undefined; readonly records: number; readonly skipped: readonly Damage[] } {
  const newDirectories = Array.from({ length: to.shards }, (_, shard) => `next/${shard}`)
  for (const directory of newDirectories) disk.makeDirectoryNow(directory)
  const skipped: Damage[] = []
  let outcome: { error: SunwiseError | undefined; records: number } | undefined
  dealLogs(
    {
      disk,
      crc32,
      oldDirectories: Array.from({ length: from.shards }, (_, shard) => directoryOf(shard)),
      oldSegmentBytes: from.segmentBytes,
      newDirectories,
      newSegmentBytes: to.segmentBytes,
      salvage,
      actor,
      skipped: (damage) => skipped.push(damage),
      shardOfSlot: (slot) => shardOfPartition(partitionOfSlot(slot), to.shards),
      partitionOfSlot,
    },
    (error, records) => {
      outcome = { error, records }
    },
  )
  assert.ok(outcome !== undefined, 'Dealing has ended')
  return { ...outcome, skipped }
}

/** Puts the new logs in the place of the old: what the catalog's commit does in a node. */
function adopt(disk: SimDisk): void {
  const moved = disk.paths().filter((path) => path.startsWith('next/'))
  for (const path of disk.paths()) if (path.startsWith('log/')) disk.remove(path, assert.ifError)
  for (const path of moved) {
    const [, shard, name] = path.split('/')
    disk.makeDirectoryNow(`log/${shard}`)
    disk.rename(path, `log/${shard}/${name}`, assert.ifError)
    disk.syncDirectory(`log/${shard}`, assert.ifError)
  }
  for (let shard = 0; shard < 8; shard++) {
    disk.syncDirectory(`log/${shard}`, () => {})
    disk.syncDirectory(`next/${shard}`, () => {})
  }
}

/** A log of three incarnations, cleanly stopped. */
function sample(shape: Shape, seed: number, writes = 120): { readonly disk: SimDisk; readonly clock: SimClock } {
  const random = new SeededRandom(seed)
  const disk = new SimDisk({ random: random.fork('disk') })
  const clock = new SimClock()
  for (const actor of [1, 2, 3]) {
    const rig = openRig(disk, shape, actor, clock)
    write(rig, random, writes / 3)
    rig.close()
  }
  return { disk, clock }
}

const shapes = fc.record({
  shards: fc.integer({ min: 1, max: 5 }),
  segmentBytes: fc.constantFrom(16384, 32768, 65536),
})

test('dealLogs() keeps every key with its versions, contexts, types and expiry, and every counter, for any number of shards', () => {
  fc.assert(
    fc.property(fc.integer(), shapes, shapes, shapes, (seed, first, second, third) => {
      const { disk, clock } = sample(first, seed)
      const before = openRig(disk, first, 3, clock)
      const state = stateOf(before)
      const counters = countersOf(before)
      before.close()
      let from = first
      for (const to of [second, third, first]) {
        const { error, records, skipped } = deal(disk, from, to)
        assert.equal(error, undefined)
        assert.ok(records > 0)
        assert.deepEqual(skipped, [])
        // What was dealt is on stable storage.
        disk.crash(new SeededRandom(seed))
        adopt(disk)
        const after = openRig(disk, to, 3, clock)
        assert.deepEqual(stateOf(after), state, `From ${from.shards} to ${to.shards} shards`)
        assert.deepEqual(countersOf(after), counters, 'No counter goes back')
        after.close()
        from = to
      }
      // It is an ordinary log: it takes writes, and what is overwritten stays so.
      const rig = openRig(disk, first, 4, clock)
      write(rig, new SeededRandom(seed + 1), 60)
      const last = stateOf(rig)
      rig.close()
      assert.deepEqual(stateOf(openRig(disk, first, 5, clock)), last)
    }),
    { numRuns: 25 * scale },
  )
})

/** A run that puts and deletes a key, and whose tombstone is recycled away: nothing is left but its counter in the clocks. */
function leaveOnlyCounters(disk: SimDisk, shape: Shape, actor: number, clock: SimClock): ShardRig {
  const { segmentBytes } = shape
  const rig = new ShardRig({
    disk,
    clock,
    ...shape,
    segments: 24,
    budgetBytes: 7 * segmentBytes,
    actor: actorOf(actor),
  })
  const { store } = rig.open().shards[0]!
  assert.equal(rig.put(bytesOf('gone'), bytesOf('value')).error, undefined)
  assert.equal(rig.delete(bytesOf('gone')).error, undefined)
  for (let write = 0; store.recycledSegments < 6; write++) {
    assert.equal(rig.put(bytesOf(`{one}${write % 8}`), new Uint8Array(800)).error, undefined)
    clock.advance(20)
    rig.tick()
  }
  assert.equal(rig.get(bytesOf('gone')).etag, undefined)
  return rig
}

test('dealLogs() leaves no counter behind whose records are gone', () => {
  const shape = { shards: 1, segmentBytes: 16384 }
  const disk = new SimDisk()
  const clock = new SimClock()
  const rig = leaveOnlyCounters(disk, shape, 1, clock)
  const counters = countersOf(rig)
  rig.close()
  const to = { shards: 3, segmentBytes: 32768 }
  assert.equal(deal(disk, shape, to).error, undefined)
  adopt(disk)
  assert.deepEqual(countersOf(openRig(disk, to, 1, clock)), counters)
})

test('dealLogs() keeps the counters of the present actor whatever a great many others left', () => {
  const shape = { shards: 1, segmentBytes: 16384 }
  const disk = new SimDisk()
  const clock = new SimClock()
  const others = openRig(disk, shape, 100, clock)
  for (let actor = 100; actor < 180; actor++) {
    others.shards[0]!.store.changeActor(actorOf(actor))
    for (const key of keys.slice(0, 30)) assert.equal(others.put(bytesOf(key), bytesOf('value')).error, undefined)
  }
  others.close()
  assert.ok(80 * 30 > 10 * clockEntriesMax(shape.segmentBytes), 'There are more than a head may hold')
  disk.rename(directoryOf(0), directoryOf(1), (error) => assert.equal(error, undefined))
  disk.makeDirectoryNow(directoryOf(0))
  const own = leaveOnlyCounters(disk, shape, 7, clock)
  const counters = countersOf(own)
  own.close()
  assert.equal(deal(disk, { ...shape, shards: 2 }, shape, false, actorOf(7)).error, undefined)
  adopt(disk)
  assert.deepEqual(countersOf(openRig(disk, shape, 7, clock)), counters)
})

test('dealLogs(): whatever fails in whatever call, the old logs are as they were, and dealing again succeeds', () => {
  const from = { shards: 2, segmentBytes: 16384 }
  const to = { shards: 3, segmentBytes: 32768 }
  const { disk, clock } = sample(from, 5, 60)
  const state = stateOf(openRig(disk, from, 3, clock))
  disk.kill(new SeededRandom(0))
  const image = disk.snapshot()
  const before = { ...disk.calls }
  assert.equal(deal(disk, from, to).error, undefined)
  const changes = ['create', 'write', 'sync', 'syncDirectory', 'makeDirectory'] as const
  const changeCount = changes.reduce((sum, kind) => sum + disk.calls[kind] - before[kind], 0)
  assert.ok(changeCount > 10)

  const goesOn = (what: string): void => {
    const rig = openRig(disk, from, 3, clock)
    assert.deepEqual(stateOf(rig), state, what)
    disk.kill(new SeededRandom(0))
    for (const path of disk.paths()) if (path.startsWith('next/')) disk.remove(path, assert.ifError)
    assert.equal(deal(disk, from, to).error, undefined, what)
    adopt(disk)
    disk.crash(new SeededRandom(what))
    assert.deepEqual(stateOf(openRig(disk, to, 3, clock)), state, what)
  }
  for (let change = 1; change <= changeCount; change++) {
    disk.restore(image)
    disk.heal()
    disk.crashAtChange(change)
    assert.throws(() => deal(disk, from, to), SimCrash, `change ${change}`)
    disk.crash(new SeededRandom(change))
    goesOn(`power cut in change ${change}`)
  }
  for (const kind of ['open', 'size', 'read', 'list', 'create', 'write', 'sync', 'syncDirectory'] as const) {
    for (const error of kind === 'create' || kind === 'write' ? (['EIO', 'ENOSPC'] as const) : (['EIO'] as const)) {
      for (let nth = 1; ; nth++) {
        disk.restore(image)
        disk.heal()
        const seen = disk.calls[kind]
        disk.fail({ kind, error, nth })
        let outcome: SunwiseError | undefined
        try {
          outcome = deal(disk, from, to).error
        } catch (thrown) {
          // Listing throws, as the caller lists by itself, too.
          assert.ok(thrown instanceof SunwiseError)
          outcome = thrown
        }
        disk.heal()
        if (disk.calls[kind] - seen < nth) break
        assert.ok(outcome?.code === 'DISK_FAILED' || outcome?.code === 'DISK_FULL', `${error} at ${kind} ${nth}`)
        disk.kill(new SeededRandom(nth))
        if (kind !== 'sync') goesOn(`${error} at ${kind} ${nth}`)
      }
    }
  }
})

test('dealLogs() refuses a damaged log and changes nothing; with salvage it tells what it skipped', () => {
  const from = { shards: 2, segmentBytes: 16384 }
  const to = { shards: 1, segmentBytes: 32768 }
  const { disk } = sample(from, 9)
  const path = disk.paths().find((name) => name.startsWith('log/1/'))!
  disk.flipBit(path, 3000, 3)
  const image = disk.snapshot()
  const { error } = deal(disk, from, to)
  assert.equal(error?.code, 'LOG_CORRUPT')
  assert.ok(error.message.includes(path))
  disk.restore(image)
  const salvaged = deal(disk, from, to, true)
  assert.equal(salvaged.error, undefined)
  assert.equal(salvaged.skipped.length, 1)
  assert.equal(salvaged.skipped[0]!.path, path)
  assert.ok(salvaged.skipped[0]!.from <= 3000 && salvaged.skipped[0]!.to > 3000)
  adopt(disk)
  const rig = openRig(disk, to, 9)
  assert.ok(keys.filter((key) => rig.get(bytesOf(key)).etag !== undefined).length > 20)
})

test('dealLogs() refuses records that are too large for the new segments, with a code', () => {
  const from = { shards: 1, segmentBytes: 65536 }
  const disk = new SimDisk()
  const rig = openRig(disk, from, 1)
  assert.equal(rig.put(bytesOf('large'), new Uint8Array(20_000)).error, undefined)
  rig.close()
  const { error } = deal(disk, from, { shards: 1, segmentBytes: 16384 })
  assert.equal(error?.code, 'BAD_CONFIG')
  assert.match(error.message, /--value-max/)
  assert.equal(openRig(disk, from, 1).get(bytesOf('large')).values[0]!.value.length, 20_000)
})

test('dealLogs() makes of empty logs empty logs', () => {
  const disk = new SimDisk()
  disk.makeDirectoryNow('log/0')
  const { error, records } = deal(disk, { shards: 1, segmentBytes: 16384 }, { shards: 4, segmentBytes: 16384 })
  assert.equal(error, undefined)
  assert.equal(records, 0)
  assert.deepEqual(disk.paths(), [])
})

test('dealLogs() has every new shard give times above those that any old one gave, though the clock was set back', () => {
  const disk = new SimDisk()
  const from = { shards: 2, segmentBytes: 8192 }
  const to = { shards: 3, segmentBytes: 16384 }
  const bucket = bucketOf({ conflict: 'lww' })
  const rig = openRig(disk, from, 1)
  rig.put(bytesOf('key'), bytesOf('value'), {}, bucket)
  const given = Math.max(...rig.shards.map(({ store }) => store.nextTimestamp(0, 0, 0)))
  assert.ok(given > 1e12)
  disk.kill(new SeededRandom(1))
  assert.equal(deal(disk, from, to).error, undefined)
  adopt(disk)
  for (const { store } of openRig(disk, to, 2).shards) assert.ok(store.nextTimestamp(0, 0, 0) > given)
})
