/** Real randomness: the door `Random` over the system's generator. */
import { randomFillSync } from 'node:crypto'
import type { Random } from '../env.ts'

const poolWords = 1024

/** Random numbers that nobody can guess: they name actors, seed hashes and key the codes of contexts. */
export class HostRandom implements Random {
  readonly #pool = new Uint32Array(poolWords)
  #next = poolWords

  fill(into: Uint8Array): void {
    randomFillSync(into)
  }

  /** From a pool, so that 1,024 numbers cost one call of the system. A number leaves the pool when it is given out. */
  u32(): number {
    if (this.#next === poolWords) {
      randomFillSync(this.#pool)
      this.#next = 0
    }
    const drawn = this.#pool[this.#next]!
    this.#pool[this.#next++] = 0
    return drawn
  }
}
