/** Memory of a `Map<string, Buffer>` per record: heap and external memory after a full collection, less those before. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Hosted } from '../isolate.ts'
import { KeySet, keyText } from '../key-set.ts'

export function open({ keys }: { readonly keys: number }): Hosted {
  const set = new KeySet(keys)
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const usedNow = (): number => {
    collect()
    const { heapUsed, external } = process.memoryUsage()
    return heapUsed + external
  }
  const before = usedNow()
  const map = new Map<string, Buffer>()
  for (let index = 0; index < keys; index++) map.set(keyText(index), Buffer.from(set.value(index)))
  const value = (usedNow() - before) / keys
  return { run: () => ({ value, operations: map.size, counts: {} }), close: () => map.clear() }
}
