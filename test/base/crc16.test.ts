import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { crc16, crc16Without } from '../../src/base/crc16.ts'

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

test('crc16() gives the golden vectors of the Redis Cluster specification', () => {
  const of = (text: string): number => crc16(bytes(text), 0, bytes(text).length)
  assert.equal(of('123456789'), 12739)
  assert.equal(of(''), 0)
  assert.equal(of('foo'), 44950)
  assert.equal(of('somekey'), 27442)
})

test('crc16() reads only the range it is given', () => {
  assert.equal(crc16(bytes('xx123456789yy'), 2, 11), 12739)
})

/** The definition, bit by bit. */
function crc16ByBits(data: Uint8Array): number {
  let crc = 0
  for (const byte of data) {
    crc ^= byte << 8
    for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : (crc << 1) & 0xffff
  }
  return crc
}

test('crc16() of any bytes is what the polynomial says, and crc16Without() tells of a forbidden byte', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), fc.nat({ max: 255 }), (data, forbidden) => {
      assert.equal(crc16(data, 0, data.length), crc16ByBits(data))
      assert.equal(crc16Without(data, 0, data.length, forbidden), data.includes(forbidden) ? -1 : crc16ByBits(data))
    }),
    { numRuns: 2000 },
  )
})
