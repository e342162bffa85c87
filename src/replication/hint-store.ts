/**
 * Hinted handoff (Dynamo, section 4.6): what replicas missed while they were out of reach, by replica, until each has taken it. A hint of a
 * replica names only the key, and the state that the key has when the hint is handed over is sent; a hint of a fallback, which holds no copy
 * of the key, has the version set itself, and hints of one key are merged.
 *
 * Bounded: at `hintBytesMax` a hint of a replica is dropped and counted (repair finds what it would have told), one of a fallback is
 * refused, since it would be acknowledged. Handed over at most `inFlightMax` at a time to each target, and no faster than it answers.
 */
import { SunwiseError } from '../base/errors.ts'
import type { Durability } from '../config.ts'
import type { Clock } from '../env.ts'
import { ActorRegistry } from '../versions/actor-registry.ts'
import { decodeSet, encodeSet } from '../versions/set-codec.ts'
import { sync } from '../versions/version-set.ts'
import type { HintKeeper } from './hints.ts'
import type { LocalReplica } from './local-replica.ts'
import { encodePeerMessage, type WrittenMessage } from './peer-message.ts'
import type { Bucket } from './requests.ts'
import type { Routing } from './routing.ts'

export type HintStoreOptions = {
  readonly clock: Clock
  readonly replica: LocalReplica
  readonly routing: () => Routing
  readonly bucketOf: (id: number) => Bucket | undefined
  readonly send: (node: string, bytes: Uint8Array) => boolean
  /** Memory for hints; default: `hintBytesMax`. */
  readonly bytesMax?: number
}

/** Requests of hints have ids from here on, those of coordinators stay below. */
export const firstHintRequestId = 0x8000_0000

/** Bytes of hints that a node keeps. */
export const hintBytesMax = 64 * 1024 * 1024
/** Bytes of a hint beside its key and set. */
const hintHeadBytes = 64
const inFlightMax = 16
const answerMs = 5000
const retryMs = 1000

type Hint = {
  readonly target: string
  readonly bucketId: number
  readonly key: Uint8Array
  /** Undefined: this node's own replica has the key. */
  set: Uint8Array | undefined
  /** Grows where the hint changes while it is under way: then it stays. */
  turn: number
  notBeforeMs: number
}

type Flight = { readonly hint: Hint; readonly turn: number; readonly deadlineMs: number }

export class HintStore implements HintKeeper {
  readonly #options: HintStoreOptions
  readonly #actors = new ActorRegistry()
  /** By target, then by key. */
  readonly #hints = new Map<string, Map<string, Hint>>()
  readonly #flights = new Map<number, Flight>()
  #lastId = 0
  #bytes = 0
  /** Hints that found no room: the replicas that they were for are behind until they are repaired. */
  dropped = 0
  /** Hints that were handed over. */
  delivered = 0

  constructor(options: HintStoreOptions) {
    this.#options = options
  }

