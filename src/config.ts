/**
 * Every limit of the store with its unit, reason and behaviour at the limit. `Limits` are constants of the formats and of
 * the program; `Config` is what a user may set.
 */

const KiB = 1024
const MiB = 1024 * KiB
const GiB = 1024 * MiB

export const Limits = {
  /** Ring slots, as Redis Cluster's, so that cluster-aware clients can route. Part of the on-disk format. */
  slots: 16384,
  /** Partitions of a default cluster: with three replicas max/mean load stays below 1.05 up to 169 nodes and 1.1 up to 337. */
  partitions: 1024,
  /** Partitions of the largest cluster: one for each slot. */
  partitionsMax: 16384,
  /** Replicas of a partition: no bucket has a greater n. */
  replicasMax: 5,
  /** Members of a cluster; one more may not join. Placement takes some milliseconds for a few hundred. */
  clusterMembersMax: 1000,
  memberAddressBytesMax: 255,
  zoneBytesMax: 64,
  /** Farther than this from the others a clock is not to be trusted: it gives no time, and times of others beyond it move none of this node's. */
  clockOffsetMsMax: 500,
  /** Partitions that move at the same time: what a barrier waits for stays small, and so does what an abort throws away. */
  movingPartitionsMax: 64,
  /** Changes that a topology names: whoever lags by no more finds out what became of its own. */
  topologyChangesMax: 64,
  /** Epochs that a node keeps in memory, to tell others what has changed since; who is further behind gets all of it. */
  topologyHistoryMax: 64,
  /** Bytes of a topology: the most members, buckets and partitions come to 1.1 MiB. More is no topology. */
  topologyBytesMax: 2 * MiB,
  /** Changes of the topology that may wait on one node; one more is 503 OVERLOADED. */
  topologyChangesPendingMax: 64,
  /** Longest key; longer is 400 BAD_KEY. */
  keyBytesMax: 2048,
  /** Longest name of a node in the key of a hint. */
  hintTargetBytesMax: 255,
  /** Longest key in log and tables: that of a hint, which holds a node and a bucket beside the key it is about (shard/hint-record.ts). */
  storedKeyBytesMax: 2048 + 1 + 255 + 4,
  /** Largest value unless configured; larger is 413 VALUE_TOO_LARGE. */
  valueBytesDefault: 1 * MiB,
  /** Largest value that can be configured. */
  valueBytesMax: 16 * MiB,
  /** A longer content type is 400 BAD_REQUEST. */
  contentTypeBytesMax: 255,
  /** A longer If-Match list is 400 BAD_REQUEST; its count is one byte in commands and between nodes. */
  ifMatchETagsMax: 255,
  /** Siblings at which a warning is counted. */
  siblingsWarn: 25,
  /** Siblings at which client writes that would add one more get 409 TOO_MANY_SIBLINGS; repair is exempt. */
  siblingsMax: 100,
  /** A context token longer than this is 400 BAD_CONTEXT. */
  contextBytesMax: 6 * KiB,
  /** Longest time to live: 100 years; longer is 400 BAD_TTL, never clamped (CASSANDRA-14092). */
  ttlMsMax: 100 * 365 * 86_400_000,
  /** An expired version turns into a tombstone this long after its expiry, so that clock skew cannot revive it. */
  expiryGraceMs: 60_000,
  /** Buckets of a cluster; one more is 409 TOO_MANY_BUCKETS. */
  bucketsMax: 1000,
  bucketNameBytesMax: 128,
  /** Operations of one batch; more is 413 REQUEST_TOO_LARGE. */
  batchOperationsMax: 1000,
  /** Body of one batch; more is 413 REQUEST_TOO_LARGE. */
  batchBytesMax: 16 * MiB,
  /** Values of one batch answer; operations beyond it get 413 RESPONSE_LIMIT each. */
  responseBytesMax: 16 * MiB,
  /** Keys of one page of a list. */
  listLimitDefault: 1000,
  listLimitMax: 10_000,
  /** Pages of lists that a member of a cluster gathers at once; one more is 503 OVERLOADED. */
  listsPendingMax: 32,
  timeoutMsDefault: 5_000,
  timeoutMsMax: 600_000,
  /** Arena addresses are u32 counts of 4-byte units: 16 GiB for one shard. */
  arenaBytesMax: 16 * GiB,
  /** No SharedArrayBuffer is larger: element indices stay in the engine's fast integers, and memory is freed in slabs. */
  slabBytesMax: 1 * GiB,
  /** Shards of one node. */
  shardsMax: 64,
  /**
   * Bytes of hints that a node keeps for others; beyond it a replica's is dropped, and the partition is compared with that replica first. A
   * fallback's is refused with OVERLOADED.
   */
  hintBytesMax: 64 * MiB,
  /** A hint that nobody took for so long is dropped where another replica has what it tells, and the partition is compared first. */
  hintAgeMsMax: 3 * 3_600_000,
  /**
   * Bytes per second that a node spends on hints, on comparing replicas and on moves together, unless it is said otherwise: a quarter of a link
   * of a gigabit, so that requests keep the rest, and 100 GiB move in less than an hour.
   */
  repairBytesPerSecondDefault: 32 * MiB,
  /** Requests that one thread may have waiting for shards; one more is 503 OVERLOADED, outcome none. */
  pendingRequestsMax: 8192,
  /**
   * Bytes of keys, values and version sets of requests that a member of a cluster coordinates and has not finished; one that brings more is
   * 503 OVERLOADED, outcome none. As much as may wait for all peers together, since that is where most of it waits.
   */
  pendingBytesMax: 256 * MiB,
  /** Bytes of the ring between two threads. A frame larger than a quarter of it travels in pieces. */
  ringBytes: 1 * MiB,
  /**
   * Bytes of buffers that a thread of the job pool keeps from one job to the next: what a merge of many tables needs. They count in the
   * memory budget, but never take more than `jobMemoryShare` of it.
   */
  jobMemoryBytes: 16 * MiB,
  jobMemoryShare: 1 / 8,
  /** Bytes that may wait for room in one ring's outbox; more is 503 OVERLOADED, outcome none. */
  ringOutboxBytesMax: 64 * MiB,
  /** Largest message between threads: all versions of one key at the largest value, and heads. More is a bug of ours. */
  ringMessageBytesMax: 80 * MiB,
  /** Commands and replies that a shard may hold back while they wait for disk; at it, its rings wait. */
  shardAnswersPendingMax: 1 << 16,
  /** Commands that wait in a shard for a slow read of a table, and their bytes; at it, its rings wait. */
  shardColdCommandsMax: 4096,
  shardColdBytesMax: 16 * MiB,
  /** Records that may be staged before they are visible; at it, the rings of the shard wait. */
  stagedRecordsMax: 1 << 15,
  /** Bytes of a group that is not written yet; at it, the rings of the shard wait. */
  openGroupBytesMax: 512 * KiB,
  /** Bytes of records in one frame of a list; the page goes on with the next frame. */
  listReplyBytesMax: 4 * MiB,
  /** Commits that may wait for the catalog; one more is 503 OVERLOADED. */
  catalogCommitsPendingMax: 1024,
  /**
   * Bytes of the disk that are kept for a full disk: a file that is given up then, so that flushes and merges go on. With less than as
   * much free beside it, writes that grow are refused with 507 DISK_FULL. Less is kept where memory or disk are small.
   */
  diskReserveBytesMax: 128 * MiB,
  diskReserveMemoryShare: 1 / 8,
  diskReserveDiskShare: 1 / 32,
  /** Part of the disk that must be free on top: a merge writes a partition whole, and there are 1024 of them. */
  diskSlackShare: 1 / 256,
  /** Flushes, compactions and other jobs that wait or run; one more is OVERLOADED and tried again later. */
  jobsMax: 256,
  /** Connections of other processes to the control socket of a node; one more is closed at once. */
  controlConnectionsMax: 8,
  /** How long a backup may hold the logs, whose memory does not come back meanwhile; then it fails with OVERLOADED. */
  backupLogHoldMs: 60_000,
  /** HTTP connections of one thread; one more is closed at once. */
  connectionsMax: 10_000,
  /**
   * Bytes of request bodies that all threads together hold at once, as a part of the memory budget; a body that does not fit in its
   * thread's share is 503 OVERLOADED. See `httpBytesMax`.
   */
  requestBodiesShare: 1 / 8,
  /** Likewise of answers that wait for slow clients; a read that does not fit is 503 OVERLOADED. */
  answersWaitingShare: 1 / 8,
  /** Bytes of bodies, and as many of answers, that a thread may hold in any case: a largest batch and a little more. */
  httpBytesLeast: 24 * MiB,
  /** Request target: path and query. Longer is 414 URI_TOO_LONG. */
  targetCharactersMax: 12 * KiB,
  /** Request line and header fields together; larger is 431 HEADERS_TOO_LARGE. */
  headerBytesMax: 16 * KiB,
  /** Nesting of JSON that a client sends; deeper is 400 BAD_REQUEST. */
  jsonDepthMax: 32,
  /** Body of a bucket's properties; larger is 413 REQUEST_TOO_LARGE. */
  propertiesBytesMax: 64 * KiB,
  /** How long, and for how many bytes, a refused body is read and thrown away before its connection is closed. */
  lingerMs: 1000,
  lingerBytesMax: 16 * MiB,
  /** Bytes of one message between nodes: all versions of one key at the largest value, and heads. A longer one is not sent, and ends a connection. */
  peerMessageBytesMax: 80 * MiB,
  /** Bytes of one frame between nodes, its head included; longer messages travel in pieces, so that pings pass between them. */
  peerFrameBytesMax: 256 * KiB,
  /** Bytes that may wait for one peer; beyond it `send` refuses. A longer message is taken where nothing else waits. */
  peerQueueBytesMax: 16 * MiB,
  /** The same on the light path, which takes what datagrams cannot. */
  peerLightQueueBytesMax: 256 * KiB,
  /** The same of all peers together. */
  peerQueueBytesAllMax: 256 * MiB,
  /** Bytes of frames and messages that have come in part, of all peers together; a connection that needs more is closed. */
  peerReceiveBytesAllMax: 256 * MiB,
  /** Addresses that a node keeps connections or their history for; the one unused longest gives way, or `send` refuses. */
  peerAddressesMax: 4096,
  /** Connections of peers that have said who they are: two for each member. One more is refused. */
  peerConnectionsMax: 2048,
  /** Connections that have not yet; the oldest is closed for one more. */
  peerStrangersMax: 256,
  /** A peer that has not said who it is by then is closed; so is one that has not answered. */
  peerHandshakeMs: 5_000,
  /** Between two pings of a connection. */
  peerPingMs: 5_000,
  /** A connection is dead where a ping has no answer, or nothing can be written, for so long. */
  peerDeadMs: 10_000,
  /** A connection for which there was no message for so long is closed. */
  peerIdleMs: 600_000,
  /** Rest after the first connection that failed, at the most; twice as long after each further one. */
  peerRestMsMin: 100,
  peerRestMsMax: 5_000,
  /** Bytes of a datagram on the wire, head and code included: below the smallest usual MTU, less what tunnels take. */
  peerDatagramBytesMax: 1_400,
  /** Longest stretch on a serving thread, except for single values above 256 KiB. */
  stretchMsMax: 2,
  /** A worker whose heartbeat is older is taken for hung and restarted. */
  workerHangMs: 5_000,
  /** So many worker crashes within `workerCrashWindowMs` end the process. */
  workerCrashesMax: 3,
  workerCrashWindowMs: 60_000,
} as const

