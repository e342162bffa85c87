/**
 * The version set of a key: its concurrent versions (siblings), each named by the dot of the write that made it, and a version
 * vector of all writes that the set has seen. This is the dotted causal container of Goncalves, Almeida, Baquero and Fonte
 * ("DottedDB: Anti-Entropy without Merkle Trees, Deletes without Tombstones", 2017).
 *
 *     { versions: { (a,3): 'x', (b,7): tombstone },  vector: { a: 3, b: 7, c: 2 } }
 *
 * The idea: the vector is the past, the dots are the present. A dot that the vector covers and that is not among the versions
 * was replaced. So a write replaces exactly what its context covers, and merging two sets needs no clock and no coordination.
 *
 * Invariants: the vector covers every dot of the versions; versions are sorted by (actor, counter) and vectors by actor, each
 * once; a counter is 1 to 2^48 - 1; a dot names one write for ever, and only its tombstone flag may change, from false to true
 * (expiry). All functions are pure: they share parts of their arguments and change none, and return the argument itself where
 * nothing would change, so that a caller can tell by `===` that there is nothing to store.
 *
 * Actors are indices into the actor table of this node. Where an order or a digest must be equal on every node the table is an
 * argument, and the 64-bit ids decide.
 *
 * It does not issue counters, and it does not know which dots other keys hold: see partition-clock.ts.
 */
import { assert } from '../base/assert.ts'

/** Index of an actor in this node's actor table, a u16. An actor is one incarnation of one node. */
export type ActorIndex = number

/** The 64-bit ids behind actor indices, as u32 halves. */
export type ActorTable = {
  highOf(index: ActorIndex): number
  lowOf(index: ActorIndex): number
}

/** Largest counter of a dot: formats give it 48 bits. At a million writes a second it lasts nine years. */
export const counterMax = 2 ** 48 - 1

/** One entry of a vector: every write of `actor` up to `counter` is covered. */
export type VectorEntry = { readonly actor: ActorIndex; readonly counter: number }

/** A version vector, sorted by actor, each actor once. */
export type Vector = readonly VectorEntry[]

/** One write of a key. `(actor, counter)` is its dot. */
export type Version = {
  readonly actor: ActorIndex
  readonly counter: number
  /** The key was deleted by this write, or its value has expired; `value` is empty then. */
  readonly tombstone: boolean
  /** Milliseconds since 1970; 0: never. */
  readonly expiresAtMs: number
  /** Hybrid logical clock of the write in a bucket where the last write wins; 0: none. */
  readonly timestamp: number
  readonly contentType: string
  readonly value: Uint8Array
}

/** What is stored for a key. */
export type VersionSet = {
  /** Sorted by (actor, counter). */
  readonly versions: readonly Version[]
  readonly vector: Vector
}

/** Something that knows dots it covers, such as a partition's clock. */
export type DotCover = { covers(actor: ActorIndex, counter: number): boolean }

/** A 64-bit digest as two u32 halves; 0, 0 stands for the empty set only. */
export type Digest = { readonly low: number; readonly high: number }

/** A key that was never written. */
export const emptyVersionSet: VersionSet = Object.freeze({ versions: Object.freeze([]), vector: Object.freeze([]) })

/** Content type of a version whose value has expired. */
const tombstoneContentType = 'application/octet-stream'
const noBytes = new Uint8Array(0)

// Vectors.

/** Counter up to which `vector` covers `actor`; 0 if it does not know the actor. */
export function counterOf(vector: Vector, actor: ActorIndex): number {
  for (const entry of vector) if (entry.actor >= actor) return entry.actor === actor ? entry.counter : 0
  return 0
}

/** Whether the write (actor, counter) belongs to the past that `vector` describes. */
export function covers(vector: Vector, actor: ActorIndex, counter: number): boolean {
  return counterOf(vector, actor) >= counter
}

/** Whether `a` covers all that `b` covers; equal vectors descend each other. */
export function descends(a: Vector, b: Vector): boolean {
  let at = 0
  for (const entry of b) {
    while (at < a.length && a[at]!.actor < entry.actor) at++
    if (at === a.length || a[at]!.actor !== entry.actor || a[at]!.counter < entry.counter) return false
  }
  return true
}

