/**
 * Writes the oldest segments of a memtable as one SSTable: a job for a thread of the pool, straight from the shard's shared memory.
 *
 * The index says what of the segments is still live: entry for entry, partition by partition, as a reader without locks. The
 * owner goes on meanwhile. It neither recycles nor retires the segments before it has taken the job's answer. An entry that is
 * repointed while the job runs is written or left out, which is the same to whoever reads memory first; but what was left out
 * for a newer record must not be lost with it, so the owner syncs its log before it makes the table count.
 *
 * Within a partition the records are sorted by 21 bits of their keys behind what all have in common, packed with their place
 * into one number each, since sorting numbers needs no comparator; ties are settled by whole keys.
 */
import type { Crc32 } from '../base/crc32.ts'
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { JobWorld } from '../env.ts'
import type { Stable } from '../versions/stability.ts'
import { Arena, slabWordMask, wordsPerSlabBits } from './arena.ts'
import { bucketsPerChunk, chunkSlabBits, chunkSlabMask, chunkWords, depthBits, entriesPerBucket } from './hash-index.ts'
import { isRetired, type KnownBuckets } from './known-buckets.ts'
import type { ActorId } from './log-control.ts'
import type { ReplicatedPartitions } from './partition-clocks.ts'
import { isForgettable } from './partition-trees.ts'
import { RecordFlag, recordBucket, recordHeaderBytes, recordKeyBytes } from './record.ts'
import { ControlWord, type ShardMemory } from './shard-memory.ts'
import { type BlockCodec, compareRecordKey, type TableId } from './sstable.ts'
import { TableWriter, type WrittenTable } from './sstable-writer.ts'
import { TableFinder } from './table-finder.ts'
import { flushReader } from './table-view.ts'

export type FlushInput = {
  readonly memory: ShardMemory
  /** Full segments whose records are all published, failed or superseded. */
  readonly segments: readonly number[]
  readonly path: string
  readonly directory: string
  readonly tableId: TableId
  readonly firstPartition: number
  readonly endPartition: number
  readonly bitsPerKey: number
  readonly actors: readonly ActorId[]
  readonly buckets: KnownBuckets
  /** No table holds anything of the shard: tombstones hide nothing. */
  readonly dropsTombstones: boolean
  /** Partitions with replicas elsewhere: of their tombstones only those go that all replicas have. */
  readonly replicated: ReplicatedPartitions
}

/** The table that was written and made durable; undefined where nothing of the segments was live. */
export type FlushOutput = {
  readonly table: WrittenTable | undefined
  /** Estimate: part of the records whose keys older tables hold, too. */
  readonly deadShare: number
}

export type StorageTools = {
  readonly crc32: Crc32
  readonly codec: BlockCodec | undefined
}

const placeBits = 2 ** 31
/** One record in so many is looked up in the filters of older tables. */
const sampleEvery = 16

/** The job. @throws DISK_FULL, DISK_FAILED, CLOSED where it was cancelled; then no file is left, if the disk allows */
export function flush(input: FlushInput, world: JobWorld, tools: StorageTools): FlushOutput {
  const { disk } = world
  const scanner = new SegmentScanner(input)
  const { crc32, codec } = tools
  const finder = new TableFinder({ disk, memory: input.memory.tables, crc32, codec, reader: flushReader })
  const control = new Int32Array(input.memory.control)
  const pace = (bytes: number): void => {
    // Where writers wait for memory, they wait for this.
    if (Atomics.load(control, ControlWord.writersWait) === 0) world.pace(bytes)
  }
  let sampled = 0
  let known = 0
  let writer: TableWriter | undefined
  const file = disk.createNow(input.path)
  try {
    for (let partition = input.firstPartition; partition < input.endPartition; partition++) {
      if (world.isCancelled) throw new SunwiseError('CLOSED', `Flush of "${input.path}" was cancelled`)
      const count = scanner.collect(partition)
      pace(0)
      for (let place = 0; place < count; place++) {
        scanner.moveTo(place)
        writer ??= new TableWriter({
          file,
          tableId: input.tableId,
          crc32,
          bitsPerKey: input.bitsPerKey,
          actors: input.actors,
          isComplete: true,
          pace,
          memory: world.memory,
        })
        const { u8, i32, at } = scanner
        writer.add(partition, u8, i32, at)
        if (writer.records % sampleEvery !== 1) continue
        sampled++
        const keyStart = at + recordHeaderBytes
        if (finder.mayHold(partition, recordBucket(i32, at), u8, keyStart, recordKeyBytes(u8, at))) known++
      }
    }
    const table = writer?.finish()
    file.close()
    if (table === undefined) disk.removeNow(input.path)
    disk.syncDirectoryNow(input.directory)
    return { table, deadShare: sampled === 0 ? 0 : known / sampled }
  } catch (error) {
    abandon(world, file, input.path)
    throw error
  }
}

