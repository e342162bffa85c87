/**
 * What all requests of one HTTP server share: the doors behind it, its limits, and the few numbers that change while it runs
 * (whether it drains, the next request id, the bytes of request bodies it holds).
 */
import { type Config, httpBytesMax, Limits } from '../../config.ts'
import type { Clock } from '../../env.ts'
import type { BucketAdmin, Coordinator } from '../../replication/requests.ts'
import type { ClusterDoor } from '../member-frames.ts'
import type { HttpCounters } from './counters.ts'

/** Where the front end reports what only the operator should see. */
export type HttpLogger = {
  error(message: string, fields: Readonly<Record<string, unknown>>): void
}

/** Why the node is not well; empty lists mean that it is. */
export type HealthSource = {
  /** Reasons why `/healthz` answers 503: the process should be restarted. */
  liveProblems(): readonly string[]
  /** Reasons why `/readyz` answers 503: requests should go elsewhere for now. */
  readyProblems(): readonly string[]
  /** What an operator should know although the node is ready: `/readyz` says it. */
  readonly readyWarnings?: () => readonly string[]
}

/** Limits of one server in bytes and counts. */
export type HttpLimits = {
  /** Largest value; larger is 413 VALUE_TOO_LARGE. A bucket may set a smaller one. */
  readonly valueBytesMax: number
  /** Connections open at once; one more is closed at once. */
  readonly connectionsMax: number
  /** Bytes of request bodies held at once, over all requests; a body that does not fit is 503 OVERLOADED. */
  readonly pendingBodyBytesMax: number
  /**
   * Bytes of answers that wait for their clients to take them, over all connections, small answers apart; a read that does not fit
   * is 503 OVERLOADED. One answer is always let through, whatever its size.
   */
  readonly pendingAnswerBytesMax: number
}

/** The limits of the HTTP server of each shard worker of a node. */
export function httpLimitsOf(config: Pick<Config, 'memoryBytes' | 'shards' | 'valueBytesMax'>): HttpLimits {
  return {
    valueBytesMax: config.valueBytesMax,
    connectionsMax: Limits.connectionsMax,
    pendingBodyBytesMax: httpBytesMax(Limits.requestBodiesShare, config),
    pendingAnswerBytesMax: httpBytesMax(Limits.answersWaitingShare, config),
  }
}

export type FrontOptions = {
  readonly coordinator: Coordinator
  readonly buckets: BucketAdmin
  /** Of a member of a cluster. */
  readonly cluster?: ClusterDoor | undefined
  readonly clock: Clock
  readonly limits: HttpLimits
  readonly counters: HttpCounters
  readonly logger?: HttpLogger | undefined
  /** Start of every request id: short, and different for every thread and start of a node. Visible ASCII. */
  readonly requestIdPrefix: string
}

/** The state that the requests of one server share. */
export class Front {
  readonly coordinator: Coordinator
  readonly buckets: BucketAdmin
  readonly cluster: ClusterDoor | undefined
  readonly clock: Clock
  readonly limits: HttpLimits
  readonly counters: HttpCounters
  readonly logger: HttpLogger | undefined
  /** The server is stopping: every answer closes its connection. */
  draining = false
  readonly #requestIdPrefix: string
  #requests = 0
  #pendingBodyBytes = 0
  #pendingAnswerBytes = 0
  #waitingRequests = 0

  constructor(options: FrontOptions) {
    this.coordinator = options.coordinator
    this.buckets = options.buckets
    this.cluster = options.cluster
    this.clock = options.clock
    this.limits = options.limits
    this.counters = options.counters
    this.logger = options.logger
    this.#requestIdPrefix = options.requestIdPrefix
  }

  /** Decimal, since any other base takes five times as long to write. */
  nextRequestId(): string {
    this.#requests++
    return `${this.#requestIdPrefix}${this.#requests}`
  }

  /** Takes room for body bytes; false where they would exceed the limit: nothing was taken. */
  reserveBody(bytes: number): boolean {
    if (this.#pendingBodyBytes + bytes > this.limits.pendingBodyBytesMax) return false
    this.#pendingBodyBytes += bytes
    return true
  }

  /** Takes room for an answer until its client has taken it; false where there is none: nothing was taken. */
  reserveAnswer(bytes: number): boolean {
    const isFirst = this.#pendingAnswerBytes === 0
    if (!isFirst && this.#pendingAnswerBytes + bytes > this.limits.pendingAnswerBytesMax) return false
    this.#pendingAnswerBytes += bytes
    return true
  }

  /** Gives back what `reserveAnswer` took. */
  releaseAnswer(bytes: number): void {
    this.#pendingAnswerBytes -= bytes
  }

  /** Takes a place for a pipelined request that waits for those before it; false where too many wait already. */
  reserveWaiting(): boolean {
    if (this.#waitingRequests === Limits.pendingRequestsMax) return false
    this.#waitingRequests++
    return true
  }

  releaseWaiting(): void {
    this.#waitingRequests--
  }

  /** Gives back what `reserveBody` took. */
  releaseBody(bytes: number): void {
    this.#pendingBodyBytes -= bytes
  }
}
