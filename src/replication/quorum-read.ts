/**
 * Reads of keys with replicas on several nodes: one replica is asked for the set, others for its digest. Where those differ all are fetched and
 * merged, and replicas that are behind get the merged set before the answer, so that a read never shows what a later one may not. Where
 * an answer takes longer than most, one more replica is asked (Dean, Barroso, "The Tail at Scale", CACM 2013). What replicas of another epoch
 * refuse begins anew, until the deadline.
 */
import { SunwiseError } from '../base/errors.ts'
import { partitionOfKey } from '../cluster/slots.ts'
import type { Durability } from '../config.ts'
import type { Clock } from '../env.ts'
import type { ActorRegistry } from '../versions/actor-registry.ts'
import { encodeSet } from '../versions/set-codec.ts'
import {
  type Digest,
  digest,
  emptyVersionSet,
  resolveLastWriteWins,
  sync,
  type VersionSet,
} from '../versions/version-set.ts'
import { LatencyEstimate } from './latency-estimate.ts'
import type { LocalReplica } from './local-replica.ts'
import { encodePeerMessage, type FoundMessage, type WrittenMessage } from './peer-message.ts'
import type { PendingRoom } from './pending-room.ts'
import { acksNeeded } from './quorum.ts'
import { askAgainMs, decodedSet, failureOf, passesSoon, quorumNotMet } from './quorum-failures.ts'
import type { Bucket, Callback, QuorumLevel, Receipt, ReceiptNode } from './requests.ts'
import type { Routing } from './routing.ts'

export type QuorumReadsOptions = {
  /** This node. */
  readonly self: string
  readonly clock: Clock
  readonly replica: Pick<LocalReplica, 'read' | 'merge'>
  readonly routing: () => Routing
  readonly send: (node: string, bytes: Uint8Array) => boolean
  readonly actors: ActorRegistry
  /** Durability of what repairs, in buckets that name none. */
  readonly durability: Durability
  /** A number that no request under way has. */
  readonly newId: () => number
  readonly room: PendingRoom
  /** Why a request that brings so many bytes is not taken; undefined where it is. */
  readonly refusal: (bytes: number) => SunwiseError | undefined
}

/** What a key has on as many replicas as were wanted, and which consistency that is. */
export type Found = { readonly set: VersionSet; readonly receipt: Receipt }

type Reply = {
  readonly digest: Digest
  readonly set: VersionSet | undefined
  readonly bytes: number
  isDurable: boolean
}

/** A read under way. */
type Read = {
  readonly bucket: Bucket
  readonly key: Uint8Array
  readonly partition: number
  readonly level: QuorumLevel
  readonly needed: number
  readonly replicas: number
  readonly epoch: number
  readonly deadlineMs: number
  heldBytes: number
  readonly replies: Map<string, Reply>
  readonly waiting: Set<string>
  /** Replicas that may still be asked, the preferred first. */
  readonly others: string[]
  failure: SunwiseError | undefined
  readonly beganMs: number
  hedgeAtMs: number
  /** When it begins anew, where too few would answer for a reason that passes soon; else never. */
  againAtMs: number
  /** Once replies differ: what they make together. */
  merged: VersionSet | undefined
  readonly repairing: Set<string>
  repaired: number
  readonly done: Callback<Found>
}

export class QuorumReads {
  readonly #options: QuorumReadsOptions
  readonly #reads = new Map<number, Read>()
  /** Of reads, from their beginning to their answer: one more replica is asked when a read takes longer than most. */
  readonly #latency = new LatencyEstimate()

  constructor(options: QuorumReadsOptions) {
    this.#options = options
  }

  has(requestId: number): boolean {
    return this.#reads.has(requestId)
  }

  /** A message of another node; of one that answers nothing of this, nothing comes. */
  receive(from: string, message: FoundMessage | WrittenMessage): void {
    const read = this.#reads.get(message.requestId)
    if (read === undefined) return
    if (message.type === 'found') this.#receiveFound(message.requestId, read, from, message)
    else this.#receiveRepaired(message.requestId, read, from, message)
  }

