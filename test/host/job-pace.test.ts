import assert from 'node:assert/strict'
import { test } from 'node:test'
import { JobBursts, JobPace, type JobSignals } from '../../src/host/job-pace.ts'

const MiB = 1024 * 1024
const calm = { debt: 0, slowReads: 0, lateMs: 0 }
const disturbed = { debt: 0, slowReads: 100, lateMs: 0 }

const rateOf = (pace: JobPace, signals: JobSignals): number => pace.next(signals).bytesPerSecond

test('JobPace holds jobs back while requests are disturbed, and lets them go again afterwards', () => {
  const pace = new JobPace()
  assert.equal(rateOf(pace, calm), 0, 'Nothing holds them back at first')
  const rates = Array.from({ length: 8 }, () => rateOf(pace, disturbed))
  assert.equal(rates[0], 256 * MiB)
  for (const [index, rate] of rates.entries()) assert.ok(index === 0 || rate <= rates[index - 1]!)
  assert.equal(rates.at(-1), 24 * MiB, 'but never for good')
  assert.equal(rateOf(pace, { ...calm, lateMs: 9 }), 24 * MiB, 'A shard that comes late counts, too')
  let steps = 0
  while (rateOf(pace, calm) !== 0) assert.ok(++steps < 20)
  assert.ok(steps > 5)
})

test('JobPace lets what is owed go first', () => {
  const pace = new JobPace()
  for (let round = 0; round < 8; round++) rateOf(pace, disturbed)
  const rates = [0, 0.1, 0.25, 0.49].map((debt) => rateOf(pace, { ...disturbed, debt }))
  for (const [index, rate] of rates.entries()) assert.ok(index === 0 || rate > rates[index - 1]!, `${rates}`)
  assert.equal(rateOf(pace, { ...disturbed, debt: 0.5 }), 0)
})

test('JobPace lets jobs rest between bursts, unless much is owed', () => {
  const pace = new JobPace()
  for (const debt of [0, 0.49]) assert.equal(pace.next({ ...calm, debt }).rests, true)
  assert.equal(pace.next({ ...calm, debt: 0.5 }).rests, false)
})

/** Lets a job work in steps of 0.05 ms and 4 KiB; returns its longest stretch without a rest, and the part of the time that it worked. */
function workOf(
  bursts: JobBursts,
  rate: { bytesPerSecond: number; rests: boolean },
): { longestMs: number; share: number } {
  let nowMs = 0
  let workedMs = 0
  let stretchMs = 0
  let longestMs = 0
  for (let step = 0; step < 20_000; step++) {
    nowMs += 0.05
    workedMs += 0.05
    stretchMs += 0.05
    longestMs = Math.max(longestMs, stretchMs)
    const restMs = bursts.restMs(4096, nowMs, rate)
    if (restMs === 0) continue
    nowMs += restMs
    stretchMs = 0
    bursts.resume(nowMs)
  }
  return { longestMs, share: workedMs / nowMs }
}

test('JobBursts: no job works longer than a short burst; a hurried one works all the time', () => {
  for (const isPaced of [true, false]) {
    const { longestMs, share } = workOf(new JobBursts(isPaced, 0), { bytesPerSecond: 0, rests: true })
    assert.ok(longestMs <= 0.35, `${longestMs}`)
    assert.ok(isPaced ? share > 0.75 : share > 0.5, `${share}`)
  }
  assert.equal(workOf(new JobBursts(true, 0), { bytesPerSecond: 0, rests: false }).share, 1)
})

test('JobBursts: a paced job keeps to its rate, with rests and without', () => {
  // 4 KiB in 0.05 ms are 78 MiB a second.
  for (const rests of [true, false]) {
    const { share } = workOf(new JobBursts(true, 0), { bytesPerSecond: 8 * MiB, rests })
    assert.ok(Math.abs(share - 8 / 78.125) < 0.01, `${share}`)
  }
  assert.ok(
    workOf(new JobBursts(false, 0), { bytesPerSecond: 8 * MiB, rests: true }).share > 0.5,
    'A flush has no rate',
  )
})
