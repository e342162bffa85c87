/**
 * The value of one epoch: who is a member, which buckets there are, and which nodes hold which partitions. It is agreed on (chain.ts),
 * never computed by each node for itself: what placement.ts says is recorded here, and stands until a later epoch says otherwise.
 *
 * A partition has two lists of replicas, `old` and `new`. They are the same where it does not move. Where they differ in a stable
 * partition, a move is planned. A move goes through these stages, each an epoch of its own, with a barrier before the next (Scylla,
 * "topology over raft"; Cassandra, "transactional cluster metadata"):
 *
 *   stable             writes and reads go to old
 *   writeBothReadOld   a write needs W acknowledgements in old and W in new; reads go to old. A replica of new opens its storage when it hears
 *                      of this epoch, and refuses before that. Barrier: whatever began earlier has ended
 *   streaming          the same, and what new lacks is shipped to it. Until here the move can be taken back
 *   writeBothReadNew   new has everything: reads go there, writes still to both. Barrier: whoever reads old has ended
 *   cleanUp            writes and reads go to new; who has lost the partition hands over what it may have left, and deletes it
 *   stable             old is what new was
 *
 * Nodes need not be at the same epoch, but for each partition no more than one stage apart: `since` and `fence` say so (replica-sets.ts).
 *
 * Values are never changed in place, and share what they have in common.
 */
import type { Durability } from '../../config.ts'

/** `joining` until all that is planned for it has moved; `leaving` likewise, then it is gone. */
export const memberStandings = ['joining', 'normal', 'leaving'] as const
export type MemberStanding = (typeof memberStandings)[number]

export type TopologyMember = {
  /** Sixteen lower-case hexadecimal digits, not all 0. */
  readonly nodeId: string
  readonly address: string
  /** Its part of the data against those of others: a whole number of hundredths. */
  readonly weight: number
  readonly zone: string
  /** Epoch in which it became a member. */
  readonly joinedAt: number
  readonly state: MemberStanding
  /** The member that leaves for it, and whose replicas it takes. */
  readonly replaces: string | undefined
  /** Under this id it votes and proposes (chain.ts): sixteen digits, another one where it may have forgotten. Undefined: it has not told yet. */
  readonly acceptor: string | undefined
}

export const stages = ['stable', 'writeBothReadOld', 'streaming', 'writeBothReadNew', 'cleanUp'] as const
export type Stage = (typeof stages)[number]

export type PartitionState = {
  readonly stage: Stage
  /** Preference lists, the coordinator first. A bucket uses the first n of a list. */
  readonly old: readonly string[]
  readonly new: readonly string[]
  /** Epoch in which it came to this stage, and to the one before: requests of epochs before that are refused. */
  readonly since: number
  readonly fence: number
}

/** `one`, `quorum` (majority), `all` (current replicas), or a number of replicas. */
export type BucketLevel = 'one' | 'quorum' | 'all' | number

export type TopologyBucket = {
  readonly id: number
  readonly name: string
  readonly n: number
  readonly r: BucketLevel
  readonly w: BucketLevel
  readonly sloppy: boolean
  readonly conflict: 'siblings' | 'lww'
  /** Undefined: the server's. */
  readonly durability: Durability | undefined
  /** Undefined: none. */
  readonly ttlMs: number | undefined
  /** Undefined: the server's. */
  readonly valueBytesMax: number | undefined
}

export type Topology = {
  readonly clusterId: string
  readonly epoch: number
  /** In the order in which they joined; those of one epoch by id. */
  readonly members: readonly TopologyMember[]
  /** Who decides the next epoch. */
  readonly voters: readonly string[]
  /** In the order of their ids. */
  readonly buckets: readonly TopologyBucket[]
  /** Ids below this that no bucket has are retired: their data is dropped everywhere. */
  readonly nextBucketId: number
  /** Epoch in which the moves under way began, all at the same stage; 0 where there are none. */
  readonly batch: number
  /** Members or buckets have changed since those began: what is left to move is planned anew when they end. */
  readonly isPlanDue: boolean
  /** By partition; a power of two. */
  readonly partitions: readonly PartitionState[]
  /** Who made the latest epochs: sixteen hexadecimal digits that a change was given, the present epoch's last. */
  readonly changes: readonly string[]
}

/** Whether these words can be a node's id. */
export function isNodeId(text: string): boolean {
  return /^[0-9a-f]{16}$/.test(text) && text !== '0000000000000000'
}

/** The order of members. */
export function compareMembers(a: TopologyMember, b: TopologyMember): number {
  return a.joinedAt - b.joinedAt || (a.nodeId < b.nodeId ? -1 : a.nodeId > b.nodeId ? 1 : 0)
}

/** The members that data is placed on: those that do not leave. */
export function placedMembers({ members }: Pick<Topology, 'members'>): readonly TopologyMember[] {
  return members.filter(({ state }) => state !== 'leaving')
}

/** Lengths of preference lists: the greatest n of a bucket. */
export function copiesOf({ buckets }: Pick<Topology, 'buckets'>): number {
  return buckets.reduce((most, { n }) => Math.max(most, n), 1)
}

/**
 * Who can be given a vote: normal members. Whoever joins or leaves has none, since a majority must not hang on it; nor has who has not told
 * under which id it votes, except where none of those who have joined has.
 */
export function electableMembers(members: readonly TopologyMember[]): readonly TopologyMember[] {
  const isAnyNamed = members.some(({ state, acceptor }) => state !== 'joining' && acceptor !== undefined)
  return members.filter(({ state, acceptor }) => state === 'normal' && (acceptor !== undefined || !isAnyNamed))
}

/** Who is to decide: the first 1, 3 or 5 of those that can, by join order, one of each zone before a second of any. */
export function votersOf(members: readonly TopologyMember[]): readonly string[] {
  const normal = [...electableMembers(members)].sort(compareMembers)
  const count = normal.length >= 5 ? 5 : normal.length >= 3 ? 3 : 1
  const inZone = new Map<string, number>()
  const ranked = normal.map(({ nodeId, zone }) => {
    const rank = inZone.get(zone) ?? 0
    inZone.set(zone, rank + 1)
    return { nodeId, rank }
  })
  // A stable sort: those of one rank stay in join order.
  ranked.sort((a, b) => a.rank - b.rank)
  return ranked.slice(0, count).map(({ nodeId }) => nodeId)
}

/** Whether a bucket once had this id, and has it no more. */
export function isRetiredBucket({ buckets, nextBucketId }: Topology, id: number): boolean {
  return id < nextBucketId && !buckets.some((bucket) => bucket.id === id)
}

/** Whether a partition neither moves nor is to move. */
export function isSettled({ stage, old, new: planned }: PartitionState): boolean {
  return stage === 'stable' && isSameList(old, planned)
}

export function isSameList(a: readonly string[], b: readonly string[]): boolean {
  return a === b || (a.length === b.length && a.every((nodeId, index) => nodeId === b[index]))
}
