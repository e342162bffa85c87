import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SunwiseError } from '../../src/base/errors.ts'
import { partitionOfSlot, slotOfKey } from '../../src/cluster/slots.ts'
import { Limits } from '../../src/config.ts'
import { HintLoader } from '../../src/replication/hint-loader.ts'
import type { HintPage, HintPlace, ListedHint } from '../../src/replication/local-replica.ts'
import { encodeHintKey } from '../../src/shard/hint-record.ts'
import { bytesOf } from '../storage/store-rig.ts'

const partitionOf = ({ key }: ListedHint): number => partitionOfSlot(slotOfKey(key, 0, key.length))
const hints = Array.from({ length: 60 }, (_, index): ListedHint => {
  return { target: 'n1', bucketId: 1, key: bytesOf(`k${index}`), leftAtMs: 0, setBytes: 0 }
}).sort((a, b) => partitionOf(a) - partitionOf(b) || Buffer.compare(encodeHintKey(a), encodeHintKey(b)))

/** Shards that answer at once: four hints, or two hundred partitions, at a time. */
class Shards {
  readonly damaged = new Set<number>()
  refuses = 0
  asked = 0

  listHints(
    { partition, after }: HintPlace,
    isAlone: boolean,
    _bytesMax: number,
    _timeoutMs: number,
    done: (error: SunwiseError | undefined, page: HintPage | undefined) => void,
  ): void {
    this.asked++
    if (this.refuses > 0) {
      this.refuses--
      return done(new SunwiseError('OVERLOADED', 'Not now'), undefined)
    }
    const end = Math.min(Limits.partitions, partition + (isAlone ? 1 : 200))
    for (const bad of this.damaged) {
      if (bad >= partition && bad < end) return done(new SunwiseError('TABLE_CORRUPT', 'Damage'), undefined)
    }
    const behind = hints.filter((hint) => {
      const of = partitionOf(hint)
      if (of < partition || of >= end) return false
      return of > partition || after === undefined || Buffer.compare(encodeHintKey(hint), after) > 0
    })
    const page = behind.slice(0, 4)
    const last = page.at(-1)
    if (behind.length > page.length) {
      return done(undefined, { hints: page, next: { partition: partitionOf(last!), after: encodeHintKey(last!) } })
    }
    done(undefined, { hints: page, next: end >= Limits.partitions ? undefined : { partition: end, after: undefined } })
  }
}

test('HintLoader: brings every hint once, some in a tick, and is done', () => {
  const replica = new Shards()
  const taken: ListedHint[] = []
  const loader = new HintLoader({ replica, take: (hint) => taken.push(hint) > 0 })
  loader.tick(0)
  assert.equal(replica.asked, 8, 'So many slices in one tick')
  for (let nowMs = 1; !loader.isDone; nowMs++) loader.tick(nowMs)
  assert.deepEqual(taken, hints)
  const { asked } = replica
  loader.tick(1_000_000)
  assert.equal(replica.asked, asked)
})

test('HintLoader: stops where the store has no room, and goes on from there', () => {
  const replica = new Shards()
  const taken: ListedHint[] = []
  let room = 10
  const loader = new HintLoader({ replica, take: (hint) => room-- > 0 && taken.push(hint) > 0 })
  for (let nowMs = 0; nowMs < 50; nowMs++) loader.tick(nowMs)
  assert.deepEqual(taken, hints.slice(0, 10))
  const { asked } = replica
  loader.tick(50)
  assert.equal(replica.asked, asked, 'It does not ask without room')
  room = 1000
  loader.roomCame()
  for (let nowMs = 51; nowMs < 100; nowMs++) loader.tick(nowMs)
  assert.ok(loader.isDone)
  assert.deepEqual(taken, hints)
})

test('HintLoader: is refused and asks again after a while', () => {
  const replica = new Shards()
  replica.refuses = 2
  const taken: ListedHint[] = []
  const loader = new HintLoader({ replica, take: (hint) => taken.push(hint) > 0 })
  for (let nowMs = 0; nowMs < 1000; nowMs += 50) loader.tick(nowMs)
  assert.equal(replica.asked, 1)
  for (let nowMs = 1000; nowMs < 5000; nowMs += 50) loader.tick(nowMs)
  assert.deepEqual(taken, hints)
})

test('HintLoader: leaves out a partition that cannot be read, and no other', () => {
  const replica = new Shards()
  const damaged = partitionOf(hints[30]!)
  replica.damaged.add(damaged)
  const taken: ListedHint[] = []
  const loader = new HintLoader({ replica, take: (hint) => taken.push(hint) > 0 })
  for (let nowMs = 0; nowMs < 5_000_000 && !loader.isDone; nowMs += 50) loader.tick(nowMs)
  assert.ok(loader.isDone)
  assert.deepEqual(
    taken,
    hints.filter((hint) => partitionOf(hint) !== damaged),
  )
})
