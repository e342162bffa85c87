/**
 * Sunwise as a library: `open` a store in a directory and use it from this thread. Reads with `getSync` and `getInto` never
 * leave the calling thread; everything else returns a promise that settles by its deadline.
 *
 * ```ts
 * import { open } from 'sunwise'
 * await using store = await open({ dir: './data' })
 * await store.put('user:42', new TextEncoder().encode('Ada'))
 * ```
 */
import { assert } from './base/assert.ts'
import { type Outcome, SunwiseError } from './base/errors.ts'
import { backupsKeptDefault, type Compression, ConfigDefaults, type Durability, Limits } from './config.ts'
import type { BackupProgress, BackupSummary } from './host/backup.ts'
import { createBackup } from './host/backup-source.ts'
import { EmbeddedStore } from './host/embedded-store.ts'
import { configOf } from './host/server.ts'
import type {
  Bucket,
  BucketProperties,
  Callback,
  BatchOperation as CoordinatorOperation,
  BatchResult as CoordinatorResult,
  QuorumLevel,
  ReadAnswer,
  Receipt,
  WriteAnswer,
  WriteOptions,
} from './replication/requests.ts'

export type { BackupProgress, BackupSummary, BucketProperties, Durability, Outcome, QuorumLevel, Receipt }
export { SunwiseError }

/** A key: a string stands for its UTF-8 bytes. 1 to 2,048 bytes. */
export type Key = string | Uint8Array
/** A value: a string stands for its UTF-8 bytes. */
export type Value = string | Uint8Array

export type OpenOptions = {
  /** Data directory; created if absent. One process at a time. */
  readonly dir: string
  /** Shard worker threads; default one per core. The data outlives a change. */
  readonly shards?: number
  /** Budget in bytes for tables in memory, rings, caches and queues; default 1 GiB. */
  readonly memoryBytes?: number
  /** When a write is acknowledged; default `sync`, after fdatasync. */
  readonly durability?: Durability
  /** How often `interval` durability syncs, milliseconds; default 100. */
  readonly syncIntervalMs?: number
  /** Largest value in bytes; default 1 MiB, at most 16 MiB. */
  readonly valueBytesMax?: number
  /** How data beyond memory stands on disk; default `none`. `zstd` takes less room there, and reads of it take longer. */
  readonly compression?: Compression
  /** Bytes of tables to look through for damage in a second; default 4 MiB, 0 for none. */
  readonly scrubBytesPerSecond?: number
  /** Takes lines about recovery and restarts; default: silence. */
  readonly log?: (line: string) => void
}

export type CallOptions = {
  /** Milliseconds until the promise settles at the latest; default 5,000. */
  readonly deadline?: number
  readonly signal?: AbortSignal
}

export type GetOptions = CallOptions & { readonly r?: QuorumLevel }

export type PutOptions = CallOptions & {
  readonly w?: QuorumLevel
  /** Of an earlier `get`: replaces exactly what that saw. Without one the write replaces whatever there is. */
  readonly context?: Uint8Array | undefined
  /** Applies only if the key has this etag (or, `*`, any live value), else PRECONDITION_FAILED. */
  readonly ifMatch?: string
  /** `*`: applies only if the key has no live value. */
  readonly ifNoneMatch?: '*'
  /** Milliseconds until the value expires. */
  readonly ttl?: number
  readonly contentType?: string
  readonly durability?: Durability
}

export type DeleteOptions = Omit<PutOptions, 'ttl' | 'contentType' | 'ifNoneMatch'>

/** What a key holds. */
export type Entry = {
  /** The value; the deterministic winner where there are siblings. */
  readonly value: Uint8Array
  readonly contentType: string
  readonly etag: string
  /** Give it to the next `put` or `delete` of the key. Undefined where more actors wrote the key than a token can name. */
  readonly context: Uint8Array | undefined
  /** All values, the winner first; one unless concurrent writes met. */
  readonly siblings: readonly Uint8Array[]
  /** Milliseconds since 1970; undefined: never. */
  readonly expires: number | undefined
  readonly receipt: Receipt
}

