import { type Case, notMeasured, type Row } from '../case.ts'
import { overHttp } from '../http-contender.ts'
import { batchRequests } from './http-requests.ts'

const keysPerRequest = 100
const single = 'sunwise, one key a request'

/** H3: 100 keys in one request. Peer is the store itself with one key a request (row H1). */
export const row: Row = {
  name: 'H3',
  title: 'HTTP batch of 100 keys, keys per second',
  group: 'http',
  cases: ({ connections, roundMs, writtenKeys }) =>
    (['get', 'put'] as const).map(
      (operation): Case => ({
        label: `100 ${operation}s, 1 worker, ${connections} connections`,
        unit: 'keys/s',
        higherIsBetter: true,
        gates: [{ against: single, atLeast: 8, stretch: 20 }],
        contenders: [
          { role: 'ours', name: `sunwise batch of ${operation}s`, open: notMeasured('no contender yet') },
          { role: 'peer', name: single, open: notMeasured('no contender yet') },
          {
            role: 'shown',
            name: 'fastify, reads the body, constant reply',
            open: overHttp({
              module: 'contenders/fastify-server.ts',
              options: { workers: 1 },
              requests: batchRequests(operation, keysPerRequest, writtenKeys),
              replies: 'fixed',
              connections,
              roundMs,
              keysPerRequest,
            }),
          },
        ],
      }),
    ),
}
