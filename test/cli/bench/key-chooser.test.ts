import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../../src/base/seeded-random.ts'
import {
  type KeyChooser,
  LatestChooser,
  ScrambledChooser,
  UniformChooser,
  ZipfianChooser,
  zipfianExponent,
} from '../../../src/cli/bench/key-chooser.ts'

const draws = 200_000

function countsOf(chooser: KeyChooser, count: number): Uint32Array {
  const counts = new Uint32Array(count)
  for (let draw = 0; draw < draws; draw++) {
    const record = chooser.next()
    assert.ok(Number.isInteger(record) && record >= 0 && record < count, `${record} of ${count}`)
    counts[record]!++
  }
  return counts
}

/** What Zipf's law expects of each rank. */
function zipfShares(count: number): number[] {
  const weights = Array.from({ length: count }, (_, rank) => 1 / (rank + 1) ** zipfianExponent)
  const sum = weights.reduce((total, weight) => total + weight, 0)
  return weights.map((weight) => weight / sum)
}

const near = (actual: number, expected: number, tolerance: number, what: string): void =>
  assert.ok(Math.abs(actual - expected) <= tolerance * expected, `${what}: ${actual}, expected ${expected}`)

test('UniformChooser draws every record about equally often', () => {
  const counts = countsOf(new UniformChooser(new SeededRandom(1), 100), 100)
  for (const [record, count] of counts.entries()) near(count, draws / 100, 0.12, `record ${record}`)
})

test("ZipfianChooser follows Zipf's law: exactly for the first two ranks, closely for the mass of the others", () => {
  const count = 10_000
  const counts = countsOf(new ZipfianChooser(new SeededRandom(2), count), count)
  const shares = zipfShares(count)
  near(counts[0]! / draws, shares[0]!, 0.03, 'rank 1')
  near(counts[1]! / draws, shares[1]!, 0.05, 'rank 2')
  // Gray's method bends single ranks a little; what matters is how much of all draws the popular ones take.
  for (const ranks of [10, 100, 1000, 5000]) {
    const mass = counts.subarray(0, ranks).reduce((sum, value) => sum + value, 0) / draws
    const expected = shares.slice(0, ranks).reduce((sum, value) => sum + value, 0)
    near(mass, expected, 0.08, `the first ${ranks}`)
  }
})

test('ZipfianChooser grown record by record draws as one that was made large', () => {
  const grown = new ZipfianChooser(new SeededRandom(3), 1)
  for (let count = 2; count <= 500; count++) grown.grow(count)
  const made = new ZipfianChooser(new SeededRandom(3), 500)
  for (let draw = 0; draw < 1000; draw++) assert.equal(grown.next(), made.next())
})

test('ZipfianChooser of one and of two records draws only those', () => {
  assert.deepEqual([...countsOf(new ZipfianChooser(new SeededRandom(4), 1), 1)], [draws])
  const [first, second] = countsOf(new ZipfianChooser(new SeededRandom(4), 2), 2)
  near(first! / second!, 2 ** zipfianExponent, 0.03, 'first over second')
})

test('ScrambledChooser has the same popular shares, at records all over the range', () => {
  const count = 1000
  const counts = countsOf(new ScrambledChooser(new SeededRandom(5), count), count)
  const popular = [...counts.entries()].sort((left, right) => right[1] - left[1]).slice(0, 20)
  const shares = zipfShares(count)
  assert.ok(popular[0]![1] / draws >= 0.95 * shares[0]!)
  const inLowHalf = popular.filter(([record]) => record < count / 2).length
  assert.ok(inLowHalf >= 3 && inLowHalf <= 17, `${inLowHalf} of 20 in the low half`)
})

test('LatestChooser prefers the newest record, also after records were added', () => {
  const chooser = new LatestChooser(new SeededRandom(6), 100)
  chooser.grow(1000)
  const counts = countsOf(chooser, 1000)
  near(counts[999]! / draws, zipfShares(1000)[0]!, 0.03, 'the newest')
  assert.ok(counts[999]! > counts[998]! && counts[998]! > counts[900]!)
})

test('The same seed draws the same records', () => {
  for (const make of [UniformChooser, ZipfianChooser, ScrambledChooser, LatestChooser]) {
    const left = new make(new SeededRandom('x'), 1000)
    const right = new make(new SeededRandom('x'), 1000)
    for (let draw = 0; draw < 100; draw++) assert.equal(left.next(), right.next(), make.name)
  }
})
