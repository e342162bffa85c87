import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  ContentTypes,
  contentTypeCodeOf,
  decodeRecord,
  decodeVector,
  encodeRecord,
  encodeSimple,
  RecordFlag,
  recordBucket,
  recordBytesAt,
  recordBytesOf,
  recordHeaderBytes,
  recordKeyBytes,
  recordSlot,
  simpleActor,
  simpleContentType,
  simpleCounter,
  simpleExpiry,
  simpleRecordBytes,
  simpleValueStart,
  valuePadding,
} from '../../src/storage/record.ts'
import { counterMax, type Version, type VersionSet } from '../../src/versions/version-set.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)
/** Fields of a golden vector, as hexadecimal digits with blanks for the eye. */
const hex = (...fields: string[]): string => fields.join('').replaceAll(' ', '')

const version = (parts: Partial<Version>): Version => ({
  actor: 0,
  counter: 1,
  tombstone: false,
  expiresAtMs: 0,
  timestamp: 0,
  contentType: 'application/octet-stream',
  value: new Uint8Array(0),
  ...parts,
})
const simpleSet = (parts: Partial<Version>): VersionSet => {
  const only = version(parts)
  return { versions: [only], vector: [{ actor: only.actor, counter: only.counter }] }
}

/** Encodes at an offset into memory full of rubbish, so that bytes left unwritten show. */
function encoded(set: VersionSet, key: Uint8Array, slot = 0, bucketId = 1, at = 12): Uint8Array {
  const bytes = recordBytesOf(set, key.length)
  const u8 = new Uint8Array(at + bytes + 8).fill(0xee)
  const i32 = new Int32Array(u8.buffer, 0, u8.length >>> 2)
  assert.equal(encodeRecord(u8, i32, at, slot, bucketId, key, 0, key.length, set), bytes)
  assert.deepEqual(u8.subarray(0, at), new Uint8Array(at).fill(0xee), 'Nothing before the record is touched')
  assert.deepEqual(u8.subarray(at + bytes), new Uint8Array(8).fill(0xee), 'Nothing behind the record is touched')
  return u8.slice(at, at + bytes)
}

function decoded(bytes: Uint8Array): VersionSet {
  const copy = bytes.slice()
  return decodeRecord(copy, new Int32Array(copy.buffer), 0)
}

test('Record: a plain value has exactly these bytes', () => {
  const bytes = encoded(simpleSet({ actor: 0x0102, counter: 7, value: ascii('hello') }), ascii('user:'), 0x1234, 9)
  assert.equal(
    bytes.toHex(),
    hex(
      '28000000', // bytes
      '3412 0500', // slot, bytes of the key
      '09000000', // bucket
      '31 00 0201', // simple with three bytes of padding; default type; actor
      '07000000 0000 0000', // counter, bytes of the type
      '757365723a 000000',
      '68656c6c6f 000000',
    ),
  )
})

test('Record: a value with expiry, timestamp, a type of its own and a counter of 48 bits has exactly these bytes', () => {
  const set = simpleSet({
    actor: 0xffff,
    counter: 0x8765_4321_0fed,
    expiresAtMs: 0x0123_4567_89ab,
    timestamp: 0x0019_9999_0000_0001,
    contentType: 'a/b+c',
    value: ascii('wxyz'),
  })
  assert.equal(
    encoded(set, ascii('k'), 16383, 0xffff_fffe).toHex(),
    hex(
      '38000000', // bytes
      'ff3f 0100', // slot, bytes of the key
      'feffffff', // bucket
      '0d 01 ffff', // simple, expiry, timestamp, no padding; spelled out; actor
      'ed0f2143 6587 0500', // counter, bytes of the type
      '6b 000000',
      'ab896745 23010000',
      '01000000 99991900',
      '612f622b63 000000',
      '7778797a',
    ),
  )
})

test('Record: a tombstone has exactly these bytes', () => {
  assert.equal(
    encoded(simpleSet({ actor: 1, counter: 2, tombstone: true }), ascii('gone'), 5, 1).toHex(),
    hex('1c000000', '0500 0400', '01000000', '03 00 0100', '02000000 0000 0000', '676f6e65'),
  )
})

