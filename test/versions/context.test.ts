import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SipHash } from '../../src/base/siphash.ts'
import { Limits } from '../../src/config.ts'
import {
  type ContextEntry,
  type ContextFault,
  contextBytes,
  contextEntriesMax,
  contextTokenBytesMax,
  decodeContext,
  encodeContext,
} from '../../src/versions/context.ts'
import { type ActorTable, counterMax, type Vector } from '../../src/versions/version-set.ts'

const siphash = new SipHash(Uint8Array.from({ length: 16 }, (_, index) => index))
const key = new TextEncoder().encode('user:42')
const partition = 1023
const bucketId = 7

/** Indices 0 to 2 have ids in another order; the rest ascend. */
const actors: ActorTable = {
  highOf: (index) => [0x80000000, 1, 1][index] ?? 2,
  lowOf: (index) => [0x11223344, 0xffffffff, 2][index] ?? index,
}
const vector: Vector = [
  { actor: 0, counter: 1 },
  { actor: 1, counter: 2 ** 40 + 5 },
  { actor: 2, counter: counterMax },
]
const entries: ContextEntry[] = [
  { high: 1, low: 2, counter: counterMax },
  { high: 1, low: 0xffffffff, counter: 2 ** 40 + 5 },
  { high: 0x80000000, low: 0x11223344, counter: 1 },
]

function encoded(shown: Vector): Uint8Array {
  const into = new Uint8Array(contextBytes(shown.length))
  assert.equal(encodeContext(siphash, into, 0, partition, bucketId, key, 0, key.length, shown, actors), into.length)
  return into
}

function decodedAs(
  token: Uint8Array,
  change: { hash?: SipHash; partition?: number; bucketId?: number; key?: Uint8Array } = {},
): readonly ContextEntry[] | ContextFault {
  const asked = { hash: siphash, partition, bucketId, key, ...change }
  return decodeContext(
    asked.hash,
    token,
    0,
    token.length,
    asked.partition,
    asked.bucketId,
    asked.key,
    0,
    asked.key.length,
  )
}

test('encodeContext() has fixed bytes, in the order of actor ids', () => {
  const expected = [
    '01 ff03 0300',
    '02000000 01000000 ffffffff ffff',
    'ffffffff 01000000 05000000 0001',
    '44332211 00000080 01000000 0000',
    'd32d2e36a807bc7a',
  ]
  assert.equal(encoded(vector).toHex(), expected.join('').replaceAll(' ', ''))
  assert.equal(encoded([]).toHex(), '01ff030000fcae7d36356eae64')
})

test('decodeContext() gives back the vector that encodeContext() was given, by actor ids', () => {
  assert.deepEqual(decodedAs(encoded(vector)), entries)
  assert.deepEqual(decodedAs(encoded([])), [])
  const arbitraryVector = fc
    .uniqueArray(
      fc.record({ actor: fc.nat(30), counter: fc.integer({ min: 1, max: counterMax }) }, { noNullPrototype: true }),
      {
        selector: (entry) => entry.actor,
      },
    )
    .map((list) => list.sort((a, b) => a.actor - b.actor))
  fc.assert(
    fc.property(arbitraryVector, (given) => {
      const decoded = decodedAs(encoded(given))
      assert.ok(typeof decoded !== 'string')
      const back = decoded.map(({ high, low, counter }) => {
        const actor = [...Array(31).keys()].find(
          (index) => actors.highOf(index) === high && actors.lowOf(index) === low,
        )
        return { actor: actor!, counter }
      })
      assert.deepEqual(
        back.sort((a, b) => a.actor - b.actor),
        given,
      )
    }),
  )
})

test('encodeContext() and decodeContext() keep to the ranges they are given', () => {
  const into = new Uint8Array(100).fill(0xee)
  const padded = new Uint8Array(20).fill(0xdd)
  padded.set(key, 5)
  const bytes = encodeContext(siphash, into, 9, partition, bucketId, padded, 5, 5 + key.length, vector, actors)
  assert.deepEqual(into.slice(9, 9 + bytes), encoded(vector))
  assert.ok(into.every((byte, at) => (at >= 9 && at < 9 + bytes) || byte === 0xee))
  const decoded = decodeContext(siphash, into, 9, 9 + bytes, partition, bucketId, padded, 5, 5 + key.length)
  assert.deepEqual(decoded, entries)
})

test('encodeContext() gives one token for one vector, whatever the indices of its actors', () => {
  const reversed: ActorTable = {
    highOf: (index) => actors.highOf(2 - index),
    lowOf: (index) => actors.lowOf(2 - index),
  }
  const same = vector.map(({ actor, counter }) => ({ actor: 2 - actor, counter })).reverse()
  const into = new Uint8Array(100)
  const bytes = encodeContext(siphash, into, 0, partition, bucketId, key, 0, key.length, same, reversed)
  assert.deepEqual(into.slice(0, bytes), encoded(vector))
})

