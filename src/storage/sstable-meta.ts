/**
 * The meta of an SSTable (sstable.ts) as it lies in memory, shared or not: loading it from a file, checking it, and finding with it
 * the one block that may hold a key. Everything but loading takes the words and bytes of a buffer and the word where the meta
 * starts, allocates nothing, and may be called on any thread while the memory belongs to the table.
 */
import { compareBytes } from '../base/bytes.ts'
import type { Crc32 } from '../base/crc32.ts'
import { SunwiseError } from '../base/errors.ts'
import { freshMemory, type WorkMemory } from '../base/work-memory.ts'
import { Limits } from '../config.ts'
import type { DiskFile } from '../env.ts'
import { filterLineBytes, mayContain } from './bloom-filter.ts'
import type { ActorId } from './log-control.ts'
import {
  blockHeaderBytes,
  directoryEntryWords,
  footMagic,
  indexEntryWords,
  longSeparator,
  MetaFlag,
  MetaWord,
  metaHeaderWords,
  metaMagic,
  type TableId,
  tableBytesMax,
  tableFootBytes,
  tableFormatVersion,
  tableHeadBytes,
  tableIdText,
  tableMagic,
} from './sstable.ts'

/** A meta larger than this is no meta: a table of 16 GiB of the smallest records has one of 8 GiB, and none is that large. */
const metaBytesMax = Limits.slabBytesMax

/** TABLE_CORRUPT for the table at `path`. */
export function tableCorrupt(path: string, what: string): SunwiseError {
  const message = `Cannot read table "${path}": ${what}; restore the data directory from a backup`
  return new SunwiseError('TABLE_CORRUPT', message, { extra: { path, damage: what } })
}

/** Place and length of the meta, from the ends of a file. @throws TABLE_CORRUPT, DISK_FAILED */
export function readTableFoot(
  file: DiskFile,
  tableId: TableId | undefined,
  crc32: Crc32,
): { readonly tableId: TableId; readonly metaOffset: number; readonly metaBytes: number } {
  const size = file.sizeNow()
  if (size < tableHeadBytes + tableFootBytes) throw tableCorrupt(file.path, `it has only ${size} bytes`)
  const foot = new Uint8Array(tableFootBytes)
  const words = new Int32Array(foot.buffer)
  const bytes = file.readNow(foot, 0, tableFootBytes, size - tableFootBytes)
  if (bytes !== tableFootBytes || words[0] !== footMagic || words[1]! >>> 0 !== crc32(foot, 8, tableFootBytes)) {
    throw tableCorrupt(file.path, 'its end is damaged or missing')
  }
  if (words[5] !== tableFormatVersion) {
    throw tableCorrupt(file.path, `it has format version ${words[5]}, and this program reads ${tableFormatVersion}`)
  }
  const found = { low: words[6]! >>> 0, high: words[7]! >>> 0 }
  if (tableId !== undefined && (tableId.low !== found.low || tableId.high !== found.high)) {
    throw tableCorrupt(file.path, `it is table ${tableIdText(found)} and not ${tableIdText(tableId)}`)
  }
  const head = new Uint8Array(tableHeadBytes)
  const headWords = new Int32Array(head.buffer)
  file.readNow(head, 0, tableHeadBytes, 0)
  if (
    headWords[0] !== tableMagic ||
    headWords[1] !== tableFormatVersion ||
    headWords[2]! >>> 0 !== found.low ||
    headWords[3]! >>> 0 !== found.high ||
    headWords[4] !== 0 ||
    headWords[5] !== 0 ||
    headWords[6] !== 0 ||
    headWords[7] !== 0
  ) {
    throw tableCorrupt(file.path, 'its head is damaged')
  }
  const metaOffset = (words[2]! >>> 0) + (words[3]! >>> 0) * 0x1_0000_0000
  const metaBytes = words[4]! >>> 0
  if (metaOffset + metaBytes + tableFootBytes !== size || metaBytes > metaBytesMax || metaBytes % 64 !== 0) {
    throw tableCorrupt(file.path, `it has ${size} bytes, which is not what its end says`)
  }
  return { tableId: found, metaOffset, metaBytes }
}

