/**
 * Damaged tables under a store that serves: a key that may be in what is damaged answers TABLE_CORRUPT, never an older value and never
 * nothing; every other key answers as before; writing, flushing and merging go on; and the damage is known from then on.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { zstd } from '../../src/host/native-codes.ts'
import { compact } from '../../src/storage/compaction.ts'
import { runsMax } from '../../src/storage/compaction-policy.ts'
import { flush } from '../../src/storage/flush.ts'
import { checkTableFile } from '../../src/storage/table-check.ts'
import { damageEdit, damageOf, TableHealth } from '../../src/storage/table-health.ts'
import { bucketOf, ShardRig } from '../shard/shard-rig.ts'
import { SimCatalog } from '../sim/sim-catalog.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { SimJobs } from '../sim/sim-jobs.ts'
import { bytesOf, crc32, textOf } from './store-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const tools = { crc32, codec: zstd }

type Options = { readonly scrubBytesPerSecond?: number; readonly tags?: number }

class DamageRun {
  readonly random: SeededRandom
  readonly clock = new SimClock()
  readonly disk: SimDisk
  readonly catalog = new SimCatalog()
  readonly options: Options
  readonly values = new Map<string, string>()
  jobs!: SimJobs
  rig!: ShardRig
  starts = 0
  writes = 0

  constructor(seed: string, options: Options = {}) {
    this.random = new SeededRandom(seed)
    this.disk = new SimDisk({ random: this.random.fork('disk') })
    this.options = options
    this.start()
  }

  start(): void {
    this.jobs = new SimJobs(this.disk, {
      flush: (input: never, world) => flush(input, world, tools),
      compact: (input: never, world) => compact(input, world, tools),
      check: (input: never, world) => checkTableFile(input, world, tools),
    })
    this.rig = new ShardRig({
      disk: this.disk,
      clock: this.clock,
      segmentBytes: 16384,
      segments: 24,
      budgetBytes: 8 * 16384,
      actor: { low: 1, high: 9 },
      unsyncedNoted: true,
      tables: {
        catalog: this.catalog,
        jobs: this.jobs,
        random: this.random.fork(`tables ${++this.starts}`),
        scrubBytesPerSecond: this.options.scrubBytesPerSecond ?? 0,
      },
    }).open()
  }

  restart(): void {
    this.rig.close()
    this.start()
  }

  get tables() {
    return this.rig.shards[0]!.store.tables!
  }

  get paths(): string[] {
    return this.disk.paths().filter((path) => path.startsWith('tables/'))
  }

  nameOf(index: number): string {
    return `{${index % (this.options.tags ?? 40)}}key ${index}`
  }

  /** Writes a key anew. False where that needs what is damaged. */
  write(index: number): boolean {
    const name = this.nameOf(index)
    const value = `${++this.writes} ${'v'.repeat(this.random.between(100, 400))}`
    const { error } = this.rig.put(bytesOf(name), bytesOf(value), { durability: 'os' })
    this.pass()
    if (error !== undefined) {
      assert.equal(error.code, 'TABLE_CORRUPT', error.message)
      assert.equal(error.outcome, 'none')
      return false
    }
    this.values.set(name, value)
    return true
  }

  pass(rounds = 1): void {
    for (let round = 0; round < rounds; round++) {
      this.clock.advance(20)
      this.rig.tick()
      this.jobs.runNext(this.random)
    }
  }

  /** Time passes, and what is due is done. */
  rest(seconds: number): void {
    for (let left = seconds * 5; left > 0; left--) {
      this.clock.advance(200)
      this.rig.tick()
      this.jobs.runNext(this.random)
    }
  }

  fill(keys: number): void {
    for (let index = 0; index < keys; index++) this.write(index)
    this.rest(10)
  }

  /** Flips a bit of the first table, so far into it. */
  damage(part: number): void {
    const path = this.paths[0]!
    this.disk.flipBit(path, Math.floor(this.disk.bytesOf(path).length * part), 2)
  }

  /** Reads every key. Returns those that answer with damage; all others must answer what was written last. */
  readAll(): string[] {
    const damaged: string[] = []
    for (const [name, value] of this.values) {
      try {
        const { values } = this.rig.get(bytesOf(name))
        const seen = values.map((version) => textOf(version.value))
        assert.ok(seen.includes(value), `${name} shows ${seen.map((text) => text.slice(0, 10))}`)
      } catch (error) {
        if (!(error instanceof SunwiseError) || error.code !== 'TABLE_CORRUPT') throw error
        damaged.push(name)
      }
    }
    return damaged
  }

  reports(): string[] {
    return this.rig.reports.splice(0).map(({ code, message }) => `${code}: ${message}`)
  }
}

