import assert from 'node:assert/strict'
import { test } from 'node:test'
import { clockSuite } from '../conformance/clock-suite.ts'
import { randomSuite } from '../conformance/random-suite.ts'
import { SimClock } from './sim-clock.ts'
import { SimRandom } from './sim-random.ts'

clockSuite('SimClock', () => {
  const clock = new SimClock()
  return { clock, pass: () => clock.advance(20.25) }
})

let seed = 0
randomSuite('SimRandom', () => new SimRandom(++seed))

test('SimClock stands still until it is advanced', () => {
  const clock = new SimClock({ monotonicMs: 5, epochMs: 1_000_000 })
  assert.deepEqual([clock.monotonicMs(), clock.epochMs()], [5, 1_000_000])
  clock.advance(1.5)
  assert.deepEqual([clock.monotonicMs(), clock.epochMs()], [6.5, 1_000_001])
  clock.advanceTo(10)
  clock.advanceTo(3)
  assert.deepEqual([clock.monotonicMs(), clock.epochMs()], [10, 1_000_005])
  for (const wrong of [-1, Number.NaN, Number.POSITIVE_INFINITY]) assert.throws(() => clock.advance(wrong))
})

test('SimClock: wall time jumps and drifts, monotonic time does not notice', () => {
  const clock = new SimClock({ epochMs: 1_000_000 })
  clock.advance(100)
  clock.jumpEpoch(-5000)
  assert.deepEqual([clock.monotonicMs(), clock.epochMs()], [100, 995_100])
  clock.setRate(2)
  assert.equal(clock.epochMs(), 995_100, 'A new rate moves nothing by itself')
  clock.advance(50)
  assert.deepEqual([clock.monotonicMs(), clock.epochMs()], [150, 995_200])
  clock.jumpEpoch(10)
  clock.setRate(0)
  clock.advance(1000)
  assert.deepEqual([clock.monotonicMs(), clock.epochMs()], [1150, 995_210])
})

test('SimRandom gives the same numbers for the same seed, and forced ones first', () => {
  const draws = (random: SimRandom): number[] => Array.from({ length: 5 }, () => random.u32())
  assert.deepEqual(draws(new SimRandom(7)), draws(new SimRandom(7)))
  const random = new SimRandom(7)
  random.force(1, 0xffffffff)
  assert.deepEqual(draws(random), [1, 0xffffffff, ...draws(new SimRandom(7)).slice(0, 3)])
  random.force(0x04030201)
  const bytes = new Uint8Array(5)
  random.fill(bytes)
  assert.deepEqual([...bytes.subarray(0, 4)], [1, 2, 3, 4])
})
