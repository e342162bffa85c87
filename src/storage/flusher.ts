/**
 * Moves the oldest segments of a memtable into a table, and gives their memory and log back. A machine of small steps:
 *
 *   resting    until memory runs short
 *   writing    a job writes what is live in the segments (flush.ts); nothing of them is touched
 *   syncing    what took the place of their records since must not be lost with them: the log is synced up to the job's end
 *   committing the catalog takes the table, and the log's flushed end with it, at once
 *   sweeping   readers find the table: index entries that point into the segments go, some chunks at a time
 *   retiring   when all answers that may show their records have left, the segments are retired, oldest first
 *
 * A crash before the commit leaves everything as it was; behind it, recovery passes over the segments (store.ts) and this machine
 * begins with `retiring`. After an error it rests for a while and begins anew.
 */
import type { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { Arena } from './arena.ts'
import type { CommitLog } from './commit-log.ts'
import { runsMax } from './compaction-policy.ts'
import type { HashIndex } from './hash-index.ts'
import type { LogPosition } from './log-group.ts'
import type { PreparedFlush, Tables } from './tables.ts'

/** What the flusher needs of its store. */
export type FlusherStore = {
  readonly arena: Arena
  readonly index: HashIndex
  readonly log: CommitLog
  readonly tables: Tables
  /** Segments that the budget allows. */
  segmentsAllowed(): number
  /** What is left of a full disk for this shard; undefined while there is room. */
  diskRoomBytes(): number | undefined
  /** Bytes of live records in a segment. */
  liveBytesOf(segment: number): number
  /** Whether a record that is not visible yet lies in one of the segments with 1. */
  hasUnpublishedIn(segments: Uint8Array): boolean
  /** Begins a sync of the log; none is under way. */
  sync(): void
  /** The index has no entries of this segment any more. */
  sweptOut(segment: number): void
  /** Ordinals of records staged and visible so far. */
  readonly staged: number
  readonly published: number
}

type Phase = 'resting' | 'writing' | 'syncing' | 'committing' | 'sweeping' | 'retiring'

/** Written at once at most. */
const flushBytesMax = 64 * 1024 * 1024
/** Segments, of those that the budget allows, that data may not grow into (store.ts). */
export const growthReserve = 3
/** Part of the others that is kept free, so that writers go on during a flush. */
const freeShare = 1 / 3
const freeSegmentsLeast = 1
/** With less of the segments live than this, it is cheaper to copy that (store.ts, recycling) than to write a table. */
const liveShareLeast = 0.5
const chunksPerStep = 256
/** On a full disk a flush finds so many times its bytes, or waits: merges need room, too. */
const flushRoomFactor = 3
const retryMs = { first: 500, max: 10_000 } as const

export class Flusher {
  readonly #store: FlusherStore
  readonly #isGone: Uint8Array
  #phase: Phase = 'resting'
  #segments: readonly number[] = []
  #through = 0
  #prepared: PreparedFlush | undefined
  #syncTarget: LogPosition = { sequence: 0, bytes: 0 }
  #sweepPartition = 0
  #sweepPosition = 0
  #retireAfter = 0
  #retryAtMs = 0
  #retryPauseMs: number = retryMs.first
  #nowMs = 0
  /** So many segments at once at most: fewer after a full disk did not take more. */
  #segmentsMost = Number.POSITIVE_INFINITY
  #isSpaceWanted = false
  /** How often a flush was due that a full disk has no room for. */
  spaceWants = 0
  /** Why the last try failed; undefined after one that went well. */
  failure: SunwiseError | undefined

  constructor(store: FlusherStore) {
    this.#store = store
    this.#isGone = new Uint8Array(store.arena.segments)
    const { log, tables } = store
    const oldest = log.oldest
    if (oldest !== undefined && oldest.sequence <= tables.flushedThrough) {
      this.#phase = 'retiring'
      this.#through = tables.flushedThrough
    }
  }

  get isResting(): boolean {
    return this.#phase === 'resting'
  }

  /** Whether a job or the catalog has the next word: turns of the owner bring nothing until it comes. */
  get isWaiting(): boolean {
    return this.#phase === 'writing' || this.#phase === 'committing'
  }

  /** Whether memory comes back, so that waiting for it helps. */
  get willHelp(): boolean {
    return this.#phase !== 'resting' || (this.failure === undefined && !this.#isSpaceWanted)
  }

  /** Nothing is due: to slow writers down now would put off the flush that they are waiting for. */
  get isAtEase(): boolean {
    if (this.#phase !== 'resting' || this.failure !== undefined) return false
    const allowed = this.#store.segmentsAllowed()
    return this.#store.log.segmentsUsed + freeSegments(allowed) <= allowed
  }

  /** Whether memory runs short, and flushing is the better way to get some: what is oldest is mostly live. */
  get isDue(): boolean {
    const { log } = this.#store
    const allowed = this.#store.segmentsAllowed()
    if (log.segmentsUsed + freeSegments(allowed) <= allowed && this.#store.index.hasRoom()) return false
    const segments = this.#oldest()
    if (segments.length === 0) {
      this.#wantSpace()
      return false
    }
    if (!this.#store.index.hasRoom()) return true
    const live = segments.reduce((sum, segment) => sum + this.#store.liveBytesOf(segment), 0)
    return live >= liveShareLeast * segments.length * this.#store.arena.segmentBytes
  }

  /** Once until there is news. */
  #wantSpace(): void {
    if (this.#isSpaceWanted || this.#store.diskRoomBytes() === undefined) return
    this.#isSpaceWanted = true
    this.spaceWants++
  }

  /** There may be room on the disk: what failed for want of it is tried again with the next step. */
  retrySpace(): void {
    this.#isSpaceWanted = false
    if (this.failure?.code !== 'DISK_FULL') return
    this.#retryAtMs = 0
    this.#retryPauseMs = retryMs.first
  }

  /** Goes on; every 20 to 100 ms, and in each turn while memory is short. */
  step(monotonicMs: number): void {
    const { log } = this.#store
    this.#nowMs = monotonicMs
    if (log.failure !== undefined) return
    switch (this.#phase) {
      case 'resting':
        if (monotonicMs >= this.#retryAtMs && this.isDue) this.#begin()
        return
      case 'syncing':
        this.#trySync()
        return
      case 'sweeping':
        this.sweep()
        return
      case 'retiring':
        this.#retire()
        return
      default:
    }
  }

  /** Goes on sweeping, where that is due: at the end of each turn. */
  sweep(): void {
    if (this.#phase !== 'sweeping') return
    const { index } = this.#store
    for (let chunks = 0; chunks < chunksPerStep; chunks++) {
      const partition = this.#sweepPartition
      if (partition >= Limits.partitions) {
        for (const segment of this.#segments) this.#store.sweptOut(segment)
        this.#isGone.fill(0)
        this.#retireAfter = this.#store.staged
        this.#phase = 'retiring'
        return
      }
      if (this.#sweepPosition < index.directorySize(partition)) {
        this.#sweepPosition = index.removeSegments(partition, this.#sweepPosition, this.#isGone)
      } else {
        index.shrink(partition)
        this.#sweepPartition++
        this.#sweepPosition = 0
      }
    }
  }

  /** The oldest full segments, as many as are flushed at once. */
  #oldest(): number[] {
    const { log, arena } = this.#store
    const wanted = Math.min(freeSegments(this.#store.segmentsAllowed()), Math.floor(flushBytesMax / arena.segmentBytes))
    const most = Math.max(1, Math.min(wanted, this.#segmentsMost))
    return this.#fitting(log.full.slice(0, most).map(({ segment }) => segment))
  }

  /** As many as a full disk has room for, beside the merges that are to come of them. */
  #fitting(segments: number[]): number[] {
    const roomBytes = this.#store.diskRoomBytes()
    if (roomBytes === undefined) return segments
    let leftBytes = roomBytes / flushRoomFactor
    const end = segments.findIndex((segment) => {
      leftBytes -= this.#store.liveBytesOf(segment)
      return leftBytes < 0
    })
    return end < 0 ? segments : segments.slice(0, end)
  }

  #begin(): void {
    const { log, tables } = this.#store
    // One more run, and reads would have to look into too many: writers wait in memory until some are merged.
    if (tables.runs >= runsMax) return
    // The last room of a disk is for merges that give some back.
    if (tables.isMakingRoom) return
    const segments = this.#oldest()
    this.#isGone.fill(0)
    for (const segment of segments) this.#isGone[segment] = 1
    if (this.#store.hasUnpublishedIn(this.#isGone)) return
    this.#segments = segments
    this.#through = log.full[segments.length - 1]!.sequence
    this.#phase = 'writing'
    tables.flush(segments, (error, prepared) => {
      if (error !== undefined) return this.#failed(error)
      this.#prepared = prepared
      this.#syncTarget = log.writtenEnd
      this.#phase = 'syncing'
      this.#trySync()
    })
  }

  #trySync(): void {
    const { log } = this.#store
    if (log.failure !== undefined) return
    if (isBefore(log.syncedEnd, this.#syncTarget) && log.hasUnsynced) {
      if (!log.syncing) this.#store.sync()
      // A sync that ended at once is looked at in the next step.
      return
    }
    this.#phase = 'committing'
    this.#store.tables.commitFlush(this.#prepared!, this.#through, this.#nowMs, (error) => {
      this.#prepared = undefined
      if (error !== undefined) return this.#failed(error)
      this.failure = undefined
      this.#retryPauseMs = retryMs.first
      this.#segmentsMost *= 2
      this.#sweepPartition = 0
      this.#sweepPosition = 0
      this.#phase = 'sweeping'
    })
  }

  #retire(): void {
    const { log } = this.#store
    if (log.retiring || this.#store.published < this.#retireAfter) return
    const oldest = log.oldest
    if (oldest === undefined || oldest.sequence > this.#through) {
      this.#phase = 'resting'
      return
    }
    log.retireOldest((error) => {
      // Without room for a mark it is tried again with the next step; anything else is the log's own failure.
      if (error === undefined) this.#retire()
    })
  }

  #failed(error: SunwiseError): void {
    this.failure = error
    this.#phase = 'resting'
    // A smaller table may fit. Its own segments are used again by the log then.
    if (error.code === 'DISK_FULL') this.#segmentsMost = Math.max(1, this.#segments.length >>> 1)
    this.#retryAtMs = this.#nowMs + this.#retryPauseMs
    this.#retryPauseMs = Math.min(retryMs.max, this.#retryPauseMs * 2)
  }
}

/** Most bytes that one flush of a shard may write, but for its index: so much room it wants on the disk. */
export function flushBytesOf(budgetBytes: number, segmentBytes: number): number {
  const segments = freeSegments(Math.floor(budgetBytes / segmentBytes))
  return Math.max(segmentBytes, Math.min(flushBytesMax, segments * segmentBytes))
}

/** Segments that are kept free, of those allowed; so many are flushed at once. */
function freeSegments(allowed: number): number {
  return growthReserve + Math.max(freeSegmentsLeast, Math.floor((allowed - growthReserve) * freeShare))
}

const isBefore = (a: LogPosition, b: LogPosition): boolean =>
  a.sequence < b.sequence || (a.sequence === b.sequence && a.bytes < b.bytes)
