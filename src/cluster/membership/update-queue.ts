/**
 * News about members on its way: each piece travels along with whatever is sent anyway, so many times that all have it with high
 * probability (Das, Gupta, Motivala, "SWIM", 2002: a multiple of log n), the least sent first. Newer news of a member replaces older.
 */

type Queued<Update> = { readonly update: Update; readonly bytes: number; sent: number; readonly order: number }

export class UpdateQueue<Update extends { readonly nodeId: string }> {
  readonly #retransmitMultiplier: number
  readonly #queued = new Map<string, Queued<Update>>()
  #order = 0

  constructor(retransmitMultiplier: number) {
    this.#retransmitMultiplier = retransmitMultiplier
  }

  get length(): number {
    return this.#queued.size
  }

  /** `bytes` is its length in a message. */
  add(update: Update, bytes: number): void {
    this.#queued.set(update.nodeId, { update, bytes, sent: 0, order: this.#order++ })
  }

  /** What fits into `bytesMax`, and counts it as sent once more, in a cluster of `members`. */
  take(bytesMax: number, members: number): Update[] {
    if (this.#queued.size === 0) return []
    const sendsMax = this.#retransmitMultiplier * Math.ceil(Math.log10(members + 1))
    // Of those that were sent as often, the newest first: it has the fewest that know it.
    const byNeed = [...this.#queued.values()].sort((a, b) => a.sent - b.sent || b.order - a.order)
    const taken: Update[] = []
    let left = bytesMax
    for (const queued of byNeed) {
      if (queued.bytes > left) continue
      left -= queued.bytes
      taken.push(queued.update)
      if (++queued.sent >= sendsMax) this.#queued.delete(queued.update.nodeId)
    }
    return taken
  }
}
