/** Routing as the latest topology that this node has says it, and as its membership knows who answers. */
import { ackGroups, fenceOf, readSet, replicasOf, type Standing, standingOf } from '../cluster/topology/replica-sets.ts'
import type { Topology } from '../cluster/topology/topology.ts'
import type { Routing } from './routing.ts'

export class TopologyRouting implements Routing {
  readonly topology: Topology
  readonly #self: string
  readonly #isAlive: (nodeId: string) => boolean
  /** In an order that all nodes share. */
  readonly #ring: readonly string[]

  constructor(topology: Topology, self: string, isAlive: (nodeId: string) => boolean) {
    this.topology = topology
    this.#self = self
    this.#isAlive = isAlive
    this.#ring = topology.members.map(({ nodeId }) => nodeId).sort()
  }

  get epoch(): number {
    return this.topology.epoch
  }

  readersOf(partition: number, n: number): readonly string[] {
    return readSet(this.topology.partitions[partition]!, n)
  }

  writersOf(partition: number, n: number): readonly (readonly string[])[] {
    return ackGroups(this.topology.partitions[partition]!, n)
  }

  fallbacksOf(partition: number, n: number): readonly string[] {
    const writers = replicasOf(this.topology.partitions[partition]!, 'write', n)
    const ring = this.#ring
    return Array.from(ring, (_, place) => ring[(partition + place) % ring.length]!).filter(
      (nodeId) => !writers.includes(nodeId),
    )
  }

  isAlive(node: string): boolean {
    return node === this.#self || this.#isAlive(node)
  }

  standingOf(partition: number): Standing {
    return standingOf(this.topology, partition)
  }

  accepts(request: Standing, partition: number): boolean {
    return fenceOf(standingOf(this.topology, partition), request) === 'accepted'
  }

  holds(partition: number): boolean {
    // Who loses it still takes part in requests of those who are a stage behind.
    return replicasOf(this.topology.partitions[partition]!, 'stability').includes(this.#self)
  }
}
