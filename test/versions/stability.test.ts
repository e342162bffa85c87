import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ActorRegistry } from '../../src/versions/actor-registry.ts'
import { PartitionClock } from '../../src/versions/partition-clock.ts'
import {
  decodeAttested,
  decodeStable,
  encodeAttested,
  encodeStable,
  joinStable,
  nothingStable,
  type Stable,
  stableOf,
} from '../../src/versions/stability.ts'
import { descends } from '../../src/versions/version-set.ts'

const graceMs = 60_000

function clockOf(bases: readonly (readonly [actor: number, counter: number])[]): PartitionClock {
  const clock = new PartitionClock()
  for (const [actor, counter] of bases) clock.raiseBase(actor, counter)
  return clock
}

const arbitraryStable = fc
  .record({
    counters: fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 3, maxLength: 3 }),
    expiredBeforeMs: fc.constantFrom(0, 60_000, 120_000),
  })
  .map(({ counters, expiredBeforeMs }): Stable => {
    const vector = counters.flatMap((counter, actor) => (counter === 0 ? [] : [{ actor, counter }]))
    return { vector, expiredBeforeMs }
  })

test('stableOf() is the least base of each actor, and an actor that one replica does not know is not in it', () => {
  const nowMs = 1_000_000
  const first = { clock: clockOf([[0, 5], [1, 3], [2, 9]]), nowMs } // biome-ignore format: one line
  const second = { clock: clockOf([[0, 7], [1, 2]]), nowMs: nowMs - 200_000 } // biome-ignore format: one line
  // What lies above a gap is not counted.
  second.clock.add(2, 4)
  assert.deepEqual(stableOf([first, second], graceMs).vector, [
    { actor: 0, counter: 5 },
    { actor: 1, counter: 2 },
  ])
  assert.equal(stableOf([first, second], graceMs).expiredBeforeMs, 720_000, 'The slowest clock tells, less the grace')
  assert.deepEqual(stableOf([], graceMs), nothingStable)
})

test('joinStable() never goes back, in whatever order and however often it is told', () => {
  fc.assert(
    fc.property(arbitraryStable, arbitraryStable, (a, b) => {
      const joined = joinStable(a, b)
      for (const each of [a, b]) {
        assert.ok(descends(joined.vector, each.vector))
        assert.ok(joined.expiredBeforeMs >= each.expiredBeforeMs)
      }
      assert.deepEqual(joinStable(b, a), joined)
      assert.equal(joinStable(joined, a), joined, 'the same object where nothing is new')
    }),
  )
})

test('decodeStable() and decodeAttested() give what was encoded, refuse every truncation, and never throw', () => {
  const actors = new ActorRegistry()
  const ids = [0, 1, 2].map((low) => actors.indexOf(low + 1, 7))
  const stable = { vector: ids.map((actor) => ({ actor, counter: 3 + actor })), expiredBeforeMs: 1_700_000_040_000 }
  const bytes = encodeStable(stable, actors)
  assert.deepEqual(decodeStable(bytes, actors.indexOf), stable)
  for (let end = 0; end < bytes.length; end++)
    assert.equal(typeof decodeStable(bytes.slice(0, end), actors.indexOf), 'string')
  const clock = clockOf([[ids[0]!, 9]])
  const whole = encodeAttested(clock.encode(actors), 5, bytes)
  const decoded = decodeAttested(whole, actors.indexOf)
  assert.ok(typeof decoded !== 'string')
  assert.deepEqual(decoded.attested?.clock.bases(), clock.bases())
  assert.equal(decoded.attested?.nowMs, 5)
  assert.deepEqual(decoded.stable, bytes)
  const unsaid = decodeAttested(encodeAttested(new Uint8Array(0), 5, bytes), actors.indexOf)
  assert.ok(typeof unsaid !== 'string' && unsaid.attested === undefined)
  fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), (noise) => void decodeAttested(noise, actors.indexOf)))
})

test('encodeStable() and encodeAttested() travel between nodes: their bytes never change', () => {
  const table = { lowOf: () => 0x0102_0304, highOf: () => 5 }
  const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
  const stable = encodeStable({ vector: [{ actor: 0, counter: 6 }], expiredBeforeMs: 7 }, table)
  assert.equal(hexOf(stable), '0700000000000000 01000100 04030201 05000000 06000000 0000 0000'.replaceAll(' ', ''))
  assert.equal(
    hexOf(encodeAttested(Uint8Array.of(0xaa), 8, Uint8Array.of(0xbb))),
    '0800000000000000 01000000 aa bb'.replaceAll(' ', ''),
  )
})
