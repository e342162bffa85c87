/**
 * Sends requests to whoever of several servers can answer them.
 *
 * Invariants:
 * - Every promise settles by its deadline, which covers all attempts together, or when its signal aborts.
 * - A request is sent again only if it surely changed nothing (the server said `outcome: none` and retryable, or no connection came about),
 *   if it only reads, or if its precondition keeps it from being applied twice.
 * - What waits is bounded: requests and the bytes of their bodies; beyond it they fail with `OVERLOADED`, outcome none.
 *
 * Which server: one that holds the key, as far as the ring is known, then the others in turn; servers whose circuit is open come last. A
 * request goes on to the next at once where its server does not serve, and after a pause drawn at random where it refused. A read that takes
 * longer than nineteen of twenty of its kind at that server is sent to a second one, too, and the first answer counts (Dean and Barroso, "The
 * tail at scale", 2013); of all reads, only one in ten may be.
 */
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import { type Call, type CallOptions, Endpoint, type LatencyClass, RESPONSE_BYTES_MAX } from './endpoint.ts'
import { errorOfReply, headerOf, numberIn, parseJson, type Reply } from './http-answer.ts'
import { identityIn, type Ring, replicasOf, ringIn } from './ring-routes.ts'

export { type Call, type CallOptions, RESPONSE_BYTES_MAX }

/** Bounds of the pause before another attempt, which is drawn at random and doubles each time. */
const RETRY_PAUSE_MS = { first: 50, max: 2_000 } as const
/** Longest wait for a connection where another server could do. */
const CONNECT_MS_MAX = 1_000
/** Reads that may be hedged per read, and how many may be saved up. */
const HEDGES = { perRead: 0.1, max: 10 } as const
/** What is asked about the cluster, or to probe a server, takes no longer. */
const ASIDE_MS = 2_000
/** How often the ring is looked at while there are requests: if all is well, and at the most. */
const RING_AGE_MS = { usual: 10_000, least: 250 } as const
/** Bytes of bodies that may wait. */
const PENDING_BYTES_MAX = 256 * 1024 * 1024

/** The servers and the limits of a sender. */
export type SenderOptions = {
  readonly endpoints: readonly (string | URL)[]
  readonly timeoutMs: number
  /** Connections to each server. */
  readonly connectionsMax: number
  readonly attemptsMax: number
  /** Requests that may wait. */
  readonly pendingMax: number
  /** Reads that take long are sent to a second server. */
  readonly hedges: boolean
}

/** What a request came to at a server. */
type Result = { readonly endpoint: Endpoint } & (
  | { readonly reply: Reply; readonly error?: undefined }
  | { readonly error: SunwiseError; readonly reply?: undefined }
)

/** The server will serve again later, or not; others may now. */
const isAway = (error: SunwiseError): boolean =>
  error.code === 'NOT_READY' || error.code === 'SHARD_UNAVAILABLE' || error.code === 'TIMEOUT'

/** All connections of a client to its servers. */
export class HttpSender {
  readonly #endpoints: readonly Endpoint[]
  readonly #options: SenderOptions
  readonly #pauses = new Set<() => void>()
  #pending = 0
  #pendingBytes = 0
  #turn = 0
  #hedgesLeft: number = HEDGES.max
  #ring: Ring | undefined
  #ringDueAtMs = 0
  #isAskingRing = false
  #isClosed = false

  /** @throws SunwiseError `BAD_CONFIG` if an endpoint is not an http or https URL, or there is none */
  constructor(options: SenderOptions) {
    if (options.endpoints.length === 0) throw new SunwiseError('BAD_CONFIG', 'There is no endpoint')
    this.#options = options
    this.#endpoints = options.endpoints.map((address) => new Endpoint(address, options.connectionsMax))
    // Clients that start together do not all start with the first.
    this.#turn = Math.floor(Math.random() * this.#endpoints.length)
  }

  /** Epoch of the ring that requests are sent by; undefined while none is known. */
  get ringEpoch(): number | undefined {
    return this.#ring?.epoch
  }

  /** Number of the endpoint that a request for `key` goes to first; equal keys of a tick go to equal ones. */
  indexOf(key: Uint8Array): number {
    return this.#endpoints.indexOf(this.#inOrder(key)[0]!)
  }

