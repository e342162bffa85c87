/** A thread that looks keys up in tables which come and go: each key is in every table, so it is found, with a value of one of them. */
import { parentPort, workerData } from 'node:worker_threads'
import { HostDisk } from '../../src/host/disk.ts'
import { nativeCrc32 } from '../../src/host/native-codes.ts'
import { decodeRecord } from '../../src/storage/record.ts'
import { TableFinder } from '../../src/storage/table-finder.ts'
import type { TableMemory } from '../../src/storage/table-view.ts'

export const partitionOfTables = 5
export const keysOfTable: readonly Uint8Array[] = Array.from({ length: 200 }, (_, index) =>
  Buffer.from(`key ${String(index).padStart(4, '0')}`),
)

export type ReaderSeed = {
  readonly memory: TableMemory
  readonly reader: number
  /** One i32 for each: 1 in the first ends all threads, in that of a reader it counts what it has looked up. */
  readonly stop: SharedArrayBuffer
  readonly tables: number
}

export type ReaderReport = { readonly finds: number; readonly wrong: readonly string[] }

function read({ memory, reader, stop, tables }: ReaderSeed): ReaderReport {
  const finder = new TableFinder({ disk: new HostDisk('/'), memory, crc32: nativeCrc32, codec: undefined, reader })
  const stopped = new Int32Array(stop)
  const wrong: string[] = []
  let finds = 0
  while (Atomics.load(stopped, 0) === 0 && wrong.length < 5) {
    const key = keysOfTable[finds++ % keysOfTable.length]!
    Atomics.store(stopped, reader, finds)
    try {
      if (!finder.find(partitionOfTables, 1, key, 0, key.length)) wrong.push(`${key} is not found`)
      else {
        const { value } = decodeRecord(finder.u8, finder.i32, finder.at).versions[0]!
        if (value.length !== 50 || value[0]! >= tables || value.some((byte) => byte !== value[0])) {
          wrong.push(`${key} holds ${value}`)
        }
      }
    } catch (error) {
      wrong.push(String(error))
    }
  }
  return { finds, wrong }
}

if (parentPort !== null && (workerData as ReaderSeed | null)?.memory !== undefined) {
  parentPort.postMessage(read(workerData as ReaderSeed))
}
