/**
 * Goes through the records of an SSTable in order, over a range of its partitions, without reading the rest. Blocks come in
 * portions, and each is checked whole before a record of it is shown. For threads that may wait for the disk.
 */
import { assert } from '../base/assert.ts'
import type { Crc32 } from '../base/crc32.ts'
import { SunwiseError } from '../base/errors.ts'
import { freshMemory, type WorkMemory } from '../base/work-memory.ts'
import type { DiskFile } from '../env.ts'
import {
  type BlockCodec,
  blockHeaderBytes,
  blockPartition,
  blockRawBytes,
  blockRecords,
  isBlock,
  isBlockInOrder,
  MetaWord,
  recordInBlock,
  seekInBlock,
} from './sstable.ts'
import { blockOffset, findBlock, firstBlockOf, partitionOfBlock, tableCorrupt } from './sstable-meta.ts'

export type TableIteratorOptions = {
  readonly file: DiskFile
  /** The table's meta, with its filter or without. */
  readonly meta: Int32Array
  readonly crc32: Crc32
  readonly codec?: BlockCodec | undefined
  readonly firstPartition: number
  readonly endPartition: number
  /** Bytes read at a time; a block that is larger is read whole. */
  readonly portionBytes: number
  /** Told of the bytes of each block before it is looked at, to slow the reader down. */
  readonly pace: (bytes: number) => void
  /** Told of blocks that are damaged, which are passed over then; without it they are TABLE_CORRUPT. */
  readonly damaged?: (block: number) => void
  /** Blocks that are passed over, whatever is in them. */
  readonly givenUp?: ReadonlySet<number>
  /** Default: memory of its own. */
  readonly memory?: WorkMemory
}

export class TableIterator {
  readonly #options: TableIteratorOptions
  readonly #memory: WorkMemory
  readonly #metaU8: Uint8Array
  readonly #endBlock: number
  /** Block that `next` opens when the present one has ended. */
  #nextBlock: number

  // The portion of the file in memory: whole blocks [#portionBlock, #portionEnd).
  #portionU8: Uint8Array
  #portionI32: Int32Array
  #portionBlock = 0
  #portionEnd = 0

  // The present block.
  #payload = 0
  #payloadEnd = 0
  #records = 0
  #record = 0

  /** Where the present record lies; valid until the next call of `next` or `seek`. */
  u8: Uint8Array
  i32: Int32Array
  at = -1
  partition = -1

  constructor(options: TableIteratorOptions) {
    this.#options = options
    const { meta, firstPartition, endPartition, portionBytes } = options
    assert(firstPartition < endPartition, 'An iterator goes over at least one partition')
    this.#metaU8 = new Uint8Array(meta.buffer, meta.byteOffset, meta.byteLength)
    this.#nextBlock = firstBlockOf(meta, 0, firstPartition)
    this.#endBlock = firstBlockOf(meta, 0, endPartition)
    this.#memory = options.memory ?? freshMemory
    this.#portionU8 = this.#memory.take(portionBytes)
    this.#portionI32 = new Int32Array(this.#portionU8.buffer)
    this.u8 = this.#portionU8
    this.i32 = this.#portionI32
  }

