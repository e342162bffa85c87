/**
 * A shard: the single writer of its partitions. It takes command frames, applies them in order to its store, and answers when
 * the records are as durable as asked. An object without a thread: `receive` frames, `flush` at the end of a turn, `tick`.
 *
 * Applying a write (decisions of the design, "Applying a write"): resolve the newest version set, staged ones included;
 * evaluate precondition, context and dot here and nowhere else; encode into the arena; stage. The reply leaves after the
 * group is written, and synced where some write of it asked for that.
 *
 * The common write (no context, no precondition, one version before or none, the same actor) is encoded from the frame without
 * an allocation; everything else goes through the version set.
 */
import { assert } from '../base/assert.ts'
import { ByteWriter, pad4 } from '../base/bytes.ts'
import { errorNumberOf, OutcomeNumber, SunwiseError } from '../base/errors.ts'
import { firstPartitionOfShard } from '../cluster/slots.ts'
import { DurabilityNumber, hintBucketId, Limits } from '../config.ts'
import type { FrameTarget } from '../env.ts'
import { slabWordMask, wordsPerSlabBits } from '../storage/arena.ts'
import {
  ContentTypes,
  contentTypeSpelledOut,
  decodeRecord,
  encodeRecord,
  encodeSimple,
  RecordFlag,
  recordBytesAt,
  recordBytesOf,
  recordHeaderBytes,
  recordKeyBytes,
  simpleActor,
  simpleCounter,
  simpleExpiry,
  simpleRecordBytes,
  simpleTimestamp,
} from '../storage/record.ts'
import { ControlWord, type ShardMemory } from '../storage/shard-memory.ts'
import { Store, type StoreOptions } from '../storage/store.ts'
import { type GivenBlock, Seek } from '../storage/table-finder.ts'
import { PartitionClock } from '../versions/partition-clock.ts'
import { decodeSet, encodeSet } from '../versions/set-codec.ts'
import {
  type ActorTable,
  counterOf,
  digest,
  emptyVersionSet,
  liveVersions,
  resolveLastWriteWins,
  syncWithClock,
  syncWithClocks,
  update,
  type Vector,
  type Version,
  type VersionSet,
} from '../versions/version-set.ts'
import {
  CommandFlag,
  compareCommandBytes,
  FrameKind,
  highHalf,
  joinHalves,
  ListEnd,
  ListFlag,
  recordsReplyBytes,
  setReplyBytes,
  trackCommandBytes,
  vectorEntryBytes,
  writeCommandBytes,
} from './command.ts'
import { isHintValue, mergeHintValues } from './hint-record.ts'
import { firstKeyOf, KeyLister, type KeyPage, type ListedRecord } from './key-lister.ts'
import { PartitionCompare } from './partition-compare.ts'

/** Where a shard's replies go: rings of the host, arrays of a simulator. */
export type Replies = {
  /**
   * Starts a reply of `bytes` to `thread`. Undefined where the thread is gone or its queue is full to the brim: the reply is
   * dropped, and the request ends by its deadline.
   */
  beginReply(thread: number, bytes: number): FrameTarget | undefined
  commitReply(thread: number): void
}

export type ShardEvents = {
  /** A write asked for less than `sync` before the catalog says that unsynced writes exist; it was made `sync`. */
  readonly unsyncedWanted: () => void
  /** A context names a counter of this run's actor that was never issued: the node must take a new actor. */
  readonly actorIsStale: () => void
  /** What waited for the disk went on outside of a turn: one is wanted. */
  readonly resumed: () => void
  /** The log failed for good: the shard must be rebuilt from its files. */
  readonly failed: (error: SunwiseError) => void
}

/** Wall-clock time as the shard needs it. */
export type ShardClock = { epochMs(): number; monotonicMs(): number }

const pendingMax = Limits.shardAnswersPendingMax
/** Records that one list command looks at before it answers, so that no stretch grows long. */
const listVisitsMax = 6000
const listPartitionsMax = 256
/** Ordinals of pending answers that staged nothing: to a write, and to a read. */
const noOrdinal = -1
const readOrdinal = -2
/** In the place of a counter: the record is no version of its partition. */
const noCounter = 0

/** What a reply tells of the record that a key has now: enough for a client, nothing, or all of it. */
const AnswerForm = { summary: 0, nothing: 1, set: 2 } as const
const emptyBytes = new Uint8Array(0)

/** A command that waits, in memory of its own. */
type WaitingCommand = { readonly thread: number; readonly u8: Uint8Array; readonly i32: Int32Array }

/**
 * Commands on keys with one hash, the first of which needs a block of a table that takes long to read. The others wait behind it, so
 * that those on one key stay in their order.
 */
type ColdKey = { readonly hash: number; readonly commands: WaitingCommand[]; readonly given: GivenBlock[] }

/** A list command, taken out of its frame. */
type ListCommand = {
  readonly thread: number
  readonly requestId: number
  readonly partition: number
  readonly bucketId: number
  readonly limit: number
  readonly bytesMax: number
  readonly prefix: Uint8Array
  readonly after: Uint8Array | undefined
  readonly nowMs: number
  readonly withValues: boolean
  /** Another replica asks: what is dead is told, too, and all by names that it understands. */
  readonly forReplica: boolean
}

const noBlocks: readonly GivenBlock[] = []
/** Commands that may wait for blocks, and their bytes; at it, the rings of the shard wait. */
const coldCommandsMax = Limits.shardColdCommandsMax
const coldBytesMax = Limits.shardColdBytesMax

export class Shard {
  readonly store: Store
  readonly #replies: Replies
  readonly #events: ShardEvents
  readonly #clock: ShardClock
  readonly #control: Int32Array
  readonly #options: StoreOptions
  readonly #actorTable: ActorTable
  readonly #lister: KeyLister
  readonly #partitions: PartitionCompare

  #unsyncedNoted = false

  // Replies that wait for publication, a ring in the order of their commands.
  readonly #pendingThrough = new Float64Array(pendingMax)
  readonly #pendingOrdinal = new Float64Array(pendingMax)
  readonly #pendingThread = new Uint16Array(pendingMax)
  readonly #pendingRequest = new Uint32Array(pendingMax)
  readonly #pendingAddress = new Uint32Array(pendingMax)
  readonly #pendingError = new Uint16Array(pendingMax)
  readonly #pendingDurable = new Uint8Array(pendingMax)
  /** An AnswerForm: what the reply tells. */
  readonly #pendingForm = new Uint8Array(pendingMax)
  #pendingHead = 0
  #pendingTail = 0
  #isFailed = false
  #frameBytes = 0
  /** Commands that wait for room, in their order; see `#park`. */
  readonly #parked: WaitingCommand[] = []
  #isRetrying = false
  /** Writers wait a little, until the next turn or tick. */
  #isDelayed = false
  /**
   * Keys with commands that wait for a block of a table, by hash. What comes on such a key joins them; while commands are parked nothing
   * comes, so those among the parked on the same key are behind them.
   */
  readonly #cold = new Map<number, ColdKey>()
  #coldCommands = 0
  #coldBytes = 0
  /** The key whose commands go on now, and whether the first of them must wait once more. */
  #resuming: ColdKey | undefined
  #mustLoadMore = false
  #mustWaitOn = false
  #writes = 0
  #ownerReads = 0
  #siblingWarnings = 0
  #refusedFull = 0

