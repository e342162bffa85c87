/**
 * The store of one shard: memtable (arena and index), commit log and recycler behind four verbs. The owner finds a key,
 * allocates room for its next record, encodes it there, and stages it; `flush` writes the open group, syncs if a staged record
 * asked for it, and publishes in order.
 *
 *   ordinals of staged records:   published <= written <= staged
 *
 * A record becomes visible to readers only when it is published: in `sync` mode nobody reads what a crash could take back.
 *
 * Until tables exist, the memory of overwritten records comes back by recycling, first in, first out, as in a log-structured
 * file system (Rosenblum and Ousterhout, 1992): what is still live in the oldest segment is appended again, synced, published,
 * and only then is the segment retired. Because the oldest goes first, a tombstone in it has outlived everything older, and
 * may be dropped. At its budget the store refuses to grow and keeps serving reads, and deletes from a reserve.
 */
import { assert } from '../base/assert.ts'
import { copyWords } from '../base/bytes.ts'
import type { Crc32 } from '../base/crc32.ts'
import { SunwiseError } from '../base/errors.ts'
import { type HashSeed, KeyHash } from '../base/key-hash.ts'
import { Limits } from '../config.ts'
import type { Disk } from '../env.ts'
import type { HashTree } from '../versions/hash-tree.ts'
import { PartitionClock } from '../versions/partition-clock.ts'
import type { Stable } from '../versions/stability.ts'
import { TimestampClock } from '../versions/timestamp-clock.ts'
import { type ActorTable, expire } from '../versions/version-set.ts'
import { Arena, slabWordMask, wordsPerSlabBits } from './arena.ts'
import { CommitLog, segmentFileName } from './commit-log.ts'
import { DamagedPartitions } from './damaged-partitions.ts'
import { Flusher, growthReserve } from './flusher.ts'
import { HashIndex } from './hash-index.ts'
import { type HeldSegment, type HeldShard, heldHeadBytes } from './hold.ts'
import {
  type ActorId,
  ControlKind,
  clockEntriesMax,
  controlKind,
  decodeActors,
  decodeClocks,
  decodeSegmentHead,
  decodeTimestamps,
  decodeTrackedClocks,
  encodeActors,
  encodeClocks,
  encodeSegmentHead,
  encodeTimestamps,
  encodeTrackedClocks,
  isControl,
  trackedClocksBytesMax,
} from './log-control.ts'
import type { LogPosition } from './log-group.ts'
import { listSegments, type RecoveredLog, recoverLog } from './log-recovery.ts'
import { PartitionClocks } from './partition-clocks.ts'
import { type RecordVisit, visitPartition } from './partition-scan.ts'
import { isForgettable, PartitionTrees } from './partition-trees.ts'
import {
  decodeRecord,
  encodeRecord,
  RecordFlag,
  recordBucket,
  recordBytesAt,
  recordBytesOf,
  recordHeaderBytes,
  recordKeyBytes,
  recordSlot,
  simpleExpiry,
} from './record.ts'
import { Recycler } from './recycler.ts'
import { ControlWord, type ShardMemory } from './shard-memory.ts'
import { type GivenBlock, Seek } from './table-finder.ts'
import { Tables, type TablesOptions } from './tables.ts'
import { WritePace } from './write-pace.ts'

export type StoreOptions = {
  readonly disk: Disk
  readonly directory: string
  readonly memory: ShardMemory
  readonly budgetBytes: number
  readonly crc32: Crc32
  readonly hashSeed: HashSeed
  readonly shard: number
  readonly shards: number
  /** The actor that names this run's writes. */
  readonly actor: ActorId
  readonly preallocate: boolean
  readonly syncIntervalMs: number
  readonly salvage: boolean
  /** Where a clean stop ended the log, if the last end was one. */
  readonly syncedEnd?: LogPosition | undefined
  readonly partitionOfSlot: (slot: number) => number
  /** Data of such a bucket is gone; its records are dropped where they are met. */
  readonly isRetiredBucket: (bucketId: number) => boolean
  /** Where data goes that memory has no room for; without it the store holds what fits into memory. */
  readonly tables?:
    | Omit<
        TablesOptions,
        'disk' | 'memory' | 'crc32' | 'shard' | 'actorIndex' | 'actors' | 'replicated' | 'givenUp' | 'foundMore'
      >
    | undefined
}

/** What the owner of a store is told. */
export type StoreEvents = {
  /** All records staged up to this ordinal are as durable as they asked to be, and visible. */
  readonly published: (throughOrdinal: number) => void
  /** The records with ordinals from `from` on failed, and will not become visible in this run. */
  readonly failed: (from: number, error: SunwiseError) => void
}

/** For what else the head of a segment holds, and the head of a group. */
const segmentHeadBytes = 4096
const stagedMax = Limits.stagedRecordsMax
const stagedBuckets = 1 << 15
/** Open group bytes at which the owner should flush before it takes more. */
const openBytesMax = Limits.openGroupBytesMax
/** What a record is for: it decides how far into the reserve of segments it may go. */
export type Purpose = 'grow' | 'delete' | 'recycle'
/**
 * Segments, of those that the budget allows, that are kept from records of each purpose. A recycling pass needs at most two: so it
 * always ends, and deletes always find room.
 */
const reservedSegments: Record<Purpose, number> = { grow: growthReserve, delete: 2, recycle: 0 }
const segmentsAllowedMin = 6
/** Part of the budget that segments may take where data can go to tables. */
const segmentsShareMax = 5 / 8
/**
 * Part of the budget that caches of tables leave alone, where that is no more than so many bytes, and a part that they leave in any case: index
 * and metas grow with what is read, and beside the budget stand the heap and the malloc of the thread, which are larger for a
 * shard whose caches are full.
 */
const spareShare = 1 / 8
const spareBytesMax = 16 * 1024 * 1024
const spareShareLeast = 1 / 32
const cachesGrowMs = 500
/** Debt of merging from which on writers are slowed down, and part of the memory that they come to wait for when it is left alone. */
const debtFree = 0.5
const marginShare = 1 / 8
/** How long writers are held up at most while the disk is full. */
const fullDiskDelayMs = 250
/** Live data beyond this share of the segments makes recycling too costly: growth is refused. */
const liveShareMax = 0.9
/** Records name actors by a u16. */
const actorsMax = 65535
/** With less room than this left in the active segment, and more on its way, the owner waits for it. */
const waitRoomBytes = 128 * 1024
const sweepChunksPerStep = 16
const sweepRecordsMax = 1024

export class Store {
  readonly #options: StoreOptions
  readonly #events: StoreEvents
  readonly #arena: Arena
  readonly #index: HashIndex
  readonly #hash: KeyHash
  readonly #actors: Int32Array
  readonly #control: Int32Array
  /** News of the disk that was acted upon. */
  #diskNews = 0
  #actorCount = 0
  /** Actors that the log defines once the open group is written, and those that it defines whatever becomes of that group. */
  #actorsDefined = 0
  #actorsSafe = 0
  #actor = 0
  #log: CommitLog | undefined
  /** The tables of the shard, if it may have any. */
  readonly tables: Tables | undefined
  #flusher: Flusher | undefined

  readonly #timestamps = new TimestampClock(Limits.clockOffsetMsMax)
  /**
   * Times up to here may have been given as far as the log knows once the open group is written; as far as it knows whatever becomes of that
   * group; and as far as it stands in front of a record that is synced.
   */
  #timestampsReserved = 0
  #timestampsSafe = 0
  #timestampsOrdered = 0

