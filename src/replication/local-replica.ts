/**
 * This node's own replica of partitions that others have, too, as the thread sees it that speaks for the node: it writes, merges and reads
 * through the shards that own them, and gives version sets in the form in which they travel (versions/set-codec.ts). An object
 * without a thread: requests with a callback, `receive` replies, `tick`.
 *
 * It knows nothing of other nodes, levels or receipts.
 */
import { assert } from '../base/assert.ts'
import { pad4 } from '../base/bytes.ts'
import { errorCodeOf, outcomeOf, SunwiseError } from '../base/errors.ts'
import { type HashSeed, KeyHash } from '../base/key-hash.ts'
import { partitionOfSlot, shardOfPartition, slotOfKey } from '../cluster/slots.ts'
import { type Durability, DurabilityNumber, hintBucketId, Limits, versionSetBytesMax } from '../config.ts'
import type { Clock, FrameTarget, Shards } from '../env.ts'
import {
  CommandFlag,
  FrameKind,
  ListEnd,
  listCommandBytes,
  recordsReplyBytes,
  setReplyBytes,
  writeCommandBytes,
} from '../shard/command.ts'
import { decodeHintKey, encodeHintKey, type HintKey } from '../shard/hint-record.ts'
import {
  compareCommandSize,
  encodeCompareCommand,
  encodeGetCommand,
  encodeHintCommand,
  encodeHintListCommand,
  encodeMergeCommand,
  encodeReplicaListCommand,
  encodeTrackCommand,
  encodeWriteCommand,
  mergeCommandSize,
  type ReplicaListRequest,
  replicaListSize,
  spelledBytes,
  trackCommandSize,
  writeCommandSize,
} from '../shard/write-command.ts'
import {
  contentTypeCodeOf,
  decodeRecord,
  recordBytesAt,
  recordHeaderBytes,
  recordKeyBytes,
  simpleTimestamp,
  simpleValueStart,
  valuePadding,
} from '../storage/record.ts'
import { ReadResult } from '../storage/resident-reader.ts'
import type { KeyReader } from '../storage/shard-reader.ts'
import type { ContextEntry } from '../versions/context.ts'
import { encodeSet } from '../versions/set-codec.ts'
import { type Digest, emptyVersionSet, type VersionSet } from '../versions/version-set.ts'
import { messageOf } from './checks.ts'
import { PendingTable } from './pending.ts'

export type LocalReplicaOptions = {
  readonly clock: Clock
  readonly shards: Shards
  /** This thread's reader of a shard; replaced when the shard's memory is. */
  readonly readerOf: (shard: number) => KeyReader
  readonly hashSeed: HashSeed
}

/** A write as its coordinator applies it to its own replica. */
export type LocalWrite = {
  readonly isDelete: boolean
  readonly bucketId: number
  readonly valueBytesMax: number
  readonly lastWriteWins: boolean
  readonly key: Uint8Array
  readonly value: Uint8Array
  /** Undefined: replaces what is there. */
  readonly context: readonly ContextEntry[] | undefined
  readonly ifMatch: readonly Digest[] | '*' | undefined
  readonly ifNoneMatch: boolean
  readonly contentType: string
  readonly expiresAtMs: number
  readonly durability: Durability
}

/** What a replica has of a key: the whole set, encoded, and whether it is on stable storage. */
export type HeldSet = { readonly set: Uint8Array; readonly isDurable: boolean }

/** Keys of a partition with what this replica has of each, in key order. */
export type HeldPage = {
  /** One behind the other, as peer-message.ts draws them. */
  readonly entries: Uint8Array
  /** All up to this key is here, and there may be more behind it; undefined: this is all. */
  readonly end: Uint8Array | undefined
  readonly isDurable: boolean
}

/** A hint as its record holds it: without versions it names only a key. */
export type HeldHint = { readonly set: Uint8Array | undefined }

/** A hint among others. */
export type ListedHint = HintKey & { readonly leftAtMs: number; readonly setBytes: number }

