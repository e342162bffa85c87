/**
 * One member of a cluster: composes what agrees on the topology, what knows who answers, and what coordinates, holds and repairs data, over
 * the doors, and says which of them a message is for. Nothing else happens here. A node by itself is a cluster of one.
 *
 * An object without a thread: requests go to `coordinator` and `change`, `receive` takes what peers send, `receiveReply` what shards send,
 * `tick` passes time on.
 *
 * A message between nodes is its channel, one byte, and what stands behind it in that channel's own form:
 *
 *   1 data         replication/peer-message.ts
 *   2 membership   cluster/membership/messages.ts
 *   3 chain        cluster/topology/chain-messages.ts
 *   4 moves        cluster/topology/move-messages.ts
 *   5 admission    cluster/admission.ts; asked by nodes that are no part of a cluster yet, and run no Node
 *   6 clock        cluster/clock-watch.ts
 */

import { ByteReader, ByteWriter } from './base/bytes.ts'
import type { HashSeed } from './base/key-hash.ts'
import { decodeAdmission, encodeAdmission } from './cluster/admission.ts'
import { ClockWatch } from './cluster/clock-watch.ts'
import { Membership, type MembershipParameters } from './cluster/membership/membership.ts'
import { CatalogChainStore } from './cluster/topology/catalog-chain-store.ts'
import { Chain } from './cluster/topology/chain.ts'
import { MoveDriver, type MoveParameters } from './cluster/topology/move-driver.ts'
import type { ChangeDone, TopologyChange } from './cluster/topology/proposals.ts'
import type { Topology, TopologyBucket } from './cluster/topology/topology.ts'
import { type Durability, Limits } from './config.ts'
import type { Catalog, Clock, Network, Random, Shards } from './env.ts'
import { Exchanges, firstExchangeRequestId } from './replication/exchanges.ts'
import { HintCredit } from './replication/hint-credit.ts'
import { firstHintRequestId, HintStore } from './replication/hint-store.ts'
import { LocalReplica } from './replication/local-replica.ts'
import { PartitionKeeper } from './replication/partition-keeper.ts'
import { decodePeerMessage, type PeerMessage } from './replication/peer-message.ts'
import { QuorumCoordinator } from './replication/quorum-coordinator.ts'
import { RepairBudget } from './replication/repair-budget.ts'
import { RepairLedger, type RepairStatus } from './replication/repair-ledger.ts'
import { Replica } from './replication/replica.ts'
import type { Bucket } from './replication/requests.ts'
import { TopologyRouting } from './replication/topology-routing.ts'
import type { KeyReader } from './storage/shard-reader.ts'

export type NodeOptions = {
  readonly nodeId: string
  /** Where others reach it. */
  readonly address: string
  readonly clock: Clock
  readonly random: Random
  readonly catalog: Catalog
  readonly network: Network
  readonly shards: Shards
  readonly readerOf: (shard: number) => KeyReader
  readonly hashSeed: HashSeed
  readonly clusterKey: Uint8Array
  readonly durability: Durability
  /** Largest value of buckets that name none; no bucket takes more here. Default: `Limits.valueBytesDefault`. */
  readonly valueBytesMax?: number
  /** The cluster that the node begins where its catalog knows of none; undefined: it takes the one of its seeds. */
  readonly founds: Topology | undefined
  /** Where the catalog is: in another place it is a copy, which may be old. */
  readonly place?: string
  /** Addresses where others may be. */
  readonly seeds: readonly string[]
  /** Milliseconds between two exchanges of this node with others. */
  readonly exchangeRestMs: number
  /** Of hints, exchanges and moves together; default: `Limits.repairBytesPerSecondDefault`. */
  readonly repairBytesPerSecond?: number
  /** Bytes of all hints; default: `Limits.hintBytesMax`. */
  readonly hintBytesMax?: number
  readonly membership?: Partial<MembershipParameters>
  readonly moves?: Partial<MoveParameters>
  /** The node goes by another epoch from now on. */
  readonly adopted?: (topology: Topology) => void
}

/** Who a message comes from, as the transport knows. */
export type Peer = { readonly nodeId: string; readonly address: string }

