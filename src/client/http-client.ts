/**
 * What the HTTP interface offers, as calls: one request each, without dependencies, to one server or whoever of several can answer (see
 * `http-sender.ts`).
 *
 * Invariants:
 * - Every promise settles by its deadline, which covers all attempts together, or when its signal aborts.
 * - A request is sent again only if it surely changed nothing: the server said `outcome: none` and retryable, or no
 *   connection came about, or it only reads. A write whose answer was lost is `unknown` and is the caller's to judge, unless the caller says
 *   that its precondition makes it repeatable.
 * - Failures are SunwiseErrors, with the code and outcome of the server's problem document where there is one.
 *
 * It does not merge siblings, cache, batch behind the caller's back, or follow redirects.
 */
import type { OutgoingHttpHeaders } from 'node:http'
import { SunwiseError } from '../base/errors.ts'
import { type Durability, Limits } from '../config.ts'
import type { QuorumLevel } from '../replication/requests.ts'
import {
  bytesIn,
  type ClientEntry,
  type ClientReceipt,
  entryIn,
  errorOfProblem,
  errorOfReply,
  errorOfStatus,
  headerOf,
  isObject,
  type Json,
  numberIn,
  parseJson,
  type Reply,
  receiptOf,
  stringIn,
  valuesIn,
} from './http-answer.ts'
import { type CallOptions, HttpSender, RESPONSE_BYTES_MAX } from './http-sender.ts'
import { bytesOfKey, percentEncode, textOfBytes, textOrBase64 } from './key-bytes.ts'

/** Sockets per client. */
const CONNECTIONS_MAX = 64
/** Attempts of one request, where the deadline allows so many. */
const ATTEMPTS_MAX = 5
/** Requests that wait for their answers. */
const PENDING_MAX = 16_384

export type HttpClientOptions = {
  /** Origin of the server, such as `http://127.0.0.1:7070`, or of several of one cluster. */
  readonly endpoint: string | URL | readonly (string | URL)[]
  /** Bucket of all keys; `default` if left out. */
  readonly bucket?: string
  /** Deadline of a request that names none. */
  readonly timeoutMs?: number
  /** Requests sent at a time; more wait for a free connection, and their deadline runs on. */
  readonly connectionsMax?: number
  /** Attempts of one request; the deadline may allow fewer. */
  readonly attemptsMax?: number
  /** Requests that may wait; one more fails with `OVERLOADED`. */
  readonly pendingMax?: number
  /** Reads that take longer than most are sent to a second server, too; true unless said otherwise. */
  readonly hedges?: boolean
}

export type GetOptions = CallOptions & {
  readonly r?: QuorumLevel
  /** Fetches one value only, chosen as every replica chooses; left out, all siblings come. */
  readonly siblings?: 'winner'
  /** The answer's `receipt` says who answered. */
  readonly receipt?: boolean
}

export type WriteCallOptions = CallOptions & {
  readonly w?: QuorumLevel
  readonly durability?: Durability
  /** Opaque text from an earlier answer. */
  readonly context?: string | undefined
  /** Digests, without quotes, or `*`. */
  readonly ifMatch?: readonly string[] | '*'
  readonly ifNoneMatch?: '*'
  /** False: nothing is written while too few replicas of the key themselves can be reached. */
  readonly sloppy?: boolean
  /** The answer's `receipt` says who answered. */
  readonly receipt?: boolean
  /** Sent again also where it may have been applied: its precondition keeps a second one from replacing anything. */
  readonly isRepeatable?: boolean
}

export type PutOptions = WriteCallOptions & {
  /** Milliseconds; Infinity: none even where the bucket has one. */
  readonly ttlMs?: number
  readonly contentType?: string
}

type BatchCondition = {
  readonly context?: string | undefined
  readonly ifMatch?: readonly string[] | '*' | undefined
  readonly ifNoneMatch?: '*' | undefined
}

