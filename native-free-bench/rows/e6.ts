import type { Row } from '../case.ts'
import { inChild } from '../isolate.ts'
import { keyBytes, valueBytes } from '../key-set.ts'
import { memoryBytesOf, memoryFlags, sizeText } from './table-settings.ts'

const peer = 'db_bench readwhilewriting'
/** Both sides write so fast, which makes ours flush once or twice in a round: db_bench takes bytes per second. Left alone its writer goes as fast as it can, ours has another peak. */
const putsPerSecond = 50_000

/**
 * E6: one reader beside writes at a steady rate. db_bench writes from a second thread; ours from the reader's own, whose reads
 * per second therefore pay for the calls of `put`, too. Each read is timed by itself on both sides.
 */
export const row: Row = {
  name: 'E6',
  title: `random get beside ${putsPerSecond / 1000}K random puts/s, 16+100 B`,
  group: 'engine',
  cases: ({ tableKeys, mode, roundMs: usualRoundMs, scratch }) => {
    const keys = tableKeys[0]!
    const memoryBytes = memoryBytesOf(keys, mode)
    // db_bench counts its duration in whole seconds.
    const roundMs = mode === 'smoke' ? usualRoundMs : 3000
    return [
      {
        label: sizeText(keys, memoryBytes),
        unit: 'op/s',
        higherIsBetter: true,
        gates: [
          { against: peer, atLeast: 1.5, stretch: 3 },
          { count: 'p99 us', timesOf: peer, atMost: 1.5, stretch: 1 },
        ],
        contenders: [
          {
            role: 'ours',
            name: 'sunwise getInto and put',
            open: inChild('contenders/sunwise-read-while-writing.ts', {
              scratch,
              keys,
              memoryBytes,
              valueBytes,
              roundMs,
              putsPerSecond,
            }),
          },
          {
            role: 'peer',
            name: peer,
            open: inChild('contenders/db-bench.ts', {
              scratch,
              benchmark: 'readwhilewriting',
              fill: 'fillrandom,waitforcompaction',
              operations: keys,
              threads: 1,
              flags: [
                ...memoryFlags(memoryBytes),
                `--duration=${Math.ceil(roundMs / 1000)}`,
                '--histogram=1',
                `--benchmark_write_rate_limit=${putsPerSecond * (keyBytes + valueBytes)}`,
              ],
            }),
          },
        ],
      },
    ]
  },
}
