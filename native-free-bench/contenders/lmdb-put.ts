/**
 * lmdb overwriting random keys with `put`, each awaited, so many in flight. `sync` false is `noSync`: the bytes reach the
 * kernel. True is a commit whose promise resolves after the flush to disk (`overlappingSync: false`).
 */
import type { Hosted } from '../isolate.ts'
import { keyBytes, writeKey } from '../key-set.ts'
import { timeInFlight } from '../timing.ts'
import { openFilled } from './lmdb-database.ts'

type Options = {
  readonly scratch: string
  readonly keys: number
  readonly roundMs: number
  readonly inFlight: number
  readonly sync: boolean
}

export async function open({ scratch, keys, roundMs, inFlight, sync }: Options): Promise<Hosted> {
  const options = sync ? { overlappingSync: false } : { noSync: true }
  const { database, set } = await openFilled({ scratch, name: 'put', keys, keyKind: 'bytes', options })
  let probe = 0
  const put = (): Promise<boolean> => {
    const key = Buffer.allocUnsafe(keyBytes)
    writeKey(set.probeIndices[probe]!, key, 0)
    const value = set.value(probe * 7)
    if (++probe === set.probeCount) probe = 0
    return database.put(key, value)
  }
  return { run: () => timeInFlight(roundMs, inFlight, 1, put), close: () => database.close() }
}
