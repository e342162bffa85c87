/** One server: a node whose shard workers listen for HTTP. The node thread is the caller's, normally the main thread. */
import { availableParallelism } from 'node:os'
import { SunwiseError } from '../base/errors.ts'
import { type Compression, type Config, ConfigDefaults, type Durability, Limits } from '../config.ts'
import { ClusterMember, type ClusterMemberOptions, type OpenPeers } from './cluster-member.ts'
import { probeBind } from './http/address.ts'
import { HttpCounters } from './http/counters.ts'
import { httpLimitsOf } from './http/front.ts'
import { NodeHost } from './node-host.ts'

export type ServerOptions = {
  readonly directory: string
  readonly http: { readonly host: string; readonly port: number }
  /** 0: one per core. */
  readonly shards: number
  readonly memoryBytes: number
  readonly durability: Durability
  readonly syncIntervalMs: number
  readonly valueBytesMax: number
  readonly compression?: Compression | undefined
  /** Bytes of tables to look through for damage in a second; default 4 MiB, 0 for none. */
  readonly scrubBytesPerSecond?: number | undefined
  /** Allows an address other than loopback without authentication. */
  readonly insecure: boolean
  /** Names by which clients may call this server in their Host header, beside localhost and its address. */
  readonly allowedHosts?: readonly string[] | undefined
  /** Makes the node a member of a cluster. Left out, it serves alone. */
  readonly cluster?: ClusterOptions | undefined
  /** Keep what is readable of a damaged log, under a new actor. */
  readonly salvage?: boolean | undefined
  readonly log: (line: string) => void
  /** Called at most once, when the server can no longer serve. */
  readonly onFatal: (error: Error) => void
}

export type ClusterOptions = {
  /** Where other nodes reach it. */
  readonly openPeers: OpenPeers
  /** Addresses of members to join; none: it begins a cluster, or goes on in the one that its data belongs to. */
  readonly join: readonly string[]
  /** Where it stands: replicas of a key are in different zones, where there are enough. */
  readonly zone: string
  /** Id of the member whose place it takes. */
  readonly replaces?: string | undefined
  readonly node?: ClusterMemberOptions['node']
}

export type RunningServer = {
  /** Where it really listens. */
  readonly address: { readonly host: string; readonly port: number }
  readonly nodeId: string
  readonly shards: number
  readonly recoveredRecords: number
  /** Where other nodes reach it; undefined where it serves alone. */
  readonly peerAddress: string | undefined
  /** Resolves when the node serves: as a member of its cluster, where it is to be in one. Rejects where it cannot become one. */
  readonly joined: Promise<void>
  /** Refuses new requests and settles when those under way are done, at the latest after `graceMs`. */
  drain(graceMs: number): Promise<void>
  /** Ends cleanly: everything acknowledged is on stable storage afterwards. */
  close(): Promise<void>
}

/** Shards for `0`: one per core, but no more than the machine has. */
export function defaultShards(): number {
  return Math.max(1, Math.min(Limits.shardsMax, availableParallelism()))
}

/** Completes and checks what a user may set. @throws BAD_CONFIG */
export function configOf(
  options: Omit<Config, 'segmentBytes' | 'shards' | 'compression' | 'scrubBytesPerSecond'> & {
    readonly shards: number
    readonly segmentBytes?: number
    readonly compression?: Compression | undefined
    readonly scrubBytesPerSecond?: number | undefined
  },
): Config {
  const shards = options.shards === 0 ? defaultShards() : options.shards
  const check = (isGood: boolean, what: string): void => {
    if (!isGood) throw new SunwiseError('BAD_CONFIG', `Cannot start: ${what}`)
  }
  check(
    Number.isInteger(shards) && shards >= 1 && shards <= Limits.shardsMax,
    `shards must be 1 to ${Limits.shardsMax}`,
  )
  check(Number.isSafeInteger(options.memoryBytes) && options.memoryBytes > 0, 'memory must be a number of bytes')
  check(
    Number.isInteger(options.valueBytesMax) &&
      options.valueBytesMax >= 1 &&
      options.valueBytesMax <= Limits.valueBytesMax,
    `the largest value must be 1 to ${Limits.valueBytesMax} bytes`,
  )
  check(options.syncIntervalMs >= 1 && options.syncIntervalMs <= 60_000, 'the sync interval must be 1 to 60000 ms')
  const compression = options.compression ?? ConfigDefaults.compression
  check(compression === 'none' || compression === 'zstd', 'compression must be none or zstd')
  const scrubBytesPerSecond = options.scrubBytesPerSecond ?? ConfigDefaults.scrubBytesPerSecond
  check(scrubBytesPerSecond >= 0 && scrubBytesPerSecond <= 2 ** 30, 'the scrub rate must be 0 to 1 GiB a second')
  return { ...options, shards, compression, scrubBytesPerSecond, segmentBytes: options.segmentBytes ?? 0 }
}

/** Starts a server; rejects with a coded error, and then nothing is left running. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { host } = options.http
  // Bound exclusively once: with SO_REUSEPORT a second process would silently take half of the requests.
  const port = await probeBind(host, options.http.port, options.insecure)
  const config = configOf(options)
  const node = await NodeHost.start(
    {
      config,
      http: {
        limits: httpLimitsOf(config),
        allowedHosts: options.allowedHosts ?? [],
        insecure: options.insecure,
      },
      frontEnd: options.cluster !== undefined,
      isMember: options.cluster !== undefined,
      salvage: options.salvage ?? false,
      log: options.log,
      onFatal: options.onFatal,
    },
    HttpCounters.bytes,
  )
  let member: ClusterMember | undefined
  try {
    const { cluster, log, onFatal } = options
    if (cluster !== undefined) member = await ClusterMember.start({ ...cluster, host: node, config, log, onFatal })
    await node.listen(host, port)
  } catch (error) {
    await member?.close()
    await node.close()
    throw error
  }
  return {
    address: { host, port },
    nodeId: node.identity.nodeId,
    shards: node.shards,
    recoveredRecords: node.recoveredRecords,
    peerAddress: member?.address,
    joined: member?.joined ?? Promise.resolve(),
    drain: (graceMs) => node.drain(graceMs),
    close: async () => {
      await member?.close()
      await node.close()
    },
  }
}
