/**
 * The ring: all traffic between two threads in one direction. One thread produces, one consumes; frames are written and read
 * in place in shared memory, and a whole batch becomes visible by one atomic store.
 *
 *     byte   0  u32 magic 'SWR1', u32 capacityBytes                                constant
 *          128  i32 write index       bytes ever published, modulo 2^32            stored by the producer
 *          256  i32 read index        bytes ever released, modulo 2^32             stored by the consumer
 *          384  i32 consumer sleeps   1: ring its bell after publishing            set by the consumer, cleared by both
 *          512  i32 producer waits    1: ring its bell when half the ring is free  set by the producer, cleared by both
 *          640  i32 producer death    0 alive, else the epoch in which it died     stored by whoever finds out
 *          768  i32 consumer death    likewise
 *         1024  data, capacityBytes: a power of two
 *
 * Each index stands on a line of 128 bytes of its own (a pair of cache lines: the prefetcher fetches pairs), and each side
 * looks at the other's only when its cached copy of it says that there is no room, or once per batch.
 *
 * A frame starts at a multiple of 8 in the data, does not wrap around its end, and is followed by the next one:
 *
 *      0 u32 kind << 29 | bytes   bytes: of the payload, without padding
 *      4 u32 stamp                index of the frame xor 'RING': a frame of an earlier lap never looks like one of this lap
 *      8 payload, padded to 8
 *
 *     kind 0  whole     the payload is one message
 *          1  padding   nothing; fills the end of the data when the next frame does not fit there
 *          2  first     u32 bytes of the whole message, u32 0, then its first bytes
 *          3  further   the next bytes of that message; the last such frame is known by the count
 *
 * Invariants:
 * - Only the bytes between read index and write index belong to the consumer. What a producer wrote and did not publish (it
 *   may die at any instruction) is invisible.
 * - Messages arrive exactly once, in the order of their commits, large and small alike: while the outbox holds anything,
 *   nothing overtakes it (`reserve` says full, `reserveOrQueue` queues behind).
 * - No wake is lost. Each side stores its own word and then loads the other's: the consumer `sleeps` then `write index`, the
 *   producer `write index` then `sleeps` (and likewise `producer waits` and `read index`). Atomics are sequentially
 *   consistent, so at least one of the two sees the other (Dekker 1965).
 * - No frame of at most `frameBytesMax` needs more than half of the ring, padding included: a producer that waits until half
 *   is free can go on.
 *
 * A loop turn of either side, with the bells of host/doorbell.ts (the ring itself never blocks, rings or waits):
 *
 *     producer   encode: reserve, write, commit ...      if (producer.publish()) ring the consumer's bell
 *     consumer   consumer.drain(handler, framesMax)      if (consumer.mustWakeProducer()) ring the producer's bell
 *                nothing left: if (consumer.prepareSleep()) wait for the bell, then consumer.awake(); else drain again
 *
 * It does not detect deaths, and it is never reused after one: the survivor drops it and gets a fresh ring.
 */
import { assert } from './assert.ts'

const ringMagic = 0x31525753 // 'SWR1' in little-endian bytes
/** See `stamp` in the frame's drawing. */
export const stampMask = 0x474e4952 // 'RING'
/** Bytes before the data of a ring. */
export const ringHeaderBytes = 1024
const lineBytes = 128

/** Words of the header, as indices into an Int32Array over it. */
export const HeaderWord = {
  magic: 0,
  capacity: 1,
  write: 32,
  read: 64,
  consumerSleeps: 96,
  producerWaits: 128,
  producerDeath: 160,
  consumerDeath: 192,
} as const

/** See the first word in the frame's drawing. */
export const kindShift = 29
/** The same. */
export const frameBytesMask = (1 << kindShift) - 1
/** What a frame holds. */
export const FrameKind = { whole: 0, padding: 1, first: 2, further: 3 } as const
/** Bytes before the payload of a frame. */
export const frameHeaderBytes = 8
/** Bytes before the message's own in the payload of its first piece. */
export const firstPrefixBytes = 8

const capacityBytesMin = 128
const capacityBytesMax = 2 ** 30

/** Rounds up to a multiple of 8. */
export const pad8 = (bytes: number): number => (bytes + 7) & ~7

/** Where a ring lies. It can be posted to another thread; both sides are made from it. */
export type RingRegion = {
  readonly buffer: SharedArrayBuffer
  /** A multiple of 128. */
  readonly byteOffset: number
  readonly capacityBytes: number
}

/** Shared memory that a ring of `capacityBytes` takes, header included. */
export function ringBytesTotal(capacityBytes: number): number {
  return ringHeaderBytes + capacityBytes
}

/** A fresh ring in memory of its own. `capacityBytes`: a power of two from 128 B to 1 GiB. */
export function createRing(capacityBytes: number): RingRegion {
  assertCapacity(capacityBytes)
  return placeRing(new SharedArrayBuffer(ringBytesTotal(capacityBytes)), 0, capacityBytes)
}

/**
 * A fresh ring inside a larger buffer. Its `ringBytesTotal` bytes must be zero and belong to it alone for ever: a ring is not
 * reused.
 */
export function placeRing(buffer: SharedArrayBuffer, byteOffset: number, capacityBytes: number): RingRegion {
  assertCapacity(capacityBytes)
  assert(byteOffset % lineBytes === 0, 'A ring starts at a multiple of 128 bytes')
  assert(byteOffset + ringBytesTotal(capacityBytes) <= buffer.byteLength, 'A ring lies within its buffer')
  const header = new Int32Array(buffer, byteOffset, ringHeaderBytes >> 2)
  assert(header[HeaderWord.magic] === 0, 'A ring is placed in fresh memory')
  header[HeaderWord.capacity] = capacityBytes
  Atomics.store(header, HeaderWord.magic, ringMagic)
  return { buffer, byteOffset, capacityBytes }
}

/**
 * Notes for the survivor that the other side died, in `epoch` (not 0; a count of restarts). Any thread may call it. It wakes
 * nobody: ring the survivor's bell afterwards.
 */
export function declareDead(region: RingRegion, side: 'producer' | 'consumer', epoch: number): void {
  assert(Number.isInteger(epoch) && epoch !== 0, 'The epoch of a death is an integer other than 0')
  const word = side === 'producer' ? HeaderWord.producerDeath : HeaderWord.consumerDeath
  Atomics.store(headerOf(region), word, epoch)
}

function assertCapacity(capacityBytes: number): void {
  const isPowerOfTwo = Number.isInteger(capacityBytes) && (capacityBytes & (capacityBytes - 1)) === 0
  assert(
    isPowerOfTwo && capacityBytes >= capacityBytesMin && capacityBytes <= capacityBytesMax,
    'The capacity of a ring is a power of two from 128 B to 1 GiB',
  )
}

/** The header as words; checks that a ring was made there. */
export function headerOf(region: RingRegion): Int32Array {
  const header = new Int32Array(region.buffer, region.byteOffset, ringHeaderBytes >> 2)
  assert(Atomics.load(header, HeaderWord.magic) === ringMagic, 'The region holds no ring')
  assert(header[HeaderWord.capacity] === region.capacityBytes, 'The region holds a ring of another capacity')
  return header
}

/** Largest message that travels as one frame: with its header a quarter of the ring. Larger ones travel in pieces. */
export function frameBytesMaxOf(capacityBytes: number): number {
  return (capacityBytes >> 2) - frameHeaderBytes
}
