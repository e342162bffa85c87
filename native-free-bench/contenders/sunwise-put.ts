/**
 * Sunwise overwriting random keys through the library, each call awaited: single puts so many in flight, or batches. Counts
 * wakes of the caller and what the shards wrote and synced.
 */
import type { Durability } from '../../src/config.ts'
import type { Hosted } from '../isolate.ts'
import { keyBytes, writeKey } from '../key-set.ts'
import { timeInFlight } from '../timing.ts'
import { openFilled, putOf } from './sunwise-store.ts'

type Options = {
  readonly scratch: string
  readonly keys: number
  readonly roundMs: number
  readonly shards: number
  readonly durability: Durability
  /** Calls awaited at once. */
  readonly inFlight: number
  /** Operations of one call; 1 is `put`, more is `batch`. */
  readonly batch: number
}

export async function open(options: Options): Promise<Hosted> {
  const { roundMs, inFlight, batch } = options
  const filled = await openFilled(options)
  const { store, set } = filled
  let probe = 0
  const put = (): Promise<unknown> => {
    const key = Buffer.allocUnsafe(keyBytes)
    writeKey(set.probeIndices[probe]!, key, 0)
    const value = set.value(probe * 7)
    if (++probe === set.probeCount) probe = 0
    return store.put(key, value)
  }
  const putBatch = (): Promise<void> => {
    const operations = Array.from({ length: batch }, () => {
      if (++probe >= set.probeCount) probe = 0
      return putOf(set, set.probeIndices[probe]!, probe * 7)
    })
    return filled.batch(operations)
  }
  return {
    run: () => timeInFlight(roundMs, inFlight, batch, batch === 1 ? put : putBatch),
    totals: () => filled.totals(),
    close: () => filled.close(),
  }
}
