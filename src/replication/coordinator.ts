/**
 * The coordinator of one thread, for partitions whose whole preference list is this node. It checks a request, reads from
 * shared memory or sends a frame to the owner, and turns the reply into an answer with a receipt. An object without a thread:
 * requests with a callback, `receive` replies, `tick`.
 *
 * A write without a context replaces what its shard sees. A read is lock-free and never crosses threads, except when it was
 * contended. Expiry is judged here, once per request.
 */
import { assert } from '../base/assert.ts'
import { copyBytes, pad4 } from '../base/bytes.ts'
import { errorCodeOf, outcomeOf, SunwiseError } from '../base/errors.ts'
import { type HashSeed, KeyHash } from '../base/key-hash.ts'
import { SipHash } from '../base/siphash.ts'
import { partitionOfSlot, shardOfPartition, slotOfKey, slotOfTag } from '../cluster/slots.ts'
import { type Durability, DurabilityNumber, Limits, versionSetBytesMax } from '../config.ts'
import type { Clock, FrameTarget, Shards } from '../env.ts'
import {
  CommandFlag,
  FrameKind,
  highHalf,
  joinHalves,
  ListEnd,
  listCommandBytes,
  recordsReplyBytes,
  writeCommandBytes,
  writeReplyBytes,
} from '../shard/command.ts'
import { encodeGetCommand, encodeWriteCommand, spelledBytes, writeCommandSize } from '../shard/write-command.ts'
import {
  type Allocate,
  contentTypeCodeOf,
  decodeRecord,
  recordBytesAt,
  recordHeaderBytes,
  recordKeyBytes,
} from '../storage/record.ts'
import { ReadResult } from '../storage/resident-reader.ts'
import type { KeyReader } from '../storage/shard-reader.ts'
import { type ContextEntry, decodeContext, encodeContext } from '../versions/context.ts'
import {
  type ActorTable,
  digest,
  digestOfDot,
  digestText,
  liveVersions,
  type Vector,
  type Version,
  type VersionSet,
  winnerFirst,
} from '../versions/version-set.ts'
import { keyText, responseLimit } from './batch.ts'
import {
  badCursor,
  checkBatch,
  checkContentType,
  checkIfMatch,
  checkKey,
  checkListLimit,
  checkListPrefix,
  checkRequest,
  checkTtl,
  messageOf,
  parseETags,
} from './checks.ts'
import { CursorCodec } from './cursor.ts'
import { PendingTable } from './pending.ts'
import { acksNeeded } from './quorum.ts'
import type {
  BatchOperation,
  BatchResult,
  Bucket,
  Callback,
  Coordinator,
  ETag,
  ListedKey,
  ListOptions,
  ListPage,
  ReadAnswer,
  ReadOptions,
  Receipt,
  StoredValue,
  WriteAnswer,
  WriteOptions,
} from './requests.ts'

export type CoordinatorOptions = {
  readonly clock: Clock
  readonly shards: Shards
  /** This thread's reader of a shard; replaced when the shard's memory is. */
  readonly readerOf: (shard: number) => KeyReader
  readonly hashSeed: HashSeed
  /** 16 bytes that all nodes of the cluster share. */
  readonly clusterKey: Uint8Array
  /** Durability of buckets that name none. */
  readonly durability: Durability
  /** Memory for values and contexts of answers; default: an array of its own for each. */
  readonly allocate?: Allocate
}

/** Called back by the table of pending requests. */
type Pending =
  | {
      readonly kind: 'write'
      readonly bucketId: number
      readonly key: Uint8Array
      readonly done: Callback<WriteAnswer>
    }
  | { readonly kind: 'read'; readonly bucketId: number; readonly key: Uint8Array; readonly done: Callback<ReadAnswer> }
  | { readonly kind: 'list'; readonly done: Callback<ListChunk> }

/** What one list command brought. */
type ListChunk = {
  readonly records: Uint8Array
  readonly partition: number
  /** ListEnd, and the key for `behindKey`. */
  readonly goesOn: number
  readonly stoppedAt: Uint8Array | undefined
}

