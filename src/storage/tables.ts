/**
 * The tables of one shard as its owner sees them: flushes and compactions are begun here, their answers become rows of the catalog,
 * and what the catalog holds becomes the view that readers see. An object without a thread: jobs and commits call back.
 *
 *   flush:       job writes a table -> its meta is loaded -> rows, facts and the log's flushed end are committed -> readers see it
 *   compaction:  job writes tables -> metas are loaded -> rows and facts are committed -> readers see them -> old tables leave
 *
 * In that order a crash at any point leaves the catalog with tables that are whole and durable, and files that it does not name,
 * which the next start removes. Commits are made one after the other, each on the rows that the one before left.
 *
 * A table leaves in steps: no row of the shard names it; no reader can still look at it (table-view.ts); its file is removed, if
 * no other shard has a row of it.
 */
import { assert } from '../base/assert.ts'
import type { Crc32 } from '../base/crc32.ts'
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { CatalogEdit, Disk, Jobs, Random } from '../env.ts'
import type { CompactionInput, CompactionOutput } from './compaction.ts'
import {
  type Compaction,
  compactionDefaults,
  deadBytesAfter,
  debt,
  mendingCompaction,
  pickCompaction,
} from './compaction-policy.ts'
import { blockName } from './damaged-partitions.ts'
import type { FlushInput, FlushOutput } from './flush.ts'
import type { KnownBuckets } from './known-buckets.ts'
import type { ActorId } from './log-control.ts'
import type { MergeInput } from './merge.ts'
import { mergeRoomBytes } from './merge-room.ts'
import type { ReplicatedPartitions } from './partition-clocks.ts'
import type { ReadPacing } from './read-pace.ts'
import { SeekedSource } from './seeked-source.ts'
import type { ShardMemory } from './shard-memory.ts'
import { type BlockCodec, isBlock, MetaWord, tableIdOf, tableIdText } from './sstable.ts'
import { TableIterator } from './sstable-iterator.ts'
import { blockOffset, findBlock, firstBlockOf } from './sstable-meta.ts'
import type { WrittenTable } from './sstable-writer.ts'
import { checkWithin, type TableCheck } from './table-check.ts'
import { damagedBlock, damagedTable, type GivenBlock, TableFinder } from './table-finder.ts'
import { type Damage, type DamageById, damageEdit, damageKey, TableHealth } from './table-health.ts'
import {
  encodeFacts,
  factsKey,
  type PartitionRange,
  rangeBytes,
  rowEdits,
  type TableEdit,
  type TableFacts,
  type TableRow,
  type TableRows,
} from './table-rows.ts'
import { flushReader, type OpenTable, TableView } from './table-view.ts'

export type TablesOptions = {
  readonly disk: Disk
  /** Existing directory of the tables of all shards. */
  readonly directory: string
  readonly memory: ShardMemory
  readonly jobs: Jobs
  readonly random: Random
  readonly crc32: Crc32
  readonly codec: BlockCodec | undefined
  /** Whether merged tables are compressed. */
  readonly compresses: boolean
  /** As of compaction-policy.ts, where small data is to be merged like much; undefined: the default. */
  readonly sliceBytesMin?: number | undefined
  readonly shard: number
  /** Rows and facts that the catalog holds for this shard. */
  readonly rows: TableRows
  readonly facts: ReadonlyMap<string, TableFacts>
  /** Log segments up to this sequence stand in tables. */
  readonly flushedThrough: number
  /** What the catalog says of damaged tables. */
  readonly damaged: DamageById
  /** Bytes of tables to look through in a second while there is nothing else to do; 0: none. */
  readonly scrubBytesPerSecond: number
  /**
   * Commits rows of this shard. `unnamed` are tables that it does not name any more: the answer says which of them no shard names; the
   * facts of those are gone, too.
   */
  readonly commit: (
    edits: readonly CatalogEdit[],
    unnamed: readonly string[],
    done: (error: SunwiseError | undefined, orphans: readonly string[]) => void,
  ) => void
  /** Number of the owner's thread among the readers. */
  readonly reader: number
  /** When the owner's thread may wait for reads of tables. */
  readonly pace: ReadPacing | undefined
  readonly actorIndex: (low: number, high: number) => number
  readonly actors: () => readonly ActorId[]
  /** Partitions with replicas elsewhere, now. */
  readonly replicated: () => ReplicatedPartitions
  /** Damaged blocks of a partition that are wanted no more, since other replicas have brought what was in them; undefined: they may be. */
  readonly givenUp: (partition: number) => ReadonlySet<string> | undefined
  /** What is damaged of partitions is more than was known of them when that was given up. */
  readonly foundMore: (partitions: readonly number[]) => void
  readonly buckets: () => KnownBuckets
  /** Something went wrong beside any request: for the log of the node. */
  readonly report: (error: SunwiseError) => void
}

/** What a shard knows of the disk. */
export type DiskRoom = {
  /** This shard's share of the free bytes; infinite where nobody watches them. */
  readonly roomBytes: number
  readonly isScarce: boolean
  readonly isFull: boolean
}

/** What a flush has written; not in the catalog yet. */
export type PreparedFlush = {
  readonly tableId: string
  readonly table: WrittenTable | undefined
  /** Estimate: part of its bytes that replaces what older tables hold. */
  readonly deadShare: number
}

