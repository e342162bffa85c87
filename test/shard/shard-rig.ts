/**
 * A whole node without threads: shards and one coordinator over a simulated disk and clock. Frames wait in queues until a turn
 * carries them, so that a test decides what shares a group. A disk that crashes ends the run; open a new one over it.
 */
import assert from 'node:assert/strict'
import type { SunwiseError } from '../../src/base/errors.ts'
import type { SeededRandom } from '../../src/base/seeded-random.ts'
import { firstPartitionOfShard, partitionOfSlot, shardOfPartition } from '../../src/cluster/slots.ts'
import type { Durability } from '../../src/config.ts'
import type { FrameTarget, Shards } from '../../src/env.ts'
import { zstd } from '../../src/host/native-codes.ts'
import { ShardCoordinator } from '../../src/replication/coordinator.ts'
import { LocalReplica } from '../../src/replication/local-replica.ts'
import type { Bucket, ReadAnswer, WriteAnswer, WriteOptions } from '../../src/replication/requests.ts'
import { Shard } from '../../src/shard/shard.ts'
import type { ActorId } from '../../src/storage/log-control.ts'
import type { ReadPacing } from '../../src/storage/read-pace.ts'
import { ResidentReader } from '../../src/storage/resident-reader.ts'
import { ControlWord, createShardMemory, type ShardMemory, ShardState } from '../../src/storage/shard-memory.ts'
import { ShardReader } from '../../src/storage/shard-reader.ts'
import type { StoreOptions } from '../../src/storage/store.ts'
import { commitTables, loadTables, strayFiles } from '../../src/storage/table-catalog.ts'
import { TableFinder } from '../../src/storage/table-finder.ts'
import { bucketOf as anyBucketOf } from '../bucket.ts'
import type { SimCatalog } from '../sim/sim-catalog.ts'
import type { SimClock } from '../sim/sim-clock.ts'
import type { SimDisk } from '../sim/sim-disk.ts'
import type { SimJobs } from '../sim/sim-jobs.ts'
import { crc32 } from '../storage/store-rig.ts'

/** A bucket of a node by itself. */
export const bucketOf = (parts: Partial<Bucket> = {}): Bucket => anyBucketOf({ n: 1, ...parts })

export type ShardRigOptions = {
  readonly disk: SimDisk
  readonly clock: SimClock
  readonly actor?: ActorId
  readonly shards?: number
  /** Of the log: another one where it was dealt to another number of shards. */
  readonly generation?: number
  readonly segmentBytes?: number
  readonly segments?: number
  readonly budgetBytes?: number
  readonly preallocate?: boolean
  readonly durability?: Durability
  readonly salvage?: boolean
  readonly retiredBuckets?: ReadonlySet<number>
  /** Bytes that may wait for one shard; more is refused as a full ring refuses. */
  readonly queueBytesMax?: number
  /** Writes below `sync` are taken at their word from the start. */
  readonly unsyncedNoted?: boolean
  /** Data that memory has no room for goes to tables. */
  readonly tables?:
    | {
        readonly catalog: SimCatalog
        readonly jobs: SimJobs
        readonly random: SeededRandom
        readonly pace?: ReadPacing | undefined
        readonly compresses?: boolean
        readonly scrubBytesPerSecond?: number
        readonly sliceBytesMin?: number
      }
    | undefined
}

type Frame = { readonly thread: number; readonly u8: Uint8Array; readonly i32: Int32Array }

/** One request's result, once there is one. */
export type Result<Answer> = { error: SunwiseError | undefined; answer: Answer | undefined; calls: number }

/** As the links between threads do it. */
const framesPerPortion = 64
const replicaThread = 1

const tablesDirectory = 'tables'
export const directoryOf = (shard: number, generation = 0): string =>
  `log${generation === 0 ? '' : generation}/${shard}`

/** One run of a node. */
export class ShardRig {
  readonly options: ShardRigOptions
  readonly shards: Shard[] = []
  readonly memories: ShardMemory[] = []
  readonly coordinator: ShardCoordinator
  /** The thread that speaks for the node, beside the front end. */
  readonly replica: LocalReplica
  readonly failures: SunwiseError[] = []
  /** What tables reported beside requests. */
  readonly reports: SunwiseError[] = []
  actorIsStale = 0
  readonly #inboxes: Frame[][] = []
  readonly #queuedBytes: number[] = []
  #replies: Frame[] = []
  #reserved: Frame | undefined
  #replyReserved: Frame | undefined
  #isDown = new Set<number>()

