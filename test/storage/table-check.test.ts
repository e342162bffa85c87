import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32 } from '../../src/base/crc32.ts'
import { MetaWord } from '../../src/storage/sstable.ts'
import { blockOffset, readTableFoot, readTableMeta } from '../../src/storage/sstable-meta.ts'
import { checkTable, type TableCheck } from '../../src/storage/table-check.ts'
import { type Entry, type Table, tableId, valueSet, writeTable, zstd } from './table-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

/** Partitions 0 to 4, some blocks each. */
const entries: readonly Entry[] = Array.from({ length: 60 }, (_, index) => ({
  partition: Math.floor(index / 12),
  bucketId: 1 + (index % 12 > 7 ? 1 : 0),
  key: Buffer.from(`key ${100 + index}`),
  set: valueSet(Buffer.alloc(300, index), { tombstone: index % 9 === 4 }),
}))

function check(table: Table): TableCheck {
  const file = table.disk.openNow(table.path)
  try {
    return checkTable({ file, tableId, crc32, codec: zstd, pace: () => {} })
  } finally {
    file.close()
  }
}

test('checkTable() finds nothing in a table as it was written, compressed or not', () => {
  for (const codec of [undefined, zstd]) {
    const options = codec === undefined ? {} : { codec }
    assert.deepEqual(check(writeTable(entries, options)), { records: entries.length, findings: [] })
  }
})

test('checkTable() finds every flipped bit, names its partition, and still reads the others', () => {
  const table = writeTable(entries)
  const file = table.disk.openNow(table.path)
  const meta = readTableMeta(file, tableId, crc32)
  file.close()
  const blocksEnd = meta[MetaWord.blocksEndLow]!
  const { fileBytes } = table.written
  for (let offset = 0; offset < fileBytes; offset += scale > 1 ? 1 : 7) {
    table.disk.flipBit(table.path, offset, offset % 8)
    const { records, findings } = check(table)
    table.disk.flipBit(table.path, offset, offset % 8)
    assert.equal(findings.length, 1, `byte ${offset}`)
    const { detail, firstPartition, endPartition } = findings[0]!
    assert.match(detail, /damaged|it has|it is|contradicts/)
    if (offset < 32 || offset >= blocksEnd) {
      assert.deepEqual([firstPartition, endPartition, records], [0, Number.POSITIVE_INFINITY, 0])
      continue
    }
    assert.equal(endPartition, firstPartition + 1)
    // 12 records of each partition; of the damaged one, those in front of the damage.
    assert.ok(records >= 48 && records < 60, `byte ${offset}: ${records} records`)
  }
})

test('checkTable() names every damaged partition', () => {
  const table = writeTable(entries)
  // Each partition has its own blocks; values of one byte say where it is.
  const bytes = Buffer.from(table.disk.bytesOf(table.path))
  const wanted = [1, 4]
  for (const partition of wanted) {
    const at = bytes.indexOf(Buffer.alloc(300, partition * 12 + 11))
    assert.ok(at > 0)
    table.disk.flipBit(table.path, at + 100, 3)
  }
  assert.deepEqual(
    check(table).findings.map(({ firstPartition, endPartition }) => [firstPartition, endPartition]),
    wanted.map((partition) => [partition, partition + 1]),
  )
})

test('checkTable() relies on nothing behind very much damage', () => {
  const entries = Array.from({ length: 300 }, (_, index) => ({
    partition: index,
    bucketId: 1,
    key: Buffer.from(`key ${index}`),
    set: valueSet(new Uint8Array(50)),
  }))
  const table = writeTable(entries)
  const meta = readTableMeta(table.disk.openNow(table.path), tableId, crc32)
  for (let block = 0; block < 200; block++) table.disk.flipBit(table.path, blockOffset(meta, 0, block) + 30, 1)
  const { findings } = check(table)
  assert.equal(findings.length, 101)
  assert.deepEqual([findings[100]!.firstPartition, findings[100]!.endPartition], [100, 300])
})

test('checkTable() passes on an error of the disk, and what ends it', () => {
  const table = writeTable(entries)
  table.disk.fail({ kind: 'read', error: 'EIO', nth: 4, times: 1 })
  assert.throws(() => check(table), { code: 'DISK_FAILED' })
  table.disk.heal()
  const file = table.disk.openNow(table.path)
  const pace = (): void => {
    throw new Error('no more')
  }
  assert.throws(() => checkTable({ file, tableId, crc32, codec: undefined, pace }), /no more/)
})

test('checkTable() compares what is there with filter and counts, where every checksum is right', () => {
  const table = writeTable(entries)
  const whole = Buffer.from(table.disk.bytesOf(table.path))
  const { metaOffset, metaBytes } = footOf(table)
  const forged = (change: (words: Int32Array) => void): TableCheck => {
    const meta = Uint8Array.from(whole.subarray(metaOffset, metaOffset + metaBytes))
    const words = new Int32Array(meta.buffer)
    change(words)
    words[MetaWord.crc] = crc32(meta, 8, metaBytes)
    const file = table.disk.openNow(table.path)
    file.writeNow(meta, 0, metaBytes, metaOffset)
    file.close()
    return check(table)
  }
  assert.deepEqual(forged(() => {}).findings, [])
  const denied = forged((words) => words.fill(0, words[MetaWord.filter]!, words[MetaWord.filter]! + 16))
  assert.ok(denied.findings.length > 0)
  for (const { detail } of denied.findings) assert.match(detail, /filter denies a key/)
  for (const word of ['records', 'tombstones'] as const) {
    const { findings } = forged((words) => {
      words[MetaWord[word]]! += 1
    })
    assert.deepEqual(
      findings.map(({ detail }) => detail),
      [`it has ${word === 'records' ? '60 records, and its index says 61' : '7 tombstones, and its index says 8'}`],
    )
  }
})

function footOf(table: Table): { readonly metaOffset: number; readonly metaBytes: number } {
  const file = table.disk.openNow(table.path)
  const foot = readTableFoot(file, tableId, crc32)
  file.close()
  return foot
}
