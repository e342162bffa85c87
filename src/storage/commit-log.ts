/**
 * The commit log of one shard: groups (log-group.ts) in segments that are images of arena segments. Records are encoded by
 * the caller straight into the arena; a commit is one write of the new bytes, and one sync if asked for.
 *
 * Life of a segment: spare (file prepared, arena free) -> active (appended to) -> full -> retired (its mark is durable) ->
 * spare again. The next spare is prepared while the active one fills, so that opening it needs no I/O on the serving thread.
 * An old segment is never appended to after a restart.
 *
 * Errors: DISK_FULL while preparing a segment or writing leaves the log usable (the group is dropped whole, outcome none) and
 * preparing is tried again on `tick`. Any other error is final: the log has `failed`, nothing more is acknowledged, and the
 * owner must be rebuilt from the files (an fsync error may have dropped pages; trying again would lie).
 *
 * Not here: what records mean (store.ts), reading old segments (log-recovery.ts).
 */
import { assert } from '../base/assert.ts'
import type { Crc32 } from '../base/crc32.ts'
import { SunwiseError } from '../base/errors.ts'
import type { Disk, DiskFile } from '../env.ts'
import type { Arena } from './arena.ts'
import {
  groupHeaderBytes,
  type LogPosition,
  retirementMark,
  retirementMarkBytes,
  sealGroup,
  secondMarkOffset,
} from './log-group.ts'

export type CommitLogOptions = {
  readonly disk: Disk
  /** Existing directory of this shard's segments. */
  readonly directory: string
  readonly arena: Arena
  readonly crc32: Crc32
  /** Segments (by arena number) that hold live log data, oldest first, with their sequences. */
  readonly segments: readonly { readonly segment: number; readonly sequence: number; readonly bytes: number }[]
  /** Sequence and length at which the log found on disk ends; 0, 0 for a new log. */
  readonly endSequence: number
  readonly endBytes: number
  /** Highest sequence ever seen in the directory. */
  readonly sequenceMax: number
  /** Whether segments are zero-filled before use, so that syncs touch no metadata. */
  readonly preallocate: boolean
  /** Whether one more segment may be taken now (memory budget). */
  readonly mayTakeSegment: () => boolean
  /** Control records that must stand at the start of a segment, as one run of bytes. */
  readonly segmentHead: (previousSequence: number, previousBytes: number, oldestSequence: number) => Uint8Array
}

type LiveSegment = {
  readonly segment: number
  readonly sequence: number
  /** Where its groups end, once it is full: bytes behind that may look like groups and are none. */
  bytes: number
  file: DiskFile | undefined
}

/** File name of an arena segment. */
export function segmentFileName(segment: number): string {
  return `${String(segment).padStart(5, '0')}.log`
}

export class CommitLog {
  readonly #options: CommitLogOptions
  readonly #live: LiveSegment[]
  /** Taken from the front: what was used before comes first, so that memory and files that were never touched stay so. */
  readonly #free: number[] = []
  #freedInHold: number[] = []
  #spare: { readonly segment: number; readonly file: DiskFile } | undefined
  #preparing = false
  #spaceError: SunwiseError | undefined
  #isScarce = false
  /** Free segments whose files take room on the disk already. */
  readonly #withRoom = new Set<number>()
  #failure: SunwiseError | undefined
  #retiring = false
  /** Nothing is retired; what would be waits. */
  #isHeld = false
  #heldRetirement: (() => void) | undefined

  #active: LiveSegment | undefined
  #sequenceMax: number
  #previousSequence: number
  #previousBytes: number
  /** First byte of the open group; its header is reserved as soon as it has a record. */
  #groupStart = 0
  #groupEnd = 0
  #groupNumber = 0
  /** End of the control records in the first group of the active segment. */
  #headEnd = 0
  /** Files written since their last sync, in order; the active one may be among them. */
  readonly #unsynced: LiveSegment[] = []
  #syncedSequence: number
  #syncedBytes: number
  #syncing = false

  /** Groups, syncs and bytes written so far. */
  groups = 0
  syncs = 0
  bytesWritten = 0
  /** How often there was no space. */
  spaceErrors = 0

