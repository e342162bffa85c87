/**
 * Measures a case: opens its contenders, warms each up, then runs them interleaved (ours, peer, floor, ours, ...), so that
 * whatever else the machine does falls on all of them alike. A ratio is taken within each round, between neighbours in
 * time, and the median of those ratios is judged.
 *
 * The spread of a list is its interquartile range over its median: one round that a neighbour disturbed does not decide.
 * Above 15 % nothing is judged. A case waits a while for other work on the machine to end, and the report says what was left
 * of it. Minimum and maximum are reported beside it, so nothing hides behind the median.
 */
import {
  type Case,
  type Contender,
  type ContenderPlan,
  type Gate,
  type Measurement,
  type Role,
  type Row,
  type Size,
  Unavailable,
  type Unit,
} from './case.ts'
import { busyCores } from './machine.ts'

/** Other work on so much of a core is waited for, so long, in samples of so long, before a case is measured. */
const quietCores = 0.1
const quietWaitMs = 10_000
const quietSampleMs = 250
/** Where other work keeps more cores than this busy, there is no verdict: it need not fall on all contenders alike. */
const busyCoresMax = 0.5

/** Above this spread of the ratios (or of ours, for a count) there is no verdict. */
export const spreadMax = 0.15

export type Summary = {
  readonly median: number
  readonly min: number
  readonly max: number
  /** Interquartile range over the median. */
  readonly spread: number
}

export type ContenderResult = {
  readonly role: Role
  readonly name: string
  /** Undefined where it was not measured. */
  readonly summary: Summary | undefined
  readonly rounds: readonly number[]
  /** Medians of the counts; of a `longest ...` the maximum. */
  readonly counts: Readonly<Record<string, number>>
  /** Why it was not measured. */
  readonly skipped: string | undefined
}

export type Verdict = 'pass' | 'stretch' | 'miss' | 'not judged' | 'not measured'

export type GateResult = {
  readonly gate: Gate
  /** The median ratio or count; undefined where one side was not measured. */
  readonly value: number | undefined
  readonly verdict: Verdict
  /** Why there is no verdict. */
  readonly reason: string | undefined
}

export type CaseResult = {
  readonly label: string
  /** Cores that other work kept busy just before the first round, while all contenders were idle. */
  readonly busyCoresBefore: number | undefined
  readonly unit: Unit
  readonly higherIsBetter: boolean
  readonly contenders: readonly ContenderResult[]
  readonly gates: readonly GateResult[]
}

export type RowResult = {
  readonly name: string
  readonly title: string
  readonly group: Row['group']
  readonly cases: readonly CaseResult[]
  /** Why the row could not be measured to its end. */
  readonly failed?: string
}

type Open = { readonly plan: ContenderPlan; readonly contender: Contender; readonly measurements: Measurement[] }

/** Value at `fraction` of the way through a sorted list, between neighbours where it falls there. */
function quantile(sorted: readonly number[], fraction: number): number {
  const at = (sorted.length - 1) * fraction
  const below = sorted[Math.floor(at)] ?? Number.NaN
  const above = sorted[Math.ceil(at)] ?? Number.NaN
  return below + (above - below) * (at - Math.floor(at))
}

/** Median, extremes and spread of at least one value. */
export function summarize(values: readonly number[]): Summary {
  const sorted = [...values].sort((left, right) => left - right)
  const median = quantile(sorted, 0.5)
  const range = quantile(sorted, 0.75) - quantile(sorted, 0.25)
  return {
    median,
    min: sorted[0] ?? Number.NaN,
    max: sorted.at(-1) ?? Number.NaN,
    spread: range === 0 ? 0 : range / median,
  }
}

/** Measures every case of a row over `rounds` rounds. `progress` gets a line of text now and then. */
export async function measureRow(
  row: Row,
  size: Size,
  rounds: number,
  progress: (line: string) => void,
): Promise<RowResult> {
  const cases: CaseResult[] = []
  for (const item of row.cases(size)) {
    progress(`${row.name} ${item.label}`)
    cases.push(await measureCase(item, rounds, size.mode === 'smoke' ? 0 : quietWaitMs, progress))
  }
  return { name: row.name, title: row.title, group: row.group, cases }
}

