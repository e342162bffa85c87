import assert from 'node:assert/strict'
import { test } from 'node:test'
import { encodeTrackedClocks } from '../../src/storage/log-control.ts'
import { fittingClocks, PartitionClocks } from '../../src/storage/partition-clocks.ts'
import { encodeSimple, simpleRecordBytes } from '../../src/storage/record.ts'
import { PartitionClock } from '../../src/versions/partition-clock.ts'
import type { ActorTable } from '../../src/versions/version-set.ts'

const actors: ActorTable = { lowOf: (index) => index, highOf: () => 7 }
const noBytes = new Uint8Array(0)
const partition = 3
const own = 1
const peer = 2

/** A record of one version with this dot. */
function recordOf(actor: number, counter: number): { readonly u8: Uint8Array; readonly i32: Int32Array } {
  const u8 = new Uint8Array(simpleRecordBytes(0, 4, 0, 0))
  const i32 = new Int32Array(u8.buffer)
  encodeSimple(
    u8,
    i32,
    0,
    0,
    1,
    0,
    0,
    actor,
    counter,
    0,
    0,
    Uint8Array.of(1, 2, 3, 4),
    0,
    4,
    noBytes,
    0,
    0,
    noBytes,
    0,
    0,
  )
  return { u8, i32 }
}

function publish(clocks: PartitionClocks, actor: number, counter: number): void {
  const { u8, i32 } = recordOf(actor, counter)
  clocks.notePublished(partition, u8, i32, 0)
}

test('PartitionClocks: a partition that has all its data here begins with everything that was written', () => {
  const clocks = new PartitionClocks()
  clocks.noteCounter(partition, own, 5)
  clocks.noteCounter(partition, peer, 9)
  clocks.adopt(own)
  assert.equal(clocks.nextCounter(partition), 6)
  const clock = clocks.begun(partition, false)
  assert.deepEqual(clock.bases(), [
    { actor: own, counter: 5 },
    { actor: peer, counter: 9 },
  ])
  assert.ok(clocks.begun(partition, true).isEmpty, 'and one that is new to it with nothing')
})

test('PartitionClocks: an own dot that failed leaves no hole, one of a peer that did not come does', () => {
  const clocks = new PartitionClocks()
  clocks.adopt(own)
  clocks.take(partition, clocks.begun(partition, true))
  publish(clocks, own, 1)
  publish(clocks, own, 3)
  publish(clocks, peer, 1)
  publish(clocks, peer, 3)
  const clock = clocks.clockOf(partition)!
  assert.equal(clock.base(own), 3)
  assert.equal(clock.base(peer), 1)
  assert.ok(clock.covers(peer, 3) && !clock.covers(peer, 2))
})

test('PartitionClocks: what is published in a partition that nobody tracks is in no clock', () => {
  const clocks = new PartitionClocks()
  clocks.adopt(own)
  publish(clocks, peer, 1)
  assert.equal(clocks.clockOf(partition), undefined)
  assert.equal(clocks.isAnyTracked, false)
})

test('PartitionClocks: a replay adds to the clock that the log told before, and not to those it told of nothing', () => {
  const clocks = new PartitionClocks()
  const told = new PartitionClock()
  told.raiseBase(peer, 4)
  clocks.take(partition, told)
  const { u8, i32 } = recordOf(peer, 5)
  clocks.noteReplayed(partition, u8, i32, 0)
  clocks.noteReplayed(partition + 1, u8, i32, 0)
  clocks.adopt(own)
  assert.equal(clocks.clockOf(partition)!.base(peer), 5)
  assert.equal(clocks.clockOf(partition + 1), undefined)
})

test('PartitionClocks: a new actor begins its own count, and the old one stays known', () => {
  const clocks = new PartitionClocks()
  clocks.adopt(own)
  clocks.useCounter(partition, 7)
  clocks.changeActor(peer)
  assert.equal(clocks.nextCounter(partition), 1)
  assert.deepEqual(clocks.counters(0), [{ partition, actor: own, counter: 7 }])
})

test('fittingClocks() tells as empty what finds no room, and never more than it may', () => {
  const clocks = [1, 2, 3].map((each): [number, PartitionClock] => {
    const clock = new PartitionClock()
    clock.raiseBase(own, each)
    return [each, clock]
  })
  // Neighbours, some apart, and many that are empty.
  const rest = Array.from({ length: 1000 }, (_, index): [number, PartitionClock] => [index + 20, new PartitionClock()])
  const all = [...clocks.slice(0, 2), [9, clocks[2]![1]] as [number, PartitionClock], ...rest]
  const emptyBytes = new PartitionClock().encode(actors).length
  const toldWhole = (bytesMax: number): number => {
    const told = fittingClocks(all, actors, bytesMax)
    assert.deepEqual(
      told.map(({ partition }) => partition),
      all.map(([partition]) => partition),
      'Each is named, for a partition that is not is taken for complete',
    )
    const encoded = encodeTrackedClocks(told)
    assert.ok(encoded.length <= bytesMax + 32, `${encoded.length} bytes where ${bytesMax} were to be had`)
    return told.filter(({ clock }) => clock.length > emptyBytes).length
  }
  const least = (count: number): number => {
    // Three runs of neighbours, as if all were empty.
    let bytesMax = 36
    while (toldWhole(bytesMax) < count) bytesMax++
    return bytesMax
  }
  const bytes = [0, 1, 2, 3].map(least)
  assert.ok(bytes[0]! < bytes[1]! && bytes[1]! < bytes[2]! && bytes[2]! < bytes[3]!)
  assert.ok(bytes[3]! < 300, 'Those that are empty take next to nothing')
})

test('PartitionClocks: a clock that begins anew takes the place of what the log told before, and is added to by what it tells then', () => {
  const clocks = new PartitionClocks()
  const [before, anew, after] = [3, 1, 2].map((counter) => {
    const clock = new PartitionClock()
    clock.add(7, counter)
    return clock
  })
  clocks.take(4, before!)
  clocks.takeAnew(4, anew!)
  clocks.take(4, after!)
  assert.equal(clocks.clockOf(4)!.covers(7, 1), true)
  assert.equal(clocks.clockOf(4)!.covers(7, 2), true)
  assert.equal(clocks.clockOf(4)!.covers(7, 3), false)
})
