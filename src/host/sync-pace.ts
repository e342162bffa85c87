/**
 * Decides whether a sync runs inline or on the pool, from the durations of the latest 128: inline while their 99th percentile is
 * under a millisecond. A fast device answers sooner than the pool would hand over; a slow one would stall everything else on
 * the thread.
 *
 * On the pool a duration includes the time until the thread gets to its callback, which says nothing about the device. So the
 * way back is judged more mildly, and whatever the way, the durations of the other one are forgotten at the change.
 */

const durationsKept = 128
const slowMs = 1
/** Of the latest 128 pool syncs so many may be slow when inline syncs are tried again: waiting for a busy thread counts as slow, too. */
const slowOnPoolMax = 8

export class SyncPace {
  readonly #latestMs = new Float64Array(durationsKept)
  #known = 0
  #next = 0
  #slow = 0
  #isInline = true

  /** Whether the next sync should run inline. A disk of which nothing is known yet counts as fast. */
  get isInline(): boolean {
    return this.#isInline
  }

  /** Takes the duration of a sync that ran the way `wasInline` says. */
  add(durationMs: number, wasInline: boolean): void {
    if (wasInline !== this.#isInline) return
    if (this.#known === durationsKept) {
      if (this.#latestMs[this.#next]! >= slowMs) this.#slow--
    } else this.#known++
    if (durationMs >= slowMs) this.#slow++
    this.#latestMs[this.#next] = durationMs
    this.#next = (this.#next + 1) % durationsKept
    const mustChange = this.#isInline ? this.#slow > 1 : this.#known === durationsKept && this.#slow <= slowOnPoolMax
    if (!mustChange) return
    this.#isInline = !this.#isInline
    this.#known = 0
    this.#next = 0
    this.#slow = 0
  }
}
