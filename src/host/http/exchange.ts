/**
 * One request and its one answer. Every answer of the front end goes through here, so that each has a request id and a
 * length, is counted once, closes the connection when the server drains, and never touches a connection that is gone.
 *
 * An answer given while the request's body is still arriving must not race it: closing at once makes the kernel reset the
 * connection and the client loses the answer. Such an answer is sent whole, what still arrives is thrown away for a short
 * while (`Limits.lingerMs`, `Limits.lingerBytesMax`), and then the connection closes.
 *
 * What it does not do: streamed answers (answer-stream.ts), which share `begin` and `settle`.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { assert } from '../../base/assert.ts'
import { type ErrorCode, ErrorTable, type Outcome, type SunwiseError } from '../../base/errors.ts'
import { Limits } from '../../config.ts'
import { bufferOf } from './base64.ts'
import { methodNumberOf } from './counters.ts'
import type { Front } from './front.ts'
import { errorOf, type ProblemFields, problemOf, problemType, retryAfterSeconds } from './problem.ts'
import { RequestFields } from './request-fields.ts'

/** A refused body whose known rest is no longer than this is read to its end, and the connection stays open. */
const dumpBytesMax = 64 * 1024

/**
 * A body up to this size leaves as text, each character one byte, since Node joins a text with the header block and sends
 * both in one plain write instead of a gathered one: 1.3 us less of 18 us per request of 100 B.
 */
const joinedBytesMax = 4096

/** Why a read is refused whose answer finds no room. */
export const unreadDetail = 'The node holds too many answers that their clients have not taken yet'

/** What an exchange needs of its connection. */
export type ExchangeConnection = {
  readonly socket: Socket
  /** Requests without an answer yet. */
  readonly unanswered: number
  /** The last answer is sent; what still arrives is thrown away until the connection closes. */
  lingering: boolean
  /** Takes room for an answer until it is given back or the connection ends; false where there is none. */
  reserveAnswer(front: Front, bytes: number): boolean
  releaseAnswer(bytes: number): void
  /** The exchange is over: called once. */
  settled(exchange: Exchange): void
}

/** One request, its header fields, and the way to answer it once. */
export class Exchange {
  readonly front: Front
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly fields: RequestFields
  readonly method: string
  /** The raw request target: path and query, percent-encoded. */
  readonly target: string
  readonly requestId: string
  /** The message has a body, perhaps not arrived yet. */
  readonly hasBody: boolean
  /** Bytes of the body that arrived. */
  bytesIn = 0
  /** The whole body was handed on: the request may be applied from now on. */
  bodyTaken = false
  /** The method changes nothing: GET or HEAD. */
  readonly safe: boolean
  /** Its turn among the requests of the connection has come. */
  started = false
  readonly #startedAtMs: number
  readonly #connection: ExchangeConnection
  #reservedBytes = 0
  /** Room taken for the answer; -1: none ever was. */
  #heldAnswerBytes = -1
  #begun = false
  #settled = false
  #continueSent = false

  constructor(front: Front, connection: ExchangeConnection, request: IncomingMessage, response: ServerResponse) {
    this.front = front
    this.request = request
    this.response = response
    this.fields = new RequestFields(request.rawHeaders)
    this.method = request.method ?? ''
    this.safe = this.method === 'GET' || this.method === 'HEAD'
    this.target = request.url ?? ''
    this.requestId = front.nextRequestId()
    const length = this.fields.contentLength
    this.hasBody = (length !== undefined && length !== '0') || this.fields.transferEncoding !== undefined
    this.#startedAtMs = front.clock.monotonicMs()
    this.#connection = connection
  }

  /** An answer was begun. */
  get begun(): boolean {
    return this.#begun
  }

  /** The client is gone: whatever is written now reaches nobody. */
  get gone(): boolean {
    // An answer that waits behind others of its connection does not hear of the end.
    return this.response.destroyed || this.#connection.socket.destroyed
  }

  /** Answered or given up: nothing more may be done for it. */
  get over(): boolean {
    return this.#settled
  }

  /** The client waits for `100 Continue` before it sends the body. */
  get expectsContinue(): boolean {
    return (
      !this.#continueSent && this.fields.expect !== undefined && this.fields.expect.toLowerCase() === '100-continue'
    )
  }

  /** Lets a waiting client send its body. */
  allowBody(): void {
    if (!this.expectsContinue || this.gone) return
    this.response.writeContinue()
    this.#continueSent = true
  }

  /** Takes room for body bytes until the exchange settles; false where the server holds too many. */
  reserveBody(bytes: number): boolean {
    if (!this.front.reserveBody(bytes)) return false
    this.#reservedBytes += bytes
    return true
  }

