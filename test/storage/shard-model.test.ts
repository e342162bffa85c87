/**
 * A node against a plain model of what a key-value store with contexts is. Small segments and a small budget, so that recycling
 * runs all the time; clean stops, killed processes and power cuts.
 *
 * The model knows for each key the states it went through, in order, and which of them surely stand on stable storage. A power
 * cut may set a key back to any state from there on, a killed process to none, and a request without an answer may have been
 * the last state or not.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { firstPartitionOfShard, partitionOfSlot, shardOfPartition } from '../../src/cluster/slots.ts'
import { type Durability, Limits } from '../../src/config.ts'
import { zstd } from '../../src/host/native-codes.ts'
import type { ReadAnswer, WriteAnswer, WriteOptions } from '../../src/replication/requests.ts'
import { compact } from '../../src/storage/compaction.ts'
import { flush } from '../../src/storage/flush.ts'
import { dealLogs } from '../../src/storage/log-dealer.ts'
import { reshardTables } from '../../src/storage/table-catalog.ts'
import { checkTableFile } from '../../src/storage/table-check.ts'
import { bucketOf, directoryOf, type Result, ShardRig, send } from '../shard/shard-rig.ts'
import { SimCatalog } from '../sim/sim-catalog.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimCrash, SimDisk } from '../sim/sim-disk.ts'
import { SimJobs } from '../sim/sim-jobs.ts'
import { bytesOf, crc32, textOf } from './store-rig.ts'

const segmentBytes = 16384
const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

/** One version as the model sees it. `write` numbers the writes of the whole run. */
type ModelVersion = { readonly write: number; readonly text: string; readonly expiresAtMs: number }
/** Live and dead versions of a key after some write of it. */
type State = {
  readonly write: number
  readonly versions: readonly ModelVersion[]
}

const absent: State = { write: 0, versions: [] }

class ModelKey {
  /** States since the last one that is surely durable, that one first. */
  states: State[] = [absent]
  /** Context of the last read, and the write up to which it covers this key. */
  context: { readonly token: Uint8Array; readonly write: number } | undefined
  etag: { readonly text: string; readonly write: number } | undefined
  /** A request under way. */
  pending: { readonly result: Result<WriteAnswer>; readonly next: State; readonly durability: Durability } | undefined

  get present(): State {
    return this.states.at(-1)!
  }
}

const live = (state: State, nowMs: number): readonly ModelVersion[] =>
  state.versions.filter(({ expiresAtMs }) => expiresAtMs === 0 || expiresAtMs > nowMs)

const textsOf = (versions: readonly ModelVersion[]): string[] => versions.map(({ text }) => text).sort()

type ListAnswer = {
  readonly keys: readonly { readonly key: Uint8Array; readonly answer: ReadAnswer | undefined }[]
  readonly cursor: Uint8Array | undefined
}

type RunOptions = {
  readonly seed: number
  readonly steps: number
  readonly durabilities: readonly Durability[]
  readonly shards: number
  readonly preallocate: boolean
  readonly completions: 'immediate' | 'queued'
  readonly keys: number
  /** Greatest length of most values. */
  readonly valueBytes?: number
  /** What memory has no room for goes to tables. */
  readonly hasTables?: boolean
  /** Starts deal the log to another number of shards now and then, up to `shards`. */
  readonly changesShards?: boolean
}

/** What a run did, so that a test can say that it did something. */
type Tally = Record<
  | 'acknowledged'
  | 'refused'
  | 'reads'
  | 'powerCuts'
  | 'kills'
  | 'stops'
  | 'recycled'
  | 'siblings'
  | 'lists'
  | 'preconditions'
  | 'flushes'
  | 'compactions'
  | 'loads'
  | 'crashesInJobs'
  | 'faultsInJobs'
  | 'deals',
  number
>

