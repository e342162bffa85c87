/**
 * Which runs of which partitions to merge next, and how far merging is behind. Pure: rows, facts and a little state in, a plan out.
 *
 * Young runs are tiered, the oldest is levelled (lazy levelling: Dayan, Idreos, "Dostoevsky", SIGMOD 2018), but no fan-out is
 * configured. What is bounded is what reads pay, the runs of a partition, and within that bound merges are chosen as the binomial
 * schedule does (Mathieu, Staelin, Young, Yousefi, "Bigtable Merge Compaction", 2014), which writes the least: with K runs
 * allowed, C(K + t, t) flushes need no byte merged more than t times. Its rule, for a stack with one run too many: begin with the
 * newest runs that bring it back to K, and take in older ones as long as that does not raise the level of the result. A level counts
 * how often the most merged byte was merged so.
 *
 * Partition by partition, the newest run first, a stack wants one of these; the first that applies:
 *
 *   urgent    more than `runsWanted + runsLate` runs: merging is late. The cheapest merge of the newest runs that the rule knows.
 *   crowded   more than `runsWanted` runs: the merge of the binomial schedule.
 *   dead      so much of the stack is dead by estimate (overwritten, tombstones, expired, of deleted buckets) that it is merged whole.
 *   and only while the shard is idle
 *   settle    a run whose newer ones together exceed `idleYoungShare` of its size is merged with them; so is a stack with less dead in
 *             it, and one with an incomplete run, whole.
 *   rewrite   one run alone: the oldest, with many tombstones or expired records; any, with many records of deleted buckets; or the
 *             rest of a table whose file is mostly waste.
 *
 * The most wanting partition is merged first, together with neighbours that want the same, up to `sliceBytesMax` of input: a great
 * merge is many small ones, each atomic, and between any two of them an urgent one may come. Work that is lost in a crash is one
 * slice. What a stack has dead is an estimate that differs from partition to partition where each holds little: to be merged whole for
 * that, neighbours come along up to `sliceBytesMin` whether they want it or not.
 *
 * An idle store comes to rest. A merge of two runs or more leaves one in each of its partitions, and nothing but a flush adds any,
 * so there are only so many. A rewrite leaves behind a table that is no reason for another at the same time: without waste, its
 * tombstones held, nothing expired in it. This takes no estimate to be right; it takes merges that report truly (`Compaction`).
 *
 * This module does not merge, does not pace, and does not know which partitions are served elsewhere.
 */
import { assert } from '../base/assert.ts'
import { Limits } from '../config.ts'
import { isRetired, type KnownBuckets } from './known-buckets.ts'
import {
  clip,
  type FactsById,
  levelMax,
  type PartitionRange,
  partitionBytes,
  rangeBytes,
  type TableFacts,
  type TableRow,
  type TableRows,
} from './table-rows.ts'

const MiB = 1024 * 1024
const GiB = 1024 * MiB

/**
 * What the policy strives for. The defaults were measured by test/storage/compaction-policy.test.ts, which prints the figures.
 */
export type CompactionParameters = {
  /** Runs of a partition that reads should meet at most, while compaction keeps pace. */
  readonly runsWanted: number
  /** So many more, and the cheap merges go before the good ones. */
  readonly runsLate: number
  /** Part of a stack that may be dead before it is merged whole, while flushes go on. */
  readonly deadShareMax: number
  /** Likewise while the shard is idle. */
  readonly idleDeadShareMax: number
  /** While idle, newer runs together may have this part of the size of the run below them. */
  readonly idleYoungShare: number
  /** Neighbours of a partition above one of these three shares are merged with it if they are above this part of it. */
  readonly joinShare: number
  /** Of a lone oldest run: tombstones or expired records beyond this part of its records make it worth a rewrite. */
  readonly rewriteShare: number
  /** A table whose rows hold less than half of its file, and so many bytes less than it, is worth a rewrite. */
  readonly wasteBytesMin: number
  /**
   * Input below which a `dead` or `settle` merge takes in neighbours that do not want it: shares of single partitions are estimates from bands, and where
   * there are few records in each, they differ so much that a shard would be cut into ever smaller tables.
   */
  readonly sliceBytesMin: number
  /** Input of one merge; more only where a single partition has more. */
  readonly sliceBytesMax: number
  /** Limit of `debt`: bytes in runs beyond `runsWanted`. */
  readonly pendingBytesMax: number
  /** Limit of `debt`: dead bytes beyond the size of the oldest runs. */
  readonly deadBytesMax: number
}

