/**
 * The reading side of a ring (ring-buffer.ts draws it and states its invariants): takes whatever has piled up in one go and
 * hands each message over in place; puts the pieces of large ones together in a private buffer first.
 */
import { assert } from './assert.ts'
import { copyBytes } from './bytes.ts'
import type { RingRegion } from './ring-buffer.ts'
import {
  FrameKind,
  firstPrefixBytes,
  frameBytesMask,
  frameHeaderBytes,
  HeaderWord,
  headerOf,
  kindShift,
  pad8,
  ringHeaderBytes,
  stampMask,
} from './ring-buffer.ts'

export type RingConsumerOptions = {
  /** Largest message; a larger one is taken for corruption. At least that of the producer. */
  readonly messageBytesMax: number
}

/**
 * Takes one message: `bytes` bytes from `start` (a multiple of 8) in both views. They belong to the ring again when it
 * returns, and the views differ between small and large messages: nothing of the arguments may be kept.
 */
export type RingHandler = (u8: Uint8Array, i32: Int32Array, start: number, bytes: number) => void

/** The reading side. Allocates nothing per message, except for messages larger than a frame. */
export class RingConsumer {
  readonly #header: Int32Array
  readonly #u8: Uint8Array
  readonly #i32: Int32Array
  readonly #capacityBytes: number
  readonly #indexMask: number
  readonly #messageBytesMax: number
  /** End of what was consumed; ahead of the shared read index inside `drain`. */
  #read = 0
  #released = 0
  #isDraining = false
  /** Large message being put together; the buffer stays for the next one unless it is larger than the ring. */
  #messageU8: Uint8Array | undefined = undefined
  #messageI32: Int32Array | undefined = undefined
  #messageBytes = 0
  /** Bytes of it that have come; -1: no large message is on its way. */
  #messageReceived = -1

