/**
 * A run whose data goes through tables, in which each call of the disk and each commit of the catalog goes wrong once: with a power
 * cut, the death of the process, an i/o error, or for want of space. Then a start, and everything is as it was acknowledged: values
 * stand, deletes stay, refused writes never show, no file is left that the catalog does not name, and the store works on.
 *
 * The run is counted first, and must meet each kind of call in flushes, compactions, starts, and the ends of log segments and tables:
 * a sweep that misses one proves nothing about it. By default an even sample of the calls is tried; SUNWISE_TEST_SCALE widens it.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ErrorCode, SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import type { CatalogEdit, Done } from '../../src/env.ts'
import type { ReadAnswer, WriteAnswer } from '../../src/replication/requests.ts'
import { compact } from '../../src/storage/compaction.ts'
import { flush } from '../../src/storage/flush.ts'
import { checkTableFile } from '../../src/storage/table-check.ts'
import { Witness } from '../process/witness.ts'
import { bucketOf, type Result, ShardRig, send } from '../shard/shard-rig.ts'
import { SimCatalog } from '../sim/sim-catalog.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { type DiskCallKind, SimCrash, SimDisk } from '../sim/sim-disk.ts'
import { SimJobs } from '../sim/sim-jobs.ts'
import { bytesOf, crc32, textOf } from './store-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const seed = 20_260
const keyCount = 260
const segmentBytes = 16_384
const budgetBytes = 8 * segmentBytes

type Phase = 'start' | 'serve' | 'flush' | 'compact' | 'check' | 'stop'
type ListAnswer = {
  readonly keys: readonly { readonly key: Uint8Array; readonly answer: ReadAnswer | undefined }[]
  readonly cursor: Uint8Array | undefined
}

/** A catalog in whose nth commit the process ends, before it holds, or when it holds and nobody knows; or which fails then. */
class CrashingCatalog extends SimCatalog {
  crashAtCommit: { readonly nth: number; readonly holds: boolean } | undefined
  onCrash: () => void = () => {}

  failAtCommit: { readonly nth: number; readonly error: 'EIO' | 'ENOSPC' } | undefined

  override commit(edits: readonly CatalogEdit[], done: Done): void {
    const { failAtCommit } = this
    if (failAtCommit !== undefined && this.commits + 1 === failAtCommit.nth) {
      this.failAtCommit = undefined
      this.fail({ error: failAtCommit.error })
    }
    const plan = this.crashAtCommit
    if (plan === undefined || this.commits + 1 !== plan.nth) return super.commit(edits, done)
    this.crashAtCommit = undefined
    if (plan.holds) super.commit(edits, () => {})
    this.onCrash()
  }
}

/** One run of the workload, over one disk and catalog. */
class TableRun {
  readonly codes: readonly ErrorCode[]
  readonly random = new SeededRandom(seed)
  readonly disk: SimDisk
  readonly catalog = new CrashingCatalog({ random: this.random.fork('catalog') })
  readonly clock = new SimClock()
  readonly witness = new Witness()
  /** Calls of the disk, by phase, kind, and whether a table, a log or something else was meant. */
  readonly met = new Map<string, number>()
  bytesAcknowledged = 0
  /** The process ends in this call of the disk. */
  crashAtCall = 0
  readonly tally = { flushes: 0, compactions: 0, errors: 0, starts: 0 }
  #phase: Phase = 'start'
  #jobs: SimJobs | undefined
  #rig: ShardRig | undefined
  #sent: { readonly key: string; readonly text: string | undefined; readonly result: Result<WriteAnswer> }[] = []
  #writes = 0

