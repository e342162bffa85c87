/**
 * Dealing logs anew: when the number of shards or the segment size changes, every old log is read once and its records are
 * dealt, in their order, to the logs of the new owners. All records of a key lie in one old log, so the order per key holds.
 *
 * Each new log is written one segment at a time from a buffer of its own; actor tables of the old logs are joined into one.
 * Nothing here decides when a log counts: the caller syncs, commits the new generation in its catalog, and only then removes
 * the old files. Until then a crash leaves the old generation as it was.
 */
import type { Crc32 } from '../base/crc32.ts'
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { Disk, DiskFile } from '../env.ts'
import { PartitionClock } from '../versions/partition-clock.ts'
import type { ActorTable } from '../versions/version-set.ts'
import { Arena, createArenaMemory } from './arena.ts'
import { segmentFileName } from './commit-log.ts'
import {
  type ActorId,
  type ClockEntry,
  ControlKind,
  clockEntriesMax,
  controlKind,
  decodeActors,
  decodeClocks,
  decodeTimestamps,
  decodeTrackedClocks,
  encodeActors,
  encodeClocks,
  encodeSegmentHead,
  encodeTimestamps,
  encodeTrackedClocks,
  isControl,
  type TrackedClock,
  trackedClocksBytesMax,
} from './log-control.ts'
import { groupHeaderBytes, type LogPosition, sealGroup } from './log-group.ts'
import { type Damage, recoverLog, segmentsOnDisk } from './log-recovery.ts'
import { fittingClocks } from './partition-clocks.ts'
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
  simpleActor,
  simpleCounter,
} from './record.ts'

/** Records are gathered into groups of about this size. */
const groupBytesWanted = 64 * 1024

export type DealOptions = {
  readonly disk: Disk
  readonly crc32: Crc32
  readonly oldDirectories: readonly string[]
  readonly oldSegmentBytes: number
  /** Where a clean stop ended the old logs, one per directory, if the last end was one. */
  readonly oldEnds?: readonly LogPosition[] | undefined
  /** One existing, empty directory per new shard. */
  readonly newDirectories: readonly string[]
  readonly newSegmentBytes: number
  /** Go on behind damage in the old logs, and tell what was skipped. */
  readonly salvage: boolean
  /** Under whom this node writes: its counters go on, those of earlier runs only as far as the heads of segments have room. */
  readonly actor?: ActorId | undefined
  readonly skipped: (damage: Damage) => void
  readonly shardOfSlot: (slot: number) => number
  readonly partitionOfSlot: (slot: number) => number
}

/** Deals all old logs; `done` when every new file and its directory entry is on stable storage. */
export function dealLogs(options: DealOptions, done: (error: SunwiseError | undefined, records: number) => void): void {
  const dealer = new LogDealer(options)
  let index = 0
  const next = (): void => {
    const directory = options.oldDirectories[index++]
    if (directory === undefined) return dealer.finish(done)
    dealer.deal(directory, options.oldEnds?.[index - 1], (error) => (error === undefined ? next() : done(error, 0)))
  }
  next()
}

class LogDealer {
  readonly #options: DealOptions
  readonly #writers: SegmentWriter[]
  readonly #actors: ActorId[] = []
  readonly #actorOfId = new Map<string, number>()
  /** Highest counters: partition -> actor -> counter. */
  readonly #clocks = new Map<number, Map<number, number>>()
  /** Clocks of partitions with replicas elsewhere. */
  readonly #tracked = new Map<number, PartitionClock>()
  /** Up to here the old shards may have given times to writes. */
  #timestampsThrough = 0
  #records = 0

  constructor(options: DealOptions) {
    this.#options = options
    this.#writers = options.newDirectories.map(
      (directory, shard) => new SegmentWriter(options, directory, shard, () => this.#head(shard)),
    )
  }

