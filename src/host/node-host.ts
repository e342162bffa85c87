/**
 * The node thread: owns the catalog, the data directory and the shard workers; restarts a worker that crashes or hangs, and
 * gives up when that happens too often. It serves no data itself.
 *
 * Start: lock the directory, read the catalog, decide about the actor, deal the log anew if the number of shards changed,
 * reserve all shared memory, start the workers, and wait until each has recovered.
 *
 * Restart of a shard: mark it down (readers and coordinators answer 503 from then on), wait until its thread is really gone,
 * give it fresh memory and fresh rings, tell every thread, and let it recover from its log.
 */
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import { SunwiseError } from '../base/errors.ts'
import { createRing } from '../base/ring-buffer.ts'
import { type Config, Limits, shardHeapBytesMax, versionSetBytesMax } from '../config.ts'
import type { Catalog } from '../env.ts'
import type { Bucket, BucketProperties } from '../replication/requests.ts'
import { DiskKeeper, diskFullWarning, reserveBytesOf, writeDiskState } from '../storage/disk-keeper.ts'
import { flushBytesOf } from '../storage/flusher.ts'
import type { HeldShard } from '../storage/hold.ts'
import { listSegments, segmentsOnDisk } from '../storage/log-recovery.ts'
import { ControlWord, createShardMemory, planShard, type ShardMemory, ShardState } from '../storage/shard-memory.ts'
import { commitTables, loadTables, strayFiles } from '../storage/table-catalog.ts'
import { pinWords, ViewWord } from '../storage/table-view.ts'
import { isManifestName, restoringName } from './backup-manifest.ts'
import { type BucketChanges, BucketRegistry } from './bucket-registry.ts'
import { HostCatalog } from './catalog.ts'
import { catalogFileName } from './catalog-file.ts'
import { type ControlSocket, openControlSocket } from './control-socket.ts'
import { acquireDirectoryLock, type DirectoryLock } from './directory-lock.ts'
import { HostDisk } from './disk.ts'
import { createBellPorts } from './doorbell.ts'
import { HoldKeeper } from './hold-keeper.ts'
import { JobPace } from './job-pace.ts'
import { JobPool, jobThreads } from './job-pool.ts'
import { makeDirectories } from './make-directory.ts'
import type {
  AdminRequest,
  ErrorMessage,
  FromThread,
  HttpSeed,
  ShardSeed,
  ThreadSeed,
  ToThread,
  WorkerData,
} from './messages.ts'
import { moduleUrl } from './module-url.ts'
import {
  type ActorRow,
  directoryFormatVersion,
  type Identity,
  isOwnRow,
  type LogRow,
  NodeRecord,
  type StoredBucket,
} from './node-record.ts'
import { logDirectoryOf, partitionsOf, reshard, tablesDirectory } from './reshard.ts'
import { salvageTables } from './table-salvage.ts'
import { type Link, threadOfShard } from './thread-links.ts'

export type NodeHostOptions = {
  readonly config: Config
  readonly http: Omit<HttpSeed, 'nodeId' | 'counters'> | undefined
  /** A thread of the application takes part as thread 0 (embedded store), or that of the node itself (member of a cluster). */
  readonly frontEnd: boolean
  /** The node is a member of a cluster (cluster-member.ts), or becomes one: that is what workers ask. Default: it serves alone. */
  readonly isMember?: boolean
  readonly salvage: boolean
  readonly log: (line: string) => void
  /** Called at most once: the node cannot go on. */
  readonly onFatal: (error: SunwiseError) => void
}

/** Something that takes messages: a worker, or the embedder's thread. */
type Mailbox = { post(message: ToThread, transfer: readonly MessagePortLike[]): void }
type MessagePortLike = ReturnType<typeof createBellPorts>[number]

type ShardWorker = {
  readonly shard: number
  worker: Worker | undefined
  memory: ShardMemory
  isUp: boolean
  recoveredRecords: number
  /** Version of the table of buckets that it goes by. */
  bucketsTaken: number
  lastHeartbeat: number
  lastBeatMs: number
  /** How often its log had met DISK_FULL at the last look. */
  diskFullMet: number
  /** Commits of its tables that the catalog has not answered. */
  readonly commits: Set<Promise<void>>
}

const superviseMs = 500
const frontEndThread = 0
const segmentBytesDefault = 16 * 1024 * 1024

