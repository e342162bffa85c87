/** Tables over a simulated disk for tests: records made from plain descriptions, written, read back and compared. */
import assert from 'node:assert/strict'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { crc32 } from '../../src/base/crc32.ts'
import { KeyHash } from '../../src/base/key-hash.ts'
import type { DiskFile } from '../../src/env.ts'
import { filterSeed } from '../../src/storage/bloom-filter.ts'
import type { ActorId } from '../../src/storage/log-control.ts'
import {
  decodeRecord,
  encodeRecord,
  recordBucket,
  recordBytesOf,
  recordHeaderBytes,
  recordKeyBytes,
} from '../../src/storage/record.ts'
import {
  type BlockCodec,
  blockHeaderBytes,
  blockRawBytes,
  blockRecords,
  findInBlock,
} from '../../src/storage/sstable.ts'
import { TableIterator } from '../../src/storage/sstable-iterator.ts'
import { blockOffset, findBlock, metaMayContain, readTableMeta } from '../../src/storage/sstable-meta.ts'
import { TableWriter, type WrittenTable } from '../../src/storage/sstable-writer.ts'
import type { VersionSet } from '../../src/versions/version-set.ts'
import { SimDisk } from '../sim/sim-disk.ts'

export type Entry = {
  readonly partition: number
  readonly bucketId: number
  readonly key: Uint8Array
  readonly set: VersionSet
}

export const zstd: BlockCodec = {
  compress: (bytes) => zstdCompressSync(bytes),
  decompress: (bytes, rawBytes) => {
    // Behind the frame stands the padding of the block.
    const raw = zstdDecompressSync(bytes, { maxOutputLength: rawBytes })
    return new Uint8Array(raw)
  },
}

export const tableId = { low: 0x89abcdef, high: 0x01234567 }
export const actors: readonly ActorId[] = [
  { low: 1, high: 0x8000_0001 },
  { low: 2, high: 0x8000_0002 },
  { low: 3, high: 0x8000_0003 },
]

export function valueSet(
  value: Uint8Array,
  options: { counter?: number; expiresAtMs?: number; tombstone?: boolean } = {},
): VersionSet {
  const { counter = 1, expiresAtMs = 0, tombstone = false } = options
  const version = {
    actor: 0,
    counter,
    tombstone,
    expiresAtMs,
    timestamp: 0,
    contentType: 'application/octet-stream',
    value,
  }
  return { versions: [version], vector: [{ actor: 0, counter }] }
}

export function recordOf(entry: Entry): { u8: Uint8Array; i32: Int32Array } {
  const u8 = new Uint8Array(recordBytesOf(entry.set, entry.key.length))
  const i32 = new Int32Array(u8.buffer)
  encodeRecord(u8, i32, 0, entry.partition * 16, entry.bucketId, entry.key, 0, entry.key.length, entry.set)
  return { u8, i32 }
}

export function compareEntries(a: Entry, b: Entry): number {
  return a.partition - b.partition || a.bucketId - b.bucketId || Buffer.compare(a.key, b.key)
}

export type Table = { readonly disk: SimDisk; readonly path: string; readonly written: WrittenTable }

export function writeTable(
  entries: readonly Entry[],
  options: { disk?: SimDisk; path?: string; codec?: BlockCodec; bitsPerKey?: number; isComplete?: boolean } = {},
): Table {
  const { disk = new SimDisk(), path = 'table', codec, bitsPerKey = 10, isComplete = true } = options
  const file = disk.createNow(path)
  const writer = new TableWriter({ file, tableId, crc32, bitsPerKey, actors, isComplete, codec, pace: () => {} })
  for (const entry of entries) {
    const { u8, i32 } = recordOf(entry)
    writer.add(entry.partition, u8, i32, 0)
  }
  const written = writer.finish()
  file.close()
  assert.equal(written.fileBytes, disk.bytesOf(path).length)
  return { disk, path, written }
}

export function iterate(
  file: DiskFile,
  meta: Int32Array,
  firstPartition: number,
  endPartition: number,
  codec?: BlockCodec,
  portionBytes = 8192,
): TableIterator {
  return new TableIterator({ file, meta, crc32, codec, firstPartition, endPartition, portionBytes, pace: () => {} })
}

export function entryAt(source: { u8: Uint8Array; i32: Int32Array; at: number; partition: number }): Entry {
  const { u8, i32, at, partition } = source
  const key = u8.slice(at + recordHeaderBytes, at + recordHeaderBytes + recordKeyBytes(u8, at))
  return { partition, bucketId: recordBucket(i32, at), key, set: decodeRecord(u8, i32, at) }
}

/** Everything in a table, by its iterator. */
export function readAll(table: Table, codec?: BlockCodec): Entry[] {
  const file = table.disk.openNow(table.path)
  const meta = readTableMeta(file, tableId, crc32)
  const entries: Entry[] = []
  const iterator = iterate(file, meta, 0, 16384, codec)
  while (iterator.next()) entries.push(entryAt(iterator))
  file.close()
  return entries
}

/** One key, as readers look for it: filter, block, record. */
export function lookUp(
  file: DiskFile,
  meta: Int32Array,
  partition: number,
  bucketId: number,
  key: Uint8Array,
  codec?: BlockCodec,
): VersionSet | undefined {
  const hash = new KeyHash(filterSeed)
  hash.update(bucketId, key, 0, key.length)
  if (!metaMayContain(meta, 0, hash.low, hash.high)) return undefined
  const u8 = new Uint8Array(meta.buffer)
  const block = findBlock(u8, meta, 0, partition, bucketId, key, 0, key.length)
  if (block < 0) return undefined
  const start = blockOffset(meta, 0, block)
  const bytes = blockOffset(meta, 0, block + 1) - start
  let block8 = new Uint8Array(bytes)
  file.readNow(block8, 0, bytes, start)
  let block32 = new Int32Array(block8.buffer)
  const records = blockRecords(block32, 0)
  const rawBytes = blockRawBytes(block32, 0)
  let payload = blockHeaderBytes
  let end = bytes
  if (rawBytes > 0) {
    block8 = new Uint8Array(codec!.decompress(block8.subarray(blockHeaderBytes), rawBytes))
    block32 = new Int32Array(block8.buffer)
    payload = 0
    end = rawBytes
  }
  const at = findInBlock(block8, block32, payload, end, records, bucketId, key, 0, key.length)
  return at < 0 ? undefined : decodeRecord(block8, block32, at)
}
