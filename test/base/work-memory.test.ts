import assert from 'node:assert/strict'
import { test } from 'node:test'
import { freshMemory, ReusedMemory } from '../../src/base/work-memory.ts'

test('WorkMemory: buffers are as long as asked, and can be seen as words', () => {
  for (const memory of [freshMemory, new ReusedMemory(1 << 20)]) {
    for (const bytes of [0, 1, 9, 1023, 1024, 1025, 100_000]) {
      const buffer = memory.take(bytes)
      assert.ok(
        buffer.length >= bytes && buffer.length <= Math.max(1024, bytes * 1.25 + 8),
        `${buffer.length} for ${bytes}`,
      )
      assert.equal(buffer.byteOffset, 0)
      assert.equal(buffer.buffer.byteLength % 8, 0)
      assert.equal(new Float64Array(buffer.buffer).length * 8, buffer.length)
    }
  }
})

test('ReusedMemory: nobody is given what another has, and what was given back is given out again', () => {
  const memory = new ReusedMemory(1 << 20)
  const first = memory.take(5000)
  const second = memory.take(5000)
  assert.notEqual(first, second)
  memory.give(new Int32Array(first.buffer))
  assert.equal(memory.freeBytes, first.length)
  assert.equal(memory.take(first.length), first)
  assert.equal(memory.freeBytes, 0)
  assert.notEqual(memory.take(first.length), second)
  assert.throws(() => memory.give(new Uint8Array(8192)), /given back once/)
})

test('ReusedMemory: the end of a job frees all that it took, and keeps no more than it may', () => {
  const memory = new ReusedMemory(64 * 1024)
  const buffers = [1024, 4096, 32_768, 65_536].map((bytes) => memory.take(bytes))
  memory.end()
  assert.equal(memory.freeBytes, 1024 + 4096 + 32_768, 'The largest goes first')
  assert.throws(() => memory.give(buffers[0]!), /given back once/)
  assert.equal(memory.take(32_768), buffers[2])
  assert.notEqual(memory.take(65_536), buffers[3])
})
