/**
 * Which tables a shard has, in shared memory: their runs for each partition, where their metas lie, and who still looks at them.
 * The owner of the shard is the only writer; any thread reads (table-finder.ts).
 *
 *   control, i32:               0 version: odd while the runs change   1 tables in the view   32 slow reads
 *   runs, i32 x runsMax for each partition: slot + 1 of each table, newest first; 0 ends them
 *   slots, i32 x 8 each:        0 handle   1 slab of the meta   2 word of the meta in it   3 low half of the id
 *                               4 word of the actors' indices in the slab, 0: as they are
 *                               5 number of the opening, which names the table in the caches   6, 7 zero
 *   metas: slabs, in which each table has a run of granules: its meta (sstable.ts), and the indices of its actors behind it
 *   pins, i32 x 32 for each thread: the version that the thread began to read at; 0: it reads nothing
 *   caches of blocks and of records (frame-cache.ts)
 *
 * A reader pins the version it sees, makes sure that it is still the version, and then reads the runs and whatever they name. A
 * table that was taken out of the runs is closed, and its memory used again, only when no pin is older than that. So a reader
 * never sees a table disappear, and never reads a handle that names another file.
 */
import { assert } from '../base/assert.ts'
import type { Crc32 } from '../base/crc32.ts'
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { Disk, DiskFile, Done, ReadDone } from '../env.ts'
import { createFrameCacheMemory, FrameCache, type FrameCacheMemory } from './frame-cache.ts'
import type { ActorId } from './log-control.ts'
import { blockBytesWanted, MetaWord, type TableId } from './sstable.ts'
import { loadMeta, metaActors, metaIsComplete, readTableFoot, tableCorrupt } from './sstable-meta.ts'

/** Tables that one partition may be covered by; writers wait long before. */
export const runsMax = 32
/** Tables that a shard may have open at once. */
export const tableSlotsMax = 4096
export const slotWords = 8
export const pinWords = 32
/** Threads that may read a shard: all workers, the embedder's, and the one that flushes it. */
export const readersMax: number = Limits.shardsMax + 2
export const flushReader: number = readersMax - 1

/**
 * Words of the control block. What any thread counts stands on a line of its own: slow reads; reads that met damage, and the low half of
 * the id of the table in which one was met last.
 */
export const ViewWord = {
  version: 0,
  tables: 1,
  slowReads: 32,
  damagedReads: 33,
  damagedTable: 34,
  resyncing: 64,
  givenUp: 64 + Limits.partitions / 32,
} as const
/** Words of a slot. */
export const SlotWord = { handle: 0, slab: 1, meta: 2, tableIdLow: 3, actorIndices: 4, opening: 5 } as const

/** In a slot: the table cannot be read. */
export const noHandle = -1
const granuleBytes = 4096
/** Longest record that is kept by itself: a longer one fills a good part of its block. */
export const recordFrameBytes = 256
/** Part of the caches that holds single records, the hot ones among blocks that are not. */
const recordsShare = 1 / 4

/** The shared memory of a shard's tables; can be posted to any thread. */
export type TableMemory = {
  readonly control: SharedArrayBuffer
  readonly runs: SharedArrayBuffer
  readonly slots: SharedArrayBuffer
  readonly pins: SharedArrayBuffer
  readonly metas: readonly SharedArrayBuffer[]
  readonly blocks: FrameCacheMemory
  readonly records: FrameCacheMemory
}

/** Reserves address space for metas of `metaBytes` together, and caches of `cacheBytes`; memory that is not touched costs nothing. */
export function createTableMemory(metaBytes: number, cacheBytes: number): TableMemory {
  const metas: SharedArrayBuffer[] = []
  const whole = Math.ceil(metaBytes / granuleBytes) * granuleBytes
  for (let first = 0; first < whole; first += Limits.slabBytesMax) {
    metas.push(new SharedArrayBuffer(Math.min(Limits.slabBytesMax, whole - first)))
  }
  const control = new SharedArrayBuffer(256 + (2 * Limits.partitions) / 8)
  new Int32Array(control)[ViewWord.version] = 2
  return {
    control,
    runs: new SharedArrayBuffer(Limits.partitions * runsMax * 4),
    slots: new SharedArrayBuffer(tableSlotsMax * slotWords * 4),
    pins: new SharedArrayBuffer(readersMax * pinWords * 4),
    metas,
    blocks: createFrameCacheMemory(cacheBytes * (1 - recordsShare), blockBytesWanted),
    records: createFrameCacheMemory(cacheBytes * recordsShare, recordFrameBytes),
  }
}

