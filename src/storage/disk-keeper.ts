/**
 * Keeps a reserve on the disk that all shards of a node share, watches its free bytes, and tells the shards whether data may grow
 * (disk-space.ts decides). One for a node, on its own thread; an object without a timer: the owner calls `tick`, and `met` where
 * something failed with DISK_FULL.
 *
 *   reserve    a file of zeros beside the logs and tables. It holds nothing: any start may find it whole, in part or not at all.
 *
 * News for the shards is a number that is raised when room may have come: the reserve was given up, space was freed, or growth goes
 * on. What failed for want of room is tried again at once then.
 *
 * A file system that compresses gives nothing for zeros: there, only the free bytes count.
 */
import type { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { Disk } from '../env.ts'
import { DiskSpace } from './disk-space.ts'
import { ControlWord } from './shard-memory.ts'

export type DiskKeeperOptions = {
  readonly disk: Disk
  /** What one flush and a small merge may need; made smaller on a small disk. See `reserveBytesOf`. */
  readonly reserveBytes: number
  /** The state is another, or there is news: the owner writes it where shards see it, with `writeDiskState`. */
  readonly changed: (keeper: DiskKeeper) => void
  /** The disk could not be asked, or the reserve not be made or removed, for another reason than room. */
  readonly report: (error: SunwiseError) => void
}

/** What readiness says of a full disk. */
export const diskFullWarning = 'the disk is full: writes that grow are refused'
/** Name of the reserve in the data directory. */
export const reservePath = 'reserve'
const sectorBytes = 4096
/** While the disk is full, so large a part of the reserve must have come free for it to be news. */
const newsShare = 1 / 8

export class DiskKeeper {
  readonly #options: DiskKeeperOptions
  readonly #space: DiskSpace
  #isBusy = false
  #isClosed = false
  readonly #whenIdle: (() => void)[] = []
  #news = 0
  #newsFreeBytes = 0
  #freeBytes = Number.POSITIVE_INFINITY
  #nowMs = 0
  #hasReported = false

  /** Finds what the last run left of the reserve, and looks at the disk. @throws DISK_FAILED where the directory cannot be read */
  constructor(options: DiskKeeperOptions, nowMs: number) {
    this.#options = options
    const { disk } = options
    const totalBytes = this.#totalBytes()
    const reserveBytes = fitting(options.reserveBytes, totalBytes)
    const heldBytes = disk.listNow('').includes(reservePath) ? sizeOf(disk) : 0
    if (heldBytes !== 0 && heldBytes !== reserveBytes) disk.removeNow(reservePath)
    this.#space = new DiskSpace(reserveBytes, slackOf(totalBytes), heldBytes === reserveBytes)
    this.tick(nowMs)
  }

  /** Growth is refused, on every shard. */
  get isFull(): boolean {
    return this.#space.isFull
  }

  /** Merges must fit into what is left. */
  get isScarce(): boolean {
    return this.#space.isScarce(this.#freeBytes)
  }

  /** Bytes that were free at the last look; infinite where the disk does not say. */
  get freeBytes(): number {
    return this.#freeBytes
  }

  /** Bytes of the reserve, if it stands. */
  get reserveBytes(): number {
    return this.#space.holdsReserve ? this.#space.reserveBytes : 0
  }

  /** Raised whenever room may have come. */
  get news(): number {
    return this.#news
  }

  /** Something failed with DISK_FULL. */
  met(nowMs: number): void {
    this.#space.met(nowMs)
    this.tick(nowMs)
  }

  /** Looks at the disk, and gives up or takes the reserve; about twice a second. */
  tick(nowMs: number): void {
    this.#nowMs = nowMs
    if (this.#isClosed) return
    const before = this.#space.isFull
    // While the reserve comes or goes, free bytes mean nothing.
    if (!this.#isBusy) {
      this.#freeBytes = this.#freeBytesNow()
      const action = this.#space.look(this.#freeBytes, nowMs)
      if (action === 'give up') this.#giveUp()
      if (action === 'take') this.#take()
      const risenBytes = this.#freeBytes - this.#newsFreeBytes
      if (this.#space.isFull && risenBytes >= this.#space.reserveBytes * newsShare) this.#tell()
      this.#newsFreeBytes = Math.min(this.#newsFreeBytes, this.#freeBytes)
    }
    if (before !== this.#space.isFull) this.#tell()
    else this.#options.changed(this)
  }

  /** Ends; `done` when nothing of the reserve is under way. The reserve stays. */
  close(done: () => void): void {
    this.#isClosed = true
    if (this.#isBusy) this.#whenIdle.push(done)
    else done()
  }

  #giveUp(): void {
    this.#isBusy = true
    this.#options.disk.remove(reservePath, (error) => {
      if (error === undefined) this.#space.gaveUp()
      else {
        this.#space.goWithout()
        this.#report(error)
      }
      this.#end()
    })
  }

  #take(): void {
    const { disk } = this.#options
    this.#isBusy = true
    disk.create(reservePath, this.#space.reserveBytes, (error, file) => {
      if (error === undefined) {
        this.#space.took()
        file!.close()
        this.#end()
        return
      }
      if (error.code === 'DISK_FULL') this.#space.tookNot(this.#nowMs)
      else {
        this.#space.goWithout()
        this.#report(error)
      }
      // A part of it would only be in the way.
      disk.remove(reservePath, () => this.#end())
    })
  }

  #end(): void {
    this.#isBusy = false
    if (!this.#isClosed) return this.#tell()
    for (const done of this.#whenIdle.splice(0)) done()
  }

  #tell(): void {
    this.#news++
    this.#newsFreeBytes = this.#freeBytes
    this.#options.changed(this)
  }

  #freeBytesNow(): number {
    try {
      return this.#options.disk.spaceNow().freeBytes
    } catch (error) {
      // Then what fails says when the disk is full, and a reserve that can be had says when it is not.
      this.#report(error as SunwiseError)
      return Number.POSITIVE_INFINITY
    }
  }

  #totalBytes(): number {
    try {
      return this.#options.disk.spaceNow().totalBytes
    } catch (error) {
      this.#report(error as SunwiseError)
      return Number.POSITIVE_INFINITY
    }
  }

  /** Once: it would be the same every half second. */
  #report(error: SunwiseError): void {
    if (this.#hasReported) return
    this.#hasReported = true
    this.#options.report(error)
  }
}