/** With fewer pieces displaced between two looks, larger caches would help nobody. */
const displacedLeast = 1000
const bitsPerKeyYoung = 16
const bitsPerKeyLast = 12
const tableBytesWanted = 32 * 1024 * 1024
/** Without a flush for so long the shard is at rest. */
const restMs = 5_000
/** After a failed job the next one waits, twice as long each time. */
const retryMs = { first: 1_000, max: 60_000 } as const
const picksEveryMs = 5_000
/** After a mending merge that failed the next one waits. */
const mendRetryMs = 10_000
/** On a full disk what is dead goes sooner: growth waits for it. */
const fullDisk = { deadShareMax: 0.05, idleDeadShareMax: 0.02, rewriteShare: 0.02 } as const
/** Part of the room on the disk that one slice of a merge may write. */
const sliceRoomShare = 1 / 4
/** Part of a full disk's room that merges may take which give nothing back. */
const tidyRoomShare = 1 / 4
const debtMuch = 0.5
const picksPerStep = 8
/** Ranges that do not fit are noted; with more of them, merging waits for room. */
const tooLargeMax = 64
/** After so long a merge whose result was larger than a table can be is tried again: values expire, and buckets are deleted. */
const overLimitRestMs = 24 * 3_600_000
/** A merge with less input than this is not cut further where it finds no room. */
const sliceBytesLeast = 256 * 1024
/** A list reads blocks in portions of so many bytes. */
const listPortionBytes = 16 * 1024
/** What is read ahead of each table for a list on a slow disk. */
const prefetchBytes = 128 * 1024
/** Buffers that are kept for blocks to come: larger than most blocks, and as many as reads wait at a time. */
const spareBytes = 8 * 1024
const spareMax = 128

export class Tables {
  readonly #options: TablesOptions
  readonly #view: TableView
  readonly #open = new Map<string, OpenTable>()
  readonly #facts = new Map<string, TableFacts>()
  readonly finder: TableFinder
  #rows: TableRows
  #flushedThrough: number
  /** Changes of the rows that wait for the one under way. */
  readonly #commits: (() => void)[] = []
  #isCommitting = false
  #isClosed = false
  #compaction: Compaction | undefined
  readonly #health: TableHealth
  /** The table that a job looks through. */
  #checking: string | undefined
  #damagedReadsSeen = 0
  #lastFlushMs = Number.NEGATIVE_INFINITY
  #nextPickMs = 0
  #retryAtMs = 0
  #retryPauseMs: number = retryMs.first
  #mendAtMs = 0
  #rowsChanged = true
  #wasDiskFull = false
  #wasScarce = false
  #failedForSpace = false
  /** Input of one merge at most: less after a full disk did not take more. */
  #sliceBytes = compactionDefaults.sliceBytesMax
  /** Ranges whose smallest merge found no room on the disk: left alone until there may be some. */
  readonly #tooLarge: Compaction[] = []
  /**
   * Merges whose result would be larger than a table can be: their partitions are not merged again, but for newer runs, while these have
   * the same inputs. Each is of gigabytes, so there are few.
   */
  #overLimit: { readonly merge: Compaction; readonly againAtMs: number }[] = []
  #debt = 0
  #displacedBefore = 0
  /** No file is removed; those that would be wait. */
  #isHeld = false
  #heldPaths: string[] = []
  /** Files that go once their tables are closed. */
  readonly #orphans = new Set<string>()
  /** Of blocks that nobody looks at any more. */
  readonly #spare: ArrayBuffer[] = []

  flushes = 0
  compactions = 0
  bytesFlushed = 0
  bytesCompacted = 0
  /** How often there were merges that would make room, had they some to begin with. */
  spaceWants = 0
  /** Blocks that were read beside everything else, since their disk was slow. */
  loads = 0
  /** Bytes of tables that were looked through for damage. */
  bytesChecked = 0

  constructor(options: TablesOptions) {
    this.#options = options
    this.#rows = options.rows
    this.#flushedThrough = options.flushedThrough
    for (const [tableId, facts] of options.facts) this.#facts.set(tableId, facts)
    const { disk, memory, crc32, codec, reader, pace, actorIndex } = options
    this.#health = new TableHealth(options.damaged, options.scrubBytesPerSecond, options.random)
    this.#view = new TableView({ disk, memory: memory.tables, crc32, actorIndex })
    this.finder = new TableFinder({ disk, memory: memory.tables, crc32, codec, reader, pace })
  }

  /** Log segments up to this sequence stand in tables: nothing of them is needed. */
  get flushedThrough(): number {
    return this.#flushedThrough
  }

  /** Bytes of shared memory that tables take, their caches included. */
  get bytesUsed(): number {
    return this.#view.bytesUsed + this.#view.cacheBytes
  }

  get cacheBytes(): number {
    return this.#view.cacheBytes
  }

