/**
 * Merges runs of an LSM into one: the records of several sources, each in order, as one sequence in order, each key once. Sources
 * come newest first. A record of a complete source holds all that lies below it, so the newest of a key wins, unless it comes
 * from a source that is not complete (tables shipped by a peer): then the version sets are merged down to the first complete one.
 *
 * What nobody needs any more is left out: records of deleted buckets, versions past expiry and grace (they turn into tombstones),
 * and tombstones where the merge takes in all that is older, so that nothing they hide can come back.
 */
import { assert } from '../base/assert.ts'
import { expire, sync, type VersionSet } from '../versions/version-set.ts'
import type { ReplicatedPartitions } from './partition-clocks.ts'
import { isForgettable } from './partition-trees.ts'
import {
  decodeRecord,
  encodeRecord,
  RecordFlag,
  recordBucket,
  recordBytesAt,
  recordBytesOf,
  recordHeaderBytes,
  recordKeyBytes,
  recordSlot,
  simpleExpiry,
  translateActors,
} from './record.ts'
import { compareRecordKey } from './sstable.ts'

/** Records in order; a TableIterator is one. */
export type RecordSource = {
  readonly u8: Uint8Array
  readonly i32: Int32Array
  /** The present record; not to be changed. */
  readonly at: number
  readonly partition: number
  next(): boolean
}

export type MergeInput = {
  readonly source: RecordSource
  /** Whether its records hold all that lies below them. */
  readonly isComplete: boolean
  /** What its actors are called in the output; undefined: the same. */
  readonly actorIndices: Uint16Array | undefined
}

/** An input that takes up memory only while the merge is in its partitions. */
export type LateMergeInput = {
  /** It has no record of a partition before this one. */
  readonly fromPartition: number
  /** Called once, before its first record is wanted. */
  open(): MergeInput
  /** Called once, behind its last record. */
  close(): void
}

export type MergeOptions = {
  /** Newest first. */
  readonly inputs: readonly (MergeInput | LateMergeInput)[]
  readonly nowMs: number
  readonly graceMs: number
  /** Nothing older than these inputs exists anywhere: tombstones have done their work. */
  readonly dropsTombstones: boolean
  readonly isRetiredBucket: (bucketId: number) => boolean
  /**
   * Partitions with other replicas, which compare what they have: expired versions stay as they are, and tombstones go only where all replicas have
   * them. Undefined: there are none.
   */
  readonly replicated?: ReplicatedPartitions | undefined
}

/** What a merge did. */
export type MergeCounts = {
  records: number
  /** Records that gave way to newer ones of their keys. */
  superseded: number
  /** Records turned into tombstones by expiry. */
  expired: number
  droppedTombstones: number
  /** Records of deleted buckets. */
  retired: number
}

export class Merge {
  readonly counts: MergeCounts = { records: 0, superseded: 0, expired: 0, droppedTombstones: 0, retired: 0 }
  readonly #options: MergeOptions
  /** Inputs that have a record, in the order of their present keys, the newest first among equals. */
  readonly #open: MergeInput[] = []
  readonly #age = new Map<MergeInput, number>()
  /** Inputs that are not open yet, by their first partitions, the earliest last. */
  readonly #late: { readonly input: LateMergeInput; readonly age: number }[] = []
  readonly #closers = new Map<MergeInput, LateMergeInput>()
  /** The input whose record was shown last: it moves on before the next one is. */
  #lastInput: MergeInput | undefined
  /** Memory for a record that was changed. */
  #own = new Uint8Array(4096)
  #ownWords = new Int32Array(this.#own.buffer)

  /** The record that `next` found; valid until its next call. */
  u8: Uint8Array = this.#own
  i32: Int32Array = this.#ownWords
  at = 0
  partition = 0

  constructor(options: MergeOptions) {
    this.#options = options
    for (const [age, input] of options.inputs.entries()) {
      if ('open' in input) this.#late.push({ input, age })
      else this.#begin(input, age)
    }
    this.#late.sort((a, b) => b.input.fromPartition - a.input.fromPartition)
    this.#openLate()
  }

  /** Moves to the next record that is kept. False at the end. @throws what the sources throw */
  next(): boolean {
    for (;;) {
      if (this.#lastInput !== undefined) {
        this.#lastInput = undefined
        this.#advance()
        if (this.#late.length > 0) this.#openLate()
      }
      const input = this.#open[0]
      if (input === undefined) return false
      this.#lastInput = input
      this.partition = input.source.partition
      if (this.#take(input)) {
        this.counts.records++
        return true
      }
    }
  }

  #begin(input: MergeInput, age: number): void {
    this.#age.set(input, age)
    this.#open.unshift(input)
    this.#advance()
  }

