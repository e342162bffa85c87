/**
 * A coordinator and its buckets in one map, with a version counter: enough of the semantics to test a front end. A write with
 * a context replaces the versions that the context had seen and keeps the others as siblings; a write without one replaces
 * all. It counts what it applied, can fail the next call, and can hold answers back.
 */
import { SunwiseError } from '../../../src/base/errors.ts'
import { bucketIdOf } from '../../../src/base/ids.ts'
import type {
  BatchOperation,
  BatchResult,
  Bucket,
  BucketAdmin,
  BucketProperties,
  Callback,
  Coordinator,
  ListOptions,
  ListPage,
  ReadAnswer,
  ReadOptions,
  Receipt,
  StoredValue,
  WriteAnswer,
  WriteOptions,
} from '../../../src/replication/requests.ts'
import { bucketOf } from '../../bucket.ts'

type Version = { readonly number: number; readonly stored: StoredValue | undefined }
type Entry = { readonly key: Uint8Array; versions: Version[]; seen: number; answer: ReadAnswer }

const receipt: Receipt = { acks: 1, replicas: 1, sloppy: false, durable: true, epoch: 1 }

function contextOf(number: number): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setFloat64(0, number)
  return bytes
}

const absent: ReadAnswer = { values: [], etag: undefined, context: undefined, receipt }

function answerOf(entry: Entry): ReadAnswer {
  const values = entry.versions.flatMap((version) => (version.stored === undefined ? [] : [version.stored]))
  return { values, etag: entry.seen.toString(16).padStart(16, '0'), context: contextOf(entry.seen), receipt }
}

export class FakeCoordinator implements Coordinator {
  readonly #entries = new Map<string, Entry>()
  #version = 0
  /** Writes applied. */
  writes = 0
  /** Calls of `list`. */
  lists = 0
  /** Of every list. */
  listReceipt: Receipt | undefined
  /** The options of the last call. */
  lastOptions: ReadOptions | WriteOptions | ListOptions | undefined
  /** The next call fails with this error. */
  nextError: SunwiseError | undefined
  /** While true, answers wait in `held`. */
  holding = false
  readonly held: (() => void)[] = []
  nowMs = 1_000_000

