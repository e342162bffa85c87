/**
 * RocksDB's own `db_bench`, where it is on the PATH: one run of the program is one round. A database that the rounds read is
 * filled once, when the contender is opened; without `fill` each round starts with an empty one.
 */
import { execFile } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { type Measurement, Unavailable } from '../case.ts'
import type { Hosted } from '../isolate.ts'
import { keyBytes, valueBytes as usualValueBytes } from '../key-set.ts'
import { isOnPath } from '../machine.ts'
import { bytesOnDisk, dropPageCache, spaceAmplification } from '../store-files.ts'

type Options = {
  readonly scratch: string
  /** What one round runs, and what is measured of it. */
  readonly benchmark: string
  /** Keys to draw from; operations of each thread in one round where no `--reads` nor `--duration` says otherwise. */
  readonly operations: number
  readonly threads: number
  readonly flags: readonly string[]
  readonly valueBytes?: number
  /** Benchmarks run once, before the first round. */
  readonly fill?: string
  /** Benchmarks after the measured one, whose output gives counts: `stats`, or `waitforcompaction,stats`. */
  readonly after?: string
  /** Each round starts with none of its files in the page cache. */
  readonly isCold?: boolean
}

/** Operations per second from a line such as `fillrandom : 22.1 micros/op 45190 ops/sec 1.4 seconds ...`. */
export function operationsPerSecond(output: string, benchmark: string): number {
  const line = output.split('\n').find((text) => text.startsWith(`${benchmark} `))
  const figure = line === undefined ? null : /\s(\d+(?:\.\d+)?) ops\/sec/.exec(line)
  if (figure === null) throw new Error(`db_bench printed no ops/sec for ${benchmark}`)
  return Number(figure[1])
}

/** GB that flushes and compactions wrote, after `stats`; undefined where it was not asked for. RocksDB rounds to 10 MB. */
export function compactionGigabytes(output: string): number | undefined {
  const figure = /^Cumulative compaction: (\d+(?:\.\d+)?) GB write/m.exec(output)
  return figure === null ? undefined : Number(figure[1])
}

/** Microseconds of a percentile of the operations, after `--histogram`; undefined without it. */
export function percentileMicros(output: string, percentile: string): number | undefined {
  const figure = new RegExp(`^Percentiles:.* ${percentile}: (\\d+(?:\\.\\d+)?)`, 'm').exec(output)
  return figure === null ? undefined : Number(figure[1])
}

/** Share of the reads that found their key; undefined where nothing was read. */
export function foundShare(output: string): number | undefined {
  const figure = /\((\d+) of (\d+) found\)/.exec(output)
  return figure === null ? undefined : Number(figure[1]) / Number(figure[2])
}

/** Operations that the line of `benchmark` stands for; undefined where it does not say. */
function operationsOf(output: string, benchmark: string): number | undefined {
  const figure = new RegExp(`^${benchmark} .* (\\d+) operations;`, 'm').exec(output)
  return figure === null ? undefined : Number(figure[1])
}

export async function open(options: Options): Promise<Hosted> {
  if (!isOnPath('db_bench')) throw new Unavailable('db_bench is not on the PATH')
  const { operations, threads, valueBytes = usualValueBytes, benchmark, fill, after, isCold = false } = options
  const directory = join(options.scratch, `db-bench-${process.pid}`)
  const words = [
    `--db=${directory}`,
    `--num=${operations}`,
    `--threads=${threads}`,
    `--key_size=${keyBytes}`,
    `--value_size=${valueBytes}`,
    '--compression_type=none',
    '--bloom_bits=10',
  ]
  const start = (more: readonly string[]): Promise<string> =>
    new Promise((resolve, reject) => {
      execFile('db_bench', [...words, ...more], { maxBuffer: 2 ** 26 }, (error, output) => {
        if (error === null) resolve(output)
        else reject(error)
      })
    })
  if (fill !== undefined) {
    const loading = options.flags.filter((flag) => !/^--(reads|duration|histogram|benchmark_write_rate)/.test(flag))
    await start([`--benchmarks=${fill}`, ...loading])
  }
  const run = async (): Promise<Measurement> => {
    if (isCold) dropPageCache(directory)
    const benchmarks = `--benchmarks=${[benchmark, ...(after === undefined ? [] : [after])].join(',')}`
    const output = await start([benchmarks, ...(fill === undefined ? [] : ['--use_existing_db=1']), ...options.flags])
    const done = operationsOf(output, benchmark) ?? operations * threads
    const counts: Record<string, number> = {}
    const gigabytes = compactionGigabytes(output)
    const userBytes = done * (keyBytes + valueBytes)
    if (gigabytes !== undefined) {
      // What the commit log takes is not rounded: key, value, and the 12 + 7 + 3 bytes around them.
      counts['write amp'] = (gigabytes * 2 ** 30) / userBytes + (keyBytes + valueBytes + 22) / (keyBytes + valueBytes)
      counts['space amp'] = spaceAmplification(bytesOnDisk(directory), operations, valueBytes)
    }
    for (const percentile of ['P50', 'P99', 'P99.9']) {
      const micros = percentileMicros(output, percentile)
      if (micros !== undefined) counts[`${percentile.toLowerCase()} us`] = micros
    }
    const found = foundShare(output)
    if (found !== undefined) counts['found %'] = 100 * found
    return { value: operationsPerSecond(output, benchmark), operations: done, counts }
  }
  return { run, close: () => rmSync(directory, { recursive: true, force: true }) }
}
