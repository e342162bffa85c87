/**
 * The owner of the hunt: one store that writes, overwrites, deletes, splits chunks and recycles segments as fast as it can, in
 * rounds of fresh memory, while threads of hunt-reader.ts read. Its disk forgets everything: only memory is looked at here.
 */
import assert from 'node:assert/strict'
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { crc32 as nativeCrc32 } from 'node:zlib'
import { KeyHash } from '../../src/base/key-hash.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { partitionOfSlot, slotOfKey } from '../../src/cluster/slots.ts'
import type { Disk, DiskFile } from '../../src/env.ts'
import { slabWordMask, wordsPerSlabBits } from '../../src/storage/arena.ts'
import { chunkBytes } from '../../src/storage/hash-index.ts'
import { encodeSimple, RecordFlag, recordBytesAt, simpleRecordBytes } from '../../src/storage/record.ts'
import { ControlWord, createShardMemory, type ShardMemory, ShardState } from '../../src/storage/shard-memory.ts'
import { Store } from '../../src/storage/store.ts'
import { type HuntReport, type HuntRound, hashSeed } from './hunt-reader.ts'
import { fillValue, type HuntBoard, HuntFlag, isDeletion, keyName, valueBytesMax, valueBytesOf } from './hunt-values.ts'

const bucketId = 3
const noBytes = new Uint8Array(0)

/** Takes everything and keeps nothing. */
function forgetfulDisk(): Disk {
  const fileOf = (path: string): DiskFile => ({
    path,
    handle: 0,
    sizeNow: () => 0,
    readNow: () => 0,
    read: (_buffer, _start, _end, _at, done) => done(undefined, 0),
    writeNow: () => {},
    write: (_buffer, _start, _end, _at, done) => done(undefined),
    sync: (done) => done(undefined),
    syncNow: () => {},
    close: () => {},
  })
  return {
    openNow: fileOf,
    createNow: fileOf,
    readHandleNow: () => 0,
    create: (path, _bytes, done) => done(undefined, fileOf(path)),
    rename: (_from, _to, done) => done(undefined),
    remove: (_path, done) => done(undefined),
    syncDirectory: (_path, done) => done(undefined),
    removeNow: () => {},
    syncDirectoryNow: () => {},
    listNow: () => [],
    spaceNow: () => ({ freeBytes: 0, totalBytes: 0 }),
    makeDirectoryNow: () => {},
  }
}

/**
 * The shape of one round: `narrow` has a handful of tiny segments, each used again after a millisecond; `growing` takes in new
 * keys without end, so that chunks split all the time.
 */
type Shape = {
  readonly segmentBytes: number
  /** Segments that the budget allows; the arena has one more. */
  readonly segments: number
  readonly keys: number
  readonly tags: number
  /** New keys per thousand writes, once the first are there. */
  readonly growth: number
}

function shapeOf(kind: 'narrow' | 'growing', random: SeededRandom): Shape {
  if (kind === 'narrow') {
    const segments = random.between(9, 14)
    return { segmentBytes: 8192, segments, keys: (segments - 4) * 24, tags: random.between(1, 4), growth: 20 }
  }
  return { segmentBytes: 32768, segments: 64, keys: 9000, tags: random.between(1, 3), growth: 400 }
}

/** One store and the boards beside it. */
class HuntedStore {
  readonly memory: ShardMemory
  readonly board: HuntBoard
  readonly shape: Shape
  readonly store: Store
  readonly #random: SeededRandom
  readonly #names: readonly Uint8Array[]
  readonly #hash = new KeyHash(hashSeed)
  readonly #staged: Int32Array
  readonly #published: Int32Array
  readonly #flags: Int32Array
  readonly #value = new Uint8Array(valueBytesMax)
  readonly #batch: number[] = []
  readonly #firstChunks: number
  #keys = 0
  #nowMs = 0
  writes = 0

