/** The outbox of a ring, against an array of messages. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AssertionError } from '../../src/base/assert.ts'
import { RingOutbox } from '../../src/base/ring-outbox.ts'

function put(outbox: RingOutbox, bytes: Uint8Array): boolean {
  const start = outbox.reserve(bytes.length)
  if (start < 0) return false
  outbox.openU8.set(bytes, start)
  outbox.commit(bytes.length)
  return true
}

const take = (outbox: RingOutbox): Uint8Array => {
  const head = outbox.headU8.slice(outbox.headStart, outbox.headStart + outbox.headBytes)
  outbox.removeHead()
  return head
}

test('RingOutbox lays messages out in a chunk as drawn', () => {
  const outbox = new RingOutbox(64, 64)
  put(outbox, Uint8Array.of(1, 2, 3))
  put(outbox, Uint8Array.of(9))
  const drawn = '03000000 00000000 01020300 00000000 01000000 00000000 09000000 00000000'
  assert.equal(Buffer.from(outbox.headU8.slice(0, 32)).toString('hex').replace(/.{8}/g, '$& ').trim(), drawn)
  assert.equal(outbox.headI32[0], 3)
  assert.equal(outbox.headStart, 8)
})

test('RingOutbox gives messages back whole and in order, within its bound, for any run', () => {
  const message = fc.uint8Array({ maxLength: 300 })
  const step = fc.oneof(message, fc.constantFrom('take' as const, 'abandon' as const))
  fc.assert(
    fc.property(fc.constantFrom(0, 128, 1024), fc.array(step, { maxLength: 100, size: 'max' }), (bytesMax, steps) => {
      const outbox = new RingOutbox(64, bytesMax)
      const model: Uint8Array[] = []
      for (const step of steps) {
        if (step === 'abandon') outbox.reserve(16)
        else if (step === 'take') {
          if (model.length > 0) assert.deepEqual(take(outbox), model.shift())
        } else {
          const isEmpty = outbox.isEmpty
          const isTaken = put(outbox, step)
          if (isTaken) model.push(step)
          if (isEmpty) assert.equal(isTaken, bytesMax > 0, 'an empty outbox takes anything')
          if (!isTaken && bytesMax > 0) assert.ok(outbox.bytesHeld + Math.max(64, step.length + 16) > bytesMax)
        }
        assert.equal(outbox.isEmpty, model.length === 0)
        assert.ok(outbox.bytesHeld <= Math.max(bytesMax, 312))
        assert.ok(outbox.bytesHeld >= model.reduce((sum, each) => sum + each.length, 0))
      }
      while (model.length > 0) assert.deepEqual(take(outbox), model.shift())
      assert.equal(outbox.bytesHeld, 0)
    }),
  )
})

test('RingOutbox reuses a chunk that was drained', () => {
  const outbox = new RingOutbox(64, 64)
  put(outbox, Uint8Array.of(1))
  const first = outbox.headU8
  take(outbox)
  put(outbox, Uint8Array.of(2))
  assert.equal(outbox.headU8, first)
  assert.deepEqual(take(outbox), Uint8Array.of(2))
})

test('RingOutbox refuses misuse', () => {
  const outbox = new RingOutbox(64, 64)
  assert.throws(() => new RingOutbox(60, 64), AssertionError)
  assert.throws(() => outbox.commit(0), AssertionError)
  assert.throws(() => outbox.openU8, AssertionError)
  assert.throws(() => outbox.openI32, AssertionError)
  assert.throws(() => outbox.headBytes, AssertionError)
  assert.throws(() => outbox.removeHead(), AssertionError)
  outbox.reserve(4)
  assert.throws(() => outbox.commit(5), AssertionError)
})
