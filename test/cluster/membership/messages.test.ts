import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  decodeMessage,
  encodeMessage,
  headBytesMax,
  type MembershipMessage,
  memberStates,
  updateBytes,
} from '../../../src/cluster/membership/messages.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const idOf = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((id) => id.toString(16).padStart(16, '0'))
const addressOf = fc.string({ maxLength: 60, unit: 'grapheme' }).filter((text) => Buffer.byteLength(text) <= 255)
const u32Of = fc.integer({ min: 0, max: 0xffff_ffff })
const plain = { noNullPrototype: true } as const
const updateOf = fc.record(
  {
    nodeId: idOf,
    state: fc.constantFrom(...memberStates),
    incarnation: u32Of,
    from: idOf,
    address: addressOf,
  },
  plain,
)
const common = { sender: idOf, updates: fc.array(updateOf, { maxLength: 4 }) }
const messageOf: fc.Arbitrary<MembershipMessage> = fc.oneof(
  fc.record({ type: fc.constant('ping' as const), sequence: u32Of, target: idOf, ...common }, plain),
  fc.record(
    {
      type: fc.constant('pingRequest' as const),
      sequence: u32Of,
      target: idOf,
      address: addressOf,
      ...common,
    },
    plain,
  ),
  fc.record({ type: fc.constantFrom('ack' as const, 'nack' as const), sequence: u32Of, ...common }, plain),
  fc.record({ type: fc.constant('gossip' as const), ...common }, plain),
  fc.record({ type: fc.constant('pull' as const), digest: idOf, ...common }, plain),
  fc.record({ type: fc.constant('state' as const), wantsAnswer: fc.boolean(), ...common }, plain),
)

test('Membership messages: what is encoded is decoded, and is no longer than counted', () => {
  const property = fc.property(messageOf, (message) => {
    const bytes = encodeMessage(message)
    assert.deepEqual(decodeMessage(bytes), message)
    assert.ok(bytes.length <= headBytesMax + message.updates.reduce((sum, update) => sum + updateBytes(update), 0))
  })
  fc.assert(property, { numRuns: Math.ceil(500 * scale) })
})

test('Membership messages: a ping has exactly these bytes', () => {
  const message: MembershipMessage = {
    type: 'ping',
    sender: '0123456789abcdef',
    sequence: 0x01020304,
    target: 'fedcba9876543210',
    updates: [
      { nodeId: '00000000000000aa', state: 'suspect', incarnation: 7, from: '0123456789abcdef', address: 'a:1' },
    ],
  }
  const hex = [
    '01 00 efcdab8967452301', // version, ping, sender
    '04030201 1032547698badcfe 0100', // sequence, target, one update
    '01 aa00000000000000 07000000 efcdab8967452301 03 613a31', // suspect, member, incarnation, who says so, address
  ]
  assert.equal(encodeMessage(message).toHex(), hex.join('').replaceAll(' ', ''))
})

test('Membership messages: no bytes make decoding throw, and half a message is none', () => {
  const property = fc.property(messageOf, fc.uint8Array({ maxLength: 200 }), fc.nat(), (message, noise, at) => {
    decodeMessage(noise)
    const bytes = encodeMessage(message)
    const end = at % bytes.length
    assert.equal(decodeMessage(bytes.subarray(0, end)), undefined)
    decodeMessage(bytes.with(end, bytes[end]! ^ (1 << (at % 8))))
    assert.equal(decodeMessage(new Uint8Array([...bytes, 0])), undefined)
  })
  fc.assert(property, { numRuns: Math.ceil(500 * scale) })
})