class ModelRun {
  readonly options: RunOptions
  readonly random: SeededRandom
  readonly disk: SimDisk
  readonly clock = new SimClock()
  readonly keys: { readonly name: Uint8Array; readonly model: ModelKey }[]
  readonly catalog: SimCatalog
  jobs: SimJobs
  rig: ShardRig
  actor = 1
  shards: number
  generation = 0
  writes = 0
  readonly tally: Tally = {
    acknowledged: 0,
    refused: 0,
    reads: 0,
    powerCuts: 0,
    kills: 0,
    stops: 0,
    recycled: 0,
    siblings: 0,
    lists: 0,
    preconditions: 0,
    flushes: 0,
    compactions: 0,
    loads: 0,
    crashesInJobs: 0,
    faultsInJobs: 0,
    deals: 0,
  }

  constructor(options: RunOptions) {
    this.options = options
    this.random = new SeededRandom(options.seed)
    this.shards = options.shards
    this.disk = new SimDisk({ random: this.random.fork('disk'), completions: options.completions })
    this.catalog = new SimCatalog({ random: this.random.fork('catalog'), completions: options.completions })
    this.jobs = this.makeJobs()
    this.keys = Array.from({ length: options.keys }, (_, index) => ({
      // With tables in several partitions, that compaction takes apart and puts together; else in a few, that run full.
      name: bytesOf(options.hasTables === true ? `{${index % 29}}key${index}` : `{${'abc'[index % 3]}}key${index}`),
      model: new ModelKey(),
    }))
    this.rig = this.start()
  }

  makeJobs(): SimJobs {
    const tools = { crc32, codec: zstd }
    return new SimJobs(this.disk, {
      flush: (input: never, world) => flush(input, world, tools),
      compact: (input: never, world) => compact(input, world, tools),
      check: (input: never, world) => checkTableFile(input, world, tools),
    })
  }

  start(): ShardRig {
    const { changesShards, preallocate } = this.options
    if (changesShards === true && this.random.chance(1, 2)) this.deal(this.random.between(1, this.options.shards))
    // Jobs of a process that is gone are gone.
    this.jobs = this.makeJobs()
    const paceRandom = this.random.fork('pace')
    const pace = { mayWait: () => paceRandom.chance(1, 2), begin: () => 0, end: () => false }
    const tables = {
      catalog: this.catalog,
      jobs: this.jobs,
      random: this.random.fork('tables'),
      pace,
      compresses: this.options.shards > 1,
      // Many small merges of parts of tables, as there are where data is much.
      sliceBytesMin: this.options.completions === 'immediate' ? 0 : 8192,
    }
    const rig = new ShardRig({
      disk: this.disk,
      clock: this.clock,
      shards: this.shards,
      generation: this.generation,
      preallocate,
      segmentBytes,
      segments: changesShards === true ? 48 : 24,
      budgetBytes: this.budgetBytes(),
      actor: { low: this.actor, high: 9 },
      unsyncedNoted: this.options.durabilities.some((durability) => durability !== 'sync'),
      tables: this.options.hasTables === true ? tables : undefined,
    })
    return rig.open(() => this.disk.drain(this.random))
  }

  /** Of one shard. A node has so much memory, however many shards share it. */
  budgetBytes(): number {
    const { changesShards, hasTables, shards } = this.options
    const segments = hasTables === true ? 8 : 12
    return (changesShards === true ? Math.floor((segments * shards) / this.shards) : segments) * segmentBytes
  }

