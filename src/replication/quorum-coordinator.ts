/**
 * The coordinator of keys with replicas on several nodes (Dynamo, DeCandia et al., SOSP 2007). A put or delete is coordinated by a replica,
 * which applies it to its own copy first and sends the version set that this made to all others; it is answered when enough have it. Any node
 * coordinates a read: one replica is asked for the set, others for its digest; where those differ all are fetched and merged, and replicas
 * that are behind get the merged set before the answer, so that a read never shows what a later one may not.
 *
 *   put       origin -> first live replica (forward)    its own shard    write -> replicas    W acks -> answer
 *   get       replicas: set from one, digests            merge, repair    R equal ones -> answer     (quorum-read.ts)
 *   list      quorum-list.ts
 *
 * Writes without a context and those with a precondition go to the first live replica, so that writers one after the other make no
 * siblings. In a move a write needs its level among the old owners and among the new ones; if the topology changed meanwhile, the answer
 * waits for those who own the key then. Replicas that did not take a write get a hint (hints.ts).
 *
 * What it says of a failure is true: `none` only where nothing was sent or applied, `partial` where at least one replica has the write.
 * An object without a thread: requests with a callback, `receive`, `tick`. It decides nothing about who is alive or who owns what.
 */
import { SunwiseError } from '../base/errors.ts'
import { SipHash } from '../base/siphash.ts'
import { partitionOfKey } from '../cluster/slots.ts'
import { type Durability, Limits } from '../config.ts'
import type { Clock, Random } from '../env.ts'
import { ActorRegistry } from '../versions/actor-registry.ts'
import { decodeContext, encodeContext } from '../versions/context.ts'
import { encodeSet } from '../versions/set-codec.ts'
import {
  digest,
  digestText,
  emptyVersionSet,
  liveVersions,
  type VersionSet,
  winnerFirst,
} from '../versions/version-set.ts'
import { runBatch } from './batch.ts'
import { checkContentType, checkIfMatch, checkKey, checkRequest, checkTtl, parseETags } from './checks.ts'
import type { HintKeeper } from './hints.ts'
import type { LocalReplica } from './local-replica.ts'
import {
  encodePeerMessage,
  type ForwardedMessage,
  type ForwardMessage,
  type PeerMessage,
  type WrittenMessage,
} from './peer-message.ts'
import { PendingRoom } from './pending-room.ts'
import { acksNeeded } from './quorum.ts'
import { askAgainMs, decodedSet, failureOf, passesSoon, quorumNotMet, wrongEpoch } from './quorum-failures.ts'
import { QuorumList } from './quorum-list.ts'
import { QuorumReads } from './quorum-read.ts'
import type {
  BatchOperation,
  BatchResult,
  Bucket,
  Callback,
  Coordinator,
  ListOptions,
  ListPage,
  QuorumLevel,
  ReadAnswer,
  ReadOptions,
  Receipt,
  ReceiptNode,
  StoredValue,
  WriteAnswer,
  WriteOptions,
} from './requests.ts'
import type { Routing } from './routing.ts'

export type QuorumCoordinatorOptions = {
  /** This node. */
  readonly self: string
  readonly clock: Clock
  readonly random: Random
  readonly replica: LocalReplica
  readonly hints: HintKeeper
  /** The topology as it is now. */
  readonly routing: () => Routing
  readonly bucketOf: (id: number) => Bucket | undefined
  /** Queues a message for a node; false where it cannot be sent now. */
  readonly send: (node: string, bytes: Uint8Array) => boolean
  /** 16 bytes that all nodes of the cluster share. */
  readonly clusterKey: Uint8Array
  /** Durability of buckets that name none. */
  readonly durability: Durability
  /** Bytes of keys, values and version sets of requests that are not finished; default: `Limits.pendingBytesMax`. */
  readonly pendingBytesMax?: number
  /** Whether this node's wall clock is too far from the others' for times that it sets to be compared with theirs. */
  readonly isClockAstray: () => boolean
}

