/**
 * When a shard's open group goes to disk. A sync costs as much for a hundred records as for one, so a group that must be synced
 * stays open while more commands come in, for a moment. It is closed in the first turn that brings nothing: alone on the
 * machine, a writer waits for one pass of the event loop more. A group that is only written is closed at once: its writers go on
 * sooner, and a write is cheap.
 */

const recordsMax = 1024
const openMsMax = 0.5

/** Decides for one shard. Times are monotonic milliseconds. */
export class GroupPace {
  /** When the open group was first left open; -1: none is. */
  #openSinceMs = -1

  /** Whether a group of `records` stays open in a turn that brought `commands`. */
  staysOpen(commands: number, records: number, mustSync: boolean, nowMs: number): boolean {
    const isOver =
      !mustSync ||
      commands === 0 ||
      records === 0 ||
      records >= recordsMax ||
      (this.#openSinceMs >= 0 && nowMs - this.#openSinceMs >= openMsMax)
    if (isOver) this.#openSinceMs = -1
    else if (this.#openSinceMs < 0) this.#openSinceMs = nowMs
    return !isOver
  }
}
