/**
 * Makes a run that breaks a promise smaller: fewer operations, fewer kinds of faults, fewer nodes, as long as what is left breaks the same one.
 * Greedy: each change that still fails is kept, and all are tried again until none does or time is up.
 */
import type { FaultKind } from './ring-sim.ts'

export type Trial = { readonly operations: number; readonly nodes: number; readonly faults: readonly FaultKind[] }

/** `fails` runs a trial; `isTimeUp` is asked before each. The smallest trial that was seen to fail. */
export function shrink(trial: Trial, fails: (trial: Trial) => boolean, isTimeUp: () => boolean): Trial {
  let smallest = trial
  for (;;) {
    const next = candidatesOf(smallest).find((candidate) => !isTimeUp() && fails(candidate))
    if (next === undefined) return smallest
    smallest = next
  }
}

/** What promises most comes first: few operations are quick to try. */
function candidatesOf(trial: Trial): Trial[] {
  const { operations, nodes, faults } = trial
  const counts = [0.1, 0.5, 0.8, 0.95].map((share) => Math.floor(operations * share))
  return [
    ...[...new Set(counts)]
      .filter((count) => count > 0 && count < operations)
      .map((count) => ({ ...trial, operations: count })),
    ...(faults.length > 2 ? [faults.slice(0, faults.length >> 1), faults.slice(faults.length >> 1)] : []).map(
      (some) => ({ ...trial, faults: some }),
    ),
    ...faults.map((_, index) => ({ ...trial, faults: faults.toSpliced(index, 1) })),
    ...(nodes > 1 ? [{ ...trial, nodes: nodes - 1 }] : []),
  ]
}

/** What kind of promise was broken: what a message says before its particulars. */
export function kindOf(violation: string): string {
  return /^[^0-9{]*/.exec(violation)![0].split(':')[0]!.trim()
}
