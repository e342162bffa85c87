/**
 * What this node knows of how its replicas of partitions stand to those of other nodes, by partition and peer:
 *
 *   unknown   not compared in this run: after a start everything is compared anew, so nothing here needs to outlive one
 *   equal     all that was written on either side before `asOfMs` is on both, proved by an exchange that left nothing out; and no write that
 *             this node coordinated has missed the peer since
 *   behind    the peer missed a write since that exchange began: `equalAsOfMs` still holds, later writes are with hints
 *   marked    more than that: a hint of it was dropped, or an exchange found more than it could bring together, so that only another one can
 *             tell. Marked ones are compared first
 *
 * A mark goes only when an exchange that began after it ended, and left nothing out. So it does not matter how often one fails.
 *
 * Pure but for its clock. Bound: partitions times peers of each.
 */
import type { Clock } from '../env.ts'

export type RepairState = 'unknown' | 'equal' | 'behind' | 'marked'

/** How this node stands to a peer with a partition. */
export type RepairStatus = {
  readonly state: RepairState
  /** Wall clock: what both sides had then, both have; undefined: not known. */
  readonly equalAsOfMs: number | undefined
  /** Epoch in which the exchange that proved it began; 0: none. */
  readonly epoch: number
  /** Keys that it brought together. */
  readonly keysRepaired: number
}

type Entry = {
  equalAsOfMs: number | undefined
  epoch: number
  keysRepaired: number
  /** Numbers of the last write that was missed, and of the last mark; 0: none that an exchange has not seen. */
  missed: number
  marked: number
}

/** An exchange that has begun. */
export type Begun = {
  readonly partition: number
  readonly peer: string
  readonly epoch: number
  readonly number: number
  readonly asOfMs: number
}

export type Mark = { readonly partition: number; readonly peer: string }

const unknown: RepairStatus = { state: 'unknown', equalAsOfMs: undefined, epoch: 0, keysRepaired: 0 }

export class RepairLedger {
  readonly #clock: Clock
  readonly #entries = new Map<string, Entry>()
  readonly #marks = new Map<string, Mark>()
  /** Orders misses, marks and exchanges. */
  #number = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Pairs that are to be compared first, the one that was tried longest ago first. */
  get marks(): Iterable<Mark> {
    return this.#marks.values()
  }

  get markCount(): number {
    return this.#marks.size
  }

  /** A write did not reach a peer; a hint tells of it. */
  missed(partition: number, peer: string): void {
    this.#entryOf(nameOf(partition, peer)).missed = ++this.#number
  }

  /** A write did not reach a peer, and nothing else will tell of it. */
  mark(partition: number, peer: string): void {
    const name = nameOf(partition, peer)
    this.#entryOf(name).marked = ++this.#number
    if (!this.#marks.has(name)) this.#marks.set(name, { partition, peer })
  }

  /** The pair is none any more, or cannot be compared just now: others that are marked come before it. */
  passOver({ partition, peer }: Mark, isKept: boolean): void {
    const name = nameOf(partition, peer)
    const mark = this.#marks.get(name)
    this.#marks.delete(name)
    if (isKept && mark !== undefined) this.#marks.set(name, mark)
    else if (!isKept) this.#entries.delete(name)
  }

  begin(partition: number, peer: string, epoch: number): Begun {
    return { partition, peer, epoch, number: ++this.#number, asOfMs: this.#clock.epochMs() }
  }

  /** An exchange ended, and left nothing out. */
  equal({ partition, peer, epoch, number, asOfMs }: Begun, keysRepaired: number): void {
    const name = nameOf(partition, peer)
    const entry = this.#entryOf(name)
    entry.equalAsOfMs = asOfMs
    entry.epoch = epoch
    entry.keysRepaired = keysRepaired
    if (entry.missed < number) entry.missed = 0
    if (entry.marked >= number) return
    entry.marked = 0
    this.#marks.delete(name)
  }

  statusOf(partition: number, peer: string): RepairStatus {
    const entry = this.#entries.get(nameOf(partition, peer))
    if (entry === undefined) return unknown
    const { equalAsOfMs, epoch, keysRepaired, missed, marked } = entry
    const proved = equalAsOfMs === undefined ? 'unknown' : 'equal'
    const state = marked > 0 ? 'marked' : missed > 0 ? 'behind' : proved
    return { state, equalAsOfMs, epoch, keysRepaired }
  }

  #entryOf(name: string): Entry {
    let entry = this.#entries.get(name)
    if (entry === undefined) {
      entry = { equalAsOfMs: undefined, epoch: 0, keysRepaired: 0, missed: 0, marked: 0 }
      this.#entries.set(name, entry)
    }
    return entry
  }
}

function nameOf(partition: number, peer: string): string {
  return `${partition} ${peer}`
}
