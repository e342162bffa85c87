/**
 * The doors: everything through which the store touches the world, as types only. `host/` holds the real implementations,
 * `test/sim/` the simulated ones, and `test/conformance/` one suite per door that both must pass.
 *
 * Conventions. `...Now` methods finish before they return and throw a SunwiseError (`DISK_FAILED`, `DISK_FULL`). The others
 * take a completion callback last; it is called exactly once, possibly before the method returns, with `undefined` or the
 * error. Buffers passed in belong to the callee until the callback. Operations under way at the same time have no order among
 * them: who needs one waits for the callback. Nothing here returns a promise: promises do not exist below `host/`.
 */
import type { SunwiseError } from './base/errors.ts'
import type { EpochMs, MonotonicMs } from './base/ids.ts'
import type { WorkMemory } from './base/work-memory.ts'

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

/**
 * One open file. Offsets and sizes are bytes.
 *
 * An error of a read harms nothing else. DISK_FULL of a write leaves the file usable: the range may be written again. Any other
 * error of a write or a sync is final: every later write and sync through this object fails with DISK_FAILED, since the kernel
 * may have dropped the pages and would call a second try a success. Even what a new opening of such a file reads may be gone
 * after a power cut; data is safe again only when it stands in another file.
 */
export type DiskFile = {
  readonly path: string
  /** Number by which any thread of this process may read the file, through `Disk.readHandleNow`, until it is closed. */
  readonly handle: number
  /** Present size of the file. */
  sizeNow(): number
  /** Reads up to `end - start` bytes from file offset `at`; returns how many there were (fewer only at the end of the file). */
  readNow(buffer: Uint8Array, start: number, end: number, at: number): number
  read(buffer: Uint8Array, start: number, end: number, at: number, done: ReadDone): void
  /**
   * Hands `buffer[start, end)` to the kernel whole, or throws; after a throw that range of the file is undefined. The file grows
   * where the range passes its end; a gap reads as zeros. What is written survives the death of the process.
   */
  writeNow(buffer: Uint8Array, start: number, end: number, at: number): void
  write(buffer: Uint8Array, start: number, end: number, at: number, done: Done): void
  /** Makes every write of this file that had completed before the call survive a power cut. Never fails with DISK_FULL. */
  sync(done: Done): void
  /** `sync` that ends before it returns, for threads that serve nobody; throws its error. */
  syncNow(): void
  /**
   * Ends the use of this object; a second call does nothing. Operations under way still complete. It syncs nothing.
   * @throws DISK_FAILED where the kernel reports an error only now; writes since the last sync may be lost then.
   */
  close(): void
}

/**
 * A directory tree. Paths are relative to its root, with `/` between names and no `.` or `..`; the empty path is the root itself.
 * A missing parent directory is DISK_FAILED.
 */
export type Disk = {
  /** Opens an existing file for reading and writing. Throws `DISK_FAILED` if there is none. */
  openNow(path: string): DiskFile
  /** Creates (or reopens) a file for writing at once; its entry is durable only after `syncDirectory` of the parent. */
  createNow(path: string): DiskFile
  /** `DiskFile.readNow` of a file that any thread has open; DISK_FAILED where no file has this handle. */
  readHandleNow(handle: number, buffer: Uint8Array, start: number, end: number, at: number): number
  /**
   * Creates (or reopens) a file, writes zeros so that it is at least `bytes` long, and makes content and directory entry
   * durable. Later writes below `bytes` need no new space: `DISK_FULL` is reported here and not there. After an error the file
   * may exist, with some of the zeros.
   */
  create(path: string, bytes: number, done: (error: SunwiseError | undefined, file: DiskFile | undefined) => void): void
  /**
   * Atomically replaces `to` by `from`; durable only after `syncDirectory` of the parent (of both, if they differ). DISK_FAILED if
   * there is no `from`.
   */
  rename(from: string, to: string, done: Done): void
  /**
   * Removes a file, or an empty directory; no error if there is none. Durable only after `syncDirectory` of the parent. A directory
   * with entries is DISK_FAILED.
   */
  remove(path: string, done: Done): void
  /** Makes creations, renames and removals inside the directory durable. */
  syncDirectory(path: string, done: Done): void
  /** `remove` and `syncDirectory` that end before they return, for threads that serve nobody. */
  removeNow(path: string): void
  syncDirectoryNow(path: string): void
  /** Names (not paths) of the entries of a directory, sorted; empty if there is no such directory. */
  listNow(path: string): string[]
  /**
   * Bytes of the file system, and how many of them this process may still take. A quota may be tighter, and zeros need not take what
   * they count: DISK_FULL has the last word. Throws `DISK_FAILED`.
   */
  spaceNow(): { readonly freeBytes: number; readonly totalBytes: number }
  /** Creates a directory and its parents, durably; no error if it exists. */
  makeDirectoryNow(path: string): void
}

