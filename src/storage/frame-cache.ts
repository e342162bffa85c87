/**
 * A cache of immutable pieces of tables in shared memory: any thread reads it without a lock, and any thread fills it. A piece is
 * named by two words, whom it belongs to and which one of that; since what a name stands for never changes, nothing is ever
 * invalidated, and names of what is gone are forgotten as they are displaced.
 *
 *   control, i32:          0 ways in use    1 pieces displaced so far
 *   sets, i32 x 32 each:   0 lock: 1 while a thread fills a frame   1 hand of the clock   2 referenced: a bit for each way   3 zero
 *                          4..11 stamps: 0 never filled, odd while being filled   12..19 owners   20..27 pieces   28..31 zero
 *   frames: slabs; the frame of (way, set) is number way * sets + set, so that ways not in use touch no memory
 *
 * Within its set a piece takes the place that CLOCK gives it (Corbato, 1968): the hand passes over what was used since it last came
 * by. A reader notes the stamp, copies what it needs, and asks whether the stamp is still the same; lengths that it meets may be
 * torn until then. A thread that cannot have the lock of a set does not wait: it does without the cache. So a thread that died
 * while it filled a frame costs one set, until the shard gets new memory.
 *
 * Where the data is larger than the cache most pieces are looked at once: of those that would displace another one in a few is
 * let in. What is asked for often comes in all the same, and the rest costs no copy.
 */
import { copyWords } from '../base/bytes.ts'
import { Limits } from '../config.ts'

const waysMax = 8
const setWords = 32
const SetWord = { lock: 0, hand: 1, referenced: 2, stamps: 4, owners: 12, pieces: 20 } as const
const ControlWord = { ways: 0, displaced: 1 } as const
/** Of pieces that would displace another, one in so many is taken; a power of two. */
const admitOneIn = 4

/** The shared memory of a cache; can be posted to any thread. */
export type FrameCacheMemory = {
  readonly control: SharedArrayBuffer
  readonly sets: SharedArrayBuffer
  readonly frames: readonly SharedArrayBuffer[]
  /** Bytes of a frame, a power of two. */
  readonly frameBytes: number
}

/** Reserves address space for a cache of at most `bytes`; memory comes with the ways that are let in use. */
export function createFrameCacheMemory(bytes: number, frameBytes: number): FrameCacheMemory {
  const sets = Math.max(1, Math.floor(bytes / (waysMax * frameBytes)))
  const whole = sets * waysMax * frameBytes
  const frames: SharedArrayBuffer[] = []
  for (let first = 0; first < whole; first += Limits.slabBytesMax) {
    frames.push(new SharedArrayBuffer(Math.min(Limits.slabBytesMax, whole - first)))
  }
  return {
    control: new SharedArrayBuffer(128),
    sets: new SharedArrayBuffer(sets * setWords * 4),
    frames,
    frameBytes,
  }
}

/** One thread's access to a cache. */
export class FrameCache {
  readonly #control: Int32Array
  readonly #sets: Int32Array
  readonly #setCount: number
  readonly #framesU8: readonly Uint8Array[]
  readonly #framesI32: readonly Int32Array[]
  readonly #framesPerSlab: number
  readonly #frameBytes: number
  #refused = 0
  #stampWord = 0
  #stamp = 0

  /** Where the piece lies that `find` found, until the next call; to be copied, and then to be asked for with `isStill`. */
  u8: Uint8Array
  i32: Int32Array
  start = 0

  constructor(memory: FrameCacheMemory) {
    this.#control = new Int32Array(memory.control)
    this.#sets = new Int32Array(memory.sets)
    this.#setCount = this.#sets.length / setWords
    this.#framesU8 = memory.frames.map((slab) => new Uint8Array(slab))
    this.#framesI32 = memory.frames.map((slab) => new Int32Array(slab))
    this.#frameBytes = memory.frameBytes
    this.#framesPerSlab = Limits.slabBytesMax / memory.frameBytes
    this.u8 = this.#framesU8[0]!
    this.i32 = this.#framesI32[0]!
  }

  get frameBytes(): number {
    return this.#frameBytes
  }

  /** Bytes of memory that the ways in use may take. */
  get bytes(): number {
    return this.ways * this.#setCount * (this.#frameBytes + (setWords * 4) / waysMax)
  }

  /** Bytes that one more way would take. */
  get bytesPerWay(): number {
    return this.#setCount * (this.#frameBytes + (setWords * 4) / waysMax)
  }

