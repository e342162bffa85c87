/**
 * Entry of a shard worker: one shard, the coordinator of this thread, and (in a server) an HTTP listener. All events of the
 * thread end in a turn of its loop, which drains rings, lets the shard write and answer, and publishes.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import { SunwiseError } from '../base/errors.ts'
import { partitionOfSlot } from '../cluster/slots.ts'
import { FrameKind } from '../shard/command.ts'
import { Shard } from '../shard/shard.ts'
import { isRetired, type KnownBuckets } from '../storage/known-buckets.ts'
import type { ActorId } from '../storage/log-control.ts'
import { ControlWord, ShardState } from '../storage/shard-memory.ts'
import { TableRows } from '../storage/table-rows.ts'
import { HostDisk } from './disk.ts'
import { GroupPace } from './group-pace.ts'
import type { HttpServer } from './http/server.ts'
import { MemberClient } from './member-client.ts'
import type { ErrorMessage, FromThread, ThreadSeed, ToThread, WorkerData } from './messages.ts'
import { nativeCrc32, zstd } from './native-codes.ts'
import { HostRandom } from './random.ts'
import { RemoteJobs } from './remote-jobs.ts'
import { partitionsOf, tablesDirectory } from './reshard.ts'
import { ThreadRuntime } from './thread-runtime.ts'
import { TurnLoop, turnMsMax } from './turn-loop.ts'
import { startWorkerHttp } from './worker-http.ts'

const tickMs = 20
/** At rest a thread looks after its background work less often: waking costs more than the work. */
const restingTickMs = 100

assert(parentPort !== null, 'A shard worker runs in a worker thread')
const port = parentPort
const { seed, shard: own } = workerData as WorkerData
const post = (message: FromThread): void => port.postMessage(message)
const describe = (error: unknown): ErrorMessage =>
  error instanceof SunwiseError
    ? { code: error.code, message: error.message }
    : { code: 'INTERNAL', message: error instanceof Error ? (error.stack ?? error.message) : String(error) }

function knownBuckets(told: Pick<ThreadSeed, 'buckets' | 'bucketsBelow'>): KnownBuckets {
  return { live: new Set(told.buckets.map((bucket) => bucket.id as number)), below: told.bucketsBelow }
}

const memory = seed.memories[own.shard]!
const control = new Int32Array(memory.control)
// Answers leave as HTTP, which wants Buffers; small ones come out of Node's pool.
const runtime = new ThreadRuntime(seed, post, Buffer.allocUnsafe)
let buckets = knownBuckets(seed)
const controls = seed.memories.map((shared) => new Int32Array(shared.control))
let httpServer: HttpServer | undefined
let closing: (() => void) | undefined
/** A new actor that came while the log was being read. */
let nextActor: ActorId | undefined

const jobs = new RemoteJobs(post)
const shard = new Shard(
  {
    disk: new HostDisk(own.directory),
    directory: own.logDirectory,
    memory,
    budgetBytes: own.budgetBytes,
    crc32: nativeCrc32,
    hashSeed: seed.hashSeed,
    shard: own.shard,
    shards: seed.shards,
    actor: own.actor,
    preallocate: seed.durability === 'sync',
    syncIntervalMs: own.syncIntervalMs,
    salvage: own.salvage,
    syncedEnd: own.syncedEnd,
    partitionOfSlot,
    isRetiredBucket: (bucketId) => isRetired(buckets, bucketId),
    tables: {
      directory: tablesDirectory,
      jobs,
      random: new HostRandom(),
      codec: zstd,
      rows: TableRows.from(partitionsOf(own.shard, seed.shards), own.tables.rows),
      facts: new Map(own.tables.facts.map((facts) => [facts.tableId, facts])),
      flushedThrough: own.tables.flushedThrough,
      damaged: own.tables.damaged,
      scrubBytesPerSecond: own.scrubBytesPerSecond,
      commit: (edits, unnamed, done) => jobs.commit(edits, unnamed, done),
      reader: seed.thread,
      pace: runtime.readPace,
      compresses: own.compression === 'zstd',
      buckets: () => buckets,
      report: (error) => post({ type: 'trouble', error: describe(error) }),
    },
  },
  runtime.clock,
  runtime.links,
  {
    unsyncedWanted: () => post({ type: 'unsyncedWanted' }),
    actorIsStale: () => post({ type: 'actorIsStale' }),
    resumed: () => loop.schedule(),
    failed: (error) => post({ type: 'failed', error: describe(error) }),
  },
)
shard.unsyncedNoted = seed.unsyncedNoted