  constructor(options: StoreOptions, clock: ShardClock, replies: Replies, events: ShardEvents) {
    this.#options = options
    this.#clock = clock
    this.#replies = replies
    this.#events = events
    this.#control = new Int32Array((options.memory satisfies ShardMemory).control)
    this.store = new Store(options, {
      published: (through) => this.#answerPublished(through),
      failed: (from, error) => this.#answerFailed(from, error),
    })
    this.#lister = new KeyLister(this.store.arena, this.store.index, this.store.tables)
    this.#actorTable = {
      lowOf: (index) => this.store.actorLow(index),
      highOf: (index) => this.store.actorHigh(index),
    }
    this.#partitions = new PartitionCompare(this.store, this.#actorTable, () => this.#clock.epochMs())
  }

  /** Whether the catalog durably says that unsynced writes may exist: writes that ask for less than `sync` then get less. */
  get unsyncedNoted(): boolean {
    return this.#unsyncedNoted
  }

  set unsyncedNoted(isNoted: boolean) {
    // Readers on other threads hear of it before they can see such a write.
    if (isNoted) Atomics.store(this.#control, ControlWord.mayHoldUnsynced, 1)
    this.#unsyncedNoted = isNoted
  }

  /** Whether frames may be handed over; otherwise `flush` and try again in a later turn. */
  get canAccept(): boolean {
    return (
      this.#parked.length === 0 &&
      this.#pendingTail - this.#pendingHead < pendingMax - 1024 &&
      !this.#isFullOfCold &&
      !this.#isDelayed &&
      this.store.canAccept
    )
  }

  /** What holds the shard up ends by itself, at the end of a read or a job: turns of the owner do not help. */
  get waitsForOthers(): boolean {
    return this.#isDelayed || this.#isFullOfCold || this.store.waitsForJob
  }

  get #isFullOfCold(): boolean {
    return this.#coldCommands >= coldCommandsMax || this.#coldBytes >= coldBytesMax
  }

  /** Nothing waits for disk or for a reply. */
  get isIdle(): boolean {
    const isWaiting = this.#parked.length > 0 || this.#coldCommands > 0
    return !isWaiting && this.#pendingHead === this.#pendingTail && this.store.isIdle
  }

  /**
   * One command frame of `bytes` from `thread`; they belong to the shard until this returns. Frames that were taken out of a ring
   * together with one that found no room wait behind it.
   */
  receive(thread: number, u8: Uint8Array, i32: Int32Array, start: number, bytes: number): void {
    this.#frameBytes = bytes
    if (this.#cold.size > 0 && isOfKey(u8[start]!)) {
      const cold = this.#cold.get(i32[(start >>> 2) + 3]!)
      if (cold !== undefined && cold !== this.#resuming) {
        this.#joinCold(cold, this.#copyOf(thread, u8, start))
        return
      }
    }
    if (this.#parked.length > 0 && !this.#isRetrying && this.#resuming === undefined) {
      this.#park(thread, u8, start)
      return
    }
    const kind = u8[start]!
    switch (kind) {
      case FrameKind.put:
      case FrameKind.delete:
        this.#write(thread, u8, i32, start, kind === FrameKind.delete)
        return
      case FrameKind.get:
        this.#get(thread, u8, i32, start)
        return
      case FrameKind.list:
        this.#list(thread, u8, i32, start)
        return
      case FrameKind.merge:
        this.#merge(thread, u8, i32, start)
        return
      case FrameKind.track:
        this.#track(thread, u8, i32, start)
        return
      case FrameKind.compare:
        this.#compare(thread, u8, i32, start)
        return
      case FrameKind.keepHint:
        this.#keepHint(thread, u8, i32, start)
        return
      case FrameKind.dropHint:
        this.#dropHint(thread, u8, i32, start)
        return
      default:
        assert(false, 'A command frame has a known kind')
    }
  }

  /** End of a turn: everything staged goes to disk, and what is durable is published and answered. */
  flush(): void {
    this.store.flush()
    this.#isDelayed = this.store.isDelayed(this.#clock.monotonicMs())
    if (this.#parked.length > 0 && !this.#isRetrying) {
      this.#retryParked()
      this.store.flush()
    }
    this.#noteFailure()
  }

  #retryParked(): void {
    this.#isRetrying = true
    while (this.#parked.length > 0) {
      const { thread, u8, i32 } = this.#parked[0]!
      this.#mustWaitOn = false
      this.receive(thread, u8, i32, 0, u8.length)
      if (this.#mustWaitOn) break
      this.#parked.shift()
    }
    this.#isRetrying = false
  }

  /** The record found no room, but some is on its way. */
  #mustPark(): boolean {
    return this.store.refusal?.code === 'OVERLOADED' && this.store.roomWillCome()
  }

  /**
   * Keeps a command that found no room until there is some. A ring hands over a portion of frames at once, so others may come
   * behind it, and wait here, too: no more than one portion, since no ring is asked for more meanwhile.
   */
  #park(thread: number, u8: Uint8Array, start: number): void {
    if (this.#isRetrying) {
      this.#mustWaitOn = true
      return
    }
    this.#parked.push(this.#copyOf(thread, u8, start))
  }

  #copyOf(thread: number, u8: Uint8Array, start: number): WaitingCommand {
    const bytes = u8.slice(start, start + pad4(this.#frameBytes))
    return { thread, u8: bytes, i32: new Int32Array(bytes.buffer) }
  }

  #joinCold(cold: ColdKey, command: WaitingCommand): void {
    cold.commands.push(command)
    this.#coldCommands++
    this.#coldBytes += command.u8.length
  }

  /** The command needs the block that the finder wants: it goes on when that was read, and what comes on its key behind it. */
  #waitForBlock(thread: number, u8: Uint8Array, i32: Int32Array, start: number): void {
    if (this.#resuming !== undefined) {
      this.#mustLoadMore = true
      return
    }
    const hash = i32[(start >>> 2) + 3]!
    const cold: ColdKey = { hash, commands: [], given: [] }
    this.#cold.set(hash, cold)
    this.#joinCold(cold, this.#copyOf(thread, u8, start))
    this.#load(cold)
  }

  #load(cold: ColdKey): void {
    this.store.tables!.load((error, given) => this.#resume(cold, error, given))
  }

  /** A block was read for the first command of a key: the commands go on, until one needs another block. */
  #resume(cold: ColdKey, error: SunwiseError | undefined, given: GivenBlock | undefined): void {
    let failure = error
    if (given !== undefined) cold.given.push(given)
    this.#resuming = cold
    this.#mustLoadMore = false
    const parkedBefore = this.#parked.length
    while (cold.commands.length > 0) {
      const command = cold.commands[0]!
      const { thread, u8, i32 } = command
      // Behind one that found no room the others have to wait for room, too.
      if (this.#parked.length > parkedBefore) this.#parked.push(command)
      else if (failure !== undefined) this.#failCold(command, failure)
      else this.receive(thread, u8, i32, 0, u8.length)
      failure = undefined
      if (this.#mustLoadMore) break
      cold.commands.shift()
      this.#coldCommands--
      this.#coldBytes -= u8.length
    }
    this.#resuming = undefined
    if (this.#mustLoadMore) this.#load(cold)
    else {
      this.#cold.delete(cold.hash)
      this.store.tables!.takeBack(cold.given)
    }
    this.flush()
    this.#events.resumed()
  }

  #failCold({ thread, u8, i32 }: WaitingCommand, error: SunwiseError): void {
    if (u8[0] === FrameKind.get) this.#replyFailedRead(thread, i32[1]! >>> 0, errorNumberOf.get(error.code)!)
    else
      this.#refuse(
        thread,
        i32[1]! >>> 0,
        new SunwiseError(error.code, error.message, { outcome: 'none', cause: error }),
      )
  }

  /** Background work and statistics; every 20 to 100 ms. */
  tick(): void {
    this.store.step(this.#clock.monotonicMs(), this.#clock.epochMs())
    this.store.noteDamage()
    if (this.store.wantsActor) {
      this.store.wantsActor = false
      this.#events.actorIsStale()
    }
    this.flush()
    this.#publishStatistics()
  }

  #noteFailure(): void {
    const failure = this.store.failure
    if (failure === undefined || this.#isFailed) return
    this.#isFailed = true
    this.#events.failed(failure)
  }

  #write(thread: number, u8: Uint8Array, i32: Int32Array, start: number, isDelete: boolean): void {
    const word = start >>> 2
    const requestId = i32[word + 1]! >>> 0
    const slot = u8[start + 2]! | (u8[start + 3]! << 8)
    const partition = this.#options.partitionOfSlot(slot)
    const bucketId = i32[word + 2]! >>> 0
    const hash = i32[word + 3]! >>> 0
    const keyBytes = i32[word + 5]! & 0xffff
    const keyStart = start + writeCommandBytes
    const flags = u8[start + 1]!
    let old = this.store.find(partition, hash, bucketId, u8, keyStart, keyBytes)
    if (old === 0 && flags !== 0 && this.store.tables !== undefined) {
      old = this.#fetch(thread, requestId, u8, i32, start, partition, hash, bucketId, keyStart, keyBytes, isDelete)
      if (old < 0) return
    }
    this.#writes++
    if ((flags & ~CommandFlag.lastWriteWins) !== 0 || !this.#isPlain(old)) {
      this.#writeGeneral(thread, requestId, u8, i32, start, isDelete, partition, slot, old)
      return
    }
    const durability = u8[start + 30]!
    const isGone =
      isDelete &&
      (old === 0 ? !this.store.mayBeInTables(partition, bucketId, u8, keyStart, keyBytes) : this.#isTombstone(old))
    if (isGone && this.#mayStayAsItIs(old, durability)) {
      this.#answerLater(thread, requestId, noOrdinal, old, 0, old === 0 || this.store.isDurableOncePublished)
      return
    }
    const sync = this.#mustSync(durability)
    const valueBytes = isDelete ? 0 : i32[word + 6]! >>> 0
    const typeBytes = isDelete ? 0 : u8[start + 29]!
    const typeStart = keyStart + pad4(keyBytes)
    const expiresAtMs = isDelete ? 0 : joinHalves(i32[word + 8]!, i32[word + 9]!)
    const wanted = joinHalves(i32[word + 10]!, i32[word + 11]!)
    const timestamp =
      flags === CommandFlag.lastWriteWins
        ? this.store.nextTimestamp(this.#clock.epochMs(), wanted, this.#plainTimestamp(old))
        : wanted
    const recordFlags =
      (isDelete ? RecordFlag.tombstone : 0) |
      (expiresAtMs > 0 ? RecordFlag.expiry : 0) |
      (timestamp > 0 ? RecordFlag.timestamp : 0)
    const bytes = simpleRecordBytes(recordFlags, keyBytes, typeBytes, valueBytes)
    const growth = bytes - (old === 0 ? 0 : this.#bytesAt(old))
    const address = this.store.allocate(bytes, growth, isDelete || growth <= 0 ? 'delete' : 'grow')
    if (address === 0) {
      if (this.#mustPark()) this.#park(thread, u8, start)
      else this.#refuse(thread, requestId, this.store.refusal!)
      return
    }
    const counter = this.store.nextCounter(partition)
    this.store.useCounter(partition, counter)
    const slab = address >>> wordsPerSlabBits
    encodeSimple(
      this.store.arena.u8[slab]!,
      this.store.arena.i32[slab]!,
      (address & slabWordMask) << 2,
      slot,
      bucketId,
      recordFlags,
      isDelete ? 0 : u8[start + 28]!,
      this.store.actor,
      counter,
      expiresAtMs,
      timestamp,
      u8,
      keyStart,
      keyBytes,
      u8,
      typeStart,
      typeBytes,
      u8,
      typeStart + pad4(typeBytes),
      valueBytes,
    )
    this.#answerLater(thread, requestId, this.store.stage(address, hash, sync), address, 0, sync)
  }

  /**
   * Address of what tables hold of a key that memory does not: it is staged again first, for a write that depends on it. 0: nothing;
   * -1: the command was refused, or waits for room or for a block.
   */
  #fetch(
    thread: number,
    requestId: number,
    u8: Uint8Array,
    i32: Int32Array,
    start: number,
    partition: number,
    hash: number,
    bucketId: number,
    keyStart: number,
    keyBytes: number,
    isDelete: boolean,
  ): number {
    try {
      const given = this.#resuming?.given ?? noBlocks
      const address = this.store.fetch(partition, hash, bucketId, u8, keyStart, keyBytes, given, isDelete)
      if (address === -2) {
        this.#waitForBlock(thread, u8, i32, start)
        return -1
      }
      // Found once more, now among what is staged, for the place that the write will take.
      if (address >= 0) return this.store.find(partition, hash, bucketId, u8, keyStart, keyBytes)
    } catch (error) {
      if (!(error instanceof SunwiseError)) throw error
      this.#refuse(thread, requestId, new SunwiseError(error.code, error.message, { outcome: 'none', cause: error }))
      return -1
    }
    if (this.#mustPark()) this.#park(thread, u8, start)
    else this.#refuse(thread, requestId, this.store.refusal!)
    return -1
  }

  /** Absent, or one version of this run's actor: a blind write needs nothing of it. */
  #isPlain(address: number): boolean {
    if (address === 0) return true
    const at = (address & slabWordMask) << 2
    const u8 = this.store.arena.u8[address >>> wordsPerSlabBits]!
    return (u8[at + 12]! & RecordFlag.simple) !== 0 && simpleActor(u8, at) === this.store.actor
  }

  #plainTimestamp(address: number): number {
    if (address === 0) return 0
    const slab = address >>> wordsPerSlabBits
    return simpleTimestamp(this.store.arena.u8[slab]!, this.store.arena.i32[slab]!, (address & slabWordMask) << 2)
  }

  #isTombstone(address: number): boolean {
    const u8 = this.store.arena.u8[address >>> wordsPerSlabBits]!
    return (u8[((address & slabWordMask) << 2) + 12]! & RecordFlag.tombstone) !== 0
  }

  #bytesAt(address: number): number {
    return recordBytesAt(this.store.arena.i32[address >>> wordsPerSlabBits]!, (address & slabWordMask) << 2)
  }

  #setAt(address: number): VersionSet {
    if (address === 0) return emptyVersionSet
    const slab = address >>> wordsPerSlabBits
    return decodeRecord(this.store.arena.u8[slab]!, this.store.arena.i32[slab]!, (address & slabWordMask) << 2)
  }

  /**
   * Whether a delete of what is gone may leave it as it is. Not where it asks for stable storage that the tombstone has not
   * reached: a new one is written then. Nor where the log has failed: it may hold writes that nobody sees yet.
   */
  #mayStayAsItIs(old: number, durability: number): boolean {
    if (this.store.failure !== undefined) return false
    return old === 0 || durability !== DurabilityNumber.sync || this.store.isDurableOncePublished
  }

  /** `sync` unless less was asked for and the catalog knows that unsynced writes exist. */
  #mustSync(durability: number): boolean {
    if (durability === DurabilityNumber.sync) return true
    if (this.#unsyncedNoted) return false
    this.#events.unsyncedWanted()
    return true
  }

  /** Any write, through its version set. */
  #writeGeneral(
    thread: number,
    requestId: number,
    u8: Uint8Array,
    i32: Int32Array,
    start: number,
    isDelete: boolean,
    partition: number,
    slot: number,
    old: number,
  ): void {
    const word = start >>> 2
    const flags = u8[start + 1]!
    const keyBytes = i32[word + 5]! & 0xffff
    const keyStart = start + writeCommandBytes
    const set = this.#setAt(old)
    const nowMs = this.#clock.epochMs()
    const live = liveVersions(set, nowMs)
    const contextCount = i32[word + 5]! >>> 16
    let at = keyStart + pad4(keyBytes)
    let context: Vector | undefined
    if (flags & CommandFlag.context) {
      context = this.#readContext(i32, at, contextCount)
      if (context === undefined) {
        this.#refuse(thread, requestId, new SunwiseError('OVERLOADED', 'Cannot note the actors of the context now'))
        return
      }
    }
    at += contextCount * vectorEntryBytes
    const ifMatchCount = u8[start + 31]!
    if (!this.#preconditionHolds(flags, set, live.length, i32, at, ifMatchCount)) {
      this.#answerLater(thread, requestId, noOrdinal, old, errorNumberOf.get('PRECONDITION_FAILED')!, true)
      return
    }
    at += ifMatchCount * 8
    // What has expired is not gone for good yet: a clock set back would show it again.
    const isGone = set.versions.every((version) => version.tombstone)
    const isReplicated = (flags & CommandFlag.replicated) !== 0
    const isNothingToDo = isDelete && isGone && !isReplicated && (old === 0 || context === undefined)
    if (isNothingToDo && this.#mayStayAsItIs(old, u8[start + 30]!)) {
      this.#answerLater(thread, requestId, noOrdinal, old, 0, old === 0 || this.store.isDurableOncePublished)
      return
    }
    const own = context?.find((entry) => entry.actor === this.store.actor)?.counter ?? 0
    const counter = this.store.nextCounter(partition)
    if (own >= counter || set.vector.some((entry) => entry.actor === this.store.actor && entry.counter >= counter)) {
      this.#events.actorIsStale()
      this.#refuse(thread, requestId, new SunwiseError('NOT_READY', 'The node takes a new actor first; try again'))
      return
    }
    let timestamp = joinHalves(i32[word + 10]!, i32[word + 11]!)
    if (flags & CommandFlag.lastWriteWins) {
      timestamp = this.store.nextTimestamp(
        nowMs,
        timestamp,
        set.versions.reduce((latest, held) => Math.max(latest, held.timestamp), 0),
      )
    }
    const version = this.#readVersion(u8, i32, start, at, isDelete, counter, timestamp)
    let next = update(set, context, version)
    if (flags & CommandFlag.lastWriteWins) next = resolveLastWriteWins(next, this.#actorTable)
    const siblings = liveVersions(next, nowMs).length
    if (siblings >= Limits.siblingsWarn) this.#siblingWarnings++
    // Tombstones and expired versions count: a client that deletes again and again with an old context adds one each time.
    if (next.versions.length > Limits.siblingsMax && next.versions.length > set.versions.length) {
      this.#answerLater(thread, requestId, noOrdinal, old, errorNumberOf.get('TOO_MANY_SIBLINGS')!, true)
      return
    }
    const bytes = recordBytesOf(next, keyBytes)
    const oldBytes = old === 0 ? 0 : this.#bytesAt(old)
    const bytesMax = Math.min(i32[word + 4]! >>> 0, this.store.recordBytesMax)
    if (bytes > bytesMax && bytes > oldBytes && next.versions.length > 1) {
      this.#answerLater(thread, requestId, noOrdinal, old, errorNumberOf.get('VERSION_SET_TOO_LARGE')!, true)
      return
    }
    const purpose = (isDelete && old !== 0) || bytes <= oldBytes ? 'delete' : 'grow'
    const address = this.store.allocate(bytes, bytes - oldBytes, purpose)
    if (address === 0) {
      if (this.#mustPark()) this.#park(thread, u8, start)
      else this.#refuse(thread, requestId, this.store.refusal!)
      return
    }
    this.store.useCounter(partition, counter)
    const slab = address >>> wordsPerSlabBits
    encodeRecord(
      this.store.arena.u8[slab]!,
      this.store.arena.i32[slab]!,
      (address & slabWordMask) << 2,
      slot,
      i32[word + 2]! >>> 0,
      u8,
      keyStart,
      keyBytes,
      next,
    )
    const sync = this.#mustSync(u8[start + 30]!)
    const form = isReplicated ? AnswerForm.set : AnswerForm.summary
    this.#answerLater(thread, requestId, this.store.stage(address, i32[word + 3]! >>> 0, sync), address, 0, sync, form)
  }

  /** Takes in what another replica has of a key. What was here and was replaced since does not come back: see syncWithClock. */
  #merge(thread: number, u8: Uint8Array, i32: Int32Array, start: number): void {
    const word = start >>> 2
    const requestId = i32[word + 1]! >>> 0
    const slot = u8[start + 2]! | (u8[start + 3]! << 8)
    const partition = this.#options.partitionOfSlot(slot)
    const bucketId = i32[word + 2]! >>> 0
    const hash = i32[word + 3]! >>> 0
    const keyBytes = i32[word + 5]! & 0xffff
    const keyStart = start + writeCommandBytes
    const setStart = keyStart + pad4(keyBytes)
    const clock = this.store.clockOf(partition)
    if (clock === undefined) {
      const message = `Cannot merge into partition ${partition}: it is not known to have other replicas`
      return this.#refuse(thread, requestId, new SunwiseError('NOT_READY', message))
    }
    let old = this.store.find(partition, hash, bucketId, u8, keyStart, keyBytes)
    const clockBytes = i32[word + 8]! >>> 0
    let isDamaged = false
    if (old === 0 && this.store.tables !== undefined) {
      // Only what an exchange brings may take the place of what is damaged: it goes on until all is here.
      if (clockBytes > 0 && this.store.damaged.generationOf(partition) !== 0) {
        try {
          const found = this.store.fetchDespiteDamage(partition, hash, bucketId, u8, keyStart, keyBytes)
          isDamaged = found.isDamaged
          if (found.address < 0) return this.#refuse(thread, requestId, this.store.refusal!)
          old = found.address === 0 ? 0 : this.store.find(partition, hash, bucketId, u8, keyStart, keyBytes)
        } catch (error) {
          if (!(error instanceof SunwiseError)) throw error
          return this.#refuse(thread, requestId, error)
        }
      } else {
        old = this.#fetch(thread, requestId, u8, i32, start, partition, hash, bucketId, keyStart, keyBytes, false)
        if (old < 0) return
      }
    }
    const indexOf = (low: number, high: number): number => this.store.actorIndex(low, high)
    const incoming = decodeSet(u8, setStart, setStart + (i32[word + 6]! >>> 0), indexOf)
    if (typeof incoming === 'string') {
      const isFull = incoming === 'actor'
      const message = isFull ? 'Cannot note the actors of the versions now' : `The versions are malformed: ${incoming}`
      return this.#refuse(thread, requestId, new SunwiseError(isFull ? 'OVERLOADED' : 'UNPROCESSABLE', message))
    }
    if (counterOf(incoming.vector, this.store.actor) >= this.store.nextCounter(partition)) {
      this.#events.actorIsStale()
      return this.#refuse(thread, requestId, new SunwiseError('NOT_READY', 'The node takes a new actor first'))
    }
    const setEnd = setStart + (i32[word + 6]! >>> 0)
    const clockStart = setStart + pad4(setEnd - setStart)
    const theirs =
      clockBytes === 0 ? undefined : PartitionClock.decode(u8, clockStart, clockStart + clockBytes, indexOf)
    if (typeof theirs === 'string') {
      return this.#refuse(thread, requestId, new SunwiseError('UNPROCESSABLE', `The clock is malformed: ${theirs}`))
    }
    this.#writes++
    const local = this.#setAt(old)
    let next =
      theirs === undefined ? syncWithClock(local, incoming, clock) : syncWithClocks(local, incoming, clock, theirs)
    if (u8[start + 1]! & CommandFlag.lastWriteWins) next = resolveLastWriteWins(next, this.#actorTable)
    if (u8[start + 1]! & CommandFlag.lastWriteWins) this.#seeTimestamps(incoming)
    // What is damaged is hidden by what takes its place, even where that is nothing.
    const isNothingToDo = !isDamaged && (next === local || (old === 0 && next.versions.length === 0))
    if (isNothingToDo && this.#mayStayAsItIs(old, u8[start + 30]!)) {
      const isDurable = old === 0 || this.store.isDurableOncePublished
      return this.#answerLater(thread, requestId, noOrdinal, old, 0, isDurable, AnswerForm.nothing)
    }
    const bytes = recordBytesOf(next, keyBytes)
    const oldBytes = old === 0 ? 0 : this.#bytesAt(old)
    if (bytes > this.store.recordBytesMax) {
      const message = `Cannot merge versions of ${bytes} bytes: a segment takes ${this.store.recordBytesMax}`
      return this.#refuse(thread, requestId, new SunwiseError('VERSION_SET_TOO_LARGE', message))
    }
    const address = this.store.allocate(bytes, bytes - oldBytes, bytes <= oldBytes ? 'delete' : 'grow')
    if (address === 0) {
      if (this.#mustPark()) this.#park(thread, u8, start)
      else this.#refuse(thread, requestId, this.store.refusal!)
      return
    }
    const slab = address >>> wordsPerSlabBits
    const at = (address & slabWordMask) << 2
    const { arena } = this.store
    encodeRecord(arena.u8[slab]!, arena.i32[slab]!, at, slot, bucketId, u8, keyStart, keyBytes, next)
    const sync = this.#mustSync(u8[start + 30]!)
    const ordinal = this.store.stage(address, hash, sync)
    this.#answerLater(thread, requestId, ordinal, address, 0, sync, AnswerForm.nothing)
  }

  #seeTimestamps({ versions }: VersionSet): void {
    const nowMs = this.#clock.epochMs()
    for (const { timestamp } of versions) this.store.seeTimestamp(nowMs, timestamp)
  }

  /** Leaves a hint, merged with what is kept for its key and target already: see hint-record.ts. */
  #keepHint(thread: number, u8: Uint8Array, i32: Int32Array, start: number): void {
    const word = start >>> 2
    const requestId = i32[word + 1]! >>> 0
    const partition = this.#options.partitionOfSlot(u8[start + 2]! | (u8[start + 3]! << 8))
    const bucketId = i32[word + 2]! >>> 0
    const hash = i32[word + 3]! >>> 0
    const keyBytes = i32[word + 5]! & 0xffff
    const keyStart = start + writeCommandBytes
    const valueStart = keyStart + pad4(keyBytes)
    const durability = u8[start + 30]!
    assert(bucketId === hintBucketId, 'A hint lies in the bucket of hints')
    const incoming = u8.slice(valueStart, valueStart + (i32[word + 6]! >>> 0))
    if (!isHintValue(incoming)) {
      return this.#refuse(thread, requestId, new SunwiseError('UNPROCESSABLE', 'The versions are malformed'))
    }
    let old = this.store.find(partition, hash, bucketId, u8, keyStart, keyBytes)
    if (old === 0 && this.store.tables !== undefined) {
      old = this.#fetch(thread, requestId, u8, i32, start, partition, hash, bucketId, keyStart, keyBytes, false)
      if (old < 0) return
    }
    const held = old === 0 || this.#isTombstone(old) ? undefined : this.#setAt(old).versions[0]!.value
    const value = held === undefined ? incoming : mergeHintValues(held, incoming)
    if (value === held && this.#mayStayAsItIs(old, durability)) {
      const isDurable = this.store.isDurableOncePublished
      return this.#answerLater(thread, requestId, noOrdinal, old, 0, isDurable, AnswerForm.nothing)
    }
    const sync = this.#mustSync(durability)
    this.#stageHint(thread, u8, i32, start, old, RecordFlag.timestamp, value, sync)
  }

  /** Removes a hint. Nothing is synced for it: a hint that comes back is handed over once more, which does no harm. */
  #dropHint(thread: number, u8: Uint8Array, i32: Int32Array, start: number): void {
    const word = start >>> 2
    const partition = this.#options.partitionOfSlot(u8[start + 2]! | (u8[start + 3]! << 8))
    const bucketId = i32[word + 2]! >>> 0
    const keyBytes = i32[word + 5]! & 0xffff
    const keyStart = start + writeCommandBytes
    const old = this.store.find(partition, i32[word + 3]! >>> 0, bucketId, u8, keyStart, keyBytes)
    const isGone =
      old === 0 ? !this.store.mayBeInTables(partition, bucketId, u8, keyStart, keyBytes) : this.#isTombstone(old)
    if (isGone && this.store.failure === undefined) {
      return this.#answerLater(thread, i32[word + 1]! >>> 0, noOrdinal, old, 0, false, AnswerForm.nothing)
    }
    this.#stageHint(thread, u8, i32, start, old, RecordFlag.tombstone, emptyBytes, false)
  }

  /** Stages the record of a hint, which names no dot, in the place of `old`. */
  #stageHint(
    thread: number,
    u8: Uint8Array,
    i32: Int32Array,
    start: number,
    old: number,
    flags: number,
    value: Uint8Array,
    sync: boolean,
  ): void {
    const word = start >>> 2
    const requestId = i32[word + 1]! >>> 0
    const keyBytes = i32[word + 5]! & 0xffff
    const bytes = simpleRecordBytes(flags, keyBytes, 0, value.length)
    const growth = bytes - (old === 0 ? 0 : this.#bytesAt(old))
    const isDrop = (flags & RecordFlag.tombstone) !== 0
    const address = this.store.allocate(bytes, growth, isDrop || growth <= 0 ? 'delete' : 'grow')
    if (address === 0) {
      if (this.#mustPark()) this.#park(thread, u8, start)
      else this.#refuse(thread, requestId, this.store.refusal!)
      return
    }
    const slab = address >>> wordsPerSlabBits
    encodeSimple(
      this.store.arena.u8[slab]!,
      this.store.arena.i32[slab]!,
      (address & slabWordMask) << 2,
      u8[start + 2]! | (u8[start + 3]! << 8),
      i32[word + 2]! >>> 0,
      flags,
      0,
      this.store.actor,
      noCounter,
      0,
      joinHalves(i32[word + 10]!, i32[word + 11]!),
      u8,
      start + writeCommandBytes,
      keyBytes,
      emptyBytes,
      0,
      0,
      value,
      0,
      value.length,
    )
    const ordinal = this.store.stage(address, i32[word + 3]! >>> 0, sync)
    this.#answerLater(thread, requestId, ordinal, address, 0, sync, AnswerForm.nothing)
  }

  #track(thread: number, u8: Uint8Array, i32: Int32Array, start: number): void {
    const word = start >>> 2
    const requestId = i32[word + 1]! >>> 0
    const count = i32[word + 2]! >>> 0
    const partitions: number[] = []
    for (let index = 0; index < count; index++) {
      const at = start + trackCommandBytes + 2 * index
      partitions.push(u8[at]! | (u8[at + 1]! << 8))
    }
    if (this.store.track(partitions, u8[start + 1] === 1)) {
      this.#answerLater(thread, requestId, noOrdinal, 0, 0, false, AnswerForm.nothing)
    } else {
      const refusal = this.store.failure ?? new SunwiseError('OVERLOADED', 'The log has no room just now; try again')
      this.#refuse(thread, requestId, refusal)
    }
  }

  #compare(thread: number, u8: Uint8Array, i32: Int32Array, start: number): void {
    const word = start >>> 2
    const requestId = i32[word + 1]! >>> 0
    const partition = u8[start + 2]! | (u8[start + 3]! << 8)
    const payloadStart = start + compareCommandBytes
    try {
      const payload = u8.slice(payloadStart, payloadStart + (i32[word + 2]! >>> 0))
      this.#replyBytes(thread, requestId, this.#partitions.answer(u8[start + 1]!, partition, payload), false)
    } catch (error) {
      if (!(error instanceof SunwiseError)) throw error
      this.#refuse(thread, requestId, error)
    }
  }

  #readContext(i32: Int32Array, at: number, count: number): Vector | undefined {
    const entries: { actor: number; counter: number }[] = []
    for (let index = 0; index < count; index++) {
      const word = (at >>> 2) + index * 4
      const actor = this.store.actorIndex(i32[word]! >>> 0, i32[word + 1]! >>> 0)
      if (actor < 0) return undefined
      entries.push({ actor, counter: joinHalves(i32[word + 2]!, i32[word + 3]!) })
    }
    return entries.sort((a, b) => a.actor - b.actor)
  }

  #preconditionHolds(
    flags: number,
    set: VersionSet,
    liveCount: number,
    i32: Int32Array,
    at: number,
    count: number,
  ): boolean {
    if (flags & CommandFlag.ifNoneMatch && liveCount > 0) return false
    if (flags & CommandFlag.ifMatchAny && liveCount === 0) return false
    if ((flags & CommandFlag.ifMatch) === 0) return true
    if (liveCount === 0) return false
    const present = digest(set, this.#actorTable)
    for (let index = 0; index < count; index++) {
      const word = (at >>> 2) + index * 2
      if (i32[word]! >>> 0 === present.low && i32[word + 1]! >>> 0 === present.high) return true
    }
    return false
  }

  #readVersion(
    u8: Uint8Array,
    i32: Int32Array,
    start: number,
    at: number,
    isDelete: boolean,
    counter: number,
    timestamp: number,
  ): Version {
    const word = start >>> 2
    const typeBytes = u8[start + 29]!
    const code = u8[start + 28]!
    let contentType = ContentTypes[code] ?? ContentTypes[0]!
    if (code === contentTypeSpelledOut) {
      contentType = ''
      for (let index = 0; index < typeBytes; index++) contentType += String.fromCharCode(u8[at + index]!)
    }
    const valueStart = at + pad4(typeBytes)
    return {
      actor: this.store.actor,
      counter,
      tombstone: isDelete,
      expiresAtMs: isDelete ? 0 : joinHalves(i32[word + 8]!, i32[word + 9]!),
      timestamp,
      contentType: isDelete ? ContentTypes[0]! : contentType,
      value: isDelete ? new Uint8Array(0) : u8.slice(valueStart, valueStart + (i32[word + 6]! >>> 0)),
    }
  }

  // Replies.

  #refuse(thread: number, requestId: number, error: SunwiseError): void {
    if (error.code === 'STORE_FULL') this.#refusedFull++
    this.#replyToWrite(thread, requestId, errorNumberOf.get(error.code)!, OutcomeNumber.none, 0, false)
    this.#noteFailure()
  }

  /** Answers when all that is staged now is published: what the answer shows must not be taken back by a crash. */
  #answerLater(
    thread: number,
    requestId: number,
    ordinal: number,
    address: number,
    errorNumber: number,
    durable: boolean,
    form: number = AnswerForm.summary,
  ): void {
    if (ordinal === noOrdinal && this.#pendingHead === this.#pendingTail && this.store.isPublished) {
      if (form !== AnswerForm.summary) this.#replySet(thread, requestId, form, address, durable)
      else this.#replyToWrite(thread, requestId, errorNumber, OutcomeNumber.none, address, durable)
      return
    }
    const at = this.#pendingTail++ % pendingMax
    this.#pendingThrough[at] = this.store.nextOrdinal
    this.#pendingOrdinal[at] = ordinal
    this.#pendingThread[at] = thread
    this.#pendingRequest[at] = requestId
    this.#pendingAddress[at] = address
    this.#pendingError[at] = errorNumber
    this.#pendingDurable[at] = durable ? 1 : 0
    this.#pendingForm[at] = form
  }

  #answerPublished(through: number): void {
    while (this.#pendingHead < this.#pendingTail) {
      const at = this.#pendingHead % pendingMax
      if (this.#pendingThrough[at]! > through) return
      this.#pendingHead++
      if (this.#pendingOrdinal[at] === readOrdinal) {
        this.#replyRecord(this.#pendingThread[at]!, this.#pendingRequest[at]!, this.#pendingAddress[at]!)
        continue
      }
      const form = this.#pendingForm[at]!
      if (form !== AnswerForm.summary) {
        this.#replySet(
          this.#pendingThread[at]!,
          this.#pendingRequest[at]!,
          form,
          this.#pendingAddress[at]!,
          this.#pendingDurable[at] === 1,
        )
        continue
      }
      this.#replyToWrite(
        this.#pendingThread[at]!,
        this.#pendingRequest[at]!,
        this.#pendingError[at]!,
        OutcomeNumber.none,
        this.#pendingAddress[at]!,
        this.#pendingDurable[at] === 1,
      )
    }
  }

  #answerFailed(from: number, error: SunwiseError): void {
    let first = this.#pendingTail
    while (first > this.#pendingHead && this.#pendingThrough[(first - 1) % pendingMax]! > from) first--
    const number = errorNumberOf.get(error.code)!
    for (let pending = first; pending < this.#pendingTail; pending++) {
      const at = pending % pendingMax
      if (this.#pendingOrdinal[at] === readOrdinal) {
        this.#replyFailedRead(this.#pendingThread[at]!, this.#pendingRequest[at]!, number)
        continue
      }
      const outcome = this.#pendingOrdinal[at]! >= from ? OutcomeNumber[error.outcome] : OutcomeNumber.none
      this.#replyToWrite(this.#pendingThread[at]!, this.#pendingRequest[at]!, number, outcome, 0, false)
    }
    this.#pendingTail = first
  }

  /** The reply to a merge or track command, or to a write that other replicas will get. */
  #replySet(thread: number, requestId: number, form: number, address: number, durable: boolean): void {
    const set = form === AnswerForm.set ? encodeSet(this.#setAt(address), this.#actorTable) : emptyBytes
    this.#replyBytes(thread, requestId, set, durable)
  }

  #replyBytes(thread: number, requestId: number, bytes: Uint8Array, durable: boolean): void {
    const target = this.#replies.beginReply(thread, setReplyBytes + pad4(bytes.length))
    if (target === undefined) return
    const word = target.start >>> 2
    target.i32[word] = FrameKind.setReply
    target.i32[word + 1] = requestId
    target.i32[word + 2] = durable ? 1 : 0
    target.i32[word + 3] = bytes.length
    target.u8.set(bytes, target.start + setReplyBytes)
    this.#replies.commitReply(thread)
  }

  /** `address`: the record that the key has now, or 0. */
  #replyToWrite(
    thread: number,
    requestId: number,
    errorNumber: number,
    outcome: number,
    address: number,
    durable: boolean,
  ): void {
    if (address !== 0 && this.#isPlainLive(address)) {
      this.#replyPlain(thread, requestId, errorNumber, outcome, address, durable)
      return
    }
    const set = this.#setAt(address)
    const live = address === 0 ? [] : liveVersions(set, this.#clock.epochMs())
    const bytes = 32 + set.vector.length * vectorEntryBytes
    const target = this.#replies.beginReply(thread, bytes)
    if (target === undefined) return
    const word = target.start >>> 2
    const { i32 } = target
    const present = address === 0 ? { low: 0, high: 0 } : digest(set, this.#actorTable)
    const expiresAtMs = live.length === 1 ? live[0]!.expiresAtMs : 0
    i32[word] = FrameKind.writeReply | (outcome << 8) | (errorNumber << 16)
    i32[word + 1] = requestId
    i32[word + 2] = live.length | (durable ? 1 << 16 : 0) | (address === 0 ? 0 : 1 << 24)
    i32[word + 3] = set.vector.length
    i32[word + 4] = present.low
    i32[word + 5] = present.high
    i32[word + 6] = expiresAtMs
    i32[word + 7] = highHalf(expiresAtMs)
    for (const [index, entry] of set.vector.entries()) {
      const at = word + 8 + index * 4
      i32[at] = this.store.actorLow(entry.actor)
      i32[at + 1] = this.store.actorHigh(entry.actor)
      i32[at + 2] = entry.counter
      i32[at + 3] = highHalf(entry.counter)
    }
    this.#replies.commitReply(thread)
  }

  #isPlainLive(address: number): boolean {
    const slab = address >>> wordsPerSlabBits
    const at = (address & slabWordMask) << 2
    const u8 = this.store.arena.u8[slab]!
    if ((u8[at + 12]! & (RecordFlag.simple | RecordFlag.tombstone)) !== RecordFlag.simple) return false
    const expiresAtMs = simpleExpiry(u8, this.store.arena.i32[slab]!, at)
    return expiresAtMs === 0 || expiresAtMs > this.#clock.epochMs()
  }

  /** The reply for one live version, without an allocation; a digest of 0, 0 tells the receiver to derive it from the dot. */
  #replyPlain(
    thread: number,
    requestId: number,
    errorNumber: number,
    outcome: number,
    address: number,
    durable: boolean,
  ): void {
    const slab = address >>> wordsPerSlabBits
    const at = (address & slabWordMask) << 2
    const u8 = this.store.arena.u8[slab]!
    const source = this.store.arena.i32[slab]!
    const actor = simpleActor(u8, at)
    const counter = simpleCounter(u8, source, at)
    const expiresAtMs = simpleExpiry(u8, source, at)
    const target = this.#replies.beginReply(thread, 32 + vectorEntryBytes)
    if (target === undefined) return
    const word = target.start >>> 2
    const { i32 } = target
    i32[word] = FrameKind.writeReply | (outcome << 8) | (errorNumber << 16)
    i32[word + 1] = requestId
    i32[word + 2] = 1 | (durable ? 1 << 16 : 0) | (1 << 24)
    i32[word + 3] = 1
    i32[word + 4] = 0
    i32[word + 5] = 0
    i32[word + 6] = expiresAtMs
    i32[word + 7] = highHalf(expiresAtMs)
    i32[word + 8] = this.store.actorLow(actor)
    i32[word + 9] = this.store.actorHigh(actor)
    i32[word + 10] = counter
    i32[word + 11] = highHalf(counter)
    this.#replies.commitReply(thread)
  }

  // Reads by the owner.

  #get(thread: number, u8: Uint8Array, i32: Int32Array, start: number): void {
    const word = start >>> 2
    const keyBytes = i32[word + 5]! & 0xffff
    const partition = this.#options.partitionOfSlot(u8[start + 2]! | (u8[start + 3]! << 8))
    const hash = i32[word + 3]! >>> 0
    const bucketId = i32[word + 2]! >>> 0
    this.#ownerReads++
    const keyStart = start + writeCommandBytes
    if (u8[start + 1] === 1 && !this.store.isPublished) {
      // In order with the writes before it: what they staged, once it is visible.
      const staged = this.store.find(partition, hash, bucketId, u8, keyStart, keyBytes)
      if (staged !== 0 || this.store.tables === undefined) {
        this.#answerLater(thread, i32[word + 1]! >>> 0, readOrdinal, staged, 0, true)
        return
      }
    }
    const address = this.store.index.find(partition, hash, bucketId, u8, keyStart, keyBytes)
    if (address === 0 && this.store.tables !== undefined) {
      this.#replyFromTables(thread, partition, u8, i32, start, bucketId, keyStart, keyBytes)
      return
    }
    this.#replyRecord(thread, i32[word + 1]! >>> 0, address)
  }

  #replyFromTables(
    thread: number,
    partition: number,
    u8: Uint8Array,
    i32: Int32Array,
    start: number,
    bucketId: number,
    keyStart: number,
    keyBytes: number,
  ): void {
    const requestId = i32[(start >>> 2) + 1]! >>> 0
    const finder = this.store.tables!.finder
    try {
      const given = this.#resuming?.given ?? noBlocks
      const found = this.store.seekTables(partition, bucketId, u8, keyStart, keyBytes, given)
      if (found === Seek.waits) return this.#waitForBlock(thread, u8, i32, start)
      if (found === Seek.absent) return this.#replyRecord(thread, requestId, 0)
    } catch (error) {
      if (!(error instanceof SunwiseError)) throw error
      return this.#replyFailedRead(thread, requestId, errorNumberOf.get(error.code)!)
    }
    const bytes = recordBytesAt(finder.i32, finder.at)
    const target = this.#beginRecords(thread, requestId, bytes)
    if (target === undefined) return
    target.i32.set(finder.i32.subarray(finder.at >>> 2, (finder.at + bytes) >>> 2), (target.start >>> 2) + 4)
    this.#replies.commitReply(thread)
  }

  #replyRecord(thread: number, requestId: number, address: number): void {
    const bytes = address === 0 ? 0 : this.#bytesAt(address)
    const target = this.#beginRecords(thread, requestId, bytes)
    if (target === undefined) return
    if (address !== 0) this.#copyRecord(address, bytes, target.i32, (target.start >>> 2) + 4)
    this.#replies.commitReply(thread)
  }

  /** Begins the reply that holds one record of `bytes`, or none. */
  #beginRecords(thread: number, requestId: number, bytes: number): FrameTarget | undefined {
    const target = this.#replies.beginReply(thread, 16 + bytes)
    if (target === undefined) return undefined
    const to = target.start >>> 2
    target.i32[to] = FrameKind.recordsReply
    target.i32[to + 1] = requestId
    target.i32[to + 2] = bytes
    target.i32[to + 3] = 0
    return target
  }

  #replyFailedRead(thread: number, requestId: number, errorNumber: number): void {
    const target = this.#replies.beginReply(thread, 16)
    if (target === undefined) return
    const to = target.start >>> 2
    target.i32[to] = FrameKind.recordsReply | (errorNumber << 16)
    target.i32[to + 1] = requestId
    target.i32[to + 2] = 0
    target.i32[to + 3] = 0
    this.#replies.commitReply(thread)
  }

  #copyRecord(address: number, bytes: number, i32: Int32Array, word: number): void {
    const from = address & slabWordMask
    i32.set(this.store.arena.i32[address >>> wordsPerSlabBits]!.subarray(from, from + (bytes >>> 2)), word)
  }

  /** Keys of one bucket from (partition, after) on, in order, until the limit or until enough was looked at. */
  #list(thread: number, u8: Uint8Array, i32: Int32Array, start: number): void {
    const word = start >>> 2
    const requestId = i32[word + 1]! >>> 0
    const prefixBytes = i32[word + 5]! & 0xffff
    const afterBytes = i32[word + 5]! >>> 16
    const prefix = u8.slice(start + 32, start + 32 + prefixBytes)
    const afterStart = start + 32 + pad4(prefixBytes)
    const wanted: ListCommand = {
      thread,
      requestId,
      partition: u8[start + 2]! | (u8[start + 3]! << 8),
      bucketId: i32[word + 2]! >>> 0,
      limit: i32[word + 3]! >>> 0,
      bytesMax: i32[word + 4]! >>> 0,
      prefix,
      after: u8[start + 1]! & ListFlag.behindKey ? u8.slice(afterStart, afterStart + afterBytes) : undefined,
      nowMs: joinHalves(i32[word + 6]!, i32[word + 7]!),
      withValues: (u8[start + 1]! & ListFlag.withValues) !== 0,
      forReplica: (u8[start + 1]! & ListFlag.forReplica) !== 0,
    }
    const { tables } = this.store
    const isAlone = (u8[start + 1]! & ListFlag.alone) !== 0
    if (tables === undefined || tables.mayWait) return this.#listNow(wanted, isAlone ? 1 : listPartitionsMax)
    // On a slow disk what the list begins with is fetched first, while others are served.
    this.#coldCommands++
    tables.prefetch(wanted.partition, wanted.bucketId, firstKeyOf(wanted), () => {
      this.#coldCommands--
      this.#listNow(wanted, 1)
      this.flush()
      this.#events.resumed()
    })
  }

  #listNow(wanted: ListCommand, partitionsMax: number): void {
    const { thread, requestId, bucketId, limit, bytesMax, prefix, nowMs, withValues, forReplica } = wanted
    let { partition, after } = wanted
    const chosen: ListedRecord[] = []
    const end = firstPartitionOfShard(this.#options.shard + 1, this.#options.shards)
    let visited = 0
    let bytes = 0
    let partitions = 0
    let goesOn: number = ListEnd.atPartition
    let stoppedAt: Uint8Array | undefined
    while (partition < end && chosen.length < limit && visited < listVisitsMax && partitions < partitionsMax) {
      // One more than fits, to know whether the partition has more.
      const visitsMax = Math.max(1, listVisitsMax - visited)
      const range = {
        bucketId,
        prefix,
        after,
        nowMs,
        withDead: forReplica,
        limit: limit - chosen.length + 1,
        visitsMax,
      }
      let page: KeyPage
      try {
        page = this.#lister.smallest(partition, range, this.store.passerOf(partition))
      } catch (error) {
        if (!(error instanceof SunwiseError)) throw error
        return this.#replyFailedRead(thread, requestId, errorNumberOf.get(error.code)!)
      }
      visited += page.visits
      partitions++
      const before = chosen.length
      goesOn = ListEnd.atPartition
      for (const record of page.records) {
        const size = listedBytes(record, withValues)
        if (chosen.length >= limit || (chosen.length > 0 && bytes + size > bytesMax)) {
          // Go on behind the last key of this partition; without one, where this began.
          goesOn = chosen.length === before && after === undefined ? ListEnd.atPartition : ListEnd.behindLastRecord
          break
        }
        chosen.push(record)
        bytes += size
      }
      if (chosen.length - before < page.records.length) break
      if (page.stoppedAt !== undefined) {
        goesOn = ListEnd.behindKey
        stoppedAt = page.stoppedAt
        break
      }
      after = undefined
      partition++
    }
    if (!forReplica) return this.#replyList(wanted, chosen, bytes, partition, goesOn, stoppedAt)
    if (goesOn === ListEnd.behindLastRecord) stoppedAt = keyOf(chosen.at(-1)!)
    this.#replyEntries(wanted, chosen, partition, stoppedAt)
  }

  #replyEntries(
    { thread, requestId, withValues }: ListCommand,
    chosen: readonly ListedRecord[],
    partition: number,
    stoppedAt: Uint8Array | undefined,
  ): void {
    const entries = new ByteWriter()
    for (const record of chosen) {
      const key = keyOf(record)
      const held = decodeRecord(record.u8, record.i32, record.at, withValues ? undefined : withoutValues)
      const set = encodeSet(held, this.#actorTable)
      entries.u16(key.length)
      entries.u32(set.length)
      entries.raw(key)
      entries.raw(set)
    }
    const bytes = entries.toBytes()
    const keyBytes = stoppedAt === undefined ? 0 : 4 + pad4(stoppedAt.length)
    const target = this.#replies.beginReply(thread, recordsReplyBytes + pad4(bytes.length) + keyBytes)
    if (target === undefined) return
    const { u8, i32, start } = target
    const word = start >>> 2
    i32[word] = FrameKind.recordsReply
    i32[word + 1] = requestId
    i32[word + 2] = bytes.length
    i32[word + 3] = partition | ((stoppedAt === undefined ? ListEnd.atPartition : ListEnd.behindKey) << 16)
    u8.set(bytes, start + recordsReplyBytes)
    if (stoppedAt !== undefined) {
      const at = start + recordsReplyBytes + pad4(bytes.length)
      i32[at >>> 2] = stoppedAt.length
      u8.set(stoppedAt, at + 4)
    }
    this.#replies.commitReply(thread)
  }

  #replyList(
    { thread, requestId, withValues }: ListCommand,
    chosen: readonly ListedRecord[],
    bytes: number,
    partition: number,
    goesOn: number,
    stoppedAt: Uint8Array | undefined,
  ): void {
    const keyBytes = stoppedAt === undefined ? 0 : 4 + pad4(stoppedAt.length)
    const target = this.#replies.beginReply(thread, 16 + bytes + keyBytes)
    if (target === undefined) return
    let word = target.start >>> 2
    target.i32[word] = FrameKind.recordsReply
    target.i32[word + 1] = requestId
    target.i32[word + 2] = bytes
    target.i32[word + 3] = partition | (goesOn << 16)
    word += 4
    for (const record of chosen) {
      const size = listedBytes(record, withValues)
      const from = record.at >>> 2
      target.i32.set(record.i32.subarray(from, from + (size >>> 2)), word)
      // Without its value a record is just its head and key.
      if (!withValues) target.i32[word] = size
      word += size >>> 2
    }
    if (stoppedAt !== undefined) {
      target.i32[word] = stoppedAt.length
      target.u8.set(stoppedAt, (word + 1) << 2)
    }
    this.#replies.commitReply(thread)
  }

  #publishStatistics(): void {
    const control = this.#control
    const { store } = this
    control[ControlWord.writes] = this.#writes
    control[ControlWord.groups] = store.groups
    control[ControlWord.syncs] = store.syncs
    control[ControlWord.entries] = store.index.entries
    control[ControlWord.segmentsUsed] = store.segmentsUsed
    control[ControlWord.indexKiB] = store.index.bytesUsed >>> 10
    control[ControlWord.liveKiB] = Math.floor(store.liveBytes / 1024)
    control[ControlWord.recycledSegments] = store.recycledSegments
    control[ControlWord.expired] = store.expired
    control[ControlWord.refusedFull] = this.#refusedFull
    control[ControlWord.siblingWarnings] = this.#siblingWarnings
    control[ControlWord.ownerReads] = this.#ownerReads
    control[ControlWord.logKiB] = Math.floor(store.bytesWritten / 1024)
    control[ControlWord.diskFullMet] = store.spaceErrors
    const refusal = store.writeRefusal
    control[ControlWord.writeRefusal] = refusal === undefined ? 0 : refusal === 'memory' ? 1 : 2
    const { tables } = store
    if (tables !== undefined) {
      control[ControlWord.tables] = tables.tableCount
      control[ControlWord.tablesDamaged] = tables.damagedTables
      control[ControlWord.mergesOverLimit] = tables.mergesOverLimit
      control[ControlWord.checkedKiB] = Math.floor(tables.bytesChecked / 1024)
      control[ControlWord.scrubPasses] = tables.scrubPasses
      control[ControlWord.tableKiB] = Math.floor(tables.fileBytes / 1024)
      control[ControlWord.tableMetaKiB] = (tables.bytesUsed - tables.cacheBytes) >>> 10
      control[ControlWord.tableCacheKiB] = tables.cacheBytes >>> 10
      control[ControlWord.tableLoads] = tables.loads
      control[ControlWord.debtPermille] = Math.round(tables.debt * 1000)
      control[ControlWord.tableRuns] = tables.runs
      control[ControlWord.flushes] = tables.flushes
      control[ControlWord.compactions] = tables.compactions
      control[ControlWord.flushedKiB] = Math.floor(tables.bytesFlushed / 1024)
      control[ControlWord.compactedKiB] = Math.floor(tables.bytesCompacted / 1024)
    }
    Atomics.add(control, ControlWord.published, 1)
  }
}

/** Whether a command is about one key, whose hash it has. */
function isOfKey(kind: number): boolean {
  return kind !== FrameKind.list && kind !== FrameKind.track && kind !== FrameKind.compare
}

/** For `decodeRecord`: the versions without what they hold. */
function withoutValues(): Uint8Array {
  return emptyBytes
}

function keyOf({ u8, at }: ListedRecord): Uint8Array {
  return u8.slice(at + recordHeaderBytes, at + recordHeaderBytes + recordKeyBytes(u8, at))
}

/** Bytes of a record in a list; without its value it is just its head and key. */
function listedBytes({ u8, i32, at }: ListedRecord, withValues: boolean): number {
  return withValues ? recordBytesAt(i32, at) : recordHeaderBytes + pad4(recordKeyBytes(u8, at))
}
