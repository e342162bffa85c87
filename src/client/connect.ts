/**
 * The client of a cluster, `sunwise/client`, without dependencies:
 *
 * ```ts
 * import { connect } from 'sunwise/client'
 * await using client = connect({ endpoints: ['http://10.0.0.1:7070', 'http://10.0.0.2:7070', 'http://10.0.0.3:7070'] })
 * await client.put('user:42', 'Ada')
 * ```
 *
 * Every promise settles by its deadline. Operations of one turn of the event loop travel in batches; each goes to a server that holds its key;
 * where a server fails, another one is asked as long as that is safe (`http-sender.ts` says when). Failures are SunwiseErrors with the codes
 * of the servers, and their `outcome` is true: what may have been written is never called unwritten.
 *
 * It does not cache, does not merge siblings unless `update` is told how, and knows of no server but its endpoints.
 */
import { type Outcome, SunwiseError } from '../base/errors.ts'
import { type Durability, Limits } from '../config.ts'
import type { QuorumLevel, Receipt } from '../replication/requests.ts'
import type { CallOptions } from './endpoint.ts'
import type { ClientEntry, ClientReceipt, ClientValue } from './http-answer.ts'
import {
  type ClientBatchOperation,
  HttpClient,
  type GetOptions as HttpGetOptions,
  type PutOptions as HttpPutOptions,
  type WriteCallOptions,
} from './http-client.ts'
import { TickBatcher } from './tick-batcher.ts'

export type { CallOptions, ClientValue, Durability, Outcome, QuorumLevel, Receipt }
export { SunwiseError }

/** Operations that wait for their answers; one more fails with `OVERLOADED`. */
const OPERATIONS_MAX = 16_384
/** Connections to each server. */
const CONNECTIONS_MAX = 32
/** Operations of one batch: enough to pay, and few enough that none waits long for the others. */
const BATCH_MAX = 128
/** Attempts of one request: with the pauses between them it is the deadline that ends them. */
const ATTEMPTS_MAX = 16
/** Times that `update` reads and writes. */
const UPDATES_MAX = 16
/** Bounds of the pause before `update` tries again. */
const UPDATE_PAUSE_MS = { first: 2, max: 250 } as const

/** A key: a string stands for its UTF-8 bytes. 1 to 2,048 bytes. */
export type Key = string | Uint8Array
/** A value: a string stands for its UTF-8 bytes. */
export type Value = string | Uint8Array

export type ConnectOptions = {
  /** Origins of servers of one cluster, such as `http://10.0.0.1:7070`; the more of them, the more failures are survived. */
  readonly endpoints: readonly (string | URL)[]
  /** Bucket of all keys; `default` if left out. */
  readonly bucket?: string
  /** Milliseconds until a promise settles at the latest; default 5,000. */
  readonly timeoutMs?: number
  /** Connections to each server; default 32. */
  readonly connectionsMax?: number
  /** Operations that wait at a time; default 16,384. One more fails with `OVERLOADED`, outcome none. */
  readonly operationsMax?: number
  /** Attempts of one request, where the deadline allows so many; default 16. */
  readonly attemptsMax?: number
  /** Operations of one batch; default 128, at most 1,000; 1 for no batches. */
  readonly batchMax?: number
  /** Whether a read that takes longer than most is sent to a second server, too; default true. */
  readonly hedges?: boolean
}

/** What a key holds. */
export type Entry = ClientEntry & {
  /** The value, or of siblings the one that every replica chooses first; undefined where there is none. */
  readonly value: Uint8Array | undefined
}

export type GetOptions = HttpGetOptions
export type DeleteOptions = Omit<WriteCallOptions, 'isRepeatable' | 'ifMatch'> & {
  /** Applies only if the key has this etag, or one of these, or (`*`) any value. */
  readonly ifMatch?: string | readonly string[]
}
export type PutOptions = DeleteOptions & Pick<HttpPutOptions, 'ttlMs' | 'contentType'>
export type UpdateOptions = CallOptions & Pick<PutOptions, 'w' | 'durability' | 'ttlMs' | 'contentType' | 'receipt'>

export type BatchOperation =
  | Exclude<ClientBatchOperation, { op: 'put' }>
  | (Omit<Extract<ClientBatchOperation, { op: 'put' }>, 'value'> & { readonly value: Value })

export type BatchResult =
  | { readonly status: number; readonly entry: Entry; readonly error?: undefined }
  | { readonly status: number; readonly error: SunwiseError; readonly entry?: undefined }

export type ListOptions = CallOptions & {
  readonly prefix?: Key
  /** Values come with the keys. */
  readonly values?: boolean
  /** Most keys to give. */
  readonly limit?: number
  /** Keys of one request. */
  readonly pageLimit?: number
}

/** What becomes of a key: a new value, null for none, undefined for what there is. */
export type Merged = Value | null | undefined

