/** Buckets where the last write wins: the last one, whatever its actor, its context, and the clock. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { KeyHash } from '../../src/base/key-hash.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { partitionOfSlot, slotOfKey } from '../../src/cluster/slots.ts'
import { Limits } from '../../src/config.ts'
import { slabWordMask, wordsPerSlabBits } from '../../src/storage/arena.ts'
import { decodeRecord } from '../../src/storage/record.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { bytesOf, textOf } from '../storage/store-rig.ts'
import { bucketOf, ShardRig } from './shard-rig.ts'

const bucket = bucketOf({ conflict: 'lww' })
const key = bytesOf('key')
const shown = (rig: ShardRig): string | undefined => {
  const { values } = rig.get(key, bucket)
  assert.ok(values.length <= 1)
  return values[0] === undefined ? undefined : textOf(values[0].value)
}

test('Shard: the last write wins over those of an earlier actor with higher counters, though its context is old', () => {
  const disk = new SimDisk()
  const clock = new SimClock()
  const first = new ShardRig({ disk, clock, actor: { low: 1, high: 1 } }).open()
  const old = first.put(key, bytesOf('first'), {}, bucket).answer!.context
  for (let write = 0; write < 5; write++) first.put(key, bytesOf(`later ${write}`), {}, bucket)
  disk.kill(new SeededRandom(1))
  const second = new ShardRig({ disk, clock, actor: { low: 2, high: 2 } }).open()
  second.put(key, bytesOf('last'), { context: old }, bucket)
  assert.equal(shown(second), 'last')
  second.delete(key, { context: old }, bucket)
  assert.equal(shown(second), undefined)
  second.put(key, bytesOf('again'), { context: old }, bucket)
  second.close()
  assert.equal(shown(new ShardRig({ disk, clock, actor: { low: 3, high: 3 } }).open()), 'again')
})

test('Shard: what was written last is what a bucket of the last write shows', () => {
  const step = fc.record({
    kind: fc.constantFrom('put', 'put', 'put', 'delete', 'restart'),
    /** Which of the contexts given out so far; none where there is no such one. */
    context: fc.nat(6),
    skewMs: fc.constantFrom(0, 0, 1, 50, -1, -5_000, 5_000),
    expires: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
      const disk = new SimDisk()
      const clock = new SimClock()
      let actors = 1
      let rig = new ShardRig({ disk, clock, actor: { low: actors, high: 1 } }).open()
      const contexts: (Uint8Array | undefined)[] = []
      let expected: string | undefined
      for (const [index, { kind, context, skewMs, expires }] of steps.entries()) {
        clock.jumpEpoch(skewMs)
        const options = { context: contexts.at(-1 - context), ttlMs: expires ? 86_400_000 : undefined }
        if (kind === 'restart') {
          rig.close()
          disk.kill(new SeededRandom(index))
          rig = new ShardRig({ disk, clock, actor: { low: ++actors, high: 1 } }).open()
        } else if (kind === 'put') {
          expected = `value ${index}`
          contexts.push(rig.put(key, bytesOf(expected), options, bucket).answer!.context)
        } else {
          expected = undefined
          contexts.push(rig.delete(key, { context: options.context }, bucket).answer!.context)
        }
        assert.equal(shown(rig), expected)
      }
    }),
  )
})

const hour = 3_600_000
/** The time of what a key has, as the log and replicas know it. */
function timeOf(rig: ShardRig, name: string): number {
  const { store } = rig.shards[0]!
  const bytes = bytesOf(name)
  const slot = slotOfKey(bytes, 0, bytes.length)
  const hash = new KeyHash({ low: 5, high: 6 })
  hash.update(bucket.id, bytes, 0, bytes.length)
  const address = store.find(partitionOfSlot(slot), hash.low, bucket.id, bytes, 0, bytes.length)
  assert.notEqual(address, 0)
  const { arena } = store
  const slab = address >>> wordsPerSlabBits
  const { versions } = decodeRecord(arena.u8[slab]!, arena.i32[slab]!, (address & slabWordMask) << 2)
  return versions[0]!.timestamp
}

test('Shard: no time is given twice over a restart with the clock set back, whatever became of the key and of unsynced writes', () => {
  for (const durability of ['sync', 'interval', 'os'] as const) {
    const disk = new SimDisk({ random: new SeededRandom(durability) })
    const clock = new SimClock()
    let rig = new ShardRig({ disk, clock, durability, unsyncedNoted: true }).open()
    let highest = 0
    for (let run = 4; run < 8; run++) {
      for (let write = 0; write < 300; write++) {
        // Long enough for several reservations, which go from segment to segment.
        if (write % 10 === 0) clock.advance(7 * run)
        rig.put(bytesOf(`key ${write % 4}`), bytesOf('x'.repeat(200)), {}, bucket)
        const time = timeOf(rig, `key ${write % 4}`)
        assert.ok(time >= highest)
        highest = time
        if (write === 40) rig.tick()
      }
      clock.jumpEpoch(-hour)
      disk.crash(new SeededRandom(run))
      rig = new ShardRig({ disk, clock, durability, unsyncedNoted: true, actor: { low: run, high: 1 } }).open()
      rig.put(bytesOf(`fresh ${run}`), bytesOf('later'), {}, bucket)
      const time = timeOf(rig, `fresh ${run}`)
      assert.ok(time > highest, `${durability}: ${time} after ${highest}`)
      assert.ok(time <= highest + 2 * Limits.clockOffsetMsMax)
      highest = time
      clock.jumpEpoch(hour)
    }
  }
})

test('Shard: times are reserved half a second at a time, and cost a sync no more often', () => {
  const disk = new SimDisk()
  const clock = new SimClock()
  const rig = new ShardRig({ disk, clock, durability: 'os', unsyncedNoted: true }).open()
  const before = rig.shards[0]!.store.syncs
  for (let write = 0; write < 1000; write++) {
    clock.advance(1)
    rig.put(bytesOf(`key ${write % 10}`), bytesOf('value'), {}, bucket)
  }
  const syncs = rig.shards[0]!.store.syncs - before
  assert.ok(syncs >= 2 && syncs <= 3, `${syncs} syncs in a second`)
})
