/**
 * The hash table in memory: for each partition an extendible hash table (Fagin et al., 1979) whose directory points to
 * chunks of 64 buckets, a bucket being one cache line. A chunk that runs full splits in two (as in Dragonfly's dashtable),
 * so the table grows by 4 KiB steps and a partition can be enumerated alone.
 *
 *   header of a partition, i32 x 4:  0 structure version   1 directory (offset << 5 | depth; 0: empty)   2 entries   3 0
 *   directory, i32 x 2^depth:        chunk number, indexed by the top `depth` bits of the hash
 *   bucket, i32 x 16:                0 version   1 reach   2..8 tags (the 32-bit hash)   9..15 addresses (0: free)
 *
 * An entry stands in its home bucket (low 6 bits of the hash) or in one of the next three; `reach` says how far a reader must
 * look, so most misses touch one line.
 *
 * One writer, any readers, no locks. A reader (resident-reader.ts) trusts what it found, or that it found nothing, only if
 * the structure version and the version of the home bucket are unchanged afterwards:
 * - replacing an address is one atomic store and bumps nothing: old and new are both right for a moment;
 * - adding and removing bump the home bucket's version before (odd) and after (even);
 * - a split fills the new chunk, repoints the directory, bumps the structure version, and only then clears what moved;
 * - a table that was built anew takes the place of the old one in the header, the structure version is bumped, and only then are the old
 *   chunks cleared and given to others.
 */
import { assert } from '../base/assert.ts'
import { equalBytes } from '../base/bytes.ts'
import { Limits } from '../config.ts'
import { type Arena, slabWordMask, wordsPerSlabBits } from './arena.ts'
import { recordBucket, recordHeaderBytes, recordKeyBytes } from './record.ts'

/** The shared memory of one index; can be posted to any thread. */
export type IndexMemory = {
  readonly partitions: SharedArrayBuffer
  readonly directories: SharedArrayBuffer
  readonly chunks: readonly SharedArrayBuffer[]
}

export const chunkBytes = 4096
export const chunkWords = chunkBytes / 4
export const bucketsPerChunk = 64
export const entriesPerBucket = 7
export const probeReachMax = 3
export const depthBits = 5
const chunksPerSlabBits = Math.log2(Limits.slabBytesMax / chunkBytes)
export const chunkSlabBits: number = chunksPerSlabBits
export const chunkSlabMask: number = (1 << chunksPerSlabBits) - 1
/** Above it a split would use the bits that pick the bucket. */
const depthMax = 26

/** A partition with less than one entry for so many places is built anew (`shrink`). */
const shrinkFactor = 8
const spareHeader = Limits.partitions * 4

/** Reserves memory for at most `chunksMax` chunks. */
export function createIndexMemory(chunksMax: number): IndexMemory {
  const chunks: SharedArrayBuffer[] = []
  const perSlab = 1 << chunksPerSlabBits
  for (let first = 0; first < chunksMax; first += perSlab) {
    chunks.push(new SharedArrayBuffer(Math.min(perSlab, chunksMax - first) * chunkBytes))
  }
  // Directories hold at most one pointer per chunk times the skew of doubling, and every size they ever had.
  return {
    // One more than there are: the owner builds tables anew under it.
    partitions: new SharedArrayBuffer((Limits.partitions + 1) * 16),
    directories: new SharedArrayBuffer(4 * Math.max(1 << 16, Math.min(1 << 27, chunksMax * 16))),
    chunks,
  }
}

/** The owner's side of the table: the only writer. */
export class HashIndex {
  readonly #arena: Arena
  readonly #partitions: Int32Array
  readonly #directories: Int32Array
  readonly #chunks: readonly Int32Array[]
  readonly #chunksMax: number
  #chunkDepth: Uint8Array
  /** Chunks that were ever taken, and those of them that were given back. */
  #chunkCount = 0
  readonly #freeChunks: number[] = []
  #directoryTop = 16
  /** Freed directories by depth. */
  readonly #freeDirectories: number[][] = Array.from({ length: depthMax + 1 }, () => [])
  #entries = 0

  /** Where the last `find` found its entry: view and word of its address; valid until the next change. */
  #foundView: Int32Array
  #foundSlab = 0
  #foundWord = 0

