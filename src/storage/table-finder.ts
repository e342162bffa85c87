/**
 * Finds a key in the tables of a shard, on any thread: pins the view, goes through the runs of the key's partition, newest first,
 * asks each filter, and looks for the record in the cache of records, for the one block that can hold it in the cache of blocks,
 * and then in the file. `find` waits for that read; `seek` only where reads are fast (read-pace.ts), and says else which block it
 * would need. Every block is checked when it comes from the file; damage is TABLE_CORRUPT and never a value, nor an absence.
 *
 * See table-view.ts for why nothing disappears meanwhile. One per thread and shard; not shared.
 */
import { assert } from '../base/assert.ts'
import { copyWords } from '../base/bytes.ts'
import type { Crc32 } from '../base/crc32.ts'
import { SunwiseError } from '../base/errors.ts'
import { KeyHash } from '../base/key-hash.ts'
import type { Disk } from '../env.ts'
import { sync, type VersionSet } from '../versions/version-set.ts'
import { filterSeed } from './bloom-filter.ts'
import { FrameCache } from './frame-cache.ts'
import type { ReadPacing } from './read-pace.ts'
import {
  decodeRecord,
  encodeRecord,
  recordBytesAt,
  recordBytesOf,
  recordHeaderBytes,
  recordSlot,
  translateActors,
} from './record.ts'
import {
  type BlockCodec,
  blockHeaderBytes,
  blockRawBytes,
  blockRecords,
  compareRecordKey,
  findInBlock,
  isBlock,
} from './sstable.ts'
import { decompressBlock } from './sstable-iterator.ts'
import { blockOffset, findBlock, metaActors, metaIsComplete, metaMayContain } from './sstable-meta.ts'
import { noHandle, pinWords, runsMax, SlotWord, slotWords, type TableMemory, ViewWord } from './table-view.ts'

export type TableFinderOptions = {
  readonly disk: Pick<Disk, 'readHandleNow'>
  readonly memory: TableMemory
  readonly crc32: Crc32
  readonly codec: BlockCodec | undefined
  /** Number of this thread among the readers of the shard: its place for a pin. */
  readonly reader: number
  /** When `seek` may wait for the file; without it always. */
  readonly pace?: ReadPacing | undefined
}

/** What `seek` finds: nothing, a record, or that a block must be read first, see `wanted`. */
export const Seek = { absent: 0, found: 1, waits: 2 } as const

/** A block that a search needs: of the table in `slot`, which is open at least as long as nothing else is asked of the finder. */
export type WantedBlock = {
  slot: number
  opening: number
  block: number
  offset: number
  bytes: number
}

/** A block that was read for a search. Checked already. */
export type GivenBlock = { readonly opening: number; readonly block: number; readonly u8: Uint8Array }

const noBlocks: readonly GivenBlock[] = []

/** Buffer kept between reads; a larger block gets one of its own for a while. */
const keptBytes = 64 * 1024

export class TableFinder {
  readonly #options: TableFinderOptions
  readonly #control: Int32Array
  readonly #runs: Int32Array
  readonly #slots: Int32Array
  readonly #pins: Int32Array
  readonly #pin: number
  readonly #metaU8: readonly Uint8Array[]
  readonly #metaI32: readonly Int32Array[]
  readonly #hash = new KeyHash(filterSeed)
  readonly #found = new Int32Array(runsMax)
  readonly #blocks: FrameCache
  readonly #records: FrameCache
  // None until it is needed: jobs that only ask filters make one finder each.
  #buffer = new Uint8Array(0)
  #words = new Int32Array(this.#buffer.buffer)

  /** Where the record that `find` found lies, until its next call. */
  u8: Uint8Array = this.#buffer
  i32: Int32Array = this.#words
  at = 0

  /** What the last `seek` that waits needs. */
  readonly wanted: WantedBlock = { slot: 0, opening: 0, block: 0, offset: 0, bytes: 0 }
  #mustWait = true
  #given: readonly GivenBlock[] = noBlocks

