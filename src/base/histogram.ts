/**
 * A log-linear histogram of non-negative integers (latencies, sizes) in fixed memory, after HdrHistogram: every power of
 * two is cut into 64 equal buckets, so a percentile is off by at most 1/128 (0.8 %) of its value, and values below 128 are
 * exact. Recording is a few shifts and one increment; nothing is allocated.
 *
 * Layout, all u32 words of one typed array, which may stand over a SharedArrayBuffer:
 *
 *     word  0        1        2        3        4 ... 4 + 2367
 *          +--------+--------+--------+--------+-----------------------+
 *          | max    | max    | sum    | sum    | counts of the buckets |
 *          | low 32 | high   | low 32 | high   |                       |
 *          +--------+--------+--------+--------+-----------------------+
 *
 *     bucket of v < 128:                v
 *     bucket of v in [2^e, 2^(e+1)):    64 * (e - 6) + (v >> (e - 6))        e from 7 to 41
 *
 * Invariants: one writer; its words only grow until `reset`. A reader on another thread may see a value in some words and
 * not yet in others: good enough for metrics, never for a decision. Counts saturate at 2^32-1 instead of wrapping. It does
 * not remember units, order or the smallest value.
 */
import { assert } from './assert.ts'

const subBucketBits = 6
const subBuckets = 1 << subBucketBits
const exponentMax = 41
const bucketCount = (exponentMax - subBucketBits) * subBuckets + 2 * subBuckets
const maxLow = 0
const maxHigh = 1
const sumLow = 2
const sumHigh = 3
const headerWords = 4
const twoTo32 = 2 ** 32
const twoTo16 = 2 ** 16

/** Words of the array under one histogram: 2372, 9.5 KB. */
export const histogramWords = headerWords + bucketCount

/** Largest value told apart from larger ones: 2^42-1, 73 minutes in nanoseconds. Larger values count as this one. */
export const histogramValueMax = 2 ** (exponentMax + 1) - 1

/** Bucket of a number from 0 to `histogramValueMax`; fractions do not count. */
function bucketOf(value: number): number {
  if (value < twoTo32) {
    const word = value >>> 0
    if (word < 2 * subBuckets) return word
    const shift = 31 - subBucketBits - Math.clz32(word)
    return (shift << subBucketBits) + (word >>> shift)
  }
  const word = (value / twoTo16) >>> 0
  const shift = 31 - subBucketBits - Math.clz32(word)
  return ((shift + 16) << subBucketBits) + (word >>> shift)
}

/** The middle of the integers that share a bucket. */
function middleOf(bucket: number): number {
  if (bucket < 2 * subBuckets) return bucket
  const shift = (bucket >>> subBucketBits) - 1
  const width = 2 ** shift
  return (bucket - shift * subBuckets) * width + Math.floor((width - 1) / 2)
}

/** Counts values by size. Whoever made the words owns them; any number of Histograms may look at the same words. */
export class Histogram {
  readonly #words: Uint32Array

  /** `words` holds `histogramWords` words: zeros, or what another Histogram recorded. */
  constructor(words: Uint32Array = new Uint32Array(histogramWords)) {
    assert(words.length === histogramWords, 'A histogram stands over histogramWords words')
    this.#words = words
  }

  /** Counts one value, rounded down to an integer. Negative and NaN count as 0: clocks may step back between two reads. */
  record(value: number): void {
    const words = this.#words
    const bounded = value > 0 ? Math.min(value, histogramValueMax) : 0
    const low = bounded >>> 0
    const high = bounded < twoTo32 ? 0 : (bounded / twoTo32) >>> 0
    const index = headerWords + bucketOf(bounded)
    const count = words[index]!
    if (count !== 0xffffffff) words[index] = count + 1
    this.#addToSum(low, high)
    this.#raiseMax(low, high)
  }

  /** Adds everything that `other` has counted, as if it had been recorded here. */
  merge(other: Histogram): void {
    const words = this.#words
    const added = other.#words
    for (let index = headerWords; index < histogramWords; index++) {
      if (added[index] !== 0) words[index] = Math.min(words[index]! + added[index]!, 0xffffffff)
    }
    this.#addToSum(added[sumLow]!, added[sumHigh]!)
    this.#raiseMax(added[maxLow]!, added[maxHigh]!)
  }

  /** How many values were counted. Walks the buckets. */
  count(): number {
    const words = this.#words
    let count = 0
    for (let index = headerWords; index < histogramWords; index++) count += words[index]!
    return count
  }

  /** How many values were counted in the bucket of `value` or below it: exact where `value` is below 128 or 2^n - 1. */
  countAtMost(value: number): number {
    if (!(value >= 0)) return 0
    const words = this.#words
    const last = headerWords + bucketOf(Math.min(value, histogramValueMax))
    let count = 0
    for (let index = headerWords; index <= last; index++) count += words[index]!
    return count
  }

  /**
   * The smallest value that at least `percent` of the counted values do not exceed, within 0.8 %; 0 if nothing was
   * counted. `percentile(0)` is the smallest value, `percentile(100)` the exact greatest.
   */
  percentile(percent: number): number {
    assert(percent >= 0 && percent <= 100, 'A percentile is from 0 to 100')
    const count = this.count()
    if (count === 0) return 0
    const rank = Math.min(Math.max(Math.ceil((percent / 100) * count), 1), count)
    if (rank === count) return this.max()
    const words = this.#words
    let seen = 0
    for (let index = headerWords; index < histogramWords; index++) {
      seen += words[index]!
      if (seen >= rank) return Math.min(middleOf(index - headerWords), this.max())
    }
    return this.max()
  }

  /** Sum of the counted values; exact below 2^53. */
  sum(): number {
    return this.#words[sumHigh]! * twoTo32 + this.#words[sumLow]!
  }

  /** Arithmetic mean; 0 if nothing was counted. */
  mean(): number {
    const count = this.count()
    return count === 0 ? 0 : this.sum() / count
  }

  /** Exact greatest value counted; 0 if nothing was. */
  max(): number {
    return this.#words[maxHigh]! * twoTo32 + this.#words[maxLow]!
  }

  /** Forgets everything. Only the writer may call it. */
  reset(): void {
    this.#words.fill(0)
  }

  #addToSum(low: number, high: number): void {
    const words = this.#words
    const sum = words[sumLow]! + low
    // Storing a sum above 2^32-1 keeps its low 32 bits.
    words[sumLow] = sum
    if (high !== 0 || sum >= twoTo32) words[sumHigh] = words[sumHigh]! + high + (sum >= twoTo32 ? 1 : 0)
  }

  #raiseMax(low: number, high: number): void {
    const words = this.#words
    const maxHighNow = words[maxHigh]!
    if (high < maxHighNow || (high === maxHighNow && low <= words[maxLow]!)) return
    words[maxLow] = low
    words[maxHigh] = high
  }
}