  /** Deadlines and hedges. */
  tick(): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const [requestId, read] of this.#reads) {
      if (read.deadlineMs <= nowMs) this.#expire(requestId, read)
      else if (read.againAtMs <= nowMs) this.#readAgain(requestId, read)
      else if (isAsking(read) && read.hedgeAtMs <= nowMs) {
        read.hedgeAtMs = nowMs + this.#latency.hedgeMs
        this.#askNext(requestId, read)
      }
    }
  }

  /** Reads a key; `done` gets what `level` replicas have, the same on each of them by then. */
  read(bucket: Bucket, key: Uint8Array, level: QuorumLevel, deadlineMs: number, done: Callback<Found>): void {
    const routing = this.#options.routing()
    const partition = partitionOfKey(key)
    const readers = routing.readersOf(partition, bucket.n)
    const needed = acksNeeded(level, readers.length)
    const { self } = this.#options
    const reachable = readers.filter((node) => node === self || routing.isAlive(node))
    const problem =
      this.#options.refusal(key.length) ??
      (reachable.length < needed ? quorumNotMet(needed, reachable.length, readers.length, 'none') : undefined)
    if (problem !== undefined) return done(problem, undefined)
    // Its own replica costs nothing to ask.
    const others = reachable.includes(self) ? [self, ...reachable.filter((node) => node !== self)] : reachable
    const requestId = this.#options.newId()
    const beganMs = this.#options.clock.monotonicMs()
    const read: Read = {
      bucket,
      key,
      partition,
      level,
      needed,
      replicas: readers.length,
      epoch: routing.epoch,
      deadlineMs,
      heldBytes: key.length,
      replies: new Map(),
      waiting: new Set(),
      others,
      failure: undefined,
      beganMs,
      hedgeAtMs: beganMs + this.#latency.hedgeMs,
      againAtMs: Number.POSITIVE_INFINITY,
      merged: undefined,
      repairing: new Set(),
      repaired: 0,
      done,
    }
    this.#add(requestId, read)
    // One is asked for the set, the others for digests. Those that were not asked yet count as such while the first ones answer at once.
    for (let count = 0; count < needed && read.others.length > 0; count++)
      this.#ask(requestId, read, read.others.shift()!, count === 0)
  }

  /** Reads anew what replicas would not answer, from those who hold the key by now. */
  #readAgain(requestId: number, { bucket, key, level, deadlineMs, done }: Read): void {
    const read = this.#reads.get(requestId)!
    this.#remove(requestId, read)
    this.read(bucket, key, level, deadlineMs, done)
  }

  /** Asks one more replica: for its digest where some set is here, else for its set, since whoever was asked for one is slow or failed. */
  #askNext(requestId: number, read: Read): void {
    const node = read.others.shift()
    if (node === undefined) return this.#judge(requestId, read)
    const hasSet = [...read.replies.values()].some(({ set }) => set !== undefined)
    this.#ask(requestId, read, node, !hasSet)
  }

  #ask(requestId: number, read: Read, node: string, wantsSet: boolean): void {
    const { bucket, key, deadlineMs } = read
    read.waiting.add(node)
    if (node === this.#options.self) {
      this.#options.replica.read(bucket.id, key, this.#leftMs(deadlineMs), (error, held) => {
        if (this.#reads.get(requestId) !== read) return
        this.#take(requestId, read, node, held === undefined ? error! : this.#replyOf(held.set, held.isDurable))
      })
      return
    }
    const standing = this.#options.routing().standingOf(read.partition)
    const timeoutMs = this.#leftMs(deadlineMs)
    const message = { type: 'read', requestId, ...standing, timeoutMs, bucketId: bucket.id, key, wantsSet } as const
    if (this.#options.send(node, encodePeerMessage(message))) return
    this.#take(requestId, read, node, new SunwiseError('QUORUM_NOT_MET', `Cannot reach ${node}`, { outcome: 'none' }))
  }

  #receiveFound(requestId: number, read: Read, from: string, message: FoundMessage): void {
    const { failure, set, digest, isDurable } = message
    if (failure !== undefined) this.#take(requestId, read, from, failureOf(failure, from))
    else if (set === undefined) this.#take(requestId, read, from, { digest, set, bytes: 0, isDurable })
    else this.#take(requestId, read, from, this.#replyOf(set, isDurable))
  }

  #replyOf(bytes: Uint8Array, isDurable: boolean): Reply | SunwiseError {
    const set = decodedSet(bytes, this.#options.actors)
    if (set instanceof SunwiseError) return set
    return { digest: digest(set, this.#options.actors), set, bytes: bytes.length, isDurable }
  }

  #take(requestId: number, read: Read, from: string, reply: Reply | SunwiseError): void {
    if (!read.waiting.delete(from)) return
    // Too late to be merged: it does not count as a replica that has what the merge made.
    if (read.merged !== undefined) return
    if (reply instanceof SunwiseError) {
      read.failure = reply
      read.replies.delete(from)
      return this.#askNext(requestId, read)
    }
    read.replies.set(from, reply)
    // What came is kept until the answer, whatever it adds up to: only new requests are refused.
    read.heldBytes += reply.bytes
    this.#options.room.grow(reply.bytes)
    this.#judge(requestId, read)
  }

  #judge(requestId: number, read: Read): void {
    const { replies, waiting, needed } = read
    if (!isAsking(read)) return
    if (replies.size < needed) {
      if (replies.size + waiting.size + read.others.length >= needed) return
      const { failure } = read
      if (passesSoon(failure)) {
        read.againAtMs = this.#options.clock.monotonicMs() + askAgainMs
        return
      }
      const isTold = failure !== undefined && failure.code !== 'QUORUM_NOT_MET'
      return this.#end(requestId, read, isTold ? failure : quorumNotMet(needed, replies.size, read.replicas, 'none'))
    }
    const whole = [...replies.values()].find(({ set }) => set !== undefined)
    if (whole !== undefined && [...replies.values()].every((reply) => sameDigest(reply.digest, whole.digest))) {
      return this.#answer(requestId, read, whole.set!)
    }
    let isMissing = false
    for (const [node, reply] of replies) {
      if (reply.set !== undefined) continue
      isMissing = true
      // Counted again when its set is here.
      if (!waiting.has(node)) this.#ask(requestId, read, node, true)
    }
    if (!isMissing) this.#repair(requestId, read)
  }

  /** Replies differ: what they make together goes to those that are behind, and is answered once enough have it. */
  #repair(requestId: number, read: Read): void {
    const { bucket, key, replies, deadlineMs } = read
    let merged = emptyVersionSet
    for (const { set } of replies.values()) merged = sync(merged, set!)
    if (bucket.conflict === 'lww') merged = resolveLastWriteWins(merged, this.#options.actors)
    read.merged = merged
    const target = digest(merged, this.#options.actors)
    const bytes = encodeSet(merged, this.#options.actors)
    const lastWriteWins = bucket.conflict === 'lww'
    const durability = bucket.durability ?? this.#options.durability
    const timeoutMs = this.#leftMs(deadlineMs)
    const stale = [...replies].filter(([, reply]) => !sameDigest(reply.digest, target)).map(([node]) => node)
    for (const node of stale) read.repairing.add(node)
    for (const node of stale) {
      if (node === this.#options.self) {
        this.#options.replica.merge(bucket.id, key, bytes, lastWriteWins, durability, timeoutMs, (error, held) => {
          if (this.#reads.get(requestId) !== read) return
          this.#repairEnded(requestId, read, node, held === undefined ? error! : held)
        })
        continue
      }
      const standing = this.#options.routing().standingOf(read.partition)
      const head = { type: 'write', requestId, ...standing, timeoutMs, bucketId: bucket.id } as const
      const message = { ...head, lastWriteWins, durability, key, set: bytes, hintFor: undefined }
      if (this.#options.send(node, encodePeerMessage(message))) continue
      this.#repairEnded(requestId, read, node, new SunwiseError('QUORUM_NOT_MET', `Cannot reach ${node}`))
    }
    this.#judgeRepair(requestId, read)
  }

  #receiveRepaired(requestId: number, read: Read, from: string, message: WrittenMessage): void {
    if (!read.repairing.has(from)) return
    const { failure } = message
    this.#repairEnded(requestId, read, from, failure === undefined ? message : failureOf(failure, from))
  }

  #repairEnded(
    requestId: number,
    read: Read,
    node: string,
    result: { readonly isDurable: boolean } | SunwiseError,
  ): void {
    read.repairing.delete(node)
    if (result instanceof SunwiseError) {
      read.failure = result
      read.replies.delete(node)
    } else {
      read.repaired++
      read.replies.get(node)!.isDurable = result.isDurable
    }
    this.#judgeRepair(requestId, read)
  }

  #judgeRepair(requestId: number, read: Read): void {
    if (this.#reads.get(requestId) !== read) return
    const { replies, repairing, needed } = read
    if (replies.size - repairing.size >= needed) return this.#answer(requestId, read, read.merged!)
    if (replies.size >= needed) return
    this.#end(requestId, read, quorumNotMet(needed, replies.size, read.replicas, 'none'))
  }

  #answer(requestId: number, read: Read, set: VersionSet): void {
    this.#remove(requestId, read)
    this.#latency.record(this.#options.clock.monotonicMs() - read.beganMs)
    const { replies, repairing, replicas, epoch, repaired } = read
    const nodes: ReceiptNode[] = []
    for (const [node, { isDurable }] of replies) {
      if (!repairing.has(node)) nodes.push({ node, isFallback: false, isDurable })
    }
    const durable = nodes.every(({ isDurable }) => isDurable)
    const receipt = { acks: nodes.length, replicas, sloppy: false, durable, epoch, nodes, repaired }
    read.done(undefined, { set, receipt })
  }

  #end(requestId: number, read: Read, error: SunwiseError): void {
    this.#remove(requestId, read)
    read.done(error, undefined)
  }

  #expire(requestId: number, read: Read): void {
    if (!isAsking(read) && read.merged === undefined) return this.#end(requestId, read, read.failure!)
    const message = `${read.replies.size} of the ${read.needed} replicas asked for answered before the deadline`
    this.#end(requestId, read, new SunwiseError('TIMEOUT', message, { outcome: 'none' }))
  }

  #add(requestId: number, read: Read): void {
    this.#reads.set(requestId, read)
    this.#options.room.enter(read.heldBytes)
  }

  #remove(requestId: number, read: Read): void {
    if (this.#reads.delete(requestId)) this.#options.room.leave(read.heldBytes)
  }

  #leftMs(deadlineMs: number): number {
    return Math.max(1, Math.ceil(deadlineMs - this.#options.clock.monotonicMs()))
  }
}

function sameDigest(a: Digest, b: Digest): boolean {
  return a.low === b.low && a.high === b.high
}

/** Whether a read still wants replies: it has not enough to answer or to repair with, and does not wait to begin anew. */
function isAsking({ merged, againAtMs }: Read): boolean {
  return merged === undefined && againAtMs === Number.POSITIVE_INFINITY
}
