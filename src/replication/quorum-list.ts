/**
 * Lists over partitions that have replicas on several nodes. A page goes through the partitions of the bucket in order. Of each it asks as
 * many replicas as the level says for what they have of the next keys, dead ones too, and merges that by key:
 *
 *     page    window of partitions    each: R replicas    their keys up to the smallest end, merged    live ones -> page
 *
 * **Up to the smallest end.** Each replica's answer is all that it has up to a key, its end. Behind the smallest end of those used, one replica
 * has not been heard: what is merged stops there, and the next question begins there.
 *
 * Dead keys are told because another replica may not have heard of the delete. Nothing is repaired here: what differs is found by reads of the
 * key and by exchanges. So a list shows each key that R replicas know together, like a read, but where a write failed halfway a later list may
 * not show again what an earlier one did.
 *
 * The cursor names a partition and a key, nothing of nodes or epochs: any member goes on with it, also after moves and restarts. A replica that
 * disagrees on who holds a partition is asked again, under the topology of then. A partition that cannot be answered fails the page, by its
 * name; none is passed over in silence.
 *
 * Memory: what is asked for at a time is `roundBytesMax`, and one key more of each replica asked; a page ends at `Limits.listReplyBytesMax`.
 * An object without a thread: requests with a callback, `receive`, `tick`.
 */
import { ByteReader, compareBytes, equalBytes } from '../base/bytes.ts'
import { SunwiseError } from '../base/errors.ts'
import { SipHash } from '../base/siphash.ts'
import { partitionOfKey, partitionOfSlot, slotOfTag } from '../cluster/slots.ts'
import { Limits } from '../config.ts'
import type { Clock } from '../env.ts'
import type { ActorRegistry } from '../versions/actor-registry.ts'
import { decodeSet } from '../versions/set-codec.ts'
import { liveVersions, resolveLastWriteWins, sync, type VersionSet } from '../versions/version-set.ts'
import { badCursor, checkListLimit, checkListPrefix, checkRequest, messageOf } from './checks.ts'
import { CursorCodec } from './cursor.ts'
import { LatencyEstimate } from './latency-estimate.ts'
import type { HeldPage, LocalReplica } from './local-replica.ts'
import { encodePeerMessage, type ListedMessage } from './peer-message.ts'
import { acksNeeded } from './quorum.ts'
import { askAgainMs } from './quorum-failures.ts'
import type {
  Bucket,
  Callback,
  ListedKey,
  ListOptions,
  ListPage,
  QuorumLevel,
  ReadAnswer,
  Receipt,
  ReceiptNode,
} from './requests.ts'
import type { Routing } from './routing.ts'

export type QuorumListOptions = {
  /** This node. */
  readonly self: string
  readonly clock: Clock
  readonly replica: LocalReplica
  readonly routing: () => Routing
  readonly send: (node: string, bytes: Uint8Array) => boolean
  readonly clusterKey: Uint8Array
  readonly actors: ActorRegistry
  /** Number of its first question: no answer to a process that ended may be taken for one to this. */
  readonly firstRequestId: number
  /** What a client is told of a key. */
  readonly answerOf: (bucket: Bucket, key: Uint8Array, set: VersionSet, receipt: Receipt) => ReadAnswer
}

/** A key with what a replica has of it. */
export type PageEntry = { readonly key: Uint8Array; readonly set: Uint8Array }

/** What a replica has of the next keys of a partition. */
export type ReplicaPage = Pick<HeldPage, 'end' | 'isDurable'> & { readonly entries: readonly PageEntry[] }

/** A key with what each replica has of it that has it. */
type MergedKey = { readonly key: Uint8Array; readonly sets: readonly Uint8Array[] }

/** One partition of a round. */
type PartitionRead = {
  readonly list: List
  readonly partition: number
  readonly after: Uint8Array | undefined
  readonly limit: number
  readonly bytesMax: number
  /** As the topology says it when replicas are asked. */
  needed: number
  replicas: number
  epoch: number
  /** Replicas that may still be asked, the preferred first. */
  others: string[]
  readonly waiting: Set<string>
  readonly pages: Map<string, ReplicaPage>
  failure: SunwiseError | undefined
  beganMs: number
  hedgeAtMs: number
  isAnswered: boolean
}

