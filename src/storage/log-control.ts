/**
 * Control records: facts about the log in the log. Same head as any record (record.ts) with flag `control`, bucket 0, and the
 * kind in the place of keyBytes; the payload starts at 24.
 *
 *   kind 1, segment head, first in every segment:
 *     u32 formatVersion, u32 segmentBytes, u32 previousSequence (0: none), u32 previousBytes (where the log of that segment
 *     ends), u32 oldestSequence (older segments are retired), u16 shard, u16 shards, u32 partitions
 *   kind 2, actors: u32 first index, u32 count, count x { u32 low, u32 high }
 *   kind 3, clocks: u32 count, count x { u16 partition, u16 actor, u32 counterLow, u32 counterHigh }: the highest counter of
 *     each actor that any record before this one holds, so that retiring old segments never makes a counter go back
 *   kind 4, tracked clocks: u32 count, count x { u16 first, u16 partitions, u32 bytes, clock (partition-clock.ts) }: of each
 *     partition with replicas elsewhere the dots that had reached this one, or fewer; neighbours with the same clock stand together
 *   kind 5, timestamps: u64 through: no write where the last one wins has a time above this in front of the next record of this kind. It
 *     goes ahead of what is given, so that a run that begins above it gives no time again, whatever its clock says
 *   kind 6, clocks anew: as kind 4, but what the log said of them before does not count: data was lost to damage, and with it what was known
 */
import { ByteReader, ByteWriter, pad4 } from '../base/bytes.ts'
import { Limits } from '../config.ts'
import { logFormatVersion } from './log-group.ts'
import { RecordFlag, recordBytesAt, recordHeaderBytes, recordKeyBytes } from './record.ts'

/** Kinds of control records. On disk: never change these values. */
export const ControlKind = {
  segmentHead: 1,
  actors: 2,
  clocks: 3,
  trackedClocks: 4,
  timestamps: 5,
  clocksAnew: 6,
} as const

export type SegmentHead = {
  readonly formatVersion: number
  readonly segmentBytes: number
  readonly previousSequence: number
  readonly previousBytes: number
  readonly oldestSequence: number
  readonly shard: number
  readonly shards: number
  readonly partitions: number
}

export type ActorId = { readonly low: number; readonly high: number }

/** One entry of a clocks record. */
export type ClockEntry = { readonly partition: number; readonly actor: number; readonly counter: number }

/** The clock of a partition with replicas elsewhere, encoded. */
export type TrackedClock = { readonly partition: number; readonly clock: Uint8Array }

/** The counters in the head of a segment may take one part in so many of it, and the tracked clocks as much. */
const clocksShare = 8
const clockEntryBytes = 12

/** How many entries of clocks the head of a segment of `segmentBytes` may hold. */
export function clockEntriesMax(segmentBytes: number): number {
  return Math.floor(segmentBytes / clocksShare / clockEntryBytes)
}

/** Bytes of a tracked clock, or of some that are the same, beside the clock itself. */
export const trackedClockHeadBytes = 8

/** How many bytes of tracked clocks the head of a segment of `segmentBytes` may hold. */
export function trackedClocksBytesMax(segmentBytes: number): number {
  return Math.floor(segmentBytes / clocksShare)
}

/** Wraps a payload into a control record; a multiple of 4 long. */
function controlRecord(kind: number, payload: Uint8Array): Uint8Array {
  const record = new Uint8Array(recordHeaderBytes + pad4(payload.length))
  const words = new Int32Array(record.buffer)
  words[0] = record.length
  words[1] = kind << 16
  words[3] = RecordFlag.control
  record.set(payload, recordHeaderBytes)
  return record
}

export function encodeSegmentHead(head: Omit<SegmentHead, 'formatVersion'>): Uint8Array {
  const writer = new ByteWriter(64)
  writer.u32(logFormatVersion)
  writer.u32(head.segmentBytes)
  writer.u32(head.previousSequence)
  writer.u32(head.previousBytes)
  writer.u32(head.oldestSequence)
  writer.u16(head.shard)
  writer.u16(head.shards)
  writer.u32(head.partitions)
  return controlRecord(ControlKind.segmentHead, writer.toBytes())
}

/** Actors `first` to `first + ids.length - 1` of the log's table. */
export function encodeActors(first: number, ids: readonly ActorId[]): Uint8Array {
  const writer = new ByteWriter(8 + 8 * ids.length)
  writer.u32(first)
  writer.u32(ids.length)
  for (const id of ids) {
    writer.u32(id.low)
    writer.u32(id.high)
  }
  return controlRecord(ControlKind.actors, writer.toBytes())
}