test('encodeContext() writes nothing where the token does not fit or has too many actors', () => {
  const short = new Uint8Array(contextBytes(3) - 1)
  assert.equal(encodeContext(siphash, short, 0, partition, bucketId, key, 0, key.length, vector, actors), 0)
  assert.ok(short.every((byte) => byte === 0))
  const roomy = new Uint8Array(10_000)
  const many = Array.from({ length: contextEntriesMax + 1 }, (_, index) => ({ actor: index, counter: 1 }))
  assert.equal(encodeContext(siphash, roomy, 0, partition, bucketId, key, 0, key.length, many, actors), 0)
  assert.ok(roomy.every((byte) => byte === 0))
  const largest = encoded(many.slice(1))
  assert.ok(largest.length <= contextTokenBytesMax && largest.length > contextTokenBytesMax - 14)
  assert.equal(decodedAs(largest).length, contextEntriesMax)
})

test('decodeContext() refuses the token of another key, bucket, partition or cluster', () => {
  const token = encoded(vector)
  const other = new SipHash(new Uint8Array(16))
  assert.equal(decodedAs(token, { key: key.subarray(1) }), 'code')
  assert.equal(decodedAs(token, { key: Uint8Array.of(...key, 0) }), 'code')
  assert.equal(decodedAs(token, { key: new Uint8Array(0) }), 'code')
  assert.equal(decodedAs(token, { bucketId: 8 }), 'code')
  assert.equal(decodedAs(token, { partition: 1022 }), 'partition')
  assert.equal(decodedAs(token, { hash: other }), 'code')
  const swapped = { bucketId: 0x65737508, key: key.subarray(3) }
  assert.equal(decodedAs(token, swapped), 'code', 'bucket id and key are told apart')
})

test('decodeContext() refuses a token cut at any length, longer by any byte, or with any bit flipped', () => {
  for (const given of [vector, vector.slice(0, 1), []]) {
    const token = encoded(given)
    for (let length = 0; length < token.length; length++) {
      assert.equal(decodedAs(token.subarray(0, length)), 'length', `cut to ${length}`)
    }
    for (let byte = 0; byte < 256; byte++) assert.equal(decodedAs(Uint8Array.of(...token, byte)), 'length')
    for (let bit = 0; bit < token.length * 8; bit++) {
      const damaged = token.slice()
      damaged[bit >>> 3]! ^= 1 << (bit & 7)
      const at = bit >>> 3
      const fault = at === 0 ? 'version' : at < 3 ? 'partition' : at < 5 ? 'length' : 'code'
      assert.equal(decodedAs(damaged), fault, `bit ${bit}`)
    }
  }
})

test('decodeContext() refuses a longer token than the limit unread, and random bytes', () => {
  assert.equal(contextTokenBytesMax, Limits.contextBytesMax)
  const long = new Uint8Array(contextBytes(contextEntriesMax + 1))
  long[0] = 1
  assert.ok(long.length > contextTokenBytesMax)
  assert.equal(decodedAs(long), 'length')
  assert.equal(decodedAs(new Uint8Array(1_000_000)), 'length')
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(3), fc.boolean(), (random, count, isFramed) => {
      const bytes = isFramed ? new Uint8Array(contextBytes(count)) : random
      bytes.set(random.subarray(0, bytes.length))
      if (isFramed) bytes.set([1, partition & 0xff, partition >>> 8, count, 0])
      assert.equal(typeof decodedAs(bytes), 'string')
    }),
    { numRuns: 2000 },
  )
})

test('decodeContext() refuses what no encoder writes, even under the right key', () => {
  const sign = (body: string): Uint8Array => {
    const token = new Uint8Array(body.length / 2 + 8)
    token.setFromHex(body)
    siphash.start()
    siphash.updateU32(0x31585443)
    siphash.update(token, 0, token.length - 8)
    siphash.updateU32(bucketId)
    siphash.update(key, 0, key.length)
    siphash.finish()
    new DataView(token.buffer).setUint32(token.length - 8, siphash.low, true)
    new DataView(token.buffer).setUint32(token.length - 4, siphash.high, true)
    return token
  }
  const entryOf = (actor: string, counter = '010000000000'): string => `${actor}${counter}`
  const low = '0100000001000000'
  const high = '0000000002000000'
  assert.deepEqual(decodedAs(sign(`01ff030200${entryOf(low)}${entryOf(high)}`)), [
    { high: 1, low: 1, counter: 1 },
    { high: 2, low: 0, counter: 1 },
  ])
  assert.equal(decodedAs(sign(`01ff030200${entryOf(high)}${entryOf(low)}`)), 'form', 'not ascending')
  assert.equal(decodedAs(sign(`01ff030200${entryOf(low)}${entryOf(low)}`)), 'form', 'an actor twice')
  assert.equal(decodedAs(sign(`01ff030100${entryOf(low, '000000000000')}`)), 'form', 'a counter of 0')
})
