/** Writes commands of command.ts into the room that was reserved for them: the one place that knows where their fields lie. */
import { copyBytes, pad4 } from '../base/bytes.ts'
import { hintBucketId } from '../config.ts'
import type { FrameTarget } from '../env.ts'
import { contentTypeSpelledOut } from '../storage/record.ts'
import type { ContextEntry } from '../versions/context.ts'
import type { Digest } from '../versions/version-set.ts'
import {
  compareCommandBytes,
  FrameKind,
  highHalf,
  ListFlag,
  listCommandBytes,
  trackCommandBytes,
  vectorEntryBytes,
  writeCommandBytes,
} from './command.ts'

/** Bytes of a content type as a command spells it out. */
export function spelledBytes(typeCode: number, contentType: string): number {
  return typeCode === contentTypeSpelledOut ? contentType.length : 0
}

/** Bytes of a write command. */
export function writeCommandSize(
  keyBytes: number,
  contextEntries: number,
  matches: number,
  typeBytes: number,
  valueBytes: number,
): number {
  const context = contextEntries * vectorEntryBytes
  return writeCommandBytes + pad4(keyBytes) + context + matches * 8 + pad4(typeBytes) + pad4(valueBytes)
}

/** A put or delete. `typeBytes`: as `spelledBytes` says. */
export function encodeWriteCommand(
  { u8, i32, start }: FrameTarget,
  kind: number,
  flags: number,
  slot: number,
  requestId: number,
  bucketId: number,
  hash: number,
  versionSetBytesMax: number,
  key: Uint8Array,
  context: readonly ContextEntry[],
  matches: readonly Digest[],
  typeCode: number,
  contentType: string,
  typeBytes: number,
  durability: number,
  expiresAtMs: number,
  value: Uint8Array,
): void {
  const word = start >>> 2
  i32[word] = kind | (flags << 8) | (slot << 16)
  i32[word + 1] = requestId
  i32[word + 2] = bucketId
  i32[word + 3] = hash
  i32[word + 4] = versionSetBytesMax
  i32[word + 5] = key.length | (context.length << 16)
  i32[word + 6] = value.length
  i32[word + 7] = typeCode | (typeBytes << 8) | (durability << 16) | (matches.length << 24)
  i32[word + 8] = expiresAtMs
  i32[word + 9] = highHalf(expiresAtMs)
  i32[word + 10] = 0
  i32[word + 11] = 0
  copyBytes(key, 0, u8, start + writeCommandBytes, key.length)
  let at = start + writeCommandBytes + pad4(key.length)
  for (const entry of context) {
    i32[at >>> 2] = entry.low
    i32[(at >>> 2) + 1] = entry.high
    i32[(at >>> 2) + 2] = entry.counter
    i32[(at >>> 2) + 3] = highHalf(entry.counter)
    at += vectorEntryBytes
  }
  for (const match of matches) {
    i32[at >>> 2] = match.low
    i32[(at >>> 2) + 1] = match.high
    at += 8
  }
  for (let index = 0; index < typeBytes; index++) u8[at + index] = contentType.charCodeAt(index)
  copyBytes(value, 0, u8, at + pad4(typeBytes), value.length)
}

/** A read by the owner; `isBehindWrites`: in order with the writes before it. */
export function encodeGetCommand(
  { u8, i32, start }: FrameTarget,
  slot: number,
  requestId: number,
  bucketId: number,
  hash: number,
  key: Uint8Array,
  isBehindWrites: boolean,
): void {
  const word = start >>> 2
  i32.fill(0, word, word + writeCommandBytes / 4)
  i32[word] = FrameKind.get | (isBehindWrites ? 1 << 8 : 0) | (slot << 16)
  i32[word + 1] = requestId
  i32[word + 2] = bucketId
  i32[word + 3] = hash
  i32[word + 5] = key.length
  copyBytes(key, 0, u8, start + writeCommandBytes, key.length)
}

/** Bytes of a merge command. */
export function mergeCommandSize(keyBytes: number, setBytes: number, clockBytes: number): number {
  return writeCommandBytes + pad4(keyBytes) + pad4(setBytes) + pad4(clockBytes)
}

/** What another replica has of a key, encoded by versions/set-codec.ts. */
export function encodeMergeCommand(
  { u8, i32, start }: FrameTarget,
  flags: number,
  slot: number,
  requestId: number,
  bucketId: number,
  hash: number,
  key: Uint8Array,
  durability: number,
  set: Uint8Array,
  clock: Uint8Array,
): void {
  const word = start >>> 2
  i32.fill(0, word, word + writeCommandBytes / 4)
  i32[word] = FrameKind.merge | (flags << 8) | (slot << 16)
  i32[word + 1] = requestId
  i32[word + 2] = bucketId
  i32[word + 3] = hash
  i32[word + 5] = key.length
  i32[word + 6] = set.length
  i32[word + 7] = durability << 16
  i32[word + 8] = clock.length
  copyBytes(key, 0, u8, start + writeCommandBytes, key.length)
  const setStart = start + writeCommandBytes + pad4(key.length)
  copyBytes(set, 0, u8, setStart, set.length)
  copyBytes(clock, 0, u8, setStart + pad4(set.length), clock.length)
}

