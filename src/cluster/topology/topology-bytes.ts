/**
 * A topology as bytes: stored, voted on, and sent. Numbers are little-endian; a varint has 7 bits a byte, the lowest first.
 *
 *   whole     u8 version (2)   u8 0   frame   members   buckets   partition x Q
 *   delta     u8 version (2)   u8 1   u32 epoch and u64 digest of what it goes on from   u64 digest of the result
 *             frame   u8 bits: 1 members follow, 2 buckets follow   members   buckets
 *             u16 count   (u16 number, partition) x count, ascending: those that differ
 *
 *   frame     u64 cluster   u32 epoch   u8 log2 of Q   u8 1: a plan is due   u32 batch   u32 next bucket id
 *             u8 count   u64 voter x count   u8 count   u64 change x count
 *   members   u16 count, then each: u64 node   u8 state   u16 hundredths of weight   u32 joined at   u64 replaced node or 0
 *             u64 acceptor or 0   text address   text zone
 *   buckets   u16 count, then each: u32 id   text name   u8 n   u8 r   u8 w   u8 bits: 1 sloppy, 2 lww
 *             u8 durability: 0 the server's, 1 os, 2 interval, 3 sync   u64 ttl or 0   u32 greatest value or 0
 *   partition u8 bits 0-2 stage, 3-5 length of old, 6: new differs and follows   member x length of old
 *             [u8 length of new   member x length]   varint since   varint since - fence
 *   member    its place in the list of members: u8, or u16 where there are more than 256
 *   level     1 to 5: replicas, 6 one, 7 quorum, 8 all
 *   text      u8 length, bytes of UTF-8
 *
 * 1024 partitions of three replicas take 7 KiB. There is one form for each topology: what is decoded is encoded again and compared, so that
 * equal digests mean equal bytes. Decoding takes any bytes, never throws, and gives only what `invariantsOf` finds nothing in.
 */
import { ByteReader, ByteWriter, equalBytes } from '../../base/bytes.ts'
import { SipHash } from '../../base/siphash.ts'
import { Limits } from '../../config.ts'
import { invariantsOf } from './invariants.ts'
import {
  type BucketLevel,
  isSameList,
  memberStandings,
  type PartitionState,
  stages,
  type Topology,
  type TopologyBucket,
  type TopologyMember,
} from './topology.ts'

export const topologyVersion = 2
const wholeKind = 0
const deltaKind = 1
const durabilities = [undefined, 'os', 'interval', 'sync'] as const
const levelNames = ['one', 'quorum', 'all'] as const
const namedLevelBase = Limits.replicasMax + 1
/** No node, no cluster, no topology. */
export const noId = '0000000000000000'
const utf8 = new TextEncoder()
const utf8Reader = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
/** Not secret: the digest tells topologies apart, and proves nothing. */
const digestKey = utf8.encode('sunwise topology')

type Frame = Pick<Topology, 'clusterId' | 'epoch' | 'isPlanDue' | 'batch' | 'nextBucketId' | 'voters' | 'changes'> & {
  readonly partitionCount: number
}

export function encodeTopology(topology: Topology): Uint8Array {
  const { members, buckets, partitions } = topology
  const writer = new ByteWriter(1024 + 48 * members.length + 48 * buckets.length + 9 * partitions.length)
  writer.u8(topologyVersion)
  writer.u8(wholeKind)
  writeFrame(writer, topology)
  writeMembers(writer, members)
  writeBuckets(writer, buckets)
  const places = placesOf(members)
  for (const partition of partitions) writePartition(writer, partition, places)
  return writer.toBytes()
}

/** The topology in these bytes; undefined where they are none. */
export function decodeTopology(bytes: Uint8Array): Topology | undefined {
  if (bytes.length > Limits.topologyBytesMax) return undefined
  const reader = new ByteReader(bytes)
  if (reader.u8() !== topologyVersion || reader.u8() !== wholeKind) return undefined
  const frame = readFrame(reader)
  if (frame === undefined) return undefined
  const members = readMembers(reader)
  const buckets = members === undefined ? undefined : readBuckets(reader)
  if (members === undefined || buckets === undefined) return undefined
  // Nothing is allocated for partitions that the bytes cannot hold.
  if (reader.remaining < frame.partitionCount * partitionBytesMin) return undefined
  const partitions: PartitionState[] = []
  for (let index = 0; index < frame.partitionCount; index++) {
    const partition = readPartition(reader, members)
    if (partition === undefined) return undefined
    partitions.push(partition)
  }
  const topology = topologyOf(frame, members, buckets, partitions)
  if (reader.failed || invariantsOf(topology).length > 0) return undefined
  return isSameBytes(encodeTopology(topology), bytes) ? topology : undefined
}

