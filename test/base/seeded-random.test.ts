import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AssertionError } from '../../src/base/assert.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import type { Random } from '../../src/env.ts'

const first = (random: SeededRandom, count: number): number[] => Array.from({ length: count }, () => random.u32())

/** sfc32 as published (PractRand), in BigInt: slow, and written without looking at the product's code. */
function* referenceOf(words: readonly [number, number, number]): Generator<number> {
  const mask = 0xffffffffn
  let [a, b, c] = words.map(BigInt) as [bigint, bigint, bigint]
  let counter = 1n
  for (;;) {
    const output = (a + b + counter) & mask
    counter = (counter + 1n) & mask
    a = b ^ (b >> 9n)
    b = (c + (c << 3n)) & mask
    c = (((c << 21n) | (c >> 11n)) + output) & mask
    yield Number(output)
  }
}

test('SeededRandom gives the numbers of sfc32 after 15 rounds of mixing', () => {
  fc.assert(
    fc.property(fc.maxSafeInteger(), (seed) => {
      const high = Number((BigInt(seed) >> 32n) & 0xffffffffn)
      const reference = referenceOf([0, Number(BigInt(seed) & 0xffffffffn), high])
      for (let round = 0; round < 15; round++) reference.next()
      const expected = Array.from({ length: 50 }, () => reference.next().value)
      assert.deepEqual(first(new SeededRandom(seed), 50), expected)
    }),
  )
})

test('SeededRandom: golden vectors, since recorded seeds must replay in every release', () => {
  assert.deepEqual(first(new SeededRandom(0), 4), [0xfb52c520, 0x38802be1, 0x948279e6, 0xec4bf1d9])
  assert.deepEqual(first(new SeededRandom(42), 4), [0x4a934eb2, 0x271fe4cf, 0x1c80a59d, 0xc3676257])
  assert.deepEqual(first(new SeededRandom('disk'), 4), [0x408eb935, 0x99566eb4, 0x4b168e7f, 0xa2f461cf])
  const bytes = new Uint8Array(6)
  new SeededRandom(42).fill(bytes)
  assert.deepEqual([...bytes], [178, 78, 147, 74, 207, 228])
})

test('SeededRandom: equal seeds give equal sequences, different ones do not', () => {
  const seeds: (number | string)[] = [0, 1, -1, 2 ** 32, 2 ** 33, 2 ** 52, '', '0', '1', 'a', 'b', 'ab', 'ba']
  const sequences = seeds.map((seed) => first(new SeededRandom(seed), 4).join())
  assert.deepEqual(
    sequences,
    seeds.map((seed) => first(new SeededRandom(seed), 4).join()),
  )
  assert.equal(new Set(sequences).size, seeds.length)
})

test('SeededRandom.below() and between() stay within their bounds and reach both ends', () => {
  const random = new SeededRandom(1)
  for (const bound of [1, 2, 3, 7, 10]) {
    const seen = new Set(Array.from({ length: 400 }, () => random.below(bound)))
    assert.deepEqual(
      [...seen].sort((a, b) => a - b),
      Array.from({ length: bound }, (_, index) => index),
    )
  }
  const drawn = new Set(Array.from({ length: 200 }, () => random.between(-2, 2)))
  assert.deepEqual(
    [...drawn].sort((a, b) => a - b),
    [-2, -1, 0, 1, 2],
  )
  assert.equal(random.between(5, 5), 5)
  assert.ok(random.below(2 ** 32) < 2 ** 32)
})

test('SeededRandom.below() favours no number, even where the bound does not divide 2^32', () => {
  // With a bound of 3 * 2^30 a plain remainder would give the numbers below 2^30 half of all draws instead of a third.
  const random = new SeededRandom(2)
  let low = 0
  for (let draw = 0; draw < 30_000; draw++) if (random.below(3 * 2 ** 30) < 2 ** 30) low++
  assert.ok(Math.abs(low - 10_000) < 500, `${low} of 30000 in the lowest third`)
})

test('SeededRandom.chance() is true in the given part of the cases and always takes a draw', () => {
  const random = new SeededRandom(3)
  let hits = 0
  for (let draw = 0; draw < 40_000; draw++) if (random.chance(1, 4)) hits++
  assert.ok(Math.abs(hits - 10_000) < 500, `${hits} of 40000`)
  const never = new SeededRandom(4)
  const always = new SeededRandom(4)
  for (let draw = 0; draw < 100; draw++) {
    assert.equal(never.chance(0, 10), false)
    assert.equal(always.chance(10, 10), true)
  }
  assert.equal(never.u32(), always.u32())
})

