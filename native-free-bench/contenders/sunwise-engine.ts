/**
 * A shard of Sunwise without its thread: the same Shard, reader and disk as in the product, called in this thread, so that
 * a row shows what the engine costs and what the way to it costs.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { KeyHash } from '../../src/base/key-hash.ts'
import { partitionOfSlot, slotOfKey } from '../../src/cluster/slots.ts'
import { DurabilityNumber } from '../../src/config.ts'
import type { FrameTarget } from '../../src/env.ts'
import { HostClock } from '../../src/host/clock.ts'
import { HostDisk } from '../../src/host/disk.ts'
import { FrameKind, writeCommandBytes, writeReplyBytes } from '../../src/shard/command.ts'
import { Shard } from '../../src/shard/shard.ts'
import { ResidentReader } from '../../src/storage/resident-reader.ts'
import { ControlWord, createShardMemory, planShard, ShardState } from '../../src/storage/shard-memory.ts'
import { KeySet, keyBytes, valueBytes, writeKey } from '../key-set.ts'

const budgetBytesLeast = 2 ** 30
const budgetBytesPerKey = 512
const segmentBytes = 16 * 2 ** 20
const versionSetBytesMax = 4 * 2 ** 20
/** After so many puts one must ask whether the shard can take more, as threads do when they drain their rings. */
export const groupRecords = 64
const tickRecords = 4096
const hashSeed = { low: 1, high: 2 }
const bucketId = 1
const valueWords = valueBytes / 4
const frameBytes = writeCommandBytes + keyBytes + valueBytes

/** The engine, filled with a key set. Values are those of the record number, cut at a multiple of 4. */
export class Engine {
  readonly set: KeySet
  readonly reader: ResidentReader
  readonly hash = new KeyHash(hashSeed)
  readonly #shard: Shard
  readonly #frame: Uint8Array
  readonly #words: Int32Array
  readonly #values: Int32Array
  #refused = 0
  #answered = 0
  #asked = 0

  private constructor(directory: string, keys: number, sync: boolean) {
    this.set = new KeySet(keys)
    const budgetBytes = Math.max(budgetBytesLeast, keys * budgetBytesPerKey)
    const memory = createShardMemory(planShard(budgetBytes, segmentBytes, 0))
    Atomics.store(new Int32Array(memory.control), ControlWord.state, ShardState.up)
    const reply: FrameTarget = targetOf(writeReplyBytes + 1024)
    this.#shard = new Shard(
      {
        disk: new HostDisk(directory),
        directory: 'log',
        memory,
        budgetBytes,
        crc32: (bytes, start, end) => crc32(bytes.subarray(start, end)),
        hashSeed,
        shard: 0,
        shards: 1,
        actor: { low: 5, high: 6 },
        preallocate: sync,
        syncIntervalMs: 100,
        salvage: false,
        partitionOfSlot,
        isRetiredBucket: () => false,
      },
      new HostClock(),
      {
        beginReply: () => reply,
        commitReply: () => {
          this.#answered++
          if (reply.i32[0]! >>> 16 !== 0) this.#refused++
        },
      },
      {
        unsyncedWanted: () => {},
        resumed: () => {},
        actorIsStale: () => {},
        failed: (error) => {
          throw error
        },
      },
    )
    this.#shard.unsyncedNoted = true
    this.reader = new ResidentReader(memory, process.arch === 'arm64')
    const frame = targetOf(frameBytes)
    this.#frame = frame.u8
    this.#words = frame.i32
    // Values stand in a pool of random words; any window of it is a value.
    this.#values = new Int32Array(1 << 16)
    for (let word = 0; word < this.#values.length; word++) this.#values[word] = this.set.probeIndices[word & 1023]! * 31
  }

  static async open(scratch: string, keys: number): Promise<Engine> {
    const directory = join(scratch, `engine-${process.pid}`)
    mkdirSync(join(directory, 'log'), { recursive: true })
    const engine = new Engine(directory, keys, false)
    await new Promise<void>((resolve, reject) => {
      const done = (error: Error | undefined): void => (error === undefined ? resolve() : reject(error))
      engine.#shard.store.recover(() => {}, done)
    })
    await engine.commit()
    for (let index = 0; index < keys; index++) {
      engine.put(index, index)
      if (index % groupRecords === groupRecords - 1) await engine.commit()
    }
    await engine.settled()
    return engine
  }

  /** Frames and hands over one put of the key of record `index`, as a coordinator does. */
  put(index: number, value: number): void {
    const words = this.#words
    writeKey(index, this.#frame, writeCommandBytes)
    const slot = slotOfKey(this.#frame, writeCommandBytes, writeCommandBytes + keyBytes)
    this.hash.update(bucketId, this.#frame, writeCommandBytes, writeCommandBytes + keyBytes)
    for (let word = 0; word < writeCommandBytes / 4; word++) words[word] = 0
    words[0] = FrameKind.put | (slot << 16)
    words[1] = index
    words[2] = bucketId
    words[3] = this.hash.low
    words[4] = versionSetBytesMax
    words[5] = keyBytes
    words[6] = valueBytes
    words[7] = DurabilityNumber.os << 16
    const from = value & (this.#values.length / 2 - 1)
    const to = (writeCommandBytes + keyBytes) / 4
    for (let word = 0; word < valueWords; word++) words[to + word] = this.#values[from + word]!
    this.#shard.receive(1, this.#frame, words, 0, writeCommandBytes + keyBytes + valueBytes)
    this.#asked++
  }

  /** Ends a group: writes, publishes, answers; then waits while the shard can take no more, as for its next segment. */
  async commit(): Promise<void> {
    this.commitNow()
    while (this.mustWait) {
      this.#shard.tick()
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  /** As `commit`, for callers that ask `mustWait` at least every `groupRecords` puts. */
  commitNow(): void {
    this.#shard.flush()
    if (this.#asked % tickRecords < groupRecords) this.#shard.tick()
  }

  get mustWait(): boolean {
    return !this.#shard.canAccept
  }

  /** Waits for what is under way and refuses to go on if a put was refused. */
  async settled(): Promise<void> {
    // What the recycler moves has no answer, but it is work under way, too.
    for (this.#shard.flush(); !this.#shard.isIdle; this.#shard.flush()) {
      await new Promise((resolve) => setImmediate(resolve))
    }
    if (this.#answered !== this.#asked) throw new Error(`The shard answered ${this.#answered} of ${this.#asked} puts`)
    if (this.#refused > 0) throw new Error(`The shard refused ${this.#refused} puts`)
  }

  /** Copies the value of the key at `keys[at, at + 16)` into `into`; its length or a ReadResult. */
  read(keys: Uint8Array, at: number, into: Uint8Array, intoWords: Int32Array): number {
    const partition = partitionOfSlot(slotOfKey(keys, at, at + keyBytes))
    this.hash.update(bucketId, keys, at, at + keyBytes)
    return this.reader.readValue(partition, this.hash.low, bucketId, keys, at, keyBytes, into, intoWords, 0)
  }

  close(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#shard.store.close((error) => (error === undefined ? resolve() : reject(error)))
    })
  }
}

function targetOf(bytes: number): FrameTarget {
  const words = new Int32Array(Math.ceil(bytes / 4))
  return { u8: new Uint8Array(words.buffer), i32: words, start: 0 }
}
