/**
 * A node on a disk of a certain size, as a host runs it: shards with tables, jobs, and the keeper of the reserve. Every write is
 * durable once acknowledged, so a model of it is one map, and for a write that a crash cut off, two answers.
 */
import assert from 'node:assert/strict'
import type { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { zstd } from '../../src/host/native-codes.ts'
import type { WriteAnswer } from '../../src/replication/requests.ts'
import { compact } from '../../src/storage/compaction.ts'
import { DiskKeeper, writeDiskState } from '../../src/storage/disk-keeper.ts'
import { flush } from '../../src/storage/flush.ts'
import { ControlWord } from '../../src/storage/shard-memory.ts'
import { bucketOf, ShardRig, send } from '../shard/shard-rig.ts'
import { SimCatalog } from '../sim/sim-catalog.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimCrash, SimDisk } from '../sim/sim-disk.ts'
import { SimJobs } from '../sim/sim-jobs.ts'
import { bytesOf, crc32, textOf } from './store-rig.ts'

const KiB = 1024
const segmentBytes = 16 * KiB
const tickMs = 20
const lookEveryMs = 500

export type DiskFullOptions = {
  readonly seed: number
  readonly capacityBytes?: number
  readonly reserveBytes?: number
  readonly shards?: number
  readonly budgetBytes?: number
}

type WriteDone = (error: SunwiseError | undefined, answer: WriteAnswer | undefined) => void

class KeptJobs extends SimJobs {
  onFull: () => void = () => {}
  onDone: () => void = () => {}

  override run(kind: string, input: unknown, done: (error: SunwiseError | undefined, output: unknown) => void): void {
    super.run(kind, input, (error, output) => {
      if (error?.code === 'DISK_FULL') this.onFull()
      else this.onDone()
      done(error, output)
    })
  }
}

export class DiskFullRig {
  readonly options: DiskFullOptions
  readonly random: SeededRandom
  readonly disk: SimDisk
  readonly clock = new SimClock()
  readonly catalog: SimCatalog
  readonly held = new Map<string, string>()
  rig!: ShardRig
  keeper!: DiskKeeper
  #jobs!: KeptJobs
  #lookAtMs = 0
  #met: number[] = []
  /** Writes that were refused with DISK_FULL. */
  refused = 0
  /** Jobs that failed with it. */
  failedJobs = 0
  crashes = 0

  constructor(options: DiskFullOptions) {
    this.options = options
    this.random = new SeededRandom(options.seed)
    this.disk = new SimDisk({
      random: this.random.fork('disk'),
      capacityBytes: options.capacityBytes ?? 2048 * KiB,
    })
    this.catalog = new SimCatalog({ random: this.random.fork('catalog') })
    this.open()
  }

  open(): void {
    const tools = { crc32, codec: zstd }
    const jobs = new KeptJobs(this.disk, {
      flush: (input: never, world) => flush(input, world, tools),
      compact: (input: never, world) => compact(input, world, tools),
    })
    const rig = new ShardRig({
      disk: this.disk,
      clock: this.clock,
      shards: this.options.shards ?? 1,
      segmentBytes,
      segments: 24,
      budgetBytes: this.options.budgetBytes ?? 8 * segmentBytes,
      tables: { catalog: this.catalog, jobs, random: this.random.fork('tables') },
    })
    this.#jobs = jobs
    this.rig = rig
    this.#met = rig.shards.map(() => 0)
    const keeper = new DiskKeeper(
      {
        disk: this.disk,
        reserveBytes: this.options.reserveBytes ?? 128 * KiB,
        changed: (changed) => {
          for (const { control } of rig.memories) writeDiskState(new Int32Array(control), changed)
        },
        report: (error) => {
          if (!(error instanceof SimCrash)) assert.fail(error)
        },
      },
      this.clock.monotonicMs(),
    )
    this.keeper = keeper
    jobs.onFull = () => {
      this.failedJobs++
      keeper.met(this.clock.monotonicMs())
    }
    jobs.onDone = () => {
      keeper.tick(this.clock.monotonicMs())
    }
    this.#lookAtMs = this.clock.monotonicMs()
    rig.open()
  }

  /** Bytes of the disk that nothing takes. */
  get freeBytes(): number {
    return this.disk.capacityBytes - this.disk.usedBytes
  }

  get bytesOfTables(): number {
    return this.rig.shards.reduce((sum, { store }) => sum + store.tables!.fileBytes, 0)
  }

  /** Time passes: ticks, jobs, and a look at the disk twice a second. */
  pass(durationMs: number): void {
    for (let passedMs = 0; passedMs < durationMs; passedMs += tickMs) {
      this.clock.advance(tickMs)
      this.rig.tick()
      while (this.#jobs.runNext(this.random)) this.rig.tick()
      if (this.clock.monotonicMs() < this.#lookAtMs) continue
      this.#lookAtMs = this.clock.monotonicMs() + lookEveryMs
      this.#look()
    }
  }

  #look(): void {
    let hasMet = false
    for (const [index, { control }] of this.rig.memories.entries()) {
      const met = new Int32Array(control)[ControlWord.diskFullMet]!
      if (met !== this.#met[index]) hasMet = true
      this.#met[index] = met
    }
    if (hasMet) this.keeper.met(this.clock.monotonicMs())
    else this.keeper.tick(this.clock.monotonicMs())
  }

  /** Writes, as often as a client does that is told to come back; the code of a refusal that stands. */
  put(key: string, value: string): string | undefined {
    return this.#write(key, value, (done) =>
      this.rig.coordinator.put(bucketOf(), bytesOf(key), bytesOf(value), {}, done),
    )
  }

  delete(key: string): string | undefined {
    return this.#write(key, undefined, (done) => this.rig.coordinator.delete(bucketOf(), bytesOf(key), {}, done))
  }

  #write(key: string, value: string | undefined, start: (done: WriteDone) => void): string | undefined {
    for (let tries = 0; ; tries++) {
      const error = this.#attempt(key, value, start)
      if (error?.code === 'OVERLOADED' && tries < 100) {
        this.pass(100)
        continue
      }
      if (error === undefined) return undefined
      assert.equal(error.outcome, 'none', error.message)
      if (error.code === 'DISK_FULL') this.refused++
      return error.code
    }
  }

  #attempt(key: string, value: string | undefined, start: (done: WriteDone) => void): SunwiseError | undefined {
    try {
      const result = send(start)
      // Jobs go on meanwhile, for what waits for them.
      for (let rounds = 0; result.calls === 0; rounds++) {
        assert.ok(rounds < 2000, 'Every request is answered in the end')
        this.rig.turn()
        if (rounds % 4 === 3) this.pass(tickMs)
      }
      // What was acknowledged before the crash counts.
      if (result.error !== undefined && this.disk.hasCrashed) throw new SimCrash('The disk has crashed meanwhile')
      if (result.error === undefined) this.#note(key, value)
      return result.error
    } catch (error) {
      if (!(error instanceof SimCrash)) throw error
      this.crash()
      // It was done or not: who comes back looks.
      const now = this.read(key)
      assert.ok(now === value || now === this.held.get(key), `${key} is what it was or what was written`)
      this.#note(key, now)
      return undefined
    }
  }

  #note(key: string, value: string | undefined): void {
    if (value === undefined) this.held.delete(key)
    else this.held.set(key, value)
  }

  read(key: string): string | undefined {
    const value = this.rig.get(bytesOf(key)).values[0]?.value
    return value === undefined ? undefined : textOf(value)
  }

  /** Everything acknowledged is there, and nothing else. */
  verify(keys: Iterable<string>): void {
    for (const key of keys) assert.equal(this.read(key), this.held.get(key), `${key} (seed ${this.options.seed})`)
  }

  /** Runs `work`; a crash that was planned ends it, and the node starts again. */
  surviving(work: () => void): void {
    try {
      work()
      if (this.disk.hasCrashed) this.crash()
    } catch (error) {
      if (!(error instanceof SimCrash)) throw error
      this.crash()
    }
  }

  crash(): void {
    this.crashes++
    this.disk.crash(this.random)
    this.catalog.crash(this.random)
    this.open()
  }
}