  /** What a start with another number of shards does before anything runs. */
  deal(shards: number): void {
    const { disk, catalog, generation } = this
    const newDirectories = Array.from({ length: shards }, (_, shard) => directoryOf(shard, generation + 1))
    for (const directory of newDirectories) disk.makeDirectoryNow(directory)
    let outcome: { readonly error: SunwiseError | undefined } | undefined
    dealLogs(
      {
        disk,
        crc32,
        oldDirectories: Array.from({ length: this.shards }, (_, shard) => directoryOf(shard, generation)),
        oldSegmentBytes: segmentBytes,
        newDirectories,
        newSegmentBytes: segmentBytes,
        salvage: false,
        actor: { low: this.actor, high: 9 },
        skipped: (damage) => assert.fail(`Damage: ${JSON.stringify(damage)}`),
        shardOfSlot: (slot) => shardOfPartition(partitionOfSlot(slot), shards),
        partitionOfSlot,
      },
      (error) => {
        outcome = { error }
      },
    )
    disk.drain(this.random)
    assert.ok(outcome !== undefined, 'Dealing has ended')
    if (outcome.error !== undefined) throw outcome.error
    const ranges = Array.from({ length: shards }, (_, shard) => ({
      firstPartition: firstPartitionOfShard(shard, shards),
      endPartition: firstPartitionOfShard(shard + 1, shards),
    }))
    let isCommitted = false
    catalog.commit(reshardTables(catalog, this.shards, ranges), (error) => {
      assert.ifError(error)
      isCommitted = true
    })
    while (catalog.step());
    assert.ok(isCommitted)
    this.shards = shards
    this.generation++
    this.tally.deals++
  }

  /** Carries frames and disk operations for a while; all of them with `whole`. */
  turn(whole: boolean): void {
    this.rig.turn()
    if (this.random.chance(1, whole ? 2 : 6)) this.jobs.runNext(this.random)
    if (this.options.completions === 'immediate') return
    for (let left = whole ? 1000 : this.random.below(3); left > 0 && this.disk.step(this.random); left--);
    for (let left = whole ? 1000 : this.random.below(3); left > 0 && this.catalog.step(); left--);
    this.rig.deliverReplies()
  }

  settle(): void {
    for (let round = 0; this.rig.coordinator.pendingCount > 0; round++) {
      assert.ok(round < 3000, 'Every request is answered in the end')
      this.turn(true)
      if (round % 8 === 7) this.tick(20)
    }
    this.collect()
  }

  tick(durationMs: number): void {
    this.clock.advance(durationMs)
    this.rig.tick()
    this.collect()
  }

  countRecycled(): void {
    for (const { store } of this.rig.shards) {
      this.tally.recycled += store.recycledSegments
      this.tally.flushes += store.tables?.flushes ?? 0
      this.tally.compactions += store.tables?.compactions ?? 0
      this.tally.loads += store.tables?.loads ?? 0
    }
  }

  /** Takes the answers that have come. */
  collect(): void {
    for (const { name, model } of this.keys) {
      const { pending } = model
      if (pending === undefined || pending.result.calls === 0) continue
      model.pending = undefined
      this.judge(name, model, pending.result, pending.next, pending.durability)
    }
  }

  judge(
    name: Uint8Array,
    model: ModelKey,
    { error, answer }: Result<WriteAnswer>,
    next: State,
    durability: Durability,
  ): void {
    if (error !== undefined) {
      this.tally.refused++
      assert.equal(error.outcome, 'none', `A write that was refused is not applied: ${error.message}`)
      // A write that depends on what a table holds needs to read it.
      const codes = [
        'STORE_FULL',
        'OVERLOADED',
        'DISK_FULL',
        ...(this.options.hasTables === true ? ['DISK_FAILED'] : []),
      ]
      assert.ok(codes.includes(error.code), `${error.code}: ${error.message}`)
      return
    }
    this.tally.acknowledged++
    if (next !== model.present) model.states.push(next)
    const isSynced = answer!.receipt.durable
    assert.ok(isSynced || durability !== 'sync', 'A write in sync mode is on stable storage when it is acknowledged')
    if (isSynced && next.write > 0) model.states.splice(0, model.states.length - 1)
    // Time may have passed since the shard counted.
    if (next.versions.every(({ expiresAtMs }) => expiresAtMs === 0)) {
      assert.equal(answer!.siblings, next.versions.length, textOf(name))
    }
  }

