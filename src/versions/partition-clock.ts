/**
 * The clock of a partition on one replica: which dots of the partition have reached it, over all keys. Per actor a base, up to
 * which every dot has, and a bitmap of dots above it (the bitmapped version vector of Goncalves et al., 2017).
 *
 *     actor a:  base 7, dots 9 10 13            1 2 3 4 5 6 7 . 9 10 . . 13
 *
 * The idea: a version that is not held, though the clock covers its dot, was here and was replaced since. That lets a replica
 * forget deleted keys entirely and still refuse their late copies (`syncWithClock`). And the difference of two clocks names the
 * writes that one replica has and the other lacks.
 *
 * The rule for its users: **a clock is never ahead of the data.** Add a dot only in the group commit that holds its version,
 * join another's clock only after all it covers has been merged and is durable. A clock that lags is safe: it drops less.
 *
 * Normal form: the dot above the base is never held (else the base would be higher), and actors without dots have no entry, so
 * equal clocks have equal bytes. Bound: dots more than `dotsAheadMax` above the base are not noted.
 *
 * In memory the bitmap is a ring: the bit of a counter is the counter modulo its size, so that the base moves without shifting.
 * Encoded, it is drawn so, little-endian (version 1; whoever stores it adds the checksum):
 *
 *      0 u8  format version    1 u8 0    2 u16 entries
 *      4 entries, ascending by actor id as unsigned 64-bit numbers, each
 *          0 u32 actorLow   4 u32 actorHigh   8 u32 baseLow   12 u16 baseHigh   14 u16 bitmapWords
 *         16 u32 x bitmapWords     bit i of word w: dot base + 1 + 32w + i; the last word is not 0
 */
import { assert } from '../base/assert.ts'
import { ByteReader, ByteWriter } from '../base/bytes.ts'
import { type ActorIndex, type ActorTable, counterMax, type Vector } from './version-set.ts'

export const partitionClockFormatVersion = 1

/** A dot further above its base is not noted: 8 KiB of bitmap per actor. Exchanges between replicas bring the base up. */
export const dotsAheadMax = 65_536

/** Entries of a clock: their count is a u16. */
const entriesMax = 0xffff
const noBits = new Uint32Array(0)
/** An emptied bitmap up to this size is kept for the next dots out of order; a larger one is let go. */
const keptWordsMax = 32

/** A run of dots of one actor, `first` to `last`, both included. */
export type DotRange = { readonly actor: ActorIndex; readonly first: number; readonly last: number }

/** Why bytes are not a clock. `actor`: the actor table has no room for one of its actors. */
export type ClockFault = 'version' | 'length' | 'order' | 'form' | 'actor'

/** Index of the actor with a 64-bit id, noting it if it is new; negative where it cannot be noted. */
export type ActorIndexer = (low: number, high: number) => ActorIndex

/** The dots of one actor. */
class ClockEntry {
  readonly actor: ActorIndex
  base = 0
  /** Greatest dot held; the base if the bitmap is empty. */
  top = 0
  /** Ring of bits for dots above the base; a power of two of them, at least `top - base`. */
  #bits: Uint32Array = noBits

  constructor(actor: ActorIndex) {
    this.actor = actor
  }

  has(counter: number): boolean {
    if (counter <= this.base) return true
    return counter <= this.top && this.#bit(counter)
  }

  /** Notes a dot at most `dotsAheadMax` above the base. */
  add(counter: number): void {
    if (counter <= this.base) return
    if (counter === this.base + 1) {
      this.base = counter
      if (this.top < counter) this.top = counter
      else {
        this.#clear(counter)
        this.#normalise()
      }
      return
    }
    this.#grow(counter - this.base)
    this.#bits[this.#word(counter)]! |= 1 << (counter & 31)
    if (counter > this.top) this.top = counter
  }

  /** Notes all dots up to `counter`. */
  raiseBase(counter: number): void {
    if (counter <= this.base) return
    if (counter >= this.top) {
      this.base = counter
      this.top = counter
      this.#letGo()
      this.#bits.fill(0)
      return
    }
    while (this.base < counter) this.#clear(++this.base)
    this.#normalise()
  }

  /** Fills an empty entry from its encoded form, which has been checked. */
  load(base: number, words: Uint32Array): void {
    assert(this.top === 0, 'Two actor ids have two indices')
    this.raiseBase(base)
    for (const [index, word] of words.entries()) {
      for (let bit = 0; bit < 32; bit++) if ((word & (1 << bit)) !== 0) this.add(base + 1 + index * 32 + bit)
    }
  }

  /** Words of the bitmap as encoded. */
  wordCount(): number {
    return (this.top - this.base + 31) >>> 5
  }

