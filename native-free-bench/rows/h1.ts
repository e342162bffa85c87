import type { Row } from '../case.ts'
import { overHttp } from '../http-contender.ts'
import { probeFlags } from '../shard-facts.ts'
import { getRequests } from './http-requests.ts'

const peer = 'fastify, constant reply'

/** H1: GET over HTTP with keep-alive, against a fastify that does nothing else. */
export const row: Row = {
  name: 'H1',
  title: 'HTTP GET 100 B, keep-alive',
  group: 'http',
  cases: ({ threads, connections, roundMs, servedKeys: keys, scratch }) =>
    threads.map((workers) => ({
      label: `${workers} worker${workers > 1 ? 's' : ''}, ${connections} connections`,
      unit: 'op/s',
      higherIsBetter: true,
      gates: [
        { against: peer, atLeast: 0.85, stretch: 0.95 },
        { count: 'p50 ms at 50 %', atMost: 1, stretch: 1 },
      ],
      contenders: [
        {
          role: 'ours',
          name: 'sunwise GET',
          open: overHttp({
            module: 'contenders/sunwise-server.ts',
            options: { scratch, workers, durability: 'sync', keys },
            requests: getRequests(keys),
            replies: 'scanned',
            connections,
            roundMs,
            latency: true,
            nodeFlags: probeFlags(),
          }),
        },
        {
          role: 'peer',
          name: peer,
          open: overHttp({
            module: 'contenders/fastify-server.ts',
            options: { workers },
            requests: getRequests(keys),
            replies: 'scanned',
            connections,
            roundMs,
            latency: true,
          }),
        },
      ],
    })),
}