export function encodeClocks(entries: readonly ClockEntry[]): Uint8Array {
  const writer = new ByteWriter(4 + 12 * entries.length)
  writer.u32(entries.length)
  for (const entry of entries) {
    writer.u16(entry.partition)
    writer.u16(entry.actor)
    writer.u64(entry.counter)
  }
  return controlRecord(ControlKind.clocks, writer.toBytes())
}

/** `clocks` in the order of their partitions; `areAnew`: they take the place of what the log said of these before. */
export function encodeTrackedClocks(clocks: readonly TrackedClock[], areAnew = false): Uint8Array {
  const runs: { readonly first: number; partitions: number; readonly clock: Uint8Array }[] = []
  for (const { partition, clock } of clocks) {
    const last = runs.at(-1)
    const isNext = last !== undefined && last.first + last.partitions === partition && sameBytes(last.clock, clock)
    if (isNext) last.partitions++
    else runs.push({ first: partition, partitions: 1, clock })
  }
  const writer = new ByteWriter()
  writer.u32(runs.length)
  for (const { first, partitions, clock } of runs) {
    writer.u16(first)
    writer.u16(partitions)
    writer.bytes(clock)
  }
  return controlRecord(areAnew ? ControlKind.clocksAnew : ControlKind.trackedClocks, writer.toBytes())
}

export function encodeTimestamps(through: number): Uint8Array {
  const writer = new ByteWriter(8)
  writer.u64(through)
  return controlRecord(ControlKind.timestamps, writer.toBytes())
}

export function isControl(u8: Uint8Array, at: number): boolean {
  return (u8[at + 12]! & RecordFlag.control) !== 0
}

/** The kind of the control record at `at`. */
export function controlKind(u8: Uint8Array, at: number): number {
  return recordKeyBytes(u8, at)
}

function payloadReader(u8: Uint8Array, i32: Int32Array, at: number): ByteReader {
  return new ByteReader(u8, at + recordHeaderBytes, at + recordBytesAt(i32, at))
}

/** The segment head at `at`; undefined where the record is too short to be one. */
export function decodeSegmentHead(u8: Uint8Array, i32: Int32Array, at: number): SegmentHead | undefined {
  const reader = payloadReader(u8, i32, at)
  const head: SegmentHead = {
    formatVersion: reader.u32(),
    segmentBytes: reader.u32(),
    previousSequence: reader.u32(),
    previousBytes: reader.u32(),
    oldestSequence: reader.u32(),
    shard: reader.u16(),
    shards: reader.u16(),
    partitions: reader.u32(),
  }
  return reader.failed ? undefined : head
}

export function decodeActors(
  u8: Uint8Array,
  i32: Int32Array,
  at: number,
): { readonly first: number; readonly ids: readonly ActorId[] } | undefined {
  const reader = payloadReader(u8, i32, at)
  const first = reader.u32()
  const count = reader.u32()
  if (reader.failed || count * 8 > reader.remaining) return undefined
  const ids: ActorId[] = []
  for (let index = 0; index < count; index++) ids.push({ low: reader.u32(), high: reader.u32() })
  return { first, ids }
}

export function decodeClocks(u8: Uint8Array, i32: Int32Array, at: number): readonly ClockEntry[] | undefined {
  const reader = payloadReader(u8, i32, at)
  const count = reader.u32()
  if (count * 12 > reader.remaining) return undefined
  const entries: ClockEntry[] = []
  for (let index = 0; index < count; index++) {
    entries.push({ partition: reader.u16(), actor: reader.u16(), counter: reader.u64() })
  }
  return reader.failed ? undefined : entries
}

/** The clocks are not looked into. Undefined where the record is malformed. */
export function decodeTrackedClocks(u8: Uint8Array, i32: Int32Array, at: number): readonly TrackedClock[] | undefined {
  const reader = payloadReader(u8, i32, at)
  const count = reader.u32()
  if (count * trackedClockHeadBytes > reader.remaining) return undefined
  const clocks: TrackedClock[] = []
  for (let index = 0; index < count; index++) {
    const first = reader.u16()
    const partitions = reader.u16()
    const clock = reader.bytes()
    if (reader.failed || first + partitions > Limits.partitions || clocks.length + partitions > Limits.partitions)
      return undefined
    for (let partition = first; partition < first + partitions; partition++) clocks.push({ partition, clock })
  }
  return clocks
}

/** Up to where times were given; undefined where the record is malformed. */
export function decodeTimestamps(u8: Uint8Array, i32: Int32Array, at: number): number | undefined {
  const reader = payloadReader(u8, i32, at)
  const through = reader.u64()
  return reader.failed || !Number.isSafeInteger(through) ? undefined : through
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a === b || (a.length === b.length && a.every((byte, index) => byte === b[index]))
}