/** Hints from a place on, and where they go on; undefined: there are no more. */
export type HintPage = { readonly hints: readonly ListedHint[]; readonly next: HintPlace | undefined }

/** Behind a record of a partition, or at its beginning. */
export type HintPlace = { readonly partition: number; readonly after: Uint8Array | undefined }

type Done<Answer> = (error: SunwiseError | undefined, answer: Answer | undefined) => void

type Pending =
  | { readonly kind: 'write'; readonly done: Done<HeldSet> }
  | { readonly kind: 'merge'; readonly done: Done<{ readonly isDurable: boolean }> }
  | { readonly kind: 'compare'; readonly done: Done<Uint8Array> }
  | { readonly kind: 'read'; readonly shard: number; readonly done: Done<HeldSet> }
  | { readonly kind: 'list'; readonly shard: number; readonly done: Done<HeldPage> }
  | { readonly kind: 'hint'; readonly done: Done<{ readonly hint: HeldHint | undefined }> }
  | { readonly kind: 'hints'; readonly done: Done<HintPage> }

const noClock = new Uint8Array(0)
/** The bytes of a key that was never written. */
export const emptySet = encodeSet(emptyVersionSet, { lowOf: () => 0, highOf: () => 0 })

const emptyBytes = new Uint8Array(0)
const hintsPerPage = 256

export class LocalReplica {
  readonly #options: LocalReplicaOptions
  readonly #hash: KeyHash
  readonly #pending = new PendingTable<Pending>()
  readonly #touched = new Uint8Array(Limits.partitions)
  #scratch = new Int32Array(16 * 1024)
  #scratchBytes = new Uint8Array(this.#scratch.buffer)

  constructor(options: LocalReplicaOptions) {
    this.#options = options
    this.#hash = new KeyHash(options.hashSeed)
  }

  /** Requests under way. */
  get pendingCount(): number {
    return this.#pending.count
  }

  /** Whether something of a partition was written here, as far as this object knows. */
  isTouched(partition: number): boolean {
    return this.#touched[partition] === 1
  }

  /** Something of a partition is here from before. */
  touch(partition: number): void {
    this.#touched[partition] = 1
  }

  /** What is under way now, to be compared with what is later. */
  underWay(): ReadonlySet<object> {
    return this.#pending.requests()
  }

