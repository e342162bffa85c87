/**
 * One client connection and the order of its pipelined requests. RFC 9112 section 9.3.2 lets a server work on several at once
 * only if all are safe: a read sent after a write must see it. So a GET or HEAD starts at once while only reads are under
 * way; everything else waits until all before it are answered, and holds back all after it. (Node sends the answers in order.)
 *
 * Requests that wait are bounded over all connections; the front end refuses those beyond.
 */
import type { Socket } from 'node:net'
import type { Exchange, ExchangeConnection } from './exchange.ts'
import type { Front } from './front.ts'

/** What a server knows about one connection. */
export class Connection implements ExchangeConnection {
  readonly #start: (exchange: Exchange) => void
  readonly socket: Socket
  unanswered = 0
  /** The request that arrived last, until it is answered. */
  latest: Exchange | undefined = undefined
  lingering = false
  #waiting: Exchange[] = []
  #running = 0
  #runningUnsafe = 0
  /** Room taken for answers on their way; the whole of it goes back when the connection ends. */
  #answerBytes = 0
  #answerFront: Front | undefined
  #isClosed = false
  #advancing = false

  /** `start` begins the work of a request whose turn has come. */
  constructor(socket: Socket, start: (exchange: Exchange) => void) {
    this.socket = socket
    this.#start = start
  }

  /** Whether a request could start now. */
  #mayStart(exchange: Exchange): boolean {
    return exchange.safe ? this.#runningUnsafe === 0 : this.#running === 0
  }

  /** Takes a request that arrived: it starts now, or when its turn comes. False where it must wait and none more may. */
  arrive(exchange: Exchange): boolean {
    this.unanswered++
    this.latest = exchange
    if (this.#waiting.length === 0 && this.#mayStart(exchange)) {
      this.#run(exchange)
      return true
    }
    if (!exchange.front.reserveWaiting()) return false
    this.#waiting.push(exchange)
    return true
  }

  #run(exchange: Exchange): void {
    this.#running++
    if (!exchange.safe) this.#runningUnsafe++
    exchange.started = true
    this.#start(exchange)
  }

  /** A request is over. Starts those that waited for it. */
  settled(exchange: Exchange): void {
    this.unanswered--
    if (this.latest === exchange) this.latest = undefined
    if (!exchange.started) return
    this.#running--
    if (!exchange.safe) this.#runningUnsafe--
    if (this.#waiting.length > 0) this.#advance()
  }

  #advance(): void {
    // A request that is answered at once comes back here: one loop instead of a recursion as deep as the pipeline.
    if (this.#advancing) return
    this.#advancing = true
    let next = 0
    while (next < this.#waiting.length && this.#mayStart(this.#waiting[next]!)) {
      const exchange = this.#waiting[next++]!
      exchange.front.releaseWaiting()
      this.#run(exchange)
    }
    this.#waiting.splice(0, next)
    this.#advancing = false
  }

  reserveAnswer(front: Front, bytes: number): boolean {
    // An answer to nobody is dropped at once.
    if (this.#isClosed) return true
    if (!front.reserveAnswer(bytes)) return false
    this.#answerFront = front
    this.#answerBytes += bytes
    return true
  }

  releaseAnswer(bytes: number): void {
    if (this.#isClosed) return
    this.#answerBytes -= bytes
    this.#answerFront?.releaseAnswer(bytes)
  }

  /** The connection is gone: requests that wait are not worked on. */
  close(): void {
    this.#isClosed = true
    this.#answerFront?.releaseAnswer(this.#answerBytes)
    const waiting = this.#waiting
    this.#waiting = []
    for (const exchange of waiting) {
      exchange.front.releaseWaiting()
      exchange.abandon()
    }
  }
}

const connectionKey: unique symbol = Symbol('connection')

type KnownSocket = Socket & { [connectionKey]?: Connection }

/** Ties a connection to its socket. A property, since a look-up stands on the way of every request. */
export function attachConnection(connection: Connection): void {
  const known: KnownSocket = connection.socket
  known[connectionKey] = connection
}

/** The connection of a socket; undefined before it was attached. */
export function connectionOf(socket: Socket): Connection | undefined {
  const known: KnownSocket = socket
  return known[connectionKey]
}
