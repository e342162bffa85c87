/**
 * The actors that one thread has met, by index: version sets that came as bytes name them so. Bounded, since an index is a u16; it never
 * forgets, since what it numbered may be in use.
 */
import type { ActorIndex, ActorTable } from './version-set.ts'

export const registeredActorsMax = 65_535

export class ActorRegistry implements ActorTable {
  readonly #low: number[] = []
  readonly #high: number[] = []
  /** By both halves of the id. */
  readonly #indexOf = new Map<number, Map<number, ActorIndex>>()

  /** Its index, noting it if it is new; -1 where there is no room. */
  readonly indexOf = (low: number, high: number): ActorIndex => {
    let byLow = this.#indexOf.get(high)
    const known = byLow?.get(low)
    if (known !== undefined) return known
    if (this.#low.length >= registeredActorsMax) return -1
    if (byLow === undefined) {
      byLow = new Map()
      this.#indexOf.set(high, byLow)
    }
    const index = this.#low.push(low) - 1
    this.#high.push(high)
    byLow.set(low, index)
    return index
  }

  lowOf(index: ActorIndex): number {
    return this.#low[index]!
  }

  highOf(index: ActorIndex): number {
    return this.#high[index]!
  }
}