  constructor(codes: readonly ErrorCode[] = []) {
    this.codes = codes
    this.disk = new SimDisk({ random: this.random.fork('disk'), onCall: (kind, path) => this.#count(kind, path) })
    // From the next call on the disk is that of a process that has ended.
    this.catalog.onCrash = () => {
      this.disk.crashAtCall(1)
      this.disk.listNow('tables')
    }
  }

  get rig(): ShardRig {
    assert.ok(this.#rig !== undefined, 'The node has started')
    return this.#rig
  }

  /** The whole workload. Throws SimCrash where a crash was planned. */
  run(): void {
    this.start()
    this.work(45)
    this.rest()
    this.work(20)
    this.stop()
    this.start()
    this.work(8)
    this.rest()
    this.stop()
    this.start()
  }

  /** Cuts the power, or ends the process, and starts again. */
  crash(end: 'power' | 'process'): void {
    const isDead = this.disk.hasCrashed
    if (end === 'power') this.disk.crash(this.random)
    else this.disk.kill(this.random)
    this.catalog.crash(this.random)
    // Requests under way have no answer: what a dead process says of its disk reaches nobody.
    for (const { key, text, result } of this.#sent) {
      if (result.error !== undefined && isDead) this.witness.unknown(key, text)
      else this.#judge(key, text, result)
    }
    this.#sent = []
    this.start()
  }

  /** All is well again: the store takes writes, flushes, and holds everything through a stop. */
  goOn(): void {
    this.disk.heal()
    // A catalog that failed stays so until the next start.
    this.catalog.crash(this.random)
    this.disk.kill(this.random)
    this.start()
    const { errors } = this.tally
    this.work(12)
    this.rest()
    assert.equal(this.tally.errors, errors, 'A whole disk takes every write')
    this.stop()
    this.start()
  }

  /** Starts, again where an error that is allowed prevents it, and looks at everything. */
  start(): void {
    this.#phase = 'start'
    for (let attempt = 0; ; attempt++) {
      assert.ok(attempt < 10, 'A node starts in the end')
      try {
        this.#open()
        break
      } catch (error) {
        this.#allow(error)
        this.disk.kill(this.random)
        this.catalog.crash(this.random)
      }
    }
    this.tally.starts++
    this.#phase = 'serve'
    this.#expectNoStrays()
    this.verify()
  }

  /** Every key by itself, and all of them as a list. */
  verify(): void {
    const present = new Map<string, string>()
    for (let index = 0; index < keyCount; index++) {
      const key = nameOf(index)
      const result = send<ReadAnswer>((done) => this.rig.coordinator.get(bucketOf(), bytesOf(key), {}, done))
      this.#settle()
      if (result.error !== undefined) {
        this.#allow(result.error)
        continue
      }
      const { values } = result.answer!
      assert.ok(values.length <= 1, 'Blind writes make no siblings')
      const text = values[0] === undefined ? undefined : textOf(values[0].value)
      assert.equal(this.witness.judge(key, text), undefined)
      if (text !== undefined) present.set(key, text)
    }
    const listed = this.#list()
    if (listed !== undefined) {
      for (const [key, text] of present) assert.equal(listed.get(key), text, `The list has ${key}`)
      for (const [key, text] of listed) assert.equal(this.witness.judge(key, text), undefined)
    }
  }

  work(groups: number): void {
    for (let group = 0; group < groups; group++) {
      for (let left = 8; left > 0; left--) this.#send()
      this.#settle()
      this.#tick(20)
      if (this.rig.failures.length > 0) this.#replace()
    }
  }

  /** Nothing is asked for a while: what waits is done, and merged where that pays. */
  rest(): void {
    for (let round = 0; round < 14; round++) {
      this.#tick(600)
      this.#carry()
    }
    if (this.rig.failures.length > 0) this.#replace()
  }

  stop(): void {
    this.#settle()
    for (let round = 0; !this.rig.shards.every((shard) => shard.isIdle) && this.rig.failures.length === 0; round++) {
      assert.ok(round < 3000, 'A shard comes to rest')
      this.#tick(20)
    }
    if (this.rig.failures.length > 0) return this.#replace()
    this.#phase = 'stop'
    for (const { store } of this.rig.shards) {
      this.#countTables()
      let outcome: { error: SunwiseError | undefined } | undefined
      store.close((error) => {
        outcome = { error }
      })
      assert.ok(outcome !== undefined, 'The store has closed')
      if (outcome.error !== undefined) this.#allow(outcome.error)
    }
    this.disk.kill(this.random)
    this.catalog.crash(this.random)
  }

  #open(): void {
    // The end of a process forgets the plan of the disk.
    if (this.crashAtCall > this.disk.callsTotal) this.disk.crashAtCall(this.crashAtCall - this.disk.callsTotal)
    const tools = { crc32, codec: undefined }
    const during = <Input, Output>(phase: Phase, job: (input: Input) => Output, input: Input): Output => {
      const before = this.#phase
      this.#phase = phase
      try {
        return job(input)
      } finally {
        this.#phase = before
      }
    }
    this.#jobs = new SimJobs(this.disk, {
      flush: (input: never, world) => during('flush', () => flush(input, world, tools), input),
      compact: (input: never, world) => during('compact', () => compact(input, world, tools), input),
      check: (input: never, world) => during('check', () => checkTableFile(input, world, tools), input),
    })
    this.#rig = new ShardRig({
      disk: this.disk,
      clock: this.clock,
      segmentBytes,
      segments: 24,
      budgetBytes,
      actor: { low: 1, high: 9 },
      tables: {
        catalog: this.catalog,
        jobs: this.#jobs,
        random: this.random.fork(`tables${this.tally.starts}`),
        sliceBytesMin: 0,
      },
    })
    this.#rig.open()
  }

  #send(): void {
    const { random } = this
    const key = nameOf(random.below(keyCount))
    const number = ++this.#writes
    const text = random.chance(1, 4) ? undefined : `${number} ${'v'.repeat(random.between(150, 900))}`
    const result = send<WriteAnswer>((done) =>
      text === undefined
        ? this.rig.coordinator.delete(bucketOf(), bytesOf(key), {}, done)
        : this.rig.coordinator.put(bucketOf(), bytesOf(key), bytesOf(text), {}, done),
    )
    this.#sent.push({ key, text, result })
  }

  #settle(): void {
    for (let round = 0; this.rig.coordinator.pendingCount > 0; round++) {
      assert.ok(round < 3000, 'Every request is answered in the end')
      this.#carry()
      if (round % 8 === 7) this.#tick(20)
    }
    for (const { key, text, result } of this.#sent) this.#judge(key, text, result)
    this.#sent = []
  }

  #judge(key: string, text: string | undefined, { calls, error }: Result<WriteAnswer>): void {
    if (calls === 0) return this.witness.unknown(key, text)
    if (error === undefined) {
      this.bytesAcknowledged += text?.length ?? 0
      return this.witness.acknowledged(key, text)
    }
    this.#allow(error)
    assert.notEqual(error.outcome, 'partial')
    if (error.outcome === 'unknown') this.witness.unknown(key, text)
  }

  #carry(): void {
    this.rig.turn()
    this.#jobs!.runNext(this.random)
    for (const error of this.rig.reports.splice(0)) this.#allow(error)
    // A process that is dead answers nobody, whatever its objects say.
    if (this.disk.hasCrashed) throw new SimCrash('The process has ended')
  }

  #tick(durationMs: number): void {
    this.clock.advance(durationMs)
    this.rig.tick()
    this.#carry()
  }

  /** The shard has failed for good: a new one takes its place. */
  #replace(): void {
    for (const error of this.rig.failures) this.#allow(error)
    this.#countTables()
    this.crash('process')
  }

  #list(): Map<string, string> | undefined {
    const listed = new Map<string, string>()
    let cursor: Uint8Array | undefined
    do {
      const result = send<ListAnswer>((done) =>
        this.rig.coordinator.list(bucketOf(), { limit: 100, values: true, cursor }, done),
      )
      this.#settle()
      if (result.error !== undefined) {
        this.#allow(result.error)
        return undefined
      }
      for (const { key, answer } of result.answer!.keys) listed.set(textOf(key), textOf(answer!.values[0]!.value))
      cursor = result.answer!.cursor
    } while (cursor !== undefined)
    return listed
  }

  #expectNoStrays(): void {
    const named = this.catalog.scan('table/').map(([key]) => `tables/${key.slice('table/'.length)}.sst`)
    const present = this.disk.paths().filter((path) => path.startsWith('tables/'))
    assert.deepEqual(present.sort(), named.sort(), 'After a start there are the files that the catalog names')
  }

  #allow(error: unknown): void {
    const { code } = error as { code?: ErrorCode }
    if (code === undefined || !this.codes.includes(code)) throw error
    this.tally.errors++
  }

  #countTables(): void {
    for (const { store } of this.rig.shards) {
      this.tally.flushes += store.tables!.flushes
      this.tally.compactions += store.tables!.compactions
    }
  }

  #count(kind: DiskCallKind, path: string): void {
    const what = `${this.#phase}: ${kind} ${path.split('/')[0]}`
    this.met.set(what, (this.met.get(what) ?? 0) + 1)
  }
}

