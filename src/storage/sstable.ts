/**
 * The SSTable: an immutable file of records (record.ts) ordered by (partition, bucket id, key bytes), each key once. Little-endian.
 *
 *   file    head | blocks | meta | foot
 *
 *   head, 32 bytes:
 *      0 u32 magic 'SWT1'   4 u32 formatVersion   8 u32 x 2 table id (low, high)   16 zeros
 *
 *   block, a multiple of 4 long; never across partitions; about `blockBytesWanted`, or one larger record:
 *      0 u32 crc32 of [4, blockBytes)
 *      4 u32 blockBytes      as stored
 *      8 u32 rawBytes        0: the payload is stored as it is; else its length once zstd is undone
 *     12 u16 records         14 u16 partition
 *     16 u32 table id, low   20 u32 number of the block in the table: a block in the wrong place is seen
 *     24 payload: records back to back, then for each record u16 (its offset in the payload / 4), padded with zeros to 4
 *
 *   meta, loaded into memory as it is; at a multiple of 4, its length a multiple of 64; words of 4 bytes:
 *      0 magic 'SWM1'        1 crc32 of bytes [8, metaBytes)   2 metaBytes      3 flags (1: complete)
 *      4, 5 table id         6 firstPartition                  7 partitions
 *      8 blocks              9 filterLines                    10 filterProbes  11 actors
 *     12 directory          13 index                          14 heap          15 heapBytes
 *     16 filter             17 actor table                    18 bands         19 bandCount       (12-18: words from the meta's start)
 *     20 records            21 tombstones                     22 expiring      23 zero
 *     24, 25 earliest expiry, ms (low, high)                  26, 27 end of the blocks, file offset (low, high)    28..31 zeros
 *
 *     filter      at 32: filterLines x 64 bytes (bloom-filter.ts)
 *     directory   (partitions + 1) x { first block, heap offset of the prefix, bytes of the prefix }; one more ends the last partition
 *     index       (blocks + 1) x { file offset / 4, separator (high, low), length }; one more ends the last block
 *     actor table actors x { low, high }: what the u16 actors in the records mean
 *     bands       bytes of blocks in each of bandCount equal bands of the partitions
 *     heap        bytes of prefixes and long separators
 *
 *   foot, 32 bytes:
 *      0 u32 magic 'SWF1'   4 u32 crc32 of [8, 32)   8 u32 x 2 meta offset   16 u32 metaBytes   20 u32 formatVersion   24 u32 x 2 table id
 *
 * The sort key of a record is its bucket id in big-endian order followed by the key: bytes compare as (bucket, key). Before a block
 * stands a separator: greater than every sort key of the block before, not greater than any of its own, and as short as that
 * allows. All separators of a partition share its prefix, which is taken off. What is left is kept as its first eight bytes,
 * big-endian in two words, padded with zeros, and its length; a longer rest lies in the heap, and `length` is `longSeparator`
 * plus its heap offset: u16 length, bytes from the ninth on. The first block of a partition has the empty separator.
 *
 * A table that is not `complete` was shipped by a peer: its records do not hold all that lies below them.
 */
import { pad4 } from '../base/bytes.ts'
import type { Crc32 } from '../base/crc32.ts'
import { recordBytesAt, recordHeaderBytes, recordKeyBytes } from './record.ts'

export const tableFormatVersion = 1
export const tableMagic = 0x31545753
export const metaMagic = 0x314d5753
export const footMagic = 0x31465753
export const tableHeadBytes = 32
export const tableFootBytes = 32
export const blockHeaderBytes = 24
/** Blocks end before they grow beyond this, header and offsets included, unless one record is larger. */
export const blockBytesWanted = 2048
/** Greater lengths of separators in the index are heap offsets beyond this. */
export const longSeparator = 16
/** File offsets in the index count words of 4 bytes. */
export const tableBytesMax = 2 ** 34

/** Words of the meta's header. */
export const MetaWord = {
  magic: 0,
  crc: 1,
  bytes: 2,
  flags: 3,
  tableIdLow: 4,
  tableIdHigh: 5,
  firstPartition: 6,
  partitions: 7,
  blocks: 8,
  filterLines: 9,
  filterProbes: 10,
  actors: 11,
  directory: 12,
  index: 13,
  heap: 14,
  heapBytes: 15,
  filter: 16,
  actorTable: 17,
  bands: 18,
  bandCount: 19,
  records: 20,
  tombstones: 21,
  expiring: 22,
  earliestExpiryLow: 24,
  earliestExpiryHigh: 25,
  blocksEndLow: 26,
  blocksEndHigh: 27,
} as const
export const metaHeaderWords = 32
export const directoryEntryWords = 3
export const indexEntryWords = 4

export const MetaFlag = { complete: 1 } as const

/** Names a table for ever, whatever is in it; two u32. */
export type TableId = { readonly low: number; readonly high: number }

/** Sixteen lower-case hexadecimal characters. */
export function tableIdText(id: TableId): string {
  return (id.high >>> 0).toString(16).padStart(8, '0') + (id.low >>> 0).toString(16).padStart(8, '0')
}