  constructor(options: ShardRigOptions) {
    this.options = options
    const { disk, clock } = options
    const count = options.shards ?? 1
    const segmentBytes = options.segmentBytes ?? 8192
    const segments = options.segments ?? 48
    const budgetBytes = options.budgetBytes ?? segments * segmentBytes
    const hashSeed = { low: 5, high: 6 }
    if (options.tables !== undefined) disk.makeDirectoryNow(tablesDirectory)
    for (let shard = 0; shard < count; shard++) {
      disk.makeDirectoryNow(directoryOf(shard, options.generation))
      const memory = createShardMemory({ segmentBytes, segments, chunksMax: 4096, budgetBytes })
      this.memories.push(memory)
      this.#inboxes.push([])
      this.#queuedBytes.push(0)
      this.shards.push(
        new Shard(
          {
            disk,
            directory: directoryOf(shard, options.generation),
            memory,
            budgetBytes,
            crc32,
            hashSeed,
            shard,
            shards: count,
            actor: options.actor ?? { low: 1, high: 1 },
            preallocate: options.preallocate ?? true,
            syncIntervalMs: 100,
            salvage: options.salvage ?? false,
            partitionOfSlot,
            isRetiredBucket: (bucketId) => options.retiredBuckets?.has(bucketId) ?? false,
            tables: this.#tables(shard, count),
          },
          clock,
          {
            beginReply: (thread, bytes) => {
              assert.equal(this.#replyReserved, undefined, 'One reply is begun at a time')
              const frame = frameOf(thread, bytes)
              this.#replyReserved = frame
              return { u8: frame.u8, i32: frame.i32, start: 0 }
            },
            commitReply: (thread) => {
              assert.equal(this.#replyReserved?.thread, thread)
              this.#replies.push(this.#replyReserved!)
              this.#replyReserved = undefined
            },
          },
          {
            unsyncedWanted: () => {
              for (const each of this.shards) each.unsyncedNoted = true
            },
            actorIsStale: () => {
              this.actorIsStale++
            },
            resumed: () => {},
            failed: (error) => {
              this.failures.push(error)
            },
          },
        ),
      )
      this.shards[shard]!.unsyncedNoted = options.unsyncedNoted ?? false
    }
    const readers = this.memories.map((memory) => {
      const finder = new TableFinder({
        disk,
        memory: memory.tables,
        crc32,
        codec: zstd,
        reader: 0,
        pace: options.tables?.pace,
      })
      return new ShardReader(new ResidentReader(memory, false), finder)
    })
    this.coordinator = new ShardCoordinator({
      clock,
      shards: this.#door(count, 0),
      readerOf: (shard) => readers[shard]!,
      hashSeed,
      clusterKey: new Uint8Array(16).fill(3),
      durability: options.durability ?? 'sync',
    })
    this.replica = new LocalReplica({
      clock,
      shards: this.#door(count, replicaThread),
      readerOf: (shard) => readers[shard]!,
      hashSeed,
    })
  }

  #tables(shard: number, shards: number): StoreOptions['tables'] {
    const { disk, tables } = this.options
    if (tables === undefined) return undefined
    const { catalog, jobs, random, pace, compresses = false, scrubBytesPerSecond = 0, sliceBytesMin } = tables
    const range = {
      firstPartition: firstPartitionOfShard(shard, shards),
      endPartition: firstPartitionOfShard(shard + 1, shards),
    }
    for (const name of strayFiles(catalog, disk, tablesDirectory)) disk.removeNow(`${tablesDirectory}/${name}`)
    return {
      directory: tablesDirectory,
      jobs,
      random,
      codec: zstd,
      ...loadTables(catalog, shard, range),
      commit: (edits, unnamed, done) => commitTables(catalog, shards, shard, edits, unnamed, done),
      reader: shard + 1,
      pace,
      compresses,
      scrubBytesPerSecond,
      sliceBytesMin,
      buckets: () => ({
        live: new Set([1, 7].filter((bucket) => !this.options.retiredBuckets?.has(bucket))),
        below: 8,
      }),
      report: (error) => this.reports.push(error),
    }
  }

  /** Recovers all shards; throws the error of the first that fails. With `queued` disks, `settle` must end what is under way. */
  open(settle: () => void = () => {}): this {
    for (const [index, shard] of this.shards.entries()) {
      let outcome: { error: SunwiseError | undefined } | undefined
      shard.store.recover(
        () => {},
        (error) => {
          outcome = { error }
        },
      )
      settle()
      assert.ok(outcome !== undefined, 'Recovery has ended')
      if (outcome.error !== undefined) throw outcome.error
      this.#setState(index, ShardState.up)
    }
    return this
  }

  #setState(shard: number, state: number): void {
    Atomics.store(new Int32Array(this.memories[shard]!.control), ControlWord.state, state)
  }

  /** The shard is gone for requests; what was sent to it is never answered. */
  takeDown(shard: number): void {
    this.#isDown.add(shard)
    this.#setState(shard, ShardState.down)
    this.#inboxes[shard] = []
    this.#queuedBytes[shard] = 0
    this.coordinator.shardDown(shard)
  }

