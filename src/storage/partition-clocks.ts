/**
 * What the shard knows of the dots of its partitions: the counters that this run's actor has issued, the highest counter of every other
 * actor, and for partitions with replicas elsewhere the clock of what has reached this one (versions/partition-clock.ts).
 *
 * A partition whose only replica is here has all that was ever written to it, so nobody needs a clock; one is begun with just
 * that before the first version of another node comes. From then on a clock takes in dots only when their versions are published,
 * so that it is never ahead of the data: a dot that it covers and that is not here counts as replaced, and late copies of it are
 * dropped. All of it is written into the head of every log segment (log-control.ts) and read back with the log. What does not fit there
 * is left out of the clocks, which makes them lag, and that is safe.
 *
 * Hints are no versions of the partition but notes of this node for itself (shard/hint-record.ts): they use up no counter, and no clock
 * ever hears of them, or peers would look for dots that nobody has.
 */
import { assert } from '../base/assert.ts'
import { hintBucketId, Limits } from '../config.ts'
import { PartitionClock } from '../versions/partition-clock.ts'
import type { Stable } from '../versions/stability.ts'
import type { ActorTable } from '../versions/version-set.ts'
import { type ClockEntry, type TrackedClock, trackedClockHeadBytes } from './log-control.ts'
import { decodeRecord, RecordFlag, recordBucket, simpleActor, simpleCounter } from './record.ts'

export class PartitionClocks {
  /** This run's actor; -1 before it is known. */
  #actor = -1
  /** Highest counter of this run's actor per partition. */
  readonly #counters = new Float64Array(Limits.partitions)
  /** Highest counters of other actors: partition -> actor -> counter. */
  readonly #others = new Map<number, Map<number, number>>()
  #trackedCount = 0
  /** Partitions whose data of this run's actor may be lost in part: what is missing between its dots may have been written. */
  readonly #isReset = new Uint8Array(Limits.partitions)
  readonly #clocks: (PartitionClock | undefined)[] = new Array(Limits.partitions).fill(undefined)

  /** Counter for the next write of this run's actor in a partition. */
  nextCounter(partition: number): number {
    return this.#counters[partition]! + 1
  }

