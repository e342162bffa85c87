/**
 * What this node does for others: takes in what they have of a key, tells what it has of keys and partitions, and keeps hints. A request under an
 * epoch in which the partition lies elsewhere is refused with WRONG_EPOCH, before anything is done. It has no state of its own.
 */
import { ByteReader } from '../base/bytes.ts'
import { SunwiseError } from '../base/errors.ts'
import { partitionOfKey } from '../cluster/slots.ts'
import { CompareVerb } from '../shard/command.ts'
import { ActorRegistry } from '../versions/actor-registry.ts'
import { decodeSet } from '../versions/set-codec.ts'
import { type Digest, digest } from '../versions/version-set.ts'
import { firstExchangeRequestId } from './exchanges.ts'
import type { HintCredit } from './hint-credit.ts'
import { firstHintRequestId } from './hint-store.ts'
import type { HintKeeper } from './hints.ts'
import type { LocalReplica } from './local-replica.ts'
import {
  type CompareMessage,
  encodePeerMessage,
  type ListMessage,
  type ReadMessage,
  type WriteMessage,
} from './peer-message.ts'
import type { Routing } from './routing.ts'

export type ReplicaOptions = {
  /** A number that every start of the node draws anew. */
  readonly life: number
  readonly replica: LocalReplica
  readonly hints: HintKeeper
  /** How many hints this node takes from others. */
  readonly credit: HintCredit
  /** Whether what this node knows of a partition is too little to tell what was deleted. */
  readonly mayLackClock: (partition: number) => boolean
  readonly routing: () => Routing
  readonly send: (node: string, bytes: Uint8Array) => boolean
}

const noDigest: Digest = { low: 0, high: 0 }
const nothing = new Uint8Array(0)

export class Replica {
  readonly #options: ReplicaOptions
  readonly #actors = new ActorRegistry()

  constructor(options: ReplicaOptions) {
    this.#options = options
  }

  receive(from: string, message: WriteMessage | ReadMessage | CompareMessage | ListMessage): void {
    if (message.type === 'list') return this.#list(from, message)
    if (message.type === 'compare') return this.#compare(from, message)
    const { key } = message
    const routing = this.#options.routing()
    const partition = partitionOfKey(key)
    const isHint = message.type === 'write' && message.hintFor !== undefined
    const isServed = routing.accepts(message, partition) && (isHint || routing.holds(partition))
    if (message.type === 'write') this.#write(from, message, isServed ? undefined : wrongEpoch())
    else this.#read(from, message, isServed ? undefined : wrongEpoch())
  }

  #write(from: string, message: WriteMessage, refusal: SunwiseError | undefined): void {
    const { bucketId, key, set, lastWriteWins, durability, hintFor, timeoutMs } = message
    const isHandedOver = message.requestId >= firstHintRequestId && message.requestId < firstExchangeRequestId
    const ended = isHandedOver ? this.#options.credit.begin(from) : undefined
    const answer = (error: SunwiseError | undefined, isDurable: boolean): void => {
      const failure = error === undefined ? undefined : { code: error.code, outcome: error.outcome }
      // What was sent to the wrong place, or too early, was not too much.
      const isFine = error === undefined || error.code === 'WRONG_EPOCH' || error.code === 'NOT_READY'
      const credit = ended?.(isFine) ?? 0
      this.#answer(from, { ...this.#headOf(message), type: 'written', failure, isDurable, credit })
    }
    if (refusal !== undefined) return answer(refusal, false)
    const partition = partitionOfKey(key)
    if (isHandedOver && this.#options.mayLackClock(partition)) return answer(notCompared(partition), false)
    // Nor is anything that is late for whoever lost what was known of it.
    if (isHandedOver && this.#options.replica.isResyncing(partition)) return answer(notCompared(partition), false)
    if (hintFor !== undefined) return this.#options.hints.keep(hintFor, bucketId, key, set, durability, answer)
    this.#options.replica.merge(bucketId, key, set, lastWriteWins, durability, timeoutMs, (error, held) =>
      answer(error, held?.isDurable ?? false),
    )
  }

