import { availableParallelism } from 'node:os'
import type { Row } from '../case.ts'
import { inChild } from '../isolate.ts'
import { probeFlags } from '../shard-facts.ts'

const one = 'sunwise put, 1 shard'

/** T2: what a second shard brings to E3. Peer is the store itself with one shard; two cores cannot tell. */
export const row: Row = {
  name: 'T2',
  title: 'in-process put with more shards',
  group: 'threads',
  cases: ({ threads, writtenKeys: keys, roundMs, scratch }) => {
    const withShards = (shards: number) =>
      inChild(
        'contenders/sunwise-put.ts',
        { scratch, keys, roundMs, shards, durability: 'os', inFlight: 64, batch: 1 },
        probeFlags(),
      )
    return threads
      .filter((count) => count > 1)
      .map((count) => ({
        label: `${count} shards`,
        unit: 'op/s',
        higherIsBetter: true,
        gates: count === 2 ? [{ against: one, atLeast: 1.6, stretch: 1.9 }] : [],
        notJudgedBecause: availableParallelism() < 4 ? 'fewer than 4 cores' : undefined,
        contenders: [
          { role: 'ours', name: `sunwise put, ${count} shards`, open: withShards(count) },
          { role: 'peer', name: one, open: withShards(1) },
        ],
      }))
  },
}