/** A page under way. */
type List = {
  readonly bucket: Bucket
  readonly prefix: Uint8Array
  readonly limit: number
  readonly withValues: boolean
  readonly level: QuorumLevel
  readonly deadlineMs: number
  /** From then on the page ends with what it has. */
  readonly softDeadlineMs: number
  /** No keys of the list lie in this partition or behind it. */
  readonly endPartition: number
  /** Where the list goes on. */
  partition: number
  after: Uint8Array | undefined
  /** Partitions that are asked for at a time. */
  window: number
  /** The partitions of this round, in order, and how many of them are not answered. */
  round: readonly PartitionRead[]
  unanswered: number
  readonly keys: ListedKey[]
  bytes: number
  /** Rounds that ended within a partition. */
  stretches: number
  receipt: Receipt | undefined
  isEnded: boolean
  readonly done: Callback<ListPage>
}

const requestIdMask = 0x7fff_ffff
const firstWindow = 4
const windowMax = 64
/** Values may be large. */
const windowOfValuesMax = 8
/** Keys that a replica is asked for at a time: telling them takes it about a millisecond. */
const keysPerAsk = 256
/** Bytes of all answers of a round. */
const roundBytesMax = 1024 * 1024
/** Times that a page stops within a partition; then it ends, perhaps with no key, and its cursor leads on. */
const stretchesMax = 16
const noBytes = new Uint8Array(0)

export class QuorumList {
  readonly #options: QuorumListOptions
  readonly #cursors: CursorCodec
  readonly #lists = new Set<List>()
  /** Partitions that replicas were asked about, by the number of the question. */
  readonly #reads = new Map<number, PartitionRead>()
  /** Partitions that are asked about anew, and when. */
  readonly #again = new Map<PartitionRead, number>()
  #lastRequestId: number
  readonly #latency = new LatencyEstimate()

  constructor(options: QuorumListOptions) {
    this.#options = options
    this.#cursors = new CursorCodec(new SipHash(options.clusterKey))
    this.#lastRequestId = options.firstRequestId & requestIdMask
  }

  /** Pages under way. */
  get pendingCount(): number {
    return this.#lists.size
  }

  list(bucket: Bucket, options: ListOptions, done: Callback<ListPage>): void {
    const { limit, timeoutMs = Limits.timeoutMsDefault } = options
    const prefix = options.prefix?.slice() ?? noBytes
    const level = options.r ?? bucket.r
    const problem =
      checkRequest(level, bucket.n, bucket.n, 'r', options.timeoutMs) ??
      checkListLimit(limit) ??
      checkListPrefix(prefix) ??
      this.#isFull()
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
    const tagSlot = slotOfTag(prefix, 0, prefix.length)
    const endPartition = tagSlot >= 0 ? partitionOfSlot(tagSlot) + 1 : Limits.partitions
    if (tagSlot >= 0 && partition < endPartition - 1) {
      partition = endPartition - 1
      after = undefined
    }
    const nowMs = this.#options.clock.monotonicMs()
    const list: List = {
      bucket,
      prefix,
      limit,
      withValues: options.values,
      level,
      deadlineMs: nowMs + timeoutMs,
      softDeadlineMs: nowMs + timeoutMs / 2,
      endPartition,
      partition,
      after,
      window: firstWindow,
      round: [],
      unanswered: 0,
      keys: [],
      bytes: 0,
      stretches: 0,
      receipt: undefined,
      isEnded: false,
      done,
    }
    this.#lists.add(list)
    this.#beginRound(list)
  }

