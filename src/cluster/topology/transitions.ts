/**
 * Changes of members and buckets, as functions from one topology to the next or to the reason why not. Each can be applied again to
 * whatever the topology has become in the meantime: that is how two who change it at once both get their way (chain.ts).
 *
 * A change of members moves no data: it plans what is to move, and moves.ts carries it out. Members that join or leave meanwhile are
 * taken into the plan when the moves under way have ended.
 */
import { assert } from '../../base/assert.ts'
import { Limits } from '../../config.ts'
import { type BucketProperties, bucketProblem, defaultBucketName, newBucketProperties } from './buckets.ts'
import { memberProblem } from './invariants.ts'
import { movesLeft, rolledBack } from './moves.ts'
import { nextOf, planned } from './plan.ts'
import { type Refusal, refusal } from './refusal.ts'
import {
  copiesOf,
  electableMembers,
  type PartitionState,
  type Topology,
  type TopologyBucket,
  type TopologyMember,
  votersOf,
} from './topology.ts'

export type NewMember = {
  readonly nodeId: string
  readonly address: string
  readonly weight?: number
  readonly zone?: string
  /** Default: it has itself named when it hears that it is a member. */
  readonly acceptor?: string | undefined
}

export type MemberChange =
  | ({ readonly type: 'join' } & NewMember)
  /** `isDown`: it cannot hand over what it has. */
  | { readonly type: 'leave'; readonly nodeId: string; readonly isDown?: boolean }
  /** A new member takes the place of one that leaves. */
  | { readonly type: 'replace'; readonly leaver: string; readonly isDown?: boolean; readonly joiner: NewMember }
  | {
      readonly type: 'adjust'
      readonly nodeId: string
      readonly weight?: number
      readonly zone?: string
      readonly address?: string
    }

export type Creation = {
  readonly clusterId: string
  readonly member: NewMember
  /** A power of two up to 16384. */
  readonly partitions?: number
  /** What the node had before it was a cluster; `default` is made where it is not among them. */
  readonly buckets?: readonly TopologyBucket[]
  readonly nextBucketId?: number
}

/** A cluster of one, at epoch 1. */
export function create(creation: Creation): Topology | Refusal {
  const { partitions = Limits.partitions, buckets = [], nextBucketId = 1 } = creation
  assert(Number.isInteger(Math.log2(partitions)) && partitions <= Limits.partitionsMax, 'A ring has 2^k partitions')
  const member = memberOf(creation.member, 1, undefined)
  const problem = memberProblem(member)
  if (problem !== undefined) return refusal('BAD_MEMBER', `Cannot create a cluster of a node with ${problem}`)
  const founder: TopologyMember = { ...member, state: 'normal' }
  const list = [member.nodeId]
  const hasDefault = buckets.some(({ name }) => name === defaultBucketName)
  const first = { ...newBucketProperties, id: nextBucketId, name: defaultBucketName }
  return {
    clusterId: creation.clusterId,
    epoch: 1,
    members: [founder],
    voters: votersOf([founder]),
    buckets: hasDefault ? buckets : [...buckets, first],
    nextBucketId: hasDefault ? nextBucketId : nextBucketId + 1,
    batch: 0,
    isPlanDue: false,
    partitions: Array.from({ length: partitions }, () => settledAt(list, 1)),
    changes: [],
  }
}

/** Members that join, leave, replace one another or change, all in one step, planned together. */
export function changeMembers(topology: Topology, changes: readonly MemberChange[]): Topology | Refusal {
  let { members } = topology
  for (const change of changes) {
    const outcome = changedMembers(topology, members, change)
    if ('refused' in outcome) return outcome
    members = outcome
  }
  if (members === topology.members) return refusal('NO_CHANGE', 'Cannot change the members: they are as asked for')
  if (members.length > Limits.clusterMembersMax) {
    return refusal('TOO_MANY_MEMBERS', `Cannot have ${members.length} members: ${Limits.clusterMembersMax} is the most`)
  }
  if (electableMembers(members).length === 0) {
    return refusal('LAST_MEMBER', 'Cannot let the last member leave that takes part in decisions')
  }
  return planned(nextOf(topology, { members }))
}

type Members = readonly TopologyMember[]

function changedMembers(topology: Topology, members: Members, change: MemberChange): Members | Refusal {
  switch (change.type) {
    case 'join':
      return joined(topology, members, change, undefined)
    case 'leave':
      return left(topology, members, change.nodeId, change.isDown ?? false)
    case 'replace': {
      const without = left(topology, members, change.leaver, change.isDown ?? false)
      return 'refused' in without ? without : joined(topology, without, change.joiner, change.leaver)
    }
    default:
      return adjusted(members, change)
  }
}

