/**
 * The real disk: the door `Disk` over node:fs, below one root directory.
 *
 * A write is synchronous: it copies into the page cache and costs a few microseconds. A sync runs inline while its recent 99th
 * percentile is under a millisecond (a fast device answers sooner than the thread pool would), else on the pool. Errors map to
 * DISK_FULL (no space, quota) or DISK_FAILED; an error of write or sync is final for its file, except DISK_FULL of a write.
 */
import {
  closeSync,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  fsync,
  fsyncSync,
  mkdirSync,
  constants as modes,
  open,
  openSync,
  read,
  readdirSync,
  readSync,
  rename,
  rmdir,
  unlink,
  write,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { SunwiseError } from '../base/errors.ts'
import type { Disk, DiskFile, Done, ReadDone } from '../env.ts'

const zeros = new Uint8Array(1024 * 1024)
const durationsKept = 128
const inlineSyncMsMax = 1

/** The coded form of a file system error. */
export function diskError(action: string, path: string, error: unknown): SunwiseError {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    const message = `Cannot ${action} "${path}": no space is left (${code}); free some, deletes go on meanwhile`
    return new SunwiseError('DISK_FULL', message, { outcome: 'none', cause: error })
  }
  const detail = error instanceof Error ? error.message : String(error)
  return new SunwiseError('DISK_FAILED', `Cannot ${action} "${path}": ${detail}`, { cause: error })
}

/** Totals of one disk, for metrics. */
export type DiskCounters = { writes: number; writtenBytes: number; syncs: number; inlineSyncs: number; reads: number }

export class HostDisk implements Disk {
  readonly #root: string
  readonly counters: DiskCounters = { writes: 0, writtenBytes: 0, syncs: 0, inlineSyncs: 0, reads: 0 }
  readonly syncDurations: SyncDurations = new SyncDurations()

  constructor(root: string) {
    this.#root = root
  }

  openNow(path: string): DiskFile {
    return this.#openWith(path, modes.O_RDWR)
  }

  createNow(path: string): DiskFile {
    return this.#openWith(path, modes.O_RDWR | modes.O_CREAT)
  }

