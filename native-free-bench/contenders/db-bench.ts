/** RocksDB's own `db_bench`, where it is on the PATH: one run of the program is one round. */
import { execFile } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { type Measurement, Unavailable } from '../case.ts'
import type { Hosted } from '../isolate.ts'
import { keyBytes, valueBytes } from '../key-set.ts'
import { isOnPath } from '../machine.ts'

type Options = {
  readonly scratch: string
  readonly benchmark: string
  /** Operations of each thread in one round. */
  readonly operations: number
  readonly threads: number
  readonly flags: readonly string[]
}

/** Operations per second from a line such as `fillrandom : 22.1 micros/op 45190 ops/sec 1.4 seconds ...`. */
export function operationsPerSecond(output: string, benchmark: string): number {
  const line = output.split('\n').find((text) => text.startsWith(`${benchmark} `))
  const figure = line === undefined ? null : /\s(\d+(?:\.\d+)?) ops\/sec/.exec(line)
  if (figure === null) throw new Error(`db_bench printed no ops/sec for ${benchmark}`)
  return Number(figure[1])
}

export function open(options: Options): Hosted {
  if (!isOnPath('db_bench')) throw new Unavailable('db_bench is not on the PATH')
  const directory = join(options.scratch, `db-bench-${process.pid}`)
  const words = [
    `--benchmarks=${options.benchmark}`,
    `--db=${directory}`,
    `--num=${options.operations}`,
    `--threads=${options.threads}`,
    `--key_size=${keyBytes}`,
    `--value_size=${valueBytes}`,
    '--compression_type=none',
    '--bloom_bits=10',
    ...options.flags,
  ]
  const run = (): Promise<Measurement> =>
    new Promise((resolve, reject) => {
      execFile('db_bench', words, { maxBuffer: 2 ** 24 }, (error, output) => {
        if (error !== null) {
          reject(error)
          return
        }
        const value = operationsPerSecond(output, options.benchmark)
        resolve({ value, operations: options.operations * options.threads, counts: {} })
      })
    })
  return { run, close: () => rmSync(directory, { recursive: true, force: true }) }
}
