/**
 * Finding the next keys of a bucket in one partition, in key order. The table in memory is not ordered, so the whole partition is
 * looked at; but only the smallest keys are kept, so that a page costs one pass and never more memory or sorting than the page.
 * Where tables hold something of the partition, they are merged in: what memory has of a key, dead or alive, hides what they have.
 *
 * However many dead records lie between live ones, only so many are looked at for a page, which then ends early.
 *
 * The pass runs within one turn: what it finds is a snapshot. A partition is a thousandth of the keys, unless hash tags put
 * more into it: such a partition makes the turn longer.
 */
import { compareBytes } from '../base/bytes.ts'
import { type Arena, slabWordMask, wordsPerSlabBits } from '../storage/arena.ts'
import type { HashIndex } from '../storage/hash-index.ts'
import { Merge } from '../storage/merge.ts'
import {
  decodeRecord,
  RecordFlag,
  recordBucket,
  recordBytesAt,
  recordHeaderBytes,
  recordKeyBytes,
  simpleExpiry,
} from '../storage/record.ts'
import { compareRecordKey } from '../storage/sstable.ts'
import type { Tables } from '../storage/tables.ts'
import { liveVersions } from '../versions/version-set.ts'

/** Which keys belong to a page. */
export type KeyRange = {
  readonly bucketId: number
  readonly prefix: Uint8Array
  /** Only keys behind this one. */
  readonly after: Uint8Array | undefined
  /** Versions that expire at or before this are not live. */
  readonly nowMs: number
  /** Also records that show nothing: another replica may have what they replaced. */
  readonly withDead: boolean
  /** So many keys at most. */
  readonly limit: number
  /** So many records of tables and memory are looked at, dead ones included, at most. */
  readonly visitsMax: number
}

/** What was found of a range. */
export type KeyPage = {
  /** Live records (or all) with the smallest keys, in key order. */
  readonly records: readonly ListedRecord[]
  /** Records that were looked at. */
  readonly visits: number
  /** The range was not gone through to its end, nor to the limit, but up to this key. */
  readonly stoppedAt: Uint8Array | undefined
}

/** A record that belongs to a page; valid until the end of the turn. */
export type ListedRecord = { readonly u8: Uint8Array; readonly i32: Int32Array; readonly at: number }

export class KeyLister {
  readonly #arena: Arena
  readonly #index: HashIndex
  readonly #tables: Tables | undefined
  #found: number[] = []
  /** Address of the greatest key that can still be chosen; 0: any. */
  #bound = 0

  constructor(arena: Arena, index: HashIndex, tables: Tables | undefined) {
    this.#arena = arena
    this.#index = index
    this.#tables = tables
  }

  /** The live records (or all) with the smallest keys in the range, in key order. `damaged`: as of Tables.sourcesOf. @throws TABLE_CORRUPT, DISK_FAILED */
  smallest(partition: number, range: KeyRange, damaged?: (tableIdLow: number, block: number) => void): KeyPage {
    const sources = this.#tables?.sourcesOf(partition, range.bucketId, firstKeyOf(range), damaged) ?? []
    if (sources.length === 0) {
      const records = this.#inMemory(partition, range, range.limit, range.withDead)
      return { records, visits: this.#index.entriesOf(partition), stoppedAt: undefined }
    }
    // Dead records are wanted, too, for what they hide; so how many make up a page is not known before.
    const resident = this.#inMemory(partition, range, Number.POSITIVE_INFINITY, true)
    return mergePage(resident, new Merge({ ...neverDrops, inputs: sources }), range)
  }

  #inMemory(partition: number, range: KeyRange, limit: number, withDead: boolean): ListedRecord[] {
    this.#found = []
    this.#bound = 0
    const keptMax = 2 * limit
    for (let position = 0; position < this.#index.directorySize(partition); ) {
      position = this.#index.visitChunk(partition, position, (address) => {
        if (!this.#belongs(address, range, withDead)) return
        this.#found.push(address)
        if (this.#found.length >= keptMax) this.#prune(limit)
      })
    }
    this.#prune(limit)
    return this.#found.map((address) => {
      const slab = address >>> wordsPerSlabBits
      return { u8: this.#arena.u8[slab]!, i32: this.#arena.i32[slab]!, at: (address & slabWordMask) << 2 }
    })
  }

  /** Order of the keys of two records. */
  #compare(a: number, b: number): number {
    const aU8 = this.#arena.u8[a >>> wordsPerSlabBits]!
    const bU8 = this.#arena.u8[b >>> wordsPerSlabBits]!
    const aAt = (a & slabWordMask) << 2
    const bAt = (b & slabWordMask) << 2
    const aStart = aAt + recordHeaderBytes
    const bStart = bAt + recordHeaderBytes
    return compareBytes(aU8, aStart, aStart + recordKeyBytes(aU8, aAt), bU8, bStart, bStart + recordKeyBytes(bU8, bAt))
  }

  #prune(limit: number): void {
    this.#found.sort((a, b) => this.#compare(a, b))
    if (this.#found.length < limit) return
    this.#found.length = limit
    this.#bound = this.#found[limit - 1]!
  }

  #belongs(address: number, range: KeyRange, withDead: boolean): boolean {
    const slab = address >>> wordsPerSlabBits
    const at = (address & slabWordMask) << 2
    const u8 = this.#arena.u8[slab]!
    const i32 = this.#arena.i32[slab]!
    if (!isWithin(u8, i32, at, range)) return false
    if (this.#bound !== 0 && this.#compare(address, this.#bound) > 0) return false
    return withDead || isLiveRecord(u8, i32, at, range.nowMs)
  }
}