  constructor(region: RingRegion, options: RingConsumerOptions) {
    this.#header = headerOf(region)
    this.#capacityBytes = region.capacityBytes
    this.#indexMask = region.capacityBytes - 1
    this.#u8 = new Uint8Array(region.buffer, region.byteOffset + ringHeaderBytes, region.capacityBytes)
    this.#i32 = new Int32Array(region.buffer, region.byteOffset + ringHeaderBytes, region.capacityBytes >> 2)
    this.#messageBytesMax = options.messageBytesMax
    assert(Atomics.load(this.#header, HeaderWord.read) === 0, 'A ring has one consumer in its life')
  }

  /** Epoch in which the producer died; 0 while it lives. What it published before can still be drained. */
  get producerDeathEpoch(): number {
    return Atomics.load(this.#header, HeaderWord.producerDeath)
  }

  /** Memory kept for large messages. */
  get messageBufferBytes(): number {
    return this.#messageU8 === undefined ? 0 : this.#messageU8.length
  }

  /**
   * Hands over the messages that were published when it was called, at most `framesMax` frames of them, and returns how many
   * messages that were. Room goes back to the producer at the end and after every eighth of the ring.
   *
   * If `handler` throws, its message counts as taken (neither lost to the count nor handed over again), the later ones stay
   * for the next call, and the error passes through.
   *
   * @throws AssertionError where the ring holds something that no producer writes: both threads share a bug, and the ring
   *   must be dropped. Nothing outside of the published bytes is read.
   */
  drain(handler: RingHandler, framesMax: number): number {
    assert(!this.#isDraining, 'RingConsumer.drain() was called by its own handler')
    const write = Atomics.load(this.#header, HeaderWord.write)
    if (write === this.#read) return 0
    const available = (write - this.#read) | 0
    assert(
      available > 0 && available <= this.#capacityBytes && available % 8 === 0,
      'A ring is corrupt: its write index is impossible',
    )
    const releaseBytes = this.#capacityBytes >> 3
    let messages = 0
    this.#isDraining = true
    try {
      for (let frames = 0; frames < framesMax && this.#read !== write; frames++) {
        if (this.#take(handler, write)) messages++
        if (((this.#read - this.#released) | 0) >= releaseBytes) this.#release()
      }
    } finally {
      this.#isDraining = false
      this.#release()
    }
    return messages
  }

  /** Whether the producer waits for room and half of the ring is free: then ring its bell. Ask after each `drain`. */
  mustWakeProducer(): boolean {
    if (Atomics.load(this.#header, HeaderWord.producerWaits) === 0) return false
    const used = (Atomics.load(this.#header, HeaderWord.write) - this.#released) | 0
    if (used > this.#capacityBytes >> 1) return false
    return Atomics.exchange(this.#header, HeaderWord.producerWaits, 0) !== 0
  }

  /**
   * Announces that this thread is about to sleep. False: something was published meanwhile, drain instead. True: the
   * producer rings the bell once for what it publishes from now on.
   */
  prepareSleep(): boolean {
    Atomics.store(this.#header, HeaderWord.consumerSleeps, 1)
    if (Atomics.load(this.#header, HeaderWord.write) === this.#read) return true
    Atomics.store(this.#header, HeaderWord.consumerSleeps, 0)
    return false
  }

  /** Takes the announcement back, whoever woke the thread: the bell need not ring while it is awake. */
  awake(): void {
    if (Atomics.load(this.#header, HeaderWord.consumerSleeps) !== 0) {
      Atomics.store(this.#header, HeaderWord.consumerSleeps, 0)
    }
  }

  #release(): void {
    if (this.#read === this.#released) return
    this.#released = this.#read
    Atomics.store(this.#header, HeaderWord.read, this.#read)
  }

  /** Takes the frame at the read index; `write` bounds it. True: it completed a message, which was handed over. */
  #take(handler: RingHandler, write: number): boolean {
    const read = this.#read
    const at = read & this.#indexMask
    const word = this.#i32[at >> 2]!
    const kind = word >>> kindShift
    const bytes = word & frameBytesMask
    const frameBytes = frameHeaderBytes + pad8(bytes)
    assert(this.#i32[(at >> 2) + 1] === (read ^ stampMask), 'A ring is corrupt: a frame has the stamp of another place')
    assert(
      frameBytes <= this.#capacityBytes - at && frameBytes <= ((write - read) | 0),
      'A ring is corrupt: a frame is longer than what was published',
    )
    if (kind === FrameKind.whole) {
      assert(this.#messageReceived < 0, 'A ring is corrupt: a message stands between the pieces of another')
      // Before the handler, which may throw: the message counts as taken.
      this.#read = (read + frameBytes) | 0
      handler(this.#u8, this.#i32, at + frameHeaderBytes, bytes)
      return true
    }
    if (kind === FrameKind.padding) {
      this.#read = (read + frameBytes) | 0
      return false
    }
    if (kind === FrameKind.first) this.#beginMessage(at + frameHeaderBytes, bytes)
    else this.#continueMessage(kind, at + frameHeaderBytes, bytes)
    this.#read = (read + frameBytes) | 0
    if (this.#messageReceived < this.#messageBytes) return false
    this.#finishMessage(handler)
    return true
  }

  #beginMessage(start: number, bytes: number): void {
    assert(this.#messageReceived < 0, 'A ring is corrupt: a large message begins inside another')
    assert(bytes >= firstPrefixBytes, 'A ring is corrupt: the first piece of a message is too short')
    const total = this.#i32[start >> 2]!
    assert(total > 0 && total <= this.#messageBytesMax, 'A ring is corrupt: a message is larger than the limit')
    assert(bytes - firstPrefixBytes <= total, 'A ring is corrupt: a piece is longer than its message')
    if (this.#messageU8 === undefined || this.#messageU8.length < total) {
      const buffer = new ArrayBuffer(Math.max(pad8(total), this.#capacityBytes))
      this.#messageU8 = new Uint8Array(buffer)
      this.#messageI32 = new Int32Array(buffer)
    }
    this.#messageBytes = total
    this.#messageReceived = bytes - firstPrefixBytes
    copyBytes(this.#u8, start + firstPrefixBytes, this.#messageU8, 0, bytes - firstPrefixBytes)
  }

  #continueMessage(kind: number, start: number, bytes: number): void {
    assert(kind === FrameKind.further, 'A ring is corrupt: a frame is of no known kind')
    assert(this.#messageReceived >= 0, 'A ring is corrupt: a piece belongs to no message')
    assert(
      bytes > 0 && bytes <= this.#messageBytes - this.#messageReceived,
      'A ring is corrupt: a piece is longer than its message',
    )
    copyBytes(this.#u8, start, this.#messageU8!, this.#messageReceived, bytes)
    this.#messageReceived += bytes
  }

  #finishMessage(handler: RingHandler): void {
    const u8 = this.#messageU8!
    const i32 = this.#messageI32!
    this.#messageReceived = -1
    if (u8.length > this.#capacityBytes) {
      this.#messageU8 = undefined
      this.#messageI32 = undefined
    }
    handler(u8, i32, 0, this.#messageBytes)
  }
}
