import { countText, type Row } from '../case.ts'
import { inChild } from '../isolate.ts'

const redis = 'redis used_memory'

/** M1: memory per record of 16+100 B: what the store accounts for, and beside it how much the process grew. */
export const row: Row = {
  name: 'M1',
  title: 'memory per record, 16+100 B',
  group: 'limits',
  cases: ({ keySets, scratch }) => {
    const keys = Math.max(...keySets)
    return [
      {
        label: `${countText(keys)} records`,
        unit: 'B/record',
        higherIsBetter: false,
        gates: [{ against: redis, atLeast: 1 / 0.95, stretch: 1 / 0.75 }],
        contenders: [
          { role: 'ours', name: 'sunwise', open: inChild('contenders/sunwise-memory.ts', { scratch, keys }) },
          { role: 'peer', name: redis, open: inChild('contenders/redis-memory.ts', { scratch, keys }) },
          { role: 'shown', name: 'Map<string, Buffer>', open: inChild('contenders/map-memory.ts', { keys }) },
        ],
      },
    ]
  },
}
