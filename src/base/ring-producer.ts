/**
 * The writing side of a ring (ring-buffer.ts draws it and states its invariants): frames in place, one atomic store per
 * batch, and behind it an outbox for what does not fit. It never blocks and wakes nobody: it says when its owner should.
 */
import { assert } from './assert.ts'
import { copyBytes, copyWords } from './bytes.ts'
import type { RingRegion } from './ring-buffer.ts'
import {
  FrameKind,
  firstPrefixBytes,
  frameBytesMaxOf,
  frameHeaderBytes,
  HeaderWord,
  headerOf,
  kindShift,
  pad8,
  ringHeaderBytes,
  stampMask,
} from './ring-buffer.ts'
import { RingOutbox } from './ring-outbox.ts'

export type RingProducerOptions = {
  /** Bytes that may wait in private memory for room in the ring; 0: none, and then no message can be larger than a frame. */
  readonly outboxBytesMax: number
  /** Largest message; larger is a bug of the caller. */
  readonly messageBytesMax: number
}

/**
 * The writing side. It is the target of the frame reserved last: encode at `start` in `u8` or `i32` (the ring itself or the
 * outbox: take them after each reservation), then `commit()`. Allocates nothing per message while the outbox is not used.
 */
export class RingProducer {
  readonly frameBytesMax: number
  readonly #header: Int32Array
  readonly #u8: Uint8Array
  readonly #i32: Int32Array
  readonly #capacityBytes: number
  readonly #indexMask: number
  readonly #messageBytesMax: number
  readonly #outbox: RingOutbox
  /** End of what is committed; ahead of the shared write index until `publish`. */
  #write = 0
  /** What the shared write index holds. */
  #published = 0
  /** The shared read index when it was last looked at. */
  #readCached = 0
  /** Index of the reserved frame; its header stands there. */
  #openIndex = 0
  /** Bytes reserved; -1: there is no reservation. */
  #openBytes = -1
  #isOpenInOutbox = false
  #targetU8: Uint8Array
  #targetI32: Int32Array
  #start = 0
  /** Bytes of the outbox's oldest message that are in the ring already; -1: none, not even its prefix. */
  #headSent = -1