/** A table that is open: in the view, or on its way in or out. */
export type OpenTable = {
  readonly tableId: TableId
  readonly file: DiskFile
  readonly slot: number
  readonly slab: number
  /** First byte and bytes of its memory in the slab. */
  readonly start: number
  readonly bytes: number
  readonly actors: readonly ActorId[]
  readonly isComplete: boolean
  /** False: it holds a place in the runs of its partitions, and every look at it is TABLE_CORRUPT. */
  readonly isReadable: boolean
  /** Reads of the owner that are under way: the file stays open meanwhile. */
  reads: number
}

export type TableViewOptions = {
  readonly disk: Disk
  readonly memory: TableMemory
  readonly crc32: Crc32
  /** Index of an actor in the shard's table, which grows by it where it is new; -1 where there is no room. */
  readonly actorIndex: (low: number, high: number) => number
}

export class TableView {
  readonly #options: TableViewOptions
  readonly #control: Int32Array
  readonly #runs: Int32Array
  readonly #slots: Int32Array
  readonly #pins: Int32Array
  readonly #u8: readonly Uint8Array[]
  readonly #i32: readonly Int32Array[]
  readonly #freeSlots: number[] = []
  #slotsUsed = 0
  #openings = 0
  /** Free runs of granules in each slab, by their start. */
  readonly #free: { slab: number; start: number; bytes: number }[]
  #bytesUsed = 0
  readonly #blocks: FrameCache
  readonly #records: FrameCache
  /** Tables out of the runs, with the version from which on nobody finds them. */
  #leaving: { readonly table: OpenTable; readonly version: number }[] = []

  constructor(options: TableViewOptions) {
    this.#options = options
    const { control, runs, slots, pins, metas } = options.memory
    this.#control = new Int32Array(control)
    this.#runs = new Int32Array(runs)
    this.#slots = new Int32Array(slots)
    this.#pins = new Int32Array(pins)
    this.#u8 = metas.map((slab) => new Uint8Array(slab))
    this.#i32 = metas.map((slab) => new Int32Array(slab))
    this.#free = metas.map((slab, index) => ({ slab: index, start: 0, bytes: slab.byteLength }))
    this.#blocks = new FrameCache(options.memory.blocks)
    this.#records = new FrameCache(options.memory.records)
  }

  /** Bytes of metas in use. */
  get bytesUsed(): number {
    return this.#bytesUsed
  }

  /** Bytes that the caches may use. */
  get cacheBytes(): number {
    return this.#blocks.bytes + this.#records.bytes
  }

  /** Bytes that they would take more if they were let grow by one step; 0: they are as large as they can be. */
  get cacheGrowthBytes(): number {
    return this.#blocks.isWhole ? 0 : this.#blocks.bytesPerWay + this.#records.bytesPerWay
  }

  /** What found no room in the caches so far but that of something else. */
  get cacheDisplaced(): number {
    return this.#blocks.displaced + this.#records.displaced
  }

