/**
 * The bench: measures rows of work side by side with peers and floors and writes a report.
 *
 *     node native-free-bench/main.ts [ROW ...] [--rounds N] [--out DIR] [--paste] [--smoke | --full]
 *
 * ROW is a name or the beginning of one (`E1` means E1a and E1b); without any, all rows run. `--smoke` makes everything
 * tiny: it proves that the bench works, its figures mean nothing. `--full` takes the largest key sets too. Progress goes to
 * standard error, the table to standard output, the files to `native-free-bench/results/latest` or DIR; `--paste` puts the
 * table between its markers in README.md as well.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join, relative } from 'node:path'
import { parseArgs } from 'node:util'
import type { Row, Size } from './case.ts'
import { measureRow, type RowResult } from './harness.ts'
import { machineNow } from './machine.ts'
import { pasteReport, type Report, ratioTable, writeReport } from './report.ts'
import { rows } from './rows.ts'

const sizes: Record<Size['mode'], Omit<Size, 'scratch' | 'mode'>> = {
  smoke: {
    roundMs: 20,
    keySets: [500],
    writtenKeys: 500,
    tableKeys: [50_000],
    servedKeys: 500,
    connections: 4,
    threads: [1, 2],
  },
  default: {
    roundMs: 500,
    keySets: [10_000, 1_000_000],
    writtenKeys: 200_000,
    tableKeys: [2_000_000],
    servedKeys: 10_000,
    connections: 64,
    threads: [1, 2],
  },
  full: {
    roundMs: 1000,
    keySets: [10_000, 1_000_000, 10_000_000],
    writtenKeys: 1_000_000,
    tableKeys: [5_000_000, 20_000_000],
    servedKeys: 10_000,
    connections: 64,
    threads: [1, 2],
  },
}

const here = import.meta.dirname
const latest = join(here, 'results', 'latest')
const progress = (line: string): void => void process.stderr.write(`${line}\n`)

function chosenRows(names: readonly string[]): readonly Row[] {
  for (const name of names) {
    if (!rows.some((row) => matches(row, name))) throw new Error(`There is no row ${name}`)
  }
  return names.length === 0 ? rows : rows.filter((row) => names.some((name) => matches(row, name)))
}

const matches = (row: Row, name: string): boolean => row.name.toLowerCase().startsWith(name.toLowerCase())

/** A row that broke does not take the others with it, but the run has failed. */
function failure({ name, title, group }: Row, error: unknown): RowResult {
  const failed = error instanceof Error ? (error.stack ?? error.message) : String(error)
  progress(`${name} FAILED: ${failed}`)
  process.exitCode = 1
  return { name, title, group, cases: [], failed }
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      smoke: { type: 'boolean', default: false },
      full: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      out: { type: 'string', default: latest },
      paste: { type: 'boolean', default: false },
    },
  })
  const mode = values.smoke ? 'smoke' : values.full ? 'full' : 'default'
  const rounds = values.rounds === undefined ? (mode === 'smoke' ? 2 : 5) : Number(values.rounds)
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error('--rounds is a positive integer')
  const chosen = chosenRows(positionals)
  const machine = machineNow()
  // Beside the code and not in the system's temporary directory, which may be memory: fdatasync there costs nothing.
  mkdirSync(latest, { recursive: true })
  const scratch = mkdtempSync(join(latest, 'scratch-'))
  const start = performance.now()
  const results: RowResult[] = []
  try {
    for (const row of chosen) {
      // A directory per row: what one row leaves to be written back must not disturb the next.
      const size: Size = { mode, scratch: mkdtempSync(join(scratch, `${row.name}-`)), ...sizes[mode] }
      results.push(await measureRow(row, size, rounds, progress).catch((error: unknown) => failure(row, error)))
      rmSync(size.scratch, { recursive: true, force: true })
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
  const seconds = Math.round((performance.now() - start) / 1000)
  const report: Report = { format: 1, machine, mode, rounds, seconds, rows: results }
  writeReport(report, values.out)
  if (values.paste) pasteReport(report, join(here, '..', 'README.md'))
  process.stdout.write(`${ratioTable(report)}\n`)
  progress(`${seconds} s; report in ${relative(process.cwd(), values.out)}`)
}

await main()
