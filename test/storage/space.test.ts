/**
 * What the disk holds beside live data: a shard with real flushes and merges over a simulated disk, driven by one kind of work at a
 * time, then left alone until nothing is left to merge. Deterministic: the clock is simulated and jobs run when they are asked for.
 *
 * The bound is on files, as the disk counts them, against the records of live keys.
 */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { bucketIdOf } from '../../src/base/ids.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { Limits } from '../../src/config.ts'
import { compact } from '../../src/storage/compaction.ts'
import { flush } from '../../src/storage/flush.ts'
import { bucketOf, ShardRig } from '../shard/shard-rig.ts'
import { SimCatalog } from '../sim/sim-catalog.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { SimJobs } from '../sim/sim-jobs.ts'
import { bytesOf, crc32 } from './store-rig.ts'
import { zstd } from './table-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const KiB = 1024
const valueBytes = 900
/** Of a record beside its value: header, key, vector. */
const recordBytes = valueBytes + 60
/** What tables may take for every byte of live records. */
const spaceMax = 1.3
const segmentBytes = 128 * KiB
const segments = 24
const budgetBytes = 16 * segmentBytes

/** A shard whose memory holds a part of its keys. */
class SpaceRun {
  readonly random = new SeededRandom('space')
  readonly disk = new SimDisk()
  readonly clock = new SimClock()
  readonly catalog = new SimCatalog({ random: new SeededRandom('catalog') })
  readonly jobs: SimJobs
  readonly retiredBuckets = new Set<number>()
  readonly rig: ShardRig
  /** Bytes of the record of each live key. */
  readonly live = new Map<string, number>()
  diskBytesMost = 0
  memoryBytesMost = 0

  constructor() {
    const tools = { crc32, codec: zstd }
    this.jobs = new SimJobs(this.disk, {
      flush: (input: never, world) => flush(input, world, tools),
      compact: (input: never, world) => compact(input, world, tools),
    })
    this.rig = new ShardRig({
      disk: this.disk,
      clock: this.clock,
      durability: 'os',
      preallocate: false,
      segmentBytes,
      segments,
      budgetBytes,
      retiredBuckets: this.retiredBuckets,
      tables: { catalog: this.catalog, jobs: this.jobs, random: this.random.fork('tables') },
    }).open()
  }

  get tableBytes(): number {
    let bytes = 0
    for (const path of this.disk.paths()) if (path.endsWith('.sst')) bytes += this.disk.bytesOf(path).length
    return bytes
  }

  get liveBytes(): number {
    let bytes = 0
    for (const count of this.live.values()) bytes += count
    return bytes
  }

  get figures(): string {
    const { tables } = this.rig.shards[0]!.store
    const flushes = tables!.flushes
    const kinds = `${flushes} flushes of ${mebi(tables!.bytesFlushed)}, ${tables!.compactions} compactions that wrote ${mebi(tables!.bytesCompacted)}`
    return `${kinds}; tables ${mebi(this.tableBytes)} for ${mebi(this.liveBytes)} live, at most ${mebi(this.diskBytesMost)}`
  }

  put(key: string, ttlMs?: number, bucket = bucketOf()): void {
    const value = new Uint8Array(valueBytes)
    this.random.fill(value)
    this.#until(() => this.rig.put(bytesOf(key), value, ttlMs === undefined ? {} : { ttlMs }, bucket))
    this.live.set(key, ttlMs === undefined ? recordBytes : 0)
  }

  delete(key: string): void {
    this.#until(() => this.rig.delete(bytesOf(key)))
    this.live.delete(key)
  }

  /** Does it again while the shard has no room; that ends, since jobs run meanwhile. */
  #until(write: () => { readonly error: { readonly code: string } | undefined }): void {
    for (let round = 0; ; round++) {
      const { error } = write()
      this.work(round === 0 ? 1 : 20)
      if (error === undefined) return
      assert.ok(round < 200 && /^(STORE_FULL|OVERLOADED)$/.test(error.code), `Only ever for a moment: ${error.code}`)
    }
  }

  /** Lets time pass; at most one job for each tick. */
  work(ms: number): void {
    this.clock.advance(ms)
    this.rig.tick()
    if (this.jobs.runNext(this.random)) this.measure()
  }

  measure(): void {
    this.diskBytesMost = Math.max(this.diskBytesMost, this.tableBytes)
    this.memoryBytesMost = Math.max(this.memoryBytesMost, this.rig.shards[0]!.store.tables!.bytesUsed)
  }

  /** Lets the shard merge until it finds nothing to do for a minute. */
  settle(): void {
    for (let quiet = 0, round = 0; quiet < 60; round++) {
      assert.ok(round < 20_000, 'A store at rest comes to rest')
      this.clock.advance(1000)
      this.rig.tick()
      quiet = this.jobs.waitingCount === 0 ? quiet + 1 : 0
      while (this.jobs.runNext(this.random)) this.rig.tick()
    }
  }
}