  #read(from: string, message: ReadMessage, refusal: SunwiseError | undefined): void {
    const { bucketId, key, wantsSet, timeoutMs } = message
    const fail = ({ code, outcome }: SunwiseError): void => {
      const failure = { code, outcome }
      const head = this.#headOf(message)
      this.#answer(from, {
        ...head,
        type: 'found',
        failure,
        life: 0,
        isDurable: false,
        digest: noDigest,
        set: undefined,
      })
    }
    if (refusal !== undefined) return fail(refusal)
    const isForRepair = message.requestId >= firstExchangeRequestId
    this.#options.replica.read(
      bucketId,
      key,
      timeoutMs,
      (error, held) => {
        if (held === undefined) return fail(error!)
        const decoded = decodeSet(held.set, 0, held.set.length, this.#actors.indexOf)
        if (typeof decoded === 'string') {
          return fail(
            new SunwiseError('INTERNAL', `Cannot read what this replica holds: ${decoded}`, { outcome: 'none' }),
          )
        }
        const answer = (life: number): void =>
          this.#answer(from, {
            ...this.#headOf(message),
            type: 'found',
            failure: undefined,
            life,
            isDurable: held.isDurable,
            digest: digest(decoded, this.#actors),
            set: wantsSet ? held.set : undefined,
          })
        if (!isForRepair) return answer(this.#options.life)
        this.#lifeOf(partitionOfKey(key), timeoutMs, (failed, life) => {
          if (life === undefined) fail(failed!)
          else answer(life)
        })
      },
      isForRepair,
    )
  }

  #list(from: string, message: ListMessage): void {
    const { partition, timeoutMs } = message
    const routing = this.#options.routing()
    const fail = ({ code, outcome }: SunwiseError): void => {
      const failure = { code, outcome }
      const head = this.#headOf(message)
      this.#answer(from, { ...head, type: 'listed', failure, isDurable: false, end: undefined, entries: nothing })
    }
    if (!routing.accepts(message, partition) || !routing.holds(partition)) return fail(wrongEpoch())
    this.#options.replica.list(message, timeoutMs, (error, page) => {
      if (page === undefined) fail(error!)
      else this.#answer(from, { ...this.#headOf(message), type: 'listed', failure: undefined, ...page })
    })
  }

  /**
   * The clock is taken before the tree is looked at: who takes in all that the tree shows has what the clock covers. Not where data was lost
   * to damage between the two: what is missing would count as deleted. Lost later, it is another life that answers.
   */
  #compare(from: string, message: CompareMessage): void {
    const { partition, wantsClock, numbers, stable, timeoutMs } = message
    let attested: Uint8Array = nothing
    const answer = (error: SunwiseError | undefined, clock: Uint8Array, bytes: Uint8Array, life = 0): void => {
      const failure = error === undefined ? undefined : { code: error.code, outcome: error.outcome }
      this.#answer(from, { ...this.#headOf(message), type: 'compared', failure, life, clock, attested, answer: bytes })
    }
    const routing = this.#options.routing()
    if (!routing.accepts(message, partition) || !routing.holds(partition)) {
      return answer(wrongEpoch(), nothing, nothing)
    }
    const { replica } = this.#options
    const verb = message.of === 'children' ? CompareVerb.children : CompareVerb.leafKeys
    const look = (clock: Uint8Array, before: number | undefined): void =>
      replica.compare(verb, partition, numbers, timeoutMs, (error, bytes) => {
        if (bytes === undefined) return answer(error, nothing, nothing)
        this.#lifeOf(partition, timeoutMs, (failed, life) => {
          if (life === undefined) answer(failed, nothing, nothing)
          else if (before !== undefined && life !== before) answer(notCompared(partition), nothing, nothing)
          else answer(undefined, clock, bytes, life)
        })
      })
    if (!wantsClock) return look(nothing, undefined)
    this.#lifeOf(partition, timeoutMs, (unknown, before) => {
      if (before === undefined) return answer(unknown, nothing, nothing)
      replica.compare(CompareVerb.clock, partition, nothing, timeoutMs, (error, clock) => {
        if (clock === undefined) return answer(error, nothing, nothing)
        if (clock.length === 0) return answer(notReady(partition), nothing, nothing)
        // What either side knows to be stable both know before they compare: their trees leave out the same then.
        replica.compare(CompareVerb.joinStable, partition, stable, timeoutMs, (failed, bytes) => {
          if (bytes === undefined) return answer(failed, nothing, nothing)
          attested = bytes
          look(clock, before)
        })
      })
    })
  }

  /** Of this start of the node, and of the damage from which the partition is being brought up: both may have taken what was there before. */
  #lifeOf(
    partition: number,
    timeoutMs: number,
    done: (error: SunwiseError | undefined, life: number | undefined) => void,
  ): void {
    const { replica, life } = this.#options
    replica.compare(CompareVerb.damage, partition, nothing, timeoutMs, (error, bytes) => {
      if (bytes === undefined) done(error, undefined)
      else done(undefined, (life + new ByteReader(bytes).u32()) >>> 0)
    })
  }

  #headOf({ requestId }: { readonly requestId: number }) {
    return { requestId, epoch: this.#options.routing().epoch, fence: 0, timeoutMs: 0 }
  }

  /** An answer that cannot be sent is lost: who asked ends by its deadline. */
  #answer(to: string, message: Parameters<typeof encodePeerMessage>[0]): void {
    this.#options.send(to, encodePeerMessage(message))
  }
}

function notCompared(partition: number): SunwiseError {
  const message = `Partition ${partition} is compared with other replicas first`
  return new SunwiseError('NOT_READY', message, { outcome: 'none' })
}

function notReady(partition: number): SunwiseError {
  const message = `Partition ${partition} is not known here to have other replicas`
  return new SunwiseError('NOT_READY', message, { outcome: 'none' })
}

function wrongEpoch(): SunwiseError {
  return new SunwiseError('WRONG_EPOCH', 'This node and the sender disagree on who holds the key', { outcome: 'none' })
}
