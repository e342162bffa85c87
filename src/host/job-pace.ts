/**
 * How fast compaction and other background jobs may go. They give way to requests (as SILK does: Balmau et al., ATC 2019): while
 * reads of tables take long, or shards come late to their turns, jobs go slower step by step, and faster again when nothing is
 * disturbed. What they owe sets a floor under that, since merging that is put off makes every read dearer; with half of the debt
 * that stops writers they are not held back at all, nor do they rest between bursts (job-worker.ts). Flushes have no rate: writers
 * wait for them.
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

export type JobRate = {
  /** What a job may read and write together, bytes a second; 0: as much as it can. */
  readonly bytesPerSecond: number
  /** Whether jobs work in short bursts, so that whoever needs the processor gets it soon. */
  readonly rests: boolean
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

  /** The rate from now on. */
  next({ debt, slowReads, lateMs }: JobSignals): JobRate {
    const isDisturbed = slowReads > slowReadsMax || lateMs > lateMsMax
    this.#rate = isDisturbed ? Math.max(leastBytesPerSecond, this.#rate / 2) : this.#rate * 1.25
    this.#rate = Math.min(mostBytesPerSecond, this.#rate)
    if (debt >= debtFree) return { bytesPerSecond: 0, rests: false }
    const floor = leastBytesPerSecond + (mostBytesPerSecond - leastBytesPerSecond) * (debt / debtFree)
    const rate = Math.max(floor, this.#rate)
    return { bytesPerSecond: rate >= mostBytesPerSecond ? 0 : rate, rests: true }
  }
}

/** Bytes after which a job looks at its rate. */
const pacedBytes = 256 * 1024
/**
 * A job works for so long at a stretch, milliseconds, and then rests. Without that, a thread that a job displaced from its processor
 * would get it back at the end of the job's time slice, which is 3 to 4 ms: reads would wait for so long, and all behind them. The
 * system adds about 0.05 ms to a rest.
 */
const burstMs = 0.25
const restMs = 0.05
const flushRestMs = 0.2

/** When one job rests, and for how long: after each burst, and where it is ahead of its rate. */
export class JobBursts {
  readonly #isPaced: boolean
  #burstSinceMs: number
  #rateSinceMs: number
  #bytes = 0

  constructor(isPaced: boolean, nowMs: number) {
    this.#isPaced = isPaced
    this.#burstSinceMs = nowMs
    this.#rateSinceMs = nowMs
  }

  /** Milliseconds that the job rests now that it has dealt with `bytes` more; 0: it goes on. */
  restMs(bytes: number, nowMs: number, { bytesPerSecond, rests }: JobRate): number {
    this.#bytes += bytes
    if (this.#isPaced && this.#bytes >= pacedBytes) {
      const wantedMs = bytesPerSecond === 0 ? 0 : (this.#bytes / bytesPerSecond) * 1000
      const aheadMs = wantedMs - (nowMs - this.#rateSinceMs)
      this.#bytes = 0
      this.#rateSinceMs = nowMs + Math.max(0, aheadMs)
      if (aheadMs > 0) return aheadMs
    }
    if (nowMs - this.#burstSinceMs < burstMs) return 0
    if (!this.#isPaced) return flushRestMs
    if (rests) return restMs
    this.#burstSinceMs = nowMs
    return 0
  }

  /** The rest is over. */
  resume(nowMs: number): void {
    this.#burstSinceMs = nowMs
  }
}