export type ClientBatchOperation =
  | { readonly op: 'get'; readonly key: string | Uint8Array }
  | ({
      readonly op: 'put'
      readonly key: string | Uint8Array
      readonly value: Uint8Array
      readonly ttlMs?: number | undefined
      readonly contentType?: string | undefined
    } & BatchCondition)
  | ({ readonly op: 'delete'; readonly key: string | Uint8Array } & BatchCondition)

/** The result of one operation: an entry (without values for writes), or why it failed. */
export type ClientBatchResult =
  | { readonly status: number; readonly entry: ClientEntry; readonly error?: undefined }
  | { readonly status: number; readonly error: SunwiseError; readonly entry?: undefined }

export type ListCallOptions = CallOptions & {
  readonly prefix?: string | Uint8Array
  readonly values?: boolean
  /** Most keys to give; undefined: all. */
  readonly limit?: number
  /** Keys per request. */
  readonly pageLimit?: number
}

export type ListedEntry = {
  readonly key: Uint8Array
  /** Undefined unless values were asked for. */
  readonly entry: ClientEntry | undefined
}

export type ClientPage = { readonly keys: readonly ListedEntry[]; readonly cursor: string | undefined }

function writeHeaders(options: WriteCallOptions): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {}
  if (options.context !== undefined) headers['sunwise-context'] = options.context
  if (options.ifNoneMatch !== undefined) headers['if-none-match'] = '*'
  if (options.ifMatch !== undefined) {
    headers['if-match'] = options.ifMatch === '*' ? '*' : options.ifMatch.map((etag) => `"${etag}"`).join(', ')
  }
  return headers
}

const flagOf = (isSet: boolean | undefined): 1 | undefined => (isSet === true ? 1 : undefined)
const isList = (value: unknown): value is readonly (string | URL)[] => Array.isArray(value)
/** A time to live as the interface writes it: `none` for one that never ends. */
const ttlOf = (ttlMs: number | undefined) => (ttlMs === Number.POSITIVE_INFINITY ? 'none' : ttlMs)
const choiceOf = (choice: boolean | undefined): 0 | 1 | undefined => (choice === undefined ? undefined : choice ? 1 : 0)