  create(
    path: string,
    bytes: number,
    done: (error: SunwiseError | undefined, file: DiskFile | undefined) => void,
  ): void {
    const full = join(this.#root, path)
    open(full, modes.O_RDWR | modes.O_CREAT, 0o600, (error, descriptor) => {
      if (error !== null) return done(diskError('create', path, error), undefined)
      const fail = (action: string, cause: unknown): void => {
        closeSync(descriptor)
        done(diskError(action, path, cause), undefined)
      }
      const finish = (): void => {
        fsync(descriptor, (cause) => {
          if (cause !== null) return fail('sync', cause)
          this.syncDirectory(dirname(path), (failed) => {
            if (failed === undefined) return done(undefined, new HostFile(path, descriptor, this))
            closeSync(descriptor)
            done(failed, undefined)
          })
        })
      }
      let at = 0
      try {
        at = fstatSync(descriptor).size
      } catch (cause) {
        return fail('inspect', cause)
      }
      const extend = (): void => {
        if (at >= bytes) return finish()
        write(descriptor, zeros, 0, Math.min(zeros.length, bytes - at), at, (cause, written) => {
          if (cause !== null) return fail('extend', cause)
          at += written
          extend()
        })
      }
      extend()
    })
  }

  rename(from: string, to: string, done: Done): void {
    rename(join(this.#root, from), join(this.#root, to), (error) => {
      done(error === null ? undefined : diskError('rename', from, error))
    })
  }

  remove(path: string, done: Done): void {
    const full = join(this.#root, path)
    unlink(full, (error) => {
      if (error === null || error.code === 'ENOENT') return done(undefined)
      if (error.code !== 'EISDIR' && error.code !== 'EPERM') return done(diskError('remove', path, error))
      rmdir(full, (cause) => {
        done(cause === null || cause.code === 'ENOENT' ? undefined : diskError('remove', path, cause))
      })
    })
  }

  syncDirectory(path: string, done: Done): void {
    open(join(this.#root, path), modes.O_RDONLY, (error, descriptor) => {
      if (error !== null) return done(diskError('open directory', path, error))
      fsync(descriptor, (cause) => {
        closeSync(descriptor)
        done(cause === null ? undefined : diskError('sync directory', path, cause))
      })
    })
  }

  listNow(path: string): string[] {
    try {
      return readdirSync(join(this.#root, path)).sort()
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
      throw diskError('list', path, error)
    }
  }

  makeDirectoryNow(path: string): void {
    try {
      mkdirSync(join(this.#root, path), { recursive: true, mode: 0o700 })
      // Each level's entry lies in its parent.
      const parts = path.split('/')
      for (let depth = parts.length - 1; depth >= 0; depth--) {
        const descriptor = openSync(join(this.#root, ...parts.slice(0, depth)), modes.O_RDONLY)
        try {
          fsyncSync(descriptor)
        } finally {
          closeSync(descriptor)
        }
      }
    } catch (error) {
      throw diskError('create directory', path, error)
    }
  }

  #openWith(path: string, flags: number): DiskFile {
    try {
      return new HostFile(path, openSync(join(this.#root, path), flags, 0o600), this)
    } catch (error) {
      throw diskError('open', path, error)
    }
  }
}

/** The latest sync durations, to choose between inline and pool. */
export class SyncDurations {
  readonly #latest = new Float64Array(durationsKept)
  #count = 0

  add(milliseconds: number): void {
    this.#latest[this.#count++ % durationsKept] = milliseconds
  }

  /** Whether the recent 99th percentile is under a millisecond; a disk not yet known counts as fast. */
  get isFast(): boolean {
    const known = Math.min(this.#count, durationsKept)
    let slow = 0
    for (let index = 0; index < known; index++) if (this.#latest[index]! >= inlineSyncMsMax) slow++
    return slow <= known / 100 + 1
  }
}

class HostFile implements DiskFile {
  readonly path: string
  readonly #descriptor: number
  readonly #disk: HostDisk
  #failure: SunwiseError | undefined
  #isClosed = false

  constructor(path: string, descriptor: number, disk: HostDisk) {
    this.path = path
    this.#descriptor = descriptor
    this.#disk = disk
  }

  sizeNow(): number {
    try {
      return fstatSync(this.#descriptor).size
    } catch (error) {
      throw diskError('inspect', this.path, error)
    }
  }

  readNow(buffer: Uint8Array, start: number, end: number, at: number): number {
    this.#disk.counters.reads++
    try {
      return readSync(this.#descriptor, buffer, start, end - start, at)
    } catch (error) {
      throw diskError('read', this.path, error)
    }
  }

  read(buffer: Uint8Array, start: number, end: number, at: number, done: ReadDone): void {
    this.#disk.counters.reads++
    read(this.#descriptor, buffer, start, end - start, at, (error, bytes) => {
      done(error === null ? undefined : diskError('read', this.path, error), bytes)
    })
  }

  writeNow(buffer: Uint8Array, start: number, end: number, at: number): void {
    if (this.#failure !== undefined) throw this.#failure
    this.#disk.counters.writes++
    this.#disk.counters.writtenBytes += end - start
    try {
      for (let next = start; next < end; ) {
        next += writeSync(this.#descriptor, buffer, next, end - next, at + next - start)
      }
    } catch (error) {
      throw this.#note('write', error)
    }
  }

  write(buffer: Uint8Array, start: number, end: number, at: number, done: Done): void {
    if (this.#failure !== undefined) return done(this.#failure)
    this.#disk.counters.writes++
    this.#disk.counters.writtenBytes += end - start
    const more = (next: number): void => {
      if (next >= end) return done(undefined)
      write(this.#descriptor, buffer, next, end - next, at + next - start, (error, written) => {
        if (error !== null) return done(this.#note('write', error))
        more(next + written)
      })
    }
    more(start)
  }

  sync(done: Done): void {
    if (this.#failure !== undefined) return done(this.#failure)
    const { counters, syncDurations } = this.#disk
    counters.syncs++
    const startMs = performance.now()
    if (syncDurations.isFast) {
      counters.inlineSyncs++
      try {
        fdatasyncSync(this.#descriptor)
      } catch (error) {
        return done(this.#note('sync', error))
      }
      syncDurations.add(performance.now() - startMs)
      return done(undefined)
    }
    fdatasync(this.#descriptor, (error) => {
      syncDurations.add(performance.now() - startMs)
      done(error === null ? undefined : this.#note('sync', error))
    })
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#failure ??= new SunwiseError('CLOSED', `Cannot use "${this.path}": the file is closed`)
    closeSync(this.#descriptor)
  }

  /** An error of write or sync stays: the kernel may have dropped the pages, so a later success would be a lie. */
  #note(action: string, cause: unknown): SunwiseError {
    const error = diskError(action, this.path, cause)
    if (error.code === 'DISK_FULL' && action === 'write') return error
    this.#failure ??= error.code === 'DISK_FULL' ? new SunwiseError('DISK_FAILED', error.message, { cause }) : error
    return this.#failure
  }
}
