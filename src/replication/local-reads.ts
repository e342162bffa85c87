/**
 * Synchronous reads on the calling thread, for R=1 where this node holds the key: no promise, no frame, no other thread. The
 * fast path copies the value of a plain record straight to where it is wanted; anything else (siblings, expiry, tombstones)
 * goes through the version set.
 */
import { SunwiseError } from '../base/errors.ts'
import { type HashSeed, KeyHash } from '../base/key-hash.ts'
import { partitionOfSlot, shardOfPartition, slotOfKey } from '../cluster/slots.ts'
import { decodeRecord } from '../storage/record.ts'
import { ReadResult } from '../storage/resident-reader.ts'
import type { KeyReader } from '../storage/shard-reader.ts'
import { liveVersions, winnerFirst } from '../versions/version-set.ts'

export type LocalReadsOptions = {
  readonly shards: number
  readonly readerOf: (shard: number) => KeyReader
  readonly hashSeed: HashSeed
  readonly epochMs: () => number
}

/** Values up to this size share a slab, so that a fresh value costs a view and not an allocation. */
const slabValueBytesMax = 4096
const slabBytes = 64 * 1024
/** A reader gives up after eight tries; so often it may start anew before the caller is told. */
const contendedRoundsMax = 1000

export class LocalReads {
  readonly #options: LocalReadsOptions
  readonly #hash: KeyHash
  #slab = new Uint8Array(slabBytes)
  #slabWords = new Int32Array(this.#slab.buffer)
  #slabNext = 0
  #record = new Int32Array(16 * 1024)
  #recordBytes = new Uint8Array(this.#record.buffer)
  /** The caller's buffer of the last `getInto`, most often that of the next one, too, and its words. */
  #into: Uint8Array | undefined
  #intoWords: Int32Array | undefined
  #partition = 0
  #reader: KeyReader | undefined

  constructor(options: LocalReadsOptions) {
    this.#options = options
    this.#hash = new KeyHash(options.hashSeed)
  }

  /**
   * The value of a key (the winner where there are siblings) as fresh bytes, or undefined where there is surely none.
   *
   * @throws SHARD_UNAVAILABLE while its shard recovers, OVERLOADED where a writer changes it all the time, NOT_RESIDENT where the
   * calling thread would have to wait for a slow disk.
   */
  get(bucketId: number, key: Uint8Array, keyStart: number, keyEnd: number): Uint8Array | undefined {
    this.#locate(bucketId, key, keyStart, keyEnd)
    const keyBytes = keyEnd - keyStart
    for (let round = 0; round < contendedRoundsMax; round++) {
      const at = this.#slabNext
      const result = this.#reader!.readValue(
        this.#partition,
        this.#hash.low,
        bucketId,
        key,
        keyStart,
        keyBytes,
        this.#slab,
        this.#slabWords,
        at,
      )
      if (result >= 0) {
        this.#slabNext = (at + result + 7) & ~7
        return new Uint8Array(this.#slab.buffer, at, result)
      }
      if (result === ReadResult.absent) return undefined
      if (result === ReadResult.special) return this.#getSpecial(bucketId, key, keyStart, keyBytes)
      if (result === ReadResult.tooSmall) {
        const needed = this.#reader!.neededBytes
        if (needed > slabValueBytesMax) {
          const value = this.#getLarge(bucketId, key, keyStart, keyBytes, needed)
          if (value !== undefined) return value
        } else {
          this.#slab = new Uint8Array(slabBytes)
          this.#slabWords = new Int32Array(this.#slab.buffer)
          this.#slabNext = 0
        }
      } else if (result === ReadResult.unavailable) {
        throw new SunwiseError('SHARD_UNAVAILABLE', 'The shard that owns the key is recovering; try again')
      } else if (result === ReadResult.notResident) throw notResident()
    }
    throw new SunwiseError('OVERLOADED', 'The key changes faster than it can be read here; try again')
  }

  /**
   * Copies the value of a key into `into` and returns its length; -1 where there is surely none, `-2 - length` where `into`
   * is too small for `length` bytes.
   *
   * @throws SHARD_UNAVAILABLE, OVERLOADED, NOT_RESIDENT as `get`.
   */
  getInto(bucketId: number, key: Uint8Array, keyStart: number, keyEnd: number, into: Uint8Array): number {
    this.#locate(bucketId, key, keyStart, keyEnd)
    if (into !== this.#into) {
      this.#into = into
      const isAligned = (into.byteOffset & 3) === 0
      this.#intoWords = isAligned ? new Int32Array(into.buffer, into.byteOffset, into.length >>> 2) : undefined
    }
    const result = this.#reader!.readValue(
      this.#partition,
      this.#hash.low,
      bucketId,
      key,
      keyStart,
      keyEnd - keyStart,
      into,
      this.#intoWords,
      0,
    )
    if (result >= 0 || result === ReadResult.absent) return result
    if (result === ReadResult.tooSmall) return -2 - this.#reader!.neededBytes
    const value = this.get(bucketId, key, keyStart, keyEnd)
    if (value === undefined) return -1
    if (value.length > into.length) return -2 - value.length
    into.set(value)
    return value.length
  }

  #locate(bucketId: number, key: Uint8Array, keyStart: number, keyEnd: number): void {
    this.#partition = partitionOfSlot(slotOfKey(key, keyStart, keyEnd))
    this.#reader = this.#options.readerOf(shardOfPartition(this.#partition, this.#options.shards))
    this.#hash.update(bucketId, key, keyStart, keyEnd)
  }

  #getLarge(
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
    neededBytes: number,
  ): Uint8Array | undefined {
    const words = new Int32Array((neededBytes + 3) >>> 2)
    const bytes = new Uint8Array(words.buffer)
    const reader = this.#reader!
    const result = reader.readValue(this.#partition, this.#hash.low, bucketId, key, keyStart, keyBytes, bytes, words, 0)
    return result >= 0 ? bytes.subarray(0, result) : undefined
  }

  #getSpecial(bucketId: number, key: Uint8Array, keyStart: number, keyBytes: number): Uint8Array | undefined {
    const reader = this.#reader!
    for (let round = 0; round < contendedRoundsMax; round++) {
      const result = reader.readRecord(this.#partition, this.#hash.low, bucketId, key, keyStart, keyBytes, this.#record)
      if (result > 0) {
        const set = decodeRecord(this.#recordBytes, this.#record, 0)
        const live = liveVersions(set, this.#options.epochMs())
        return live.length > 1 ? winnerFirst(live, reader.actors)[0]!.value : live[0]?.value
      }
      if (result === ReadResult.absent) return undefined
      if (result === ReadResult.tooSmall) {
        this.#record = new Int32Array(Math.ceil((reader.neededBytes * 1.25) / 4))
        this.#recordBytes = new Uint8Array(this.#record.buffer)
      } else if (result === ReadResult.unavailable) {
        throw new SunwiseError('SHARD_UNAVAILABLE', 'The shard that owns the key is recovering; try again')
      } else if (result === ReadResult.notResident) throw notResident()
    }
    throw new SunwiseError('OVERLOADED', 'The key changes faster than it can be read here; try again')
  }
}

function notResident(): SunwiseError {
  return new SunwiseError(
    'NOT_RESIDENT',
    'Cannot read the key without waiting for a slow disk: it is not in memory; use the asynchronous read',
  )
}