test('Record: siblings have exactly these bytes', () => {
  const set: VersionSet = {
    versions: [
      version({ actor: 0, counter: 3, value: ascii('abcde'), contentType: 'text/plain' }),
      version({ actor: 2, counter: 0x1_0000_0002, tombstone: true }),
      version({
        actor: 3,
        counter: 4,
        value: ascii('f'),
        contentType: 'x/y',
        expiresAtMs: 0x10_0000_0005,
        timestamp: 6,
      }),
    ],
    vector: [
      { actor: 0, counter: 3 },
      { actor: 2, counter: 0x1_0000_0002 },
      { actor: 3, counter: 9 },
    ],
  }
  assert.equal(
    encoded(set, ascii('ke'), 1, 1).toHex(),
    hex(
      '84000000', // bytes
      '0100 0200', // slot, bytes of the key
      '01000000', // bucket
      '04 00 0300', // some version expires; versions
      '0300 0000 00000000', // entries of the vector
      '6b65 0000',
      '0000 0000 03000000',
      '0200 0100 02000000',
      '0300 0000 09000000',
      '0000 0000 03000000 00 02 0000 05000000 6162636465 000000',
      '0200 0100 02000000 02 00 0000 00000000',
      '0300 0000 04000000 0c 01 0300 01000000 05000000 10000000 06000000 00000000 782f79 00 66 000000',
    ),
  )
})

test('Record: siblings that are all deleted are marked as a tombstone', () => {
  const set: VersionSet = {
    versions: [version({ actor: 0, counter: 1, tombstone: true }), version({ actor: 1, counter: 1, tombstone: true })],
    vector: [
      { actor: 0, counter: 1 },
      { actor: 1, counter: 1 },
    ],
  }
  assert.equal(encoded(set, ascii('k'))[12], RecordFlag.tombstone)
})

test('Record: flags and codes of content types are frozen, since they stand on disk', () => {
  assert.deepEqual(RecordFlag, { simple: 1, tombstone: 2, expiry: 4, timestamp: 8, paddingMask: 0x30, control: 0x40 })
  assert.equal(recordHeaderBytes, 24)
  // Append only: a release must read what every release before it wrote.
  assert.deepEqual(ContentTypes.slice(0, 22), [
    'application/octet-stream',
    '',
    'text/plain',
    'text/plain; charset=utf-8',
    'text/plain;charset=UTF-8',
    'application/json',
    'application/json; charset=utf-8',
    'text/html',
    'text/html; charset=utf-8',
    'text/css',
    'application/xml',
    'application/msgpack',
    'application/cbor',
    'application/x-www-form-urlencoded',
    'application/protobuf',
    'image/png',
    'image/jpeg',
    'image/webp',
    'image/svg+xml',
    'application/pdf',
    'application/gzip',
    'application/x-ndjson',
  ])
  assert.ok(ContentTypes.length <= 256, 'A code is one byte')
  assert.equal(new Set(ContentTypes).size, ContentTypes.length)
  for (const [code, type] of ContentTypes.entries()) if (code !== 1) assert.equal(contentTypeCodeOf(type), code)
  assert.equal(contentTypeCodeOf('text/x-unknown'), 1)
  assert.equal(contentTypeCodeOf('Text/Plain'), 1, 'Types come back as they were given')
})

test('Record: a code that this release does not know reads as the default type', () => {
  const bytes = encoded(simpleSet({ value: ascii('v'), contentType: 'text/css' }), ascii('k'))
  bytes[13] = 255
  assert.equal(decoded(bytes).versions[0]!.contentType, ContentTypes[0])
  assert.equal(simpleContentType(bytes, 0), ContentTypes[0])
})

// Arbitrary version sets.

const counters = fc.oneof(
  fc.integer({ min: 1, max: 5 }),
  fc.constantFrom(0xffff_ffff, 0x1_0000_0000, 0x7fff_ffff, 0x8000_0000, counterMax),
  fc.maxSafeInteger().map((value) => 1 + (Math.abs(value) % counterMax)),
)
const times = fc.oneof(fc.constant(0), fc.constantFrom(1, 0xffff_ffff, 0x1_0000_0000, 2 ** 53 - 1), fc.maxSafeNat())
const types = fc.oneof(
  fc.constantFrom(...ContentTypes.filter((type) => type !== '')),
  fc.string({ minLength: 0, maxLength: 255, unit: 'grapheme-ascii' }),
)
const anyVersion = fc
  .record(
    {
      actor: fc.oneof(fc.nat(5), fc.constant(0xffff)),
      counter: counters,
      tombstone: fc.boolean(),
      expiresAtMs: times,
      timestamp: times,
      contentType: types,
      value: fc.uint8Array({ maxLength: 300 }),
    },
    { noNullPrototype: true },
  )
  .map((drawn): Version => ({ ...drawn, value: Uint8Array.from(drawn.value) }))
const keys = fc.uint8Array({ minLength: 1, maxLength: 70 })
const anySet = fc
  .tuple(
    fc.uniqueArray(anyVersion, { maxLength: 6, selector: ({ actor, counter }) => `${actor}/${counter}` }),
    fc.uniqueArray(fc.record({ actor: fc.nat(9), counter: counters }, { noNullPrototype: true }), {
      maxLength: 6,
      selector: ({ actor }) => actor,
    }),
  )
  .map(([versions, vector]): VersionSet => ({ versions, vector }))

