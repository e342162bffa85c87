/**
 * Gives the memory of overwritten records back, first in, first out, as in a log-structured file system (Rosenblum and Ousterhout, 1992): what is
 * live in the oldest segment is copied to the end of the log, and only when that is durable and visible is the segment retired. In passes
 * over one segment each, some groups in a step.
 *
 *   resting    segments are not scarce, or there is too little garbage to win anything
 *   copying    a pass goes through the groups of the oldest segment
 *   retiring   all was gone through: it waits for what took its records' places
 *
 * Whether recycling wins anything shows in a lap, one pass over each segment: what one fills up well another leaves empty.
 */
import type { Crc32 } from '../base/crc32.ts'
import type { SunwiseError } from '../base/errors.ts'
import type { Arena } from './arena.ts'
import type { CommitLog } from './commit-log.ts'
import { growthReserve } from './flusher.ts'
import { isControl } from './log-control.ts'
import { groupBytes, groupHeaderBytes, groupSequence, isGroup } from './log-group.ts'
import { recordBytesAt } from './record.ts'

/** What it needs of the store. */
export type RecyclerStore = {
  readonly arena: Arena
  readonly crc32: Crc32
  readonly log: CommitLog
  readonly liveBytes: number
  readonly staged: number
  readonly published: number
  segmentsAllowed(): number
  /**
   * Takes the live record at `address` on to the end of the log, or off the index where it is forgotten. False where there is no room for a
   * copy now; copies already made are found dead on the next try.
   */
  recycle(address: number, u8: Uint8Array, i32: Int32Array, at: number, epochMs: number): boolean
  /** What is staged so far is not published before a sync. */
  syncStaged(): void
  sync(): void
  failAll(error: SunwiseError): void
}

/** Below this share of garbage it rests. */
const garbageShareMin = 0.1
const bytesPerStep = 256 * 1024

export class Recycler {
  readonly #store: RecyclerStore
  #segment = -1
  #sequence = 0
  #end = 0
  #offset = 0
  /** Bytes of the log that the present pass has used up, with the ends of segments that it left empty. */
  #usedBytes = 0
  /** Passes of the present lap over all segments, what they have won together, and the garbage when it began. */
  #lapPasses = 0
  #lapWonBytes = 0
  #lapGarbageBytes = 0
  /** Garbage before a lap that won next to nothing; -1: the last lap won something. */
  #poorGarbageBytes = -1
  /** Ordinal up to which all must be on stable storage before the oldest segment is retired; -1: not there yet. */
  #retireAfter = -1

  /** Segments that were retired. */
  segments = 0

  constructor(store: RecyclerStore) {
    this.#store = store
  }

  /** Whether a pass was begun and has not ended. */
  get isBusy(): boolean {
    return this.#segment >= 0 || this.#retireAfter >= 0
  }

