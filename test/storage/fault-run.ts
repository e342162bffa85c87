/**
 * A small workload on a node over a simulated disk that fails, and a model that knows for each key what it may hold then.
 * Puts and deletes in groups, recycling all the time, a clean stop, a killed process, and after every failure of a shard a new
 * one over the same files. For sweeps that let each call of the disk fail once.
 *
 * The model: the writes of a key in their order, each sent, acknowledged, unknown, or refused (and then it never shows). A start
 * after a stop or a kill shows the last one acknowledged or something later that may have happened; one after a power cut
 * anything from the last one that was acknowledged or read as durable.
 */
import assert from 'node:assert/strict'
import type { ErrorCode, SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { type Durability, Limits } from '../../src/config.ts'
import type { ReadAnswer, WriteAnswer, WriteOptions } from '../../src/replication/requests.ts'
import { bucketOf, type Result, ShardRig, send } from '../shard/shard-rig.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { type DiskCallKind, SimCrash, SimDisk } from '../sim/sim-disk.ts'
import { bytesOf, textOf } from './store-rig.ts'

/** One write of a key. `text` undefined: a delete. */
type Write = {
  readonly number: number
  readonly text: string | undefined
  status: 'sent' | 'acknowledged' | 'unknown' | 'refused'
}

class KeyModel {
  /** The first one is the state from which the present run started. */
  writes: Write[] = [{ number: 0, text: undefined, status: 'acknowledged' }]
  /** Number of the write that no power cut may take back. */
  durable = 0

  get present(): Write {
    return this.writes.findLast(({ status }) => status === 'acknowledged')!
  }

  /** What a new start may show. */
  allowedAfter(end: End): readonly Write[] {
    const first = end === 'power' ? this.durable : this.present.number
    return this.writes.filter(({ number, status }) => number >= first && status !== 'refused')
  }
}

type End = 'stop' | 'kill' | 'power'
type Sent = { readonly key: string; readonly write: Write; readonly result: Result<WriteAnswer> }

export type FaultRunOptions = {
  readonly seed: number | string
  readonly durabilities: readonly Durability[]
  readonly completions: 'immediate' | 'queued'
  readonly preallocate: boolean
  /** Codes that requests and starts may fail with. */
  readonly codes: readonly ErrorCode[]
  /** Whether a failing shard loses what readers could still see of pages that a sync failed on. */
  readonly dropsCaches?: boolean
  /** Number of the sync that is going to fail: no file is used again behind it. */
  readonly failingSync?: number
  /** The power is cut in the middle of this change of the disk. */
  readonly crashAtChange?: number
}

/** Turns of the three parts of the workload: before a clean stop, before a kill, and after it. */
const turns = [36, 24, 16] as const
const keyCount = 12

/** One run of the workload. */
export class FaultRun {
  readonly options: FaultRunOptions
  readonly disk: SimDisk
  readonly clock = new SimClock()
  readonly #random: SeededRandom
  readonly #keys = new Map<string, KeyModel>()
  #rig: ShardRig | undefined
  #actor = 1
  #writes = 0
  #sent: Sent[] = []
  #syncs = 0
  #failedPath: string | undefined
  readonly tally = { acknowledged: 0, refused: 0, unknown: 0, shardsFailed: 0, startsFailed: 0, recycled: 0, starts: 0 }

  constructor(options: FaultRunOptions) {
    this.options = options
    this.#random = new SeededRandom(options.seed)
    this.disk = new SimDisk({
      random: this.#random.fork('disk'),
      completions: options.completions,
      onCall: (kind, path) => this.#watch(kind, path),
    })
    for (let index = 0; index < keyCount; index++) this.#keys.set(`{${'ab'[index % 2]}}${index}`, new KeyModel())
    this.#planCrash()
  }

  get rig(): ShardRig {
    assert.ok(this.#rig !== undefined, 'The node has started')
    return this.#rig
  }

  /** The whole workload. Throws SimCrash where a power cut was planned: then comes `powerCut`. */
  run(): void {
    this.#start('kill')
    this.work(turns[0])
    this.stop()
    this.work(turns[1])
    this.kill()
    this.work(turns[2])
  }

  /** Cuts the power and starts again: everything that must be there is. */
  powerCut(): void {
    this.#countRecycled()
    this.disk.crash(this.#random)
    // Writes below `sync` may be gone, and their names must not be used again.
    if (this.options.durabilities.some((durability) => durability !== 'sync')) this.#actor++
    this.#start('power')
  }

  /** The disk is whole again: every key can be written, and all stands through a stop. */
  goOn(): void {
    this.disk.heal()
    // An attempt that had begun before may still fail.
    for (let attempt = 0; attempt < 2; attempt++) {
      this.disk.drain(this.#random)
      this.clock.advance(200)
      this.tick()
    }
    this.work(4)
    const rig = this.rig
    for (const key of this.#keys.keys()) {
      const write = this.#next(key, 'x'.repeat(this.#random.below(100)))
      const result = send<WriteAnswer>((done) =>
        rig.coordinator.put(bucketOf(), bytesOf(key), bytesOf(write.text!), { durability: 'sync' }, done),
      )
      this.#sent.push({ key, write, result })
      this.#settle()
      assert.equal(write.status, 'acknowledged', `A whole disk takes every write: ${result.error?.message}`)
    }
    this.stop()
  }

  work(count: number): void {
    for (let turn = 0; turn < count; turn++) this.#turn()
  }

  tick(): void {
    this.clock.advance(20)
    this.rig.tick()
    this.#collect()
  }

  /** Stops in good order, if the disk lets it, and starts again. */
  stop(): void {
    const rig = this.rig
    for (let round = 0; !rig.shards.every((shard) => shard.isIdle) && rig.failures.length === 0; round++) {
      assert.ok(round < 3000, 'A shard comes to rest')
      this.#carry()
    }
    if (rig.failures.length > 0) return this.#restart()
    let outcome: { error: SunwiseError | undefined } | undefined
    rig.shards[0]!.store.close((error) => {
      outcome = { error }
    })
    this.disk.drain(this.#random)
    assert.ok(outcome !== undefined, 'The store has closed')
    this.#countRecycled()
    if (outcome.error !== undefined) {
      this.#expectCode(outcome.error)
      this.tally.shardsFailed++
      return this.#startAnew()
    }
    for (const model of this.#keys.values()) model.durable = model.present.number
    this.disk.kill(this.#random)
    this.#start('stop')
  }

  kill(): void {
    this.#countRecycled()
    this.#startAnew()
  }

  /** Numbers and values of all keys, read now. */
  readAll(): void {
    for (const [key, model] of this.#keys) {
      const { number, text } = this.#seen(key, [model.present])
      assert.equal(number, model.present.number)
      assert.equal(text, model.present.text)
    }
  }

  #watch(kind: DiskCallKind, path: string): void {
    if (this.#failedPath === path) {
      assert.ok(kind !== 'sync' && kind !== 'write', `"${path}" is not used again after its sync failed: ${kind}`)
    }
    if (kind === 'sync' && ++this.#syncs === this.options.failingSync) this.#failedPath = path
  }

  /** A kill forgets the plan of the disk. */
  #planCrash(): void {
    const left = (this.options.crashAtChange ?? 0) - this.disk.changesTotal
    if (left > 0) this.disk.crashAtChange(left)
  }

  #startAnew(): void {
    this.disk.kill(this.#random)
    this.#actor++
    this.#start('kill')
  }

  #start(end: End): void {
    this.#failedPath = undefined
    this.#planCrash()
    for (let attempt = 0; ; attempt++) {
      assert.ok(attempt < 20, 'A node starts in the end')
      const rig = new ShardRig({
        disk: this.disk,
        clock: this.clock,
        preallocate: this.options.preallocate,
        segmentBytes: 8192,
        segments: 20,
        budgetBytes: 8 * 8192,
        actor: { low: this.#actor, high: 7 },
        unsyncedNoted: this.options.durabilities.some((durability) => durability !== 'sync'),
      })
      this.#rig = rig
      try {
        rig.open(() => this.disk.drain(this.#random))
        break
      } catch (error) {
        // A crash passes through; a start that fails has a code, and the next one is as good.
        this.#expectCode(error)
        this.tally.startsFailed++
        this.disk.kill(this.#random)
        this.#planCrash()
        this.#failedPath = undefined
        this.#actor++
        if (attempt > 2) this.disk.heal()
      }
    }
    this.tally.starts++
    this.#sent = []
    for (const [key, model] of this.#keys) {
      const seen = this.#seen(key, model.allowedAfter(end), `After ${end}`)
      model.writes = [{ ...seen, status: 'acknowledged' }]
      model.durable = seen.number
    }
  }

  /** The one of some writes whose result a key shows now. */
  #seen(key: string, allowed: readonly Write[], when = 'Now'): Write {
    const result = send<ReadAnswer>((done) => this.rig.coordinator.get(bucketOf(), bytesOf(key), {}, done))
    assert.equal(result.calls, 1, 'A read of memory is answered at once')
    if (result.error !== undefined) throw result.error
    const { values, receipt } = result.answer!
    assert.ok(values.length <= 1, 'Blind writes make no siblings')
    const text = values[0] === undefined ? undefined : textOf(values[0].value)
    const seen = allowed.findLast((write) => write.text === text)
    const names = allowed.map((write) => `${write.number}:${write.text?.slice(0, 10)}`)
    assert.ok(seen !== undefined, `${when}, ${key} holds ${text?.slice(0, 10)}, which is none of ${names}`)
    const model = this.#keys.get(key)!
    // Reads that say so are promises, too. Of equal states the oldest is promised.
    const promised = allowed.find((write) => write.text === text)!
    if (receipt.durable) model.durable = Math.max(model.durable, promised.number)
    return seen
  }

  #next(key: string, filling: string | undefined): Write {
    const number = ++this.#writes
    const text = filling === undefined ? undefined : `${number} ${filling}`
    const write: Write = { number, text, status: 'sent' }
    this.#keys.get(key)!.writes.push(write)
    return write
  }

  #turn(): void {
    const random = this.#random
    for (let left = random.between(1, 4); left > 0; left--) this.#send()
    if (random.chance(1, 2)) this.#readOne()
    this.#settle()
    this.#readOne()
    this.tick()
    this.#settle()
    if (this.rig.failures.length > 0) this.#restart()
  }

  #send(): void {
    const random = this.#random
    const key = random.pick([...this.#keys.keys()])
    const isDelete = random.chance(1, 5)
    const length = random.chance(1, 4) ? random.between(400, 900) : random.below(300)
    // Zeros look like a file that was never written to.
    const write = this.#next(key, isDelete ? undefined : (random.chance(1, 4) ? '\0' : 'v').repeat(length))
    const options: WriteOptions = { durability: random.pick(this.options.durabilities), timeoutMs: Limits.timeoutMsMax }
    const { coordinator } = this.rig
    const result = send<WriteAnswer>((done) =>
      isDelete
        ? coordinator.delete(bucketOf(), bytesOf(key), options, done)
        : coordinator.put(bucketOf(), bytesOf(key), bytesOf(write.text!), options, done),
    )
    this.#sent.push({ key, write, result })
  }

  #readOne(): void {
    const key = this.#random.pick([...this.#keys.keys()])
    const model = this.#keys.get(key)!
    const { present } = model
    const candidates = model.writes.filter(
      ({ number, status }) => number >= present.number && (number === present.number || status === 'sent'),
    )
    this.#seen(key, candidates)
  }

  /** One turn of the shard, and of the disk where its operations wait for one. */
  #carry(): void {
    this.rig.turn()
    if (this.options.completions === 'queued') {
      for (let left = this.#random.below(4); left > 0 && this.disk.step(this.#random); left--);
      this.rig.deliverReplies()
    }
    this.#collect()
  }

  #settle(): void {
    for (let round = 0; this.rig.coordinator.pendingCount > 0; round++) {
      assert.ok(round < 3000, 'Every request is answered in the end')
      this.#carry()
      if (round % 8 === 7) this.tick()
    }
    this.#collect()
  }

  #collect(): void {
    // A process that is dead answers nobody, whatever its objects say.
    if (this.disk.hasCrashed) throw new SimCrash('The power is cut')
    this.#sent = this.#sent.filter((sent) => {
      if (sent.result.calls === 0) return true
      this.#judge(sent)
      return false
    })
  }

  #judge({ key, write, result }: Sent): void {
    const { error, answer } = result
    if (error === undefined) {
      write.status = 'acknowledged'
      this.tally.acknowledged++
      const model = this.#keys.get(key)!
      if (answer!.receipt.durable) model.durable = Math.max(model.durable, write.number)
      if (this.options.durabilities.every((durability) => durability === 'sync')) {
        assert.ok(answer!.receipt.durable, 'A write in sync mode is acknowledged when it is on stable storage')
      }
      return
    }
    this.#expectCode(error)
    assert.notEqual(error.outcome, 'partial')
    write.status = error.outcome === 'none' ? 'refused' : 'unknown'
    this.tally[write.status]++
  }

  #expectCode(error: unknown): void {
    const { code } = error as { code?: ErrorCode }
    if (code === undefined || !(this.options.codes satisfies readonly ErrorCode[]).includes(code)) throw error
  }

  /** The shard has failed for good: it refuses what comes, and serves what it has, until a new one takes its place. */
  #restart(): void {
    this.tally.shardsFailed++
    this.#send()
    this.#settle()
    assert.notEqual(
      this.#keys.values().find(({ writes }) => writes.at(-1)!.number === this.#writes),
      undefined,
    )
    this.readAll()
    this.#countRecycled()
    if (this.options.dropsCaches === true) this.disk.dropCaches()
    this.#startAnew()
  }

  #countRecycled(): void {
    for (const shard of this.#rig?.shards ?? []) this.tally.recycled += shard.store.recycledSegments
  }
}
