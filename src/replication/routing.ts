/** Where the replicas of a partition are, as the coordinator of a node sees it now. Types only: the topology answers. */

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
  /** Whether a request under another epoch may be served: its sender and this node see the partition at most one stage apart. */
  accepts(epoch: number, partition: number): boolean
}
