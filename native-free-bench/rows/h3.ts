import type { Case, Row } from '../case.ts'
import { overHttp } from '../http-contender.ts'
import { probeFlags } from '../shard-facts.ts'
import { batchRequests, getRequests, putRequests } from './http-requests.ts'

const keysPerRequest = 100
const single = 'sunwise, one key a request'

/** H3: 100 keys in one request. Peer is the store itself with one key a request (row H1). */
export const row: Row = {
  name: 'H3',
  title: 'HTTP batch of 100 keys, keys per second, durability sync',
  group: 'http',
  cases: ({ connections, roundMs, servedKeys: keys, scratch }) =>
    (['get', 'put'] as const).map((operation): Case => {
      const batches = batchRequests(operation, keysPerRequest, keys)
      const load = { replies: 'scanned', connections, roundMs } as const
      const server = {
        module: 'contenders/sunwise-server.ts',
        options: { scratch, workers: 1, durability: 'sync', keys },
        nodeFlags: probeFlags(),
        ...load,
      }
      return {
        label: `100 ${operation}s, 1 worker, ${connections} connections`,
        unit: 'keys/s',
        higherIsBetter: true,
        gates: [{ against: single, atLeast: 8, stretch: 20 }],
        contenders: [
          {
            role: 'ours',
            name: `sunwise batch of ${operation}s`,
            open: overHttp({ ...server, requests: batches, keysPerRequest }),
          },
          {
            role: 'peer',
            name: single,
            open: overHttp({ ...server, requests: operation === 'get' ? getRequests(keys) : putRequests(keys) }),
          },
          {
            role: 'shown',
            name: 'fastify, reads the body, constant reply',
            open: overHttp({
              module: 'contenders/fastify-server.ts',
              options: { workers: 1 },
              requests: batches,
              keysPerRequest,
              ...load,
            }),
          },
        ],
      }
    }),
}
