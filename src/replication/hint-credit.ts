/**
 * How many hints a node takes from others at a time: it tells so with every answer to one, and who has hints for it keeps to that. A node that
 * was away comes back to hints of everybody, and to requests, with cold caches; so it begins with few, takes more as long as it does so
 * quickly, and half as many when a shard refuses one or takes long.
 *
 *   window     hints under way from all nodes together: 4 at first, one more for each window that went well, at most `windowMax`
 *   share      the window, divided by the nodes that had hints lately: what each is told. 0: none for a while
 */
import type { Clock } from '../env.ts'

const windowFirst = 4
const windowMax = 64
/** A hint that takes longer is a sign that there are too many. */
const slowMs = 200
/** A node that sent none for so long has none. */
const senderMs = 5000
/** Nodes that are remembered; those that sent the longest time ago are forgotten. */
const sendersMax = 1024

export class HintCredit {
  readonly #clock: Clock
  #window = windowFirst
  #shrunkMs = Number.NEGATIVE_INFINITY
  /** By node, when it sent the last; the longest ago first. */
  readonly #senders = new Map<string, number>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Hints that may be under way to this node, of all others together. */
  get window(): number {
    return Math.floor(this.#window)
  }

  /** A hint came. What is returned is to be called when it was taken or refused, and says how many the node may send from then on. */
  begin(from: string): (isTaken: boolean) => number {
    const beganMs = this.#clock.monotonicMs()
    this.#senders.delete(from)
    this.#senders.set(from, beganMs)
    for (const [node, lastMs] of this.#senders) {
      if (beganMs - lastMs <= senderMs && this.#senders.size <= sendersMax) break
      this.#senders.delete(node)
    }
    return (isTaken) => {
      const nowMs = this.#clock.monotonicMs()
      if (isTaken && nowMs - beganMs < slowMs) this.#window = Math.min(windowMax, this.#window + 1 / this.#window)
      else if (nowMs - this.#shrunkMs >= slowMs) {
        // Those that were under way with it are slow for the same reason.
        this.#shrunkMs = nowMs
        this.#window = Math.max(1, this.#window / 2)
      }
      return Math.floor(this.#window / Math.max(1, this.#senders.size))
    }
  }
}
