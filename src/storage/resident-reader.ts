/**
 * Lock-free reads of a shard's memory from any thread: hash, probe, copy, check the stamps again. See hash-index.ts for what
 * the stamps mean. What was copied is believed only when the shard's view version, the partition's structure version, the home
 * bucket's version and the segment's generation are all as they were before the probe. After eight tries the caller asks the
 * owner.
 *
 * Order. A call of `Atomics` costs as much as ten plain loads, so there are two per read, where order is decided: the one that
 * notes the generation, before the record is read, and the one that begins the second look, after it was copied. The compiler
 * moves no load over either call; what is noted before the first is branched on or kept in a field at once. The processor
 * keeps the order of loads on x86. Elsewhere (`weakOrder`) every look is an `Atomics.load`, and, since a plain load may sink
 * below an acquire, the second look is a read-modify-write.
 */
import { copyWords, pad4 } from '../base/bytes.ts'
import type { ActorTable } from '../versions/version-set.ts'
import { Arena, slabWordMask, wordsPerSlabBits } from './arena.ts'
import { bucketsPerChunk, chunkSlabBits, chunkSlabMask, chunkWords, depthBits, entriesPerBucket } from './hash-index.ts'
import { RecordFlag, recordHeaderBytes } from './record.ts'
import { ControlWord, type ShardMemory, ShardState } from './shard-memory.ts'

/** Results of a read below 0; otherwise it is a length in bytes. */
export const ReadResult = {
  /** Surely no record. */
  absent: -1,
  /** Changed eight times while being read: ask the owner. */
  contended: -2,
  /** The shard is recovering or down. */
  unavailable: -3,
  /** `readValue` only: not a plain live value; use `readRecord`. */
  special: -4,
  /** The target is too small; `neededBytes` says how much it takes. */
  tooSmall: -5,
  /** A slow read of a table would be needed: the owner makes it without waiting for it. */
  notResident: -6,
} as const

const triesMax = 8

/** One thread's view of one shard. Not shared; replaced when the shard's memory is. */
export class ResidentReader {
  readonly #control: Int32Array
  readonly #partitions: Int32Array
  readonly #directories: Int32Array
  readonly #chunks: readonly Int32Array[]
  readonly #arena: Arena
  readonly #actorTable: ActorTable
  readonly #weakOrder: boolean

  /** Bytes that the last `tooSmall` read needs. */
  neededBytes = 0
  /** Retries so far, for statistics. */
  retries = 0

  // Stamps and place of the last probe.
  #bucketView: Int32Array
  #bucketWord = 0
  #bucketVersion = 0
  #structureVersion = 0
  #viewVersion = 0
  #segment = 0
  #generation = 0
  #recordWord = 0
  #recordBytes = 0

