/**
 * SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012): the keyed 64-bit code over the tokens that
 * clients carry (causal contexts, cursors). Whoever does not know the key cannot make a valid code; 64 bits leave one chance in
 * 2^64 per try, and each try is a request.
 *
 * 64-bit words are pairs of 32-bit halves, since BigInt would allocate. The code of a message does not depend on how it was
 * cut into updates. It is no hash for passwords and no digest for files.
 */
import { assert } from './assert.ts'

/** Bytes of a key. */
export const sipHashKeyBytes = 16

/**
 * One hash under one key, used again and again: `start()`, any number of updates, `finish()`, then `low` and `high`.
 * Not shared between threads or between interleaved messages. Allocates nothing after construction.
 */
export class SipHash {
  /** Low half of the last code, a u32; valid until the next `finish()`. */
  low = 0
  /** High half of the last code, a u32; valid until the next `finish()`. */
  high = 0
  /** v0 to v3 of the paper, low half before high half. */
  readonly #state = new Int32Array(8)
  /** The state that every message starts from. */
  readonly #initial = new Int32Array(8)
  /** Bytes of the last word while it is incomplete. */
  #tailLow = 0
  #tailHigh = 0
  #tailBytes = 0
  /** Message length modulo 256: all that the code takes of it. */
  #lengthByte = 0

  /** @param key 16 bytes; they are copied */
  constructor(key: Uint8Array) {
    assert(key.length === sipHashKeyBytes, 'A SipHash key has 16 bytes')
    const k0Low = wordAt(key, 0)
    const k0High = wordAt(key, 4)
    const k1Low = wordAt(key, 8)
    const k1High = wordAt(key, 12)
    // "somepseudorandomlygeneratedbytes", four big-endian words.
    this.#initial[0] = k0Low ^ 0x70736575
    this.#initial[1] = k0High ^ 0x736f6d65
    this.#initial[2] = k1Low ^ 0x6e646f6d
    this.#initial[3] = k1High ^ 0x646f7261
    this.#initial[4] = k0Low ^ 0x6e657261
    this.#initial[5] = k0High ^ 0x6c796765
    this.#initial[6] = k1Low ^ 0x79746573
    this.#initial[7] = k1High ^ 0x74656462
    this.start()
  }

  /** Begins a message; whatever an earlier one left unfinished is forgotten. */
  start(): void {
    for (let index = 0; index < 8; index++) this.#state[index] = this.#initial[index]!
    this.#tailLow = 0
    this.#tailHigh = 0
    this.#tailBytes = 0
    this.#lengthByte = 0
  }

