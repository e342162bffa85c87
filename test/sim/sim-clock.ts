/** Simulated time: the door `Clock`, moved by hand. Wall time follows monotonic time at a rate, from an offset that can jump. */
import assert from 'node:assert/strict'
import type { EpochMs, MonotonicMs } from '../../src/base/ids.ts'
import type { Clock } from '../../src/env.ts'

export type SimClockOptions = {
  /** Where monotonic time starts. */
  readonly monotonicMs?: number
  /** Where wall time starts; 2026-01-01 if not given. */
  readonly epochMs?: number
}

const epochMsDefault = Date.UTC(2026, 0, 1)

/** A clock that stands still until somebody moves it. */
export class SimClock implements Clock {
  #monotonicMs: number
  /** Wall time at `#baseMonotonicMs`. */
  #baseEpochMs: number
  #baseMonotonicMs: number
  #rate = 1

  constructor(options: SimClockOptions = {}) {
    this.#monotonicMs = options.monotonicMs ?? 0
    this.#baseMonotonicMs = this.#monotonicMs
    this.#baseEpochMs = options.epochMs ?? epochMsDefault
  }

  monotonicMs(): MonotonicMs {
    return this.#monotonicMs as MonotonicMs
  }

  epochMs(): EpochMs {
    const elapsedMs = this.#monotonicMs - this.#baseMonotonicMs
    return Math.floor(this.#baseEpochMs + elapsedMs * this.#rate) as EpochMs
  }

  /** Lets time pass. It never goes back. */
  advance(durationMs: number): void {
    assert.ok(durationMs >= 0 && Number.isFinite(durationMs), 'Monotonic time only goes forward')
    this.#monotonicMs += durationMs
  }

  /** Advances to a point of monotonic time; does nothing if it has passed. */
  advanceTo(monotonicMs: number): void {
    if (monotonicMs > this.#monotonicMs) this.#monotonicMs = monotonicMs
  }

  /** Moves wall time alone, forward or back: an operator or a time service set the clock. */
  jumpEpoch(byMs: number): void {
    this.#rebase()
    this.#baseEpochMs += byMs
  }

  /** Wall milliseconds per monotonic millisecond from now on: the drift of the clock. */
  setRate(rate: number): void {
    assert.ok(rate >= 0 && Number.isFinite(rate), 'A rate is not negative')
    this.#rebase()
    this.#rate = rate
  }

  #rebase(): void {
    this.#baseEpochMs += (this.#monotonicMs - this.#baseMonotonicMs) * this.#rate
    this.#baseMonotonicMs = this.#monotonicMs
  }
}
