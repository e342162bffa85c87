/**
 * Finding the next keys of a bucket in one partition, in key order. The table is not ordered, so the whole partition is looked
 * at; but only the smallest keys are kept, so that a page costs one pass and never more memory or sorting than the page.
 *
 * The pass runs within one turn: what it finds is a snapshot. A partition is a thousandth of the keys, unless hash tags put
 * more into it: such a partition makes the turn longer.
 */
import { compareBytes } from '../base/bytes.ts'
import { type Arena, slabWordMask, wordsPerSlabBits } from '../storage/arena.ts'
import type { HashIndex } from '../storage/hash-index.ts'
import {
  decodeRecord,
  RecordFlag,
  recordBucket,
  recordHeaderBytes,
  recordKeyBytes,
  simpleExpiry,
} from '../storage/record.ts'
import { liveVersions } from '../versions/version-set.ts'

/** Which keys belong to a page. */
export type KeyRange = {
  readonly bucketId: number
  readonly prefix: Uint8Array
  /** Only keys behind this one. */
  readonly after: Uint8Array | undefined
  /** Versions that expire at or before this are not live. */
  readonly nowMs: number
  /** So many keys at most. */
  readonly limit: number
}

export class KeyLister {
  readonly #arena: Arena
  readonly #index: HashIndex
  #found: number[] = []
  /** Address of the greatest key that can still be chosen; 0: any. */
  #bound = 0

  constructor(arena: Arena, index: HashIndex) {
    this.#arena = arena
    this.#index = index
  }

  /** Addresses of the records with the smallest keys in the range, in key order. */
  smallest(partition: number, range: KeyRange): number[] {
    this.#found = []
    this.#bound = 0
    const keptMax = 2 * range.limit
    for (let position = 0; position < this.#index.directorySize(partition); ) {
      position = this.#index.visitChunk(partition, position, (address) => {
        if (!this.#belongs(address, range)) return
        this.#found.push(address)
        if (this.#found.length >= keptMax) this.#prune(range.limit)
      })
    }
    this.#prune(range.limit)
    return this.#found
  }

  /** Order of the keys of two records. */
  #compare(a: number, b: number): number {
    const aU8 = this.#arena.u8[a >>> wordsPerSlabBits]!
    const bU8 = this.#arena.u8[b >>> wordsPerSlabBits]!
    const aAt = (a & slabWordMask) << 2
    const bAt = (b & slabWordMask) << 2
    const aStart = aAt + recordHeaderBytes
    const bStart = bAt + recordHeaderBytes
    return compareBytes(aU8, aStart, aStart + recordKeyBytes(aU8, aAt), bU8, bStart, bStart + recordKeyBytes(bU8, bAt))
  }

  #prune(limit: number): void {
    this.#found.sort((a, b) => this.#compare(a, b))
    if (this.#found.length < limit) return
    this.#found.length = limit
    this.#bound = this.#found[limit - 1]!
  }

  #belongs(address: number, { bucketId, prefix, after, nowMs }: KeyRange): boolean {
    const slab = address >>> wordsPerSlabBits
    const at = (address & slabWordMask) << 2
    const u8 = this.#arena.u8[slab]!
    const i32 = this.#arena.i32[slab]!
    const flags = u8[at + 12]!
    if (recordBucket(i32, at) !== bucketId || flags & RecordFlag.tombstone) return false
    const keyStart = at + recordHeaderBytes
    const keyEnd = keyStart + recordKeyBytes(u8, at)
    if (keyEnd - keyStart < prefix.length) return false
    if (compareBytes(u8, keyStart, keyStart + prefix.length, prefix, 0, prefix.length) !== 0) return false
    if (after !== undefined && compareBytes(u8, keyStart, keyEnd, after, 0, after.length) <= 0) return false
    if (this.#bound !== 0 && this.#compare(address, this.#bound) > 0) return false
    if ((flags & RecordFlag.expiry) === 0) return true
    if (flags & RecordFlag.simple) return simpleExpiry(u8, i32, at) > nowMs
    return liveVersions(decodeRecord(u8, i32, at), nowMs).length > 0
  }
}
