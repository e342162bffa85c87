import assert from 'node:assert/strict'
import { test } from 'node:test'
import { kindAt, workloads } from '../../../src/cli/bench/workload.ts'

test('Every mix of a workload adds up to 1, and names are unique', () => {
  for (const { name, mix } of workloads) {
    const sum = Object.values(mix).reduce((total, share) => total + share, 0)
    assert.ok(Math.abs(sum - 1) < 1e-9, name)
  }
  assert.equal(new Set(workloads.map(({ name }) => name)).size, workloads.length)
})

test('kindAt() gives each kind its share', () => {
  const mix = { read: 0.95, insert: 0.05 }
  assert.deepEqual(
    [0, 0.9499, 0.9501, 0.999999].map((drawn) => kindAt(mix, drawn)),
    ['read', 'read', 'insert', 'insert'],
  )
  assert.equal(kindAt({ read: 1 }, 0.999999), 'read')
})