/** A hint to be left with `value`, or, without one, to be removed. Takes as many bytes as a merge command does. */
export function encodeHintCommand(
  { u8, i32, start }: FrameTarget,
  slot: number,
  requestId: number,
  hash: number,
  key: Uint8Array,
  value: Uint8Array | undefined,
  durability: number,
  leftAtMs: number,
): void {
  const word = start >>> 2
  i32.fill(0, word, word + writeCommandBytes / 4)
  i32[word] = (value === undefined ? FrameKind.dropHint : FrameKind.keepHint) | (slot << 16)
  i32[word + 1] = requestId
  i32[word + 2] = hintBucketId
  i32[word + 3] = hash
  i32[word + 5] = key.length
  i32[word + 6] = value?.length ?? 0
  i32[word + 7] = durability << 16
  i32[word + 10] = leftAtMs
  i32[word + 11] = highHalf(leftAtMs)
  copyBytes(key, 0, u8, start + writeCommandBytes, key.length)
  if (value !== undefined) copyBytes(value, 0, u8, start + writeCommandBytes + pad4(key.length), value.length)
}

/** Hints of one shard from a place on, with what they hold, and a little more than `bytesMax` of them at most. */
export function encodeHintListCommand(
  { u8, i32, start }: FrameTarget,
  requestId: number,
  partition: number,
  isAlone: boolean,
  after: Uint8Array | undefined,
  limit: number,
  bytesMax: number,
): void {
  const word = start >>> 2
  i32.fill(0, word, word + listCommandBytes / 4)
  i32[word] = FrameKind.list | ((1 | (after === undefined ? 0 : 2) | (isAlone ? 4 : 0)) << 8) | (partition << 16)
  i32[word + 1] = requestId
  i32[word + 2] = hintBucketId
  i32[word + 3] = limit
  i32[word + 4] = bytesMax
  i32[word + 5] = (after?.length ?? 0) << 16
  if (after !== undefined) copyBytes(after, 0, u8, start + listCommandBytes, after.length)
}

/** What a replica is asked for: keys of one partition behind a place, dead ones among them. */
export type ReplicaListRequest = {
  readonly partition: number
  readonly bucketId: number
  readonly prefix: Uint8Array
  /** Undefined: from the beginning of the partition. */
  readonly after: Uint8Array | undefined
  readonly limit: number
  /** About so many bytes of what is told, and one key in any case. */
  readonly bytesMax: number
  readonly withValues: boolean
}

/** Bytes of a list command for another replica. */
export function replicaListSize({ prefix, after }: ReplicaListRequest): number {
  return listCommandBytes + pad4(prefix.length) + pad4(after?.length ?? 0)
}

/** A list of one partition as replicas exchange it. */
export function encodeReplicaListCommand(
  { u8, i32, start }: FrameTarget,
  requestId: number,
  { partition, bucketId, prefix, after, limit, bytesMax, withValues }: ReplicaListRequest,
): void {
  const word = start >>> 2
  const flags =
    ListFlag.alone |
    ListFlag.forReplica |
    (withValues ? ListFlag.withValues : 0) |
    (after === undefined ? 0 : ListFlag.behindKey)
  i32.fill(0, word, word + listCommandBytes / 4)
  i32[word] = FrameKind.list | (flags << 8) | (partition << 16)
  i32[word + 1] = requestId
  i32[word + 2] = bucketId
  i32[word + 3] = limit
  i32[word + 4] = bytesMax
  i32[word + 5] = prefix.length | ((after?.length ?? 0) << 16)
  copyBytes(prefix, 0, u8, start + listCommandBytes, prefix.length)
  if (after !== undefined) copyBytes(after, 0, u8, start + listCommandBytes + pad4(prefix.length), after.length)
}

/** Bytes of a track command. */
export function trackCommandSize(partitions: number): number {
  return trackCommandBytes + pad4(2 * partitions)
}

/** Partitions that have replicas elsewhere from now on; `areEmpty`: this one is new to them and has nothing. */
export function encodeTrackCommand(
  { u8, i32, start }: FrameTarget,
  requestId: number,
  partitions: readonly number[],
  areEmpty: boolean,
): void {
  const word = start >>> 2
  i32[word] = FrameKind.track | (areEmpty ? 1 << 8 : 0)
  i32[word + 1] = requestId
  i32[word + 2] = partitions.length
  for (const [index, partition] of partitions.entries()) {
    u8[start + trackCommandBytes + 2 * index] = partition
    u8[start + trackCommandBytes + 2 * index + 1] = partition >>> 8
  }
}

/** Bytes of a compare command. */
export function compareCommandSize(payloadBytes: number): number {
  return compareCommandBytes + pad4(payloadBytes)
}

/** A question about a partition; `verb` is a CompareVerb. */
export function encodeCompareCommand(
  { u8, i32, start }: FrameTarget,
  verb: number,
  partition: number,
  requestId: number,
  payload: Uint8Array,
): void {
  const word = start >>> 2
  i32[word] = FrameKind.compare | (verb << 8) | (partition << 16)
  i32[word + 1] = requestId
  i32[word + 2] = payload.length
  i32[word + 3] = 0
  copyBytes(payload, 0, u8, start + compareCommandBytes, payload.length)
}
