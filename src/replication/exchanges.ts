/**
 * Anti-entropy: one after the other, the partitions of this node are compared with those of each other replica, and what differs is brought
 * together, whatever the reason: messages and hints that were lost, disks that were, writes that only some took.
 *
 *   this node                               peer
 *     both take over what either knows of what all replicas have (versions/stability.ts)
 *     root, then what differs below  ->       lanes of children (versions/hash-tree.ts), first of all its clock
 *     leaves that differ             ->       their keys, each with the digest of its dots
 *     for each key that differs: what the peer has is merged here, under that clock, and what that makes goes back
 *     all of it done: this clock joins the peer's, as it was before its tree was read
 *
 * Each also attests what it has: where that is known of all replicas of the partition, deletes are forgotten up to there. Who is the only one left
 * needs nobody's word.
 *
 * So bytes go with the difference, not with the data. One that finds too much brings a part of it together, and the next one goes on. The last step is what lets a clock pass over dots that never come: they were replaced
 * before they were sent, or their messages were lost and their keys repaired. It is left out where anything was.
 *
 * A partition that lost data to damage (storage/damaged-partitions.ts) is compared with all others at once; when that has left nothing out
 * it counts as whole again.
 *
 * If the peer starts anew in the middle, or loses data to damage, the exchange ends: its clock was another life's. If this node does, the clock
 * is not joined.
 *
 * One exchange at a time: those that are marked (repair-ledger.ts) and those that moves wait for at once, the others at intervals, all in turn; keys
 * are brought together a few at a time. Whatever is sent waits for room in the budget of repair. An object without a thread: `receive`, `tick`.
 */
import { ByteReader, ByteWriter, equalBytes } from '../base/bytes.ts'
import { type Durability, Limits } from '../config.ts'
import type { Clock } from '../env.ts'
import { CompareVerb } from '../shard/command.ts'
import { ActorRegistry } from '../versions/actor-registry.ts'
import { isLeaf, leafOfNode, treeArity } from '../versions/hash-tree.ts'
import { type Attested, decodeAttested, encodeStable, stableOf } from '../versions/stability.ts'
import { emptySet, type LocalReplica } from './local-replica.ts'
import {
  type ComparedMessage,
  encodePeerMessage,
  type FoundMessage,
  type PeerMessage,
  type Unnumbered,
  type WrittenMessage,
} from './peer-message.ts'
import type { RepairBudget } from './repair-budget.ts'
import type { Begun, RepairLedger } from './repair-ledger.ts'
import type { Bucket } from './requests.ts'
import type { Routing } from './routing.ts'