/** What a write left behind. */
export type Written = {
  readonly etag: string | undefined
  readonly context: Uint8Array | undefined
  readonly siblings: number
  readonly expires: number | undefined
  readonly receipt: Receipt
}

export type BatchOperation =
  | { readonly op: 'put'; readonly key: Key; readonly value: Value; readonly options?: PutOptions }
  | { readonly op: 'get'; readonly key: Key }
  | { readonly op: 'delete'; readonly key: Key; readonly options?: DeleteOptions }

/** One per operation, in order: `error` where it failed; else `entry` of a get (undefined: none) or `written`. */
export type BatchResult = {
  readonly error?: SunwiseError
  readonly entry?: Entry | undefined
  readonly written?: Written
}

export type BackupOptions = {
  /** Backups that stay in the directory, this one included; default 7. */
  readonly keep?: number
  readonly onProgress?: (progress: BackupProgress) => void
  /** Gives the backup up. */
  readonly signal?: AbortSignal
}

export type ListOptions = CallOptions & {
  readonly prefix?: Key
  /** Values, too; default true. */
  readonly values?: boolean
}

const encoder = new TextEncoder()
/** Strings up to this length are encoded here: a call into the encoder costs more. */
const shortTextMax = 64

/** The UTF-8 bytes of a string key, fresh. */
function bytesOfText(text: string): Uint8Array {
  if (text.length > shortTextMax) return encoder.encode(text)
  const bytes = new Uint8Array(text.length)
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code >= 0x80) return encoder.encode(text)
    bytes[index] = code
  }
  return bytes
}

const toBytes = (text: Key | Value): Uint8Array => (typeof text === 'string' ? bytesOfText(text) : text)

/** Opens the store in a directory. Rejects with DIRECTORY_LOCKED where another process has it open, LOG_CORRUPT, BAD_CONFIG. */
export async function open(options: OpenOptions): Promise<Store> {
  const config = configOf({
    directory: options.dir,
    shards: options.shards ?? ConfigDefaults.shards,
    memoryBytes: options.memoryBytes ?? ConfigDefaults.memoryBytes,
    durability: options.durability ?? ConfigDefaults.durability,
    syncIntervalMs: options.syncIntervalMs ?? ConfigDefaults.syncIntervalMs,
    valueBytesMax: options.valueBytesMax ?? ConfigDefaults.valueBytesMax,
    compression: options.compression,
    scrubBytesPerSecond: options.scrubBytesPerSecond,
  })
  return new Store(await EmbeddedStore.open(config, options.log ?? (() => {})))
}

/** The keys of one bucket. Buckets share a store; their keys are apart. */
export class BucketStore {
  readonly name: string
  readonly #embedded: EmbeddedStore
  /** Key bytes of synchronous reads. */
  readonly #keyScratch = new Uint8Array(3 * Limits.keyBytesMax)
  /** The bucket as the table of this version has it. */
  #found: Bucket | undefined
  #foundVersion = -1

  constructor(embedded: EmbeddedStore, name: string) {
    this.#embedded = embedded
    this.name = name
  }

