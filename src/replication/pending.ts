/**
 * The requests of one thread that wait for a shard: a fixed table of slots, swept by `tick` for deadlines. A request id is a
 * slot and its turn, so a late reply to a slot that serves another request by now is recognised and dropped.
 */
import { assert } from '../base/assert.ts'
import { Limits } from '../config.ts'

const slotBits = Math.log2(Limits.pendingRequestsMax)
const slotMask = Limits.pendingRequestsMax - 1
const turnMask = (1 << (32 - slotBits)) - 1

export class PendingTable<Request> {
  readonly #requests: (Request | undefined)[] = new Array(Limits.pendingRequestsMax).fill(undefined)
  readonly #deadlines = new Float64Array(Limits.pendingRequestsMax)
  readonly #shards = new Uint8Array(Limits.pendingRequestsMax)
  readonly #turns = new Uint32Array(Limits.pendingRequestsMax)
  readonly #free = new Uint16Array(Limits.pendingRequestsMax)
  #freeCount: number = Limits.pendingRequestsMax

  constructor() {
    for (let slot = 0; slot < Limits.pendingRequestsMax; slot++) {
      this.#free[slot] = Limits.pendingRequestsMax - 1 - slot
    }
  }

  get count(): number {
    return Limits.pendingRequestsMax - this.#freeCount
  }

  get isFull(): boolean {
    return this.#freeCount === 0
  }

  /** Takes a slot; the caller has checked `isFull`. Returns the request id, a u32. */
  add(request: Request, shard: number, deadlineMs: number): number {
    assert(this.#freeCount > 0, 'There is a free slot')
    const slot = this.#free[--this.#freeCount]!
    this.#requests[slot] = request
    this.#shards[slot] = shard
    this.#deadlines[slot] = deadlineMs
    return ((this.#turns[slot]! << slotBits) | slot) >>> 0
  }

  /** Takes the request of an id out of the table; undefined if it is no longer there. */
  take(requestId: number): Request | undefined {
    const slot = requestId & slotMask
    const request = this.#requests[slot]
    if (request === undefined || this.#turns[slot] !== requestId >>> slotBits) return undefined
    this.#release(slot)
    return request
  }

  /** Takes out every request whose deadline has passed. */
  sweep(nowMs: number, expired: (request: Request) => void): void {
    if (this.#freeCount === Limits.pendingRequestsMax) return
    for (let slot = 0; slot < Limits.pendingRequestsMax; slot++) {
      const request = this.#requests[slot]
      if (request === undefined || this.#deadlines[slot]! > nowMs) continue
      this.#release(slot)
      expired(request)
    }
  }

  /** Takes out every request that waits for `shard`, or for any if -1. */
  failShard(shard: number, failed: (request: Request) => void): void {
    for (let slot = 0; slot < Limits.pendingRequestsMax; slot++) {
      const request = this.#requests[slot]
      if (request === undefined || (shard >= 0 && this.#shards[slot] !== shard)) continue
      this.#release(slot)
      failed(request)
    }
  }

  /** The requests that are in the table now. */
  requests(): ReadonlySet<Request> {
    return new Set(this.#requests.filter((request) => request !== undefined))
  }

  #release(slot: number): void {
    this.#requests[slot] = undefined
    this.#turns[slot] = (this.#turns[slot]! + 1) & turnMask
    this.#free[this.#freeCount++] = slot
  }
}
