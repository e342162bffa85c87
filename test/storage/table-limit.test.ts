/**
 * Merges whose result would be larger than a table can be: all keys are of one partition, and the limit is small. A simulated disk, and
 * jobs that run when they are asked for.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { type CompactionInput, compact } from '../../src/storage/compaction.ts'
import { flush } from '../../src/storage/flush.ts'
import { ShardRig } from '../shard/shard-rig.ts'
import { SimCatalog } from '../sim/sim-catalog.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { SimJobs } from '../sim/sim-jobs.ts'
import { bytesOf, crc32, textOf } from './store-rig.ts'

const tools = { crc32, codec: undefined }
const dayMs = 24 * 3_600_000

class LimitRun {
  readonly clock = new SimClock()
  readonly random = new SeededRandom('table limit')
  readonly disk = new SimDisk()
  readonly values = new Map<string, string>()
  /** Inputs of the merges that were too large, in the order of their tries. */
  readonly refused: string[] = []
  /** More than four flushes write, and less than six. */
  tableBytesMax = 140_000
  readonly jobs = new SimJobs(this.disk, {
    flush: (input: never, world) => flush(input, world, tools),
    compact: (input: CompactionInput, world) => {
      try {
        return compact({ ...input, tableBytesMax: this.tableBytesMax }, world, tools)
      } catch (error) {
        assert.ok(error instanceof SunwiseError && error.code === 'TABLE_TOO_LARGE', String(error))
        this.refused.push(input.runs.map(({ path }) => path).join(' '))
        throw error
      }
    },
  })
  readonly rig = new ShardRig({
    disk: this.disk,
    clock: this.clock,
    segmentBytes: 16_384,
    segments: 24,
    budgetBytes: 8 * 16_384,
    tables: { catalog: new SimCatalog(), jobs: this.jobs, random: this.random.fork('tables') },
  }).open()

  get tables() {
    return this.rig.shards[0]!.store.tables!
  }

  /** Writes keys of one partition until so many more flushes have ended. */
  flush(times: number): void {
    for (const { flushes } = this.tables; this.tables.flushes < flushes + times; ) {
      const name = `{one}key ${this.values.size}`
      const value = `${name} ${'v'.repeat(this.random.between(200, 600))}`
      const { error } = this.rig.put(bytesOf(name), bytesOf(value), { durability: 'os' })
      if (error === undefined) this.values.set(name, value)
      else assert.match(error.code, /^(STORE_FULL|OVERLOADED)$/)
      this.pass(20)
    }
  }

  pass(ms: number): void {
    this.clock.advance(ms)
    this.rig.tick()
    this.jobs.runNext(this.random)
  }

  /** Time passes until there has been nothing to merge for a while. */
  rest(): void {
    for (let step = 0; step < 600; step++) this.pass(1_000)
  }

  check(): void {
    for (const [name, value] of this.values) {
      assert.equal(textOf(this.rig.get(bytesOf(name)).values[0]!.value), value, name)
    }
    const files = this.disk.paths().filter((path) => path.endsWith('.sst'))
    assert.equal(files.length, this.tables.tableCount, 'What was written in vain is gone')
  }
}

test('Tables: a merge whose result is too large for a table is said once, and left until a day later; newer runs are merged', () => {
  const run = new LimitRun()
  run.flush(6)
  run.rest()
  assert.ok(run.refused.length >= 1, 'The limit was met')
  assert.equal(new Set(run.refused).size, run.refused.length, 'No merge was tried twice')
  assert.equal(run.tables.mergesOverLimit, run.refused.length)
  const reports = run.rig.reports.splice(0)
  assert.deepEqual(
    reports.map(({ code }) => code),
    run.refused.map(() => 'TABLE_TOO_LARGE'),
  )
  run.check()

  const { compactions } = run.tables
  run.flush(6)
  run.rest()
  assert.ok(run.tables.compactions > compactions, 'What lies above is merged')
  assert.equal(new Set(run.refused).size, run.refused.length)
  run.check()

  // With values that expired meanwhile it might fit.
  const before = run.refused.length
  run.clock.advance(dayMs)
  run.rest()
  assert.ok(run.refused.length > before, 'It is tried again')
  assert.ok(run.refused.length <= 2 * before, 'Once')
  run.clock.advance(dayMs)
  run.tableBytesMax = 10_000_000
  run.rest()
  assert.equal(run.tables.mergesOverLimit, 0)
  assert.equal(run.tables.runs, 1)
  run.check()
})