  /**
   * Whether a whole lap of recycling has won next to nothing: what looks like garbage are the ends of segments that no record
   * fits into. True until enough was deleted or overwritten.
   */
  get isExhausted(): boolean {
    if (this.#poorGarbageBytes < 0) return false
    if (this.#garbageBytes < this.#poorGarbageBytes + this.#store.arena.segmentBytes / 2) return true
    this.#poorGarbageBytes = -1
    return false
  }

  /** Whether it can still win memory: with less garbage than this it would only copy. */
  get willHelp(): boolean {
    if (this.isExhausted) return false
    const { arena, liveBytes, log } = this.#store
    const used = log.segmentsUsed * arena.segmentBytes
    return used - liveBytes > used * garbageShareMin
  }

  /** What is neither live nor room in the active segment. */
  get #garbageBytes(): number {
    const { arena, liveBytes, log } = this.#store
    return log.segmentsUsed * arena.segmentBytes - liveBytes - log.roomBytes
  }

  /** Goes on with a pass, or begins one where that is due. */
  step(epochMs: number): void {
    const { log } = this.#store
    if (log.retiring || this.#retireAfter >= 0) return
    if (this.#segment < 0 && !this.#begin()) return
    let budget = bytesPerStep
    while (budget > 0) {
      const bytes = this.#copyGroup(epochMs)
      if (bytes === 0) return
      if (bytes < 0) {
        // The whole segment has been gone through: retire it when all that took its records' places is durable and visible.
        this.#retireAfter = this.#store.staged
        this.#store.syncStaged()
        this.retireIfDurable(log.hasUnsynced ? -1 : this.#store.published)
        return
      }
      budget -= bytes
    }
  }

  #begin(): boolean {
    const { log } = this.#store
    const allowed = this.#store.segmentsAllowed()
    const low = Math.max(growthReserve + 1, Math.ceil(allowed / 8))
    const oldest = log.oldest
    const isScarce = log.isScarce || log.segmentsUsed + low > allowed
    if (oldest === undefined || !isScarce || !this.willHelp) return false
    this.#segment = oldest.segment
    this.#sequence = oldest.sequence
    this.#end = oldest.bytes
    this.#offset = 0
    this.#usedBytes = 0
    if (this.#lapPasses === 0) this.#lapGarbageBytes = this.#garbageBytes
    return true
  }

  /** Copies what is live in the next group. Returns its bytes, -1 at the end of the segment, 0 where there is no room now. */
  #copyGroup(epochMs: number): number {
    const { arena, crc32, log } = this.#store
    const segment = this.#segment
    const slab = arena.slabOfSegment(segment)
    const u8 = arena.u8[slab]!
    const i32 = arena.i32[slab]!
    const start = arena.startOfSegment(segment)
    let at = start + this.#offset
    const end = start + this.#end
    // In a salvaged segment groups may be damaged: what recovery skipped is skipped here.
    while (at < end && !(isGroup(u8, i32, at, end, crc32) && groupSequence(i32, at) === this.#sequence)) at += 4
    if (at >= end) return -1
    const bytes = groupBytes(i32, at)
    for (let record = at + groupHeaderBytes; record < at + bytes; record += recordBytesAt(i32, record)) {
      if (isControl(u8, record)) continue
      const position = log.position
      const isThrough = this.#store.recycle(arena.address(segment, record - start), u8, i32, record, epochMs)
      this.#usedBytes += log.position - position
      if (!isThrough) return 0
    }
    this.#offset = at - start + bytes
    return bytes
  }

  /** Records from this ordinal on are gone: where copies were among them they must be made again. */
  forget(from: number): void {
    if (this.#retireAfter > from) this.#retireAfter = -1
    // A pass that is not through begins anew.
    this.#segment = -1
  }

  /**
   * Retires the segment that was gone through if the records up to `synced`, which are on stable storage, are all that it waits
   * for. What was overwritten without a sync, and is visible long since, counts too: after a power cut the old record would be
   * needed again.
   */
  retireIfDurable(synced: number): void {
    if (this.#retireAfter < 0) return
    if (synced >= this.#retireAfter) this.#retire()
    // With something unpublished its own sync follows.
    else if (this.#store.published >= this.#retireAfter && !this.#store.log.syncing) this.#store.sync()
  }

  #retire(): void {
    const { log } = this.#store
    this.#retireAfter = -1
    this.#segment = -1
    if (log.failure !== undefined) return
    this.#countPass()
    log.retireOldest((error) => {
      if (error === undefined) this.segments++
      // Without room for a mark the segment stays, and is gone through again later.
      else if (log.failure !== undefined) this.#store.failAll(error)
    })
  }

  #countPass(): void {
    const { arena, log } = this.#store
    this.#lapPasses++
    this.#lapWonBytes += arena.segmentBytes - this.#usedBytes
    if (this.#lapPasses < log.segmentsUsed) return
    this.#poorGarbageBytes = this.#lapWonBytes < arena.segmentBytes / 2 ? this.#lapGarbageBytes : -1
    this.#lapPasses = 0
    this.#lapWonBytes = 0
  }
}
