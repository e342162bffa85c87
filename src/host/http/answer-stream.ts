/**
 * A text answer of unknown length, written piece by piece: pieces gather to 64 KiB, each such part waits until the one before
 * has left for the network (backpressure), and between parts the event loop gets its turn, so that no answer keeps the
 * thread. An answer that ends before the first part is full is sent with its length like any other.
 *
 * A failure after the first part cannot change the status any more: `breakOff` ends the connection inside the answer, so that
 * no client takes the beginning for the whole.
 */
import type { Exchange } from './exchange.ts'

const partCharacters = 64 * 1024

/** One streamed answer. Nothing is written while the client does not read. */
export class AnswerStream {
  readonly #exchange: Exchange
  readonly #status: number
  readonly #headers: string[]
  #pending = ''
  #started = false
  #over = false
  #bytesOut = 0

  /** `headers` belongs to the stream. */
  constructor(exchange: Exchange, status: number, headers: string[]) {
    this.#exchange = exchange
    this.#status = status
    this.#headers = headers
  }

  /** The client went away, or the answer has ended: write nothing more. */
  get over(): boolean {
    return this.#over || this.#exchange.gone
  }

  /** Some of the answer may have reached the client. */
  get started(): boolean {
    return this.#started
  }

  /** Adds text. False: a part was sent, go on after `whenReady`. */
  write(text: string): boolean {
    this.#pending += text
    if (this.#pending.length < partCharacters) return true
    this.flush()
    return false
  }

  /** Sends what has gathered. */
  flush(): void {
    if (this.over || this.#pending.length === 0) return
    if (!this.#started) {
      if (!this.#exchange.begin(this.#headers)) return
      this.#started = true
      this.#exchange.response.writeHead(this.#status, this.#headers)
      // A client that goes away ends the exchange even if nothing is written any more.
      this.#exchange.response.once('close', () => this.#finish())
    }
    const part = Buffer.from(this.#pending)
    this.#pending = ''
    this.#bytesOut += part.length
    this.#exchange.response.write(part)
  }

  /** Calls `resume` once the connection takes more; never if the client goes away. */
  whenReady(resume: () => void): void {
    const { response } = this.#exchange
    const guarded = (): void => {
      if (this.over) return
      try {
        resume()
      } catch (thrown) {
        this.#exchange.crash(thrown)
      }
    }
    if (this.#started && response.writableNeedDrain) response.once('drain', () => setImmediate(guarded))
    else setImmediate(guarded)
  }

  /** Ends the answer well. */
  end(): void {
    if (this.#over) return
    if (!this.#started) {
      this.#over = true
      this.#exchange.answer(this.#status, this.#headers, Buffer.from(this.#pending))
      return
    }
    this.flush()
    if (!this.#exchange.gone) this.#exchange.response.end()
    this.#finish()
  }

  /** Sends `lastText` and then ends the connection inside the answer. Only after `started`. */
  breakOff(lastText: string): void {
    if (this.over) return
    this.#pending += lastText
    this.flush()
    const { response } = this.#exchange
    // An empty last write reports when all before it has left.
    response.write('\n', () => response.destroy())
    this.#finish()
  }

  #finish(): void {
    if (this.#over) return
    this.#over = true
    this.#exchange.settle(this.#status, this.#bytesOut)
  }
}