  deal(directory: string, syncedEnd: LogPosition | undefined, done: (error: SunwiseError | undefined) => void): void {
    const { disk, crc32, oldSegmentBytes } = this.#options
    const segments = segmentsOnDisk(disk, directory, oldSegmentBytes)
    const arena = new Arena(createArenaMemory(oldSegmentBytes, Math.max(1, segments)))
    /** New index of each actor of this log's own table. */
    const actorMap: number[] = []
    let failure: SunwiseError | undefined
    recoverLog(
      {
        disk,
        directory,
        arena,
        crc32,
        salvage: this.#options.salvage,
        syncedEnd,
        readOnly: false,
        alive: () => {},
        visit: (_address, u8, i32, at) => {
          if (failure !== undefined) return
          try {
            if (isControl(u8, at)) this.#takeControl(u8, i32, at, actorMap)
            else this.#takeRecord(u8, i32, at, actorMap)
          } catch (error) {
            if (!(error instanceof SunwiseError)) throw error
            failure = error
          }
        },
      },
      (error, log) => {
        for (const damage of log?.damages ?? []) this.#options.skipped(damage)
        done(error ?? failure)
      },
    )
  }

  finish(done: (error: SunwiseError | undefined, records: number) => void): void {
    let left = this.#writers.length
    let failed: SunwiseError | undefined
    for (const [shard, writer] of this.#writers.entries()) {
      // Counters outlive their records: a shard without any has clocks all the same.
      const hasClocks = this.#clocksOf(shard).length > 0 || this.#trackedOf(shard).length > 0
      writer.finish(hasClocks || this.#timestampsThrough > 0, (error) => {
        failed ??= error
        if (--left === 0) done(failed, this.#records)
      })
    }
  }

