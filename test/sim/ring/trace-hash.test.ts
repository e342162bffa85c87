import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../../src/base/seeded-random.ts'
import { TraceHash } from './trace-hash.ts'

test('TraceHash: equal traces have equal hashes, and any other kind, time, name, number or order another one', () => {
  const hashOf = (...notes: readonly Parameters<TraceHash['note']>[]): string => {
    const hash = new TraceHash()
    for (const note of notes) hash.note(...note)
    return hash.hex
  }
  const note = ['m', 12.5, 'n1', 'n2', 7] as const
  const others = [
    hashOf(['w', 12.5, 'n1', 'n2', 7]),
    hashOf(['m', 12.500000000000002, 'n1', 'n2', 7]),
    hashOf(['m', 12.5, 'n1n', '2', 7]),
    hashOf(['m', 12.5, 'n2', 'n1', 7]),
    hashOf(['m', 12.5, 'n1', 'n2', 8]),
    hashOf([...note], [...note]),
    hashOf(),
  ]
  assert.match(hashOf([...note]), /^[0-9a-f]{16}$/)
  assert.equal(hashOf([...note]), hashOf([...note]))
  assert.equal(new Set([hashOf([...note]), ...others]).size, others.length + 1)
})

test('TraceHash: of a hundred thousand traces no two have one hash, though they differ in one draw', () => {
  const random = new SeededRandom('traces')
  const seen = new Set<string>()
  const numbers = new Set<number>()
  while (numbers.size < 100_000) numbers.add(random.u32())
  for (const number of numbers) {
    const hash = new TraceHash()
    hash.note('m', 1, 'n1', 'n2', number)
    hash.note('m', 2, 'n2', 'n1', 1)
    seen.add(hash.hex)
  }
  assert.equal(seen.size, numbers.size)
})
