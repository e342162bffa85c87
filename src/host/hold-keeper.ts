/**
 * The hold of a node's files for a backup: one at a time, all shards together. A shard that crashes forgets that it holds, and its
 * successor writes where it likes, so a crash breaks the hold; so does a log that is held for too long, since no memory comes back
 * meanwhile. The copying process asks whether the hold still stands before it counts on what it copied.
 */
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { HeldShard } from '../storage/hold.ts'
import type { ControlNode, HeldNode } from './control-socket.ts'

/** What it needs of its node. */
export type HoldingNode = {
  /** Why it cannot hold anything now; undefined: it can. */
  readonly problem: string | undefined
  /** Crashes of shards so far. */
  readonly crashes: number
  /** Lets every shard hold; rejects where one crashes. Shards that hold already answer with what they hold now. */
  holdShards(): Promise<readonly HeldShard[]>
  releaseShards(what: 'log' | 'all'): void
  /** What a backup says of the node itself. */
  describe(): Omit<HeldNode, 'shards'>
}

export class HoldKeeper implements ControlNode {
  readonly #node: HoldingNode
  readonly #logHoldMs: number
  #isHeld = false
  #crashesBefore = 0
  #timer: NodeJS.Timeout | undefined
  #isCut = false

  constructor(node: HoldingNode, logHoldMs: number = Limits.backupLogHoldMs) {
    this.#node = node
    this.#logHoldMs = logHoldMs
  }

  async hold(): Promise<HeldNode> {
    const node = this.#node
    if (this.#isHeld) throw new SunwiseError('OVERLOADED', 'Cannot begin a backup: another one is under way')
    if (node.problem !== undefined) throw new SunwiseError('NOT_READY', `Cannot begin a backup: ${node.problem}`)
    this.#isHeld = true
    this.#isCut = false
    this.#crashesBefore = node.crashes
    this.#timer = setTimeout(() => this.#cut(), this.#logHoldMs)
    this.#timer.unref()
    try {
      await node.holdShards()
      // Once more, now that all hold: a table of two shards may have gone before the second of them held.
      const shards = await node.holdShards()
      this.checkHold()
      return { ...node.describe(), shards }
    } catch (error) {
      this.releaseHold('all')
      throw error
    }
  }

  releaseHold(what: 'log' | 'all'): void {
    clearTimeout(this.#timer)
    if (what === 'all') this.#isHeld = false
    this.#node.releaseShards(what)
  }

  checkHold(): void {
    if (this.#isCut) {
      const message = `Cannot back up: the logs were not copied within ${this.#logHoldMs / 1000} s, and their memory is needed; back up to a faster disk`
      throw new SunwiseError('OVERLOADED', message)
    }
    if (this.#node.crashes === this.#crashesBefore) return
    throw new SunwiseError('SHARD_UNAVAILABLE', 'Cannot back up: a shard crashed meanwhile; begin again')
  }

  #cut(): void {
    this.#isCut = true
    this.#node.releaseShards('log')
  }
}
