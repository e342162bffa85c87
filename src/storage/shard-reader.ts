/**
 * Reads of one shard from any thread: memory first, without locks (resident-reader.ts), then tables (table-finder.ts). What memory
 * has of a key is always newer than what tables have, and a key leaves memory only after readers can find it in a table; so what
 * is absent from memory, and then from the tables, was absent at the moment when memory was looked at.
 *
 * Where reading a table may take long the answer is `notResident`, and the owner of the shard is to be asked, who does not wait. So it is where
 * damage is met that may be passed over: the owner knows which.
 *
 * One per thread and shard; replaced when the shard's memory is.
 */
import { copyWords, pad4 } from '../base/bytes.ts'
import { SunwiseError } from '../base/errors.ts'
import type { ActorTable } from '../versions/version-set.ts'
import { RecordFlag, recordBytesAt, simpleValueStart, valuePadding } from './record.ts'
import { ReadResult, type ResidentReader } from './resident-reader.ts'
import { Seek, type TableFinder } from './table-finder.ts'

/** What those who read keys need of a reader. */
export type KeyReader = Pick<
  ResidentReader,
  'isUp' | 'mayHoldUnsynced' | 'actors' | 'neededBytes' | 'readRecord' | 'readValue'
> & {
  /** Whether a partition lost data to damage, and has not got it back from other replicas. */
  isResyncing?(partition: number): boolean
}

export class ShardReader implements KeyReader {
  readonly #resident: ResidentReader
  readonly #finder: TableFinder

  /** Bytes that the last `tooSmall` read needs. */
  neededBytes = 0

  constructor(resident: ResidentReader, finder: TableFinder) {
    this.#resident = resident
    this.#finder = finder
  }

  get isUp(): boolean {
    return this.#resident.isUp
  }

  get mayHoldUnsynced(): boolean {
    return this.#resident.mayHoldUnsynced
  }

  isResyncing(partition: number): boolean {
    return this.#finder.isResyncing(partition)
  }

  get actors(): ActorTable {
    return this.#resident.actors
  }

  /** As ResidentReader's. @throws TABLE_CORRUPT, DISK_FAILED */
  readRecord(
    partition: number,
    hash: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
    i32: Int32Array,
  ): number {
    const result = this.#resident.readRecord(partition, hash, bucketId, key, keyStart, keyBytes, i32)
    this.neededBytes = this.#resident.neededBytes
    if (result !== ReadResult.absent || this.#finder.isEmpty) return result
    const finder = this.#finder
    const found = this.#seek(partition, bucketId, key, keyStart, keyBytes)
    if (found !== Seek.found) return found === Seek.absent ? ReadResult.absent : ReadResult.notResident
    const bytes = recordBytesAt(finder.i32, finder.at)
    if (bytes > i32.length << 2) {
      this.neededBytes = bytes
      return ReadResult.tooSmall
    }
    copyWords(finder.i32, finder.at >>> 2, i32, 0, bytes >>> 2)
    return bytes
  }

  /** As ResidentReader's. @throws TABLE_CORRUPT, DISK_FAILED */
  readValue(
    partition: number,
    hash: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
    u8: Uint8Array,
    i32: Int32Array | undefined,
    at: number,
  ): number {
    const result = this.#resident.readValue(partition, hash, bucketId, key, keyStart, keyBytes, u8, i32, at)
    this.neededBytes = this.#resident.neededBytes
    if (result !== ReadResult.absent || this.#finder.isEmpty) return result
    const found = this.#seek(partition, bucketId, key, keyStart, keyBytes)
    if (found !== Seek.found) return found === Seek.absent ? ReadResult.absent : ReadResult.notResident
    return this.#copyValue(u8, i32, at)
  }

  #seek(partition: number, bucketId: number, key: Uint8Array, keyStart: number, keyBytes: number): number {
    try {
      return this.#finder.seek(partition, bucketId, key, keyStart, keyBytes)
    } catch (error) {
      const isDamage = error instanceof SunwiseError && error.code === 'TABLE_CORRUPT'
      if (isDamage && this.#finder.isGivenUp(partition)) return Seek.waits
      throw error
    }
  }

  #copyValue(u8: Uint8Array, i32: Int32Array | undefined, at: number): number {
    const { u8: source, i32: words, at: record } = this.#finder
    const flags = source[record + 12]!
    const special = RecordFlag.simple | RecordFlag.tombstone | RecordFlag.expiry | RecordFlag.timestamp
    if ((flags & special) !== RecordFlag.simple) return ReadResult.special
    const start = simpleValueStart(source, record)
    const bytes = record + recordBytesAt(words, record) - valuePadding(flags) - start
    if (bytes > u8.length - at) {
      this.neededBytes = bytes
      return ReadResult.tooSmall
    }
    if (i32 !== undefined && (at & 3) === 0 && pad4(bytes) + at <= u8.length) {
      copyWords(words, start >>> 2, i32, at >>> 2, pad4(bytes) >>> 2)
    } else u8.set(source.subarray(start, start + bytes), at)
    return bytes
  }
}
