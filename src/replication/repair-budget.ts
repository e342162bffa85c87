/**
 * The bytes per second that this node spends on bringing replicas together, one budget for all of it, so that repair disturbs requests by so much
 * and no more, whatever there is to repair. Requests of clients need no room here.
 *
 *   hints       what replicas missed, handed to them
 *   exchanges   comparing partitions, and keys that differ
 *   moves       the same for partitions that change their owners, or whose replicas are known to be behind
 *
 * A bucket of tokens, one a byte, that fills at the rate. Who finds it empty waits. Each kind has its own line, and the one that had the fewest
 * bytes of late is next, so each that waits gets its share, and what one does not need the others get. A piece larger than the bucket goes when
 * it is full, and those behind it wait for the debt: large values pass, at the same rate.
 *
 * What peers answer is known only when it has come; it is charged then.
 *
 * An object without a thread: `tick` fills the bucket and calls those who waited. Lines are as long as what their users have under way.
 */
import { assert } from '../base/assert.ts'
import type { Clock } from '../env.ts'

export const repairKinds = ['hints', 'exchanges', 'moves'] as const
export type RepairKind = (typeof repairKinds)[number]

type Waiting = { readonly bytes: number; readonly go: () => void }

/** The bucket holds what comes in so long: longer than between two ticks, short enough that nobody notices a burst. */
const burstMs = 200

export class RepairBudget {
  readonly #clock: Clock
  readonly #bytesPerMs: number
  readonly #tokensMax: number
  #tokens: number
  #filledMs: number
  readonly #lines: Record<RepairKind, Waiting[]> = { hints: [], exchanges: [], moves: [] }
  /** Bytes that each kind had since somebody waits: one that begins to wait starts no lower than those that wait already. */
  readonly #shares: Record<RepairKind, number> = { hints: 0, exchanges: 0, moves: 0 }
  /** Bytes that each kind has used. */
  readonly used: Record<RepairKind, number> = { hints: 0, exchanges: 0, moves: 0 }

  constructor(clock: Clock, bytesPerSecond: number) {
    assert(bytesPerSecond > 0, 'Repair must go on')
    this.#clock = clock
    this.#bytesPerMs = bytesPerSecond / 1000
    this.#tokensMax = this.#bytesPerMs * burstMs
    this.#tokens = this.#tokensMax
    this.#filledMs = clock.monotonicMs()
  }

  /** How many wait. */
  get waiting(): number {
    return repairKinds.reduce((count, kind) => count + this.#lines[kind].length, 0)
  }

  /** Calls `go` when there is room for so many bytes: now, or at a later tick. */
  ask(kind: RepairKind, bytes: number, go: () => void): void {
    this.#fill()
    if (this.waiting === 0 && this.#tokens > 0) {
      this.charge(kind, bytes)
      return go()
    }
    if (this.#lines[kind].length === 0) {
      const others = repairKinds.filter((other) => this.#lines[other].length > 0).map((other) => this.#shares[other])
      // What was used while nobody waited is held against nobody.
      if (others.length === 0) for (const other of repairKinds) this.#shares[other] = 0
      else this.#shares[kind] = Math.max(this.#shares[kind], Math.min(...others))
    }
    this.#lines[kind].push({ bytes, go })
  }

  /** Bytes that have come or gone already. */
  charge(kind: RepairKind, bytes: number): void {
    this.#tokens -= bytes
    if (this.waiting > 0) this.#shares[kind] += bytes
    this.used[kind] += bytes
  }

  tick(): void {
    this.#fill()
    while (this.#tokens > 0) {
      const next = this.#next()
      if (next === undefined) return
      const { bytes, go } = this.#lines[next][0]!
      this.charge(next, bytes)
      this.#lines[next].shift()
      go()
    }
  }

  #fill(): void {
    const nowMs = this.#clock.monotonicMs()
    this.#tokens = Math.min(this.#tokensMax, this.#tokens + (nowMs - this.#filledMs) * this.#bytesPerMs)
    this.#filledMs = nowMs
  }

  /** The line that is owed most. */
  #next(): RepairKind | undefined {
    let next: RepairKind | undefined
    for (const kind of repairKinds) {
      if (this.#lines[kind].length === 0) continue
      if (next === undefined || this.#shares[kind] < this.#shares[next]) next = kind
    }
    return next
  }
}