/**
 * The bucket of hints (shard/hint-record.ts). Ids of buckets are given out from 1 on and never reach it, so that its records are no
 * client's and never those of a deleted bucket. It is local to a node: nobody else may name it.
 */
export const hintBucketId = 0xffff_fffe

/** When a write is acknowledged: after fdatasync, after write(2) with fdatasync every `syncIntervalMs`, or after write(2). */
export type Durability = 'sync' | 'interval' | 'os'

/** Numbers of the durability levels in frames between threads. */
export const DurabilityNumber = { os: 0, interval: 1, sync: 2 } as const satisfies Record<Durability, number>

/** How blocks of tables stand on disk. What lies in memory, caches included, is never compressed. */
export type Compression = 'none' | 'zstd'

export type Config = {
  /** Data directory. */
  readonly directory: string
  /** Shard worker threads; the data outlives a change of this number. */
  readonly shards: number
  /** Budget in bytes for records in memory, their index, rings, caches and queues together. Beyond it, data goes to tables. */
  readonly memoryBytes: number
  readonly durability: Durability
  /** How often `interval` durability syncs. */
  readonly syncIntervalMs: number
  readonly valueBytesMax: number
  /** Of tables that merging writes from now on; tables of either kind can be read. */
  readonly compression: Compression
  /** Bytes of tables that a node looks through for damage in a second while it has nothing else to do; 0: none. */
  readonly scrubBytesPerSecond: number
  /** Bytes of one log segment, and so of one arena segment. 0: chosen from the budget and `valueBytesMax`. */
  readonly segmentBytes: number
}