/** Sixteen hexadecimal digits; equal for equal topologies. */
export function digestOf(topology: Topology): string {
  return digestOfBytes(encodeTopology(topology))
}

/** `digestOf` of a topology that is there as bytes. */
export function digestOfBytes(bytes: Uint8Array): string {
  const hash = new SipHash(digestKey)
  hash.update(bytes, 0, bytes.length)
  hash.finish()
  return hexOf(hash.low, hash.high)
}

/** What has changed from one topology of a cluster to a later one, with their digests. */
export function encodeDelta(before: Topology, beforeDigest: string, after: Topology, afterDigest: string): Uint8Array {
  const writer = new ByteWriter(1024)
  writer.u8(topologyVersion)
  writer.u8(deltaKind)
  writer.u32(before.epoch)
  writeId(writer, beforeDigest)
  writeId(writer, afterDigest)
  writeFrame(writer, after)
  const hasMembers = !isWrittenAlike(before.members, after.members, writeMembers)
  const hasBuckets = !isWrittenAlike(before.buckets, after.buckets, writeBuckets)
  writer.u8((hasMembers ? 1 : 0) | (hasBuckets ? 2 : 0))
  if (hasMembers) writeMembers(writer, after.members)
  if (hasBuckets) writeBuckets(writer, after.buckets)
  const changed = after.partitions.flatMap((partition, index) =>
    isSamePartition(partition, before.partitions[index]!) ? [] : [index],
  )
  writer.u16(changed.length)
  const places = placesOf(after.members)
  for (const index of changed) {
    writer.u16(index)
    writePartition(writer, after.partitions[index]!, places)
  }
  return writer.toBytes()
}

/** Epochs and digests of a delta, without a look at the rest; undefined where it is none. */
export function deltaHead(
  bytes: Uint8Array,
): { readonly epoch: number; readonly digest: string; readonly result: string } | undefined {
  const reader = new ByteReader(bytes)
  if (reader.u8() !== topologyVersion || reader.u8() !== deltaKind) return undefined
  const head = { epoch: reader.u32(), digest: readId(reader), result: readId(reader) }
  return reader.failed ? undefined : head
}

/** The topology that a delta makes of `before`; undefined where it goes on from another one, or the bytes are no delta. */
export function applyDelta(before: Topology, beforeDigest: string, bytes: Uint8Array): Topology | undefined {
  if (bytes.length > Limits.topologyBytesMax) return undefined
  const head = deltaHead(bytes)
  if (head === undefined || head.epoch !== before.epoch || head.digest !== beforeDigest) return undefined
  const reader = new ByteReader(bytes, 2 + 4 + 8 + 8)
  const frame = readFrame(reader)
  if (frame === undefined || frame.partitionCount !== before.partitions.length || frame.epoch <= before.epoch)
    return undefined
  const bits = reader.u8()
  const members = (bits & 1) !== 0 ? readMembers(reader) : before.members
  const buckets = members !== undefined && (bits & 2) !== 0 ? readBuckets(reader) : before.buckets
  if (members === undefined || buckets === undefined) return undefined
  const partitions = [...before.partitions]
  for (let left = reader.u16(); left > 0; left--) {
    const index = reader.u16()
    const partition = readPartition(reader, members)
    if (partition === undefined || index >= partitions.length) return undefined
    partitions[index] = partition
  }
  const after = topologyOf(frame, members, buckets, partitions)
  if (reader.failed || invariantsOf(after).length > 0 || digestOf(after) !== head.result) return undefined
  return isSameBytes(encodeDelta(before, beforeDigest, after, head.result), bytes) ? after : undefined
}

// The frame.

function writeFrame(writer: ByteWriter, topology: Topology): void {
  writeId(writer, topology.clusterId)
  writer.u32(topology.epoch)
  writer.u8(Math.log2(topology.partitions.length))
  writer.u8(topology.isPlanDue ? 1 : 0)
  writer.u32(topology.batch)
  writer.u32(topology.nextBucketId)
  for (const ids of [topology.voters, topology.changes]) {
    writer.u8(ids.length)
    for (const id of ids) writeId(writer, id)
  }
}