  /** The entry of a key; undefined where there is none. */
  get(key: Key, options: GetOptions = {}): Promise<Entry | undefined> {
    const request = { r: options.r, timeoutMs: options.deadline }
    return this.#call<ReadAnswer, Entry | undefined>(options.signal, entryOf, (bucket, done) => {
      this.#embedded.runtime.coordinator.get(bucket, toBytes(key), request, done)
    })
  }

  /** Stores a value. */
  put(key: Key, value: Value, options: PutOptions = noOptions): Promise<Written> {
    if (options.signal !== undefined) {
      return this.#call<WriteAnswer, Written>(options.signal, writtenOf, (bucket, done) => {
        this.#embedded.runtime.coordinator.put(bucket, toBytes(key), toBytes(value), writeOptionsOf(key, options), done)
      })
    }
    // What most writes go through has as few closures as it can.
    return new Promise((resolve, reject) => {
      const { coordinator } = this.#embedded.runtime
      const wanted = writeOptionsOf(key, options)
      coordinator.put(this.#bucket(), toBytes(key), toBytes(value), wanted, (error, answer) => {
        if (error === undefined) resolve(new WrittenAnswer(answer as WriteAnswer))
        else reject(error)
      })
    })
  }

  /** Deletes a key; no error if there is none. */
  delete(key: Key, options: DeleteOptions = noOptions): Promise<Written> {
    return this.#call<WriteAnswer, Written>(options.signal, writtenOf, (bucket, done) => {
      this.#embedded.runtime.coordinator.delete(bucket, toBytes(key), writeOptionsOf(key, options), done)
    })
  }

  /** Up to 1,000 operations at once; not atomic, and those on one key apply in order. */
  batch(operations: readonly BatchOperation[], options: CallOptions = {}): Promise<readonly BatchResult[]> {
    // One deadline for all, where an operation does not name an earlier one of its own.
    const { deadline } = options
    const optionsOf = (key: Key, own: PutOptions | DeleteOptions = noOptions): WriteOptions =>
      writeOptionsOf(key, deadline === undefined || own === noOptions ? own : { deadline, ...own })
    const wanted = operations.map(
      (operation): CoordinatorOperation =>
        operation.op === 'get'
          ? { op: 'get', key: toBytes(operation.key) }
          : operation.op === 'put'
            ? {
                op: 'put',
                key: toBytes(operation.key),
                value: toBytes(operation.value),
                options: optionsOf(operation.key, operation.options),
              }
            : {
                op: 'delete',
                key: toBytes(operation.key),
                options: optionsOf(operation.key, operation.options),
              },
    )
    return this.#call<readonly CoordinatorResult[], readonly BatchResult[]>(
      options.signal,
      resultsOf,
      (bucket, done) => {
        this.#embedded.runtime.coordinator.batch(bucket, wanted, { timeoutMs: options.deadline }, done)
      },
    )
  }

  /**
   * The value of a key, read from shared memory on this thread; undefined where there is surely none. Fresh bytes.
   *
   * @throws SHARD_UNAVAILABLE while its shard recovers; NOT_RESIDENT where a slow disk read would be needed.
   */
  getSync(key: Key): Uint8Array | undefined {
    const bucket = this.#bucket()
    if (typeof key !== 'string') {
      checkKeyBytes(key.length)
      return this.#embedded.reads.get(bucket.id, key, 0, key.length)
    }
    const bytes = this.#keyInto(key)
    checkKeyBytes(bytes)
    return this.#embedded.reads.get(bucket.id, this.#keyScratch, 0, bytes)
  }

  /**
   * Copies the value of a key into `into`, without an allocation. Returns its length; -1 where there is none; `-2 - length`
   * where `into` is smaller than `length`. Up to three bytes behind the value may be zeroed: it is copied by words. Errors as `getSync`.
   */
  getInto(key: Key, into: Uint8Array): number {
    const bucket = this.#bucket()
    if (typeof key !== 'string') {
      checkKeyBytes(key.length)
      return this.#embedded.reads.getInto(bucket.id, key, 0, key.length, into)
    }
    const bytes = this.#keyInto(key)
    checkKeyBytes(bytes)
    return this.#embedded.reads.getInto(bucket.id, this.#keyScratch, 0, bytes, into)
  }

  /**
   * As `getInto` where that needs no slow disk, at once; else a promise of the same number. `into` belongs to the store until then.
   */
  readInto(key: Key, into: Uint8Array): number | Promise<number> {
    try {
      return this.getInto(key, into)
    } catch (error) {
      if (!(error instanceof SunwiseError) || error.code !== 'NOT_RESIDENT') throw error
      return this.get(typeof key === 'string' ? key : key.slice()).then((entry) => {
        if (entry === undefined) return -1
        const { value } = entry
        if (value.length > into.length) return -2 - value.length
        into.set(value)
        return value.length
      })
    }
  }

  /** All keys with a prefix, by partition and then by bytes: not in the order of the keys over the whole bucket. */
  async *list(
    options: ListOptions = {},
  ): AsyncGenerator<{ readonly key: Uint8Array; readonly value: Uint8Array | undefined }> {
    let cursor: Uint8Array | undefined
    const prefix = options.prefix === undefined ? undefined : toBytes(options.prefix)
    do {
      const from = cursor
      const page = await this.#call(
        options.signal,
        (answer: {
          keys: readonly { key: Uint8Array; answer: ReadAnswer | undefined }[]
          cursor: Uint8Array | undefined
        }) => answer,
        (bucket, done) => {
          this.#embedded.runtime.coordinator.list(
            bucket,
            {
              prefix,
              cursor: from,
              limit: Limits.listLimitDefault,
              values: options.values ?? true,
              timeoutMs: options.deadline,
            },
            done,
          )
        },
      )
      for (const { key, answer } of page.keys) yield { key, value: answer?.values[0]?.value }
      cursor = page.cursor
    } while (cursor !== undefined)
  }

  /** UTF-8 of a string key in the scratch; its length, or more than a key may have. */
  #keyInto(key: string): number {
    if (key.length > Limits.keyBytesMax) return Limits.keyBytesMax + 1
    const scratch = this.#keyScratch
    for (let index = 0; index < key.length; index++) {
      const code = key.charCodeAt(index)
      if (code >= 0x80) return encoder.encodeInto(key, scratch).written
      scratch[index] = code
    }
    return key.length
  }

  #bucket(): Bucket {
    const { failure, runtime } = this.#embedded
    if (failure !== undefined) throw failure
    const { buckets } = runtime
    if (this.#found !== undefined && this.#foundVersion === buckets.version) return this.#found
    const bucket = buckets.find(this.name)
    this.#found = bucket
    this.#foundVersion = buckets.version
    if (bucket === undefined)
      throw new SunwiseError('BUCKET_NOT_FOUND', `There is no bucket "${this.name}"; create it with putBucket`)
    return bucket
  }

  #call<Answer, Result>(
    signal: AbortSignal | undefined,
    convert: (answer: Answer) => Result,
    start: (bucket: Bucket, done: Callback<Answer>) => void,
  ): Promise<Result> {
    return new Promise((resolve, reject) => {
      const bucket = this.#bucket()
      if (signal === undefined) {
        start(bucket, (error, answer) => (error === undefined ? resolve(convert(answer as Answer)) : reject(error)))
        return
      }
      if (signal.aborted) throw aborted(signal, 'none')
      const onAbort = (): void => reject(aborted(signal, 'unknown'))
      signal.addEventListener('abort', onAbort, { once: true })
      start(bucket, (error, answer) => {
        signal.removeEventListener('abort', onAbort)
        if (error === undefined) resolve(convert(answer as Answer))
        else reject(error)
      })
    })
  }
}