  countSlowRead(): void {
    Atomics.add(this.#control, ViewWord.slowReads, 1)
  }

  /** Lets the caches have `cacheGrowthBytes` more, for good. */
  growCaches(): void {
    this.#blocks.grow()
    this.#records.grow()
  }

  /**
   * Opens a table and loads its meta, for a place in the view. @throws TABLE_CORRUPT, DISK_FAILED; OVERLOADED where memory or slots
   * are used up
   */
  open(tableId: TableId, path: string): OpenTable {
    const { disk, crc32 } = this.#options
    const file = disk.openNow(path)
    let memory: { slab: number; start: number; bytes: number } | undefined
    try {
      const foot = readTableFoot(file, tableId, crc32)
      // Actors are few: room for as many indices as there can be would be waste, so their number is read with the meta.
      memory = this.#take(foot.metaBytes + granuleBytes)
      const { slab, start } = memory
      const u8 = this.#u8[slab]!
      const i32 = this.#i32[slab]!
      loadMeta(file, foot, u8, i32, start, crc32)
      const base = start >>> 2
      const actors = metaActors(i32, base)
      const indicesWord = this.#noteActors(actors, u8, start + foot.metaBytes)
      const slot = this.#takeSlot(path)
      const at = slot * slotWords
      this.#slots[at + SlotWord.handle] = file.handle
      this.#slots[at + SlotWord.slab] = slab
      this.#slots[at + SlotWord.meta] = base
      this.#slots[at + SlotWord.tableIdLow] = tableId.low
      this.#slots[at + SlotWord.actorIndices] = indicesWord
      this.#slots[at + SlotWord.opening] = ++this.#openings
      const isComplete = metaIsComplete(i32, base)
      return { tableId, file, slot, slab, start, bytes: memory.bytes, actors, isComplete, isReadable: true, reads: 0 }
    } catch (error) {
      file.close()
      if (memory !== undefined) this.#give(memory)
      throw error
    }
  }

  /**
   * A place in the view for a table that cannot be read, so that nobody takes what lies below it for what it held. @throws OVERLOADED
   * where slots are used up
   */
  openUnreadable(tableId: TableId, path: string): OpenTable {
    const slot = this.#takeSlot(path)
    const at = slot * slotWords
    this.#slots.fill(0, at, at + slotWords)
    this.#slots[at + SlotWord.handle] = noHandle
    this.#slots[at + SlotWord.tableIdLow] = tableId.low
    this.#slots[at + SlotWord.opening] = ++this.#openings
    const file = new UnreadableFile(path)
    return {
      tableId,
      file,
      slot,
      slab: 0,
      start: 0,
      bytes: 0,
      actors: [],
      isComplete: true,
      isReadable: false,
      reads: 0,
    }
  }

  #takeSlot(path: string): number {
    const slot = this.#freeSlots.pop() ?? this.#slotsUsed++
    if (slot < tableSlotsMax) return slot
    this.#slotsUsed--
    throw new SunwiseError('OVERLOADED', `Cannot open table "${path}": ${tableSlotsMax} tables are open`)
  }