export const compactionDefaults: CompactionParameters = {
  runsWanted: 5,
  runsLate: 3,
  deadShareMax: 0.25,
  idleDeadShareMax: 0.1,
  idleYoungShare: 0.25,
  joinShare: 0.75,
  rewriteShare: 0.1,
  wasteBytesMin: 1 * MiB,
  sliceBytesMin: 4 * MiB,
  sliceBytesMax: 64 * MiB,
  pendingBytesMax: 2 * GiB,
  deadBytesMax: 4 * GiB,
}

/** Runs that any partition may have: filters and readers are sized for it. `debt` is 1 before it is reached. */
export const runsMax = 24
/** At so many runs `debt` is 1; what is under way may still add its flush. */
const runsStop = runsMax - 2

/** Partitions that a compaction holds. */
export type BusyRange = PartitionRange & {
  /**
   * Largest sequence of its inputs: newer runs of these partitions may be merged meanwhile. Without it the partitions are left alone.
   */
  readonly newestSequence?: number
}

export type CompactionState = {
  /** Compactions under way. */
  readonly busy: readonly BusyRange[]
  /** Nothing was flushed for a while: the shard has time for what is worth it only then. */
  readonly isIdle: boolean
  /** Wall clock. Versions expire `Limits.expiryGraceMs` after their expiry. */
  readonly nowMs: number
  /** Tables whose held tombstones may go now, as far as the caller knows; each is to be named until it was rewritten, once. */
  readonly released?: ReadonlySet<string>
  /** Records of buckets that were deleted may go. Undefined: none was. */
  readonly buckets?: KnownBuckets | undefined
}

/** Why a compaction was picked; for metrics. */
export type CompactionReason = 'urgent' | 'crowded' | 'dead' | 'settle' | 'rewrite' | 'mend'

/**
 * One merge: all records of `inputs`, the newest of each key, into tables that lie in [firstPartition, endPartition), cut between
 * partitions. Each output has one row, of `outputSequence` and `outputLevel`. The edit removes exactly `inputs`. There may be no
 * output at all.
 *
 * The outputs' facts tell what the merge saw: with `isLast` there are no expired versions and `heldTombstones` equals `tombstones`;
 * `deadBytes` is `deadBytesAfter`.
 */
export type Compaction = PartitionRange & {
  readonly reason: CompactionReason
  /** Parts of rows inside of the range, newest first; of one partition, they are adjacent in age. */
  readonly inputs: readonly TableRow[]
  /** Estimate of the bytes of the inputs. */
  readonly inputBytes: number
  readonly outputLevel: number
  /** The largest sequence of the inputs. */
  readonly outputSequence: number
  /** In every partition of the range the oldest run is among the inputs: tombstones that no replica needs may go. */
  readonly isLast: boolean
  /** Whether the outputs are complete: reads may stop at them. */
  readonly isComplete: boolean
}

/** What a partition wants: rows `newest` to `oldest` of its stack merged. */
type Wish = {
  readonly reason: CompactionReason
  /** Wishes of greater weight come first. */
  readonly weight: number
  readonly newest: number
  readonly oldest: number
  readonly level: number
}

/** What the policy reads off a table, per byte of its records. */
type Weighing = {
  readonly facts: TableFacts
  /** Dead bytes here and below for every byte of records, by estimate. */
  readonly deadPerByte: number
  /** Part of the records that are of deleted buckets: every merge drops them. */
  readonly retiredShare: number
  /** Part of the records that a rewrite of an oldest run would drop. */
  readonly removableShare: number
  /** Of this shard's part of the file less than half, by far, is in rows. */
  readonly isWasteful: boolean
}

const weights = { urgent: 4000, crowded: 3000, dead: 2000, settle: 1000, rewrite: 0 } as const

/**
 * The merge that is wanted most, or undefined where none is. Its range keeps clear of `state.busy`, so several may run at once.
 * Costs O(partitions x rows of a stack). Facts of every table that a row names are there.
 */