/** What the key has after a write, and which consistency that got. */
type Written = { readonly set: VersionSet; readonly receipt: Receipt }

/** A write under way, once this node's replica has it. */
type WriteOperation = {
  readonly kind: 'write'
  readonly bucket: Bucket
  readonly key: Uint8Array
  readonly partition: number
  readonly set: VersionSet
  readonly bytes: Uint8Array
  readonly durability: Durability
  readonly level: QuorumLevel
  readonly sloppy: boolean
  readonly deadlineMs: number
  heldBytes: number
  groups: readonly (readonly string[])[]
  epoch: number
  /** Replicas that have it. */
  readonly acks: Map<string, ReceiptNode>
  /** Nodes that were sent it and have not answered; a fallback with the replica that it stands in for. */
  readonly waiting: Map<string, string | undefined>
  /** Replicas that will not take it: to be hinted. */
  readonly missed: Set<string>
  /** Replicas for which a fallback has it. */
  readonly stoodIn: Set<string>
  /** Those waited for that are sent it once more, and when: they did not agree yet on who holds the key, and did nothing. */
  readonly resendAtMs: Map<string, number>
  /** Undefined once it was answered. */
  done: Callback<Written> | undefined
}

/** An operation that another node coordinates. */
type ForwardOperation = {
  readonly kind: 'forward'
  readonly to: string
  readonly isWrite: boolean
  readonly deadlineMs: number
  heldBytes: number
  readonly done: Callback<Written>
}

type Operation = WriteOperation | ForwardOperation

/** A put or delete before it is applied, with everything that its coordinator needs. */
type WriteRequest = Omit<
  ForwardMessage,
  'type' | 'requestId' | 'epoch' | 'fence' | 'timeoutMs' | 'bucketId' | 'operation'
> & {
  readonly operation: 'put' | 'delete'
}

/** Ids above are those of hints. */
const requestIdMask = 0x7fff_ffff
/** A request that is sent on is told from a repetition while so many others came. */
const forwardedMax = 8192
const emptyBytes = new Uint8Array(0)

export class QuorumCoordinator implements Coordinator {
  readonly #options: QuorumCoordinatorOptions
  readonly #mac: SipHash
  readonly #actors = new ActorRegistry()
  readonly #operations = new Map<number, Operation>()
  readonly #room: PendingRoom
  /** Begins anywhere, so that answers to a process that ended are not taken for answers to this one. */
  #lastRequestId: number
  /** Requests that others sent on to this node lately: one that comes twice is coordinated once. */
  readonly #forwarded = new Set<string>()
  readonly #contextScratch = new Uint8Array(Limits.contextBytesMax + 64)
  readonly #reads: QuorumReads
  readonly #lists: QuorumList

