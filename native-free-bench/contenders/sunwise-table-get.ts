/**
 * Sunwise reading random keys that lie in tables, on the caller's thread with `readInto`: at once where no slow
 * disk is needed, else some at a time through the owner. The store is filled as db_bench fills its
 * own, so that 63 % of the keys are there; reads of absent keys ask for keys one byte longer, as `readmissing` does. Counts what
 * the finder of this thread read of the disk, and how many reads memory answered.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { ControlWord } from '../../src/storage/shard-memory.ts'
import type { Hosted } from '../isolate.ts'
import { KeySet, keyBytes } from '../key-set.ts'
import { dropPageCache } from '../store-files.ts'
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
/** Reads between two looks at the clock, and at what was not answered at once. */
const sliceReads = 500
/** Cold reads that may wait for the disk together. */
const coldInFlight = 32
const publishMs = 150

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
  const take = (length: number): void => {
    if (length < 0) return
    if (length !== valueBytes) throw new Error(`Sunwise gave a value of ${length} B`)
    found++
  }
  /** Reads that were not answered at once, since the disk is slow. */
  const waiting: Promise<void>[] = []
  let waited = 0
  const read = (): void => {
    const at = probe * keyBytes
    for (let position = 0; position < keyBytes; position++) key[position] = probes[at + position]!
    const length = store.readInto(key, into)
    if (typeof length === 'number') take(length)
    else waiting.push(length.then(take))
    if (++probe === set.probeCount) probe = 0
  }
  const measure = async (): Promise<{ readonly value: number; readonly operations: number }> => {
    let operations = 0
    const start = performance.now()
    let elapsedMs = 0
    do {
      const slice = coldReads === undefined ? sliceReads : Math.min(coldInFlight, coldReads - operations)
      for (let reads = 0; reads < slice; reads++) read()
      operations += slice
      if (waiting.length > 0) {
        waited += waiting.length
        await Promise.all(waiting)
        waiting.length = 0
      }
      elapsedMs = performance.now() - start
    } while (coldReads === undefined ? elapsedMs < roundMs : operations < coldReads)
    return { value: (elapsedMs * 1e6) / operations, operations }
  }
  return {
    run: async () => {
      if (coldReads !== undefined) dropPageCache(filled.directory)
      found = 0
      waited = 0
      const loads = filled.total(ControlWord.tableLoads)
      const { lookups, blockReads } = finderCounts
      const { value, operations } = await measure()
      // The owner of the shard counts its reads, and says so a few times a second.
      if (waited > 0) await delay(publishMs)
      const preads = finderCounts.blockReads - blockReads + filled.total(ControlWord.tableLoads) - loads
      const foundPercent = (100 * found) / operations
      // Drawing N of N with replacement leaves 63.2 %; anything else means that keys are lost or invented.
      if (absent ? found > 0 : operations > 5000 && Math.abs(foundPercent - 63.2) > 4) {
        throw new Error(`Sunwise found ${foundPercent.toFixed(1)} % of the keys`)
      }
      const counts = {
        'found %': foundPercent,
        ...(absent
          ? { 'preads/absent key': preads / operations }
          : { 'preads/present key': preads / Math.max(1, found) }),
        'asked aside %': (100 * waited) / operations,
        'from memory %': 100 * (1 - (finderCounts.lookups - lookups) / operations),
        ...filled.shape(),
      }
      return { value: 1e9 / value, operations, counts }
    },
    close: () => filled.close(),
  }
}