  /** Counts for statistics and tests. */
  filterProbes = 0
  blockReads = 0
  blockHits = 0
  recordHits = 0
  /** Told of blocks that are damaged, which count as if they held nothing then; without it they are TABLE_CORRUPT. -1: the whole table. */
  damaged: ((tableIdLow: number, block: number) => void) | undefined

  constructor(options: TableFinderOptions) {
    this.#options = options
    const { control, runs, slots, pins, metas } = options.memory
    this.#control = new Int32Array(control)
    this.#runs = new Int32Array(runs)
    this.#slots = new Int32Array(slots)
    this.#pins = new Int32Array(pins)
    this.#pin = options.reader * pinWords
    assert(this.#pin < this.#pins.length, 'Each reader has a place for a pin')
    this.#metaU8 = metas.map((slab) => new Uint8Array(slab))
    this.#metaI32 = metas.map((slab) => new Int32Array(slab))
    this.#blocks = new FrameCache(options.memory.blocks)
    this.#records = new FrameCache(options.memory.records)
  }

  /** No table of the shard holds anything. */
  get isEmpty(): boolean {
    return Atomics.load(this.#control, ViewWord.tables) === 0
  }

  /** Whether a partition lost data to damage, and has not got it back from other replicas. */
  isResyncing(partition: number): boolean {
    return (Atomics.load(this.#control, ViewWord.resyncing + (partition >>> 5)) & (1 << (partition & 31))) !== 0
  }

  /** Whether what is damaged of a partition is wanted no more: its owner passes over it, as far as it is known. */
  isGivenUp(partition: number): boolean {
    return (Atomics.load(this.#control, ViewWord.givenUp + (partition >>> 5)) & (1 << (partition & 31))) !== 0
  }

  /** Said by the owner of the shard, to readers on all threads. */
  setResyncing(partition: number, isResyncing: boolean): void {
    this.#setBit(ViewWord.resyncing, partition, isResyncing)
  }

  setGivenUp(partition: number, isGivenUp: boolean): void {
    this.#setBit(ViewWord.givenUp, partition, isGivenUp)
  }

  #setBit(first: number, partition: number, isSet: boolean): void {
    const word = first + (partition >>> 5)
    if (isSet) Atomics.or(this.#control, word, 1 << (partition & 31))
    else Atomics.and(this.#control, word, ~(1 << (partition & 31)))
  }

  /**
   * Finds the newest record of a key, for `u8`, `i32` and `at`. False: no table has one. @throws TABLE_CORRUPT, DISK_FAILED
   */
  find(partition: number, bucketId: number, key: Uint8Array, keyStart: number, keyBytes: number): boolean {
    this.#mustWait = true
    this.#given = noBlocks
    return this.#look(partition, bucketId, key, keyStart, keyBytes, false) === Seek.found
  }

  /**
   * As `find` where no read is slow; else Seek.waits, to be called again with the block that `wanted` names, and all that were
   * read for this search before. @throws TABLE_CORRUPT, DISK_FAILED
   */
  seek(
    partition: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
    given: readonly GivenBlock[] = noBlocks,
  ): number {
    this.#mustWait = false
    this.#given = given
    return this.#look(partition, bucketId, key, keyStart, keyBytes, false)
  }

  /** False: no table can have a record of the key, as filters go; nothing is read. */
  mayHold(partition: number, bucketId: number, key: Uint8Array, keyStart: number, keyBytes: number): boolean {
    return this.#look(partition, bucketId, key, keyStart, keyBytes, true) === Seek.found
  }

  /** Keeps a block that was read elsewhere, and is whole, for searches to come. */
  keep({ opening, block, u8 }: GivenBlock): void {
    const words = new Int32Array(u8.buffer, u8.byteOffset, u8.length >>> 2)
    if (blockRawBytes(words, 0) > 0) return
    this.#blocks.insert(opening, block, words, 0, words, 0, words.length)
  }

  #look(
    partition: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
    isProbe: boolean,
  ): number {
    const runs = this.#pinRuns(partition)
    try {
      if (runs === 0) return Seek.absent
      return this.#search(runs, partition, bucketId, key, keyStart, keyBytes, isProbe)
    } finally {
      Atomics.store(this.#pins, this.#pin, 0)
    }
  }

  /** Pins the present view and copies the runs of a partition to `#found`. Returns how many there are. */
  #pinRuns(partition: number): number {
    for (;;) {
      const version = Atomics.load(this.#control, ViewWord.version)
      Atomics.store(this.#pins, this.#pin, version)
      let runs = 0
      for (let at = partition * runsMax; runs < runsMax; at++, runs++) {
        const run = Atomics.load(this.#runs, at)
        if (run === 0) break
        this.#found[runs] = run - 1
      }
      // Unchanged, and not under way: the pin was there before anything named here could leave.
      if ((version & 1) === 0 && Atomics.load(this.#control, ViewWord.version) === version) return runs
    }
  }

  #search(
    runs: number,
    partition: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
    isProbe: boolean,
  ): number {
    this.#hash.update(bucketId, key, keyStart, keyStart + keyBytes)
    let set: VersionSet | undefined
    for (let run = 0; run < runs; run++) {
      const slot = this.#found[run]! * slotWords
      if (this.#slots[slot + SlotWord.handle] === noHandle) {
        if (isProbe) return Seek.found
        const idLow = this.#slots[slot + SlotWord.tableIdLow]!
        if (this.damaged === undefined) throw this.#damaged(slot, damagedTable(idLow))
        this.damaged(idLow, -1)
        continue
      }
      const slab = this.#slots[slot + SlotWord.slab]!
      const base = this.#slots[slot + SlotWord.meta]!
      const i32 = this.#metaI32[slab]!
      const u8 = this.#metaU8[slab]!
      this.filterProbes++
      if (!metaMayContain(i32, base, this.#hash.low, this.#hash.high)) continue
      if (!isProbe && this.#findAlone(slot, bucketId, key, keyStart, keyBytes)) this.recordHits++
      else {
        const block = findBlock(u8, i32, base, partition, bucketId, key, keyStart, keyBytes)
        if (block < 0) continue
        if (isProbe) return Seek.found
        const found =
          this.damaged === undefined
            ? this.#findInTable(slot, i32, base, block, bucketId, key, keyStart, keyBytes)
            : this.#findDespiteDamage(this.damaged, slot, i32, base, block, bucketId, key, keyStart, keyBytes)
        if (found === Seek.waits) return found
        if (found === Seek.absent) continue
      }
      if (set === undefined && metaIsComplete(i32, base)) return Seek.found
      // Tables that peers shipped hold no more than they were sent: what lies below is merged in.
      const own = decodeRecord(this.u8, this.i32, this.at)
      set = set === undefined ? own : sync(set, own)
      if (metaIsComplete(i32, base)) break
    }
    if (set === undefined) return Seek.absent
    this.#showMerged(set, bucketId, key, keyStart, keyBytes)
    return Seek.found
  }

  /** Finds the record of a key in the cache of records. */
  #findAlone(slot: number, bucketId: number, key: Uint8Array, keyStart: number, keyBytes: number): boolean {
    const records = this.#records
    if (!records.find(this.#slots[slot + SlotWord.opening]!, this.#hash.low)) return false
    const { i32, start } = records
    const bytes = recordBytesAt(i32, start)
    if (bytes > records.frameBytes || bytes < recordHeaderBytes) return false
    if (compareRecordKey(records.u8, i32, start, bucketId, key, keyStart, keyBytes) !== 0) return false
    return this.#copyOut(records, start, bytes)
  }

  /** Copies a record out of a cache, to the place that `find` shows. False where it was displaced meanwhile. */
  #copyOut(cache: FrameCache, from: number, bytes: number): boolean {
    this.#room(bytes)
    copyWords(cache.i32, from >>> 2, this.#words, 0, bytes >>> 2)
    if (!cache.isStill()) return false
    this.u8 = this.#buffer
    this.i32 = this.#words
    this.at = 0
    return true
  }

  /** Finds the record of a key in the one block that can hold it. */
  #findInTable(
    slot: number,
    meta: Int32Array,
    base: number,
    block: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
  ): number {
    const opening = this.#slots[slot + SlotWord.opening]!
    let found = this.#findInCache(opening, block, bucketId, key, keyStart, keyBytes)
    if (found === undefined) {
      const given = this.#givenBlock(opening, block)
      if (given !== undefined) this.#take(given)
      else if (!this.#read(slot, meta, base, block)) return Seek.waits
      found = this.#findInBuffer(slot, block, bucketId, key, keyStart, keyBytes)
    }
    if (!found) return Seek.absent
    this.#translate(slot, meta)
    const bytes = recordBytesAt(this.i32, this.at)
    if (bytes <= this.#records.frameBytes) {
      this.#records.insert(opening, this.#hash.low, this.i32, 0, this.i32, this.at >>> 2, bytes >>> 2)
    }
    return Seek.found
  }

  #findDespiteDamage(
    damaged: (tableIdLow: number, block: number) => void,
    slot: number,
    meta: Int32Array,
    base: number,
    block: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
  ): number {
    try {
      return this.#findInTable(slot, meta, base, block, bucketId, key, keyStart, keyBytes)
    } catch (error) {
      if (!(error instanceof SunwiseError) || error.code !== 'TABLE_CORRUPT') throw error
      damaged(this.#slots[slot + SlotWord.tableIdLow]!, block)
      return Seek.absent
    }
  }

  /** As `#findInTable` in the cache of blocks; undefined: the block is not there. */
  #findInCache(
    opening: number,
    block: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
  ): boolean | undefined {
    const blocks = this.#blocks
    if (!blocks.find(opening, block)) return undefined
    const { u8, i32, start } = blocks
    const payload = start + blockHeaderBytes
    const end = start + i32[(start >>> 2) + 1]!
    const at = findInBlock(u8, i32, payload, end, blockRecords(i32, start), bucketId, key, keyStart, keyBytes)
    if (at < 0) {
      if (!blocks.isStill()) return undefined
      this.blockHits++
      return false
    }
    const bytes = recordBytesAt(i32, at)
    if (bytes > blocks.frameBytes || !this.#copyOut(blocks, at, bytes)) return undefined
    this.blockHits++
    return true
  }

  #givenBlock(opening: number, block: number): GivenBlock | undefined {
    for (const given of this.#given) if (given.opening === opening && given.block === block) return given
    return undefined
  }

  #take({ u8 }: GivenBlock): void {
    this.#room(u8.length)
    this.#buffer.set(u8)
  }

  /** Reads a block into the buffer and checks it. False: nothing was read, since it may take long; see `wanted`. */
  #read(slot: number, meta: Int32Array, base: number, block: number): boolean {
    const { disk, crc32, pace } = this.#options
    const offset = blockOffset(meta, base, block)
    const bytes = blockOffset(meta, base, block + 1) - offset
    if (!this.#mustWait && this.damaged === undefined && pace !== undefined && !pace.mayWait()) {
      const { wanted } = this
      wanted.slot = slot / slotWords
      wanted.opening = this.#slots[slot + SlotWord.opening]!
      wanted.block = block
      wanted.offset = offset
      wanted.bytes = bytes
      return false
    }
    this.#room(bytes)
    this.blockReads++
    const startMs = pace === undefined ? 0 : pace.begin()
    const read = disk.readHandleNow(this.#slots[slot + SlotWord.handle]!, this.#buffer, 0, bytes, offset)
    if (pace?.end(startMs, bytes) === true) Atomics.add(this.#control, ViewWord.slowReads, 1)
    const idLow = this.#slots[slot + SlotWord.tableIdLow]!
    if (read !== bytes || !isBlock(this.#buffer, this.#words, 0, bytes, idLow, block, crc32)) {
      throw this.#damaged(slot, damagedBlock(idLow, block, offset))
    }
    return true
  }

  /** Tells the owner of the shard that damage was met. */
  #damaged(slot: number, error: SunwiseError): SunwiseError {
    Atomics.store(this.#control, ViewWord.damagedTable, this.#slots[slot + SlotWord.tableIdLow]!)
    Atomics.add(this.#control, ViewWord.damagedReads, 1)
    return error
  }

  /** As `#findInTable` in the block in the buffer; keeps the block in the cache. */
  #findInBuffer(
    slot: number,
    block: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
  ): boolean {
    const words = this.#words
    const rawBytes = blockRawBytes(words, 0)
    const bytes = words[1]!
    let start = blockHeaderBytes
    let end = bytes
    this.u8 = this.#buffer
    this.i32 = words
    if (rawBytes > 0) {
      const path = `table of handle ${this.#slots[slot + SlotWord.handle]}`
      this.u8 = decompressBlock(this.#buffer, 0, bytes, rawBytes, this.#options.codec, path)
      this.i32 = new Int32Array(this.u8.buffer)
      start = 0
      end = rawBytes
      // In the cache it stands as if it had never been compressed.
      words[1] = blockHeaderBytes + rawBytes
      words[2] = 0
    }
    const opening = this.#slots[slot + SlotWord.opening]!
    this.#blocks.insert(opening, block, words, blockHeaderBytes >>> 2, this.i32, start >>> 2, (end - start) >>> 2)
    this.at = findInBlock(this.u8, this.i32, start, end, blockRecords(words, 0), bucketId, key, keyStart, keyBytes)
    return this.at >= 0
  }

  /** Gives the actors of the record that was found the numbers that they have in this shard. */
  #translate(slot: number, meta: Int32Array): void {
    const indices = this.#slots[slot + SlotWord.actorIndices]!
    if (indices === 0) return
    const slab = this.#options.memory.metas[this.#slots[slot + SlotWord.slab]!]!
    const actors = metaActors(meta, this.#slots[slot + SlotWord.meta]!).length
    translateActors(this.u8, this.i32, this.at, new Uint16Array(slab, indices * 4, actors))
  }

  #showMerged(set: VersionSet, bucketId: number, key: Uint8Array, keyStart: number, keyBytes: number): void {
    const slot = recordSlot(this.u8, this.at)
    const own = key.slice(keyStart, keyStart + keyBytes)
    this.#room(recordBytesOf(set, keyBytes))
    encodeRecord(this.#buffer, this.#words, 0, slot, bucketId, own, 0, keyBytes, set)
    this.u8 = this.#buffer
    this.i32 = this.#words
    this.at = 0
  }

  #room(bytes: number): void {
    const isLarge = this.#buffer.length > keptBytes
    if (bytes <= this.#buffer.length && !(isLarge && bytes <= keptBytes)) return
    this.#buffer = new Uint8Array(Math.max(keptBytes, (bytes + 4095) & ~4095))
    this.#words = new Int32Array(this.#buffer.buffer)
  }
}

/** What a reader says of a table that cannot be read at all. */
export function damagedTable(tableIdLow: number): SunwiseError {
  const low = (tableIdLow >>> 0).toString(16).padStart(8, '0')
  const message = `Cannot read the key: table ...${low}, which may have it, is damaged or missing; restore the data directory from a backup`
  return new SunwiseError('TABLE_CORRUPT', message)
}

/** What a reader says of a block that does not check. */
export function damagedBlock(tableIdLow: number, block: number, offset: number): SunwiseError {
  const low = (tableIdLow >>> 0).toString(16).padStart(8, '0')
  return new SunwiseError(
    'TABLE_CORRUPT',
    `Cannot read the key: block ${block} at byte ${offset} of table ...${low} is damaged; restore the data directory from a backup`,
  )
}
