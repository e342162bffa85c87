import type { Contender, Row } from '../case.ts'
import { overHttp } from '../http-contender.ts'
import { probeFlags } from '../shard-facts.ts'
import { mixedRequests } from './http-requests.ts'

const longest = 'longest callback ms'
/** Little enough that segments are recycled while the load runs. */
const memoryBytes = 256 * 2 ** 20

/**
 * L2: the longest callback on a serving thread under load, as a hook in the thread sees it; beside it the longest
 * by processor time, which other work on the machine cannot stretch, and the longest delay of the event loop.
 */
export const row: Row = {
  name: 'L2',
  title: 'longest callback on a serving thread under load',
  group: 'limits',
  cases: ({ mode, roundMs, connections, servedKeys: keys, scratch }) => {
    // A long stretch is rare: this row listens longer than others, in a full run for ten minutes.
    const listenMs = mode === 'full' ? 120_000 : mode === 'smoke' ? roundMs : 10 * roundMs
    const open = overHttp({
      module: 'contenders/sunwise-server.ts',
      options: { scratch, workers: 1, durability: 'sync', keys, memoryBytes },
      requests: mixedRequests(keys),
      replies: 'scanned',
      connections,
      roundMs: listenMs,
      nodeFlags: probeFlags(true),
    })
    return [
      {
        label: `gets, puts, batches, lists on 1 worker, ${connections} connections`,
        unit: 'ms',
        higherIsBetter: false,
        gates: [{ count: longest, atMost: 5, stretch: 2 }],
        contenders: [{ role: 'ours', name: 'sunwise', open: () => open().then(longestOf) }],
      },
    ]
  },
}

/** The server as a contender whose value is its longest callback. */
function longestOf(server: Contender): Contender {
  return {
    run: async () => {
      const { value, operations, counts } = await server.run()
      return { value: counts[longest] ?? Number.NaN, operations, counts: { ...counts, 'requests/s': value } }
    },
    close: () => server.close(),
  }
}
