/**
 * `bench`: db_bench's and YCSB's work against a store opened in this process. Without `--data-dir` the store is its own, in a temporary
 * directory that is removed; a directory that was given is only ever added to.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { Store } from '../index.ts'
import { BenchRecords, keySizeMin, valueSizeMin } from './bench/bench-records.ts'
import { histogramLines, resultLine, resultObject } from './bench/bench-report.ts'
import { type BenchProgress, type BenchResult, BenchRun, type BenchSettings, KnownRecords } from './bench/bench-run.ts'
import { type Workload, workloads } from './bench/workload.ts'
import { type CommandContext, integerFrom, parsedOption } from './command-context.ts'
import { Progress } from './progress.ts'
import { parseBytes } from './quantity.ts'
import { suggestionFor } from './suggestion.ts'
import { note, print } from './terminal.ts'

const numDefault = 1_000_000
const numMax = 2 ** 32 - 1
const concurrencyDefault = 64
const concurrencyMax = 4096

/** What runs where no name was given. */
const usualNames = ['fillrandom', 'readrandom', 'readmissing', 'readwhilewriting']

/** Names and what they do, for the help. */
export const benchHelp = `\nBenchmarks (default: ${usualNames.join(' ')}):\n${workloads
  .map(({ name, help }) => `  ${name.padEnd(18)}${help}`)
  .join('\n')}`

function chosen(names: readonly string[]): readonly Workload[] {
  return (names.length === 0 ? usualNames : names).map((name) => {
    const workload = workloads.find((candidate) => candidate.name === name)
    if (workload !== undefined) return workload
    const suggestion = suggestionFor(
      name,
      workloads.map((candidate) => candidate.name),
    )
    throw new SunwiseError('BAD_CONFIG', `There is no benchmark "${name}"${suggestion}`)
  })
}

/** Runs the named benchmarks, one after another, and prints a line for each. */
export async function benchCommand(context: CommandContext, names: readonly string[]): Promise<void> {
  const list = chosen(names)
  const { options } = context
  const integer = (name: string, flag: string, min: number, max: number): number | undefined =>
    parsedOption(context, name, flag, integerFrom(min, max), `a whole number from ${min} to ${max}`)
  const valueSize = parsedOption(
    context,
    'valueSize',
    '--value-size',
    (text) => {
      const bytes = parseBytes(text)
      return bytes !== undefined && bytes >= valueSizeMin && bytes <= Limits.valueBytesMax ? bytes : undefined
    },
    `a size from ${valueSizeMin}b to 16mb`,
  )
  const settings: BenchSettings = {
    num: integer('num', '--num', 1, numMax) ?? numDefault,
    concurrency: integer('concurrency', '--concurrency', 1, concurrencyMax) ?? concurrencyDefault,
    seed: integer('seed', '--seed', 0, 2 ** 32 - 1) ?? 1,
  }
  const keySize = integer('keySize', '--key-size', keySizeMin, Limits.keyBytesMax) ?? 16
  if (options['existing'] === true && context.settings.dataDir === undefined)
    throw new SunwiseError('BAD_CONFIG', '--existing needs --data-dir: a store of its own has no records yet')
  const records = new BenchRecords(keySize, valueSize ?? 100)
  await using session = new BenchSession(context, settings, records, options['existing'] === true)
  for (const workload of list) {
    const result = await session.run(workload)
    if (context.output === 'json') {
      await print(context.terminal.stdout, `${JSON.stringify(resultObject(result))}\n`)
      continue
    }
    const lines = [resultLine(result), ...(options['histogram'] === true ? histogramLines(result) : [])]
    await print(context.terminal.stdout, `${lines.join('\n')}\n`)
  }
}

/** The store of one command, from its first benchmark to its last. */
class BenchSession implements AsyncDisposable {
  readonly #context: CommandContext
  readonly #settings: BenchSettings
  readonly #records: BenchRecords
  readonly #hasRecords: boolean
  #store: Store | undefined
  /** The directory to be removed; undefined while there is none of ours. */
  #temporary: string | undefined
  /** Stops listening for the signals that take the directory away. */
  #offSignal: (() => void) | undefined
  #known: KnownRecords
  #isFilled: boolean

  constructor(context: CommandContext, settings: BenchSettings, records: BenchRecords, hasRecords: boolean) {
    this.#context = context
    this.#settings = settings
    this.#records = records
    this.#hasRecords = hasRecords
    this.#isFilled = hasRecords
    this.#known = new KnownRecords(settings.num)
  }

  async run(workload: Workload): Promise<BenchResult> {
    if (workload.isFresh && this.#temporary !== undefined && this.#isFilled) await this.#end()
    if (workload.needsRecords && !this.#isFilled) {
      note(this.#context.terminal, `${workload.name} needs records: fillseq goes before it`)
      await this.#measure(workloads.find(({ name }) => name === 'fillseq')!)
    }
    return this.#measure(workload)
  }

  async #measure(workload: Workload): Promise<BenchResult> {
    this.#store ??= await this.#open()
    const progress: BenchProgress = { done: 0, bytes: 0 }
    const start = performance.now()
    const shown = new Progress(this.#context.terminal, () => ({
      label: workload.name,
      count: progress.done,
      unit: 'operations',
      bytes: progress.bytes,
      bytesTotal: undefined,
      failures: 0,
      elapsedMs: performance.now() - start,
    }))
    try {
      const run = new BenchRun(this.#store, workload, this.#records, this.#known, this.#settings, progress)
      const result = await run.run()
      this.#isFilled ||= result.reads < result.operations
      return result
    } finally {
      shown.stop()
    }
  }

  async #open(): Promise<Store> {
    const { dataDir, shards, memory, durability, valueMax } = this.#context.settings
    // Loaded only here: no other command needs the store in its own process.
    const { open } = await import('../index.ts')
    const dir = dataDir ?? mkdtempSync(join(tmpdir(), 'sunwise-bench-'))
    if (dataDir === undefined) {
      this.#temporary = dir
      this.#offSignal = this.#context.terminal.onSignal(() => {
        rmSync(dir, { recursive: true, force: true })
        this.#context.terminal.exit(130)
      })
    }
    const valueBytesMax = Math.max(valueMax, this.#records.valueSize)
    return open({ dir, shards, memoryBytes: memory, durability, valueBytesMax })
  }

  /** Closes the store; its directory goes if it is ours. */
  async #end(): Promise<void> {
    const store = this.#store
    this.#store = undefined
    try {
      await store?.close()
    } finally {
      this.#offSignal?.()
      if (this.#temporary !== undefined) rmSync(this.#temporary, { recursive: true, force: true })
      this.#temporary = undefined
      this.#known = new KnownRecords(this.#settings.num)
      this.#isFilled = this.#hasRecords
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#end()
  }
}
