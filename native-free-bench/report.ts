/**
 * What a run leaves behind: `bench.json` (everything), `bench.md` (two tables) and one SVG chart per group of rows. The
 * first table can be pasted into a document between two markers, so that no figure is ever typed by hand:
 *
 *     <!-- bench:begin -->  ...  <!-- bench:end -->
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Row } from './case.ts'
import { chartOf } from './chart.ts'
import { type CaseResult, type ContenderResult, type GateResult, quantityText, type RowResult } from './harness.ts'
import type { Machine } from './machine.ts'

export type Report = {
  readonly format: 1
  readonly machine: Machine
  readonly mode: string
  readonly rounds: number
  readonly seconds: number
  readonly rows: readonly RowResult[]
}

const groupTitles: Record<Row['group'], string> = {
  engine: 'Engine, in the process',
  threads: 'Between threads',
  http: 'HTTP',
  limits: 'Limits',
}

/** Writes the report's files into `directory`, which is made if need be. */
export function writeReport(report: Report, directory: string): void {
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, 'bench.json'), `${JSON.stringify(report, undefined, 1)}\n`)
  writeFileSync(join(directory, 'bench.md'), `${ratioTable(report)}\n\n${detailTable(report)}\n`)
  for (const [group, title] of Object.entries(groupTitles)) {
    const rows = report.rows.filter((row) => row.group === group)
    if (rows.length > 0) writeFileSync(join(directory, `${group}.svg`), chartOf(title, rows))
  }
}

/** Replaces what stands between the markers of the file at `path` by the table of ratios. Throws if it has no markers. */
export function pasteReport(report: Report, path: string): void {
  writeFileSync(path, pasted(readFileSync(path, 'utf8'), ratioTable(report)))
}

/** `document` with `table` between the markers of `name`. */
export function pasted(document: string, table: string, name = 'bench'): string {
  const begin = `<!-- ${name}:begin -->`
  const end = `<!-- ${name}:end -->`
  const from = document.indexOf(begin)
  const to = document.indexOf(end)
  if (from < 0 || to < from) throw new Error(`The document has no ${begin} ... ${end}`)
  return `${document.slice(0, from + begin.length)}\n${table}\n${document.slice(to)}`
}

/** One line per gate: what ours did, what it is held against, the ratio, the gate and the verdict. */
export function ratioTable(report: Report): string {
  const lines = report.rows.flatMap((row) => [
    ...(row.failed === undefined ? [] : [tableLine([row.name, row.title, 'failed', '', '', '', 'not measured'])]),
    ...row.cases.flatMap((item) => {
      const gates = item.gates.length > 0 ? item.gates.map((gate) => gateCells(item, gate)) : [withoutGate(item)]
      return gates.map((cells) => tableLine([row.name, `${row.title}, ${item.label}`, ...cells]))
    }),
  ])
  return [
    machineLine(report),
    '',
    tableLine(['Row', 'Work', 'Sunwise', 'Against', 'Ratio', 'Gate (stretch)', 'Verdict']),
    tableLine(['---', '---', '---', '---', '---', '---', '---']),
    ...lines,
  ].join('\n')
}

/** One line per contender: median, extremes, spread, counts. */
export function detailTable(report: Report): string {
  const lines = report.rows.flatMap((row) =>
    row.cases.flatMap((item) =>
      item.contenders.map((contender) =>
        tableLine([
          row.name,
          caseText(item),
          `${contender.role}: ${contender.name}`,
          ...contenderCells(item, contender),
        ]),
      ),
    ),
  )
  return [
    tableLine(['Row', 'Case', 'Contender', 'Median', 'Min to max', 'Spread', 'Counts']),
    tableLine(['---', '---', '---', '---', '---', '---', '---']),
    ...lines,
  ].join('\n')
}

function caseText({ label, busyCoresBefore }: CaseResult): string {
  if (busyCoresBefore === undefined || busyCoresBefore < 0.1) return label
  return `${label} (other work on ${busyCoresBefore.toFixed(1)} cores)`
}

function machineLine({ machine, rounds, mode }: Report): string {
  const versions = Object.entries(machine.versions).map(([name, version]) => `${name} ${version}`)
  return [
    `${machine.cores} x ${machine.processor}, ${machine.memoryGiB} GiB, ${machine.system}`,
    `Node ${machine.node}, ${versions.join(', ')}`,
    `commit ${machine.commit}, ${machine.startedAt.slice(0, 10)}`,
    `${rounds} interleaved rounds${mode === 'default' ? '' : `, mode ${mode}`}.`,
  ].join('; ')
}

const measuredText = (item: CaseResult, contender: ContenderResult | undefined): string =>
  contender?.summary === undefined ? 'not measured' : `${quantityText(contender.summary.median)} ${item.unit}`

function gateCells(item: CaseResult, { gate, value, verdict, reason }: GateResult): string[] {
  const ours = item.contenders.find(({ role }) => role === 'ours')
  const verdictText = reason === undefined ? verdict : `${verdict}: ${reason}`
  if ('count' in gate) {
    const { count, timesOf } = gate
    const times = timesOf === undefined ? '' : 'x'
    const limit = `<= ${quantityText(gate.atMost)}${times} (${quantityText(gate.stretch)}${times})`
    const own = timesOf === undefined ? value : ours?.counts[count]
    const ownText = own === undefined ? 'not measured' : quantityText(own)
    if (timesOf === undefined) return [ownText, count, '', limit, verdictText]
    const theirs = item.contenders.find(({ name }) => name === timesOf)?.counts[count]
    const against = `${timesOf}: ${theirs === undefined ? 'not measured' : quantityText(theirs)} ${count}`
    return [`${ownText} ${count}`, against, value === undefined ? '' : `${quantityText(value)}x`, limit, verdictText]
  }
  const other = item.contenders.find(({ name }) => name === gate.against)
  return [
    measuredText(item, ours),
    `${gate.against}: ${measuredText(item, other)}`,
    value === undefined ? '' : `${quantityText(value)}x`,
    `${quantityText(gate.atLeast)}x (${quantityText(gate.stretch)}x)`,
    verdictText,
  ]
}

function withoutGate(item: CaseResult): string[] {
  const ours = item.contenders.find(({ role }) => role === 'ours')
  return [measuredText(item, ours), '', '', '', '']
}

function contenderCells(item: CaseResult, { summary, counts, skipped }: ContenderResult): string[] {
  if (summary === undefined) return [`skipped: ${skipped ?? ''}`, '', '', '']
  const countTexts = Object.entries(counts).map(([name, count]) => `${name} ${quantityText(count)}`)
  return [
    `${quantityText(summary.median)} ${item.unit}`,
    `${quantityText(summary.min)} to ${quantityText(summary.max)}`,
    `${Math.round(summary.spread * 100)} %`,
    countTexts.join(', '),
  ]
}

function tableLine(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
}
