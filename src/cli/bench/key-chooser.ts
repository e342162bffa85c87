/**
 * Which record an operation of a benchmark touches: pure generators of record numbers from 0 to a count that may grow, each drawing
 * from a seeded generator, so that a seed replays a run.
 *
 * Zipfian is Gray's method ("Quickly generating billion-record synthetic databases", SIGMOD 1994) with YCSB's constant 0.99: number
 * 0 is the most popular. Scrambled spreads the popular ones over all numbers by a hash, as YCSB does; Latest counts from the newest
 * record backwards. Growing the count of a Zipfian costs one power per added record; the sum over the first records is kept.
 */
import { assert } from '../../base/assert.ts'

/** A source of equally likely u32, such as SeededRandom. */
export type Draws = { u32(): number }

/** Draws record numbers. */
export type KeyChooser = {
  /** A record number below the count. */
  next(): number
  /** Sets the count, which only grows. */
  grow(count: number): void
}

/** A fraction from 0 up to but without 1. */
const fraction = (draws: Draws): number => draws.u32() / 2 ** 32

/** All numbers equally likely. */
export class UniformChooser implements KeyChooser {
  readonly #draws: Draws
  #count: number

  constructor(draws: Draws, count: number) {
    assert(count >= 1, 'There is a record to choose')
    this.#draws = draws
    this.#count = count
  }

  next(): number {
    return Math.floor(fraction(this.#draws) * this.#count)
  }

  grow(count: number): void {
    this.#count = Math.max(this.#count, count)
  }
}

/** YCSB's exponent: the record of rank r is drawn in proportion to 1 / r^0.99. */
export const zipfianExponent = 0.99

/** Popular numbers are the small ones. */
export class ZipfianChooser implements KeyChooser {
  readonly #draws: Draws
  #count = 0
  /** Sum of 1 / rank^exponent over all ranks so far. */
  #sum = 0
  #eta = 0

  constructor(draws: Draws, count: number) {
    assert(count >= 1, 'There is a record to choose')
    this.#draws = draws
    this.grow(count)
  }

  next(): number {
    const drawn = fraction(this.#draws)
    const scaled = drawn * this.#sum
    if (scaled < 1 || this.#count === 1) return 0
    if (scaled < 1 + 0.5 ** zipfianExponent || this.#count === 2) return 1
    const rank = Math.floor(this.#count * (this.#eta * drawn - this.#eta + 1) ** (1 / (1 - zipfianExponent)))
    return Math.min(rank, this.#count - 1)
  }

  grow(count: number): void {
    if (count <= this.#count) return
    for (let rank = this.#count + 1; rank <= count; rank++) this.#sum += 1 / rank ** zipfianExponent
    this.#count = count
    const sumOfTwo = 1 + 0.5 ** zipfianExponent
    this.#eta = (1 - (2 / count) ** (1 - zipfianExponent)) / (1 - sumOfTwo / this.#sum)
  }
}

/** As popular as Zipfian's, but the popular ones lie anywhere. Several ranks may fall on one number, as in YCSB. */
export class ScrambledChooser implements KeyChooser {
  readonly #zipfian: ZipfianChooser
  #count: number

  constructor(draws: Draws, count: number) {
    this.#zipfian = new ZipfianChooser(draws, count)
    this.#count = count
  }

  next(): number {
    return mixed(this.#zipfian.next()) % this.#count
  }

  grow(count: number): void {
    this.#zipfian.grow(count)
    this.#count = Math.max(this.#count, count)
  }
}

/** The newest record, the one with the greatest number, is the most popular. */
export class LatestChooser implements KeyChooser {
  readonly #zipfian: ZipfianChooser
  #count: number

  constructor(draws: Draws, count: number) {
    this.#zipfian = new ZipfianChooser(draws, count)
    this.#count = count
  }

  next(): number {
    return this.#count - 1 - this.#zipfian.next()
  }

  grow(count: number): void {
    this.#zipfian.grow(count)
    this.#count = Math.max(this.#count, count)
  }
}

/** A u32 scrambled one to one (the finalizer of MurmurHash3). */
function mixed(value: number): number {
  let word = value | 0
  word = Math.imul(word ^ (word >>> 16), 0x85ebca6b)
  word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35)
  return (word ^ (word >>> 16)) >>> 0
}
