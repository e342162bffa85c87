import { notMeasured, type Row } from '../case.ts'
import { overHttp } from '../http-contender.ts'
import { getRequests } from './http-requests.ts'

const peer = 'fastify, constant reply'

/** H1: GET over HTTP with keep-alive, against a fastify that does nothing else. */
export const row: Row = {
  name: 'H1',
  title: 'HTTP GET 100 B, keep-alive',
  group: 'http',
  cases: ({ threads, connections, roundMs, writtenKeys }) =>
    threads.map((workers) => ({
      label: `${workers} worker${workers > 1 ? 's' : ''}, ${connections} connections`,
      unit: 'op/s',
      higherIsBetter: true,
      gates: [
        { against: peer, atLeast: 0.85, stretch: 0.95 },
        { count: 'p50 ms at 50 %', atMost: 1, stretch: 1 },
      ],
      contenders: [
        { role: 'ours', name: 'sunwise GET', open: notMeasured('no contender yet') },
        {
          role: 'peer',
          name: peer,
          open: overHttp({
            module: 'contenders/fastify-server.ts',
            options: { workers },
            requests: getRequests(writtenKeys),
            replies: 'fixed',
            connections,
            roundMs,
            latency: true,
          }),
        },
      ],
    })),
}