  // Requests.

  /** One of the keys; with many, most often one of the first, so that some have a history. */
  pickKey(): { readonly name: Uint8Array; readonly model: ModelKey } {
    const hot = Math.min(this.keys.length, 40)
    return this.keys[this.random.chance(1, 2) ? this.random.below(hot) : this.random.below(this.keys.length)]!
  }

  write(): void {
    const { random } = this
    const { name, model } = this.pickKey()
    if (model.pending !== undefined) return
    const state = model.present
    const isDelete = random.chance(1, 4)
    const write = ++this.writes
    const durability = random.pick(this.options.durabilities)
    let covered = Number.POSITIVE_INFINITY
    let options: WriteOptions = { durability, timeoutMs: Limits.timeoutMsMax }
    if (model.context !== undefined && random.chance(1, 3) && state.versions.length < 12) {
      covered = model.context.write
      options = { ...options, context: model.context.token }
    }
    const nowMs = this.clock.epochMs()
    const ttlMs = !isDelete && random.chance(1, 4) ? random.between(1, 100_000) : undefined
    if (ttlMs !== undefined) options = { ...options, ttlMs }
    const { valueBytes = 60 } = this.options
    const text = `${write}:${'x'.repeat(random.chance(1, 8) ? random.below(700) : random.below(valueBytes))}`
    const isBlind = options.context === undefined
    let next: State
    if (isDelete && live(state, nowMs).length === 0 && (isBlind || state === absent)) next = state
    else {
      const kept = state.versions.filter((version) => version.write > covered)
      const added = isDelete ? [] : [{ write, text, expiresAtMs: ttlMs === undefined ? 0 : nowMs + ttlMs }]
      next = { write, versions: [...kept, ...added] }
    }
    if (live(next, nowMs).length > 1) this.tally.siblings++
    const result = send<WriteAnswer>((done) =>
      isDelete
        ? this.rig.coordinator.delete(bucketOf(), name, options, done)
        : this.rig.coordinator.put(bucketOf(), name, bytesOf(text), options, done),
    )
    model.pending = { result, next, durability }
    if (random.chance(1, 3)) this.turn(false)
    this.collect()
  }

  precondition(): void {
    const { random } = this
    const { name, model } = this.pickKey()
    if (model.pending !== undefined) return
    const state = model.present
    const count = live(state, this.clock.epochMs()).length
    const kinds = model.etag === undefined ? ['none', 'any'] : ['none', 'any', 'etag', 'stale']
    const kind = random.pick(kinds)
    const text = `${++this.writes}:conditional`
    const etags = ['0123456789abcdef', kind === 'stale' ? 'ffffffffffffffff' : (model.etag?.text ?? '')]
    const holds =
      kind === 'none'
        ? count === 0
        : kind === 'any'
          ? count > 0
          : kind === 'etag' && model.etag!.write === state.write && count > 0
    // Expiry may have changed the digest.
    if (kind === 'etag' && state.versions.some(({ expiresAtMs }) => expiresAtMs > 0)) return
    const options: WriteOptions = kind === 'none' ? { ifNoneMatch: '*' } : { ifMatch: kind === 'any' ? '*' : etags }
    const result = send<WriteAnswer>((done) =>
      this.rig.coordinator.put(bucketOf(), name, bytesOf(text), { ...options, durability: 'sync' }, done),
    )
    this.settle()
    this.tally.preconditions++
    // Where there is no room, or what a table holds cannot be read, the precondition was not judged.
    if (holds || (result.error !== undefined && result.error.code !== 'PRECONDITION_FAILED')) {
      const next = { write: this.writes, versions: [{ write: this.writes, text, expiresAtMs: 0 }] }
      this.judge(name, model, result, next, 'sync')
      return
    }
    assert.equal(result.error?.code, 'PRECONDITION_FAILED', `${kind} on ${textOf(name)}`)
    assert.equal(result.error.outcome, 'none')
  }

