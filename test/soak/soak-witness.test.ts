import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { type Outcome, SoakValues, SoakWitness } from './soak-witness.ts'

const forever = (write: number): Outcome => ({ write, endsFromMs: Infinity, endsByMs: Infinity })
const at = (write: number, ms = 0) => ({ write, fromMs: ms, byMs: ms })

test('SoakWitness: only the acknowledged write may show, or a later one whose answer never came', () => {
  const witness = new SoakWitness()
  assert.equal(witness.judge(1, at(0)), undefined)
  assert.match(witness.judge(1, at(7))!, /shows write 7/)
  witness.acknowledged(1, forever(1))
  witness.acknowledged(1, forever(2))
  assert.match(witness.judge(1, at(1))!, /instead of write 2/, 'A stale value is seen')
  assert.match(witness.judge(1, at(0))!, /instead of write 2/, 'A lost value is seen')
  witness.unknown(1, forever(3))
  assert.deepEqual([...witness.surelyLive(0)], [1])
  witness.unknown(1, undefined)
  assert.deepEqual([...witness.surelyLive(0)], [])
  assert.equal(witness.judge(1, at(3)), undefined)
  assert.match(witness.judge(1, at(2))!, /instead of write 3/, 'What was shown stays')
  witness.acknowledged(1, undefined)
  assert.match(witness.judge(1, at(3))!, /instead of write 0/, 'A deleted value that comes back is seen')
})

test('SoakWitness: a value with a time to live shows until it ends, and never after', () => {
  const witness = new SoakWitness()
  witness.acknowledged(1, { write: 1, endsFromMs: 100, endsByMs: 110 })
  assert.deepEqual([...witness.surelyLive(99)], [1])
  assert.deepEqual([...witness.surelyLive(100)], [])
  assert.deepEqual([witness.mayShow(1, 110), witness.mayShow(1, 111), witness.mayShow(2, 0)], [true, false, false])
  assert.match(witness.judge(1, at(0, 99))!, /shows write 0/, 'A value that ends too early is seen')
  assert.equal(witness.judge(1, at(1, 105)), undefined)
  assert.equal(witness.judge(1, at(0, 105)), undefined)
  assert.match(witness.judge(1, at(1, 111))!, /until 110/, 'A value that does not end is seen')
  assert.equal(witness.judge(1, at(0, 111)), undefined)
})

test('SoakValues: a value tells its write, and nothing else passes for one', () => {
  const random = new SeededRandom(3)
  const values = new SoakValues((into) => random.fill(into))
  for (let write = 1; write < 500; write++) {
    const value = values.of(write)
    assert.ok(value.length >= SoakValues.bytesMin && value.length <= SoakValues.bytesMax)
    assert.equal(values.writeOf(value), write)
    const damaged = Buffer.from(value)
    damaged[20 + (write % 30)]! ^= 1
    assert.equal(values.writeOf(damaged), -1)
    assert.equal(values.writeOf(value.subarray(1)), -1)
  }
  assert.equal(values.writeOf(Buffer.alloc(0)), -1)
})
