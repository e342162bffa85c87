/** A `Map<string, Buffer>` reading random keys: what a program without a store would do. It hands out the stored value. */
import type { Hosted } from '../isolate.ts'
import { KeySet, keyText, valueBytes } from '../key-set.ts'
import { timeLoop } from '../timing.ts'

export function open({ keys, roundMs }: { readonly keys: number; readonly roundMs: number }): Hosted {
  const set = new KeySet(keys)
  const map = new Map<string, Buffer>()
  for (let index = 0; index < keys; index++) map.set(keyText(index), Buffer.from(set.value(index)))
  const texts = set.probeTexts()
  let probe = 0
  let seen = 0
  const work = (count: number): void => {
    for (let done = 0; done < count; done++) {
      seen += map.get(texts[probe]!)!.length
      if (++probe === set.probeCount) probe = 0
    }
  }
  return {
    run: () => {
      seen = 0
      const measurement = timeLoop(roundMs, 1000, work)
      if (seen !== measurement.operations * valueBytes) throw new Error('The map gave values of another size')
      return measurement
    },
    close: () => map.clear(),
  }
}