  constructor(memory: ShardMemory, weakOrder: boolean) {
    this.#control = new Int32Array(memory.control)
    this.#partitions = new Int32Array(memory.index.partitions)
    this.#directories = new Int32Array(memory.index.directories)
    this.#chunks = memory.index.chunks.map((slab) => new Int32Array(slab))
    this.#arena = new Arena(memory.arena)
    const actors = new Int32Array(memory.actors)
    this.#actorTable = {
      lowOf: (index) => Atomics.load(actors, index * 2) >>> 0,
      highOf: (index) => Atomics.load(actors, index * 2 + 1) >>> 0,
    }
    this.#weakOrder = weakOrder
    this.#bucketView = this.#partitions
  }

  get isUp(): boolean {
    return Atomics.load(this.#control, ControlWord.state) === ShardState.up
  }

  /** Whether what was read may not be on stable storage yet. Ask after the read. */
  get mayHoldUnsynced(): boolean {
    return Atomics.load(this.#control, ControlWord.mayHoldUnsynced) !== 0
  }

  /** Ids of the actors that records name by index. */
  get actors(): ActorTable {
    return this.#actorTable
  }

  /**
   * Copies the whole record of a key to the start of `u8`/`i32` (one buffer). Returns its bytes, `absent`, `contended`,
   * `unavailable` or `tooSmall`.
   */
  readRecord(
    partition: number,
    hash: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
    i32: Int32Array,
  ): number {
    for (let tries = 0; tries < triesMax; tries++) {
      const slab = this.#probe(partition, hash, bucketId, key, keyStart, keyBytes)
      if (slab >= 0) {
        const bytes = this.#recordBytes
        const fits = bytes <= i32.length << 2
        if (fits) copyWords(this.#arena.i32[slab]!, this.#recordWord, i32, 0, bytes >>> 2)
        if (this.#isStill(partition)) {
          if (fits) return bytes
          this.neededBytes = bytes
          return ReadResult.tooSmall
        }
      } else if (slab === ReadResult.unavailable) {
        return slab
      } else if (slab === ReadResult.absent && this.#isStill(partition)) {
        return ReadResult.absent
      }
      this.retries++
    }
    return ReadResult.contended
  }

  /**
   * Copies the value alone into `u8[at...]`, the fast path for one live version without expiry. Returns its length; `special`
   * for everything else that is present.
   */
  readValue(
    partition: number,
    hash: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
    u8: Uint8Array,
    i32: Int32Array | undefined,
    at: number,
  ): number {
    for (let tries = 0; tries < triesMax; tries++) {
      const slab = this.#probe(partition, hash, bucketId, key, keyStart, keyBytes)
      if (slab >= 0) {
        const source = this.#arena.i32[slab]!
        const word = this.#recordWord
        const flags = source[word + 3]!
        const typeBytes = source[word + 5]! >>> 16
        let result: number = ReadResult.special
        if (
          (flags & (RecordFlag.simple | RecordFlag.tombstone | RecordFlag.expiry | RecordFlag.timestamp)) ===
          RecordFlag.simple
        ) {
          const from = word + ((recordHeaderBytes + pad4(keyBytes) + pad4(typeBytes)) >>> 2)
          const words = word + (this.#recordBytes >>> 2) - from
          const bytes = (words << 2) - ((flags & RecordFlag.paddingMask) >>> 4)
          if (words < 0) {
            result = ReadResult.contended
          } else if (bytes > u8.length - at) {
            this.neededBytes = bytes
            result = ReadResult.tooSmall
          } else {
            if (i32 !== undefined && (at & 3) === 0 && (words << 2) + at <= u8.length) {
              copyWords(source, from, i32, at >>> 2, words)
            } else {
              this.#copyOut(slab, from << 2, u8, at, bytes)
            }
            result = bytes
          }
        }
        if (this.#isStill(partition)) return result
      } else if (slab === ReadResult.unavailable) {
        return slab
      } else if (slab === ReadResult.absent && this.#isStill(partition)) {
        return ReadResult.absent
      }
      this.retries++
    }
    return ReadResult.contended
  }

  #copyOut(slab: number, from: number, u8: Uint8Array, at: number, bytes: number): void {
    const source = this.#arena.u8[slab]!
    if (bytes > 256) {
      u8.set(source.subarray(from, from + bytes), at)
      return
    }
    for (let index = 0; index < bytes; index++) u8[at + index] = source[from + index]!
  }

  /** Notes all stamps, then looks for the key. Returns the slab of its record (place in the fields), or a ReadResult. */
  #probe(
    partition: number,
    hash: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
  ): number {
    this.#viewVersion = this.#look(this.#control, ControlWord.viewVersion)
    if (this.#look(this.#control, ControlWord.state) !== ShardState.up) return ReadResult.unavailable
    this.#structureVersion = this.#look(this.#partitions, partition * 4)
    const packed = this.#look(this.#partitions, partition * 4 + 1)
    this.#segment = -1
    if (packed === 0) {
      this.#bucketView = this.#partitions
      this.#bucketWord = partition * 4
      this.#bucketVersion = this.#structureVersion
      return ReadResult.absent
    }
    const depth = packed & ((1 << depthBits) - 1)
    const chunk = this.#look(this.#directories, (packed >>> depthBits) + (depth === 0 ? 0 : hash >>> (32 - depth)))
    const view = this.#chunks[chunk >>> chunkSlabBits]
    if (view === undefined) return ReadResult.contended
    const base = (chunk & chunkSlabMask) * chunkWords
    const home = hash & (bucketsPerChunk - 1)
    const homeWord = base + home * 16
    this.#bucketView = view
    this.#bucketWord = homeWord
    this.#bucketVersion = this.#look(view, homeWord)
    if (this.#bucketVersion & 1) return ReadResult.contended
    const reach = view[homeWord + 1]!
    const tag = hash | 0
    for (let distance = 0; distance <= reach; distance++) {
      const bucket = base + ((home + distance) & (bucketsPerChunk - 1)) * 16
      for (let entry = bucket + 2; entry < bucket + 2 + entriesPerBucket; entry++) {
        if (view[entry] !== tag) continue
        const address = this.#look(view, entry + 7) >>> 0
        if (address === 0) continue
        const found = this.#matches(view, entry + 7, address, bucketId, key, keyStart, keyBytes)
        if (found !== ReadResult.absent) return found
      }
    }
    return ReadResult.absent
  }

  /**
   * Compares the key of the record at `address`, which `view[entryWord]` held. The entry is read again after the generation:
   * only if it still points here was the segment in use when its generation was noted (an entry is repointed, without a bump of
   * its bucket, before its old segment is recycled). The length is bounded by the end of the segment before anything is copied.
   */
  #matches(
    view: Int32Array,
    entryWord: number,
    address: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
  ): number {
    const arena = this.#arena
    const slab = address >>> wordsPerSlabBits
    const word = address & slabWordMask
    const segment = (slab << arena.segmentsPerSlabBits) | (word >>> arena.segmentWordBits)
    const generation = Atomics.load(arena.generations, segment)
    if (this.#look(view, entryWord) !== (address | 0)) return ReadResult.contended
    const i32 = arena.i32[slab]!
    const recordBytes = i32[word]! >>> 0
    const segmentWordMask = (1 << arena.segmentWordBits) - 1
    const bytesLeft = arena.segmentBytes - ((word & segmentWordMask) << 2)
    if (i32[word + 2]! >>> 0 !== bucketId || i32[word + 1]! >>> 16 !== keyBytes)
      return this.#otherKey(segment, generation)
    if (recordBytes > bytesLeft || recordBytes < recordHeaderBytes + keyBytes || (recordBytes & 3) !== 0) {
      return ReadResult.contended
    }
    let at = keyStart
    let keyWord = word + recordHeaderBytes / 4
    const wholeEnd = keyStart + (keyBytes & ~3)
    for (; at < wholeEnd; at += 4, keyWord++) {
      const wanted = key[at]! | (key[at + 1]! << 8) | (key[at + 2]! << 16) | (key[at + 3]! << 24)
      if (i32[keyWord] !== wanted) return this.#otherKey(segment, generation)
    }
    if (at < keyStart + keyBytes) {
      let wanted = key[at]!
      if (at + 1 < keyStart + keyBytes) wanted |= key[at + 1]! << 8
      if (at + 2 < keyStart + keyBytes) wanted |= key[at + 2]! << 16
      if (i32[keyWord] !== wanted) return this.#otherKey(segment, generation)
    }
    this.#segment = segment
    this.#generation = generation
    this.#recordWord = word
    this.#recordBytes = recordBytes
    return slab
  }

  /** A key that differs is another key only if its segment was not recycled while it was compared. */
  #otherKey(segment: number, generation: number): number {
    return Atomics.load(this.#arena.generations, segment) === generation ? ReadResult.absent : ReadResult.contended
  }

  /** Whether every stamp is as the probe noted it: what was read or copied since is whole and was true at some moment. */
  #isStill(partition: number): boolean {
    if (this.#weakOrder) {
      if (this.#segment >= 0 && Atomics.add(this.#arena.generations, this.#segment, 0) !== this.#generation)
        return false
      return (
        Atomics.add(this.#bucketView, this.#bucketWord, 0) === this.#bucketVersion &&
        Atomics.add(this.#partitions, partition * 4, 0) === this.#structureVersion &&
        Atomics.load(this.#control, ControlWord.viewVersion) === this.#viewVersion
      )
    }
    // The call of Atomics comes first, whichever it is: the plain loads behind it see what is there after the copy.
    if (this.#segment < 0) {
      if (Atomics.load(this.#bucketView, this.#bucketWord) !== this.#bucketVersion) return false
    } else {
      if (Atomics.load(this.#arena.generations, this.#segment) !== this.#generation) return false
      if (this.#bucketView[this.#bucketWord] !== this.#bucketVersion) return false
    }
    return (
      this.#partitions[partition * 4] === this.#structureVersion &&
      this.#control[ControlWord.viewVersion] === this.#viewVersion
    )
  }

  /** A load in its place: see the file header. */
  #look(view: Int32Array, word: number): number {
    return this.#weakOrder ? Atomics.load(view, word) : view[word]!
  }
}
