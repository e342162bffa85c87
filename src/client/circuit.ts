/**
 * Whether an endpoint is worth a request. Some failures in a row open the circuit: other endpoints come first then, until a probe finds this
 * one well again. Probes are few: after each that fails the pause doubles, up to a bound, and is drawn at random so that clients do not come
 * all at once. An open circuit never refuses anything: where all are open, requests are sent all the same.
 */

/** Failures in a row that open the circuit. */
const failuresMax = 3
/** Bounds of the pause before a probe. */
const pauseMs = { first: 250, max: 10_000 } as const

export class Circuit {
  readonly #random: () => number
  #failures = 0
  #probesFailed = 0
  #probeAtMs = 0

  /** `random` gives numbers from 0 to below 1. */
  constructor(random: () => number) {
    this.#random = random
  }

  get isOpen(): boolean {
    return this.#failures >= failuresMax
  }

  /** The endpoint answered a request or a probe. */
  succeeded(): void {
    this.#failures = 0
    this.#probesFailed = 0
  }

  /** The endpoint did not answer a request, or said that it does not serve. Many that were under way together tell no more than a few. */
  failed(nowMs: number): void {
    if (this.isOpen) return
    this.#failures++
    if (this.isOpen) this.#pause(nowMs)
  }

  /** Whether a probe is due. Who is told so sends it: nobody else is, until its result is in or a longest pause has passed. */
  claimProbe(nowMs: number): boolean {
    if (!this.isOpen || nowMs < this.#probeAtMs) return false
    this.#probeAtMs = nowMs + pauseMs.max
    return true
  }

  /** The endpoint did not answer a probe, or not well. */
  probeFailed(nowMs: number): void {
    this.#probesFailed++
    this.#pause(nowMs)
  }

  #pause(nowMs: number): void {
    const whole = Math.min(pauseMs.max, pauseMs.first * 2 ** Math.min(16, this.#probesFailed))
    this.#probeAtMs = nowMs + whole * (0.5 + this.#random() / 2)
  }
}
