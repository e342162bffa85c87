import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decodeSet, encodeSet, fitsFormat } from '../../src/versions/set-codec.ts'
import type { ActorTable, Vector, Version, VersionSet } from '../../src/versions/version-set.ts'
import { counterMax, emptyVersionSet } from '../../src/versions/version-set.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

/** Two nodes that number the same actors differently. */
const idHigh = (actor: number): number => 0xa000_0000 - actor
const here: ActorTable = { highOf: idHigh, lowOf: (actor) => actor * 7 }
const indexHere = (_low: number, high: number): number => 0xa000_0000 - high
const there: ActorTable = { highOf: (index) => idHigh(9 - index), lowOf: (index) => (9 - index) * 7 }
const indexThere = (_low: number, high: number): number => 9 - (0xa000_0000 - high)

const arbitraryVersion = fc.record({
  tombstone: fc.boolean(),
  expiresAtMs: fc.constantFrom(0, 1, 2 ** 40),
  timestamp: fc.constantFrom(0, 7, 2 ** 52),
  contentType: fc.constantFrom('application/octet-stream', 'text/plain', 'x/y; z=1'),
  value: fc.uint8Array({ maxLength: 40 }),
})
const arbitraryCounter = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(2 ** 32, 2 ** 33 + 5, counterMax))

/** Any set that keeps the invariants of version-set.ts. */
const arbitrarySet: fc.Arbitrary<VersionSet> = fc
  .uniqueArray(fc.tuple(fc.nat(9), arbitraryCounter, fc.option(arbitraryVersion)), {
    selector: ([actor, counter]) => `${actor}.${counter}`,
    maxLength: 12,
  })
  .map((dots) => {
    const sorted = [...dots].sort((a, b) => a[0] - b[0] || a[1] - b[1])
    const vector: Vector = [...new Map(sorted.map(([actor, counter]) => [actor, counter]))].map(([actor, counter]) => ({
      actor,
      counter,
    }))
    const versions = sorted.flatMap(([actor, counter, parts]): Version[] => {
      if (parts === null) return []
      const none = { expiresAtMs: 0, contentType: 'application/octet-stream', value: new Uint8Array(0) }
      return [{ actor, counter, ...parts, ...(parts.tombstone ? none : {}) }]
    })
    return { versions, vector }
  })

test('decodeSet() gives the set that encodeSet() took, under whatever indices its actors have there', () => {
  fc.assert(
    fc.property(arbitrarySet, (set) => {
      assert.ok(fitsFormat(set))
      const bytes = encodeSet(set, here)
      assert.deepEqual(decodeSet(bytes, 0, bytes.length, indexHere), set)
      const other = decodeSet(bytes, 0, bytes.length, indexThere)
      assert.ok(typeof other !== 'string', String(other))
      // One set has one form, wherever it is encoded.
      assert.deepEqual(encodeSet(other, there), bytes)
    }),
    { numRuns: 400 * scale },
  )
})

test('decodeSet() refuses every truncation and every byte too many', () => {
  fc.assert(
    fc.property(arbitrarySet, (set) => {
      const bytes = encodeSet(set, here)
      for (let end = 0; end < bytes.length; end++) {
        assert.equal(typeof decodeSet(bytes, 0, end, indexHere), 'string', `cut at ${end} of ${bytes.length}`)
      }
      assert.equal(decodeSet(Uint8Array.of(...bytes, 0), 0, bytes.length + 1, indexHere), 'length')
    }),
    { numRuns: 60 * scale },
  )
})

test('decodeSet() never throws on damaged bytes, and what it takes has that one form', () => {
  fc.assert(
    fc.property(arbitrarySet, fc.nat(), fc.integer({ min: 1, max: 255 }), (set, position, flip) => {
      const bytes = encodeSet(set, here)
      bytes[position % bytes.length]! ^= flip
      const known = new Map<string, number>()
      const ids: [number, number][] = []
      const found = decodeSet(bytes, 0, bytes.length, (low, high) => {
        const name = `${high}.${low}`
        if (!known.has(name)) known.set(name, ids.push([low, high]) - 1)
        return known.get(name)!
      })
      if (typeof found === 'string') {
        assert.equal(ids.length, 0, 'Bytes that are no set leave no trace')
        return
      }
      assert.deepEqual(encodeSet(found, { lowOf: (index) => ids[index]![0], highOf: (index) => ids[index]![1] }), bytes)
    }),
    { numRuns: 2000 * scale },
  )
})

test('decodeSet() says when an actor finds no room', () => {
  const set = { versions: [], vector: [{ actor: 2, counter: 1 }] }
  const bytes = encodeSet(set, here)
  assert.equal(
    decodeSet(bytes, 0, bytes.length, () => -1),
    'actor',
  )
})

test('encodeSet() is part of the peer protocol: its bytes never change', () => {
  assert.equal(hex(encodeSet(emptyVersionSet, here)), '0100000000000000')
  const set: VersionSet = {
    versions: [
      {
        actor: 1,
        counter: 3,
        tombstone: false,
        expiresAtMs: 5,
        timestamp: 2 ** 33,
        contentType: 'text/plain',
        value: Uint8Array.of(1, 2, 3),
      },
      {
        actor: 2,
        counter: 2 ** 32 + 9,
        tombstone: true,
        expiresAtMs: 0,
        timestamp: 0,
        contentType: 'application/octet-stream',
        value: new Uint8Array(0),
      },
    ],
    vector: [
      { actor: 1, counter: 4 },
      { actor: 2, counter: 2 ** 32 + 9 },
    ],
  }
  assert.equal(
    hex(encodeSet(set, here)),
    [
      '0100020002000000',
      '0e000000feffff9f090000000100',
      '07000000ffffff9f040000000000',
      '00000100090000000100000000000000',
      '0100000003000000060a000003000000',
      '0500000000000000',
      '0000000002000000',
      '746578742f706c61696e',
      '010203',
    ].join(''),
  )
})

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}
