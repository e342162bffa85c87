/** The HTTP listener of one shard worker: the server of `http/` over this thread's coordinator. */
import { diskFullWarning } from '../storage/disk-keeper.ts'
import { ControlWord } from '../storage/shard-memory.ts'
import { HttpCounters, renderHttpMetrics } from './http/counters.ts'
import { createHttpServer, type HttpServer, type ListenAddress } from './http/server.ts'
import type { MemberClient } from './member-client.ts'
import type { ShardSeed } from './messages.ts'
import { renderProcessMetrics, renderShardMetrics } from './metrics.ts'
import type { ThreadRuntime } from './thread-runtime.ts'
import { version } from './version.ts'

/** Starts listening; rejects with ADDRESS_IN_USE and the like. */
export async function startWorkerHttp(
  own: ShardSeed,
  runtime: ThreadRuntime,
  member: MemberClient | undefined,
  controls: () => readonly Int32Array[],
  where: { readonly host: string; readonly port: number; readonly reusePort: boolean },
): Promise<{ readonly server: HttpServer; readonly address: ListenAddress }> {
  const { http } = own
  if (http === undefined) throw new Error('This node serves no HTTP')
  const counters = http.counters.map((buffer) => new HttpCounters(buffer))
  const memberWord = own.member === undefined ? undefined : new Int32Array(own.member)
  const unready = (): string[] => {
    const down = runtime.readers.flatMap((reader, shard) => (reader.isUp ? [] : [`shard ${shard} is recovering`]))
    const isOutside = memberWord !== undefined && Atomics.load(memberWord, 0) === 0
    return isOutside ? [...down, 'the node is not yet a member of its cluster'] : down
  }
  const server = createHttpServer({
    coordinator: member ?? runtime.coordinator,
    cluster: member,
    buckets: runtime.buckets,
    clock: runtime.clock,
    limits: http.limits,
    counters: counters[own.shard]!,
    requestIdPrefix: `${http.nodeId.slice(0, 4)}${own.shard.toString(36)}${Math.floor(Math.random() * 46656).toString(36)}-`,
    health: { liveProblems: () => [], readyProblems: unready, readyWarnings: () => diskWarnings(controls()) },
    metrics: () => renderShardMetrics(controls()) + renderHttpMetrics(counters) + renderProcessMetrics(),
    version,
    nodeId: http.nodeId,
    allowedHosts: http.allowedHosts,
    insecure: http.insecure,
  })
  const address = await server.listen({ host: where.host, port: where.port, reusePort: where.reusePort })
  return { server, address }
}

/** A full disk keeps nobody from reading: the node stays ready. */
function diskWarnings(controls: readonly Int32Array[]): string[] {
  return controls.some((control) => Atomics.load(control, ControlWord.diskFull) === 1) ? [diskFullWarning] : []
}