  /** Word `index` of the bitmap as encoded. */
  wordOf(index: number): number {
    let word = 0
    for (let bit = 0; bit < 32; bit++) {
      const counter = this.base + 1 + index * 32 + bit
      if (counter <= this.top && this.#bit(counter)) word |= 1 << bit
    }
    return word >>> 0
  }

  // Counters exceed 32 bits, but the ring's size is a power of two: bit operations see all the bits that matter.

  #word(counter: number): number {
    return (counter >>> 5) & (this.#bits.length - 1)
  }

  #bit(counter: number): boolean {
    return this.#bits.length > 0 && (this.#bits[this.#word(counter)]! & (1 << (counter & 31))) !== 0
  }

  #clear(counter: number): void {
    if (this.#bits.length > 0) this.#bits[this.#word(counter)]! &= ~(1 << (counter & 31))
  }

  /** Moves the base over the dots that follow it. */
  #normalise(): void {
    while (this.base < this.top && this.#bit(this.base + 1)) this.#clear(++this.base)
    if (this.base === this.top) this.#letGo()
  }

  #letGo(): void {
    if (this.#bits.length > keptWordsMax) this.#bits = noBits
  }

  #grow(dots: number): void {
    if (dots <= this.#bits.length * 32) return
    let words = Math.max(1, this.#bits.length)
    while (words * 32 < dots) words *= 2
    const old = this.#bits
    const oldMask = old.length - 1
    this.#bits = new Uint32Array(words)
    if (old.length === 0) return
    for (let counter = this.base + 1; counter <= this.top; counter++) {
      if ((old[(counter >>> 5) & oldMask]! & (1 << (counter & 31))) !== 0) {
        this.#bits[this.#word(counter)]! |= 1 << (counter & 31)
      }
    }
  }
}

/** The dots of one partition that a replica has. Owned by the partition's shard; not shared between threads. */
export class PartitionClock {
  /** Sorted by actor. Few: the partition's replicas and their former incarnations. */
  readonly #entries: ClockEntry[] = []

  /** Whether nothing has been noted. */
  get isEmpty(): boolean {
    return this.#entries.length === 0
  }

  /** Whether the dot has reached this replica. */
  covers(actor: ActorIndex, counter: number): boolean {
    return this.#find(actor)?.has(counter) ?? false
  }

  /** The counter up to which every dot of `actor` is here; 0 for an unknown actor. */
  base(actor: ActorIndex): number {
    return this.#find(actor)?.base ?? 0
  }

  /** The greatest counter of `actor` that is here; 0 for an unknown actor. An own counter above this run's own is an alarm. */
  top(actor: ActorIndex): number {
    return this.#find(actor)?.top ?? 0
  }

  /** The bases as a vector: what this replica says when stability is computed. */
  bases(): Vector {
    return this.#entries.filter((entry) => entry.base > 0).map((entry) => ({ actor: entry.actor, counter: entry.base }))
  }

  /**
   * Notes a dot whose version is being made durable now. False where it is too far above the base to be noted, which is safe:
   * its version is stored all the same. Costs no allocation where dots come in order.
   */
  add(actor: ActorIndex, counter: number): boolean {
    assert(Number.isInteger(counter) && counter > 0 && counter <= counterMax, 'A counter is 1 to 2^48 - 1')
    const entry = this.#findOrAdd(actor, counter <= dotsAheadMax)
    if (entry === undefined || counter - entry.base > dotsAheadMax) return false
    entry.add(counter)
    return true
  }

  /** Notes every dot of `actor` up to `counter`, after an exchange that brought all of them. */
  raiseBase(actor: ActorIndex, counter: number): void {
    assert(Number.isInteger(counter) && counter > 0 && counter <= counterMax, 'A counter is 1 to 2^48 - 1')
    this.#findOrAdd(actor, true)!.raiseBase(counter)
  }

  /** Takes in all dots of `other`, after an exchange that brought their versions or what replaced them. */
  join(other: PartitionClock): void {
    for (const theirs of other.#entries) {
      const ours = this.#findOrAdd(theirs.actor, true)!
      ours.raiseBase(theirs.base)
      for (let counter = theirs.base + 1; counter <= theirs.top; counter++) if (theirs.has(counter)) ours.add(counter)
    }
  }