  constructor(shape: Shape, round: number, random: SeededRandom) {
    this.shape = shape
    this.#random = random
    const { segmentBytes, segments, keys } = shape
    const budgetBytes = segments * segmentBytes + (shape.growth > 100 ? 512 * 1024 : 16 * 1024)
    this.memory = createShardMemory({ segmentBytes, segments: segments + 1, chunksMax: 4096, budgetBytes })
    this.board = {
      staged: new SharedArrayBuffer(keys * 4),
      published: new SharedArrayBuffer(keys * 4),
      flags: new SharedArrayBuffer(64),
    }
    this.#staged = new Int32Array(this.board.staged)
    this.#published = new Int32Array(this.board.published)
    this.#flags = new Int32Array(this.board.flags)
    this.#names = Array.from({ length: keys }, (_, key) => new TextEncoder().encode(keyName(key, shape.tags, round)))
    this.store = new Store(
      {
        disk: forgetfulDisk(),
        directory: 'log',
        memory: this.memory,
        budgetBytes,
        crc32: (bytes, start, end) => nativeCrc32(bytes.subarray(start, end)),
        hashSeed,
        shard: 0,
        shards: 1,
        actor: { low: 1, high: 1 },
        preallocate: false,
        syncIntervalMs: 100,
        salvage: false,
        partitionOfSlot,
        isRetiredBucket: () => false,
      },
      { published: () => {}, failed: (_from, error) => assert.fail(error) },
    )
    this.store.recover(
      () => {},
      (error) => assert.equal(error, undefined),
    )
    Atomics.store(new Int32Array(this.memory.control), ControlWord.state, ShardState.up)
    while (this.#keys < Math.min(keys, 64)) {
      this.#grow()
      this.#turn()
    }
    this.#firstChunks = this.#chunks
  }

