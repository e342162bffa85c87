/**
 * What a set of clients may rely on: per key the value that the server acknowledged last, and the values of later writes whose
 * answers never came. Each key has one client, so its writes have an order. A read after a crash must show the acknowledged
 * value or one of the later ones; whatever it shows is what must be there from then on, since it was shown.
 */

/** A value, or undefined for a key without one. */
export type Held = string | undefined

const brief = (value: Held): string => (value === undefined ? 'nothing' : `"${value.slice(0, 40)}"`)

type KeyState = { acknowledged: Held; possible: Held[] }

export class Witness {
  readonly #keys = new Map<string, KeyState>()
  /** Writes that were acknowledged. */
  acknowledgedWrites = 0
  /** Writes whose fate nobody told. */
  unknownWrites = 0

  /** The same knowledge, to be continued on a copy of the data. */
  copy(): Witness {
    const copy = new Witness()
    for (const [key, { acknowledged, possible }] of this.#keys) {
      copy.#keys.set(key, { acknowledged, possible: [...possible] })
    }
    return copy
  }

  get keys(): IterableIterator<string> {
    return this.#keys.keys()
  }

  /** Notes an acknowledged write; earlier ones of the key can no longer show. */
  acknowledged(key: string, value: Held): void {
    this.acknowledgedWrites++
    this.#keys.set(key, { acknowledged: value, possible: [] })
  }

  /** Notes a write that may or may not have taken effect. */
  unknown(key: string, value: Held): void {
    this.unknownWrites++
    this.#state(key).possible.push(value)
  }

  /** Judges what a read showed: undefined if it is right, else what is wrong. */
  judge(key: string, shown: Held): string | undefined {
    const state = this.#state(key)
    if (shown !== state.acknowledged && !state.possible.includes(shown)) {
      const expected = [state.acknowledged, ...state.possible].map(brief).join(' or ')
      return `${key} shows ${brief(shown)} instead of ${expected}`
    }
    this.#keys.set(key, { acknowledged: shown, possible: [] })
    return undefined
  }

  #state(key: string): KeyState {
    let state = this.#keys.get(key)
    if (state === undefined) {
      state = { acknowledged: undefined, possible: [] }
      this.#keys.set(key, state)
    }
    return state
  }
}