const neverDrops = {
  nowMs: 0,
  graceMs: 0,
  dropsTombstones: false,
  isRetiredBucket: () => false,
} as const

/** No key of the range comes before this one. */
export function firstKeyOf({ prefix, after }: Pick<KeyRange, 'prefix' | 'after'>): Uint8Array {
  if (after === undefined || compareBytes(after, 0, after.length, prefix, 0, prefix.length) < 0) return prefix
  return after
}

/** Whether bucket and key of a record are of the range. */
function isWithin(u8: Uint8Array, i32: Int32Array, at: number, { bucketId, prefix, after }: KeyRange): boolean {
  if (recordBucket(i32, at) !== bucketId) return false
  const keyStart = at + recordHeaderBytes
  const keyEnd = keyStart + recordKeyBytes(u8, at)
  if (keyEnd - keyStart < prefix.length) return false
  if (compareBytes(u8, keyStart, keyStart + prefix.length, prefix, 0, prefix.length) !== 0) return false
  return after === undefined || compareBytes(u8, keyStart, keyEnd, after, 0, after.length) > 0
}

function isLiveRecord(u8: Uint8Array, i32: Int32Array, at: number, nowMs: number): boolean {
  const flags = u8[at + 12]!
  if (flags & RecordFlag.tombstone) return false
  if ((flags & RecordFlag.expiry) === 0) return true
  if (flags & RecordFlag.simple) return simpleExpiry(u8, i32, at) > nowMs
  return liveVersions(decodeRecord(u8, i32, at), nowMs).length > 0
}

/** The first live records of both; of a key in both, memory's counts. */
function mergePage(resident: readonly ListedRecord[], tables: Merge, range: KeyRange): KeyPage {
  const records: ListedRecord[] = []
  let next = 0
  let visits = 0
  let hasTable = nextWithin(tables, range)
  while (records.length < range.limit) {
    const own = resident[next]
    if (own === undefined && !hasTable) break
    let order = own === undefined ? 1 : -1
    if (own !== undefined && hasTable) {
      const keyStart = tables.at + recordHeaderBytes
      const keyBytes = recordKeyBytes(tables.u8, tables.at)
      order = compareRecordKey(own.u8, own.i32, own.at, range.bucketId, tables.u8, keyStart, keyBytes)
    }
    const first = order <= 0 ? own! : tables
    const belongs = range.withDead || isLiveRecord(first.u8, first.i32, first.at, range.nowMs)
    if (belongs) records.push(order <= 0 ? own! : copyOf(tables))
    const stoppedAt = ++visits >= range.visitsMax ? keyOf(first) : undefined
    if (order <= 0) next++
    if (order >= 0) hasTable = nextWithin(tables, range)
    if (stoppedAt !== undefined && records.length < range.limit) return { records, visits, stoppedAt }
  }
  return { records, visits, stoppedAt: undefined }
}

function keyOf({ u8, at }: { readonly u8: Uint8Array; readonly at: number }): Uint8Array {
  return u8.slice(at + recordHeaderBytes, at + recordHeaderBytes + recordKeyBytes(u8, at))
}

/** Moves to the next record of the range; false where there is none. */
function nextWithin(tables: Merge, range: KeyRange): boolean {
  while (tables.next()) {
    const { u8, i32, at } = tables
    if (isWithin(u8, i32, at, range)) return true
    // The key `after` itself stands before the range; whatever else is not of it comes behind.
    const { after } = range
    const isFirst = after !== undefined && compareRecordKey(u8, i32, at, range.bucketId, after, 0, after.length) <= 0
    if (!isFirst) return false
  }
  return false
}

function copyOf({ u8, at, i32 }: Merge): ListedRecord {
  const bytes = u8.slice(at, at + recordBytesAt(i32, at))
  return { u8: bytes, i32: new Int32Array(bytes.buffer), at: 0 }
}