  useCounter(partition: number, counter: number): void {
    assert(counter > this.#counters[partition]!, 'A counter never goes back')
    this.#counters[partition] = counter
  }

  /** The clock of a partition with replicas elsewhere; undefined where this is the only one. */
  clockOf(partition: number): PartitionClock | undefined {
    return this.#clocks[partition]
  }

  /** Whether any partition has replicas elsewhere. */
  get isAnyTracked(): boolean {
    return this.#trackedCount > 0
  }

  /** The partitions that have replicas elsewhere: what jobs on other threads are told. */
  replicated(stableOf: (partition: number) => Stable): ReplicatedPartitions {
    const partitions = new Map<number, Stable>()
    for (const [partition, clock] of this.#clocks.entries()) {
      if (clock !== undefined) partitions.set(partition, stableOf(partition))
    }
    return partitions
  }

  /** The clock with which a partition begins that has all its data here, or, where `isEmpty`, none of it. */
  begun(partition: number, isEmpty: boolean): PartitionClock {
    const clock = new PartitionClock()
    if (isEmpty) return clock
    if (this.#counters[partition]! > 0) clock.raiseBase(this.#actor, this.#counters[partition]!)
    for (const [actor, counter] of this.#others.get(partition) ?? []) clock.raiseBase(actor, counter)
    return clock
  }

  /** A clock that stands in the log: all records before it are in it. */
  take(partition: number, clock: PartitionClock): void {
    const present = this.#clocks[partition]
    if (present !== undefined) return present.join(clock)
    this.#clocks[partition] = clock
    this.#trackedCount++
  }

  /**
   * Data of a partition was lost here, nobody knows which: nothing is known to have been here any more, until replicas that have it say so. A
   * clock that lags is safe. From then on the run is to go on under another actor.
   */
  reset(partition: number): void {
    assert(this.#clocks[partition] !== undefined, 'The partition is tracked')
    this.#clocks[partition] = new PartitionClock()
    this.#isReset[partition] = 1
  }

  /** A clock that stands in the log in the place of what was said of its partition before: data was lost then. */
  takeAnew(partition: number, clock: PartitionClock): void {
    if (this.#clocks[partition] === undefined) this.#trackedCount++
    this.#clocks[partition] = clock
  }

  /** Whether the clock was reset, and the run has not gone on under another actor since. */
  isReset(partition: number): boolean {
    return this.#isReset[partition] === 1
  }

  /** The clock that was begun last is none: what said so was not written. */
  untrack(partition: number): void {
    assert(this.#clocks[partition] !== undefined, 'The partition is tracked')
    this.#clocks[partition] = undefined
    this.#trackedCount--
  }

  /** This run's actor is known: it goes on where it stood. */
  adopt(actor: number): void {
    this.#actor = actor
    for (const [partition, counters] of this.#others) {
      const counter = counters.get(actor) ?? 0
      this.#counters[partition] = counter
      counters.delete(actor)
      // No other node issues its dots, so what is missing below was never written.
      if (counter > 0) this.#clocks[partition]?.raiseBase(actor, counter)
    }
  }

  /** The run goes on under another actor. */
  changeActor(actor: number): void {
    for (let partition = 0; partition < Limits.partitions; partition++) {
      const counter = this.#counters[partition]!
      if (counter > 0) this.noteCounter(partition, this.#actor, counter)
    }
    this.#counters.fill(0)
    this.#isReset.fill(0)
    this.#actor = actor
  }

  noteCounter(partition: number, actor: number, counter: number): void {
    let counters = this.#others.get(partition)
    if (counters === undefined) {
      counters = new Map()
      this.#others.set(partition, counters)
    }
    if (counter > (counters.get(actor) ?? 0)) counters.set(actor, counter)
  }

  /** A record of the log, while it is read back. */
  noteReplayed(partition: number, u8: Uint8Array, i32: Int32Array, at: number): void {
    if (recordBucket(i32, at) === hintBucketId) return
    const clock = this.#clocks[partition]
    if (u8[at + 12]! & RecordFlag.simple) {
      const actor = simpleActor(u8, at)
      const counter = simpleCounter(u8, i32, at)
      this.noteCounter(partition, actor, counter)
      clock?.add(actor, counter)
      return
    }
    const set = decodeRecord(u8, i32, at)
    for (const entry of set.vector) this.noteCounter(partition, entry.actor, entry.counter)
    if (clock !== undefined) for (const { actor, counter } of set.versions) clock.add(actor, counter)
  }

  /** A record of a tracked partition was published: its versions are here for good. */
  notePublished(partition: number, u8: Uint8Array, i32: Int32Array, at: number): void {
    const clock = this.#clocks[partition]
    if (clock === undefined || recordBucket(i32, at) === hintBucketId) return
    if (u8[at + 12]! & RecordFlag.simple) {
      this.#noteDot(partition, clock, simpleActor(u8, at), simpleCounter(u8, i32, at))
      return
    }
    for (const { actor, counter } of decodeRecord(u8, i32, at).versions) this.#noteDot(partition, clock, actor, counter)
  }

  #noteDot(partition: number, clock: PartitionClock, actor: number, counter: number): void {
    // Its own dots are published in their order; what is missing between them failed and was never seen by anybody.
    if (actor === this.#actor && this.#isReset[partition] === 0) clock.raiseBase(actor, counter)
    else clock.add(actor, counter)
  }

  /** The highest counters, for the head of a segment; of actors below `oldestActor` none. */
  counters(oldestActor: number): ClockEntry[] {
    const entries: ClockEntry[] = []
    for (let partition = 0; partition < Limits.partitions; partition++) {
      const counter = this.#counters[partition]!
      if (counter > 0) entries.push({ partition, actor: this.#actor, counter })
      const others = this.#others.get(partition)
      if (others === undefined) continue
      for (const [actor, other] of others) if (actor >= oldestActor) entries.push({ partition, actor, counter: other })
    }
    return entries
  }

  /** The tracked clocks, for the head of a segment. */
  tracked(actors: ActorTable, bytesMax: number): TrackedClock[] {
    const clocks = this.#clocks.flatMap((clock, partition): [number, PartitionClock][] =>
      clock === undefined ? [] : [[partition, clock]],
    )
    return fittingClocks(clocks, actors, bytesMax)
  }
}

/** Partitions with replicas elsewhere, and up to where all of these have all writes. */
export type ReplicatedPartitions = ReadonlyMap<number, Stable>

/**
 * Encodes clocks, in the order of their partitions, into `bytesMax` bytes together: one that finds no room is told as empty, which makes it
 * lag. Neighbours that are empty take no more than one of them.
 */
export function fittingClocks(
  clocks: readonly (readonly [partition: number, clock: PartitionClock])[],
  actors: ActorTable,
  bytesMax: number,
): TrackedClock[] {
  const empty = new PartitionClock().encode(actors)
  const emptyBytes = trackedClockHeadBytes + empty.length
  const gaps = clocks.filter(([partition], index) => index === 0 || clocks[index - 1]![0] + 1 !== partition).length
  let left = bytesMax - gaps * emptyBytes
  return clocks.map(([partition, clock]) => {
    if (clock.isEmpty) return { partition, clock: empty }
    const bytes = clock.encode(actors)
    // It parts those around it.
    const more = trackedClockHeadBytes + bytes.length + emptyBytes
    if (more > left) return { partition, clock: empty }
    left -= more
    return { partition, clock: bytes }
  })
}