function joined(
  topology: Topology,
  members: Members,
  joiner: NewMember,
  replaces: string | undefined,
): Members | Refusal {
  const present = members.find(({ nodeId }) => nodeId === joiner.nodeId)
  if (present?.state === 'leaving')
    return refusal('MEMBER_LEAVING', `Cannot let ${joiner.nodeId} join: it has not yet left`)
  if (present !== undefined) return refusal('MEMBER_EXISTS', `Cannot let ${joiner.nodeId} join: it is a member`)
  const member = memberOf(joiner, topology.epoch + 1, replaces)
  const problem = memberProblem(member)
  if (problem !== undefined) return refusal('BAD_MEMBER', `Cannot let a node join with ${problem}`)
  return [...members, member]
}

function left(topology: Topology, members: Members, nodeId: string, isDown: boolean): Members | Refusal {
  const leaver = members.find((member) => member.nodeId === nodeId)
  if (leaver === undefined) return refusal('MEMBER_UNKNOWN', `Cannot let ${nodeId} leave: it is no member`)
  if (leaver.state === 'leaving') return refusal('MEMBER_LEAVING', `Cannot let ${nodeId} leave: it does already`)
  if (isDown && topology.partitions.some((partition) => isMissed(partition, nodeId))) {
    return refusal(
      'FORCE_NEEDED',
      `Cannot remove ${nodeId} while it is down: it is one of two replicas, or the only one, of some partitions, and may hold writes that no other has; start it, or use force and lose them`,
    )
  }
  // Whom it was to replace still leaves.
  return members.map((member) => (member === leaver ? { ...member, state: 'leaving', replaces: undefined } : member))
}

/** Whether the rest of a partition's replicas can neither acknowledge by majority nor be sure to have every write. */
function isMissed({ stage, old, new: added }: PartitionState, nodeId: string): boolean {
  const lists = stage === 'stable' ? [old] : [old, added]
  return lists.some((list) => list.length <= 2 && list.includes(nodeId))
}

function adjusted(members: Members, change: MemberChange & { readonly type: 'adjust' }): Members | Refusal {
  const member = members.find(({ nodeId }) => nodeId === change.nodeId)
  if (member === undefined) return refusal('MEMBER_UNKNOWN', `Cannot change ${change.nodeId}: it is no member`)
  const { weight = member.weight, zone = member.zone, address = member.address } = change
  if (weight === member.weight && zone === member.zone && address === member.address) return members
  const after = { ...member, weight, zone, address }
  const problem = memberProblem(after)
  if (problem !== undefined) return refusal('BAD_MEMBER', `Cannot give ${change.nodeId} ${problem}`)
  return members.map((other) => (other === member ? after : other))
}

/**
 * Takes a member out at once, with whatever only it holds: for one that is down and will not come back, where nothing else helps. A partition
 * that it alone held begins empty elsewhere. What was moving and had not yet been read from its new place is taken back first.
 */
export function forceRemove(topology: Topology, nodeId: string): Topology | Refusal {
  if (!topology.members.some((member) => member.nodeId === nodeId))
    return refusal('MEMBER_UNKNOWN', `Cannot remove ${nodeId}: it is no member`)
  const stage = topology.partitions.find((partition) => partition.stage !== 'stable')?.stage
  if (stage === 'writeBothReadNew' || stage === 'cleanUp') {
    return refusal('MOVES_UNDER_WAY', `Cannot remove ${nodeId} before the moves under way have ended`)
  }
  const rest = topology.members
    .filter((member) => member.nodeId !== nodeId)
    .map((member) => (member.replaces === nodeId ? { ...member, replaces: undefined } : member))
  if (rest.length === 0) return refusal('LAST_MEMBER', 'Cannot remove the only member')
  const hasNormal = electableMembers(rest).length > 0
  // Somebody has to decide, and whoever is left has what is left.
  const members = hasNormal
    ? rest
    : rest.map((member) => ({ ...member, state: 'normal' as const, replaces: undefined }))
  const epoch = topology.epoch + 1
  const spare = members.find(({ state }) => state !== 'leaving')!.nodeId
  const partitions = topology.partitions.map((partition) => {
    const back = rolledBack(partition, epoch)
    if (!back.old.includes(nodeId)) return back
    const old = back.old.filter((replica) => replica !== nodeId)
    return settledAt(old.length > 0 ? old : [spare], epoch)
  })
  return planned(nextOf(topology, { members, partitions, batch: 0 }))
}

