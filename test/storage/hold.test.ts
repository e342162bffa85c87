/**
 * What a hold promises: files copied in any order while the shards go on make an image that recovers, with everything that was
 * acknowledged before the hold, and nothing that a key never was since.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { firstPartitionOfShard } from '../../src/cluster/slots.ts'
import { Limits } from '../../src/config.ts'
import { zstd } from '../../src/host/native-codes.ts'
import type { WriteAnswer } from '../../src/replication/requests.ts'
import { segmentFileName } from '../../src/storage/commit-log.ts'
import { compact } from '../../src/storage/compaction.ts'
import { flush } from '../../src/storage/flush.ts'
import { type HeldShard, heldRows } from '../../src/storage/hold.ts'
import { checkTableFile } from '../../src/storage/table-check.ts'
import { tableFileName } from '../../src/storage/tables.ts'
import { bucketOf, directoryOf, type Result, ShardRig, send } from '../shard/shard-rig.ts'
import { SimCatalog } from '../sim/sim-catalog.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { SimJobs } from '../sim/sim-jobs.ts'
import { bytesOf, crc32, textOf } from './store-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

type Key = {
  readonly name: Uint8Array
  /** What it held after each acknowledged write; '' for deleted. */
  readonly states: string[]
  context: Uint8Array | undefined
  pending: { readonly result: Result<WriteAnswer>; readonly next: string } | undefined
}

type Tally = {
  inRetirement: number
  backups: number
  retirementsHeld: number
  removalsHeld: number
  tables: number
  segments: number
}

class HoldRun {
  readonly random: SeededRandom
  readonly shards: number
  readonly isQueued: boolean
  readonly clock = new SimClock()
  readonly disk: SimDisk
  readonly catalog: SimCatalog
  readonly jobs: SimJobs
  readonly rig: ShardRig
  readonly keys: readonly Key[]
  readonly tally: Tally
  writes = 0

  constructor(seed: number, shards: number, completions: 'immediate' | 'queued', tally: Tally) {
    this.random = new SeededRandom(seed)
    this.shards = shards
    this.isQueued = completions === 'queued'
    this.tally = tally
    this.disk = new SimDisk({ random: this.random.fork('disk'), completions })
    this.catalog = new SimCatalog({ random: this.random.fork('catalog'), completions })
    this.jobs = jobsOn(this.disk)
    this.keys = Array.from({ length: 400 }, (_, index) => ({
      name: bytesOf(`{${index % 29}}key${index}`),
      states: [''],
      context: undefined,
      pending: undefined,
    }))
    this.rig = this.open(this.disk, this.catalog, this.jobs, 1)
  }

  open(disk: SimDisk, catalog: SimCatalog, jobs: SimJobs, actor: number): ShardRig {
    const rig = new ShardRig({
      disk,
      clock: this.clock,
      shards: this.shards,
      segmentBytes: 16384,
      segments: 24,
      budgetBytes: 8 * 16384,
      actor: { low: actor, high: 9 },
      unsyncedNoted: true,
      tables: { catalog, jobs, random: this.random.fork('tables') },
    })
    return rig.open(() => disk.drain(this.random))
  }

  /** Some writes, some turns, some work on tables. */
  live(steps: number): void {
    const { random } = this
    for (let step = 0; step < steps; step++) {
      if (random.chance(2, 3)) this.write()
      if (random.chance(1, 3)) this.rig.turn()
      if (random.chance(1, 20)) this.jobs.runNext(random)
      if (random.chance(1, 20)) {
        this.clock.advance(random.pick([1, 20, 1000]))
        this.rig.tick()
      }
      if (random.chance(1, 4)) this.disk.step(random)
      if (random.chance(1, 4)) this.catalog.step()
      this.rig.deliverReplies()
      this.collect()
    }
    assert.deepEqual([...this.rig.failures, ...this.rig.reports], [])
  }

  write(): void {
    const { random } = this
    const key = random.pick(this.keys)
    if (key.pending !== undefined) return
    const isDelete = key.states.at(-1) !== '' && random.chance(1, 5)
    const next = isDelete ? '' : `${++this.writes}:${'x'.repeat(random.below(500))}`
    const durability = random.pick(['sync', 'os'] as const)
    const options = { durability, timeoutMs: Limits.timeoutMsMax, context: key.context }
    const result = send<WriteAnswer>((done) =>
      isDelete
        ? this.rig.coordinator.delete(bucketOf(), key.name, options, done)
        : this.rig.coordinator.put(bucketOf(), key.name, bytesOf(next), options, done),
    )
    key.pending = { result, next }
    this.collect()
  }

  collect(): void {
    for (const key of this.keys) {
      if (key.pending === undefined || key.pending.result.calls === 0) continue
      const { result, next } = key.pending
      key.pending = undefined
      if (result.error !== undefined) {
        assert.equal(result.error.outcome, 'none', result.error.message)
        continue
      }
      key.states.push(next)
      key.context = result.answer!.context
    }
  }

  holdAll(): HeldShard[] {
    const answers = this.rig.shards.map(({ store }) => {
      const answer: { held: HeldShard | undefined } = { held: undefined }
      store.hold((error, held) => {
        assert.equal(error, undefined)
        answer.held = held
      })
      return answer
    })
    for (let round = 0; answers.some(({ held }) => held === undefined); round++) {
      assert.ok(round < 3000, 'A hold comes to stand')
      this.live(1)
      this.clock.advance(20)
      this.rig.tick()
    }
    return answers.map(({ held }) => held!)
  }

  /** As a node does it: once more when all hold. */
  holdTwice(): readonly HeldShard[] {
    this.holdAll()
    return this.holdAll()
  }

