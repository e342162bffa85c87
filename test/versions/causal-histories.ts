/**
 * The oracle of version sets: a few replicas run real version sets while a model keeps, for each of them, the explicit set of
 * all writes it has ever seen, and for each write the explicit set of writes in its past. What a replica shows must be the
 * maximal elements of what it has seen: no vectors, no dots, no cleverness.
 *
 * Sets of writes are bit sets. A version tells by its timestamp which write it is, so that a dot that two writes share by
 * mistake does not mislead the model.
 */
import { AssertionError } from '../../src/base/assert.ts'
import { PartitionClock } from '../../src/versions/partition-clock.ts'
import {
  type ActorTable,
  digest,
  digestText,
  emptyVersionSet,
  sync,
  syncWithClock,
  update,
  type Vector,
  type Version,
  type VersionSet,
} from '../../src/versions/version-set.ts'

/** What is put to the test; a deliberate bug replaces one member. */
export type Components = {
  readonly update: typeof update
  readonly sync: typeof sync
  readonly syncWithClock: typeof syncWithClock
  /** Whether a replica that lost its state goes on under its old actor with counters from 1. */
  readonly reusesDots: boolean
  /** Whether tombstones are collected before all replicas have them. */
  readonly collectsEarly: boolean
  /** Whether an exchange takes the other's clock without its data. */
  readonly clockOverData: boolean
}

export const productComponents: Components = {
  update,
  sync,
  syncWithClock,
  reusesDots: false,
  collectsEarly: false,
  clockOverData: false,
}

const kinds = [
  ...(['read', 'read', 'put', 'put', 'putBlind', 'putAsNew', 'delete', 'deleteBlind'] as const),
  ...(['send', 'send', 'deliver', 'deliver', 'deliver', 'syncBoth', 'skip', 'forget'] as const),
]
const clockKinds = [
  ...(['read', 'read', 'put', 'put', 'putBlind', 'putAsNew', 'delete', 'delete', 'deleteBlind'] as const),
  ...(['send', 'send', 'deliver', 'deliver', 'exchange', 'meet', 'collect', 'collect'] as const),
]
type Kind = (typeof kinds)[number] | (typeof clockKinds)[number]

/** Kinds of operations over version sets alone, each as often as it should come. */
export const plainKinds: readonly Kind[] = kinds
/** Kinds of operations with partition clocks and tombstone collection. */
export const collectingKinds: readonly Kind[] = clockKinds

/** One step; the numbers choose replica, client, message and key, each modulo how many there are. */
export type Operation = readonly [kind: Kind, first: number, second: number, third: number]

/** What was wrong, for tests that say which bug shows how. */
export type ViolationKind =
  | 'lost write'
  | 'resurrection'
  | 'false sibling'
  | 'wrong form'
  | 'divergence'
  | 'unlawful sync'
  | 'assertion'

export class Violation extends Error {
  override name = 'Violation'
  readonly kind: ViolationKind

  constructor(kind: ViolationKind, detail: string) {
    super(`${kind}: ${detail}`)
    this.kind = kind
  }
}

type Seen = { set: VersionSet; history: bigint }
type Replica = { actor: number; counter: number; keys: Seen[]; clock: PartitionClock }
type Client = { context: Vector | undefined; history: bigint }
type Message = { readonly key: number; readonly set: VersionSet; readonly history: bigint }

const replicaCount = 4
const clientCount = 3
const nothing = 0n

export class CausalHistories {
  readonly #components: Components
  readonly #hasClocks: boolean
  readonly #keyCount: number
  readonly #replicas: Replica[] = []
  /** By key. */
  readonly #clients: Client[][]
  readonly #messages: Message[] = []
  /** By write: the writes in its past, itself included. */
  readonly #pasts: bigint[] = []
  readonly #isDelete: boolean[] = []
  #actorCount = 0
  #collectedCount = 0
  /** By actor: up to where every replica has had all of its dots; never falls. */
  readonly #stable = new Map<number, number>()