  /** Hints that wait. */
  get count(): number {
    let count = 0
    for (const hints of this.#hints.values()) count += hints.size
    return count
  }

  get bytes(): number {
    return this.#bytes
  }

  /** How many wait, by target. */
  counts(): readonly (readonly [target: string, count: number])[] {
    return [...this.#hints].map(([target, hints]): [string, number] => [target, hints.size])
  }

  missed(target: string, bucketId: number, key: Uint8Array): void {
    if (this.#put(target, bucketId, key, undefined) === undefined) this.dropped++
  }

  keep(
    target: string,
    bucketId: number,
    key: Uint8Array,
    set: Uint8Array,
    _durability: Durability,
    done: (error: SunwiseError | undefined, isDurable: boolean) => void,
  ): void {
    const hint = this.#put(target, bucketId, key, set)
    if (hint === undefined) {
      const message = `Cannot keep a write for ${target}: hints take ${this.#bytes} bytes already`
      return done(new SunwiseError('OVERLOADED', message, { outcome: 'none' }), false)
    }
    done(undefined, false)
  }

  /** The answer of a target. */
  receive(from: string, message: WrittenMessage): void {
    const flight = this.#flights.get(message.requestId)
    if (flight === undefined || flight.hint.target !== from) return
    this.#flights.delete(message.requestId)
    const { hint, turn } = flight
    if (message.failure !== undefined) hint.notBeforeMs = this.#options.clock.monotonicMs() + retryMs
    else if (hint.turn === turn) this.#remove(hint)
  }

  /** Hands over what can be. */
  tick(): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const [requestId, { deadlineMs }] of this.#flights) if (deadlineMs <= nowMs) this.#flights.delete(requestId)
    for (const [target, hints] of this.#hints) {
      if (!this.#options.routing().isAlive(target)) continue
      const flying = new Set<Hint>()
      for (const { hint } of this.#flights.values()) if (hint.target === target) flying.add(hint)
      for (const hint of hints.values()) {
        if (flying.size >= inFlightMax) break
        if (flying.has(hint) || hint.notBeforeMs > nowMs) continue
        flying.add(hint)
        this.#hand(hint, nowMs)
      }
    }
  }

  #hand(hint: Hint, nowMs: number): void {
    const bucket = this.#options.bucketOf(hint.bucketId)
    // The bucket is gone, and its data with it.
    if (bucket === undefined) return this.#remove(hint)
    const requestId = (firstHintRequestId + (this.#lastId++ & 0x3fff_ffff)) >>> 0
    this.#flights.set(requestId, { hint, turn: hint.turn, deadlineMs: nowMs + answerMs })
    if (hint.set !== undefined) return this.#send(requestId, hint, bucket, hint.set)
    this.#options.replica.read(hint.bucketId, hint.key, answerMs, (_error, held) => {
      if (!this.#flights.has(requestId)) return
      if (held !== undefined) return this.#send(requestId, hint, bucket, held.set)
      this.#flights.delete(requestId)
      hint.notBeforeMs = this.#options.clock.monotonicMs() + retryMs
    })
  }

  #send(requestId: number, { target, bucketId, key }: Hint, bucket: Bucket, set: Uint8Array): void {
    const { epoch } = this.#options.routing()
    const isSent = this.#options.send(
      target,
      encodePeerMessage({
        type: 'write',
        requestId,
        epoch,
        timeoutMs: answerMs,
        bucketId,
        lastWriteWins: bucket.conflict === 'lww',
        durability: bucket.durability ?? 'sync',
        key,
        set,
        hintFor: undefined,
      }),
    )
    if (!isSent) this.#flights.delete(requestId)
  }

  /** Undefined: there is no room. */
  #put(target: string, bucketId: number, key: Uint8Array, set: Uint8Array | undefined): Hint | undefined {
    let hints = this.#hints.get(target)
    const name = nameOf(bucketId, key)
    const present = hints?.get(name)
    const merged = set === undefined ? present?.set : this.#merged(present?.set, set)
    const growth =
      (merged?.length ?? 0) - (present?.set?.length ?? 0) + (present === undefined ? hintHeadBytes + key.length : 0)
    if (growth > 0 && this.#bytes + growth > (this.#options.bytesMax ?? hintBytesMax)) return undefined
    this.#bytes += growth
    if (present !== undefined) {
      present.set = merged
      present.turn++
      return present
    }
    const hint: Hint = { target, bucketId, key: key.slice(), set: merged, turn: 0, notBeforeMs: 0 }
    if (hints === undefined) {
      hints = new Map()
      this.#hints.set(target, hints)
    }
    hints.set(name, hint)
    return hint
  }

  #merged(present: Uint8Array | undefined, incoming: Uint8Array): Uint8Array {
    if (present === undefined) return incoming
    const a = decodeSet(present, 0, present.length, this.#actors.indexOf)
    const b = decodeSet(incoming, 0, incoming.length, this.#actors.indexOf)
    // What cannot be read cannot be merged; what came last is kept, the rest is repaired.
    return typeof a === 'string' || typeof b === 'string' ? incoming : encodeSet(sync(a, b), this.#actors)
  }

  #remove(hint: Hint): void {
    const hints = this.#hints.get(hint.target)
    if (hints?.delete(nameOf(hint.bucketId, hint.key)) !== true) return
    this.#bytes -= hintHeadBytes + hint.key.length + (hint.set?.length ?? 0)
    this.delivered++
    if (hints.size === 0) this.#hints.delete(hint.target)
  }
}

function nameOf(bucketId: number, key: Uint8Array): string {
  let name = `${bucketId}:`
  for (const byte of key) name += String.fromCharCode(byte)
  return name
}
