/**
 * Writes one SSTable (sstable.ts): records come in order, blocks leave in portions of a quarter of a mebibyte, and what finds them again,
 * directory, separators, filter, is gathered meanwhile: some 25 bytes of memory a key. Runs on a thread that serves nobody.
 *
 * The file counts for nothing until `finish` has returned and its directory is synced: after an error remove it.
 */
import { assert } from '../base/assert.ts'
import { ByteWriter, copyBytes, copyWords, pad4 } from '../base/bytes.ts'
import type { Crc32 } from '../base/crc32.ts'
import { SunwiseError } from '../base/errors.ts'
import { KeyHash } from '../base/key-hash.ts'
import { freshMemory, type WorkMemory } from '../base/work-memory.ts'
import { Limits } from '../config.ts'
import type { DiskFile } from '../env.ts'
import { addToFilter, filterLineBytes, filterLines, filterProbes, filterSeed } from './bloom-filter.ts'
import type { ActorId } from './log-control.ts'
import {
  decodeRecord,
  RecordFlag,
  recordBucket,
  recordBytesAt,
  recordHeaderBytes,
  recordKeyBytes,
  simpleExpiry,
} from './record.ts'
import {
  type BlockCodec,
  blockBytesWanted,
  blockHeaderBytes,
  blockOffsetBytes,
  compareRecordKey,
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
  tableMagic,
} from './sstable.ts'
import { type BucketCount, bandCountOf, bucketsCountedMax } from './table-rows.ts'

export type TableWriterOptions = {
  /** A new, empty file. */
  readonly file: DiskFile
  readonly tableId: TableId
  readonly crc32: Crc32
  /** Bits of the filter for each key. */
  readonly bitsPerKey: number
  /** What the actors in the records mean: one for each index that occurs. */
  readonly actors: readonly ActorId[]
  /** False where the records do not hold all that lies below them. */
  readonly isComplete: boolean
  /** Blocks are compressed where that makes them at least an eighth shorter. */
  readonly codec?: BlockCodec | undefined
  /** Told of bytes that are to be written, block for block, to slow the writer down. */
  readonly pace: (bytes: number) => void
  /** Blocks end before this place in the file. Default: as far as a table's index reaches. */
  readonly bytesMax?: number | undefined
  /** Default: memory of its own. */
  readonly memory?: WorkMemory
}

/** What is in a table that was written. */
export type WrittenTable = {
  readonly firstPartition: number
  /** The partition behind the last. */
  readonly endPartition: number
  readonly fileBytes: number
  readonly records: number
  /** Records without a live version. */
  readonly tombstones: number
  /** Records with a version that expires, and the earliest moment of that; 0: none. */
  readonly expiring: number
  readonly earliestExpiryMs: number
  /** About when half of them have expired; 0: none. */
  readonly medianExpiryMs: number
  /** Records of the first buckets that were met. */
  readonly buckets: readonly BucketCount[]
  /** Bytes of blocks in equal bands of the partitions. */
  readonly bandBytes: readonly number[]
}

const portionBytes = 256 * 1024
/** Words of a piece of the hashes. */
const hashWords = 8192
/** Moments of expiry that are kept to find their median: with more, every second one is left out. */
const expiriesKept = 4096
const sortKeyBytesMax = 4 + Limits.storedKeyBytesMax

export class TableWriter {
  readonly #options: TableWriterOptions
  readonly #memory: WorkMemory
  readonly #hash = new KeyHash(filterSeed)

  // The portion that is not written yet; the open block is its end.
  #u8: Uint8Array
  #i32: Int32Array
  /** Bytes of whole blocks in the portion, and the place of the first of them in the file. */
  #portion = 0
  #written = 0

  // The open block.
  #records = 0
  #payload = 0
  #offsets = new Uint16Array(blockBytesWanted / recordHeaderBytes)
  /** Place in the portion of the last record that was added. */
  #last = -1

