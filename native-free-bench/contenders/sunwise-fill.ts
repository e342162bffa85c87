/**
 * Sunwise filled with random keys far beyond its memory, each round a new store: the clock runs from the first put to the last
 * answer, with the flushes and compactions that come meanwhile. Counts what was written for each byte that was put.
 */
import type { Measurement } from '../case.ts'
import { totalsNow } from '../counts.ts'
import type { Hosted } from '../isolate.ts'
import { keyBytes } from '../key-set.ts'
import { spaceAmplification } from '../store-files.ts'
import { TableStore } from './table-store.ts'

type Options = {
  readonly scratch: string
  readonly keys: number
  readonly memoryBytes: number
  readonly valueBytes: number
  readonly inFlight: number
  readonly batch: number
  /** Counts are taken when compaction has come to an end, else right behind the last answer. */
  readonly settles: boolean
}

export function open(options: Options): Hosted {
  const { keys, valueBytes, inFlight, batch, settles } = options
  let seed = 0
  const run = async (): Promise<Measurement> => {
    const filled = await TableStore.open(options)
    try {
      const before = totalsNow()['written B']
      const start = performance.now()
      await filled.fill({ keys, operations: keys, inFlight, batch, seed: ++seed })
      const elapsedMs = performance.now() - start
      if (settles) await filled.settled()
      const written = totalsNow()['written B']
      const counts: Record<string, number> = {
        ...filled.shape(),
        'space amp': spaceAmplification(filled.bytesOnDisk, keys, valueBytes),
      }
      if (before !== undefined && written !== undefined) {
        counts['write amp'] = (written - before) / (keys * (keyBytes + valueBytes))
      }
      if (settles) counts['settle ms'] = performance.now() - start - elapsedMs
      return { value: (keys * 1000) / elapsedMs, operations: keys, counts }
    } finally {
      await filled.close()
    }
  }
  return { run, close: () => {} }
}
