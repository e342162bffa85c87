import type { Case, ContenderPlan, Row, Size } from '../case.ts'
import { inChild } from '../isolate.ts'
import { valueBytes as usualValueBytes } from '../key-set.ts'
import { memoryBytesOf, memoryFlags, sizeText } from './table-settings.ts'

const peer = 'db_bench fillrandom'

/** A fill of `keys` records with keys drawn with replacement, beside db_bench; for E4 and E5. */
export function fillCase(
  { mode, scratch }: Size,
  keys: number,
  valueBytes: number,
  gate: { readonly atLeast: number; readonly stretch: number },
): Case {
  const memoryBytes = memoryBytesOf(keys, mode, valueBytes)
  const settles = mode === 'full'
  const ours = { scratch, keys, memoryBytes, valueBytes, settles }
  // Left out of the usual run for the time they take.
  const fewInFlight: ContenderPlan = {
    role: 'shown',
    name: 'sunwise put, 64 in flight',
    open: inChild('contenders/sunwise-fill.ts', { ...ours, inFlight: 64, batch: 1 }),
  }
  const inBatches: ContenderPlan = {
    role: 'shown',
    name: 'sunwise batch(1000)',
    open: inChild('contenders/sunwise-fill.ts', { ...ours, inFlight: 2, batch: 1000 }),
  }
  return {
    label: sizeText(keys, memoryBytes),
    unit: 'op/s',
    higherIsBetter: true,
    isFreshEachRound: true,
    gates: [
      { against: peer, ...gate },
      { count: 'write amp', atMost: 8, stretch: 5 },
    ],
    contenders: [
      {
        role: 'ours',
        name: 'sunwise put, 256 in flight',
        open: inChild('contenders/sunwise-fill.ts', { ...ours, inFlight: 256, batch: 1 }),
      },
      {
        role: 'peer',
        name: peer,
        open: inChild('contenders/db-bench.ts', {
          scratch,
          benchmark: 'fillrandom',
          operations: keys,
          threads: 1,
          valueBytes,
          flags: memoryFlags(memoryBytes),
          after: settles ? 'waitforcompaction,stats' : 'stats',
        }),
      },
      ...(mode === 'default' ? [] : [fewInFlight, inBatches]),
    ],
  }
}

/**
 * E4: putting random keys far beyond memory. db_bench puts from one thread that waits for each put; ours has 64 puts in flight
 * from one thread, and a shard thread beside it. Both have background threads for flushes and compactions.
 */
export const row: Row = {
  name: 'E4',
  title: 'fillrandom to disk with flushes and compactions, 16+100 B',
  group: 'engine',
  cases: (size) => size.tableKeys.map((keys) => fillCase(size, keys, usualValueBytes, { atLeast: 3, stretch: 6 })),
}
