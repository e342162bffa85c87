import type { Row } from '../case.ts'
import { inChild } from '../isolate.ts'
import { valueBytes } from '../key-set.ts'
import { memoryBytesOf, sizeText } from './table-settings.ts'

const idle = 'sunwise at rest'
/** At most, beside reads as fast as they go: enough that a flush is never far and compaction has work. */
const putsPerSecond = 50_000
const load = 0.5

/**
 * L1: how much flushes and compactions slow reads down. The same thread puts and reads, both at half the rate that
 * it reaches at most for this mix, and reads are timed from when they were meant to start. At rest nothing is put.
 */
export const row: Row = {
  name: 'L1',
  title: 'p99 of in-process get at 50 % load during flushes and compactions',
  group: 'limits',
  cases: ({ tableKeys, mode, roundMs: usualRoundMs, scratch }) => {
    const keys = tableKeys[0]!
    const memoryBytes = memoryBytesOf(keys, mode)
    const roundMs = mode === 'smoke' ? usualRoundMs : 10 * usualRoundMs
    const options = { scratch, keys, memoryBytes, valueBytes, roundMs, load }
    const module = 'contenders/sunwise-read-while-writing.ts'
    return [
      {
        label: sizeText(keys, memoryBytes),
        unit: 'ms',
        higherIsBetter: false,
        gates: [
          { count: 'p99 us', timesOf: idle, atMost: 3, stretch: 1.5 },
          { count: 'p99 us', atMost: 1000, stretch: 500 },
        ],
        contenders: [
          {
            role: 'ours',
            name: `sunwise beside ${(load * putsPerSecond) / 1000}K puts/s`,
            open: inChild(module, { ...options, putsPerSecond }),
          },
          { role: 'peer', name: idle, open: inChild(module, { ...options, putsPerSecond: 0 }) },
        ],
      },
    ]
  },
}