/** From here on this member votes and proposes under another id: what it said under an earlier one it may not know. */
export function nameAcceptor(topology: Topology, nodeId: string, acceptor: string): Topology | Refusal {
  const member = topology.members.find((other) => other.nodeId === nodeId)
  if (member === undefined) return refusal('MEMBER_UNKNOWN', `Cannot let ${nodeId} vote: it is no member`)
  if (member.acceptor === acceptor) return refusal('NO_CHANGE', `Cannot let ${nodeId} vote: it does already`)
  return nextOf(topology, { members: withAcceptor(topology.members, nodeId, acceptor) })
}

export function withAcceptor(members: Members, nodeId: string, acceptor: string): Members {
  return members.map((member) => (member.nodeId === nodeId ? { ...member, acceptor } : member))
}

/** Members that have come or gone are done with: those that join are normal, those that leave are gone. */
export function finish(topology: Topology): Topology | Refusal {
  const { members } = topology
  if (movesLeft(topology) > 0)
    return refusal('MOVES_LEFT', 'Cannot finish the change of members: some partitions have not moved yet')
  if (members.every(({ state }) => state === 'normal'))
    return refusal('NOTHING_TO_FINISH', 'Cannot finish the change of members: nobody joins or leaves')
  const stayed = members
    .filter(({ state }) => state !== 'leaving')
    .map((member) => ({ ...member, state: 'normal' as const, replaces: undefined }))
  return nextOf(topology, { members: stayed })
}

/** Makes a bucket, or changes what may change of it. */
export function putBucket(topology: Topology, name: string, properties: BucketProperties): Topology | Refusal {
  const { buckets, nextBucketId } = topology
  const present = buckets.find((bucket) => bucket.name === name)
  if (present === undefined && buckets.length >= Limits.bucketsMax)
    return refusal('TOO_MANY_BUCKETS', `Cannot create bucket "${name}": there are ${Limits.bucketsMax} already`)
  const bucket = { ...(present ?? { ...newBucketProperties, id: nextBucketId, name }), ...properties }
  const problem = bucketProblem(bucket)
  if (problem !== undefined) return refusal('BAD_BUCKET', `Cannot give a bucket ${problem}`)
  if (present === undefined) {
    return replanned(topology, { buckets: [...buckets, bucket], nextBucketId: nextBucketId + 1 })
  }
  if (bucket.n !== present.n || bucket.conflict !== present.conflict) {
    return refusal(
      'BUCKET_IMMUTABLE',
      `Cannot change n or conflict of bucket "${name}": create another bucket and copy`,
    )
  }
  const names = Object.keys(newBucketProperties) as (keyof BucketProperties)[]
  if (names.every((property) => bucket[property] === present[property]))
    return refusal('NO_CHANGE', `Cannot change bucket "${name}": it is as asked for`)
  return replanned(topology, { buckets: buckets.map((other) => (other === present ? bucket : other)) })
}

/** Deletes a bucket; its id is retired, and never given out again. */
export function deleteBucket(topology: Topology, name: string): Topology | Refusal {
  if (name === defaultBucketName)
    return refusal('BUCKET_NEEDED', `Cannot delete bucket "${defaultBucketName}": it always exists`)
  if (!topology.buckets.some((bucket) => bucket.name === name))
    return refusal('BUCKET_UNKNOWN', `Cannot delete bucket "${name}": there is none`)
  return replanned(topology, { buckets: topology.buckets.filter((bucket) => bucket.name !== name) })
}

/** A bucket may ask for longer or shorter preference lists. */
function replanned(topology: Topology, changed: Pick<Partial<Topology>, 'buckets' | 'nextBucketId'>): Topology {
  const next = nextOf(topology, changed)
  return copiesOf(next) === copiesOf(topology) ? next : planned(next)
}

function memberOf(
  { nodeId, address, weight = 1, zone = '', acceptor }: NewMember,
  joinedAt: number,
  replaces: string | undefined,
): TopologyMember {
  return { nodeId, address, weight, zone, joinedAt, state: 'joining', replaces, acceptor }
}

function settledAt(list: readonly string[], epoch: number): PartitionState {
  return { stage: 'stable', old: list, new: list, since: epoch, fence: epoch }
}