  /**
   * Lets the caches of tables grow by a step where that helps, if `spareBytes` have room for it; once a second or so. They never shrink:
   * memory that was used stays with the process.
   */
  growCaches(spareBytes: number): void {
    const displaced = this.#view.cacheDisplaced
    const isWanted = this.#view.cacheBytes === 0 || displaced - this.#displacedBefore > displacedLeast
    this.#displacedBefore = displaced
    const growth = this.#view.cacheGrowthBytes
    if (this.#open.size > 0 && isWanted && growth > 0 && growth <= spareBytes) this.#view.growCaches()
  }

  get tableCount(): number {
    return this.#open.size
  }

  get fileBytes(): number {
    let bytes = 0
    for (const tableId of this.#open.keys()) bytes += this.#facts.get(tableId)!.fileBytes
    return bytes
  }

  /** Greatest number of tables that one key may be looked up in. */
  get runs(): number {
    return this.#rows.runs
  }

  /** 0: merging keeps pace; 1: writers must wait. */
  get debt(): number {
    return this.#debt
  }

  /** A change of the rows is under way: who stops waits for it, or would not know what the catalog holds. */
  get isCommitting(): boolean {
    return this.#isCommitting
  }

  /** Tables with damage, or that cannot be read at all. */
  get damagedTables(): number {
    return this.#health.damagedTables
  }

  /** Merges that are left undone since their result would be larger than a table can be. */
  get mergesOverLimit(): number {
    return this.#overLimit.length
  }

  /** How often all tables were looked through for damage. */
  get scrubPasses(): number {
    return this.#health.passes
  }

  /** Opens all tables that the catalog names. One that cannot be read is damaged from its first byte. @throws OVERLOADED; then none is open */
  open(): void {
    try {
      for (const tableId of this.#rows.tableIds()) this.#openOrMark(tableId)
    } catch (error) {
      this.#view.closeAll(this.#open.values())
      this.#open.clear()
      throw error
    }
    this.#publish()
  }

  /** Begins to write segments as a table; `done` when it is durable. Then `commitFlush`, or `abandonFlush`. */
  flush(
    segments: readonly number[],
    done: (error: SunwiseError | undefined, prepared: PreparedFlush | undefined) => void,
  ): void {
    const { memory, directory, random, jobs, actors, buckets } = this.#options
    const tableId = { low: random.u32(), high: random.u32() }
    const text = tableIdText(tableId)
    const input: FlushInput = {
      memory,
      segments,
      path: this.#pathOf(text),
      directory,
      tableId,
      firstPartition: this.#rows.firstPartition,
      endPartition: this.#rows.endPartition,
      bitsPerKey: bitsPerKeyYoung,
      actors: actors(),
      buckets: buckets(),
      dropsTombstones: this.#rows.rows.length === 0,
      replicated: this.#options.replicated(),
    }
    jobs.run('flush', input, (error, output) => {
      if (this.#isClosed) return
      // A job that broke may have left its pin.
      this.#view.unpin(flushReader)
      if (error !== undefined) return done(error, undefined)
      const { table, deadShare } = output as FlushOutput
      done(undefined, { tableId: text, table, deadShare })
    })
  }

  /**
   * Makes a flush count: from `done` without an error on readers find its table, and log segments up to `through` are not needed. After
   * an error nothing has changed here; whether the catalog holds the table is known at the next start.
   */
  commitFlush(
    prepared: PreparedFlush,
    through: number,
    nowMs: number,
    done: (error: SunwiseError | undefined) => void,
  ): void {
    this.#lastFlushMs = nowMs
    this.#exclusively((release) => {
      const { tableId, table, deadShare } = prepared
      const add = table === undefined ? [] : [this.#flushed(tableId, table, deadShare)]
      const finish = (error: SunwiseError | undefined): void => {
        if (error === undefined) {
          this.#flushedThrough = through
          this.flushes++
          // What is dead changes with it, and so does what fits.
          this.#tooLarge.length = 0
          this.bytesFlushed += table?.fileBytes ?? 0
        }
        release()
        done(error)
      }
      this.#change({ remove: [], add }, [flushedEdit(this.#options.shard, through)], finish)
    })
  }

  /**
   * Reads the block that a search of `finder` waits for, beside everything else; `done` comes in a later turn, with the block, or with
   * TABLE_CORRUPT or DISK_FAILED.
   */
  load(done: (error: SunwiseError | undefined, given: GivenBlock | undefined) => void): void {
    const { slot, opening, block, offset, bytes } = this.finder.wanted
    let table: OpenTable | undefined
    for (const open of this.#open.values()) if (open.slot === slot) table = open
    assert(table !== undefined, 'A table that was found just now is open')
    const { file, tableId } = table
    const u8 = this.#roomFor(bytes)
    table.reads++
    this.loads++
    // That it is read here, and not where it was asked for, says that the disk is slow.
    this.#view.countSlowRead()
    file.read(u8, 0, bytes, offset, (error, read) => {
      table.reads--
      if (error !== undefined) {
        this.#health.suspect(tableIdText(tableId))
        return done(error, undefined)
      }
      const words = new Int32Array(u8.buffer)
      if (read !== bytes || !isBlock(u8, words, 0, bytes, tableId.low | 0, block, this.#options.crc32)) {
        this.#health.suspect(tableIdText(tableId))
        return done(damagedBlock(tableId.low, block, offset), undefined)
      }
      const given = { opening, block, u8 }
      this.finder.keep(given)
      done(undefined, given)
    })
  }

  /** Takes back blocks that `load` gave: nobody looks at them any more. */
  takeBack(given: readonly GivenBlock[]): void {
    for (const { u8 } of given) {
      const buffer = u8.buffer as ArrayBuffer
      if (buffer.byteLength === spareBytes && this.#spare.length < spareMax) this.#spare.push(buffer)
    }
  }

  /** A place for a block: memory outside of the heap that is given up with every read would be freed late, and be megabytes by then. */
  #roomFor(bytes: number): Uint8Array {
    if (bytes > spareBytes) return new Uint8Array(bytes)
    return new Uint8Array(this.#spare.pop() ?? new ArrayBuffer(spareBytes), 0, bytes)
  }

  /** Whether the owner's thread may wait for reads of tables just now. */
  get mayWait(): boolean {
    return this.finder.isEmpty || (this.#options.pace?.mayWait() ?? true)
  }

  /**
   * Lets the kernel have what `sourcesOf` reads first, so that nobody waits long for it then; `done` comes in a later turn. What goes
   * wrong is met again by who reads.
   */
  prefetch(partition: number, bucketId: number, key: Uint8Array, done: () => void): void {
    let left = 1
    const end = (): void => {
      if (--left === 0) done()
    }
    for (const { tableId } of this.#rows.rowsOf(partition)) {
      const table = this.#open.get(tableId)!
      if (!table.isReadable) continue
      const meta = this.#view.metaOf(table)
      const first = Math.max(0, findBlockIn(meta, partition, bucketId, key))
      const offset = blockOffset(meta, 0, first)
      const bytes = Math.min(prefetchBytes, blockOffset(meta, 0, meta[MetaWord.blocks]!) - offset)
      left++
      table.reads++
      this.#view.countSlowRead()
      table.file.read(new Uint8Array(bytes), 0, bytes, offset, () => {
        table.reads--
        end()
      })
    }
    end()
  }

  /**
   * What tables hold of a partition from (bucketId, key) on, newest first, to be merged within this turn. @throws TABLE_CORRUPT,
   * DISK_FAILED from here and from what it gives; with `damaged` what is damaged is told there, and passed over
   */
  sourcesOf(
    partition: number,
    bucketId: number,
    key: Uint8Array,
    damaged?: (tableIdLow: number, block: number) => void,
  ): MergeInput[] {
    const { crc32, codec, actorIndex } = this.#options
    return this.#rows.rowsOf(partition).flatMap((row) => {
      const table = this.#open.get(row.tableId)!
      const idLow = table.tableId.low | 0
      if (!table.isReadable) {
        if (damaged === undefined) throw damagedTable(idLow)
        damaged(idLow, -1)
        return []
      }
      const meta = this.#view.metaOf(table)
      // Most partitions have nothing in a small table.
      if (firstBlockOf(meta, 0, partition) === firstBlockOf(meta, 0, partition + 1)) return []
      const iterator = new TableIterator({
        file: table.file,
        meta,
        crc32,
        codec,
        firstPartition: partition,
        endPartition: partition + 1,
        portionBytes: listPortionBytes,
        pace: () => {},
        ...(damaged === undefined ? {} : { damaged: (block: number) => damaged(idLow, block) }),
      })
      const suspect = (): void => this.#health.suspect(row.tableId)
      const source = new SeekedSource(iterator, partition, bucketId, key, suspect)
      return { source, isComplete: table.isComplete, actorIndices: indicesOf(table.actors, actorIndex) }
    })
  }

  /** There may be room on the disk: what failed for want of it is tried again with the next step. */
  retrySpace(): void {
    if (!this.#failedForSpace) return
    this.#failedForSpace = false
    this.#tooLarge.length = 0
    this.#rowsChanged = true
    this.#retryAtMs = 0
    this.#retryPauseMs = retryMs.first
  }

  /** On a full disk: merges may still make room, so what takes room waits for them. */
  get isMakingRoom(): boolean {
    return this.#wasDiskFull && (this.#compaction !== undefined || (this.#rowsChanged && !this.#failedForSpace))
  }

  /**
   * Compaction and cleaning in small steps; every 20 to 100 ms. `roomBytes` are left on the disk: merges are cut to it, and where it is
   * scarce, not begun before they fit. On a full disk those that make room are not put off.
   */
  step(monotonicMs: number, epochMs: number, { roomBytes, isScarce, isFull: isDiskFull }: DiskRoom): void {
    this.#view.reclaim((table) => this.#closed(table))
    this.#lookForDamage(monotonicMs)
    if (isDiskFull && !this.#wasDiskFull) this.#rowsChanged = true
    if (this.#wasScarce && !isScarce) this.retrySpace()
    this.#wasDiskFull = isDiskFull
    this.#wasScarce = isScarce
    if (this.#compaction !== undefined || this.#health.hasSuspects || monotonicMs < this.#retryAtMs) return
    const mending = monotonicMs < this.#mendAtMs ? undefined : this.#mending(isScarce ? roomBytes : undefined)
    if (mending !== undefined) return this.#compact(mending, monotonicMs, epochMs)
    if (!this.#rowsChanged && monotonicMs < this.#nextPickMs) return
    this.#rowsChanged = false
    this.#nextPickMs = monotonicMs + picksEveryMs
    const isIdle = isDiskFull || monotonicMs - this.#lastFlushMs > restMs
    const sliceBytesMax = Math.min(this.#sliceBytes, roomBytes * sliceRoomShare)
    // On a full disk every merge counts, however small.
    const leastBytes = this.#options.sliceBytesMin ?? compactionDefaults.sliceBytesMin
    const sliceBytesMin = isScarce || isDiskFull ? 0 : leastBytes
    const parameters = { ...compactionDefaults, ...(isDiskFull ? fullDisk : {}), sliceBytesMin, sliceBytesMax }
    const buckets = this.#options.buckets()
    this.#overLimit = this.#overLimit.filter(
      ({ merge, againAtMs }) => monotonicMs < againAtMs && merge.inputs.every((row) => this.#isPresent(row)),
    )
    const overLimit = this.#overLimit.map(({ merge }) => ({ ...merge, newestSequence: merge.outputSequence }))
    for (let picks = 0; picks < picksPerStep && this.#tooLarge.length < tooLargeMax; picks++) {
      const busy = [...this.#health.walls(this.#rows), ...this.#tooLarge, ...overLimit]
      const picked = pickCompaction(this.#rows, this.#facts, { busy, isIdle, nowMs: epochMs, buckets }, parameters)
      if (picked === undefined) return
      const isFreeing = picked.reason === 'dead' || picked.reason === 'rewrite'
      const mergeBytes = roomBytes * (isDiskFull && !isFreeing ? tidyRoomShare : 1)
      if (!isScarce || mergeRoomBytes(picked, this.#rows, this.#facts) <= mergeBytes) {
        return this.#compact(picked, monotonicMs, epochMs)
      }
      // While merging keeps pace it may wait for room without a word.
      if (!this.#failedForSpace && (isDiskFull || this.#debt > debtMuch)) this.spaceWants++
      this.#failedForSpace = true
      this.#tooLarge.push(picked)
    }
    this.#rowsChanged = this.#tooLarge.length < tooLargeMax
  }

  /** Changes nothing any more: jobs end as they like, and count for nothing. No change is under way. */
  freeze(): void {
    assert(!this.#isCommitting, 'Tables close when no change of theirs is under way')
    this.#isClosed = true
  }

  /** Closes all files, behind `freeze`. */
  close(): void {
    assert(this.#isClosed, 'Tables close when nothing changes them')
    this.#view.closeAll(this.#open.values())
    this.#open.clear()
  }

  #compact(compaction: Compaction, monotonicMs: number, epochMs: number): void {
    this.#compaction = compaction
    const { directory, random, jobs, actors, buckets, actorIndex } = this.#options
    const outputsMax = Math.ceil(compaction.inputBytes / tableBytesWanted) + 2
    const outputs = Array.from({ length: outputsMax }, () => {
      const tableId = { low: random.u32(), high: random.u32() }
      return { tableId, path: this.#pathOf(tableIdText(tableId)) }
    })
    const givenUp = compaction.reason === 'mend' ? this.#givenUpIn(compaction) : undefined
    const input: CompactionInput = {
      runs: compaction.inputs.flatMap(({ tableId: text, firstPartition, endPartition }) => {
        const { tableId, actors: own, isReadable } = this.#open.get(text)!
        if (!isReadable) {
          assert(compaction.reason === 'mend', 'Walls keep merges off tables that cannot be read')
          return []
        }
        return {
          path: this.#pathOf(text),
          tableId,
          firstPartition,
          endPartition,
          actorIndices: indicesOf(own, actorIndex),
          givenUp: givenUp?.get(tableId.low | 0),
        }
      }),
      actors: actors(),
      outputs,
      directory,
      tableBytesWanted,
      bitsPerKey: compaction.isLast ? bitsPerKeyLast : bitsPerKeyYoung,
      nowMs: epochMs,
      graceMs: Limits.expiryGraceMs,
      dropsTombstones: compaction.isLast,
      isComplete: compaction.isComplete,
      compresses: this.#options.compresses,
      buckets: buckets(),
      replicated: this.#options.replicated(),
    }
    jobs.run('compact', input, (error, output) => {
      if (this.#isClosed) return
      if (error !== undefined) return this.#compactionFailed(compaction, error, monotonicMs)
      this.#retryPauseMs = retryMs.first
      this.#sliceBytes = Math.min(compactionDefaults.sliceBytesMax, this.#sliceBytes * 2)
      const { tables } = output as CompactionOutput
      this.#exclusively((release) => {
        const { inputs } = compaction
        const sizes = tables.map(({ table }) => table.fileBytes)
        const deadBytes = deadBytesAfter(compaction, this.#facts, sizes)
        const add = tables.map(({ output, table }, index) =>
          this.#merged(tableIdText(outputs[output]!.tableId), table, compaction, deadBytes[index]!),
        )
        const mended = compaction.reason === 'mend' ? this.#mended(compaction) : []
        const edits = mended.map(({ tableId, noted }) => damageRow(tableId, noted))
        this.#change({ remove: inputs, add }, edits, (failure) => {
          release()
          if (failure !== undefined) return this.#compactionFailed(compaction, failure, monotonicMs)
          for (const { tableId, own } of mended) this.#health.narrow(tableId, own)
          if (compaction.reason === 'mend') this.damageNews++
          this.compactions++
          for (const bytes of sizes) this.bytesCompacted += bytes
          this.#compaction = undefined
        })
      })
    })
  }

  #compactionFailed(compaction: Compaction, error: SunwiseError, monotonicMs: number): void {
    this.#compaction = undefined
    this.#rowsChanged = true
    if (error.code === 'CLOSED') return
    // Which of them it was, and where, is found out before the next one begins.
    if (error.code === 'TABLE_CORRUPT' || error.code === 'DISK_FAILED') {
      for (const { tableId } of compaction.inputs) this.#health.suspectAnew(tableId)
    }
    if (compaction.reason === 'mend') {
      this.#mendAtMs = monotonicMs + mendRetryMs
      if (error.code === 'TABLE_CORRUPT') this.#options.foundMore(partitionsOf(compaction))
    } else if (error.code === 'DISK_FULL') this.#foundNoRoom(compaction)
    this.#retryAtMs = monotonicMs + this.#retryPauseMs
    if (error.code === 'TABLE_TOO_LARGE') {
      this.#overLimit.push({ merge: compaction, againAtMs: monotonicMs + overLimitRestMs })
      return this.#options.report(error)
    }
    // The next merge is another, or a smaller one: it need not wait long.
    if (error.code !== 'DISK_FULL') this.#retryPauseMs = Math.min(retryMs.max, this.#retryPauseMs * 2)
    this.#options.report(error)
  }

  /** Whether a part of a row is still in the stacks of its partitions. */
  #isPresent({ tableId, firstPartition, endPartition }: TableRow): boolean {
    for (let partition = firstPartition; partition < endPartition; partition++) {
      if (!this.#rows.rowsOf(partition).some((row) => row.tableId === tableId)) return false
    }
    return true
  }

  /** A merge that writes damaged partitions anew which want nothing of what is damaged; neighbours in between come along. */
  #mending(roomBytes: number | undefined): Compaction | undefined {
    const damaged = new Set(this.damagedPartitions())
    if (damaged.size === 0) return undefined
    const { firstPartition: first, endPartition: end } = this.#rows
    for (let partition = first; partition < end; partition++) {
      if (!damaged.has(partition) || !this.#mayMend(partition)) continue
      let last = partition
      let bytes = this.#bytesOfPartition(partition)
      for (let next = partition + 1; next < end && (!damaged.has(next) || this.#mayMend(next)); next++) {
        bytes += this.#bytesOfPartition(next)
        if (bytes > compactionDefaults.sliceBytesMin) break
        if (damaged.has(next)) last = next
      }
      const range = { firstPartition: partition, endPartition: last + 1 }
      const mending = mendingCompaction(this.#rows, this.#facts, range)
      const fits = roomBytes === undefined || mergeRoomBytes(mending, this.#rows, this.#facts) <= roomBytes
      if (fits) return mending
    }
    return undefined
  }

  /** Whether all that is damaged of a partition is known and wanted no more. A table whose index is damaged is told apart at the next start. */
  #mayMend(partition: number): boolean {
    const blocks = this.#options.givenUp(partition)
    if (blocks === undefined) return false
    return this.#rows.rowsOf(partition).every(({ tableId: text }) => {
      const { tableId, isReadable } = this.#open.get(text)!
      return isReadable ? !this.#health.isWholly(text) : blocks.has(blockName(tableId.low, -1))
    })
  }

  #bytesOfPartition(partition: number): number {
    return this.#rows
      .rowsOf(partition)
      .reduce((sum, { tableId }) => sum + rangeBytes(this.#facts.get(tableId)!, partition, partition + 1), 0)
  }

  /** Blocks that a mending merge passes over, by the low half of the table's id. */
  #givenUpIn(range: PartitionRange): Map<number, Set<number>> {
    const byTable = new Map<number, Set<number>>()
    for (const partition of partitionsOf(range)) {
      for (const name of this.#options.givenUp(partition) ?? []) {
        const [low, block] = name.split(' ').map(Number) as [number, number]
        const blocks = byTable.get(low)
        if (blocks === undefined) byTable.set(low, new Set([block]))
        else blocks.add(block)
      }
    }
    return byTable
  }

  /**
   * What is left of the damage of the tables that stay, in the catalog and here, when a range was written anew. What lies in partitions of other
   * shards is theirs to say.
   */
  #mended(range: Compaction): { tableId: string; noted: readonly Damage[]; own: readonly Damage[] }[] {
    const { firstPartition, endPartition } = this.#rows
    return [...new Set(range.inputs.map(({ tableId }) => tableId))].flatMap((tableId) => {
      const rest = this.#rowsOfTable(tableId).flatMap((row) => [
        { firstPartition: row.firstPartition, endPartition: Math.min(row.endPartition, range.firstPartition) },
        { firstPartition: Math.max(row.firstPartition, range.endPartition), endPartition: row.endPartition },
      ])
      const isLeft = rest.some((part) => part.firstPartition < part.endPartition)
      const damage = this.#health.damageOf(tableId)
      if (!isLeft || damage.length === 0) return []
      const isIn = (part: PartitionRange, of: PartitionRange): boolean =>
        Math.max(part.firstPartition, of.firstPartition) < Math.min(part.endPartition, of.endPartition)
      const own = damage.filter((one) => rest.some((part) => isIn(one, part)))
      const isOthers = (one: Damage): boolean => one.firstPartition < firstPartition || one.endPartition > endPartition
      return [{ tableId, own, noted: damage.filter((one) => own.includes(one) || isOthers(one)) }]
    })
  }

  /** A smaller merge may fit; where it cannot be smaller, others may. */
  #foundNoRoom(compaction: Compaction): void {
    this.#failedForSpace = true
    const isLeast =
      compaction.inputBytes <= sliceBytesLeast || compaction.endPartition === compaction.firstPartition + 1
    if (isLeast) this.#tooLarge.push(compaction)
    else this.#sliceBytes = Math.floor(Math.min(this.#sliceBytes, compaction.inputBytes) / 2)
  }

  #flushed(tableId: string, table: WrittenTable, deadShare: number): { row: TableRow; facts: TableFacts } {
    const { firstPartition, endPartition } = table
    const row = { tableId, sequence: this.#rows.newestSequence + 1, level: 0, firstPartition, endPartition }
    const deadBytes = Math.round(deadShare * table.fileBytes)
    return { row, facts: { ...table, tableId, heldTombstones: 0, deadBytes, isComplete: true } }
  }

  #merged(
    tableId: string,
    table: WrittenTable,
    compaction: Compaction,
    deadBytes: number,
  ): { row: TableRow; facts: TableFacts } {
    const { outputSequence, outputLevel, isLast, isComplete } = compaction
    const { firstPartition, endPartition, tombstones } = table
    const row = { tableId, sequence: outputSequence, level: outputLevel, firstPartition, endPartition }
    return { row, facts: { ...table, tableId, heldTombstones: isLast ? tombstones : 0, deadBytes, isComplete } }
  }

  /** Opens what is added, commits, and shows it to readers; or takes all back. */
  #change(edit: TableEdit, others: readonly CatalogEdit[], done: (error: SunwiseError | undefined) => void): void {
    const before = this.#rows
    const after = before.apply(edit)
    const added = edit.add.map(({ facts }) => facts)
    const takeBack = (): void => {
      for (const { tableId } of added) {
        const table = this.#open.get(tableId)
        this.#open.delete(tableId)
        this.#facts.delete(tableId)
        if (table !== undefined) this.#view.leave(table)
      }
    }
    try {
      for (const facts of added) {
        this.#facts.set(facts.tableId, facts)
        this.#openTable(facts.tableId)
      }
    } catch (error) {
      takeBack()
      for (const { tableId } of added) this.#remove(this.#pathOf(tableId))
      return done(error as SunwiseError)
    }
    const named = after.tableIds()
    const unnamed = [...before.tableIds()].filter((tableId) => !named.has(tableId))
    const edits: CatalogEdit[] = [
      ...rowEdits(this.#options.shard, before, after),
      ...added.map((facts): CatalogEdit => ({ op: 'put', key: factsKey(facts.tableId), value: encodeFacts(facts) })),
      ...others,
    ]
    this.#options.commit(edits, unnamed, (error, orphans) => {
      if (error !== undefined) {
        // The catalog may hold the rows or not: the files stay for the next start, which knows.
        takeBack()
        return done(error)
      }
      this.#rows = after
      this.#rowsChanged = true
      for (const tableId of orphans) this.#orphans.add(tableId)
      this.#publish()
      for (const tableId of unnamed) {
        const table = this.#open.get(tableId)!
        this.#open.delete(tableId)
        this.#facts.delete(tableId)
        this.#health.forget(tableId)
        this.#view.leave(table)
      }
      done(undefined)
    })
  }

  /** Runs changes of the rows one after the other. */
  #exclusively(change: (release: () => void) => void): void {
    const start = (): void => {
      this.#isCommitting = true
      change(() => {
        this.#isCommitting = false
        this.#commits.shift()?.()
      })
    }
    if (this.#isCommitting) this.#commits.push(start)
    else start()
  }

  /** How often more came to be known of damage. */
  damageNews = 0

  /** Looks through tables, one at a time: those under suspicion, and all in turn. */
  #lookForDamage(nowMs: number): void {
    const { damagedReads } = this.#view
    if (damagedReads !== this.#damagedReadsSeen) {
      this.#damagedReadsSeen = damagedReads
      const { damagedTable: low } = this.#view
      for (const [text, { tableId }] of this.#open) if ((tableId.low | 0) === (low | 0)) this.#health.suspect(text)
    }
    if (this.#checking !== undefined) return
    const text = this.#health.next(this.#open.keys(), nowMs)
    if (text === undefined) return
    const table = this.#open.get(text)
    if (table === undefined) return this.#health.forget(text)
    this.#checking = text
    const { fileBytes } = this.#facts.get(text)!
    this.#options.jobs.run('check', { path: this.#pathOf(text), tableId: table.tableId }, (error, output) => {
      this.#checking = undefined
      // A table that has left meanwhile, and its file with it, was not damaged.
      if (this.#isClosed || this.#open.get(text) !== table) return
      if (!table.isReadable) return this.#health.stays(text)
      if (error !== undefined && error.code !== 'DISK_FAILED') return this.#health.putOff(text, nowMs)
      this.bytesChecked += fileBytes
      const damage =
        error === undefined
          ? this.#health.checked(text, fileBytes, checkWithin(output as TableCheck, this.#rowsOfTable(text)), nowMs)
          : this.#health.failed(text, fileBytes, error, nowMs)
      if (damage !== undefined) this.#quarantine(text, damage)
    })
  }

  #rowsOfTable(text: string): readonly TableRow[] {
    return this.#rows.rows.filter(({ tableId }) => tableId === text)
  }

  /** Partitions that have damage in a table that is theirs, as far as is known. */
  damagedPartitions(): number[] {
    return [...new Set(this.#health.walls(this.#rows).flatMap(partitionsOf))]
  }

  /** Notes damage for good, and says so once; or that there is none any more. */
  #quarantine(text: string, damage: readonly Damage[]): void {
    this.#rowsChanged = true
    this.damageNews++
    if (damage.length > 0) this.#reportDamage(text, damage)
    this.#exclusively((release) => {
      // The table may have left while another change of the rows was under way.
      this.#options.commit(this.#open.has(text) ? [damageRow(text, damage)] : [], [], (error) => {
        release()
        if (error !== undefined) this.#options.report(error)
      })
    })
  }

  #reportDamage(text: string, damage: readonly Damage[]): void {
    const more = damage.length > 1 ? `, and in ${damage.length - 1} other places` : ''
    const message = `Table "${this.#pathOf(text)}" is damaged: ${damage[0]!.detail}${more}. Keys that it may have answer TABLE_CORRUPT; restore a backup, or give them up with "sunwise start --salvage"`
    this.#options.report(new SunwiseError('TABLE_CORRUPT', message))
  }

  /** Opens a table at the start, or a place for it. What the disk refuses once may have been a moment's trouble. */
  #openOrMark(text: string, mayTryAgain = true): void {
    try {
      this.#openTable(text)
    } catch (error) {
      if (!(error instanceof SunwiseError) || (error.code !== 'TABLE_CORRUPT' && error.code !== 'DISK_FAILED'))
        throw error
      if (error.code === 'DISK_FAILED' && mayTryAgain) return this.#openOrMark(text, false)
      const tableId = tableIdOf(text)!
      this.#open.set(text, this.#view.openUnreadable(tableId, this.#pathOf(text)))
      this.#health.unreadable(text, error.message)
      this.#options.report(error)
    }
  }

  #openTable(text: string): void {
    const tableId = tableIdOf(text)
    assert(tableId !== undefined, 'Rows name tables')
    this.#open.set(text, this.#view.open(tableId, this.#pathOf(text)))
  }

