import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc16 } from '../../src/base/crc16.ts'

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
