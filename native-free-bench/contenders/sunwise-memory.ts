/**
 * Memory of Sunwise per record: bytes of log segments written and of the hash table, as the shard accounts for them, and
 * beside it how much the process grew while the records came in.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Hosted } from '../isolate.ts'
import { accountedBytes, controlTotals } from '../shard-facts.ts'
import { openStore } from './sunwise-store.ts'

type Options = { readonly scratch: string; readonly keys: number }

export async function open({ scratch, keys }: Options): Promise<Hosted> {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const residentNow = (): number => {
    collect()
    return process.memoryUsage().rss
  }
  const filled = await openStore({ scratch, keys, shards: 1, durability: 'os' })
  const residentBefore = residentNow()
  await filled.fill()
  // The counters lag behind by a moment; this waits for them.
  await controlTotals(filled.memories)
  const { records, index } = accountedBytes(filled.memories)
  const counts = {
    'records B/record': records / keys,
    'index B/record': index / keys,
    'rss B/record': (residentNow() - residentBefore) / keys,
  }
  return {
    run: () => ({ value: (records + index) / keys, operations: keys, counts }),
    close: () => filled.close(),
  }
}