function readFrame(reader: ByteReader): Frame | undefined {
  const clusterId = readId(reader)
  const epoch = reader.u32()
  const shift = reader.u8()
  const isPlanDue = reader.u8() === 1
  const batch = reader.u32()
  const nextBucketId = reader.u32()
  const voters = readIds(reader)
  const changes = readIds(reader)
  if (reader.failed || shift > Math.log2(Limits.partitionsMax)) return undefined
  return { clusterId, epoch, partitionCount: 2 ** shift, isPlanDue, batch, nextBucketId, voters, changes }
}

function topologyOf(
  { partitionCount: _, ...frame }: Frame,
  members: readonly TopologyMember[],
  buckets: readonly TopologyBucket[],
  partitions: readonly PartitionState[],
): Topology {
  return { ...frame, members, buckets, partitions }
}

// Members.

function writeMembers(writer: ByteWriter, members: readonly TopologyMember[]): void {
  writer.u16(members.length)
  for (const { nodeId, state, weight, joinedAt, replaces, acceptor, address, zone } of members) {
    writeId(writer, nodeId)
    writer.u8(memberStandings.indexOf(state))
    writer.u16(Math.round(weight * 100))
    writer.u32(joinedAt)
    writeId(writer, replaces ?? noId)
    writeId(writer, acceptor ?? noId)
    writeText(writer, address)
    writeText(writer, zone)
  }
}

function readMembers(reader: ByteReader): readonly TopologyMember[] | undefined {
  const members: TopologyMember[] = []
  const count = reader.u16()
  if (count > Limits.clusterMembersMax) return undefined
  for (let left = count; left > 0; left--) {
    const nodeId = readId(reader)
    const state = memberStandings[reader.u8()]
    const weight = reader.u16() / 100
    const joinedAt = reader.u32()
    const replaced = readId(reader)
    const acceptorId = readId(reader)
    const address = readText(reader)
    const zone = readText(reader)
    if (reader.failed || state === undefined || address === undefined || zone === undefined) return undefined
    const replaces = replaced === noId ? undefined : replaced
    const acceptor = acceptorId === noId ? undefined : acceptorId
    members.push({ nodeId, address, weight, zone, joinedAt, state, replaces, acceptor })
  }
  return members
}

// Buckets.

function writeBuckets(writer: ByteWriter, buckets: readonly TopologyBucket[]): void {
  writer.u16(buckets.length)
  for (const bucket of buckets) {
    writer.u32(bucket.id)
    writeText(writer, bucket.name)
    writer.u8(bucket.n)
    writer.u8(levelNumber(bucket.r))
    writer.u8(levelNumber(bucket.w))
    writer.u8((bucket.sloppy ? 1 : 0) | (bucket.conflict === 'lww' ? 2 : 0))
    writer.u8(durabilities.indexOf(bucket.durability))
    writer.u64(bucket.ttlMs ?? 0)
    writer.u32(bucket.valueBytesMax ?? 0)
  }
}

function readBuckets(reader: ByteReader): readonly TopologyBucket[] | undefined {
  const buckets: TopologyBucket[] = []
  const count = reader.u16()
  if (count > Limits.bucketsMax) return undefined
  for (let left = count; left > 0; left--) {
    const id = reader.u32()
    const name = readText(reader)
    const n = reader.u8()
    const r = levelOf(reader.u8())
    const w = levelOf(reader.u8())
    const bits = reader.u8()
    const durability = durabilities[reader.u8()]
    const ttlMs = reader.u64() || undefined
    const valueBytesMax = reader.u32() || undefined
    if (reader.failed || name === undefined || r === undefined || w === undefined) return undefined
    const conflict = (bits & 2) !== 0 ? 'lww' : 'siblings'
    buckets.push({ id, name, n, r, w, sloppy: (bits & 1) !== 0, conflict, durability, ttlMs, valueBytesMax })
  }
  return buckets
}

function levelNumber(level: BucketLevel): number {
  return typeof level === 'number' ? level : namedLevelBase + levelNames.indexOf(level)
}

function levelOf(number: number): BucketLevel | undefined {
  return number < namedLevelBase ? number : levelNames[number - namedLevelBase]
}

// Partitions.

/** Bits, one replica, two varints. */
const partitionBytesMin = 4
const stageBits = 0b111
const lengthShift = 3
const hasNewBit = 1 << 6

/** Where each member stands in the list. */
function placesOf(members: readonly TopologyMember[]): ReadonlyMap<string, number> {
  return new Map(members.map(({ nodeId }, index) => [nodeId, index]))
}