  /** Appends `bytes[start, end)`, a range within the array. */
  update(bytes: Uint8Array, start: number, end: number): void {
    assert(start >= 0 && start <= end && end <= bytes.length, 'The range lies within the bytes')
    let at = start
    while (this.#tailBytes !== 0 && at < end) this.#byte(bytes[at++]!)
    const words = (end - at) >>> 3
    for (const wordsEnd = at + words * 8; at < wordsEnd; at += 8) this.#mix(2, wordAt(bytes, at), wordAt(bytes, at + 4))
    this.#lengthByte = (this.#lengthByte + words * 8) & 0xff
    while (at < end) this.#byte(bytes[at++]!)
  }

  /** Appends four bytes: `value` modulo 2^32, little-endian. */
  updateU32(value: number): void {
    if (this.#tailBytes === 0) {
      this.#tailLow = value | 0
      this.#tailBytes = 4
      this.#lengthByte = (this.#lengthByte + 4) & 0xff
    } else if (this.#tailBytes === 4) {
      this.#lengthByte = (this.#lengthByte + 4) & 0xff
      this.#mix(2, this.#tailLow, value | 0)
      this.#clearTail()
    } else {
      for (let shift = 0; shift < 32; shift += 8) this.#byte((value >>> shift) & 0xff)
    }
  }

  /** Ends the message: `low` and `high` hold its code. `start()` must come before the next update. */
  finish(): void {
    this.#mix(2, this.#tailLow, this.#tailHigh | (this.#lengthByte << 24))
    this.#state[4]! ^= 0xff
    this.#mix(4, 0, 0)
    const state = this.#state
    this.low = (state[0]! ^ state[2]! ^ state[4]! ^ state[6]!) >>> 0
    this.high = (state[1]! ^ state[3]! ^ state[5]! ^ state[7]!) >>> 0
  }

  #byte(value: number): void {
    if (this.#tailBytes < 4) this.#tailLow |= value << (this.#tailBytes * 8)
    else this.#tailHigh |= value << (this.#tailBytes * 8 - 32)
    this.#tailBytes++
    this.#lengthByte = (this.#lengthByte + 1) & 0xff
    if (this.#tailBytes < 8) return
    this.#mix(2, this.#tailLow, this.#tailHigh)
    this.#clearTail()
  }

  #clearTail(): void {
    this.#tailLow = 0
    this.#tailHigh = 0
    this.#tailBytes = 0
  }

  /**
   * Takes one word in, with `rounds` rounds. A sum's carry is its operands' majority with the complement of the sum:
   * `((a & b) | ((a | b) & ~sum)) >>> 31`, which has no branch.
   */
  #mix(rounds: number, wordLow: number, wordHigh: number): void {
    const state = this.#state
    let v0Low = state[0]!
    let v0High = state[1]!
    let v1Low = state[2]!
    let v1High = state[3]!
    let v2Low = state[4]!
    let v2High = state[5]!
    let v3Low = state[6]! ^ wordLow
    let v3High = state[7]! ^ wordHigh
    let sum = 0
    let swap = 0
    for (let round = 0; round < rounds; round++) {
      // v0 += v1; v1 = (v1 <<< 13) ^ v0; v0 <<<= 32
      sum = (v0Low + v1Low) | 0
      v0High = (v0High + v1High + (((v0Low & v1Low) | ((v0Low | v1Low) & ~sum)) >>> 31)) | 0
      v0Low = sum
      swap = (v1Low << 13) | (v1High >>> 19)
      v1High = ((v1High << 13) | (v1Low >>> 19)) ^ v0High
      v1Low = swap ^ v0Low
      swap = v0Low
      v0Low = v0High
      v0High = swap
      // v2 += v3; v3 = (v3 <<< 16) ^ v2
      sum = (v2Low + v3Low) | 0
      v2High = (v2High + v3High + (((v2Low & v3Low) | ((v2Low | v3Low) & ~sum)) >>> 31)) | 0
      v2Low = sum
      swap = (v3Low << 16) | (v3High >>> 16)
      v3High = ((v3High << 16) | (v3Low >>> 16)) ^ v2High
      v3Low = swap ^ v2Low
      // v0 += v3; v3 = (v3 <<< 21) ^ v0
      sum = (v0Low + v3Low) | 0
      v0High = (v0High + v3High + (((v0Low & v3Low) | ((v0Low | v3Low) & ~sum)) >>> 31)) | 0
      v0Low = sum
      swap = (v3Low << 21) | (v3High >>> 11)
      v3High = ((v3High << 21) | (v3Low >>> 11)) ^ v0High
      v3Low = swap ^ v0Low
      // v2 += v1; v1 = (v1 <<< 17) ^ v2; v2 <<<= 32
      sum = (v2Low + v1Low) | 0
      v2High = (v2High + v1High + (((v2Low & v1Low) | ((v2Low | v1Low) & ~sum)) >>> 31)) | 0
      v2Low = sum
      swap = (v1Low << 17) | (v1High >>> 15)
      v1High = ((v1High << 17) | (v1Low >>> 15)) ^ v2High
      v1Low = swap ^ v2Low
      swap = v2Low
      v2Low = v2High
      v2High = swap
    }
    state[0] = v0Low ^ wordLow
    state[1] = v0High ^ wordHigh
    state[2] = v1Low
    state[3] = v1High
    state[4] = v2Low
    state[5] = v2High
    state[6] = v3Low
    state[7] = v3High
  }
}

function wordAt(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
}