/** Takes away a file that counts for nothing; one that stays is removed at the next start. */
export function abandon(world: JobWorld, file: { close(): void }, path: string): void {
  try {
    file.close()
    world.disk.removeNow(path)
  } catch (error) {
    if (!(error instanceof SunwiseError)) throw error
  }
}

/** Finds the live records of some segments through the index, a partition at a time, in the order of a table. */
export class SegmentScanner {
  readonly #input: Pick<FlushInput, 'segments' | 'buckets' | 'dropsTombstones' | 'replicated'>
  readonly #arena: Arena
  readonly #partitions: Int32Array
  readonly #directories: Int32Array
  readonly #chunks: readonly Int32Array[]
  readonly #isWanted: Uint8Array
  /** Of the partition that is collected, where it has other replicas. */
  #stable: Stable | undefined
  #addresses = new Uint32Array(1024)
  #count = 0
  #order = new Float64Array(1024)

  /** Where the record of `moveTo` lies. */
  u8: Uint8Array
  i32: Int32Array
  at = 0

  constructor(input: Pick<FlushInput, 'memory' | 'segments' | 'buckets' | 'dropsTombstones' | 'replicated'>) {
    this.#input = input
    this.#arena = new Arena(input.memory.arena)
    this.#partitions = new Int32Array(input.memory.index.partitions)
    this.#directories = new Int32Array(input.memory.index.directories)
    this.#chunks = input.memory.index.chunks.map((slab) => new Int32Array(slab))
    this.#isWanted = new Uint8Array(this.#arena.segments)
    for (const segment of input.segments) this.#isWanted[segment] = 1
    this.u8 = this.#arena.u8[0]!
    this.i32 = this.#arena.i32[0]!
  }