/** A client of the cluster that the endpoints belong to. Give it back with `close()` or `await using`. @throws SunwiseError `BAD_CONFIG` */
export function connect(options: ConnectOptions): Client {
  for (const name of ['connectionsMax', 'operationsMax', 'attemptsMax', 'batchMax'] as const) {
    const value = options[name]
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 1)) {
      throw new SunwiseError('BAD_CONFIG', `${name} is ${value}; expected a whole number from 1`)
    }
  }
  const { timeoutMs = Limits.timeoutMsDefault } = options
  if (!(timeoutMs > 0 && timeoutMs <= Limits.timeoutMsMax)) {
    throw new SunwiseError('BAD_CONFIG', `timeoutMs is ${timeoutMs}; expected up to ${Limits.timeoutMsMax}`)
  }
  const { endpoints, bucket, connectionsMax = CONNECTIONS_MAX, attemptsMax = ATTEMPTS_MAX, hedges = true } = options
  const operationsMax = options.operationsMax ?? OPERATIONS_MAX
  const http = new HttpClient({
    endpoint: endpoints,
    timeoutMs,
    connectionsMax,
    attemptsMax,
    hedges,
    // Operations are counted here; requests are no more.
    pendingMax: operationsMax,
    ...(bucket === undefined ? {} : { bucket }),
  })
  return new Client(http, { timeoutMs, operationsMax, batchMax: options.batchMax ?? BATCH_MAX })
}

type ClientLimits = { readonly timeoutMs: number; readonly operationsMax: number; readonly batchMax: number }

const bytesOfValue = (value: Value): Uint8Array => (typeof value === 'string' ? Buffer.from(value) : value)
const withValue = (entry: ClientEntry): Entry => ({ ...entry, value: entry.values[0]?.value })

/** Whether a call has nothing of its own that a batch could not carry for it. What has a precondition may be repeated, and so goes alone. */
function isPlain(options: object): boolean {
  return Object.entries(options).every(([name, value]) => value === undefined || batched.has(name))
}
const batched: ReadonlySet<string> = new Set(['context', 'ttlMs', 'contentType'])

function withTags<Options extends DeleteOptions>({ ifMatch, ...others }: Options) {
  const tags =
    typeof ifMatch === 'string' && ifMatch !== '*' ? [ifMatch] : (ifMatch as readonly string[] | '*' | undefined)
  return tags === undefined ? others : { ...others, ifMatch: tags }
}

export class Client {
  readonly #http: HttpClient
  readonly #limits: ClientLimits
  readonly #batcher: TickBatcher
  #operations = 0

  /** For `connect`. */
  constructor(http: HttpClient, limits: ClientLimits) {
    this.#http = http
    this.#limits = limits
    this.#batcher = new TickBatcher(http, limits.timeoutMs, limits.batchMax)
  }

  /** Epoch of the ring that keys are sent by; undefined while none is known, or with a single endpoint. */
  get ringEpoch(): number | undefined {
    return this.#http.ringEpoch
  }

  /** What `key` holds; an entry without values where it holds nothing. */
  get(key: Key, options: GetOptions = {}): Promise<Entry> {
    return this.#counted(1, async () => {
      if (isPlain(options)) return withValue(await this.#batcher.add({ op: 'get', key }))
      return withValue(await this.#http.get(key, options))
    })
  }