  /** The answer of a replica. */
  receive(from: string, message: ListedMessage): void {
    const { requestId, failure, end, isDurable } = message
    const read = this.#reads.get(requestId)
    if (read === undefined) return
    if (failure !== undefined) {
      const error = new SunwiseError(failure.code, `${messageOf(failure.code)} (${from})`, { outcome: 'none' })
      return this.#take(requestId, read, from, error)
    }
    this.#take(
      requestId,
      read,
      from,
      readPage(rangeOf(read), { entries: message.entries, end, isDurable }) ?? unreadable(from),
    )
  }

  /** Deadlines, hedges, and questions that are asked anew. */
  tick(): void {
    if (this.#lists.size === 0) return
    const nowMs = this.#options.clock.monotonicMs()
    for (const list of this.#lists) if (list.deadlineMs <= nowMs) this.#expire(list)
    for (const [read, atMs] of this.#again) {
      if (atMs > nowMs) continue
      this.#again.delete(read)
      this.#begin(read)
    }
    for (const [requestId, read] of this.#reads) {
      if (read.isAnswered || read.hedgeAtMs > nowMs) continue
      read.hedgeAtMs = nowMs + this.#latency.hedgeMs
      const node = read.others.shift()
      if (node !== undefined) this.#ask(requestId, read, node)
    }
  }

  // Rounds.

  #beginRound(list: List): void {
    const { partition, after, endPartition, limit, keys } = list
    if (partition >= endPartition) return this.#answer(list)
    const count = Math.min(list.window, endPartition - partition)
    const bytesMax = Math.max(1, Math.floor(roundBytesMax / count / list.bucket.n))
    list.round = Array.from({ length: count }, (_, index) => ({
      list,
      partition: partition + index,
      after: index === 0 ? after : undefined,
      limit: Math.min(keysPerAsk, limit - keys.length),
      bytesMax,
      needed: 0,
      replicas: 0,
      epoch: 0,
      others: [],
      waiting: new Set(),
      pages: new Map(),
      failure: undefined,
      beganMs: 0,
      hedgeAtMs: 0,
      isAnswered: false,
    }))
    list.unanswered = count
    for (const read of list.round) if (!list.isEnded) this.#begin(read)
  }

  /** Asks the replicas that hold the partition now. */
  #begin(read: PartitionRead): void {
    const { list, partition } = read
    const { self, clock } = this.#options
    const routing = this.#options.routing()
    const readers = routing.readersOf(partition, list.bucket.n)
    const reachable = readers.filter((node) => node === self || routing.isAlive(node))
    read.needed = acksNeeded(list.level, readers.length)
    read.replicas = readers.length
    read.epoch = routing.epoch
    read.pages.clear()
    read.failure = undefined
    if (reachable.length < read.needed) return this.#fail(list, notMet(read, reachable.length))
    // Its own replica costs nothing to ask.
    read.others = reachable.includes(self) ? [self, ...reachable.filter((node) => node !== self)] : reachable
    read.beganMs = clock.monotonicMs()
    read.hedgeAtMs = read.beganMs + this.#latency.hedgeMs
    const requestId = this.#newId()
    this.#reads.set(requestId, read)
    const first = read.others.splice(0, read.needed)
    // All count as asked, so that one that fails at once does not end the read.
    for (const node of first) read.waiting.add(node)
    for (const node of first) if (this.#reads.get(requestId) === read) this.#ask(requestId, read, node)
  }

  #ask(requestId: number, read: PartitionRead, node: string): void {
    const { list, partition, after, limit, bytesMax } = read
    const { self, clock, replica, send, routing } = this.#options
    read.waiting.add(node)
    const timeoutMs = Math.max(1, Math.ceil(list.deadlineMs - clock.monotonicMs()))
    const bucketId = list.bucket.id
    const request = { partition, bucketId, prefix: list.prefix, after, limit, bytesMax, withValues: list.withValues }
    if (node === self) {
      replica.list(request, timeoutMs, (error, page) => {
        if (this.#reads.get(requestId) !== read) return
        this.#take(
          requestId,
          read,
          node,
          page === undefined ? error! : (readPage(rangeOf(read), page) ?? unreadable(node)),
        )
      })
      return
    }
    const message = { type: 'list', requestId, ...routing().standingOf(partition), timeoutMs, ...request } as const
    if (send(node, encodePeerMessage(message))) return
    const error = new SunwiseError('QUORUM_NOT_MET', `Cannot reach ${node}`, { outcome: 'none' })
    this.#take(requestId, read, node, error)
  }

  #take(requestId: number, read: PartitionRead, from: string, page: ReplicaPage | SunwiseError): void {
    if (!read.waiting.delete(from)) return
    if (page instanceof SunwiseError) {
      read.failure = page
      const next = read.others.shift()
      if (next !== undefined) return this.#ask(requestId, read, next)
      if (read.pages.size + read.waiting.size >= read.needed) return
      return this.#failRead(requestId, read, page)
    }
    read.pages.set(from, page)
    if (read.pages.size < read.needed) return
    this.#endRead(requestId, read)
    read.isAnswered = true
    this.#latency.record(this.#options.clock.monotonicMs() - read.beganMs)
    if (--read.list.unanswered === 0) this.#endRound(read.list)
  }

  /** Too few answer. Where they disagree on who holds the partition, they soon agree, and are asked anew. */
  #failRead(requestId: number, read: PartitionRead, failure: SunwiseError): void {
    this.#endRead(requestId, read)
    if (failure.code === 'WRONG_EPOCH') {
      this.#again.set(read, this.#options.clock.monotonicMs() + askAgainMs)
      return
    }
    const isTold = failure.code !== 'QUORUM_NOT_MET'
    this.#fail(read.list, isTold ? ofPartition(read.partition, failure) : notMet(read, read.pages.size))
  }

  #endRead(requestId: number, read: PartitionRead): void {
    this.#reads.delete(requestId)
    read.waiting.clear()
  }

  /** All partitions of the round are answered: what they have goes to the page, in order, as far as it reaches. */
  #endRound(list: List): void {
    const { round, limit } = list
    const before = list.keys.length
    let done = 0
    list.round = []
    for (const read of round) {
      if (this.#takePartition(list, read)) done++
      if (list.isEnded) return
      if (list.partition === read.partition || isFull(list)) break
    }
    const isLate = list.softDeadlineMs <= this.#options.clock.monotonicMs()
    if (done < round.length) list.stretches++
    if (isFull(list) || isLate || list.stretches >= stretchesMax) return this.#answer(list)
    const found = list.keys.length - before
    const widest = Math.min(2 * list.window, list.withValues ? windowOfValuesMax : windowMax)
    // As many as have what is still wanted, if they are like those before; where one was cut off the next are not asked in vain.
    const likely = found === 0 ? widest : Math.max(1, Math.floor(((limit - list.keys.length) * done) / found))
    list.window = done < round.length ? 1 : Math.min(widest, likely)
    this.#beginRound(list)
  }

  /** Takes what the replicas have of a partition; false where the list goes on within it. */
  #takePartition(list: List, read: PartitionRead): boolean {
    const { bucket } = list
    const receipt = receiptOf(read)
    list.receipt = list.receipt === undefined ? receipt : leastReceipt(list.receipt, receipt)
    const { keys, reach } = mergePages([...read.pages.values()])
    for (const [index, { key, sets }] of keys.entries()) {
      const set = this.#merged(bucket, sets)
      if (set === undefined) {
        this.#fail(list, ofPartition(read.partition, unreadable('a replica')))
        return false
      }
      if (liveVersions(set, this.#options.clock.epochMs()).length === 0) continue
      const answer = list.withValues ? this.#options.answerOf(bucket, key, set, receipt) : undefined
      list.keys.push({ key, answer })
      list.bytes += key.length
      for (const { value } of answer?.values ?? []) list.bytes += value.length
      if (!isFull(list) || (index === keys.length - 1 && reach === undefined)) continue
      list.partition = read.partition
      list.after = key
      return false
    }
    list.partition = reach === undefined ? read.partition + 1 : read.partition
    list.after = reach
    return reach === undefined
  }

  #merged(bucket: Bucket, sets: readonly Uint8Array[]): VersionSet | undefined {
    const { actors } = this.#options
    let merged: VersionSet | undefined
    let before: Uint8Array | undefined
    for (const bytes of sets) {
      // Most often all have the same.
      if (before?.length === bytes.length && equalBytes(before, 0, bytes, 0, bytes.length)) continue
      before = bytes
      const set = decodeSet(bytes, 0, bytes.length, actors.indexOf)
      if (typeof set === 'string') return undefined
      merged = merged === undefined ? set : sync(merged, set)
    }
    return merged !== undefined && bucket.conflict === 'lww' ? resolveLastWriteWins(merged, actors) : merged
  }

  // Ends.

  #answer(list: List): void {
    const { keys, partition, after, bucket, receipt } = list
    const isThrough = partition >= list.endPartition
    const cursor = isThrough ? undefined : this.#cursors.encode(bucket.id, { partition, after })
    this.#end(list)
    list.done(undefined, { keys, cursor, receipt })
  }

  #expire(list: List): void {
    const silent = list.round.filter(({ isAnswered }) => !isAnswered)
    const { partition, waiting, pages, needed } = silent[0]!
    const others = silent.length === 1 ? '' : `, as of ${silent.length - 1} more`
    const who = waiting.size === 0 ? '' : `: no answer from ${[...waiting].join(', ')}`
    const message = `Cannot list partition ${partition}: ${pages.size} of the ${needed} replicas asked for answered before the deadline${others}${who}`
    this.#fail(list, new SunwiseError('TIMEOUT', message, { outcome: 'none', extra: { partition } }))
  }

  #fail(list: List, error: SunwiseError): void {
    if (list.isEnded) return
    this.#end(list)
    list.done(error, undefined)
  }

  #end(list: List): void {
    list.isEnded = true
    this.#lists.delete(list)
    for (const [requestId, read] of this.#reads) if (read.list === list) this.#reads.delete(requestId)
    for (const read of this.#again.keys()) if (read.list === list) this.#again.delete(read)
  }

  #isFull(): SunwiseError | undefined {
    if (this.#lists.size < Limits.listsPendingMax) return undefined
    const message = `Cannot take the list: ${Limits.listsPendingMax} are under way here`
    return new SunwiseError('OVERLOADED', message, { outcome: 'none' })
  }

  #newId(): number {
    do this.#lastRequestId = (this.#lastRequestId + 1) & requestIdMask
    while (this.#reads.has(this.#lastRequestId))
    return this.#lastRequestId
  }
}