  get #chunks(): number {
    return Math.floor(this.store.index.bytesUsed / chunkBytes)
  }

  /** Chunks added since the readers began. */
  get splits(): number {
    return this.#chunks - this.#firstChunks
  }

  /** All keys are in. */
  get isGrown(): boolean {
    return this.#keys === this.shape.keys
  }

  get wrong(): number {
    return Atomics.load(this.#flags, HuntFlag.wrong)
  }

  stop(): void {
    Atomics.store(this.#flags, HuntFlag.stop, 1)
  }

  /** Some batches of writes. */
  work(): void {
    for (let batch = 0; batch < 64; batch++) {
      for (let left = this.#random.between(1, 32); left > 0; left--) {
        if (!this.isGrown && this.#random.below(1000) < this.shape.growth) this.#grow()
        else this.#write(this.#pick())
      }
      this.#turn()
    }
  }

  #pick(): number {
    if (this.#random.chance(1, 4)) return this.#random.below(Math.min(16, this.#keys))
    return this.#random.below(this.#keys)
  }

  #grow(): void {
    if (this.#write(this.#keys)) Atomics.store(this.#flags, HuntFlag.keys, ++this.#keys)
  }

  #turn(): void {
    this.store.flush()
    for (const key of this.#batch) Atomics.store(this.#published, key, this.#staged[key]!)
    this.#batch.length = 0
    this.#nowMs += 1
    this.store.step(this.#nowMs, 1)
    this.store.flush()
  }

  #write(key: number): boolean {
    const { store } = this
    const name = this.#names[key]!
    const slot = slotOfKey(name, 0, name.length)
    const partition = partitionOfSlot(slot)
    this.#hash.update(bucketId, name, 0, name.length)
    const hash = this.#hash.low
    const version = this.#staged[key]! + 1
    const isDelete = isDeletion(key, version)
    const valueBytes = isDelete ? 0 : valueBytesOf(key, version)
    const flags = isDelete ? RecordFlag.tombstone : 0
    const bytes = simpleRecordBytes(flags, name.length, 0, valueBytes)
    const old = store.find(partition, hash, bucketId, name, 0, name.length)
    const oldBytes =
      old === 0 ? 0 : recordBytesAt(store.arena.i32[old >>> wordsPerSlabBits]!, (old & slabWordMask) << 2)
    const address = store.allocate(bytes, bytes - oldBytes, isDelete ? 'delete' : 'grow')
    if (address === 0) {
      this.#turn()
      return false
    }
    const counter = store.nextCounter(partition)
    store.useCounter(partition, counter)
    if (!isDelete) fillValue(this.#value, key, version)
    Atomics.store(this.#staged, key, version)
    const slab = address >>> wordsPerSlabBits
    encodeSimple(
      store.arena.u8[slab]!,
      store.arena.i32[slab]!,
      (address & slabWordMask) << 2,
      slot,
      bucketId,
      flags,
      0,
      store.actor,
      counter,
      0,
      0,
      name,
      0,
      name.length,
      noBytes,
      0,
      0,
      this.#value,
      0,
      valueBytes,
    )
    store.stage(address, hash, this.#random.chance(1, 4))
    this.#batch.push(key)
    this.writes++
    return true
  }
}

export type HuntOptions = {
  readonly seed: number
  readonly durationMs: number
  /** Module that exports the `ResidentReader` to be hunted. */
  readonly readerUrl: string
}

/** Sums over all rounds and readers. */
export type HuntResult = {
  /** Wrong reads, one description per round and reader. */
  readonly wrong: readonly string[]
  readonly durationMs: number
  readonly rounds: number
  readonly readers: number
  readonly writes: number
  readonly recycledSegments: number
  readonly splits: number
  readonly reads: number
  readonly hits: number
  readonly misses: number
  readonly retries: number
  readonly contended: number
}

/** Hunts until a read was wrong or the time is over. There are more threads than cores, so that readers stop in their middle. */
export async function hunt({ seed, durationMs, readerUrl }: HuntOptions): Promise<HuntResult> {
  const random = new SeededRandom(seed)
  const readers = Math.min(8, Math.max(2, availableParallelism()))
  const workers = Array.from(
    { length: readers },
    () => new Worker(new URL('hunt-reader.ts', import.meta.url), { workerData: { readerUrl } }),
  )
  const next = <Message>(worker: Worker): Promise<Message> =>
    new Promise((resolve, reject) => {
      worker.once('message', (message: Message) => {
        worker.off('error', reject)
        resolve(message)
      })
      worker.once('error', reject)
    })
  const sum = { rounds: 0, writes: 0, recycledSegments: 0, splits: 0 }
  const seen = { reads: 0, hits: 0, misses: 0, retries: 0, contended: 0 }
  const wrong: string[] = []
  try {
    await Promise.all(workers.map((worker) => next(worker)))
    const startMs = performance.now()
    while (wrong.length === 0 && performance.now() - startMs < durationMs) {
      const round = ++sum.rounds
      const shape = shapeOf(round % 2 === 0 ? 'growing' : 'narrow', random)
      const hunted = new HuntedStore(shape, round, random)
      const { memory, board } = hunted
      const answers = workers.map((worker) => next<HuntReport>(worker))
      for (const worker of workers) {
        const told: HuntRound = {
          round,
          seed: random.u32(),
          memory,
          board,
          keys: shape.keys,
          tags: shape.tags,
          bucketId,
        }
        worker.postMessage(told)
      }
      const roundMs = performance.now()
      const endMs = Math.min(startMs + durationMs, roundMs + (shape.growth > 100 ? 1000 : 300))
      while (hunted.wrong === 0 && performance.now() < endMs && !(shape.growth > 100 && hunted.isGrown)) hunted.work()
      hunted.stop()
      for (const report of await Promise.all(answers)) {
        if (report.wrong !== undefined) wrong.push(report.wrong)
        for (const name of Object.keys(seen) as (keyof typeof seen)[]) seen[name] += report[name]
      }
      sum.writes += hunted.writes
      sum.recycledSegments += hunted.store.recycledSegments
      sum.splits += hunted.splits
    }
    return { ...sum, ...seen, wrong, readers, durationMs: Math.round(performance.now() - startMs) }
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()))
  }
}
