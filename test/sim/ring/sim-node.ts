/**
 * One node of the simulated ring: the product's own Node and Shards over a simulated disk, clock and links between threads. It may be
 * killed, cut from power, paused, and lose its disk; what it starts with again is what the disk kept.
 */
import assert from 'node:assert/strict'
import type { SunwiseError } from '../../../src/base/errors.ts'
import type { SeededRandom } from '../../../src/base/seeded-random.ts'
import { partitionOfSlot } from '../../../src/cluster/slots.ts'
import { encodeAcceptor } from '../../../src/cluster/topology/chain-store.ts'
import type { Topology } from '../../../src/cluster/topology/topology.ts'
import { type Durability, Limits } from '../../../src/config.ts'
import { zstd } from '../../../src/host/native-codes.ts'
import { Node, type Peer } from '../../../src/node.ts'
import { Shard } from '../../../src/shard/shard.ts'
import { compact } from '../../../src/storage/compaction.ts'
import { flush } from '../../../src/storage/flush.ts'
import type { ActorId } from '../../../src/storage/log-control.ts'
import { ResidentReader } from '../../../src/storage/resident-reader.ts'
import { ControlWord, type ShardMemory, ShardState } from '../../../src/storage/shard-memory.ts'
import { ShardReader } from '../../../src/storage/shard-reader.ts'
import type { StoreOptions } from '../../../src/storage/store.ts'
import { commitTables, loadTables, strayFiles } from '../../../src/storage/table-catalog.ts'
import { checkTableFile } from '../../../src/storage/table-check.ts'
import { TableFinder } from '../../../src/storage/table-finder.ts'
import { crc32 } from '../../storage/store-rig.ts'
import { SimCatalog, type SimCatalogImage } from '../sim-catalog.ts'
import { SimClock } from '../sim-clock.ts'
import { SimDisk, type SimDiskImage } from '../sim-disk.ts'
import { SimJobs } from '../sim-jobs.ts'
import { SimShards } from '../sim-shards.ts'
import type { EventQueue } from './event-queue.ts'
import { giveMemory, type MemoryPlan, takeMemory } from './shard-memories.ts'

/** Less than membership would say by itself: it goes by what the way allows. */
export const simDatagramBytesMax = 1_000

export type SimNodeOptions = {
  readonly nodeId: string
  /** What tests and transcripts call it; others reach it there. */
  readonly name: string
  readonly events: EventQueue
  readonly random: SeededRandom
  readonly durability: Durability
  /** Memory is so small that data goes to tables all the time. */
  readonly hasTables: boolean
  /** The cluster that it is in from its first start on; undefined: it hears of one from its seeds. */
  readonly founds: Topology | undefined
  /** Under which it votes as long as it has lost nothing: `founds` names it. */
  readonly acceptor: string
  readonly seeds: readonly string[]
  readonly send: (to: string, bytes: Uint8Array) => boolean
  readonly exchangeRestMs: number
  readonly repairBytesPerSecond: number
  readonly hintBytesMax: number
  /** A thread takes up to so long to begin a turn, milliseconds: drawn, or just that where it is steady. */
  readonly isSteady: boolean
  /** The process ended by itself, as after an error of its disk. */
  readonly died: (node: SimNode) => void
}

/** `budgetBytes`: for segments, the table over them, and what is kept in reserve. */
const residentPlan = {
  segmentBytes: 32 * 1024,
  segments: 48,
  budgetBytes: 4 * 1024 * 1024,
  tableMetaBytes: 4096,
  tableCacheBytes: 65536,
} satisfies MemoryPlan & { readonly budgetBytes: number }
/** With tables: so little memory that a few hundred writes fill it. */
const tablesPlan = {
  segmentBytes: 16384,
  segments: 24,
  budgetBytes: 6 * 16384,
  tableMetaBytes: 1024 * 1024,
  tableCacheBytes: 3 * 16384,
} satisfies MemoryPlan & { readonly budgetBytes: number }
const jobMsMax = 30
const tablesDirectory = 'tables'
const tools = { crc32, codec: zstd }
/** As seldom as a node may be ticked; often enough for transcripts to be read. */
const tickMs = 100
const steadyTickMs = 50
const turnMsMax = 0.3
const damageCodes = new Set<string>(['LOG_CORRUPT', 'TABLE_CORRUPT', 'CATALOG_CORRUPT'])
const hashSeed = { low: 5, high: 6 }

