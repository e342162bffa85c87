/**
 * Sunwise reading random keys that lie in tables, on the caller's thread with `getInto`. The store is filled as db_bench fills its
 * own, so that 63 % of the keys are there; reads of absent keys ask for keys one byte longer, as `readmissing` does. Counts what
 * the finder of this thread read of the disk, and how many reads memory answered.
 */
import type { Measurement } from '../case.ts'
import type { Hosted } from '../isolate.ts'
import { KeySet, keyBytes } from '../key-set.ts'
import { dropPageCache } from '../store-files.ts'
import { timeLoop } from '../timing.ts'
import { countFinds, finderCounts } from './finder-counts.ts'
import { TableStore } from './table-store.ts'

type Options = {
  readonly scratch: string
  readonly keys: number
  readonly memoryBytes: number
  readonly valueBytes: number
  readonly roundMs: number
  readonly absent: boolean
  /** Waits for the end of compaction before the first read. */
  readonly settles: boolean
  /** Each round starts with none of the files in the page cache, and reads so often. */
  readonly coldReads?: number
}

const fillInFlight = 64

export async function open(options: Options): Promise<Hosted> {
  const { keys, valueBytes, roundMs, absent, settles, coldReads } = options
  const filled = await TableStore.open(options)
  await filled.fill({ keys, operations: keys, inFlight: fillInFlight, batch: 1, seed: 1 })
  if (settles) await filled.settled()
  const { store } = filled
  countFinds()
  const set = new KeySet(keys, 11)
  const probes = set.probeKeys()
  const key = new Uint8Array(absent ? keyBytes + 1 : keyBytes)
  if (absent) key[keyBytes] = 46
  const into = new Uint8Array(valueBytes)
  let probe = 0
  let found = 0
  const work = (count: number): void => {
    for (let done = 0; done < count; done++) {
      const at = probe * keyBytes
      for (let position = 0; position < keyBytes; position++) key[position] = probes[at + position]!
      const length = store.getInto(key, into)
      if (length >= 0) {
        if (length !== valueBytes) throw new Error(`Sunwise gave a value of ${length} B`)
        found++
      }
      if (++probe === set.probeCount) probe = 0
    }
  }
  const measure = (): Measurement => {
    if (coldReads === undefined) return timeLoop(roundMs, 500, work)
    const start = performance.now()
    work(coldReads)
    return { value: ((performance.now() - start) * 1e6) / coldReads, operations: coldReads, counts: {} }
  }
  return {
    run: () => {
      if (coldReads !== undefined) dropPageCache(filled.directory)
      found = 0
      const { lookups, blockReads } = finderCounts
      const { value, operations } = measure()
      const foundPercent = (100 * found) / operations
      // Drawing N of N with replacement leaves 63.2 %; anything else means that keys are lost or invented.
      if (absent ? found > 0 : operations > 5000 && Math.abs(foundPercent - 63.2) > 4) {
        throw new Error(`Sunwise found ${foundPercent.toFixed(1)} % of the keys`)
      }
      const counts = {
        'found %': foundPercent,
        ...(absent
          ? { 'preads/absent key': (finderCounts.blockReads - blockReads) / operations }
          : { 'preads/present key': (finderCounts.blockReads - blockReads) / Math.max(1, found) }),
        'from memory %': 100 * (1 - (finderCounts.lookups - lookups) / operations),
        ...filled.shape(),
      }
      return { value: 1e9 / value, operations, counts }
    },
    close: () => filled.close(),
  }
}
