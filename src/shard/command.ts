/**
 * Frames between the threads of one process: commands to a shard and its replies. All little-endian, starting at a multiple of
 * 4. Both ends run the same release, so there is no version; nothing here reaches disk or another node.
 *
 * Write command (kinds put and delete):
 *
 *      0 u8  kind   1 u8 CommandFlag   2 u16 slot   4 u32 requestId   8 u32 bucketId
 *     12 u32 hash   16 u32 versionSetBytesMax   20 u16 keyBytes   22 u16 contextCount
 *     24 u32 valueBytes   28 u8 contentTypeCode   29 u8 contentTypeBytes   30 u8 durability   31 u8 ifMatchCount
 *     32 u32 x 2 expiresAtMs (0: never)   40 u32 x 2 timestamp (0: none)
 *     48 key padded | contextCount x { u32 actorLow, u32 actorHigh, u32 counterLow, u32 counterHigh }
 *        | ifMatchCount x { u32 low, u32 high } | content type padded | value padded
 *
 * Merge command (a version set that another replica has): the same head, with setBytes in the place of valueBytes and no contextCount
 *
 *     48 key padded | set (versions/set-codec.ts) padded | clock of that replica from before, padded: its bytes are at 32, 0: none
 *
 * Hint commands (hint-record.ts): keepHint leaves a hint, merged with what is kept already; dropHint removes it. The head of a merge
 * command with `hintBucketId`, the slot of the key that the hint is about, and for keepHint the time at 40
 *
 *     48 key of the hint padded | (keepHint) its value padded
 *
 * Track command (these partitions have replicas elsewhere from now on; with flag 1 this one is new to them):
 *
 *      0 u8 kind   1 u8 flag   4 u32 requestId   8 u32 count   12 count x u16 partition
 *
 * Compare command (for replicas that compare what they have of a partition):
 *
 *      0 u8 kind   1 u8 CompareVerb   2 u16 partition   4 u32 requestId   8 u32 payloadBytes   12 u32 0   16 payload padded
 *
 *     clock      no payload                     ->  the partition's clock (versions/partition-clock.ts); no bytes: it has none
 *     children   u16 x inner nodes of the tree  ->  i32 x 2 x 16 per node: the lanes of its children (versions/hash-tree.ts)
 *     leafKeys   u16 x leaves                   ->  u16 leaves that are told whole, the rest was too much | keys, each
 *                                                   { u16 leaf, u16 keyBytes, u32 bucketId, u32 digestLow, u32 digestHigh, key }
 *     joinClock  u32 generation of the damage, as told when the comparison began | another replica's clock
 *                                               ->  nothing; NOT_READY where the generation is another one by now
 *     damage     nothing, or the u32 generation up to which it was resynced  ->  u32 generation of the damage from which the partition is
 *                being brought up, 0: none (storage/damaged-partitions.ts)
 *     joinStable what is known of what every replica has, or nothing  ->  what this one has and knows of that now (versions/stability.ts)
 *
 * Read command (kind get: the owner's answer where a lock-free read was contended): as above up to the key.
 *
 * List command (keys from one partition on, until enough was looked at):
 *
 *      0 u8 kind   1 u8 1: with values, 2: behind a key, 4: this partition alone, 8: for another replica   2 u16 partition   4 u32 requestId   8 u32 bucketId   12 u32 limit   16 u32 bytesMax
 *     20 u16 prefixBytes   22 u16 afterBytes   24 u32 nowLow   28 u32 nowHigh   32 prefix padded | after padded
 *
 * Reply to a write:
 *
 *      0 u8 kind   1 u8 outcome   2 u16 error (0: none)   4 u32 requestId   8 u16 siblings   10 u8 durable   11 u8 present
 *     12 u16 vectorCount   16 u32 x 2 digest (low, high)   24 u32 x 2 expiresAtMs
 *     32 vectorCount x { u32 actorLow, u32 actorHigh, u32 counterLow, u32 counterHigh }
 *
 * Reply to a merge, hint, track or compare command, which get nothing or what is said above, and to a write with the flag `replicated`,
 * which gets the whole set:
 *
 *      0 u8 kind   1 u8 outcome   2 u16 error (0: none)   4 u32 requestId   8 u8 durable   12 u32 setBytes
 *     16 set (versions/set-codec.ts) padded
 *
 * Reply to a read or list: 0 u8 kind   1 u8 outcome   2 u16 error   4 u32 requestId   8 u32 recordBytes
 *     12 u16 partition where the list goes on   14 u8 ListEnd
 *     16 records (record.ts), one behind the other; actor indices are those of the shard's table
 *        | with ListEnd.behindKey: u32 keyBytes, key padded
 *     To a list for another replica, in the place of the records: dead keys among the others, padded together, each
 *        { u16 keyBytes, u32 setBytes, key, set (versions/set-codec.ts; without values unless they were asked for) }
 *     and whatever is left of the partition is behindKey.
 *
 * Two more kinds pass between a worker's front and the node thread of a cluster's member, and never reach a shard: ask and answer
 * (host/member-frames.ts).
 */

/** First byte of a frame. */
export const FrameKind = {
  put: 1,
  delete: 2,
  get: 3,
  list: 4,
  merge: 5,
  track: 6,
  compare: 7,
  keepHint: 8,
  dropHint: 9,
  ask: 10,
  writeReply: 129,
  recordsReply: 130,
  setReply: 131,
  answer: 132,
} as const

/** Second byte of a list command. */
export const ListFlag = { withValues: 1, behindKey: 2, alone: 4, forReplica: 8 } as const

/** Where a list goes on. */
export const ListEnd = {
  atPartition: 0,
  behindLastRecord: 1,
  /** Behind a key that may be none of those listed: all up to it were dead. */
  behindKey: 2,
} as const

/** Second byte of a write command. */
export const CommandFlag = {
  /** A context was given: replace what it covers. Otherwise replace what is there. */
  context: 1,
  /** The key must have a live value. */
  ifMatchAny: 2,
  /** The key must have no live value. */
  ifNoneMatch: 4,
  /** The bucket keeps one version: the last write wins. */
  lastWriteWins: 8,
  /** The live digest must be among those given. */
  ifMatch: 16,
  /** Other replicas will get what this write makes: it is told whole, and a delete of nothing leaves a tombstone. */
  replicated: 32,
} as const

/** What a compare command asks for. */
export const CompareVerb = { clock: 1, children: 2, leafKeys: 3, joinClock: 4, joinStable: 5, damage: 6 } as const

export const writeCommandBytes = 48
export const listCommandBytes = 32
export const writeReplyBytes = 32
export const recordsReplyBytes = 16
export const setReplyBytes = 16
export const trackCommandBytes = 12
export const compareCommandBytes = 16
export const vectorEntryBytes = 16

/** A number below 2^53 from two u32 halves. */
export function joinHalves(low: number, high: number): number {
  return (low >>> 0) + (high >>> 0) * 0x1_0000_0000
}

/** High half of a number below 2^53; the low half is `value | 0` as an i32 store takes it. */
export function highHalf(value: number): number {
  return Math.floor(value / 0x1_0000_0000)
}