function writePartition(writer: ByteWriter, partition: PartitionState, places: ReadonlyMap<string, number>): void {
  const { stage, old, new: added, since, fence } = partition
  const hasNew = !isSameList(old, added)
  writer.u8(stages.indexOf(stage) | (old.length << lengthShift) | (hasNew ? hasNewBit : 0))
  writeReplicas(writer, old, places)
  if (hasNew) {
    writer.u8(added.length)
    writeReplicas(writer, added, places)
  }
  writeVarint(writer, since)
  writeVarint(writer, since - fence)
}

function readPartition(reader: ByteReader, members: readonly TopologyMember[]): PartitionState | undefined {
  const bits = reader.u8()
  const stage = stages[bits & stageBits]
  const old = readReplicas(reader, (bits >>> lengthShift) & 0b111, members)
  const added = (bits & hasNewBit) === 0 ? old : readReplicas(reader, reader.u8(), members)
  const since = readVarint(reader)
  const fence = since - readVarint(reader)
  if (reader.failed || stage === undefined || old === undefined || added === undefined) return undefined
  return { stage, old, new: added, since, fence }
}

function writeReplicas(writer: ByteWriter, list: readonly string[], places: ReadonlyMap<string, number>): void {
  for (const nodeId of list) {
    if (places.size > 256) writer.u16(places.get(nodeId)!)
    else writer.u8(places.get(nodeId)!)
  }
}

function readReplicas(
  reader: ByteReader,
  length: number,
  members: readonly TopologyMember[],
): readonly string[] | undefined {
  if (length > Limits.replicasMax) return undefined
  const list: string[] = []
  for (let left = length; left > 0; left--) {
    const member = members[members.length > 256 ? reader.u16() : reader.u8()]
    if (member === undefined) return undefined
    list.push(member.nodeId)
  }
  return list
}

function isSamePartition(a: PartitionState, b: PartitionState): boolean {
  if (a === b) return true
  const isSame = a.stage === b.stage && a.since === b.since && a.fence === b.fence
  return isSame && isSameList(a.old, b.old) && isSameList(a.new, b.new)
}

// Numbers, ids and texts.

function writeVarint(writer: ByteWriter, value: number): void {
  let left = value
  for (; left >= 0x80; left = Math.floor(left / 0x80)) writer.u8((left % 0x80) | 0x80)
  writer.u8(left)
}

/** A u32; more than five bytes are none, and make the reader go on as if they had ended. */
function readVarint(reader: ByteReader): number {
  let value = 0
  for (let factor = 1; factor <= 0x80 ** 4; factor *= 0x80) {
    const byte = reader.u8()
    value += (byte & 0x7f) * factor
    if (byte < 0x80) break
  }
  return value
}

function readIds(reader: ByteReader): readonly string[] {
  const ids: string[] = []
  for (let left = reader.u8(); left > 0 && !reader.failed; left--) ids.push(readId(reader))
  return ids
}

/** Sixteen hexadecimal digits as eight bytes. */
export function writeId(writer: ByteWriter, id: string): void {
  writer.u32(Number.parseInt(id.slice(8), 16))
  writer.u32(Number.parseInt(id.slice(0, 8), 16))
}

export function readId(reader: ByteReader): string {
  const low = reader.u32()
  return hexOf(low, reader.u32())
}

function hexOf(low: number, high: number): string {
  return high.toString(16).padStart(8, '0') + low.toString(16).padStart(8, '0')
}

function writeText(writer: ByteWriter, text: string): void {
  if (!isAscii(text)) {
    const bytes = utf8.encode(text)
    writer.u8(bytes.length)
    writer.raw(bytes)
    return
  }
  // Most are: names, hosts and ports. The encoder takes longer than all the rest of a small topology.
  writer.u8(text.length)
  for (let index = 0; index < text.length; index++) writer.u8(text.charCodeAt(index))
}

function isAscii(text: string): boolean {
  for (let index = 0; index < text.length; index++) if (text.charCodeAt(index) >= 0x80) return false
  return true
}

function readText(reader: ByteReader): string | undefined {
  const bytes = reader.raw(reader.u8())
  if (bytes.every((byte) => byte < 0x80)) return String.fromCharCode(...bytes)
  try {
    return utf8Reader.decode(bytes)
  } catch {
    return undefined
  }
}

function isWrittenAlike<Value>(a: Value, b: Value, write: (writer: ByteWriter, value: Value) => void): boolean {
  if (a === b) return true
  const [first, second] = [new ByteWriter(), new ByteWriter()]
  write(first, a)
  write(second, b)
  return isSameBytes(first.toBytes(), second.toBytes())
}

function isSameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && equalBytes(a, 0, b, 0, a.length)
}