export function pickCompaction(
  rows: TableRows,
  facts: FactsById,
  state: CompactionState,
  parameters: CompactionParameters = compactionDefaults,
): Compaction | undefined {
  return new Picking(rows, facts, state, parameters).pick()
}

/** The merge of all that a range has, whatever the policy makes of it: what is damaged there is written anew. */
export function mendingCompaction(rows: TableRows, facts: FactsById, range: PartitionRange): Compaction {
  const inputs = clip(rows.rows, range).sort((a, b) => b.sequence - a.sequence || a.firstPartition - b.firstPartition)
  assert(inputs.length > 0, 'What is damaged has tables')
  return {
    ...range,
    reason: 'mend',
    inputs,
    inputBytes: inputs.reduce((sum, row) => sum + bytesOf(facts, row), 0),
    outputLevel: Math.max(...inputs.map(({ level }) => level)),
    outputSequence: inputs[0]!.sequence,
    isLast: true,
    isComplete: true,
  }
}

/** One call of pickCompaction: what it looked up so far. */
class Picking {
  readonly #rows: TableRows
  readonly #facts: FactsById
  readonly #state: CompactionState
  readonly #parameters: CompactionParameters
  readonly #weighings = new Map<string, Weighing>()
  readonly #rowBytes: ReadonlyMap<string, number>

  constructor(rows: TableRows, facts: FactsById, state: CompactionState, parameters: CompactionParameters) {
    this.#rows = rows
    this.#facts = facts
    this.#state = state
    this.#parameters = parameters
    const rowBytes = new Map<string, number>()
    for (const row of rows.rows) {
      const bytes = rangeBytes(factsOf(facts, row), row.firstPartition, row.endPartition)
      rowBytes.set(row.tableId, (rowBytes.get(row.tableId) ?? 0) + bytes)
    }
    this.#rowBytes = rowBytes
  }

  pick(): Compaction | undefined {
    let best: Wish | undefined
    let at = -1
    for (let partition = this.#rows.firstPartition; partition < this.#rows.endPartition; partition++) {
      const wish = this.#wishOf(partition, false)
      if (wish === undefined || (best !== undefined && wish.weight <= best.weight)) continue
      best = wish
      at = partition
    }
    return best === undefined ? undefined : this.#sliceAround(at, best)
  }

  /** What the partition wants; with `isJoining`, what it would do along with a neighbour. */
  #wishOf(partition: number, isJoining: boolean): Wish | undefined {
    const stack = this.#rows.rowsOf(partition)
    if (stack.length === 0) return undefined
    const floor = this.#busySequence(partition)
    if (floor !== undefined) return this.#wishAbove(stack, floor)
    const count = stack.length
    const { runsWanted, runsLate } = this.#parameters
    if (count > runsWanted + runsLate) return schedule(stack, 'urgent', 1)
    if (count > runsWanted) return schedule(stack, 'crowded', count - runsWanted)
    const ease = isJoining ? this.#parameters.joinShare : 1
    if (this.#isDead(stack, partition, this.#parameters.deadShareMax * ease)) return whole(stack, 'dead')
    if (!this.#state.isIdle) return undefined
    return this.#settling(stack, partition, ease) ?? this.#rewriting(stack, isJoining)
  }

  /** Sequence up to which the partition is being merged: infinite where it is to be left alone, undefined where it is free. */
  #busySequence(partition: number): number | undefined {
    let floor: number | undefined
    for (const { firstPartition, endPartition, newestSequence } of this.#state.busy) {
      if (partition < firstPartition || partition >= endPartition) continue
      floor = Math.max(floor ?? 0, newestSequence ?? Number.POSITIVE_INFINITY)
    }
    return floor
  }