  /** A hold that stands while a segment is on its way out, if that can be had. */
  holdInRetirement(): readonly HeldShard[] {
    const isRetiring = (): boolean => this.rig.shards.some(({ store }) => store.isRetiring)
    for (let tries = 0; ; tries++) {
      for (let step = 0; step < 1000 && !isRetiring(); step++) this.live(1)
      const held = this.holdTwice()
      if (isRetiring()) this.tally.inRetirement++
      if (isRetiring() || tries === 20) return held
      for (const { store } of this.rig.shards) store.release()
    }
  }

  /** A backup, bit by bit, while the shards go on; then a node over what was copied. */
  backup(): void {
    const { random, tally, disk } = this
    const before = this.keys.map(({ states }) => states.length - 1)
    const held = this.isQueued && random.chance(1, 2) ? this.holdInRetirement() : this.holdTwice()
    const image = new SimDisk({ random: this.random.fork('image') })
    image.makeDirectoryNow('tables')
    for (const [shard, { segments }] of held.entries()) {
      image.makeDirectoryNow(directoryOf(shard))
      for (const { segment, bytes, head } of segments) {
        this.live(random.below(random.pick([20, 100])))
        const path = `${directoryOf(shard)}/${segmentFileName(segment)}`
        put(image, path, head ?? disk.bytesOf(path).subarray(0, bytes))
        if (head === undefined) tally.segments++
      }
    }
    if (this.rig.shards.some(({ store }) => store.isRetirementHeld)) tally.retirementsHeld++
    for (const { store } of this.rig.shards) store.releaseLog()
    const ids = [...new Set(held.flatMap(({ facts }) => facts.map(({ tableId }) => tableId)))]
    this.live(300)
    for (const tableId of random.shuffle(ids)) {
      this.live(random.below(60))
      const path = `tables/${tableFileName(tableId)}`
      put(image, path, disk.bytesOf(path))
      tally.tables++
    }
    if (this.rig.shards.some(({ store }) => store.tables!.removalsHeld > 0)) tally.removalsHeld++
    for (const { store } of this.rig.shards) store.release()
    this.live(20)
    image.syncDirectoryNow('tables')
    const catalog = new SimCatalog({ random: this.random.fork('copied') })
    for (const [shard, each] of held.entries()) {
      const range = {
        firstPartition: firstPartitionOfShard(shard, this.shards),
        endPartition: firstPartitionOfShard(shard + 1, this.shards),
      }
      const edits = heldRows(each, shard, range).map(([key, value]) => ({ op: 'put', key, value }) as const)
      catalog.commit(edits, (error) => assert.equal(error, undefined))
    }
    this.compare(this.open(image, catalog, jobsOn(image), 2), before)
    tally.backups++
  }

  compare(restored: ShardRig, before: readonly number[]): void {
    for (const [index, { name, states, pending }] of this.keys.entries()) {
      const seen = restored.get(name).values.map(({ value }) => textOf(value))
      // A write that is under way may have reached the log.
      const allowed = [...states.slice(before[index]), ...(pending === undefined ? [] : [pending.next])]
      assert.ok(seen.length <= 1, `${textOf(name)} has no siblings`)
      const short = (text: string): string => text.slice(0, 12)
      assert.ok(
        allowed.includes(seen[0] ?? ''),
        `${textOf(name)} holds "${short(seen[0] ?? '')}", not one of ${allowed.map(short)}`,
      )
    }
    restored.close()
  }

  run(): void {
    this.live(2500)
    for (let backups = 0; backups < 4; backups++) {
      this.live(this.random.below(1200))
      this.backup()
    }
  }
}

function jobsOn(disk: SimDisk): SimJobs {
  const tools = { crc32, codec: zstd }
  return new SimJobs(disk, {
    flush: (input: never, world) => flush(input, world, tools),
    compact: (input: never, world) => compact(input, world, tools),
    check: (input: never, world) => checkTableFile(input, world, tools),
  })
}

function put(disk: SimDisk, path: string, bytes: Uint8Array): void {
  const file = disk.createNow(path)
  file.writeNow(bytes, 0, bytes.length, 0)
  file.syncNow()
  file.close()
}

for (const [shards, completions] of [
  [1, 'immediate'],
  [2, 'queued'],
] as const) {
  test(`Store.hold(): what is copied while ${shards} shards go on recovers as they were (${completions} disk)`, (t) => {
    const tally: Tally = { inRetirement: 0, backups: 0, retirementsHeld: 0, removalsHeld: 0, tables: 0, segments: 0 }
    fc.assert(
      fc.property(fc.integer(), (seed) => new HoldRun(seed, shards, completions, tally).run()),
      { numRuns: Math.ceil(4 * scale), endOnFailure: true },
    )
    t.diagnostic(JSON.stringify(tally))
    for (const [what, count] of Object.entries(tally)) {
      // Where operations end at once, none is ever under way.
      if (what === 'inRetirement') assert.equal(count > 0, completions === 'queued', `${count} in a retirement`)
      else assert.ok(count > 0, `Some ${what}`)
    }
  })
}

test('Store.hold(): a shard that has not recovered holds nothing, and lets go of nothing', () => {
  const rig = new ShardRig({ disk: new SimDisk(), clock: new SimClock() })
  const { store } = rig.shards[0]!
  let answered = 0
  store.hold((error, held) => {
    answered++
    assert.equal(error?.code, 'NOT_READY')
    assert.equal(held, undefined)
  })
  store.releaseLog()
  store.release()
  assert.equal(answered, 1)
  rig.open()
  rig.close()
})