  /** Moves to the next record, at first to the first. False at the end. @throws TABLE_CORRUPT, DISK_FAILED */
  next(): boolean {
    if (this.#record + 1 < this.#records) {
      this.#record++
      this.at = recordInBlock(this.u8, this.#payload, this.#payloadEnd, this.#records, this.#record)
      return true
    }
    return this.#open(this.#nextBlock)
  }

  /** Moves to the first record of `partition`, or of a later one, whose key is not before (bucketId, key). False where none is. */
  seek(partition: number, bucketId: number, key: Uint8Array): boolean {
    const { meta, firstPartition } = this.#options
    const from = Math.max(partition, firstPartition)
    const block = from === partition ? findBlock(this.#metaU8, meta, 0, partition, bucketId, key, 0, key.length) : -1
    this.#records = 0
    if (block < 0) return this.#open(firstBlockOf(meta, 0, from))
    if (!this.#open(block) || this.partition !== partition) return this.at >= 0
    const { u8, i32 } = this
    const record = seekInBlock(u8, i32, this.#payload, this.#payloadEnd, this.#records, bucketId, key, 0, key.length)
    if (record === this.#records) return this.#open(block + 1)
    this.#record = record
    this.at = recordInBlock(u8, this.#payload, this.#payloadEnd, this.#records, record)
    return true
  }

  /** Gives its memory back. Use it no more. */
  close(): void {
    this.#memory.give(this.#portionU8)
  }

  /** Partition of the block behind the present one: where `next` has thrown, that of the block that it could not show. */
  get nextPartition(): number {
    return partitionOfBlock(this.#options.meta, 0, Math.min(this.#nextBlock, this.#endBlock - 1))
  }

  #open(block: number): boolean {
    const { damaged, givenUp } = this.#options
    if (damaged === undefined && givenUp === undefined) return this.#openChecked(block)
    for (let next = block; ; next++) {
      if (givenUp?.has(next) === true) continue
      if (damaged === undefined) return this.#openChecked(next)
      try {
        return this.#openChecked(next)
      } catch (error) {
        if (!(error instanceof SunwiseError) || error.code !== 'TABLE_CORRUPT') throw error
        damaged(next)
      }
    }
  }

  #openChecked(block: number): boolean {
    this.at = -1
    this.#records = 0
    if (block >= this.#endBlock) return false
    if (block < this.#portionBlock || block >= this.#portionEnd) this.#readPortion(block)
    const { meta, crc32, file, pace } = this.#options
    const start = blockOffset(meta, 0, block) - blockOffset(meta, 0, this.#portionBlock)
    const bytes = blockOffset(meta, 0, block + 1) - blockOffset(meta, 0, block)
    pace(bytes)
    const u8 = this.#portionU8
    const i32 = this.#portionI32
    if (!isBlock(u8, i32, start, bytes, meta[MetaWord.tableIdLow]!, block, crc32)) throw this.#damaged(block)
    this.partition = blockPartition(i32, start)
    this.#records = blockRecords(i32, start)
    const rawBytes = blockRawBytes(i32, start)
    if (rawBytes === 0) {
      this.u8 = u8
      this.i32 = i32
      this.#payload = start + blockHeaderBytes
      this.#payloadEnd = start + bytes
    } else {
      const raw = decompressBlock(u8, start, bytes, rawBytes, this.#options.codec, file.path)
      this.u8 = raw
      this.i32 = new Int32Array(raw.buffer)
      this.#payload = 0
      this.#payloadEnd = rawBytes
    }
    if (
      this.partition !== partitionOfBlock(meta, 0, block) ||
      this.#records === 0 ||
      !isBlockInOrder(this.u8, this.i32, this.#payload, this.#payloadEnd, this.#records)
    ) {
      throw this.#damaged(block)
    }
    this.#record = 0
    this.#nextBlock = block + 1
    this.at = this.#payload
    return true
  }

  #readPortion(block: number): void {
    const { meta, portionBytes, file } = this.#options
    const from = blockOffset(meta, 0, block)
    let end = block + 1
    while (end < this.#endBlock && blockOffset(meta, 0, end + 1) - from <= portionBytes) end++
    const bytes = blockOffset(meta, 0, end) - from
    if (bytes > this.#portionU8.length) {
      this.#memory.give(this.#portionU8)
      this.#portionU8 = this.#memory.take(bytes)
      this.#portionI32 = new Int32Array(this.#portionU8.buffer)
    }
    this.#portionBlock = block
    this.#portionEnd = end
    const read = file.readNow(this.#portionU8, 0, bytes, from)
    if (read !== bytes) throw this.#damaged(block)
  }

  #damaged(block: number): SunwiseError {
    const { meta, file } = this.#options
    return tableCorrupt(file.path, `block ${block} at byte ${blockOffset(meta, 0, block)} is damaged`)
  }
}

/** The payload of a checked block with zstd undone, in memory of its own. @throws TABLE_CORRUPT */
export function decompressBlock(
  u8: Uint8Array,
  start: number,
  bytes: number,
  rawBytes: number,
  codec: BlockCodec | undefined,
  path: string,
): Uint8Array {
  if (codec === undefined) throw tableCorrupt(path, 'it is compressed, and there is no zstd in this engine')
  let raw: Uint8Array
  try {
    raw = codec.decompress(u8.subarray(start + blockHeaderBytes, start + bytes), rawBytes)
  } catch (error) {
    throw new SunwiseError('TABLE_CORRUPT', `Cannot read table "${path}": a compressed block is damaged`, {
      cause: error,
      extra: { path },
    })
  }
  if (raw.length !== rawBytes) throw tableCorrupt(path, 'a compressed block has another length than it says')
  // Words are read from it: its memory begins at a multiple of 4.
  return raw.byteOffset === 0 && raw.buffer.byteLength % 4 === 0 ? raw : raw.slice()
}