/** One node alone never changes its topology. */
const epochOfOneNode = 1
const emptyBytes = new Uint8Array(0)
const oneReplica = { acks: acksNeeded('all', 1), replicas: 1, sloppy: false, epoch: epochOfOneNode }
const durableReceipt: Receipt = Object.freeze({ ...oneReplica, durable: true })
/** The kernel has the bytes, stable storage not yet. */
const receivedReceipt: Receipt = Object.freeze({ ...oneReplica, durable: false })
const noOptions: WriteOptions = Object.freeze({})
/** Operations of a batch after which the shards may start. */
const batchPublishOperations = 64
/** Stretches of dead records that a page of a list passes; then it ends, perhaps with no key, and its cursor leads on. */
const deadStretchesMax = 16

export class ShardCoordinator implements Coordinator {
  readonly #options: CoordinatorOptions
  readonly #hash: KeyHash
  readonly #mac: SipHash
  readonly #cursors: CursorCodec
  readonly #pending = new PendingTable<Pending>()
  readonly #allocate: Allocate
  /** Partition of the key that was located last, and the reader of its shard. */
  #partition = 0
  #reader: KeyReader
  #scratch = new Int32Array(16 * 1024)
  #scratchBytes = new Uint8Array(this.#scratch.buffer)
  readonly #contextScratch = new Uint8Array(Limits.contextBytesMax + 64)

  constructor(options: CoordinatorOptions) {
    this.#options = options
    this.#hash = new KeyHash(options.hashSeed)
    this.#mac = new SipHash(options.clusterKey)
    this.#cursors = new CursorCodec(this.#mac)
    this.#reader = options.readerOf(0)
    this.#allocate = options.allocate ?? ((bytes) => new Uint8Array(bytes))
  }

  /** Requests under way. */
  get pendingCount(): number {
    return this.#pending.count
  }

