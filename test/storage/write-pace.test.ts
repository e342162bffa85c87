import assert from 'node:assert/strict'
import { test } from 'node:test'
import { WritePace } from '../../src/storage/write-pace.ts'

/** Writes as fast as it may, up to `mostBytes` a millisecond, for `durationMs`; returns the bytes and the longest wait. */
function write(
  pace: WritePace,
  state: { nowMs: number; bytes: number },
  { durationMs, mostBytes, pressure }: { durationMs: number; mostBytes: number; pressure: () => number },
): { readonly bytes: number; readonly longestWaitMs: number } {
  const before = state.bytes
  let longestWaitMs = 0
  let waitMs = 0
  for (let ms = 0; ms < durationMs; ms++) {
    state.nowMs++
    if (pace.isBehind(pressure(), state.bytes, state.nowMs)) waitMs++
    else {
      state.bytes += mostBytes
      waitMs = 0
    }
    longestWaitMs = Math.max(longestWaitMs, waitMs)
  }
  return { bytes: state.bytes - before, longestWaitMs }
}

test('WritePace holds nobody back without pressure', () => {
  const state = { nowMs: 0, bytes: 0 }
  const { longestWaitMs } = write(new WritePace(), state, { durationMs: 5000, mostBytes: 50_000, pressure: () => 0 })
  assert.equal(longestWaitMs, 0)
})

test('WritePace slows writers in proportion to the pressure, with short waits', () => {
  const pace = new WritePace()
  const state = { nowMs: 0, bytes: 0 }
  const free = write(pace, state, { durationMs: 2000, mostBytes: 50_000, pressure: () => 0 }).bytes
  for (const pressure of [0.25, 0.5, 0.75, 0.9]) {
    const slowed = write(pace, state, { durationMs: 2000, mostBytes: 50_000, pressure: () => pressure })
    const share = slowed.bytes / free
    assert.ok(Math.abs(share - (1 - pressure)) < 0.05, `At ${pressure}: ${share}`)
    assert.ok(slowed.longestWaitMs <= 1 / (1 - pressure) + 1, `At ${pressure}: ${slowed.longestWaitMs} ms`)
  }
  const least = write(pace, state, { durationMs: 2000, mostBytes: 50_000, pressure: () => 1 })
  assert.ok(least.bytes > 0, 'Nobody is stopped for good')
  assert.equal(write(pace, state, { durationMs: 100, mostBytes: 50_000, pressure: () => 0 }).longestWaitMs, 0)
})

test('WritePace makes a margin last until what fills it up again has caught up', () => {
  const pace = new WritePace()
  const state = { nowMs: 0, bytes: 0 }
  write(pace, state, { durationMs: 2000, mostBytes: 50_000, pressure: () => 0 })
  // Twice as fast as it is emptied, without a pace the margin would be used up in 800 ms.
  let margin = 20_000_000
  let before = state.bytes
  let least = margin
  let longest = 0
  for (let ms = 0; ms < 10_000; ms++) {
    const pressure = (): number => 1 - margin / 20_000_000
    longest = Math.max(longest, write(pace, state, { durationMs: 1, mostBytes: 50_000, pressure }).longestWaitMs)
    margin = Math.min(20_000_000, margin - (state.bytes - before) + 25_000)
    before = state.bytes
    least = Math.min(least, margin)
  }
  assert.ok(least > 5_000_000, `${least} bytes were left at the least`)
})