/** How a node stands to a peer with a partition: plain data for an operator. `isUnderWay`: they are being compared. */
export type PartitionRepairStatus = RepairStatus & {
  readonly partition: number
  readonly peer: string
  readonly isUnderWay: boolean
}

const Channel = { data: 1, membership: 2, chain: 3, moves: 4, admission: 5, clock: 6 } as const
const incarnationKey = 'incarnation'
/** Nodes that are no members and have asked something: they are answered where they asked from. */
const strangersMax = 64

export class Node {
  readonly replica: LocalReplica
  readonly coordinator: QuorumCoordinator
  readonly hints: HintStore
  readonly exchanges: Exchanges
  readonly repairs: RepairLedger
  readonly repairBudget: RepairBudget
  readonly hintCredit: HintCredit
  readonly membership: Membership
  readonly chain: Chain
  readonly keeper: PartitionKeeper
  readonly #options: NodeOptions
  readonly #server: Replica
  readonly clockWatch: ClockWatch
  readonly #moves: MoveDriver
  #routing: TopologyRouting | undefined
  #addresses: ReadonlyMap<string, string> = new Map()
  #buckets: ReadonlyMap<number, Bucket> = new Map()
  readonly #strangers = new Map<string, string>()
  /** Messages of peers that could not be read. */
  malformed = 0

  /** @throws CATALOG_CORRUPT, DISK_FAILED */
  constructor(options: NodeOptions) {
    const { nodeId, clock, random, catalog, network } = options
    this.#options = options
    const nowMs = clock.monotonicMs()
    this.membership = new Membership({
      nodeId,
      address: options.address,
      incarnation: nextIncarnation(catalog),
      random,
      nowMs,
      // The byte of the channel is in the datagram, too.
      parameters: { ...options.membership, datagramBytesMax: network.datagramBytesMax - 1 },
      send: (address, bytes, kind) => network.send(address, framed(Channel.membership, bytes), kind),
      refuted: (incarnation) => storeIncarnation(catalog, incarnation),
    })
    const routing = (): TopologyRouting => this.#routing!
    const send = (to: string, bytes: Uint8Array): boolean => this.#send(to, Channel.data, bytes)
    const bucketOf = (id: number): Bucket | undefined => this.#buckets.get(id)
    this.repairs = new RepairLedger(clock)
    this.repairBudget = new RepairBudget(clock, options.repairBytesPerSecond ?? Limits.repairBytesPerSecondDefault)
    this.hintCredit = new HintCredit(clock)
    const repair = { ledger: this.repairs, budget: this.repairBudget }
    const common = { ...options, ...repair, self: nodeId, routing, send, bucketOf }
    this.replica = new LocalReplica(options)
    const bytesMax = options.hintBytesMax ?? Limits.hintBytesMax
    this.hints = new HintStore({ ...common, replica: this.replica, bytesMax })
    this.clockWatch = new ClockWatch({
      clock,
      random,
      peers: () => [...this.#addresses.keys()].filter((other) => this.membership.isAlive(other) && other !== nodeId),
      send: (to, bytes) => this.#send(to, Channel.clock, bytes),
    })
    const isClockAstray = (): boolean => this.clockWatch.isAstray
    this.coordinator = new QuorumCoordinator({ ...common, replica: this.replica, hints: this.hints, isClockAstray })
    this.keeper = new PartitionKeeper({
      self: nodeId,
      replica: this.replica,
      exchangedIn: (partition, peer) => this.repairs.statusOf(partition, peer).epoch,
      mark: (partition, peer) => this.repairs.mark(partition, peer),
    })
    this.exchanges = new Exchanges({
      ...common,
      replica: this.replica,
      restMs: options.exchangeRestMs,
      partitions: this.keeper,
    })
    const { replica, hints, hintCredit: credit } = this
    const mayLackClock = (partition: number): boolean => this.keeper.mayLackClock(partition)
    this.#server = new Replica({ life: random.u32(), replica, hints, credit, mayLackClock, routing, send })
    const store = new CatalogChainStore(catalog)
    this.chain = new Chain({
      nodeId,
      random,
      nowMs,
      store,
      stored: store.read(),
      ...(options.place === undefined ? {} : { place: options.place }),
      send: (address, bytes) => network.send(address, framed(Channel.chain, bytes), 'stream'),
      changed: (topology, before) => this.#adopt(topology, before),
    })
    this.#moves = new MoveDriver({
      nodeId,
      topology: () => this.chain.topology,
      progress: () => this.keeper.progress,
      isAlive: (other) => this.membership.isAlive(other),
      change: (apply, done) => this.chain.change(apply, done),
      send: (to, bytes) => this.#send(to, Channel.moves, bytes),
      ...(options.moves === undefined ? {} : { parameters: options.moves }),
    })
    if (this.chain.topology !== undefined) this.#adopt(this.chain.topology, undefined)
    else if (options.founds !== undefined) this.chain.found(options.founds, () => {})
    else this.chain.follow(options.seeds)
    const others = [...this.#addresses.values()].filter((address) => address !== options.address)
    this.membership.join([...new Set([...others, ...options.seeds])], nowMs)
  }

