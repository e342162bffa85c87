/** The engine of Sunwise reading random keys: `getInto` less the library around it. */
import type { Hosted } from '../isolate.ts'
import { keyBytes, valueBytes } from '../key-set.ts'
import { timeLoop } from '../timing.ts'
import { Engine } from './sunwise-engine.ts'

type Options = { readonly scratch: string; readonly keys: number; readonly roundMs: number }

export async function open({ scratch, keys, roundMs }: Options): Promise<Hosted> {
  const engine = await Engine.open(scratch, keys)
  const probes = engine.set.probeKeys()
  const words = new Int32Array(valueBytes / 4)
  const into = new Uint8Array(words.buffer)
  let probe = 0
  let seen = 0
  const work = (count: number): void => {
    for (let done = 0; done < count; done++) {
      seen += engine.read(probes, probe * keyBytes, into, words)
      if (++probe === engine.set.probeCount) probe = 0
    }
  }
  return {
    run: () => {
      seen = 0
      const measurement = timeLoop(roundMs, 1000, work)
      if (seen !== measurement.operations * valueBytes) throw new Error('The engine gave values of another size')
      return measurement
    },
    close: () => engine.close(),
  }
}