  /**
   * The dots that are here and not in `other`, ascending by actor and counter, as at most `rangesMax` runs: what that replica
   * lacks. Ask again after sending these for the rest.
   */
  subtract(other: PartitionClock, rangesMax: number): DotRange[] {
    const missing: DotRange[] = []
    for (const ours of this.#entries) {
      const { actor } = ours
      const theirs = other.#find(actor)
      const theirBase = theirs?.base ?? 0
      const theirTop = theirs?.top ?? 0
      let first = 0
      let counter = theirBase + 1
      const end = (): void => {
        if (first !== 0) missing.push({ actor, first, last: counter - 1 })
        first = 0
      }
      for (; counter <= ours.top && missing.length < rangesMax; counter++) {
        if (!ours.has(counter) || theirs?.has(counter)) end()
        else {
          if (first === 0) first = counter
          // Where they have nothing at all, our base is one run.
          if (counter > theirTop && counter < ours.base) counter = ours.base
        }
      }
      if (missing.length < rangesMax) end()
      if (missing.length >= rangesMax) break
    }
    return missing
  }

  /** The clock as bytes, equal on every node for equal clocks. */
  encode(actors: ActorTable): Uint8Array {
    const sorted = [...this.#entries].sort(
      (a, b) =>
        (actors.highOf(a.actor) >>> 0) - (actors.highOf(b.actor) >>> 0) ||
        (actors.lowOf(a.actor) >>> 0) - (actors.lowOf(b.actor) >>> 0),
    )
    const writer = new ByteWriter(4 + sorted.length * 16)
    writer.u8(partitionClockFormatVersion)
    writer.u8(0)
    writer.u16(sorted.length)
    for (const entry of sorted) {
      const words = entry.wordCount()
      writer.u32(actors.lowOf(entry.actor) >>> 0)
      writer.u32(actors.highOf(entry.actor) >>> 0)
      writer.u32(entry.base >>> 0)
      writer.u16(Math.floor(entry.base / 0x1_0000_0000))
      writer.u16(words)
      for (let word = 0; word < words; word++) writer.u32(entry.wordOf(word))
    }
    return writer.toBytes()
  }

  /** The clock that `encode` wrote to `bytes[start, end)`, or why there is none. Accepts normal form only; never throws. */
  static decode(bytes: Uint8Array, start: number, end: number, actorIndex: ActorIndexer): PartitionClock | ClockFault {
    const reader = new ByteReader(bytes, start, end)
    const version = reader.u8()
    const reserved = reader.u8()
    const entryCount = reader.u16()
    if (reader.failed) return 'length'
    if (version !== partitionClockFormatVersion) return 'version'
    if (reserved !== 0) return 'form'
    const parts: { low: number; high: number; base: number; words: Uint32Array }[] = []
    for (let index = 0; index < entryCount; index++) {
      const low = reader.u32()
      const high = reader.u32()
      const baseLow = reader.u32()
      const base = reader.u16() * 0x1_0000_0000 + baseLow
      const wordCount = reader.u16()
      if (reader.failed || wordCount * 4 > reader.remaining) return 'length'
      const last = parts.at(-1)
      if (last !== undefined && (high < last.high || (high === last.high && low <= last.low))) return 'order'
      if (wordCount * 32 > dotsAheadMax || (base === 0 && wordCount === 0)) return 'form'
      const words = new Uint32Array(wordCount)
      for (let word = 0; word < wordCount; word++) words[word] = reader.u32()
      if (wordCount > 0) {
        const top = base + wordCount * 32 - Math.clz32(words[wordCount - 1]!)
        if (words[wordCount - 1] === 0 || (words[0]! & 1) !== 0 || top > counterMax) return 'form'
      }
      parts.push({ low, high, base, words })
    }
    if (reader.remaining !== 0) return 'length'
    // Actors are noted only now: bytes that are no clock must leave no trace in the actor table.
    const clock = new PartitionClock()
    for (const { low, high, base, words } of parts) {
      const actor = actorIndex(low, high)
      if (actor < 0) return 'actor'
      clock.#findOrAdd(actor, true)!.load(base, words)
    }
    return clock
  }

  #find(actor: ActorIndex): ClockEntry | undefined {
    for (const entry of this.#entries) if (entry.actor >= actor) return entry.actor === actor ? entry : undefined
    return undefined
  }

  #findOrAdd(actor: ActorIndex, mayAdd: boolean): ClockEntry | undefined {
    let at = 0
    while (at < this.#entries.length && this.#entries[at]!.actor < actor) at++
    const found = this.#entries[at]
    if (found !== undefined && found.actor === actor) return found
    if (!mayAdd) return undefined
    assert(Number.isInteger(actor) && actor >= 0 && actor <= 0xffff, 'An actor index is a u16')
    assert(this.#entries.length < entriesMax, 'A clock has at most 65535 entries')
    const entry = new ClockEntry(actor)
    this.#entries.splice(at, 0, entry)
    return entry
  }
}
