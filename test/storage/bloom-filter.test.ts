import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KeyHash } from '../../src/base/key-hash.ts'
import {
  addToFilter,
  filterLineBytes,
  filterLines,
  filterProbes,
  filterSeed,
  mayContain,
} from '../../src/storage/bloom-filter.ts'

const textBytes = (text: string): Uint8Array => new TextEncoder().encode(text)

function hashOf(text: string): KeyHash {
  const hash = new KeyHash(filterSeed)
  const bytes = textBytes(text)
  hash.update(1, bytes, 0, bytes.length)
  return hash
}

function filterOf(keys: number, bitsPerKey: number): { words: Int32Array; lines: number; probes: number } {
  const lines = filterLines(keys, bitsPerKey)
  const probes = filterProbes(bitsPerKey)
  const words = new Int32Array((lines * filterLineBytes) / 4)
  for (let key = 0; key < keys; key++) {
    const { low, high } = hashOf(`present ${key}`)
    addToFilter(words, 0, lines, probes, low, high)
  }
  return { words, lines, probes }
}

test('BloomFilter: what was added is never denied', () => {
  for (const [keys, bits] of [
    [1, 1],
    [10, 4],
    [1000, 10],
    [5000, 16],
  ] as const) {
    const { words, lines, probes } = filterOf(keys, bits)
    for (let key = 0; key < keys; key++) {
      const { low, high } = hashOf(`present ${key}`)
      assert.ok(mayContain(words, 0, lines, probes, low, high), `key ${key} of ${keys} with ${bits} bits`)
    }
  }
})

test('BloomFilter: of absent keys few pass, as few as the bits allow', (t) => {
  const asked = 50_000
  for (const [bits, shareMax] of [
    [8, 0.035],
    [10, 0.015],
    [12, 0.0075],
    [16, 0.0025],
  ] as const) {
    const { words, lines, probes } = filterOf(20_000, bits)
    let passed = 0
    for (let key = 0; key < asked; key++) {
      const { low, high } = hashOf(`absent ${key}`)
      if (mayContain(words, 0, lines, probes, low, high)) passed++
    }
    t.diagnostic(`${bits} bits, ${probes} probes: ${((100 * passed) / asked).toFixed(2)} % of absent keys pass`)
    assert.ok(passed / asked <= shareMax, `${passed} of ${asked} with ${bits} bits`)
  }
})

test('BloomFilter: the bits of a key are frozen', () => {
  const words = new Int32Array(2 * 16)
  for (const text of ['a', 'user:1', 'a longer key with 32 characters.']) {
    const { low, high } = hashOf(text)
    addToFilter(words, 0, 2, 6, low, high)
  }
  assert.equal(
    Buffer.from(words.buffer).toString('hex'),
    '00000000000000000000002200000810000000000000000000000000000000000000000000000000000000000000000004000020000000000000000000000000000000000000000020001080000100000000000000000000000000000010000000400000000000010000000000000000800a0000000100000020000000000000',
  )
})