  get ways(): number {
    return Atomics.load(this.#control, ControlWord.ways)
  }

  get isWhole(): boolean {
    return this.ways === waysMax
  }

  /** Pieces that were displaced by others, all threads together; u32, and some may go uncounted. */
  get displaced(): number {
    return this.#control[ControlWord.displaced]! >>> 0
  }

  /** Lets one more way come into use: by the owner of the shard alone. Memory that was used once stays with the process. */
  grow(): void {
    if (!this.isWhole) Atomics.add(this.#control, ControlWord.ways, 1)
  }

  /** Looks for a piece. True: it is at `start` of `u8` and `i32`, to be believed only if `isStill` says so afterwards. */
  find(owner: number, piece: number): boolean {
    const sets = this.#sets
    const set = this.#setOf(owner, piece)
    const base = set * setWords
    for (let way = 0; way < waysMax; way++) {
      if (sets[base + SetWord.pieces + way] !== (piece | 0) || sets[base + SetWord.owners + way] !== (owner | 0))
        continue
      const stampWord = base + SetWord.stamps + way
      const stamp = Atomics.load(sets, stampWord)
      if (stamp === 0 || (stamp & 1) === 1) return false
      // The stamp may be that of another piece that took the frame meanwhile.
      if (sets[base + SetWord.pieces + way] !== (piece | 0) || sets[base + SetWord.owners + way] !== (owner | 0))
        return false
      // A bit that two threads set at once may be lost: the piece is displaced a little early.
      const bit = 1 << way
      if ((sets[base + SetWord.referenced]! & bit) === 0) sets[base + SetWord.referenced]! |= bit
      this.#stampWord = stampWord
      this.#stamp = stamp
      this.#show(way, set)
      return true
    }
    return false
  }

  /** Whether what was read of the piece found last is whole, and of that piece. */
  isStill(): boolean {
    return Atomics.add(this.#sets, this.#stampWord, 0) === this.#stamp
  }

  /**
   * Keeps a piece of `words` words, and in front of it `headWords` of `head`, if there is a place for it. Too large a piece is not
   * kept. `owner` is not 0.
   */
  insert(
    owner: number,
    piece: number,
    head: Int32Array,
    headWords: number,
    source: Int32Array,
    from: number,
    words: number,
  ): void {
    if ((headWords + words) * 4 > this.#frameBytes) return
    const ways = this.#control[ControlWord.ways]!
    const sets = this.#sets
    const set = this.#setOf(owner, piece)
    const base = set * setWords
    let way = this.#emptyWay(base, ways)
    if (way < 0 && (ways === 0 || (++this.#refused & (admitOneIn - 1)) !== 0)) return
    if (Atomics.compareExchange(sets, base + SetWord.lock, 0, 1) !== 0) return
    if (!this.#holds(base, owner, piece)) {
      way = this.#emptyWay(base, ways)
      if (way < 0) {
        way = this.#victim(base, ways)
        this.#control[ControlWord.displaced]!++
      }
      const stampWord = base + SetWord.stamps + way
      Atomics.add(sets, stampWord, 1)
      sets[base + SetWord.owners + way] = owner
      sets[base + SetWord.pieces + way] = piece
      this.#show(way, set)
      copyWords(head, 0, this.i32, this.start >>> 2, headWords)
      copyWords(source, from, this.i32, (this.start >>> 2) + headWords, words)
      Atomics.add(sets, stampWord, 1)
    }
    Atomics.store(sets, base + SetWord.lock, 0)
  }

  #setOf(owner: number, piece: number): number {
    let hash = Math.imul(owner, 0x9e3779b1) ^ Math.imul(piece, 0x85ebca6b)
    hash = Math.imul(hash ^ (hash >>> 15), 0xc2b2ae35)
    return Math.floor((((hash ^ (hash >>> 13)) >>> 0) * this.#setCount) / 0x1_0000_0000)
  }

  #emptyWay(base: number, ways: number): number {
    for (let way = 0; way < ways; way++) if (this.#sets[base + SetWord.stamps + way] === 0) return way
    return -1
  }

  #holds(base: number, owner: number, piece: number): boolean {
    const sets = this.#sets
    for (let way = 0; way < waysMax; way++) {
      if (sets[base + SetWord.pieces + way] !== (piece | 0) || sets[base + SetWord.owners + way] !== (owner | 0))
        continue
      if (sets[base + SetWord.stamps + way] !== 0) return true
    }
    return false
  }

  /** The first way at or behind the hand that was not used since the hand passed it. */
  #victim(base: number, ways: number): number {
    const sets = this.#sets
    let hand = sets[base + SetWord.hand]! % ways
    for (let steps = 0; steps < ways; steps++) {
      const bit = 1 << hand
      if ((sets[base + SetWord.referenced]! & bit) === 0) break
      sets[base + SetWord.referenced]! &= ~bit
      hand = (hand + 1) % ways
    }
    sets[base + SetWord.hand] = (hand + 1) % ways
    return hand
  }

  #show(way: number, set: number): void {
    const frame = way * this.#setCount + set
    const slab = Math.floor(frame / this.#framesPerSlab)
    this.u8 = this.#framesU8[slab]!
    this.i32 = this.#framesI32[slab]!
    this.start = (frame - slab * this.#framesPerSlab) * this.#frameBytes
  }
}