  constructor(memory: IndexMemory, arena: Arena) {
    this.#arena = arena
    this.#partitions = new Int32Array(memory.partitions)
    this.#directories = new Int32Array(memory.directories)
    this.#chunks = memory.chunks.map((slab) => new Int32Array(slab))
    this.#chunksMax = memory.chunks.reduce((sum, slab) => sum + slab.byteLength / chunkBytes, 0)
    this.#chunkDepth = new Uint8Array(1024)
    this.#foundView = this.#partitions
  }

  get entries(): number {
    return this.#entries
  }

  /** Bytes of chunks and directories in use. */
  get bytesUsed(): number {
    return (this.#chunkCount - this.#freeChunks.length) * chunkBytes + this.#directoryTop * 4
  }

  /** Chunks that were ever used: those behind them were never touched. */
  get chunksTaken(): number {
    return this.#chunkCount
  }

  entriesOf(partition: number): number {
    return this.#partitions[partition * 4 + 2]!
  }

  /** Address of the record of a key; 0 if there is none. */
  find(partition: number, hash: number, bucketId: number, key: Uint8Array, keyStart: number, keyBytes: number): number {
    const packed = this.#partitions[partition * 4 + 1]!
    if (packed === 0) return 0
    const chunk = this.#chunkFor(packed, hash)
    const view = this.#chunks[chunk >>> chunkSlabBits]!
    const base = (chunk & chunkSlabMask) * chunkWords
    const home = hash & (bucketsPerChunk - 1)
    const reach = view[base + home * 16 + 1]!
    const tag = hash | 0
    for (let distance = 0; distance <= reach; distance++) {
      const bucket = base + ((home + distance) & (bucketsPerChunk - 1)) * 16
      for (let entry = 2; entry < 2 + entriesPerBucket; entry++) {
        if (view[bucket + entry] !== tag) continue
        const address = view[bucket + entry + 7]! >>> 0
        if (address !== 0 && this.#isKey(address, bucketId, key, keyStart, keyBytes)) {
          this.#foundView = view
          this.#foundSlab = chunk >>> chunkSlabBits
          this.#foundWord = bucket + entry + 7
          return address
        }
      }
    }
    return 0
  }

  /** Place of the entry that `find` found last, to be given to `replaceAt`: chunk slab and word. */
  get foundSlab(): number {
    return this.#foundSlab
  }

  get foundWord(): number {
    return this.#foundWord
  }

  /**
   * Points the entry at a place noted earlier at another record of its key, if it still points to `from`: an address is in the
   * table once, so the entry is still that key's. False where it has moved since.
   */
  replaceAt(slab: number, word: number, from: number, to: number): boolean {
    const view = this.#chunks[slab]!
    if (view[word] !== (from | 0)) return false
    Atomics.store(view, word, to | 0)
    return true
  }

  /** Points the entry that `find` found last at another record of the same key: readers see the old or the new one. */
  replaceFound(address: number): void {
    Atomics.store(this.#foundView, this.#foundWord, address | 0)
  }

  /** Removes the entry that `find` found last. */
  removeFound(partition: number, hash: number): void {
    this.#remove(partition, hash, this.#foundView, this.#foundWord)
  }

  /** Removes the entry with this hash whose address stands at `word`. */
  #remove(partition: number, hash: number, view: Int32Array, word: number): void {
    const chunkBase = word - (word % chunkWords)
    const homeWord = chunkBase + (hash & (bucketsPerChunk - 1)) * 16
    Atomics.add(view, homeWord, 1)
    Atomics.store(view, word, 0)
    view[word - 7] = 0
    Atomics.add(view, homeWord, 1)
    this.#entries--
    Atomics.sub(this.#partitions, partition * 4 + 2, 1)
  }

  /**
   * Removes the entries of the chunk at directory position `position` whose records lie in segments with `isGone` 1. Returns the next
   * position that holds another chunk.
   */
  removeSegments(partition: number, position: number, isGone: Uint8Array): number {
    const packed = this.#partitions[partition * 4 + 1]!
    if (packed === 0) return 0
    const depth = packed & ((1 << depthBits) - 1)
    const size = 1 << depth
    if (position >= size) return size
    const chunk = this.#directories[(packed >>> depthBits) + position]!
    const view = this.#chunks[chunk >>> chunkSlabBits]!
    const base = (chunk & chunkSlabMask) * chunkWords
    for (let bucket = base; bucket < base + chunkWords; bucket += 16) {
      for (let word = bucket + 9; word < bucket + 9 + entriesPerBucket; word++) {
        const address = view[word]! >>> 0
        if (address === 0 || isGone[this.#arena.segmentOfAddress(address)] === 0) continue
        this.#remove(partition, view[word - 7]!, view, word)
      }
    }
    const span = 1 << (depth - this.#chunkDepth[chunk]!)
    return position - (position % span) + span
  }

  /** Adds an entry for a key that has none. Returns false when the reserved memory is used up. */
  insert(partition: number, hash: number, address: number): boolean {
    assert(address !== 0, 'An entry points to a record')
    if (!this.#insert(partition, hash, address)) return false
    this.#entries++
    Atomics.add(this.#partitions, partition * 4 + 2, 1)
    return true
  }

  #insert(partition: number, hash: number, address: number): boolean {
    for (;;) {
      const packed = this.#partitions[partition * 4 + 1]!
      if (packed === 0) {
        if (!this.#createPartition(partition)) return false
        continue
      }
      const chunk = this.#chunkFor(packed, hash)
      if (this.#place(chunk, hash, address)) return true
      if (!this.#split(partition, chunk, hash)) return false
    }
  }

  /** Whether all that can be staged at once surely fits: at worst it splits a chunk in every partition, twice. */
  hasRoom(): boolean {
    return this.#chunkCount - this.#freeChunks.length + 2 * Limits.partitions < this.#chunksMax
  }

  /** Positions of a partition's directory; walk its chunks with `visitChunk`. */
  directorySize(partition: number): number {
    const packed = this.#partitions[partition * 4 + 1]!
    return packed === 0 ? 0 : 1 << (packed & ((1 << depthBits) - 1))
  }

  /**
   * Calls `visit(address, hash)` for every entry of the chunk at directory position `position` and returns the next
   * position that holds another chunk. A position beyond the end visits nothing.
   */
  visitChunk(partition: number, position: number, visit: (address: number, hash: number) => void): number {
    const packed = this.#partitions[partition * 4 + 1]!
    if (packed === 0) return 0
    const depth = packed & ((1 << depthBits) - 1)
    const size = 1 << depth
    if (position >= size) return size
    const chunk = this.#directories[(packed >>> depthBits) + position]!
    const view = this.#chunks[chunk >>> chunkSlabBits]!
    const base = (chunk & chunkSlabMask) * chunkWords
    for (let bucket = 0; bucket < bucketsPerChunk; bucket++) {
      for (let entry = 0; entry < entriesPerBucket; entry++) {
        const address = view[base + bucket * 16 + 9 + entry]! >>> 0
        if (address !== 0) visit(address, view[base + bucket * 16 + 2 + entry]! >>> 0)
      }
    }
    const span = 1 << (depth - this.#chunkDepth[chunk]!)
    return position - (position % span) + span
  }

  /**
   * Gives back what a partition that was larger does not need any more. What few entries it has move to chunks of their own, which take the
   * place of the old ones at once; readers who are in an old one find that the structure has changed.
   */
  shrink(partition: number): void {
    const header = partition * 4
    const packed = this.#partitions[header + 1]!
    if (packed === 0) return
    const entries = this.#partitions[header + 2]!
    const places = bucketsPerChunk * entriesPerBucket
    if (entries > 0 && entries * shrinkFactor >= places << (packed & ((1 << depthBits) - 1))) return
    const old = this.#chunksOf(packed)
    if (entries > 0 && entries * shrinkFactor >= old.length * places) return
    if (entries > 0 && (old.length === 1 || !this.#rebuild(old))) return
    const fresh = entries === 0 ? 0 : this.#partitions[spareHeader + 1]!
    Atomics.store(this.#partitions, header + 1, fresh)
    Atomics.add(this.#partitions, header, 1)
    this.#partitions[spareHeader + 1] = 0
    this.#giveBack(packed, old)
  }

  /** Builds a table of the entries of `chunks` beside it, under the spare header. False, and nothing has changed, without room. */
  #rebuild(chunks: readonly number[]): boolean {
    for (const chunk of chunks) {
      const view = this.#chunks[chunk >>> chunkSlabBits]!
      const base = (chunk & chunkSlabMask) * chunkWords
      for (let bucket = base; bucket < base + chunkWords; bucket += 16) {
        for (let word = bucket + 9; word < bucket + 9 + entriesPerBucket; word++) {
          const address = view[word]! >>> 0
          if (address === 0 || this.#insert(Limits.partitions, view[word - 7]!, address)) continue
          const packed = this.#partitions[spareHeader + 1]!
          if (packed !== 0) this.#giveBack(packed, this.#chunksOf(packed))
          this.#partitions[spareHeader + 1] = 0
          return false
        }
      }
    }
    return true
  }

  #chunksOf(packed: number): number[] {
    const chunks: number[] = []
    const directory = packed >>> depthBits
    for (let position = 0; position < 1 << (packed & ((1 << depthBits) - 1)); position++) {
      const chunk = this.#directories[directory + position]!
      if (chunk !== chunks.at(-1)) chunks.push(chunk)
    }
    return chunks
  }

  /** Nobody finds these chunks any more: they are empty when somebody takes them. */
  #giveBack(packed: number, chunks: readonly number[]): void {
    for (const chunk of chunks) {
      const view = this.#chunks[chunk >>> chunkSlabBits]!
      const base = (chunk & chunkSlabMask) * chunkWords
      for (let bucket = base; bucket < base + chunkWords; bucket += 16) {
        view[bucket + 1] = 0
        for (let word = bucket + 9; word < bucket + 9 + entriesPerBucket; word++) {
          if (view[word] !== 0) Atomics.store(view, word, 0)
        }
      }
      this.#freeChunks.push(chunk)
    }
    this.#freeDirectories[packed & ((1 << depthBits) - 1)]!.push(packed >>> depthBits)
  }

  #isKey(address: number, bucketId: number, key: Uint8Array, keyStart: number, keyBytes: number): boolean {
    const slab = address >>> wordsPerSlabBits
    const at = (address & slabWordMask) << 2
    const u8 = this.#arena.u8[slab]!
    return (
      recordBucket(this.#arena.i32[slab]!, at) === bucketId &&
      recordKeyBytes(u8, at) === keyBytes &&
      equalBytes(u8, at + recordHeaderBytes, key, keyStart, keyBytes)
    )
  }

  #chunkFor(packed: number, hash: number): number {
    const depth = packed & ((1 << depthBits) - 1)
    return this.#directories[(packed >>> depthBits) + (depth === 0 ? 0 : hash >>> (32 - depth))]!
  }

  #place(chunk: number, hash: number, address: number): boolean {
    const view = this.#chunks[chunk >>> chunkSlabBits]!
    const base = (chunk & chunkSlabMask) * chunkWords
    const home = hash & (bucketsPerChunk - 1)
    const homeWord = base + home * 16
    for (let distance = 0; distance <= probeReachMax; distance++) {
      const bucket = base + ((home + distance) & (bucketsPerChunk - 1)) * 16
      for (let entry = 2; entry < 2 + entriesPerBucket; entry++) {
        if (view[bucket + entry + 7] !== 0) continue
        Atomics.add(view, homeWord, 1)
        view[bucket + entry] = hash | 0
        Atomics.store(view, bucket + entry + 7, address | 0)
        if (distance > view[homeWord + 1]!) view[homeWord + 1] = distance
        Atomics.add(view, homeWord, 1)
        return true
      }
    }
    return false
  }

  #takeChunk(depth: number): number {
    const free = this.#freeChunks.pop()
    if (free !== undefined) {
      this.#chunkDepth[free] = depth
      return free
    }
    if (this.#chunkCount >= this.#chunksMax) return -1
    const chunk = this.#chunkCount++
    if (chunk >= this.#chunkDepth.length) {
      const grown = new Uint8Array(this.#chunkDepth.length * 2)
      grown.set(this.#chunkDepth)
      this.#chunkDepth = grown
    }
    this.#chunkDepth[chunk] = depth
    return chunk
  }

  #takeDirectory(depth: number): number {
    const free = this.#freeDirectories[depth]!.pop()
    if (free !== undefined) return free
    if (this.#directoryTop + (1 << depth) > this.#directories.length) return -1
    const offset = this.#directoryTop
    this.#directoryTop += 1 << depth
    return offset
  }

  #createPartition(partition: number): boolean {
    const chunk = this.#takeChunk(0)
    if (chunk < 0) return false
    const offset = this.#takeDirectory(0)
    if (offset < 0) return false
    this.#directories[offset] = chunk
    Atomics.store(this.#partitions, partition * 4 + 1, offset << depthBits)
    Atomics.add(this.#partitions, partition * 4, 1)
    return true
  }

  #doubleDirectory(partition: number): boolean {
    const packed = this.#partitions[partition * 4 + 1]!
    const depth = packed & ((1 << depthBits) - 1)
    const offset = packed >>> depthBits
    if (depth + 1 > depthMax) return false
    const doubled = this.#takeDirectory(depth + 1)
    if (doubled < 0) return false
    for (let position = 0; position < 1 << (depth + 1); position++) {
      this.#directories[doubled + position] = this.#directories[offset + (position >>> 1)]!
    }
    Atomics.store(this.#partitions, partition * 4 + 1, (doubled << depthBits) | (depth + 1))
    Atomics.add(this.#partitions, partition * 4, 1)
    this.#freeDirectories[depth]!.push(offset)
    return true
  }

  #split(partition: number, chunk: number, hash: number): boolean {
    const local = this.#chunkDepth[chunk]!
    if (
      local === (this.#partitions[partition * 4 + 1]! & ((1 << depthBits) - 1)) &&
      !this.#doubleDirectory(partition)
    ) {
      return false
    }
    const fresh = this.#takeChunk(local + 1)
    if (fresh < 0) return false
    this.#chunkDepth[chunk] = local + 1
    const view = this.#chunks[chunk >>> chunkSlabBits]!
    const base = (chunk & chunkSlabMask) * chunkWords
    const movedBit = 31 - local
    this.#copyMoved(view, base, fresh, movedBit)
    const packed = this.#partitions[partition * 4 + 1]!
    const depth = packed & ((1 << depthBits) - 1)
    const span = 1 << (depth - local - 1)
    const first = local === 0 ? 0 : (hash >>> (32 - local)) << (depth - local)
    for (let position = first + span; position < first + 2 * span; position++) {
      Atomics.store(this.#directories, (packed >>> depthBits) + position, fresh)
    }
    Atomics.add(this.#partitions, partition * 4, 1)
    this.#clearMoved(view, base, movedBit)
    return true
  }

  /** Fills a fresh chunk, which no reader knows yet; every entry keeps its place, so it surely fits. */
  #copyMoved(view: Int32Array, base: number, fresh: number, movedBit: number): void {
    const target = this.#chunks[fresh >>> chunkSlabBits]!
    const targetBase = (fresh & chunkSlabMask) * chunkWords
    for (let bucket = 0; bucket < bucketsPerChunk; bucket++) {
      const word = bucket * 16
      for (let entry = 2; entry < 2 + entriesPerBucket; entry++) {
        const tag = view[base + word + entry]!
        const address = view[base + word + entry + 7]!
        if (address === 0 || ((tag >>> movedBit) & 1) === 0) continue
        target[targetBase + word + entry] = tag
        target[targetBase + word + entry + 7] = address
        const home = tag & (bucketsPerChunk - 1)
        const homeWord = targetBase + home * 16
        target[homeWord + 1] = Math.max(target[homeWord + 1]!, (bucket - home) & (bucketsPerChunk - 1))
      }
    }
  }

  /** Removes from a chunk what its split moved away, and shortens the reach of its buckets. */
  #clearMoved(view: Int32Array, base: number, movedBit: number): void {
    const reach = new Int32Array(bucketsPerChunk)
    for (let bucket = 0; bucket < bucketsPerChunk; bucket++) {
      const word = base + bucket * 16
      for (let entry = 2; entry < 2 + entriesPerBucket; entry++) {
        if (view[word + entry + 7] === 0) continue
        if ((view[word + entry]! >>> movedBit) & 1) {
          Atomics.store(view, word + entry + 7, 0)
        } else {
          const home = view[word + entry]! & (bucketsPerChunk - 1)
          reach[home] = Math.max(reach[home]!, (bucket - home) & (bucketsPerChunk - 1))
        }
      }
    }
    for (let bucket = 0; bucket < bucketsPerChunk; bucket++) {
      const word = base + bucket * 16
      Atomics.add(view, word, 1)
      view[word + 1] = reach[bucket]!
      Atomics.add(view, word, 1)
    }
  }
}
