/**
 * Simulated links between the threads of one node: the door `Shards` of every thread and the door `Replies` of every shard, with
 * queues in place of rings. Threads are numbered as the real ones are: 0 is the front end, shard `s` is thread `s + 1`.
 *
 *   bytes       are copied at `commit` and again at delivery; what is lent out is garbage before and after, and starts anywhere
 *               that the door allows
 *   order       frames from one thread to another keep theirs; which pair goes next is drawn at each `step`, and how many frames
 *               it carries. So any delay and any interleaving between pairs can come
 *   full        a queue holds `queueBytesMax` bytes, and besides refuses one frame in `refusalOneIn`, as a ring that is full
 *               just then
 *   down        a shard that is down takes nothing, and loses what was on its way to it and from it
 *
 * Deterministic: the same seed and calls give the same deliveries.
 */
import assert from 'node:assert/strict'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import type { FrameTarget, Shards } from '../../src/env.ts'
import type { Replies } from '../../src/shard/shard.ts'

export type SimShardsOptions = {
  readonly shards: number
  /** Draws what the door leaves open. */
  readonly random?: SeededRandom
  /** Bytes that may wait between two threads; more is refused. */
  readonly queueBytesMax?: number
  /** One `begin` in so many is refused although there is room; 0: none. A function may change it meanwhile. */
  readonly refusalOneIn?: number | (() => number)
  /** Called when frames became visible: somebody must `step`. */
  readonly onQueued?: () => void
}

export type SimCommandHandler = (thread: number, u8: Uint8Array, i32: Int32Array, start: number, bytes: number) => void
export type SimReplyHandler = (u8: Uint8Array, i32: Int32Array, start: number) => void

/** Frames that a receiver takes before it is asked again whether it takes more, as the real links do it. */
const framesPerPortion = 64
const queueBytesDefault = 64 * 1024 * 1024
const garbage = 0xa5

/** One direction between two threads. */
type Lane = {
  readonly from: number
  readonly to: number
  readonly isReply: boolean
  /** Committed, not visible yet. */
  committed: Uint8Array[]
  /** Visible to the receiver, oldest first. */
  visible: Uint8Array[]
  bytes: number
  reserved:
    | { readonly u8: Uint8Array; readonly i32: Int32Array; readonly start: number; readonly bytes: number }
    | undefined
  /** Memory for what is lent to its sender, used again and again. */
  readonly loan: Loan
}

/** Memory that is lent out, full of garbage whenever it is not. */
type Loan = { u8: Uint8Array; i32: Int32Array }

/** The links of one node. */
export class SimShards {
  readonly #options: SimShardsOptions
  readonly #random: SeededRandom
  readonly #lanes: Lane[] = []
  readonly #down = new Set<number>()
  readonly #commandHandlers: (SimCommandHandler | undefined)[] = []
  readonly #canAccept: (() => boolean)[] = []
  readonly #replyHandlers: (SimReplyHandler | undefined)[] = []
  readonly #deliveries = newLoan(4096)
  /** Replies that found no room, or nobody to take them. */
  droppedReplies = 0

  constructor(options: SimShardsOptions) {
    this.#options = options
    this.#random = options.random ?? new SeededRandom('shards')
  }

  /** Sets who takes the commands of a shard, and whether it takes more just now: asked between portions. */
  serve(shard: number, onCommand: SimCommandHandler, canAccept: () => boolean = () => true): void {
    this.#commandHandlers[shard] = onCommand
    this.#canAccept[shard] = canAccept
  }

  /** Sets who takes the replies for a thread. */
  listen(thread: number, onReply: SimReplyHandler): void {
    this.#replyHandlers[thread] = onReply
  }

  /** The door of a thread's coordinator. */
  door(thread: number): Shards {
    return {
      count: this.#options.shards,
      begin: (shard, bytes) =>
        this.#down.has(shard) ? undefined : this.#begin(this.#lane(thread, shard + 1, false), bytes),
      commit: (shard) => this.#commit(this.#lane(thread, shard + 1, false)),
      publish: () => this.publish(thread),
      isUp: (shard) => !this.#down.has(shard),
    }
  }

  /** The door of a shard's replies. */
  replies(shard: number): Replies {
    return {
      beginReply: (thread, bytes) => {
        const isGone = this.#down.has(shard) || this.#down.has(thread - 1)
        const target = isGone ? undefined : this.#begin(this.#lane(shard + 1, thread, true), bytes)
        if (target === undefined) this.droppedReplies++
        return target
      },
      commitReply: (thread) => this.#commit(this.#lane(shard + 1, thread, true)),
    }
  }