  /** Settles what the shards did not answer in time. */
  tick(): void {
    this.#pending.sweep(this.#options.clock.monotonicMs(), (request) => {
      const message = 'The shard did not answer before the deadline'
      request.done(new SunwiseError('TIMEOUT', message, { outcome: outcomeFor(request) }), undefined)
    })
  }

  /** Settles what waited for a shard that is gone. */
  shardDown(shard: number): void {
    this.#pending.failShard(shard, (request) => {
      const message = `Shard ${shard} stopped before it answered`
      request.done(new SunwiseError('SHARD_UNAVAILABLE', message, { outcome: outcomeFor(request) }), undefined)
    })
  }

  /** Applies a write here, and gives what the key has then. */
  write(write: LocalWrite, timeoutMs: number, done: Done<HeldSet>): void {
    const { key, value, contentType, ifMatch } = write
    const context = write.context ?? []
    const matches = ifMatch === undefined || ifMatch === '*' ? [] : ifMatch
    const typeCode = contentType === '' ? 0 : contentTypeCodeOf(contentType)
    const typeBytes = spelledBytes(typeCode, contentType)
    const slot = slotOfKey(key, 0, key.length)
    this.touch(partitionOfSlot(slot))
    const shard = this.#shardOf(slot)
    const target = this.#begin(
      shard,
      writeCommandSize(key.length, context.length, matches.length, typeBytes, value.length),
    )
    if (target instanceof SunwiseError) return done(target, undefined)
    const requestId = this.#add({ kind: 'write', done }, shard, timeoutMs)
    this.#hash.update(write.bucketId, key, 0, key.length)
    const flags =
      CommandFlag.replicated |
      (write.context !== undefined ? CommandFlag.context : 0) |
      (ifMatch === '*' ? CommandFlag.ifMatchAny : 0) |
      (ifMatch !== undefined && ifMatch !== '*' ? CommandFlag.ifMatch : 0) |
      (write.ifNoneMatch ? CommandFlag.ifNoneMatch : 0) |
      (write.lastWriteWins ? CommandFlag.lastWriteWins : 0)
    encodeWriteCommand(
      target,
      write.isDelete ? FrameKind.delete : FrameKind.put,
      flags,
      slot,
      requestId,
      write.bucketId,
      this.#hash.low,
      versionSetBytesMax(write.valueBytesMax),
      key,
      context,
      matches,
      typeCode,
      contentType,
      typeBytes,
      DurabilityNumber[write.durability],
      write.expiresAtMs,
      value,
    )
    this.#options.shards.commit(shard)
  }

  /** Takes in what another replica has of a key; with the clock that it had before also what it has no more. */
  merge(
    bucketId: number,
    key: Uint8Array,
    set: Uint8Array,
    lastWriteWins: boolean,
    durability: Durability,
    timeoutMs: number,
    done: Done<{ readonly isDurable: boolean }>,
    clock: Uint8Array = noClock,
  ): void {
    const slot = slotOfKey(key, 0, key.length)
    this.touch(partitionOfSlot(slot))
    const shard = this.#shardOf(slot)
    const target = this.#begin(shard, mergeCommandSize(key.length, set.length, clock.length))
    if (target instanceof SunwiseError) return done(target, undefined)
    const requestId = this.#add({ kind: 'merge', done }, shard, timeoutMs)
    this.#hash.update(bucketId, key, 0, key.length)
    const flags = lastWriteWins ? CommandFlag.lastWriteWins : 0
    const level = DurabilityNumber[durability]
    encodeMergeCommand(target, flags, slot, requestId, bucketId, this.#hash.low, key, level, set, clock)
    this.#options.shards.commit(shard)
  }

  /** Whether a partition lost data to damage, and has not got it back from other replicas: nobody may rely on what it does not have. */
  isResyncing(partition: number): boolean {
    const reader = this.#options.readerOf(shardOfPartition(partition, this.#options.shards.count))
    return reader.isResyncing?.(partition) === true
  }

  /**
   * What this replica has of a key, encoded; the empty set where it has nothing. TABLE_CORRUPT where it may have lost something of the partition,
   * except to who repairs.
   */
  read(bucketId: number, key: Uint8Array, timeoutMs: number, done: Done<HeldSet>, isForRepair = false): void {
    const slot = slotOfKey(key, 0, key.length)
    const shard = this.#shardOf(slot)
    if (!isForRepair && this.isResyncing(partitionOfSlot(slot))) return done(lostSomething(), undefined)
    let found: Uint8Array | undefined
    try {
      found = this.#readResident(shard, partitionOfSlot(slot), bucketId, key)
    } catch (error) {
      // Damage of a table, or of the disk below it: this key cannot be read here, others can.
      if (error instanceof SunwiseError) return done(error, undefined)
      throw error
    }
    if (found !== undefined) return done(undefined, this.#held(found, shard))
    const target = this.#begin(shard, writeCommandBytes + pad4(key.length))
    if (target instanceof SunwiseError) return done(target, undefined)
    const requestId = this.#add({ kind: 'read', shard, done }, shard, timeoutMs)
    this.#hash.update(bucketId, key, 0, key.length)
    encodeGetCommand(target, slot, requestId, bucketId, this.#hash.low, key, false)
    this.#options.shards.commit(shard)
  }

  /** What this replica has of the next keys of a partition, dead ones too. */
  list(request: ReplicaListRequest, timeoutMs: number, done: Done<HeldPage>): void {
    if (this.isResyncing(request.partition)) return done(lostSomething(), undefined)
    const shard = shardOfPartition(request.partition, this.#options.shards.count)
    const target = this.#begin(shard, replicaListSize(request))
    if (target instanceof SunwiseError) return done(target, undefined)
    const requestId = this.#add({ kind: 'list', shard, done }, shard, timeoutMs)
    encodeReplicaListCommand(target, requestId, request)
    this.#options.shards.commit(shard)
  }

  /** From now on these partitions have replicas elsewhere; `areEmpty`: this one is new to them. `done` once every shard knows. */
  track(
    partitions: readonly number[],
    areEmpty: boolean,
    timeoutMs: number,
    done: (error: SunwiseError | undefined) => void,
  ): void {
    const { shards } = this.#options
    const groups = Array.from({ length: shards.count }, (): number[] => [])
    for (const partition of partitions) groups[shardOfPartition(partition, shards.count)]!.push(partition)
    let left = 1
    let failure: SunwiseError | undefined
    const settle = (error: SunwiseError | undefined): void => {
      failure ??= error
      if (--left === 0) done(failure)
    }
    for (const [shard, group] of groups.entries()) {
      if (group.length === 0) continue
      left++
      const target = this.#begin(shard, trackCommandSize(group.length))
      if (target instanceof SunwiseError) {
        settle(target)
        continue
      }
      const requestId = this.#add({ kind: 'merge', done: (error) => settle(error) }, shard, timeoutMs)
      encodeTrackCommand(target, requestId, group, areEmpty)
      shards.commit(shard)
    }
    settle(undefined)
  }

  /** A question about what this replica has of a partition; `verb` is a CompareVerb, command.ts tells what each gets. */
  compare(verb: number, partition: number, payload: Uint8Array, timeoutMs: number, done: Done<Uint8Array>): void {
    const { shards } = this.#options
    const shard = shardOfPartition(partition, shards.count)
    const target = this.#begin(shard, compareCommandSize(payload.length))
    if (target instanceof SunwiseError) return done(target, undefined)
    const requestId = this.#add({ kind: 'compare', done }, shard, timeoutMs)
    encodeCompareCommand(target, verb, partition, requestId, payload)
    shards.commit(shard)
  }

  /** A reply frame for this thread; the bytes belong to this object until it returns. False: it answers none of its requests. */
  receive(u8: Uint8Array, i32: Int32Array, start: number): boolean {
    const word = start >>> 2
    const request = this.#pending.take(i32[word + 1]! >>> 0)
    if (request === undefined) return false
    const errorNumber = u8[start + 2]! | (u8[start + 3]! << 8)
    if (errorNumber !== 0) {
      const code = errorCodeOf(errorNumber)
      const outcome = isRead(request) ? 'none' : outcomeOf(u8[start + 1]!)
      request.done(new SunwiseError(code, messageOf(code), { outcome }), undefined)
      return true
    }
    if (request.kind === 'read') {
      assert(u8[start] === FrameKind.recordsReply, 'A read is answered by a records reply')
      const at = start + recordsReplyBytes
      const set = i32[word + 2]! > 0 ? decodeRecord(u8, i32, at) : undefined
      request.done(undefined, this.#held(this.#encoded(set, request.shard), request.shard))
      return true
    }
    if (request.kind === 'list') {
      request.done(undefined, this.#heldPage(request.shard, u8, i32, start))
      return true
    }
    if (request.kind === 'hint' || request.kind === 'hints') {
      assert(u8[start] === FrameKind.recordsReply, 'Hints are answered by a records reply')
      if (request.kind === 'hints') request.done(undefined, this.#hintPage(u8, i32, start))
      else
        request.done(undefined, { hint: i32[word + 2]! > 0 ? hintAt(u8, i32, start + recordsReplyBytes) : undefined })
      return true
    }
    assert(u8[start] === FrameKind.setReply, 'A write for other replicas is answered by a set reply')
    const isDurable = u8[start + 8] === 1
    const at = start + setReplyBytes
    const bytes = u8.slice(at, at + (i32[word + 3]! >>> 0))
    if (request.kind === 'merge') request.done(undefined, { isDurable })
    else if (request.kind === 'compare') request.done(undefined, bytes)
    else request.done(undefined, { set: bytes, isDurable })
    return true
  }

  /** Leaves a hint, with `set` merged into what it holds already, as durably as asked. */
  keepHint(
    hint: HintKey,
    set: Uint8Array | undefined,
    durability: Durability,
    timeoutMs: number,
    done: Done<{ readonly isDurable: boolean }>,
  ): void {
    this.#changeHint(hint, set ?? emptyBytes, durability, timeoutMs, done)
  }

  /** Removes a hint. Nothing waits for stable storage. */
  dropHint(hint: HintKey, timeoutMs: number, done: (error: SunwiseError | undefined) => void): void {
    this.#changeHint(hint, undefined, 'os', timeoutMs, (error) => done(error))
  }

  #changeHint(
    hint: HintKey,
    value: Uint8Array | undefined,
    durability: Durability,
    timeoutMs: number,
    done: Done<{ readonly isDurable: boolean }>,
  ): void {
    const key = encodeHintKey(hint)
    const slot = slotOfKey(hint.key, 0, hint.key.length)
    const shard = this.#shardOf(slot)
    const target = this.#begin(shard, mergeCommandSize(key.length, value?.length ?? 0, 0))
    if (target instanceof SunwiseError) return done(target, undefined)
    const requestId = this.#add({ kind: 'merge', done }, shard, timeoutMs)
    this.#hash.update(hintBucketId, key, 0, key.length)
    const leftAtMs = Math.floor(this.#options.clock.epochMs())
    encodeHintCommand(target, slot, requestId, this.#hash.low, key, value, DurabilityNumber[durability], leftAtMs)
    this.#options.shards.commit(shard)
  }

  /** What a hint holds, behind the changes before. */
  readHint(hint: HintKey, timeoutMs: number, done: Done<{ readonly hint: HeldHint | undefined }>): void {
    const key = encodeHintKey(hint)
    const slot = slotOfKey(hint.key, 0, hint.key.length)
    const shard = this.#shardOf(slot)
    const target = this.#begin(shard, writeCommandBytes + pad4(key.length))
    if (target instanceof SunwiseError) return done(target, undefined)
    const requestId = this.#add({ kind: 'hint', done }, shard, timeoutMs)
    this.#hash.update(hintBucketId, key, 0, key.length)
    encodeGetCommand(target, slot, requestId, hintBucketId, this.#hash.low, key, true)
    this.#options.shards.commit(shard)
  }

  /** Hints that lie here from a place on, some of one shard; `isAlone`: of no partition but that. */
  listHints(place: HintPlace, isAlone: boolean, bytesMax: number, timeoutMs: number, done: Done<HintPage>): void {
    const { partition, after } = place
    const shard = shardOfPartition(partition, this.#options.shards.count)
    const target = this.#begin(shard, listCommandBytes + pad4(after?.length ?? 0))
    if (target instanceof SunwiseError) return done(target, undefined)
    const requestId = this.#add({ kind: 'hints', done }, shard, timeoutMs)
    encodeHintListCommand(target, requestId, partition, isAlone, after, hintsPerPage, bytesMax)
    this.#options.shards.commit(shard)
  }

  #heldPage(shard: number, u8: Uint8Array, i32: Int32Array, start: number): HeldPage {
    assert(u8[start] === FrameKind.recordsReply, 'A list is answered by a records reply')
    const at = start + recordsReplyBytes
    const bytes = i32[(start >>> 2) + 2]!
    const goesOn = (i32[(start >>> 2) + 3]! >>> 16) & 0xff
    let end: Uint8Array | undefined
    if (goesOn === ListEnd.behindKey) {
      const key = at + pad4(bytes)
      end = u8.slice(key + 4, key + 4 + i32[key >>> 2]!)
    }
    const isDurable = !this.#options.readerOf(shard).mayHoldUnsynced
    return { entries: u8.slice(at, at + bytes), end, isDurable }
  }

  #hintPage(u8: Uint8Array, i32: Int32Array, start: number): HintPage {
    const word = start >>> 2
    const end = start + recordsReplyBytes + i32[word + 2]!
    const hints: ListedHint[] = []
    let last: Uint8Array | undefined
    for (let at = start + recordsReplyBytes; at < end; at += recordBytesAt(i32, at)) {
      const keyStart = at + recordHeaderBytes
      last = u8.slice(keyStart, keyStart + recordKeyBytes(u8, at))
      const key = decodeHintKey(last)
      const setBytes = at + recordBytesAt(i32, at) - valuePadding(u8[at + 12]!) - simpleValueStart(u8, at)
      if (key !== undefined) hints.push({ ...key, leftAtMs: simpleTimestamp(u8, i32, at), setBytes })
    }
    const partition = i32[word + 3]! & 0xffff
    const goesOn = (i32[word + 3]! >>> 16) & 0xff
    let after = goesOn === ListEnd.behindLastRecord ? last : undefined
    if (goesOn === ListEnd.behindKey) after = u8.slice(end + 4, end + 4 + i32[end >>> 2]!)
    return { hints, next: partition >= Limits.partitions ? undefined : { partition, after } }
  }

  #shardOf(slot: number): number {
    return shardOfPartition(partitionOfSlot(slot), this.#options.shards.count)
  }

  /** Undefined where only the owner can tell. */
  #readResident(shard: number, partition: number, bucketId: number, key: Uint8Array): Uint8Array | undefined {
    const reader = this.#options.readerOf(shard)
    this.#hash.update(bucketId, key, 0, key.length)
    for (;;) {
      const bytes = reader.readRecord(partition, this.#hash.low, bucketId, key, 0, key.length, this.#scratch)
      if (bytes > 0) return this.#encoded(decodeRecord(this.#scratchBytes, this.#scratch, 0), shard)
      if (bytes === ReadResult.absent) return emptySet
      if (bytes !== ReadResult.tooSmall) return undefined
      this.#scratch = new Int32Array(1 << Math.ceil(Math.log2(reader.neededBytes >>> 2) + 0.01))
      this.#scratchBytes = new Uint8Array(this.#scratch.buffer)
    }
  }

  #held(set: Uint8Array, shard: number): HeldSet {
    return { set, isDurable: !this.#options.readerOf(shard).mayHoldUnsynced }
  }

  #encoded(set: VersionSet | undefined, shard: number): Uint8Array {
    return set === undefined ? emptySet : encodeSet(set, this.#options.readerOf(shard).actors)
  }

  #add(request: Pending, shard: number, timeoutMs: number): number {
    return this.#pending.add(request, shard, this.#options.clock.monotonicMs() + timeoutMs)
  }

  /** Room for a frame, or why there is none: in both cases nothing was sent. */
  #begin(shard: number, bytes: number): FrameTarget | SunwiseError {
    const { shards } = this.#options
    if (!shards.isUp(shard)) {
      return new SunwiseError('SHARD_UNAVAILABLE', `Shard ${shard}, which owns the key, is recovering; try again`)
    }
    if (this.#pending.isFull) {
      return new SunwiseError('OVERLOADED', `Cannot take the request: ${Limits.pendingRequestsMax} are under way here`)
    }
    const target = shards.begin(shard, bytes)
    return target ?? new SunwiseError('OVERLOADED', `Cannot take the request: the queue to shard ${shard} is full`)
  }
}

/** A write that was sent may take effect; a read never does. */
function outcomeFor(request: Pending): 'unknown' | 'none' {
  return isRead(request) ? 'none' : 'unknown'
}

function isRead({ kind }: Pending): boolean {
  return kind === 'read' || kind === 'list' || kind === 'compare' || kind === 'hint' || kind === 'hints'
}

/** The hint in the record at `at`. */
function hintAt(u8: Uint8Array, i32: Int32Array, at: number): HeldHint | undefined {
  const version = decodeRecord(u8, i32, at).versions[0]
  if (version === undefined || version.tombstone) return undefined
  return { set: version.value.length === 0 ? undefined : version.value }
}

function lostSomething(): SunwiseError {
  const message = 'The partition lost data to damage here, and is not yet compared with its other replicas'
  return new SunwiseError('TABLE_CORRUPT', message, { outcome: 'none' })
}
