/**
 * Anti-entropy: one after the other, the partitions of this node are compared with those of each other replica, and what differs is brought
 * together, whatever the reason: messages and hints that were lost, disks that were, writes that only some took.
 *
 *   this node                               peer
 *     root, then what differs below  ->       lanes of children (versions/hash-tree.ts), first of all its clock
 *     leaves that differ             ->       their keys, each with the digest of its dots
 *     for each key that differs: what the peer has is merged here, under that clock, and what that makes goes back
 *     all of it done: this clock joins the peer's, as it was before its tree was read
 *
 * Then it is known what all replicas of the partition have: up to there deletes are forgotten (versions/stability.ts).
 *
 * So bytes go with the difference, not with the data. The last step is what lets a clock pass over dots that never come: they were replaced
 * before they were sent, or their messages were lost and their keys repaired. It is left out where anything was.
 *
 * If the peer starts anew in the middle, the exchange ends: its clock was another life's.
 *
 * One exchange at a time, begun at intervals; keys are brought together a few at a time. An object without a thread: `receive`, `tick`.
 */
import { ByteReader } from '../base/bytes.ts'
import type { Durability } from '../config.ts'
import type { Clock } from '../env.ts'
import { CompareVerb } from '../shard/command.ts'
import { ActorRegistry } from '../versions/actor-registry.ts'
import { isLeaf, leafOfNode, treeArity } from '../versions/hash-tree.ts'
import { PartitionClock } from '../versions/partition-clock.ts'
import { stableOf } from '../versions/stability.ts'
import { emptySet, type LocalReplica } from './local-replica.ts'
import {
  type ComparedMessage,
  encodePeerMessage,
  type FoundMessage,
  type PeerMessage,
  type Unnumbered,
  type WrittenMessage,
} from './peer-message.ts'
import type { Bucket } from './requests.ts'
import type { Routing } from './routing.ts'

export type ExchangesOptions = {
  readonly self: string
  readonly clock: Clock
  readonly replica: LocalReplica
  readonly routing: () => Routing
  readonly partitions: () => readonly ComparedPartition[]
  readonly bucketOf: (id: number) => Bucket | undefined
  readonly send: (node: string, bytes: Uint8Array) => boolean
  readonly durability: Durability
  /** Milliseconds from the end of one exchange to the begin of the next. */
  readonly restMs: number
}

/** A partition that this node has data of, and the other nodes that have. */
export type ComparedPartition = {
  readonly partition: number
  readonly others: readonly string[]
  /** Somebody waits for an exchange that was begun in this epoch or later; undefined: nobody does. */
  readonly wantedSince: number | undefined
}

/** Requests of exchanges have ids from here on. */
export const firstExchangeRequestId = 0xc000_0000

const idMask = 0x3fff_ffff
/** Nodes that are followed down at once; with more differences the rest is left to the next exchange. */
const nodesMax = 64
const keysInFlight = 16
const answerMs = 3000

/** What became of the last complete exchange of a partition with a peer. */
export type ExchangeStatus = {
  readonly endedMs: number
  readonly keysRepaired: number
  /** Epoch in which it began. */
  readonly epoch: number
}

type Answer = ComparedMessage | FoundMessage | WrittenMessage
type Waiting = {
  readonly from: string
  readonly deadlineMs: number
  readonly done: (answer: Answer | undefined) => void
}

type Exchange = {
  readonly partition: number
  readonly peer: string
  readonly epoch: number
  /** Nobody rests before the next one. */
  readonly isWanted: boolean
  /** The peer's clock before its tree was read. */
  clock: Uint8Array
  /** The start of the peer that told it: another one may have lost what the clock covers. */
  life: number
  /** Something was left out: the clock is not joined. */
  isPartial: boolean
  keysLeft: KeyDifference[]
  inFlight: number
  repaired: number
}

type KeyDifference = {
  readonly bucketId: number
  readonly key: Uint8Array
  readonly isThere: boolean
}

type ListedKey = { readonly bucketId: number; readonly key: Uint8Array; readonly low: number; readonly high: number }

const root = [0]
const nothing = new Uint8Array(0)

export class Exchanges {
  readonly #options: ExchangesOptions
  readonly #waiting = new Map<number, Waiting>()
  #lastId = 0
  #current: Exchange | undefined
  #nextMs: number
  /** Which pair of partition and peer comes next. */
  #turn = 0
  readonly #status = new Map<string, ExchangeStatus>()
  readonly #actors = new ActorRegistry()
  /** By partition and peer, the clock that the peer told last. */
  readonly #told = new Map<string, PartitionClock>()
  /** Exchanges that ended, those of them that left something out, those that began with a difference; keys that were brought together. */
  ended = 0
  partial = 0
  differing = 0
  keysRepaired = 0
  bytesSent = 0