  #door(count: number, thread: number): Shards {
    return {
      count,
      begin: (shard, bytes): FrameTarget | undefined => {
        assert.equal(this.#reserved, undefined, 'One frame is begun at a time')
        if (this.#queuedBytes[shard]! + bytes > (this.options.queueBytesMax ?? Number.POSITIVE_INFINITY))
          return undefined
        this.#reserved = frameOf(thread, bytes)
        return { u8: this.#reserved.u8, i32: this.#reserved.i32, start: 0 }
      },
      commit: (shard) => {
        this.#inboxes[shard]!.push(this.#reserved!)
        this.#queuedBytes[shard]! += this.#reserved!.u8.length
        this.#reserved = undefined
      },
      publish: () => {},
      isUp: (shard) => !this.#isDown.has(shard),
    }
  }

  /**
   * One turn of every shard, as its loop does it: take portions of frames while it accepts them, flush. A portion is not cut short
   * when the shard stops accepting in its middle. Returns how many were taken.
   */
  shardTurn(): number {
    let taken = 0
    for (const [index, shard] of this.shards.entries()) {
      const inbox = this.#inboxes[index]!
      while (inbox.length > 0 && shard.canAccept) {
        for (const frame of inbox.splice(0, framesPerPortion)) {
          this.#queuedBytes[index]! -= frame.u8.length
          shard.receive(frame.thread, frame.u8, frame.i32, 0, frame.u8.length)
          // The ring's memory is used again at once.
          frame.u8.fill(0xdb)
          taken++
        }
      }
      shard.flush()
      if (!shard.canAccept) shard.tick()
    }
    return taken
  }

  /** Carries replies to the coordinator; `drop` loses them instead. */
  deliverReplies(drop = false): void {
    const replies = this.#replies
    this.#replies = []
    if (drop) return
    for (const reply of replies) {
      if (reply.thread === replicaThread) this.replica.receive(reply.u8, reply.i32, 0)
      else this.coordinator.receive(reply.u8, reply.i32, 0)
      reply.u8.fill(0xbd)
    }
  }

  turn(): void {
    this.shardTurn()
    this.deliverReplies()
  }

  tick(): void {
    for (const shard of this.shards) shard.tick()
    this.coordinator.tick()
    this.turn()
  }

  /** Turns until nothing is pending; a node that never gets there is stuck. */
  settle(): void {
    for (let round = 0; this.coordinator.pendingCount + this.replica.pendingCount > 0; round++) {
      assert.ok(round < 2000, 'Every request is answered in the end')
      this.turn()
      if (round % 8 === 7) {
        this.options.clock.advance(100)
        this.tick()
      }
    }
  }

  /** Stops in good order. */
  close(): void {
    this.settle()
    for (let round = 0; !this.shards.every((shard) => shard.isIdle); round++) {
      assert.ok(round < 2000, 'A shard comes to rest')
      this.turn()
    }
    for (const shard of this.shards) {
      let outcome: { error: SunwiseError | undefined } | undefined
      shard.store.close((error) => {
        outcome = { error }
      })
      assert.ok(outcome !== undefined, 'The store has closed')
      if (outcome.error !== undefined) throw outcome.error
    }
  }

  // Requests that wait for their answers.

  put(key: Uint8Array, value: Uint8Array, options: WriteOptions = {}, bucket = bucketOf()): Result<WriteAnswer> {
    return this.wait((done) => this.coordinator.put(bucket, key, value, options, done))
  }

  delete(key: Uint8Array, options: WriteOptions = {}, bucket = bucketOf()): Result<WriteAnswer> {
    return this.wait((done) => this.coordinator.delete(bucket, key, options, done))
  }

  get(key: Uint8Array, bucket = bucketOf()): ReadAnswer {
    const { error, answer } = this.wait<ReadAnswer>((done) => this.coordinator.get(bucket, key, {}, done))
    if (error !== undefined) throw error
    return answer!
  }

  /** Starts a request and turns until it is answered. */
  wait<Answer>(
    start: (done: (error: SunwiseError | undefined, answer: Answer | undefined) => void) => void,
  ): Result<Answer> {
    const result = send(start)
    this.settle()
    assert.equal(result.calls, 1, 'The callback comes once')
    return result
  }
}

/** Starts a request; its result is filled in when the answer comes. */
export function send<Answer>(
  start: (done: (error: SunwiseError | undefined, answer: Answer | undefined) => void) => void,
): Result<Answer> {
  const result: Result<Answer> = { error: undefined, answer: undefined, calls: 0 }
  start((error, answer) => {
    result.calls++
    assert.equal(result.calls, 1, 'The callback comes once')
    assert.ok((error === undefined) !== (answer === undefined), 'Either an error or an answer')
    result.error = error
    result.answer = answer
  })
  return result
}

function frameOf(thread: number, bytes: number): Frame {
  const buffer = new ArrayBuffer((bytes + 3) & ~3)
  // Ring memory is not zeroed.
  const u8 = new Uint8Array(buffer).fill(0xa5)
  return { thread, u8, i32: new Int32Array(buffer) }
}

export const shardOf = (slot: number, shards: number): number => shardOfPartition(partitionOfSlot(slot), shards)