test('Tables: a flipped bit anywhere gives its keys TABLE_CORRUPT or their values, in the run and after a restart', () => {
  const run = new DamageRun('bits')
  run.fill(500)
  assert.deepEqual(run.readAll(), [])
  const paths = run.paths
  assert.ok(paths.length >= 1 && run.tables.flushes >= 2)
  let detected = 0
  for (const path of paths) {
    const { length } = run.disk.bytesOf(path)
    const places = Math.ceil(8 * scale)
    for (let place = 0; place < places; place++) {
      const offset = run.random.below(length)
      const bit = run.random.below(8)
      run.disk.flipBit(path, offset, bit)
      const before = run.readAll().length
      run.restart()
      const after = run.readAll().length
      if (after > 0) detected++
      assert.ok(after < run.values.size, 'Most keys answer')
      assert.ok(before <= run.values.size)
      run.disk.flipBit(path, offset, bit)
      run.restart()
      run.rest(2)
      assert.deepEqual(run.readAll(), [], 'What was put right is right')
      assert.equal(run.tables.damagedTables, 0)
      run.reports()
    }
  }
  assert.ok(detected > 0)
})

test('Tables: a damaged block is a wall for merges: flushes go on above it for good, and other keys know nothing of it', () => {
  const run = new DamageRun('wall', { tags: 6 })
  run.fill(300)
  run.damage(1 / 3)
  run.restart()
  const damaged = run.readAll()
  assert.ok(damaged.length > 0 && damaged.length < 300)
  run.rest(5)
  assert.equal(run.tables.damagedTables, 1, 'What a read has met is looked into')
  assert.equal(run.reports().filter((line) => line.startsWith('TABLE_CORRUPT')).length, 1)
  const lost = new Set(damaged)
  const before = run.tables.flushes
  for (let round = 0; run.tables.flushes < before + 2 * runsMax; round++) {
    assert.ok(round < 40_000, 'Flushes go on')
    const index = run.random.below(300)
    if (!lost.has(run.nameOf(index))) run.write(index)
    else run.pass()
  }
  run.rest(10)
  assert.ok(run.tables.runs < runsMax / 2, `${run.tables.runs} runs`)
  assert.deepEqual(new Set(run.readAll()), lost)
  // New keys of the same partitions are written and read.
  for (let index = 1000; index < 1100; index++) assert.ok(run.write(index) || lost.size > 0)
  run.restart()
  assert.equal(run.tables.damagedTables, 1, 'It is known from the start')
  assert.deepEqual(new Set(run.readAll()), lost)
  assert.deepEqual(run.reports(), [], 'It is reported once')
})

test('Tables: damage that only a list meets is looked into', () => {
  const run = new DamageRun('list')
  run.fill(300)
  run.damage(1 / 3)
  run.restart()
  const listed = run.rig.wait<unknown>((done) => {
    run.rig.coordinator.list(bucketOf(), { limit: 10_000, values: false }, done)
  })
  assert.equal(listed.error?.code, 'TABLE_CORRUPT')
  run.rest(5)
  assert.equal(run.tables.damagedTables, 1)
})

test('Tables: damage that comes to a damaged table is another wall: merges go on beside it', () => {
  const run = new DamageRun('second', { tags: 6 })
  run.fill(300)
  run.damage(1 / 3)
  run.restart()
  run.readAll()
  run.rest(5)
  assert.equal(run.tables.damagedTables, 1)
  run.damage(2 / 3)
  const lost = new Set(run.readAll())
  const { compactions, flushes } = run.tables
  for (let round = 0; run.tables.flushes < flushes + runsMax; round++) {
    assert.ok(round < 40_000, 'Flushes go on')
    const index = run.random.below(300)
    if (!lost.has(run.nameOf(index))) run.write(index)
    else run.pass()
  }
  run.rest(10)
  assert.ok(run.tables.compactions > compactions, 'Merges go on')
  assert.ok(run.tables.runs < runsMax / 2, `${run.tables.runs} runs`)
  assert.ok(run.reports().length < 8, 'It is not met again and again')
  const known = [...run.catalog.scan('damaged/')].map(([key, value]) => damageOf(key, value))
  assert.ok(known[0]!.length > 1, 'Both are noted')
})

