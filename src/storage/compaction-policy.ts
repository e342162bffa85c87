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
 *   dead      so much of the stack is dead by estimate (overwritten, tombstones, expired) that it is merged whole.
 *   and only while the shard is idle
 *   settle    a run whose newer ones together exceed `idleYoungShare` of its size is merged with them; so is a stack with less dead in
 *             it, and one with an incomplete run, whole.
 *   rewrite   one run alone: the oldest, with many tombstones or expired records; or the rest of a table whose file is mostly waste.
 *
 * The most wanting partition is merged first, together with neighbours that want the same, up to `sliceBytesMax` of input: a great
 * merge is many small ones, each atomic, and between any two of them an urgent one may come. Work that is lost in a crash is one
 * slice.
 *
 * An idle store comes to rest. A merge of two runs or more leaves one in each of its partitions, and nothing but a flush adds any,
 * so there are only so many. A rewrite leaves behind a table that is no reason for another at the same time: without waste, its
 * tombstones held, nothing expired in it. This takes no estimate to be right; it takes merges that report truly (`Compaction`).
 *
 * This module does not merge, does not pace, and does not know which partitions are served elsewhere.
 */
import { assert } from '../base/assert.ts'
import { Limits } from '../config.ts'
import { clip, type FactsById, type PartitionRange, rangeBytes, type TableFacts, type TableRow, type TableRows } from './table-rows.ts'

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
  /** Input of one merge; more only where a single partition has more. */
  readonly sliceBytesMax: number
  /** Limit of `debt`: bytes in runs beyond `runsWanted`. */
  readonly pendingBytesMax: number
  /** Limit of `debt`: dead bytes beyond the size of the oldest runs. */
  readonly deadBytesMax: number
}

export const compactionDefaults: CompactionParameters = {
  runsWanted: 6,
  runsLate: 3,
  deadShareMax: 1 / 3,
  idleDeadShareMax: 0.1,
  idleYoungShare: 0.25,
  joinShare: 0.75,
  rewriteShare: 0.1,
  wasteBytesMin: 1 * MiB,
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
}

/** Why a compaction was picked; for metrics. */
export type CompactionReason = 'urgent' | 'crowded' | 'dead' | 'settle' | 'rewrite'

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
  /** Part of the records that a rewrite of an oldest run would drop. */
  readonly removableShare: number
  /** Of this shard's part of the file less than half, by far, is in rows. */
  readonly isWasteful: boolean
  /** Some of this shard's part of the file is in no row any more. */
  readonly isTrimmed: boolean
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
}
