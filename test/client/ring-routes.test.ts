import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { identityIn, replicasOf, ringIn } from '../../src/client/ring-routes.ts'
import { partitionOfKey } from '../../src/cluster/slots.ts'

test('replicasOf() finds the partition of a key as the nodes do', () => {
  const partitions = Array.from({ length: 1024 }, (_, partition) => ({
    partition,
    stage: 'rest',
    replicas: [`node ${partition}`],
  }))
  const ring = ringIn({ epoch: 3, partitions })!
  assert.equal(ring.epoch, 3)
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 40 }), (key) => {
      assert.deepEqual(replicasOf(ring, key), [`node ${partitionOfKey(key)}`])
    }),
  )
})

test('ringIn() and identityIn() believe nothing that they cannot read', () => {
  const row = { partition: 0, replicas: ['a'] }
  assert.ok(ringIn({ epoch: 1, partitions: [row] }) !== undefined)
  const wrong: unknown[] = [
    null,
    [],
    {},
    { epoch: 1 },
    { epoch: '1', partitions: [row] },
    { epoch: 1, partitions: [] },
    { epoch: 1, partitions: [row, row] },
    { epoch: 1, partitions: [row, { partition: 1, replicas: ['a'] }, { partition: 2, replicas: [] }] },
    { epoch: 1, partitions: [{ partition: 0, replicas: [1] }] },
    { epoch: 1, partitions: [{ partition: 0 }] },
  ]
  for (const document of wrong) assert.equal(ringIn(document), undefined, JSON.stringify(document))
  assert.deepEqual(identityIn({ nodeId: 'a', epoch: 2, more: true }), { nodeId: 'a', epoch: 2 })
  for (const document of [undefined, 'x', { nodeId: 'a' }, { nodeId: 1, epoch: 2 }])
    assert.equal(identityIn(document), undefined)
  fc.assert(
    fc.property(fc.jsonValue(), (document) => {
      ringIn(document)
      identityIn(document)
    }),
  )
})
