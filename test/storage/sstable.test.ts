import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { crc32 } from '../../src/base/crc32.ts'
import type { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { ReusedMemory } from '../../src/base/work-memory.ts'
import { MetaWord, tableIdOf, tableIdText } from '../../src/storage/sstable.ts'
import { readTableIndex, readTableMeta } from '../../src/storage/sstable-meta.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import {
  compareEntries,
  type Entry,
  entryAt,
  iterate,
  lookUp,
  readAll,
  type Table,
  tableId,
  valueSet,
  writeTable,
  zstd,
} from './table-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const textBytes = (text: string): Uint8Array => new TextEncoder().encode(text)

/** Keys that are hard on separators: prefixes of each other, zeros, 0xff, long common starts. */
const hardKey = fc.oneof(
  { weight: 3, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 12 }) },
  {
    weight: 3,
    arbitrary: fc
      .array(fc.constantFrom(0, 1, 255), { minLength: 1, maxLength: 14 })
      .map((bytes) => Uint8Array.from(bytes)),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.constantFrom('user:profile:000', 'a', ''), fc.nat(500))
      .map(([start, number]) => textBytes(`${start}${number}`)),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.nat(40), fc.constantFrom(0, 7))
      .map(([length, byte]) => new Uint8Array(1 + length).fill(byte)),
  },
)

const hardEntry = fc.record(
  {
    partition: fc.oneof(fc.constantFrom(3, 4, 900), fc.nat(1023)),
    bucketId: fc.constantFrom(1, 2, 255, 256, 0x8000_0000, 0xffff_ffff),
    key: hardKey,
    set: fc.nat(700).map((bytes) => valueSet(new Uint8Array(bytes).fill(bytes), { counter: bytes + 1 })),
  },
  { noNullPrototype: true },
)

function sorted(entries: readonly Entry[]): Entry[] {
  const unique = new Map(
    entries.map((entry) => [`${entry.partition} ${entry.bucketId} ${Buffer.from(entry.key).toString('hex')}`, entry]),
  )
  return [...unique.values()].sort(compareEntries)
}

const hardEntries = fc.array(hardEntry, { minLength: 1, maxLength: 300, size: 'max' }).map(sorted)

test('SSTable: what was written is read back, in order, by iterator and by key, plain and compressed', () => {
  fc.assert(
    fc.property(
      hardEntries,
      fc.boolean(),
      fc.array(hardEntry, { maxLength: 50, size: 'max' }),
      (entries, isCompressed, others) => {
        const codec = isCompressed ? zstd : undefined
        const table = writeTable(entries, { codec: codec! })
        assert.deepEqual(readAll(table, codec), entries)
        const file = table.disk.openNow(table.path)
        const meta = readTableMeta(file, tableId, crc32)
        for (const entry of entries) {
          assert.deepEqual(lookUp(file, meta, entry.partition, entry.bucketId, entry.key, codec), entry.set)
        }
        for (const other of others) {
          const wanted = entries.find((entry) => compareEntries(entry, other) === 0)
          assert.deepEqual(lookUp(file, meta, other.partition, other.bucketId, other.key, codec), wanted?.set)
        }
      },
    ),
    { numRuns: 150 * scale },
  )
})

test('SSTable: an iterator starts at any key and keeps within its partitions, with a filter in memory or without', () => {
  const memory = new ReusedMemory(1 << 20)
  fc.assert(
    fc.property(
      hardEntries,
      fc.nat(1023),
      fc.nat(1023),
      fc.array(hardEntry, { minLength: 1, maxLength: 30, size: 'max' }),
      fc.boolean(),
      (entries, a, b, starts, isWhole) => {
        const [first, end] = [Math.min(a, b), Math.max(a, b) + 1]
        const table = writeTable(entries)
        const file = table.disk.openNow(table.path)
        const whole = readTableMeta(file, tableId, crc32)
        const meta = isWhole ? whole : readTableIndex(file, tableId, crc32, memory)
        assert.ok(isWhole || meta.length < whole.length)
        const inRange = entries.filter(({ partition }) => partition >= first && partition < end)
        const iterator = iterate(file, meta, first, end, undefined, 4096)
        const seen: Entry[] = []
        while (iterator.next()) seen.push(entryAt(iterator))
        assert.deepEqual(seen, inRange)
        for (const start of [...starts, ...entries.slice(0, 20)]) {
          const rest: Entry[] = []
          for (
            let more = iterator.seek(start.partition, start.bucketId, start.key);
            more && rest.length < 5;
            more = iterator.next()
          ) {
            rest.push(entryAt(iterator))
          }
          const wanted = inRange.filter((entry) => compareEntries(entry, start) >= 0).slice(0, 5)
          assert.deepEqual(rest, wanted)
        }
        memory.end()
      },
    ),
    { numRuns: 100 * scale },
  )
})

