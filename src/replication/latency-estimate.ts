/**
 * How long most operations take: the 95th percentile of the latest ones. A read that takes longer asks one more replica (a hedged request:
 * Dean and Barroso, "The tail at scale", 2013), which costs about one read in twenty a message, however fast or slow the network is.
 *
 * The estimate is made anew from a fixed number of samples now and then; nothing is allocated for one.
 */

/** Samples that count. */
const samplesMax = 128
/** New ones after which the estimate is made anew. */
const refreshEvery = 32
const percentile = 0.95
/** Before there is an estimate. */
const firstMs = 50
/** Less is noise of timers, and more would help nobody. */
const leastMs = 2
const mostMs = 1000

export class LatencyEstimate {
  readonly #samples = new Float64Array(samplesMax)
  readonly #sorted = new Float64Array(samplesMax)
  #count = 0
  #hedgeMs = firstMs

  /** Milliseconds after which an operation is slower than nineteen of twenty lately. */
  get hedgeMs(): number {
    return this.#hedgeMs
  }

  /** Takes in how long an operation took, milliseconds. */
  record(durationMs: number): void {
    this.#samples[this.#count % samplesMax] = durationMs
    this.#count++
    if (this.#count % refreshEvery !== 0) return
    const known = Math.min(this.#count, samplesMax)
    this.#sorted.set(this.#samples)
    // Places that were not filled yet come last.
    this.#sorted.fill(Number.POSITIVE_INFINITY, known)
    this.#sorted.sort()
    const at = Math.min(known - 1, Math.floor(known * percentile))
    this.#hedgeMs = Math.min(mostMs, Math.max(leastMs, this.#sorted[at]!))
  }
}