const mebi = (bytes: number): string => `${(bytes / (KiB * KiB)).toFixed(1)} MiB`

const keyCount = Math.ceil(4000 * Math.min(4, scale))
const keyOf = (index: number): string => `key ${index}`

function spaceTest(name: string, body: (run: SpaceRun, t: TestContext) => void): void {
  test(`Space: ${name}`, (t) => {
    const run = new SpaceRun()
    body(run, t)
    run.settle()
    t.diagnostic(run.figures)
    assert.deepEqual(run.rig.reports, [])
    const { flushes, compactions } = run.rig.shards[0]!.store.tables!
    assert.ok(flushes > 3 && compactions <= 4 * flushes, `A small shard is not merged in crumbs: ${run.figures}`)
  })
}

spaceTest('after overwrites, tables take at most 1.3 times the live data', (run, t) => {
  for (let index = 0; index < keyCount; index++) run.put(keyOf(index))
  run.settle()
  t.diagnostic(`loaded: ${run.figures}`)
  for (let left = 3 * keyCount; left > 0; left--) run.put(keyOf(run.random.below(keyCount)))
  run.settle()
  assert.ok(run.tableBytes <= spaceMax * run.liveBytes, run.figures)
})

spaceTest('after deletions of nine keys in ten, tables take at most 1.3 times the live data', (run) => {
  for (let index = 0; index < keyCount; index++) run.put(keyOf(index))
  for (let index = 0; index < keyCount; index++) if (index % 10 !== 0) run.delete(keyOf(index))
  // Deletions stand in memory until enough else is written.
  for (let index = 0; index < keyCount; index++) run.put(`later ${index}`)
  run.settle()
  assert.ok(run.tableBytes <= spaceMax * run.liveBytes, run.figures)
})

spaceTest('what has expired leaves the disk', (run) => {
  for (let index = 0; index < keyCount; index++) {
    run.put(keyOf(index), index % 4 === 0 ? undefined : 600_000 + 10 * index)
  }
  run.settle()
  run.clock.advance(2_000_000 + Limits.expiryGraceMs)
  run.settle()
  assert.ok(run.tableBytes <= spaceMax * run.liveBytes, run.figures)
})

spaceTest('what was of a deleted bucket leaves the disk, without a write', (run) => {
  const other = bucketOf({ name: 'other', id: bucketIdOf(7) })
  for (let index = 0; index < keyCount; index++) {
    run.put(keyOf(index), undefined, index % 3 === 0 ? bucketOf() : other)
    if (index % 3 !== 0) run.live.delete(keyOf(index))
  }
  run.settle()
  assert.ok(run.tableBytes > 2 * run.liveBytes, run.figures)
  run.retiredBuckets.add(other.id)
  run.settle()
  assert.ok(run.tableBytes <= spaceMax * run.liveBytes, run.figures)
})

spaceTest('filled and emptied ten times, a shard takes no more disk and memory than before', (run, t) => {
  const rounds: { disk: number; memory: number }[] = []
  for (let round = 0; round < 10; round++) {
    run.diskBytesMost = 0
    run.memoryBytesMost = 0
    for (let index = 0; index < keyCount / 2; index++) run.put(`${round} ${index}`)
    for (let index = 0; index < keyCount / 2; index++) run.delete(`${round} ${index}`)
    run.settle()
    rounds.push({ disk: run.diskBytesMost, memory: run.memoryBytesMost })
    const figures = `disk ${mebi(run.diskBytesMost)}, memory ${mebi(run.memoryBytesMost)}`
    t.diagnostic(`round ${round}: ${figures}; left ${mebi(run.tableBytes)}`)
    // Deletions that stand in memory only may still hide what tables have.
    assert.ok(run.tableBytes <= budgetBytes, `Round ${round} leaves ${mebi(run.tableBytes)}`)
  }
  for (const what of ['disk', 'memory'] as const) {
    const bytes = rounds.map((round) => round[what])
    const [first, second] = [Math.max(...bytes.slice(0, 5)), Math.max(...bytes.slice(5))]
    assert.ok(second <= 1.25 * first, `The ${what} grew from ${mebi(first)} to ${mebi(second)}`)
  }
})
