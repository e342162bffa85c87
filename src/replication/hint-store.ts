/**
 * Hinted handoff (Dynamo, section 4.6): what replicas missed while they were out of reach, until each has taken it. Every hint is a record
 * in a shard of this node (shard/hint-record.ts), and so outlives a restart; in memory there are only its target and key:
 *
 *   kept      in the shard; a fallback acknowledges when the shard did, a replica's own hint is written behind the write's back
 *   waiting   its target is out of reach, or its turn has not come
 *   under way its record and what this node's own replica has are read, merged and sent
 *   dropped   the target took it and nothing came meanwhile: the record goes, and then what is in memory
 *
 * A hint that is handed over twice or late does no harm, since the receiver merges; so whatever goes wrong on the way, it waits again. If
 * its target is no replica of the key any more, it is left to those that are, as hints of their own.
 *
 * Bounded: at `bytesMax` a hint of a replica is dropped, and the partition marked, so that it is compared with the target first
 * (repair-ledger.ts); one of a fallback is refused, since it would be acknowledged. After a restart hints are read back (hint-loader.ts) as
 * far as they fit, and on as others go; what was dropped before it is found because everything is compared anew then. One that nobody took for
 * `ageMsMax` is dropped, too, once a replica has what it tells: a replica's own at once, that of a fallback when another owner took it.
 *
 * Throttled: what is sent waits for room in the budget of repair, and of each target so many are under way as it said that it takes
 * (hint-credit.ts), one at first, at most `inFlightMax`.
 */
import { SunwiseError } from '../base/errors.ts'
import { partitionOfKey } from '../cluster/slots.ts'
import { type Durability, Limits } from '../config.ts'
import type { Clock } from '../env.ts'
import { type HintKey, mergeHintValues } from '../shard/hint-record.ts'
import { HintLoader } from './hint-loader.ts'
import type { HintKeeper } from './hints.ts'
import { emptySet, type ListedHint, type LocalReplica } from './local-replica.ts'
import { encodePeerMessage, type WrittenMessage } from './peer-message.ts'
import type { RepairBudget } from './repair-budget.ts'
import type { RepairLedger } from './repair-ledger.ts'
import type { Bucket } from './requests.ts'
import type { Routing } from './routing.ts'

/** What hints need of this node's own replica. */
export type HintReplica = Pick<LocalReplica, 'read' | 'merge' | 'keepHint' | 'dropHint' | 'readHint' | 'listHints'>

export type HintStoreOptions = {
  /** This node. */
  readonly self: string
  readonly clock: Clock
  readonly replica: HintReplica
  readonly routing: () => Routing
  /** Is told of what targets miss, and of hints that are dropped. */
  readonly ledger: Pick<RepairLedger, 'missed' | 'mark'>
  readonly budget: Pick<RepairBudget, 'ask'>
  readonly bucketOf: (id: number) => Bucket | undefined
  readonly send: (node: string, bytes: Uint8Array) => boolean
  /** Durability of buckets that name none. */
  readonly durability: Durability
  /** Bytes of all hints; default: `Limits.hintBytesMax`. */
  readonly bytesMax?: number
  /** How long a hint is kept; default: `Limits.hintAgeMsMax`. */
  readonly ageMsMax?: number
}

/** Requests of hints have ids from here on, those of coordinators stay below. */
export const firstHintRequestId = 0x8000_0000

/** Bytes of a hint in memory beside its key, which stands there twice: two views, an object, and entries of three tables. */
const hintHeadBytes = 512
/** However many a target takes, no more are under way to it. */
const inFlightMax = 64
/** Under way to a target that has not said yet how many it takes. */
const inFlightFirst = 1
/** Under way to one whose answers get lost, so that some come through. */
const inFlightLeast = 4
const answerMs = 5000
/** A target answers in so long, or what was sent was lost. */
const flightMs = 2500
const retryMs = 1000
/** Hints of a node that is no owner any more: so many are left to others at a time. */
const reassignedMax = 16
/** Hints of one target that a tick looks at, and hints of all that it judges by age and owners. */
const visitsMax = 64
const judgedMax = 256

