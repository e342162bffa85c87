/**
 * The engine of Sunwise overwriting random keys in groups, durability `os`, in one thread: the put less rings, wakes and
 * promises. Its heap bytes per operation are what the hot path of a shard allocates.
 */
import type { Measurement } from '../case.ts'
import type { Hosted } from '../isolate.ts'
import { Engine, groupRecords } from './sunwise-engine.ts'

type Options = {
  readonly scratch: string
  readonly keys: number
  readonly roundMs: number
  /** Records per group. */
  readonly group: number
}

export async function open({ scratch, keys, roundMs, group }: Options): Promise<Hosted> {
  const engine = await Engine.open(scratch, keys)
  const { set } = engine
  let probe = 0
  const run = async (): Promise<Measurement> => {
    let operations = 0
    let elapsedMs = 0
    const start = performance.now()
    do {
      for (let count = 0; count < group; count++) {
        engine.put(set.probeIndices[probe]!, probe * 7)
        if (++probe === set.probeCount) probe = 0
        if (count % groupRecords === groupRecords - 1 && engine.mustWait) await engine.commit()
      }
      engine.commitNow()
      operations += group
      elapsedMs = performance.now() - start
    } while (elapsedMs < roundMs)
    await engine.settled()
    elapsedMs = performance.now() - start
    return { value: (operations * 1000) / elapsedMs, operations, counts: {} }
  }
  return { run, close: () => engine.close() }
}