  /** Opens the inputs that may have the next record. */
  #openLate(): void {
    for (;;) {
      const late = this.#late.at(-1)
      const first = this.#open[0]
      if (late === undefined || (first !== undefined && first.source.partition < late.input.fromPartition)) return
      this.#late.pop()
      const input = late.input.open()
      this.#closers.set(input, late.input)
      this.#begin(input, late.age)
    }
  }

  /** Shows the first input's record, with what others have of its key merged in or passed over. False: it is left out. */
  #take(input: MergeInput): boolean {
    const { source } = input
    let { u8, i32, at } = source
    this.u8 = u8
    this.i32 = i32
    this.at = at
    if (!input.isComplete && this.#isShared()) {
      this.#show(this.#mergeDown(input))
      ;({ u8, i32, at } = this)
    } else {
      this.#passOver()
      if (input.actorIndices !== undefined) {
        this.#copyOwn(u8, i32, at)
        translateActors(this.#own, this.#ownWords, 0, input.actorIndices)
        ;({ u8, i32, at } = this)
      }
    }
    const { nowMs, graceMs, dropsTombstones, isRetiredBucket, replicated } = this.#options
    if (isRetiredBucket(recordBucket(i32, at))) {
      this.counts.retired++
      return false
    }
    const stable = replicated?.get(this.partition)
    if (stable !== undefined) {
      const isKept = !dropsTombstones || !isForgettable(u8, i32, at, stable)
      if (!isKept) this.counts.droppedTombstones++
      return isKept
    }
    if (u8[at + 12]! & RecordFlag.expiry && this.#mayBeOver(u8, i32, at)) {
      const set = decodeRecord(u8, i32, at)
      const after = expire(set, nowMs, graceMs)
      if (after !== set) {
        this.counts.expired++
        this.#show(after)
        ;({ u8, at } = this)
      }
    }
    if (dropsTombstones && u8[at + 12]! & RecordFlag.tombstone) {
      this.counts.droppedTombstones++
      return false
    }
    return true
  }

  #mayBeOver(u8: Uint8Array, i32: Int32Array, at: number): boolean {
    if ((u8[at + 12]! & RecordFlag.simple) === 0) return true
    if (u8[at + 12]! & RecordFlag.tombstone) return false
    return simpleExpiry(u8, i32, at) + this.#options.graceMs <= this.#options.nowMs
  }

  /** Whether the second input has the same key. */
  #isShared(): boolean {
    const second = this.#open[1]
    return second !== undefined && compareSources(this.#open[0]!.source, second.source) === 0
  }

  /** Moves all but the first input past its key. */
  #passOver(): void {
    while (this.#isShared()) {
      this.counts.superseded++
      this.#advanceSecond()
    }
  }

  /** All versions of the first input's key, down to the first complete input. */
  #mergeDown(input: MergeInput): VersionSet {
    let set = setOf(input)
    let isComplete = input.isComplete
    while (this.#isShared()) {
      const second = this.#open[1]!
      if (!isComplete) {
        set = sync(set, setOf(second))
        isComplete = second.isComplete
      }
      this.counts.superseded++
      this.#advanceSecond()
    }
    return set
  }

  #advanceSecond(): void {
    const first = this.#open.shift()!
    this.#advance()
    this.#open.unshift(first)
  }

  /** Moves the first input on and back to its place; takes it out at its end. */
  #advance(): void {
    const input = this.#open[0]!
    if (input.source.next()) return this.#sink()
    this.#open.shift()
    this.#closers.get(input)?.close()
  }

  /** Moves the first input behind those whose keys come before its own. */
  #sink(): void {
    const open = this.#open
    const input = open[0]!
    let place = 0
    while (place + 1 < open.length && this.#comesBefore(open[place + 1]!, input)) {
      open[place] = open[place + 1]!
      place++
    }
    open[place] = input
  }

  #comesBefore(a: MergeInput, b: MergeInput): boolean {
    const order = compareSources(a.source, b.source)
    return order < 0 || (order === 0 && this.#age.get(a)! < this.#age.get(b)!)
  }

  #copyOwn(u8: Uint8Array, i32: Int32Array, at: number): void {
    const bytes = recordBytesAt(i32, at)
    this.#room(bytes)
    this.#own.set(u8.subarray(at, at + bytes))
    this.#showOwn()
  }

  /** Shows the present record with another version set. */
  #show(set: VersionSet): void {
    const { u8, i32, at } = this
    const keyBytes = recordKeyBytes(u8, at)
    const keyStart = at + recordHeaderBytes
    const key = u8.slice(keyStart, keyStart + keyBytes)
    const slot = recordSlot(u8, at)
    const bucketId = recordBucket(i32, at)
    this.#room(recordBytesOf(set, keyBytes))
    encodeRecord(this.#own, this.#ownWords, 0, slot, bucketId, key, 0, keyBytes, set)
    this.#showOwn()
  }

  #showOwn(): void {
    this.u8 = this.#own
    this.i32 = this.#ownWords
    this.at = 0
  }

  #room(bytes: number): void {
    if (bytes <= this.#own.length) return
    let length = this.#own.length
    while (length < bytes) length *= 2
    this.#own = new Uint8Array(length)
    this.#ownWords = new Int32Array(this.#own.buffer)
  }
}

function compareSources(a: RecordSource, b: RecordSource): number {
  if (a.partition !== b.partition) return a.partition - b.partition
  const keyStart = b.at + recordHeaderBytes
  return compareRecordKey(a.u8, a.i32, a.at, recordBucket(b.i32, b.at), b.u8, keyStart, recordKeyBytes(b.u8, b.at))
}

/** The version set of an input's record, in the actors of the output. */
function setOf(input: MergeInput): VersionSet {
  const { u8, i32, at } = input.source
  assert(at >= 0, 'An open input has a record')
  if (input.actorIndices === undefined) return decodeRecord(u8, i32, at)
  const own = u8.slice(at, at + recordBytesAt(i32, at))
  const words = new Int32Array(own.buffer)
  translateActors(own, words, 0, input.actorIndices)
  return decodeRecord(own, words, 0)
}
