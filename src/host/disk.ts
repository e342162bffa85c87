/**
 * The real disk: the door `Disk` over node:fs, below one root directory.
 *
 * A `writeNow` copies into the page cache and costs a few microseconds. A sync runs inline while that is fast (see `SyncPace`),
 * else on the thread pool. Everything else that waits for the device runs on the pool.
 *
 * Errors: no space or quota is DISK_FULL, everything else DISK_FAILED, with the path in the message and the system's error as
 * the cause. After a failed sync, or a write that failed otherwise than for want of space, the object of the file refuses all
 * writes and syncs for good: kernels drop the pages of a failed write-back and report success the next time.
 *
 * A descriptor is closed only when the last operation under way has come back: its number may be given to another file at once,
 * and a late write would go there.
 */
import {
  closeSync,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  fsync,
  fsyncSync,
  ftruncateSync,
  constants as modes,
  open,
  openSync,
  read,
  readdirSync,
  readSync,
  rename,
  rmdir,
  rmdirSync,
  statfsSync,
  unlink,
  unlinkSync,
  write,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { assert } from '../base/assert.ts'
import { SunwiseError } from '../base/errors.ts'
import type { Disk, DiskFile, Done, ReadDone } from '../env.ts'
import { makeDirectories } from './make-directory.ts'
import { SyncPace } from './sync-pace.ts'

/** What `create` writes at a time. */
const zeros = new Uint8Array(1024 * 1024)
const fileMode = 0o600
const directoryMode = 0o700

/** The coded form of a file system's error. */
export function diskError(action: string, path: string, error: unknown): SunwiseError {
  const code = codeOf(error)
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    const message = `Cannot ${action} "${path}": no space is left (${code}); free some, deletes go on meanwhile`
    return new SunwiseError('DISK_FULL', message, { outcome: 'none', cause: error })
  }
  const detail = error instanceof Error ? error.message : String(error)
  return new SunwiseError('DISK_FAILED', `Cannot ${action} "${path}": ${detail}`, { cause: error })
}

/**
 * The error of a sync or a close. Want of space is no better than another error here: the data had been taken and is gone now,
 * so nothing may go on as if it could be tried again.
 */
function final(error: SunwiseError): SunwiseError {
  return error.code === 'DISK_FAILED' ? error : new SunwiseError('DISK_FAILED', error.message, { cause: error.cause })
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined
}

/** Totals of one disk since it was opened, for metrics. `syncMsTotal` is the time from call to return or callback. */
export type DiskCounters = {
  reads: number
  readBytes: number
  writes: number
  writtenBytes: number
  syncs: number
  inlineSyncs: number
  syncMsTotal: number
  syncMsMax: number
  /** Operations that ended in an error. */
  errors: number
}

/** The door `Disk` over one directory of the file system. */
export class HostDisk implements Disk {
  readonly #root: string
  readonly counters: DiskCounters = {
    reads: 0,
    readBytes: 0,
    writes: 0,
    writtenBytes: 0,
    syncs: 0,
    inlineSyncs: 0,
    syncMsTotal: 0,
    syncMsMax: 0,
    errors: 0,
  }
  readonly pace: SyncPace = new SyncPace()

  /** `root` must exist. */
  constructor(root: string) {
    this.#root = root
  }

  openNow(path: string): DiskFile {
    return this.#openNow(path, modes.O_RDWR)
  }

  createNow(path: string): DiskFile {
    return this.#openNow(path, modes.O_RDWR | modes.O_CREAT)
  }