  read(): void {
    const { name, model } = this.pickKey()
    const { pending, present } = model
    const startMs = this.clock.epochMs()
    const answer = this.readNow(name)
    const endMs = this.clock.epochMs()
    this.collect()
    const seen = answer.values.map(({ value }) => textOf(value)).sort()
    // Where a block was waited for, a write may have been answered meanwhile, and time has passed.
    const candidates = [present, model.present, ...(pending === undefined ? [] : [pending.next])]
    const matching = candidates.find((state) =>
      [startMs, endMs].some((nowMs) => equal(textsOf(live(state, nowMs)), seen)),
    )
    assert.ok(
      matching !== undefined,
      `${textOf(name)} reads ${seen}, not ${candidates.map((c) => textsOf(live(c, endMs)))}`,
    )
    if (pending !== undefined) return
    if (answer.context !== undefined) model.context = { token: answer.context, write: model.present.write }
    if (answer.etag !== undefined) model.etag = { text: answer.etag, write: model.present.write }
  }

  readNow(name: Uint8Array): ReadAnswer {
    this.tally.reads++
    const result = send<ReadAnswer>((done) => this.rig.coordinator.get(bucketOf(), name, {}, done))
    assert.ok(result.calls === 1 || this.options.hasTables === true, 'A read of memory is answered at once')
    for (let round = 0; result.calls === 0; round++) {
      assert.ok(round < 3000, 'Every read is answered in the end')
      this.turn(true)
      if (round % 8 === 7) this.tick(20)
    }
    if (result.error !== undefined) throw result.error
    return result.answer!
  }

  /** The whole bucket, page by page, against all keys. */
  list(): void {
    this.settle()
    this.tally.lists++
    const nowMs = this.clock.epochMs()
    const found = new Map<string, string[]>()
    let cursor: Uint8Array | undefined
    do {
      const result = send<ListAnswer>((done) =>
        this.rig.coordinator.list(bucketOf(), { limit: this.random.between(1, 9), values: true, cursor }, done),
      )
      this.settle()
      const { error, answer } = result
      if (error !== undefined) throw error
      for (const { key, answer: read } of answer!.keys) {
        assert.equal(found.has(textOf(key)), false, 'A key is listed once')
        found.set(textOf(key), read!.values.map(({ value }) => textOf(value)).sort())
      }
      cursor = answer!.cursor
    } while (cursor !== undefined)
    // Waiting for pages takes time, in which values expire.
    const endMs = this.clock.epochMs()
    const wanted = new Map<string, string[]>()
    for (const { name, model } of this.keys) {
      const seen = found.get(textOf(name)) ?? []
      const texts = [nowMs, endMs].map((ms) => textsOf(live(model.present, ms)))
      const allowed = texts.find((each) => equal(each, seen)) ?? texts[0]!
      if (allowed.length > 0) wanted.set(textOf(name), allowed)
    }
    assert.deepEqual(new Map([...found].sort()), new Map([...wanted].sort()))
  }

  // Ends of runs.

  stop(): void {
    this.settle()
    for (let round = 0; !this.rig.shards.every((shard) => shard.isIdle); round++) {
      assert.ok(round < 3000, 'A shard comes to rest')
      this.turn(true)
    }
    for (const shard of this.rig.shards) {
      let error: SunwiseError | undefined
      let isClosed = false
      shard.store.close((failed) => {
        error = failed
        isClosed = true
      })
      // Jobs end when they like, also while the log is synced for the last time.
      if (this.random.chance(1, 2)) this.jobs.runNext(this.random)
      this.disk.drain(this.random)
      assert.ok(isClosed && error === undefined, String(error))
    }
    this.tally.stops++
    this.countRecycled()
    // A clean stop has synced everything.
    for (const { model } of this.keys) model.states.splice(0, model.states.length - 1)
    this.rig = this.start()
    this.verify('exact')
  }

