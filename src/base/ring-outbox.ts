/**
 * Messages of one ring that wait for room in it: a queue in private memory, bounded in bytes. It is off the hot path: it
 * fills only while a consumer is slow or a message is larger than a frame.
 *
 * The queue is a list of chunks, so that a backlog of small messages costs its bytes and not an object each. A message
 * longer than a chunk gets one of its own. In a chunk:
 *
 *      0 u32 bytes      length of the message
 *      4 u32 0
 *      8 message, padded to 8
 *        next message
 *
 * Invariants: messages leave in the order of their commits; the bytes of all chunks stay within the bound, except that an
 * empty queue takes one chunk whatever its size (so the true bound is the larger of the two). It knows nothing of rings,
 * pieces or threads.
 */
import { assert } from './assert.ts'
import { pad8 } from './ring-buffer.ts'

const headerBytes = 8

type Chunk = {
  readonly u8: Uint8Array
  readonly i32: Int32Array
  /** End of the committed messages. */
  end: number
  /** Start of the first message that has not left. */
  at: number
}

/** A bounded queue of whole messages; owned by one RingProducer. */
export class RingOutbox {
  readonly #chunkBytes: number
  readonly #bytesMax: number
  #chunks: Chunk[] = []
  #bytesHeld = 0
  /** An empty chunk of the usual size, kept so that a queue that fills and drains all the time allocates nothing. */
  #spare: Chunk | undefined = undefined
  #openChunk: Chunk | undefined = undefined
  #openBytes = 0

  /** `chunkBytes`: a multiple of 8. `bytesMax` 0: nothing is ever queued. */
  constructor(chunkBytes: number, bytesMax: number) {
    assert(chunkBytes % 8 === 0 && chunkBytes > headerBytes, 'An outbox chunk is a multiple of 8 bytes')
    this.#chunkBytes = chunkBytes
    this.#bytesMax = bytesMax
  }

  get isEmpty(): boolean {
    return this.#chunks.length === 0
  }

  /** Memory of the queued messages; at most the bound, or one chunk where that is larger. */
  get bytesHeld(): number {
    return this.#bytesHeld
  }

  /**
   * Makes room for one message of up to `bytes` and returns where it starts in `openU8` and `openI32`, a multiple of 8; -1 if
   * the bound would be broken: nothing changed. An earlier reservation that was not committed is forgotten.
   */
  reserve(bytes: number): number {
    this.#openChunk = undefined
    if (this.#bytesMax === 0) return -1
    const need = headerBytes + pad8(bytes)
    const last = this.#chunks.at(-1)
    if (last !== undefined && last.u8.length - last.end >= need) {
      this.#openChunk = last
      this.#openBytes = bytes
      return last.end + headerBytes
    }
    const chunkBytes = Math.max(this.#chunkBytes, need)
    if (this.#chunks.length > 0 && this.#bytesHeld + chunkBytes > this.#bytesMax) return -1
    let chunk = chunkBytes === this.#chunkBytes ? this.#spare : undefined
    if (chunk === undefined) {
      const buffer = new ArrayBuffer(chunkBytes)
      chunk = { u8: new Uint8Array(buffer), i32: new Int32Array(buffer), end: 0, at: 0 }
    }
    this.#openChunk = chunk
    this.#openBytes = bytes
    return headerBytes
  }

  /** Bytes of the chunk of the open reservation. */
  get openU8(): Uint8Array {
    assert(this.#openChunk !== undefined, 'RingOutbox.openU8 needs a reservation')
    return this.#openChunk.u8
  }

  /** The same as words. */
  get openI32(): Int32Array {
    assert(this.#openChunk !== undefined, 'RingOutbox.openI32 needs a reservation')
    return this.#openChunk.i32
  }

  /** Queues the reserved message, of which the first `bytes` count. */
  commit(bytes: number): void {
    const chunk = this.#openChunk
    assert(chunk !== undefined, 'RingOutbox.commit() needs a reservation')
    assert(bytes >= 0 && bytes <= this.#openBytes, 'RingOutbox.commit() takes no more bytes than reserved')
    if (this.#chunks.at(-1) !== chunk) {
      this.#chunks.push(chunk)
      this.#bytesHeld += chunk.u8.length
      if (chunk === this.#spare) this.#spare = undefined
    }
    chunk.i32[chunk.end >> 2] = bytes
    chunk.i32[(chunk.end >> 2) + 1] = 0
    chunk.end += headerBytes + pad8(bytes)
    this.#openChunk = undefined
  }

  /** Length of the oldest message. The queue must not be empty; this holds for the next four members too. */
  get headBytes(): number {
    const chunk = this.#head()
    return chunk.i32[chunk.at >> 2]!
  }

  /** Where the oldest message starts in `headU8` and `headI32`, a multiple of 8. */
  get headStart(): number {
    return this.#head().at + headerBytes
  }

  get headU8(): Uint8Array {
    return this.#head().u8
  }

  get headI32(): Int32Array {
    return this.#head().i32
  }

  /** Removes the oldest message; its bytes may be reused at once. An open reservation is forgotten. */
  removeHead(): void {
    const chunk = this.#head()
    this.#openChunk = undefined
    chunk.at += headerBytes + pad8(chunk.i32[chunk.at >> 2]!)
    if (chunk.at < chunk.end) return
    this.#chunks.shift()
    this.#bytesHeld -= chunk.u8.length
    if (chunk.u8.length !== this.#chunkBytes) return
    chunk.at = 0
    chunk.end = 0
    this.#spare = chunk
  }

  #head(): Chunk {
    const chunk = this.#chunks[0]
    assert(chunk !== undefined, 'The outbox is empty')
    return chunk
  }
}