  #entryOf(bucket: Bucket, key: Uint8Array): Entry | undefined {
    return this.#entries.get(`${bucket.id}/${Buffer.from(key).toString('latin1')}`)
  }

  /** Keys with a live value, for "nothing changed" checks. */
  get size(): number {
    return this.#entries.size
  }

  #settle<Answer>(done: Callback<Answer>, act: () => Answer): void {
    let error = this.nextError
    this.nextError = undefined
    let answer: Answer | undefined
    try {
      if (error === undefined) answer = act()
    } catch (thrown) {
      if (!(thrown instanceof SunwiseError)) throw thrown
      error = thrown
    }
    const finish = (): void => (error === undefined ? done(undefined, answer) : done(error, undefined))
    if (this.holding) this.held.push(finish)
    else finish()
  }

  #read(entry: Entry | undefined): ReadAnswer {
    return entry === undefined ? absent : entry.answer
  }

  #write(bucket: Bucket, key: Uint8Array, value: Uint8Array | undefined, options: WriteOptions): WriteAnswer {
    const present = this.#entryOf(bucket, key)
    const before = this.#read(present)
    const failed =
      (options.ifNoneMatch === '*' && before.values.length > 0) ||
      (options.ifMatch === '*' && before.values.length === 0) ||
      (Array.isArray(options.ifMatch) && !options.ifMatch.includes(before.etag))
    if (failed) {
      const extra = { etag: before.etag, context: before.context }
      throw new SunwiseError('PRECONDITION_FAILED', 'The key has another version', { extra })
    }
    if (value === undefined && present === undefined) {
      return { etag: undefined, context: undefined, siblings: 0, expiresAtMs: undefined, receipt }
    }
    let seen = Number.POSITIVE_INFINITY
    if (options.context !== undefined) {
      if (options.context.length !== 8) throw new SunwiseError('BAD_CONTEXT', 'The context is unreadable')
      seen = new DataView(options.context.buffer, options.context.byteOffset).getFloat64(0)
    }
    this.writes++
    this.#version++
    const entry = present ?? { key: key.slice(), versions: [], seen: 0, answer: absent }
    const ttlMs = options.ttlMs ?? bucket.ttlMs
    const expiresAtMs = ttlMs === undefined || ttlMs === Number.POSITIVE_INFINITY ? undefined : this.nowMs + ttlMs
    const contentType = options.contentType ?? 'application/octet-stream'
    const stored = value === undefined ? undefined : { value: value.slice(), contentType, expiresAtMs }
    entry.versions = [{ number: this.#version, stored }, ...entry.versions.filter((version) => version.number > seen)]
    entry.seen = this.#version
    entry.answer = answerOf(entry)
    this.#entries.set(`${bucket.id}/${Buffer.from(key).toString('latin1')}`, entry)
    const answer = this.#read(entry)
    return { ...answer, siblings: answer.values.length, expiresAtMs }
  }

  get(bucket: Bucket, key: Uint8Array, options: ReadOptions, done: Callback<ReadAnswer>): void {
    this.lastOptions = options
    this.#settle(done, () => this.#read(this.#entryOf(bucket, key)))
  }

  put(bucket: Bucket, key: Uint8Array, value: Uint8Array, options: WriteOptions, done: Callback<WriteAnswer>): void {
    this.lastOptions = options
    this.#settle(done, () => this.#write(bucket, key, value, options))
  }

  delete(bucket: Bucket, key: Uint8Array, options: WriteOptions, done: Callback<WriteAnswer>): void {
    this.lastOptions = options
    this.#settle(done, () => this.#write(bucket, key, undefined, options))
  }

  batch(
    bucket: Bucket,
    operations: readonly BatchOperation[],
    options: { readonly timeoutMs?: number | undefined },
    done: Callback<readonly BatchResult[]>,
  ): void {
    this.lastOptions = options
    this.#settle(done, () => operations.map((operation) => this.#apply(bucket, operation)))
  }

  #apply(bucket: Bucket, operation: BatchOperation): BatchResult {
    const { op, key } = operation
    try {
      if (op === 'get') return { op, answer: this.#read(this.#entryOf(bucket, key)) }
      const value = op === 'put' ? operation.value : undefined
      return { op, answer: this.#write(bucket, key, value, operation.options ?? {}) }
    } catch (thrown) {
      if (!(thrown instanceof SunwiseError)) throw thrown
      return { op, error: thrown }
    }
  }

  list(bucket: Bucket, options: ListOptions, done: Callback<ListPage>): void {
    this.lists++
    this.lastOptions = options
    this.#settle(done, () => {
      const prefix = Buffer.from(options.prefix ?? new Uint8Array(0))
      const after = options.cursor === undefined ? undefined : Buffer.from(options.cursor)
      const entries = [...this.#entries]
        .filter(([name, entry]) => name.startsWith(`${bucket.id}/`) && this.#read(entry).values.length > 0)
        .map(([, entry]) => entry)
        .filter(({ key }) => prefix.equals(key.subarray(0, prefix.length)))
        .sort((a, b) => Buffer.compare(a.key, b.key))
        .filter(({ key }) => after === undefined || Buffer.compare(key, after) > 0)
      const page = entries.slice(0, options.limit)
      return {
        keys: page.map((entry) => ({ key: entry.key, answer: options.values ? this.#read(entry) : undefined })),
        cursor: page.length < entries.length ? page.at(-1)?.key : undefined,
        receipt: this.listReceipt,
      }
    })
  }
}

export class FakeBuckets implements BucketAdmin {
  readonly #buckets = new Map<string, Bucket>()

  constructor() {
    this.#create('default', {})
  }

  #create(name: string, properties: BucketProperties): Bucket {
    const bucket = bucketOf({ id: bucketIdOf(this.#buckets.size + 1), name, valueBytesMax: 1024 * 1024, ...properties })
    this.#buckets.set(name, bucket)
    return bucket
  }

  find(name: string): Bucket | undefined {
    return this.#buckets.get(name)
  }

  all(): readonly Bucket[] {
    return [...this.#buckets.values()]
  }

  put(name: string, properties: BucketProperties, done: Parameters<BucketAdmin['put']>[2]): void {
    const present = this.#buckets.get(name)
    if (present === undefined) {
      done(undefined, { bucket: this.#create(name, properties), created: true })
      return
    }
    if (properties.n !== undefined && properties.n !== present.n) {
      done(new SunwiseError('CONFLICT', 'n cannot change'), undefined)
      return
    }
    const bucket = { ...present, ...properties }
    this.#buckets.set(name, bucket)
    done(undefined, { bucket, created: false })
  }

  delete(name: string, done: Callback<undefined>): void {
    if (name === 'default') {
      done(new SunwiseError('CONFLICT', 'The bucket default cannot be deleted'), undefined)
      return
    }
    this.#buckets.delete(name)
    done(undefined, undefined)
  }
}