/** The id that `tableIdText` wrote; undefined for any other text. */
export function tableIdOf(text: string): TableId | undefined {
  if (!/^[0-9a-f]{16}$/.test(text)) return undefined
  return { high: Number.parseInt(text.slice(0, 8), 16), low: Number.parseInt(text.slice(8), 16) }
}

/** Undoes and does the compression of blocks; from the host, since the engine has it. */
export type BlockCodec = {
  compress(bytes: Uint8Array): Uint8Array
  /** The bytes that were compressed. @throws anything where `bytes` is damaged or longer than `rawBytes` */
  decompress(bytes: Uint8Array, rawBytes: number): Uint8Array
}

/**
 * Whether the `bytes` at `start` are block `number` of the table, undamaged: length, place and checksum. What it returns true for may
 * be searched; offsets and lengths of records are as the writer left them.
 */
export function isBlock(
  u8: Uint8Array,
  i32: Int32Array,
  start: number,
  bytes: number,
  tableIdLow: number,
  number: number,
  crc32: Crc32,
): boolean {
  if (bytes < blockHeaderBytes + 4) return false
  const word = start >>> 2
  return (
    i32[word + 1] === bytes &&
    i32[word + 4] === (tableIdLow | 0) &&
    i32[word + 5] === number &&
    i32[word]! >>> 0 === crc32(u8, start + 4, start + bytes)
  )
}

export function blockRecords(i32: Int32Array, start: number): number {
  return i32[(start >>> 2) + 3]! & 0xffff
}

export function blockPartition(i32: Int32Array, start: number): number {
  return i32[(start >>> 2) + 3]! >>> 16
}

/** Length of the payload that zstd shortened; 0 where it is stored as it is. */
export function blockRawBytes(i32: Int32Array, start: number): number {
  return i32[(start >>> 2) + 2]! >>> 0
}

/** Bytes of the offsets behind the records. */
export function blockOffsetBytes(records: number): number {
  return pad4(2 * records)
}

/**
 * Place of record `index` of a block with `records` records whose payload is [start, end).
 */
export function recordInBlock(u8: Uint8Array, start: number, end: number, records: number, index: number): number {
  const at = end - blockOffsetBytes(records) + 2 * index
  return start + (u8[at]! | (u8[at + 1]! << 8)) * 4
}

/** Order of the record at `at` against (bucketId, key): negative, 0 or positive. */
export function compareRecordKey(
  u8: Uint8Array,
  i32: Int32Array,
  at: number,
  bucketId: number,
  key: Uint8Array,
  keyStart: number,
  keyBytes: number,
): number {
  const bucket = i32[(at >>> 2) + 2]! >>> 0
  if (bucket !== bucketId) return bucket < bucketId ? -1 : 1
  const own = recordKeyBytes(u8, at)
  const common = own < keyBytes ? own : keyBytes
  const from = at + recordHeaderBytes
  for (let index = 0; index < common; index++) {
    const difference = u8[from + index]! - key[keyStart + index]!
    if (difference !== 0) return difference
  }
  return own - keyBytes
}

/** Place of the record of a key in a checked block's payload [start, end); -1 where it is not there. */
export function findInBlock(
  u8: Uint8Array,
  i32: Int32Array,
  start: number,
  end: number,
  records: number,
  bucketId: number,
  key: Uint8Array,
  keyStart: number,
  keyBytes: number,
): number {
  let low = 0
  let high = records - 1
  while (low <= high) {
    const middle = (low + high) >>> 1
    const at = recordInBlock(u8, start, end, records, middle)
    const order = compareRecordKey(u8, i32, at, bucketId, key, keyStart, keyBytes)
    if (order === 0) return at
    if (order < 0) low = middle + 1
    else high = middle - 1
  }
  return -1
}

/** Index of the first record whose key is not before (bucketId, key); `records` where all are. */
export function seekInBlock(
  u8: Uint8Array,
  i32: Int32Array,
  start: number,
  end: number,
  records: number,
  bucketId: number,
  key: Uint8Array,
  keyStart: number,
  keyBytes: number,
): number {
  let low = 0
  let high = records
  while (low < high) {
    const middle = (low + high) >>> 1
    const at = recordInBlock(u8, start, end, records, middle)
    if (compareRecordKey(u8, i32, at, bucketId, key, keyStart, keyBytes) < 0) low = middle + 1
    else high = middle
  }
  return low
}

/** Whether all records of a checked block lie within its payload, in order: for who reads blocks whole. */
export function isBlockInOrder(u8: Uint8Array, i32: Int32Array, start: number, end: number, records: number): boolean {
  const recordsEnd = end - blockOffsetBytes(records)
  let next = start
  for (let index = 0; index < records; index++) {
    const at = recordInBlock(u8, start, end, records, index)
    if (at !== next || at + recordHeaderBytes > recordsEnd) return false
    next = at + recordBytesAt(i32, at)
    if (next > recordsEnd || recordHeaderBytes + recordKeyBytes(u8, at) > next - at) return false
    if (index === 0) continue
    const before = recordInBlock(u8, start, end, records, index - 1)
    const bucketId = i32[(at >>> 2) + 2]! >>> 0
    const order = compareRecordKey(u8, i32, before, bucketId, u8, at + recordHeaderBytes, recordKeyBytes(u8, at))
    if (order >= 0) return false
  }
  return next === recordsEnd
}
