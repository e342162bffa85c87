/**
 * The real clock: the door `Clock` over the process. Monotonic time counts from the start of the process or worker thread, so
 * its numbers must not be compared between threads.
 */
import type { EpochMs, MonotonicMs } from '../base/ids.ts'
import type { Clock } from '../env.ts'

/** The time of the system. */
export class HostClock implements Clock {
  monotonicMs(): MonotonicMs {
    return performance.now() as MonotonicMs
  }

  epochMs(): EpochMs {
    return Date.now() as EpochMs
  }
}
