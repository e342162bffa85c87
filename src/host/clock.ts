/** The real clock: the door `Clock` over the process. */
import type { EpochMs, MonotonicMs } from '../base/ids.ts'
import type { Clock } from '../env.ts'

export class HostClock implements Clock {
  monotonicMs(): MonotonicMs {
    return performance.now() as MonotonicMs
  }

  epochMs(): EpochMs {
    return Date.now() as EpochMs
  }
}
