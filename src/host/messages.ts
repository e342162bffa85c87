/**
 * Messages between the node thread and the threads it serves, through their worker ports: rare, administrative, structured
 * clones. Data never travels here.
 */
import type { ErrorCode } from '../base/errors.ts'
import type { HashSeed } from '../base/key-hash.ts'
import type { Compression, Durability } from '../config.ts'
import type { CatalogEdit } from '../env.ts'
import type { Bucket, BucketProperties } from '../replication/requests.ts'
import type { HeldShard } from '../storage/hold.ts'
import type { LogPosition } from '../storage/log-group.ts'
import type { ShardMemory } from '../storage/shard-memory.ts'
import type { DamageById } from '../storage/table-health.ts'
import type { TableFacts, TableRow } from '../storage/table-rows.ts'
import type { HttpLimits } from './http/front.ts'
import type { Link } from './thread-links.ts'

/** A failure as it crosses a thread boundary. */
export type ErrorMessage = { readonly code: ErrorCode; readonly message: string }

/** What every thread that serves requests starts with. */
export type ThreadSeed = {
  readonly thread: number
  readonly shards: number
  readonly memories: readonly ShardMemory[]
  readonly links: readonly Link[]
  readonly hashSeed: HashSeed
  readonly clusterKey: Uint8Array
  readonly durability: Durability
  /** Acknowledged writes may not be on stable storage yet. */
  readonly unsyncedNoted: boolean
  readonly buckets: readonly Bucket[]
  /** Ids of buckets that were given out so far are below this. */
  readonly bucketsBelow: number
}

/** What a shard worker starts with besides. */
export type ShardSeed = {
  readonly shard: number
  /** Data directory, absolute. */
  readonly directory: string
  /** This shard's log directory, relative to it. */
  readonly logDirectory: string
  readonly budgetBytes: number
  readonly actor: { readonly low: number; readonly high: number }
  readonly syncIntervalMs: number
  readonly compression: Compression
  /** This shard's part of the rate. */
  readonly scrubBytesPerSecond: number
  readonly salvage: boolean
  /** Where a clean stop ended the log, if the last end was one. */
  readonly syncedEnd: LogPosition | undefined
  /** What the catalog holds of this shard's tables. */
  readonly tables: {
    readonly rows: readonly TableRow[]
    readonly facts: readonly TableFacts[]
    readonly flushedThrough: number
    readonly damaged: DamageById
  }
  /**
   * Of a node in a cluster: what clients ask goes to its thread. The word is 1 once it is a member, and serves.
   */
  readonly member: SharedArrayBuffer | undefined
  readonly http: HttpSeed | undefined
}

/** How a worker serves HTTP. */
export type HttpSeed = {
  readonly nodeId: string
  readonly limits: HttpLimits
  readonly allowedHosts: readonly string[]
  /** Shared memory of the HTTP counters, one per shard worker. */
  readonly counters: readonly SharedArrayBuffer[]
  readonly insecure: boolean
}

export type WorkerData = { readonly seed: ThreadSeed; readonly shard: ShardSeed }

export type ToThread =
  | { readonly type: 'connect'; readonly link: Link }
  | { readonly type: 'shardDown'; readonly shard: number }
  | { readonly type: 'shardMemory'; readonly shard: number; readonly memory: ShardMemory }
  | { readonly type: 'unsyncedNoted' }
  | { readonly type: 'actor'; readonly low: number; readonly high: number }
  | {
      readonly type: 'buckets'
      readonly version: number
      readonly buckets: readonly Bucket[]
      readonly bucketsBelow: number
    }
  | {
      readonly type: 'adminReply'
      readonly id: number
      readonly error: ErrorMessage | undefined
      readonly result: unknown
    }
  | {
      readonly type: 'jobDone'
      readonly id: number
      readonly error: ErrorMessage | undefined
      readonly output: unknown
    }
  | {
      readonly type: 'tableCommitted'
      readonly id: number
      readonly error: ErrorMessage | undefined
      readonly orphans: readonly string[]
    }
  | { readonly type: 'listen'; readonly host: string; readonly port: number; readonly reusePort: boolean }
  | { readonly type: 'drain'; readonly graceMs: number }
  | { readonly type: 'close' }
  /** Keep what a backup copies; answered by `held`. */
  | { readonly type: 'hold' }
  /** Of what is held, the log is copied, or all. */
  | { readonly type: 'release'; readonly what: 'log' | 'all' }

export type AdminRequest =
  | { readonly op: 'putBucket'; readonly name: string; readonly properties: BucketProperties }
  | { readonly op: 'deleteBucket'; readonly name: string }

export type FromThread =
  | {
      readonly type: 'ready'
      readonly records: number
      readonly logBytes: number
      readonly droppedBytes: number
      readonly damages: readonly { readonly path: string; readonly from: number; readonly to: number }[]
    }
  | { readonly type: 'failed'; readonly error: ErrorMessage }
  /** The thread goes by this version of the table of buckets from now on. */
  | { readonly type: 'bucketsTaken'; readonly version: number }
  | { readonly type: 'unsyncedWanted' }
  | { readonly type: 'actorIsStale' }
  | { readonly type: 'listening'; readonly port: number; readonly reusePort: boolean }
  | { readonly type: 'listenFailed'; readonly error: ErrorMessage }
  | { readonly type: 'drained' }
  | { readonly type: 'held'; readonly error: ErrorMessage | undefined; readonly held: HeldShard | undefined }
  /** All is on stable storage, and the log ends there. */
  | { readonly type: 'closed'; readonly end: LogPosition }
  | { readonly type: 'admin'; readonly id: number; readonly request: AdminRequest }
  | { readonly type: 'job'; readonly id: number; readonly kind: string; readonly input: unknown }
  | {
      readonly type: 'tableCommit'
      readonly id: number
      readonly edits: readonly CatalogEdit[]
      readonly unnamed: readonly string[]
    }
  /** Something went wrong beside any request. */
  | { readonly type: 'trouble'; readonly error: ErrorMessage }