/** The least vector that covers both: the greater counter of each actor. */
export function joinVectors(a: Vector, b: Vector): Vector {
  if (descends(a, b)) return a
  if (descends(b, a)) return b
  const joined: VectorEntry[] = []
  let inA = 0
  let inB = 0
  while (inA < a.length && inB < b.length) {
    const first = a[inA]!
    const second = b[inB]!
    if (first.actor === second.actor) {
      joined.push(first.counter >= second.counter ? first : second)
      inA++
      inB++
    } else if (first.actor < second.actor) {
      joined.push(first)
      inA++
    } else {
      joined.push(second)
      inB++
    }
  }
  while (inA < a.length) joined.push(a[inA++]!)
  while (inB < b.length) joined.push(b[inB++]!)
  return joined
}

// Version sets.

/** Order of versions in a set. */
function compareDots(a: VectorEntry, b: VectorEntry): number {
  return a.actor !== b.actor ? a.actor - b.actor : a.counter - b.counter
}

/**
 * The set after a write at its coordinator: what `context` covers is replaced by `version`, the rest stays as its siblings.
 * Without a context the write replaces all that the coordinator sees, as if it had read it just now.
 *
 * The dot must be new: the caller has checked that its counter is above what `set` and `context` know of its own actor.
 */
export function update(set: VersionSet, context: Vector | undefined, version: Version): VersionSet {
  const { actor, counter } = version
  assert(Number.isInteger(counter) && counter > 0 && counter <= counterMax, 'A counter is 1 to 2^48 - 1')
  const past = context === undefined ? set.vector : joinVectors(set.vector, context)
  assert(!covers(past, actor, counter), 'A new write has a dot that nobody has seen')
  const replaced = context ?? set.vector
  const versions: Version[] = []
  let isPlaced = false
  for (const held of set.versions) {
    if (covers(replaced, held.actor, held.counter)) continue
    if (!isPlaced && compareDots(version, held) < 0) {
      versions.push(version)
      isPlaced = true
    }
    versions.push(held)
  }
  if (!isPlaced) versions.push(version)
  return { versions, vector: joinVectors(past, [{ actor, counter }]) }
}

/**
 * Merges the sets that two replicas hold for one key: keeps the versions that both hold, and those of either that the other has
 * not seen. Commutative, associative and idempotent, so sets may arrive late, twice and in any order.
 */
export function sync(a: VersionSet, b: VersionSet): VersionSet {
  return merge(a, b, undefined)
}

/**
 * Merges `incoming` into what this replica holds, under the clock of the key's partition: an incoming version that is not held
 * and whose dot the clock covers was here once and was replaced or deleted since, even if nothing of the key is left to say so.
 * It is dropped, so that late hints, replays and restored backups cannot bring it back.
 *
 * `clock` must not have taken in the dots of `incoming` yet. The result may have no versions at all; where `local` had none
 * either there is nothing to store.
 */
export function syncWithClock(local: VersionSet, incoming: VersionSet, clock: DotCover): VersionSet {
  return merge(local, incoming, clock)
}

/**
 * The same with the clock that the other replica had before it told `incoming`: what it covers there and is not in `incoming` was replaced or
 * deleted there, so it goes here, too, even where nothing of the key is left there.
 */
export function syncWithClocks(
  local: VersionSet,
  incoming: VersionSet,
  clock: DotCover,
  theirClock: DotCover,
): VersionSet {
  return merge(local, incoming, clock, theirClock)
}

