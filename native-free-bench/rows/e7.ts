import type { Row } from '../case.ts'
import { inChild } from '../isolate.ts'
import { valueBytes } from '../key-set.ts'
import { memoryBytesOf, memoryFlags, sizeText } from './table-settings.ts'

const peer = 'db_bench readrandom, cold'

/**
 * E7: reads that go to the device. A round begins with none of the files in the page cache and ends long before they are all back
 * in it; both sides read through the page cache, so the kernel's read-ahead is the same for both.
 */
export const row: Row = {
  name: 'E7',
  title: 'random get from tables, page cache dropped before each round, 16+100 B',
  group: 'engine',
  cases: ({ tableKeys, mode, roundMs, scratch }) => {
    const keys = tableKeys[0]!
    const memoryBytes = memoryBytesOf(keys, mode)
    const coldReads = mode === 'smoke' ? 200 : 3000
    return [
      {
        label: `${coldReads} reads, ${sizeText(keys, memoryBytes)}`,
        unit: 'op/s',
        higherIsBetter: true,
        gates: [
          { against: peer, atLeast: 0.7, stretch: 1 },
          { count: 'preads/present key', atMost: 1.05, stretch: 1 },
        ],
        contenders: [
          {
            role: 'ours',
            name: 'sunwise getInto, cold',
            open: inChild('contenders/sunwise-table-get.ts', {
              scratch,
              keys,
              memoryBytes,
              valueBytes,
              roundMs,
              absent: false,
              settles: true,
              coldReads,
            }),
          },
          {
            role: 'peer',
            name: peer,
            open: inChild('contenders/db-bench.ts', {
              scratch,
              benchmark: 'readrandom',
              fill: 'fillrandom,compact',
              operations: keys,
              threads: 1,
              flags: [...memoryFlags(memoryBytes), `--reads=${coldReads}`],
              isCold: true,
            }),
          },
        ],
      },
    ]
  },
}