/**
 * Reads the meta of a file into `u8[at, at + metaBytes)` and checks it whole; `at` is a multiple of 4. @throws TABLE_CORRUPT, DISK_FAILED
 */
export function loadMeta(
  file: DiskFile,
  foot: { readonly tableId: TableId; readonly metaOffset: number; readonly metaBytes: number },
  u8: Uint8Array,
  i32: Int32Array,
  at: number,
  crc32: Crc32,
): void {
  const end = at + foot.metaBytes
  const bytes = foot.metaBytes < metaHeaderWords * 4 ? 0 : file.readNow(u8, at, end, foot.metaOffset)
  const base = at >>> 2
  if (
    bytes !== foot.metaBytes ||
    i32[base + MetaWord.magic] !== metaMagic ||
    i32[base + MetaWord.bytes] !== foot.metaBytes ||
    i32[base + MetaWord.crc]! >>> 0 !== crc32(u8, at + 8, end)
  ) {
    throw tableCorrupt(file.path, 'its index is damaged')
  }
  const wrong = contradiction(i32, base, foot.metaOffset)
  if (wrong !== undefined) throw tableCorrupt(file.path, `its index contradicts itself (${wrong})`)
}

/** The meta of a file, in memory of its own unless some is given. @throws TABLE_CORRUPT, DISK_FAILED */
export function readTableMeta(
  file: DiskFile,
  tableId: TableId | undefined,
  crc32: Crc32,
  memory: WorkMemory = freshMemory,
): Int32Array {
  const foot = readTableFoot(file, tableId, crc32)
  const u8 = memory.take(foot.metaBytes)
  const i32 = new Int32Array(u8.buffer, 0, foot.metaBytes >>> 2)
  loadMeta(file, foot, u8, i32, 0, crc32)
  return i32
}

/**
 * The meta of a file without its filter, which is most of it, and which only who looks for single keys needs: a merge of many tables
 * holds that of each. @throws TABLE_CORRUPT, DISK_FAILED
 */
export function readTableIndex(
  file: DiskFile,
  tableId: TableId | undefined,
  crc32: Crc32,
  memory: WorkMemory,
): Int32Array {
  const whole = readTableMeta(file, tableId, crc32, memory)
  const filter = whole[MetaWord.filter]!
  const directory = whole[MetaWord.directory]!
  const cut = directory - filter
  const words = whole.length - cut
  const index = new Int32Array(memory.take(words * 4).buffer, 0, words)
  index.set(whole.subarray(0, filter))
  index.set(whole.subarray(directory), filter)
  memory.give(whole)
  index[MetaWord.bytes] = words * 4
  index[MetaWord.filterLines] = 0
  for (const place of ['directory', 'index', 'actorTable', 'bands', 'heap'] as const) index[MetaWord[place]]! -= cut
  return index
}