  /** The epoch that this node goes by; undefined before it has heard of any: until then it serves nobody. */
  get topology(): Topology | undefined {
    return this.#routing?.topology
  }

  /** Changes the cluster; `done` is called once. */
  change(apply: TopologyChange, done: ChangeDone): void {
    this.chain.change(apply, done)
  }

  /** A message of another node. */
  receive(from: Peer, bytes: Uint8Array): void {
    const nowMs = this.#options.clock.monotonicMs()
    const body = bytes.subarray(1)
    switch (bytes[0]) {
      case Channel.data:
        return this.#receiveData(from, body)
      case Channel.membership:
        return this.membership.receive(from.address, body, nowMs)
      case Channel.chain:
        return this.chain.receive(from.address, body, nowMs)
      case Channel.moves:
        return this.#moves.receive(from.nodeId, body)
      case Channel.clock:
        return this.clockWatch.receive(from.nodeId, body)
      case Channel.admission:
        return this.#welcome(from, body)
      default:
        this.malformed++
    }
  }

  /** Tells a node that is to join which cluster this is. */
  #welcome(from: Peer, bytes: Uint8Array): void {
    const { topology } = this
    if (topology === undefined || decodeAdmission(bytes)?.type !== 'ask') return
    const { clusterKey, network } = this.#options
    const message = encodeAdmission({ type: 'welcome', clusterId: topology.clusterId, clusterKey })
    network.send(from.address, framed(Channel.admission, message), 'stream')
  }

  /** A bucket of the present topology. */
  bucket(id: number): Bucket | undefined {
    return this.#buckets.get(id)
  }

  /** Whether a node answers, as far as this one knows. */
  isAlive(nodeId: string): boolean {
    return nodeId === this.#options.nodeId || this.membership.isAlive(nodeId)
  }

  /** A shard has begun anew from its log, and is up: what it is to keep of partitions with replicas elsewhere, it is told again. */
  shardRestarted(): void {
    this.keeper.trackAnew()
  }

  #receiveData(from: Peer, bytes: Uint8Array): void {
    const message = decodePeerMessage(bytes)
    if (message === undefined) {
      this.malformed++
      return
    }
    if (this.#routing === undefined) return
    this.#meet(from)
    // Whoever is ahead knows what this node lacks.
    if (message.epoch > this.#routing.epoch) this.chain.heardOf(message.epoch, from.address)
    this.#dispatch(from.nodeId, message)
  }

  #dispatch(from: string, message: PeerMessage): void {
    if (message.type === 'write' || message.type === 'read' || message.type === 'compare' || message.type === 'list') {
      this.#server.receive(from, message)
    } else if (message.type !== 'forward' && message.requestId >= firstExchangeRequestId) {
      this.exchanges.receive(from, message)
    } else if (message.type === 'written' && message.requestId >= firstHintRequestId) this.hints.receive(from, message)
    else this.coordinator.receive(from, message)
  }

  /** A reply of a shard. */
  receiveReply(u8: Uint8Array, i32: Int32Array, start: number): void {
    this.replica.receive(u8, i32, start)
  }

  /** Every 20 to 100 ms. */
  tick(): void {
    const nowMs = this.#options.clock.monotonicMs()
    this.membership.tick(nowMs)
    this.chain.tick(nowMs)
    if (this.#routing === undefined) return
    this.replica.tick()
    this.coordinator.tick()
    this.repairBudget.tick()
    this.hints.tick()
    this.keeper.tick()
    this.exchanges.tick()
    this.#moves.tick(nowMs)
    this.clockWatch.tick(nowMs)
  }

  /** How this node stands to others with each partition that it holds together with them and that may hold something. */
  repairStatus(): readonly PartitionRepairStatus[] {
    const { underWay } = this.exchanges
    const statuses: PartitionRepairStatus[] = []
    for (const { partition, others } of this.keeper.held) {
      if (!this.keeper.isTouched(partition)) continue
      for (const peer of others) {
        const isUnderWay = underWay?.partition === partition && underWay.peer === peer
        statuses.push({ partition, peer, ...this.repairs.statusOf(partition, peer), isUnderWay })
      }
    }
    return statuses
  }

  /** From here on everything goes by another epoch. */
  #adopt(topology: Topology, before: Topology | undefined): void {
    const { valueBytesMax = Limits.valueBytesDefault } = this.#options
    this.#addresses = new Map(topology.members.map(({ nodeId, address }) => [nodeId, address]))
    if (topology.buckets !== before?.buckets)
      this.#buckets = new Map(topology.buckets.map((bucket) => [bucket.id, bucketOf(bucket, valueBytesMax)]))
    this.#routing = new TopologyRouting(topology, this.#options.nodeId, (other) => this.membership.isAlive(other))
    this.keeper.adopt(topology, before)
    for (const { nodeId } of before?.members ?? []) {
      if (!this.#addresses.has(nodeId) && nodeId !== this.#options.nodeId) this.membership.forget(nodeId)
    }
    this.#options.adopted?.(topology)
  }

  #meet({ nodeId, address }: Peer): void {
    if (this.#addresses.has(nodeId)) return
    this.#strangers.delete(nodeId)
    this.#strangers.set(nodeId, address)
    if (this.#strangers.size > strangersMax) this.#strangers.delete(this.#strangers.keys().next().value!)
  }

  #send(to: string, channel: number, bytes: Uint8Array): boolean {
    const address = this.#addresses.get(to) ?? this.#strangers.get(to)
    return address !== undefined && this.#options.network.send(address, framed(channel, bytes), 'stream')
  }
}