  #takeControl(u8: Uint8Array, i32: Int32Array, at: number, actorMap: number[]): void {
    const kind = controlKind(u8, at)
    if (kind === ControlKind.actors) {
      const table = decodeActors(u8, i32, at)
      for (const [offset, id] of (table?.ids ?? []).entries()) actorMap[table!.first + offset] = this.#actorIndex(id)
    } else if (kind === ControlKind.clocks) {
      for (const { partition, actor, counter } of decodeClocks(u8, i32, at) ?? []) {
        this.#note(partition, this.#mapped(actorMap, actor), counter)
      }
    } else if (kind === ControlKind.trackedClocks) {
      for (const { partition, clock } of decodeTrackedClocks(u8, i32, at) ?? []) this.#track(partition, clock)
    } else if (kind === ControlKind.timestamps) {
      this.#timestampsThrough = Math.max(this.#timestampsThrough, decodeTimestamps(u8, i32, at) ?? 0)
    } else if (kind === ControlKind.clocksAnew) {
      for (const told of decodeTrackedClocks(u8, i32, at) ?? []) {
        this.#tracked.delete(told.partition)
        this.#track(told.partition, told.clock)
        // Heads that were written before have what does not count any more.
        this.#writers[this.#shardOfPartition(told.partition)]!.append(encodeTrackedClocks([told], true))
      }
    }
  }

  #takeRecord(u8: Uint8Array, i32: Int32Array, at: number, actorMap: number[]): void {
    const slot = recordSlot(u8, at)
    const partition = this.#options.partitionOfSlot(slot)
    const writer = this.#writers[this.#options.shardOfSlot(slot)]!
    this.#records++
    if (u8[at + 12]! & RecordFlag.simple) {
      const actor = this.#mapped(actorMap, simpleActor(u8, at))
      this.#note(partition, actor, simpleCounter(u8, i32, at))
      const bytes = recordBytesAt(i32, at)
      const to = writer.room(bytes)
      writer.u8.set(u8.subarray(at, at + bytes), to)
      writer.u8[to + 14] = actor & 0xff
      writer.u8[to + 15] = actor >>> 8
      return
    }
    const set = decodeRecord(u8, i32, at)
    const mapped = {
      versions: set.versions.map((version) => ({ ...version, actor: this.#mapped(actorMap, version.actor) })),
      vector: set.vector.map(({ actor, counter }) => ({ actor: this.#mapped(actorMap, actor), counter })),
    }
    mapped.versions.sort((a, b) => a.actor - b.actor || a.counter - b.counter)
    mapped.vector.sort((a, b) => a.actor - b.actor)
    for (const entry of mapped.vector) this.#note(partition, entry.actor, entry.counter)
    const keyBytes = recordKeyBytes(u8, at)
    const to = writer.room(recordBytesOf(mapped, keyBytes))
    encodeRecord(writer.u8, writer.i32, to, slot, recordBucket(i32, at), u8, at + recordHeaderBytes, keyBytes, mapped)
  }

  #mapped(actorMap: readonly number[], actor: number): number {
    const index = actorMap[actor]
    if (index === undefined) {
      throw new SunwiseError(
        'LOG_CORRUPT',
        `A record names actor ${actor}, which its log does not define; restore a backup`,
      )
    }
    return index
  }

  #actorIndex(id: ActorId): number {
    const text = `${id.high}:${id.low}`
    const present = this.#actorOfId.get(text)
    if (present !== undefined) return present
    const index = this.#actors.push(id) - 1
    this.#actorOfId.set(text, index)
    // Segments opened before did not know it.
    for (const writer of this.#writers) writer.append(encodeActors(index, [id]))
    return index
  }

  #note(partition: number, actor: number, counter: number): void {
    let counters = this.#clocks.get(partition)
    if (counters === undefined) {
      counters = new Map()
      this.#clocks.set(partition, counters)
    }
    if (counter > (counters.get(actor) ?? 0)) counters.set(actor, counter)
  }

  #track(partition: number, bytes: Uint8Array): void {
    const clock = PartitionClock.decode(bytes, 0, bytes.length, (low, high) => this.#actorIndex({ low, high }))
    if (typeof clock === 'string') {
      throw new SunwiseError(
        'LOG_CORRUPT',
        `The clock of partition ${partition} in the log is damaged (${clock}); restore a backup`,
      )
    }
    const present = this.#tracked.get(partition)
    if (present === undefined) this.#tracked.set(partition, clock)
    else present.join(clock)
  }

  /** Actors and clocks for the start of a segment, and again at the end of the log. */
  #head(shard: number): Uint8Array[] {
    const tracked = this.#trackedOf(shard)
    return [
      encodeActors(0, this.#actors),
      encodeClocks(this.#clocksOf(shard)),
      ...(tracked.length === 0 ? [] : [encodeTrackedClocks(tracked)]),
      ...(this.#timestampsThrough === 0 ? [] : [encodeTimestamps(this.#timestampsThrough)]),
    ]
  }

  #trackedOf(shard: number): readonly TrackedClock[] {
    const actors: ActorTable = {
      lowOf: (index) => this.#actors[index]!.low,
      highOf: (index) => this.#actors[index]!.high,
    }
    const own = [...this.#tracked].filter(([partition]) => this.#shardOfPartition(partition) === shard)
    own.sort(([a], [b]) => a - b)
    return fittingClocks(own, actors, trackedClocksBytesMax(this.#options.newSegmentBytes))
  }

  #shardOfPartition(partition: number): number {
    return this.#options.shardOfSlot(partition * (Limits.slots / Limits.partitions))
  }

  #clocksOf(shard: number): readonly ClockEntry[] {
    const entries: ClockEntry[] = []
    for (const [partition, counters] of this.#clocks) {
      if (this.#shardOfPartition(partition) !== shard) continue
      for (const [actor, counter] of counters) entries.push({ partition, actor, counter })
    }
    const most = clockEntriesMax(this.#options.newSegmentBytes)
    if (entries.length <= most) return entries
    // An actor of an earlier run issues no dot again: of a great many the oldest are left out.
    const { actor: own } = this.#options
    const ownIndex = own === undefined ? -1 : (this.#actorOfId.get(`${own.high}:${own.low}`) ?? -1)
    const rank = ({ actor }: ClockEntry): number => (actor === ownIndex ? Number.POSITIVE_INFINITY : actor)
    const ranked = entries.toSorted((a, b) => (rank(a) === rank(b) ? 0 : rank(b) - rank(a)))
    return ranked.filter((entry, index) => index < most || entry.actor === ownIndex)
  }
}

/** Writes one new log, a whole segment at a time. */
class SegmentWriter {
  readonly u8: Uint8Array
  readonly i32: Int32Array
  readonly #options: DealOptions
  readonly #directory: string
  readonly #shard: number
  readonly #head: () => Uint8Array[]
  readonly #files: DiskFile[] = []
  #segment = -1
  #groupNumber = 0
  #groupStart = 0
  #end = 0
  #previousBytes = 0

  constructor(options: DealOptions, directory: string, shard: number, head: () => Uint8Array[]) {
    this.#options = options
    this.#directory = directory
    this.#shard = shard
    this.#head = head
    const buffer = new ArrayBuffer(options.newSegmentBytes)
    this.u8 = new Uint8Array(buffer)
    this.i32 = new Int32Array(buffer)
  }

  /** Offset at which a record of `bytes` is to be encoded. @throws DISK_FULL, DISK_FAILED */
  room(bytes: number): number {
    if (bytes + 4096 > this.u8.length) {
      throw new SunwiseError(
        'BAD_CONFIG',
        `Cannot deal the log to segments of ${this.u8.length} bytes: it holds a key of ${bytes} bytes; start with the --value-max and --memory of before`,
      )
    }
    if (this.#segment < 0) this.#open()
    if (this.#end - this.#groupStart >= groupBytesWanted) this.#seal()
    if (this.#end + bytes + groupHeaderBytes > this.u8.length) {
      this.#write()
      this.#open()
    }
    if (this.#end === this.#groupStart) this.#end += groupHeaderBytes
    const at = this.#end
    this.#end += bytes
    return at
  }

  append(record: Uint8Array): void {
    if (this.#segment < 0) return
    this.u8.set(record, this.room(record.length))
  }

  /** Ends the log, with a segment even where there are no records if it `isNeeded`. */
  finish(isNeeded: boolean, done: (error: SunwiseError | undefined) => void): void {
    const { disk } = this.#options
    try {
      if (this.#segment < 0 && isNeeded) this.#open()
      if (this.#segment >= 0) {
        for (const record of this.#head()) this.append(record)
        this.#write()
      }
    } catch (error) {
      if (error instanceof SunwiseError) return done(error)
      throw error
    }
    let left = this.#files.length + 1
    let failed: SunwiseError | undefined
    const finished = (error: SunwiseError | undefined): void => {
      failed ??= error
      if (--left === 0) done(failed)
    }
    for (const file of this.#files) {
      file.sync((error) => {
        file.close()
        finished(error)
      })
    }
    disk.syncDirectory(this.#directory, finished)
  }

  #open(): void {
    this.#segment++
    this.#groupNumber = 0
    this.#groupStart = 0
    this.#end = groupHeaderBytes
    this.u8.fill(0)
    const head = encodeSegmentHead({
      segmentBytes: this.u8.length,
      previousSequence: this.#segment,
      previousBytes: this.#previousBytes,
      oldestSequence: 1,
      shard: this.#shard,
      shards: this.#options.newDirectories.length,
      partitions: Limits.partitions,
    })
    for (const record of [head, ...this.#head()]) {
      this.u8.set(record, this.#end)
      this.#end += record.length
    }
  }

  #seal(): void {
    if (this.#end === this.#groupStart) return
    const bytes = this.#end - this.#groupStart
    const { crc32 } = this.#options
    const sequence = this.#segment + 1
    // The log counts only once all of it is synced, so each header may say that what stands before it is.
    const start = this.#groupStart
    sealGroup(this.u8, this.i32, start, bytes, sequence, this.#groupNumber++, sequence, start, crc32)
    this.#groupStart = this.#end
  }

  #write(): void {
    this.#seal()
    const path = `${this.#directory}/${segmentFileName(this.#segment)}`
    const file = this.#options.disk.createNow(path)
    this.#files.push(file)
    file.writeNow(this.u8, 0, this.#end, 0)
    this.#previousBytes = this.#end
  }
}