test('Tables: a table that was missing at the start stays out of use, and out of merges, until the next one', () => {
  const run = new DamageRun('healed', { tags: 6 })
  run.fill(300)
  const path = run.paths[0]!
  const whole = run.disk.bytesOf(path).slice()
  run.disk.flipBit(path, Math.floor(whole.length / 3), 2)
  run.restart()
  run.readAll()
  run.rest(5)
  run.rig.close()
  run.disk.removeNow(path)
  run.start()
  run.rest(2)
  const lost = run.readAll()
  assert.ok(lost.length > 0)
  const file = run.disk.createNow(path)
  file.writeNow(whole, 0, whole.length, 0)
  file.syncNow()
  file.close()
  run.rest(20)
  assert.equal(run.tables.damagedTables, 1)
  for (let index = 1000; index < 1300; index++) run.write(index)
  run.rest(20)
  assert.ok(run.paths.includes(path), 'No merge has taken it in')
  assert.deepEqual(
    run.readAll().filter((name) => !lost.includes(name)),
    [],
  )
  run.restart()
  run.rest(20)
  assert.deepEqual(run.readAll(), [], 'The file is whole')
  assert.equal(run.tables.damagedTables, 0)
})

test('Tables: a start without one of its files serves the keys of the others, and names it', () => {
  for (const harm of ['missing', 'cut', 'empty'] as const) {
    const run = new DamageRun(harm)
    run.fill(400)
    for (let index = 400; index < 700; index++) run.write(index)
    run.rest(1)
    run.rig.close()
    const path = run.paths[0]!
    if (harm === 'missing') run.disk.removeNow(path)
    else run.disk.truncate(path, harm === 'cut' ? 2000 : 0)
    run.start()
    assert.equal(run.tables.damagedTables, 1)
    const reports = run.reports()
    assert.equal(reports.length, 1)
    assert.ok(reports[0]!.includes(path), reports[0]!)
    const damaged = run.readAll()
    assert.ok(damaged.length > 0 && damaged.length < run.values.size)
    // A list would have to leave keys out.
    const listed = run.rig.wait<unknown>((done) => {
      run.rig.coordinator.list(bucketOf(), { limit: 10_000, values: false }, done)
    })
    assert.equal(listed.error?.code, 'TABLE_CORRUPT')
    run.rest(20)
    run.restart()
    assert.deepEqual(run.readAll(), damaged)
    run.rig.close()
  }
})

test('Tables: a table that cannot be read once is tried again; it is given up when that fails, too', () => {
  for (const isLasting of [false, true]) {
    const run = new DamageRun(`lasting ${isLasting}`)
    run.fill(300)
    const [tableId] = [...run.tables.snapshot.facts].map((facts) => facts.tableId)
    const path = `tables/${tableId}.sst`
    assert.ok(run.paths.includes(path))
    // Enough of a new flush that something is to be merged, which then fails.
    run.disk.fail({ kind: 'read', error: 'EIO', path, nth: 1, times: isLasting ? 1_000_000 : 2 })
    for (let index = 0; index < 300; index++) {
      const { error } = run.rig.put(bytesOf(`{${index % 40}}other ${index}`), bytesOf('x'.repeat(300)), {
        durability: 'os',
      })
      if (error !== undefined) assert.equal(error.code, 'DISK_FAILED', error.message)
      run.pass()
    }
    run.rest(60)
    const present = run.tables.snapshot.facts.some((facts) => facts.tableId === tableId)
    assert.equal(run.tables.damagedTables, isLasting ? 1 : 0)
    if (isLasting) assert.ok(present, 'It keeps its place')
    run.disk.heal()
    // A read that succeeds shows what is there: nothing was overwritten or lost.
    assert.deepEqual(run.readAll(), [])
    run.reports()
    run.restart()
    run.rest(2)
    assert.equal(run.tables.damagedTables, 0, 'What can be read again is well again')
  }
})

