/**
 * The files of a store: what they take on disk, and how to make reads cold. For that it asks the kernel to forget the pages of a directory's files. `dd` with `nocache` and nothing to copy calls
 * posix_fadvise(DONTNEED), which Node cannot; only clean pages go, so files are synced first. It needs no privileges.
 */
import { execFileSync } from 'node:child_process'
import { closeSync, fdatasyncSync, openSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { Unavailable } from './case.ts'
import { keyBytes } from './key-set.ts'
import { isOnPath } from './machine.ts'

function filesOf(directory: string): string[] {
  return (readdirSync(directory, { recursive: true }) as string[])
    .map((name) => join(directory, name))
    .filter((path) => statSync(path, { throwIfNoEntry: false })?.isFile() === true)
}

/** Drops the cached pages of all files below `directory`. A file that goes meanwhile is nobody's loss. */
export function dropPageCache(directory: string): void {
  if (!isOnPath('dd')) throw new Unavailable('dd is not on the PATH')
  for (const path of filesOf(directory)) {
    try {
      const file = openSync(path, 'r')
      fdatasyncSync(file)
      closeSync(file)
      execFileSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none'], { stdio: 'ignore' })
    } catch (error) {
      if (statSync(path, { throwIfNoEntry: false }) !== undefined) throw error
    }
  }
}

/** Bytes that the files below `directory` take on disk: pre-allocated ones whole, sparse ones as far as they are there. */
export function bytesOnDisk(directory: string): number {
  return filesOf(directory).reduce(
    (sum, path) => sum + (statSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * 512,
    0,
  )
}

/** Of `keys` draws from `keys` numbers with replacement, the share of numbers that came up at least once. */
const distinctShare = 1 - 1 / Math.E

/** Bytes on disk over the bytes of the keys and values that are live after a random fill of `keys` puts to `keys` keys. */
export function spaceAmplification(diskBytes: number, keys: number, valueBytes: number): number {
  return diskBytes / (distinctShare * keys * (keyBytes + valueBytes))
}
