/** What env.ts says of the door `Clock`, as tests that every implementation must pass. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '../../src/env.ts'

export type ClockUnderTest = {
  readonly clock: Clock
  /** Lets at least 20 ms pass. */
  readonly pass: () => Promise<void> | void
}

/** Runs the suite against the clocks that `makeClock` makes; `name` stands before each test's name. */
export function clockSuite(name: string, makeClock: () => ClockUnderTest): void {
  test(`${name}: monotonicMs() never goes back and moves with time`, async () => {
    const { clock, pass } = makeClock()
    let last = clock.monotonicMs()
    const first = last
    for (let read = 0; read < 1000; read++) {
      const now = clock.monotonicMs()
      assert.ok(now >= last)
      last = now
    }
    await pass()
    assert.ok(clock.monotonicMs() - first >= 19.9)
  })

  test(`${name}: monotonicMs() has fractions`, async () => {
    const { clock, pass } = makeClock()
    const reads: number[] = []
    for (let read = 0; read < 5; read++) {
      reads.push(clock.monotonicMs())
      await pass()
    }
    assert.ok(
      reads.some((read) => !Number.isInteger(read)),
      reads.join(),
    )
  })

  test(`${name}: epochMs() counts whole milliseconds since 1970 and moves with time`, async () => {
    const { clock, pass } = makeClock()
    const first = clock.epochMs()
    assert.ok(Number.isInteger(first))
    assert.ok(first > Date.UTC(2025, 0, 1) && first < Date.UTC(2100, 0, 1))
    await pass()
    assert.ok(clock.epochMs() - first >= 19)
  })

  test(`${name}: two reads within one call are never far apart`, () => {
    const { clock } = makeClock()
    const monotonicMs = clock.monotonicMs()
    const epochMs = clock.epochMs()
    assert.ok(clock.monotonicMs() - monotonicMs < 1000)
    assert.ok(Math.abs(clock.epochMs() - epochMs) < 1000)
  })
}