  /** While the lower part of a stack is being merged, only what piles up above it, and only when it is late. */
  #wishAbove(stack: readonly TableRow[], floor: number): Wish | undefined {
    const newer = stack.filter((row) => row.sequence > floor)
    return newer.length > this.#parameters.runsLate ? schedule(newer, 'urgent', 1) : undefined
  }

  #isDead(stack: readonly TableRow[], partition: number, share: number): boolean {
    let all = 0
    let dead = 0
    for (const [index, row] of stack.entries()) {
      const { facts, deadPerByte, retiredShare } = this.#weigh(row)
      const bytes = partitionBytes(facts, partition)
      all += bytes
      dead += bytes * retiredShare
      if (index < stack.length - 1) dead += bytes * deadPerByte
    }
    return dead > 0 && dead >= all * share
  }

  #settling(stack: readonly TableRow[], partition: number, ease: number): Wish | undefined {
    const { idleDeadShareMax, idleYoungShare } = this.#parameters
    if (this.#isDead(stack, partition, idleDeadShareMax * ease)) return whole(stack, 'settle')
    const last = stack.length - 1
    if (stack.some((row, index) => index < last && !this.#weigh(row).facts.isComplete)) return whole(stack, 'settle')
    let oldest = 0
    let newerBytes = 0
    for (const [index, row] of stack.entries()) {
      const bytes = partitionBytes(this.#weigh(row).facts, partition)
      if (index > 0 && newerBytes >= bytes * idleYoungShare * ease) oldest = index
      newerBytes += bytes
    }
    if (oldest === 0) return undefined
    const level = Math.max(1, levelOf(stack, oldest))
    return { reason: 'settle', weight: weights.settle, newest: 0, oldest, level }
  }

  #rewriting(stack: readonly TableRow[], isJoining: boolean): Wish | undefined {
    const { rewriteShare, joinShare } = this.#parameters
    for (const [index, row] of stack.entries()) {
      const { isWasteful, removableShare, retiredShare } = this.#weigh(row)
      const share = retiredShare + (index === stack.length - 1 ? removableShare : 0)
      const isStale = share > 0 && share >= rewriteShare * (isJoining ? joinShare : 1)
      if (!isWasteful && !isStale) continue
      return { reason: 'rewrite', weight: weights.rewrite, newest: index, oldest: index, level: row.level }
    }
    return undefined
  }

  /** The compaction of `wish` around `partition`, over as many neighbours as want the same and fit. */
  #sliceAround(partition: number, wish: Wish): Compaction {
    const inputs = new Set<TableRow>()
    let bytes = 0
    let level = 0
    let isLast = true
    const take = (at: number, taken: Wish): boolean => {
      const stack = this.#rows.rowsOf(at)
      const window = stack.slice(taken.newest, taken.oldest + 1)
      const added = window.reduce((sum, row) => sum + partitionBytes(this.#weigh(row).facts, at), 0)
      if (at !== partition && bytes + added > this.#parameters.sliceBytesMax) return false
      for (const row of window) inputs.add(row)
      bytes += added
      level = Math.max(level, taken.level)
      isLast &&= taken.oldest === stack.length - 1
      return true
    }
    const isFree = (at: number): boolean => at >= this.#rows.firstPartition && at < this.#rows.endPartition
    const joins = (at: number): boolean => {
      const other = isFree(at) ? this.#wishOf(at, true) : undefined
      return other !== undefined && this.#isAlike(partition, wish, at, other) && take(at, other)
    }
    const comesAlong = (at: number): boolean => {
      const other = isFree(at) && bytes < this.#parameters.sliceBytesMin ? this.#along(partition, wish, at) : undefined
      return other !== undefined && take(at, other)
    }
    take(partition, wish)
    let firstPartition = partition
    let endPartition = partition + 1
    // Those that want it go first: what has just been merged comes along only where little else does.
    for (let isGrowing = true; isGrowing; ) {
      while (joins(firstPartition - 1)) firstPartition--
      while (joins(endPartition)) endPartition++
      isGrowing = comesAlong(endPartition)
      if (isGrowing) endPartition++
      else if (comesAlong(firstPartition - 1)) {
        firstPartition--
        isGrowing = true
      }
    }
    return this.#compaction({ firstPartition, endPartition }, wish.reason, [...inputs], level, isLast)
  }

  /**
   * What can be merged along with `wish` in a neighbour that does not want it: its whole stack, where `wish` goes by an estimate. The
   * merges that go by the count of runs, which is exact, would only cost more so.
   */
  #along(partition: number, wish: Wish, at: number): Wish | undefined {
    if (
      (wish.reason !== 'dead' && wish.reason !== 'settle') ||
      this.#busySequence(partition) !== this.#busySequence(at)
    )
      return undefined
    const stack = this.#rows.rowsOf(partition)
    const other = this.#rows.rowsOf(at)
    if (other.length < 1 || wish.oldest < stack.length - 1) return undefined
    const oldest = other.length - 1
    return { ...wish, oldest, level: Math.max(wish.level, levelOf(other, oldest)) }
  }

  /** Whether two partitions want merges that can be one: of the same rows, or each of its whole stack. */
  #isAlike(partition: number, wish: Wish, at: number, other: Wish): boolean {
    if (this.#busySequence(partition) !== this.#busySequence(at)) return false
    const stack = this.#rows.rowsOf(partition)
    const otherStack = this.#rows.rowsOf(at)
    if (wish.reason === 'rewrite' || other.reason === 'rewrite') {
      return wish.reason === other.reason && stack[wish.oldest]!.tableId === otherStack[other.oldest]!.tableId
    }
    const isWhole = wish.oldest === stack.length - 1
    if (isWhole !== (other.oldest === otherStack.length - 1)) return false
    return isWhole || stack[wish.oldest]!.sequence === otherStack[other.oldest]!.sequence
  }

  #compaction(
    range: PartitionRange,
    reason: CompactionReason,
    rows: readonly TableRow[],
    outputLevel: number,
    isLast: boolean,
  ): Compaction {
    const inputs = clip(rows, range).sort((a, b) => b.sequence - a.sequence || a.firstPartition - b.firstPartition)
    assert(inputs.length > 0, 'A compaction has inputs')
    return {
      ...range,
      reason,
      inputs,
      inputBytes: inputs.reduce((sum, row) => sum + bytesOf(this.#facts, row), 0),
      outputLevel,
      outputSequence: inputs[0]!.sequence,
      isLast,
      isComplete: isLast || inputs.every((row) => factsOf(this.#facts, row).isComplete),
    }
  }

  #weigh(row: TableRow): Weighing {
    let weighing = this.#weighings.get(row.tableId)
    if (weighing === undefined) {
      weighing = this.#weighAnew(factsOf(this.#facts, row))
      this.#weighings.set(row.tableId, weighing)
    }
    return weighing
  }

  #weighAnew(facts: TableFacts): Weighing {
    const { firstPartition, endPartition } = this.#rows
    const { released, nowMs } = this.#state
    const expired = expiredRecords(facts, nowMs)
    const held = released?.has(facts.tableId) ? 0 : facts.heldTombstones
    const ownBytes = rangeBytes(facts, firstPartition, endPartition)
    const wasteBytes = ownBytes - this.#rowBytes.get(facts.tableId)!
    return {
      facts,
      deadPerByte: deadPerByteOf(facts, expired),
      retiredShare: retiredRecords(facts, this.#state.buckets) / facts.records,
      removableShare: (facts.tombstones - held + expired) / facts.records,
      isWasteful: wasteBytes > ownBytes / 2 && wasteBytes >= this.#parameters.wasteBytesMin,
    }
  }
}

/** The merge of the binomial schedule: down to row `least`, and on while the level of the result stays the same. */
function schedule(stack: readonly TableRow[], reason: 'urgent' | 'crowded', least: number): Wish {
  const level = levelOf(stack, least)
  let oldest = least
  while (oldest + 1 < stack.length && stack[oldest + 1]!.level <= level) oldest++
  return { reason, weight: weights[reason] + stack.length, newest: 0, oldest, level: Math.min(level + 1, levelMax) }
}

/** The merge of a whole stack. It was not the schedule that wanted it, so its level does not grow. */
function whole(stack: readonly TableRow[], reason: 'dead' | 'settle'): Wish {
  const oldest = stack.length - 1
  return { reason, weight: weights[reason], newest: 0, oldest, level: Math.max(1, levelOf(stack, oldest)) }
}

/** Greatest level of the newest rows, down to `oldest`. */
function levelOf(stack: readonly TableRow[], oldest: number): number {
  let level = 0
  for (let index = 0; index <= oldest; index++) level = Math.max(level, stack[index]!.level)
  return level
}

function factsOf(facts: FactsById, row: TableRow): TableFacts {
  const found = facts.get(row.tableId)
  assert(found !== undefined, 'Facts of every table that has a row are known')
  return found
}

function bytesOf(facts: FactsById, row: TableRow): number {
  return rangeBytes(factsOf(facts, row), row.firstPartition, row.endPartition)
}

/**
 * Estimate of the records with an expired version. None before half of those that can expire have done so: then a rewrite at least
 * halves them, and a table is rewritten for its expiries no more often than its records can be halved.
 */
function expiredRecords(facts: TableFacts, nowMs: number): number {
  const sinceMs = nowMs - Limits.expiryGraceMs - facts.medianExpiryMs
  if (facts.expiring === 0 || sinceMs < 0) return 0
  const halfMs = facts.medianExpiryMs - facts.earliestExpiryMs
  const share = halfMs === 0 ? 1 : Math.min(1, 0.5 + (0.5 * sinceMs) / halfMs)
  return facts.expiring * share
}

function retiredRecords({ buckets }: TableFacts, known: KnownBuckets | undefined): number {
  if (known === undefined) return 0
  return buckets.reduce((sum, { bucketId, records }) => sum + (isRetired(known, bucketId) ? records : 0), 0)
}

/** Dead bytes for every byte of records: tombstones and `expired` ones themselves, and what the table replaces in older ones. */
function deadPerByteOf(facts: TableFacts, expired: number): number {
  const bytes = facts.bandBytes.reduce((sum, band) => sum + band, 0)
  return Math.min(1, (facts.tombstones + expired) / facts.records) + facts.deadBytes / bytes
}

/**
 * `deadBytes` of each output of a merge: together what the inputs were thought to replace, less what the merge has saved, shared out by size.
 * `outputBytes` has the size of each.
 */
export function deadBytesAfter(
  compaction: Compaction,
  facts: FactsById,
  outputBytes: readonly number[],
): readonly number[] {
  const allBytes = outputBytes.reduce((sum, bytes) => sum + bytes, 0)
  if (compaction.isLast || allBytes === 0) return outputBytes.map(() => 0)
  let dead = 0
  for (const row of compaction.inputs) {
    const table = factsOf(facts, row)
    dead += table.deadBytes * (bytesOf(facts, row) / table.fileBytes)
  }
  const deadPerByte = Math.max(0, dead - Math.max(0, compaction.inputBytes - allBytes)) / allBytes
  return outputBytes.map((bytes) => Math.round(bytes * deadPerByte))
}

/**
 * How far merging is behind: 0 not at all, 1 so far that writers must wait until something was merged. Writers are to be slowed in
 * proportion from some value on, so that 1 is never reached. The greatest of three, each linear and capped at 1:
 *
 *   runs      of the worst partition, from `runsWanted + runsLate` (0) to two below `runsMax` (1)
 *   pending   bytes in runs beyond the `runsWanted` of each partition, of `pendingBytesMax`
 *   dead      estimate of the dead bytes of a partition beyond the size of its oldest run, over all partitions, of `deadBytesMax`
 *
 * Another flush never makes it less, whatever is in it.
 */
export function debt(rows: TableRows, facts: FactsById, parameters: CompactionParameters = compactionDefaults): number {
  const { runsWanted, runsLate, pendingBytesMax, deadBytesMax } = parameters
  const deadPerByte = new Map<string, number>()
  for (const row of rows.rows) {
    if (!deadPerByte.has(row.tableId)) deadPerByte.set(row.tableId, deadPerByteOf(factsOf(facts, row), 0))
  }
  let runs = 0
  let pendingBytes = 0
  let deadBytes = 0
  for (let partition = rows.firstPartition; partition < rows.endPartition; partition++) {
    const stack = rows.rowsOf(partition)
    const oldest = stack.length - 1
    runs = Math.max(runs, stack.length)
    let dead = 0
    for (const [index, row] of stack.entries()) {
      const bytes = partitionBytes(factsOf(facts, row), partition)
      if (index < stack.length - runsWanted) pendingBytes += bytes
      dead += index < oldest ? bytes * deadPerByte.get(row.tableId)! : -bytes
    }
    deadBytes += Math.max(0, dead)
  }
  const runsEasy = runsWanted + runsLate
  const late = (runs - runsEasy) / (runsStop - runsEasy)
  return Math.min(1, Math.max(0, late, pendingBytes / pendingBytesMax, deadBytes / deadBytesMax))
}