/** What lives from a start to the end of the process. */
type Run = {
  readonly node: Node
  readonly shard: Shard
  readonly links: SimShards
  readonly plan: MemoryPlan
  readonly memory: ShardMemory
}

export class SimNode {
  readonly nodeId: string
  readonly name: string
  readonly disk: SimDisk
  readonly clock: SimClock
  readonly #options: SimNodeOptions
  readonly #random: SeededRandom
  #actor: ActorId
  /** The catalog says that writes below `sync` may be missing after a stop. */
  #mayMissWrites = false
  #run: Run | undefined
  #catalog: SimCatalog
  /** Where its files are: in another place after a copy was put back. */
  #place = '0'
  #turnPlanned = false
  #pausedUntilMs = 0
  #snapshot: { readonly disk: SimDiskImage; readonly catalog: SimCatalogImage } | undefined
  /** Bits of its disk were flipped. */
  isRotten = false
  readonly #whilePaused: (() => void)[] = []
  starts = 0
  /** Of so many frames between its threads one finds no room; 0: none. */
  refusalOneIn = 0

  constructor(options: SimNodeOptions) {
    this.#options = options
    this.nodeId = options.nodeId
    this.name = options.name
    this.#random = options.random
    this.disk = new SimDisk({ random: options.random.fork('disk') })
    this.#catalog = new SimCatalog({ random: options.random.fork('catalog') })
    this.clock = new SimClock()
    const acceptor = encodeAcceptor({ id: options.acceptor, place: this.#place })
    this.#catalog.commit([{ op: 'put', key: 'topology/acceptor', value: acceptor }], () => {})
    this.#actor = this.#newActor()
  }

  get isUp(): boolean {
    return this.#run !== undefined
  }

  get isPaused(): boolean {
    return this.#pausedUntilMs > this.#options.events.nowMs
  }

  /** The node while it is up. */
  get node(): Node {
    assert.ok(this.#run !== undefined, `${this.name} is up`)
    return this.#run.node
  }

  /** Rows of its catalog that tell of damaged tables. */
  get damageNoted(): number {
    return this.#catalog.scan('damaged/').length
  }

  get shard(): Shard {
    assert.ok(this.#run !== undefined, `${this.name} is up`)
    return this.#run.shard
  }

  /** Starts it from what its disk holds. */
  start(): void {
    assert.ok(this.#run === undefined, `${this.name} is down`)
    this.starts++
    if (this.#mayMissWrites) {
      this.#actor = this.#newActor()
      this.#mayMissWrites = false
    }
    const { events, founds, seeds, send } = this.#options
    this.clock.advanceTo(events.nowMs)
    this.disk.makeDirectoryNow('log/0')
    const { hasTables } = this.#options
    const plan = hasTables ? tablesPlan : residentPlan
    const memory = takeMemory(plan)
    const links = new SimShards({
      shards: 1,
      random: this.#random.fork(`links ${this.starts}`),
      onQueued: () => this.#planTurn(),
      // Drawn anew whenever a frame is begun.
      refusalOneIn: () => this.refusalOneIn,
    })
    const finder = new TableFinder({
      disk: this.disk,
      memory: memory.tables,
      crc32,
      codec: zstd,
      reader: 0,
      pace: undefined,
    })
    const reader = new ShardReader(new ResidentReader(memory, false), finder)
    const node = new Node({
      nodeId: this.nodeId,
      address: this.name,
      clock: this.clock,
      random: this.#random.fork(`node ${this.starts}`),
      catalog: this.#catalog,
      network: { datagramBytesMax: simDatagramBytesMax, send },
      founds,
      place: this.#place,
      seeds,
      shards: links.door(0),
      readerOf: () => reader,
      hashSeed,
      clusterKey: new Uint8Array(16).fill(7),
      durability: this.#options.durability,
      exchangeRestMs: this.#options.exchangeRestMs,
      repairBytesPerSecond: this.#options.repairBytesPerSecond,
      hintBytesMax: this.#options.hintBytesMax,
    })
    let run: Run | undefined
    const shard = new Shard(
      {
        disk: this.disk,
        directory: 'log/0',
        memory,
        budgetBytes: plan.budgetBytes,
        crc32,
        hashSeed,
        shard: 0,
        shards: 1,
        actor: this.#actor,
        preallocate: true,
        syncIntervalMs: 100,
        salvage: false,
        partitionOfSlot,
        isRetiredBucket: () => false,
        tables: hasTables ? this.#tables() : undefined,
      },
      this.clock,
      links.replies(0),
      {
        unsyncedWanted: () => {
          this.#mayMissWrites = true
          shard.unsyncedNoted = true
        },
        actorIsStale: () => {
          this.#actor = this.#newActor()
          shard.store.changeActor(this.#actor)
        },
        resumed: () => this.#planTurn(),
        failed: () => {
          // What the log holds behind the error is not known: another actor goes on. Not in the middle of a call.
          this.#mayMissWrites = true
          this.#options.events.after(0, () => {
            if (this.#run !== run) return
            this.kill()
            this.#options.died(this)
          })
        },
      },
    )
    let failure: SunwiseError | undefined
    let isRecovered = false
    shard.store.recover(
      () => {},
      (error) => {
        failure = error
        isRecovered = true
      },
    )
    assert.ok(isRecovered, 'Recovery has ended')
    if (failure !== undefined) {
      giveMemory(plan, memory, shard.store.index.chunksTaken)
      this.disk.kill(this.#random)
      // Damage that was made: it is found, and the disk replaced.
      if (this.isRotten && damageCodes.has(failure.code)) this.loseDisk()
      // A disk that is full or fails just now: it is tried again.
      else if (failure.code !== 'DISK_FULL' && failure.code !== 'DISK_FAILED') throw failure
      else this.#mayMissWrites = true
      this.#options.died(this)
      return
    }
    Atomics.store(new Int32Array(memory.control), ControlWord.state, ShardState.up)
    links.serve(
      0,
      (thread, u8, i32, start, bytes) => shard.receive(thread, u8, i32, start, bytes),
      () => shard.canAccept,
    )
    links.listen(0, (u8, i32, start) => node.receiveReply(u8, i32, start))
    run = { node, shard, links, plan, memory }
    this.#run = run
    this.#planTurn()
    this.#planTick(run)
  }

  #tables(): StoreOptions['tables'] {
    const { disk, clock } = this
    const catalog = this.#catalog
    const { events } = this.#options
    disk.makeDirectoryNow(tablesDirectory)
    for (const name of strayFiles(catalog, disk, tablesDirectory)) disk.removeNow(`${tablesDirectory}/${name}`)
    const starts = this.starts
    const jobs: SimJobs = new SimJobs(
      disk,
      {
        flush: (input: never, world) => flush(input, world, tools),
        compact: (input: never, world) => compact(input, world, tools),
        check: (input: never, world) => checkTableFile(input, world, tools),
      },
      () =>
        events.after(this.#random.fraction() * jobMsMax, () => {
          if (this.starts !== starts || !this.isUp) return
          clock.advanceTo(events.nowMs)
          jobs.runNext(this.#random)
          this.#planTurn()
        }),
    )
    return {
      directory: tablesDirectory,
      jobs,
      random: this.#random.fork(`tables ${starts}`),
      codec: zstd,
      ...loadTables(catalog, 0, { firstPartition: 0, endPartition: Limits.partitions }),
      commit: (edits, unnamed, done) => commitTables(catalog, 1, 0, edits, unnamed, done),
      reader: 1,
      pace: undefined,
      compresses: false,
      scrubBytesPerSecond: 0,
      buckets: () => ({ live: new Set([1]), below: 2 }),
      report: () => {},
    }
  }

  /** A message that reached it. */
  receive(from: Peer, bytes: Uint8Array): void {
    const run = this.#run
    if (run === undefined) return
    this.#whenAwake(run, () => {
      run.node.receive(from, bytes)
      this.#planTurn()
    })
  }

  /** Does something on the node's thread, now or at the end of its pause. */
  act(action: (node: Node) => void): void {
    const run = this.#run
    if (run === undefined) return
    this.#whenAwake(run, () => {
      action(run.node)
      this.#planTurn()
    })
  }

  #whenAwake(run: Run, action: () => void): void {
    if (this.isPaused) {
      this.#whilePaused.push(() => {
        if (this.#run === run) action()
      })
      return
    }
    this.clock.advanceTo(this.#options.events.nowMs)
    action()
  }