test('Tables: the scrub finds damage that nobody reads, comes round to every table, and keeps to its rate', () => {
  const run = new DamageRun('scrub', { scrubBytesPerSecond: 20_000 })
  run.fill(300)
  run.rest(70)
  run.reports()
  const bytes = run.tables.fileBytes
  assert.ok(run.tables.bytesChecked > 0 && run.tables.bytesChecked <= 70 * 20_000 + bytes)
  run.rest((2 * bytes) / 20_000)
  assert.equal(run.tables.scrubPasses, 1)
  const { bytesChecked } = run.tables
  run.rest(100)
  assert.equal(run.tables.bytesChecked, bytesChecked, 'Once a day is enough')
  run.clock.advance(24 * 3_600_000)
  run.rest((2 * bytes) / 20_000)
  assert.equal(run.tables.bytesChecked - bytesChecked, run.tables.fileBytes)
  assert.equal(run.tables.scrubPasses, 2)
  run.clock.advance(24 * 3_600_000)
  const path = run.paths.at(-1)!
  run.disk.flipBit(path, 777, 1)
  run.rest((3 * bytes) / 20_000 + 70)
  assert.equal(run.tables.damagedTables, 1)
  const reports = run.reports()
  assert.equal(reports.length, 1)
  assert.ok(reports[0]!.includes(path) && reports[0]!.includes('salvage'), reports[0]!)
  assert.equal(run.catalog.scan('damaged/').length, 1)
})

test('TableHealth: tables are looked through one by one at the rate, each once in a pass, suspects at once', () => {
  const whole = { records: 1, findings: [] }
  const open = ['a', 'b', 'c', 'd']
  const health = new TableHealth(new Map(), 100, new SeededRandom('health'))
  const seen: { table: string; atMs: number }[] = []
  for (let nowMs = 0; nowMs < 200_000; nowMs += 100) {
    const table = health.next(open, nowMs)
    if (table === undefined) continue
    seen.push({ table, atMs: nowMs })
    assert.equal(health.checked(table, 1000, whole, nowMs), undefined)
  }
  assert.deepEqual(seen.map(({ table }) => table).sort(), open)
  for (const [index, { atMs }] of seen.entries()) if (index > 0) assert.ok(atMs >= seen[index - 1]!.atMs + 10_000)
  assert.equal(health.passes, 1)
  health.suspect('c')
  assert.equal(health.next(open, 200_000), 'c')
  health.putOff('c', 200_000)
  assert.equal(health.next(open, 200_000), undefined)
  // One that cannot be read is tried once more.
  health.suspect('b')
  const error = new SunwiseError('DISK_FAILED', 'no')
  assert.equal(health.failed('b', 1000, error, 210_000), undefined)
  assert.equal(health.next(open, 219_999), undefined)
  assert.equal(health.next(open, 220_000), 'b')
  assert.deepEqual(
    health.failed('b', 1000, error, 220_000)?.map(({ detail }) => detail),
    ['no'],
  )
  assert.equal(health.damagedTables, 1)
  health.forget('b')
  assert.equal(health.damagedTables, 0)
  const off = new TableHealth(new Map(), 0, new SeededRandom('off'))
  for (let nowMs = 0; nowMs < 1e9; nowMs += 1e7) assert.equal(off.next(open, nowMs), undefined)
})

test('the row of a damaged table has these bytes, and is refused when it is of another format', () => {
  const edit = damageEdit('0123456789abcdef', [{ firstPartition: 3, endPartition: 4, detail: 'block 7 is damaged' }])
  assert.ok(edit.op === 'put')
  assert.equal(edit.key, 'damaged/0123456789abcdef')
  assert.equal(
    textOf(edit.value),
    '{"format":1,"damage":[{"firstPartition":3,"endPartition":4,"detail":"block 7 is damaged"}]}',
  )
  assert.deepEqual(damageOf(edit.key, edit.value), [
    { firstPartition: 3, endPartition: 4, detail: 'block 7 is damaged' },
  ])
  for (const text of ['', '{}', '{"format":2,"damage":[]}']) {
    assert.throws(() => damageOf(edit.key, bytesOf(text)), { code: 'CATALOG_CORRUPT' })
  }
})