test('SSTable: an iterator over a part of the partitions reads that part alone', () => {
  const entries = sorted(
    Array.from({ length: 20_000 }, (_, index) => ({
      partition: index % 256,
      bucketId: 1,
      key: textBytes(`key ${index}`),
      set: valueSet(new Uint8Array(100)),
    })),
  )
  const table = writeTable(entries)
  const file = table.disk.openNow(table.path)
  const meta = readTableMeta(file, tableId, crc32)
  let bytesRead = 0
  const counted = Object.create(file, {
    readNow: {
      value: (u8: Uint8Array, start: number, end: number, at: number) => {
        bytesRead += end - start
        return file.readNow(u8, start, end, at)
      },
    },
  })
  const iterator = iterate(counted, meta, 10, 12, undefined, 65536)
  let records = 0
  while (iterator.next()) records++
  assert.equal(records, entries.filter(({ partition }) => partition === 10 || partition === 11).length)
  assert.ok(bytesRead < ((table.written.fileBytes * 2) / 256) * 1.1, `${bytesRead} of ${table.written.fileBytes}`)
})

test('SSTable: a record larger than a block, and one of the largest, stand in blocks of their own', () => {
  const sizes = [10, 5000, 100, 300_000, 2_000_000, 0, 4096]
  const entries = sizes.map((bytes, index) => ({
    partition: index >>> 1,
    bucketId: 1,
    key: textBytes(`${index}`.padEnd(index === 3 ? 2048 : 3, 'x')),
    set: valueSet(new Uint8Array(bytes).fill(index)),
  }))
  for (const codec of [undefined, zstd]) {
    const table = writeTable(entries, { codec: codec! })
    assert.deepEqual(readAll(table, codec), entries)
    const file = table.disk.openNow(table.path)
    const meta = readTableMeta(file, tableId, crc32)
    for (const { partition, bucketId, key, set } of entries) {
      assert.deepEqual(lookUp(file, meta, partition, bucketId, key, codec), set)
    }
  }
})

test('SSTable: facts count records, tombstones, expiry and bytes', () => {
  const entries = [
    { partition: 5, bucketId: 1, key: textBytes('a'), set: valueSet(textBytes('v')) },
    { partition: 5, bucketId: 1, key: textBytes('b'), set: valueSet(new Uint8Array(0), { tombstone: true }) },
    {
      partition: 8,
      bucketId: 1,
      key: textBytes('c'),
      set: valueSet(textBytes('v'), { expiresAtMs: 1_900_000_000_123 }),
    },
    {
      partition: 8,
      bucketId: 1,
      key: textBytes('d'),
      set: valueSet(textBytes('v'), { expiresAtMs: 1_800_000_000_456 }),
    },
  ]
  const { written } = writeTable(entries)
  assert.equal(written.firstPartition, 5)
  assert.equal(written.endPartition, 9)
  assert.equal(written.records, 4)
  assert.equal(written.tombstones, 1)
  assert.equal(written.expiring, 2)
  assert.equal(written.earliestExpiryMs, 1_800_000_000_456)
  assert.equal(written.bandBytes.length, 4)
  assert.deepEqual(
    written.bandBytes.map((bytes) => bytes > 0),
    [true, false, false, true],
  )
})

function smallTable(): Table {
  const random = new SeededRandom('small table')
  const entries = sorted(
    Array.from({ length: 60 }, (_, index) => ({
      partition: random.pick([1, 2, 9]),
      bucketId: random.pick([1, 2]),
      key: textBytes(`key ${index}`),
      set: valueSet(new Uint8Array(random.below(200)).fill(index), { counter: index + 1, tombstone: index % 9 === 0 }),
    })),
  )
  return writeTable(entries)
}

test('SSTable: every flipped bit of a small table is detected, and never gives a wrong value', () => {
  const table = smallTable()
  const wanted = readAll(table)
  const bytes = table.disk.bytesOf(table.path).length
  let detected = 0
  for (let offset = 0; offset < bytes; offset++) {
    const bit = (offset * 5) % 8
    for (const flipped of scale > 1 ? [0, 1, 2, 3, 4, 5, 6, 7] : [bit, (bit + 3) % 8]) {
      table.disk.flipBit(table.path, offset, flipped)
      assert.throws(
        () => readAll(table),
        (error) => (error as SunwiseError).code === 'TABLE_CORRUPT',
        `byte ${offset}, bit ${flipped} of ${bytes}`,
      )
      detected++
      table.disk.flipBit(table.path, offset, flipped)
    }
  }
  assert.ok(detected >= 2 * bytes)
  assert.deepEqual(readAll(table), wanted)
})

test('SSTable: a file cut short anywhere is detected', () => {
  const table = smallTable()
  const whole = table.disk.bytesOf(table.path)
  for (let bytes = whole.length - 1; bytes >= 0; bytes -= bytes > 300 ? 13 : 1) {
    table.disk.truncate(table.path, bytes)
    assert.throws(
      () => readAll(table),
      (error) => (error as SunwiseError).code === 'TABLE_CORRUPT',
      `${bytes} bytes`,
    )
  }
})