function merge(a: VersionSet, b: VersionSet, clock: DotCover | undefined, theirClock?: DotCover): VersionSet {
  if (a === b) return a
  const versions: Version[] = []
  let isUnchanged = true
  let inA = 0
  let inB = 0
  while (inA < a.versions.length || inB < b.versions.length) {
    const first = a.versions[inA]
    const second = b.versions[inB]
    const order = first === undefined ? 1 : second === undefined ? -1 : compareDots(first, second)
    if (order === 0) {
      // One write. Expiry on one side has turned it into a tombstone, and that is for ever.
      const kept = second!.tombstone && !first!.tombstone ? second! : first!
      if (kept !== first) isUnchanged = false
      versions.push(kept)
      inA++
      inB++
    } else if (order < 0) {
      const { actor, counter } = first!
      if (covers(b.vector, actor, counter) || theirClock?.covers(actor, counter)) isUnchanged = false
      else versions.push(first!)
      inA++
    } else {
      const { actor, counter } = second!
      if (!covers(a.vector, actor, counter) && !clock?.covers(actor, counter)) {
        versions.push(second!)
        isUnchanged = false
      }
      inB++
    }
  }
  const vector = joinVectors(a.vector, b.vector)
  return isUnchanged && vector === a.vector ? a : { versions, vector }
}

/** Whether a version has a value to show at `nowMs`. A value expires at its time, not after it. */
export function isLive(version: Version, nowMs: number): boolean {
  return !version.tombstone && (version.expiresAtMs === 0 || version.expiresAtMs > nowMs)
}

/** The versions that are neither tombstones nor expired, in the order of the set. */
export function liveVersions(set: VersionSet, nowMs: number): readonly Version[] {
  return set.versions.every((version) => isLive(version, nowMs))
    ? set.versions
    : set.versions.filter((version) => isLive(version, nowMs))
}

/**
 * The set with each version that expired at least `graceMs` ago turned into a tombstone of the same dot. The grace is there for
 * clocks that differ: a replica that is ahead must not destroy what another still shows.
 */
export function expire(set: VersionSet, nowMs: number, graceMs: number): VersionSet {
  const isOver = (version: Version): boolean =>
    !version.tombstone && version.expiresAtMs !== 0 && version.expiresAtMs + graceMs <= nowMs
  if (!set.versions.some(isOver)) return set
  const versions = set.versions.map((version) =>
    isOver(version)
      ? { ...version, tombstone: true, expiresAtMs: 0, contentType: tombstoneContentType, value: noBytes }
      : version,
  )
  return { versions, vector: set.vector }
}

/** One version, and nothing more in its past than itself: records store that form without a vector. */
export function isSimple(set: VersionSet): boolean {
  if (set.versions.length !== 1 || set.vector.length !== 1) return false
  const version = set.versions[0]!
  const entry = set.vector[0]!
  return version.actor === entry.actor && version.counter === entry.counter
}

/** Negative if `a` wins over `b`: later timestamp, then greater counter, then greater actor id. Total over distinct dots. */
function compareForWin(a: Version, b: Version, actors: ActorTable): number {
  if (a.timestamp !== b.timestamp) return b.timestamp - a.timestamp
  if (a.counter !== b.counter) return b.counter - a.counter
  const high = (actors.highOf(b.actor) >>> 0) - (actors.highOf(a.actor) >>> 0)
  return high !== 0 ? high : (actors.lowOf(b.actor) >>> 0) - (actors.lowOf(a.actor) >>> 0)
}

/** A copy in the order in which siblings are shown, the same on every node; the first is what a client that takes one gets. */
export function winnerFirst(versions: readonly Version[], actors: ActorTable): Version[] {
  return [...versions].sort((a, b) => compareForWin(a, b, actors))
}

/**
 * For buckets where the last write wins: keeps the winner alone, be it a value or a tombstone. The vector stays whole, so the
 * losers do not come back.
 */
export function resolveLastWriteWins(set: VersionSet, actors: ActorTable): VersionSet {
  if (set.versions.length <= 1) return set
  let winner = set.versions[0]!
  for (const version of set.versions) if (compareForWin(version, winner, actors) < 0) winner = version
  return { versions: [winner], vector: set.vector }
}

// Digests.

/** A digest under construction; reused, it allocates nothing. Start from 0, 0. */
export type MutableDigest = { low: number; high: number }

