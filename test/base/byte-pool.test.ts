import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { BytePool } from '../../src/base/byte-pool.ts'

test('BytePool gives arrays of the length asked for, all zero, that overlap no other', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 6000 }), { maxLength: 120 }), (lengths) => {
      const pool = new BytePool()
      const arrays = lengths.map((length, index) => {
        const array = pool.allocate(length)
        assert.equal(array.length, length)
        assert.ok(array.every((byte) => byte === 0))
        return array.fill((index % 255) + 1)
      })
      for (const [index, array] of arrays.entries()) assert.ok(array.every((byte) => byte === (index % 255) + 1))
    }),
  )
})

test('BytePool lets small arrays share memory and gives large ones their own', () => {
  const pool = new BytePool()
  assert.equal(pool.allocate(100).buffer, pool.allocate(100).buffer)
  assert.equal(pool.allocate(5000).buffer.byteLength, 5000)
})