  // The open partition.
  #partition = -1
  #firstPartition = -1
  /** Separators of the blocks of the open partition, one behind the other, and where each ends; that of the first is empty. */
  #separators: Uint8Array
  #separatorEnds = new Uint32Array(256)
  #separatorCount = 0
  #partitionBlock = 0
  #lastKey = new Uint8Array(sortKeyBytesMax)
  #lastKeyBytes = 0

  // What the meta will hold.
  #blocks = 0
  #blockOffsets: Uint32Array
  #index: Int32Array
  #directory: number[] = []
  readonly #heap = new ByteWriter(4096)
  /** Two words a key, in pieces, since a table may have millions. */
  readonly #hashes: Int32Array[] = []
  readonly #partitionBytes: number[] = []
  #totalRecords = 0
  readonly #buckets = new Map<number, number>()
  /** The bucket of the last record, and how many it has that are not counted in `#buckets` yet. */
  #bucketId = -1
  #bucketRecords = 0
  #tombstones = 0
  #expiring = 0
  #earliestExpiryMs = Number.POSITIVE_INFINITY
  #expiries: number[] = []
  #expiryStride = 1

  constructor(options: TableWriterOptions) {
    this.#options = options
    this.#memory = options.memory ?? freshMemory
    this.#u8 = this.#memory.take(portionBytes + 2 * blockBytesWanted)
    this.#i32 = new Int32Array(this.#u8.buffer)
    this.#separators = this.#memory.take(1 << 16)
    this.#blockOffsets = new Uint32Array(this.#memory.take(1 << 14).buffer)
    this.#index = new Int32Array(this.#memory.take(1 << 16).buffer)
    const head = this.#i32.fill(0, 0, tableHeadBytes / 4)
    head[0] = tableMagic
    head[1] = tableFormatVersion
    head[2] = options.tableId.low
    head[3] = options.tableId.high
    this.#portion = tableHeadBytes
  }

  /** Bytes of the file so far, the open block included. */
  get bytes(): number {
    return this.#written + this.#portion + (this.#records === 0 ? 0 : this.#blockBytes(this.#payload, this.#records))
  }

  get records(): number {
    return this.#totalRecords
  }

