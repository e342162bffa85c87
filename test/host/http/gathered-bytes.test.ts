import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { GatheredBytes } from '../../../src/host/http/gathered-bytes.ts'

test('Chunks come out as one, whatever was expected, and a second round starts anew', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 20 }), { maxLength: 20 }),
      fc.integer({ min: 0, max: 100 }),
      (chunks, expected) => {
        const gathered = new GatheredBytes(expected)
        for (let round = 0; round < 2; round++) {
          for (const chunk of chunks) gathered.add(Buffer.from(chunk))
          assert.equal(gathered.length, Buffer.concat(chunks).length)
          assert.deepEqual(gathered.take(), Buffer.concat(chunks))
        }
      },
    ),
  )
})

test('A single chunk is handed on without a copy', () => {
  const chunk = Buffer.from('abc')
  const gathered = new GatheredBytes(10)
  gathered.add(chunk)
  assert.equal(gathered.take().buffer, chunk.buffer)
})

test('A chunk that is gathered is not changed by the ones after it', () => {
  const whole = Buffer.from('abcdef')
  const gathered = new GatheredBytes()
  gathered.add(whole.subarray(0, 2))
  gathered.add(Buffer.from('XY'))
  assert.equal(gathered.take().toString(), 'abXY')
  assert.equal(whole.toString(), 'abcdef')
})
