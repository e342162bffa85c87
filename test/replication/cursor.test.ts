import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SipHash } from '../../src/base/siphash.ts'
import { Limits } from '../../src/config.ts'
import { CursorCodec } from '../../src/replication/cursor.ts'
import { bytesOf } from '../storage/store-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const clusterKey = Uint8Array.from({ length: 16 }, (_, index) => index)
const codec = new CursorCodec(new SipHash(clusterKey))

test('CursorCodec: cursors have exactly these bytes', () => {
  assert.equal(
    codec.encode(0x8000_0001, { partition: 0x3ff, after: bytesOf('key') }).toHex(),
    ['01', '01', 'ff03', '01000080', '6b6579', 'f0662ab691af9055'].join(''),
  )
  assert.equal(
    codec.encode(1, { partition: 2, after: undefined }).toHex(),
    ['01', '00', '0200', '01000000', '1e2737d300b7ae84'].join(''),
  )
})

test('CursorCodec: positions come back', () => {
  fc.assert(
    fc.property(
      fc.nat(1023),
      fc.option(fc.uint8Array({ maxLength: 64 }), { nil: undefined }),
      fc.integer({ min: 0, max: 0xffff_ffff }),
      (partition, after, bucketId) => {
        const decoded = codec.decode(bucketId, codec.encode(bucketId, { partition, after }))
        assert.equal(decoded?.partition, partition)
        assert.deepEqual(decoded.after, after)
      },
    ),
    { numRuns: 100 * scale },
  )
  const longest = new Uint8Array(Limits.keyBytesMax).fill(7)
  assert.deepEqual(codec.decode(1, codec.encode(1, { partition: 5, after: longest })), { partition: 5, after: longest })
})

test('CursorCodec refuses what it did not make for this bucket and cluster', () => {
  const cursor = codec.encode(1, { partition: 5, after: bytesOf('some key') })
  assert.equal(codec.decode(2, cursor), undefined)
  assert.equal(new CursorCodec(new SipHash(new Uint8Array(16))).decode(1, cursor), undefined)
  for (let bit = 0; bit < 8 * cursor.length; bit++) {
    const changed = cursor.slice()
    changed[bit >>> 3]! ^= 1 << (bit & 7)
    assert.equal(codec.decode(1, changed), undefined, `bit ${bit}`)
  }
  for (let length = 0; length < cursor.length; length++) {
    assert.equal(codec.decode(1, cursor.subarray(0, length)), undefined, `${length} bytes`)
  }
  assert.equal(codec.decode(1, new Uint8Array([...cursor, 0])), undefined)
})

test('CursorCodec reads a view into a larger buffer', () => {
  const cursor = codec.encode(1, { partition: 5, after: bytesOf('k') })
  const larger = new Uint8Array(cursor.length + 7)
  larger.set(cursor, 3)
  const decoded = codec.decode(1, larger.subarray(3, 3 + cursor.length))
  assert.deepEqual(decoded, { partition: 5, after: bytesOf('k') })
})