  create(
    path: string,
    bytes: number,
    done: (error: SunwiseError | undefined, file: DiskFile | undefined) => void,
  ): void {
    assert(Number.isSafeInteger(bytes) && bytes >= 0, 'A file is created with a number of bytes')
    open(this.#resolve(path), modes.O_RDWR | modes.O_CREAT, fileMode, (error, descriptor) => {
      if (error !== null) return done(this.failure('create', path, error), undefined)
      zeroFill(descriptor, bytes, (cause) => {
        if (cause !== undefined) {
          closeQuietly(descriptor)
          return done(this.failure('create', path, cause), undefined)
        }
        this.syncDirectory(parentOf(path), (failed) => {
          if (failed === undefined) return done(undefined, new HostFile(path, descriptor, this))
          closeQuietly(descriptor)
          done(failed, undefined)
        })
      })
    })
  }

  readHandleNow(handle: number, buffer: Uint8Array, start: number, end: number, at: number): number {
    assert(start >= 0 && start <= end && end <= buffer.length && at >= 0, 'A range lies within its buffer')
    this.counters.reads++
    let next = start
    try {
      while (next < end) {
        const count = readSync(handle, buffer, next, end - next, at + next - start)
        if (count === 0) break
        next += count
      }
    } catch (error) {
      throw this.failure('read', `handle ${handle}`, error)
    }
    this.counters.readBytes += next - start
    return next - start
  }

  removeNow(path: string): void {
    const full = this.#resolve(path)
    try {
      unlinkSync(full)
    } catch (error) {
      const code = codeOf(error)
      if (code === 'ENOENT') return
      if (code !== 'EISDIR' && code !== 'EPERM') throw this.failure('remove', path, error)
      this.#removeDirectoryNow(path, full)
    }
  }

  #removeDirectoryNow(path: string, full: string): void {
    try {
      rmdirSync(full)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw this.failure('remove', path, error)
    }
  }

  syncDirectoryNow(path: string): void {
    try {
      syncDirectoryNow(this.#resolve(path))
    } catch (error) {
      throw final(this.failure('sync directory', path, error))
    }
  }

  rename(from: string, to: string, done: Done): void {
    rename(this.#resolve(from), this.#resolve(to), (error) => {
      done(error === null ? undefined : this.failure(`rename to "${to}"`, from, error))
    })
  }

  remove(path: string, done: Done): void {
    const full = this.#resolve(path)
    unlink(full, (error) => {
      if (error === null || error.code === 'ENOENT') return done(undefined)
      // Linux says EISDIR for a directory, POSIX and macOS EPERM.
      if (error.code !== 'EISDIR' && error.code !== 'EPERM') return done(this.failure('remove', path, error))
      rmdir(full, (cause) => {
        done(cause === null || cause.code === 'ENOENT' ? undefined : this.failure('remove', path, cause))
      })
    })
  }

  syncDirectory(path: string, done: Done): void {
    open(this.#resolve(path), modes.O_RDONLY | modes.O_DIRECTORY, (error, descriptor) => {
      if (error !== null) return done(this.failure('sync directory', path, error))
      fsync(descriptor, (cause) => {
        closeQuietly(descriptor)
        done(cause === null ? undefined : final(this.failure('sync directory', path, cause)))
      })
    })
  }

  listNow(path: string): string[] {
    try {
      return readdirSync(this.#resolve(path)).sort()
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return []
      throw this.failure('list', path, error)
    }
  }

  spaceNow(): { readonly freeBytes: number; readonly totalBytes: number } {
    try {
      const { bsize, bavail, blocks } = statfsSync(this.#root)
      return { freeBytes: bavail * bsize, totalBytes: blocks * bsize }
    } catch (error) {
      throw this.failure('ask for the space of', '', error)
    }
  }

  makeDirectoryNow(path: string): void {
    try {
      makeDirectories(this.#resolve(path), directoryMode)
      // The entry of each level lies in its parent. A level that was there already may never have been synced.
      const names = path.split('/')
      for (let depth = names.length - 1; depth >= 0; depth--)
        syncDirectoryNow(join(this.#root, ...names.slice(0, depth)))
    } catch (error) {
      throw this.failure('create directory', path, error)
    }
  }

  /** The coded error, counted. */
  failure(action: string, path: string, error: unknown): SunwiseError {
    this.counters.errors++
    return diskError(action, path, error)
  }

  #openNow(path: string, flags: number): DiskFile {
    const full = this.#resolve(path)
    try {
      return new HostFile(path, openSync(full, flags, fileMode), this)
    } catch (error) {
      throw this.failure('open', path, error)
    }
  }

  #resolve(path: string): string {
    assert(!path.startsWith('/') && !path.split('/').includes('..'), 'A path stays below the root')
    return join(this.#root, path)
  }
}

function parentOf(path: string): string {
  const parent = dirname(path)
  return parent === '.' ? '' : parent
}

/**
 * Extends a file with zeros to at least `bytes` and syncs it. After an error the file has its old length again, so that a full
 * disk gets its space back and a second try writes the zeros anew instead of trusting pages that the kernel may have dropped.
 */
export function zeroFill(descriptor: number, bytes: number, done: (error: unknown) => void): void {
  let oldBytes: number
  try {
    oldBytes = fstatSync(descriptor).size
  } catch (error) {
    return done(error)
  }
  let at = oldBytes
  const fail = (error: unknown): void => {
    try {
      if (at > oldBytes) ftruncateSync(descriptor, oldBytes)
    } catch {
      // The first error says more; the file keeps some zeros, as the door allows.
    }
    done(error)
  }
  const extend = (): void => {
    if (at >= bytes) return fsync(descriptor, (error) => (error === null ? done(undefined) : fail(error)))
    write(descriptor, zeros, 0, Math.min(zeros.length, bytes - at), at, (error, written) => {
      if (error !== null) return fail(error)
      at += written
      extend()
    })
  }
  extend()
}

/** For descriptors whose data is synced or given up: an error of closing would say nothing new. */
function closeQuietly(descriptor: number): void {
  try {
    closeSync(descriptor)
  } catch {
    // The descriptor is gone in any case (Linux), and nothing unsynced hangs on it.
  }
}

function syncDirectoryNow(full: string): void {
  const descriptor = openSync(full, modes.O_RDONLY | modes.O_DIRECTORY)
  try {
    fsyncSync(descriptor)
  } finally {
    closeQuietly(descriptor)
  }
}

/** With more than this to write out, a sync takes milliseconds on any device: it goes to the pool. */
const inlineBytesMax = 512 * 1024
class HostFile implements DiskFile {
  readonly path: string
  readonly #descriptor: number
  readonly #disk: HostDisk
  #failure: SunwiseError | undefined
  #isClosed = false
  /** Operations on the pool that use the descriptor. */
  #underWay = 0
  /** Bytes written since the last sync began. */
  #unsyncedBytes = 0

  constructor(path: string, descriptor: number, disk: HostDisk) {
    this.path = path
    this.#descriptor = descriptor
    this.#disk = disk
  }

  sizeNow(): number {
    this.#checkOpen()
    try {
      return fstatSync(this.#descriptor).size
    } catch (error) {
      throw this.#disk.failure('inspect', this.path, error)
    }
  }

  readNow(buffer: Uint8Array, start: number, end: number, at: number): number {
    this.#checkRange(buffer, start, end, at)
    this.#disk.counters.reads++
    let next = start
    try {
      while (next < end) {
        const count = readSync(this.#descriptor, buffer, next, end - next, at + next - start)
        if (count === 0) break
        next += count
      }
    } catch (error) {
      throw this.#disk.failure('read', this.path, error)
    }
    this.#disk.counters.readBytes += next - start
    return next - start
  }

  read(buffer: Uint8Array, start: number, end: number, at: number, done: ReadDone): void {
    this.#checkRange(buffer, start, end, at)
    this.#disk.counters.reads++
    this.#underWay++
    let next = start
    const finish = (error: SunwiseError | undefined): void => {
      this.#disk.counters.readBytes += next - start
      this.#cameBack()
      done(error, next - start)
    }
    const more = (): void => {
      read(this.#descriptor, buffer, next, end - next, at + next - start, (error, count) => {
        if (error !== null) return finish(this.#disk.failure('read', this.path, error))
        next += count
        if (count === 0 || next === end) return finish(undefined)
        more()
      })
    }
    more()
  }

  writeNow(buffer: Uint8Array, start: number, end: number, at: number): void {
    this.#checkRange(buffer, start, end, at)
    if (this.#failure !== undefined) throw this.#failure
    const { counters } = this.#disk
    counters.writes++
    let next = start
    try {
      while (next < end) {
        const count = writeSync(this.#descriptor, buffer, next, end - next, at + next - start)
        if (count === 0) throw new Error('The kernel took none of the bytes')
        next += count
      }
    } catch (error) {
      throw this.#noteWrite(error)
    } finally {
      counters.writtenBytes += next - start
      this.#unsyncedBytes += next - start
    }
  }

  write(buffer: Uint8Array, start: number, end: number, at: number, done: Done): void {
    this.#checkRange(buffer, start, end, at)
    if (this.#failure !== undefined) return done(this.#failure)
    const { counters } = this.#disk
    counters.writes++
    this.#underWay++
    let next = start
    const finish = (cause: unknown): void => {
      counters.writtenBytes += next - start
      this.#unsyncedBytes += next - start
      const error = cause === undefined ? undefined : this.#noteWrite(cause)
      this.#cameBack()
      done(error)
    }
    const more = (): void => {
      if (next === end) return finish(undefined)
      write(this.#descriptor, buffer, next, end - next, at + next - start, (error, count) => {
        if (error !== null) return finish(error)
        if (count === 0) return finish(new Error('The kernel took none of the bytes'))
        next += count
        more()
      })
    }
    more()
  }

  get handle(): number {
    return this.#descriptor
  }

  syncNow(): void {
    this.#checkOpen()
    if (this.#failure !== undefined) throw this.#failure
    this.#disk.counters.syncs++
    this.#unsyncedBytes = 0
    try {
      fdatasyncSync(this.#descriptor)
    } catch (cause) {
      this.#noteSync(cause)
    }
    if (this.#failure !== undefined) throw this.#failure
  }

  sync(done: Done): void {
    this.#checkOpen()
    if (this.#failure !== undefined) return done(this.#failure)
    const { counters, pace } = this.#disk
    counters.syncs++
    const startMs = performance.now()
    const isSmall = this.#unsyncedBytes <= inlineBytesMax
    this.#unsyncedBytes = 0
    if (pace.isInline && isSmall) {
      counters.inlineSyncs++
      try {
        fdatasyncSync(this.#descriptor)
      } catch (cause) {
        this.#noteSync(cause)
      }
      this.#noteDuration(performance.now() - startMs, true)
      return done(this.#failure)
    }
    this.#underWay++
    fdatasync(this.#descriptor, (cause) => {
      if (isSmall) this.#noteDuration(performance.now() - startMs, false)
      if (cause !== null) this.#noteSync(cause)
      this.#cameBack()
      // The kernel reports a lost page once: if another sync of this file got the error, this one's success means nothing.
      done(this.#failure)
    })
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    if (this.#underWay > 0) return
    try {
      closeSync(this.#descriptor)
    } catch (error) {
      throw final(this.#disk.failure('close', this.path, error))
    }
  }

  #checkOpen(): void {
    assert(!this.#isClosed, 'A closed file is not used')
  }

  #checkRange(buffer: Uint8Array, start: number, end: number, at: number): void {
    assert(!this.#isClosed, 'A closed file is not used')
    assert(start >= 0 && start <= end && end <= buffer.length && at >= 0, 'A range lies within its buffer')
  }

  /** The last operation to come back after `close` gives the descriptor up. */
  #cameBack(): void {
    this.#underWay--
    if (this.#isClosed && this.#underWay === 0) closeQuietly(this.#descriptor)
  }

  #noteWrite(cause: unknown): SunwiseError {
    const error = this.#disk.failure('write', this.path, cause)
    if (error.code === 'DISK_FULL') return error
    this.#failure ??= error
    return error
  }

  #noteSync(cause: unknown): void {
    this.#failure ??= final(this.#disk.failure('sync', this.path, cause))
  }

  #noteDuration(durationMs: number, wasInline: boolean): void {
    const { counters, pace } = this.#disk
    counters.syncMsTotal += durationMs
    if (durationMs > counters.syncMsMax) counters.syncMsMax = durationMs
    pace.add(durationMs, wasInline)
  }
}
