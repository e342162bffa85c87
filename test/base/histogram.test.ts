import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Histogram, histogramValueMax, histogramWords } from '../../src/base/histogram.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const anyValue = fc.oneof(
  fc.integer({ min: 0, max: 300 }),
  fc.integer({ min: 0, max: 0x7fffffff }),
  fc.integer({ min: 0, max: histogramValueMax }),
  fc.integer({ min: 7, max: 41 }).chain((exponent) => fc.constantFrom(2 ** exponent - 1, 2 ** exponent)),
)

function recorded(values: readonly number[]): Histogram {
  const histogram = new Histogram()
  for (const value of values) histogram.record(value)
  return histogram
}

test('Histogram.percentile() is within 1 % of the sorted values, and the maximum exact', () => {
  fc.assert(
    fc.property(
      fc.array(anyValue, { minLength: 1, maxLength: 200 }),
      fc.double({ min: 0, max: 100, noNaN: true }),
      (values, percent) => {
        const histogram = recorded(values)
        const sorted = [...values].sort((left, right) => left - right)
        const rank = Math.min(Math.max(Math.ceil((percent / 100) * sorted.length), 1), sorted.length)
        const exact = sorted[rank - 1]!
        const found = histogram.percentile(percent)
        assert.ok(Math.abs(found - exact) <= exact / 100, `${found} for ${exact}`)
        assert.equal(histogram.percentile(100), sorted.at(-1))
        assert.equal(histogram.max(), sorted.at(-1))
        assert.equal(histogram.count(), values.length)
        const sum = values.reduce((total, value) => total + value, 0)
        assert.equal(histogram.sum(), sum)
        assert.equal(histogram.mean(), sum / values.length)
      },
    ),
    { numRuns: 500 * scale },
  )
})

test('Histogram.merge() equals recording both halves in one', () => {
  fc.assert(
    fc.property(fc.array(anyValue), fc.array(anyValue), (left, right) => {
      const words = new Uint32Array(histogramWords)
      const merged = new Histogram(words)
      merged.merge(recorded(left))
      merged.merge(recorded(right))
      const expected = new Uint32Array(histogramWords)
      const whole = new Histogram(expected)
      for (const value of [...left, ...right]) whole.record(value)
      assert.deepEqual(words, expected)
    }),
    { numRuns: 200 * scale },
  )
})

test('Histogram lays out maximum, sum and counts as drawn in its header', () => {
  const words = new Uint32Array(histogramWords)
  const histogram = new Histogram(words)
  for (const value of [0, 127, 128, 129, 130, 2 ** 32 - 1, 2 ** 32, 2 ** 41, histogramValueMax]) histogram.record(value)
  assert.equal(histogramWords, 2372)
  const counts = [...words.subarray(4).entries()].filter(([, count]) => count > 0)
  assert.deepEqual(counts, [
    [0, 1],
    [127, 1],
    [128, 2],
    [129, 1],
    [64 * 25 + 127, 1],
    [64 * 26 + 64, 1],
    [64 * 35 + 64, 1],
    [64 * 35 + 127, 1],
  ])
  const sum = 127 + 128 + 129 + 130 + (2 ** 32 - 1) + 2 ** 32 + 2 ** 41 + histogramValueMax
  assert.deepEqual([...words.subarray(0, 4)], [0xffffffff, 1023, sum % 2 ** 32, Math.floor(sum / 2 ** 32)])
})

test('Histogram.countAtMost() is exact below 128 and at every power of two less one', () => {
  fc.assert(
    fc.property(
      fc.array(anyValue),
      fc.integer({ min: 7, max: 42 }),
      fc.integer({ min: 0, max: 127 }),
      (values, exponent, small) => {
        const histogram = recorded(values)
        for (const limit of [small, 2 ** exponent - 1]) {
          assert.equal(histogram.countAtMost(limit), values.filter((value) => value <= limit).length)
        }
        assert.equal(histogram.countAtMost(-1), 0)
        assert.equal(histogram.countAtMost(Number.POSITIVE_INFINITY), values.length)
      },
    ),
    { numRuns: 200 * scale },
  )
})

test('Histogram.record() counts negative, NaN, fractional and too large values in the nearest bucket', () => {
  const histogram = recorded([-5, Number.NaN, 3.99, Number.POSITIVE_INFINITY])
  assert.equal(histogram.count(), 4)
  assert.equal(histogram.countAtMost(0), 2)
  assert.equal(histogram.countAtMost(3), 3)
  assert.equal(histogram.max(), histogramValueMax)
})

test('Histogram counts saturate instead of wrapping', () => {
  const words = new Uint32Array(histogramWords)
  const histogram = new Histogram(words)
  words[4 + 9] = 0xffffffff
  histogram.record(9)
  assert.equal(histogram.countAtMost(9), 0xffffffff)
  histogram.merge(recorded([9, 9]))
  assert.equal(histogram.countAtMost(9), 0xffffffff)
})

test('Histogram over shared memory is seen by every Histogram over the same words', () => {
  const shared = new SharedArrayBuffer(histogramWords * 4)
  const writer = new Histogram(new Uint32Array(shared))
  const reader = new Histogram(new Uint32Array(shared))
  writer.record(1000)
  assert.equal(reader.max(), 1000)
  assert.equal(reader.count(), 1)
})

test('Histogram without values answers 0, and reset() returns to that state', () => {
  const words = new Uint32Array(histogramWords)
  const histogram = new Histogram(words)
  const answers = (): number[] => [
    histogram.count(),
    histogram.percentile(99),
    histogram.mean(),
    histogram.max(),
    histogram.sum(),
  ]
  assert.deepEqual(answers(), [0, 0, 0, 0, 0])
  histogram.record(histogramValueMax)
  assert.notDeepEqual(answers(), [0, 0, 0, 0, 0])
  histogram.reset()
  assert.deepEqual(answers(), [0, 0, 0, 0, 0])
  assert.ok(words.every((word) => word === 0))
})

test('Histogram refuses words of the wrong number and percentiles beyond 100', () => {
  assert.throws(() => new Histogram(new Uint32Array(10)), /histogramWords/)
  assert.throws(() => new Histogram().percentile(100.1), /from 0 to 100/)
  assert.throws(() => new Histogram().percentile(Number.NaN), /from 0 to 100/)
})