/** What in a meta with a good checksum leads out of it or of the file; undefined where nothing does. */
function contradiction(i32: Int32Array, base: number, blocksEnd: number): string | undefined {
  const word = (name: keyof typeof MetaWord): number => i32[base + MetaWord[name]]! >>> 0
  const partitions = word('partitions')
  const blocks = word('blocks')
  const parts = [
    ['filter', metaHeaderWords, (word('filterLines') * filterLineBytes) / 4],
    ['directory', word('filter') + (word('filterLines') * filterLineBytes) / 4, (partitions + 1) * directoryEntryWords],
    ['index', word('directory') + (partitions + 1) * directoryEntryWords, (blocks + 1) * indexEntryWords],
    ['actorTable', word('index') + (blocks + 1) * indexEntryWords, 2 * word('actors')],
    ['bands', word('actorTable') + 2 * word('actors'), word('bandCount')],
    ['heap', word('bands') + word('bandCount'), Math.ceil(word('heapBytes') / 4)],
  ] as const
  for (const [name, start, words] of parts) {
    if (word(name) !== start || (start + words) * 4 > word('bytes')) return name
  }
  if (partitions === 0 || word('firstPartition') + partitions > Limits.slots || blocks === 0) return 'partitions'
  if (word('filterLines') === 0 || word('filterProbes') === 0 || word('filterProbes') > 32) return 'filter'
  if (word('blocksEndLow') + word('blocksEndHigh') * 0x1_0000_0000 !== blocksEnd || blocksEnd > tableBytesMax)
    return 'end'
  const directory = base + word('directory')
  if (i32[directory] !== 0 || i32[directory + partitions * directoryEntryWords] !== blocks) return 'directory'
  for (let entry = 0; entry < partitions; entry++) {
    const at = directory + entry * directoryEntryWords
    if (i32[at]! > i32[at + directoryEntryWords]!) return 'directory'
    if ((i32[at + 1]! >>> 0) + (i32[at + 2]! >>> 0) > word('heapBytes')) return 'prefix'
  }
  const index = base + word('index')
  if (i32[index]! !== tableHeadBytes / 4 || (i32[index + blocks * indexEntryWords]! >>> 0) * 4 !== blocksEnd)
    return 'index'
  for (let entry = 0; entry < blocks; entry++) {
    const at = index + entry * indexEntryWords
    const blockBytes = ((i32[at + indexEntryWords]! >>> 0) - (i32[at]! >>> 0)) * 4
    if (blockBytes < blockHeaderBytes + 4) return 'index'
    const length = i32[at + 3]! >>> 0
    if (length > 8 && (length < longSeparator || length - longSeparator + 2 > word('heapBytes'))) return 'separator'
  }
  return undefined
}

/** Actors that the records of a table name by index. */
export function metaActors(i32: Int32Array, base: number): ActorId[] {
  const actors: ActorId[] = []
  const table = base + i32[base + MetaWord.actorTable]!
  for (let index = 0; index < i32[base + MetaWord.actors]!; index++) {
    actors.push({ low: i32[table + 2 * index]! >>> 0, high: i32[table + 2 * index + 1]! >>> 0 })
  }
  return actors
}

export function metaIsComplete(i32: Int32Array, base: number): boolean {
  return (i32[base + MetaWord.flags]! & MetaFlag.complete) !== 0
}

/** False: the table surely has no record of the key with this hash (KeyHash with `filterSeed`). */
export function metaMayContain(i32: Int32Array, base: number, hashLow: number, hashHigh: number): boolean {
  return mayContain(
    i32,
    base + i32[base + MetaWord.filter]!,
    i32[base + MetaWord.filterLines]!,
    i32[base + MetaWord.filterProbes]!,
    hashLow,
    hashHigh,
  )
}

/** File offset of a block; of the blocks' end for the block behind the last. */
export function blockOffset(i32: Int32Array, base: number, block: number): number {
  return (i32[base + i32[base + MetaWord.index]! + block * indexEntryWords]! >>> 0) * 4
}

/** First block of a partition, or of the next one that has any; the number of blocks where none has. */
export function firstBlockOf(i32: Int32Array, base: number, partition: number): number {
  const entry = Math.max(
    0,
    Math.min(partition - i32[base + MetaWord.firstPartition]!, i32[base + MetaWord.partitions]!),
  )
  return i32[base + i32[base + MetaWord.directory]! + entry * directoryEntryWords]!
}

/** Partition of a block, by its place in the directory. */
export function partitionOfBlock(i32: Int32Array, base: number, block: number): number {
  const directory = base + i32[base + MetaWord.directory]!
  let low = 0
  let high = i32[base + MetaWord.partitions]! - 1
  while (low < high) {
    const middle = (low + high + 1) >>> 1
    if (i32[directory + middle * directoryEntryWords]! <= block) low = middle
    else high = middle - 1
  }
  return i32[base + MetaWord.firstPartition]! + low
}

/**
 * The only block that can hold (bucketId, key) of a partition, and the first that can hold a key not before it or, where all of the
 * block are, the one before that; -1 where the table has nothing of the partition.
 */