  /** Nothing of it runs for a while; what comes meanwhile waits. */
  pause(forMs: number): void {
    if (this.isPaused) return
    this.#pausedUntilMs = this.#options.events.nowMs + forMs
    this.#options.events.after(forMs, () => {
      this.clock.advanceTo(this.#options.events.nowMs)
      for (const action of this.#whilePaused.splice(0)) action()
      this.#planTurn()
    })
  }

  /** One of the next calls of its disk fails for good. */
  failDisk(): void {
    this.disk.fail({
      kind: this.#random.pick(['write', 'sync'] as const),
      error: 'EIO',
      nth: 1 + this.#random.below(20),
    })
  }

  /** Ends the process. What was written stays. */
  kill(): void {
    this.#end()
    this.disk.kill(this.#random)
  }

  /** Ends the process and whatever was not on stable storage. */
  cutPower(): void {
    this.#end()
    this.disk.crash(this.#random)
    this.#catalog.crash(this.#random)
  }

  get hasSnapshot(): boolean {
    return this.#snapshot !== undefined
  }

  /** A copy of all that is on its disk now. */
  takeSnapshot(): void {
    this.#snapshot = { disk: this.disk.snapshot(), catalog: this.#catalog.snapshot() }
  }

  /**
   * The process ends, and finds on its disk what was there when the copy was made: files that are others, so that it has another actor. With
   * `keepsActor` nobody noticed that.
   */
  restoreSnapshot(keepsActor = false): void {
    assert.ok(this.#snapshot !== undefined, 'There is a copy')
    this.kill()
    this.disk.restore(this.#snapshot.disk)
    this.#catalog.restore(this.#snapshot.catalog)
    if (!keepsActor) {
      this.#actor = this.#newActor()
      this.#place = `${this.starts}`
    }
    this.#mayMissWrites = false
    this.isRotten = false
  }

  /** Flips some bits of a file. False: there is none with anything in it. */
  rot(): boolean {
    const paths = ['log/0', tablesDirectory].flatMap((directory) =>
      this.disk.listNow(directory).map((name) => `${directory}/${name}`),
    )
    const files = paths.filter((path) => this.disk.sizeOf(path) > 0)
    if (files.length === 0) return false
    const path = this.#random.pick(files)
    for (let left = this.#random.between(1, 8); left > 0; left--)
      this.disk.flipBit(path, this.#random.below(this.disk.sizeOf(path)), this.#random.below(8))
    this.isRotten = true
    return true
  }

  /** The disk is gone; it comes back with an empty one, and has nothing of its partitions. */
  loseDisk(): void {
    if (this.isUp) this.kill()
    this.disk.wipe()
    this.isRotten = false
    this.#catalog = new SimCatalog({ random: this.#random.fork(`catalog ${this.starts}`) })
    this.#actor = this.#newActor()
    this.#mayMissWrites = false
  }

  /** Gives up what it took of this process; nobody looks at it any more. */
  dispose(): void {
    if (this.isUp) this.#end()
  }

  #end(): void {
    assert.ok(this.#run !== undefined, `${this.name} is up`)
    const { shard, plan, memory } = this.#run
    this.#run = undefined
    giveMemory(plan, memory, shard.store.index.chunksTaken)
    this.#whilePaused.length = 0
    this.#pausedUntilMs = 0
  }

  #planTick(run: Run): void {
    const { events, isSteady } = this.#options
    events.after(isSteady ? steadyTickMs : tickMs, () => {
      if (this.#run !== run) return
      if (!this.isPaused) {
        this.clock.advanceTo(this.#options.events.nowMs)
        run.shard.tick()
        run.node.tick()
        this.#planTurn()
      }
      this.#planTick(run)
    })
  }

  #planTurn(): void {
    const run = this.#run
    if (run === undefined || this.#turnPlanned) return
    this.#turnPlanned = true
    const share = this.#options.isSteady ? 1 : this.#random.fraction()
    this.#options.events.after(share * turnMsMax, () => {
      this.#turnPlanned = false
      if (this.#run === run && !this.isPaused) this.#turn(run)
      else if (this.#run !== undefined && this.#run !== run) this.#planTurn()
    })
  }

  /** A turn of every thread: what was committed is seen, applied, made durable, answered. */
  #turn(run: Run): void {
    this.clock.advanceTo(this.#options.events.nowMs)
    for (let round = 0; this.#run === run; round++) {
      assert.ok(round < 10_000, 'A turn comes to an end')
      run.links.publish(0)
      const isMoved = run.links.step()
      run.shard.flush()
      run.links.publish(1)
      if (!isMoved && run.links.pending === 0) return
      if (!isMoved) {
        // The shard takes nothing just now: its own tick goes on with what holds it up.
        return
      }
    }
  }

  #newActor(): ActorId {
    return { low: this.#random.u32(), high: this.#random.u32() }
  }
}
