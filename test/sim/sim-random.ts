/** Simulated randomness: the door `Random` from a seed, with numbers that a test may put in front. */
import { SeededRandom } from '../../src/base/seeded-random.ts'
import type { Random } from '../../src/env.ts'

/** Random numbers of one simulated node. */
export class SimRandom implements Random {
  readonly #seeded: SeededRandom
  readonly #forced: number[] = []

  constructor(seed: number | string | SeededRandom) {
    this.#seeded = seed instanceof SeededRandom ? seed : new SeededRandom(seed)
  }

  fill(into: Uint8Array): void {
    for (let index = 0; index < into.length; index += 4) {
      let word = this.u32()
      for (let byte = index; byte < Math.min(index + 4, into.length); byte++) {
        into[byte] = word & 0xff
        word >>>= 8
      }
    }
  }

  u32(): number {
    return this.#forced.shift() ?? this.#seeded.u32()
  }

  /** The next draws are these: to make two nodes choose the same name, or one the name it had. `fill` takes four bytes of each. */
  force(...words: number[]): void {
    for (const word of words) this.#forced.push(word >>> 0)
  }
}