  /**
   * Writes `value` under `key`; with the `context` of an earlier answer it replaces exactly what that showed. `value` must stay as it is
   * until the promise settles. With `ifMatch` or `ifNoneMatch` it is sent again even where it may have been applied: at worst there are two
   * siblings of the same value then, or a `PRECONDITION_FAILED` of unknown outcome.
   */
  put(key: Key, value: Value, options: PutOptions = {}): Promise<ClientReceipt> {
    return this.#counted(1, async () => {
      const bytes = bytesOfValue(value)
      const { context, ttlMs, contentType } = options
      const operation = { op: 'put', key, value: bytes, context, ttlMs, contentType } as const
      if (isPlain(options)) return receiptOnly(await this.#batcher.add(operation))
      return await this.#http.put(key, bytes, { ...withTags(options), isRepeatable: isRepeatable(options) })
    })
  }

  /** Deletes `key`; no error if there is none. */
  delete(key: Key, options: DeleteOptions = {}): Promise<ClientReceipt> {
    return this.#counted(1, async () => {
      const { context } = options
      if (isPlain(options)) return receiptOnly(await this.#batcher.add({ op: 'delete', key, context }))
      return await this.#http.delete(key, { ...withTags(options), isRepeatable: isRepeatable(options) })
    })
  }

  /** Many operations, up to 1,000, in one request; not atomic. Results stand in their order; rejects only if the request as a whole failed. */
  batch(operations: readonly BatchOperation[], options: CallOptions = {}): Promise<BatchResult[]> {
    return this.#counted(operations.length, async () => {
      const rows = operations.map(
        (operation): ClientBatchOperation =>
          operation.op === 'put' ? { ...operation, value: bytesOfValue(operation.value) } : operation,
      )
      const results = await this.#http.batch(rows, options)
      return results.map(({ status, entry, error }) =>
        entry === undefined ? { status, error } : { status, entry: withValue(entry) },
      )
    })
  }

  /** Keys, page after page, each from a server that can answer; the deadline is for each page. */
  async *list(
    options: ListOptions = {},
  ): AsyncGenerator<{ readonly key: Uint8Array; readonly entry: Entry | undefined }, void, undefined> {
    for await (const { key, entry } of this.#http.list(options)) {
      yield { key, entry: entry === undefined ? undefined : withValue(entry) }
    }
  }

  /**
   * Reads `key`, lets `merge` make one value of what there is (none, one, or siblings), and writes that in its place if nobody has written
   * meanwhile; else all again, up to 16 times. Resolves with what the key holds then.
   *
   * The write itself is sent again only where it surely changed nothing. Two updates at the same time through different servers may both
   * succeed: they leave siblings, which the next update merges. So a merge should give one result in whatever order it meets the values.
   *
   * @throws SunwiseError `PRECONDITION_FAILED` if others were faster each time
   */
  update(
    key: Key,
    merge: (values: readonly ClientValue[]) => Merged | Promise<Merged>,
    options: UpdateOptions = {},
  ): Promise<Entry> {
    return this.#counted(1, async () => {
      const { timeoutMs = this.#limits.timeoutMs, signal, ...write } = options
      const deadline = performance.now() + timeoutMs
      const call = (): CallOptions => {
        const leftMs = Math.max(1, Math.floor(deadline - performance.now()))
        return { timeoutMs: Math.min(timeoutMs, leftMs), ...(signal === undefined ? {} : { signal }) }
      }
      for (let attempt = 1; ; attempt++) {
        const entry = await this.#http.get(key, call())
        const merged = await settledBy(deadline, signal, merge(entry.values))
        if (merged === undefined) return withValue(entry)
        const { context, etag } = entry
        const condition = {
          ...(context === undefined ? {} : { context }),
          ...(etag === undefined ? { ifNoneMatch: '*' as const } : { ifMatch: [etag] }),
        }
        try {
          if (merged === null) {
            const { w, durability, receipt } = write
            if (etag === undefined) return withValue(entry)
            const kept = {
              ...(w === undefined ? {} : { w }),
              ...(durability === undefined ? {} : { durability }),
              receipt: receipt === true,
            }
            return withValue({ ...(await this.#http.delete(key, { ...call(), ...kept, ...condition })), values: [] })
          }
          const value = bytesOfValue(merged)
          const receipt = await this.#http.put(key, value, { ...call(), ...write, ...condition })
          const contentType = write.contentType ?? 'application/octet-stream'
          return withValue({ ...receipt, values: [{ value, contentType, expiresAtMs: undefined }] })
        } catch (error) {
          const isConflict =
            error instanceof SunwiseError && error.code === 'PRECONDITION_FAILED' && error.outcome === 'none'
          const pauseMs = Math.random() * Math.min(UPDATE_PAUSE_MS.max, UPDATE_PAUSE_MS.first * 2 ** attempt)
          if (!isConflict || attempt >= UPDATES_MAX || performance.now() + pauseMs >= deadline) throw error
          await settledBy(deadline, signal, new Promise<void>((resolve) => setTimeout(resolve, pauseMs)))
        }
      }
    })
  }

  /** Closes all connections; what is under way fails with `CLOSED`. */
  close(): void {
    this.#http.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }

  /** Runs `work` as `operations` of those that may wait at a time. */
  async #counted<Result>(operations: number, work: () => Promise<Result>): Promise<Result> {
    if (this.#operations > 0 && this.#operations + operations > this.#limits.operationsMax) {
      throw new SunwiseError(
        'OVERLOADED',
        `${this.#operations} operations of this client wait already; send fewer at a time`,
      )
    }
    this.#operations += operations
    try {
      return await work()
    } finally {
      this.#operations -= operations
    }
  }
}

/** Whether a write replaces nothing if it is applied a second time: it names the digests of what it replaces, or that there is nothing. */
function isRepeatable({ ifMatch, ifNoneMatch }: DeleteOptions): boolean {
  return (ifMatch !== undefined && ifMatch !== '*') || ifNoneMatch !== undefined
}

function receiptOnly({ values: _, ...receipt }: ClientEntry): ClientReceipt {
  return receipt
}

/** What the caller's own work comes to, if it does in time. */
async function settledBy<Result>(
  deadline: number,
  signal: AbortSignal | undefined,
  work: Result | Promise<Result>,
): Promise<Result> {
  if (!(work instanceof Promise)) return work
  const { promise, reject } = Promise.withResolvers<never>()
  const abort = (): void =>
    reject(new SunwiseError('ABORTED', 'The caller aborted the update', { outcome: 'none', cause: signal?.reason }))
  const timer = setTimeout(
    () => reject(new SunwiseError('TIMEOUT', 'The update was not merged by its deadline', { outcome: 'none' })),
    Math.max(0, deadline - performance.now()),
  )
  signal?.addEventListener('abort', abort)
  try {
    if (signal?.aborted) abort()
    return await Promise.race([work, promise])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
}