  /** Makes all that a thread committed visible: at the end of its turn, if not before. */
  publish(thread: number): void {
    let isAny = false
    for (const lane of this.#lanes) {
      if (lane.from !== thread || lane.committed.length === 0) continue
      lane.visible.push(...lane.committed)
      lane.committed = []
      isAny = true
    }
    if (isAny) this.#options.onQueued?.()
  }

  /** Frames that are visible and wait for a `step`. */
  get pending(): number {
    let sum = 0
    for (const { visible } of this.#lanes) sum += visible.length
    return sum
  }

  /** Delivers some frames between two threads, both drawn. False if none can be delivered now. */
  step(): boolean {
    const ready = this.#lanes.filter((lane) => lane.visible.length > 0 && this.#takes(lane))
    if (ready.length === 0) return false
    const lane = this.#random.pick(ready)
    const frames = this.#random.between(1, Math.min(framesPerPortion, lane.visible.length))
    for (let frame = 0; frame < frames; frame++) {
      const bytes = lane.visible.shift()
      // The shard may have gone down in its own handler.
      if (bytes === undefined) break
      lane.bytes -= bytes.length
      this.#deliver(lane, bytes)
    }
    return true
  }

  /** Delivers all that can be, also what handlers publish meanwhile. */
  drain(): void {
    while (this.step());
  }

  /** The thread of a shard dies: what was on its way to it or from it is lost, and nothing is taken for it any more. */
  takeDown(shard: number): void {
    this.#down.add(shard)
    for (const lane of this.#lanes) {
      if (lane.to !== shard + 1 && lane.from !== shard + 1) continue
      lane.committed = []
      lane.visible = []
      giveBack(lane)
      lane.bytes = 0
    }
  }

  /** It has a new thread, with new links. */
  bringUp(shard: number): void {
    this.#down.delete(shard)
  }

  #takes({ to, isReply }: Lane): boolean {
    return isReply ? this.#replyHandlers[to] !== undefined : (this.#canAccept[to - 1]?.() ?? false)
  }

  #lane(from: number, to: number, isReply: boolean): Lane {
    const found = this.#lanes.find((lane) => lane.from === from && lane.to === to && lane.isReply === isReply)
    if (found !== undefined) return found
    const lane: Lane = {
      from,
      to,
      isReply,
      committed: [],
      visible: [],
      bytes: 0,
      reserved: undefined,
      loan: newLoan(256),
    }
    this.#lanes.push(lane)
    return lane
  }

  #begin(lane: Lane, bytes: number): FrameTarget | undefined {
    assert.ok(Number.isInteger(bytes) && bytes > 0, 'A frame has bytes')
    giveBack(lane)
    if (lane.bytes + bytes > (this.#options.queueBytesMax ?? queueBytesDefault)) return undefined
    const { refusalOneIn = 0 } = this.#options
    const oneIn = typeof refusalOneIn === 'number' ? refusalOneIn : refusalOneIn()
    if (oneIn > 0 && this.#random.chance(1, oneIn)) return undefined
    const start = this.#lend(lane.loan, bytes)
    lane.reserved = { ...lane.loan, start, bytes }
    return lane.reserved
  }

  /** Where a frame begins in the memory that is lent for it, with garbage in it and around it. */
  #lend(loan: Loan, bytes: number): number {
    const start = this.#random.below(5) * 8
    const wanted = (start + bytes + 7) & ~7
    if (loan.u8.length < wanted) Object.assign(loan, newLoan(2 * wanted))
    return start
  }

  #commit(lane: Lane): void {
    const { reserved } = lane
    assert.ok(reserved !== undefined, 'A frame is committed after it was begun')
    lane.committed.push(reserved.u8.slice(reserved.start, reserved.start + reserved.bytes))
    lane.bytes += reserved.bytes
    giveBack(lane)
  }

  #deliver(lane: Lane, frame: Uint8Array): void {
    const start = this.#lend(this.#deliveries, frame.length)
    const { u8, i32 } = this.#deliveries
    u8.set(frame, start)
    if (lane.isReply) this.#replyHandlers[lane.to]!(u8, i32, start)
    else this.#commandHandlers[lane.to - 1]!(lane.from, u8, i32, start, frame.length)
    u8.fill(garbage, 0, start + frame.length + 8)
  }
}

function newLoan(bytes: number): Loan {
  const u8 = new Uint8Array(bytes).fill(garbage)
  return { u8, i32: new Int32Array(u8.buffer) }
}

/** What a sender did not commit is forgotten, and what it wrote becomes garbage. */
function giveBack(lane: Lane): void {
  const { reserved } = lane
  lane.reserved = undefined
  if (reserved !== undefined) reserved.u8.fill(garbage, 0, reserved.start + reserved.bytes + 8)
}
