/**
 * Whether the disk has room, and what is to become of its reserve. Pure: free bytes and errors in, a state and an action out.
 *
 *   roomy   growth is taken. A reserve lies on the disk: a file of zeros.
 *   full    growth is refused. From the reserve, once it was given up, go on: deletes, flushes and merges, which make room.
 *
 *   roomy -> full    available bytes fall below `lowBytes`, before anything fails; or something met DISK_FULL
 *   full -> roomy    available bytes are at least `highBytes`, and the reserve stands
 *
 * `lowBytes` are as many as the reserve, and a slack that grows with the disk: partitions do, and a merge writes one of them whole
 * before its inputs go.
 *
 * Available is what is free beside the reserve: as long as that is missing, it is taken off. The reserve is given up when DISK_FULL
 * was met, and taken again when there is room for it and for `highBytes` more, so that the state does not flutter. Where a disk says
 * that it has room and refuses all the same (a quota), each return to growth waits longer.
 *
 * Not here: files and figures (disk-keeper.ts), what is refused (store.ts).
 */
import { assert } from '../base/assert.ts'

/** What the owner of the reserve is to do now. */
export type ReserveAction = 'give up' | 'take' | undefined

/** Growth is taken again with so much more available than the amount below which it is refused. */
const highShare = 1.5
const holdMs = { first: 1_000, max: 30_000 } as const
/** With less than so many times `lowBytes` free, a merge that does not fit is not begun. */
const scarceFactor = 8
/** Who meets DISK_FULL again within this time after a return to growth waits longer the next time. */
const calmMs = 60_000

export class DiskSpace {
  readonly reserveBytes: number
  /** Growth is refused below this, and taken again from `highBytes` on. */
  readonly lowBytes: number
  readonly highBytes: number
  #isFull = false
  #holdsReserve: boolean
  #isWithoutReserve = false
  #holdUntilMs = Number.NEGATIVE_INFINITY
  #holdMs: number = holdMs.first
  #roomySinceMs = Number.NEGATIVE_INFINITY
  #mustGiveUp = false

  /** `holdsReserve`: the last run left one of this size. */
  constructor(reserveBytes: number, slackBytes: number, holdsReserve: boolean) {
    assert(reserveBytes > 0, 'A reserve has bytes')
    this.reserveBytes = reserveBytes
    this.lowBytes = reserveBytes + slackBytes
    this.highBytes = Math.ceil(this.lowBytes * highShare)
    this.#holdsReserve = holdsReserve
  }

  /** Growth is refused. */
  get isFull(): boolean {
    return this.#isFull
  }

  /** Whether a merge must fit into `freeBytes` as a whole: begun and not ended, it would take the room that deletes and others need. */
  isScarce(freeBytes: number): boolean {
    return this.#isFull || freeBytes < scarceFactor * this.lowBytes
  }

  /** Whether the reserve stands on the disk. */
  get holdsReserve(): boolean {
    return this.#holdsReserve
  }

  /** Something met DISK_FULL: what is left is not for growth. */
  met(nowMs: number): void {
    if (!this.#isFull) {
      const isSoon = nowMs - this.#roomySinceMs < calmMs
      this.#holdMs = isSoon ? Math.min(holdMs.max, this.#holdMs * 2) : holdMs.first
      this.#isFull = true
    }
    this.#holdUntilMs = nowMs + this.#holdMs
    this.#mustGiveUp = this.#holdsReserve
  }

  /** Takes the free bytes of the file system, and says what to do about the reserve; the answer is `gaveUp`, `took` or `tookNot`. */
  look(freeBytes: number, nowMs: number): ReserveAction {
    const isMissing = !this.#holdsReserve && !this.#isWithoutReserve
    const availableBytes = freeBytes - (isMissing ? this.reserveBytes : 0)
    if (availableBytes < this.lowBytes) this.#isFull = true
    if (this.#mustGiveUp) return 'give up'
    if (availableBytes < this.highBytes || nowMs < this.#holdUntilMs) return undefined
    if (isMissing) return 'take'
    if (this.#isFull) {
      this.#isFull = false
      this.#roomySinceMs = nowMs
    }
    return undefined
  }

  /** The file of the reserve is gone. */
  gaveUp(): void {
    this.#mustGiveUp = false
    this.#holdsReserve = false
  }

  /** The file of the reserve is whole and durable. */
  took(): void {
    this.#holdsReserve = true
  }

  /** There was no room for the reserve after all. */
  tookNot(nowMs: number): void {
    this.#isFull = true
    this.#holdMs = Math.min(holdMs.max, this.#holdMs * 2)
    this.#holdUntilMs = nowMs + this.#holdMs
  }

  /** No reserve can be had in this run, for another reason than room: free bytes alone decide. */
  goWithout(): void {
    this.#holdsReserve = false
    this.#mustGiveUp = false
    this.#isWithoutReserve = true
  }
}
