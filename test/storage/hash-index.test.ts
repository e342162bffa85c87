/** The index against a map, with hashes as skewed as they come; and lock-free readers, which see what the owner sees. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { Limits } from '../../src/config.ts'
import { Arena, slabWordMask, wordsPerSlabBits } from '../../src/storage/arena.ts'
import {
  bucketsPerChunk,
  chunkBytes,
  entriesPerBucket,
  HashIndex,
  probeReachMax,
} from '../../src/storage/hash-index.ts'
import { encodeSimple, recordBytesAt, simpleRecordBytes } from '../../src/storage/record.ts'
import { ReadResult, ResidentReader } from '../../src/storage/resident-reader.ts'
import { ControlWord, createShardMemory, type ShardMemory, ShardState } from '../../src/storage/shard-memory.ts'
import { bytesOf } from './store-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const segmentBytes = 65536
const noBytes = new Uint8Array(0)

/** Keys that one chunk holds if their hashes are equal. */
const equalHashesMax = (probeReachMax + 1) * entriesPerBucket

type Entry = { readonly key: string; readonly partition: number; readonly hash: number; address: number }

class Rig {
  readonly memory: ShardMemory
  readonly arena: Arena
  readonly index: HashIndex
  readonly reader: ResidentReader
  readonly entries = new Map<string, Entry>()
  readonly #copy = new Int32Array(1024)
  #next = 64

  constructor(chunksMax = 4096, segments = 64) {
    this.memory = createShardMemory({ segmentBytes, segments, chunksMax, budgetBytes: segments * segmentBytes })
    this.arena = new Arena(this.memory.arena)
    this.index = new HashIndex(this.memory.index, this.arena)
    Atomics.store(new Int32Array(this.memory.control), ControlWord.state, ShardState.up)
    this.reader = new ResidentReader(this.memory, false)
  }

