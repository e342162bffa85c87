/** What a node says about its cluster, as plain data for documents: as far as it knows, under the epoch that it goes by. */
import { partitionOfSlot, slotOfKey } from '../cluster/slots.ts'
import { movesLeft, stageOfMoves } from '../cluster/topology/moves.ts'
import { ackGroups, readSet } from '../cluster/topology/replica-sets.ts'
import type { Topology } from '../cluster/topology/topology.ts'
import { acksNeeded } from '../replication/quorum.ts'
import type { Bucket } from '../replication/requests.ts'

type IsAlive = (nodeId: string) => boolean

/** `/v1/cluster`: who is in it, who decides, and whether something moves. */
export function clusterDocument(topology: Topology, self: string, isAlive: IsAlive): Record<string, unknown> {
  return {
    clusterId: topology.clusterId,
    epoch: topology.epoch,
    nodeId: self,
    isAtRest: isAtRest(topology),
    stage: stageOfMoves(topology),
    movesLeft: movesLeft(topology),
    partitions: topology.partitions.length,
    voters: topology.voters,
    members: nodesOf(topology, isAlive),
  }
}

/** `/v1/nodes`. */
export function nodesDocument(topology: Topology, isAlive: IsAlive): Record<string, unknown> {
  return { epoch: topology.epoch, nodes: nodesOf(topology, isAlive) }
}

/** `/v1/ring`: the replicas of every partition, the preferred first, and where they are to go. */
export function ringDocument(topology: Topology): Record<string, unknown> {
  const partitions = topology.partitions.map(({ stage, old, new: planned }, partition) => ({
    partition,
    stage,
    replicas: old,
    ...(planned === old ? {} : { planned }),
  }))
  return { epoch: topology.epoch, partitions }
}

/** `/v1/explain/{bucket}/{key}`: where a key lies, and whom a read and a write of it need. */
export function keyDocument(
  topology: Topology,
  bucket: Bucket,
  key: Uint8Array,
  isAlive: IsAlive,
): Record<string, unknown> {
  const slot = slotOfKey(key, 0, key.length)
  const partition = partitionOfSlot(slot)
  const state = topology.partitions[partition]!
  const readers = readSet(state, bucket.n)
  const groups = ackGroups(state, bucket.n)
  const told = (nodeId: string): Record<string, unknown> => ({ nodeId, isAlive: isAlive(nodeId) })
  return {
    epoch: topology.epoch,
    bucket: bucket.name,
    slot,
    partition,
    stage: state.stage,
    read: { level: bucket.r, needed: acksNeeded(bucket.r, readers.length), replicas: readers.map(told) },
    write: groups.map((group) => ({
      level: bucket.w,
      needed: acksNeeded(bucket.w, group.length),
      replicas: group.map(told),
    })),
  }
}

/** Nobody joins or leaves, and nothing moves. */
export function isAtRest(topology: Topology): boolean {
  return movesLeft(topology) === 0 && topology.members.every(({ state }) => state === 'normal')
}

function nodesOf({ members, voters, partitions }: Topology, isAlive: IsAlive): readonly Record<string, unknown>[] {
  const held = new Map<string, number>()
  for (const { old } of partitions) for (const nodeId of old) held.set(nodeId, (held.get(nodeId) ?? 0) + 1)
  return members.map(({ nodeId, address, zone, weight, state, joinedAt, replaces }) => ({
    nodeId,
    address,
    zone,
    weight,
    state,
    isAlive: isAlive(nodeId),
    isVoter: voters.includes(nodeId),
    partitions: held.get(nodeId) ?? 0,
    joinedAt,
    ...(replaces === undefined ? {} : { replaces }),
  }))
}
