/** A Sunwise store in the scratch directory, opened through the library and filled with a key set. */
import { join } from 'node:path'
import type { Durability } from '../../src/config.ts'
import { EmbeddedStore } from '../../src/host/embedded-store.ts'
import { configOf } from '../../src/host/server.ts'
import { type BatchOperation, Store } from '../../src/index.ts'
import type { ShardMemory } from '../../src/storage/shard-memory.ts'
import type { Totals } from '../counts.ts'
import { KeySet, keyBytes, writeKey } from '../key-set.ts'
import { controlTotals, onShardMemories, probeTotals } from '../shard-facts.ts'

export type StoreSettings = {
  readonly scratch: string
  readonly keys: number
  readonly shards: number
  readonly durability: Durability
}

const batchOperations = 1000
/** What `open` takes by default. */
const memoryBytesLeast = 2 ** 30
/** Room for each record several times over, as a user would give it. */
const memoryBytesPerKey = 512

/** An open store with its key set and the counters around it. `close` closes it. */
export class FilledStore {
  readonly store: Store
  readonly set: KeySet
  readonly memories: readonly ShardMemory[]
  readonly #embedded: EmbeddedStore

  constructor(embedded: EmbeddedStore, set: KeySet, memories: readonly ShardMemory[]) {
    this.#embedded = embedded
    // What `open` of the library does; the embedded store is kept to ask it how often it woke somebody.
    this.store = new Store(embedded)
    this.set = set
    this.memories = memories
  }

  /** Totals of wakes, log and shard threads. */
  async totals(): Promise<Totals> {
    const control = await controlTotals(this.memories)
    const probes = await probeTotals(this.memories.length)
    const { rung, heard } = this.#embedded.wakes
    return { ...control, ...probes, wakes: rung + heard }
  }

  async fill(): Promise<void> {
    const { count } = this.set
    for (let index = 0; index < count; index += batchOperations) {
      const length = Math.min(batchOperations, count - index)
      await this.batch(Array.from({ length }, (_, offset) => putOf(this.set, index + offset, index + offset)))
    }
  }

  /** A batch of which every operation must succeed. */
  async batch(operations: readonly BatchOperation[]): Promise<void> {
    for (const { error } of await this.store.batch(operations)) if (error !== undefined) throw error
  }

  close(): Promise<void> {
    return this.store.close()
  }
}

/** A put of the key of record `index` with the value of record `value`, its key fresh as a caller's would be. */
export function putOf(set: KeySet, index: number, value: number): BatchOperation {
  const key = Buffer.allocUnsafe(keyBytes)
  writeKey(index, key, 0)
  return { op: 'put', key, value: set.value(value) }
}

/** Opens an empty store. One per process. */
export async function openStore({ scratch, keys, shards, durability }: StoreSettings): Promise<FilledStore> {
  let memories: readonly ShardMemory[] = []
  onShardMemories((started) => {
    memories = started
  })
  const config = configOf({
    directory: join(scratch, `sunwise-${process.pid}`),
    shards,
    memoryBytes: Math.max(memoryBytesLeast, keys * memoryBytesPerKey),
    durability,
    syncIntervalMs: 100,
    valueBytesMax: 2 ** 20,
  })
  const embedded = await EmbeddedStore.open(config, (line) => process.stderr.write(`${line}\n`))
  if (memories.length !== shards) throw new Error('The store did not show the memory of its shards')
  return new FilledStore(embedded, new KeySet(keys), memories)
}

/** Opens a store and loads its key set. */
export async function openFilled(settings: StoreSettings): Promise<FilledStore> {
  const filled = await openStore(settings)
  await filled.fill()
  return filled
}
