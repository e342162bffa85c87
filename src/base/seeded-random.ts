/**
 * A deterministic generator: the same seed gives the same numbers on every machine and in every release. Everything that a
 * simulator draws comes from one of these, so that one number replays a whole run.
 *
 * The generator is sfc32 of Chris Doty-Humphrey (PractRand): 128 bits of state in four u32, of which one is a counter, so
 * that no cycle is shorter than 2^32 outputs; adds, shifts and xors only, which engines keep in integer registers.
 *
 * It is not for secrets: who sees a few numbers can compute the rest.
 */
import { assert } from './assert.ts'

/**
 * Random numbers that a seed determines, with the draws that tests and simulators need. It fits the door `Random`; it does
 * not say so with `implements`, since this floor knows no doors.
 */
export class SeededRandom {
  #a: number
  #b: number
  #c: number
  #counter = 1

  /** `seed` is any integer of at most 53 bits, or a text. Equal seeds give equal sequences; a number and its text differ. */
  constructor(seed: number | string) {
    if (typeof seed === 'number') {
      assert(Number.isSafeInteger(seed), 'A seed is a safe integer or a text')
      this.#a = 0
      this.#b = seed >>> 0
      this.#c = Math.floor(seed / 2 ** 32) >>> 0
    } else {
      this.#a = 1
      this.#b = hashOf(seed, 0x811c9dc5)
      this.#c = hashOf(seed, 0x9747b28c)
    }
    for (let round = 0; round < 15; round++) this.u32()
  }

  /** A number from 0 to 2^32 - 1, all equally likely. */
  u32(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0
    this.#counter = (this.#counter + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0
    return sum >>> 0
  }

  /** An integer from 0 to `bound - 1`, all equally likely. `bound` is 1 to 2^32. */
  below(bound: number): number {
    assert(Number.isInteger(bound) && bound >= 1 && bound <= 0x1_0000_0000, 'A bound is an integer from 1 to 2^32')
    // The numbers at and above the greatest multiple of the bound are drawn anew, so that none is favoured.
    const limit = 0x1_0000_0000 - (0x1_0000_0000 % bound)
    let drawn = this.u32()
    while (drawn >= limit) drawn = this.u32()
    return drawn % bound
  }

  /** An integer from `first` to `last`, both included, all equally likely. */
  between(first: number, last: number): number {
    assert(Number.isSafeInteger(first) && first <= last, 'A range runs from an integer up to one not below it')
    return first + this.below(last - first + 1)
  }

  /**
   * True in `numerator` of `denominator` cases. It draws even where the answer is sure, so that a rate can be changed without
   * moving the rest of a run.
   */
  chance(numerator: number, denominator: number): boolean {
    assert(numerator >= 0 && numerator <= denominator, 'A chance is between none and all')
    return this.below(denominator) < numerator
  }

  /** A number from 0 (included) to 1 (excluded), with 32 bits. */
  fraction(): number {
    return this.u32() / 0x1_0000_0000
  }

  /** Fills `into` with random bytes. */
  fill(into: Uint8Array): void {
    let word = 0
    for (let index = 0; index < into.length; index++) {
      if ((index & 3) === 0) word = this.u32()
      into[index] = word & 0xff
      word >>>= 8
    }
  }

  /** One of `items`, all equally likely; there must be one. */
  pick<Item>(items: readonly Item[]): Item {
    assert(items.length > 0, 'Cannot pick from nothing')
    return items[this.below(items.length)] as Item
  }

  /** Puts `items` into a random order, in place, all orders equally likely (Fisher and Yates). Returns `items`. */
  shuffle<Item>(items: Item[]): Item[] {
    for (let last = items.length - 1; last > 0; last--) {
      const other = this.below(last + 1)
      const held = items[last] as Item
      items[last] = items[other] as Item
      items[other] = held
    }
    return items
  }

  /**
   * A generator of its own for one part of a run. It depends on this one's seed and draws so far and on `label`; later draws
   * from either do not touch the other. Takes one draw.
   */
  fork(label: string): SeededRandom {
    return new SeededRandom(`${this.u32()}/${label}`)
  }
}

/** FNV-1a over UTF-16 code units with a final mix (murmur3's), from a given basis. */
function hashOf(text: string, basis: number): number {
  let hash = basis
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