/** Keys of all pages, in order, up to the smallest end; `reach`: that end, undefined where there is none. */
export function mergePages(pages: readonly ReplicaPage[]): {
  readonly keys: readonly MergedKey[]
  readonly reach: Uint8Array | undefined
} {
  let reach: Uint8Array | undefined
  for (const { end } of pages) if (end !== undefined && (reach === undefined || compare(end, reach) < 0)) reach = end
  const places = pages.map(() => 0)
  const keys: MergedKey[] = []
  for (;;) {
    let least: Uint8Array | undefined
    for (const [index, { entries }] of pages.entries()) {
      const key = entries[places[index]!]?.key
      if (key !== undefined && (least === undefined || compare(key, least) < 0)) least = key
    }
    if (least === undefined || (reach !== undefined && compare(least, reach) > 0)) return { keys, reach }
    const sets: Uint8Array[] = []
    for (const [index, { entries }] of pages.entries()) {
      const entry = entries[places[index]!]
      if (entry === undefined || compare(entry.key, least) !== 0) continue
      sets.push(entry.set)
      places[index]!++
    }
    keys.push({ key: least, sets })
  }
}

/** Which keys a replica was asked for. */
export type PageRange = {
  readonly partition: number
  readonly prefix: Uint8Array
  readonly after: Uint8Array | undefined
}