  constructor(options: CommitLogOptions) {
    this.#options = options
    this.#live = options.segments.map(({ segment, sequence, bytes }) => ({ segment, sequence, bytes, file: undefined }))
    const used = new Set(options.segments.map(({ segment }) => segment))
    for (let segment = 0; segment < options.arena.segments; segment++) if (!used.has(segment)) this.#free.push(segment)
    this.#sequenceMax = options.sequenceMax
    this.#previousSequence = options.endSequence
    this.#previousBytes = options.endBytes
    // Recovery synced all that it read.
    this.#syncedSequence = options.endSequence
    this.#syncedBytes = options.endBytes
  }

  /** Set by the first final error; every later commit fails with it. */
  get failure(): SunwiseError | undefined {
    return this.#failure
  }

  /** Why no further segment can be had now, since the disk was full a moment ago: undefined while waiting for one helps. */
  get spaceError(): SunwiseError | undefined {
    return this.#spaceError
  }

  /** The disk was full, and no file was added since: what room there is comes from segments that were retired. */
  get isScarce(): boolean {
    return this.#isScarce
  }

  /** Segments that hold data, the active one included. */
  get segmentsUsed(): number {
    return this.#live.length
  }

  get segmentsFree(): number {
    return this.#free.length + (this.#spare === undefined ? 0 : 1)
  }

  get hasSpare(): boolean {
    return this.#spare !== undefined
  }

  /** Oldest segment that is not active; undefined if there is none. */
  get oldest(): { readonly segment: number; readonly sequence: number; readonly bytes: number } | undefined {
    const first = this.#live[0]
    return first === this.#active ? undefined : first
  }

  /** Full segments, oldest first. */
  get full(): readonly { readonly segment: number; readonly sequence: number; readonly bytes: number }[] {
    return this.#active === undefined ? this.#live : this.#live.slice(0, -1)
  }