/** Keys of several partitions. */
const nameOf = (index: number): string => `{${index % 29}}key${index}`

let countedRun: TableRun | undefined

/** The workload with nothing wrong. */
function counted(): TableRun {
  if (countedRun === undefined) {
    const run = new TableRun()
    explain('nothing wrong', () => run.run())
    countedRun = run
  }
  return countedRun
}

/** Names the place in the message of what fails. */
function explain(place: string, body: () => void): void {
  try {
    body()
  } catch (error) {
    throw new Error(`Seed ${seed}, ${place}: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    })
  }
}

/** So many of the places 1 to `count`, spread evenly, the first and the last among them; all with a large scale. */
function placesOf(count: number, most: number): number[] {
  assert.ok(count > 0, 'There is a place')
  const wanted = Math.min(count, Math.max(2, Math.ceil(most * scale)))
  if (wanted >= count) return Array.from({ length: count }, (_, index) => index + 1)
  return Array.from({ length: wanted }, (_, index) => 1 + Math.round((index * (count - 1)) / (wanted - 1)))
}

test('Tables: the run that is swept meets every kind of call in every part of the life of a table', (t) => {
  t.diagnostic(JSON.stringify([...counted().met].sort()))
  t.diagnostic(
    JSON.stringify({ ...counted().tally, commits: counted().catalog.commits, calls: counted().disk.callsTotal }),
  )
  const wanted = [
    ...['create', 'write', 'sync', 'syncDirectory'].map((kind) => `flush: ${kind} tables`),
    ...['open', 'size', 'read', 'create', 'write', 'sync', 'syncDirectory'].map((kind) => `compact: ${kind} tables`),
    ...['list', 'open', 'size', 'read'].map((kind) => `start: ${kind} tables`),
    ...['list', 'open', 'read'].map((kind) => `start: ${kind} log`),
    ...['open', 'read', 'remove'].map((kind) => `serve: ${kind} tables`),
    ...['create', 'write', 'sync'].map((kind) => `serve: ${kind} log`),
  ]
  for (const what of wanted) assert.ok((counted().met.get(what) ?? 0) > 0, `The run has no "${what}"`)
  assert.ok(counted().bytesAcknowledged > budgetBytes, 'Log segments were retired: else there was no room for so much')
  assert.ok(counted().tally.flushes >= 4 && counted().tally.compactions >= 1)
  assert.ok(counted().catalog.commits >= counted().tally.flushes + counted().tally.compactions)
})

for (const end of ['power', 'process'] as const) {
  test(`Tables: ${end === 'power' ? 'a power cut' : 'the end of the process'} at any call of the disk loses nothing`, () => {
    for (const nth of placesOf(counted().disk.callsTotal, 16)) {
      explain(`${end} at call ${nth}`, () => {
        const run = new TableRun()
        run.crashAtCall = nth
        assert.throws(() => run.run(), SimCrash)
        run.crash(end)
        run.goOn()
      })
    }
  })

  test(`Tables: ${end === 'power' ? 'a power cut' : 'the end of the process'} at any commit of the catalog loses nothing`, () => {
    for (const nth of placesOf(counted().catalog.commits, 5)) {
      for (const holds of [false, true]) {
        explain(`${end} at commit ${nth}, which ${holds ? 'holds' : 'does not hold'}`, () => {
          const run = new TableRun()
          run.catalog.crashAtCommit = { nth, holds }
          assert.throws(() => run.run(), SimCrash)
          run.crash(end)
          run.goOn()
        })
      }
    }
  })
}

for (const kind of ['open', 'create', 'size', 'read', 'write', 'sync', 'remove', 'syncDirectory', 'list'] as const) {
  test(`Tables: an i/o error of any ${kind} loses nothing`, () => {
    for (const nth of placesOf(counted().disk.calls[kind], 4)) {
      explain(`EIO at ${kind} ${nth}`, () => {
        const run = new TableRun(['DISK_FAILED', 'STORE_FULL', 'OVERLOADED'])
        run.disk.fail({ kind, error: 'EIO', nth })
        run.run()
        run.goOn()
      })
    }
  })
}

for (const kind of ['write', 'create'] as const) {
  test(`Tables: want of space at any ${kind} loses nothing`, () => {
    for (const nth of placesOf(counted().disk.calls[kind], 4)) {
      for (const times of [1, 6]) {
        explain(`ENOSPC at ${kind} ${nth}, ${times} times`, () => {
          const run = new TableRun(['DISK_FULL', 'STORE_FULL', 'OVERLOADED'])
          run.disk.fail({ kind, error: 'ENOSPC', nth, times })
          run.run()
          run.goOn()
        })
      }
    }
  })
}

for (const error of ['EIO', 'ENOSPC'] as const) {
  test(`Tables: ${error} of any commit of the catalog loses nothing`, () => {
    for (const nth of placesOf(counted().catalog.commits, 6)) {
      explain(`${error} at commit ${nth}`, () => {
        const run = new TableRun(['DISK_FAILED', 'DISK_FULL', 'STORE_FULL', 'OVERLOADED'])
        run.catalog.failAtCommit = { nth, error }
        run.run()
        assert.ok(run.tally.errors > 0, 'The error is told')
        run.goOn()
      })
    }
  })
}