  constructor(components: Components, hasClocks: boolean) {
    this.#components = components
    this.#hasClocks = hasClocks
    this.#keyCount = hasClocks ? 3 : 1
    for (let index = 0; index < replicaCount; index++) this.#replicas.push(this.#emptyReplica())
    this.#clients = Array.from({ length: this.#keyCount }, () =>
      Array.from({ length: clientCount }, () => ({ context: undefined, history: nothing })),
    )
  }

  /** Keys of which nothing was left because every replica had their tombstones. */
  get collectedCount(): number {
    return this.#collectedCount
  }

  /** Runs one operation and checks what it changed. Throws a Violation. */
  run([kind, first, second, third]: Operation): void {
    const replica = this.#replicas[first % replicaCount]!
    const other = this.#replicas[second % replicaCount]!
    const key = third % this.#keyCount
    const client = this.#clients[key]![second % clientCount]!
    const held = replica.keys[key]!
    switch (kind) {
      case 'read':
        client.context = held.set.vector
        client.history = held.history
        return
      case 'put':
      case 'delete':
        if (client.context !== undefined) this.#write(replica, key, client.context, client.history, kind === 'delete')
        return
      case 'putBlind':
      case 'deleteBlind':
        this.#write(replica, key, undefined, held.history, kind === 'deleteBlind')
        return
      case 'putAsNew':
        this.#write(replica, key, [], nothing, false)
        return
      case 'send':
        this.#messages.push({ key, ...held })
        return
      case 'deliver':
        // A message stays where it is: it may come again, and after later ones.
        if (this.#messages.length > 0)
          this.#merge(replica, this.#messages[(second * 3 + third) % this.#messages.length]!)
        return
      case 'syncBoth': {
        const message = { key, ...held }
        this.#merge(replica, { key, ...other.keys[key]! })
        this.#merge(other, message)
        return
      }
      case 'skip':
        replica.counter += 1 + third
        return
      case 'forget': {
        const fresh = this.#emptyReplica()
        if (this.#components.reusesDots) fresh.actor = replica.actor
        this.#replicas[first % replicaCount] = fresh
        return
      }
      case 'exchange':
        this.#pull(replica, other)
        return
      case 'meet':
        this.#meet()
        return
      case 'collect':
        this.#collect(replica)
        return
    }
  }

  /** Brings all replicas together and checks that they agree, with each other and with the whole history. */
  settle(): void {
    this.#meet()
    if (this.#hasClocks) this.#settleClocks()
    else this.#settlePlain()
    this.#checkLaws()
  }

  /** Every replica pulls from every other, twice, so that all of them have all. */
  #meet(): void {
    for (let round = 0; round < 2; round++) {
      for (const replica of this.#replicas) {
        for (const other of this.#replicas) {
          if (replica === other) continue
          if (this.#hasClocks) this.#pull(replica, other)
          else this.#merge(replica, { key: 0, ...other.keys[0]! })
        }
      }
    }
  }

  #settlePlain(): void {
    const [first, ...others] = this.#replicas
    for (const other of others) {
      if (form(first!.keys[0]!.set) !== form(other.keys[0]!.set)) {
        throw new Violation('divergence', `${form(first!.keys[0]!.set)} and ${form(other.keys[0]!.set)}`)
      }
    }
    // Without a loss of state the first replica has seen every write there is.
    const all = this.#replicas.reduce((union, replica) => union | replica.keys[0]!.history, nothing)
    if (all !== first!.keys[0]!.history) throw new Violation('divergence', 'a history is not whole')
    const here = digestText(digest(first!.keys[0]!.set, tableOf(1)))
    if (here !== digestText(digest(others[0]!.keys[0]!.set, tableOf(1)))) throw new Violation('divergence', 'digests')
  }

  #settleClocks(): void {
    for (const replica of this.#replicas) {
      this.#collect(replica)
      for (const [key, { set, history }] of replica.keys.entries()) {
        this.#check(replica, key)
        const isDeleted = writesOf(this.#maximal(history)).every((write) => this.#isDelete[write])
        if (isDeleted && set.versions.length > 0) throw new Violation('wrong form', 'a tombstone that all have stays')
      }
      for (const other of this.#replicas) {
        const missing = replica.clock.subtract(other.clock, 1)
        if (missing.length > 0) throw new Violation('divergence', 'clocks differ after exchanges')
      }
    }
  }

  /** The laws of a join, over states that really arose. */
  #checkLaws(): void {
    const merge = this.#components.sync
    const equal = (law: string, left: VersionSet, right: VersionSet): void => {
      if (form(left) !== form(right)) throw new Violation('unlawful sync', `${law}: ${form(left)}, ${form(right)}`)
    }
    // Collection leaves sets that only a clock can merge; laws are for sets alone.
    const sets = this.#hasClocks ? [] : this.#messages.map((message) => message.set)
    for (let index = 0; index + 2 < sets.length; index++) {
      const [a, b, c] = [sets[index]!, sets[index + 1]!, sets[index + 2]!]
      equal('idempotent', merge(a, { ...a }), a)
      equal('commutative', merge(a, b), merge(b, a))
      equal('associative', merge(merge(a, b), c), merge(a, merge(b, c)))
      equal('absorbing', merge(merge(a, b), a), merge(a, b))
    }
  }

  #emptyReplica(): Replica {
    const keys = Array.from({ length: this.#keyCount }, () => ({ set: emptyVersionSet, history: nothing }))
    return { actor: this.#actorCount++, counter: 0, keys, clock: new PartitionClock() }
  }

  #write(replica: Replica, key: number, context: Vector | undefined, past: bigint, isDelete: boolean): void {
    const held = replica.keys[key]!
    const write = this.#pasts.length
    const version: Version = {
      actor: replica.actor,
      counter: ++replica.counter,
      tombstone: isDelete,
      expiresAtMs: 0,
      timestamp: write + 1,
      contentType: 'text/plain',
      value: Uint8Array.of(write & 0xff),
    }
    this.#pasts.push(past | (1n << BigInt(write)))
    this.#isDelete.push(isDelete)
    held.set = this.#components.update(held.set, context, version)
    held.history |= this.#pasts[write]!
    replica.clock.add(version.actor, version.counter)
    this.#check(replica, key)
  }

  #merge(replica: Replica, message: Message): void {
    const held = replica.keys[message.key]!
    const merged = this.#hasClocks
      ? this.#components.syncWithClock(held.set, message.set, replica.clock)
      : this.#components.sync(held.set, message.set)
    const isNothing = this.#hasClocks && merged.versions.length === 0
    held.set = isNothing ? emptyVersionSet : merged
    held.history |= message.history
    for (const { actor, counter } of held.set.versions) replica.clock.add(actor, counter)
    this.#check(replica, message.key)
  }

  /** A completed exchange of all keys, one way. */
  #pull(replica: Replica, from: Replica): void {
    if (replica === from) return
    const clock = new PartitionClock()
    clock.join(from.clock)
    if (!this.#components.clockOverData) {
      for (const [key, held] of from.keys.entries()) this.#merge(replica, { key, ...held })
    }
    replica.clock.join(clock)
  }

  #collect(replica: Replica): void {
    for (let actor = 0; actor < this.#actorCount; actor++) {
      const least = Math.min(...this.#replicas.map(({ clock }) => clock.base(actor)))
      this.#stable.set(actor, Math.max(least, this.#stable.get(actor) ?? 0))
    }
    const isStable = ({ actor, counter }: { actor: number; counter: number }): boolean =>
      this.#components.collectsEarly || counter <= this.#stable.get(actor)!
    for (const held of replica.keys) {
      if (!held.set.versions.every((version) => version.tombstone)) continue
      if (held.set.versions.length === 0 || !held.set.vector.every(isStable)) continue
      held.set = emptyVersionSet
      this.#collectedCount++
    }
  }

  /** The writes of a history that are in no other write's past. */
  #maximal(history: bigint): bigint {
    let covered = nothing
    for (const write of writesOf(history)) covered |= this.#pasts[write]! ^ (1n << BigInt(write))
    return history & ~covered
  }

  #check(replica: Replica, key: number): void {
    const { set, history } = replica.keys[key]!
    const expected = this.#maximal(history)
    let shown = nothing
    for (const [index, version] of set.versions.entries()) {
      const write = version.timestamp - 1
      const before = set.versions[index - 1]
      if (before !== undefined && (before.actor - version.actor || before.counter - version.counter) >= 0) {
        throw new Violation('wrong form', `versions are not sorted: ${form(set)}`)
      }
      if (version.tombstone !== this.#isDelete[write]) throw new Violation('wrong form', `write ${write} changed`)
      shown |= 1n << BigInt(write)
      if ((expected & (1n << BigInt(write))) !== nothing) continue
      if (this.#hasClocks && version.tombstone) continue
      const isDeleted = writesOf(history).some(
        (later) =>
          this.#isDelete[later] && later !== write && (this.#pasts[later]! & (1n << BigInt(write))) !== nothing,
      )
      throw new Violation(isDeleted ? 'resurrection' : 'false sibling', `write ${write} in ${form(set)}`)
    }
    for (const write of writesOf(expected & ~shown)) {
      if (this.#hasClocks && this.#isDelete[write]) continue
      throw new Violation('lost write', `write ${write} is not in ${form(set)}`)
    }
    for (const [index, entry] of set.vector.entries()) {
      if (index > 0 && set.vector[index - 1]!.actor >= entry.actor) {
        throw new Violation('wrong form', `the vector is not sorted: ${form(set)}`)
      }
    }
  }
}

/**
 * Runs `operations` to their end and settles. Returns what was violated first, if anything; that the code under test stopped
 * itself counts as such. Other errors are thrown.
 */
export function violationOf(
  operations: readonly Operation[],
  components: Components,
  hasClocks: boolean,
): Violation | undefined {
  const histories = new CausalHistories(components, hasClocks)
  try {
    for (const operation of operations) histories.run(operation)
    histories.settle()
  } catch (error) {
    if (error instanceof Violation) return error
    if (error instanceof AssertionError) return new Violation('assertion', error.message)
    throw error
  }
  return undefined
}

/** The writes in a bit set, ascending. */
function writesOf(history: bigint): number[] {
  const writes: number[] = []
  const digits = history.toString(2)
  for (let write = 0; write < digits.length; write++) if (digits[digits.length - 1 - write] === '1') writes.push(write)
  return writes
}

/** A set as text: equal for equal sets. */
export function form(set: VersionSet): string {
  const versions = set.versions.map((version) => {
    const value = version.tombstone ? 'x' : ''
    return `${version.actor}.${version.counter}=${version.timestamp - 1}${value}`
  })
  return `{${versions.join(' ')} | ${set.vector.map(({ actor, counter }) => `${actor}:${counter}`).join(' ')}}`
}

function tableOf(seed: number): ActorTable {
  return { highOf: (index) => index * 77 + seed, lowOf: (index) => ~index }
}