export type ExchangesOptions = {
  readonly self: string
  readonly clock: Clock
  readonly replica: Pick<LocalReplica, 'compare' | 'read' | 'merge'>
  readonly routing: () => Routing
  readonly partitions: ComparedPartitions
  readonly ledger: RepairLedger
  readonly budget: RepairBudget
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

/** What is to be compared (partition-keeper.ts). */
export type ComparedPartitions = {
  /** All that this node holds together with others. */
  readonly held: readonly ComparedPartition[]
  /** Those that somebody waits for. */
  readonly wanted: readonly ComparedPartition[]
  /** Those that no other node has any more: what they have is stable as it is. */
  readonly alone: readonly number[]
  /** Whether there may be something in it. */
  isTouched(partition: number): boolean
  /** The other nodes that have a partition; none: it is not held here. */
  othersOf(partition: number): readonly string[]
}

/** Requests of exchanges have ids from here on. */
export const firstExchangeRequestId = 0xc000_0000

const idMask = 0x3fff_ffff
/** Nodes that are followed down at once; with more differences the rest is left to the next exchange, which comes at once. */
const nodesMax = 64
const keysInFlight = 16
const answerMs = 3000
/** Of so many exchanges one is of whatever is next in turn, however many are wanted or marked. */
const turnsApart = 8
/** After that those that are wanted or marked are looked for again where none could begin, or one of them failed. */
const urgentRestMs = 100
const failedRestMs = 1000

type Answer = ComparedMessage | FoundMessage | WrittenMessage
type Waiting = {
  readonly from: string
  readonly deadlineMs: number
  readonly done: (answer: Answer | undefined) => void
}

type Exchange = {
  readonly begun: Begun
  readonly partition: number
  readonly peer: string
  /** Nobody rests before the next one. */
  readonly isUrgent: boolean
  /** What this node knows to be stable. */
  stable: Uint8Array
  /** The peer's clock before its tree was read. */
  clock: Uint8Array
  /** The start of the peer that told it, and its damage then: later ones may have lost what the clock covers. */
  life: number
  /** Something was left out: the clock is not joined. */
  isPartial: boolean
  /** It was left out only because there was so much. */
  isCut: boolean
  /** Of the damage from which this replica is being brought up; 0: none. */
  generation: number
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
  #nextUrgentMs = 0
  /** Where to go on in turn: a place among the partitions held, and one among their other nodes. */
  #heldAt = 0
  #otherAt = 0
  #turns = 0
  /** Place among the wanted pairs. */
  #wantedAt = 0
  /** Place among the partitions that no other node has any more, and when the next of them is looked at. */
  #aloneAt = 0
  #nextAloneMs: number
  readonly #actors = new ActorRegistry()
  /** By partition and peer, what the peer attested last. */
  readonly #attested = new Map<string, Attested>()
  /** By partition that lost data to damage, with whom nothing was left out since. */
  readonly #resyncs = new Map<number, { readonly generation: number; readonly peers: Set<string> }>()
  /** Exchanges that ended, those of them that left something out, those that began with a difference; keys that were brought together. */
  ended = 0
  partial = 0
  differing = 0
  keysRepaired = 0
  /** Bytes of questions and keys that were sent, and of what came back. */
  bytesSent = 0
  bytesReceived = 0

  constructor(options: ExchangesOptions) {
    this.#options = options
    // A node that starts has other things to do first, and so have those that start with it.
    this.#nextMs = options.clock.monotonicMs() + options.restMs
    this.#nextAloneMs = this.#nextMs
    this.#nextUrgentMs = options.clock.monotonicMs() + Math.min(options.restMs, failedRestMs)
  }

  /** Whether nothing is under way. */
  get isResting(): boolean {
    return this.#current === undefined && this.#waiting.size === 0
  }

  /** The pair that is compared just now. */
  get underWay(): { readonly partition: number; readonly peer: string } | undefined {
    return this.#current
  }

  receive(from: string, message: PeerMessage): void {
    const waiting = this.#waiting.get(message.requestId)
    if (waiting === undefined || waiting.from !== from) return
    if (message.type !== 'compared' && message.type !== 'found' && message.type !== 'written') return
    this.#waiting.delete(message.requestId)
    const bytes = bytesOfAnswer(message)
    this.bytesReceived += bytes
    this.#options.budget.charge(this.#kind, bytes)
    waiting.done(message)
  }

  tick(): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const [requestId, { deadlineMs, done }] of this.#waiting) {
      if (deadlineMs > nowMs) continue
      this.#waiting.delete(requestId)
      done(undefined)
    }
    if (this.#current === undefined) this.#beginNext(nowMs)
    if (nowMs >= this.#nextAloneMs) this.#noteAlone(nowMs)
  }

  /** The others have left: deletes and what has expired would be kept for ever, since no exchange finds out what is stable. */
  #noteAlone(nowMs: number): void {
    const { partitions, replica, restMs } = this.#options
    const { alone } = partitions
    this.#nextAloneMs = nowMs + restMs
    if (alone.length === 0) return
    const partition = alone[this.#aloneAt++ % alone.length]!
    replica.compare(CompareVerb.joinStable, partition, nothing, answerMs, (_error, bytes) => {
      const own = bytes === undefined ? 'length' : decodeAttested(bytes, this.#actors.indexOf)
      if (typeof own === 'string' || own.attested === undefined) return
      // Somebody may have been given it meanwhile, and has not all of it.
      if (partitions.othersOf(partition).length > 0) return
      const stable = encodeStable(stableOf([own.attested], Limits.expiryGraceMs), this.#actors)
      replica.compare(CompareVerb.joinStable, partition, stable, answerMs, () => {})
    })
  }

  get #kind(): 'moves' | 'exchanges' {
    return this.#current?.isUrgent === true ? 'moves' : 'exchanges'
  }

  /** Marked and wanted ones by turns, and between them, and where there are none, whatever comes next. */
  #beginNext(nowMs: number): void {
    const isInTurn = nowMs >= this.#nextMs
    if (isInTurn && this.#turns % turnsApart === 0 && this.#beginInTurn()) return
    if (nowMs >= this.#nextUrgentMs) {
      const isMarkFirst = this.#turns % 2 === 0
      if (isMarkFirst ? this.#beginMarked() || this.#beginWanted() : this.#beginWanted() || this.#beginMarked()) return
      this.#nextUrgentMs = nowMs + urgentRestMs
    }
    if (isInTurn && !this.#beginInTurn()) this.#nextMs = nowMs + this.#options.restMs
  }

  #beginInTurn(): boolean {
    const { partitions, routing } = this.#options
    const { held } = partitions
    for (let passed = 0; passed <= held.length; ) {
      const next = held[this.#heldAt]
      const peer = next?.others[this.#otherAt]
      if (next === undefined || peer === undefined || !partitions.isTouched(next.partition)) {
        this.#heldAt = next === undefined ? 0 : this.#heldAt + 1
        this.#otherAt = 0
        passed++
        continue
      }
      this.#otherAt++
      if (!routing().isAlive(peer)) continue
      this.#begin(next.partition, peer, false)
      return true
    }
    return false
  }

  /** Begins with a pair that is known to differ. False: none of their peers answers. */
  #beginMarked(): boolean {
    const { ledger, partitions, routing } = this.#options
    for (let left = ledger.markCount; left > 0; left--) {
      const [mark] = ledger.marks
      const isHeld = partitions.othersOf(mark!.partition).includes(mark!.peer)
      // Who holds it no more hands over what it has, and that is compared, too.
      ledger.passOver(mark!, isHeld)
      if (!isHeld || !routing().isAlive(mark!.peer)) continue
      this.#begin(mark!.partition, mark!.peer, true)
      return true
    }
    return false
  }

  /** Begins with the next pair that somebody waits for. False: none of the peers answers, or all was compared. */
  #beginWanted(): boolean {
    const { ledger, partitions, routing } = this.#options
    const { wanted } = partitions
    for (let tries = 0; tries < wanted.length; tries++) {
      const { partition, others, wantedSince = 0 } = wanted[this.#wantedAt++ % wanted.length]!
      for (const peer of others) {
        if (!routing().isAlive(peer) || ledger.statusOf(partition, peer).epoch >= wantedSince) continue
        this.#begin(partition, peer, true)
        return true
      }
    }
    return false
  }

  #begin(partition: number, peer: string, isUrgent: boolean): void {
    this.#turns++
    const begun = this.#options.ledger.begin(partition, peer, this.#options.routing().epoch)
    const exchange: Exchange = {
      begun,
      partition,
      peer,
      isUrgent,
      stable: nothing,
      clock: nothing,
      life: 0,
      isPartial: false,
      isCut: false,
      generation: 0,
      keysLeft: [],
      inFlight: 0,
      repaired: 0,
    }
    this.#current = exchange
    this.#options.replica.compare(CompareVerb.damage, partition, nothing, answerMs, (_error, bytes) => {
      if (this.#current !== exchange) return
      if (bytes === undefined) return this.#giveUp(exchange)
      exchange.generation = new ByteReader(bytes).u32()
      if (exchange.generation > 0) this.#bringUp(exchange)
      this.#noteStable(exchange)
    })
  }

  /** Something was lost here to damage: all others are asked for it, one after the other. */
  #bringUp({ partition, generation }: Exchange): void {
    if (this.#resyncs.get(partition)?.generation === generation) return
    this.#resyncs.set(partition, { generation, peers: new Set() })
    for (const other of this.#options.partitions.othersOf(partition)) this.#options.ledger.mark(partition, other)
  }

  /** Once nothing was left out with any of the others the replica is whole again. */
  #noteResynced({ partition, peer, generation }: Exchange): void {
    const resync = this.#resyncs.get(partition)
    if (resync === undefined || resync.generation !== generation) return
    resync.peers.add(peer)
    const others = this.#options.partitions.othersOf(partition)
    if (others.length === 0 || !others.every((other) => resync.peers.has(other))) return
    this.#resyncs.delete(partition)
    const writer = new ByteWriter(4)
    writer.u32(generation)
    this.#options.replica.compare(CompareVerb.damage, partition, writer.toBytes(), answerMs, () => {})
  }

  /**
   * First both sides take over what either knows to be stable, so that they compare the same. What all replicas attested, in exchanges
   * before and this one now, is stable: never more, since none of them can lose it.
   */
  #noteStable(exchange: Exchange): void {
    const { partition } = exchange
    const { partitions } = this.#options
    this.#joinStable(exchange, nothing, (own) => {
      const others = partitions.othersOf(partition).map((other) => this.#attested.get(`${partition} ${other}`))
      const all = [own, ...others].filter((each) => each !== undefined)
      // Who is not held here any more, or does not know all others, does not judge.
      if (others.length === 0 || all.length <= others.length) return this.#descend(exchange, root)
      const stable = encodeStable(stableOf(all, Limits.expiryGraceMs), this.#actors)
      this.#joinStable(exchange, stable, () => this.#descend(exchange, root))
    })
  }

  #joinStable(exchange: Exchange, stable: Uint8Array, done: (own: Attested | undefined) => void): void {
    this.#options.replica.compare(CompareVerb.joinStable, exchange.partition, stable, answerMs, (_error, bytes) => {
      if (this.#current !== exchange) return
      const own = bytes === undefined ? 'length' : decodeAttested(bytes, this.#actors.indexOf)
      if (typeof own === 'string') return this.#giveUp(exchange)
      exchange.stable = own.stable
      done(own.attested)
    })
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
      if (differing.length > nodesMax) cut(exchange)
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
      if (told < leaves.length) cut(exchange)
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
    const { partition, peer, stable } = exchange
    const { replica } = this.#options
    let own: Uint8Array | undefined
    let theirs: Uint8Array | undefined
    const settle = (): void => {
      if (own !== undefined && theirs !== undefined && this.#current === exchange) done(own, theirs)
    }
    const wantsClock = exchange.clock.length === 0
    const standing = this.#options.routing().standingOf(partition)
    const verb = of === 'children' ? CompareVerb.children : CompareVerb.leafKeys
    const look = (): void =>
      replica.compare(verb, partition, numbers, answerMs, (_error, bytes) => {
        if (bytes === undefined) return this.#giveUp(exchange)
        own = bytes
        settle()
      })
    const question = { type: 'compare', timeoutMs: answerMs, partition, wantsClock, of, numbers, stable } as const
    this.#ask(peer, { ...question, ...standing }, (answer) => {
      if (answer?.type !== 'compared' || answer.failure !== undefined) return this.#giveUp(exchange)
      theirs = answer.answer
      if (!wantsClock) return answer.life === exchange.life ? settle() : this.#giveUp(exchange)
      exchange.clock = answer.clock
      exchange.life = answer.life
      exchange.stable = nothing
      const attested = decodeAttested(answer.attested, this.#actors.indexOf)
      if (typeof attested === 'string') return this.#giveUp(exchange)
      if (attested.attested !== undefined) this.#attested.set(`${partition} ${peer}`, attested.attested)
      // It may have lost what it attested before.
      else this.#attested.delete(`${partition} ${peer}`)
      // Its tree leaves out what it knows to be stable, and so must this one.
      replica.compare(CompareVerb.joinStable, partition, attested.stable, answerMs, (error) =>
        error === undefined ? look() : this.#giveUp(exchange),
      )
    })
    if (!wantsClock) look()
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
    const push = (theirs: Uint8Array): void => {
      replica.read(
        bucket.id,
        key,
        answerMs,
        (_error, held) => {
          if (held === undefined) return done(false)
          // What it has already needs no way back.
          const isThereToo = held.set.length === theirs.length && equalBytes(held.set, 0, theirs, 0, theirs.length)
          if (isEmptySet(held.set) || isThereToo) return done(true)
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
        },
        true,
      )
    }
    const pull = (set: Uint8Array): void =>
      replica.merge(
        bucket.id,
        key,
        set,
        lastWriteWins,
        level,
        answerMs,
        (error) => (error === undefined ? push(set) : done(false)),
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
    // Not where something was lost here since: what it was the clock would hide.
    const writer = new ByteWriter(4 + exchange.clock.length)
    writer.u32(exchange.generation)
    writer.raw(exchange.clock)
    this.#options.replica.compare(CompareVerb.joinClock, exchange.partition, writer.toBytes(), answerMs, (error) => {
      if (this.#current !== exchange) return
      if (error !== undefined) {
        exchange.isPartial = true
        return this.#end(exchange)
      }
      this.#noteResynced(exchange)
      this.#end(exchange)
    })
  }

  #giveUp(exchange: Exchange): void {
    if (this.#current !== exchange) return
    exchange.isPartial = true
    this.#end(exchange)
  }

  #end(exchange: Exchange): void {
    const { ledger, clock, restMs } = this.#options
    const { begun, partition, peer, isUrgent, isPartial, isCut, repaired } = exchange
    const nowMs = clock.monotonicMs()
    this.#current = undefined
    if (!isUrgent) this.#nextMs = nowMs + restMs
    this.ended++
    this.keysRepaired += repaired
    if (!isPartial) return ledger.equal(begun, repaired)
    this.partial++
    if (!isCut || repaired === 0) this.#nextUrgentMs = nowMs + failedRestMs
    // It goes on where it was cut: what was brought together does not differ any more.
    else ledger.mark(partition, peer)
  }

  /** Sends when there is room for it. */
  #ask(to: string, message: Unnumbered, done: (answer: Answer | undefined) => void): void {
    const requestId = (firstExchangeRequestId + (this.#lastId++ & idMask)) >>> 0
    const bytes = encodePeerMessage({ ...message, requestId } as PeerMessage)
    this.#options.budget.ask(this.#kind, bytes.length, () => {
      this.bytesSent += bytes.length
      if (!this.#options.send(to, bytes)) return done(undefined)
      const deadlineMs = this.#options.clock.monotonicMs() + answerMs
      this.#waiting.set(requestId, { from: to, deadlineMs, done })
    })
  }
}

function cut(exchange: Exchange): void {
  exchange.isPartial = true
  exchange.isCut = true
}

/** About the bytes of an answer: what is large in it. */
function bytesOfAnswer(message: Answer): number {
  if (message.type === 'compared') return 64 + message.clock.length + message.attested.length + message.answer.length
  return 64 + (message.type === 'found' ? (message.set?.length ?? 0) : 0)
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
