/** What a flush finds of the table in memory while its writer moves entries. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { Arena, slabWordMask, wordsPerSlabBits } from '../../src/storage/arena.ts'
import { SegmentScanner } from '../../src/storage/flush.ts'
import { HashIndex } from '../../src/storage/hash-index.ts'
import { encodeSimple, recordHeaderBytes, recordKeyBytes, simpleRecordBytes } from '../../src/storage/record.ts'
import { createShardMemory } from '../../src/storage/shard-memory.ts'

const segmentBytes = 65536
const partition = 7
const noBytes = new Uint8Array(0)

test('SegmentScanner: an entry that a split shows in two places is one record, and the order is that of the keys', () => {
  const random = new SeededRandom('doubles')
  const memory = createShardMemory({ segmentBytes, segments: 4, chunksMax: 4096, budgetBytes: 4 * segmentBytes })
  const arena = new Arena(memory.arena)
  const index = new HashIndex(memory.index, arena)
  const keys = Array.from({ length: 300 }, (_, number) => `key ${String(number).padStart(4, '0')}`)
  let at = 64
  let doubles = 0
  for (const key of random.shuffle([...keys])) {
    const bytes = new TextEncoder().encode(key)
    const address = arena.address(0, at)
    const slab = address >>> wordsPerSlabBits
    const word = (address & slabWordMask) << 2
    const head = [arena.u8[slab]!, arena.i32[slab]!, word, 0, 1, 0, 0, 0, 1, 0, 0] as const
    encodeSimple(...head, bytes, 0, bytes.length, noBytes, 0, 0, noBytes, 0, 0)
    at += simpleRecordBytes(0, bytes.length, 0, 0)
    const hash = random.u32() | 0
    assert.ok(index.insert(partition, hash, address))
    if (!random.chance(1, 3)) continue
    // The new chunk of a split is filled before the old one is cleared.
    assert.ok(index.insert(partition, hash, address))
    doubles++
  }
  assert.ok(doubles > 50)
  const buckets = { live: new Set([1]), below: 2 }
  const input = { memory, segments: [0], buckets, dropsTombstones: false, replicated: new Map() }
  const scanner = new SegmentScanner(input)
  assert.equal(scanner.collect(partition), keys.length)
  const found = keys.map((_, place) => {
    scanner.moveTo(place)
    const start = scanner.at + recordHeaderBytes
    return new TextDecoder().decode(scanner.u8.slice(start, start + recordKeyBytes(scanner.u8, scanner.at)))
  })
  assert.deepEqual(found, keys)
})
