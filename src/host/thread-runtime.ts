/**
 * What every serving thread has, shard worker and embedded front end alike: links, readers of all shards' memory, a
 * coordinator, and the table of buckets with its administration through the node thread.
 */
import { SunwiseError } from '../base/errors.ts'
import { ShardCoordinator } from '../replication/coordinator.ts'
import type { Bucket, BucketAdmin, BucketProperties, Callback } from '../replication/requests.ts'
import { ReadPace } from '../storage/read-pace.ts'
import type { Allocate } from '../storage/record.ts'
import { ResidentReader } from '../storage/resident-reader.ts'
import type { ShardMemory } from '../storage/shard-memory.ts'
import { ShardReader } from '../storage/shard-reader.ts'
import { TableFinder } from '../storage/table-finder.ts'
import { HostClock } from './clock.ts'
import { deviceBytesRead } from './device-reads.ts'
import { HostDisk } from './disk.ts'
import { Doorbell } from './doorbell.ts'
import type { AdminRequest, FromThread, ThreadSeed, ToThread } from './messages.ts'
import { nativeCrc32, zstd } from './native-codes.ts'
import { ThreadLinks, threadOfShard } from './thread-links.ts'

const weakOrder = process.arch === 'arm64'

export class ThreadRuntime {
  readonly clock: HostClock = new HostClock()
  /** Whether this thread may wait for reads of tables: they are all on one disk. */
  readonly readPace: ReadPace = new ReadPace(this.clock, deviceBytesRead)
  readonly bell: Doorbell = new Doorbell()
  readonly links: ThreadLinks
  readonly coordinator: ShardCoordinator
  readonly buckets: BucketTable
  readonly readers: ShardReader[]
  readonly #thread: number
  /** Tables are read by their handles, which the shards have opened: the root is of no account. */
  readonly #disk = new HostDisk('/')

  /** `allocate` gives memory for the values and contexts of answers. */
  constructor(seed: ThreadSeed, post: (message: FromThread) => void, allocate: Allocate) {
    this.#thread = seed.thread
    this.readers = seed.memories.map((memory) => this.#readerOf(memory))
    this.links = new ThreadLinks(seed.shards, this.bell, (shard) => this.readers[shard]!.isUp)
    this.coordinator = new ShardCoordinator({
      clock: this.clock,
      shards: this.links,
      readerOf: (shard) => this.readers[shard]!,
      hashSeed: seed.hashSeed,
      clusterKey: seed.clusterKey,
      durability: seed.durability,
      allocate,
    })
    this.buckets = new BucketTable(seed.buckets, post)
  }

  #readerOf(memory: ShardMemory): ShardReader {
    const finder = new TableFinder({
      disk: this.#disk,
      memory: memory.tables,
      crc32: nativeCrc32,
      codec: zstd,
      reader: this.#thread,
      pace: this.readPace,
    })
    return new ShardReader(new ResidentReader(memory, weakOrder), finder)
  }

  /** Connects the links; after the loop has set its callback on the bell. */
  connect(seed: ThreadSeed): void {
    for (const link of seed.links) this.links.connect(link)
  }

  /** Takes what concerns every thread; false if the message is for somebody else. */
  receive(message: ToThread): boolean {
    switch (message.type) {
      case 'connect':
        this.links.connect(message.link)
        return true
      case 'shardDown':
        this.links.disconnect(threadOfShard(message.shard))
        this.coordinator.shardDown(message.shard)
        return true
      case 'shardMemory':
        this.readers[message.shard] = this.#readerOf(message.memory)
        return true
      case 'buckets':
        this.buckets.replace(message.buckets)
        return true
      case 'adminReply':
        this.buckets.settle(message.id, message.error, message.result)
        return true
      default:
        return false
    }
  }
}

/** The buckets as this thread knows them; changes go through the node thread, which owns the catalog. */
export class BucketTable implements BucketAdmin {
  /** Counts the changes of the table: who keeps a bucket looks it up again after one. */
  version = 0
  #byName: Map<string, Bucket>
  readonly #post: (message: FromThread) => void
  readonly #waiting = new Map<number, Callback<unknown>>()
  #nextId = 1
  #failure: SunwiseError | undefined

  constructor(buckets: readonly Bucket[], post: (message: FromThread) => void) {
    this.#byName = new Map(buckets.map((bucket) => [bucket.name, bucket]))
    this.#post = post
  }

  find(name: string): Bucket | undefined {
    return this.#byName.get(name)
  }

  all(): readonly Bucket[] {
    return [...this.#byName.values()]
  }

  put(
    name: string,
    properties: BucketProperties,
    done: Callback<{ readonly bucket: Bucket; readonly created: boolean }>,
  ): void {
    this.#ask({ op: 'putBucket', name, properties }, done as Callback<unknown>)
  }

  delete(name: string, done: Callback<undefined>): void {
    this.#ask({ op: 'deleteBucket', name }, done as Callback<unknown>)
  }

  replace(buckets: readonly Bucket[]): void {
    this.version++
    this.#byName = new Map(buckets.map((bucket) => [bucket.name, bucket]))
  }

  /** Changes under way. */
  get waitingCount(): number {
    return this.#waiting.size
  }

  /** Fails what waits and every later change: the node thread is gone or going. */
  fail(error: SunwiseError): void {
    this.#failure = error
    for (const done of this.#waiting.values()) {
      done(new SunwiseError(error.code, error.message, { outcome: 'unknown' }), undefined)
    }
    this.#waiting.clear()
  }

  settle(id: number, error: { code: SunwiseError['code']; message: string } | undefined, result: unknown): void {
    const done = this.#waiting.get(id)
    this.#waiting.delete(id)
    if (error !== undefined) done?.(new SunwiseError(error.code, error.message), undefined)
    else done?.(undefined, result)
  }

  #ask(request: AdminRequest, done: Callback<unknown>): void {
    if (this.#failure !== undefined) return done(this.#failure, undefined)
    if (this.#waiting.size >= 64) {
      return done(new SunwiseError('OVERLOADED', 'Cannot change buckets now: 64 changes are under way'), undefined)
    }
    const id = this.#nextId++
    this.#waiting.set(id, done)
    this.#post({ type: 'admin', id, request })
  }
}