  /**
   * Takes room for an answer of `bytes` until the client has taken all of it, or until `letAnswerGo`. False where clients that do
   * not read hold too much already: then answer with OVERLOADED. Small answers need no room.
   */
  holdAnswer(bytes: number): boolean {
    if (bytes <= joinedBytesMax || this.method === 'HEAD') return true
    if (!this.#connection.reserveAnswer(this.front, bytes)) return false
    if (this.#heldAnswerBytes === -1) {
      this.#heldAnswerBytes = 0
      this.response.once('finish', () => this.letAnswerGo())
    }
    this.#heldAnswerBytes += bytes
    return true
  }

  /** Gives back what `holdAnswer` took: what was held has been handed on. */
  letAnswerGo(): void {
    if (this.#heldAnswerBytes <= 0) return
    this.#connection.releaseAnswer(this.#heldAnswerBytes)
    this.#heldAnswerBytes = 0
  }

  /** Refuses a read whose answer found no room. */
  failUnread(): void {
    this.failWith('OVERLOADED', unreadDetail, 'none')
  }

  /**
   * Answers. `headers` is a flat list of names and values that this call may append to; `body` belongs to the connection
   * from now on. The length and the request id are added here, and a HEAD request gets the headers alone.
   */
  answer(status: number, headers: string[], body: Uint8Array | undefined): void {
    const bytes = body === undefined ? 0 : body.length
    if (!this.begin(headers)) return
    if (status !== 204 && status !== 304) headers.push('Content-Length', String(bytes))
    const unread = this.hasBody && !this.request.complete
    const lingers = unread && this.#mustLinger()
    if (lingers) headers.push('Connection', 'close')
    const response = this.response
    response.writeHead(status, headers)
    if (lingers) {
      if (body !== undefined && this.method !== 'HEAD') response.write(body)
      else response.flushHeaders()
      this.#linger()
    } else if (body === undefined || this.method === 'HEAD') response.end()
    else if (bytes <= joinedBytesMax) response.end(bufferOf(body).toString('latin1'), 'latin1')
    else response.end(body)
    this.settle(status, this.method === 'HEAD' ? 0 : bytes)
  }

  /** Answers with a JSON text. */
  answerJson(status: number, headers: string[], text: string): void {
    headers.push('Content-Type', 'application/json')
    this.answer(status, headers, Buffer.from(text))
  }

  /** Answers with the problem document of an error. */
  fail(error: SunwiseError): void {
    this.failWith(error.code, error.message, error.outcome, error.extra)
  }

  /** Answers with a problem document. `headers` may carry more, such as a context or an Allow list. */
  failWith(
    code: ErrorCode,
    detail: string,
    outcome: Outcome = ErrorTable[code].outcome,
    extra?: ProblemFields['extra'],
    headers: string[] = [],
  ): void {
    const problem = problemOf({ code, detail, outcome, requestId: this.requestId, target: this.target, extra })
    const status = ErrorTable[code].status
    const retryAfter = retryAfterSeconds(status, extra)
    headers.push('Content-Type', problemType)
    if (retryAfter > 0) headers.push('Retry-After', String(retryAfter))
    this.front.counters.problem(code)
    this.answer(status, headers, Buffer.from(JSON.stringify(problem)))
  }

  /** Answers for something thrown: coded errors as they are, all others as INTERNAL and into the log. */
  crash(thrown: unknown): void {
    const error = errorOf(thrown)
    if (error.code === 'INTERNAL') {
      this.front.logger?.error('A request failed unexpectedly', {
        requestId: this.requestId,
        method: this.method,
        error: error.cause ?? error,
      })
    }
    if (!this.#begun) this.fail(error)
    else if (!this.#settled) {
      this.response.destroy()
      this.settle(500, 0)
    }
  }

  /** The client went away before its answer: nothing is sent. */
  abandon(): void {
    if (this.#settled) return
    this.front.counters.requestAbandoned()
    this.#begun = true
    this.#release()
  }

  /**
   * Claims the one answer and adds the headers that every answer has. False where the client is gone: the exchange is over
   * then.
   */
  begin(headers: string[]): boolean {
    if (this.gone) {
      this.abandon()
      return false
    }
    assert(!this.#begun || this.#settled, 'A request is answered once')
    if (this.#settled) return false
    this.#begun = true
    headers.push('Sunwise-Request-Id', this.requestId)
    // With pipelined requests behind it, the last of them closes: theirs would be lost.
    if (this.front.draining && this.#connection.unanswered === 1) headers.push('Connection', 'close')
    return true
  }

  /** Counts the answer and gives back what the exchange held. */
  settle(status: number, bytesOut: number): void {
    if (this.#settled) return
    const durationMs = this.front.clock.monotonicMs() - this.#startedAtMs
    this.front.counters.request(methodNumberOf(this.method), status, durationMs, this.bytesIn, bytesOut)
    this.#release()
  }

  #release(): void {
    this.#settled = true
    if (this.#reservedBytes > 0) {
      this.front.releaseBody(this.#reservedBytes)
      this.#reservedBytes = 0
    }
    this.#connection.settled(this)
  }

  /** Whether the rest of the body is too long to wait for. A client that still waits for 100 has sent nothing. */
  #mustLinger(): boolean {
    if (this.expectsContinue) return false
    const length = this.fields.contentLength
    return length === undefined || Number(length) - this.bytesIn > dumpBytesMax
  }

  #linger(): void {
    const { request, response } = this
    this.#connection.lingering = true
    let discarded = 0
    let over = false
    const finish = (): void => {
      if (over) return
      over = true
      clearTimeout(timer)
      request.removeListener('data', discard)
      if (!response.destroyed) response.end()
    }
    const discard = (chunk: Buffer): void => {
      discarded += chunk.length
      if (discarded > Limits.lingerBytesMax) finish()
    }
    const timer = setTimeout(finish, Limits.lingerMs)
    timer.unref()
    request.on('data', discard)
    request.on('end', finish)
    request.on('error', finish)
    request.on('close', finish)
  }
}