  /** Up to here everything was handed to the kernel. */
  get writtenEnd(): LogPosition {
    if (this.#active === undefined) return { sequence: this.#previousSequence, bytes: this.#previousBytes }
    return { sequence: this.#active.sequence, bytes: this.#groupStart }
  }

  get activeSegment(): number {
    return this.#active === undefined ? -1 : this.#active.segment
  }

  /** Up to here everything is on stable storage. */
  get syncedEnd(): LogPosition {
    return { sequence: this.#syncedSequence, bytes: this.#syncedBytes }
  }

  get syncing(): boolean {
    return this.#syncing
  }

  /** Whether something was written that is not on stable storage yet. */
  get hasUnsynced(): boolean {
    return this.#syncing || this.#unsynced.length > 0
  }

  /** Segments with bytes that no sync covers yet. */
  get unsyncedSegments(): number {
    return this.#unsynced.length
  }

  /** Bytes of records in the open group. */
  get openBytes(): number {
    return this.#groupEnd === this.#groupStart ? 0 : this.#groupEnd - this.#groupStart - groupHeaderBytes
  }

  /** Where the next record goes, counting every segment as whole. */
  get position(): number {
    const { segmentBytes } = this.#options.arena
    if (this.#active === undefined) return (this.#sequenceMax + 1) * segmentBytes
    return this.#active.sequence * segmentBytes + this.#groupEnd
  }

  /** Bytes that still fit into the active segment as one record. */
  get roomBytes(): number {
    if (this.#active === undefined) return 0
    const header = this.#groupEnd === this.#groupStart ? groupHeaderBytes : 0
    return this.#options.arena.segmentBytes - this.#groupEnd - header
  }

  /**
   * Address for a record of `bytes` at the end of the open group, or 0 when the active segment is full and the next one is
   * not ready (`spaceError` tells whether waiting helps). May write the open group out to change segments; an error of that
   * write is in `failure` afterwards, or thrown as DISK_FULL with the open group dropped.
   */
  append(bytes: number): number {
    assert((bytes & 3) === 0 && bytes + 4096 <= this.#options.arena.segmentBytes, 'A record fits into a segment')
    if (this.#failure !== undefined) return 0
    if (this.#active === undefined || bytes > this.roomBytes) {
      if (!this.#openSegment()) return 0
      if (bytes > this.roomBytes) return 0
    }
    if (this.#groupEnd === this.#groupStart) this.#groupEnd += groupHeaderBytes
    const address = this.#options.arena.address(this.#active!.segment, this.#groupEnd)
    this.#groupEnd += bytes
    return address
  }

  /**
   * Hands the open group to the kernel, if it has records. Throws DISK_FULL after dropping the group, or DISK_FAILED (final). The
   * outcome is `unknown` where a group that was dropped may stand in the file as if it were whole.
   */
  write(): void {
    if (this.#failure !== undefined) throw this.#failure
    if (this.#groupEnd === this.#groupStart) return
    const active = this.#active!
    const { arena, crc32 } = this.#options
    const slab = arena.slabOfSegment(active.segment)
    const segmentStart = arena.startOfSegment(active.segment)
    const start = segmentStart + this.#groupStart
    const end = segmentStart + this.#groupEnd
    sealGroup(
      arena.u8[slab]!,
      arena.i32[slab]!,
      start,
      end - start,
      active.sequence,
      this.#groupNumber,
      this.#syncedSequence,
      this.#syncedBytes,
      crc32,
    )
    try {
      active.file!.writeNow(arena.u8[slab]!, start, end, this.#groupStart)
    } catch (error) {
      const failed = this.#noteWriteError(error)
      const mayStand = failed.code === 'DISK_FULL' && this.#mayStand(active.file!)
      // The records are dropped; the head of a segment stays in its first group.
      this.#groupEnd = this.#groupNumber === 0 ? this.#headEnd : this.#groupStart
      if (mayStand) throw new SunwiseError('DISK_FULL', failed.message, { outcome: 'unknown', cause: failed.cause })
      throw failed
    }
    if (this.#unsynced.at(-1) !== active) this.#unsynced.push(active)
    this.groups++
    this.bytesWritten += end - start
    this.#groupNumber++
    this.#groupStart = this.#groupEnd
  }

  /**
   * Whether the open group, of which a full disk took a part, may be read back after a crash as if it were whole: what the file
   * held before may be just what is missing (a prepared file holds zeros, and values may end with zeros).
   */
  #mayStand(file: DiskFile): boolean {
    try {
      return file.sizeNow() >= this.#groupEnd
    } catch {
      return true
    }
  }

  /** Makes all that was written survive a power cut. One at a time: the caller waits for `done`, then may sync again. */
  sync(done: (error: SunwiseError | undefined) => void): void {
    assert(!this.#syncing, 'One sync at a time')
    if (this.#failure !== undefined) return done(this.#failure)
    if (this.#unsynced.length === 0) return done(undefined)
    this.#syncing = true
    const files = this.#unsynced.splice(0)
    const last = files.at(-1)!
    const bytes = last === this.#active ? this.#groupStart : this.#previousBytes
    let left = files.length
    let failed: SunwiseError | undefined
    for (const segment of files) {
      segment.file!.sync((error) => {
        if (error !== undefined) failed = this.#fail(error)
        if (--left > 0) return
        this.#syncing = false
        this.syncs++
        if (failed === undefined) {
          this.#syncedSequence = last.sequence
          this.#syncedBytes = bytes
        }
        done(failed)
      })
    }
  }

  /** Prepares the next segment where that is due and possible. Call once per turn. */
  prepare(): void {
    if (this.#preparing || this.#spare !== undefined || this.#failure !== undefined) return
    if (this.#free.length === 0 || !this.#options.mayTakeSegment()) return
    if (this.#spaceError !== undefined) return
    const segment = this.#free.shift()!
    this.#preparing = true
    const bytes = this.#options.preallocate ? this.#options.arena.segmentBytes : 0
    this.#options.disk.create(`${this.#options.directory}/${segmentFileName(segment)}`, bytes, (error, file) => {
      this.#preparing = false
      if (file !== undefined) {
        this.#spare = { segment, file }
        if (!this.#withRoom.delete(segment)) this.#isScarce = false
        return
      }
      this.#free.unshift(segment)
      if (error!.code === 'DISK_FULL') {
        this.#spaceError = error
        this.spaceErrors++
        this.#isScarce = true
      } else this.#fail(error!)
    })
  }

  /** Forgets that the disk was full, so that `prepare` tries again. */
  retrySpace(): void {
    this.#spaceError = undefined
  }

  /**
   * Retires the oldest segment, whose data must stand elsewhere durably: writes its marks, the second when the first is durable,
   * then bumps the segment's generation and frees it. Segments are retired one at a time, in order, so that no older data can
   * outlive newer. DISK_FULL leaves all as it was.
   */
  retireOldest(done: (error: SunwiseError | undefined) => void): void {
    const oldest = this.oldest
    assert(oldest !== undefined && !this.#retiring, 'A full segment is retired, one at a time')
    if (this.#failure !== undefined) return done(this.#failure)
    this.#retiring = true
    if (this.#isHeld) {
      this.#heldRetirement = () => {
        this.#retiring = false
        this.retireOldest(done)
      }
      return
    }
    const live = this.#live[0]!
    const end = (error: SunwiseError | undefined): void => {
      this.#retiring = false
      done(error)
    }
    this.#mark(live, 0, (failed) => {
      if (failed !== undefined) return end(failed)
      this.#mark(live, secondMarkOffset, (error) => {
        if (error !== undefined) return end(error)
        live.file!.close()
        this.#live.shift()
        this.#options.arena.invalidateSegment(live.segment)
        // A hold that began meanwhile counts its file among what is copied: it is not to be written before the end of that.
        if (this.#isHeld) this.#freedInHold.push(live.segment)
        else this.#free.unshift(live.segment)
        this.#withRoom.add(live.segment)
        end(undefined)
      })
    })
  }

  /** Writes a retirement mark and syncs it. */
  #mark(live: LiveSegment, offset: number, done: (error: SunwiseError | undefined) => void): void {
    try {
      live.file ??= this.#options.disk.openNow(`${this.#options.directory}/${segmentFileName(live.segment)}`)
      live.file.writeNow(retirementMark(live.sequence, this.#options.crc32), 0, retirementMarkBytes, offset)
    } catch (error) {
      return done(this.#noteWriteError(error))
    }
    live.file.sync((error) => done(error === undefined ? undefined : this.#fail(error)))
  }

  /** Lets no segment be retired until `release`; one whose retirement is under way goes, but is not used again before. */
  hold(): void {
    this.#isHeld = true
  }

  release(): void {
    this.#isHeld = false
    this.#free.unshift(...this.#freedInHold)
    this.#freedInHold = []
    const retire = this.#heldRetirement
    this.#heldRetirement = undefined
    retire?.()
  }

  /** Whether a segment would be retired but for a hold. */
  get isRetirementHeld(): boolean {
    return this.#heldRetirement !== undefined
  }

  /** Live segments, oldest first, with the bytes of each that were handed to the kernel. */
  get written(): readonly { readonly segment: number; readonly bytes: number }[] {
    return this.#live.map((live) => ({
      segment: live.segment,
      bytes: live === this.#active ? this.#groupStart : live.bytes,
    }))
  }

  get retiring(): boolean {
    return this.#retiring
  }

  /** Closes all files; nothing may be pending. */
  close(): void {
    for (const segment of this.#live) segment.file?.close()
    this.#spare?.file.close()
    this.#spare = undefined
    this.#failure ??= new SunwiseError('CLOSED', 'Cannot write to the commit log: it is closed')
  }

  /** Ends the active segment and starts the spare one. False if there is none. */
  #openSegment(): boolean {
    if (this.#spare === undefined) return false
    const { arena } = this.#options
    if (this.#active !== undefined) {
      this.write()
      this.#previousSequence = this.#active.sequence
      this.#previousBytes = this.#groupStart
      this.#active.bytes = this.#groupStart
    }
    const { segment, file } = this.#spare
    this.#spare = undefined
    const sequence = ++this.#sequenceMax
    this.#active = { segment, sequence, bytes: 0, file }
    this.#live.push(this.#active)
    this.#groupNumber = 0
    this.#groupStart = 0
    const head = this.#options.segmentHead(this.#previousSequence, this.#previousBytes, this.#live[0]!.sequence)
    assert(head.length + groupHeaderBytes + 4096 < arena.segmentBytes, 'A segment head leaves room for records')
    arena.u8[arena.slabOfSegment(segment)]!.set(head, arena.startOfSegment(segment) + groupHeaderBytes)
    this.#headEnd = groupHeaderBytes + head.length
    this.#groupEnd = this.#headEnd
    return true
  }

  #noteWriteError(error: unknown): SunwiseError {
    if (error instanceof SunwiseError && error.code === 'DISK_FULL') {
      this.#spaceError = new SunwiseError('DISK_FULL', error.message, { outcome: 'none', cause: error })
      this.spaceErrors++
      return this.#spaceError
    }
    return this.#fail(error)
  }

  #fail(error: unknown): SunwiseError {
    this.#failure ??=
      error instanceof SunwiseError
        ? error
        : new SunwiseError('DISK_FAILED', `Cannot write the commit log in "${this.#options.directory}"`, {
            cause: error,
          })
    return this.#failure
  }
}