  #publish(): void {
    this.#debt = debt(this.#rows, this.#facts)
    const open = (row: TableRow): OpenTable => this.#open.get(row.tableId)!
    const { firstPartition, endPartition } = this.#rows
    this.#view.publish(
      (partition) =>
        partition < firstPartition || partition >= endPartition ? [] : this.#rows.rowsOf(partition).map(open),
      this.#open.size,
    )
  }

  #closed(table: OpenTable): void {
    const text = tableIdText(table.tableId)
    if (this.#orphans.delete(text)) this.#remove(this.#pathOf(text))
  }

  /** Lets no file of a table be removed until `release`. */
  hold(): void {
    this.#isHeld = true
  }

  release(): void {
    this.#isHeld = false
    const paths = this.#heldPaths
    this.#heldPaths = []
    for (const path of paths) this.#remove(path)
  }

  /** Files that would be gone but for a hold. */
  get removalsHeld(): number {
    return this.#heldPaths.length
  }

  /** What the catalog holds of this shard's tables, as far as commits have ended. */
  get snapshot(): { rows: readonly TableRow[]; facts: readonly TableFacts[]; flushedThrough: number } {
    const facts = [...this.#rows.tableIds()].map((tableId) => this.#facts.get(tableId)!)
    return { rows: this.#rows.rows, facts, flushedThrough: this.#flushedThrough }
  }

  /** Takes a file away that nothing names; one that stays is removed at the next start. */
  #remove(path: string): void {
    if (this.#isHeld) {
      this.#heldPaths.push(path)
      return
    }
    this.#options.disk.remove(path, (error) => {
      if (error !== undefined) this.#options.report(error)
    })
  }

  #pathOf(tableId: string): string {
    return `${this.#options.directory}/${tableFileName(tableId)}`
  }
}

