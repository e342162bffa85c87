/**
 * Whether a thread that serves others may wait for reads of tables itself. A block that the kernel holds comes in one or two
 * microseconds, far below the cost of another thread; a block that only the disk holds may take any time. So reads are made on the
 * spot while next to none of the latest took long, and through the pool for a while as soon as some did. What a few reads find
 * out at the end of that while decides how it goes on.
 *
 * A read also takes long where the thread lost its processor meanwhile. Where the system can tell that the device was not asked for
 * anything, such a read says nothing about the disk.
 */
import type { Clock } from '../env.ts'

/** Judges the reads of one thread; `begin` and `end` stand around each of them. */
export type ReadPacing = {
  mayWait(): boolean
  begin(): number
  /** True: that read was a slow one. */
  end(startMs: number, bytes: number): boolean
}

const slowMs = 0.05
/** What comes from memory comes at least this fast, bytes a millisecond. */
const fastBytesPerMs = 1_000_000
/** Reads that are judged together, and how many of them may be slow: with one more, their 99th percentile is above `slowMs`. */
const windowReads = 256
const slowReadsMax = 2
/** How long a thread rests from waiting: so many times what the last slow read took, and so long at least. It waits a fiftieth of its time. */
const restShare = 50
const restMsLeast = 5

/** One per thread and disk. */
export class ReadPace implements ReadPacing {
  readonly #clock: Clock
  readonly #deviceBytes: () => number | undefined
  #deviceBytesBefore: number
  #reads = 0
  #slowReads = 0
  #restsUntilMs = Number.NEGATIVE_INFINITY
  #isResting = false

  /** `deviceBytes` is what this thread has had the device read so far; undefined where the system does not say. */
  constructor(clock: Clock, deviceBytes: () => number | undefined = () => undefined) {
    this.#clock = clock
    this.#deviceBytes = deviceBytes
    this.#deviceBytesBefore = deviceBytes() ?? 0
  }

  mayWait(): boolean {
    if (!this.#isResting) return true
    if (this.#clock.monotonicMs() < this.#restsUntilMs) return false
    this.#isResting = false
    // The first slow one of those that follow ends the trial.
    this.#reads = 0
    this.#slowReads = slowReadsMax
    return true
  }

  begin(): number {
    return this.#clock.monotonicMs()
  }

  end(startMs: number, bytes: number): boolean {
    const nowMs = this.#clock.monotonicMs()
    const isSlow = nowMs - startMs > slowMs + bytes / fastBytesPerMs && this.#wasOfDevice()
    if (isSlow && ++this.#slowReads > slowReadsMax) {
      this.#isResting = true
      this.#restsUntilMs = nowMs + Math.max(restMsLeast, restShare * (nowMs - startMs))
    } else if (++this.#reads >= windowReads) {
      this.#reads = 0
      this.#slowReads = 0
    }
    return isSlow
  }

  /** Whether the device was asked for anything since the last slow read. */
  #wasOfDevice(): boolean {
    const deviceBytes = this.#deviceBytes()
    if (deviceBytes === undefined) return true
    const before = this.#deviceBytesBefore
    this.#deviceBytesBefore = deviceBytes
    return deviceBytes !== before
  }
}
