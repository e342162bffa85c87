import { type Case, notMeasured, type Row } from '../case.ts'
import { overHttp, renderRequest } from '../http-contender.ts'
import { valueBytes } from '../key-set.ts'

const keysPerRequest = 100
const single = 'sunwise, one key a request'

/** H3: 100 keys in one request. Peer is the store itself with one key a request (row H1). */
export const row: Row = {
  name: 'H3',
  title: 'HTTP batch of 100 keys, keys per second',
  group: 'http',
  cases: ({ connections, roundMs }) =>
    ['get', 'put'].map(
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
            name: 'fastify, constant reply of 100 values',
            open: overHttp({
              module: 'contenders/fastify-server.ts',
              options: { workers: 1 },
              requests: [renderRequest('POST', '/v1/batch', Buffer.alloc(keysPerRequest * (16 + valueBytes)))],
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