  /** Something goes wrong with files of tables, in a job or in what its answer begins; later all is well again. */
  faultInJob(): void {
    const kind = this.random.pick([
      'open',
      'create',
      'size',
      'read',
      'write',
      'sync',
      'remove',
      'syncDirectory',
    ] as const)
    const error = kind === 'write' && this.random.chance(1, 2) ? 'ENOSPC' : 'EIO'
    const before = this.rig.reports.length
    this.disk.fail({ kind, error, path: 'tables', nth: this.random.between(1, 6), times: this.random.pick([1, 3]) })
    this.jobs.runNext(this.random)
    for (let turns = 0; turns < 4; turns++) {
      this.rig.turn()
      this.disk.drain(this.random)
      while (this.catalog.step());
      this.rig.deliverReplies()
    }
    this.disk.heal()
    this.tally.faultsInJobs++
    // A table that could not be read twice is taken for damaged.
    for (const { code } of this.rig.reports.splice(before))
      assert.match(code, /^(DISK_FAILED|DISK_FULL|TABLE_CORRUPT)$/)
    this.collect()
  }

  /** The process ends in the middle of a job's work on the disk. */
  crashInJob(): void {
    if (this.jobs.waitingCount === 0) return
    this.disk.crashAtChange(this.random.between(1, 12))
    try {
      this.jobs.runNext(this.random)
      this.disk.crashAtChange(Number.MAX_SAFE_INTEGER)
      return
    } catch (error) {
      if (!(error instanceof SimCrash)) throw error
    }
    this.tally.crashesInJobs++
    this.crash(this.random.pick(['power', 'process']))
  }

  crash(kind: 'power' | 'process'): void {
    this.countRecycled()
    if (kind === 'power') this.disk.crash(this.random)
    else this.disk.kill(this.random)
    // What a commit under way leaves, a kill may leave, too.
    this.catalog.crash(this.random)
    if (kind === 'power') this.tally.powerCuts++
    else this.tally.kills++
    if (this.options.durabilities.some((durability) => durability !== 'sync')) this.actor++
    this.rig = this.start()
    this.verify(kind)
  }

  /** Compares every key with the states that it may be in now, and goes on from what is there. */
  verify(after: 'exact' | 'power' | 'process'): void {
    for (const { name, model } of this.keys) {
      const startMs = this.clock.epochMs()
      const seen = this.readNow(name)
        .values.map(({ value }) => textOf(value))
        .sort()
      const allowed = after === 'power' ? [...model.states] : [model.present]
      if (model.pending !== undefined) allowed.push(model.pending.next)
      model.pending = undefined
      // Where a block was waited for, time has passed.
      const momentsMs = [startMs, this.clock.epochMs()]
      const matching = allowed.findLast((state) => momentsMs.some((ms) => equal(textsOf(live(state, ms)), seen)))
      assert.ok(
        matching !== undefined,
        `After ${after}, ${textOf(name)} holds [${seen}], which is none of ${JSON.stringify(allowed.map((state) => textsOf(live(state, startMs))))}`,
      )
      model.states = [matching]
      // What a crash took back may be issued again under the same name: such tokens are those of other histories.
      model.context = undefined
      model.etag = undefined
    }
  }