  constructor(options: ExchangesOptions) {
    this.#options = options
    // A node that starts has other things to do first, and so have those that start with it.
    this.#nextMs = options.clock.monotonicMs() + options.restMs
  }

  /** Whether nothing is under way. */
  get isResting(): boolean {
    return this.#current === undefined && this.#waiting.size === 0
  }

  /** When a partition was last known to be equal to that of a peer, and what it took; undefined: never in this run. */
  statusOf(partition: number, peer: string): ExchangeStatus | undefined {
    return this.#status.get(`${partition} ${peer}`)
  }

  receive(from: string, message: PeerMessage): void {
    const waiting = this.#waiting.get(message.requestId)
    if (waiting === undefined || waiting.from !== from) return
    if (message.type !== 'compared' && message.type !== 'found' && message.type !== 'written') return
    this.#waiting.delete(message.requestId)
    waiting.done(message)
  }

  tick(): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const [requestId, { deadlineMs, done }] of this.#waiting) {
      if (deadlineMs > nowMs) continue
      this.#waiting.delete(requestId)
      done(undefined)
    }
    if (this.#current === undefined && nowMs >= this.#nextMs) this.#beginNext()
  }

  #beginNext(): void {
    const partitions = this.#options.partitions()
    const wanted = partitions.filter(({ wantedSince }) => wantedSince !== undefined)
    if (this.#beginOneOf(wanted, true)) return
    this.#beginOneOf(partitions, false)
  }

  /** Begins with the next partition and peer in turn. False: none of the peers answers, or none is wanted. */
  #beginOneOf(partitions: readonly ComparedPartition[], isWanted: boolean): boolean {
    const pairs = partitions.flatMap(({ partition, others, wantedSince }) =>
      others.map((peer) => ({ partition, peer, wantedSince })),
    )
    for (let tries = 0; tries < pairs.length; tries++) {
      const { partition, peer, wantedSince = 0 } = pairs[this.#turn++ % pairs.length]!
      const routing = this.#options.routing()
      if (!routing.isAlive(peer)) continue
      if (isWanted && (this.statusOf(partition, peer)?.epoch ?? 0) >= wantedSince) continue
      const exchange = {
        partition,
        peer,
        epoch: routing.epoch,
        isWanted,
        clock: nothing,
        life: 0,
        isPartial: false,
        keysLeft: [],
        inFlight: 0,
        repaired: 0,
      }
      this.#current = exchange
      this.#descend(exchange, root)
      return true
    }
    return false
  }

  /** Compares the children of nodes, and goes on with those that differ. */
  #descend(exchange: Exchange, nodes: readonly number[]): void {
    const numbers = numbersOf(nodes)
    this.#both(exchange, 'children', numbers, (own, theirs) => {
      const differing: number[] = []
      if (own.length !== theirs.length || own.length !== nodes.length * treeArity * 8) return this.#giveUp(exchange)
      for (const [index, node] of nodes.entries()) {
        for (let child = 0; child < treeArity; child++) {
          const at = (index * treeArity + child) * 8
          if (!sameBytes(own, theirs, at, 8)) differing.push(node * treeArity + 1 + child)
        }
      }
      if (differing.length === 0) return this.#finish(exchange)
      if (nodes === root) this.differing++
      if (differing.length > nodesMax) exchange.isPartial = true
      const followed = differing.slice(0, nodesMax)
      if (isLeaf(followed[0]!)) this.#compareLeaves(exchange, followed.map(leafOfNode))
      else this.#descend(exchange, followed)
    })
  }

  #compareLeaves(exchange: Exchange, leaves: readonly number[]): void {
    this.#both(exchange, 'leafKeys', numbersOf(leaves), (own, theirs) => {
      const mine = listOf(own)
      const others = listOf(theirs)
      if (mine === undefined || others === undefined) return this.#giveUp(exchange)
      const told = Math.min(mine.told, others.told)
      if (told < leaves.length) exchange.isPartial = true
      exchange.keysLeft = differencesOf(mine.keys, others.keys, new Set(leaves.slice(0, told)))
      this.#bringTogether(exchange)
    })
  }

  /** Asks this node's replica and the peer the same. */
  #both(
    exchange: Exchange,
    of: 'children' | 'leafKeys',
    numbers: Uint8Array,
    done: (own: Uint8Array, theirs: Uint8Array) => void,
  ): void {
    const { partition, peer } = exchange
    let own: Uint8Array | undefined
    let theirs: Uint8Array | undefined
    const settle = (): void => {
      if (own !== undefined && theirs !== undefined && this.#current === exchange) done(own, theirs)
    }
    const wantsClock = exchange.clock.length === 0
    const standing = this.#options.routing().standingOf(partition)
    const question = { type: 'compare', timeoutMs: answerMs, partition, wantsClock, of, numbers } as const
    this.#ask(peer, { ...question, ...standing }, (answer) => {
      if (answer?.type !== 'compared' || answer.failure !== undefined) return this.#giveUp(exchange)
      if (wantsClock) {
        exchange.clock = answer.clock
        exchange.life = answer.life
      } else if (answer.life !== exchange.life) return this.#giveUp(exchange)
      theirs = answer.answer
      settle()
    })
    const verb = of === 'children' ? CompareVerb.children : CompareVerb.leafKeys
    this.#options.replica.compare(verb, partition, numbers, answerMs, (_error, bytes) => {
      if (bytes === undefined) return this.#giveUp(exchange)
      own = bytes
      settle()
    })
  }

  #bringTogether(exchange: Exchange): void {
    while (exchange.inFlight < keysInFlight) {
      const difference = exchange.keysLeft.pop()
      if (difference === undefined) break
      const bucket = this.#options.bucketOf(difference.bucketId)
      // Its data is gone with the bucket; the node that knows it still will hear.
      if (bucket === undefined) continue
      exchange.inFlight++
      this.#repair(exchange, bucket, difference, (isRepaired) => {
        exchange.inFlight--
        if (isRepaired) exchange.repaired++
        else exchange.isPartial = true
        if (this.#current === exchange) this.#bringTogether(exchange)
      })
    }
    if (exchange.inFlight === 0 && exchange.keysLeft.length === 0) this.#finish(exchange)
  }

  /** What the peer has of a key is merged here, and what is here then is sent to it. */
  #repair(exchange: Exchange, bucket: Bucket, difference: KeyDifference, done: (isRepaired: boolean) => void): void {
    const { key, isThere } = difference
    const { replica, durability } = this.#options
    const lastWriteWins = bucket.conflict === 'lww'
    const level = bucket.durability ?? durability
    const push = (): void => {
      replica.read(bucket.id, key, answerMs, (_error, held) => {
        if (held === undefined) return done(false)
        if (isEmptySet(held.set)) return done(true)
        const message = {
          type: 'write',
          bucketId: bucket.id,
          lastWriteWins,
          durability: level,
          key,
          set: held.set,
        } as const
        const standing = this.#options.routing().standingOf(exchange.partition)
        this.#ask(exchange.peer, { ...message, ...standing, timeoutMs: answerMs, hintFor: undefined }, (answer) =>
          done(answer?.type === 'written' && answer.failure === undefined),
        )
      })
    }
    const pull = (set: Uint8Array): void =>
      replica.merge(
        bucket.id,
        key,
        set,
        lastWriteWins,
        level,
        answerMs,
        (error) => (error === undefined ? push() : done(false)),
        exchange.clock,
      )
    // What the peer has seen and has no more was deleted there.
    if (!isThere) return pull(emptySet)
    const standing = this.#options.routing().standingOf(exchange.partition)
    const message = { type: 'read', timeoutMs: answerMs, bucketId: bucket.id, key, wantsSet: true } as const
    this.#ask(exchange.peer, { ...message, ...standing }, (answer) => {
      if (answer?.type !== 'found' || answer.failure !== undefined || answer.set === undefined) done(false)
      else if (answer.life !== exchange.life) done(false)
      else pull(answer.set)
    })
  }

  #finish(exchange: Exchange): void {
    if (exchange.isPartial) return this.#end(exchange)
    this.#options.replica.compare(CompareVerb.joinClock, exchange.partition, exchange.clock, answerMs, (error) => {
      if (this.#current !== exchange) return
      if (error !== undefined) {
        exchange.isPartial = true
        return this.#end(exchange)
      }
      this.#noteStable(exchange)
    })
  }

  /** Both sides have now what the peer's clock covers: perhaps all replicas have more writes than before. */
  #noteStable(exchange: Exchange): void {
    const { partition, peer, clock } = exchange
    const { replica, partitions } = this.#options
    const told = PartitionClock.decode(clock, 0, clock.length, this.#actors.indexOf)
    if (typeof told === 'string') return this.#giveUp(exchange)
    this.#told.set(`${partition} ${peer}`, told)
    const others = partitions().find((each) => each.partition === partition)?.others ?? []
    const clocks = others.map((other) => this.#told.get(`${partition} ${other}`))
    if (clocks.some((each) => each === undefined)) return this.#end(exchange)
    replica.compare(CompareVerb.clock, partition, nothing, answerMs, (_error, bytes) => {
      const own = bytes === undefined ? 'length' : PartitionClock.decode(bytes, 0, bytes.length, this.#actors.indexOf)
      if (this.#current !== exchange) return
      if (typeof own === 'string') return this.#end(exchange)
      const stable = new PartitionClock()
      for (const { actor, counter } of stableOf([own, ...(clocks as PartitionClock[])]))
        stable.raiseBase(actor, counter)
      replica.compare(CompareVerb.setStable, partition, stable.encode(this.#actors), answerMs, () => {
        if (this.#current === exchange) this.#end(exchange)
      })
    })
  }

  #giveUp(exchange: Exchange): void {
    if (this.#current !== exchange) return
    exchange.isPartial = true
    this.#end(exchange)
  }

  #end(exchange: Exchange): void {
    const nowMs = this.#options.clock.monotonicMs()
    this.#current = undefined
    this.#nextMs = nowMs + (exchange.isWanted ? 0 : this.#options.restMs)
    this.ended++
    this.keysRepaired += exchange.repaired
    if (exchange.isPartial) this.partial++
    else {
      const { partition, peer, epoch, repaired } = exchange
      this.#status.set(`${partition} ${peer}`, { endedMs: nowMs, keysRepaired: repaired, epoch })
    }
  }

  #ask(to: string, message: Unnumbered, done: (answer: Answer | undefined) => void): void {
    const requestId = (firstExchangeRequestId + (this.#lastId++ & idMask)) >>> 0
    const bytes = encodePeerMessage({ ...message, requestId } as PeerMessage)
    this.bytesSent += bytes.length
    if (!this.#options.send(to, bytes)) return done(undefined)
    const deadlineMs = this.#options.clock.monotonicMs() + answerMs
    this.#waiting.set(requestId, { from: to, deadlineMs, done })
  }
}

function numbersOf(numbers: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(2 * numbers.length)
  for (const [index, number] of numbers.entries()) {
    bytes[2 * index] = number
    bytes[2 * index + 1] = number >>> 8
  }
  return bytes
}

function sameBytes(a: Uint8Array, b: Uint8Array, at: number, bytes: number): boolean {
  for (let index = at; index < at + bytes; index++) if (a[index] !== b[index]) return false
  return true
}

type LeafList = { readonly told: number; readonly keys: ReadonlyMap<string, ListedKey & { readonly leaf: number }> }

/** The keys of an answer to `leafKeys`; undefined where it is malformed. */
function listOf(bytes: Uint8Array): LeafList | undefined {
  const reader = new ByteReader(bytes)
  const told = reader.u16()
  const keys = new Map<string, ListedKey & { readonly leaf: number }>()
  while (!reader.failed && reader.remaining > 0) {
    const leaf = reader.u16()
    const keyBytes = reader.u16()
    const bucketId = reader.u32()
    const low = reader.u32()
    const high = reader.u32()
    const key = reader.raw(keyBytes)
    keys.set(nameOf(bucketId, key), { leaf, bucketId, key, low, high })
  }
  return reader.failed ? undefined : { told, keys }
}

/** Keys of these leaves that one side has and the other not, or not so. */
function differencesOf(mine: LeafList['keys'], theirs: LeafList['keys'], leaves: ReadonlySet<number>): KeyDifference[] {
  const differences: KeyDifference[] = []
  for (const [name, { leaf, bucketId, key, low, high }] of mine) {
    if (!leaves.has(leaf)) continue
    const other = theirs.get(name)
    if (other?.low === low && other.high === high) continue
    differences.push({ bucketId, key, isThere: other !== undefined })
  }
  for (const [name, { leaf, bucketId, key }] of theirs) {
    if (leaves.has(leaf) && !mine.has(name)) differences.push({ bucketId, key, isThere: true })
  }
  return differences
}

/** Whether a set has no versions: there is nothing to send. */
function isEmptySet(set: Uint8Array): boolean {
  return set[4] === 0 && set[5] === 0
}

function nameOf(bucketId: number, key: Uint8Array): string {
  let name = `${bucketId}:`
  for (const byte of key) name += String.fromCharCode(byte)
  return name
}