export const ConfigDefaults = {
  shards: 0,
  memoryBytes: 1 * GiB,
  durability: 'sync',
  syncIntervalMs: 100,
  valueBytesMax: Limits.valueBytesDefault,
  compression: 'none',
  scrubBytesPerSecond: 4 * MiB,
  segmentBytes: 0,
} as const satisfies Omit<Config, 'directory' | 'shards'> & { shards: number }

/** Backups that a directory keeps unless it is said otherwise. */
export const backupsKeptDefault = 7

/** Bytes that one of `shards` HTTP threads may hold in bodies or answers, where all may hold `share` of the memory budget. */
export function httpBytesMax(share: number, { memoryBytes, shards }: Pick<Config, 'memoryBytes' | 'shards'>): number {
  return Math.max(Limits.httpBytesLeast, Math.floor((share * memoryBytes) / shards))
}

/**
 * Bytes that a process may have resident at most, the heap of an application around it not counted: a tenth beyond the budget,
 * and what the engine and its threads take themselves, 220 MB for two shards.
 */
export function residentBytesMax(memoryBytes: number): number {
  return Math.round(1.1 * memoryBytes + 220e6)
}

/**
 * Bytes of old objects that the heap of a shard's thread may hold; beyond it the thread dies and the node starts it anew. Live are 15 MiB,
 * and what the bodies under way need, which twice their shares cover. It also says how soon V8 collects: below 2 GiB it lets a heap grow to
 * 1.3 to 2 times what lived, above to four times, which is memory that nothing needs (V8, heap/heap-controller.cc).
 */
export function shardHeapBytesMax({ memoryBytes, shards }: Pick<Config, 'memoryBytes' | 'shards'>): number {
  return Math.max(
    1 * GiB,
    Math.floor(((Limits.requestBodiesShare + Limits.answersWaitingShare) * 2 * memoryBytes) / shards),
  )
}

/** Greatest bytes of one key's versions together; client writes above it are refused, repair is exempt. */
export function versionSetBytesMax(valueBytesMax: number): number {
  return Math.max(4 * valueBytesMax, 4 * MiB)
}