function queryOf(parameters: Readonly<Record<string, string | number | undefined>>): string {
  const parts = Object.entries(parameters)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`)
  return parts.length === 0 ? '' : `?${parts.join('&')}`
}

/** One server, or several of one cluster, as a client sees them. Give it back with `close()` or `await using`. */
export class HttpClient {
  readonly #bucket: string
  readonly #timeoutMs: number
  readonly #sender: HttpSender

  /** @throws SunwiseError `BAD_CONFIG` if an endpoint is not an http or https URL */
  constructor(options: HttpClientOptions) {
    this.#bucket = encodeURIComponent(options.bucket ?? 'default')
    this.#timeoutMs = options.timeoutMs ?? Limits.timeoutMsDefault
    this.#sender = new HttpSender({
      endpoints: isList(options.endpoint) ? options.endpoint : [options.endpoint],
      timeoutMs: this.#timeoutMs,
      connectionsMax: options.connectionsMax ?? CONNECTIONS_MAX,
      attemptsMax: options.attemptsMax ?? ATTEMPTS_MAX,
      pendingMax: options.pendingMax ?? PENDING_MAX,
      hedges: options.hedges ?? true,
    })
  }

  /** What `key` holds; an entry without values where it holds nothing. */
  async get(key: string | Uint8Array, options: GetOptions = {}): Promise<ClientEntry> {
    const timeout = options.timeoutMs ?? this.#timeoutMs
    const reply = await this.#sender.call({
      method: 'GET',
      path:
        this.#keyPath(key) +
        queryOf({ siblings: options.siblings, r: options.r, timeout, receipt: flagOf(options.receipt) }),
      isRead: true,
      key: bytesOfKey(key),
      latencyClass: 'get',
      accepted: [200, 300, 404],
      options,
    })
    if (reply.status === 404) {
      const error = errorOfReply(reply, true)
      if (error.code !== 'NOT_FOUND') throw error
      return { ...this.#receiptOf(reply, 0), siblings: 0, values: [] }
    }
    const receipt = this.#receiptOf(reply, 1)
    if (reply.status === 200) {
      const contentType = headerOf(reply, 'content-type') ?? 'application/octet-stream'
      const expiresAtMs = numberIn(headerOf(reply, 'sunwise-expires'))
      return { ...receipt, values: [{ value: reply.body, contentType, expiresAtMs }] }
    }
    const content = parseJson(reply.body)
    const values = valuesIn(isObject(content) ? (content['values'] ?? content['siblings']) : content)
    if (values === undefined) throw new SunwiseError('INTERNAL', 'The server answered an unreadable list of siblings')
    return { ...receipt, siblings: values.length, values }
  }

  /** Writes `value` under `key`. */
  async put(key: string | Uint8Array, value: Uint8Array, options: PutOptions = {}): Promise<ClientReceipt> {
    const { w, durability, ttlMs: ttl, timeoutMs: timeout = this.#timeoutMs } = options
    const reply = await this.#sender.call({
      method: 'PUT',
      path:
        this.#keyPath(key) +
        queryOf({
          w,
          durability,
          ttl: ttlOf(ttl),
          timeout,
          sloppy: choiceOf(options.sloppy),
          receipt: flagOf(options.receipt),
        }),
      headers: { ...writeHeaders(options), 'content-type': options.contentType ?? 'application/octet-stream' },
      body: value,
      isRead: false,
      isRepeatable: options.isRepeatable,
      key: bytesOfKey(key),
      accepted: [200, 201, 204],
      options,
    })
    return this.#receiptOf(reply, 1)
  }

  /** Deletes `key`; no error if there is none. */
  async delete(key: string | Uint8Array, options: WriteCallOptions = {}): Promise<ClientReceipt> {
    const { w, durability, timeoutMs: timeout = this.#timeoutMs } = options
    const reply = await this.#sender.call({
      method: 'DELETE',
      path:
        this.#keyPath(key) +
        queryOf({ w, durability, timeout, sloppy: choiceOf(options.sloppy), receipt: flagOf(options.receipt) }),
      headers: writeHeaders(options),
      isRead: false,
      isRepeatable: options.isRepeatable,
      key: bytesOfKey(key),
      accepted: [200, 204],
      options,
    })
    return this.#receiptOf(reply, 0)
  }

  /**
   * Many operations in one request; not atomic. Results stand in request order. Rejects only if the request as a whole
   * failed. It is read-only, and so repeatable, if all operations are. It goes to a server that holds the first key.
   */
  async batch(operations: readonly ClientBatchOperation[], options: CallOptions = {}): Promise<ClientBatchResult[]> {
    const isRead = operations.every((operation) => operation.op === 'get')
    const rows = operations.map((operation) => ({
      op: operation.op,
      ...textOrBase64('key', bytesOfKey(operation.key), 'base64url'),
      ...(operation.op === 'put' ? textOrBase64('value', operation.value, 'base64') : {}),
      ...(operation.op === 'put' ? { ttl: ttlOf(operation.ttlMs), contentType: operation.contentType } : {}),
      ...(operation.op === 'get'
        ? {}
        : { context: operation.context, ifMatch: operation.ifMatch, ifNoneMatch: operation.ifNoneMatch }),
    }))
    const [first] = operations
    const reply = await this.#sender.call({
      method: 'POST',
      path: `/v1/batch/${this.#bucket}${queryOf({ timeout: options.timeoutMs ?? this.#timeoutMs })}`,
      headers: { 'content-type': 'application/json', accept: 'application/json' },
      body: Buffer.from(JSON.stringify(rows)),
      isRead,
      ...(first === undefined ? {} : { key: bytesOfKey(first.key) }),
      latencyClass: 'batch',
      accepted: [200],
      options,
    })
    const content = parseJson(reply.body)
    const results = isObject(content) ? content['results'] : content
    if (!Array.isArray(results) || results.length !== operations.length) {
      throw new SunwiseError('INTERNAL', 'The server answered an unreadable batch', {
        outcome: isRead ? 'none' : 'unknown',
      })
    }
    return results.map((row: unknown, index): ClientBatchResult => {
      const result = isObject(row) ? row : {}
      const status = typeof result['status'] === 'number' ? result['status'] : 500
      const problem = result['problem']
      if (isObject(problem) && problem['code'] !== 'NOT_FOUND') {
        return { status, error: errorOfProblem(problem, status, operations[index]!.op === 'get') }
      }
      if (status >= 400 && status !== 404) {
        return { status, error: errorOfStatus(status, `HTTP status ${status}`, operations[index]!.op === 'get') }
      }
      return { status, entry: entryIn(result) }
    })
  }

  /** One page of keys, in the server's order. */
  async listPage(options: ListCallOptions & { readonly cursor?: string | undefined } = {}): Promise<ClientPage> {
    const prefix = options.prefix === undefined ? undefined : Buffer.from(options.prefix)
    const text = prefix === undefined ? undefined : textOfBytes(prefix)
    const query = queryOf({
      prefix: prefix?.length === 0 ? undefined : text,
      prefix64: prefix === undefined || text !== undefined ? undefined : prefix.toString('base64url'),
      limit: options.limit,
      values: options.values === true ? 1 : undefined,
      cursor: options.cursor,
    })
    const path = `/v1/kv/${this.#bucket}${query}`
    const headers = { accept: 'application/json' }
    const reply = await this.#sender.call({ method: 'GET', path, headers, isRead: true, accepted: [200], options })
    const content = parseJson(reply.body)
    const rows = isObject(content) ? content['keys'] : undefined
    if (!isObject(content) || !Array.isArray(rows)) {
      throw new SunwiseError('INTERNAL', 'The server answered an unreadable list', { outcome: 'none' })
    }
    const keys = rows.map((row: unknown): ListedEntry => {
      const key = typeof row === 'string' ? Buffer.from(row) : isObject(row) ? bytesIn(row, 'key') : undefined
      if (key === undefined) throw new SunwiseError('INTERNAL', 'The server listed an unreadable key')
      return { key, entry: options.values === true && isObject(row) ? entryIn(row) : undefined }
    })
    return { keys, cursor: stringIn(content, 'cursor') }
  }

  /**
   * Keys, page after page; the deadline is for each page. With values, pages are kept small enough for memory: their
   * number of keys adapts to the size of what comes.
   */
  async *list(options: ListCallOptions = {}): AsyncGenerator<ListedEntry, void, undefined> {
    let remaining = options.limit ?? Number.POSITIVE_INFINITY
    const pageLimitMax = options.pageLimit ?? Limits.listLimitDefault
    let pageLimit = options.values === true ? Math.min(16, pageLimitMax) : pageLimitMax
    let cursor: string | undefined
    while (remaining > 0) {
      let page: ClientPage
      try {
        page = await this.listPage({ ...options, limit: Math.min(pageLimit, remaining), cursor })
      } catch (error) {
        if (!(error instanceof SunwiseError) || error.code !== 'RESPONSE_LIMIT' || pageLimit === 1) throw error
        pageLimit = Math.max(1, pageLimit >> 2)
        continue
      }
      let bytes = 0
      for (const listed of page.keys) {
        for (const { value } of listed.entry?.values ?? []) bytes += value.length
        yield listed
      }
      remaining -= page.keys.length
      cursor = page.cursor
      if (cursor === undefined) return
      if (bytes < RESPONSE_BYTES_MAX / 32) pageLimit = Math.min(pageLimitMax, pageLimit * 2)
      else if (bytes > RESPONSE_BYTES_MAX / 4) pageLimit = Math.max(1, pageLimit >> 1)
    }
  }

  /** All buckets, or the one called `name`, as the server describes them. */
  async buckets(name?: string, options: CallOptions = {}): Promise<unknown> {
    const path = name === undefined ? '/v1/buckets' : `/v1/buckets/${encodeURIComponent(name)}`
    return parseJson((await this.#sender.call({ method: 'GET', path, isRead: true, accepted: [200], options })).body)
  }

  /** Makes the bucket `name` or changes its properties. Returns whether it is new. */
  async putBucket(name: string, properties: Json, options: CallOptions = {}): Promise<boolean> {
    const reply = await this.#sender.call({
      method: 'PUT',
      path: `/v1/buckets/${encodeURIComponent(name)}`,
      headers: { 'content-type': 'application/json' },
      body: Buffer.from(JSON.stringify(properties)),
      isRead: false,
      accepted: [200, 201, 204],
      options,
    })
    return reply.status === 201
  }

  /** Deletes the bucket `name` and all that is in it. */
  async deleteBucket(name: string, options: CallOptions = {}): Promise<void> {
    const path = `/v1/buckets/${encodeURIComponent(name)}`
    await this.#sender.call({ method: 'DELETE', path, isRead: false, accepted: [200, 204], options })
  }

  /** A document about the cluster: `cluster`, `nodes` or `ring`, as the server gives it. */
  async cluster(about: 'cluster' | 'nodes' | 'ring', options: CallOptions = {}): Promise<unknown> {
    const path = `/v1/${about}`
    return parseJson((await this.#sender.call({ method: 'GET', path, isRead: true, accepted: [200], options })).body)
  }

  /** Where a key lies, and whom requests for it need. */
  async explain(key: string | Uint8Array, options: CallOptions = {}): Promise<unknown> {
    const path = this.#keyPath(key).replace('/v1/kv/', '/v1/explain/')
    return parseJson((await this.#sender.call({ method: 'GET', path, isRead: true, accepted: [200], options })).body)
  }

  /** Lets a node leave its cluster, or takes out one that is down. Resolves when that is agreed on; data moves afterwards. */
  async changeCluster(
    change: 'leave' | 'remove',
    body: { readonly nodeId: string; readonly force?: boolean },
    options: CallOptions = {},
  ): Promise<unknown> {
    const reply = await this.#sender.call({
      method: 'POST',
      path: `/v1/cluster/${change}`,
      headers: { 'content-type': 'application/json' },
      body: Buffer.from(JSON.stringify(body)),
      isRead: false,
      accepted: [200],
      options,
    })
    return parseJson(reply.body)
  }

  /** What the server says of itself. */
  async version(options: CallOptions = {}): Promise<unknown> {
    return parseJson(
      (await this.#sender.call({ method: 'GET', path: '/version', isRead: true, accepted: [200], options })).body,
    )
  }

  /** Number of the endpoint that a request for `key` goes to first, as things stand. */
  endpointOf(key: Uint8Array): number {
    return this.#sender.indexOf(key)
  }

  /** Epoch of the ring that requests are sent by; undefined while none is known. */
  get ringEpoch(): number | undefined {
    return this.#sender.ringEpoch
  }

  /** Closes all connections; requests under way fail with `CLOSED`. */
  close(): void {
    this.#sender.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }

  #receiptOf(reply: Reply, siblingsDefault: number): ClientReceipt {
    const told = receiptOf(reply, siblingsDefault)
    if (told.receipt !== undefined) this.#sender.noteEpoch(told.receipt.epoch)
    return told
  }

  #keyPath(key: string | Uint8Array): string {
    return `/v1/kv/${this.#bucket}/${percentEncode(bytesOfKey(key))}`
  }
}