/** What a replica told, if it is an answer to what it was asked: a peer's bytes are not trusted. */
export function readPage(
  { partition, prefix, after }: PageRange,
  { entries: bytes, end, isDurable }: HeldPage,
): ReplicaPage | undefined {
  const reader = new ByteReader(bytes)
  const entries: PageEntry[] = []
  let before = after
  while (reader.remaining > 0) {
    const keyBytes = reader.u16()
    const setBytes = reader.u32()
    const key = reader.raw(keyBytes)
    const set = reader.raw(setBytes)
    if (reader.failed || keyBytes === 0 || keyBytes > Limits.keyBytesMax) return undefined
    if (before !== undefined && compare(key, before) <= 0) return undefined
    if (keyBytes < prefix.length || !equalBytes(key, 0, prefix, 0, prefix.length)) return undefined
    if (partitionOfKey(key) !== partition) return undefined
    entries.push({ key, set })
    before = key
  }
  // An end before what was told, or one that leads nowhere, would have the list go round for ever.
  if (end !== undefined && before !== undefined && compare(end, before) < 0) return undefined
  if (end !== undefined && after !== undefined && compare(end, after) <= 0) return undefined
  return { entries, end, isDurable }
}

function rangeOf({ partition, after, list }: PartitionRead): PageRange {
  return { partition, prefix: list.prefix, after }
}

/** Whether a page takes no more keys. */
function isFull({ keys, limit, bytes }: List): boolean {
  return keys.length >= limit || bytes >= Limits.listReplyBytesMax
}

function receiptOf({ pages, replicas, epoch }: PartitionRead): Receipt {
  const nodes = Array.from(pages, ([node, { isDurable }]): ReceiptNode => ({ node, isFallback: false, isDurable }))
  const durable = nodes.every(({ isDurable }) => isDurable)
  return { acks: nodes.length, replicas, sloppy: false, durable, epoch, nodes, repaired: 0 }
}

/** That of the partition for which fewer replicas answered; it is durable only where both are. */
export function leastReceipt(a: Receipt, b: Receipt): Receipt {
  const least = b.acks < a.acks ? b : a
  const durable = a.durable && b.durable
  return least.durable === durable ? least : { ...least, durable }
}

function notMet({ partition, needed, replicas }: PartitionRead, acks: number): SunwiseError {
  const answer = acks === 1 ? 'answers' : 'answer'
  const message = `Cannot list partition ${partition}: of its ${replicas} replicas ${acks} ${answer}, and ${needed} are needed`
  return new SunwiseError('QUORUM_NOT_MET', message, { outcome: 'none', extra: { needed, acks, replicas, partition } })
}

function ofPartition(partition: number, { code, message }: SunwiseError): SunwiseError {
  const told = `Cannot list partition ${partition}: ${message}`
  return new SunwiseError(code, told, { outcome: 'none', extra: { partition } })
}

function unreadable(node: string): SunwiseError {
  return new SunwiseError('INTERNAL', `Cannot read the keys that ${node} told`, { outcome: 'none' })
}

function compare(a: Uint8Array, b: Uint8Array): number {
  return compareBytes(a, 0, a.length, b, 0, b.length)
}