/** One change of the catalog. */
export type CatalogEdit =
  | { readonly op: 'put'; readonly key: string; readonly value: Uint8Array }
  | { readonly op: 'delete'; readonly key: string }

/**
 * The node's small, durable, ordered map for facts about itself. Written by one thread only. Keys are 1 to 500 printable ASCII
 * characters and do not begin with `#`; another key is a bug of the caller.
 */
export type Catalog = {
  /** The bytes under `key`, a copy. Reads throw CATALOG_CORRUPT where a row is damaged, DISK_FAILED where it cannot be read. */
  get(key: string): Uint8Array | undefined
  /** All pairs whose key starts with `prefix`, in key order. */
  scan(prefix: string): [string, Uint8Array][]
  /**
   * Applies all edits, in their order, or none; `done` after they are durable. Later `get`s see them at the latest then. Commits
   * apply in the order of their calls. The values are copied before the method returns. After an error (DISK_FAILED, DISK_FULL,
   * CLOSED) the edits may hold or not, but all alike.
   */
  commit(edits: readonly CatalogEdit[], done: Done): void
}

/** Messages to other nodes. Whoever carries them adds checksum, cluster and sender, and drops what is damaged. */
export type Network = {
  /** Longest message that goes as one datagram; what is longer goes another, dearer way. */
  readonly datagramBytesMax: number
  /**
   * Queues bytes for an address; they arrive once, or twice, or not. A datagram is lost more easily. False where
   * the queue to that address is full: they are not sent.
   */
  send(address: string, bytes: Uint8Array, kind: 'stream' | 'datagram'): boolean
}

/** What a job may use: it runs on a thread that serves nobody, and may wait. */
export type JobWorld = {
  readonly disk: Disk
  /**
   * Told of the bytes of every small piece of work (a block of a table), 0 where nothing is read or written; may make the job wait, so that
   * it leaves the disk and the processor to others.
   */
  pace(bytes: number): void
  /** The answer is not wanted any more: the job throws CLOSED soon. */
  readonly isCancelled: boolean
  /** Buffers; what a job takes is its own until it ends, and goes to the next one then. */
  readonly memory: WorkMemory
}

/** Long work beside the serving threads. Jobs have no order among them. */
export type Jobs = {
  /**
   * Runs job `kind` elsewhere. Input and output can be posted between threads; what is shared memory in them stays shared. `done` comes
   * once, with the output or the error: the job's own, OVERLOADED where too many wait, INTERNAL where the job broke.
   */
  run(kind: string, input: unknown, done: (error: SunwiseError | undefined, output: unknown) => void): void
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
  /** Sends the frame reserved last; the shard sees it at the next `publish`, when this thread's turn ends, or earlier. */
  commit(shard: number): void
  /** Lets shards see what was committed so far, so that they work while this thread encodes more. */
  publish(): void
  isUp(shard: number): boolean
}
