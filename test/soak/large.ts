/**
 * `npm run soak:large -- [--records N] [--memory MIB] [--seed S]`: far more records than memory in one store of this process, and what a
 * user would ask of it.
 *
 *   load      records of 16 + 100 bytes in batches
 *   settle    until merges have nothing left to do
 *   reads     of random keys that are there, and of keys that are not: each value is compared, and reads of files are counted, those of this
 *             thread and those that the pool did for it
 *   backup    while a writer overwrites the keys in their order
 *   restart   open again
 *   compare   every key of the store, and of the restored backup: what was overwritten before the backup began is in it, what was
 *             overwritten after it ended is not
 *
 * One line of facts goes to evidence/runs.jsonl. Exit code 1, and the directory is kept, if anything was wrong; 2 for bad arguments.
 */
import { execFileSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { onShardMemories } from '../../native-free-bench/shard-facts.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { residentBytesMax } from '../../src/config.ts'
import type { BatchOperation, Store } from '../../src/index.ts'
import { ControlWord, type ShardMemory } from '../../src/storage/shard-memory.ts'
import { sourceUnderTest } from '../source-under-test.ts'

const MiB = 1024 * 1024
const valueBytes = 100
const batchOperations = 1000
const batchesUnderWay = 4
/** Batches that are overwritten before a backup begins, and after it ended. */
const leadBatches = 100
const wrongMax = 20
const project = join(import.meta.dirname, '..', '..')

// What users install: built, since threads that run TypeScript take some ten megabytes each for it.
execFileSync(process.execPath, [join(project, 'scripts', 'build.ts')], { stdio: 'inherit' })
const built = (name: string): string => join(project, 'dist', name)
const { open } = (await import(built('index.js'))) as typeof import('../../src/index.ts')
const { restoreBackup } = (await import(built('host/backup.js'))) as typeof import('../../src/host/backup.ts')

type Plan = { readonly records: number; readonly memoryBytes: number; readonly seed: number }

const keyOf = (index: number): string => `key ${String(index).padStart(12, '0')}`

/** Writes the value of a write of a key into `into`: nothing of it is kept, and no two are alike. */
function fillValue(into: Uint8Array, index: number, write: number): void {
  let state = (Math.imul(index + 1, 0x9e37_79b1) ^ Math.imul(write + 1, 0x85eb_ca6b)) >>> 0
  for (let at = 0; at < into.length; at++) {
    state = (Math.imul(state, 0x0001_9660d) + 0x3c6e_f35f) >>> 0
    into[at] = state >>> 24
  }
  new DataView(into.buffer, into.byteOffset).setUint32(0, index)
  new DataView(into.buffer, into.byteOffset).setUint32(4, write)
}

/** Merges have nothing left to do when they have written nothing for so long; looked at for so long at most. */
const quietMs = 2000
const settleMsMax = 600_000
let memories: readonly ShardMemory[] = []
/** A counter of all shards of the store that is open. */
const total = (word: number): number =>
  memories.reduce((sum, { control }) => sum + (Atomics.load(new Int32Array(control), word) >>> 0), 0)
/** System calls of this thread that read, and blocks that the pool read for it. */
const readCalls = (): number =>
  Number(/syscr: (\d+)/.exec(readFileSync('/proc/thread-self/io', 'utf8'))![1]) + total(ControlWord.tableLoads)
/** Bytes that the device gave to this process, for whatever. */
const deviceBytes = (): number => Number(/^read_bytes: (\d+)/m.exec(readFileSync('/proc/self/io', 'utf8'))![1])
const memoryBytesMost = (): number =>
  Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024
const bytesIn = (directory: string): number =>
  (readdirSync(directory, { recursive: true }) as string[]).reduce(
    (sum, name) => sum + (statSync(join(directory, name), { throwIfNoEntry: false })?.size ?? 0),
    0,
  )

class LargeStore {
  readonly directory = mkdtempSync(join(tmpdir(), 'sunwise-large-'))
  readonly wrong: string[] = []
  readonly facts: Record<string, number> = {}
  readonly #plan: Plan
  readonly #random: SeededRandom
  readonly #started = performance.now()
  readonly #seen = new Uint8Array(valueBytes)
  readonly #wanted = new Uint8Array(valueBytes)
  /** Keys from 0 on that were overwritten, as far as that was acknowledged, and as far as it was begun. */
  #acknowledged = 0
  #begun = 0

  constructor(plan: Plan) {
    this.#plan = plan
    this.#random = new SeededRandom(plan.seed)
  }

  get seconds(): number {
    return Math.round((performance.now() - this.#started) / 1000)
  }

  say(text: string): void {
    process.stdout.write(`${String(this.seconds).padStart(6)} s  ${text}\n`)
  }

  async run(): Promise<void> {
    const { records } = this.#plan
    const backups = join(this.directory, 'backups')
    {
      await using store = await this.#open('data')
      await this.#timed('load', records, () => this.#write(store, 0, records, 0))
      this.facts['settleSeconds'] = await this.#settle()
      this.facts['diskBytes'] = bytesIn(join(this.directory, 'data'))
      await this.#timed('reads', 1_000_000, () => this.#read(store, 1_000_000, true))
      await this.#timed('absent', 1_000_000, () => this.#read(store, 1_000_000, false))
      this.#judgeMemory()
      this.facts['servingBytesMost'] = this.facts['storeBytesMost']!
      await this.#backUp(store, backups)
      this.facts['memoryBytesMost'] = memoryBytesMost()
    }
    const begun = performance.now()
    {
      await using store = await this.#open('data')
      this.facts['restartMs'] = Math.round(performance.now() - begun)
      this.say(`open again after ${this.facts['restartMs']} ms, ${store.recoveredRecords} records of the log`)
      await this.#timed('compare', records, () => this.#compare(store, this.#acknowledged, this.#begun))
    }
    await this.#timed('restore', records, async () => {
      await restoreBackup(backups, this.facts['backupNumber']!, join(this.directory, 'restored'), () => {})
    })
    await using restored = await this.#open('restored')
    await this.#timed('compareRestored', records, () =>
      this.#compare(restored, this.facts['acknowledgedBefore']!, this.facts['begunAfter']!),
    )
  }

  /** Waits for merges to end; how many seconds that took. */
  async #settle(): Promise<number> {
    const begun = performance.now()
    const written = (): number => total(ControlWord.flushedKiB) + total(ControlWord.compactedKiB)
    for (let before = -1; written() !== before; ) {
      before = written()
      if (performance.now() - begun > settleMsMax) this.#note(`Merges do not end within ${settleMsMax / 1000} s`)
      if (this.wrong.length > 0) break
      await delay(quietMs)
    }
    return Math.round((performance.now() - begun) / 1000)
  }

  #open(name: string): Promise<Store> {
    return open({
      dir: join(this.directory, name),
      memoryBytes: this.#plan.memoryBytes,
      durability: 'os',
      log: (line) => this.say(line),
    })
  }

  /**
   * Notes the most that the process had in memory beside the heap of this thread, which is the application's. Not once the store was closed:
   * what one leaves is freed while the next is open.
   */
  watchMemory(): void {
    if (this.facts['memoryBytesMost'] !== undefined) return
    const { rss, heapTotal } = process.memoryUsage()
    this.facts['storeBytesMost'] = Math.max(this.facts['storeBytesMost'] ?? 0, rss - heapTotal)
  }

  /** What a node may have in memory at most: a tenth beyond its budget, and what threads and the engine take themselves. */
  #judgeMemory(): void {
    const bound = residentBytesMax(this.#plan.memoryBytes)
    const most = this.facts['storeBytesMost']!
    if (most <= bound) return
    this.#note(`It had ${Math.round(most / MiB)} MiB in memory, and may have ${Math.round(bound / MiB)}`)
  }

  /** Runs a phase, and notes how many operations it did in a second. */
  async #timed(phase: string, operations: number, work: () => Promise<void> | void): Promise<void> {
    const begun = performance.now()
    const callsBefore = readCalls()
    const loadsBefore = total(ControlWord.tableLoads)
    const deviceBefore = deviceBytes()
    await work()
    this.watchMemory()
    const seconds = (performance.now() - begun) / 1000
    this.facts[`${phase}PerSecond`] = Math.round(operations / seconds)
    const calls = ((readCalls() - callsBefore) / operations).toFixed(3)
    const memory = Math.round(memoryBytesMost() / MiB)
    const own = Math.round(this.facts['storeBytesMost']! / MiB)
    const loads = total(ControlWord.tableLoads) - loadsBefore
    const deviceMiB = Math.round((deviceBytes() - deviceBefore) / MiB)
    this.say(
      `${phase}: ${operations} in ${seconds.toFixed(1)} s, ${calls} read calls each, ${loads} of them by the pool, ${deviceMiB} MiB from the device; at most ${memory} MiB resident, ${own} without this thread's heap; ${this.wrong.length} wrong`,
    )
    if (phase === 'reads' || phase === 'absent') this.facts[`${phase}Calls`] = Number(calls)
  }

  #note(problem: string): void {
    if (this.wrong.length < wrongMax) this.say(`WRONG: ${problem}`)
    this.wrong.push(problem)
  }

  /** Writes the keys from `first` to below `end`, in that order. */
  async #write(store: Store, first: number, end: number, write: number, signal?: AbortSignal): Promise<void> {
    let next = first
    const done = new Set<number>()
    const lane = async (): Promise<void> => {
      // One memory for the values of all its batches: what is measured is the store, not garbage of its caller.
      const values = new Uint8Array(batchOperations * valueBytes)
      while (next < end && signal?.aborted !== true) {
        const from = next
        next = Math.min(end, from + batchOperations)
        const batch: BatchOperation[] = []
        for (let index = from; index < next; index++) {
          const value = values.subarray((index - from) * valueBytes, (index - from + 1) * valueBytes)
          fillValue(value, index, write)
          batch.push({ op: 'put', key: keyOf(index), value })
        }
        if (write > 0) this.#begun = next
        for (let left = batch; left.length > 0; ) {
          const results = await store.batch(left)
          for (const { error } of results) {
            if (error !== undefined && error.code !== 'OVERLOADED') throw error
          }
          left = left.filter((_, at) => results[at]!.error !== undefined)
        }
        done.add(from)
        while (write > 0 && done.delete(this.#acknowledged)) this.#acknowledged += batchOperations
      }
    }
    await Promise.all(Array.from({ length: batchesUnderWay }, lane))
  }

  /** Reads random keys, one after the other. */
  async #read(store: Store, reads: number, isThere: boolean): Promise<void> {
    for (let left = reads; left > 0; left--) {
      const index = this.#random.below(this.#plan.records)
      // Only a slow disk makes it a promise.
      const read = store.readInto(isThere ? keyOf(index) : `${keyOf(index)}?`, this.#seen)
      const length = typeof read === 'number' ? read : await read
      if (isThere) this.#judge(index, length, 0, 0)
      else if (length !== -1) this.#note(`Key ${index} followed by ? is not there, and has ${length} bytes`)
    }
  }

  /** Every key has its second value below `sure`, its first one from `maybe` on, and between them either. */
  async #compare(store: Store, sure: number, maybe: number): Promise<void> {
    for (let index = 0; index < this.#plan.records; index++) {
      const read = store.readInto(keyOf(index), this.#seen)
      const length = typeof read === 'number' ? read : await read
      this.#judge(index, length, index < sure ? 1 : 0, index < maybe ? 1 : 0)
    }
  }

  #judge(index: number, length: number, least: number, most: number): void {
    if (length !== valueBytes) return this.#note(`Key ${index} has ${length} bytes`)
    const write = new DataView(this.#seen.buffer).getUint32(4)
    fillValue(this.#wanted, index, write)
    if (Buffer.compare(this.#seen, this.#wanted) !== 0) return this.#note(`Key ${index} has the bytes of another write`)
    if (write < least || write > most) this.#note(`Key ${index} shows write ${write}, not one of ${least} to ${most}`)
  }

  /** Waits until the writer is so many batches further, or through. */
  async #acknowledgedAfter(batches: number, writing: Promise<void>): Promise<void> {
    const target = Math.min(this.#plan.records, this.#acknowledged + batches * batchOperations)
    // A writer that failed ends the wait, with its error.
    while (this.#acknowledged < target) await Promise.race([new Promise(setImmediate), writing])
  }

  /** Backs up while a writer overwrites. */
  async #backUp(store: Store, directory: string): Promise<void> {
    const ending = new AbortController()
    const writing = this.#write(store, 0, this.#plan.records, 1, ending.signal)
    await this.#acknowledgedAfter(leadBatches, writing)
    this.facts['acknowledgedBefore'] = this.#acknowledged
    const begun = performance.now()
    const summary = await store.backup(directory)
    const seconds = (performance.now() - begun) / 1000
    this.facts['begunAfter'] = this.#begun
    this.facts['backupNumber'] = summary.number
    this.facts['backupSeconds'] = Math.round(seconds)
    await this.#acknowledgedAfter(leadBatches, writing)
    ending.abort()
    await writing
    this.say(
      `backup in ${seconds.toFixed(1)} s beside ${this.facts['begunAfter'] - this.facts['acknowledgedBefore']} writes; ${JSON.stringify(summary)}`,
    )
    if (this.facts['begunAfter'] === this.facts['acknowledgedBefore'])
      this.#note('Nothing was written during the backup')
  }
}

/** The arguments; undefined if they are wrong. */
function planOf(): Plan | undefined {
  try {
    const { values } = parseArgs({
      options: {
        records: { type: 'string', default: '20000000' },
        memory: { type: 'string', default: '256' },
        seed: { type: 'string', default: String(randomInt(2 ** 31)) },
      },
    })
    const plan = {
      records: Number(values.records),
      memoryBytes: Number(values.memory) * MiB,
      seed: Number(values.seed),
    }
    // A whole number of batches, so that what is acknowledged can be counted in them.
    const isRight = plan.records > 0 && plan.records % batchOperations === 0 && plan.memoryBytes > 0
    return isRight && Number.isSafeInteger(plan.seed) ? plan : undefined
  } catch {
    return undefined
  }
}

const plan = planOf()
if (plan === undefined) {
  process.stderr.write('Usage: npm run soak:large -- [--records N, in thousands] [--memory MIB] [--seed S]\n')
  process.exit(2)
}
// Asked before the run, since the tree may move on meanwhile.
const source = sourceUnderTest()
onShardMemories((latest) => {
  memories = latest
})
const large = new LargeStore(plan)
large.say(`${plan.records} records in ${plan.memoryBytes / MiB} MiB; seed ${plan.seed}; ${large.directory}`)
const watch = setInterval(() => large.watchMemory(), 100)
try {
  await large.run()
} catch (error) {
  large.wrong.push(String(error))
  process.stderr.write(`${error instanceof Error ? error.stack : error}\n`)
}
clearInterval(watch)
const line = {
  run: 'large',
  at: new Date().toISOString(),
  ...source,
  ...plan,
  ...large.facts,
  failures: large.wrong.length,
  seconds: large.seconds,
}
mkdirSync(join(project, 'evidence'), { recursive: true })
appendFileSync(join(project, 'evidence', 'runs.jsonl'), `${JSON.stringify(line)}\n`)
large.say(JSON.stringify(line))
if (large.wrong.length === 0) rmSync(large.directory, { recursive: true, force: true })
else large.say(`${large.wrong.length} wrong; seed ${plan.seed}; the directory ${large.directory} is kept`)
process.exitCode = large.wrong.length === 0 ? 0 : 1
