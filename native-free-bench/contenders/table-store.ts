/**
 * A Sunwise store whose memory is a small part of its data, so that most of it lies in tables: opened through the library with
 * one shard and durability `os`, and filled as `db_bench fillrandom` does it, in one order of keys drawn with replacement.
 */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { EmbeddedStore } from '../../src/host/embedded-store.ts'
import { configOf } from '../../src/host/server.ts'
import { Store } from '../../src/index.ts'
import { ControlWord, type ShardMemory } from '../../src/storage/shard-memory.ts'
import { totalsNow } from '../counts.ts'
import { keyBytes, Sequence, writeKey } from '../key-set.ts'
import { onShardMemories } from '../shard-facts.ts'
import { bytesOnDisk } from '../store-files.ts'

/** Settled: in so many such whiles, one after another, nothing was flushed or compacted and the process wrote next to nothing. */
const settleMs = 500
const settleWhiles = 3
const settleBytesMax = 256 * 1024
const settleWaitMs = 120_000
const poolBytes = 1 << 20
const memoryBytesLeast = 64 * 2 ** 20
const tinySegmentBytes = 256 * 1024

let latest: readonly ShardMemory[] = []
let isWatching = false

export type TableStoreOptions = {
  readonly scratch: string
  readonly memoryBytes: number
  readonly valueBytes: number
}

/** What of a fill is asked for: so many puts, keys below `keys`. */
export type Fill = {
  readonly keys: number
  readonly operations: number
  /** Calls awaited at once. */
  readonly inFlight: number
  /** Operations of one call: 1 is `put`, more is `batch`. */
  readonly batch: number
  readonly seed: number
}

/** An open store, its directory and the counters of its shard. `close` closes it and removes the directory. */
export class TableStore {
  readonly store: Store
  readonly directory: string
  readonly embedded: EmbeddedStore
  readonly #valueBytes: number
  readonly #pool = Buffer.allocUnsafeSlow(poolBytes)
  readonly #control: Int32Array
  #valueAt = 0

  private constructor(embedded: EmbeddedStore, directory: string, valueBytes: number, memory: ShardMemory) {
    this.embedded = embedded
    this.store = new Store(embedded)
    this.directory = directory
    this.#valueBytes = valueBytes
    this.#control = new Int32Array(memory.control)
    const sequence = new Sequence(7)
    for (let at = 0; at < poolBytes; at += 4) this.#pool.writeUInt32LE(sequence.next(), at)
  }

  /** Opens an empty store. One at a time per process. */
  static async open({ scratch, memoryBytes, valueBytes }: TableStoreOptions): Promise<TableStore> {
    if (!isWatching) {
      isWatching = true
      onShardMemories((memories) => {
        latest = memories
      })
    }
    const directory = join(scratch, `tables-${process.pid}`)
    const config = configOf({
      directory,
      shards: 1,
      memoryBytes,
      durability: 'os',
      syncIntervalMs: 100,
      valueBytesMax: 2 ** 20,
      // Only tiny runs have less memory than a user may give, and then need smaller segments than a user gets.
      segmentBytes: memoryBytes < memoryBytesLeast ? tinySegmentBytes : 0,
    })
    const embedded = await EmbeddedStore.open(config, (line) => process.stderr.write(`${line}\n`))
    const memory = latest[0]
    if (memory === undefined) throw new Error('The store did not show the memory of its shard')
    return new TableStore(embedded, directory, valueBytes, memory)
  }

  /** The next value: a window of a pool of random bytes that moves on, as db_bench makes its values. */
  nextValue(): Uint8Array {
    if (this.#valueAt + this.#valueBytes > poolBytes) this.#valueAt = 0
    const value = this.#pool.subarray(this.#valueAt, this.#valueAt + this.#valueBytes)
    this.#valueAt += this.#valueBytes
    return value
  }

  /** Puts keys drawn with replacement; settles when all are acknowledged, and rejects if one is refused. */
  async fill({ keys, operations, inFlight, batch, seed }: Fill): Promise<void> {
    const sequence = new Sequence(seed)
    let started = 0
    const key = (): Buffer => {
      const bytes = Buffer.allocUnsafe(keyBytes)
      writeKey(sequence.below(keys), bytes, 0)
      return bytes
    }
    const worker = async (): Promise<void> => {
      while (started < operations) {
        if (batch === 1) {
          started++
          await this.store.put(key(), this.nextValue())
          continue
        }
        const length = Math.min(batch, operations - started)
        started += length
        const puts = Array.from({ length }, () => ({ op: 'put' as const, key: key(), value: this.nextValue() }))
        for (const { error } of await this.store.batch(puts)) if (error !== undefined) throw error
      }
    }
    await Promise.all(Array.from({ length: inFlight }, worker))
  }

  /** A counter of the shard since it started. */
  total(word: number): number {
    return Atomics.load(this.#control, word) >>> 0
  }

  /** Bytes that flushes and compactions have written. */
  get tableBytesWritten(): number {
    return (this.total(ControlWord.flushedKiB) + this.total(ControlWord.compactedKiB)) * 1024
  }

  get bytesOnDisk(): number {
    return bytesOnDisk(this.directory)
  }

  /** Facts about the tables, as counts of a measurement. */
  shape(): Record<string, number> {
    return {
      tables: this.total(ControlWord.tables),
      runs: this.total(ControlWord.tableRuns),
      flushes: this.total(ControlWord.flushes),
      compactions: this.total(ControlWord.compactions),
    }
  }

  /** Waits until flushes and compactions have nothing more to do. */
  async settled(): Promise<void> {
    const deadlineMs = performance.now() + settleWaitMs
    for (let quiet = 0; quiet < settleWhiles; ) {
      const before = this.tableBytesWritten
      const written = totalsNow()['written B'] ?? 0
      await delay(settleMs)
      const isQuiet = (totalsNow()['written B'] ?? 0) - written < settleBytesMax
      quiet = isQuiet && this.tableBytesWritten === before ? quiet + 1 : 0
      if (performance.now() > deadlineMs) throw new Error('Compaction did not come to an end')
    }
  }

  async close(): Promise<void> {
    await this.store.close()
    rmSync(this.directory, { recursive: true, force: true })
  }
}
