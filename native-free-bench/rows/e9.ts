import type { Row } from '../case.ts'
import { inChild } from '../isolate.ts'
import { probeFlags } from '../shard-facts.ts'

const dbBench = 'db_bench --sync=1'
const lmdb = 'lmdb put, synced'
const floor = 'pwrite + fdatasync'

/** E9: 64 writers whose every put is on disk before its answer. The floor commits one record at a time. */
export const row: Row = {
  name: 'E9',
  title: 'durable put, durability sync, 64 writers, 16+100 B',
  group: 'engine',
  cases: ({ writtenKeys: keys, roundMs, scratch, mode }) => [
    {
      label: '64 writers',
      unit: 'op/s',
      higherIsBetter: true,
      gates: [
        { against: dbBench, atLeast: 3, stretch: 5 },
        { against: lmdb, atLeast: 2, stretch: 3.5 },
        { against: floor, atLeast: 10, stretch: 30 },
      ],
      contenders: [
        {
          role: 'ours',
          name: 'sunwise put',
          open: inChild(
            'contenders/sunwise-put.ts',
            { scratch, keys, roundMs, shards: 1, durability: 'sync', inFlight: 64, batch: 1 },
            probeFlags(),
          ),
        },
        {
          role: 'peer',
          name: dbBench,
          open: inChild('contenders/db-bench.ts', {
            scratch,
            benchmark: 'fillrandom',
            operations: mode === 'smoke' ? 20 : 1000,
            threads: 64,
            flags: ['--sync=1'],
          }),
        },
        {
          role: 'peer',
          name: lmdb,
          open: inChild('contenders/lmdb-put.ts', { scratch, keys, roundMs, inFlight: 64, sync: true }),
        },
        {
          role: 'floor',
          name: floor,
          open: inChild('contenders/floor-append.ts', { scratch, roundMs, group: 1, sync: true }),
        },
        {
          role: 'shown',
          name: 'pwrite of 64 records + fdatasync',
          open: inChild('contenders/floor-append.ts', { scratch, roundMs, group: 64, sync: true }),
        },
      ],
    },
  ],
}