type Hint = HintKey & {
  /** Bytes of its set, as far as known: a hint of a fallback counts with it, although it lies in the shard alone. */
  setBytes: number
  /** Grows where something comes for it: what was read before is not all of it then, and it stays. */
  turn: number
  /** It stands in the shard; otherwise it is written once more when it is judged. */
  isKept: boolean
  isKeeping: boolean
  /** Neither read nor sent nor dropped just now. */
  isWaiting: boolean
  notBeforeMs: number
  /** When something was left last, on the monotonic clock; before its start where a run before left it. */
  leftMs: number
  /** Its target was a replica of the key at this epoch. */
  epoch: number
}

/** A hint that is handed to a node: its target, or, where it grew too old, another owner. */
type Flight = { readonly hint: Hint; readonly to: string; readonly turn: number; deadlineMs: number }

/** The hints of one target. */
type Queue = {
  readonly waiting: Set<Hint>
  busy: number
  count: number
  /** So many may be under way, and none before. */
  credit: number
  notBeforeMs: number
}

/** What became of hints. */
export type HintCounts = {
  /** Hints that were left, here or by a run before. */
  kept: number
  delivered: number
  /** There was no room; nobody took it for too long; others own the key now, and have it. */
  droppedFull: number
  droppedOld: number
  droppedMoved: number
}

export class HintStore implements HintKeeper {
  readonly #options: HintStoreOptions
  readonly #loader: HintLoader
  /** By target, bucket and key. */
  readonly #hints = new Map<string, Hint>()
  readonly #queues = new Map<string, Queue>()
  readonly #flights = new Map<number, Flight>()
  readonly #bytesMax: number
  readonly #ageMsMax: number
  #judged: Iterator<Hint> | undefined
  #lastId: number
  #bytes = 0
  readonly counters: HintCounts = { kept: 0, delivered: 0, droppedFull: 0, droppedOld: 0, droppedMoved: 0 }

  constructor(options: HintStoreOptions) {
    this.#options = options
    // What is still under way for the run before answers none of this run's requests.
    this.#lastId = Math.floor(options.clock.epochMs()) & 0x7fff_ffff
    this.#bytesMax = options.bytesMax ?? Limits.hintBytesMax
    this.#ageMsMax = options.ageMsMax ?? Limits.hintAgeMsMax
    this.#loader = new HintLoader({ replica: options.replica, take: (listed) => this.#takeListed(listed) })
  }

  /** Hints in memory that wait or are under way. */
  get count(): number {
    return this.#hints.size
  }

  /** Whether the shards may hold hints that are not in memory yet. */
  get isLoading(): boolean {
    return !this.#loader.isDone
  }

  get bytes(): number {
    return this.#bytes
  }