/** An invertible scramble of 32 bits (the finaliser of MurmurHash3, Appleby, public domain). */
function scramble(value: number): number {
  let mixed = value | 0
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return mixed ^ (mixed >>> 16)
}

/**
 * Adds one dot to a digest, both halves modulo 2^32. The dot goes through a Feistel network over (low, high), which is
 * invertible: two dots of one actor never have the same digest, nor do a value and its tombstone. Feistel rounds keep both
 * halves in 32-bit arithmetic.
 */
export function addDotDigest(
  into: MutableDigest,
  actorLow: number,
  actorHigh: number,
  counter: number,
  isTombstone: boolean,
): void {
  let low = actorLow | 0
  let high = actorHigh | 0
  high ^= scramble(low + 0x9e3779b9)
  low ^= scramble(high + 0x3c6ef372)
  high ^= scramble(low + 0xdaa66d2b)
  low ^= counter | 0
  high ^= Math.floor(counter / 0x1_0000_0000) | (isTombstone ? 0x8000_0000 : 0)
  low ^= scramble(high + 0x78dde6e4)
  high ^= scramble(low + 0x1715609d)
  low ^= scramble(high + 0xb54cda56)
  high ^= scramble(low + 0x5384540f)
  into.low = (into.low + low) >>> 0
  into.high = (into.high + high) >>> 0
}

/**
 * 64 bits over the dots and tombstone flags of a set: equal on every node for equal sets, whatever the indices of its actors
 * there. Different sets have equal digests with a chance of 2^-64; nobody outside chooses dots, so nobody can aim at it.
 *
 * The values need no part in it since a dot names one write, nor does the vector: without `resolveLastWriteWins` it is the past
 * of the dots that are there, no more. An update of one key changes the digest by known summands.
 */
export function digest(set: VersionSet, actors: ActorTable): Digest {
  const sum = { low: 0, high: 0 }
  for (const { actor, counter, tombstone } of set.versions) {
    addDotDigest(sum, actors.lowOf(actor), actors.highOf(actor), counter, tombstone)
  }
  if (set.versions.length > 0) keepFromZero(sum)
  return sum
}

/** The digest of a set whose only version is this one, without the set. */
export function digestOfDot(actorLow: number, actorHigh: number, counter: number, isTombstone: boolean): Digest {
  const sum = { low: 0, high: 0 }
  addDotDigest(sum, actorLow, actorHigh, counter, isTombstone)
  keepFromZero(sum)
  return sum
}

/** 0, 0 is the digest of the empty set alone. */
function keepFromZero(sum: MutableDigest): void {
  if (sum.low === 0 && sum.high === 0) sum.low = 1
}

/** Character codes of the hexadecimal digits. */
const digits = Uint8Array.from('0123456789abcdef', (digit) => digit.charCodeAt(0))

/**
 * A digest as 16 lower-case hexadecimal digits, the form of an ETag. Every answer has one: digit by digit it takes a twentieth
 * of `toString(16)` with padding.
 */
export function digestText(value: Digest): string {
  const { high, low } = value
  return String.fromCharCode(
    digits[high >>> 28]!,
    digits[(high >>> 24) & 15]!,
    digits[(high >>> 20) & 15]!,
    digits[(high >>> 16) & 15]!,
    digits[(high >>> 12) & 15]!,
    digits[(high >>> 8) & 15]!,
    digits[(high >>> 4) & 15]!,
    digits[high & 15]!,
    digits[low >>> 28]!,
    digits[(low >>> 24) & 15]!,
    digits[(low >>> 20) & 15]!,
    digits[(low >>> 16) & 15]!,
    digits[(low >>> 12) & 15]!,
    digits[(low >>> 8) & 15]!,
    digits[(low >>> 4) & 15]!,
    digits[low & 15]!,
  )
}

/** The digest that `digestText` wrote; undefined for any other text. */
export function digestOfText(text: string): Digest | undefined {
  if (!/^[0-9a-f]{16}$/.test(text)) return undefined
  return { high: Number.parseInt(text.slice(0, 8), 16), low: Number.parseInt(text.slice(8), 16) }
}