function framed(channel: number, bytes: Uint8Array): Uint8Array {
  const message = new Uint8Array(1 + bytes.length)
  message[0] = channel
  message.set(bytes, 1)
  return message
}

/** Row `incarnation`: u32. Above every one before; a start that cannot store it is told of by others, and goes on above that. */
function nextIncarnation(catalog: Catalog): number {
  const stored = catalog.get(incarnationKey)
  const incarnation = (stored === undefined ? 0 : new ByteReader(stored).u32()) + 1
  storeIncarnation(catalog, incarnation)
  return incarnation
}

function storeIncarnation(catalog: Catalog, incarnation: number): void {
  const writer = new ByteWriter(4)
  writer.u32(incarnation)
  catalog.commit([{ op: 'put', key: incarnationKey, value: writer.toBytes() }], () => {})
}

function bucketOf(bucket: TopologyBucket, valueBytesMax: number): Bucket {
  const own = Math.min(bucket.valueBytesMax ?? valueBytesMax, valueBytesMax)
  return { ...bucket, id: bucket.id as Bucket['id'], valueBytesMax: own }
}

/** The message by which a node that is to join asks which cluster it has reached, and what is behind the channel of an answer. */
export function admissionMessage(bytes: Uint8Array): Uint8Array {
  return framed(Channel.admission, bytes)
}

/** What stands in a message about admission; undefined where it is about something else. */
export function admissionOf(bytes: Uint8Array): Uint8Array | undefined {
  return bytes[0] === Channel.admission ? bytes.subarray(1) : undefined
}