/** Name of a table's file. */
export function tableFileName(tableId: string): string {
  return `${tableId}.sst`
}

/** Key of the catalog row that says how far the log of a shard stands in tables. */
export function flushedKey(shard: number): string {
  return `flushed/${shard}`
}

/** That row: the sequence of the last segment, u32 little-endian. */
export function flushedEdit(shard: number, through: number): CatalogEdit {
  const value = new Uint8Array(4)
  new DataView(value.buffer).setUint32(0, through, true)
  return { op: 'put', key: flushedKey(shard), value }
}

/** The sequence in that row; 0 without one. @throws CATALOG_CORRUPT */
export function flushedOf(value: Uint8Array | undefined): number {
  if (value === undefined) return 0
  if (value.length !== 4) {
    throw new SunwiseError('CATALOG_CORRUPT', 'Cannot read the row of the catalog that says what was flushed')
  }
  return new DataView(value.buffer, value.byteOffset, 4).getUint32(0, true)
}

/** What the catalog is to say of the damage of a table. */
function damageRow(tableId: string, damage: readonly Damage[]): CatalogEdit {
  return damage.length > 0 ? damageEdit(tableId, damage) : { op: 'delete', key: damageKey(tableId) }
}

/** The block at or behind which (bucketId, key) of a partition would stand; -1: the table has nothing of it. */
function findBlockIn(meta: Int32Array, partition: number, bucketId: number, key: Uint8Array): number {
  const u8 = new Uint8Array(meta.buffer, meta.byteOffset, meta.byteLength)
  return findBlock(u8, meta, 0, partition, bucketId, key, 0, key.length)
}

/** What the actors of a table are called in the shard; undefined: the same. */
function indicesOf(
  actors: readonly ActorId[],
  actorIndex: (low: number, high: number) => number,
): Uint16Array | undefined {
  const indices = actors.map(({ low, high }) => actorIndex(low, high))
  return indices.every((index, position) => index === position) ? undefined : Uint16Array.from(indices)
}

function partitionsOf({ firstPartition, endPartition }: PartitionRange): number[] {
  return Array.from({ length: endPartition - firstPartition }, (_, index) => firstPartition + index)
}
