import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KeyHash } from '../../src/base/key-hash.ts'

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

test('KeyHash.update() depends on seed, bucket, length and every byte', () => {
  const seen = new Set<string>()
  const add = (hash: KeyHash, bucket: number, key: Uint8Array): void => {
    hash.update(bucket, key, 0, key.length)
    seen.add(`${hash.low}:${hash.high}`)
  }
  const first = new KeyHash({ low: 1, high: 2 })
  let count = 0
  for (const key of ['', 'a', 'b', 'aa', 'a\0', '\0', '\0\0', 'abcd', 'abce', 'abcde', 'xbcde']) {
    add(first, 0, bytes(key))
    add(first, 1, bytes(key))
    add(new KeyHash({ low: 1, high: 3 }), 0, bytes(key))
    add(new KeyHash({ low: 2, high: 2 }), 0, bytes(key))
    count += 4
  }
  assert.equal(seen.size, count)
})

test('KeyHash.update() spreads sequential keys evenly over buckets by either end of either lane', () => {
  const hash = new KeyHash({ low: 0x1234, high: 0x9876 })
  const buckets = 256
  const keys = 100_000
  const counts = [0, 1, 2, 3].map(() => new Uint32Array(buckets))
  for (let index = 0; index < keys; index++) {
    const key = bytes(`user:${index}`)
    hash.update(7, key, 0, key.length)
    counts[0]![hash.low & 255]!++
    counts[1]![hash.low >>> 24]!++
    counts[2]![hash.high & 255]!++
    counts[3]![hash.high >>> 24]!++
  }
  const expected = keys / buckets
  for (const count of counts) {
    let chiSquared = 0
    for (const observed of count) chiSquared += (observed - expected) ** 2 / expected
    // 255 degrees of freedom: mean 255, standard deviation 22.6; eight deviations away is no accident.
    assert.ok(chiSquared < 436, `chi squared ${chiSquared}`)
  }
})
