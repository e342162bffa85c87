/**
 * Reads hints back after a restart: those that a run before left in the shards, partition by partition, some at a time, as far as the store of
 * hints has room for them. Where it has none the loader stops at that place, and goes on when hints have gone. Hints of this run it may meet,
 * too; the store knows them already. What this run keeps behind its back is in memory, so one pass sees all that a run before left.
 */

import { partitionOfSlot, slotOfKey } from '../cluster/slots.ts'
import { Limits } from '../config.ts'
import { encodeHintKey } from '../shard/hint-record.ts'
import type { HintPlace, ListedHint, LocalReplica } from './local-replica.ts'

export type HintLoaderOptions = {
  readonly replica: Pick<LocalReplica, 'listHints'>
  /** False: there is no room for it now. */
  readonly take: (hint: ListedHint) => boolean
}

/** Slices that are asked for in one tick; of so many bytes each. */
const slicesPerTick = 8
const sliceBytesMax = 256 * 1024
const answerMs = 5000
const retryMs = 1000

export class HintLoader {
  readonly #options: HintLoaderOptions
  /** Undefined: all was read. */
  #place: HintPlace | undefined = { partition: 0, after: undefined }
  #isAsking = false
  #isFull = false
  #slicesLeft = 0
  #notBeforeMs = 0
  /** Some partition here cannot be read: each is asked for alone, and left out if it is the one. */
  #aloneUntil = 0

  constructor(options: HintLoaderOptions) {
    this.#options = options
  }

  /** All that a run before left has been taken. */
  get isDone(): boolean {
    return this.#place === undefined
  }

  /** Hints have gone: the next ones may fit. */
  roomCame(): void {
    this.#isFull = false
  }

  tick(nowMs: number): void {
    if (this.#place === undefined || this.#isAsking || this.#isFull || nowMs < this.#notBeforeMs) return
    this.#slicesLeft = slicesPerTick
    this.#notBeforeMs = nowMs + retryMs
    this.#ask(this.#place)
  }

  #ask(place: HintPlace): void {
    this.#isAsking = true
    this.#slicesLeft--
    const isAlone = place.partition < this.#aloneUntil
    this.#options.replica.listHints(place, isAlone, sliceBytesMax, answerMs, (error, page) => {
      this.#isAsking = false
      if (page === undefined) {
        // Otherwise refused, or its shard is not up yet: tried again later.
        if (error!.code === 'TABLE_CORRUPT') this.#passDamage(place, isAlone)
        return
      }
      this.#notBeforeMs = 0
      this.#place = this.#taken(place, page.hints) ?? page.next
      if (this.#place !== undefined && !this.#isFull && this.#slicesLeft > 0) this.#ask(this.#place)
    })
  }

  #passDamage(place: HintPlace, isAlone: boolean): void {
    this.#aloneUntil = Limits.partitions
    if (!isAlone) return
    const partition = place.partition + 1
    this.#place = partition < Limits.partitions ? { partition, after: undefined } : undefined
  }

  /** Gives hints to the store; where it stopped, if not behind the last. */
  #taken(from: HintPlace, hints: readonly ListedHint[]): HintPlace | undefined {
    let place = from
    for (const hint of hints) {
      if (!this.#options.take(hint)) {
        this.#isFull = true
        return place
      }
      const partition = partitionOfSlot(slotOfKey(hint.key, 0, hint.key.length))
      place = { partition, after: encodeHintKey(hint) }
    }
    return undefined
  }
}
