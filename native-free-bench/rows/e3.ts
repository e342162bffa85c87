import { notMeasured, type Row } from '../case.ts'
import { inChild } from '../isolate.ts'

const lmdb = 'lmdb put, noSync'
const level = 'classic-level batch(1000)'

/** E3: writing in the process where the kernel, not the disk, has the bytes before the answer (durability `os`). */
export const row: Row = {
  name: 'E3',
  title: 'in-process put, durability os, 16+100 B, random overwrites',
  group: 'engine',
  cases: ({ writtenKeys: keys, roundMs, scratch }) => [
    {
      label: '64 in flight',
      unit: 'op/s',
      higherIsBetter: true,
      gates: [{ against: lmdb, atLeast: 2, stretch: 3 }],
      contenders: [
        { role: 'ours', name: 'sunwise put', open: notMeasured('no contender yet') },
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
      ],
    },
    {
      label: 'batch(1000)',
      unit: 'op/s',
      higherIsBetter: true,
      gates: [{ against: level, atLeast: 2, stretch: 4 }],
      contenders: [
        { role: 'ours', name: 'sunwise batch', open: notMeasured('no contender yet') },
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
      ],
    },
  ],
}
