/**
 * Who takes part in a request for a partition, by its stage, and who is too far behind to. Arithmetic only.
 *
 *   stage               reads   writes to      W acknowledgements in
 *   stable              old     old            old
 *   writeBothReadOld    old     old and new    old, and in new
 *   streaming           old     old and new    old, and in new
 *   writeBothReadNew    new     old and new    old, and in new
 *   cleanUp             new     new            new
 *
 * Coordinator and replica that are one stage apart still meet: what either reads, the other writes. Two stages apart they would not: a
 * coordinator at `stable` would write past the new replicas that one at `writeBothReadNew` reads.
 */
import { Limits } from '../../config.ts'
import type { PartitionState, Topology } from './topology.ts'

/** `stability`: whoever may hold something of the partition, so that a tombstone must have reached it before it is dropped. */
export type Purpose = 'read' | 'write' | 'stability'

/** The first `n` of a list: what a bucket uses of it. A reader merges what R of them answer. */
export function readSet({ stage, old, new: added }: PartitionState, n: number = Limits.replicasMax): readonly string[] {
  return (stage === 'writeBothReadNew' || stage === 'cleanUp' ? added : old).slice(0, n)
}

/** A write counts when W of each group have acknowledged it; W is counted by the length of the group. One group where both are alike. */
export function ackGroups(partition: PartitionState, n: number = Limits.replicasMax): readonly (readonly string[])[] {
  const { stage } = partition
  const old = partition.old.slice(0, n)
  const added = partition.new.slice(0, n)
  if (stage === 'stable') return [old]
  if (stage === 'cleanUp') return [added]
  return isSameSet(old, added) ? [old] : [old, added]
}

/** Whom a request goes to, those that reads go to first. */
export function replicasOf(
  partition: PartitionState,
  purpose: Purpose,
  n: number = Limits.replicasMax,
): readonly string[] {
  const readers = readSet(partition, n)
  switch (purpose) {
    case 'read':
      return readers
    case 'write':
      return [...new Set([...readers, ...ackGroups(partition, n).flat()])]
    default: {
      const { stage, old, new: added } = partition
      return stage === 'stable' ? readers : [...new Set([...readers, ...old.slice(0, n), ...added.slice(0, n)])]
    }
  }
}

/** How far one side of a request is: what every request carries, and what a replica knows itself. */
export type Standing = {
  readonly epoch: number
  /** The first epoch that this side still gets along with. */
  readonly fence: number
}

export function standingOf({ epoch, partitions }: Topology, partition: number): Standing {
  return { epoch, fence: partitions[partition]!.fence }
}

/**
 * Whether a replica takes a request: neither side is more than one stage of the partition behind the other. `behind` says who has to
 * catch up first.
 */
export function fenceOf(replica: Standing, request: Standing): 'accepted' | 'requestBehind' | 'replicaBehind' {
  if (request.epoch < replica.fence) return 'requestBehind'
  return replica.epoch < request.fence ? 'replicaBehind' : 'accepted'
}

function isSameSet(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((nodeId) => b.includes(nodeId))
}
