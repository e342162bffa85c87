/**
 * Both ends of a hunt for reads that go wrong while partitions of the table in memory are built anew (`HashIndex.shrink`): the owner
 * fills one partition, empties it but for a few keys, shrinks it, and lets another one take the chunks that came free, again and again;
 * threads look up those few keys, which are always there, and keys that never are.
 */
import assert from 'node:assert/strict'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { KeyHash } from '../../src/base/key-hash.ts'
import { Arena, slabWordMask, wordsPerSlabBits } from '../../src/storage/arena.ts'
import { chunkBytes, HashIndex } from '../../src/storage/hash-index.ts'
import { encodeSimple, recordHeaderBytes, recordKeyBytes, simpleRecordBytes } from '../../src/storage/record.ts'
import { ControlWord, createShardMemory, type ShardMemory, ShardState } from '../../src/storage/shard-memory.ts'

const hashSeed = { low: 21, high: 22 }
const bucketId = 1
const segmentBytes = 65536
const segments = 64
/** The partition that grows and shrinks, and the one that takes its chunks. */
const shrinking = 5
const taking = 6
const residents = 40
const transients = 3000
const readers = 3
const noBytes = new Uint8Array(0)

type Board = { readonly memory: ShardMemory; readonly flags: SharedArrayBuffer; readonly readerUrl: string }

/** Words of the flags: the owner is done, and a reader saw something wrong. */
const Flag = { stop: 0, wrong: 1 } as const

export type ShrinkReport = {
  readonly reads: number
  readonly retries: number
  readonly contended: number
  /** The first wrong read. */
  readonly wrong: string | undefined
}

export type ShrinkHunt = {
  readonly wrong: readonly string[]
  readonly reads: number
  readonly retries: number
  readonly contended: number
  /** Times that the partition was built anew with fewer chunks. */
  readonly shrinks: number
}

type Entry = { readonly key: Uint8Array; readonly hash: number; readonly address: number }

const nameOf = (kind: string, index: number): Uint8Array => new TextEncoder().encode(`${kind} ${index}`)

/** Hunts until a read was wrong or the time is over. */
export async function huntShrinks(durationMs: number, readerUrl: string): Promise<ShrinkHunt> {
  const owner = new Owner()
  const flags = new SharedArrayBuffer(8)
  const board: Board = { memory: owner.memory, flags, readerUrl }
  const words = new Int32Array(flags)
  const workers = Array.from({ length: readers }, () => new Worker(new URL(import.meta.url), { workerData: board }))
  try {
    await Promise.all(workers.map((worker) => answerOf(worker)))
    const reports = workers.map((worker) => answerOf<ShrinkReport>(worker))
    for (const worker of workers) worker.postMessage('go')
    const endMs = performance.now() + durationMs
    while (performance.now() < endMs && Atomics.load(words, Flag.wrong) === 0) owner.round()
    Atomics.store(words, Flag.stop, 1)
    const sum = { reads: 0, retries: 0, contended: 0 }
    const wrong: string[] = []
    for (const report of await Promise.all(reports)) {
      if (report.wrong !== undefined) wrong.push(report.wrong)
      for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += report[name]
    }
    return { ...sum, wrong, shrinks: owner.shrinks }
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()))
  }
}

function answerOf<Answer>(worker: Worker): Promise<Answer> {
  return new Promise((resolve, reject) => {
    worker.once('error', reject)
    worker.once('message', (answer: Answer) => {
      worker.off('error', reject)
      resolve(answer)
    })
  })
}

class Owner {
  readonly memory = createShardMemory({ segmentBytes, segments, chunksMax: 4096, budgetBytes: segments * segmentBytes })
  readonly #arena = new Arena(this.memory.arena)
  readonly #index = new HashIndex(this.memory.index, this.#arena)
  readonly #hash = new KeyHash(hashSeed)
  readonly #transients: readonly Entry[]
  readonly #others: readonly Entry[]
  #next = 64
  shrinks = 0

