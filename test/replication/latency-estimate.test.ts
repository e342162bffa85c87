import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LatencyEstimate } from '../../src/replication/latency-estimate.ts'

test('LatencyEstimate: nineteen of twenty operations end before it, within its bounds', () => {
  const estimate = new LatencyEstimate()
  assert.equal(estimate.hedgeMs, 50)
  for (let index = 0; index < 128; index++) estimate.record(1 + (index % 100))
  assert.ok(estimate.hedgeMs > 85 && estimate.hedgeMs <= 100, `${estimate.hedgeMs}`)
  for (let index = 0; index < 128; index++) estimate.record(0.1)
  assert.equal(estimate.hedgeMs, 2)
  for (let index = 0; index < 128; index++) estimate.record(60_000)
  assert.equal(estimate.hedgeMs, 1000)
})

test('LatencyEstimate: one slow operation of many changes nothing, and the first few already count', () => {
  const estimate = new LatencyEstimate()
  for (let index = 0; index < 32; index++) estimate.record(index === 5 ? 900 : 8)
  assert.equal(estimate.hedgeMs, 8)
})
