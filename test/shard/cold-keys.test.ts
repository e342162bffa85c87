/** Commands on keys whose blocks take long to read: they wait, those behind them on the same key, too, and others overtake. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import type {
  BatchOperation as CoordinatorOperation,
  BatchResult as CoordinatorResult,
} from '../../src/replication/requests.ts'
import { compact } from '../../src/storage/compaction.ts'
import { flush } from '../../src/storage/flush.ts'
import { checkTableFile } from '../../src/storage/table-check.ts'
import type { GivenBlock } from '../../src/storage/table-finder.ts'
import type { Tables } from '../../src/storage/tables.ts'
import { SimCatalog } from '../sim/sim-catalog.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { SimJobs } from '../sim/sim-jobs.ts'
import { bytesOf, crc32, textOf } from '../storage/store-rig.ts'
import { bucketOf, type Result, ShardRig, send } from './shard-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const segmentBytes = 16384

/** Looks after the buffers of blocks that were read beside everything else: what a search is given must be what was read. */
class BlockWatch {
  readonly buffers = new Set<ArrayBufferLike>()
  readonly #asRead = new WeakMap<GivenBlock, Uint8Array>()
  loads = 0
  /** Searches that were given several blocks. */
  several = 0

  constructor(tables: Tables) {
    const load = tables.load.bind(tables)
    tables.load = (done) =>
      load((error, given) => {
        if (given !== undefined) {
          this.loads++
          this.buffers.add(given.u8.buffer)
          this.#asRead.set(given, given.u8.slice())
        }
        done(error, given)
      })
    const { finder } = tables
    const seek = finder.seek.bind(finder)
    finder.seek = (partition, bucketId, key, keyStart, keyBytes, given = []) => {
      if (given.length > 1) this.several++
      for (const block of given) {
        assert.ok(Buffer.compare(block.u8, this.#asRead.get(block)!) === 0, 'A block was given up while it was needed')
      }
      return seek(partition, bucketId, key, keyStart, keyBytes, given)
    }
  }
}

class Run {
  readonly random: SeededRandom
  readonly disk: SimDisk
  readonly rig: ShardRig
  readonly jobs: SimJobs
  /** Values by key; undefined: none. */
  readonly model = new Map<string, string>()
  readonly busy = new Map<
    string,
    { result: Result<readonly CoordinatorResult[]>; operations: CoordinatorOperation[] }
  >()
  /** The disk is slow for so many reads of a hundred. */
  slowPercent = 50
  /** A job runs in one step of so many: with more, memory runs short. */
  jobsEvery = 4
  mayMerge = true
  writes = 0
  judged = 0
  refused = 0

  constructor(seed: number) {
    this.random = new SeededRandom(seed)
    this.disk = new SimDisk({ random: this.random.fork('disk'), completions: 'queued' })
    const catalog = new SimCatalog({ random: this.random.fork('catalog'), completions: 'immediate' })
    const tools = { crc32, codec: undefined }
    this.jobs = new SimJobs(this.disk, {
      flush: (input: never, world) => flush(input, world, tools),
      compact: (input: never, world) => {
        if (!this.mayMerge) throw new SunwiseError('CLOSED', 'No merges in this run')
        return compact(input, world, tools)
      },
      check: (input: never, world) => checkTableFile(input, world, tools),
    })
    const pace = { mayWait: () => !this.random.chance(this.slowPercent, 100), begin: () => 0, end: () => false }
    this.rig = new ShardRig({
      disk: this.disk,
      clock: new SimClock(),
      preallocate: true,
      segmentBytes,
      segments: 24,
      budgetBytes: 8 * segmentBytes,
      tables: { catalog, jobs: this.jobs, random: this.random.fork('tables'), pace },
    }).open(() => this.disk.drain(this.random))
  }

  step(): void {
    this.rig.turn()
    if (this.random.chance(1, this.jobsEvery)) this.jobs.runNext(this.random)
    for (let left = this.random.below(4); left > 0 && this.disk.step(this.random); left--);
    this.rig.deliverReplies()
    if (this.random.chance(1, 10)) {
      this.rig.options.clock.advance(20)
      this.rig.tick()
    }
    for (const [key, { result, operations }] of this.busy) {
      if (result.calls === 0) continue
      this.busy.delete(key)
      assert.equal(result.error, undefined)
      this.judge(key, operations, result.answer!)
    }
  }

  judge(key: string, operations: readonly CoordinatorOperation[], results: readonly CoordinatorResult[]): void {
    for (const [index, operation] of operations.entries()) {
      const result = results[index]!
      const before = this.model.get(key)
      const where = `operation ${index} of ${operations.map(({ op }) => op)} on ${key}`
      if ('error' in result) {
        if (result.error.code === 'PRECONDITION_FAILED') {
          const options = 'options' in operation ? operation.options : undefined
          assert.ok(options?.ifNoneMatch === '*' ? before !== undefined : before === undefined, where)
        } else {
          assert.equal(result.error.outcome, 'none', where)
          this.refused++
        }
      } else if (operation.op === 'get') {
        assert.equal(result.op, 'get')
        const seen = result.op === 'get' ? result.answer.values.map(({ value }) => textOf(value)) : []
        assert.deepEqual(seen, before === undefined ? [] : [before], where)
        this.judged++
      } else if (operation.op === 'put') this.model.set(key, textOf(operation.value))
      else this.model.delete(key)
    }
  }

  batch(key: string, operations: CoordinatorOperation[]): void {
    const result = send<readonly CoordinatorResult[]>((done) =>
      this.rig.coordinator.batch(bucketOf(), operations, { timeoutMs: 600_000 }, done),
    )
    this.busy.set(key, { result, operations })
  }

  operation(name: string): CoordinatorOperation {
    const key = bytesOf(name)
    const kind = this.random.below(6)
    const value = bytesOf(`${++this.writes} ${'v'.repeat(this.random.below(1500))}`)
    if (kind < 2) return { op: 'get', key }
    if (kind === 2) return { op: 'put', key, value, options: {} }
    if (kind === 3) return { op: 'put', key, value, options: { ifNoneMatch: '*' } }
    if (kind === 4) return { op: 'put', key, value, options: { ifMatch: '*' } }
    return { op: 'delete', key, options: this.random.chance(1, 2) ? {} : { ifMatch: '*' } }
  }
}

test('Shard: commands on a cold key stay in their order, while those on other keys overtake them', () => {
  const tally = { judged: 0, refused: 0, loads: 0, flushes: 0 }
  for (let seed = 1; seed <= 6 * scale; seed++) {
    const run = new Run(seed)
    try {
      for (let round = 0; round < 3000; round++) {
        const key = `{${run.random.below(29)}}key${run.random.below(10)}`
        if (!run.busy.has(key)) {
          const operations = Array.from({ length: run.random.between(1, 6) }, () => run.operation(key))
          run.batch(key, operations)
        }
        if (round % 250 === 0) {
          run.slowPercent = run.random.below(101)
          run.jobsEvery = run.random.between(1, 60)
        }
        run.step()
      }
      for (let round = 0; run.busy.size > 0; round++) {
        assert.ok(round < 20_000, 'Every batch is answered in the end')
        run.step()
      }
      run.rig.settle()
      for (let round = 0; !run.rig.shards.every((shard) => shard.isIdle); round++) {
        assert.ok(round < 20_000, 'The shard comes to rest')
        run.step()
      }
    } catch (error) {
      throw new Error(`Seed ${seed}: ${String(error)}`, { cause: error })
    }
    tally.judged += run.judged
    tally.refused += run.refused
    for (const { store } of run.rig.shards) {
      tally.loads += store.tables!.loads
      tally.flushes += store.tables!.flushes
    }
  }
  assert.ok(tally.judged > 10_000 && tally.loads > 1000 && tally.flushes > 10, JSON.stringify(tally))
})

test('Shard: what was read of a table is kept for as long as a command needs it, and its buffer is used again', () => {
  const run = new Run(1)
  const watch = new BlockWatch(run.rig.shards[0]!.store.tables!)
  run.slowPercent = 90
  for (let round = 0; round < 2000; round++) {
    const key = `{${run.random.below(29)}}key${run.random.below(10)}`
    if (!run.busy.has(key)) run.batch(key, [run.operation(key), run.operation(key)])
    if (round % 250 === 0) run.jobsEvery = run.random.between(1, 30)
    run.step()
  }
  for (let round = 0; run.busy.size > 0; round++) {
    assert.ok(round < 20_000, 'Every batch is answered in the end')
    run.step()
  }
  assert.ok(watch.loads > 200 && watch.several > 20, `${watch.loads} blocks, ${watch.several} searches with several`)
  assert.ok(watch.buffers.size < watch.loads / 4, `${watch.buffers.size} buffers for ${watch.loads} blocks`)
})

test('Shard: damage that only a slow read of a write meets is looked into', () => {
  const run = new Run(7)
  const { store } = run.rig.shards[0]!
  const tables = store.tables!
  run.slowPercent = 100
  run.mayMerge = false
  const write = (index: number, options: { readonly ifNoneMatch?: '*' }): void => {
    const value = bytesOf(`${index} ${'v'.repeat(400)}`)
    run.batch(`{${index % 29}}key${index}`, [{ op: 'put', key: bytesOf(`{${index % 29}}key${index}`), value, options }])
    for (let round = 0; run.busy.size > 0; round++) {
      assert.ok(round < 20_000, 'Every batch is answered in the end')
      run.step()
    }
  }
  for (let index = 0; index < 300; index++) write(index, {})
  const [path] = run.disk.paths().filter((name) => name.startsWith('tables/'))
  assert.ok(path !== undefined && tables.loads === 0)
  run.disk.flipBit(path, Math.floor(run.disk.bytesOf(path).length / 3), 2)
  for (let index = 0; index < 300; index++) write(index, { ifNoneMatch: '*' })
  assert.ok(run.refused > 0 && tables.loads > 0)
  for (let round = 0; tables.damagedTables === 0; round++) {
    assert.ok(round < 20_000, 'The table is looked through')
    run.step()
  }
  assert.equal(tables.damagedTables, 1)
})
