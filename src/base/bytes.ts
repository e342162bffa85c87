/**
 * Cursors over bytes, little-endian, for formats off the hot path (segment heads, tokens, catalog rows), and the copies that
 * hot paths use. A reader never throws on bytes from disk or wire: past the end it returns zeros and `failed` turns true.
 */
import { assert } from './assert.ts'

/** Rounds up to a multiple of 4. */
export function pad4(bytes: number): number {
  return (bytes + 3) & ~3
}

/**
 * Copies 4-byte words between aligned views. A loop of loads and stores beats `set(subarray())` below about 512 bytes, since
 * the view costs an allocation (native-free-bench/rows/copy.ts measures it); above, memmove wins.
 */
export function copyWords(source: Int32Array, from: number, target: Int32Array, to: number, words: number): void {
  if (words > 128) {
    target.set(source.subarray(from, from + words), to)
    return
  }
  for (let index = 0; index < words; index++) target[to + index] = source[from + index]!
}

/** Copies bytes of any alignment. */
export function copyBytes(source: Uint8Array, from: number, target: Uint8Array, to: number, bytes: number): void {
  if (bytes > 64) {
    target.set(source.subarray(from, from + bytes), to)
    return
  }
  for (let index = 0; index < bytes; index++) target[to + index] = source[from + index]!
}

/** Whether two ranges of equal length hold the same bytes. */
export function equalBytes(a: Uint8Array, aStart: number, b: Uint8Array, bStart: number, bytes: number): boolean {
  for (let index = 0; index < bytes; index++) if (a[aStart + index] !== b[bStart + index]) return false
  return true
}

/** Order of two ranges by unsigned bytes, the shorter first where one begins the other: negative, 0 or positive. */
export function compareBytes(
  a: Uint8Array,
  aStart: number,
  aEnd: number,
  b: Uint8Array,
  bStart: number,
  bEnd: number,
): number {
  const bytes = Math.min(aEnd - aStart, bEnd - bStart)
  for (let index = 0; index < bytes; index++) {
    const difference = a[aStart + index]! - b[bStart + index]!
    if (difference !== 0) return difference
  }
  return aEnd - aStart - (bEnd - bStart)
}

/** Appends to a growing buffer. */
export class ByteWriter {
  #bytes: Uint8Array
  #length = 0

  constructor(capacityBytes = 256) {
    this.#bytes = new Uint8Array(capacityBytes)
  }

  get length(): number {
    return this.#length
  }

  u8(value: number): void {
    this.#room(1)
    this.#bytes[this.#length++] = value
  }

  u16(value: number): void {
    this.u8(value & 0xff)
    this.u8((value >>> 8) & 0xff)
  }

  u32(value: number): void {
    this.u16(value & 0xffff)
    this.u16(value >>> 16)
  }

  /** An integer below 2^53 in eight bytes. */
  u64(value: number): void {
    assert(Number.isSafeInteger(value) && value >= 0, 'u64() takes a safe integer')
    this.u32(value >>> 0)
    this.u32(Math.floor(value / 0x1_0000_0000))
  }

  /** The bytes themselves, without a length. */
  raw(bytes: Uint8Array): void {
    this.#room(bytes.length)
    this.#bytes.set(bytes, this.#length)
    this.#length += bytes.length
  }

  /** Length as u32, then the bytes. */
  bytes(bytes: Uint8Array): void {
    this.u32(bytes.length)
    this.raw(bytes)
  }

  /** A copy of what was written. */
  toBytes(): Uint8Array {
    return this.#bytes.slice(0, this.#length)
  }

  /** Begins anew in the same memory, of which more than `keptBytesMax` is given up. */
  clear(keptBytesMax: number): void {
    this.#length = 0
    if (this.#bytes.length > keptBytesMax) this.#bytes = new Uint8Array(keptBytesMax)
  }

  #room(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + bytes))
    grown.set(this.#bytes.subarray(0, this.#length))
    this.#bytes = grown
  }
}

/** Reads what a ByteWriter wrote, from untrusted bytes. */
export class ByteReader {
  readonly #bytes: Uint8Array
  #at: number
  readonly #end: number
  #failed = false

  constructor(bytes: Uint8Array, start = 0, end: number = bytes.length) {
    this.#bytes = bytes
    this.#at = start
    this.#end = end
  }

  /** Some read went past the end. */
  get failed(): boolean {
    return this.#failed
  }

  get remaining(): number {
    return this.#end - this.#at
  }

  u8(): number {
    if (this.#at >= this.#end) {
      this.#failed = true
      return 0
    }
    return this.#bytes[this.#at++]!
  }

  u16(): number {
    const low = this.u8()
    return low | (this.u8() << 8)
  }

  u32(): number {
    const low = this.u16()
    return (low | (this.u16() << 16)) >>> 0
  }

  /** Fails where the number is not a safe integer. */
  u64(): number {
    const low = this.u32()
    const high = this.u32()
    if (high > 0x1f_ffff) this.#failed = true
    return this.#failed ? 0 : high * 0x1_0000_0000 + low
  }

  raw(bytes: number): Uint8Array {
    if (this.#failed || bytes > this.#end - this.#at) {
      this.#failed = true
      return new Uint8Array(0)
    }
    this.#at += bytes
    return this.#bytes.slice(this.#at - bytes, this.#at)
  }

  bytes(): Uint8Array {
    return this.raw(this.u32())
  }
}
