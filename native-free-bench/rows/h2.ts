import type { Row } from '../case.ts'
import { overHttp } from '../http-contender.ts'
import { probeFlags } from '../shard-facts.ts'
import { putRequests } from './http-requests.ts'

const peer = 'fastify, reads the body'

/** H2: PUT over HTTP, on disk before the answer, against a fastify that reads the body and forgets it. */
export const row: Row = {
  name: 'H2',
  title: 'HTTP PUT 100 B, durability sync',
  group: 'http',
  cases: ({ threads, connections, roundMs, servedKeys: keys, scratch }) =>
    threads.map((workers) => ({
      label: `${workers} worker${workers > 1 ? 's' : ''}, ${connections} connections`,
      unit: 'op/s',
      higherIsBetter: true,
      gates: [{ against: peer, atLeast: 0.6, stretch: 0.8 }],
      contenders: [
        {
          role: 'ours',
          name: 'sunwise PUT',
          open: overHttp({
            module: 'contenders/sunwise-server.ts',
            options: { scratch, workers, durability: 'sync', keys },
            requests: putRequests(keys),
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
            requests: putRequests(keys),
            replies: 'scanned',
            connections,
            roundMs,
            latency: true,
          }),
        },
      ],
    })),
}
