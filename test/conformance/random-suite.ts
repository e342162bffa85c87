/** What env.ts says of the door `Random`, as tests that every implementation must pass. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Random } from '../../src/env.ts'

/** Runs the suite against what `makeRandom` makes, each time another generator; `name` stands before each test's name. */
export function randomSuite(name: string, makeRandom: () => Random): void {
  test(`${name}: u32() gives integers of 32 bits, each bit set in half of the cases`, () => {
    const random = makeRandom()
    const ones = new Array<number>(32).fill(0)
    for (let draw = 0; draw < 10_000; draw++) {
      const word = random.u32()
      assert.ok(Number.isInteger(word) && word >= 0 && word <= 0xffffffff)
      for (let bit = 0; bit < 32; bit++) ones[bit]! += (word >>> bit) & 1
    }
    // Eight standard deviations: chance does not get there.
    for (const count of ones) assert.ok(Math.abs(count - 5000) < 400, ones.join())
  })

  test(`${name}: u32() does not repeat itself`, () => {
    const random = makeRandom()
    const drawn = new Set(Array.from({ length: 5000 }, () => random.u32()))
    assert.ok(drawn.size > 4980, String(drawn.size))
  })

  test(`${name}: fill() fills exactly the view that it gets, of any length, shared or not`, () => {
    const random = makeRandom()
    for (const length of [0, 1, 3, 4, 5, 64, 1000]) {
      for (const buffer of [new ArrayBuffer(length + 8), new SharedArrayBuffer(length + 8)]) {
        const whole = new Uint8Array(buffer)
        random.fill(whole.subarray(3, 3 + length))
        assert.ok([...whole.subarray(0, 3), ...whole.subarray(3 + length)].every((byte) => byte === 0))
        // 1,000 random bytes have about 4 zeros.
        if (length >= 64) assert.ok(whole.subarray(3, 3 + length).filter((byte) => byte === 0).length < length / 8)
      }
    }
  })

  test(`${name}: fill() gives every byte value alike`, () => {
    const bytes = new Uint8Array(256 * 400)
    makeRandom().fill(bytes)
    const counts = new Array<number>(256).fill(0)
    for (const byte of bytes) counts[byte]!++
    // Ten standard deviations.
    for (const count of counts) assert.ok(Math.abs(count - 400) < 200, counts.join())
  })

  test(`${name}: two generators give different numbers`, () => {
    const one = makeRandom()
    const other = makeRandom()
    const draws = (random: Random): string => Array.from({ length: 4 }, () => random.u32()).join()
    assert.notEqual(draws(one), draws(other))
    const bytes = [new Uint8Array(16), new Uint8Array(16)]
    one.fill(bytes[0]!)
    other.fill(bytes[1]!)
    assert.notDeepEqual(bytes[0], bytes[1])
  })
}