  /** How many wait, by target. */
  counts(): readonly (readonly [target: string, count: number])[] {
    return [...this.#queues].map(([target, { count }]): [string, number] => [target, count])
  }

  missed(target: string, bucketId: number, key: Uint8Array): void {
    const partition = partitionOfKey(key)
    this.#options.ledger.missed(partition, target)
    const present = this.#find({ target, bucketId, key })
    // The state that the key has when it is handed over is sent: that of now, or a later one.
    if (present?.isWaiting && present.isKept) {
      present.leftMs = this.#options.clock.monotonicMs()
      return
    }
    const hint = this.#put(present, { target, bucketId, key }, 0)
    if (hint === undefined) {
      this.counters.droppedFull++
      this.#options.ledger.mark(partition, target)
    } else if (!hint.isKeeping || !hint.isWaiting) this.#keep(hint)
  }

  keep(
    target: string,
    bucketId: number,
    key: Uint8Array,
    set: Uint8Array,
    durability: Durability,
    done: (error: SunwiseError | undefined, isDurable: boolean) => void,
  ): void {
    this.#leave({ target, bucketId, key }, set, durability, done)
  }

  /** Keeps a hint that must not be lost: it is known to be, or refused. */
  #leave(
    about: HintKey,
    set: Uint8Array | undefined,
    durability: Durability,
    done: (error: SunwiseError | undefined, isDurable: boolean) => void,
  ): void {
    const present = this.#find(about)
    const hint = this.#put(present, about, set?.length ?? 0)
    if (hint === undefined) {
      const message = `Cannot keep a write for ${about.target}: hints take ${this.#bytes} bytes already`
      return done(new SunwiseError('OVERLOADED', message, { outcome: 'none' }), false)
    }
    const { turn } = hint
    hint.isKeeping = true
    this.#options.replica.keepHint(hint, set, durability, answerMs, (error, held) => {
      hint.isKeeping = false
      if (held !== undefined) {
        hint.isKept = true
        return done(undefined, held.isDurable)
      }
      // What may have been written stays: handed over, it does no harm.
      if (present === undefined && error!.outcome === 'none' && hint.turn === turn && hint.isWaiting) this.#forget(hint)
      done(error, false)
    })
  }

  /** The answer of a target. */
  receive(from: string, message: WrittenMessage): void {
    const flight = this.#flights.get(message.requestId)
    if (flight === undefined || flight.to !== from) return
    this.#flights.delete(message.requestId)
    const { hint, turn } = flight
    const nowMs = this.#options.clock.monotonicMs()
    if (hint.target === from) this.#noteCredit(from, message.credit, nowMs)
    if (message.failure !== undefined) this.#wait(hint, nowMs + retryMs)
    else if (hint.turn !== turn) this.#wait(hint, nowMs)
    else {
      this.#drop(hint, () => {
        if (hint.target === from) this.counters.delivered++
        else this.#tooOld(hint)
      })
    }
    this.#handOver(hint.target, nowMs)
  }

  #noteCredit(target: string, credit: number, nowMs: number): void {
    const queue = this.#queues.get(target)
    if (queue === undefined) return
    queue.credit = Math.min(inFlightMax, Math.max(inFlightFirst, credit))
    if (credit === 0) queue.notBeforeMs = nowMs + retryMs
  }

  #tooOld({ target, key }: Hint): void {
    this.counters.droppedOld++
    this.#options.ledger.mark(partitionOfKey(key), target)
  }

  /** Hands over what can be, and reads back what a run before left. */
  tick(): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const [requestId, { hint, deadlineMs }] of this.#flights) {
      if (deadlineMs > nowMs) continue
      this.#flights.delete(requestId)
      // Too many for it, or for what lies between.
      const queue = this.#queues.get(hint.target)!
      queue.credit = Math.max(inFlightLeast, queue.credit >>> 1)
      this.#wait(hint, nowMs)
    }
    this.#loader.tick(nowMs)
    this.#judge(nowMs)
    for (const target of this.#queues.keys()) this.#handOver(target, nowMs)
  }

  /** Hands hints to a target, as many at a time as it may be sent. */
  #handOver(target: string, nowMs: number): void {
    const queue = this.#queues.get(target)
    if (queue === undefined) return
    if (!this.#options.routing().isAlive(target)) {
      // When it comes back it says anew how many it takes.
      queue.credit = inFlightFirst
      return
    }
    if (queue.notBeforeMs > nowMs) return
    let visits = 0
    for (const hint of queue.waiting) {
      if (queue.busy >= queue.credit || ++visits > visitsMax) return
      if (hint.notBeforeMs <= nowMs) {
        this.#hand(hint, nowMs)
        continue
      }
      // Those behind it may go before.
      queue.waiting.delete(hint)
      queue.waiting.add(hint)
    }
  }

  /** Looks at some of the hints: those too old are dropped, those of nodes that are no replicas any more go to others. */
  #judge(nowMs: number): void {
    const { epoch } = this.#options.routing()
    this.#judged ??= this.#hints.values()
    for (let count = 0; count < judgedMax; count++) {
      const { value: hint, done } = this.#judged.next()
      if (done === true) {
        this.#judged = undefined
        return
      }
      if (!hint.isWaiting || hint.notBeforeMs > nowMs) continue
      if (nowMs - hint.leftMs > this.#ageMsMax) {
        this.#giveUp(hint, nowMs)
      } else if (hint.epoch !== epoch && !this.#isOwner(hint, hint.target)) {
        if (this.#queues.get(hint.target)!.busy < reassignedMax) this.#hand(hint, nowMs)
      } else if (!hint.isKept && !hint.isKeeping) this.#keep(hint)
    }
  }

  /** Drops a hint that nobody takes, once some replica has what it tells: then exchanges tell its target. */
  #giveUp(hint: Hint, nowMs: number): void {
    const { self, routing, replica } = this.#options
    const bucket = this.#options.bucketOf(hint.bucketId)
    const owners = this.#ownersOf(hint)
    const to = owners.includes(self) ? self : owners.find((owner) => owner !== hint.target && routing().isAlive(owner))
    // Nobody has it but this node: it stays.
    if (bucket !== undefined && to === undefined && hint.setBytes > 0) return
    this.#begin(hint)
    // Its bucket was deleted, or it names a key whose state this node's replica has, or had and handed over.
    if (bucket === undefined || hint.setBytes === 0) return this.#drop(hint, () => this.#tooOld(hint))
    if (to !== self) return this.#fly(hint, to!, bucket, nowMs)
    const { turn } = hint
    this.#readState(hint, (state) => {
      if (state === undefined) return this.#wait(hint, this.#options.clock.monotonicMs() + retryMs)
      const durability = bucket.durability ?? this.#options.durability
      const isLww = bucket.conflict === 'lww'
      replica.merge(hint.bucketId, hint.key, state.set, isLww, durability, answerMs, (error) => {
        if (error === undefined && hint.turn === turn) this.#drop(hint, () => this.#tooOld(hint))
        else this.#wait(hint, this.#options.clock.monotonicMs() + retryMs)
      })
    })
  }

  /** Begins to hand a hint to its target, or to those that own the key now. */
  #hand(hint: Hint, nowMs: number): void {
    this.#begin(hint)
    const bucket = this.#options.bucketOf(hint.bucketId)
    // Deleted, or not heard of yet: in doubt it is kept until it is too old.
    if (bucket === undefined) return this.#wait(hint, nowMs + retryMs)
    const { turn } = hint
    const { epoch } = this.#options.routing()
    if (!this.#isOwner(hint, hint.target)) {
      return this.#readState(hint, (state) => {
        if (state === undefined) this.#wait(hint, this.#options.clock.monotonicMs() + retryMs)
        else this.#reassign(hint, turn, bucket, state)
      })
    }
    hint.epoch = epoch
    this.#fly(hint, hint.target, bucket, nowMs)
  }

  /** Sends what a hint has to tell; `hint` is under way. */
  #fly(hint: Hint, to: string, bucket: Bucket, nowMs: number): void {
    const requestId = (firstHintRequestId + (this.#lastId++ & 0x3fff_ffff)) >>> 0
    const flight: Flight = { hint, to, turn: hint.turn, deadlineMs: nowMs + answerMs }
    this.#flights.set(requestId, flight)
    const fail = (): void => {
      this.#flights.delete(requestId)
      this.#wait(hint, this.#options.clock.monotonicMs() + retryMs)
    }
    this.#readState(hint, (state) => {
      // Its time may be up by now.
      if (!this.#flights.has(requestId)) return
      if (state === undefined) return fail()
      const bytes = this.#messageOf(requestId, hint, bucket, state.set)
      // It waits as long as it must: the target is not asked yet.
      flight.deadlineMs = Number.POSITIVE_INFINITY
      this.#options.budget.ask('hints', bytes.length, () => {
        flight.deadlineMs = this.#options.clock.monotonicMs() + flightMs
        if (!this.#options.send(to, bytes)) fail()
      })
    })
  }

  /** What a hint has to tell: what its record holds, and what this node's own replica has. Undefined: it cannot be read now. */
  #readState(
    hint: Hint,
    done: (state: { readonly set: Uint8Array; readonly hasOwn: boolean } | undefined) => void,
  ): void {
    const { replica } = this.#options
    replica.readHint(hint, answerMs, (_, read) => {
      if (read === undefined) return done(undefined)
      replica.read(hint.bucketId, hint.key, answerMs, (_error, held) => {
        if (held === undefined) return done(undefined)
        const set = read.hint?.set
        // The empty set adds nothing to a merge and has nothing to send.
        const own = isEmptySet(held.set) ? undefined : held.set
        const merged = set === undefined ? own : own === undefined ? set : mergeHintValues(set, own)
        done({ set: merged ?? emptySet, hasOwn: set === undefined })
      })
    })
  }

  #messageOf(requestId: number, { bucketId, key }: Hint, bucket: Bucket, set: Uint8Array): Uint8Array {
    return encodePeerMessage({
      type: 'write',
      requestId,
      ...this.#options.routing().standingOf(partitionOfKey(key)),
      timeoutMs: answerMs,
      bucketId,
      lastWriteWins: bucket.conflict === 'lww',
      durability: bucket.durability ?? this.#options.durability,
      key,
      set,
      hintFor: undefined,
    })
  }

  /** Leaves a hint to all that own the key now, this node's own replica among them; it goes when all of them have it. */
  #reassign(
    hint: Hint,
    turn: number,
    bucket: Bucket,
    { set, hasOwn }: { readonly set: Uint8Array; readonly hasOwn: boolean },
  ): void {
    const { self, replica } = this.#options
    const { bucketId, key } = hint
    const durability = bucket.durability ?? this.#options.durability
    const owners = this.#ownersOf(hint)
    let left = 1
    let failed = false
    const settle = (error: SunwiseError | undefined): void => {
      failed ||= error !== undefined
      if (--left > 0) return
      if (failed) this.#wait(hint, this.#options.clock.monotonicMs() + retryMs)
      else if (hint.turn !== turn) this.#wait(hint, this.#options.clock.monotonicMs())
      else {
        this.#drop(hint, () => {
          this.counters.droppedMoved++
        })
      }
    }
    if (!isEmptySet(set)) {
      for (const owner of owners) {
        left++
        const isKeyEnough = hasOwn && owners.includes(self)
        const about = { target: owner, bucketId, key }
        if (owner !== self) this.#leave(about, isKeyEnough ? undefined : set, durability, settle)
        else if (hasOwn) settle(undefined)
        else replica.merge(bucketId, key, set, bucket.conflict === 'lww', durability, answerMs, settle)
      }
    }
    settle(undefined)
  }

  #ownersOf({ bucketId, key }: HintKey): readonly string[] {
    const bucket = this.#options.bucketOf(bucketId)
    if (bucket === undefined) return []
    const partition = partitionOfKey(key)
    return [...new Set(this.#options.routing().writersOf(partition, bucket.n).flat())]
  }

  #isOwner(hint: Hint, node: string): boolean {
    const { epoch } = this.#options.routing()
    if (hint.epoch === epoch) return true
    if (!this.#ownersOf(hint).includes(node)) return false
    hint.epoch = epoch
    return true
  }

  /** Writes a hint of this node's own replica; nobody waits for that. */
  #keep(hint: Hint): void {
    const bucket = this.#options.bucketOf(hint.bucketId)
    const durability = bucket?.durability ?? this.#options.durability
    hint.isKeeping = true
    this.#options.replica.keepHint(hint, undefined, durability, answerMs, (_, held) => {
      hint.isKeeping = false
      hint.isKept = held !== undefined
    })
  }

  /** A hint that a run before left. False: there is no room for it now. */
  #takeListed({ target, bucketId, key, leftAtMs, setBytes }: ListedHint): boolean {
    const present = this.#find({ target, bucketId, key })
    if (present !== undefined) return true
    const ageMs = Math.max(0, this.#options.clock.epochMs() - leftAtMs)
    const hint = this.#put(undefined, { target, bucketId, key }, setBytes, ageMs)
    if (hint !== undefined) hint.isKept = true
    return hint !== undefined
  }

  #find(key: HintKey): Hint | undefined {
    return this.#hints.get(nameOf(key))
  }

  /** The hint, with its turn advanced. Undefined: there is no room. */
  #put(present: Hint | undefined, about: HintKey, setBytes: number, ageMs = 0): Hint | undefined {
    const growth = present === undefined ? hintBytes(about, setBytes) : Math.max(0, setBytes - present.setBytes)
    // One alone fits however large it is: otherwise it would never be handed over.
    if (growth > 0 && this.#bytes > 0 && this.#bytes + growth > this.#bytesMax) return undefined
    this.#bytes += growth
    if (present !== undefined) {
      present.setBytes = Math.max(present.setBytes, setBytes)
      present.turn++
      present.leftMs = this.#options.clock.monotonicMs() - ageMs
      return present
    }
    const { target, bucketId } = about
    const hint: Hint = {
      target,
      bucketId,
      key: about.key.slice(),
      setBytes,
      turn: 0,
      isKept: false,
      isKeeping: false,
      isWaiting: true,
      notBeforeMs: 0,
      leftMs: this.#options.clock.monotonicMs() - ageMs,
      epoch: -1,
    }
    this.#hints.set(nameOf(hint), hint)
    this.counters.kept++
    let queue = this.#queues.get(target)
    if (queue === undefined) {
      queue = { waiting: new Set(), busy: 0, count: 0, credit: inFlightFirst, notBeforeMs: 0 }
      this.#queues.set(target, queue)
    }
    queue.waiting.add(hint)
    queue.count++
    return hint
  }

  #begin(hint: Hint): void {
    const queue = this.#queues.get(hint.target)!
    hint.isWaiting = false
    queue.waiting.delete(hint)
    queue.busy++
  }

  #wait(hint: Hint, notBeforeMs: number): void {
    const queue = this.#queues.get(hint.target)!
    hint.isWaiting = true
    hint.notBeforeMs = notBeforeMs
    queue.busy--
    queue.waiting.add(hint)
  }

  /** Removes the record of a hint that is under way, and then the hint, unless something came for it meanwhile. */
  #drop(hint: Hint, dropped: () => void): void {
    const { turn } = hint
    this.#options.replica.dropHint(hint, answerMs, (error) => {
      const nowMs = this.#options.clock.monotonicMs()
      const isGone = error === undefined && hint.turn === turn
      this.#wait(hint, nowMs + retryMs)
      if (isGone) {
        dropped()
        this.#forget(hint)
      }
      this.#handOver(hint.target, nowMs)
    })
  }

  /** Takes a waiting hint out of memory. */
  #forget(hint: Hint): void {
    const queue = this.#queues.get(hint.target)!
    this.#hints.delete(nameOf(hint))
    queue.waiting.delete(hint)
    // What its target takes is remembered as long as there are hints for it.
    if (--queue.count === 0) this.#queues.delete(hint.target)
    this.#bytes -= hintBytes(hint, hint.setBytes)
    if (this.#bytes <= this.#bytesMax / 2) this.#loader.roomCame()
  }
}

function hintBytes({ key }: HintKey, setBytes: number): number {
  return hintHeadBytes + 2 * key.length + setBytes
}

function isEmptySet(set: Uint8Array): boolean {
  return set.length === emptySet.length
}

function nameOf({ target, bucketId, key }: HintKey): string {
  let name = `${target}/${bucketId}:`
  for (const byte of key) name += String.fromCharCode(byte)
  return name
}