export function findBlock(
  u8: Uint8Array,
  i32: Int32Array,
  base: number,
  partition: number,
  bucketId: number,
  key: Uint8Array,
  keyStart: number,
  keyBytes: number,
): number {
  const position = partition - i32[base + MetaWord.firstPartition]!
  if (position < 0 || position >= i32[base + MetaWord.partitions]!) return -1
  const directory = base + i32[base + MetaWord.directory]! + position * directoryEntryWords
  const first = i32[directory]!
  let high = i32[directory + directoryEntryWords]! - 1
  if (high <= first) return high < first ? -1 : first
  const heap = (base + i32[base + MetaWord.heap]!) << 2
  const prefixBytes = i32[directory + 2]!
  const order = comparePrefix(u8, heap + i32[directory + 1]!, prefixBytes, bucketId, key, keyStart, keyBytes)
  if (order !== 0) return order < 0 ? first : high
  const wantedHigh = sortKeyWord(bucketId, key, keyStart, keyBytes, prefixBytes)
  const wantedLow = sortKeyWord(bucketId, key, keyStart, keyBytes, prefixBytes + 4)
  const wantedBytes = 4 + keyBytes - prefixBytes
  const index = base + i32[base + MetaWord.index]!
  let low = first
  while (low < high) {
    const middle = (low + high + 1) >>> 1
    const entry = index + middle * indexEntryWords
    const separatorHigh = i32[entry + 1]! >>> 0
    let isAfter: boolean
    if (separatorHigh !== wantedHigh) isAfter = separatorHigh > wantedHigh
    else {
      const separatorLow = i32[entry + 2]! >>> 0
      if (separatorLow !== wantedLow) isAfter = separatorLow > wantedLow
      else isAfter = isLongerAfter(u8, i32[entry + 3]! >>> 0, heap, wantedBytes, prefixBytes, key, keyStart, keyBytes)
    }
    if (isAfter) high = middle - 1
    else low = middle
  }
  return low
}

/** Whether a separator comes behind a sort key that has the same first eight bytes behind the prefix. */
function isLongerAfter(
  u8: Uint8Array,
  length: number,
  heap: number,
  wantedBytes: number,
  prefixBytes: number,
  key: Uint8Array,
  keyStart: number,
  keyBytes: number,
): boolean {
  if (length < longSeparator) return length > wantedBytes
  if (wantedBytes <= 8) return true
  const at = heap + length - longSeparator
  const bytes = u8[at]! | (u8[at + 1]! << 8)
  // Behind the eighth byte of the rest only bytes of the key are left: the bucket has four.
  const from = keyStart + prefixBytes + 8 - 4
  return compareBytes(u8, at + 2, at + 2 + bytes - 8, key, from, keyStart + keyBytes) > 0
}

/** Order of a sort key against a prefix: 0 where it begins with it. */
function comparePrefix(
  u8: Uint8Array,
  prefix: number,
  prefixBytes: number,
  bucketId: number,
  key: Uint8Array,
  keyStart: number,
  keyBytes: number,
): number {
  for (let index = 0; index < prefixBytes; index++) {
    if (index >= 4 + keyBytes) return -1
    const own = index < 4 ? (bucketId >>> (24 - 8 * index)) & 0xff : key[keyStart + index - 4]!
    const difference = own - u8[prefix + index]!
    if (difference !== 0) return difference
  }
  return 0
}

/** Four bytes of a sort key as a big-endian number, zeros behind its end. */
function sortKeyWord(bucketId: number, key: Uint8Array, keyStart: number, keyBytes: number, at: number): number {
  if (at >= 4) {
    const from = at - 4
    if (from + 4 <= keyBytes) {
      const byte = keyStart + from
      return ((key[byte]! << 24) | (key[byte + 1]! << 16) | (key[byte + 2]! << 8) | key[byte + 3]!) >>> 0
    }
  }
  let word = 0
  for (let index = at; index < at + 4; index++) {
    let byte = 0
    if (index < 4) byte = (bucketId >>> (24 - 8 * index)) & 0xff
    else if (index - 4 < keyBytes) byte = key[keyStart + index - 4]!
    word = (word << 8) | byte
  }
  return word >>> 0
}
