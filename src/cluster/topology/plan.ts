/** The next epoch of a topology, and where its partitions are to go. */
import { Limits } from '../../config.ts'
import { place } from '../placement.ts'
import { compareMembers, copiesOf, isSameList, placedMembers, type Topology, votersOf } from './topology.ts'

/** The epoch after `topology`, with what has changed. */
export function nextOf(topology: Topology, changed: Partial<Topology>): Topology {
  const next = { ...topology, ...changed, epoch: topology.epoch + 1 }
  if (changed.members === undefined) return next
  const members = [...changed.members].sort(compareMembers)
  return { ...next, members, voters: votersOf(members) }
}

/**
 * Records where every partition is to go, for the members and buckets there are now. Moves under way are left alone: they end as they
 * began, and the plan is made then.
 */
export function planned(topology: Topology): Topology {
  if (topology.batch !== 0) return topology.isPlanDue ? topology : { ...topology, isPlanDue: true }
  // Who replaces a member takes its places, and its data is all that moves.
  const heirs = new Map(
    topology.members.flatMap(({ nodeId, replaces }) => (replaces === undefined ? [] : [[replaces, nodeId] as const])),
  )
  const before = topology.partitions.map(({ old }) => old.map((nodeId) => heirs.get(nodeId) ?? nodeId))
  const lists = place(placedMembers(topology), copiesOf(topology), before, topology.partitions.length)
  const partitions = topology.partitions.map((partition, index) => {
    const list = isSameList(lists[index]!, partition.old) ? partition.old : lists[index]!
    return isSameList(list, partition.new) ? partition : { ...partition, new: list }
  })
  return { ...topology, partitions, isPlanDue: false }
}

/** Notes who made this epoch. */
export function signed(topology: Topology, change: string): Topology {
  return { ...topology, changes: [...topology.changes, change].slice(-Limits.topologyChangesMax) }
}
