/** classic-level (LevelDB) overwriting random keys by awaited batches, without a flush to disk, which is its default. */
import { join } from 'node:path'
import { ClassicLevel } from 'classic-level'
import type { Hosted } from '../isolate.ts'
import { KeySet, keyBytes, writeKey } from '../key-set.ts'
import { timeInFlight } from '../timing.ts'

type Options = {
  readonly scratch: string
  readonly keys: number
  readonly roundMs: number
  readonly batch: number
}

export async function open({ scratch, keys, roundMs, batch }: Options): Promise<Hosted> {
  const encodings = { keyEncoding: 'buffer', valueEncoding: 'buffer' } as const
  const database = new ClassicLevel<Buffer, Buffer>(join(scratch, `level-${process.pid}`), {
    ...encodings,
    compression: false,
  })
  await database.open()
  const set = new KeySet(keys)
  const operation = (index: number, value: number): { type: 'put'; key: Buffer; value: Buffer } => {
    const key = Buffer.allocUnsafe(keyBytes)
    writeKey(index, key, 0)
    return { type: 'put', key, value: set.value(value) }
  }
  for (let index = 0; index < keys; index += batch) {
    const length = Math.min(batch, keys - index)
    await database.batch(Array.from({ length }, (_, offset) => operation(index + offset, index + offset)))
  }
  let probe = 0
  const write = (): Promise<void> => {
    const operations = Array.from({ length: batch }, () => {
      if (++probe >= set.probeCount) probe = 0
      return operation(set.probeIndices[probe]!, probe * 7)
    })
    return database.batch(operations)
  }
  return { run: () => timeInFlight(roundMs, 1, batch, write), close: () => database.close() }
}
