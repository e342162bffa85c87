import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  Admission,
  type AdmissionMessage,
  type ClusterIdentity,
  decodeAdmission,
  encodeAdmission,
} from '../../src/cluster/admission.ts'

const identity: ClusterIdentity = {
  clusterId: '0123456789abcdef',
  clusterKey: Uint8Array.from({ length: 16 }, (_, index) => index),
}
const messages: readonly AdmissionMessage[] = [{ type: 'ask' }, { type: 'welcome', ...identity }]

test('encodeAdmission() is part of the protocol between nodes: its bytes never change', () => {
  assert.deepEqual(
    messages.map((message) => Buffer.from(encodeAdmission(message)).toString('hex')),
    ['0101', '0102efcdab8967452301000102030405060708090a0b0c0d0e0f'],
  )
})

test('decodeAdmission() takes what was encoded, and nothing else', () => {
  for (const message of messages) {
    const bytes = encodeAdmission(message)
    assert.deepEqual(decodeAdmission(bytes), message)
    for (let end = 0; end < bytes.length; end++) assert.equal(decodeAdmission(bytes.subarray(0, end)), undefined)
    assert.equal(decodeAdmission(Uint8Array.of(...bytes, 0)), undefined)
    for (const [at, value] of [
      [0, 2],
      [1, 0],
      [1, 3],
    ] as const) {
      const other = bytes.slice()
      other[at] = value
      assert.equal(decodeAdmission(other), undefined)
    }
  }
})

test('Admission asks all seeds until one welcomes it, and goes by the first welcome', () => {
  const asked: string[] = []
  const admitted: ClusterIdentity[] = []
  const admission = new Admission({
    seeds: ['a:1', 'b:2'],
    send: (address, bytes) => {
      assert.deepEqual(decodeAdmission(bytes), { type: 'ask' })
      asked.push(address)
    },
    admitted: (each) => admitted.push(each),
  })
  admission.tick(0)
  admission.tick(100)
  assert.deepEqual(asked, ['a:1', 'b:2'])
  admission.tick(600)
  assert.equal(asked.length, 4)
  admission.receive(Uint8Array.of(9))
  admission.receive(encodeAdmission({ type: 'ask' }))
  assert.deepEqual(admitted, [])
  admission.receive(encodeAdmission({ type: 'welcome', ...identity }))
  admission.receive(encodeAdmission({ type: 'welcome', ...identity, clusterId: '00000000000000ff' }))
  assert.deepEqual(
    admitted.map(({ clusterId }) => clusterId),
    [identity.clusterId],
  )
  admission.tick(10_000)
  assert.equal(asked.length, 4)
})
