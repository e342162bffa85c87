import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32 as zlibCrc32 } from 'node:zlib'
import fc from 'fast-check'
import { crc32 } from '../../src/base/crc32.ts'

test('crc32() gives the check value of CRC-32/ISO-HDLC', () => {
  assert.equal(crc32(new TextEncoder().encode('123456789'), 0, 9), 0xcbf43926)
})

test("crc32() equals the engine's own on any range", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(20), fc.nat(20), (bytes, skip, cut) => {
      const start = Math.min(skip, bytes.length)
      const end = Math.max(start, bytes.length - cut)
      assert.equal(crc32(bytes, start, end), zlibCrc32(bytes.subarray(start, end)))
    }),
  )
})
