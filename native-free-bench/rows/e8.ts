import type { Row } from '../case.ts'
import { inChild } from '../isolate.ts'
import { valueBytes } from '../key-set.ts'
import { memoryBytesOf, memoryFlags, sizeText } from './table-settings.ts'

const peer = 'db_bench readmissing'

/** E8: reads of absent keys, as the fill left the tables: filters are asked, the disk hardly ever. */
export const row: Row = {
  name: 'E8',
  title: 'get of absent keys, as left by the fill, 16+100 B',
  group: 'engine',
  cases: ({ tableKeys, mode, roundMs, scratch }) => {
    const keys = tableKeys[0]!
    const memoryBytes = memoryBytesOf(keys, mode)
    const reads = mode === 'smoke' ? 2000 : roundMs * 300
    return [
      {
        label: sizeText(keys, memoryBytes),
        unit: 'op/s',
        higherIsBetter: true,
        gates: [
          { against: peer, atLeast: 5, stretch: 15 },
          { count: 'preads/absent key', atMost: 0.02, stretch: 0.01 },
        ],
        contenders: [
          {
            role: 'ours',
            name: 'sunwise getInto',
            open: inChild('contenders/sunwise-table-get.ts', {
              scratch,
              keys,
              memoryBytes,
              valueBytes,
              roundMs,
              absent: true,
              settles: false,
            }),
          },
          {
            role: 'peer',
            name: peer,
            open: inChild('contenders/db-bench.ts', {
              scratch,
              benchmark: 'readmissing',
              fill: 'fillrandom',
              operations: keys,
              threads: 1,
              flags: [...memoryFlags(memoryBytes), `--reads=${reads}`, '--disable_auto_compactions=1'],
            }),
          },
        ],
      },
    ]
  },
}
