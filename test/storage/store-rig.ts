/**
 * A store on a simulated disk, driven by hand: writes records one by one, says what was published and what failed, and reads
 * logs back. For tests of the store itself; requests go through test/shard/shard-rig.ts.
 */
import assert from 'node:assert/strict'
import { crc32 as nativeCrc32 } from 'node:zlib'
import type { SunwiseError } from '../../src/base/errors.ts'
import { KeyHash } from '../../src/base/key-hash.ts'
import { partitionOfSlot, slotOfKey } from '../../src/cluster/slots.ts'
import type { Disk } from '../../src/env.ts'
import { Arena, createArenaMemory, slabWordMask, wordsPerSlabBits } from '../../src/storage/arena.ts'
import type { ActorId } from '../../src/storage/log-control.ts'
import { isControl } from '../../src/storage/log-control.ts'
import type { LogPosition } from '../../src/storage/log-group.ts'
import { listSegments, type RecoveredLog, recoverLog } from '../../src/storage/log-recovery.ts'
import {
  decodeRecord,
  encodeRecord,
  recordBytesAt,
  recordBytesOf,
  recordHeaderBytes,
  recordKeyBytes,
} from '../../src/storage/record.ts'
import { createShardMemory, type ShardMemory } from '../../src/storage/shard-memory.ts'
import { type Purpose, Store } from '../../src/storage/store.ts'
import type { VersionSet } from '../../src/versions/version-set.ts'

export const crc32 = (bytes: Uint8Array, start: number, end: number): number => nativeCrc32(bytes.subarray(start, end))
export const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text)
export const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

export const logDirectory = 'log'

export type StoreRigOptions = {
  readonly segmentBytes?: number
  readonly segments?: number
  readonly budgetBytes?: number
  readonly actor?: ActorId
  readonly preallocate?: boolean
  readonly salvage?: boolean
  readonly retiredBuckets?: ReadonlySet<number>
}

/** One run of a store. After a crash or restart, make a new one over the same disk. */
export class StoreRig {
  readonly store: Store
  readonly memory: ShardMemory
  readonly #hash = new KeyHash({ low: 11, high: 22 })
  published = 0
  readonly failures: { readonly from: number; readonly error: SunwiseError }[] = []
  recovered: RecoveredLog | undefined

  constructor(disk: Disk, options: StoreRigOptions = {}) {
    const segmentBytes = options.segmentBytes ?? 8192
    const segments = options.segments ?? 64
    this.memory = createShardMemory({
      segmentBytes,
      segments,
      chunksMax: 4096,
      budgetBytes: options.budgetBytes ?? segments * segmentBytes,
    })
    this.store = new Store(
      {
        disk,
        directory: logDirectory,
        memory: this.memory,
        budgetBytes: options.budgetBytes ?? segments * segmentBytes,
        crc32,
        hashSeed: { low: 11, high: 22 },
        shard: 0,
        shards: 1,
        actor: options.actor ?? { low: 1, high: 2 },
        preallocate: options.preallocate ?? false,
        syncIntervalMs: 100,
        salvage: options.salvage ?? false,
        partitionOfSlot,
        isRetiredBucket: (bucketId) => options.retiredBuckets?.has(bucketId) ?? false,
      },
      {
        published: (through) => {
          this.published = through
        },
        failed: (from, error) => {
          this.failures.push({ from, error })
        },
      },
    )
  }

  /** Recovers; throws the error of a recovery that fails. Only for disks whose operations end at once. */
  open(): this {
    let outcome: { error: SunwiseError | undefined } | undefined
    this.store.recover(
      () => {},
      (error, log) => {
        outcome = { error }
        this.recovered = log
      },
    )
    assert.ok(outcome !== undefined, 'Recovery has ended')
    if (outcome.error !== undefined) throw outcome.error
    return this
  }

  /** Stages one live value without looking at what is there. Returns its ordinal, or the refusal. */
  put(
    key: string,
    value: Uint8Array,
    { sync = false, purpose = 'grow' as Purpose, bucketId = 1, tombstone = false, expiresAtMs = 0 } = {},
  ): number | SunwiseError {
    const partition = this.partitionOf(key)
    const counter = this.store.nextCounter(partition)
    const version = {
      actor: this.store.actor,
      counter,
      tombstone,
      expiresAtMs,
      timestamp: 0,
      contentType: 'application/octet-stream',
      value,
    }
    return this.putSet(
      key,
      { versions: [version], vector: [{ actor: this.store.actor, counter }] },
      {
        sync,
        purpose,
        bucketId,
      },
    )
  }

