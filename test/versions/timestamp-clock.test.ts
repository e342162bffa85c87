import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { TimestampClock } from '../../src/versions/timestamp-clock.ts'

const aheadMsMax = 500
const hour = 3_600_000
const now = 1_700_000_000_000

test('TimestampClock: gives the time of the host, later than what the key has, and never an earlier one than before', () => {
  const clock = new TimestampClock(aheadMsMax)
  assert.equal(clock.mark, 0)
  assert.equal(clock.next(now + 0.7, 0, 0), now)
  assert.equal(clock.next(now, 0, 0), now, 'Keys may share a time: a burst does not run ahead of the clock')
  assert.equal(clock.next(now, 0, now), now + 1)
  assert.equal(clock.next(now, now + 7, 0), now + 7)
  assert.equal(clock.next(now - hour, 0, 0), now + 7, 'The host was set back')
  for (let write = 0; write < 2 * aheadMsMax; write++) clock.next(now - hour, 0, clock.mark)
  assert.equal(clock.next(now - hour, 0, 0), now + 7 + 2 * aheadMsMax, 'Overwrites count while the clock stands still')
  assert.equal(clock.next(now + hour, 0, 0), now + hour)
})

test('TimestampClock: times of others count as far as clocks may be apart, and no wild one drags it', () => {
  const clock = new TimestampClock(aheadMsMax)
  clock.next(now, 0, 0)
  clock.see(now, now + aheadMsMax)
  assert.equal(clock.next(now, 0, 0), now + aheadMsMax)
  for (let step = 0; step < 10; step++) clock.see(now, clock.mark + 1)
  assert.equal(clock.mark, now + aheadMsMax, 'Nor does one that goes there step by step')
  clock.see(now, now + hour)
  assert.equal(clock.mark, now + aheadMsMax)
  assert.equal(clock.next(now, 0, now + hour), now + hour + 1, 'The key itself goes above what it has')
  assert.equal(clock.next(now, 0, 0), now + aheadMsMax, 'Its neighbours do not')
  clock.see(now - hour, now + aheadMsMax + 1)
  clock.see(now + 5, now + aheadMsMax + 5)
  assert.equal(clock.mark, now + aheadMsMax + 5)
})

test('TimestampClock: begins above what an earlier run may have given', () => {
  const clock = new TimestampClock(aheadMsMax)
  clock.begin(0)
  assert.equal(clock.mark, 0)
  clock.begin(now)
  assert.equal(clock.next(now - hour, 0, 0), now + 1)
})

test('TimestampClock: whatever the host says, a time that was given in reach of the clock is never gone below', () => {
  const step = fc.record({ jumpMs: fc.integer({ min: -2000, max: 2000 }), key: fc.nat(3), seenMs: fc.nat(400) })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const clock = new TimestampClock(aheadMsMax)
      const latest = [0, 0, 0, 0]
      let nowMs = now
      let highest = 0
      for (const { jumpMs, key, seenMs } of steps) {
        nowMs += jumpMs
        clock.see(nowMs, nowMs + seenMs)
        const timestamp = clock.next(nowMs, 0, latest[key]!)
        assert.ok(timestamp >= highest && timestamp > latest[key]! && timestamp >= nowMs)
        highest = timestamp
        latest[key] = timestamp
        // The key is forgotten now and then.
        if (jumpMs % 3 === 0) latest[key] = 0
      }
    }),
  )
})
