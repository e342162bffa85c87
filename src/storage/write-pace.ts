/**
 * Slows writers down before they would have to stop. Where merging falls behind, or memory fills faster than it is written to
 * tables, what may be written in a moment shrinks with what is left of the margin: the closer to the end of it, the slower, so that
 * in place of a stall of seconds every write waits a little. The measure is the store's own recent speed, whatever the machine.
 */

/** What is left at the least: with less, requests would run into their deadlines rather than wait. */
const leastShare = 0.02
/** Allowance that may gather, milliseconds of the present rate. */
const burstMs = 20
/** How fast the memory of the greatest speed fades: by half in so many milliseconds. */
const halfLifeMs = 10_000
/** Speed is measured over at least so long. */
const measureMs = 100
/** Speed that is assumed before there is a measure, bytes a millisecond. */
const firstSpeed = 10_000

export class WritePace {
  /** Greatest speed of late, bytes a millisecond. */
  #speed = firstSpeed
  #measuredMs = Number.NEGATIVE_INFINITY
  #measuredBytes = 0
  #allowance = 0
  #lastMs = 0
  #lastBytes = 0

  /**
   * Notes that `bytes` were written in all by `nowMs`, under a pressure from 0 (none) to 1. True: the next writes are to wait.
   */
  isBehind(pressure: number, bytes: number, nowMs: number): boolean {
    this.#measure(pressure, bytes, nowMs)
    const passedMs = nowMs - this.#lastMs
    const written = bytes - this.#lastBytes
    this.#lastMs = nowMs
    this.#lastBytes = bytes
    if (pressure <= 0) {
      this.#allowance = 0
      return false
    }
    const rate = this.#speed * Math.max(leastShare, 1 - Math.min(1, pressure))
    this.#allowance = Math.min(rate * burstMs, this.#allowance + rate * passedMs - written)
    return this.#allowance < 0
  }

  #measure(pressure: number, bytes: number, nowMs: number): void {
    const passedMs = nowMs - this.#measuredMs
    if (passedMs < measureMs) return
    if (passedMs < 10 * measureMs) {
      // Under pressure what was written tells of the pressure alone.
      const faded = pressure > 0 ? this.#speed : this.#speed * 0.5 ** (passedMs / halfLifeMs)
      this.#speed = Math.max(faded, (bytes - this.#measuredBytes) / passedMs, firstSpeed / 10)
    }
    this.#measuredMs = nowMs
    this.#measuredBytes = bytes
  }
}