async function measureCase(
  item: Case,
  rounds: number,
  waitMs: number,
  progress: (line: string) => void,
): Promise<CaseResult> {
  const skipped = new Map<ContenderPlan, string>()
  const open: Open[] = []
  let busyCoresBefore: number | undefined
  try {
    // All at once: nothing is measured yet.
    const openings = await Promise.allSettled(item.contenders.map((plan) => plan.open()))
    const failures: unknown[] = []
    for (const [index, opening] of openings.entries()) {
      const plan = item.contenders[index]!
      if (opening.status === 'fulfilled') open.push({ plan, contender: opening.value, measurements: [] })
      else if (opening.reason instanceof Unavailable) {
        skipped.set(plan, opening.reason.message)
        progress(`  ${plan.role} ${plan.name}: skipped, ${opening.reason.message}`)
      } else failures.push(opening.reason)
    }
    if (failures.length > 0) throw failures[0]
    if (item.isFreshEachRound !== true) for (const { contender } of open) await contender.run()
    if (open.length > 0) busyCoresBefore = await quiet(waitMs)
    for (let round = 0; round < rounds; round++) {
      for (const { plan, contender, measurements } of open) {
        const measurement = await contender.run()
        if (!(measurement.value > 0) || !Number.isFinite(measurement.value)) {
          throw new Error(`${plan.name} measured ${measurement.value} ${item.unit}`)
        }
        measurements.push(measurement)
      }
    }
  } finally {
    await Promise.all(open.map(({ contender }) => contender.close()))
  }
  const contenders = item.contenders.map((plan) => resultOf(plan, open, skipped.get(plan)))
  for (const { role, name, summary } of contenders) {
    if (summary === undefined) continue
    const { median, min, max, spread } = summary
    progress(
      `  ${role.padEnd(5)} ${name}: ${quantityText(median)} ${item.unit} (${quantityText(min)} to ${quantityText(max)}, spread ${Math.round(spread * 100)} %)`,
    )
  }
  const busy =
    (busyCoresBefore ?? 0) > quietCores ? `other work kept ${busyCoresBefore?.toFixed(1)} cores busy` : undefined
  if (busy !== undefined) progress(`  ${busy}`)
  const notJudgedBecause = item.notJudgedBecause ?? ((busyCoresBefore ?? 0) > busyCoresMax ? busy : undefined)
  return {
    label: item.label,
    busyCoresBefore,
    unit: item.unit,
    higherIsBetter: item.higherIsBetter,
    contenders,
    gates: item.gates.map((gate) => judge(gate, { ...item, notJudgedBecause }, contenders)),
  }
}

/** Waits at most `waitMs` for other work to end; how many cores it keeps busy in the end. */
async function quiet(waitMs: number): Promise<number | undefined> {
  if (waitMs === 0) return undefined
  const end = performance.now() + waitMs
  for (;;) {
    const busy = await busyCores(quietSampleMs)
    if (busy === undefined || busy <= quietCores || performance.now() >= end) return busy
  }
}

function resultOf(plan: ContenderPlan, open: readonly Open[], skipped: string | undefined): ContenderResult {
  const measurements = open.find((entry) => entry.plan === plan)?.measurements ?? []
  const names = new Set(measurements.flatMap(({ counts }) => Object.keys(counts)))
  const counts: Record<string, number> = {}
  for (const name of names) {
    const { median, max } = summarize(measurements.flatMap((measurement) => measurement.counts[name] ?? []))
    counts[name] = name.startsWith('longest') ? max : median
  }
  const rounds = measurements.map(({ value }) => value)
  const summary = rounds.length === 0 ? undefined : summarize(rounds)
  return { role: plan.role, name: plan.name, summary, rounds, counts, skipped }
}

/** Whether ours holds `gate`, given what was measured. */
export function judge(
  gate: Gate,
  item: Pick<Case, 'higherIsBetter' | 'notJudgedBecause'>,
  contenders: readonly ContenderResult[],
): GateResult {
  const without = (verdict: Verdict, reason: string, value?: number): GateResult => ({ gate, value, verdict, reason })
  const ours = contenders.find(({ role }) => role === 'ours')
  if (ours?.summary === undefined) return without('not measured', `ours: ${ours?.skipped ?? 'no contender'}`)
  let value: number
  let spread: number
  let holds: (limit: number) => boolean
  let limit: number
  if ('against' in gate) {
    const other = contenders.find(({ name }) => name === gate.against)
    if (other?.summary === undefined)
      return without('not measured', `${gate.against}: ${other?.skipped ?? 'no contender'}`)
    const ratios = ours.rounds.map((round, index) => {
      const opposite = other.rounds[index] ?? Number.NaN
      return item.higherIsBetter ? round / opposite : opposite / round
    })
    ;({ median: value, spread } = summarize(ratios))
    holds = (least) => value >= least
    limit = gate.atLeast
  } else {
    const count = ours.counts[gate.count]
    if (count === undefined) return without('not measured', `ours has no count ${gate.count}`)
    value = count
    if (gate.timesOf !== undefined) {
      const other = contenders.find(({ name }) => name === gate.timesOf)
      const base = other?.counts[gate.count]
      if (base === undefined) return without('not measured', `${gate.timesOf}: ${other?.skipped ?? 'no such count'}`)
      value = count / base
    }
    spread = 0
    holds = (most) => value <= most
    limit = gate.atMost
  }
  if (item.notJudgedBecause !== undefined) return without('not judged', item.notJudgedBecause, value)
  if (spread > spreadMax) return without('not judged', `spread ${Math.round(spread * 100)} % is above 15 %`, value)
  const verdict = holds(gate.stretch) ? 'stretch' : holds(limit) ? 'pass' : 'miss'
  return { gate, value, verdict, reason: undefined }
}

/** A quantity with three significant digits and thousands separators. */
export function quantityText(value: number): string {
  if (value === 0) return '0'
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))))
  const rounded = digits === 0 ? Number(value.toPrecision(3)) : value
  return rounded.toLocaleString('en-US', { maximumFractionDigits: Math.min(digits, 4), useGrouping: true })
}