  /** Settles what is past its deadline. */
  tick(): void {
    this.#pending.sweep(this.#options.clock.monotonicMs(), (request) => {
      this.#fail(
        request,
        new SunwiseError('TIMEOUT', 'The shard did not answer before the deadline', outcomeFor(request)),
      )
    })
  }

  /** Settles what waited for a shard that is gone: writes may or may not be in its log. */
  shardDown(shard: number): void {
    this.#pending.failShard(shard, (request) => {
      this.#fail(
        request,
        new SunwiseError('SHARD_UNAVAILABLE', `Shard ${shard} stopped before it answered`, outcomeFor(request)),
      )
    })
  }

  /** Settles everything: the store is closing. */
  close(): void {
    this.#pending.failShard(-1, (request) => {
      this.#fail(request, new SunwiseError('CLOSED', 'The store closed before the answer', outcomeFor(request)))
    })
  }

  get(bucket: Bucket, key: Uint8Array, options: ReadOptions, done: Callback<ReadAnswer>): void {
    const problem = checkKey(key) ?? checkRequest(options.r ?? bucket.r, bucket.n, 1, 'r', options.timeoutMs)
    if (problem !== undefined) return done(problem, undefined)
    let bytes: number
    try {
      bytes = this.#readRecord(bucket.id, key)
    } catch (error) {
      // Damage of a table, or of the disk below it: this key cannot be read, others can.
      if (error instanceof SunwiseError) return done(error, undefined)
      throw error
    }
    if (bytes === ReadResult.contended || bytes === ReadResult.notResident)
      return this.#askOwner(bucket, key, options, false, done)
    if (bytes === ReadResult.unavailable) return done(this.#unavailable(key), undefined)
    const i32 = this.#scratch
    done(undefined, this.#readAnswer(bucket.id, key, bytes > 0 ? this.#scratchBytes : undefined, i32, 0))
  }

  put(bucket: Bucket, key: Uint8Array, value: Uint8Array, options: WriteOptions, done: Callback<WriteAnswer>): void {
    if (value.length > bucket.valueBytesMax) {
      const message = `Cannot store a value of ${value.length} bytes: bucket "${bucket.name}" takes at most ${bucket.valueBytesMax}`
      return done(new SunwiseError('VALUE_TOO_LARGE', message, { extra: { limit: bucket.valueBytesMax } }), undefined)
    }
    this.#write(FrameKind.put, bucket, key, value, options, done)
  }

  delete(bucket: Bucket, key: Uint8Array, options: WriteOptions, done: Callback<WriteAnswer>): void {
    this.#write(FrameKind.delete, bucket, key, emptyBytes, options, done)
  }

  batch(
    bucket: Bucket,
    operations: readonly BatchOperation[],
    options: { readonly timeoutMs?: number | undefined },
    done: Callback<readonly BatchResult[]>,
  ): void {
    const problem = checkBatch(operations.length)
    if (problem !== undefined) return done(problem, undefined)
    const results: BatchResult[] = new Array(operations.length)
    let left = operations.length
    if (left === 0) return done(undefined, results)
    const isMixed = operations.some((operation) => operation.op === 'get') && operations.some(({ op }) => op !== 'get')
    const touched = new Set<string>()
    // Values of one answer stop here, whatever their number: what lies behind is not even read.
    let valueBytes = 0
    let isFull = false
    const settle = (index: number, result: BatchResult): void => {
      results[index] = result
      if (--left === 0) done(undefined, results)
    }
    const settleRead = (index: number, answer: ReadAnswer): void => {
      for (const stored of answer.values) valueBytes += stored.value.length
      isFull ||= valueBytes > Limits.responseBytesMax
      settle(index, isFull ? { op: 'get', error: responseLimit() } : { op: 'get', answer })
    }
    for (let index = 0; index < operations.length; index++) {
      const operation = operations[index]!
      const { op, key } = operation
      if (index % batchPublishOperations === batchPublishOperations - 1) this.#options.shards.publish()
      if (op === 'get') {
        if (isFull) {
          settle(index, { op, error: responseLimit() })
          continue
        }
        const answered: Callback<ReadAnswer> = (error, answer) => {
          if (error !== undefined) settle(index, { op, error })
          else settleRead(index, answer!)
        }
        // A read behind a write of the same key in this batch must see it: the owner answers in the order of frames.
        if (isMixed && touched.has(keyText(key))) this.#askOwner(bucket, key, options, true, answered)
        else this.get(bucket, key, options, answered)
        continue
      }
      if (isMixed) touched.add(keyText(key))
      const answered: Callback<WriteAnswer> = (error, answer) =>
        settle(index, error !== undefined ? { op, error } : { op, answer: answer! })
      const merged =
        options.timeoutMs === undefined
          ? (operation.options ?? noOptions)
          : { timeoutMs: options.timeoutMs, ...operation.options }
      if (op === 'put') this.put(bucket, key, operation.value, merged, answered)
      else this.delete(bucket, key, merged, answered)
    }
  }

  list(bucket: Bucket, options: ListOptions, done: Callback<ListPage>): void {
    const problem =
      checkRequest(options.r ?? 'one', bucket.n, 1, 'r', options.timeoutMs) ?? checkListLimit(options.limit)
    if (problem !== undefined) return done(problem, undefined)
    let partition = 0
    let after: Uint8Array | undefined
    if (options.cursor !== undefined) {
      const position = this.#cursors.decode(bucket.id, options.cursor)
      if (position === undefined) return done(badCursor(), undefined)
      partition = position.partition
      after = position.after
    }
    // Keys with one hash tag are all in one partition.
    const tagSlot = options.prefix === undefined ? -1 : slotOfTag(options.prefix, 0, options.prefix.length)
    const isTagged = tagSlot >= 0
    const endPartition = isTagged ? partitionOfSlot(tagSlot) + 1 : Limits.partitions
    if (isTagged && partition < endPartition - 1) {
      partition = endPartition - 1
      after = undefined
    }
    const keys: ListedKey[] = []
    let bytes = 0
    let deadStretches = 0
    const deadlineMs = this.#deadline(options.timeoutMs)
    const more = (): void => {
      if (partition >= endPartition) return done(undefined, { keys, cursor: undefined })
      const request: Pending = {
        kind: 'list',
        done: (error, chunk) => {
          if (error !== undefined || chunk === undefined) return done(error, undefined)
          this.#takeChunk(bucket.id, partition, chunk.records, options.values, keys)
          bytes += chunk.records.length
          const last = keys.at(-1)?.key
          partition = chunk.partition
          after = chunk.goesOn === ListEnd.behindLastRecord ? last : chunk.stoppedAt
          if (chunk.stoppedAt !== undefined) deadStretches++
          const isFull = keys.length >= options.limit || bytes >= Limits.listReplyBytesMax
          if (!isFull && deadStretches < deadStretchesMax) return more()
          const atEnd = partition >= endPartition
          done(undefined, { keys, cursor: atEnd ? undefined : this.#cursors.encode(bucket.id, { partition, after }) })
        },
      }
      const limit = options.limit - keys.length
      const failed = this.#sendList(request, bucket.id, partition, after, isTagged, options, limit, deadlineMs)
      if (failed !== undefined) done(failed, undefined)
    }
    more()
  }

  /** A reply frame for this thread; the bytes belong to the coordinator until this returns. */
  receive(u8: Uint8Array, i32: Int32Array, start: number): void {
    const word = start >>> 2
    const request = this.#pending.take(i32[word + 1]! >>> 0)
    if (request === undefined) return
    const errorNumber = u8[start + 2]! | (u8[start + 3]! << 8)
    if (request.kind === 'write') {
      assert(u8[start] === FrameKind.writeReply, 'A write is answered by a write reply')
      this.#receiveWrite(request, errorNumber, u8, i32, start)
      return
    }
    assert(u8[start] === FrameKind.recordsReply, 'A read is answered by a records reply')
    if (errorNumber !== 0) {
      const code = errorCodeOf(errorNumber)
      return this.#fail(request, new SunwiseError(code, messageOf(code), { outcome: 'none' }))
    }
    const bytes = i32[word + 2]! >>> 0
    if (request.kind === 'list') {
      const at = i32[word + 3]!
      const records = u8.slice(start + recordsReplyBytes, start + recordsReplyBytes + bytes)
      const goesOn = (at >>> 16) & 0xff
      let stoppedAt: Uint8Array | undefined
      if (goesOn === ListEnd.behindKey) {
        const key = start + recordsReplyBytes + bytes
        stoppedAt = u8.slice(key + 4, key + 4 + i32[key >>> 2]!)
      }
      request.done(undefined, { records, partition: at & 0xffff, goesOn, stoppedAt })
      return
    }
    const source = bytes > 0 ? u8 : undefined
    this.#locate(request.key)
    request.done(undefined, this.#readAnswer(request.bucketId, request.key, source, i32, start + recordsReplyBytes))
  }

  // Checks.

  #deadline(timeoutMs: number | undefined): number {
    return this.#options.clock.monotonicMs() + (timeoutMs ?? Limits.timeoutMsDefault)
  }

  #unavailable(key: Uint8Array): SunwiseError {
    const slot = slotOfKey(key, 0, key.length)
    const shard = shardOfPartition(partitionOfSlot(slot), this.#options.shards.count)
    return new SunwiseError('SHARD_UNAVAILABLE', `Shard ${shard}, which owns the key, is recovering; try again`)
  }

  // Reads.

  #locate(key: Uint8Array): void {
    this.#partition = partitionOfSlot(slotOfKey(key, 0, key.length))
    this.#reader = this.#options.readerOf(shardOfPartition(this.#partition, this.#options.shards.count))
  }

  /** Copies the record of a key, which it locates, into the scratch. Returns its bytes or a ReadResult. */
  #readRecord(bucketId: number, key: Uint8Array): number {
    this.#locate(key)
    const reader = this.#reader
    this.#hash.update(bucketId, key, 0, key.length)
    for (;;) {
      const bytes = reader.readRecord(this.#partition, this.#hash.low, bucketId, key, 0, key.length, this.#scratch)
      if (bytes !== ReadResult.tooSmall) return bytes
      this.#scratch = new Int32Array(1 << Math.ceil(Math.log2(reader.neededBytes >>> 2) + 0.01))
      this.#scratchBytes = new Uint8Array(this.#scratch.buffer)
    }
  }

  /** The answer for a whole, validated record of the located key at `at` of `u8`/`i32`; undefined `u8`: there is none. */
  #readAnswer(bucketId: number, key: Uint8Array, u8: Uint8Array | undefined, i32: Int32Array, at: number): ReadAnswer {
    const receipt = this.#reader.mayHoldUnsynced ? receivedReceipt : durableReceipt
    if (u8 === undefined) return { values: [], etag: undefined, context: undefined, receipt }
    const set = decodeRecord(u8, i32, at, this.#allocate)
    const { actors } = this.#reader
    return {
      values: this.#liveValues(set, actors),
      etag: digestText(digest(set, actors)),
      context: this.#contextOf(bucketId, key, this.#partition, set.vector, actors),
      receipt,
    }
  }

  #liveValues(set: VersionSet, actors: ActorTable): readonly StoredValue[] {
    const live = liveVersions(set, this.#options.clock.epochMs())
    const ordered: readonly Version[] = live.length > 1 ? winnerFirst(live, actors) : live
    return ordered.map(({ value, contentType, expiresAtMs }) => ({
      value,
      contentType,
      expiresAtMs: expiresAtMs === 0 ? undefined : expiresAtMs,
    }))
  }

  /** Undefined where the vector names more actors than a token holds: the next write is then blind. */
  #contextOf(
    bucketId: number,
    key: Uint8Array,
    partition: number,
    vector: Vector,
    actors: ActorTable,
  ): Uint8Array | undefined {
    const into = this.#contextScratch
    const bytes = encodeContext(this.#mac, into, 0, partition, bucketId, key, 0, key.length, vector, actors)
    if (bytes === 0) return undefined
    const context = this.#allocate(bytes)
    copyBytes(into, 0, context, 0, bytes)
    return context
  }

  /** Asks the owner for a record: after a contended read, or (`behindWrites`) in order with writes sent before. */
  #askOwner(
    bucket: Bucket,
    key: Uint8Array,
    options: ReadOptions,
    behindWrites: boolean,
    done: Callback<ReadAnswer>,
  ): void {
    const problem = checkKey(key)
    if (problem !== undefined) return done(problem, undefined)
    const slot = slotOfKey(key, 0, key.length)
    const shard = shardOfPartition(partitionOfSlot(slot), this.#options.shards.count)
    const bytes = writeCommandBytes + pad4(key.length)
    const target = this.#begin(shard, bytes)
    if (target instanceof SunwiseError) return done(target, undefined)
    const request: Pending = { kind: 'read', bucketId: bucket.id, key: this.#copyOf(key), done }
    const requestId = this.#pending.add(request, shard, this.#deadline(options.timeoutMs))
    this.#hash.update(bucket.id, key, 0, key.length)
    encodeGetCommand(target, slot, requestId, bucket.id, this.#hash.low, key, behindWrites)
    this.#options.shards.commit(shard)
  }

  /** Not `slice`, which is no copy for a Buffer. */
  #copyOf(bytes: Uint8Array): Uint8Array {
    const copy = this.#allocate(bytes.length)
    copyBytes(bytes, 0, copy, 0, bytes.length)
    return copy
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

  // Writes.

  #write(
    kind: number,
    bucket: Bucket,
    key: Uint8Array,
    value: Uint8Array,
    options: WriteOptions,
    done: Callback<WriteAnswer>,
  ): void {
    const contentType = options.contentType ?? ''
    const problem =
      checkKey(key) ??
      checkRequest(options.w ?? bucket.w, bucket.n, 1, 'w', options.timeoutMs) ??
      checkContentType(contentType) ??
      checkTtl(options.ttlMs) ??
      checkIfMatch(options.ifMatch)
    if (problem !== undefined) return done(problem, undefined)
    const slot = slotOfKey(key, 0, key.length)
    const partition = partitionOfSlot(slot)
    let context: readonly ContextEntry[] = []
    if (options.context !== undefined) {
      const token = options.context
      const decoded = decodeContext(this.#mac, token, 0, token.length, partition, bucket.id, key, 0, key.length)
      if (typeof decoded === 'string') {
        const message = `Cannot use the context (${decoded}): send the one of the last read of this key, unchanged`
        return done(new SunwiseError('BAD_CONTEXT', message), undefined)
      }
      context = decoded
    }
    const matches = parseETags(options.ifMatch)
    const typeCode = contentType === '' ? 0 : contentTypeCodeOf(contentType)
    const typeBytes = spelledBytes(typeCode, contentType)
    const shard = shardOfPartition(partition, this.#options.shards.count)
    const bytes = writeCommandSize(key.length, context.length, matches.length, typeBytes, value.length)
    const target = this.#begin(shard, bytes)
    if (target instanceof SunwiseError) return done(target, undefined)
    const kept = options.ownsKey === true ? key : this.#copyOf(key)
    const request: Pending = { kind: 'write', bucketId: bucket.id, key: kept, done }
    const requestId = this.#pending.add(request, shard, this.#deadline(options.timeoutMs))
    const ttlMs = options.ttlMs ?? bucket.ttlMs ?? Infinity
    const expiresAtMs =
      kind === FrameKind.put && ttlMs !== Infinity ? this.#options.clock.epochMs() + Math.ceil(ttlMs) : 0
    this.#hash.update(bucket.id, key, 0, key.length)
    const flags =
      (options.context !== undefined ? CommandFlag.context : 0) |
      (options.ifMatch === '*' ? CommandFlag.ifMatchAny : 0) |
      (options.ifNoneMatch === '*' ? CommandFlag.ifNoneMatch : 0) |
      (options.ifMatch !== undefined && options.ifMatch !== '*' ? CommandFlag.ifMatch : 0) |
      (bucket.conflict === 'lww' ? CommandFlag.lastWriteWins : 0)
    const durability = DurabilityNumber[options.durability ?? bucket.durability ?? this.#options.durability]
    encodeWriteCommand(
      target,
      kind,
      flags,
      slot,
      requestId,
      bucket.id,
      this.#hash.low,
      versionSetBytesMax(bucket.valueBytesMax),
      key,
      context,
      matches,
      typeCode,
      contentType,
      typeBytes,
      durability,
      expiresAtMs,
      value,
    )
    this.#options.shards.commit(shard)
  }

  #receiveWrite(
    request: Pending & { kind: 'write' },
    errorNumber: number,
    u8: Uint8Array,
    i32: Int32Array,
    start: number,
  ): void {
    const word = start >>> 2
    const count = i32[word + 3]!
    const first = word + writeReplyBytes / 4
    // The usual four words as a literal of small integers: signed, or most would be numbers on the heap.
    const entries =
      count === 1
        ? [i32[first]!, i32[first + 1]!, i32[first + 2]!, i32[first + 3]!]
        : Array.from(i32.subarray(first, first + 4 * count))
    const expiresAtMs = joinHalves(i32[word + 6]!, i32[word + 7]!)
    const answer = new ShardWriteAnswer(
      this.#makeContext,
      request,
      u8[start + 11] === 1,
      i32[word + 4]!,
      i32[word + 5]!,
      entries,
      u8[start + 8]! | (u8[start + 9]! << 8),
      expiresAtMs === 0 ? undefined : expiresAtMs,
      u8[start + 10] === 1 ? durableReceipt : receivedReceipt,
    )
    if (errorNumber === 0) {
      request.done(undefined, answer)
      return
    }
    const code = errorCodeOf(errorNumber)
    const outcome = outcomeOf(u8[start + 1]!)
    const { etag, context } = answer
    const extra = etag === undefined ? {} : { extra: { etag, context } }
    request.done(new SunwiseError(code, messageOf(code), { outcome, ...extra }), undefined)
  }

  readonly #makeContext = (
    bucketId: number,
    key: Uint8Array,
    vector: Vector,
    actors: ActorTable,
  ): Uint8Array | undefined =>
    this.#contextOf(bucketId, key, partitionOfSlot(slotOfKey(key, 0, key.length)), vector, actors)

  #fail(request: Pending, error: SunwiseError): void {
    request.done(error, undefined)
  }

  // Lists.

  #sendList(
    request: Pending,
    bucketId: number,
    partition: number,
    after: Uint8Array | undefined,
    isAlone: boolean,
    options: ListOptions,
    limit: number,
    deadlineMs: number,
  ): SunwiseError | undefined {
    const shard = shardOfPartition(partition, this.#options.shards.count)
    const prefix = options.prefix ?? emptyBytes
    const afterBytes = after ?? emptyBytes
    const problem = checkListPrefix(prefix)
    if (problem !== undefined) return problem
    const bytes = listCommandBytes + pad4(prefix.length) + pad4(afterBytes.length)
    const target = this.#begin(shard, bytes)
    if (target instanceof SunwiseError) return target
    const { u8, i32, start } = target
    const word = start >>> 2
    const nowMs = this.#options.clock.epochMs()
    const flags = (options.values ? 1 : 0) | (after === undefined ? 0 : 2) | (isAlone ? 4 : 0)
    i32[word] = FrameKind.list | (flags << 8) | (partition << 16)
    i32[word + 1] = this.#pending.add(request, shard, deadlineMs)
    i32[word + 2] = bucketId
    i32[word + 3] = limit
    i32[word + 4] = Limits.listReplyBytesMax
    i32[word + 5] = prefix.length | (afterBytes.length << 16)
    i32[word + 6] = nowMs
    i32[word + 7] = highHalf(nowMs)
    copyBytes(prefix, 0, u8, start + listCommandBytes, prefix.length)
    copyBytes(afterBytes, 0, u8, start + listCommandBytes + pad4(prefix.length), afterBytes.length)
    this.#options.shards.commit(shard)
    return undefined
  }

  #takeChunk(bucketId: number, partition: number, bytes: Uint8Array, values: boolean, keys: ListedKey[]): void {
    const i32 = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2)
    assert(partition < Limits.partitions, 'A list goes on inside the ring')
    for (let at = 0; at < bytes.length; at += recordBytesAt(i32, at)) {
      const keyStart = at + recordHeaderBytes
      const key = bytes.slice(keyStart, keyStart + recordKeyBytes(bytes, at))
      if (!values) {
        keys.push({ key, answer: undefined })
        continue
      }
      this.#locate(key)
      const answer = this.#readAnswer(bucketId, key, bytes, i32, at)
      if (answer.values.length > 0) keys.push({ key, answer })
    }
  }
}

/**
 * The answer to a write. Etag and context are made when they are asked for: many writers never look, and a context costs a MAC.
 */
class ShardWriteAnswer implements WriteAnswer {
  readonly siblings: number
  readonly expiresAtMs: number | undefined
  readonly receipt: Receipt
  readonly #makeContext: (
    bucketId: number,
    key: Uint8Array,
    vector: Vector,
    actors: ActorTable,
  ) => Uint8Array | undefined
  readonly #request: { readonly bucketId: number; readonly key: Uint8Array }
  readonly #isPresent: boolean
  readonly #digestLow: number
  readonly #digestHigh: number
  /** Four i32 per vector entry: actor low and high, counter low and high. */
  readonly #entries: readonly number[]

  constructor(
    makeContext: (bucketId: number, key: Uint8Array, vector: Vector, actors: ActorTable) => Uint8Array | undefined,
    request: { readonly bucketId: number; readonly key: Uint8Array },
    isPresent: boolean,
    digestLow: number,
    digestHigh: number,
    entries: readonly number[],
    siblings: number,
    expiresAtMs: number | undefined,
    receipt: Receipt,
  ) {
    this.siblings = siblings
    this.expiresAtMs = expiresAtMs
    this.receipt = receipt
    this.#makeContext = makeContext
    this.#request = request
    this.#isPresent = isPresent
    this.#digestLow = digestLow
    this.#digestHigh = digestHigh
    this.#entries = entries
  }

  get etag(): ETag | undefined {
    if (!this.#isPresent) return undefined
    const [low, high, counterLow, counterHigh] = this.#entries
    // A digest of 0, 0 says: one live version, whose dot is the whole vector.
    if (this.#digestLow === 0 && this.#digestHigh === 0) {
      return digestText(digestOfDot(low! >>> 0, high! >>> 0, joinHalves(counterLow!, counterHigh!), false))
    }
    return digestText({ low: this.#digestLow >>> 0, high: this.#digestHigh >>> 0 })
  }

  get context(): Uint8Array | undefined {
    if (!this.#isPresent) return undefined
    const entries = this.#entries
    const vector: { actor: number; counter: number }[] = []
    for (let at = 0; at < entries.length; at += 4) {
      vector.push({ actor: at >>> 2, counter: joinHalves(entries[at + 2]!, entries[at + 3]!) })
    }
    const actors = {
      lowOf: (index: number) => entries[index * 4]! >>> 0,
      highOf: (index: number) => entries[index * 4 + 1]! >>> 0,
    }
    return this.#makeContext(this.#request.bucketId, this.#request.key, vector, actors)
  }
}

/** A write that was sent may take effect; a read never does. */
function outcomeFor(request: Pending): { readonly outcome: 'unknown' | 'none' } {
  return { outcome: request.kind === 'write' ? 'unknown' : 'none' }
}
