/**
 * The 64-bit hash of a stored key (bucket id and key bytes) as two u32 lanes, seeded per process so that nobody outside can
 * aim keys at one bucket. Two MurmurHash3-like lanes (Appleby, public domain) read each 4-byte word once. It never reaches
 * disk or wire: recovery hashes anew.
 */

export type HashSeed = { readonly low: number; readonly high: number }

/**
 * Holds the last result, since two numbers cannot be returned without an allocation. One per user; not shared. The lanes are signed:
 * a field of unsigned ones would hold a boxed double, and the hash of every read would be converted there and back.
 */
export class KeyHash {
  low = 0
  high = 0
  readonly #seedLow: number
  readonly #seedHigh: number

  constructor(seed: HashSeed) {
    this.#seedLow = seed.low | 0
    this.#seedHigh = seed.high | 0
  }

  /** Sets `low` and `high` (i32) for bucket `bucketId` and key `bytes[start, end)`. */
  update(bucketId: number, bytes: Uint8Array, start: number, end: number): void {
    let a = this.#seedLow ^ Math.imul(bucketId, 0x2545f491)
    let b = this.#seedHigh ^ Math.imul(end - start, 0x9e3779b1)
    let at = start
    for (; at + 4 <= end; at += 4) {
      const word = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
      a ^= Math.imul(word, 0xcc9e2d51)
      a = Math.imul((a << 13) | (a >>> 19), 5) + 0xe6546b64
      b ^= Math.imul((word << 15) | (word >>> 17), 0x1b873593)
      b = Math.imul((b << 17) | (b >>> 15), 0x85ebca6b) + a
    }
    if (at < end) {
      let word = bytes[at]!
      if (at + 1 < end) word |= bytes[at + 1]! << 8
      if (at + 2 < end) word |= bytes[at + 2]! << 16
      a ^= Math.imul(word, 0xcc9e2d51)
      b ^= Math.imul((word << 15) | (word >>> 17), 0x1b873593)
    }
    b = (b + Math.imul(a ^ (a >>> 15), 0x9e3779b1)) | 0
    a = Math.imul(a ^ (b >>> 16), 0x85ebca6b)
    a = Math.imul(a ^ (a >>> 13), 0xc2b2ae35)
    a ^= a >>> 16
    b = Math.imul(b ^ (b >>> 15) ^ a, 0x27d4eb2f)
    this.low = a | 0
    this.high = (b ^ (b >>> 13)) | 0
  }
}