  constructor(region: RingRegion, options: RingProducerOptions) {
    this.#header = headerOf(region)
    this.#capacityBytes = region.capacityBytes
    this.#indexMask = region.capacityBytes - 1
    this.#u8 = new Uint8Array(region.buffer, region.byteOffset + ringHeaderBytes, region.capacityBytes)
    this.#i32 = new Int32Array(region.buffer, region.byteOffset + ringHeaderBytes, region.capacityBytes >> 2)
    this.#targetU8 = this.#u8
    this.#targetI32 = this.#i32
    this.#messageBytesMax = options.messageBytesMax
    this.frameBytesMax = frameBytesMaxOf(region.capacityBytes)
    this.#outbox = new RingOutbox(region.capacityBytes >> 2, options.outboxBytesMax)
    assert(
      options.messageBytesMax <= this.frameBytesMax || options.outboxBytesMax > 0,
      'A ring without an outbox carries no message larger than a frame',
    )
    assert(Atomics.load(this.#header, HeaderWord.write) === 0, 'A ring has one producer in its life')
  }

  /** Bytes that the reserved frame is written to; valid until `commit`. */
  get u8(): Uint8Array {
    return this.#targetU8
  }

  /** The same as words. */
  get i32(): Int32Array {
    return this.#targetI32
  }

  /** First byte of the reserved frame within both views; a multiple of 8. */
  get start(): number {
    return this.#start
  }

  /** Memory that waits for room. */
  get outboxBytes(): number {
    return this.#outbox.bytesHeld
  }

  /** Epoch in which the consumer died; 0 while it lives. */
  get consumerDeathEpoch(): number {
    return Atomics.load(this.#header, HeaderWord.consumerDeath)
  }

  /**
   * Reserves a frame of up to `bytes` (at most `frameBytesMax`) in the ring and returns `start`; -1 when the ring is full or
   * the outbox is in use: nothing changed. A reservation that is not committed before the next call of any method is
   * forgotten.
   */
  reserve(bytes: number): number {
    assert(bytes >= 0 && bytes <= this.frameBytesMax, 'RingProducer.reserve() takes 0 to frameBytesMax bytes')
    this.#openBytes = -1
    if (!this.#outbox.isEmpty) return -1
    return this.#reserveInRing(bytes)
  }

  /**
   * Reserves room for a message of up to `bytes` (at most `messageBytesMax`) in the ring, or else in the outbox, and returns
   * `start`; -1 when the outbox is full too: nothing changed. For what cannot be refused, such as replies, and for messages
   * larger than a frame.
   */
  reserveOrQueue(bytes: number): number {
    assert(bytes >= 0 && bytes <= this.#messageBytesMax, 'A message has 0 to messageBytesMax bytes')
    this.#openBytes = -1
    if (bytes <= this.frameBytesMax && this.#outbox.isEmpty) {
      const start = this.#reserveInRing(bytes)
      if (start >= 0) return start
    }
    const start = this.#outbox.reserve(bytes)
    if (start < 0) return -1
    this.#openBytes = bytes
    this.#isOpenInOutbox = true
    this.#targetU8 = this.#outbox.openU8
    this.#targetI32 = this.#outbox.openI32
    this.#start = start
    return start
  }

  /** Completes the reserved message, of which the first `bytes` count. The consumer sees it after `publish`. */
  commit(bytes: number = this.#openBytes): void {
    assert(this.#openBytes >= 0, 'RingProducer.commit() needs a reservation')
    assert(bytes >= 0 && bytes <= this.#openBytes, 'RingProducer.commit() takes no more bytes than reserved')
    if (this.#isOpenInOutbox) {
      this.#outbox.commit(bytes)
      this.#openBytes = -1
    } else {
      this.#commitInRing(FrameKind.whole, bytes)
    }
  }

  /** Copies `bytes[start, end)` into a message of its own; false when ring and outbox are full: nothing was sent. */
  send(bytes: Uint8Array, start: number, end: number): boolean {
    assert(start >= 0 && start <= end && end <= bytes.length, 'RingProducer.send() takes a range of its bytes')
    const at = this.reserveOrQueue(end - start)
    if (at < 0) return false
    copyBytes(bytes, start, this.#targetU8, at, end - start)
    this.commit()
    return true
  }

  /** Moves what fits from the outbox into the ring, unpublished; true when the outbox is empty. `publish` calls it. */
  pump(): boolean {
    this.#openBytes = -1
    while (!this.#outbox.isEmpty) {
      const bytes = this.#outbox.headBytes
      const isSent = bytes <= this.frameBytesMax ? this.#pumpWhole(bytes) : this.#pumpPiece(bytes)
      if (!isSent) return false
    }
    return true
  }

  /**
   * Makes every committed message visible, as far as the ring has room. True: the consumer sleeps, and the caller must ring
   * its bell. Call it once per loop turn, and always when the bell of this thread was rung: while the outbox holds
   * something the consumer will ring when there is room. Copies at most twice the capacity, so it returns soon.
   */
  publish(): boolean {
    if (this.#outbox.isEmpty) return this.#publishCommitted()
    if (this.pump()) return this.#publishCommitted()
    const mustWake = this.#publishCommitted()
    if (!this.wantRoom()) return mustWake
    // Room appeared before the consumer could see that it is wanted. What this second pass publishes will be drained after
    // the flag was set, so the consumer does see it then: no third look is needed.
    Atomics.store(this.#header, HeaderWord.producerWaits, 1)
    if (this.pump()) Atomics.store(this.#header, HeaderWord.producerWaits, 0)
    return this.#publishCommitted() || mustWake
  }

  /**
   * Asks the consumer to ring when half of the ring is free, for a caller whose `reserve` said -1 and who has published.
   * True: that is so already and no bell will come; any frame fits, or, if the outbox is in use, `publish` will move it on.
   */
  wantRoom(): boolean {
    Atomics.store(this.#header, HeaderWord.producerWaits, 1)
    this.#readCached = Atomics.load(this.#header, HeaderWord.read)
    const used = (this.#write - this.#readCached) | 0
    if (used > this.#capacityBytes >> 1) return false
    Atomics.store(this.#header, HeaderWord.producerWaits, 0)
    return true
  }

  #publishCommitted(): boolean {
    this.#openBytes = -1
    if (this.#write === this.#published) return false
    this.#published = this.#write
    Atomics.store(this.#header, HeaderWord.write, this.#write)
    return (
      Atomics.load(this.#header, HeaderWord.consumerSleeps) !== 0 &&
      Atomics.exchange(this.#header, HeaderWord.consumerSleeps, 0) !== 0
    )
  }

  #reserveInRing(bytes: number): number {
    const frameBytes = frameHeaderBytes + pad8(bytes)
    const toEnd = this.#capacityBytes - (this.#write & this.#indexMask)
    const paddingBytes = frameBytes > toEnd ? toEnd : 0
    const roomMax = this.#capacityBytes - frameBytes - paddingBytes
    if (((this.#write - this.#readCached) | 0) > roomMax) {
      this.#readCached = Atomics.load(this.#header, HeaderWord.read)
      if (((this.#write - this.#readCached) | 0) > roomMax) return -1
    }
    // Unpublished like the frame itself: if the reservation is forgotten the next one overwrites it.
    if (paddingBytes > 0) this.#writeFrameHeader(this.#write, FrameKind.padding, paddingBytes - frameHeaderBytes)
    this.#openIndex = (this.#write + paddingBytes) | 0
    this.#openBytes = bytes
    this.#isOpenInOutbox = false
    this.#targetU8 = this.#u8
    this.#targetI32 = this.#i32
    this.#start = (this.#openIndex & this.#indexMask) + frameHeaderBytes
    return this.#start
  }

  #commitInRing(kind: number, bytes: number): void {
    this.#writeFrameHeader(this.#openIndex, kind, bytes)
    this.#write = (this.#openIndex + frameHeaderBytes + pad8(bytes)) | 0
    this.#openBytes = -1
  }

  #writeFrameHeader(index: number, kind: number, bytes: number): void {
    const word = (index & this.#indexMask) >> 2
    this.#i32[word] = (kind << kindShift) | bytes
    this.#i32[word + 1] = index ^ stampMask
  }

  #pumpWhole(bytes: number): boolean {
    const start = this.#reserveInRing(bytes)
    if (start < 0) return false
    const outbox = this.#outbox
    copyWords(outbox.headI32, outbox.headStart >> 2, this.#i32, start >> 2, pad8(bytes) >> 2)
    this.#commitInRing(FrameKind.whole, bytes)
    outbox.removeHead()
    return true
  }

  #pumpPiece(bytes: number): boolean {
    const isFirst = this.#headSent < 0
    const sent = isFirst ? 0 : this.#headSent
    const prefixBytes = isFirst ? firstPrefixBytes : 0
    let pieceBytes = Math.min(bytes - sent, this.frameBytesMax - prefixBytes)
    // A piece may be cut to end with the data instead of leaving padding there, if that does not make it tiny.
    const toEnd = this.#capacityBytes - (this.#write & this.#indexMask) - frameHeaderBytes - prefixBytes
    if (toEnd < pieceBytes && toEnd * 4 >= this.frameBytesMax) pieceBytes = toEnd
    const start = this.#reserveInRing(prefixBytes + pieceBytes)
    if (start < 0) return false
    if (isFirst) {
      this.#i32[start >> 2] = bytes
      this.#i32[(start >> 2) + 1] = 0
    }
    const outbox = this.#outbox
    const from = (outbox.headStart + sent) >> 2
    copyWords(outbox.headI32, from, this.#i32, (start + prefixBytes) >> 2, pad8(pieceBytes) >> 2)
    this.#commitInRing(isFirst ? FrameKind.first : FrameKind.further, prefixBytes + pieceBytes)
    if (sent + pieceBytes < bytes) {
      this.#headSent = sent + pieceBytes
    } else {
      this.#headSent = -1
      outbox.removeHead()
    }
    return true
  }
}
