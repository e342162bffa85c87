/**
 * The doors: everything through which the store touches the world, as types only. `host/` holds the real implementations,
 * `test/sim/` the simulated ones, and `test/conformance/` one suite per door that both must pass.
 *
 * Conventions. `...Now` methods finish before they return and throw a SunwiseError (`DISK_FAILED`, `DISK_FULL`). The others
 * take a completion callback last; it is called exactly once, possibly before the method returns, with `undefined` or the
 * error. Buffers passed in belong to the callee until the callback. Nothing here returns a promise: promises do not exist
 * below `host/`.
 */
import type { SunwiseError } from './base/errors.ts'
import type { EpochMs, MonotonicMs } from './base/ids.ts'

/** Time. It moves only between calls into the core: two reads within one call may be equal, never far apart. */
export type Clock = {
  /** Monotonic milliseconds, with fractions; for deadlines and durations. */
  monotonicMs(): MonotonicMs
  /** Wall-clock milliseconds since 1970; for expiry, never for order. */
  epochMs(): EpochMs
}

/** Randomness that cannot be guessed in production and comes from the seed in the simulator. */
export type Random = {
  /** Fills `into` with random bytes. */
  fill(into: Uint8Array): void
  /** A u32. */
  u32(): number
}

export type Done = (error: SunwiseError | undefined) => void
export type ReadDone = (error: SunwiseError | undefined, bytesRead: number) => void

/** One open file. Offsets and sizes are bytes. */
export type DiskFile = {
  readonly path: string
  /** Present size of the file. */
  sizeNow(): number
  /** Reads up to `end - start` bytes from file offset `at`; returns how many there were (fewer only at the end of the file). */
  readNow(buffer: Uint8Array, start: number, end: number, at: number): number
  read(buffer: Uint8Array, start: number, end: number, at: number, done: ReadDone): void
  /** Hands `buffer[start, end)` to the kernel whole, or throws; after a throw the file's bytes from `at` on are undefined. */
  writeNow(buffer: Uint8Array, start: number, end: number, at: number): void
  write(buffer: Uint8Array, start: number, end: number, at: number, done: Done): void
  /**
   * Makes every earlier write of this file survive a power cut. An error is final (the kernel may have dropped the pages):
   * every later write and sync of the file fails too.
   */
  sync(done: Done): void
  close(): void
}

/** A directory tree. Paths are relative to its root, with `/` between names. */
export type Disk = {
  /** Opens an existing file for reading and writing. Throws `DISK_FAILED` if there is none. */
  openNow(path: string): DiskFile
  /**
   * Creates (or reopens) a file, writes zeros so that it is at least `bytes` long, and makes content and directory entry
   * durable. Later writes below `bytes` need no new space: `DISK_FULL` is reported here and not there.
   */
  create(path: string, bytes: number, done: (error: SunwiseError | undefined, file: DiskFile | undefined) => void): void
  /** Atomically replaces `to` by `from`; durable only after `syncDirectory` of the parent. */
  rename(from: string, to: string, done: Done): void
  /** Removes a file, or an empty directory; no error if there is none. */
  remove(path: string, done: Done): void
  /** Makes creations, renames and removals inside the directory durable. */
  syncDirectory(path: string, done: Done): void
  /** Names (not paths) of the entries of a directory, sorted; empty if there is no such directory. */
  listNow(path: string): string[]
  /** Creates a directory and its parents, durably; no error if it exists. */
  makeDirectoryNow(path: string): void
}

/** One change of the catalog. */
export type CatalogEdit =
  | { readonly op: 'put'; readonly key: string; readonly value: Uint8Array }
  | { readonly op: 'delete'; readonly key: string }

/** The node's small, durable, ordered map for facts about itself. Written by one thread only. */
export type Catalog = {
  /** The bytes under `key`, a copy. */
  get(key: string): Uint8Array | undefined
  /** All pairs whose key starts with `prefix`, in key order. */
  scan(prefix: string): [string, Uint8Array][]
  /** Applies all edits or none; `done` after they are durable. Later `get`s see them at the latest then. */
  commit(edits: readonly CatalogEdit[], done: Done): void
}

/** Where the frames of one consumer go. Writes through it end at `frameEnd`. */
export type FrameTarget = {
  readonly u8: Uint8Array
  readonly i32: Int32Array
  /** First byte of the reserved frame within both views; a multiple of 4. */
  readonly start: number
}

/**
 * The shards of this node as one thread sees them. A frame is written in place between `begin` and `commit`, so no bytes
 * are copied twice; its reply comes back through the thread's own `receive` with the request id that the frame holds.
 */
export type Shards = {
  readonly count: number
  /**
   * Reserves `bytes` for one frame to `shard`. Returns undefined when its queue is full or the shard is down
   * (`isUp` tells which): nothing was sent.
   */
  begin(shard: number, bytes: number): FrameTarget | undefined
  /** Sends the frame reserved last. */
  commit(shard: number): void
  isUp(shard: number): boolean
}