  /** Collects and sorts what is live of a partition; returns how many records there are. */
  collect(partition: number): number {
    this.#stable = this.#input.replicated.get(partition)
    for (;;) {
      const version = Atomics.load(this.#partitions, partition * 4)
      this.#count = 0
      this.#scan(Atomics.load(this.#partitions, partition * 4 + 1))
      // A chunk was split meanwhile: entries may have moved from under the scan.
      if (Atomics.load(this.#partitions, partition * 4) === version) break
    }
    this.#sort()
    return this.#count
  }

  /** Shows the record at a place of the order. */
  moveTo(place: number): void {
    this.#show(this.#addresses[this.#order[place]! % placeBits]!)
  }

  #isForgettable(): boolean {
    const { u8, i32, at } = this
    if (this.#stable !== undefined) return isForgettable(u8, i32, at, this.#stable)
    return (u8[at + 12]! & RecordFlag.tombstone) !== 0
  }

  #show(address: number): void {
    const slab = address >>> wordsPerSlabBits
    this.u8 = this.#arena.u8[slab]!
    this.i32 = this.#arena.i32[slab]!
    this.at = (address & slabWordMask) << 2
  }

  #scan(packed: number): void {
    if (packed === 0) return
    const size = 1 << (packed & ((1 << depthBits) - 1))
    const directory = packed >>> depthBits
    let before = -1
    for (let position = 0; position < size; position++) {
      const chunk = Atomics.load(this.#directories, directory + position)
      if (chunk === before) continue
      before = chunk
      const view = this.#chunks[chunk >>> chunkSlabBits]!
      const base = (chunk & chunkSlabMask) * chunkWords
      for (let bucket = base; bucket < base + bucketsPerChunk * 16; bucket += 16) {
        for (let entry = bucket + 9; entry < bucket + 9 + entriesPerBucket; entry++) {
          const address = Atomics.load(view, entry) >>> 0
          if (address !== 0 && this.#isWanted[this.#arena.segmentOfAddress(address)] === 1) this.#add(address)
        }
      }
    }
  }

  #add(address: number): void {
    this.#show(address)
    if (isRetired(this.#input.buckets, recordBucket(this.i32, this.at))) return
    if (this.#input.dropsTombstones && this.#isForgettable()) return
    if (this.#count === this.#addresses.length) {
      const grown = new Uint32Array(this.#count * 2)
      grown.set(this.#addresses)
      this.#addresses = grown
      this.#order = new Float64Array(this.#count * 2)
    }
    this.#addresses[this.#count++] = address
  }

  #sort(): void {
    const count = this.#count
    const common = this.#commonBytes()
    for (let place = 0; place < count; place++) {
      this.#show(this.#addresses[place]!)
      this.#order[place] = this.#sortBits(common) * placeBits + place
    }
    const order = this.#order.subarray(0, count).sort()
    for (let from = 0; from < count; ) {
      const bits = Math.floor(order[from]! / placeBits)
      let end = from + 1
      while (end < count && Math.floor(order[end]! / placeBits) === bits) end++
      if (end - from > 1) this.#settle(from, end)
      from = end
    }
    this.#dropDoubles()
  }

  /** A scan beside a split may meet an entry both where it was and where it went: the version is raised between the two. */
  #dropDoubles(): void {
    let kept = 0
    let last = 0
    for (let place = 0; place < this.#count; place++) {
      const address = this.#addresses[this.#order[place]! % placeBits]!
      if (address === last) continue
      last = address
      this.#order[kept++] = this.#order[place]!
    }
    this.#count = kept
  }

  /** Orders those with the same bits by their whole keys. */
  #settle(from: number, end: number): void {
    const places = [...this.#order.subarray(from, end)]
    places.sort((a, b) => this.#compare(this.#addresses[a % placeBits]!, this.#addresses[b % placeBits]!))
    this.#order.set(places, from)
  }

  #compare(a: number, b: number): number {
    this.#show(b)
    const { u8, i32, at } = this
    const bucketId = recordBucket(i32, at)
    const keyBytes = recordKeyBytes(u8, at)
    this.#show(a)
    return compareRecordKey(this.u8, this.i32, this.at, bucketId, u8, at + recordHeaderBytes, keyBytes)
  }

  /** How many bytes of their sort keys all records have in common. */
  #commonBytes(): number {
    if (this.#count === 0) return 0
    this.#show(this.#addresses[0]!)
    const { u8, i32, at } = this
    const bucketId = recordBucket(i32, at)
    let common = 4 + Limits.storedKeyBytesMax
    for (let place = 0; place < this.#count && common > 0; place++) {
      this.#show(this.#addresses[place]!)
      if (recordBucket(this.i32, this.at) !== bucketId) return 0
      const keyBytes = Math.min(recordKeyBytes(this.u8, this.at), recordKeyBytes(u8, at))
      let same = 0
      while (
        same < keyBytes &&
        4 + same < common &&
        this.u8[this.at + recordHeaderBytes + same] === u8[at + recordHeaderBytes + same]
      ) {
        same++
      }
      common = Math.min(common, 4 + same)
    }
    return common
  }

  /** 21 bits of the present record's sort key from byte `from` on: what a double holds beside the place. */
  #sortBits(from: number): number {
    return (this.#sortByte(from) << 13) | (this.#sortByte(from + 1) << 5) | (this.#sortByte(from + 2) >>> 3)
  }

  #sortByte(index: number): number {
    if (index < 4) return (recordBucket(this.i32, this.at) >>> (24 - 8 * index)) & 0xff
    return index - 4 < recordKeyBytes(this.u8, this.at) ? this.u8[this.at + recordHeaderBytes + index - 4]! : 0
  }
}
