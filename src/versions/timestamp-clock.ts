/**
 * The times of writes where the last one wins: a hybrid logical clock (Kulkarni et al., 2014). A write gets this host's time, but later than
 * what its key has, and never a time before one that was given or seen already, on whatever key: what a key had may have been deleted
 * and forgotten, and a late copy of it from elsewhere must find the newer write above it though this host's clock was set back.
 *
 *   mark   the highest time given or seen; never goes back, and begins where `begin` says after a restart (storage/store.ts keeps that)
 *   host   the highest time that this host's own clock gave a write
 *
 * What others say counts up to `aheadMsMax` above what this host's clock has said: one wild clock does not drag those of the others. A key
 * that was given a wild time keeps it, and what is written to it later goes above that; its neighbours are left alone.
 *
 * Writes on different keys may have the same time: the mark does not run away from the clock however many there are in a millisecond.
 */
export class TimestampClock {
  readonly #aheadMsMax: number
  #mark = 0
  #hostMs = 0

  /** `aheadMsMax`: milliseconds that the times of others may be ahead of this host's. */
  constructor(aheadMsMax: number) {
    this.#aheadMsMax = aheadMsMax
  }

  /** No time up to here is given any more, unless it is 0: nothing was given yet then. */
  get mark(): number {
    return this.#mark
  }

  /** An earlier run may have given times up to `through`: this one gives later ones. */
  begin(through: number): void {
    if (through <= 0 || through < this.#mark) return
    this.#mark = through + 1
    this.#hostMs = this.#mark
  }

  /** The time of a write that comes at `nowMs` on a key whose latest version is of `latest`; not before `wanted`. */
  next(nowMs: number, wanted: number, latest: number): number {
    const now = Math.floor(nowMs)
    if (now > this.#hostMs) this.#hostMs = now
    const timestamp = Math.max(now, this.#mark, wanted, latest + 1)
    // One more than the mark is an overwrite on this very host: it counts however long the clock stands still.
    if (timestamp <= this.#hostMs + this.#aheadMsMax || timestamp === this.#mark + 1) this.#mark = timestamp
    return timestamp
  }

  /** Another replica gave `timestamp` to a write. */
  see(nowMs: number, timestamp: number): void {
    if (timestamp <= this.#mark || timestamp > Math.max(Math.floor(nowMs), this.#hostMs) + this.#aheadMsMax) return
    this.#mark = timestamp
  }
}
