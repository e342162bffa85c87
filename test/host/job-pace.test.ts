import assert from 'node:assert/strict'
import { test } from 'node:test'
import { JobPace } from '../../src/host/job-pace.ts'

const MiB = 1024 * 1024
const calm = { debt: 0, slowReads: 0, lateMs: 0 }
const disturbed = { debt: 0, slowReads: 100, lateMs: 0 }

test('JobPace holds jobs back while requests are disturbed, and lets them go again afterwards', () => {
  const pace = new JobPace()
  assert.equal(pace.next(calm), 0, 'Nothing holds them back at first')
  const rates = Array.from({ length: 8 }, () => pace.next(disturbed))
  assert.equal(rates[0], 256 * MiB)
  for (const [index, rate] of rates.entries()) assert.ok(index === 0 || rate <= rates[index - 1]!)
  assert.equal(rates.at(-1), 24 * MiB, 'but never for good')
  assert.equal(pace.next({ ...calm, lateMs: 9 }), 24 * MiB, 'A shard that comes late counts, too')
  let steps = 0
  while (pace.next(calm) !== 0) assert.ok(++steps < 20)
  assert.ok(steps > 5)
})

test('JobPace lets what is owed go first', () => {
  const pace = new JobPace()
  for (let round = 0; round < 8; round++) pace.next(disturbed)
  const rates = [0, 0.1, 0.25, 0.49].map((debt) => pace.next({ ...disturbed, debt }))
  for (const [index, rate] of rates.entries()) assert.ok(index === 0 || rate > rates[index - 1]!, `${rates}`)
  assert.equal(pace.next({ ...disturbed, debt: 0.5 }), 0)
})