/** Writes the state of the disk into the control block of a shard. */
export function writeDiskState(control: Int32Array, keeper: DiskKeeper): void {
  const { isFull, isScarce, news, freeBytes, reserveBytes } = keeper
  Atomics.store(control, ControlWord.diskFreeKiB, kibibytes(freeBytes))
  Atomics.store(control, ControlWord.diskReserveKiB, kibibytes(reserveBytes))
  Atomics.store(control, ControlWord.diskScarce, isScarce ? 1 : 0)
  Atomics.store(control, ControlWord.diskFull, isFull ? 1 : 0)
  Atomics.store(control, ControlWord.diskNews, news | 0)
}

/** Bytes of a reserve for one flush as large as memory makes it and as much again for a merge. */
export function reserveBytesOf(flushBytes: number, memoryBytes: number): number {
  return Math.min(2 * flushBytes, Math.floor(memoryBytes * Limits.diskReserveMemoryShare), Limits.diskReserveBytesMax)
}

/** The reserve that a file system of this size bears. */
function fitting(reserveBytes: number, totalBytes: number): number {
  const bytes = Math.min(reserveBytes, totalBytes * Limits.diskReserveDiskShare)
  return Math.max(sectorBytes, Math.floor(bytes / sectorBytes) * sectorBytes)
}

function slackOf(totalBytes: number): number {
  return Number.isFinite(totalBytes) ? Math.floor(totalBytes * Limits.diskSlackShare) : 0
}

/** At most 2 TiB: more is as good. */
function kibibytes(bytes: number): number {
  return Math.min(0x7fff_ffff, Math.floor(bytes / 1024))
}

function sizeOf(disk: Disk): number {
  const file = disk.openNow(reservePath)
  try {
    return file.sizeNow()
  } finally {
    file.close()
  }
}