  /** Stages a whole version set. */
  putSet(
    key: string,
    set: VersionSet,
    { sync = false, purpose = 'grow' as Purpose, bucketId = 1 } = {},
  ): number | SunwiseError {
    const { store } = this
    const keyBytes = bytesOf(key)
    const slot = slotOfKey(keyBytes, 0, keyBytes.length)
    const partition = partitionOfSlot(slot)
    this.#hash.update(bucketId, keyBytes, 0, keyBytes.length)
    const hash = this.#hash.low
    const old = store.find(partition, hash, bucketId, keyBytes, 0, keyBytes.length)
    const bytes = recordBytesOf(set, keyBytes.length)
    const growth = bytes - (old === 0 ? 0 : recordBytesOf(this.#setAt(old), keyBytes.length))
    const address = store.allocate(bytes, growth, purpose)
    if (address === 0) return store.refusal!
    const slab = address >>> wordsPerSlabBits
    const own = set.vector.find(({ actor }) => actor === store.actor)
    if (own !== undefined && own.counter >= store.nextCounter(partition)) store.useCounter(partition, own.counter)
    encodeRecord(
      store.arena.u8[slab]!,
      store.arena.i32[slab]!,
      (address & slabWordMask) << 2,
      slot,
      bucketId,
      keyBytes,
      0,
      keyBytes.length,
      set,
    )
    return store.stage(address, hash, sync)
  }

  /** What readers see of a key; undefined: no record. */
  get(key: string, bucketId = 1): VersionSet | undefined {
    const keyBytes = bytesOf(key)
    this.#hash.update(bucketId, keyBytes, 0, keyBytes.length)
    const address = this.store.index.find(this.partitionOf(key), this.#hash.low, bucketId, keyBytes, 0, keyBytes.length)
    return address === 0 ? undefined : this.#setAt(address)
  }

  /** The live value of a key as text; undefined where there is none. */
  value(key: string, bucketId = 1): string | undefined {
    const only = this.get(key, bucketId)?.versions[0]
    return only === undefined || only.tombstone ? undefined : textOf(only.value)
  }

  partitionOf(key: string): number {
    const keyBytes = bytesOf(key)
    return partitionOfSlot(slotOfKey(keyBytes, 0, keyBytes.length))
  }

  /** Syncs and closes; throws the error. */
  close(): void {
    this.store.flush()
    let outcome: { error: SunwiseError | undefined } | undefined
    this.store.close((error) => {
      outcome = { error }
    })
    assert.ok(outcome !== undefined, 'The store has closed')
    if (outcome.error !== undefined) throw outcome.error
  }

  #setAt(address: number): VersionSet {
    const slab = address >>> wordsPerSlabBits
    return decodeRecord(this.store.arena.u8[slab]!, this.store.arena.i32[slab]!, (address & slabWordMask) << 2)
  }
}

/** One record of a log, as recovery hands it out. */
export type LoggedRecord = { readonly key: string; readonly set: VersionSet }

export type LogReading = {
  readonly error: SunwiseError | undefined
  readonly log: RecoveredLog | undefined
  /** The records of keys, undecoded: see `decodeLogged`. */
  readonly records: readonly Uint8Array[]
}

/** Takes a record of a log apart. */
export function decodeLogged(record: Uint8Array): LoggedRecord {
  const i32 = new Int32Array(record.buffer)
  return {
    key: textOf(record.subarray(recordHeaderBytes, recordHeaderBytes + recordKeyBytes(record, 0))),
    set: decodeRecord(record, i32, 0),
  }
}

/** Reads a log as a start would; changes nothing with `readOnly`. */
export function readLog(
  disk: Disk,
  {
    directory = logDirectory,
    segmentBytes = 8192,
    salvage = false,
    readOnly = true,
    arena = undefined as Arena | undefined,
    syncedEnd = undefined as LogPosition | undefined,
  } = {},
): LogReading {
  const segments = (listSegments(disk, directory).at(-1) ?? -1) + 1
  const records: Uint8Array[] = []
  let outcome: { error: SunwiseError | undefined; log: RecoveredLog | undefined } | undefined
  recoverLog(
    {
      disk,
      directory,
      arena: arena ?? new Arena(createArenaMemory(segmentBytes, Math.max(1, segments))),
      crc32,
      salvage,
      syncedEnd,
      readOnly,
      alive: () => {},
      visit: (_address, u8, i32, at) => {
        if (!isControl(u8, at)) records.push(u8.slice(at, at + recordBytesAt(i32, at)))
      },
    },
    (error, log) => {
      outcome = { error, log }
    },
  )
  assert.ok(outcome !== undefined, 'Recovery has ended')
  return { ...outcome, records }
}
