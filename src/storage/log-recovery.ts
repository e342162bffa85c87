/**
 * Reading a shard's commit log back: files into the arena byte for byte, groups checked, records handed out oldest first.
 *
 * The result is a prefix of what was written. At the first bad group the log ends, if no valid header says that this place was
 * on stable storage (a torn tail; everything behind it, later segments too, is dropped and marked as retired so that it can
 * never come back). If a header does say so, that is damage: recovery stops with LOG_CORRUPT, naming file and offset, and
 * nothing is changed; or, with `salvage`, goes on behind the damage and reports what was lost.
 */
import type { Crc32 } from '../base/crc32.ts'
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { Disk, DiskFile } from '../env.ts'
import type { Arena } from './arena.ts'
import { segmentFileName } from './commit-log.ts'
import { ControlKind, controlKind, decodeSegmentHead, isControl, type SegmentHead } from './log-control.ts'
import {
  endsInMark,
  groupBytes,
  groupHeaderBytes,
  groupMagic,
  groupNumber,
  groupSequence,
  groupSyncedBytes,
  groupSyncedSequence,
  isGroup,
  type LogPosition,
  logFormatVersion,
  retiredMagic,
  retiredSequence,
  retirementMark,
  retirementMarkBytes,
  secondMarkOffset,
} from './log-group.ts'
import { recordBytesAt, recordHeaderBytes } from './record.ts'

/** A damaged range that salvage skipped. */
export type Damage = { readonly path: string; readonly from: number; readonly to: number }

export type RecoveredLog = {
  /** Live segments, oldest first, each with the bytes that are part of the log: torn groups may stand behind them. */
  readonly segments: readonly { readonly segment: number; readonly sequence: number; readonly bytes: number }[]
  readonly endSequence: number
  readonly endBytes: number
  readonly sequenceMax: number
  readonly records: number
  readonly bytes: number
  /** Bytes behind the end that were dropped as a torn tail, whole later segments included. */
  readonly droppedBytes: number
  /** Empty unless salvaging. */
  readonly damages: readonly Damage[]
}

export type RecoveryOptions = {
  readonly disk: Disk
  readonly directory: string
  readonly arena: Arena
  readonly crc32: Crc32
  readonly salvage: boolean
  /** Up to here the log is known to be on stable storage, whatever its headers say: where a clean stop ended it. */
  readonly syncedEnd?: LogPosition | undefined
  /** Only look: nothing is marked, synced or otherwise changed. */
  readonly readOnly: boolean
  /** Called now and then while files are read: the work is alive. */
  readonly alive: () => void
  /** Called for every record of the log, control records too, in the order in which they were written. */
  readonly visit: (address: number, u8: Uint8Array, i32: Int32Array, at: number, sequence: number) => void
}

type LoadedFile = {
  readonly segment: number
  readonly path: string
  readonly file: DiskFile
  readonly bytes: number
  /** Sequence of the valid first group; -1 without one. */
  sequence: number
  head: SegmentHead | undefined
  /** Where the log ends in it. */
  logBytes: number
  /** Highest sequence that the file shows anywhere. */
  sequenceSeen: number
  /** Sequence of its retirement mark; -1 without one. */
  retired: number
  /** Sequence of the mark in its second sector; -1 without one. */
  retiredBefore: number
  /**
   * Sequence that its first header claims, whether or not the checksum holds; -1 if there is no header. Infinity where a header
   * ends in what is left of a mark: some newer segment began here.
   */
  claimed: number
}

const isBefore = (a: LogPosition, b: LogPosition): boolean =>
  a.sequence < b.sequence || (a.sequence === b.sequence && a.bytes < b.bytes)

/** Numbers of the arena segments that have a file in `directory`. */
export function listSegments(disk: Disk, directory: string): number[] {
  return disk
    .listNow(directory)
    .filter((name) => name.length === 9 && name.endsWith('.log') && /^\d{5}$/.test(name.slice(0, 5)))
    .map((name) => Number(name.slice(0, 5)))
}

/** Segments that an arena needs to hold every file in `directory`; no more than any shard has, whatever else lies there. */
export function segmentsOnDisk(disk: Disk, directory: string, segmentBytes: number): number {
  const last = listSegments(disk, directory).at(-1)
  return last === undefined ? 0 : Math.min(last + 1, Math.floor(Limits.arenaBytesMax / segmentBytes))
}