  readonly #clocks = new PartitionClocks()
  readonly #trees = new PartitionTrees({
    lowOf: (index) => this.actorLow(index),
    highOf: (index) => this.actorHigh(index),
  })
  /** Partitions whose clocks begin in the open group. */
  readonly #trackedOpen: number[] = []
  readonly damaged = new DamagedPartitions({
    reset: (partition) => this.#resetClock(partition),
    setResyncing: (partition, isResyncing) => this.tables?.finder.setResyncing(partition, isResyncing),
    setGivenUp: (partition, isGivenUp) => this.tables?.finder.setGivenUp(partition, isGivenUp),
    // The log only grows, over restarts, too.
    nextGeneration: () => (this.#openLog.position + ++this.#resets) % 0x7fff_ffff || 1,
  })
  #resets = 0
  /** Where the log has the clocks of partitions that have got back what they lost: what it said of them before does not count. */
  readonly #clocksAnew = new Map<number, number>()
  #damageNewsSeen = -1
  /** The partitions that were known to be damaged, and had other replicas. */
  #damagedSeen: ReadonlySet<number> = new Set()
  /** Clocks were reset under this run's actor: another one is wanted. */
  wantsActor = false
  readonly #actorTable: ActorTable = {
    lowOf: (index) => this.actorLow(index),
    highOf: (index) => this.actorHigh(index),
  }

  // Staged records, a ring by ordinal.
  readonly #stagedAddress = new Uint32Array(stagedMax)
  readonly #stagedHash = new Int32Array(stagedMax)
  readonly #stagedNext = new Float64Array(stagedMax)
  /** 1: a copy of what the store holds already, elsewhere. */
  readonly #stagedIsCopy = new Uint8Array(stagedMax)
  /** Index entry that the record replaces, as `find` saw it: where it is and what it points to; 0: none. */
  readonly #stagedSlab = new Uint8Array(stagedMax)
  readonly #stagedWord = new Uint32Array(stagedMax)
  readonly #stagedOld = new Uint32Array(stagedMax)
  /** Ordinal of the newest staged record per hash bucket; -1: none. */
  readonly #stagedHeads = new Float64Array(stagedBuckets).fill(-1)
  #staged = 0
  #written = 0
  #published = 0
  /** Records up to this ordinal must be synced before they are published. */
  #syncThrough = 0

  /** What the last `find` found in the index. */
  #foundOld = 0
  #liveBytes = 0
  #expiring = 0
  /** The same by segment, so that a segment whose entries are swept from the index is taken off the books at once. */
  readonly #liveBytesOf: Float64Array
  readonly #expiringOf: Int32Array
  #lastIntervalSyncMs = 0
  /** Most segments that were ever in use, and when the caches of tables may next grow. */
  #segmentsTouched = 0
  /** What waits for the next step. */
  readonly #onStep: (() => void)[] = []
  readonly #writePace = new WritePace()
  /** When writers were last let through. */
  #delayedSinceMs = 0
  #cachesGrowMs = 0
  #sweepPartition = 0
  #sweepPosition = 0
  /** Partitions that a sweep for deleted buckets has still to visit. */
  #retiredPartitionsLeft = 0
  readonly #recycler: Recycler

  /** Why the last `allocate` returned 0. */
  refusal: SunwiseError | undefined
  expired = 0

  constructor(options: StoreOptions, events: StoreEvents) {
    this.#options = options
    this.#events = events
    this.#arena = new Arena(options.memory.arena)
    this.#index = new HashIndex(options.memory.index, this.#arena)
    this.#hash = new KeyHash(options.hashSeed)
    this.#actors = new Int32Array(options.memory.actors)
    this.#control = new Int32Array(options.memory.control)
    this.#liveBytesOf = new Float64Array(this.#arena.segments)
    this.#expiringOf = new Int32Array(this.#arena.segments)
    this.#recycler = this.#makeRecycler()
    const { disk, memory, crc32, shard, tables } = options
    if (tables === undefined) return
    const actorIndex = (low: number, high: number): number => this.actorIndex(low, high)
    this.tables = new Tables({
      ...tables,
      disk,
      memory,
      crc32,
      shard,
      actorIndex,
      actors: () => this.#actorIds(),
      replicated: () => this.#clocks.replicated((partition) => this.#trees.stableOf(partition)),
      givenUp: (partition) => this.#givenUp(partition),
      foundMore: (partitions) => {
        for (const partition of partitions) if (this.damaged.has(partition)) this.damaged.found(partition)
      },
    })
  }

  get arena(): Arena {
    return this.#arena
  }

  get index(): HashIndex {
    return this.#index
  }

  get liveBytes(): number {
    return this.#liveBytes
  }

  /** Segments whose memory was given back by copying what was live in them. */
  get recycledSegments(): number {
    return this.#recycler.segments
  }

  /** Index of this run's actor in the log's table. */
  get actor(): number {
    return this.#actor
  }

  get failure(): SunwiseError | undefined {
    return this.#log?.failure
  }

  get #openLog(): CommitLog {
    assert(this.#log !== undefined, 'The store has recovered')
    return this.#log
  }

  get groups(): number {
    return this.#openLog.groups
  }

  get syncs(): number {
    return this.#openLog.syncs
  }

  get bytesWritten(): number {
    return this.#openLog.bytesWritten
  }

  get segmentsUsed(): number {
    return this.#openLog.segmentsUsed
  }

  /** Bytes that count against the budget: segments taken and the index. */
  get bytesUsed(): number {
    const tableBytes = this.tables?.bytesUsed ?? 0
    return this.#openLog.segmentsUsed * this.#arena.segmentBytes + this.#index.bytesUsed + tableBytes
  }

  /** Ordinal that the next staged record gets. */
  get nextOrdinal(): number {
    return this.#staged
  }

  /** Nothing is staged, written or in flight. */
  get isIdle(): boolean {
    const isCommitting = this.tables?.isCommitting ?? false
    return this.#published === this.#staged && !this.#openLog.syncing && !this.#openLog.retiring && !isCommitting
  }

  /** Records of the open group, which `flush` would write. */
  get openRecords(): number {
    return this.#staged - this.#written
  }

  /** Whether something staged must be synced before it is published. */
  get mustSync(): boolean {
    return this.#syncThrough > this.#published
  }

  /** All that was staged is visible. */
  get isPublished(): boolean {
    return this.#published === this.#staged
  }

  /** Whether all that is visible, or will be once everything staged is, is on stable storage then. */
  get isDurableOncePublished(): boolean {
    if (this.#published < this.#staged && this.#syncThrough >= this.#staged) return true
    return this.#published === this.#staged && !this.#openLog.hasUnsynced
  }

  /** Whether all that is visible is on stable storage now. */
  get isDurable(): boolean {
    return !this.#openLog.hasUnsynced
  }

  /** Whether writers are to wait a little, so that they need not wait long later. Asked, and told the time, once a turn or so. */
  isDelayed(nowMs: number): boolean {
    if (this.tables === undefined || this.#openLog.failure !== undefined) return false
    const pressure = this.#pressure()
    this.#control[ControlWord.writersWait] = pressure > 0 ? 1 : 0
    if (!this.#writePace.isBehind(pressure, this.#openLog.position, nowMs)) {
      this.#delayedSinceMs = nowMs
      return false
    }
    // On a full disk most of what waits is to be refused, and is to hear so before its deadline.
    if (!this.#isDiskFull || nowMs - this.#delayedSinceMs < fullDiskDelayMs) return true
    this.#delayedSinceMs = nowMs
    return false
  }

  /** From 0 to 1, how close writers are to the point where they must stop. */
  #pressure(): number {
    const merging = (this.tables!.debt - debtFree) / (1 - debtFree)
    if (this.#flusher?.isAtEase === true) return Math.max(0, Math.min(1, merging))
    const usable = this.#segmentsUsable()
    const log = this.#openLog
    const leftBytes = (usable - log.segmentsUsed) * this.#arena.segmentBytes + log.roomBytes
    const memory = 1 - leftBytes / (usable * this.#arena.segmentBytes * marginShare)
    return Math.max(0, Math.min(1, Math.max(merging, memory)))
  }

  /** Whether the owner may take more commands now; otherwise it flushes and comes back. */
  get canAccept(): boolean {
    const log = this.#openLog
    if (log.failure !== undefined) return true
    if (this.#staged - this.#published >= stagedMax - 1024 || log.openBytes >= openBytesMax) return false
    const isInReserve = log.segmentsUsed > this.#segmentsUsable()
    return (!isInReserve && log.roomBytes >= waitRoomBytes) || !this.roomWillCome() || this.#isFull(waitRoomBytes)
  }

  /** Room comes with the answer of a job: until then there is nothing to do for it. */
  get waitsForJob(): boolean {
    return this.#flusher?.isWaiting ?? false
  }

  /** Reads the log and builds the index; `done` when the store is ready. */
  recover(
    progress: (records: number) => void,
    done: (error: SunwiseError | undefined, log: RecoveredLog | undefined) => void,
  ): void {
    const { disk, directory, crc32, salvage, syncedEnd } = this.#options
    let records = 0
    let damage: SunwiseError | undefined
    recoverLog(
      {
        disk,
        directory,
        arena: this.#arena,
        crc32,
        salvage,
        syncedEnd,
        readOnly: false,
        alive: () => progress(records),
        visit: (address, u8, i32, at, sequence) => {
          damage ??= this.#replay(address, u8, i32, at, sequence)
          if ((++records & 0xffff) === 0) progress(records)
        },
      },
      (error, log) => {
        if (error !== undefined || damage !== undefined) return done(error ?? damage, undefined)
        try {
          this.tables?.open()
        } catch (cause) {
          return done(cause as SunwiseError, undefined)
        }
        this.#adoptActor()
        this.#timestamps.begin(this.#timestampsReserved)
        this.#timestampsSafe = this.#timestampsReserved
        this.#timestampsOrdered = this.#timestampsReserved
        this.#log = new CommitLog({
          disk,
          directory,
          arena: this.#arena,
          crc32,
          segments: log!.segments,
          endSequence: log!.endSequence,
          endBytes: log!.endBytes,
          // A restored log may lack the marks of segments that were flushed: their sequences are never used again.
          sequenceMax: Math.max(log!.sequenceMax, this.tables?.flushedThrough ?? 0),
          preallocate: this.#options.preallocate,
          mayTakeSegment: () => this.#openLog.segmentsUsed < this.#segmentsAllowed(),
          segmentHead: (previousSequence, previousBytes, oldestSequence) =>
            this.#segmentHead(previousSequence, previousBytes, oldestSequence),
        })
        if (this.tables !== undefined) this.#flusher = this.#makeFlusher(this.#log, this.tables)
        this.noteDamage()
        progress(records)
        this.#log.prepare()
        done(undefined, log)
      },
    )
  }

  #makeRecycler(): Recycler {
    const store = this
    return new Recycler({
      arena: this.#arena,
      crc32: this.#options.crc32,
      get log() {
        return store.#openLog
      },
      get liveBytes() {
        return store.#liveBytes
      },
      get staged() {
        return store.#staged
      },
      get published() {
        return store.#published
      },
      segmentsAllowed: () => this.#segmentsAllowed(),
      recycle: (address, u8, i32, at, epochMs) => this.#recycleRecord(address, u8, i32, at, epochMs),
      syncStaged: () => {
        this.#syncThrough = Math.max(this.#syncThrough, this.#staged)
      },
      sync: () => this.#sync(),
      failAll: (error) => this.#failAll(error),
    })
  }

  #makeFlusher(log: CommitLog, tables: Tables): Flusher {
    const store = this
    return new Flusher({
      arena: this.#arena,
      index: this.#index,
      log,
      tables,
      segmentsAllowed: () => this.#segmentsAllowed(),
      diskRoomBytes: () => (this.#isDiskFull ? this.#diskRoomBytes : undefined),
      liveBytesOf: (segment) => this.#liveBytesOf[segment]!,
      hasUnpublishedIn: (segments) => this.#hasUnpublishedIn(segments),
      sync: () => this.#sync(),
      sweptOut: (segment) => this.#sweptOut(segment),
      get staged() {
        return store.#staged
      },
      get published() {
        return store.#published
      },
    })
  }

  #hasUnpublishedIn(segments: Uint8Array): boolean {
    for (let ordinal = this.#published; ordinal < this.#staged; ordinal++) {
      if (segments[this.#arena.segmentOfAddress(this.#stagedAddress[ordinal % stagedMax]!)] === 1) return true
    }
    return false
  }

  #sweptOut(segment: number): void {
    this.#liveBytes -= this.#liveBytesOf[segment]!
    this.#expiring -= this.#expiringOf[segment]!
    this.#liveBytesOf[segment] = 0
    this.#expiringOf[segment] = 0
  }

  #actorIds(): ActorId[] {
    return Array.from({ length: this.#actorCount }, (_, index) => ({
      low: this.actorLow(index),
      high: this.actorHigh(index),
    }))
  }

  /**
   * Address of the newest record of a key that `find` did not find, if tables hold one: it is staged again, as if it were new, so that
   * whoever needs it finds it in memory. 0: there is none; -1: no room, see `refusal`; -2: a block must be read first, see
   * `Tables.load`; all that were read for it are `given`. A full disk does not keep it from who deletes the key then.
   * @throws TABLE_CORRUPT, DISK_FAILED
   */
  fetch(
    partition: number,
    hash: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
    given: readonly GivenBlock[],
    isForDelete: boolean,
  ): number {
    const finder = this.tables?.finder
    if (finder === undefined || finder.isEmpty) return 0
    const found = this.seekTables(partition, bucketId, key, keyStart, keyBytes, given)
    if (found !== Seek.found) return found === Seek.absent ? 0 : -2
    const bytes = recordBytesAt(finder.i32, finder.at)
    const address = this.allocate(bytes, isForDelete ? 0 : bytes, 'grow')
    if (address === 0) return -1
    const target = this.#arena.i32[address >>> wordsPerSlabBits]!
    copyWords(finder.i32, finder.at >>> 2, target, address & slabWordMask, bytes >>> 2)
    this.#foundOld = 0
    this.#stageRecord(address, hash, false, true)
    return address
  }

  /**
   * As `seek` of the finder, for what it shows then; damage of a partition that has got back what it lost is passed over. @throws TABLE_CORRUPT,
   * DISK_FAILED
   */
  seekTables(
    partition: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
    given: readonly GivenBlock[],
  ): number {
    const { finder } = this.tables!
    const isPassing = finder.damaged === undefined && this.damaged.givenUp(partition) !== undefined
    if (isPassing) finder.damaged = this.passerOf(partition)
    try {
      return finder.seek(partition, bucketId, key, keyStart, keyBytes, given)
    } finally {
      if (isPassing) finder.damaged = undefined
    }
  }

  /** Who is told of damage of a partition that has got back what it lost, and lets pass what is known; undefined: nothing may pass. */
  passerOf(partition: number): ((tableIdLow: number, block: number) => void) | undefined {
    if (this.damaged.givenUp(partition) === undefined) return undefined
    return (tableIdLow, block) => this.damaged.passOver(partition, tableIdLow, block)
  }

  /** False: no table holds the key, as far as filters tell without reading. */
  mayBeInTables(partition: number, bucketId: number, key: Uint8Array, keyStart: number, keyBytes: number): boolean {
    const finder = this.tables?.finder
    return finder !== undefined && !finder.isEmpty && finder.mayHold(partition, bucketId, key, keyStart, keyBytes)
  }

  /** Address of the newest record of a key, staged ones included; 0 if there is none. */
  find(partition: number, hash: number, bucketId: number, key: Uint8Array, keyStart: number, keyBytes: number): number {
    this.#foundOld = 0
    for (let ordinal = this.#stagedHeads[hash & (stagedBuckets - 1)]!; ordinal >= this.#published; ) {
      const at = ordinal % stagedMax
      if (
        this.#stagedHash[at] === (hash | 0) &&
        this.#isKey(this.#stagedAddress[at]!, bucketId, key, keyStart, keyBytes)
      ) {
        return this.#stagedAddress[at]!
      }
      ordinal = this.#stagedNext[at]!
    }
    this.#foundOld = this.#index.find(partition, hash, bucketId, key, keyStart, keyBytes)
    return this.#foundOld
  }

  /** The largest record that finds room in an empty segment, whatever its head holds. */
  get recordBytesMax(): number {
    return this.#arena.segmentBytes - 2 * trackedClocksBytesMax(this.#arena.segmentBytes) - segmentHeadBytes
  }

  /** Counter for the next write of this run's actor in a partition. */
  nextCounter(partition: number): number {
    return this.#clocks.nextCounter(partition)
  }

  useCounter(partition: number, counter: number): void {
    this.#clocks.useCounter(partition, counter)
  }

  /**
   * The time of the next record, a write where the last one wins: see TimestampClock. The log reserves times ahead of use, half a second of
   * them with one small record in a group that is written anyway; so a restart begins above all that were given, at most as much
   * ahead of the clock as clocks may be apart.
   */
  nextTimestamp(nowMs: number, wanted: number, latest: number): number {
    return this.#timestamps.next(nowMs, wanted, latest)
  }

  /** Another replica gave this time to what the next record holds. */
  seeTimestamp(nowMs: number, timestamp: number): void {
    this.#timestamps.see(nowMs, timestamp)
  }

  /** The clock of a partition with replicas elsewhere; undefined where `track` has not begun one. */
  clockOf(partition: number): PartitionClock | undefined {
    return this.#clocks.clockOf(partition)
  }

  /**
   * From now on partitions have replicas elsewhere; their clocks begin, and stand in the log before any version from there. `areEmpty`:
   * this replica is new to them and has nothing. False without room in the log: none is tracked then; try again later.
   */
  track(partitions: readonly number[], areEmpty: boolean): boolean {
    const fresh = partitions.filter((partition) => this.#clocks.clockOf(partition) === undefined)
    if (fresh.length === 0) return true
    const clocks = fresh
      .sort((a, b) => a - b)
      .map((partition) => ({ partition, clock: this.#clocks.begun(partition, areEmpty) }))
    // What is damaged of them is told apart next.
    this.#damageNewsSeen = -1
    const log = this.#openLog
    if (log.failure !== undefined) return false
    const groupsBefore = log.groups
    try {
      if (!this.#defineActors()) return false
      const encoded = clocks.map(({ partition, clock }) => ({ partition, clock: clock.encode(this.#actorTable) }))
      if (!this.#appendControl(encodeTrackedClocks(encoded))) return false
    } catch (error) {
      if (!(error instanceof SunwiseError)) throw error
      this.#dropUnwritten(error)
      return false
    }
    if (log.groups !== groupsBefore) this.#noteWritten()
    for (const { partition, clock } of clocks) this.#clocks.take(partition, clock)
    this.#trackedOpen.push(...fresh)
    return true
  }

  /** What was staged and tracked so far stands in the log. */
  #noteWritten(): void {
    this.#written = this.#staged
    this.#trackedOpen.length = 0
  }

  /** The index of an actor named by a context, adding it to the table if it is new; -1 if the table is full. */
  actorIndex(low: number, high: number): number {
    for (let index = 0; index < this.#actorCount; index++) {
      if (this.#actors[index * 2]! >>> 0 === low && this.#actors[index * 2 + 1]! >>> 0 === high) return index
    }
    return this.#actorCount >= actorsMax ? -1 : this.#addActor(low, high)
  }

  /** Takes a new actor for this run, once recovered: the one before may have named writes that this log does not hold. */
  changeActor(actor: ActorId): void {
    const index = this.actorIndex(actor.low, actor.high)
    assert(index >= 0, 'The actor table has room for one more incarnation')
    this.#actor = index
    this.#clocks.changeActor(index)
    this.wantsActor = false
  }

  actorLow(index: number): number {
    return this.#actors[index * 2]! >>> 0
  }

  actorHigh(index: number): number {
    return this.#actors[index * 2 + 1]! >>> 0
  }

  /**
   * Room for a record of `bytes` in the open group; 0 with `refusal` set where there is none. `growthBytes` is by how much live
   * data grows.
   */
  allocate(bytes: number, growthBytes: number, purpose: Purpose): number {
    const log = this.#openLog
    this.refusal = undefined
    if (log.failure !== undefined) {
      this.refusal = log.failure
      return 0
    }
    if (purpose === 'grow' && growthBytes > 0 && this.#isDiskFull) {
      this.refusal = new SunwiseError(
        'DISK_FULL',
        `Cannot store ${bytes} bytes: the disk has no room for more; free some, or delete data, and writes are taken again by themselves`,
      )
      return 0
    }
    if (purpose === 'grow' && this.#flusher?.failure !== undefined && log.segmentsUsed >= this.#segmentsUsable()) {
      this.refusal = refusalOf(this.#flusher.failure)
      return 0
    }
    if (purpose === 'grow' && this.#flusher !== undefined && !this.#index.hasRoom()) {
      this.refusal = new SunwiseError(
        'OVERLOADED',
        'Cannot store the value now: the hash table in memory is full, and what is oldest in it is being written to a table; try again',
      )
      return 0
    }
    if (purpose === 'grow' && growthBytes > 0 && this.#isFull(growthBytes)) {
      this.refusal = new SunwiseError(
        'STORE_FULL',
        `Cannot store ${bytes} bytes: the memory budget of shard ${this.#options.shard} (${this.#options.budgetBytes} bytes) is used up; delete data or start with more --memory`,
      )
      return 0
    }
    if (purpose === 'grow' && growthBytes > 0 && log.isScarce && !log.hasSpare) {
      // What is left of the last segment is for deletes and the recycler, who make room without the help of anybody.
      this.refusal =
        log.spaceError ?? new SunwiseError('DISK_FULL', 'Cannot store the value: the disk is full; free space')
      return 0
    }
    // Where recycling wins nothing, it rests, until deletes made it worth while: they may use a part of its reserve.
    const lent = purpose === 'delete' && this.#recycler.isExhausted ? 1 : 0
    const segmentsMax = this.#segmentsAllowed() - reservedSegments[purpose] + lent
    if (log.segmentsUsed > segmentsMax || (bytes > log.roomBytes && log.segmentsUsed === segmentsMax)) {
      this.refusal =
        this.#isDiskFull && !this.roomWillCome()
          ? new SunwiseError(
              'DISK_FULL',
              'Cannot take the request: memory and disk are used up; free space on the disk',
            )
          : new SunwiseError('OVERLOADED', 'Cannot store the value now: memory is being recycled; try again')
      return 0
    }
    const groupsBefore = log.groups
    let address = 0
    try {
      if (this.#defineActors() && this.#reserveTimestamps()) address = log.append(bytes)
    } catch (error) {
      if (!(error instanceof SunwiseError)) throw error
      this.refusal = error
      this.#dropUnwritten(error)
      return 0
    }
    if (log.groups !== groupsBefore) this.#noteWritten()
    if (address === 0) {
      this.refusal =
        log.failure ??
        log.spaceError ??
        new SunwiseError('OVERLOADED', 'Cannot store the value now: the next log segment is being prepared; try again')
      log.prepare()
    }
    return address
  }

  /** Writes into the open group which actors are new: before the first record that may name them. False without room. */
  #defineActors(): boolean {
    const first = this.#actorsDefined
    if (first === this.#actorCount) return true
    const ids: ActorId[] = []
    for (let index = first; index < this.#actorCount; index++) {
      ids.push({ low: this.actorLow(index), high: this.actorHigh(index) })
    }
    if (!this.#appendControl(encodeActors(first, ids))) return false
    this.#actorsDefined = this.#actorCount
    return true
  }

  /** Writes into the open group that times are used up to the mark and some more: before the first record that has one. False without room. */
  #reserveTimestamps(): boolean {
    const { mark } = this.#timestamps
    if (mark <= this.#timestampsReserved) return true
    const through = mark + Limits.clockOffsetMsMax
    if (!this.#appendControl(encodeTimestamps(through))) return false
    this.#timestampsReserved = through
    return true
  }

  /** Writes a control record into the open group. False without room. */
  #appendControl(record: Uint8Array): boolean {
    const address = this.#openLog.append(record.length)
    if (address === 0) return false
    this.#arena.u8[address >>> wordsPerSlabBits]!.set(record, (address & slabWordMask) << 2)
    return true
  }

  /** Stages the record encoded at `address`, of the key that `find` looked for last. Returns its ordinal. */
  stage(address: number, hash: number, sync: boolean): number {
    return this.#stageRecord(address, hash, sync)
  }

  /** Writes the open group and moves what is staged towards publication; see the file header. Call at the end of a turn. */
  flush(): void {
    const log = this.#openLog
    this.#flusher?.sweep()
    log.prepare()
    if (this.#published === this.#staged && log.openBytes === 0) return
    if (this.#written !== this.#staged || log.openBytes > 0) {
      try {
        log.write()
        this.#noteWritten()
        this.#actorsSafe = this.#actorsDefined
        this.#timestampsSafe = this.#timestampsReserved
      } catch (error) {
        if (!(error instanceof SunwiseError)) throw error
        this.#dropUnwritten(error)
      }
    }
    this.#advance()
  }

  /** Background work in small steps: interval syncs, expiry, recycling, trying a full disk again. Then call `flush`. */
  step(monotonicMs: number, epochMs: number): void {
    const log = this.#openLog
    for (const waiting of this.#onStep.splice(0)) waiting()
    if (log.failure !== undefined) return
    this.#heedDiskNews()
    if (monotonicMs - this.#lastIntervalSyncMs >= this.#options.syncIntervalMs) {
      this.#lastIntervalSyncMs = monotonicMs
      log.retrySpace()
      if (log.unsyncedSegments > 0 && !log.syncing) this.#sync()
    }
    log.prepare()
    this.#sweep(epochMs)
    this.tables?.step(monotonicMs, epochMs, {
      roomBytes: this.#diskRoomBytes,
      isScarce: Atomics.load(this.#control, ControlWord.diskScarce) === 1,
      isFull: this.#isDiskFull,
    })
    this.#growCaches(monotonicMs)
    if (this.#flusher !== undefined) {
      // A pass that was begun is ended first, whatever is due meanwhile: neither could go on behind the other.
      if (!this.#recycler.isBusy) {
        this.#flusher.step(monotonicMs)
        if (!this.#flusher.isResting || this.#flusher.isDue) return
      }
    }
    this.#recycler.step(epochMs)
  }

  /** Room may have come on the disk: what waits after a DISK_FULL is tried again at once. */
  #heedDiskNews(): void {
    const news = Atomics.load(this.#control, ControlWord.diskNews)
    if (news === this.#diskNews) return
    this.#diskNews = news
    this.#openLog.retrySpace()
    this.#flusher?.retrySpace()
    this.tables?.retrySpace()
  }

  /** Whether the disk has no room for growth, as the node says; see disk-space.ts. */
  get #isDiskFull(): boolean {
    return Atomics.load(this.#control, ControlWord.diskFull) === 1
  }

  /** This shard's share of what is left of the disk; infinite where nobody watches it. */
  get #diskRoomBytes(): number {
    const freeKiB = Atomics.load(this.#control, ControlWord.diskFreeKiB)
    if (freeKiB === 0 && !this.#isDiskFull) return Number.POSITIVE_INFINITY
    return (freeKiB * 1024) / this.#options.shards
  }

  /** How often the log met DISK_FULL, or tables would have. */
  get spaceErrors(): number {
    return this.#openLog.spaceErrors + (this.tables?.spaceWants ?? 0) + (this.#flusher?.spaceWants ?? 0)
  }

  /** Syncs whatever has been written, then closes the files, and says where the log ends. Nothing may be staged. */
  close(done: (error: SunwiseError | undefined, end: LogPosition) => void): void {
    const log = this.#log
    if (log === undefined) return done(undefined, { sequence: 0, bytes: 0 })
    assert(this.#published === this.#staged && !log.syncing, 'Everything is published before the store closes')
    // A job that ends during the sync comes too late to change what the catalog holds.
    this.tables?.freeze()
    log.sync((error) => {
      log.close()
      this.tables?.close()
      done(error, log.syncedEnd)
    })
  }

  /**
   * Holds what a backup copies, until `releaseLog` and `release`: see hold.ts. `done` when the log is on stable storage so far. Memory
   * that fills meanwhile is not given back: the log is to be released soon.
   */
  hold(done: (error: SunwiseError | undefined, held: HeldShard | undefined) => void): void {
    const log = this.#log
    if (log === undefined)
      return done(new SunwiseError('NOT_READY', 'Cannot hold the files: the log is being read'), undefined)
    this.flush()
    if (log.failure !== undefined) return done(log.failure, undefined)
    log.hold()
    this.tables?.hold()
    const end = log.writtenEnd
    let segments: readonly HeldSegment[]
    try {
      segments = this.#heldSegments(log)
    } catch (error) {
      return done(error as SunwiseError, undefined)
    }
    const { rows = [], facts = [], flushedThrough = 0 } = this.tables?.snapshot ?? {}
    const sync = (): void => {
      if (log.failure !== undefined) return done(log.failure, undefined)
      const { syncedEnd } = log
      const isBehind =
        syncedEnd.sequence < end.sequence || (syncedEnd.sequence === end.sequence && syncedEnd.bytes < end.bytes)
      if (!isBehind || !log.hasUnsynced) return done(undefined, { segments, rows, facts, flushedThrough })
      if (!log.syncing) this.#sync()
      this.#onStep.push(sync)
    }
    sync()
  }

  /** The log of a held shard was copied: it may give memory back. A shard that crashed since holds nothing. */
  releaseLog(): void {
    this.#log?.release()
  }

  /** Whether the oldest segment is being retired just now: a hold does not stop that any more. */
  get isRetiring(): boolean {
    return this.#log?.retiring === true && !this.isRetirementHeld
  }

  /** Whether a hold keeps a segment from being retired. */
  get isRetirementHeld(): boolean {
    return this.#log?.isRetirementHeld ?? false
  }

  /** Ends a hold. */
  release(): void {
    this.#log?.release()
    this.tables?.release()
  }

  /** @throws DISK_FAILED */
  #heldSegments(log: CommitLog): HeldSegment[] {
    const { disk, directory } = this.#options
    const written = new Map(log.written.map(({ segment, bytes }) => [segment, bytes]))
    return listSegments(disk, directory).map((segment) => {
      const bytes = written.get(segment)
      if (bytes !== undefined) return { segment, bytes, head: undefined }
      const file = disk.openNow(`${directory}/${segmentFileName(segment)}`)
      try {
        const head = new Uint8Array(heldHeadBytes)
        const read = file.readNow(head, 0, heldHeadBytes, 0)
        return { segment, bytes: read, head: head.subarray(0, read) }
      } finally {
        file.close()
      }
    })
  }

  /** Whether growth is refused now, and why: for readiness and metrics. */
  get writeRefusal(): 'memory' | 'disk' | undefined {
    if (this.#isDiskFull || (this.#openLog.spaceError !== undefined && !this.#openLog.hasSpare)) return 'disk'
    const failure = this.#flusher?.failure
    if (failure !== undefined && this.#openLog.segmentsUsed >= this.#segmentsUsable()) {
      return failure.code === 'DISK_FULL' ? 'disk' : 'memory'
    }
    return this.#isFull(4096) ? 'memory' : undefined
  }

  /** Gives memory that nothing else has ever taken to the caches of tables, where they want it. */
  #growCaches(monotonicMs: number): void {
    if (this.tables === undefined) return
    const { budgetBytes } = this.#options
    this.#segmentsTouched = Math.max(this.#segmentsTouched, this.#openLog.segmentsUsed)
    if (monotonicMs < this.#cachesGrowMs) return
    this.#cachesGrowMs = monotonicMs + cachesGrowMs
    const takenBytes = this.#segmentsTouched * this.#arena.segmentBytes + this.#index.bytesUsed + this.tables.bytesUsed
    const spareBytes = Math.max(budgetBytes * spareShareLeast, Math.min(budgetBytes * spareShare, spareBytesMax))
    this.tables.growCaches(budgetBytes - spareBytes - takenBytes)
  }

  #segmentsAllowed(): number {
    const { budgetBytes } = this.#options
    const othersBytes = this.#index.bytesUsed + (this.tables?.bytesUsed ?? 0)
    // Memory that was touched stays with the process: what index and metas will need is left alone from the start.
    const share = this.tables === undefined ? 1 : segmentsShareMax
    const bytes = Math.min(budgetBytes - othersBytes, budgetBytes * share)
    const allowed = Math.max(segmentsAllowedMin, Math.floor(bytes / this.#arena.segmentBytes))
    return Math.min(allowed, this.#arena.segments)
  }

  /** Segments that data may take: the rest is for deletes and the recycler. */
  #segmentsUsable(): number {
    return this.#segmentsAllowed() - reservedSegments.grow
  }

  /** Whether live data leaves no room to grow by `bytes`, however much is recycled. */
  #isFull(bytes: number): boolean {
    if (this.#flusher !== undefined) return false
    if (!this.#index.hasRoom()) return true
    // On a full disk the recycler works long before memory is short.
    if (this.#openLog.segmentsUsed >= this.#segmentsUsable() && this.#recycler.isExhausted) return true
    return this.#liveBytes + bytes > this.#segmentsUsable() * this.#arena.segmentBytes * liveShareMax
  }

  /** Whether a segment is on its way, so that waiting for it helps. */
  roomWillCome(): boolean {
    const log = this.#openLog
    if (log.failure !== undefined || log.spaceError !== undefined) return false
    if (log.segmentsUsed < this.#segmentsUsable()) return !log.hasSpare
    return this.#flusher?.willHelp ?? this.#recycler.willHelp
  }

  #stageRecord(address: number, hash: number, sync: boolean, isCopy = false): number {
    assert(this.#staged - this.#published < stagedMax, 'The staged table has room')
    const ordinal = this.#staged++
    const at = ordinal % stagedMax
    const bucket = hash & (stagedBuckets - 1)
    this.#stagedAddress[at] = address
    this.#stagedHash[at] = hash
    this.#stagedIsCopy[at] = isCopy ? 1 : 0
    this.#stagedOld[at] = this.#foundOld
    this.#stagedSlab[at] = this.#index.foundSlab
    this.#stagedWord[at] = this.#index.foundWord
    this.#stagedNext[at] = this.#stagedHeads[bucket]!
    this.#stagedHeads[bucket] = ordinal
    // What comes behind is published behind it: nothing is acknowledged with a time that a crash could have given again.
    if (this.#timestampsOrdered < this.#timestampsReserved) {
      this.#timestampsOrdered = this.#timestampsReserved
      this.#syncThrough = this.#staged
    }
    if (sync) this.#syncThrough = this.#staged
    return ordinal
  }

  /** Moves published forward as far as durability allows; starts a sync where one is due. */
  #advance(): void {
    const log = this.#openLog
    while (this.#published < this.#written) {
      if (log.failure !== undefined) {
        this.#failAll(log.failure)
        return
      }
      if (this.#syncThrough > this.#published) {
        // A sync under way may have begun before the latest write: the next one covers it.
        if (log.syncing) return
        this.#sync()
        if (log.syncing) return
      } else {
        // Nothing here waits for stable storage, not even while an interval's sync is under way.
        this.#publish(this.#written)
      }
    }
    if (log.failure !== undefined && this.#published < this.#staged) this.#failAll(log.failure)
  }

  #sync(): void {
    const through = this.#written
    let finished = false
    this.#openLog.sync((error) => {
      const isLate = finished
      // The log may have failed elsewhere meanwhile, and what waited for this sync with it.
      const failure = error ?? this.#openLog.failure
      if (failure !== undefined) this.#failAll(failure)
      else {
        this.#publish(through)
        this.#recycler.retireIfDurable(through)
      }
      // A sync on the pool ends in a later turn: go on from here.
      if (isLate && failure === undefined) this.flush()
    })
    finished = true
  }

  #publish(through: number): void {
    if (through <= this.#published) return
    for (let ordinal = this.#published; ordinal < through; ordinal++) this.#publishOne(ordinal)
    this.#published = through
    this.#events.published(through)
  }

  #publishOne(ordinal: number): void {
    const at = ordinal % stagedMax
    const address = this.#stagedAddress[at]!
    const hash = this.#stagedHash[at]!
    this.#unlink(ordinal, hash)
    const slab = address >>> wordsPerSlabBits
    const byte = (address & slabWordMask) << 2
    const u8 = this.#arena.u8[slab]!
    const i32 = this.#arena.i32[slab]!
    const isNew = this.#clocks.isAnyTracked && this.#stagedIsCopy[at] === 0
    if (isNew) this.#noteNew(u8, i32, byte)
    const old = this.#stagedOld[at]!
    if (old !== 0 && this.#index.replaceAt(this.#stagedSlab[at]!, this.#stagedWord[at]!, old, address)) {
      if (isNew) this.#noteGone(old)
      this.#countOut(old)
      this.#countIn(address)
      return
    }
    const gone = this.#point(this.#options.partitionOfSlot(recordSlot(u8, byte)), hash, address, u8, i32, byte)
    if (isNew && gone !== 0) this.#noteGone(gone)
  }

  /** A record that is not a copy was published: clock and tree of its partition take it in. */
  #noteNew(u8: Uint8Array, i32: Int32Array, byte: number): void {
    const partition = this.#options.partitionOfSlot(recordSlot(u8, byte))
    this.#clocks.notePublished(partition, u8, i32, byte)
    this.#trees.add(partition, u8, i32, byte)
  }

  /** What a published record took the place of. */
  #noteGone(address: number): void {
    if (this.#trees.isEmpty) return
    const slab = address >>> wordsPerSlabBits
    const byte = (address & slabWordMask) << 2
    const u8 = this.#arena.u8[slab]!
    this.#trees.remove(this.#options.partitionOfSlot(recordSlot(u8, byte)), u8, this.#arena.i32[slab]!, byte)
  }

  /**
   * The hash tree of a partition with replicas elsewhere, as what is published makes it; built with a pass over the partition where there
   * is none yet. @throws TABLE_CORRUPT, DISK_FAILED
   */
  treeOf(partition: number): HashTree {
    const present = this.#trees.treeOf(partition)
    if (present !== undefined) return present
    const tree = this.#trees.begin(partition)
    try {
      this.visitPartition(partition, (u8, i32, at) => this.#trees.add(partition, u8, i32, at))
    } catch (error) {
      this.#trees.clear()
      throw error
    }
    return tree
  }

  /** All replicas of a partition have all writes up to here: deletes among them, and what has expired, may be forgotten. */
  joinStable(partition: number, stable: Stable): void {
    this.#trees.joinStable(partition, stable)
  }

  stableOf(partition: number): Stable {
    return this.#trees.stableOf(partition)
  }

  /** Leaf and digest of a record, as trees count it. */
  get trees(): Pick<PartitionTrees, 'leafOf' | 'digestOf'> {
    return this.#trees
  }

  /** Every published record of a partition that is not of a deleted bucket. @throws TABLE_CORRUPT, DISK_FAILED */
  visitPartition(partition: number, visit: RecordVisit): void {
    const { hashSeed, isRetiredBucket } = this.#options
    visitPartition(
      this.#arena,
      this.#index,
      this.tables,
      hashSeed,
      partition,
      (u8, i32, at) => {
        if (!isRetiredBucket(recordBucket(i32, at))) visit(u8, i32, at)
      },
      this.damaged.has(partition)
        ? (tableIdLow, block) => this.damaged.passOver(partition, tableIdLow, block)
        : undefined,
    )
    this.damaged.lookedAt(partition)
  }

  /** Clocks of partitions that are known to be damaged, and were not when this was asked before, are reset. */
  noteDamage(): void {
    const { tables } = this
    if (tables === undefined || tables.damageNews === this.#damageNewsSeen || !this.#clocks.isAnyTracked) return
    this.#damageNewsSeen = tables.damageNews
    const seen = new Set(
      tables.damagedPartitions().filter((partition) => this.#clocks.clockOf(partition) !== undefined),
    )
    for (const partition of seen) {
      if (!this.#damagedSeen.has(partition)) this.damaged.found(partition)
      // The next look at it tells whether this is something else.
      else this.#trees.drop(partition)
    }
    this.#damagedSeen = seen
    // What was damaged may be read again, if somebody has put it right: all of it is looked at anew.
    for (const partition of this.damaged.keepOnly(seen)) this.#trees.drop(partition)
  }

  #resetClock(partition: number): boolean {
    if (this.#clocks.clockOf(partition) === undefined) return false
    this.#clocks.reset(partition)
    this.#clocksAnew.delete(partition)
    this.#trees.drop(partition)
    this.wantsActor = true
    return true
  }

  /**
   * As `fetch`, of a partition that is damaged, for what another replica has of the key: damage is passed over. @throws TABLE_CORRUPT where that
   * damage was not known; the clock was reset then
   */
  fetchDespiteDamage(
    partition: number,
    hash: number,
    bucketId: number,
    key: Uint8Array,
    keyStart: number,
    keyBytes: number,
  ): { readonly address: number; readonly isDamaged: boolean } {
    const { finder } = this.tables!
    let isDamaged = false
    finder.damaged = (tableIdLow, block) => {
      isDamaged = true
      this.damaged.passOver(partition, tableIdLow, block)
    }
    try {
      const address = this.fetch(partition, hash, bucketId, key, keyStart, keyBytes, [], false)
      return { address, isDamaged }
    } finally {
      finder.damaged = undefined
    }
  }

  /**
   * All that another replica's clock covers has been taken in: this one's covers it, too, from now on. False without room in the log:
   * it does not then.
   */
  joinClock(partition: number, clock: PartitionClock): boolean {
    const present = this.#clocks.clockOf(partition)
    if (present === undefined || !this.#logClock(partition, clock, false)) return false
    present.join(clock)
    return true
  }

  /** Appends the clock of a partition to the log. False without room. */
  #logClock(partition: number, clock: PartitionClock, isAnew: boolean): boolean {
    const log = this.#openLog
    if (log.failure !== undefined) return false
    const groupsBefore = log.groups
    try {
      if (!this.#defineActors()) return false
      const encoded = { partition, clock: clock.encode(this.#actorTable) }
      if (!this.#appendControl(encodeTrackedClocks([encoded], isAnew))) return false
    } catch (error) {
      if (!(error instanceof SunwiseError)) throw error
      this.#dropUnwritten(error)
      return false
    }
    if (log.groups !== groupsBefore) this.#noteWritten()
    return true
  }

  /**
   * Damaged blocks of a partition that a merge may leave out for good. With them goes the row of the catalog that has every start reset the clock:
   * first the log must know, on stable storage, that what it said before the reset does not count, and no write may follow by the actor
   * whose writes were lost.
   */
  #givenUp(partition: number): ReadonlySet<string> | undefined {
    const blocks = this.damaged.givenUp(partition)
    const clock = this.#clocks.clockOf(partition)
    if (blocks === undefined || clock === undefined || this.#clocks.isReset(partition)) return undefined
    const anewAt = this.#clocksAnew.get(partition)
    if (anewAt === undefined) {
      if (this.#logClock(partition, clock, true)) this.#clocksAnew.set(partition, this.#openLog.position)
      return undefined
    }
    const { sequence, bytes } = this.#openLog.syncedEnd
    return sequence * this.#arena.segmentBytes + bytes >= anewAt ? blocks : undefined
  }

  /** Points the index at a record, and keeps the books; the address that the key had before, or 0. */
  #point(partition: number, hash: number, address: number, u8: Uint8Array, i32: Int32Array, byte: number): number {
    const old = this.#index.find(
      partition,
      hash,
      recordBucket(i32, byte),
      u8,
      byte + recordHeaderBytes,
      recordKeyBytes(u8, byte),
    )
    if (old !== 0) {
      this.#countOut(old)
      this.#index.replaceFound(address)
    } else {
      const inserted = this.#index.insert(partition, hash, address)
      assert(inserted, 'The index has room for what was accepted')
    }
    this.#countIn(address)
    return old
  }

  #countIn(address: number): void {
    this.#count(address, 1)
  }

  #countOut(address: number): void {
    this.#count(address, -1)
  }

  /** Takes a live record into the books, or off them. */
  #count(address: number, sign: 1 | -1): void {
    const slab = address >>> wordsPerSlabBits
    const byte = (address & slabWordMask) << 2
    const segment = this.#arena.segmentOfAddress(address)
    const bytes = sign * recordBytesAt(this.#arena.i32[slab]!, byte)
    this.#liveBytes += bytes
    this.#liveBytesOf[segment]! += bytes
    if ((this.#arena.u8[slab]![byte + 12]! & RecordFlag.expiry) === 0) return
    this.#expiring += sign
    this.#expiringOf[segment]! += sign
  }

  #unlink(ordinal: number, hash: number): void {
    const bucket = hash & (stagedBuckets - 1)
    if (this.#stagedHeads[bucket] === ordinal) {
      this.#stagedHeads[bucket] = -1
      return
    }
    // Published oldest first, so the rest of the chain behind this one is already gone.
    for (let link = this.#stagedHeads[bucket]!; link >= 0; ) {
      const at = link % stagedMax
      if (this.#stagedNext[at] === ordinal) {
        this.#stagedNext[at] = -1
        return
      }
      link = this.#stagedNext[at]!
    }
  }

  /** The open group could not be written and is gone: its records fail, what was written before goes on. */
  #dropUnwritten(error: SunwiseError): void {
    const from = this.#written
    this.#actorsDefined = this.#actorsSafe
    this.#timestampsReserved = this.#timestampsSafe
    this.#timestampsOrdered = Math.min(this.#timestampsOrdered, this.#timestampsSafe)
    for (const partition of this.#trackedOpen.splice(0)) this.#clocks.untrack(partition)
    this.#clocksAnew.clear()
    this.#forget(from)
    this.#events.failed(from, error)
    if (this.#openLog.failure !== undefined) this.#failAll(this.#openLog.failure)
  }

  #failAll(error: SunwiseError): void {
    const from = this.#published
    if (from === this.#staged) return
    this.#forget(from)
    this.#written = this.#staged
    this.#events.failed(
      from,
      new SunwiseError(error.code, error.message, { outcome: 'unknown', cause: error.cause ?? error }),
    )
  }

  /** Takes records from `from` on off the staged table. */
  #forget(from: number): void {
    for (let ordinal = this.#staged - 1; ordinal >= from; ordinal--) {
      const at = ordinal % stagedMax
      this.#stagedHeads[this.#stagedHash[at]! & (stagedBuckets - 1)] = this.#stagedNext[at]!
    }
    this.#staged = from
    if (this.#syncThrough > from) this.#syncThrough = from
    // Relocations among them must be made again.
    this.#recycler.forget(from)
  }

  #isKey(address: number, bucketId: number, key: Uint8Array, keyStart: number, keyBytes: number): boolean {
    const slab = address >>> wordsPerSlabBits
    const at = (address & slabWordMask) << 2
    const u8 = this.#arena.u8[slab]!
    if (recordBucket(this.#arena.i32[slab]!, at) !== bucketId || recordKeyBytes(u8, at) !== keyBytes) return false
    for (let index = 0; index < keyBytes; index++) {
      if (u8[at + recordHeaderBytes + index] !== key[keyStart + index]) return false
    }
    return true
  }

  // Recovery.

  #replay(address: number, u8: Uint8Array, i32: Int32Array, at: number, sequence: number): SunwiseError | undefined {
    if (isControl(u8, at)) return this.#replayControl(u8, i32, at)
    const partition = this.#options.partitionOfSlot(recordSlot(u8, at))
    this.#clocks.noteReplayed(partition, u8, i32, at)
    // It stands in a table, or what took its place does; here it would hide what was written to tables later.
    if (this.tables !== undefined && sequence <= this.tables.flushedThrough) return undefined
    // All versions of a key lie in one bucket, so nothing older shows through.
    if (this.#options.isRetiredBucket(recordBucket(i32, at))) return undefined
    const keyStart = at + recordHeaderBytes
    this.#hash.update(recordBucket(i32, at), u8, keyStart, keyStart + recordKeyBytes(u8, at))
    this.#point(partition, this.#hash.low, address, u8, i32, at)
    return undefined
  }

  #replayControl(u8: Uint8Array, i32: Int32Array, at: number): SunwiseError | undefined {
    const kind = controlKind(u8, at)
    if (kind === ControlKind.actors) {
      const table = decodeActors(u8, i32, at)
      if (table === undefined) return this.#damagedControl('actors')
      for (const [offset, id] of table.ids.entries()) {
        const index = table.first + offset
        if (index < this.#actorCount) {
          if (this.actorLow(index) !== id.low || this.actorHigh(index) !== id.high)
            return this.#damagedControl('actors')
        } else if (index === this.#actorCount) {
          this.#addActor(id.low, id.high)
        } else {
          return this.#damagedControl('actors')
        }
      }
    } else if (kind === ControlKind.clocks) {
      const entries = decodeClocks(u8, i32, at)
      if (entries === undefined) return this.#damagedControl('clocks')
      for (const entry of entries) this.#clocks.noteCounter(entry.partition, entry.actor, entry.counter)
    } else if (kind === ControlKind.trackedClocks || kind === ControlKind.clocksAnew) {
      const indexOf = (low: number, high: number): number => this.actorIndex(low, high)
      const clocks = decodeTrackedClocks(u8, i32, at)
      if (clocks === undefined) return this.#damagedControl('tracked clocks')
      for (const { partition, clock: bytes } of clocks) {
        const clock = PartitionClock.decode(bytes, 0, bytes.length, indexOf)
        if (typeof clock === 'string') return this.#damagedControl('tracked clocks')
        if (kind === ControlKind.clocksAnew) this.#clocks.takeAnew(partition, clock)
        else this.#clocks.take(partition, clock)
      }
    } else if (kind === ControlKind.timestamps) {
      const through = decodeTimestamps(u8, i32, at)
      if (through === undefined) return this.#damagedControl('timestamps')
      this.#timestampsReserved = Math.max(this.#timestampsReserved, through)
    } else if (kind === ControlKind.segmentHead) {
      const { shard, shards, directory } = this.#options
      const head = decodeSegmentHead(u8, i32, at)
      if (head?.shard === shard && head.shards === shards) return undefined
      const found = head === undefined ? 'an unreadable head' : `the log of shard ${head.shard} of ${head.shards}`
      const message = `Cannot recover the commit log in "${directory}": it holds ${found}, not that of shard ${shard} of ${shards}; put the directories back in their places, or restore a backup`
      return new SunwiseError('LOG_CORRUPT', message)
    }
    return undefined
  }

  #damagedControl(what: string): SunwiseError {
    return new SunwiseError(
      'LOG_CORRUPT',
      `Cannot recover the commit log in "${this.#options.directory}": its ${what} record contradicts itself; restore a backup`,
    )
  }

  #addActor(low: number, high: number): number {
    const index = this.#actorCount++
    Atomics.store(this.#actors, index * 2, low | 0)
    Atomics.store(this.#actors, index * 2 + 1, high | 0)
    return index
  }

  /** Finds or adds this run's actor, and takes up its counters. */
  #adoptActor(): void {
    const { low, high } = this.#options.actor
    this.#actor = -1
    for (let index = 0; index < this.#actorCount; index++) {
      if (this.actorLow(index) === low && this.actorHigh(index) === high) this.#actor = index
    }
    if (this.#actor < 0) this.#actor = this.#addActor(low, high)
    // A new one is written with the head of the segment that this run opens before its first record.
    this.#actorsDefined = this.#actorCount
    this.#actorsSafe = this.#actorCount
    this.#clocks.adopt(this.#actor)
  }

  #segmentHead(previousSequence: number, previousBytes: number, oldestSequence: number): Uint8Array {
    const { shard, shards } = this.#options
    this.#actorsDefined = this.#actorCount
    this.#actorsSafe = this.#actorCount
    const ids: ActorId[] = []
    for (let index = 0; index < this.#actorCount; index++) {
      ids.push({ low: this.actorLow(index), high: this.actorHigh(index) })
    }
    // An actor of an earlier run issues no dot again: where a great many runs ended uncleanly, the oldest are left out.
    const actorsKept = Math.floor(clockEntriesMax(this.#arena.segmentBytes) / Limits.partitions)
    const oldestActor = this.#actorCount - Math.max(1, actorsKept)
    const tracked = this.#clocks.tracked(this.#actorTable, trackedClocksBytesMax(this.#arena.segmentBytes))
    const parts = [
      encodeSegmentHead({
        segmentBytes: this.#arena.segmentBytes,
        previousSequence,
        previousBytes,
        oldestSequence,
        shard,
        shards,
        partitions: Limits.partitions,
      }),
      encodeActors(0, ids),
      encodeClocks(this.#clocks.counters(oldestActor)),
      ...(tracked.length === 0 ? [] : [encodeTrackedClocks(tracked)]),
      ...(this.#timestampsReserved === 0 ? [] : [encodeTimestamps(this.#timestampsReserved)]),
    ]
    const head = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
    let at = 0
    for (const part of parts) {
      head.set(part, at)
      at += part.length
    }
    return head
  }

  // Expiry and recycling.

  /** A bucket was deleted: its records are taken off the table, a few chunks at a time. */
  reclaimRetired(): void {
    this.#trees.clear()
    this.#retiredPartitionsLeft = Limits.partitions + 1
  }

  /**
   * Turns versions past expiry and grace into tombstones, and removes records of deleted buckets, a few chunks at a time. Where replicas
   * compare what they have, a version stays as it is until all of them may forget it: some would be a little before the others.
   */
  #sweep(epochMs: number): void {
    if (this.#expiring === 0 && this.#retiredPartitionsLeft === 0) return
    const due: number[] = []
    for (let chunks = 0; chunks < sweepChunksPerStep && due.length < sweepRecordsMax; chunks++) {
      const size = this.#index.directorySize(this.#sweepPartition)
      if (this.#sweepPosition >= size) {
        this.#sweepPartition = (this.#sweepPartition + 1) % Limits.partitions
        this.#sweepPosition = 0
        if (this.#retiredPartitionsLeft > 0) this.#retiredPartitionsLeft--
        continue
      }
      const isCompared = this.#clocks.clockOf(this.#sweepPartition) !== undefined
      this.#sweepPosition = this.#index.visitChunk(this.#sweepPartition, this.#sweepPosition, (address, hash) => {
        if (this.#isRetired(address) || (!isCompared && this.#mayExpire(address, epochMs))) due.push(address, hash)
      })
    }
    for (let index = 0; index < due.length; index += 2) {
      if (this.#isRetired(due[index]!)) this.#remove(due[index]!, due[index + 1]!)
      else this.#expireOne(due[index]!, due[index + 1]!, epochMs)
    }
  }

  #isRetired(address: number): boolean {
    const i32 = this.#arena.i32[address >>> wordsPerSlabBits]!
    return this.#options.isRetiredBucket(recordBucket(i32, (address & slabWordMask) << 2))
  }

  /** Takes a record off the table, unless a newer one of its key is staged. */
  #remove(address: number, hash: number): void {
    const slab = address >>> wordsPerSlabBits
    const byte = (address & slabWordMask) << 2
    const u8 = this.#arena.u8[slab]!
    const i32 = this.#arena.i32[slab]!
    const partition = this.#options.partitionOfSlot(recordSlot(u8, byte))
    const keyStart = byte + recordHeaderBytes
    if (this.find(partition, hash, recordBucket(i32, byte), u8, keyStart, recordKeyBytes(u8, byte)) !== address) return
    if (this.#foundOld !== address) return
    this.#countOut(address)
    this.#index.removeFound(partition, hash)
  }

  /** A simple, live record past its expiry and grace. */
  #isExpired(address: number, epochMs: number): boolean {
    const slab = address >>> wordsPerSlabBits
    const byte = (address & slabWordMask) << 2
    const u8 = this.#arena.u8[slab]!
    const wanted = RecordFlag.simple | RecordFlag.expiry
    if ((u8[byte + 12]! & (wanted | RecordFlag.tombstone)) !== wanted) return false
    return simpleExpiry(u8, this.#arena.i32[slab]!, byte) + Limits.expiryGraceMs <= epochMs
  }

  /** Whether some version of a record is past expiry and grace. */
  #mayExpire(address: number, epochMs: number): boolean {
    const slab = address >>> wordsPerSlabBits
    const byte = (address & slabWordMask) << 2
    const flags = this.#arena.u8[slab]![byte + 12]!
    if ((flags & RecordFlag.expiry) === 0) return false
    if (flags & RecordFlag.simple) return this.#isExpired(address, epochMs)
    const set = decodeRecord(this.#arena.u8[slab]!, this.#arena.i32[slab]!, byte)
    return expire(set, epochMs, Limits.expiryGraceMs) !== set
  }

  /** Replaces the expired versions of a record by tombstones with the same dots. */
  #expireOne(address: number, hash: number, epochMs: number): void {
    const slab = address >>> wordsPerSlabBits
    const byte = (address & slabWordMask) << 2
    const u8 = this.#arena.u8[slab]!
    const i32 = this.#arena.i32[slab]!
    const keyBytes = recordKeyBytes(u8, byte)
    const keyStart = byte + recordHeaderBytes
    const slot = recordSlot(u8, byte)
    const bucketId = recordBucket(i32, byte)
    const partition = this.#options.partitionOfSlot(slot)
    if (this.find(partition, hash, bucketId, u8, keyStart, keyBytes) !== address) return
    if (this.#staged - this.#published >= stagedMax - 1024) return
    const set = expire(decodeRecord(u8, i32, byte), epochMs, Limits.expiryGraceMs)
    const target = this.allocate(recordBytesOf(set, keyBytes), 0, 'delete')
    if (target === 0) return
    const to = target >>> wordsPerSlabBits
    const toByte = (target & slabWordMask) << 2
    encodeRecord(this.#arena.u8[to]!, this.#arena.i32[to]!, toByte, slot, bucketId, u8, keyStart, keyBytes, set)
    this.#stageRecord(target, hash, false)
    this.expired++
  }

  /** See Recycler. */
  #recycleRecord(address: number, u8: Uint8Array, i32: Int32Array, at: number, epochMs: number): boolean {
    const keyStart = at + recordHeaderBytes
    const keyBytes = recordKeyBytes(u8, at)
    const bucketId = recordBucket(i32, at)
    const partition = this.#options.partitionOfSlot(recordSlot(u8, at))
    this.#hash.update(bucketId, u8, keyStart, keyStart + keyBytes)
    const hash = this.#hash.low
    if (this.find(partition, hash, bucketId, u8, keyStart, keyBytes) !== address) return true
    // Still staged itself: come back when it is published.
    if (this.#index.find(partition, hash, bucketId, u8, keyStart, keyBytes) !== address) return false
    // Other replicas may still have what a tombstone replaced.
    const isDead =
      this.#clocks.clockOf(partition) === undefined
        ? (u8[at + 12]! & RecordFlag.tombstone) !== 0 || this.#isExpired(address, epochMs)
        : isForgettable(u8, i32, at, this.#trees.stableOf(partition))
    const isGone =
      this.#options.isRetiredBucket(bucketId) ||
      (isDead && !this.mayBeInTables(partition, bucketId, u8, keyStart, keyBytes))
    if (isGone) {
      // Nothing older can exist behind the oldest segment, nor in tables, so nothing can come back.
      this.#countOut(address)
      this.#index.removeFound(partition, hash)
      return true
    }
    if (this.#staged - this.#published >= stagedMax - 1024) return false
    const bytes = recordBytesAt(i32, at)
    const target = this.allocate(bytes, 0, 'recycle')
    if (target === 0) return false
    copyWords(i32, at >>> 2, this.#arena.i32[target >>> wordsPerSlabBits]!, target & slabWordMask, bytes >>> 2)
    this.#stageRecord(target, hash, false, true)
    return true
  }
}

/** Why writes are refused while memory cannot be flushed: nothing of them was done. */
function refusalOf(failure: SunwiseError): SunwiseError {
  const code = failure.code === 'DISK_FULL' ? 'DISK_FULL' : 'OVERLOADED'
  const message = `Cannot store the value: memory is used up, and cannot be written to tables: ${failure.message}`
  return new SunwiseError(code, message, { outcome: 'none', cause: failure })
}
