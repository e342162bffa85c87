import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  ControlKind,
  controlKind,
  decodeActors,
  decodeClocks,
  decodeSegmentHead,
  decodeTimestamps,
  decodeTrackedClocks,
  encodeActors,
  encodeClocks,
  encodeSegmentHead,
  encodeTimestamps,
  encodeTrackedClocks,
  isControl,
} from '../../src/storage/log-control.ts'
import { encodeRecord, recordBytesAt } from '../../src/storage/record.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const hex = (...fields: string[]): string => fields.join('').replaceAll(' ', '')
const words = (bytes: Uint8Array): Int32Array => new Int32Array(bytes.buffer, 0, bytes.length >>> 2)
const head = {
  segmentBytes: 0x10000,
  previousSequence: 0xffff_0001,
  previousBytes: 0x8000,
  oldestSequence: 7,
  shard: 1,
  shards: 2,
  partitions: 1024,
}

test('LogControl: the kinds are frozen, since they stand on disk', () => {
  assert.deepEqual(ControlKind, {
    segmentHead: 1,
    actors: 2,
    clocks: 3,
    trackedClocks: 4,
    timestamps: 5,
    clocksAnew: 6,
  })
})

test('LogControl: a segment head has exactly these bytes', () => {
  assert.equal(
    encodeSegmentHead(head).toHex(),
    hex(
      '34000000 0000 0100 00000000 40 000000 00000000 00000000',
      '01000000', // format version
      '00000100', // segment bytes
      '0100ffff', // previous sequence
      '00800000', // previous bytes
      '07000000', // oldest sequence
      '0100 0200', // shard, shards
      '00040000', // partitions
    ),
  )
})

test('LogControl: actors and clocks have exactly these bytes', () => {
  assert.equal(
    encodeActors(3, [
      { low: 1, high: 0x8000_0000 },
      { low: 0xffff_ffff, high: 2 },
    ]).toHex(),
    hex(
      '30000000 0000 0200 00000000 40 000000 00000000 00000000',
      '03000000 02000000',
      '01000000 00000080',
      'ffffffff 02000000',
    ),
  )
  assert.equal(
    encodeClocks([{ partition: 1023, actor: 0x0102, counter: 0x8765_4321_0fed }]).toHex(),
    hex('28000000 0000 0300 00000000 40 000000 00000000 00000000', '01000000', 'ff03 0201 ed0f2143 65870000'),
  )
})

test('LogControl: reserved timestamps have exactly these bytes, and decode', () => {
  const bytes = encodeTimestamps(0x12_3456_789a_bcde)
  assert.equal(bytes.toHex(), hex('20000000 0000 0500 00000000 40 000000 00000000 00000000', 'debc9a78 56341200'))
  assert.equal(decodeTimestamps(bytes, words(bytes), 0), 0x12_3456_789a_bcde)
  bytes[31] = 1
  assert.equal(decodeTimestamps(bytes, words(bytes), 0), undefined, 'No time that a number holds exactly')
})

test('LogControl: clocks that begin anew stand as others do, under a kind of their own', () => {
  const clock = Uint8Array.of(1, 2, 3)
  const bytes = encodeTrackedClocks([{ partition: 5, clock }], true)
  assert.equal(
    bytes.toHex(),
    hex('28000000 0000 0600 00000000 40 000000 00000000 00000000', '01000000 0500 0100 03000000 010203 00'),
  )
  assert.deepEqual(decodeTrackedClocks(bytes, words(bytes), 0), [{ partition: 5, clock }])
})

test('LogControl: what was encoded is decoded', () => {
  const u32 = fc.nat(0xffff_ffff)
  const actors = fc.array(fc.record({ low: u32, high: u32 }, { noNullPrototype: true }), { maxLength: 20 })
  const clocks = fc.array(
    fc.record({ partition: fc.nat(1023), actor: fc.nat(0xffff), counter: fc.maxSafeNat() }, { noNullPrototype: true }),
    { maxLength: 20 },
  )
  fc.assert(
    fc.property(u32, actors, clocks, (first, ids, entries) => {
      const actorBytes = encodeActors(first, ids)
      assert.ok(isControl(actorBytes, 0))
      assert.equal(controlKind(actorBytes, 0), ControlKind.actors)
      assert.equal(recordBytesAt(words(actorBytes), 0), actorBytes.length)
      assert.deepEqual(decodeActors(actorBytes, words(actorBytes), 0), { first, ids })
      const clockBytes = encodeClocks(entries)
      assert.equal(controlKind(clockBytes, 0), ControlKind.clocks)
      assert.deepEqual(decodeClocks(clockBytes, words(clockBytes), 0), entries)
    }),
    { numRuns: 200 * scale },
  )
  const bytes = encodeSegmentHead(head)
  assert.deepEqual(decodeSegmentHead(bytes, words(bytes), 0), { ...head, formatVersion: 1 })
})

test('LogControl: a record cut short, or one that counts more than it holds, decodes as nothing', () => {
  const records: [
    Uint8Array,
    typeof decodeSegmentHead | typeof decodeActors | typeof decodeClocks | typeof decodeTimestamps,
  ][] = [
    [encodeSegmentHead(head), decodeSegmentHead],
    [encodeActors(0, [{ low: 1, high: 2 }]), decodeActors],
    [encodeClocks([{ partition: 1, actor: 1, counter: 1 }]), decodeClocks],
    [encodeTimestamps(1), decodeTimestamps],
  ]
  for (const [bytes, decode] of records) {
    assert.notEqual(decode(bytes, words(bytes), 0), undefined)
    for (let shorter = 24; shorter < bytes.length; shorter += 4) {
      words(bytes)[0] = shorter
      assert.equal(decode(bytes, words(bytes), 0), undefined, `cut to ${shorter} bytes`)
    }
  }
  const clocks = encodeClocks([{ partition: 1, actor: 1, counter: 1 }])
  words(clocks)[6] = 0xffff_ffff
  assert.equal(decodeClocks(clocks, words(clocks), 0), undefined)
  const actors = encodeActors(0, [{ low: 1, high: 2 }])
  words(actors)[7] = 0x2000_0001
  assert.equal(decodeActors(actors, words(actors), 0), undefined)
})

test('LogControl: a record of a key is no control record', () => {
  const u8 = new Uint8Array(64)
  const set = {
    versions: [
      {
        actor: 0,
        counter: 1,
        tombstone: true,
        expiresAtMs: 1,
        timestamp: 1,
        contentType: 'a',
        value: new Uint8Array(0),
      },
    ],
    vector: [{ actor: 0, counter: 1 }],
  }
  encodeRecord(u8, words(u8), 0, 1, 1, Uint8Array.of(1), 0, 1, set)
  assert.equal(isControl(u8, 0), false)
})
