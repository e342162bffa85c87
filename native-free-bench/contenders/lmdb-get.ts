/** lmdb reading random keys: `getBinaryFast` gives a view that the next get overwrites, `getBinary` a fresh copy. */
import type { Hosted } from '../isolate.ts'
import { keyBytes, valueBytes } from '../key-set.ts'
import { timeLoop } from '../timing.ts'
import { openFilled } from './lmdb-database.ts'

type Options = {
  readonly scratch: string
  readonly keys: number
  readonly roundMs: number
  /** `view`: key bytes in, view out. `copy`: key string in, fresh copy out. */
  readonly result: 'view' | 'copy'
}

export async function open({ scratch, keys, roundMs, result }: Options): Promise<Hosted> {
  const keyKind = result === 'view' ? 'bytes' : 'text'
  const { database, set } = await openFilled({ scratch, name: 'get', keys, keyKind, options: { noSync: true } })
  let probe = 0
  let seen = 0
  const probes = set.probeKeys()
  const key = Buffer.alloc(keyBytes)
  const readViews = (count: number): void => {
    for (let done = 0; done < count; done++) {
      const at = probe * keyBytes
      for (let position = 0; position < keyBytes; position++) key[position] = probes[at + position]!
      seen += database.getBinaryFast(key)!.length
      if (++probe === set.probeCount) probe = 0
    }
  }
  const texts = keyKind === 'text' ? set.probeTexts() : []
  const readCopies = (count: number): void => {
    for (let done = 0; done < count; done++) {
      seen += database.getBinary(texts[probe]!)!.length
      if (++probe === set.probeCount) probe = 0
    }
  }
  const work = keyKind === 'bytes' ? readViews : readCopies
  return {
    run: () => {
      seen = 0
      const measurement = timeLoop(roundMs, 1000, work)
      if (seen !== measurement.operations * valueBytes) throw new Error('lmdb gave values of another size')
      return measurement
    },
    close: () => database.close(),
  }
}
