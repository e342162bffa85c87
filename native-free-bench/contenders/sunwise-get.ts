/**
 * Sunwise reading random keys on the caller's thread: `getInto` takes key bytes and copies the value into the caller's
 * buffer, `getSync` takes a string and gives a fresh value.
 */
import type { Hosted } from '../isolate.ts'
import { keyBytes, valueBytes } from '../key-set.ts'
import { timeLoop } from '../timing.ts'
import { openFilled } from './sunwise-store.ts'

type Options = {
  readonly scratch: string
  readonly keys: number
  readonly roundMs: number
  readonly call: 'getInto' | 'getSync'
}

export async function open({ scratch, keys, roundMs, call }: Options): Promise<Hosted> {
  const filled = await openFilled({ scratch, keys, shards: 1, durability: 'os' })
  const { store, set } = filled
  let probe = 0
  let seen = 0
  const probes = set.probeKeys()
  const key = new Uint8Array(keyBytes)
  const into = new Uint8Array(valueBytes)
  const readInto = (count: number): void => {
    for (let done = 0; done < count; done++) {
      const at = probe * keyBytes
      for (let position = 0; position < keyBytes; position++) key[position] = probes[at + position]!
      seen += store.getInto(key, into)
      if (++probe === set.probeCount) probe = 0
    }
  }
  const texts = call === 'getSync' ? set.probeTexts() : []
  const readFresh = (count: number): void => {
    for (let done = 0; done < count; done++) {
      seen += store.getSync(texts[probe]!)!.length
      if (++probe === set.probeCount) probe = 0
    }
  }
  const work = call === 'getInto' ? readInto : readFresh
  const first = probes.slice(0, keyBytes)
  store.getInto(first, into)
  const got = call === 'getInto' ? into : store.getSync(first)
  if (got === undefined || !set.value(set.probeIndices[0]!).equals(got)) throw new Error('Sunwise gave another value')
  return {
    run: () => {
      seen = 0
      const measurement = timeLoop(roundMs, 1000, work)
      if (seen !== measurement.operations * valueBytes) throw new Error('Sunwise gave values of another size')
      return measurement
    },
    close: () => filled.close(),
  }
}
