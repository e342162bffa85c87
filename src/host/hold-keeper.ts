/**
 * The hold of a node's files for a backup: one at a time, all shards together. A shard that crashes forgets that it holds, and its
 * successor writes where it likes, so a crash breaks the hold; so does a log that is held for too long, since no memory comes back
 * meanwhile, and then all is let go, and another backup may begin: a copying process that stands still is in nobody's way. It asks
 * whether the hold still stands before it counts on what it copied.
 */
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { HeldShard } from '../storage/hold.ts'
import type { ControlNode, HeldNode, Hold } from './control-socket.ts'

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
  #present: object | undefined

  constructor(node: HoldingNode, logHoldMs: number = Limits.backupLogHoldMs) {
    this.#node = node
    this.#logHoldMs = logHoldMs
  }

  async hold(): Promise<Hold> {
    const node = this.#node
    if (this.#present !== undefined) {
      throw new SunwiseError('OVERLOADED', 'Cannot begin a backup: another one is under way')
    }
    if (node.problem !== undefined) throw new SunwiseError('NOT_READY', `Cannot begin a backup: ${node.problem}`)
    const own = {}
    this.#present = own
    let isCut = false
    const crashesBefore = node.crashes
    const release = (what: 'log' | 'all'): void => {
      clearTimeout(timer)
      if (this.#present !== own) return
      if (what === 'all') this.#present = undefined
      node.releaseShards(what)
    }
    const timer = setTimeout(() => {
      isCut = true
      release('all')
    }, this.#logHoldMs)
    timer.unref()
    const check = (): void => {
      if (isCut) {
        const message = `Cannot back up: the logs were not copied within ${this.#logHoldMs / 1000} s, and their memory is needed; back up to a faster disk`
        throw new SunwiseError('OVERLOADED', message)
      }
      if (node.crashes === crashesBefore) return
      throw new SunwiseError('SHARD_UNAVAILABLE', 'Cannot back up: a shard crashed meanwhile; begin again')
    }
    try {
      await node.holdShards()
      // Once more, now that all hold: a table of two shards may have gone before the second of them held.
      const shards = await node.holdShards()
      check()
      return { held: { ...node.describe(), shards }, check, release }
    } catch (error) {
      release('all')
      // A shard may have begun to hold after all was let go for want of time.
      if (this.#present === undefined) node.releaseShards('all')
      throw error
    }
  }
}