  constructor() {
    const entriesOf = (kind: string, count: number): readonly Entry[] =>
      Array.from({ length: count }, (_, index) => this.#entry(nameOf(kind, index)))
    for (const entry of entriesOf('resident', residents)) this.#insert(shrinking, entry)
    this.#transients = entriesOf('transient', transients)
    this.#others = entriesOf('other', transients)
    Atomics.store(new Int32Array(this.memory.control), ControlWord.state, ShardState.up)
  }

  /** The partition grows and shrinks; another one takes its chunks and gives them back. */
  round(): void {
    for (const entry of this.#transients) this.#insert(shrinking, entry)
    for (const entry of this.#transients) this.#remove(shrinking, entry)
    const before = this.#index.bytesUsed
    this.#index.shrink(shrinking)
    if (this.#index.bytesUsed <= before - chunkBytes) this.shrinks++
    for (const entry of this.#others) this.#insert(taking, entry)
    for (const entry of this.#others) this.#remove(taking, entry)
    this.#index.shrink(taking)
  }

  #insert(partition: number, { hash, address }: Entry): void {
    assert.ok(this.#index.insert(partition, hash, address), 'The table has room')
  }

  #remove(partition: number, { key, hash, address }: Entry): void {
    assert.equal(this.#index.find(partition, hash, bucketId, key, 0, key.length), address)
    this.#index.removeFound(partition, hash)
  }

  /** Writes a record that holds just a key. */
  #entry(key: Uint8Array): Entry {
    const bytes = simpleRecordBytes(0, key.length, 0, 0)
    const left = segmentBytes - (this.#next % segmentBytes)
    if (bytes > left) this.#next += left + 64
    const address = this.#arena.address(Math.floor(this.#next / segmentBytes), this.#next % segmentBytes)
    const slab = address >>> wordsPerSlabBits
    const at = (address & slabWordMask) << 2
    const { u8, i32 } = this.#arena
    const head = [u8[slab]!, i32[slab]!, at, 0, bucketId, 0, 0, 0, 1, 0, 0] as const
    encodeSimple(...head, key, 0, key.length, noBytes, 0, 0, noBytes, 0, 0)
    this.#next += bytes
    this.#hash.update(bucketId, key, 0, key.length)
    return { key, hash: this.#hash.low, address }
  }
}

if (!isMainThread && parentPort !== null && (workerData as Board | null)?.flags !== undefined) {
  const port = parentPort
  const { memory, flags, readerUrl } = workerData as Board
  const { ResidentReader, ReadResult } = (await import(
    readerUrl
  )) as typeof import('../../src/storage/resident-reader.ts')
  const words = new Int32Array(flags)
  const reader = new ResidentReader(memory, process.arch === 'arm64')
  const hash = new KeyHash(hashSeed)
  const copy = new Int32Array(256)
  const bytes = new Uint8Array(copy.buffer)
  const present = Array.from({ length: residents }, (_, index) => nameOf('resident', index))
  const absent = Array.from({ length: residents }, (_, index) => nameOf('never', index))

  /** What is wrong with a read of a key, if anything. */
  const judge = (key: Uint8Array, isThere: boolean, result: number): string | undefined => {
    const name = new TextDecoder().decode(key)
    if (result === ReadResult.contended) return undefined
    if (!isThere) return result === ReadResult.absent ? undefined : `${name} was found: ${result}`
    if (result <= 0) return `${name} was missed: ${result}`
    const found = new TextDecoder().decode(bytes.slice(recordHeaderBytes, recordHeaderBytes + recordKeyBytes(bytes, 0)))
    return found === name ? undefined : `${name} was read as ${found}`
  }

  const run = (): ShrinkReport => {
    let reads = 0
    let contended = 0
    let wrong: string | undefined
    while (Atomics.load(words, Flag.stop) === 0 && wrong === undefined) {
      for (let index = 0; index < residents && wrong === undefined; index++) {
        for (const [key, isThere] of [
          [present[index]!, true],
          [absent[index]!, false],
        ] as const) {
          hash.update(bucketId, key, 0, key.length)
          const result = reader.readRecord(shrinking, hash.low, bucketId, key, 0, key.length, copy)
          reads++
          if (result === ReadResult.contended) contended++
          wrong ??= judge(key, isThere, result)
        }
      }
    }
    if (wrong !== undefined) Atomics.store(words, Flag.wrong, 1)
    return { reads, contended, retries: reader.retries, wrong }
  }
  port.once('message', () => port.postMessage(run()))
  port.postMessage('ready')
}
