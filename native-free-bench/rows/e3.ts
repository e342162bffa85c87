import type { Row } from '../case.ts'
import { inChild } from '../isolate.ts'
import { probeFlags } from '../shard-facts.ts'

const lmdb = 'lmdb put, noSync'
const level = 'classic-level batch(1000)'

/** E3: writing in the process where the kernel, not the disk, has the bytes before the answer (durability `os`). */
export const row: Row = {
  name: 'E3',
  title: 'in-process put, durability os, 16+100 B, random overwrites',
  group: 'engine',
  cases: ({ writtenKeys: keys, roundMs, scratch }) => {
    const ours = { scratch, keys, roundMs, shards: 1, durability: 'os' }
    return [
      {
        label: '64 in flight',
        unit: 'op/s',
        higherIsBetter: true,
        gates: [
          { against: lmdb, atLeast: 2, stretch: 3 },
          { count: 'wakes/op', atMost: 0.1, stretch: 0.05 },
        ],
        contenders: [
          {
            role: 'ours',
            name: 'sunwise put',
            open: inChild('contenders/sunwise-put.ts', { ...ours, inFlight: 64, batch: 1 }, probeFlags()),
          },
          {
            role: 'peer',
            name: lmdb,
            open: inChild('contenders/lmdb-put.ts', { scratch, keys, roundMs, inFlight: 64, sync: false }),
          },
          {
            role: 'floor',
            name: 'pwrite of 64 records',
            open: inChild('contenders/floor-append.ts', { scratch, roundMs, group: 64, sync: false }),
          },
          {
            role: 'shown',
            name: 'sunwise engine alone, groups of 64',
            open: inChild('contenders/sunwise-engine-put.ts', { scratch, keys, roundMs, group: 64 }),
          },
        ],
      },
      {
        label: 'batch(1000)',
        unit: 'op/s',
        higherIsBetter: true,
        gates: [{ against: level, atLeast: 2, stretch: 4 }],
        contenders: [
          {
            role: 'ours',
            name: 'sunwise batch',
            open: inChild('contenders/sunwise-put.ts', { ...ours, inFlight: 1, batch: 1000 }, probeFlags()),
          },
          {
            role: 'peer',
            name: level,
            open: inChild('contenders/level-batch.ts', { scratch, keys, roundMs, batch: 1000 }),
          },
          {
            role: 'floor',
            name: 'pwrite of 1000 records',
            open: inChild('contenders/floor-append.ts', { scratch, roundMs, group: 1000, sync: false }),
          },
          {
            role: 'shown',
            name: 'sunwise engine alone, groups of 1000',
            open: inChild('contenders/sunwise-engine-put.ts', { scratch, keys, roundMs, group: 1000 }),
          },
        ],
      },
    ]
  },
}