/** An open store: the bucket `default`, the other buckets, and their administration. */
export class Store extends BucketStore implements AsyncDisposable {
  readonly #embedded: EmbeddedStore

  constructor(embedded: EmbeddedStore) {
    super(embedded, 'default')
    this.#embedded = embedded
  }

  get nodeId(): string {
    return this.#embedded.nodeId
  }

  /** Records that the start read back from the log. */
  get recoveredRecords(): number {
    return this.#embedded.recoveredRecords
  }

  /** The keys of a bucket; `default` always exists, others are made by `putBucket`. */
  bucket(name: string): BucketStore {
    return new BucketStore(this.#embedded, name)
  }

  /** Creates a bucket, or changes what may change of one. */
  putBucket(name: string, properties: BucketProperties = {}): Promise<Bucket> {
    return new Promise((resolve, reject) => {
      if (this.#embedded.failure !== undefined) throw this.#embedded.failure
      this.#embedded.runtime.buckets.put(name, properties, (error, result) => {
        if (error === undefined) resolve(result!.bucket)
        else reject(error)
      })
    })
  }

  /** Deletes a bucket with all its keys. */
  deleteBucket(name: string): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#embedded.failure !== undefined) throw this.#embedded.failure
      this.#embedded.runtime.buckets.delete(name, (error) => (error === undefined ? resolve() : reject(error)))
    })
  }

  buckets(): readonly Bucket[] {
    return this.#embedded.runtime.buckets.all()
  }

  /**
   * Adds a backup of the store to those in `directory`, while it serves: everything acknowledged before the call is in it. Tables that
   * an earlier backup copied are not copied again. Rejects with OVERLOADED where another backup is under way, DISK_FULL, DISK_FAILED;
   * earlier backups stay as they were. `sunwise backup` lists, verifies and restores it.
   */
  backup(directory: string, options: BackupOptions = {}): Promise<BackupSummary> {
    if (this.#embedded.failure !== undefined) return Promise.reject(this.#embedded.failure)
    return createBackup({
      dataDirectory: this.#embedded.directory,
      directory,
      keep: options.keep ?? backupsKeptDefault,
      onProgress: options.onProgress ?? (() => {}),
      signal: options.signal,
    })
  }

  /** Ends cleanly: everything acknowledged is on stable storage afterwards. */
  close(): Promise<void> {
    return this.#embedded.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

function checkKeyBytes(bytes: number): void {
  if (bytes >= 1 && bytes <= Limits.keyBytesMax) return
  throw new SunwiseError('BAD_KEY', `Cannot use a key of ${bytes} bytes: it must have 1 to ${Limits.keyBytesMax}`)
}

function aborted(signal: AbortSignal, outcome: Outcome): SunwiseError {
  return new SunwiseError('ABORTED', 'The caller aborted the request', { outcome, cause: signal.reason })
}

const noOptions: PutOptions = Object.freeze({})
const ownedKey: WriteOptions = Object.freeze({ ownsKey: true })
const copiedKey: WriteOptions = Object.freeze({})

function writeOptionsOf(key: Key, options: PutOptions | DeleteOptions): WriteOptions {
  const ownsKey = typeof key === 'string'
  if (options === noOptions) return ownsKey ? ownedKey : copiedKey
  const { ifMatch } = options
  return {
    ownsKey,
    w: options.w,
    timeoutMs: options.deadline,
    context: options.context,
    ifMatch: ifMatch === undefined || ifMatch === '*' ? ifMatch : [ifMatch],
    ifNoneMatch: 'ifNoneMatch' in options ? options.ifNoneMatch : undefined,
    ttlMs: 'ttl' in options ? options.ttl : undefined,
    contentType: 'contentType' in options ? options.contentType : undefined,
    durability: options.durability,
  }
}

function entryOf(answer: ReadAnswer): Entry | undefined {
  const winner = answer.values[0]
  if (winner === undefined) return undefined
  assert(answer.etag !== undefined, 'A live value has an etag')
  return {
    value: winner.value,
    contentType: winner.contentType,
    etag: answer.etag,
    context: answer.context,
    siblings: answer.values.map(({ value }) => value),
    expires: winner.expiresAtMs,
    receipt: answer.receipt,
  }
}

/** An answer under the library's names; etag and context are still made only when asked for. */
class WrittenAnswer implements Written {
  readonly #answer: WriteAnswer

  constructor(answer: WriteAnswer) {
    this.#answer = answer
  }

  get etag(): string | undefined {
    return this.#answer.etag
  }

  get context(): Uint8Array | undefined {
    return this.#answer.context
  }

  get siblings(): number {
    return this.#answer.siblings
  }

  get expires(): number | undefined {
    return this.#answer.expiresAtMs
  }

  get receipt(): Receipt {
    return this.#answer.receipt
  }
}

function writtenOf(answer: WriteAnswer): Written {
  return new WrittenAnswer(answer)
}

function resultsOf(results: readonly CoordinatorResult[]): readonly BatchResult[] {
  return results.map((result) =>
    'error' in result
      ? { error: result.error }
      : result.op === 'get'
        ? { entry: entryOf(result.answer) }
        : { written: writtenOf(result.answer) },
  )
}