  /** Reads that met damage so far, on any thread. */
  get damagedReads(): number {
    return Atomics.load(this.#control, ViewWord.damagedReads)
  }

  /** The low half of the id of the table in which damage was met last. */
  get damagedTable(): number {
    return Atomics.load(this.#control, ViewWord.damagedTable)
  }

  /** The meta of an open table. */
  metaOf(table: OpenTable): Int32Array {
    const i32 = this.#i32[table.slab]!
    const word = table.start >>> 2
    return i32.subarray(word, word + i32[word + MetaWord.bytes]! / 4)
  }

  /** Shows readers other runs: `runsOf` gives those of a partition, newest first. */
  publish(runsOf: (partition: number) => readonly OpenTable[], tables: number): void {
    Atomics.add(this.#control, ViewWord.version, 1)
    for (let partition = 0; partition < Limits.partitions; partition++) {
      const runs = runsOf(partition)
      assert(runs.length < runsMax, 'A partition has fewer runs than there is room for')
      const at = partition * runsMax
      for (const [index, table] of runs.entries()) this.#runs[at + index] = table.slot + 1
      this.#runs[at + runs.length] = 0
    }
    this.#control[ViewWord.tables] = tables
    Atomics.add(this.#control, ViewWord.version, 1)
  }

  /** Takes leave of a table that the published runs do not name: it is closed when nobody can still read it. */
  leave(table: OpenTable): void {
    this.#leaving.push({ table, version: Atomics.load(this.#control, ViewWord.version) })
  }

  /** Closes what nobody reads any more; calls `closed` for each. */
  reclaim(closed: (table: OpenTable) => void): void {
    if (this.#leaving.length === 0) return
    const oldest = this.#oldestPin()
    const staying = this.#leaving.filter(({ table, version }) => {
      if (table.reads > 0 || (oldest !== 0 && ((oldest - version) | 0) < 0)) return true
      this.#close(table)
      closed(table)
      return false
    })
    this.#leaving = staying
  }

  /** Clears the pin of a thread that is gone. */
  unpin(reader: number): void {
    Atomics.store(this.#pins, reader * pinWords, 0)
  }

  /** Closes every file; nobody reads any more. */
  closeAll(open: Iterable<OpenTable>): void {
    for (const table of open) table.file.close()
    for (const { table } of this.#leaving) table.file.close()
    this.#leaving = []
  }

  #close(table: OpenTable): void {
    table.file.close()
    this.#freeSlots.push(table.slot)
    this.#give({ slab: table.slab, start: table.start, bytes: table.bytes })
  }

  /** Version of the oldest pin; 0 where nobody reads. */
  #oldestPin(): number {
    let oldest = 0
    for (let reader = 0; reader < readersMax; reader++) {
      const pin = Atomics.load(this.#pins, reader * pinWords)
      if (pin !== 0 && (oldest === 0 || ((pin - oldest) | 0) < 0)) oldest = pin
    }
    return oldest
  }

  /** Writes what the actors of a table are called in this shard; returns the word, or 0 where they are called the same. */
  #noteActors(actors: readonly ActorId[], u8: Uint8Array, at: number): number {
    const indices = actors.map(({ low, high }) => this.#options.actorIndex(low, high))
    if (indices.some((index) => index < 0)) {
      throw new SunwiseError('OVERLOADED', 'Cannot open a table: the actor table of the shard is full')
    }
    if (indices.every((index, position) => index === position)) return 0
    if (indices.length * 2 > granuleBytes) {
      throw new SunwiseError('OVERLOADED', `Cannot open a table that names ${indices.length} actors by other numbers`)
    }
    for (const [position, index] of indices.entries()) {
      u8[at + 2 * position] = index
      u8[at + 2 * position + 1] = index >>> 8
    }
    return at >>> 2
  }

  /** The first free run that is long enough. */
  #take(bytes: number): { slab: number; start: number; bytes: number } {
    const wanted = Math.ceil(bytes / granuleBytes) * granuleBytes
    const index = this.#free.findIndex((run) => run.bytes >= wanted)
    const run = this.#free[index]
    if (run === undefined) {
      throw new SunwiseError('OVERLOADED', `Cannot open a table: no memory for ${wanted} bytes of its index`)
    }
    const taken = { slab: run.slab, start: run.start, bytes: wanted }
    run.start += wanted
    run.bytes -= wanted
    if (run.bytes === 0) this.#free.splice(index, 1)
    this.#bytesUsed += wanted
    return taken
  }

  #give(memory: { slab: number; start: number; bytes: number }): void {
    if (memory.bytes === 0) return
    this.#bytesUsed -= memory.bytes
    const free = this.#free
    let index = free.findIndex(
      (run) => run.slab > memory.slab || (run.slab === memory.slab && run.start > memory.start),
    )
    if (index < 0) index = free.length
    free.splice(index, 0, { ...memory })
    for (let left = Math.max(0, index - 1); left < free.length - 1 && left <= index; ) {
      const [a, b] = [free[left]!, free[left + 1]!]
      if (a.slab === b.slab && a.start + a.bytes === b.start) {
        a.bytes += b.bytes
        free.splice(left + 1, 1)
      } else left++
    }
  }
}

/** Stands for the file of a table that cannot be read. */
class UnreadableFile implements DiskFile {
  readonly path: string
  readonly handle = noHandle

  constructor(path: string) {
    this.path = path
  }

  sizeNow(): number {
    throw this.#error()
  }

  readNow(): number {
    throw this.#error()
  }

  read(_buffer: Uint8Array, _start: number, _end: number, _at: number, done: ReadDone): void {
    done(this.#error(), 0)
  }

  writeNow(): void {
    throw this.#error()
  }

  write(_buffer: Uint8Array, _start: number, _end: number, _at: number, done: Done): void {
    done(this.#error())
  }

  sync(done: Done): void {
    done(this.#error())
  }

  syncNow(): void {
    throw this.#error()
  }

  close(): void {}

  #error(): SunwiseError {
    return tableCorrupt(this.path, 'it could not be opened')
  }
}