  /**
   * Adds the record at `at`, which stays the caller's. Its key comes behind all that were added. @throws TABLE_TOO_LARGE, what the file
   * throws
   */
  add(partition: number, u8: Uint8Array, i32: Int32Array, at: number): void {
    if (partition !== this.#partition) this.#beginPartition(partition)
    const bytes = recordBytesAt(i32, at)
    if (this.#records > 0 && this.#blockBytes(this.#payload + bytes, this.#records + 1) > blockBytesWanted) {
      this.#closeBlock()
    }
    const keyStart = at + recordHeaderBytes
    const keyBytes = recordKeyBytes(u8, at)
    const bucketId = recordBucket(i32, at)
    if (this.#records === 0) this.#beginBlock(bytes, bucketId, u8, keyStart, keyBytes)
    else {
      const order = compareRecordKey(this.#u8, this.#i32, this.#last, bucketId, u8, keyStart, keyBytes)
      assert(order < 0, 'Records of a table come in order')
    }
    const to = this.#portion + blockHeaderBytes + this.#payload
    copyWords(i32, at >>> 2, this.#i32, to >>> 2, bytes >>> 2)
    this.#offsets[this.#records++] = this.#payload >>> 2
    this.#payload += bytes
    this.#last = to
    this.#hash.update(bucketId, u8, keyStart, keyStart + keyBytes)
    this.#addHash(this.#hash.low, this.#hash.high)
    if (bucketId !== this.#bucketId) this.#countBucket(bucketId)
    this.#bucketRecords++
    this.#count(u8, i32, at)
  }

  /**
   * Writes what is left, and syncs the file. At least one record was added; use the writer no more. @throws TABLE_TOO_LARGE, what the
   * file throws
   */
  finish(): WrittenTable {
    assert(this.#totalRecords > 0, 'A table holds a record')
    this.#endPartition()
    this.#countBucket(-1)
    const { file } = this.#options
    const blocksEnd = this.#written + this.#portion
    this.#flushPortion()
    const bandBytes = this.#bands()
    const { meta, metaBytes } = this.#meta(blocksEnd, bandBytes)
    this.#options.pace(metaBytes)
    file.writeNow(meta, 0, metaBytes, blocksEnd)
    const foot = this.#foot(blocksEnd, metaBytes)
    file.writeNow(foot, 0, foot.length, blocksEnd + metaBytes)
    for (const buffer of [this.#u8, meta, ...this.#hashes]) this.#memory.give(buffer)
    file.syncNow()
    return {
      firstPartition: this.#firstPartition,
      endPartition: this.#partition + 1,
      fileBytes: blocksEnd + metaBytes + foot.length,
      records: this.#totalRecords,
      tombstones: this.#tombstones,
      expiring: this.#expiring,
      earliestExpiryMs: this.#expiring === 0 ? 0 : this.#earliestExpiryMs,
      medianExpiryMs: this.#medianExpiryMs(),
      buckets: [...this.#buckets].map(([bucketId, records]) => ({ bucketId, records })),
      bandBytes,
    }
  }

  #count(u8: Uint8Array, i32: Int32Array, at: number): void {
    this.#totalRecords++
    const flags = u8[at + 12]!
    if (flags & RecordFlag.tombstone) this.#tombstones++
    if ((flags & RecordFlag.expiry) === 0) return
    this.#expiring++
    let earliest = Number.POSITIVE_INFINITY
    if (flags & RecordFlag.simple) earliest = simpleExpiry(u8, i32, at)
    else {
      for (const { expiresAtMs } of decodeRecord(u8, i32, at).versions) {
        if (expiresAtMs > 0 && expiresAtMs < earliest) earliest = expiresAtMs
      }
    }
    if (earliest < this.#earliestExpiryMs) this.#earliestExpiryMs = earliest
    if (this.#expiring % this.#expiryStride !== 0) return
    this.#expiries.push(earliest)
    if (this.#expiries.length < expiriesKept) return
    this.#expiries = this.#expiries.filter((_, index) => index % 2 === 1)
    this.#expiryStride *= 2
  }

  /** Counts the records of the bucket that ends here. */
  #countBucket(next: number): void {
    const counted = this.#buckets.get(this.#bucketId)
    if (this.#bucketRecords > 0 && (counted !== undefined || this.#buckets.size < bucketsCountedMax)) {
      this.#buckets.set(this.#bucketId, (counted ?? 0) + this.#bucketRecords)
    }
    this.#bucketId = next
    this.#bucketRecords = 0
  }

  #medianExpiryMs(): number {
    if (this.#expiring === 0) return 0
    const sorted = Float64Array.from(this.#expiries).sort()
    return sorted[sorted.length >>> 1] ?? this.#earliestExpiryMs
  }

  #addHash(low: number, high: number): void {
    const at = (2 * this.#totalRecords) % hashWords
    if (at === 0) this.#hashes.push(new Int32Array(this.#memory.take(4 * hashWords).buffer))
    const words = this.#hashes[this.#hashes.length - 1]!
    words[at] = low
    words[at + 1] = high
  }

  #blockBytes(payload: number, records: number): number {
    return blockHeaderBytes + payload + blockOffsetBytes(records)
  }

  #beginPartition(partition: number): void {
    assert(partition > this.#partition, 'Partitions of a table come in order')
    if (this.#partition < 0) this.#firstPartition = partition
    else this.#endPartition()
    // Partitions without records are empty ranges of blocks.
    while (this.#directory.length / directoryEntryWords < partition - this.#firstPartition) {
      this.#directory.push(this.#blocks, 0, 0)
      this.#partitionBytes.push(0)
    }
    this.#partition = partition
    this.#partitionBlock = this.#blocks
    this.#partitionBytes.push(0)
    this.#separatorCount = 0
  }

  #beginBlock(bytes: number, bucketId: number, u8: Uint8Array, keyStart: number, keyBytes: number): void {
    this.#room(this.#portion + this.#blockBytes(bytes, 1))
    const isFirst = this.#blocks === this.#partitionBlock
    if (this.#separatorCount === this.#separatorEnds.length) {
      const grown = new Uint32Array(2 * this.#separatorCount)
      grown.set(this.#separatorEnds)
      this.#separatorEnds = grown
    }
    const end = isFirst ? 0 : this.#addSeparator(bucketId, u8, keyStart, keyBytes)
    this.#separatorEnds[this.#separatorCount++] = end
  }

  /** Adds the shortest start of a sort key that is greater than the last key of the block before; returns where it ends. */
  #addSeparator(bucketId: number, u8: Uint8Array, keyStart: number, keyBytes: number): number {
    const lastKey = this.#lastKey
    const bytes = 4 + keyBytes
    let same = 0
    while (same < this.#lastKeyBytes && same < bytes && lastKey[same] === sortByte(bucketId, u8, keyStart, same)) same++
    assert(
      same < bytes && (same === this.#lastKeyBytes || lastKey[same]! < sortByte(bucketId, u8, keyStart, same)),
      'Records of a table come in order',
    )
    const start = this.#separatorEnds[this.#separatorCount - 1]!
    const end = start + same + 1
    if (end > this.#separators.length) {
      this.#separators = this.#grown(this.#separators, 2 * end)
    }
    for (let index = 0; index <= same; index++) {
      this.#separators[start + index] = sortByte(bucketId, u8, keyStart, index)
    }
    return end
  }

  #closeBlock(): void {
    const start = this.#portion
    const partition = this.#partition
    const rawPayload = this.#payload + blockOffsetBytes(this.#records)
    let at = start + blockHeaderBytes + this.#payload
    this.#i32[(start + blockHeaderBytes + rawPayload - 4) >>> 2] = 0
    for (let index = 0; index < this.#records; index++) {
      this.#u8[at++] = this.#offsets[index]!
      this.#u8[at++] = this.#offsets[index]! >>> 8
    }
    this.#rememberLastKey()
    let rawBytes = 0
    let payload = rawPayload
    const packed = this.#options.codec?.compress(
      this.#u8.subarray(start + blockHeaderBytes, start + blockHeaderBytes + rawPayload),
    )
    if (packed !== undefined && packed.length <= rawPayload - rawPayload / 8) {
      rawBytes = rawPayload
      payload = pad4(packed.length)
      this.#i32[(start + blockHeaderBytes + payload - 4) >>> 2] = 0
      this.#u8.set(packed, start + blockHeaderBytes)
    }
    const bytes = blockHeaderBytes + payload
    const word = start >>> 2
    this.#i32[word + 1] = bytes
    this.#i32[word + 2] = rawBytes
    this.#i32[word + 3] = this.#records | (partition << 16)
    this.#i32[word + 4] = this.#options.tableId.low
    this.#i32[word + 5] = this.#blocks
    this.#i32[word] = this.#options.crc32(this.#u8, start + 4, start + bytes)
    const { bytesMax = tableBytesMax } = this.#options
    if (this.#written + start + bytes >= bytesMax) {
      const message = `Cannot write a table of more than ${bytesMax} bytes: it cannot end inside of partition ${partition}`
      throw new SunwiseError('TABLE_TOO_LARGE', message)
    }
    if (this.#blocks + 1 >= this.#blockOffsets.length) {
      this.#blockOffsets = new Uint32Array(this.#grown(this.#blockOffsets, this.#blockOffsets.byteLength * 2).buffer)
    }
    this.#blockOffsets[this.#blocks] = (this.#written + start) / 4
    this.#blockOffsets[++this.#blocks] = (this.#written + start + bytes) / 4
    this.#partitionBytes[partition - this.#firstPartition]! += bytes
    this.#portion += bytes
    this.#records = 0
    this.#payload = 0
    if (this.#portion >= portionBytes) this.#flushPortion()
    this.#options.pace(bytes)
  }

  #rememberLastKey(): void {
    const keyBytes = recordKeyBytes(this.#u8, this.#last)
    const bucketId = recordBucket(this.#i32, this.#last)
    this.#lastKey[0] = bucketId >>> 24
    this.#lastKey[1] = bucketId >>> 16
    this.#lastKey[2] = bucketId >>> 8
    this.#lastKey[3] = bucketId
    copyBytes(this.#u8, this.#last + recordHeaderBytes, this.#lastKey, 4, keyBytes)
    this.#lastKeyBytes = 4 + keyBytes
  }

  #flushPortion(): void {
    if (this.#portion === 0) return
    this.#options.file.writeNow(this.#u8, 0, this.#portion, this.#written)
    this.#written += this.#portion
    this.#portion = 0
  }

  /** A buffer of at least `bytes` that begins with what `view` holds, which is given back. */
  #grown(view: ArrayBufferView, bytes: number): Uint8Array {
    const grown = this.#memory.take(bytes)
    grown.set(new Uint8Array(view.buffer, 0, view.byteLength))
    this.#memory.give(view)
    return grown
  }

  #room(bytes: number): void {
    if (bytes <= this.#u8.length) return
    const grown = this.#grown(this.#u8, bytes + blockBytesWanted)
    this.#u8 = grown
    this.#i32 = new Int32Array(grown.buffer)
  }

  #endPartition(): void {
    if (this.#records > 0) this.#closeBlock()
    const separators = this.#separators
    const prefixBytes = this.#commonPrefix()
    const prefixAt = prefixBytes === 0 ? 0 : this.#heap.length
    if (prefixBytes > 0) this.#heap.raw(separators.subarray(0, prefixBytes))
    this.#directory.push(this.#partitionBlock, prefixAt, prefixBytes)
    while (this.#blocks * indexEntryWords > this.#index.length) {
      this.#index = new Int32Array(this.#grown(this.#index, this.#index.byteLength * 2).buffer)
    }
    for (let position = 0; position < this.#separatorCount; position++) {
      const block = this.#partitionBlock + position
      const end = this.#separatorEnds[position]!
      const start = position === 0 ? end : this.#separatorEnds[position - 1]! + prefixBytes
      const bytes = end - start
      const entry = block * indexEntryWords
      this.#index[entry] = this.#blockOffsets[block]!
      this.#index[entry + 1] = bigEndianWord(separators, start, end)
      this.#index[entry + 2] = bigEndianWord(separators, start + 4, end)
      this.#index[entry + 3] = bytes
      if (bytes <= 8) continue
      this.#index[entry + 3] = longSeparator + this.#heap.length
      this.#heap.u16(bytes)
      this.#heap.raw(separators.subarray(start + 8, end))
    }
  }

  /** Bytes that all separators but the first, empty one begin with: they are in order, so the second and the last tell. */
  #commonPrefix(): number {
    const count = this.#separatorCount
    if (count < 2) return 0
    const separators = this.#separators
    const last = this.#separatorEnds[count - 2]!
    const bytes = Math.min(this.#separatorEnds[1]!, this.#separatorEnds[count - 1]! - last)
    let same = 0
    while (same < bytes && separators[same] === separators[last + same]) same++
    return same
  }

  #bands(): number[] {
    const partitions = this.#partitionBytes.length
    const count = bandCountOf(partitions)
    const bands = new Array<number>(count).fill(0)
    for (const [partition, bytes] of this.#partitionBytes.entries()) {
      bands[Math.floor((partition * count) / partitions)]! += bytes
    }
    return bands
  }

  #meta(blocksEnd: number, bandBytes: readonly number[]): { readonly meta: Uint8Array; readonly metaBytes: number } {
    const { tableId, bitsPerKey, actors, isComplete, crc32 } = this.#options
    const lines = filterLines(this.#totalRecords, bitsPerKey)
    const probes = filterProbes(bitsPerKey)
    const partitions = this.#directory.length / directoryEntryWords
    const heap = this.#heap.toBytes()
    const filter = metaHeaderWords
    const directory = filter + (lines * filterLineBytes) / 4
    const index = directory + (partitions + 1) * directoryEntryWords
    const actorTable = index + (this.#blocks + 1) * indexEntryWords
    const bands = actorTable + 2 * actors.length
    const heapWord = bands + bandBytes.length
    const bytes = Math.ceil((heapWord * 4 + heap.length) / 64) * 64
    const meta = this.#memory.take(bytes).fill(0)
    const words = new Int32Array(meta.buffer)
    words[MetaWord.magic] = metaMagic
    words[MetaWord.bytes] = bytes
    words[MetaWord.flags] = isComplete ? MetaFlag.complete : 0
    words[MetaWord.tableIdLow] = tableId.low
    words[MetaWord.tableIdHigh] = tableId.high
    words[MetaWord.firstPartition] = this.#firstPartition
    words[MetaWord.partitions] = partitions
    words[MetaWord.blocks] = this.#blocks
    words[MetaWord.filterLines] = lines
    words[MetaWord.filterProbes] = probes
    words[MetaWord.actors] = actors.length
    words[MetaWord.directory] = directory
    words[MetaWord.index] = index
    words[MetaWord.heap] = heapWord
    words[MetaWord.heapBytes] = heap.length
    words[MetaWord.filter] = filter
    words[MetaWord.actorTable] = actorTable
    words[MetaWord.bands] = bands
    words[MetaWord.bandCount] = bandBytes.length
    words[MetaWord.records] = this.#totalRecords
    words[MetaWord.tombstones] = this.#tombstones
    words[MetaWord.expiring] = this.#expiring
    const earliest = this.#expiring === 0 ? 0 : this.#earliestExpiryMs
    words[MetaWord.earliestExpiryLow] = earliest
    words[MetaWord.earliestExpiryHigh] = Math.floor(earliest / 0x1_0000_0000)
    words[MetaWord.blocksEndLow] = blocksEnd
    words[MetaWord.blocksEndHigh] = Math.floor(blocksEnd / 0x1_0000_0000)
    for (let key = 0; key < this.#totalRecords; key++) {
      const at = (2 * key) % hashWords
      if (at === 0) this.#options.pace(0)
      const hashes = this.#hashes[Math.floor((2 * key) / hashWords)]!
      addToFilter(words, filter, lines, probes, hashes[at]!, hashes[at + 1]!)
    }
    words.set(this.#directory, directory)
    words[directory + partitions * directoryEntryWords] = this.#blocks
    words.set(this.#index.subarray(0, this.#blocks * indexEntryWords), index)
    words[index + this.#blocks * indexEntryWords] = blocksEnd / 4
    for (const [position, actor] of actors.entries()) {
      words[actorTable + 2 * position] = actor.low
      words[actorTable + 2 * position + 1] = actor.high
    }
    words.set(bandBytes, bands)
    meta.set(heap, heapWord * 4)
    words[MetaWord.crc] = crc32(meta, 8, bytes)
    return { meta, metaBytes: bytes }
  }

  #foot(metaOffset: number, metaBytes: number): Uint8Array {
    const { tableId, crc32 } = this.#options
    const foot = new Uint8Array(tableFootBytes)
    const words = new Int32Array(foot.buffer)
    words[0] = footMagic
    words[2] = metaOffset
    words[3] = Math.floor(metaOffset / 0x1_0000_0000)
    words[4] = metaBytes
    words[5] = tableFormatVersion
    words[6] = tableId.low
    words[7] = tableId.high
    words[1] = crc32(foot, 8, tableFootBytes)
    return foot
  }
}

/** A byte of the sort key of (bucketId, key): the bucket, big-endian, and the key behind it. */
function sortByte(bucketId: number, u8: Uint8Array, keyStart: number, index: number): number {
  return index < 4 ? (bucketId >>> (24 - 8 * index)) & 0xff : u8[keyStart + index - 4]!
}

/** Four bytes as a big-endian word; zeros from `end` on. */
function bigEndianWord(bytes: Uint8Array, at: number, end: number): number {
  let word = 0
  for (let index = at; index < at + 4; index++) word = (word << 8) | (index < end ? bytes[index]! : 0)
  return word
}