  /** An answer was made under `epoch`: the ring is looked at if it is another one. */
  noteEpoch(epoch: number): void {
    if (this.#ring !== undefined && this.#ring.epoch !== epoch) this.#hastenRing()
  }

  /** Sends `call`, again where that is safe. @throws SunwiseError, always by the deadline */
  async call(call: Call): Promise<Reply> {
    const timeoutMs = call.options.timeoutMs ?? this.#options.timeoutMs
    if (!(timeoutMs > 0 && timeoutMs <= Limits.timeoutMsMax)) {
      throw new SunwiseError('BAD_TIMEOUT', `The timeout is ${timeoutMs} ms; expected up to ${Limits.timeoutMsMax}`)
    }
    const bytes = call.body?.length ?? 0
    if (
      this.#pending >= this.#options.pendingMax ||
      (this.#pending > 0 && this.#pendingBytes + bytes > PENDING_BYTES_MAX)
    ) {
      throw new SunwiseError(
        'OVERLOADED',
        `${this.#pending} requests of this client wait already; send fewer at a time`,
      )
    }
    this.#pending++
    this.#pendingBytes += bytes
    try {
      return await this.#callUntil(call, performance.now() + timeoutMs)
    } finally {
      this.#pending--
      this.#pendingBytes -= bytes
    }
  }

  async #callUntil(call: Call, deadline: number): Promise<Reply> {
    const tried = new Set<Endpoint>()
    /** An attempt before this one may have been applied. */
    let isUnsure = false
    for (let attempt = 1; ; attempt++) {
      const startedAt = performance.now()
      this.#lookAside(startedAt)
      const order = this.#inOrder(call.key)
      this.#turn++
      const untried = order.filter((endpoint) => !tried.has(endpoint))
      if (untried.length === 0) tried.clear()
      const [endpoint = order[0]!] = untried.length === 0 ? order : untried
      tried.add(endpoint)
      const result = await this.#race(call, endpoint, order, deadline - startedAt)
      tried.add(result.endpoint)
      if (result.reply !== undefined && call.accepted.includes(result.reply.status)) return result.reply
      const error = result.error ?? errorOfReply(result.reply, call.isRead)
      if (error.code === 'WRONG_EPOCH') this.#hastenRing()
      const mayRepeat = call.isRead || call.isRepeatable === true || error.outcome === 'none'
      const isOver = !mayRepeat || !error.retryable || error.code === 'ABORTED' || error.code === 'RESPONSE_LIMIT'
      const isElsewhere = order.some((other) => !tried.has(other) && !other.circuit.isOpen)
      const now = performance.now()
      let pauseMs = Math.random() * Math.min(RETRY_PAUSE_MS.max, RETRY_PAUSE_MS.first * 2 ** attempt)
      if (isElsewhere && isAway(error)) pauseMs = 0
      // Asked to wait, we wait at least so long, unless others are there to ask; jitter keeps clients apart.
      else if (!isElsewhere && result.reply !== undefined) {
        pauseMs += 1000 * Math.max(0, numberIn(headerOf(result.reply, 'retry-after')) ?? 0)
      }
      // An attempt that has no time to end would only turn a known failure into a timeout of unknown outcome.
      const leastMs = isElsewhere && call.isRead ? 0 : 2 * (now - startedAt)
      if (isOver || attempt >= this.#options.attemptsMax || now + pauseMs + leastMs >= deadline) {
        throw isUnsure && error.outcome === 'none' ? unsure(error) : error
      }
      isUnsure ||= error.outcome !== 'none' && !call.isRead
      if (pauseMs > 0) await this.#pause(pauseMs, call.options.signal)
    }
  }

  /** One attempt at `endpoint`, and for a read that takes long one more at another: the first good answer, else the last failure. */
  #race(call: Call, endpoint: Endpoint, order: readonly Endpoint[], remainingMs: number): Promise<Result> {
    const { latencyClass } = call
    const second = order.find((other) => other !== endpoint && !other.circuit.isOpen)
    const hasOthers = order.length > 1
    // A server that keeps silent must leave time to ask another.
    const answerMs = hasOthers && call.isRead ? remainingMs / 2 : remainingMs
    const connectMs = hasOthers ? Math.min(CONNECT_MS_MAX, remainingMs / 2) : undefined
    if (call.isRead) this.#hedgesLeft = Math.min(HEDGES.max, this.#hedgesLeft + HEDGES.perRead)
    return new Promise((resolve) => {
      const underWay = new Set<() => void>()
      let isSettled = false
      let timer: NodeJS.Timeout | undefined
      const settle = (result: Result): void => {
        isSettled = true
        clearTimeout(timer)
        for (const cancel of underWay) cancel()
        resolve(result)
      }
      const send = (to: Endpoint): void => {
        const startedAt = performance.now()
        const attempt = to.attempt(call, { answerMs, connectMs })
        underWay.add(attempt.cancel)
        const done = (result: Result): void => {
          underWay.delete(attempt.cancel)
          if (isSettled) return
          this.#learn(to, result, latencyClass, performance.now() - startedAt)
          const isGood = result.reply !== undefined && result.reply.status < 500
          if (isGood || underWay.size === 0) settle(result)
        }
        attempt.reply.then(
          (reply) => done({ endpoint: to, reply }),
          (error: SunwiseError) => done({ endpoint: to, error }),
        )
      }
      send(endpoint)
      if (!this.#options.hedges || !call.isRead || latencyClass === undefined || second === undefined) return
      timer = setTimeout(() => {
        if (isSettled || this.#hedgesLeft < 1 || this.#isClosed) return
        this.#hedgesLeft--
        send(second)
      }, endpoint.latency[latencyClass].hedgeMs)
    })
  }

  #learn(
    endpoint: Endpoint,
    { reply, error }: Result,
    latencyClass: LatencyClass | undefined,
    durationMs: number,
  ): void {
    const code = error?.code ?? (reply!.status === 503 ? errorOfReply(reply!, true).code : undefined)
    const isWell = error === undefined && code !== 'NOT_READY'
    if (isWell) endpoint.circuit.succeeded()
    if (reply !== undefined && reply.status < 500 && latencyClass !== undefined)
      endpoint.latency[latencyClass].record(durationMs)
    if (code !== 'NOT_READY' && code !== 'TIMEOUT' && code !== 'INTERNAL') return
    endpoint.circuit.failed(performance.now())
    if (endpoint.circuit.isOpen) this.#hastenRing()
  }

  /** All endpoints: replicas of the key first, then the others in turn; those with an open circuit last. */
  #inOrder(key: Uint8Array | undefined): readonly Endpoint[] {
    const all = this.#endpoints
    if (all.length === 1) return all
    const from = this.#turn % all.length
    const turned = [...all.slice(from), ...all.slice(0, from)]
    const replicas = key === undefined || this.#ring === undefined ? [] : replicasOf(this.#ring, key)
    const rank = ({ circuit, nodeId }: Endpoint): number => {
      const place = nodeId === undefined ? -1 : replicas.indexOf(nodeId)
      return (place < 0 ? replicas.length : place) + (circuit.isOpen ? Limits.clusterMembersMax : 0)
    }
    return turned.sort((one, other) => rank(one) - rank(other))
  }