/** Recovers the log of one shard; see the file header. `done` comes after all surviving bytes are on stable storage. */
export function recoverLog(
  options: RecoveryOptions,
  done: (error: SunwiseError | undefined, log: RecoveredLog | undefined) => void,
): void {
  const recovery = new Recovery(options)
  let log: RecoveredLog
  try {
    log = recovery.run()
  } catch (error) {
    recovery.close()
    if (error instanceof SunwiseError) return done(error, undefined)
    throw error
  }
  if (options.readOnly) {
    recovery.close()
    return done(undefined, log)
  }
  recovery.settle((error) => done(error, error === undefined ? log : undefined))
}

class Recovery {
  readonly #options: RecoveryOptions
  readonly #files: LoadedFile[] = []
  readonly #damages: Damage[] = []
  /** Files whose content is dropped and must be marked before anything new is written. */
  readonly #dropped: LoadedFile[] = []
  readonly #kept: LoadedFile[] = []
  #synced: LogPosition = { sequence: 0, bytes: 0 }
  #records = 0
  #bytes = 0
  #droppedBytes = 0

  constructor(options: RecoveryOptions) {
    this.#options = options
    if (options.syncedEnd !== undefined) this.#synced = options.syncedEnd
  }

  run(): RecoveredLog {
    this.#load()
    const chain = this.#chain()
    let end: LogPosition = { sequence: 0, bytes: 0 }
    let ended = false
    for (const [index, loaded] of chain.entries()) {
      if (ended) {
        this.#drop(loaded)
        continue
      }
      const next = chain[index + 1]
      const limit = next?.head?.previousSequence === loaded.sequence ? next.head.previousBytes : loaded.bytes
      const reached = this.#walk(loaded, limit, next === undefined)
      end = { sequence: loaded.sequence, bytes: reached }
      loaded.logBytes = reached
      this.#kept.push(loaded)
      if (next !== undefined && reached < limit) ended = true
    }
    const wasRetired =
      this.#isRetired(this.#synced.sequence) ||
      this.#files.some((loaded) => loaded.sequenceSeen === this.#synced.sequence && this.#isTaken(loaded))
    if (chain.length === 0 && isBefore(end, this.#synced) && !wasRetired) {
      if (!this.#options.salvage) throw this.#corrupt(this.#options.directory, 0)
      this.#damages.push({ path: this.#options.directory, from: 0, to: this.#synced.bytes })
    }
    let sequenceMax = 0
    for (const loaded of this.#files) sequenceMax = Math.max(sequenceMax, loaded.sequenceSeen, loaded.sequence)
    return {
      segments: this.#kept.map(({ segment, sequence, logBytes }) => ({ segment, sequence, bytes: logBytes })),
      endSequence: end.sequence,
      endBytes: end.bytes,
      sequenceMax,
      records: this.#records,
      bytes: this.#bytes,
      droppedBytes: this.#droppedBytes,
      damages: this.#damages,
    }
  }

  /**
   * Marks what was dropped, makes what was kept durable, closes everything.
   *
   * What no header calls synced is written once more before it is synced: after a sync that failed the page cache may hold bytes
   * that are not on disk and that no sync would write again, however often it succeeds.
   */
  settle(done: (error: SunwiseError | undefined) => void): void {
    const files = [...this.#dropped, ...this.#kept]
    let left = files.length
    let failed: SunwiseError | undefined
    const finish = (error: SunwiseError | undefined): void => {
      failed ??= error
      if (--left > 0) return
      this.close()
      done(failed)
    }
    if (left === 0) {
      left = 1
      return finish(undefined)
    }
    for (const loaded of this.#dropped) {
      try {
        const mark = retirementMark(Math.max(loaded.sequence, loaded.sequenceSeen), this.#options.crc32)
        loaded.file.writeNow(mark, 0, retirementMarkBytes, 0)
      } catch (error) {
        failed ??= error as SunwiseError
      }
    }
    for (const loaded of this.#kept) {
      try {
        this.#writeAgain(loaded)
      } catch (error) {
        failed ??= error as SunwiseError
      }
    }
    for (const loaded of files) loaded.file.sync(finish)
  }

  #writeAgain(loaded: LoadedFile): void {
    const { sequence, bytes } = this.#synced
    const from = loaded.sequence > sequence ? 0 : loaded.sequence === sequence ? bytes : loaded.logBytes
    if (from >= loaded.logBytes) return
    const { arena } = this.#options
    const start = arena.startOfSegment(loaded.segment)
    const u8 = arena.u8[arena.slabOfSegment(loaded.segment)]!
    loaded.file.writeNow(u8, start + from, start + loaded.logBytes, from)
  }

  close(): void {
    for (const loaded of this.#files) loaded.file.close()
  }

  /** Reads every file into its arena segment. */
  #load(): void {
    const { disk, directory, arena, crc32 } = this.#options
    for (const segment of listSegments(disk, directory)) {
      const path = `${directory}/${segmentFileName(segment)}`
      if (segment >= arena.segments) {
        throw new SunwiseError(
          'LOG_CORRUPT',
          `Cannot recover the commit log: "${path}" is none of its files, which are numbered up to ${arena.segments - 1}; move it away`,
          { extra: { path } },
        )
      }
      const file = disk.openNow(path)
      const slab = arena.slabOfSegment(segment)
      const start = arena.startOfSegment(segment)
      const u8 = arena.u8[slab]!
      const i32 = arena.i32[slab]!
      const wanted = Math.min(file.sizeNow(), arena.segmentBytes)
      let bytes = 0
      while (bytes < wanted) {
        const read = file.readNow(u8, start + bytes, start + wanted, bytes)
        if (read === 0) break
        bytes += read
      }
      this.#options.alive()
      bytes -= bytes & 3
      const loaded: LoadedFile = {
        segment,
        path,
        file,
        bytes,
        sequence: -1,
        head: undefined,
        logBytes: 0,
        sequenceSeen: 0,
        retired: -1,
        retiredBefore: -1,
        claimed: -1,
      }
      this.#files.push(loaded)
      if (bytes < groupHeaderBytes) continue
      // Tells of an earlier segment in this file where the first group of the present one is bad; else it is part of the data.
      const hasSecondMark = bytes >= secondMarkOffset + retirementMarkBytes
      loaded.retiredBefore = hasSecondMark ? retiredSequence(u8, i32, start + secondMarkOffset, crc32) : -1
      const retired = retiredSequence(u8, i32, start, crc32)
      if (retired >= 0) {
        loaded.sequenceSeen = retired
        loaded.retired = retired
        continue
      }
      if (i32[start >>> 2] === retiredMagic) {
        // A torn mark: what stood before it in that place had the same sequence.
        this.#scan(loaded, 0, -1)
        loaded.retired = groupSequence(i32, start)
        continue
      }
      if (i32[start >>> 2] === groupMagic) {
        loaded.claimed = endsInMark(i32, start) ? Number.POSITIVE_INFINITY : groupSequence(i32, start)
      }
      this.#readHead(loaded, u8, i32, start)
    }
  }

  #readHead(loaded: LoadedFile, u8: Uint8Array, i32: Int32Array, start: number): void {
    const { crc32, arena } = this.#options
    const end = start + loaded.bytes
    if (isGroup(u8, i32, start, end, crc32) && groupNumber(i32, start) === 0) {
      const at = start + groupHeaderBytes
      if (at + recordHeaderBytes <= end && isControl(u8, at) && controlKind(u8, at) === ControlKind.segmentHead) {
        const head = decodeSegmentHead(u8, i32, at)
        if (head !== undefined && head.formatVersion !== logFormatVersion) {
          throw new SunwiseError(
            'LOG_CORRUPT',
            `Cannot read "${loaded.path}": its format version is ${head.formatVersion}, this program reads ${logFormatVersion}; use a matching release`,
          )
        }
        if (head !== undefined && head.segmentBytes === arena.segmentBytes) {
          loaded.head = head
          loaded.sequence = groupSequence(i32, start)
          return
        }
      }
    }
    this.#scan(loaded, 0, -1)
  }

  /**
   * The segments from the oldest live one to the newest, following the links of the heads. Where a link is missing the log ended
   * before it, if that place was never synced; otherwise it is damage.
   */
  #chain(): LoadedFile[] {
    const headed = this.#files.filter(({ head }) => head !== undefined).sort((a, b) => a.sequence - b.sequence)
    const newestSequence = headed.at(-1)?.sequence ?? 0
    // Files without a readable head, but with groups newer than every head: the newest segment lost its head.
    const newer = this.#files.filter(
      ({ head, retired, sequenceSeen }) => head === undefined && retired < 0 && sequenceSeen > newestSequence,
    )
    for (const loaded of newer) {
      if (this.#isTaken(loaded)) continue
      if (isBefore({ sequence: loaded.sequenceSeen, bytes: 0 }, this.#synced)) {
        if (this.#options.salvage) return this.#salvageChain()
        throw this.#corrupt(loaded.path, 0)
      }
    }
    for (const loaded of newer) this.#drop(loaded)
    const chain: LoadedFile[] = []
    for (;;) {
      const newest = headed.at(-1)
      if (newest === undefined) break
      const missing = this.#link(newest, headed, chain)
      if (missing === 0) break
      for (const loaded of chain) this.#noteSynced(loaded)
      const headless = this.#files.find(({ head, sequenceSeen }) => head === undefined && sequenceSeen === missing)
      if (isBefore({ sequence: missing, bytes: 0 }, this.#synced)) {
        if (this.#options.salvage) return this.#salvageChain()
        throw this.#corrupt(headless?.path ?? `${this.#options.directory} (segment ${missing})`, 0)
      }
      // Never synced: the log ended before the missing segment, and what follows it goes too.
      if (headless !== undefined) this.#drop(headless)
      while (headed.length > 0 && headed.at(-1)!.sequence > missing) this.#drop(headed.pop()!)
      chain.length = 0
    }
    for (const loaded of headed) if (!chain.includes(loaded)) this.#drop(loaded)
    return chain
  }

  /** Fills `chain` with the segments that lead to `newest`. Returns the sequence of the first that is missing; 0: none is. */
  #link(newest: LoadedFile, headed: readonly LoadedFile[], chain: LoadedFile[]): number {
    chain.push(newest)
    for (let first = newest; ; ) {
      const { previousSequence, previousBytes } = first.head!
      if (previousSequence < Math.max(1, newest.head!.oldestSequence)) return 0
      const previous = headed.find(({ sequence }) => sequence === previousSequence)
      if (previous === undefined) {
        return previousBytes === 0 || this.#wasRetired(previousSequence, newest.sequence) ? 0 : previousSequence
      }
      chain.unshift(previous)
      first = previous
    }
  }

  /** Everything that is neither retired nor older than the oldest live segment, heads or not, in the order of the log. */
  #salvageChain(): LoadedFile[] {
    const newest = this.#files.reduce(
      (a, b) => (b.head !== undefined && b.sequence > a.sequence ? b : a),
      this.#files[0]!,
    )
    const oldestSequence = newest.head?.oldestSequence ?? 0
    const chain: LoadedFile[] = []
    for (const loaded of this.#files) {
      if (loaded.head === undefined) {
        const { sequenceSeen, retired, claimed } = loaded
        if (retired >= 0 || sequenceSeen === 0 || loaded.retiredBefore === sequenceSeen) continue
        // Taken by a newer segment of which nothing is whole: the rest is what was retired.
        if (claimed > Math.max(newest.sequence, sequenceSeen) && !this.#isFirstGroupOf(loaded, sequenceSeen)) continue
        loaded.sequence = sequenceSeen
      }
      if (loaded.sequence >= oldestSequence) chain.push(loaded)
      else this.#drop(loaded)
    }
    chain.sort((a, b) => a.sequence - b.sequence)
    const last = chain.at(-1)
    for (const [index, loaded] of chain.entries()) {
      const previousSequence = loaded.head?.previousSequence ?? 0
      const before = chain[index - 1]
      if (previousSequence < Math.max(1, oldestSequence) || before?.sequence === previousSequence) continue
      if (before?.sequence !== undefined && before.sequence > previousSequence) continue
      if (this.#wasRetired(previousSequence, last!.sequence)) continue
      const path = `${this.#options.directory} (segment ${previousSequence})`
      this.#damages.push({ path, from: 0, to: loaded.head!.previousBytes })
    }
    return chain
  }

  /** Whether the mark of a retired segment stands: what it held, and all before it, is not needed. */
  #isRetired(sequence: number): boolean {
    return this.#files.some(
      (loaded) => loaded.retired === sequence || (loaded.head === undefined && loaded.retiredBefore === sequence),
    )
  }

  /**
   * Whether a file without a head was taken by a newer segment of which nothing is whole: the groups that are left in it are of one that was
   * retired, since no other file is ever overwritten.
   */
  #isTaken(loaded: LoadedFile): boolean {
    const { head, sequenceSeen, claimed } = loaded
    if (head !== undefined || claimed <= sequenceSeen || this.#isFirstGroupOf(loaded, sequenceSeen)) return false
    // A segment begins behind all that were: a header of one that was, in a place that is not its own, is damage.
    return this.#files.every((other) => Math.max(other.sequence, other.sequenceSeen) < claimed)
  }

  /**
   * Whether a segment that is not there was retired: its mark still stands, or its file had been taken by a newer segment whose
   * first group is torn. Only a segment that is durably retired is ever overwritten.
   */
  #wasRetired(sequence: number, newestSequence: number): boolean {
    if (this.#isRetired(sequence)) return true
    const headless = this.#files.filter(({ head }) => head === undefined)
    // A mark newer than the newest segment stands over one that an earlier recovery dropped.
    const isTaken = (loaded: LoadedFile): boolean =>
      loaded.retired > newestSequence || (loaded.claimed > newestSequence && !this.#isFirstGroupOf(loaded, sequence))
    const own = headless.find(({ sequenceSeen }) => sequenceSeen === sequence)
    return own === undefined ? headless.some(isTaken) : isTaken(own)
  }

  /** Whether the first group is whole but for its sequence or number: they are damaged, and no newer segment has begun here. */
  #isFirstGroupOf(loaded: LoadedFile, sequence: number): boolean {
    const { arena, crc32 } = this.#options
    const slab = arena.slabOfSegment(loaded.segment)
    const i32 = arena.i32[slab]!
    const start = arena.startOfSegment(loaded.segment)
    const word = start >>> 2
    const claimed = i32[word + 2]!
    const number = i32[word + 3]!
    const isWholeWith = (assumedSequence: number, assumedNumber: number): boolean => {
      i32[word + 2] = assumedSequence
      i32[word + 3] = assumedNumber
      return isGroup(arena.u8[slab]!, i32, start, start + loaded.bytes, crc32)
    }
    const isWhole = isWholeWith(sequence, number) || isWholeWith(claimed, 0)
    i32[word + 2] = claimed
    i32[word + 3] = number
    return isWhole
  }

  /** Hands out the records of a segment up to `limit`; returns where its valid groups end. */
  #walk(loaded: LoadedFile, limit: number, isNewest: boolean): number {
    const reached = this.#walkFrom(loaded, 0, limit)
    if (reached >= limit && !isNewest) return limit
    if (!isNewest || reached < loaded.bytes) this.#scan(loaded, reached, loaded.sequence)
    for (const other of this.#files) if (other.sequence > loaded.sequence) this.#noteSynced(other)
    return this.#endAt(loaded, { sequence: loaded.sequence, bytes: reached }, limit)
  }

  /** Decides about the first bad place: end of the log, or damage. Returns where the log goes on or ends in this segment. */
  #endAt(loaded: LoadedFile, position: LogPosition, limit: number): number {
    if (!isBefore(position, this.#synced)) {
      this.#droppedBytes += this.#usedBehind(loaded, position.bytes)
      return position.bytes
    }
    if (!this.#options.salvage) throw this.#corrupt(loaded.path, position.bytes)
    const next = this.#nextGroup(loaded, position.bytes + 4, loaded.sequence)
    this.#damages.push({ path: loaded.path, from: position.bytes, to: next < 0 ? limit : next })
    if (next < 0 || next >= limit) return limit
    const reached = this.#walkFrom(loaded, next, limit)
    return reached >= limit ? limit : this.#endAt(loaded, { sequence: loaded.sequence, bytes: reached }, limit)
  }

  #walkFrom(loaded: LoadedFile, from: number, limit: number): number {
    const { arena, crc32 } = this.#options
    const slab = arena.slabOfSegment(loaded.segment)
    const u8 = arena.u8[slab]!
    const i32 = arena.i32[slab]!
    const start = arena.startOfSegment(loaded.segment)
    const end = start + Math.min(limit, loaded.bytes)
    let at = start + from
    let expected = -1
    while (at < end && isGroup(u8, i32, at, end, crc32) && groupSequence(i32, at) === loaded.sequence) {
      if (expected >= 0 && groupNumber(i32, at) !== expected) break
      if (!this.#visitGroup(loaded, u8, i32, start, at)) throw this.#corrupt(loaded.path, at - start)
      this.#noteHeader(i32, at)
      expected = groupNumber(i32, at) + 1
      at += groupBytes(i32, at)
    }
    return at - start
  }

  /** False where the checksum holds but the records inside do not add up: a bug of the writer, or a forged file. */
  #visitGroup(loaded: LoadedFile, u8: Uint8Array, i32: Int32Array, start: number, at: number): boolean {
    const end = at + groupBytes(i32, at)
    for (let record = at + groupHeaderBytes; record < end; ) {
      const bytes = recordBytesAt(i32, record)
      if (bytes < recordHeaderBytes || (bytes & 3) !== 0 || bytes > end - record) return false
      const address = this.#options.arena.address(loaded.segment, record - start)
      this.#options.visit(address, u8, i32, record, loaded.sequence)
      this.#records++
      record += bytes
    }
    this.#bytes += end - at
    return true
  }

  #noteHeader(i32: Int32Array, at: number): void {
    const synced = { sequence: groupSyncedSequence(i32, at), bytes: groupSyncedBytes(i32, at) }
    if (isBefore(this.#synced, synced)) this.#synced = synced
  }

  /** Notes what every valid header of a segment says about synced places. */
  #noteSynced(loaded: LoadedFile): void {
    this.#scan(loaded, 0, loaded.sequence)
  }

  /** Looks for valid groups anywhere from `from` on and notes their headers; `sequence` -1: any, remembering the highest. */
  #scan(loaded: LoadedFile, from: number, sequence: number): void {
    const { arena } = this.#options
    const i32 = arena.i32[arena.slabOfSegment(loaded.segment)]!
    const start = arena.startOfSegment(loaded.segment)
    for (let at = from; ; ) {
      at = this.#nextGroup(loaded, at, sequence)
      if (at < 0) return
      loaded.sequenceSeen = Math.max(loaded.sequenceSeen, groupSequence(i32, start + at))
      this.#noteHeader(i32, start + at)
      at += groupBytes(i32, start + at)
    }
  }

  /** Offset of the first valid group at or behind `from`; -1 if there is none. */
  #nextGroup(loaded: LoadedFile, from: number, sequence: number): number {
    const { arena, crc32 } = this.#options
    const slab = arena.slabOfSegment(loaded.segment)
    const u8 = arena.u8[slab]!
    const i32 = arena.i32[slab]!
    const start = arena.startOfSegment(loaded.segment)
    const end = start + loaded.bytes
    for (let at = start + from; at + groupHeaderBytes <= end; at += 4) {
      if (i32[at >>> 2] !== groupMagic || !isGroup(u8, i32, at, end, crc32)) continue
      if (sequence < 0 || groupSequence(i32, at) === sequence) return at - start
    }
    return -1
  }

  /** Bytes of groups of this segment behind `from`, torn ones by what their header claims: what a torn tail loses. */
  #usedBehind(loaded: LoadedFile, from: number): number {
    const { arena } = this.#options
    const i32 = arena.i32[arena.slabOfSegment(loaded.segment)]!
    const start = arena.startOfSegment(loaded.segment)
    const isOwn = (at: number): boolean => i32[at >>> 2] === groupMagic && groupSequence(i32, at) === loaded.sequence
    let end = from
    if (from + groupHeaderBytes <= loaded.bytes && isOwn(start + from)) {
      end = Math.min(loaded.bytes, from + Math.max(groupHeaderBytes, groupBytes(i32, start + from)))
    }
    for (let at = this.#nextGroup(loaded, from, loaded.sequence); at >= 0; ) {
      end = Math.max(end, at + groupBytes(i32, start + at))
      at = this.#nextGroup(loaded, at + groupBytes(i32, start + at), loaded.sequence)
    }
    return end - from
  }

  #drop(loaded: LoadedFile): void {
    if (this.#dropped.includes(loaded)) return
    this.#dropped.push(loaded)
    this.#droppedBytes += this.#usedBehind(loaded, 0)
  }

  #corrupt(path: string, offset: number): SunwiseError {
    return new SunwiseError(
      'LOG_CORRUPT',
      `Cannot recover the commit log: "${path}" is damaged at byte ${offset}, before its synced end (segment ${this.#synced.sequence}, byte ${this.#synced.bytes}); restore a backup, or keep what is readable with "sunwise start --salvage"`,
      { extra: { path, offset } },
    )
  }
}