  run(): void {
    const { random } = this
    // Memory has to fill before anything goes to tables.
    const endsPerThousand = this.options.hasTables === true ? 2 : 8
    for (let step = 0; step < this.options.steps; step++) {
      const draw = random.below(1000)
      if (this.jobs.waitingCount > 0 && random.chance(1, 30)) this.crashInJob()
      if (this.jobs.waitingCount > 0 && random.chance(1, 15)) this.faultInJob()
      if (draw < 560) this.write()
      else if (draw < 760) this.read()
      else if (draw < 800) this.precondition()
      else if (draw < 900) this.turn(false)
      else if (draw < 960) this.tick(random.pick([1, 20, 100, 500, 30_000]))
      else if (draw < 970) this.list()
      else if (draw < 970 + endsPerThousand) this.stop()
      else if (draw < 970 + 2 * endsPerThousand) this.crash('process')
      else if (draw < 970 + 3 * endsPerThousand) this.crash('power')
      else this.settle()
      this.collect()
      assert.deepEqual(
        [...this.rig.failures, ...this.rig.reports].map(({ message }) => message),
        [],
      )
    }
    this.stop()
  }
}

function equal(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((text, index) => text === b[index])
}

function runModel(name: string, runs: number, steps: number, options: Omit<RunOptions, 'seed' | 'steps'>): void {
  test(`Shard and store: ${name}`, (t) => {
    const sum: Record<string, number> = {}
    fc.assert(
      fc.property(
        fc.integer(),
        fc.integer({ min: options.hasTables === true ? steps / 2 : 1, max: steps }),
        (seed, drawn) => {
          const run = new ModelRun({ seed, steps: drawn, ...options })
          try {
            run.run()
          } catch (error) {
            if (error instanceof SimCrash) throw new Error('The disk was used after it had crashed', { cause: error })
            throw error
          }
          for (const [key, count] of Object.entries(run.tally)) sum[key] = (sum[key] ?? 0) + count
        },
      ),
      // Runs with tables are long: to shrink them would take minutes, and a seed says enough.
      { numRuns: Math.ceil(runs * scale), endOnFailure: options.hasTables === true },
    )
    t.diagnostic(JSON.stringify(sum))
    for (const [key, count] of Object.entries(sum)) {
      const isOfTables = ['flushes', 'compactions', 'loads', 'crashesInJobs', 'faultsInJobs'].includes(key)
      if (isOfTables && options.hasTables !== true) assert.equal(count, 0, `No ${key}`)
      else if (key === 'deals') assert.equal(count > 0, options.changesShards === true, `${count} deals`)
      else if (key !== 'refused') assert.ok(count > 0, `Some ${key}`)
    }
  })
}

const common = { preallocate: true, completions: 'immediate', shards: 1, keys: 40 } as const

runModel('synced writes equal the model through stops, kills and power cuts', 20, 1500, {
  ...common,
  durabilities: ['sync'],
})
runModel('writes of all durabilities lose no more than they may', 20, 1500, {
  ...common,
  durabilities: ['sync', 'interval', 'os'],
})
runModel('writes below sync alone lose no more than they may', 10, 1500, {
  ...common,
  preallocate: false,
  durabilities: ['os'],
})
runModel('syncs that end later change nothing', 20, 1500, {
  ...common,
  completions: 'queued',
  durabilities: ['sync', 'os'],
})
const withTables = { ...common, hasTables: true, keys: 400, valueBytes: 400 } as const

runModel('data beyond memory, synced, equals the model', 6, 6000, { ...withTables, durabilities: ['sync'] })
runModel('data beyond memory, of all durabilities, loses no more than it may', 6, 6000, {
  ...withTables,
  durabilities: ['sync', 'interval', 'os'],
})
runModel('data beyond memory, with a slow disk and catalog', 6, 6000, {
  ...withTables,
  completions: 'queued',
  durabilities: ['sync', 'os'],
})
runModel('data beyond memory in two shards', 4, 8000, {
  ...withTables,
  shards: 2,
  keys: 800,
  durabilities: ['sync', 'os'],
})
runModel('data beyond memory, dealt to one to three shards at starts, loses no more than it may', 4, 8000, {
  ...withTables,
  shards: 3,
  keys: 800,
  changesShards: true,
  durabilities: ['sync', 'os'],
})
runModel('two shards equal the model', 10, 1500, {
  ...common,
  shards: 2,
  durabilities: ['sync', 'os'],
})