  #hastenRing(): void {
    this.#ringDueAtMs = Math.min(this.#ringDueAtMs, performance.now() + RING_AGE_MS.least)
  }

  /** What goes on beside the requests, started by them and never waited for: probes of servers that failed, and the ring. */
  #lookAside(nowMs: number): void {
    if (this.#endpoints.length === 1) return
    for (const endpoint of this.#endpoints) if (endpoint.circuit.claimProbe(nowMs)) void this.#probe(endpoint)
    if (this.#isAskingRing || nowMs < this.#ringDueAtMs) return
    this.#isAskingRing = true
    this.#ringDueAtMs = nowMs + RING_AGE_MS.usual
    void this.#askRing().finally(() => {
      this.#isAskingRing = false
    })
  }

  async #probe(endpoint: Endpoint): Promise<void> {
    const reply = await this.#ask(endpoint, '/readyz')
    // A proxy may not have the route; what answers at all is as well as can be known.
    if (reply !== undefined && reply.status < 500) endpoint.circuit.succeeded()
    else endpoint.circuit.probeFailed(performance.now())
  }

  async #askRing(): Promise<void> {
    const asked = this.#endpoints.filter(({ circuit }) => !circuit.isOpen)
    const epochs = await Promise.all(
      asked.map(async (endpoint) => {
        const reply = await this.#ask(endpoint, '/v1/cluster')
        const identity = reply?.status === 200 ? identityIn(jsonOf(reply)) : undefined
        if (identity !== undefined) endpoint.nodeId = identity.nodeId
        return identity?.epoch ?? -1
      }),
    )
    const newest = Math.max(-1, ...epochs)
    if (newest < 0 || newest === this.#ring?.epoch) return
    const reply = await this.#ask(asked[epochs.indexOf(newest)]!, '/v1/ring')
    const ring = reply?.status === 200 ? ringIn(jsonOf(reply)) : undefined
    if (ring !== undefined) this.#ring = ring
  }

  /** Asks once, and gives nothing where that fails. */
  async #ask(endpoint: Endpoint, path: string): Promise<Reply | undefined> {
    const call: Call = { method: 'GET', path, isRead: true, accepted: [], options: {} }
    try {
      return await endpoint.attempt(call, { answerMs: ASIDE_MS, connectMs: CONNECT_MS_MAX }).reply
    } catch {
      return undefined
    }
  }

  #pause(pauseMs: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const finish = (): void => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', finish)
        this.#pauses.delete(finish)
        resolve()
      }
      const timer = setTimeout(finish, pauseMs)
      this.#pauses.add(finish)
      signal?.addEventListener('abort', finish)
    })
  }

  /** Closes all connections; requests under way fail with `CLOSED`. */
  close(): void {
    this.#isClosed = true
    for (const endpoint of this.#endpoints) endpoint.close()
    for (const finish of [...this.#pauses]) finish()
  }
}

function jsonOf(reply: Reply): unknown {
  try {
    return parseJson(reply.body)
  } catch {
    return undefined
  }
}

/** A failure that surely changed nothing itself, after an attempt of which that is not sure. */
function unsure({ code, message, extra, cause }: SunwiseError): SunwiseError {
  const text = `${message} (an earlier attempt of this request may have been applied)`
  return new SunwiseError(code, text, { outcome: 'unknown', cause, ...(extra === undefined ? {} : { extra }) })
}
