/**
 * Sends requests over keep-alive connections. Every promise settles by its deadline, which covers all attempts together,
 * or when its signal aborts. A request is sent again only if it surely changed nothing: the server said `outcome: none` and
 * retryable, or no connection came about, or it only reads.
 */
import type { ClientRequest, IncomingMessage, OutgoingHttpHeaders } from 'node:http'
import { Agent as HttpAgent, request as httpRequest } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { type ErrorCode, type Outcome, SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import { errorOfReply, headerOf, numberIn, type Reply } from './http-answer.ts'

/** Longest answer that is read into memory; a longer one is RESPONSE_LIMIT. */
export const RESPONSE_BYTES_MAX = 64 * 1024 * 1024
/** Bounds of the pause before another attempt, which is drawn at random and doubles each time. */
const RETRY_PAUSE_MS = { first: 50, max: 2_000 } as const

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
  /** Statuses that are answers and not errors. */
  readonly accepted: readonly number[]
  readonly options: CallOptions
}

/** The server and the limits of a sender. */
export type SenderOptions = {
  readonly endpoint: string | URL
  readonly timeoutMs: number
  readonly connectionsMax: number
  readonly attemptsMax: number
}

/** All connections of a client to its server. */
export class HttpSender {
  readonly #endpoint: URL
  readonly #timeoutMs: number
  readonly #attemptsMax: number
  readonly #agent: HttpAgent
  readonly #send: typeof httpRequest
  #isClosed = false

  /** @throws SunwiseError `BAD_CONFIG` if the endpoint is not an http or https URL */
  constructor(options: SenderOptions) {
    const endpoint = typeof options.endpoint === 'string' ? URL.parse(options.endpoint) : options.endpoint
    if (endpoint === null || !/^https?:$/.test(endpoint.protocol)) {
      throw new SunwiseError('BAD_CONFIG', `The endpoint ${String(options.endpoint)} is not an http or https URL`)
    }
    this.#endpoint = endpoint
    this.#timeoutMs = options.timeoutMs
    this.#attemptsMax = options.attemptsMax
    const isSecure = endpoint.protocol === 'https:'
    const agentOptions = { keepAlive: true, maxSockets: options.connectionsMax }
    this.#agent = isSecure ? new HttpsAgent(agentOptions) : new HttpAgent(agentOptions)
    this.#send = isSecure ? httpsRequest : httpRequest
  }

  /** Sends `call`, again where that is safe. @throws SunwiseError, always by the deadline */
  async call(call: Call): Promise<Reply> {
    const timeoutMs = call.options.timeoutMs ?? this.#timeoutMs
    if (!(timeoutMs > 0 && timeoutMs <= Limits.timeoutMsMax)) {
      throw new SunwiseError('BAD_TIMEOUT', `The timeout is ${timeoutMs} ms; expected up to ${Limits.timeoutMsMax}`)
    }
    const deadline = performance.now() + timeoutMs
    for (let attempt = 1; ; attempt++) {
      let error: SunwiseError
      let pauseMs = Math.random() * Math.min(RETRY_PAUSE_MS.max, RETRY_PAUSE_MS.first * 2 ** attempt)
      const startedAt = performance.now()
      try {
        const reply = await this.#attempt(call, deadline - startedAt, timeoutMs)
        if (call.accepted.includes(reply.status)) return reply
        error = errorOfReply(reply, call.isRead)
        // Asked to wait, we wait at least so long; jitter keeps clients apart.
        pauseMs += 1000 * Math.max(0, numberIn(headerOf(reply, 'retry-after')) ?? 0)
      } catch (caught) {
        if (!(caught instanceof SunwiseError)) throw caught
        error = caught
      }
      const mayRepeat = error.retryable && (call.isRead || error.outcome === 'none') && error.code !== 'ABORTED'
      const now = performance.now()
      // An attempt that has no time to end would only turn a known failure into a timeout of unknown outcome.
      const leastMs = 2 * (now - startedAt)
      if (!mayRepeat || error.code === 'RESPONSE_LIMIT' || attempt >= this.#attemptsMax) throw error
      if (now + pauseMs + leastMs >= deadline) throw error
      await this.#pause(pauseMs, call.options.signal)
    }
  }

  #pause(pauseMs: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const finish = (): void => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', finish)
        resolve()
      }
      const timer = setTimeout(finish, pauseMs)
      signal?.addEventListener('abort', finish)
    })
  }

  #attempt(call: Call, remainingMs: number, timeoutMs: number): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const { signal } = call.options
      const where = `${this.#endpoint.origin}`
      let isConnected = false
      let isSettled = false
      let request: ClientRequest | undefined
      const settle = (error: SunwiseError | undefined, reply?: Reply): void => {
        if (isSettled) return
        isSettled = true
        clearTimeout(timer)
        signal?.removeEventListener('abort', abort)
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
        if (this.#isClosed) fail('CLOSED', 'The client is closed', error)
        else if (!isConnected) fail('NOT_READY', `No connection to ${where}: ${reason}. Is the server running?`, error)
        else if (reason.startsWith('HPE_')) fail('INTERNAL', `What answers at ${where} does not speak HTTP`, error)
        else fail('NOT_READY', `The connection to ${where} ended before the answer: ${reason}`, error)
      }
      const timer = setTimeout(
        () => fail('TIMEOUT', `No answer from ${where} within ${timeoutMs} ms`),
        Math.max(0, remainingMs),
      )
      if (signal?.aborted) return abort()
      if (this.#isClosed) return fail('CLOSED', 'The client is closed')
      signal?.addEventListener('abort', abort)
      const sent = this.#send(this.#endpoint, {
        method: call.method,
        path: call.path,
        agent: this.#agent,
        headers: { ...call.headers, 'content-length': call.body?.length ?? 0 },
      })
      request = sent
      sent.on('socket', (socket) => {
        if (!socket.connecting) isConnected = true
        else
          socket.once('connect', () => {
            isConnected = true
          })
      })
      sent.on('error', onError)
      sent.on('response', (response: IncomingMessage) => {
        const chunks: Buffer[] = []
        let bytes = 0
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length
          if (bytes > RESPONSE_BYTES_MAX)
            fail('RESPONSE_LIMIT', `The answer is larger than ${RESPONSE_BYTES_MAX} bytes`)
          else chunks.push(chunk)
        })
        response.on('error', onError)
        response.on('end', () => {
          const body = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)
          settle(undefined, { status: response.statusCode ?? 0, headers: response.headers, body })
        })
      })
      sent.end(call.body)
    })
  }

  /** Closes all connections; requests under way fail with `CLOSED`. */
  close(): void {
    this.#isClosed = true
    this.#agent.destroy()
  }
}
