/** Where the replicas of a partition are, as this node sees it now. Types only: topology-routing.ts answers. */
import type { Standing } from '../cluster/topology/replica-sets.ts'

export type Routing = {
  /** Epoch of the topology; every message carries it. */
  readonly epoch: number
  /** Replicas that answer reads of a partition, for a bucket with `n` of them, the preferred first. */
  readersOf(partition: number, n: number): readonly string[]
  /**
   * Groups of replicas in each of which a write has to reach its level: one group, or the old owners and the new ones of a partition
   * that moves.
   */
  writersOf(partition: number, n: number): readonly (readonly string[])[]
  /** Other nodes, clockwise, that may hold writes for replicas out of reach. */
  fallbacksOf(partition: number, n: number): readonly string[]
  /** Whether a node is thought to answer. */
  isAlive(node: string): boolean
  /** What a request about a partition carries. */
  standingOf(partition: number): Standing
  /** Whether the sender of a request and this node see the partition at most one stage apart. */
  accepts(request: Standing, partition: number): boolean
  /** Whether this node is a replica of the partition, becomes one, or ceases to be one just now. */
  holds(partition: number): boolean
}
