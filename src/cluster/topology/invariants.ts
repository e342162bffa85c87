/**
 * What holds of every topology, and of every step from one to the next. Bytes that say otherwise are no topology (topology-bytes.ts), and
 * every test asks.
 */
import { Limits } from '../../config.ts'
import { bucketProblem, defaultBucketName } from './buckets.ts'
import {
  compareMembers,
  copiesOf,
  isNodeId,
  isSameList,
  isSettled,
  type PartitionState,
  placedMembers,
  type Stage,
  type Topology,
  type TopologyMember,
} from './topology.ts'

/** What does not hold of a topology; empty where all does. */
export function invariantsOf(topology: Topology): readonly string[] {
  const problems: string[] = []
  const { epoch, partitions, changes } = topology
  if (!isEpoch(epoch) || epoch === 0) problems.push(`Epoch ${epoch}`)
  const { length } = partitions
  if (length < 1 || length > Limits.partitionsMax || (length & (length - 1)) !== 0)
    problems.push(`There are ${length} partitions`)
  if (changes.length > Limits.topologyChangesMax) problems.push(`It names ${changes.length} changes`)
  checkMembers(topology, problems)
  checkBuckets(topology, problems)
  checkPartitions(topology, problems)
  return problems
}

/** What is wrong with a member by itself; undefined where nothing is. */
export function memberProblem({ nodeId, address, weight, zone }: TopologyMember): string | undefined {
  if (!isNodeId(nodeId)) return `id "${nodeId.slice(0, 100)}": it must be 16 hexadecimal digits`
  if (!isText(address, 1, Limits.memberAddressBytesMax)) return 'address: it is empty or too long'
  if (!isText(zone, 0, Limits.zoneBytesMax)) return `zone: it is longer than ${Limits.zoneBytesMax} bytes`
  const hundredths = Math.round(weight * 100)
  if (!(hundredths >= 1 && hundredths <= 10_000) || hundredths / 100 !== weight)
    return `weight=${weight}: it must be 0.01 to 100, in hundredths`
  return undefined
}

function checkMembers({ members, voters, epoch }: Topology, problems: string[]): void {
  if (members.length > Limits.clusterMembersMax) problems.push(`There are ${members.length} members`)
  const ids = new Map(members.map((member) => [member.nodeId, member]))
  if (ids.size !== members.length) problems.push('A member is there twice')
  for (const [index, member] of members.entries()) {
    const { nodeId, joinedAt, replaces } = member
    const problem = memberProblem(member)
    if (problem !== undefined) problems.push(`Member ${nodeId} has ${problem}`)
    if (!isEpoch(joinedAt) || joinedAt > epoch) problems.push(`Member ${nodeId} joined in epoch ${joinedAt}`)
    if (index > 0 && compareMembers(members[index - 1]!, member) >= 0) problems.push(`Member ${nodeId} is out of order`)
    if (replaces !== undefined && ids.get(replaces)?.state !== 'leaving')
      problems.push(`Member ${nodeId} replaces ${replaces}, which does not leave`)
  }
  const replaced = members.flatMap(({ replaces }) => replaces ?? [])
  if (new Set(replaced).size !== replaced.length) problems.push('A member is replaced twice')
  if (![1, 3, 5].includes(voters.length) || new Set(voters).size !== voters.length)
    problems.push(`There are ${voters.length} voters`)
  for (const voter of voters)
    if (ids.get(voter)?.state !== 'normal') problems.push(`Voter ${voter} is no normal member`)
}

function checkBuckets({ buckets, nextBucketId }: Topology, problems: string[]): void {
  if (buckets.length > Limits.bucketsMax) problems.push(`There are ${buckets.length} buckets`)
  if (new Set(buckets.map(({ name }) => name)).size !== buckets.length) problems.push('Two buckets have one name')
  if (!buckets.some(({ name }) => name === defaultBucketName)) problems.push('The default bucket is missing')
  if (!isEpoch(nextBucketId)) problems.push(`The next bucket would be ${nextBucketId}`)
  for (const [index, bucket] of buckets.entries()) {
    const problem = bucketProblem(bucket)
    if (problem !== undefined) problems.push(`Bucket ${bucket.id} has ${problem}`)
    if (bucket.id < 1 || bucket.id >= nextBucketId)
      problems.push(`Bucket ${bucket.id} has an id that was not given out`)
    if (index > 0 && buckets[index - 1]!.id >= bucket.id) problems.push(`Bucket ${bucket.id} is out of order`)
  }
}

