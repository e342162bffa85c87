/**
 * How fast compaction and other background jobs may go. They give way to requests (as SILK does: Balmau et al., ATC 2019): while
 * reads of tables take long, or shards come late to their turns, jobs go slower step by step, and faster again when nothing is
 * disturbed. What they owe sets a floor under that, since merging that is put off makes every read dearer; with half of the debt
 * that stops writers they are not held back at all. Flushes are never paced: writers wait for them.
 *
 * Arithmetic only: the node thread reads the signals and sets the rate.
 */

export type JobSignals = {
  /** Greatest debt of all shards: 0 keeps pace, at 1 writers stop. */
  readonly debt: number
  /** Reads of tables since the last look that took long. */
  readonly slowReads: number
  /** By how much a shard came late to a turn, at the most, milliseconds. */
  readonly lateMs: number
}

const MiB = 1024 * 1024
const leastBytesPerSecond = 24 * MiB
const mostBytesPerSecond = 512 * MiB
const slowReadsMax = 16
const lateMsMax = 5
/** From this debt on, jobs are not held back. */
const debtFree = 0.5

export class JobPace {
  #rate = mostBytesPerSecond

  /** The rate from now on, bytes a second; 0: as fast as it goes. */
  next({ debt, slowReads, lateMs }: JobSignals): number {
    const isDisturbed = slowReads > slowReadsMax || lateMs > lateMsMax
    this.#rate = isDisturbed ? Math.max(leastBytesPerSecond, this.#rate / 2) : this.#rate * 1.25
    this.#rate = Math.min(mostBytesPerSecond, this.#rate)
    if (debt >= debtFree) return 0
    const floor = leastBytesPerSecond + (mostBytesPerSecond - leastBytesPerSecond) * (debt / debtFree)
    const rate = Math.max(floor, this.#rate)
    return rate >= mostBytesPerSecond ? 0 : rate
  }
}