test('Record: what was encoded is decoded, whatever the versions, types, key and place', () => {
  const sets = fc.oneof(
    anyVersion.map((drawn) => simpleSet(drawn)),
    anySet,
  )
  fc.assert(
    fc.property(sets, keys, fc.nat(16383), fc.nat(0xffff_ffff), (set, key, slot, bucketId) => {
      const bytes = encoded(set, key, slot, bucketId)
      const i32 = new Int32Array(bytes.buffer)
      assert.equal(bytes.length % 4, 0)
      assert.equal(recordBytesAt(i32, 0), bytes.length)
      assert.equal(recordSlot(bytes, 0), slot)
      assert.equal(recordBucket(i32, 0), bucketId)
      assert.equal(recordKeyBytes(bytes, 0), key.length)
      assert.deepEqual(bytes.slice(24, 24 + key.length), Uint8Array.from(key))
      assert.deepEqual(decoded(bytes), set)
      assert.deepEqual(decodeVector(bytes, i32, 0), set.vector)
    }),
    { numRuns: 1000 * scale },
  )
})

test('Record: the parts of a simple record are read without decoding it', () => {
  fc.assert(
    fc.property(anyVersion, keys, (drawn, key) => {
      const bytes = encoded(simpleSet(drawn), key)
      const i32 = new Int32Array(bytes.buffer)
      const flags = bytes[12]!
      assert.equal(flags & RecordFlag.simple, RecordFlag.simple)
      assert.equal((flags & RecordFlag.tombstone) !== 0, drawn.tombstone)
      assert.equal(simpleActor(bytes, 0), drawn.actor)
      assert.equal(simpleCounter(bytes, i32, 0), drawn.counter)
      assert.equal(simpleExpiry(bytes, i32, 0), drawn.expiresAtMs)
      assert.equal(simpleContentType(bytes, 0), drawn.contentType)
      const start = simpleValueStart(bytes, 0)
      assert.equal(start % 4, 0, 'A value can be copied by words')
      assert.deepEqual(bytes.slice(start, bytes.length - valuePadding(flags)), drawn.value)
    }),
    { numRuns: 1000 * scale },
  )
})

test('Record: encodeSimple() from parts that lie anywhere in other memory gives the bytes of encodeRecord()', () => {
  fc.assert(
    fc.property(anyVersion, keys, fc.nat(7), fc.nat(7), fc.nat(7), (drawn, key, keyStart, typeStart, valueStart) => {
      const embed = (part: Uint8Array, start: number): Uint8Array => {
        const memory = new Uint8Array(start + part.length + 3).fill(0x99)
        memory.set(part, start)
        return memory
      }
      const code = contentTypeCodeOf(drawn.contentType)
      const type = code === 1 ? ascii(drawn.contentType) : new Uint8Array(0)
      const flags =
        (drawn.tombstone ? RecordFlag.tombstone : 0) |
        (drawn.expiresAtMs > 0 ? RecordFlag.expiry : 0) |
        (drawn.timestamp > 0 ? RecordFlag.timestamp : 0)
      const wanted = simpleRecordBytes(flags, key.length, type.length, drawn.value.length)
      const u8 = new Uint8Array(wanted).fill(0xdd)
      const i32 = new Int32Array(u8.buffer)
      const bytes = encodeSimple(
        u8,
        i32,
        0,
        77,
        3,
        flags,
        code,
        drawn.actor,
        drawn.counter,
        drawn.expiresAtMs,
        drawn.timestamp,
        embed(key, keyStart),
        keyStart,
        key.length,
        embed(type, typeStart),
        typeStart,
        type.length,
        embed(drawn.value, valueStart),
        valueStart,
        drawn.value.length,
      )
      assert.equal(bytes, wanted)
      assert.equal(u8.toHex(), encoded(simpleSet(drawn), key, 77, 3).toHex())
    }),
    { numRuns: 300 * scale },
  )
})

test('Record: a value of every length from 0 to 9 keeps its length', () => {
  for (let length = 0; length <= 9; length++) {
    const value = new Uint8Array(length).fill(7)
    const bytes = encoded(simpleSet({ value }), ascii('k'))
    assert.equal(valuePadding(bytes[12]!), (4 - (length % 4)) % 4)
    assert.deepEqual(decoded(bytes).versions[0]!.value, value)
  }
})

test('Record: a decoded value is a copy', () => {
  const bytes = encoded(simpleSet({ value: ascii('abcd') }), ascii('k'))
  const set = decodeRecord(bytes, new Int32Array(bytes.buffer), 0)
  bytes.fill(0)
  assert.deepEqual(set.versions[0]!.value, ascii('abcd'))
})