test('SSTable: blocks that changed places, and blocks of another table, are detected', () => {
  const entry = (index: number): Entry => ({
    partition: 1,
    bucketId: 1,
    key: textBytes(`key ${1000 + index}`),
    set: valueSet(new Uint8Array(1000)),
  })
  const entries = Array.from({ length: 12 }, (_, index) => entry(index))
  const table = writeTable(entries)
  const meta = readTableMeta(table.disk.openNow(table.path), tableId, crc32)
  assert.ok(meta[MetaWord.blocks]! >= 4)
  const file = table.disk.openNow(table.path)
  const index = meta[MetaWord.index]!
  const offsetOf = (block: number): number => meta[index + block * 4]! * 4
  const bytes = offsetOf(1) - offsetOf(0)
  assert.equal(offsetOf(2) - offsetOf(1), bytes)
  const first = new Uint8Array(bytes)
  const second = new Uint8Array(bytes)
  file.readNow(first, 0, bytes, offsetOf(0))
  file.readNow(second, 0, bytes, offsetOf(1))
  file.writeNow(second, 0, bytes, offsetOf(0))
  file.writeNow(first, 0, bytes, offsetOf(1))
  assert.throws(() => readAll(table), /block 0 .* is damaged/)
  assert.throws(() => readTableMeta(file, { low: 1, high: 1 }, crc32), /it is table 0123456789abcdef and not/)
})

test('SSTable: a failed write or sync of the file is reported, whichever it is', () => {
  const entries = Array.from({ length: 3 }, (_, index) => ({
    partition: 1,
    bucketId: 1,
    key: textBytes(`${index}`),
    set: valueSet(new Uint8Array(900_000)),
  }))
  let failures = 0
  for (const kind of ['write', 'sync'] as const) {
    for (let nth = 1; nth <= 10; nth++) {
      const disk = new SimDisk()
      disk.fail({ kind, error: kind === 'write' ? 'ENOSPC' : 'EIO', nth })
      try {
        writeTable(entries, { disk })
      } catch (error) {
        failures++
        assert.equal((error as SunwiseError).code, kind === 'write' ? 'DISK_FULL' : 'DISK_FAILED')
      }
    }
  }
  assert.ok(failures >= 5, `${failures}`)
})

test('SSTable: an id is sixteen hexadecimal characters, and back', () => {
  assert.equal(tableIdText(tableId), '0123456789abcdef')
  assert.deepEqual(tableIdOf('0123456789abcdef'), tableId)
  assert.equal(tableIdText({ low: 0, high: 0xffff_ffff }), 'ffffffff00000000')
  for (const text of ['', '0123456789abcde', '0123456789ABCDEF', '0123456789abcdef0', '../3456789abcdef']) {
    assert.equal(tableIdOf(text), undefined, text)
  }
})

test('SSTable: a table has exactly these bytes', () => {
  const entries = [
    { partition: 2, bucketId: 1, key: textBytes('alpha'), set: valueSet(textBytes('one')) },
    {
      partition: 2,
      bucketId: 1,
      key: textBytes('beta'),
      set: valueSet(new Uint8Array(0), { tombstone: true, counter: 7 }),
    },
    {
      partition: 4,
      bucketId: 2,
      key: textBytes('gamma'),
      set: valueSet(textBytes('three'), { expiresAtMs: 1_800_000_000_000 }),
    },
  ]
  const { disk, path } = writeTable(entries)
  assert.equal(
    Buffer.from(disk.bytesOf(path)).toString('base64'),
    'U1dUMQEAAADvzauJZ0UjAQAAAAAAAAAAAAAAAAAAAAB/iFAIXAAAAAAAAAACAAIA782riQAAAAAkAAAAIAAFAAEAAAARAAAAAQAAAAAAAABhbHBoYQAAAG9uZQAcAAAAIAAEAAEAAAADAAAABwAAAAAAAABiZXRhAAAJALDKSvNMAAAAAAAAAAEABADvzauJAQAAADAAAABAAAUAAgAAADUAAAABAAAAAAAAAGdhbW1hAAAAAFBcGKMBAAB0aHJlZQAAAAAAAABTV00xl7LEboABAAABAAAA782riWdFIwECAAAAAwAAAAIAAAABAAAABgAAAAMAAAAwAAAAPAAAAFEAAAAAAAAAIAAAAEgAAABOAAAAAwAAAAMAAAABAAAAAQAAAAAAAAAAUFwYowEAAMgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEAIAAIAEAAACAAAABAAAAAAAAAAAAAAAAAAAAAIAEAABIAAAAgAAAAAgAAAQBAgAAAAAAgAAAIAAAAAAAAAAAAAAAABAAAAAAAAAAAAAAABAAAAAAAAAAAAAAACAAAAAAAAAAAAAAAIAAAAAAAAAAAAAAAAAAAAHwAAAAAAAAAAAAAAAAAAADIAAAAAAAAAAAAAAAAAAAABAAAAAQAAgAIAAAACAACAAwAAAAMAAIBcAAAAAAAAAEwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABTV0YxHL4TRcgAAAAAAAAAgAEAAAEAAADvzauJZ0UjAQ==',
  )
})