function checkPartitions(topology: Topology, problems: string[]): void {
  const { partitions, members, epoch, batch, isPlanDue } = topology
  const ids = new Set(members.map(({ nodeId }) => nodeId))
  const placed = new Set(placedMembers(topology).map(({ nodeId }) => nodeId))
  const copies = Math.min(copiesOf(topology), placed.size)
  let moving = 0
  for (const [index, partition] of partitions.entries()) {
    const { old, new: planned, stage, since, fence } = partition
    const name = `Partition ${index}`
    for (const list of old === planned ? [old] : [old, planned]) {
      if (list.length < 1 || list.length > Limits.replicasMax) problems.push(`${name} has ${list.length} replicas`)
      if (new Set(list).size !== list.length) problems.push(`${name} has a replica twice`)
      if (!list.every((nodeId) => ids.has(nodeId))) problems.push(`${name} has a replica that is no member`)
    }
    if (!(isEpoch(fence) && fence <= since && since <= epoch)) problems.push(`${name} has epochs ${fence} and ${since}`)
    if (!isPlanDue && planned.length !== copies)
      problems.push(`${name} has or gets ${planned.length} replicas instead of ${copies}`)
    if (!isPlanDue && !planned.every((nodeId) => placed.has(nodeId))) problems.push(`${name} is placed on who leaves`)
    if (stage === 'stable') continue
    moving++
    if (isSameList(old, planned)) problems.push(`${name} moves to where it is`)
    if (since < batch) problems.push(`${name} moves since ${since}, before batch ${batch}`)
  }
  if (moving > Limits.movingPartitionsMax) problems.push(`${moving} partitions move at once`)
  if (moving > 0 !== batch > 0 || batch > epoch) problems.push(`${moving} partitions move in batch ${batch}`)
  if (isPlanDue && moving === 0) problems.push('A plan is due, and nothing stands in its way')
  const moved = partitions.filter(({ stage }) => stage !== 'stable')
  if (new Set(moved.map(({ stage }) => stage)).size > 1) problems.push('Partitions of a batch are at different stages')
}

/** Stages that may follow. */
const followers: Readonly<Record<Stage, readonly Stage[]>> = {
  stable: ['stable', 'writeBothReadOld'],
  writeBothReadOld: ['writeBothReadOld', 'streaming', 'stable'],
  streaming: ['streaming', 'writeBothReadNew', 'stable'],
  writeBothReadNew: ['writeBothReadNew', 'cleanUp'],
  cleanUp: ['cleanUp', 'stable'],
}

/** What no step from one epoch to the next may do. */
export function stepInvariantsOf(before: Topology, after: Topology): readonly string[] {
  const problems: string[] = []
  if (after.clusterId !== before.clusterId) problems.push('It is another cluster')
  if (after.epoch !== before.epoch + 1) problems.push(`Epoch ${after.epoch} follows ${before.epoch}`)
  if (after.partitions.length !== before.partitions.length) problems.push('The number of partitions has changed')
  if (after.nextBucketId < before.nextBucketId) problems.push('Ids of buckets are given out again')
  for (const { id, n, conflict, name } of before.buckets) {
    const same = after.buckets.find((bucket) => bucket.id === id)
    if (same !== undefined && (same.n !== n || same.conflict !== conflict || same.name !== name))
      problems.push(`Bucket ${id} has another n, conflict or name`)
  }
  const stayed = new Set(after.members.map(({ nodeId }) => nodeId))
  const gone = new Set(before.members.map(({ nodeId }) => nodeId).filter((nodeId) => !stayed.has(nodeId)))
  for (const [index, partition] of before.partitions.entries()) {
    const problem = partitionStepProblem(partition, after.partitions[index]!, after.epoch, gone)
    if (problem !== undefined) problems.push(`Partition ${index} ${problem}`)
  }
  return problems
}

function partitionStepProblem(
  before: PartitionState,
  after: PartitionState,
  epoch: number,
  gone: ReadonlySet<string>,
): string | undefined {
  if (before === after) return undefined
  if (!followers[before.stage].includes(after.stage)) return `goes from ${before.stage} to ${after.stage}`
  const without = (list: readonly string[]): readonly string[] => list.filter((nodeId) => !gone.has(nodeId))
  if (without(before.old).length < before.old.length) {
    // Removed by force: it holds nothing more, and no request of an earlier epoch counts.
    const left = without(before.old)
    if (left.length > 0 && !isSameList(after.old, left)) return 'changes its lists by more than who was removed'
    return after.fence === epoch && after.since === epoch ? undefined : 'does not refuse who knows the removed replica'
  }
  const wantedOld = before.stage === 'cleanUp' && after.stage === 'stable' ? before.new : before.old
  if (!isSameList(after.old, wantedOld)) return `has another list of old replicas at ${after.stage}`
  const isPlanned = after.stage === 'stable'
  if (!isPlanned && !isSameList(after.new, before.new)) return `has another list of new replicas at ${after.stage}`
  if (after.stage === before.stage) {
    return after.since === before.since && after.fence === before.fence ? undefined : 'changes its fence'
  }
  return after.since === epoch && after.fence === before.since ? undefined : 'does not note its change of stage'
}

export function isEpoch(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff
}

/** Whether nothing is to move and nobody is on the way in or out. */
export function isAtRest({ partitions, members }: Topology): boolean {
  return partitions.every(isSettled) && members.every(({ state }) => state === 'normal')
}

function isText(text: string, least: number, most: number): boolean {
  if (text.length < least || text.length > most || !text.isWellFormed()) return false
  // A UTF-16 unit takes three bytes at most.
  return text.length * 3 <= most || new TextEncoder().encode(text).length <= most
}