const pace = new GroupPace()
const loop = new TurnLoop(runtime.links, runtime.bell, () => {
  const wasHeldUp = !shard.canAccept
  const messages = runtime.links.drain(() => shard.canAccept, turnMsMax)
  const { openRecords, mustSync } = shard.store
  const mayStayOpen = shard.canAccept && closing === undefined
  if (mayStayOpen && pace.staysOpen(messages, openRecords, mustSync, performance.now())) return 'worked'
  shard.flush()
  // Writers wait for a segment: recycle now, not at the next tick.
  if (!shard.canAccept && !shard.waitsForOthers) shard.tick()
  Atomics.add(control, ControlWord.heartbeat, 1)
  if (closing !== undefined && shard.isIdle) closing()
  // While the shard cannot take more, its rings hold the rest: it stays awake, unless only others can make room, or time.
  if (!shard.canAccept) return shard.waitsForOthers ? 'heldUp' : 'worked'
  return messages > 0 || wasHeldUp ? 'worked' : 'idle'
})
/** In a member of a cluster clients are served through the node thread, which knows the other nodes. */
const member = own.member !== undefined ? new MemberClient(runtime.links, runtime.clock) : undefined
runtime.links.handle(
  (thread, u8, i32, start, bytes) => shard.receive(thread, u8, i32, start, bytes),
  member === undefined
    ? (u8, i32, start) => runtime.coordinator.receive(u8, i32, start)
    : (u8, i32, start) => {
        if (u8[start] === FrameKind.answer) member.receive(u8, i32, start)
        else runtime.coordinator.receive(u8, i32, start)
      },
  loop.schedule,
)
runtime.connect(seed)

function beginService(): void {
  let lastTickMs = performance.now()
  // Writes that come after a rest are synced by their interval, too.
  const longestMs = Math.max(tickMs, Math.min(restingTickMs, own.syncIntervalMs))
  let dueMs = tickMs
  const tick = (): void => {
    const nowMs = performance.now()
    // After a pause of the process answers may lie here that came in time: take them all before deadlines are judged.
    const isLate = nowMs - lastTickMs > dueMs + 4 * tickMs
    control[ControlWord.lateUs] = Math.max(0, Math.round((nowMs - lastTickMs - dueMs) * 1000))
    lastTickMs = nowMs
    const messages = runtime.links.drain(() => shard.canAccept, isLate ? Number.POSITIVE_INFINITY : turnMsMax)
    shard.tick()
    runtime.coordinator.tick()
    member?.tick()
    Atomics.add(control, ControlWord.heartbeat, 1)
    const { pendingCount } = runtime.coordinator
    const isAtRest = messages === 0 && pendingCount === 0 && shard.isIdle && shard.store.isDurableOncePublished
    // What a tick sends schedules a turn by itself.
    // A stop waits for a turn that finds the shard idle.
    if (!isAtRest || closing !== undefined) loop.schedule()
    dueMs = isAtRest ? longestMs : tickMs
    setTimeout(tick, dueMs)
  }
  setTimeout(tick, dueMs)
  loop.schedule()
}

Atomics.store(control, ControlWord.state, ShardState.recovering)
shard.store.recover(
  (records) => {
    Atomics.store(control, ControlWord.recovered, records)
    Atomics.add(control, ControlWord.heartbeat, 1)
  },
  (error, log) => {
    if (error !== undefined || log === undefined) {
      post({ type: 'failed', error: describe(error) })
      return
    }
    if (nextActor !== undefined) shard.store.changeActor(nextActor)
    Atomics.store(control, ControlWord.state, ShardState.up)
    beginService()
    const { records, bytes, droppedBytes, damages } = log
    post({ type: 'ready', records, logBytes: bytes, droppedBytes, damages })
  },
)

port.on('message', (message: ToThread) => {
  if (message.type === 'buckets') {
    const before = buckets
    buckets = knownBuckets(message)
    // A new bucket is no reason to look through everything.
    if ([...before.live].some((bucketId) => isRetired(buckets, bucketId))) shard.store.reclaimRetired()
  }
  if (message.type === 'unsyncedNoted') shard.unsyncedNoted = true
  if (message.type === 'shardMemory') controls[message.shard] = new Int32Array(message.memory.control)
  if (runtime.receive(message)) {
    if (message.type === 'buckets') post({ type: 'bucketsTaken', version: message.version })
    loop.schedule()
    return
  }
  switch (message.type) {
    case 'jobDone':
      jobs.jobDone(message.id, message.error, message.output)
      loop.schedule()
      return
    case 'tableCommitted':
      jobs.committed(message.id, message.error, message.orphans)
      loop.schedule()
      return
    case 'actor':
      nextActor = { low: message.low, high: message.high }
      if (Atomics.load(control, ControlWord.state) === ShardState.up) shard.store.changeActor(nextActor)
      return
    case 'listen':
      startWorkerHttp(own, runtime, member, () => controls, message).then(
        ({ server, address }) => {
          httpServer = server
          post({ type: 'listening', port: address.port, reusePort: address.reusePort })
        },
        (error: unknown) => post({ type: 'listenFailed', error: describe(error) }),
      )
      return
    case 'drain':
      ;(httpServer?.drain(message.graceMs) ?? Promise.resolve()).then(
        () => post({ type: 'drained' }),
        (error: unknown) => post({ type: 'failed', error: describe(error) }),
      )
      return
    case 'hold':
      shard.store.hold((error, held) => {
        post({ type: 'held', error: error === undefined ? undefined : describe(error), held })
      })
      loop.schedule()
      return
    case 'release':
      if (message.what === 'log') shard.store.releaseLog()
      else shard.store.release()
      loop.schedule()
      return
    case 'close':
      shard.store.release()
      closing = () => {
        closing = undefined
        loop.stop()
        shard.store.close((error, end) => {
          if (error !== undefined) post({ type: 'failed', error: describe(error) })
          else post({ type: 'closed', end })
        })
      }
      loop.schedule()
  }
})