export class NodeHost {
  readonly #options: NodeHostOptions
  readonly #lock: DirectoryLock
  readonly #catalog: HostCatalog
  readonly #record: NodeRecord
  identity: Identity
  readonly #actor: ActorRow
  readonly #logRow: LogRow
  readonly #buckets: BucketRegistry
  readonly #jobs: JobPool
  readonly #jobPace = new JobPace()
  readonly #diskKeeper: DiskKeeper
  #wasDiskFull = false
  #slowReads = 0
  /** Of the hash tables in memory. */
  readonly hashSeed = { low: randomBytes(4).readUInt32LE(), high: randomBytes(4).readUInt32LE() }
  readonly #shards: ShardWorker[] = []
  readonly #httpCounters: readonly SharedArrayBuffer[]
  #bucketsVersion = 0
  #bucketAdmin: BucketChanges
  /** Shared by all workers of a node in a cluster: 1 once it is a member. */
  readonly #memberWord: SharedArrayBuffer | undefined
  readonly #bucketsWaiting: { readonly version: number; readonly resolve: () => void }[] = []
  #frontEnd: Mailbox | undefined
  #unsyncedNoted: boolean
  #unsyncedPending = false
  /** The change of actors under way. */
  #actorChange: Promise<void> | undefined
  readonly #crashTimesMs: number[] = []
  #isClosing = false
  #control: ControlSocket | undefined
  #isFatal = false
  #supervisor: NodeJS.Timeout | undefined
  #lastSuperviseMs = 0
  #listen: { host: string; port: number; reusePort: boolean } | undefined
  readonly #waiting: {
    readonly shard: number
    readonly type: FromThread['type']
    readonly resolve: (message: FromThread) => void
    readonly reject: (error: SunwiseError) => void
  }[] = []
  /** Crashes of workers since the start. */
  crashes = 0

  private constructor(
    options: NodeHostOptions,
    lock: DirectoryLock,
    catalog: HostCatalog,
    record: NodeRecord,
    identity: Identity,
    actor: ActorRow,
    logRow: LogRow,
    httpCounters: readonly SharedArrayBuffer[],
  ) {
    this.#options = options
    this.#lock = lock
    this.#catalog = catalog
    this.#record = record
    this.identity = identity
    this.#actor = actor
    this.#logRow = logRow
    this.#httpCounters = httpCounters
    this.#jobs = new JobPool(options.config.directory)
    this.#unsyncedNoted = record.isUnsynced
    this.#diskKeeper = this.#makeDiskKeeper()
    this.#buckets = new BucketRegistry(record, options.config.valueBytesMax, (buckets) => this.#tellBuckets(buckets))
    this.#bucketAdmin = this.#buckets
    this.#memberWord = options.isMember === true ? new SharedArrayBuffer(4) : undefined
  }

  /** Opens the directory and starts all shards. Rejects with a coded error; then nothing is left running or locked. */
  static async start(options: NodeHostOptions, httpCounterBytes: number): Promise<NodeHost> {
    const { config } = options
    makeDirectory(config.directory)
    refuseBackups(config.directory)
    const lock = await acquireDirectoryLock(config.directory)
    let catalog: HostCatalog | undefined
    let node: NodeHost | undefined
    try {
      catalog = await HostCatalog.open(join(config.directory, 'catalog'))
      const record = new NodeRecord(catalog)
      if (options.isMember !== true) refuseMember(record, config.directory)
      else if (options.salvage) refuseSalvage(record, config.directory)
      const identity = await loadIdentity(record)
      const actor = await loadActor(record, config.directory, options.salvage)
      const logRow = await prepareLog(catalog, record, config, options.salvage, options.log)
      prepareTables(catalog, config.directory)
      if (options.salvage) {
        await salvageTables(catalog, new HostDisk(config.directory), logRow.shards, options.log)
      }
      const counters = Array.from({ length: logRow.shards }, () => new SharedArrayBuffer(Math.max(8, httpCounterBytes)))
      node = new NodeHost(options, lock, catalog, record, identity, actor, logRow, counters)
      await node.#buckets.ensureDefault()
      if (config.durability !== 'sync') await node.#noteUnsynced()
      await node.#startAll()
      await record.clearEnds()
      node.#control = await node.#openControl()
      return node
    } catch (error) {
      if (node !== undefined) {
        await node.#control?.close()
        await node.#terminateAll()
      }
      await catalog?.close()
      await lock.release()
      throw error instanceof SunwiseError
        ? error
        : new SunwiseError('INTERNAL', `Cannot start the node: ${String(error)}`, { cause: error })
    }
  }

  get shards(): number {
    return this.#logRow.shards
  }

  get recoveredRecords(): number {
    return this.#shards.reduce((sum, shard) => sum + shard.recoveredRecords, 0)
  }

  get memories(): readonly ShardMemory[] {
    return this.#shards.map((shard) => shard.memory)
  }

  get httpCounters(): readonly SharedArrayBuffer[] {
    return this.#httpCounters
  }

  /** Why requests should go elsewhere; empty when all shards serve. */
  get problems(): string[] {
    const down = this.#shards.filter((shard) => !shard.isUp).map((shard) => `shard ${shard.shard} is recovering`)
    return this.#isClosing ? [...down, 'the node is stopping'] : down
  }

  /** What the operator should know while all shards serve. */
  get warnings(): string[] {
    return this.#diskKeeper.isFull ? [diskFullWarning] : []
  }

  /** What the embedder's thread needs to take part; its mailbox gets every later message. */
  attachFrontEnd(mailbox: Mailbox): { readonly seed: ThreadSeed; readonly transfer: readonly MessagePortLike[] } {
    assert(this.#options.frontEnd, 'The node was started for a front end')
    this.#frontEnd = mailbox
    const links: Link[] = []
    for (const shard of this.#shards) {
      const [front, worker] = this.#connectPair(frontEndThread, threadOfShard(shard.shard))
      links.push(front)
      this.#post(shard, { type: 'connect', link: worker }, [worker.port!])
    }
    return { seed: this.#seed(frontEndThread, links), transfer: links.map((link) => link.port!) }
  }

  /** Carries out what a thread asks through its port. */
  async admin(request: AdminRequest): Promise<unknown> {
    if (request.op === 'putBucket') return this.#bucketAdmin.put(request.name, request.properties as BucketProperties)
    return this.#bucketAdmin.delete(request.name)
  }

  // What a member of a cluster needs.

  /** The catalog, for what the member keeps there; only this thread writes it. */
  get catalog(): Catalog {
    return this.#catalog
  }

  /** No client has ever written here. */
  get isEmpty(): boolean {
    return this.recoveredRecords === 0 && this.#catalog.scan('row/').length === 0
  }

  /**
   * Tells a copied directory from the one that it is a copy of. Not the device: its number may be another after each start of the machine,
   * nor the time of birth, which some file systems make up.
   */
  get place(): string {
    return `${this.#actor.inode} ${this.#actor.catalogInode}`
  }

  /** Whether the node has been told to join a cluster before, and perhaps has not yet. */
  get isJoining(): boolean {
    return this.#record.isJoining
  }

  /** Buckets as they stand in the catalog, and the first id that none of them ever had. */
  get storedBuckets(): { readonly buckets: readonly StoredBucket[]; readonly below: number } {
    return { buckets: this.#buckets.stored, below: this.#buckets.below }
  }

  /** Who decides about buckets from now on. */
  decideBuckets(changes: BucketChanges): void {
    this.#bucketAdmin = changes
  }

  /** Everybody goes by these buckets; resolves when all do, and when the catalog has them. */
  adoptBuckets(buckets: readonly StoredBucket[], below: number): Promise<void> {
    return this.#buckets.adopt(buckets, below)
  }

  /** The node serves from now on: it is a member. */
  noteMember(): void {
    Atomics.store(new Int32Array(this.#memberWord!), 0, 1)
  }

  /** Takes the id and the key of the cluster that it joins. Durable when it resolves. */
  async joinCluster(clusterId: string, clusterKey: Uint8Array): Promise<void> {
    const identity = { ...this.identity, clusterId, clusterKey: Buffer.from(clusterKey).toString('base64') }
    await this.#record.putJoining(identity)
    this.identity = identity
  }

  /** Lets every shard hold its files, once more where it does already; rejects where one is not up, or crashes. */
  async #holdShards(): Promise<readonly HeldShard[]> {
    const down = this.#shards.find(({ isUp }) => !isUp)
    if (down !== undefined) {
      throw new SunwiseError('SHARD_UNAVAILABLE', `Cannot hold the files: shard ${down.shard} is not up; begin again`)
    }
    const replies = this.#shards.map((shard) => this.#await(shard.shard, 'held'))
    for (const shard of this.#shards) this.#post(shard, { type: 'hold' })
    return (await Promise.all(replies)).map((reply) => {
      const { error, held } = reply as FromThread & { type: 'held' }
      if (held === undefined) throw new SunwiseError(error?.code ?? 'INTERNAL', error?.message ?? 'No answer')
      return held
    })
  }

  #openControl(): Promise<ControlSocket> {
    const node = this
    const keeper = new HoldKeeper({
      get problem() {
        return node.problems[0]
      },
      get crashes() {
        return node.crashes
      },
      holdShards: () => this.#holdShards(),
      releaseShards: (what) => {
        // One that crashed holds nothing, and its successor never did.
        for (const shard of this.#shards) if (shard.isUp) this.#post(shard, { type: 'release', what })
      },
      describe: () => ({
        nodeId: this.identity.nodeId,
        log: this.#logRow,
        rows: this.#catalog.scan('').filter(([key]) => isOwnRow(key)),
      }),
    })
    return openControlSocket(this.#options.config.directory, keeper)
  }

  /** Lets every worker listen on an address that is known to be free; one for all where a port cannot be shared. */
  async listen(host: string, port: number): Promise<void> {
    this.#listen = { host, port, reusePort: this.shards > 1 }
    const first = await this.#askToListen(this.#shards[0]!)
    if (this.shards > 1 && !first.reusePort) {
      this.#options.log('SO_REUSEPORT is not supported here: one shard worker serves all connections')
      this.#listen = { host, port, reusePort: false }
      return
    }
    await Promise.all(this.#shards.slice(1).map((shard) => this.#askToListen(shard)))
  }

  /** Stops taking requests; resolves when those under way have ended or `graceMs` is over. */
  async drain(graceMs: number): Promise<void> {
    this.#isClosing = true
    const running = this.#shards.filter((shard) => shard.isUp)
    for (const shard of running) this.#post(shard, { type: 'drain', graceMs })
    await Promise.race([
      Promise.allSettled(running.map((shard) => this.#await(shard.shard, 'drained'))),
      new Promise((resolve) => setTimeout(resolve, graceMs + 1000).unref()),
    ])
  }

  /** Ends cleanly: all that was acknowledged is on stable storage, and the catalog says so. */
  async close(): Promise<void> {
    this.#isClosing = true
    await this.#control?.close()
    const running = this.#shards.filter((shard) => shard.isUp)
    for (const shard of running) this.#post(shard, { type: 'close' })
    // Supervision goes on: a worker that crashes or hangs now fails its wait instead of holding the end up for ever.
    const replies = await Promise.allSettled(running.map((shard) => this.#await(shard.shard, 'closed')))
    const ends = replies.flatMap((reply) =>
      reply.status === 'fulfilled' ? [(reply.value as FromThread & { type: 'closed' }).end] : [],
    )
    const isClean = ends.length === this.#shards.length
    await this.#terminateAll()
    if (isClean) await this.#record.noteCleanStop(this.#logRow.generation, ends)
    await this.#catalog.close()
    await this.#lock.release()
    const failed = replies.find((reply) => reply.status === 'rejected')
    if (failed !== undefined) throw asSunwiseError(failed.reason)
  }

  async #startAll(): Promise<void> {
    for (let shard = 0; shard < this.shards; shard++) {
      this.#shards.push({
        shard,
        worker: undefined,
        memory: this.#createMemory(shard),
        isUp: false,
        recoveredRecords: 0,
        bucketsTaken: 0,
        lastHeartbeat: 0,
        lastBeatMs: performance.now(),
        diskFullMet: 0,
        commits: new Set(),
      })
    }
    const links = this.#shards.map(() => [] as Link[])
    for (const a of this.#shards) {
      for (const b of this.#shards) {
        if (a.shard > b.shard) continue
        const [first, second] = this.#connectPair(threadOfShard(a.shard), threadOfShard(b.shard))
        links[a.shard]!.push(first)
        if (a !== b) links[b.shard]!.push(second)
      }
    }
    const ready = this.#shards.map((shard) => this.#await(shard.shard, 'ready'))
    for (const shard of this.#shards) this.#spawn(shard, links[shard.shard]!)
    await Promise.all(ready)
    this.#lastSuperviseMs = performance.now()
    this.#supervisor = setInterval(() => this.#supervise(), superviseMs)
  }

  /** Two ends of the rings between two threads. A thread's rings to itself need no bell. */
  #connectPair(a: number, b: number): [Link, Link] {
    const toB = createRing(Limits.ringBytes)
    if (a === b) {
      const link: Link = { peer: a, outgoing: toB, incoming: toB, port: undefined }
      return [link, link]
    }
    const toA = createRing(Limits.ringBytes)
    const [portA, portB] = createBellPorts()
    return [
      { peer: b, outgoing: toB, incoming: toA, port: portA },
      { peer: a, outgoing: toA, incoming: toB, port: portB },
    ]
  }

  #createMemory(shard: number): ShardMemory {
    const { config } = this.#options
    const disk = new HostDisk(config.directory)
    const { generation, segmentBytes } = this.#logRow
    const onDisk = segmentsOnDisk(disk, logDirectoryOf(generation, shard), segmentBytes)
    const memory = createShardMemory(planShard(this.#budget(), segmentBytes, onDisk))
    writeDiskState(new Int32Array(memory.control), this.#diskKeeper)
    return memory
  }

  // Room on the disk.

  #makeDiskKeeper(): DiskKeeper {
    const { config, log } = this.#options
    const reserveBytes = reserveBytesOf(flushBytesOf(this.#budget(), this.#logRow.segmentBytes), config.memoryBytes)
    return new DiskKeeper(
      {
        disk: new HostDisk(config.directory),
        reserveBytes,
        changed: (keeper) => this.#tellDiskState(keeper),
        report: (error) => log(`The disk is not watched as it should be: ${error.message}`),
      },
      performance.now(),
    )
  }

  /** Lets every shard see whether there is room on the disk, and says so where that is another thing than before. */
  #tellDiskState(keeper: DiskKeeper): void {
    for (const { memory } of this.#shards) writeDiskState(new Int32Array(memory.control), keeper)
    if (keeper.isFull === this.#wasDiskFull) return
    this.#wasDiskFull = keeper.isFull
    const free = `${Math.floor(keeper.freeBytes / (1024 * 1024))} MiB are free in "${this.#options.config.directory}"`
    if (keeper.isFull) {
      this.#options.log(
        `The disk is full, ${free}: writes that grow are refused with DISK_FULL, everything else goes on; free space, or delete data`,
      )
    } else this.#options.log(`There is room on the disk again, ${free}: writes are taken`)
  }

  /** What met DISK_FULL says more than free bytes. */
  #heedSpaceErrors(): void {
    let hasMet = false
    for (const shard of this.#shards) {
      const met = Atomics.load(new Int32Array(shard.memory.control), ControlWord.diskFullMet)
      if (met !== shard.diskFullMet && met !== 0) hasMet = true
      shard.diskFullMet = met
    }
    if (hasMet) this.#diskKeeper.met(performance.now())
    else this.#diskKeeper.tick(performance.now())
  }

  /** One shard's share of the memory that is not taken by rings and by jobs. */
  #budget(): number {
    const { memoryBytes } = this.#options.config
    const threads = this.shards + (this.#options.frontEnd ? 1 : 0)
    const rings = threads * threads * Limits.ringBytes
    const jobs = Math.min(jobThreads() * Limits.jobMemoryBytes, memoryBytes * Limits.jobMemoryShare)
    return Math.floor((memoryBytes - rings - jobs) / this.shards)
  }

  #seed(thread: number, links: readonly Link[]): ThreadSeed {
    return {
      thread,
      shards: this.shards,
      memories: this.memories,
      links,
      hashSeed: this.hashSeed,
      clusterKey: Buffer.from(this.identity.clusterKey, 'base64'),
      durability: this.#options.config.durability,
      unsyncedNoted: this.#unsyncedNoted,
      buckets: this.#buckets.all,
      bucketsBelow: this.#buckets.below,
    }
  }

  #spawn(shard: ShardWorker, links: readonly Link[]): void {
    const { config, http, salvage } = this.#options
    const data: WorkerData = {
      seed: this.#seed(threadOfShard(shard.shard), links),
      shard: {
        shard: shard.shard,
        directory: config.directory,
        logDirectory: logDirectoryOf(this.#logRow.generation, shard.shard),
        budgetBytes: this.#budget(),
        actor: { low: this.#actor.low, high: this.#actor.high },
        syncIntervalMs: config.syncIntervalMs,
        compression: config.compression,
        scrubBytesPerSecond: config.scrubBytesPerSecond / this.shards,
        salvage,
        syncedEnd: this.#record.cleanEnds(this.#logRow.generation)?.[shard.shard],
        tables: this.#tablesOf(shard.shard),
        member: this.#memberWord,
        http: http === undefined ? undefined : { ...http, nodeId: this.identity.nodeId, counters: this.#httpCounters },
      },
    }
    const worker = new Worker(moduleUrl('shard-worker', import.meta.url), {
      workerData: data,
      transferList: links.flatMap((link) => (link.port === undefined ? [] : [link.port])),
      resourceLimits: {
        maxYoungGenerationSizeMb: 24,
        maxOldGenerationSizeMb: shardHeapBytesMax({ memoryBytes: config.memoryBytes, shards: this.shards }) / 2 ** 20,
      },
      name: `sunwise-shard-${shard.shard}`,
    })
    shard.worker = worker
    shard.bucketsTaken = this.#bucketsVersion
    shard.lastBeatMs = performance.now()
    worker.on('message', (message: FromThread) => this.#receive(shard, worker, message))
    worker.on('error', (error) => this.#crashed(shard, worker, asSunwiseError(error)))
    worker.on('exit', (code) => this.#crashed(shard, worker, new Error(`it exited with code ${code}`)))
  }

  #tablesOf(shard: number): ShardSeed['tables'] {
    const { rows, facts, ...others } = loadTables(this.#catalog, shard, partitionsOf(shard, this.shards))
    return { rows: rows.rows, facts: [...facts.values()], ...others }
  }

  /** Runs a job for a shard; a worker that has crashed meanwhile hears nothing of it. */
  #runJob(shard: ShardWorker, worker: Worker, { id, kind, input }: FromThread & { type: 'job' }): void {
    this.#jobs.run(kind, input, (error, output) => {
      if (shard.worker !== worker) return
      if (error?.code === 'DISK_FULL') this.#diskKeeper.met(performance.now())
      // The next job goes by what this one left.
      else this.#diskKeeper.tick(performance.now())
      const failure = error === undefined ? undefined : errorMessageOf(error)
      this.#post(shard, { type: 'jobDone', id, error: failure, output })
    })
  }

  /** Commits rows of a shard's tables. The catalog takes commits in their order, so each is judged on what the ones before leave. */
  #commitTables(
    shard: ShardWorker,
    worker: Worker,
    { id, edits, unnamed }: FromThread & { type: 'tableCommit' },
  ): void {
    const before = [...this.#shards].flatMap((other) => [...other.commits])
    const committing = Promise.all(before).then(
      () =>
        new Promise<void>((resolve) => {
          commitTables(this.#catalog, this.shards, shard.shard, edits, unnamed, (error, orphans) => {
            resolve()
            // Whether the rows hold is not known before the catalog is opened anew: nobody may go on from either.
            if (error?.code === 'DISK_FAILED') return this.#fatal(error)
            if (error?.code === 'DISK_FULL') this.#diskKeeper.met(performance.now())
            if (shard.worker !== worker) return
            const failure = error === undefined ? undefined : errorMessageOf(error)
            this.#post(shard, { type: 'tableCommitted', id, error: failure, orphans })
          })
        }),
    )
    shard.commits.add(committing)
    void committing.finally(() => shard.commits.delete(committing))
  }

  #receive(shard: ShardWorker, worker: Worker, message: FromThread): void {
    if (shard.worker !== worker) return
    switch (message.type) {
      case 'job':
        this.#runJob(shard, worker, message)
        return
      case 'tableCommit':
        this.#commitTables(shard, worker, message)
        return
      case 'trouble':
        this.#options.log(`Shard ${shard.shard}: ${message.error.message}`)
        return
      case 'ready':
        this.#ready(shard, message)
        break
      case 'failed': {
        const error = new SunwiseError(message.error.code, message.error.message)
        if (this.#rejectWaiting(shard.shard, error)) return
        this.#crashed(shard, worker, error)
        return
      }
      case 'bucketsTaken':
        shard.bucketsTaken = message.version
        this.#settleBuckets()
        return
      case 'unsyncedWanted':
        void this.#noteUnsynced().catch((error: unknown) => this.#fatal(error))
        return
      case 'actorIsStale':
        void this.#changeActor().catch((error: unknown) => this.#fatal(error))
        return
      case 'admin':
        void this.#answerAdmin(shard, message.id, message.request)
        return
      case 'listenFailed': {
        this.#rejectWaiting(shard.shard, new SunwiseError(message.error.code, message.error.message))
        return
      }
      default:
    }
    const index = this.#waiting.findIndex((wait) => wait.shard === shard.shard && wait.type === message.type)
    if (index >= 0) this.#waiting.splice(index, 1)[0]!.resolve(message)
  }

  #ready(shard: ShardWorker, message: FromThread & { type: 'ready' }): void {
    shard.isUp = true
    shard.recoveredRecords = message.records
    if (message.droppedBytes > 0) {
      this.#options.log(
        `Shard ${shard.shard}: dropped a torn tail of ${message.droppedBytes} bytes that was never acknowledged as synced`,
      )
    }
    for (const damage of message.damages) {
      this.#options.log(
        `Shard ${shard.shard}: salvaged around damage in ${damage.path}, bytes ${damage.from} to ${damage.to}`,
      )
    }
  }

  /**
   * Gives all threads the new table of buckets; resolves when every worker that serves goes by it. Only then may anybody hear
   * of the change: a worker that still has the old table shows what was deleted, and takes writes that nobody will find.
   * (The front end reads its messages in their order, and so meets the table before the reply.)
   */
  #tellBuckets(buckets: readonly Bucket[]): Promise<void> {
    const version = ++this.#bucketsVersion
    this.#broadcast({ type: 'buckets', version, buckets, bucketsBelow: this.#buckets.below })
    return new Promise((resolve) => {
      this.#bucketsWaiting.push({ version, resolve })
      this.#settleBuckets()
    })
  }

  /** A worker that is not up takes the table before it serves; one that crashes no longer counts. */
  #settleBuckets(): void {
    const serving = this.#shards.filter((shard) => shard.isUp)
    const taken = Math.min(this.#bucketsVersion, ...serving.map((shard) => shard.bucketsTaken))
    while (this.#bucketsWaiting.length > 0 && this.#bucketsWaiting[0]!.version <= taken) {
      this.#bucketsWaiting.shift()!.resolve()
    }
  }

  async #answerAdmin(shard: ShardWorker, id: number, request: AdminRequest): Promise<void> {
    try {
      const result = await this.admin(request)
      this.#post(shard, { type: 'adminReply', id, error: undefined, result })
    } catch (error) {
      this.#post(shard, { type: 'adminReply', id, error: errorMessageOf(error), result: undefined })
    }
  }

  #post(shard: ShardWorker, message: ToThread, transfer: readonly MessagePortLike[] = []): void {
    shard.worker?.postMessage(message, [...transfer])
  }

  #broadcast(message: ToThread): void {
    for (const shard of this.#shards) this.#post(shard, message)
    this.#frontEnd?.post(message, [])
  }

  #await(shard: number, type: FromThread['type']): Promise<FromThread> {
    return new Promise((resolve, reject) => this.#waiting.push({ shard, type, resolve, reject }))
  }

  /** Fails whatever waits for a shard; false if nothing did. */
  #rejectWaiting(shard: number, error: SunwiseError): boolean {
    const mine = this.#waiting.filter((wait) => wait.shard === shard)
    for (const wait of mine) {
      this.#waiting.splice(this.#waiting.indexOf(wait), 1)
      wait.reject(error)
    }
    return mine.length > 0
  }

  async #askToListen(shard: ShardWorker): Promise<FromThread & { type: 'listening' }> {
    const listening = this.#await(shard.shard, 'listening')
    this.#post(shard, { type: 'listen', ...this.#listen! })
    return (await listening) as FromThread & { type: 'listening' }
  }

  async #noteUnsynced(): Promise<void> {
    if (this.#unsyncedNoted || this.#unsyncedPending) return
    this.#unsyncedPending = true
    await this.#record.noteUnsynced(Date.now())
    this.#unsyncedPending = false
    this.#unsyncedNoted = true
    this.#broadcast({ type: 'unsyncedNoted' })
  }

  /** Resolves when a new actor holds; who asks while one is being taken waits for that. */
  #changeActor(): Promise<void> {
    this.#actorChange ??= this.#takeActor().finally(() => {
      this.#actorChange = undefined
    })
    return this.#actorChange
  }

  async #takeActor(): Promise<void> {
    const actor = { ...this.#actor, ...randomActor() }
    await this.#record.putActor(actor)
    Object.assign(this.#actor, actor)
    this.#broadcast({ type: 'actor', low: actor.low, high: actor.high })
  }

  // Supervision.

  #supervise(): void {
    const nowMs = performance.now()
    // A node thread that was itself paused convicts nobody.
    const wasPaused = nowMs - this.#lastSuperviseMs > 4 * superviseMs
    this.#lastSuperviseMs = nowMs
    this.#paceJobs()
    this.#heedSpaceErrors()
    for (const shard of this.#shards) {
      const control = new Int32Array(shard.memory.control)
      const heartbeat = Atomics.load(control, ControlWord.heartbeat)
      if (heartbeat !== shard.lastHeartbeat || wasPaused || shard.worker === undefined) {
        shard.lastHeartbeat = heartbeat
        shard.lastBeatMs = nowMs
      } else if (nowMs - shard.lastBeatMs > Limits.workerHangMs) {
        const seconds = Math.round((nowMs - shard.lastBeatMs) / 1000)
        this.#crashed(shard, shard.worker, new Error(`it did not turn for ${seconds} s`))
      }
    }
  }

  /** Lets background jobs go as fast as requests bear it. */
  #paceJobs(): void {
    let debt = 0
    let lateMs = 0
    let slowReads = 0
    for (const { memory, isUp } of this.#shards) {
      if (!isUp) continue
      const control = new Int32Array(memory.control)
      debt = Math.max(debt, Atomics.load(control, ControlWord.debtPermille) / 1000)
      lateMs = Math.max(lateMs, Atomics.load(control, ControlWord.lateUs) / 1000)
      slowReads += Atomics.load(new Int32Array(memory.tables.control), ViewWord.slowReads)
    }
    // After a restart of a shard its count begins anew.
    const since = Math.max(0, slowReads - this.#slowReads)
    this.#slowReads = slowReads
    this.#jobs.setRate(this.#jobPace.next({ debt, slowReads: since, lateMs }))
  }

  /** A worker failed, ended or hangs: once per incarnation. */
  #crashed(shard: ShardWorker, worker: Worker, cause: Error): void {
    if (shard.worker !== worker || this.#isFatal) return
    shard.worker = undefined
    const wasUp = shard.isUp
    shard.isUp = false
    this.#settleBuckets()
    if (this.#isClosing) {
      void worker.terminate()
      this.#rejectWaiting(shard.shard, asSunwiseError(cause))
      return
    }
    Atomics.store(new Int32Array(shard.memory.control), ControlWord.state, ShardState.down)
    Atomics.add(new Int32Array(shard.memory.control), ControlWord.viewVersion, 1)
    if (!wasUp && this.#rejectWaiting(shard.shard, asSunwiseError(cause))) {
      // It never came up: starting again would meet the same.
      void worker.terminate()
      return
    }
    this.crashes++
    // A backup that waits for it has nothing to wait for.
    for (const wait of this.#waiting.filter((each) => each.shard === shard.shard && each.type === 'held')) {
      this.#waiting.splice(this.#waiting.indexOf(wait), 1)
      wait.reject(asSunwiseError(cause))
    }
    this.#options.log(`Shard ${shard.shard} crashed: ${cause.message}; restarting it`)
    this.#broadcast({ type: 'shardDown', shard: shard.shard })
    const nowMs = performance.now()
    this.#crashTimesMs.push(nowMs)
    while (this.#crashTimesMs[0]! < nowMs - Limits.workerCrashWindowMs) this.#crashTimesMs.shift()
    if (this.#crashTimesMs.length >= Limits.workerCrashesMax) {
      const message = `Shard workers crashed ${this.#crashTimesMs.length} times within ${Limits.workerCrashWindowMs / 1000} s, last: ${cause.message}; look at the log and start again`
      void worker.terminate()
      this.#fatal(new SunwiseError('WORKERS_FAILED', message, { cause }))
      return
    }
    void this.#restart(shard, worker, cause).catch((error: unknown) => this.#fatal(error))
  }

  async #restart(shard: ShardWorker, worker: Worker, cause: Error): Promise<void> {
    await worker.terminate()
    // After a failed fsync nobody knows which pages are on disk: what this actor named may be lost.
    if (cause instanceof SunwiseError && cause.code === 'DISK_FAILED') await this.#changeActor()
    if (this.#isClosing) return
    // What it had asked of the catalog holds or not before its successor looks.
    await Promise.all(shard.commits)
    this.#unpin(threadOfShard(shard.shard))
    shard.memory = this.#createMemory(shard.shard)
    shard.lastHeartbeat = 0
    const thread = threadOfShard(shard.shard)
    const links: Link[] = []
    for (const other of this.#shards) {
      const [mine, theirs] = this.#connectPair(thread, threadOfShard(other.shard))
      links.push(mine)
      if (other === shard) continue
      this.#post(other, { type: 'shardMemory', shard: shard.shard, memory: shard.memory })
      this.#post(other, { type: 'connect', link: theirs }, [theirs.port!])
    }
    if (this.#frontEnd !== undefined) {
      const [mine, theirs] = this.#connectPair(thread, frontEndThread)
      links.push(mine)
      this.#frontEnd.post({ type: 'shardMemory', shard: shard.shard, memory: shard.memory }, [])
      this.#frontEnd.post({ type: 'connect', link: theirs }, [theirs.port!])
    }
    const ready = this.#await(shard.shard, 'ready')
    this.#spawn(shard, links)
    await ready
    if (this.#listen !== undefined && (this.#listen.reusePort || shard.shard === 0)) await this.#askToListen(shard)
  }

  /** A thread that is gone reads no tables any more. */
  #unpin(thread: number): void {
    for (const { memory } of this.#shards) Atomics.store(new Int32Array(memory.tables.pins), thread * pinWords, 0)
  }

  #fatal(cause: unknown): void {
    if (this.#isFatal || this.#isClosing) return
    this.#isFatal = true
    clearInterval(this.#supervisor)
    const error = asSunwiseError(cause)
    void this.#terminateAll().finally(() => {
      this.#options.onFatal(error)
      // Whoever waits for a shard, such as a start that lets it listen, waits in vain.
      for (const { reject } of this.#waiting.splice(0)) reject(error)
    })
  }

  async #terminateAll(): Promise<void> {
    this.#isClosing = true
    clearInterval(this.#supervisor)
    const workers = this.#shards.flatMap((shard) => (shard.worker === undefined ? [] : [shard.worker]))
    for (const shard of this.#shards) {
      shard.worker = undefined
      shard.isUp = false
    }
    this.#settleBuckets()
    const keeperEnds = new Promise<void>((resolve) => this.#diskKeeper.close(resolve))
    await Promise.all([...workers.map((worker) => worker.terminate()), this.#jobs.close(), keeperEnds])
    await Promise.all(this.#shards.flatMap((shard) => [...shard.commits]))
  }
}

function asSunwiseError(cause: unknown): SunwiseError {
  if (cause instanceof SunwiseError) return cause
  const message = cause instanceof Error ? cause.message : String(cause)
  return new SunwiseError('INTERNAL', `A shard worker failed: ${message}`, { cause })
}

export function errorMessageOf(error: unknown): ErrorMessage {
  const known = asSunwiseError(error)
  return { code: known.code, message: known.message }
}

function makeDirectory(directory: string): void {
  try {
    makeDirectories(directory, 0o700)
  } catch (cause) {
    throw new SunwiseError('DIRECTORY_UNUSABLE', `Cannot create the data directory "${directory}": ${String(cause)}`, {
      cause,
    })
  }
}

/** A start would remove tables that no catalog names; and on half of a backup it would take what is not there yet for what never was. */
function refuseBackups(directory: string): void {
  if (readdirSync(directory).some(isManifestName)) {
    const message = `There are backups in "${directory}"; restore one of them to another directory`
    throw new SunwiseError('DIRECTORY_UNUSABLE', message)
  }
  if (!existsSync(join(directory, restoringName))) return
  const message = `The restore of a backup to "${directory}" did not end; restore to it again`
  throw new SunwiseError('DIRECTORY_UNUSABLE', message)
}

/** Alone, a node would write past the others, and take no account of them. */
function refuseMember(record: NodeRecord, directory: string): void {
  if (!record.isMember && !record.isJoining) return
  const message = `The data directory "${directory}" belongs to a member of a cluster; start it with --peer`
  throw new SunwiseError('DIRECTORY_UNUSABLE', message)
}

/**
 * What a salvage gives up, the clocks of a member's partitions still say it has had: the others would take it for deleted, and delete it.
 * A new member in its place gets all of it from them.
 */
function refuseSalvage(record: NodeRecord, directory: string): void {
  if (!record.isMember) return
  const message = `The data directory "${directory}" belongs to a member of a cluster, and what it lost lies with the others: start a node with an empty directory, --join and --replaces ${record.identity?.nodeId ?? ''}`
  throw new SunwiseError('DIRECTORY_UNUSABLE', message)
}

function randomActor(): { readonly low: number; readonly high: number } {
  const bytes = randomBytes(8)
  return { low: bytes.readUInt32LE(0), high: bytes.readUInt32LE(4) }
}

async function loadIdentity(record: NodeRecord): Promise<Identity> {
  const present = record.identity
  if (present !== undefined) {
    if (present.format !== directoryFormatVersion) {
      const message = `The data directory has format ${present.format}, this program reads ${directoryFormatVersion}; use a matching release`
      throw new SunwiseError('CATALOG_CORRUPT', message)
    }
    return present
  }
  const identity: Identity = {
    format: directoryFormatVersion,
    nodeId: randomBytes(8).toString('hex'),
    clusterId: randomBytes(8).toString('hex'),
    clusterKey: randomBytes(16).toString('base64'),
  }
  await record.putIdentity(identity)
  return identity
}

/**
 * The actor of this run: the last one's, or a new one where some of its writes may be lost (unsynced acknowledgements without
 * a clean stop, another directory than recorded, salvage). In doubt a new one. Durable before the first write.
 */
async function loadActor(record: NodeRecord, directory: string, salvage: boolean): Promise<ActorRow> {
  const { dev, ino } = statSync(directory)
  // A backup that is put back into the same directory brings files of its own, though perhaps with inodes of those before.
  const file = statSync(join(directory, 'catalog', catalogFileName))
  const place = { device: dev, inode: ino, catalogInode: file.ino, catalogBornMs: file.birthtimeMs }
  const present = record.actor
  const isSame =
    present !== undefined &&
    present.device === place.device &&
    present.inode === place.inode &&
    present.catalogInode === place.catalogInode &&
    present.catalogBornMs === place.catalogBornMs
  if (isSame && !record.isUnsynced && !salvage) return { ...present }
  const actor: ActorRow = { ...randomActor(), ...place }
  await record.putActor(actor)
  return actor
}

/** The generation of the log that this run writes; deals the log anew if shards or segment size differ from before. */
async function prepareLog(
  catalog: HostCatalog,
  record: NodeRecord,
  config: Config,
  salvage: boolean,
  log: (line: string) => void,
): Promise<LogRow> {
  const segmentBytes = segmentBytesOf(config)
  const present = record.log
  const disk = new HostDisk(config.directory)
  checkLogDirectories(disk, config.directory, present, salvage ? log : undefined)
  if (present === undefined) {
    const row: LogRow = { generation: 1, shards: config.shards, segmentBytes, retired: [] }
    for (let shard = 0; shard < config.shards; shard++) disk.makeDirectoryNow(logDirectoryOf(1, shard))
    await record.putLog(row)
    return row
  }
  const isSame = present.shards === config.shards && present.segmentBytes === segmentBytes
  const isTidy = disk.listNow('log').every((name) => Number(name) >= present.generation)
  if (isSame && present.retired.length === 0 && isTidy && !salvage) return present
  return reshard({ disk, catalog, record, present, shards: config.shards, segmentBytes, salvage, log })
}

/** The directory of the tables, without what jobs left there that were cut short. */
function prepareTables(catalog: HostCatalog, directory: string): void {
  const disk = new HostDisk(directory)
  disk.makeDirectoryNow(tablesDirectory)
  for (const name of strayFiles(catalog, disk, tablesDirectory)) disk.removeNow(`${tablesDirectory}/${name}`)
}

/**
 * What is missing was not deleted by this program: a start without it would take lost data for data that never was, and bucket
 * ids, generations and counters would be used a second time. Salvage, which takes a new actor, goes on without a shard's log.
 */
function checkLogDirectories(
  disk: HostDisk,
  directory: string,
  row: LogRow | undefined,
  salvaged: ((line: string) => void) | undefined,
): void {
  if (row !== undefined) {
    const { generation, shards } = row
    const found = new Set(disk.listNow(`log/${generation}`))
    for (let shard = 0; shard < shards; shard++) {
      if (found.has(String(shard))) continue
      const path = logDirectoryOf(generation, shard)
      const missing = `Cannot find the commit log of shard ${shard}, "${path}" in "${directory}"`
      if (salvaged === undefined) {
        const message = `${missing}; restore a backup, or go on without its keys with "sunwise start --salvage"`
        throw new SunwiseError('LOG_CORRUPT', message, { extra: { path } })
      }
      salvaged(missing)
    }
    return
  }
  for (const generation of disk.listNow('log')) {
    for (const shard of disk.listNow(`log/${generation}`)) {
      if (listSegments(disk, `log/${generation}/${shard}`).length === 0) continue
      const message = `The catalog of "${directory}" is new, but there are commit logs in "log/${generation}", which it ought to describe; restore the catalog, or move the logs away`
      throw new SunwiseError('CATALOG_CORRUPT', message)
    }
  }
}

/** As configured, or as large as the largest version set demands, and small enough that the budget holds eight. */
function segmentBytesOf(config: Config): number {
  if (config.segmentBytes > 0) return config.segmentBytes
  const needed = 2 * versionSetBytesMax(config.valueBytesMax)
  let bytes = segmentBytesDefault
  while (bytes < needed) bytes *= 2
  const budget = config.memoryBytes / config.shards
  while (bytes / 2 >= needed && bytes * 32 > budget) bytes /= 2
  if (bytes * 8 > budget) {
    const least = Math.ceil((bytes * 8 * config.shards) / (1024 * 1024))
    throw new SunwiseError(
      'BAD_CONFIG',
      `Cannot run ${config.shards} shards with values up to ${config.valueBytesMax} bytes in ${config.memoryBytes} bytes of memory: give at least --memory ${least}mb, or fewer shards`,
    )
  }
  return bytes
}
