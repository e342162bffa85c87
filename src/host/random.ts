/** Real randomness: the door `Random` over the system's generator. */
import { randomFillSync } from 'node:crypto'
import type { Random } from '../env.ts'

const poolBytes = 4096

export class HostRandom implements Random {
  readonly #pool = new Uint32Array(poolBytes / 4)
  #next = poolBytes / 4

  fill(into: Uint8Array): void {
    randomFillSync(into)
  }

  /** From a pool: one system call per 1,024 numbers. */
  u32(): number {
    if (this.#next === this.#pool.length) {
      randomFillSync(this.#pool)
      this.#next = 0
    }
    return this.#pool[this.#next++]!
  }
}
