/** Messages and rows of the chain as bytes: exactly these, one form each, and nothing that is none. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { SeededRandom } from '../../../src/base/seeded-random.ts'
import {
  type ChainMessage,
  decodeChainMessage,
  encodeChainMessage,
} from '../../../src/cluster/topology/chain-messages.ts'
import {
  decodeAcceptor,
  decodeCounter,
  decodeVote,
  encodeAcceptor,
  encodeCounter,
  encodeVote,
  type StoredVote,
} from '../../../src/cluster/topology/chain-store.ts'
import { noId } from '../../../src/cluster/topology/topology-bytes.ts'
import { Limits } from '../../../src/config.ts'
import { fuzz } from '../../fuzz/fuzzing.ts'

const common = { clusterId: 'c1c2c3c4c5c6c7c8', sender: '00000000000000a0' } as const
const ballot = { counter: 0x0102, proposer: '00000000000000a1' }
const higher = { counter: 0x0103, proposer: '00000000000000a2' }
const value = new Uint8Array([7, 8, 9])
const head = (type: string): string => `01 ${type} c8c7c6c5c4c3c2c1 a000000000000000`
const ballotHex = '0201000000000000 a100000000000000'
const higherHex = '0301000000000000 a200000000000000'

const examples: readonly (readonly [ChainMessage, string])[] = [
  [{ ...common, type: 'have', epoch: 5, digest: '1122334455667788' }, `${head('00')} 05000000 8877665544332211`],
  [
    { ...common, clusterId: noId, type: 'have', epoch: 0, digest: noId },
    '01 00 0000000000000000 a000000000000000 00000000 0000000000000000',
  ],
  [{ ...common, type: 'whole', value }, `${head('01')} 03000000 070809`],
  [{ ...common, type: 'delta', value }, `${head('02')} 03000000 070809`],
  [
    { ...common, type: 'request', epoch: 5, request: { type: 'prepare', ballot } },
    `${head('03')} 05000000 ${ballotHex}`,
  ],
  [
    { ...common, type: 'reply', epoch: 5, reply: { type: 'promised', ballot, accepted: undefined } },
    `${head('04')} 05000000 ${ballotHex} 00`,
  ],
  [
    { ...common, type: 'reply', epoch: 5, reply: { type: 'promised', ballot: higher, accepted: { ballot, value } } },
    `${head('04')} 05000000 ${higherHex} 01 ${ballotHex} 03000000 070809`,
  ],
  [
    { ...common, type: 'request', epoch: 5, request: { type: 'accept', ballot, value } },
    `${head('05')} 05000000 ${ballotHex} 03000000 070809`,
  ],
  [{ ...common, type: 'reply', epoch: 5, reply: { type: 'accepted', ballot } }, `${head('06')} 05000000 ${ballotHex}`],
  [
    { ...common, type: 'reply', epoch: 5, reply: { type: 'refused', ballot, promised: higher } },
    `${head('07')} 05000000 ${ballotHex} ${higherHex}`,
  ],
  [{ ...common, type: 'reply', epoch: 5, reply: { type: 'barred', ballot } }, `${head('08')} 05000000 ${ballotHex}`],
]

const votes: readonly (readonly [StoredVote, string])[] = [
  [{ epoch: 6, state: { promised: undefined, accepted: undefined } }, '01 06000000 00 00'],
  [
    { epoch: 6, state: { promised: higher, accepted: { ballot, value } } },
    `01 06000000 01 ${higherHex} 01 ${ballotHex} 03000000 070809`,
  ],
]

const hexOf = (text: string): string => text.replaceAll(' ', '')

test('Chain messages: each kind has exactly these bytes', () => {
  for (const [message, hex] of examples) {
    const bytes = encodeChainMessage(message)
    assert.equal(bytes.toHex(), hexOf(hex))
    assert.deepEqual(decodeChainMessage(bytes), message)
  }
})

test('Chain rows: a vote, a counter and an acceptor have exactly these bytes', () => {
  for (const [vote, hex] of votes) {
    assert.equal(encodeVote(vote).toHex(), hexOf(hex))
    assert.deepEqual(decodeVote(encodeVote(vote)), vote)
  }
  assert.equal(encodeCounter(0x0102).toHex(), hexOf('01 0201000000000000'))
  assert.equal(decodeCounter(encodeCounter(2 ** 40)), 2 ** 40)
  const acceptor = { id: '1122334455667788', place: '7 8' }
  assert.equal(encodeAcceptor(acceptor).toHex(), hexOf('01 8877665544332211 03000000 372038'))
  assert.deepEqual(decodeAcceptor(encodeAcceptor(acceptor)), acceptor)
})

test('Chain messages: a part of one is none, nor is one with more behind it, nor one that is too long', () => {
  const check = (bytes: Uint8Array, decode: (bytes: Uint8Array) => unknown): void => {
    for (let end = 0; end < bytes.length; end++) assert.equal(decode(bytes.subarray(0, end)), undefined)
    assert.equal(decode(new Uint8Array([...bytes, 0])), undefined)
    assert.equal(decode(bytes.with(0, 2)), undefined, 'Another version')
  }
  for (const [message] of examples) check(encodeChainMessage(message), decodeChainMessage)
  for (const [vote] of votes) check(encodeVote(vote), decodeVote)
  check(encodeCounter(5), decodeCounter)
  check(encodeAcceptor({ id: common.sender, place: 'here' }), decodeAcceptor)
  const long = new Uint8Array(Limits.topologyBytesMax + 1)
  assert.equal(decodeChainMessage(encodeChainMessage({ ...common, type: 'whole', value: long })), undefined)
  const far = { counter: 2 ** 48, proposer: ballot.proposer }
  const request = { type: 'prepare', ballot: far } as const
  assert.equal(decodeChainMessage(encodeChainMessage({ ...common, type: 'request', epoch: 1, request })), undefined)
})

/** Looks at one input of a format: what is accepted is encoded to the same bytes. */
function oneForm<Value>(decode: (bytes: Uint8Array) => Value | undefined, encode: (value: Value) => Uint8Array) {
  return (input: Uint8Array, _: SeededRandom): boolean => {
    const decoded = decode(input)
    if (decoded === undefined) return false
    assert.equal(Buffer.compare(encode(decoded), input), 0)
    return true
  }
}

fuzz('a message of the chain has one form in bytes, and others are refused', () => ({
  inputs: examples.map(([message]) => encodeChainMessage(message)),
  look: oneForm(decodeChainMessage, encodeChainMessage),
}))

fuzz('a stored vote has one form in bytes, and others are refused', () => ({
  inputs: votes.map(([vote]) => encodeVote(vote)),
  look: oneForm(decodeVote, encodeVote),
}))