test('SeededRandom.fraction() is spread over [0, 1)', () => {
  const random = new SeededRandom(5)
  const tenths = new Array<number>(10).fill(0)
  for (let draw = 0; draw < 10_000; draw++) tenths[Math.floor(random.fraction() * 10)]!++
  assert.equal(tenths.length, 10)
  for (const count of tenths) assert.ok(Math.abs(count - 1000) < 200, tenths.join())
})

test('SeededRandom: every bit of u32() and every byte of fill() is set in half of the cases', () => {
  const random = new SeededRandom(6)
  const ones = new Array<number>(32).fill(0)
  for (let draw = 0; draw < 20_000; draw++) {
    const word = random.u32()
    for (let bit = 0; bit < 32; bit++) ones[bit]! += (word >>> bit) & 1
  }
  for (const count of ones) assert.ok(Math.abs(count - 10_000) < 500, ones.join())
  const bytes = new Uint8Array(200_000)
  random.fill(bytes)
  const counts = new Array<number>(256).fill(0)
  for (const byte of bytes) counts[byte]!++
  // Chi square with 255 degrees of freedom: above 340 in fewer than 3 of 10,000 seeds, and the seed is fixed.
  const chiSquare = counts.reduce((sum, count) => sum + (count - 781.25) ** 2 / 781.25, 0)
  assert.ok(chiSquare < 340, `chi square ${chiSquare}`)
})

test('SeededRandom.fill() fills exactly the given view', () => {
  const whole = new Uint8Array(12)
  new SeededRandom(7).fill(whole.subarray(3, 10))
  assert.deepEqual([...whole.subarray(0, 3), ...whole.subarray(10)], [0, 0, 0, 0, 0])
  assert.ok(whole.subarray(3, 10).some((byte) => byte !== 0))
})

test('SeededRandom.pick() and shuffle() reach every item and every order', () => {
  const random = new SeededRandom(8)
  const picked = new Set(Array.from({ length: 100 }, () => random.pick(['a', 'b', 'c'])))
  assert.deepEqual([...picked].sort(), ['a', 'b', 'c'])
  const orders = new Map<string, number>()
  for (let draw = 0; draw < 6000; draw++) {
    const order = random.shuffle([1, 2, 3]).join('')
    orders.set(order, (orders.get(order) ?? 0) + 1)
  }
  assert.deepEqual([...orders.keys()].sort(), ['123', '132', '213', '231', '312', '321'])
  for (const count of orders.values()) assert.ok(Math.abs(count - 1000) < 150, [...orders].join(' '))
})

test('SeededRandom.fork() depends on seed, draws so far and label, and is independent afterwards', () => {
  const parent = new SeededRandom(9)
  const other = new SeededRandom(9)
  const child = parent.fork('network')
  const same = other.fork('network')
  first(parent, 10)
  assert.deepEqual(first(child, 10), first(same, 10))
  assert.notDeepEqual(first(new SeededRandom(9).fork('disk'), 4), first(new SeededRandom(9).fork('network'), 4))
  const later = new SeededRandom(9)
  later.u32()
  assert.notDeepEqual(first(later.fork('network'), 4), first(new SeededRandom(9).fork('network'), 4))
  // A fork takes one draw from its parent, whatever the label.
  const drawn = new SeededRandom(9)
  drawn.u32()
  assert.deepEqual(first(other, 10), first(drawn, 10))
})

test('SeededRandom refuses bounds, ranges and seeds that make no sense', () => {
  const random = new SeededRandom(10)
  for (const wrong of [0, -1, 1.5, Number.NaN, 2 ** 32 + 1]) assert.throws(() => random.below(wrong), AssertionError)
  assert.throws(() => random.between(3, 2), AssertionError)
  assert.throws(() => random.chance(2, 1), AssertionError)
  assert.throws(() => random.pick([]), AssertionError)
  for (const wrong of [0.5, Number.NaN, 2 ** 60]) assert.throws(() => new SeededRandom(wrong), AssertionError)
})

test('SeededRandom fits the door Random', () => {
  const random: Random = new SeededRandom(11)
  assert.equal(typeof random.u32(), 'number')
})
