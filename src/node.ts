/**
 * One member of a cluster: composes coordinator, replica and hints over the doors, and says which of them a message is for. Nothing else
 * happens here. An object without a thread: requests go to `coordinator`, `receive` takes what peers send, `receiveReply` what
 * shards send, `tick` passes time on.
 */

import type { HashSeed } from './base/key-hash.ts'
import type { Durability } from './config.ts'
import type { Clock, Random, Shards } from './env.ts'
import { Exchanges, type ExchangesOptions, firstExchangeRequestId } from './replication/exchanges.ts'
import { firstHintRequestId, HintStore } from './replication/hint-store.ts'
import { LocalReplica } from './replication/local-replica.ts'
import { decodePeerMessage } from './replication/peer-message.ts'
import { QuorumCoordinator } from './replication/quorum-coordinator.ts'
import { Replica } from './replication/replica.ts'
import type { Bucket } from './replication/requests.ts'
import type { Routing } from './replication/routing.ts'
import type { KeyReader } from './storage/shard-reader.ts'

export type NodeOptions = {
  readonly nodeId: string
  readonly clock: Clock
  readonly random: Random
  readonly shards: Shards
  readonly readerOf: (shard: number) => KeyReader
  readonly hashSeed: HashSeed
  readonly clusterKey: Uint8Array
  readonly durability: Durability
  readonly routing: () => Routing
  readonly bucketOf: (id: number) => Bucket | undefined
  readonly send: (node: string, bytes: Uint8Array) => boolean
  /** Partitions that this node holds, and the other nodes that hold each. */
  readonly partitions: ExchangesOptions['partitions']
  /** Milliseconds between two exchanges of this node with others. */
  readonly exchangeRestMs: number
}

export class Node {
  readonly replica: LocalReplica
  readonly coordinator: QuorumCoordinator
  readonly hints: HintStore
  readonly exchanges: Exchanges
  readonly #server: Replica
  /** Messages of peers that could not be read. */
  malformed = 0

  constructor(options: NodeOptions) {
    const { routing, send } = options
    this.replica = new LocalReplica(options)
    this.hints = new HintStore({ ...options, self: options.nodeId, replica: this.replica })
    this.coordinator = new QuorumCoordinator({
      ...options,
      self: options.nodeId,
      replica: this.replica,
      hints: this.hints,
    })
    this.exchanges = new Exchanges({
      ...options,
      self: options.nodeId,
      replica: this.replica,
      restMs: options.exchangeRestMs,
    })
    this.#server = new Replica({ life: options.random.u32(), replica: this.replica, hints: this.hints, routing, send })
  }

  /** A message of another node. */
  receive(from: string, bytes: Uint8Array): void {
    const message = decodePeerMessage(bytes)
    if (message === undefined) this.malformed++
    else if (message.type === 'write' || message.type === 'read' || message.type === 'compare') {
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

  tick(): void {
    this.replica.tick()
    this.coordinator.tick()
    this.hints.tick()
    this.exchanges.tick()
  }
}