  constructor(options: QuorumCoordinatorOptions) {
    this.#options = options
    this.#mac = new SipHash(options.clusterKey)
    this.#lastRequestId = options.random.u32() & requestIdMask
    this.#room = new PendingRoom(options.pendingBytesMax ?? Limits.pendingBytesMax)
    this.#reads = new QuorumReads({
      ...options,
      actors: this.#actors,
      room: this.#room,
      newId: () => this.#newId(),
      refusal: (bytes) => this.#refusal(bytes),
    })
    this.#lists = new QuorumList({
      ...options,
      firstRequestId: this.#lastRequestId,
      actors: this.#actors,
      answerOf: (bucket, key, set, receipt) => this.#readAnswer(bucket, key, { set, receipt }),
    })
  }

  /** Requests that are not finished: answered ones that still wait for replicas among them. */
  get pendingCount(): number {
    return this.#room.count + this.#lists.pendingCount
  }

  /** Bytes that they hold: keys, values and version sets. */
  get pendingBytes(): number {
    return this.#room.bytes
  }

  get(bucket: Bucket, key: Uint8Array, options: ReadOptions, done: Callback<ReadAnswer>): void {
    const problem = checkKey(key) ?? this.#checkLevel(bucket, key, options.r, 'r', options.timeoutMs)
    if (problem !== undefined) return done(problem, undefined)
    this.#reads.read(bucket, key.slice(), options.r ?? bucket.r, this.#deadline(options.timeoutMs), (error, found) => {
      if (found === undefined) done(error, undefined)
      else done(undefined, this.#readAnswer(bucket, key, found))
    })
  }

  put(bucket: Bucket, key: Uint8Array, value: Uint8Array, options: WriteOptions, done: Callback<WriteAnswer>): void {
    if (value.length > bucket.valueBytesMax) {
      const message = `Cannot store a value of ${value.length} bytes: bucket "${bucket.name}" takes at most ${bucket.valueBytesMax}`
      return done(new SunwiseError('VALUE_TOO_LARGE', message, { extra: { limit: bucket.valueBytesMax } }), undefined)
    }
    this.#write('put', bucket, key, value, options, done)
  }

  delete(bucket: Bucket, key: Uint8Array, options: WriteOptions, done: Callback<WriteAnswer>): void {
    this.#write('delete', bucket, key, emptyBytes, options, done)
  }

  batch(
    bucket: Bucket,
    operations: readonly BatchOperation[],
    options: { readonly timeoutMs?: number | undefined },
    done: Callback<readonly BatchResult[]>,
  ): void {
    runBatch(this, this.#options.clock, bucket, operations, options, done)
  }

  list(bucket: Bucket, options: ListOptions, done: Callback<ListPage>): void {
    this.#lists.list(bucket, options, done)
  }

  /** A message of another node that answers one of ours, or asks this node to coordinate. */
  receive(from: string, message: PeerMessage): void {
    if (message.type === 'forward') return this.#coordinateForwarded(from, message)
    if (message.type === 'listed') return this.#lists.receive(from, message)
    const operation = this.#operations.get(message.requestId)
    if (message.type === 'written' && operation?.kind === 'write') {
      this.#receiveWritten(message.requestId, operation, from, message)
    } else if (message.type === 'written' || message.type === 'found') {
      this.#reads.receive(from, message)
    } else if (message.type === 'forwarded' && operation?.kind === 'forward' && operation.to === from) {
      this.#receiveForwarded(message.requestId, operation, message)
    }
  }

  /** Deadlines, and what is asked again or elsewhere. */
  tick(): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const [requestId, operation] of this.#operations) {
      if (operation.deadlineMs <= nowMs) this.#expire(requestId, operation)
      else if (operation.kind === 'write' && operation.resendAtMs.size > 0) this.#resend(requestId, operation, nowMs)
    }
    this.#reads.tick()
    this.#lists.tick()
  }

  // Writes.

  #write(
    operation: 'put' | 'delete',
    bucket: Bucket,
    key: Uint8Array,
    value: Uint8Array,
    options: WriteOptions,
    done: Callback<WriteAnswer>,
  ): void {
    const contentType = options.contentType ?? ''
    const problem =
      checkKey(key) ??
      this.#checkLevel(bucket, key, options.w, 'w', options.timeoutMs) ??
      checkContentType(contentType) ??
      checkTtl(options.ttlMs) ??
      checkIfMatch(options.ifMatch)
    if (problem !== undefined) return done(problem, undefined)
    const ifMatch = options.ifMatch === '*' ? '*' : parseETags(options.ifMatch)
    const request: WriteRequest = {
      operation,
      key: key.slice(),
      value: value.slice(),
      contentType,
      context: options.context?.slice(),
      ifMatch: options.ifMatch === undefined ? undefined : ifMatch,
      ifNoneMatch: options.ifNoneMatch === '*',
      ttlMs: options.ttlMs,
      durability: options.durability,
      sloppy: options.sloppy,
      level: options.w,
    }
    const answered: Callback<Written> = (error, written) => {
      if (written === undefined) done(error, undefined)
      else done(undefined, this.#writeAnswer(bucket, key, written))
    }
    const deadlineMs = this.#deadline(options.timeoutMs)
    const coordinator = this.#coordinatorOf(bucket, request)
    if (coordinator instanceof SunwiseError) return answered(coordinator, undefined)
    if (coordinator === this.#options.self) return this.#coordinate(bucket, request, deadlineMs, answered)
    this.#forward(coordinator, bucket, request, deadlineMs, answered)
  }

  /** Who applies a write first: this node where it may, else the first replica that answers. */
  #coordinatorOf(bucket: Bucket, request: WriteRequest): string | SunwiseError {
    const routing = this.#options.routing()
    const partition = partitionOfKey(request.key)
    const writers = routing.writersOf(partition, bucket.n).flat()
    const first = writers.find((node) => routing.isAlive(node))
    if (first === undefined) return quorumNotMet(1, 0, writers.length, 'none')
    const mustBeFirst = request.context === undefined || request.ifMatch !== undefined || request.ifNoneMatch
    return !mustBeFirst && writers.includes(this.#options.self) ? this.#options.self : first
  }

  #forward(to: string, bucket: Bucket, request: WriteRequest, deadlineMs: number, done: Callback<Written>): void {
    const bytes = request.key.length + request.value.length
    const full = this.#refusal(bytes)
    if (full !== undefined) return done(full, undefined)
    const requestId = this.#newId()
    const message: ForwardMessage = {
      ...request,
      type: 'forward',
      requestId,
      ...this.#options.routing().standingOf(partitionOfKey(request.key)),
      timeoutMs: this.#leftMs(deadlineMs),
      bucketId: bucket.id,
    }
    if (!this.#options.send(to, encodePeerMessage(message))) {
      return done(
        new SunwiseError('QUORUM_NOT_MET', `Cannot reach ${to}, which holds the key`, { outcome: 'none' }),
        undefined,
      )
    }
    this.#add(requestId, { kind: 'forward', to, isWrite: true, deadlineMs, heldBytes: bytes, done })
  }

  /** A request that another node took from its client. It is coordinated here or refused, never sent on. */
  #coordinateForwarded(from: string, message: ForwardMessage): void {
    const { requestId, bucketId, key, operation, timeoutMs } = message
    if (operation !== 'get' && this.#isRepeated(from, requestId)) return
    const answer: Callback<Written> = (error, written) => {
      const { receipt } = written ?? {}
      this.#options.send(
        from,
        encodePeerMessage({
          type: 'forwarded',
          requestId,
          epoch: this.#options.routing().epoch,
          fence: 0,
          timeoutMs: 0,
          failure: error === undefined ? undefined : { code: error.code, outcome: error.outcome },
          set: written === undefined ? undefined : encodeSet(written.set, this.#actors),
          sloppy: receipt?.sloppy ?? false,
          isDurable: receipt?.durable ?? false,
          repaired: receipt?.repaired ?? 0,
          replicas: receipt?.replicas ?? 0,
          acks: receipt?.nodes ?? [],
        }),
      )
    }
    const bucket = this.#options.bucketOf(bucketId)
    if (bucket === undefined) {
      return answer(new SunwiseError('BUCKET_NOT_FOUND', `There is no bucket with id ${bucketId} here`), undefined)
    }
    const deadlineMs = this.#options.clock.monotonicMs() + timeoutMs
    if (operation === 'get') return this.#reads.read(bucket, key, message.level ?? bucket.r, deadlineMs, answer)
    const writers = this.#options.routing().writersOf(partitionOfKey(key), bucket.n).flat()
    if (!writers.includes(this.#options.self)) return answer(wrongEpoch(), undefined)
    this.#coordinate(bucket, { ...message, operation }, deadlineMs, answer)
  }

  /** Whether a request came before: done twice, and refused once, it would be told to have done nothing. */
  #isRepeated(from: string, requestId: number): boolean {
    const name = `${from} ${requestId}`
    if (this.#forwarded.has(name)) return true
    this.#forwarded.add(name)
    if (this.#forwarded.size > forwardedMax) this.#forwarded.delete(this.#forwarded.values().next().value!)
    return false
  }

  /** Applies a write to this node's own replica, and spreads what that makes. */
  #coordinate(bucket: Bucket, request: WriteRequest, deadlineMs: number, done: Callback<Written>): void {
    const routing = this.#options.routing()
    const { key } = request
    const partition = partitionOfKey(key)
    const groups = routing.writersOf(partition, bucket.n)
    const sloppy = request.sloppy ?? bucket.sloppy
    const level = request.level ?? bucket.w
    const bytes = key.length + request.value.length
    const problem = this.#refusal(bytes) ?? (sloppy ? undefined : unreachable(groups, level, routing))
    if (problem !== undefined) return done(problem, undefined)
    const context = this.#contextOf(bucket, key, partition, request.context)
    if (context instanceof SunwiseError) return done(context, undefined)
    const ttlMs = request.ttlMs ?? bucket.ttlMs ?? Number.POSITIVE_INFINITY
    const isDelete = request.operation === 'delete'
    const expires = !isDelete && ttlMs !== Number.POSITIVE_INFINITY
    if ((expires || bucket.conflict === 'lww') && this.#options.isClockAstray()) return done(clockUnsure(), undefined)
    const durability = request.durability ?? bucket.durability ?? this.#options.durability
    if (!sloppy) this.#hintBefore(bucket, key, groups)
    this.#room.enter(bytes)
    this.#options.replica.write(
      {
        isDelete,
        bucketId: bucket.id,
        valueBytesMax: bucket.valueBytesMax,
        lastWriteWins: bucket.conflict === 'lww',
        key,
        value: request.value,
        context,
        ifMatch: request.ifMatch,
        ifNoneMatch: request.ifNoneMatch,
        contentType: request.contentType,
        expiresAtMs: expires ? this.#options.clock.epochMs() + Math.ceil(ttlMs) : 0,
        durability,
      },
      this.#leftMs(deadlineMs),
      (error, written) => {
        this.#room.leave(bytes)
        if (written === undefined) return done(error, undefined)
        const set = decodedSet(written.set, this.#actors)
        if (set instanceof SunwiseError) return done(set, undefined)
        const { self } = this.#options
        const operation: WriteOperation = {
          kind: 'write',
          bucket,
          key,
          partition,
          set,
          bytes: written.set,
          durability,
          level,
          sloppy,
          deadlineMs,
          heldBytes: key.length + written.set.length,
          groups,
          epoch: routing.epoch,
          acks: new Map([[self, { node: self, isFallback: false, isDurable: written.isDurable }]]),
          waiting: new Map(),
          missed: new Set(),
          stoodIn: new Set(),
          resendAtMs: new Map(),
          done,
        }
        const requestId = this.#newId()
        this.#add(requestId, operation)
        this.#spread(requestId, operation)
        this.#judge(requestId, operation)
      },
    )
  }

  /**
   * Owners that are known to be out of reach get their hints before the write is applied: so these stand before it in the log of the shard,
   * most often in one group, and no crash leaves the write without them. Where another node may stand in, that one has the hint.
   */
  #hintBefore(bucket: Bucket, key: Uint8Array, groups: readonly (readonly string[])[]): void {
    const routing = this.#options.routing()
    for (const node of new Set(groups.flat())) {
      if (node !== this.#options.self && !routing.isAlive(node)) this.#options.hints.missed(node, bucket.id, key)
    }
  }

  /** Sends a write to every owner that was not sent it yet. */
  #spread(requestId: number, operation: WriteOperation): void {
    const routing = this.#options.routing()
    for (const node of new Set(operation.groups.flat())) {
      if (operation.acks.has(node) || operation.waiting.has(node) || operation.missed.has(node)) continue
      if (routing.isAlive(node) && this.#sendWrite(requestId, operation, node, undefined)) {
        operation.waiting.set(node, undefined)
      } else this.#miss(requestId, operation, node)
    }
  }

  #sendWrite(requestId: number, operation: WriteOperation, node: string, hintFor: string | undefined): boolean {
    const { bucket, key, bytes, durability, deadlineMs } = operation
    return this.#options.send(
      node,
      encodePeerMessage({
        type: 'write',
        requestId,
        ...this.#options.routing().standingOf(operation.partition),
        timeoutMs: this.#leftMs(deadlineMs),
        bucketId: bucket.id,
        lastWriteWins: bucket.conflict === 'lww',
        durability,
        key,
        set: bytes,
        hintFor,
      }),
    )
  }

  /** A replica is out of reach: another node stands in for it where that is allowed, and it gets a hint in any case. */
  #miss(requestId: number, operation: WriteOperation, node: string): void {
    operation.missed.add(node)
    if (!operation.sloppy || operation.done === undefined) return
    const routing = this.#options.routing()
    for (const fallback of routing.fallbacksOf(operation.partition, operation.bucket.n)) {
      if (operation.acks.has(fallback) || operation.waiting.has(fallback) || !routing.isAlive(fallback)) continue
      if (!this.#sendWrite(requestId, operation, fallback, node)) continue
      operation.waiting.set(fallback, node)
      return
    }
  }

  #receiveWritten(requestId: number, operation: WriteOperation, from: string, message: WrittenMessage): void {
    if (!operation.waiting.has(from)) return
    const hintFor = operation.waiting.get(from)
    if (hintFor === undefined && operation.done !== undefined && passesSoon(message.failure)) {
      // One of the two is an epoch behind, or has not begun yet to keep the partition: in a moment they agree.
      operation.resendAtMs.set(from, this.#options.clock.monotonicMs() + askAgainMs)
      return
    }
    operation.waiting.delete(from)
    if (message.failure !== undefined) {
      if (hintFor === undefined) this.#miss(requestId, operation, from)
    } else {
      operation.acks.set(from, { node: from, isFallback: hintFor !== undefined, isDurable: message.isDurable })
      if (hintFor !== undefined) operation.stoodIn.add(hintFor)
    }
    this.#judge(requestId, operation)
  }

  /** Sends a write once more to those who could not take it a moment ago; to none that owns the key no more. */
  #resend(requestId: number, operation: WriteOperation, nowMs: number): void {
    const routing = this.#options.routing()
    for (const [node, atMs] of operation.resendAtMs) {
      if (atMs > nowMs) continue
      operation.resendAtMs.delete(node)
      const isOwner = routing.writersOf(operation.partition, operation.bucket.n).flat().includes(node)
      if (isOwner && routing.isAlive(node) && this.#sendWrite(requestId, operation, node, undefined)) continue
      operation.waiting.delete(node)
      this.#miss(requestId, operation, node)
    }
    this.#judge(requestId, operation)
  }

  /** Answers a write when enough replicas have it, or when they never will; ends it when nobody is waited for. */
  #judge(requestId: number, operation: WriteOperation): void {
    if (operation.done !== undefined) {
      if (this.#isMet(operation)) {
        const routing = this.#options.routing()
        if (routing.epoch !== operation.epoch) {
          // Who owns the key now must have it, not who owned it then.
          operation.epoch = routing.epoch
          operation.groups = routing.writersOf(operation.partition, operation.bucket.n)
          this.#spread(requestId, operation)
        }
        if (this.#isMet(operation)) this.#answerWrite(operation)
      }
      if (operation.done !== undefined && operation.waiting.size === 0) this.#failWrite(operation)
    }
    if (operation.waiting.size === 0) this.#endWrite(requestId, operation)
  }

  /** Whether every group has enough acks. */
  #isMet({ groups, level, acks, stoodIn, sloppy }: WriteOperation): boolean {
    return groups.every((group) => {
      let count = 0
      for (const node of group) {
        const ack = acks.get(node)
        if ((ack !== undefined && !ack.isFallback) || (sloppy && stoodIn.has(node))) count++
      }
      return count >= acksNeeded(level, group.length)
    })
  }

  #answerWrite(operation: WriteOperation): void {
    const { done, set } = operation
    operation.done = undefined
    done?.(undefined, { set, receipt: this.#receiptOf(operation) })
  }

  #receiptOf({ acks, groups, epoch }: WriteOperation): Receipt {
    const owners = new Set(groups.flat())
    // Who took it under an epoch before, and owns the key no more, is none of those that it is on.
    const nodes = [...acks.values()].filter(({ node, isFallback }) => isFallback || owners.has(node))
    return {
      acks: nodes.filter(({ isFallback }) => !isFallback).length,
      replicas: owners.size,
      sloppy: nodes.some(({ isFallback }) => isFallback),
      durable: nodes.every(({ isDurable }) => isDurable),
      epoch,
      nodes,
    }
  }

  #failWrite(operation: WriteOperation): void {
    const { done, acks, level, groups } = operation
    operation.done = undefined
    const needed = Math.max(...groups.map((group) => acksNeeded(level, group.length)))
    done?.(quorumNotMet(needed, acks.size, new Set(groups.flat()).size, 'partial'), undefined)
  }

  /** Nobody is waited for any more: replicas that did not take it get it later. */
  #endWrite(requestId: number, operation: WriteOperation): void {
    this.#remove(requestId, operation)
    const { bucket, key, missed, waiting, stoodIn } = operation
    for (const [node, hintFor] of waiting) if (hintFor === undefined) missed.add(node)
    for (const node of missed) if (!stoodIn.has(node)) this.#options.hints.missed(node, bucket.id, key)
  }

  // Both.

  #receiveForwarded(requestId: number, operation: ForwardOperation, message: ForwardedMessage): void {
    this.#remove(requestId, operation)
    const { failure, set, acks, replicas, sloppy, isDurable, epoch, repaired } = message
    if (failure !== undefined) return operation.done(failureOf(failure, operation.to), undefined)
    const decoded = set === undefined ? emptyVersionSet : decodedSet(set, this.#actors)
    if (decoded instanceof SunwiseError) {
      return operation.done(new SunwiseError(decoded.code, decoded.message, { outcome: 'unknown' }), undefined)
    }
    const primaries = acks.filter(({ isFallback }) => !isFallback).length
    const receipt = { acks: primaries, replicas, sloppy, durable: isDurable, epoch, nodes: acks, repaired }
    operation.done(undefined, { set: decoded, receipt })
  }

  #expire(requestId: number, operation: Operation): void {
    if (operation.kind === 'forward') {
      this.#remove(requestId, operation)
      const outcome = operation.isWrite ? 'unknown' : 'none'
      const message = `${operation.to}, which holds the key, did not answer before the deadline`
      return operation.done(new SunwiseError('TIMEOUT', message, { outcome }), undefined)
    }
    if (operation.done !== undefined) this.#failWrite(operation)
    this.#endWrite(requestId, operation)
  }

  #readAnswer(bucket: Bucket, key: Uint8Array, { set, receipt }: Written): ReadAnswer {
    if (set.vector.length === 0) return { values: [], etag: undefined, context: undefined, receipt }
    const live = liveVersions(set, this.#options.clock.epochMs())
    const values = winnerFirst(live, this.#actors).map(
      ({ value, contentType, expiresAtMs }): StoredValue => ({
        value,
        contentType,
        expiresAtMs: expiresAtMs === 0 ? undefined : expiresAtMs,
      }),
    )
    return { values, etag: this.#etagOf(set), context: this.#tokenOf(bucket, key, set), receipt }
  }

  #writeAnswer(bucket: Bucket, key: Uint8Array, { set, receipt }: Written): WriteAnswer {
    const live = liveVersions(set, this.#options.clock.epochMs())
    const expiresAtMs = live.length === 1 ? live[0]!.expiresAtMs : 0
    return {
      etag: this.#etagOf(set),
      context: this.#tokenOf(bucket, key, set),
      siblings: live.length,
      expiresAtMs: expiresAtMs === 0 ? undefined : expiresAtMs,
      receipt,
    }
  }

  #etagOf(set: VersionSet): string {
    return digestText(digest(set, this.#actors))
  }

  /** Undefined where the vector names more actors than a token holds: the next write is then blind. */
  #tokenOf(bucket: Bucket, key: Uint8Array, { vector }: VersionSet): Uint8Array | undefined {
    const into = this.#contextScratch
    const partition = partitionOfKey(key)
    const bytes = encodeContext(this.#mac, into, 0, partition, bucket.id, key, 0, key.length, vector, this.#actors)
    return bytes === 0 ? undefined : into.slice(0, bytes)
  }

  #contextOf(
    bucket: Bucket,
    key: Uint8Array,
    partition: number,
    token: Uint8Array | undefined,
  ): Exclude<ReturnType<typeof decodeContext>, string> | undefined | SunwiseError {
    if (token === undefined) return undefined
    const decoded = decodeContext(this.#mac, token, 0, token.length, partition, bucket.id, key, 0, key.length)
    if (typeof decoded !== 'string') return decoded
    const message = `Cannot use the context (${decoded}): send the one of the last read of this key, unchanged`
    return new SunwiseError('BAD_CONTEXT', message)
  }

  #checkLevel(
    bucket: Bucket,
    key: Uint8Array,
    level: QuorumLevel | undefined,
    name: 'r' | 'w',
    timeoutMs: number | undefined,
  ): SunwiseError | undefined {
    const routing = this.#options.routing()
    const partition = partitionOfKey(key)
    const groups = name === 'r' ? [routing.readersOf(partition, bucket.n)] : routing.writersOf(partition, bucket.n)
    const replicas = Math.min(...groups.map((group) => group.length))
    return checkRequest(level ?? bucket[name], bucket.n, replicas, name, timeoutMs)
  }

  #refusal(bytes: number): SunwiseError | undefined {
    return this.#room.refusal(bytes, this.#lists.pendingCount)
  }

  #add(requestId: number, operation: Operation): void {
    this.#operations.set(requestId, operation)
    this.#room.enter(operation.heldBytes)
  }

  #remove(requestId: number, operation: Operation): void {
    if (this.#operations.delete(requestId)) this.#room.leave(operation.heldBytes)
  }

  #newId(): number {
    do this.#lastRequestId = (this.#lastRequestId + 1) & requestIdMask
    while (this.#operations.has(this.#lastRequestId) || this.#reads.has(this.#lastRequestId))
    return this.#lastRequestId
  }

  #deadline(timeoutMs: number | undefined): number {
    return this.#options.clock.monotonicMs() + (timeoutMs ?? Limits.timeoutMsDefault)
  }

  #leftMs(deadlineMs: number): number {
    return Math.max(1, Math.ceil(deadlineMs - this.#options.clock.monotonicMs()))
  }
}

/** Why a level cannot be reached with the replicas that answer now; undefined where it can. */
function unreachable(
  groups: readonly (readonly string[])[],
  level: QuorumLevel,
  routing: Routing,
): SunwiseError | undefined {
  for (const group of groups) {
    const alive = group.filter((node) => routing.isAlive(node)).length
    const needed = acksNeeded(level, group.length)
    if (alive < needed) return quorumNotMet(needed, alive, group.length, 'none')
  }
  return undefined
}

function clockUnsure(): SunwiseError {
  const message =
    "Cannot take a write that expires, or of a bucket where the last write wins: this node's clock is too far from those of its peers; set it, or ask another node"
  return new SunwiseError('CLOCK_UNSURE', message)
}