  /** Writes a record that holds just a key. */
  record(key: string, bucketId = 1): number {
    const keyBytes = bytesOf(key)
    const bytes = simpleRecordBytes(0, keyBytes.length, 0, 0)
    if ((this.#next % segmentBytes) + bytes > segmentBytes)
      this.#next += segmentBytes - (this.#next % segmentBytes) + 64
    const address = this.arena.address(Math.floor(this.#next / segmentBytes), this.#next % segmentBytes)
    const slab = address >>> wordsPerSlabBits
    const at = (address & slabWordMask) << 2
    const { u8, i32 } = this.arena
    encodeSimple(
      u8[slab]!,
      i32[slab]!,
      at,
      0,
      bucketId,
      0,
      0,
      0,
      1,
      0,
      0,
      keyBytes,
      0,
      keyBytes.length,
      noBytes,
      0,
      0,
      noBytes,
      0,
      0,
    )
    assert.equal(recordBytesAt(i32[slab]!, at), bytes)
    this.#next += bytes
    return address
  }

  find(partition: number, hash: number, key: string, bucketId = 1): number {
    const keyBytes = bytesOf(key)
    return this.index.find(partition, hash, bucketId, keyBytes, 0, keyBytes.length)
  }

  insert(key: string, partition: number, hash: number): boolean {
    const address = this.record(key)
    if (!this.index.insert(partition, hash, address)) return false
    this.entries.set(key, { key, partition, hash, address })
    return true
  }

  replace(entry: Entry): void {
    assert.equal(this.find(entry.partition, entry.hash, entry.key), entry.address)
    entry.address = this.record(entry.key)
    this.index.replaceFound(entry.address)
  }

  remove(entry: Entry): void {
    assert.equal(this.find(entry.partition, entry.hash, entry.key), entry.address)
    this.index.removeFound(entry.partition, entry.hash)
    this.entries.delete(entry.key)
  }

  /** A key as a reader on another thread finds it. */
  read(partition: number, hash: number, key: string): number {
    const keyBytes = bytesOf(key)
    return this.reader.readRecord(partition, hash, 1, keyBytes, 0, keyBytes.length, this.#copy)
  }

  /** Every entry is found by the owner, by readers, and once by a walk; nothing else is. */
  check(): void {
    assert.equal(this.index.entries, this.entries.size)
    const partitions = new Map<number, number>()
    for (const { key, partition, hash, address } of this.entries.values()) {
      assert.equal(this.find(partition, hash, key), address, key)
      assert.ok(this.read(partition, hash, key) > 0, key)
      partitions.set(partition, (partitions.get(partition) ?? 0) + 1)
    }
    const byAddress = new Map([...this.entries.values()].map((entry) => [entry.address, entry]))
    for (const [partition, count] of partitions) {
      assert.equal(this.index.entriesOf(partition), count)
      let visited = 0
      for (let position = 0; position < this.index.directorySize(partition); ) {
        const next = this.index.visitChunk(partition, position, (address, hash) => {
          const entry = byAddress.get(address)
          assert.ok(entry !== undefined && entry.partition === partition && entry.hash === hash, 'A walk meets entries')
          byAddress.delete(address)
          visited++
        })
        assert.ok(next > position, 'A walk goes on')
        position = next
      }
      assert.equal(visited, count, 'A walk meets every entry once')
    }
  }
}

/** How hashes are drawn: evenly, all into one bucket, all with the same upper bits, or from a handful. */
const skews = {
  even: (random: SeededRandom) => random.u32(),
  'one bucket': (random: SeededRandom) => (random.u32() & ~(bucketsPerChunk - 1)) >>> 0,
  'neighbouring buckets': (random: SeededRandom) =>
    ((random.u32() & ~(bucketsPerChunk - 1)) | (62 + random.below(2))) >>> 0,
  'equal upper bits': (random: SeededRandom) => (0xab00_0000 | random.below(1 << 24)) >>> 0,
  'upper bits all ones or zeros': (random: SeededRandom) =>
    ((random.chance(1, 2) ? 0xff00_0000 : 0) | random.below(1 << 24)) >>> 0,
  'a few hashes': (random: SeededRandom) => Math.imul(random.below(60), 0x9e37_79b1) >>> 0,
} as const

test('HashIndex equals a map, whatever the hashes', () => {
  for (const [name, draw] of Object.entries(skews)) {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 10, max: 3000 }), (seed, steps) => {
        const random = new SeededRandom(seed)
        const rig = new Rig()
        const perHash = new Map<number, number>()
        for (let step = 0; step < steps; step++) {
          const known = [...rig.entries.values()]
          if (known.length > 0 && random.chance(1, 4)) {
            const entry = random.pick(known)
            if (random.chance(1, 2)) rig.replace(entry)
            else {
              rig.remove(entry)
              perHash.set(entry.hash, perHash.get(entry.hash)! - 1)
            }
          } else {
            const hash = draw(random)
            const partition = random.below(2)
            const count = perHash.get(hash) ?? 0
            if (count >= equalHashesMax / 2) continue
            assert.ok(rig.insert(`key ${step}`, partition, hash), 'There is room')
            perHash.set(hash, count + 1)
          }
          if (step % 500 === 0) rig.check()
          if (random.chance(1, 100)) rig.index.shrink(random.below(2))
        }
        rig.check()
        for (const entry of [...rig.entries.values()]) if (random.chance(19, 20)) rig.remove(entry)
        for (const partition of [0, 1]) rig.index.shrink(partition)
        rig.check()
        for (const entry of [...rig.entries.values()]) rig.remove(entry)
        rig.check()
      }),
      { numRuns: 6 * scale },
    )
    assert.ok(name.length > 0)
  }
})

test('HashIndex.shrink(): partitions that are large in turn take no more than one of them', (t) => {
  const rig = new Rig(4096, 600)
  const random = new SeededRandom('in turn')
  const used: number[] = []
  for (let turn = 0; turn < 12; turn++) {
    const partition = turn * 5
    for (let key = 0; key < 6000; key++)
      assert.ok(rig.insert(`${turn} ${key}`, partition, random.u32()), 'There is room')
    // Most of those before leave, some stay, and the last of them leave later.
    for (const entry of [...rig.entries.values()]) {
      const age = turn - entry.partition / 5
      if (age > 2 || (age === 1 && random.chance(19, 20))) rig.remove(entry)
    }
    for (let each = 0; each < Limits.partitions; each++) rig.index.shrink(each)
    if (turn % 4 === 3) rig.check()
    used.push(rig.index.bytesUsed)
  }
  t.diagnostic(used.map((bytes) => `${bytes >> 10} KiB`).join(', '))
  assert.ok(used.at(-1)! < 1.2 * used[3]!, `${used}`)
  for (const entry of [...rig.entries.values()]) rig.remove(entry)
  for (let each = 0; each < Limits.partitions; each++) rig.index.shrink(each)
  rig.check()
  assert.ok(rig.insert('one more', 3, 7))
  rig.check()
})

test('HashIndex.shrink(): without room for a table beside the old one nothing changes', () => {
  const rig = new Rig(70)
  const random = new SeededRandom('no room')
  for (let key = 0; rig.insert(`key ${key}`, 1, random.u32()); key++);
  for (const entry of [...rig.entries.values()].slice(40)) rig.remove(entry)
  for (let key = 0; rig.insert(`other ${key}`, 100 + key, 1); key++);
  const { bytesUsed } = rig.index
  rig.index.shrink(1)
  rig.check()
  assert.ok(rig.index.bytesUsed <= bytesUsed)
})

test('HashIndex.find() tells keys with equal hashes apart, and buckets and partitions, too', () => {
  const rig = new Rig()
  for (let index = 0; index < equalHashesMax; index++) assert.ok(rig.insert(`key ${index}`, 7, 0x1234_5678))
  rig.check()
  assert.equal(rig.find(7, 0x1234_5678, 'key 28'), 0)
  assert.equal(rig.find(7, 0x1234_5678, 'key 1', 2), 0)
  assert.equal(rig.find(7, 0x1234_5678 ^ 64, 'key 1'), 0)
  assert.equal(rig.find(8, 0x1234_5678, 'key 1'), 0)
  assert.equal(rig.read(7, 0x1234_5678, 'key 28'), ReadResult.absent)
  assert.equal(rig.read(8, 0x1234_5678, 'key 1'), ReadResult.absent)
})

test('HashIndex: splits double the directory, keep every key, and are seen by readers', () => {
  const rig = new Rig()
  const random = new SeededRandom('splits')
  const sizes = new Set<number>()
  for (let index = 0; index < 20_000; index++) {
    assert.ok(rig.insert(`key ${index}`, 3, random.u32()))
    const size = rig.index.directorySize(3)
    if (!sizes.has(size)) rig.check()
    sizes.add(size)
  }
  assert.deepEqual(
    [...sizes],
    [...sizes].sort((a, b) => a - b),
  )
  assert.ok(sizes.size >= 6 && sizes.has(1), `Directories of ${[...sizes]} chunks`)
  for (const size of sizes) assert.equal(Math.log2(size) % 1, 0)
  rig.check()
  const chunks = rig.index.bytesUsed / chunkBytes
  const filled = 20_000 / (chunks * bucketsPerChunk * entriesPerBucket)
  assert.ok(filled > 0.4, `Chunks are ${(filled * 100).toFixed(0)}% full`)
})

test('HashIndex.replaceAt() changes an entry where it was, and says when it is no longer there', () => {
  const rig = new Rig()
  const random = new SeededRandom('places')
  for (let index = 0; index < 300; index++) rig.insert(`key ${index}`, 0, random.u32())
  let moved = 0
  const places = [...rig.entries.values()].map((entry) => {
    rig.find(entry.partition, entry.hash, entry.key)
    return { entry, slab: rig.index.foundSlab, word: rig.index.foundWord, from: entry.address }
  })
  // Splits move about half of them.
  for (let index = 300; index < 2000; index++) rig.insert(`key ${index}`, 0, random.u32())
  for (const { entry, slab, word, from } of places) {
    const to = rig.record(entry.key)
    if (rig.index.replaceAt(slab, word, from, to)) entry.address = to
    else moved++
    assert.equal(rig.index.replaceAt(slab, word, from, to), false, 'It points elsewhere now')
  }
  assert.ok(moved > 30 && moved < 270, `${moved} moved`)
  rig.check()
})

test('HashIndex: removing frees the place for another key', () => {
  const rig = new Rig()
  const random = new SeededRandom('churn')
  for (let round = 0; round < 20_000; round++) {
    const key = `key ${round % 200}`
    const present = rig.entries.get(key)
    if (present !== undefined) rig.remove(present)
    assert.ok(rig.insert(key, 5, random.u32()))
    if (round === 2000) assert.ok(rig.index.bytesUsed < 8 * chunkBytes)
  }
  assert.ok(rig.index.bytesUsed < 8 * chunkBytes, 'No more chunks than the keys need')
  rig.check()
})

test('HashIndex.hasRoom(): while it is true, one more of everything fits; and a full index says so and stays whole', () => {
  // Two chunks for every partition are kept back.
  const rig = new Rig(2 * Limits.partitions + 40, 1024)
  const random = new SeededRandom('room')
  let index = 0
  while (rig.index.hasRoom()) assert.ok(rig.insert(`key ${index++}`, random.below(4), random.u32()))
  assert.ok(index > 40 * 100, `${index} keys`)
  // What may be staged when it was asked last: a key in each partition.
  for (let partition = 0; partition < Limits.partitions; partition++) {
    assert.ok(rig.insert(`key ${index++}`, partition, random.u32()), `A key in partition ${partition}`)
  }
  rig.check()
  let refused = 0
  while (refused < 100) {
    if (rig.insert(`key ${index++}`, random.below(4), random.u32())) continue
    refused++
  }
  rig.check()
  // Places that are free are still taken, and what is there can change and go.
  for (const entry of [...rig.entries.values()].slice(0, 100)) rig.replace(entry)
  const gone = [...rig.entries.values()].slice(200, 300)
  for (const entry of gone) rig.remove(entry)
  for (const { key, partition, hash } of gone) assert.ok(rig.insert(key, partition, hash))
  rig.check()
})

test('HashIndex.hasRoom(): directories never run out before chunks, not even with all keys in one partition', () => {
  const rig = new Rig(2 * Limits.partitions + 600, 1024)
  const random = new SeededRandom('one partition')
  let index = 0
  while (rig.index.hasRoom()) assert.ok(rig.insert(`key ${index++}`, 1023, random.u32()), `Key ${index}`)
  assert.ok(index > 600 * 150, `${index} keys`)
  rig.check()
})

test('HashIndex.insert() refuses more equal hashes than a chunk takes, and stays whole', () => {
  const rig = new Rig(8192)
  for (let index = 0; index < equalHashesMax; index++) assert.ok(rig.insert(`key ${index}`, 0, 0xdead_beef))
  assert.equal(rig.insert('one more', 0, 0xdead_beef), false)
  rig.check()
  for (let index = 0; index < 500; index++)
    assert.ok(rig.insert(`other ${index}`, 1, Math.imul(index, 0x9e37_79b1) >>> 0))
  rig.check()
})

test('HashIndex: an untouched partition is empty, and a walk of it visits nothing', () => {
  const rig = new Rig()
  assert.equal(rig.index.directorySize(9), 0)
  assert.equal(rig.index.entriesOf(9), 0)
  assert.equal(
    rig.index.visitChunk(9, 0, () => assert.fail('Nothing is there')),
    0,
  )
  rig.insert('key', 9, 1)
  assert.equal(
    rig.index.visitChunk(9, 1, () => assert.fail('Nothing is there')),
    1,
  )
})
