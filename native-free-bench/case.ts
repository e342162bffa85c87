/**
 * The words of the bench. A row is one line of work with a question (is ours twice as fast as lmdb?); a case is one setting
 * of it (10K keys, 1M keys); a contender is one program that does the work of a case: ours, a peer, a floor that does only
 * what physics demands, or something shown without being judged.
 *
 * A row file only says what runs and which ratios are gates. How contenders are interleaved and judged is harness.ts.
 */

export type Role = 'ours' | 'peer' | 'floor' | 'shown'

export type Unit = 'ns/op' | 'us/op' | 'op/s' | 'keys/s' | 'B/record' | 'ms'

/** What one round of one contender gave. */
export type Measurement = {
  /** In the unit of the case; finite and positive. */
  readonly value: number
  /** Operations that the value stands for. */
  readonly operations: number
  /** Other facts of the round under a name with its unit: allocations, system calls, wakes, percentiles. */
  readonly counts: Readonly<Record<string, number>>
}

/** A contender that is ready to run: data loaded, servers listening. It does nothing between two calls. */
export type Contender = {
  /** Works for about `Size.roundMs` and says how fast. */
  run(): Promise<Measurement>
  /** Gives everything back: processes, ports, files. */
  close(): Promise<void>
}

export type ContenderPlan = {
  readonly role: Role
  readonly name: string
  /** Makes the contender ready. Rejects with `Unavailable` where this machine lacks what it needs. */
  readonly open: () => Promise<Contender>
}

/** `atLeast` and `stretch` say how many times better than `against` ours must be, whichever way the unit points. */
export type RatioGate = { readonly against: string; readonly atLeast: number; readonly stretch: number }

/** `count` of ours must not exceed `atMost`, or `atMost` times the same count of the contender `timesOf`. */
export type CountGate = {
  readonly count: string
  readonly timesOf?: string
  readonly atMost: number
  readonly stretch: number
}

export type Gate = RatioGate | CountGate

export type Case = {
  readonly label: string
  readonly unit: Unit
  readonly higherIsBetter: boolean
  readonly contenders: readonly ContenderPlan[]
  readonly gates: readonly Gate[]
  /** Every round begins with nothing, so there is nothing to warm up. */
  readonly isFreshEachRound?: boolean
  /** Why the verdict of this machine would mean nothing, if it would. */
  readonly notJudgedBecause?: string | undefined
}

export type Row = {
  readonly name: string
  readonly title: string
  /** Rows of one group share a chart. */
  readonly group: 'engine' | 'threads' | 'http' | 'limits'
  readonly cases: (size: Size) => readonly Case[]
}

/** How large everything is in this run. */
export type Size = {
  readonly mode: 'smoke' | 'default' | 'full'
  /** How long one contender works in one round. */
  readonly roundMs: number
  /** Key sets of the engine rows: one in cache, others beyond it. */
  readonly keySets: readonly number[]
  /** Keys of the rows that write. */
  readonly writtenKeys: number
  /** Keys of the rows whose data lie in tables; their memory is a small part of the data. */
  readonly tableKeys: readonly number[]
  /** Keys that a server is loaded with before it is measured. */
  readonly servedKeys: number
  readonly connections: number
  readonly threads: readonly number[]
  /** Directory for databases and logs; removed at the end. */
  readonly scratch: string
}

/** Something that this machine or this version does not have; the report names it and why. */
export class Unavailable extends Error {
  override name = 'Unavailable'
}

/** `1000000` as `1M`. */
export function countText(count: number): string {
  if (count >= 1e6 && count % 1e6 === 0) return `${count / 1e6}M`
  if (count >= 1e3 && count % 1e3 === 0) return `${count / 1e3}K`
  return String(count)
}
