/**
 * One server and the keep-alive connections to it: sends a request once, and remembers how the server has been doing. A request settles by
 * its time, when its signal aborts, when it is cancelled, or when the endpoint is closed, whichever comes first.
 */
import type { ClientRequest, IncomingMessage, OutgoingHttpHeaders } from 'node:http'
import { Agent as HttpAgent, request as httpRequest } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { type ErrorCode, type Outcome, SunwiseError } from '../base/errors.ts'
import { LatencyEstimate } from '../replication/latency-estimate.ts'
import { Circuit } from './circuit.ts'
import type { Reply } from './http-answer.ts'

/** Longest answer that is read into memory; a longer one is RESPONSE_LIMIT. */
export const RESPONSE_BYTES_MAX = 64 * 1024 * 1024

/** How long one request may take. */
export type CallOptions = {
  /** Milliseconds for all attempts together. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

/** One request, whatever it is about. */
export type Call = {
  readonly method: 'GET' | 'PUT' | 'DELETE' | 'POST'
  readonly path: string
  readonly headers?: OutgoingHttpHeaders
  readonly body?: Uint8Array
  /** A read may be sent again whatever happened to it. */
  readonly isRead: boolean
  /** So may a write whose precondition makes a second application fail; that failure is then of unknown outcome. */
  readonly isRepeatable?: boolean | undefined
  /** The key that it is about, to send it to whoever holds that. */
  readonly key?: Uint8Array
  /** Requests that take about as long; a read of a class is hedged when it takes longer than most. */
  readonly latencyClass?: LatencyClass
  /** Statuses that are answers and not errors. */
  readonly accepted: readonly number[]
  readonly options: CallOptions
}

export type LatencyClass = 'get' | 'batch'

/** Milliseconds of one attempt: until its answer, and, where another server could do it, until the connection stands. */
export type AttemptLimits = { readonly answerMs: number; readonly connectMs: number | undefined }

/** A request under way. */
export type Attempt = {
  /** @throws SunwiseError */
  readonly reply: Promise<Reply>
  /** Ends it: nobody waits for its answer any more. */
  cancel(): void
}

export class Endpoint {
  readonly origin: string
  readonly circuit = new Circuit(Math.random)
  readonly latency: Readonly<Record<LatencyClass, LatencyEstimate>> = {
    get: new LatencyEstimate(),
    batch: new LatencyEstimate(),
  }
  /** The node that answers here, once it has said so. */
  nodeId: string | undefined = undefined
  readonly #url: URL
  readonly #agent: HttpAgent
  readonly #send: typeof httpRequest
  /** Fails each request under way. */
  readonly #underWay = new Set<(code: ErrorCode, message: string) => void>()
  #isClosed = false

  /** @throws SunwiseError `BAD_CONFIG` if `address` is not an http or https URL */
  constructor(address: string | URL, connectionsMax: number) {
    const url = typeof address === 'string' ? URL.parse(address) : address
    if (url === null || !/^https?:$/.test(url.protocol)) {
      throw new SunwiseError('BAD_CONFIG', `The endpoint ${String(address)} is not an http or https URL`)
    }
    this.#url = url
    this.origin = url.origin
    const isSecure = url.protocol === 'https:'
    const agentOptions = { keepAlive: true, maxSockets: connectionsMax, maxFreeSockets: connectionsMax }
    this.#agent = isSecure ? new HttpsAgent(agentOptions) : new HttpAgent(agentOptions)
    this.#send = isSecure ? httpsRequest : httpRequest
  }

  /** Sends `call` once. */
  attempt(call: Call, { answerMs, connectMs }: AttemptLimits): Attempt {
    const { signal } = call.options
    const { promise, resolve, reject } = Promise.withResolvers<Reply>()
    const where = this.origin
    let isConnected = false
    let isSettled = false
    let request: ClientRequest | undefined
    let connectTimer: NodeJS.Timeout | undefined
    const settle = (error: SunwiseError | undefined, reply?: Reply): void => {
      if (isSettled) return
      isSettled = true
      clearTimeout(timer)
      clearTimeout(connectTimer)
      signal?.removeEventListener('abort', abort)
      this.#underWay.delete(fail)
      if (error === undefined) resolve(reply!)
      else {
        reject(error)
        request?.destroy()
      }
    }
    /** Before the connection stood nothing can have reached the server. */
    const outcome = (): Outcome => (call.isRead || !isConnected ? 'none' : 'unknown')
    const fail = (code: ErrorCode, message: string, cause?: unknown): void =>
      settle(new SunwiseError(code, message, { outcome: outcome(), cause }))
    const abort = (): void => fail('ABORTED', 'The caller aborted the request', signal?.reason)
    const onError = (error: NodeJS.ErrnoException): void => {
      const reason = error.code ?? error.message
      if (!isConnected) fail('NOT_READY', `No connection to ${where}: ${reason}. Is the server running?`, error)
      else if (reason.startsWith('HPE_')) fail('INTERNAL', `What answers at ${where} does not speak HTTP`, error)
      else fail('NOT_READY', `The connection to ${where} ended before the answer: ${reason}`, error)
    }
    const timer = setTimeout(
      () => fail('TIMEOUT', `No answer from ${where} within ${Math.round(answerMs)} ms`),
      Math.max(0, answerMs),
    )
    const attempt: Attempt = { reply: promise, cancel: () => fail('ABORTED', 'Another server answered first') }
    if (signal?.aborted) abort()
    else if (this.#isClosed) fail('CLOSED', 'The client is closed')
    if (isSettled) return attempt
    this.#underWay.add(fail)
    signal?.addEventListener('abort', abort)
    const sent = this.#send(this.#url, {
      method: call.method,
      path: call.path,
      agent: this.#agent,
      headers: { ...call.headers, 'content-length': call.body?.length ?? 0 },
    })
    request = sent
    sent.on('socket', (socket) => {
      if (!socket.connecting) isConnected = true
      else {
        // The time for a connection starts here: before, the request only waited for one of ours to be free.
        if (connectMs !== undefined) {
          connectTimer = setTimeout(
            () => fail('NOT_READY', `No connection to ${where} within ${Math.round(connectMs)} ms`),
            connectMs,
          )
        }
        socket.once('connect', () => {
          isConnected = true
          clearTimeout(connectTimer)
        })
      }
    })
    sent.on('error', onError)
    sent.on('response', (response: IncomingMessage) => {
      const chunks: Buffer[] = []
      let bytes = 0
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes > RESPONSE_BYTES_MAX) fail('RESPONSE_LIMIT', `The answer is larger than ${RESPONSE_BYTES_MAX} bytes`)
        else chunks.push(chunk)
      })
      response.on('error', onError)
      response.on('end', () => {
        const body = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)
        settle(undefined, { status: response.statusCode ?? 0, headers: response.headers, body })
      })
    })
    sent.end(call.body)
    return attempt
  }

  /** Closes all connections; requests under way fail with `CLOSED`. */
  close(): void {
    this.#isClosed = true
    for (const fail of [...this.#underWay]) fail('CLOSED', 'The client is closed')
    this.#agent.destroy()
  }
}
