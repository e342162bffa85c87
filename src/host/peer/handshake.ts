/**
 * What peers say before they exchange messages, as payloads of frames of version 0 (frame.ts). Who dials says hello, and is welcomed or
 * refused. Numbers are little-endian; the forms never change.
 *
 *   hello     0 u8 lowest version   1 u8 highest version   2 u8 lane: 0 bulk, 1 light   3 u8 0
 *             4 u64 cluster, 0 where it is not known   12 u64 node   20 u8 length, own address in ASCII
 *   welcome   0 u8 version to use   1 u64 cluster, likewise   9 u64 node
 *   refused   0 u8 reason   1 u8 lowest version   2 u8 highest version
 *
 * Decoding takes any bytes and never throws.
 */
import { ByteReader, ByteWriter } from '../../base/bytes.ts'
import { noId, readId, writeId } from '../../cluster/topology/topology-bytes.ts'
import { Limits } from '../../config.ts'
import { parsePeerAddress } from './peer-address.ts'

/** Bulk is what replicas say; what tells who is alive has a connection of its own, so that bulk does not delay it. */
export type Lane = 'bulk' | 'light'

export type Versions = { readonly lowest: number; readonly highest: number }

export type Hello = {
  readonly versions: Versions
  readonly lane: Lane
  /** Undefined where the node has not joined a cluster yet. */
  readonly clusterId: string | undefined
  readonly nodeId: string
  /** Where it is reached. */
  readonly address: string
}

export type Welcome = { readonly version: number; readonly clusterId: string | undefined; readonly nodeId: string }

/** Why a node is not talked to. The place in the list is the number on the wire. */
export const refusals = ['', 'version', 'cluster', 'sameNode', 'certificate', 'full', 'closing'] as const
export type Refusal = Exclude<(typeof refusals)[number], ''>

export type Refused = { readonly reason: Refusal; readonly versions: Versions }

/** Greatest payload of a handshake. */
export const handshakeBytesMax = 21 + Limits.memberAddressBytesMax

export function encodeHello({ versions, lane, clusterId, nodeId, address }: Hello): Uint8Array {
  const writer = new ByteWriter()
  writer.u8(versions.lowest)
  writer.u8(versions.highest)
  writer.u8(lane === 'light' ? 1 : 0)
  writer.u8(0)
  writeId(writer, clusterId ?? noId)
  writeId(writer, nodeId)
  writer.u8(address.length)
  writer.raw(Buffer.from(address, 'latin1'))
  return writer.toBytes()
}

export function decodeHello(bytes: Uint8Array): Hello | undefined {
  const reader = new ByteReader(bytes)
  const versions = { lowest: reader.u8(), highest: reader.u8() }
  const lane = reader.u8()
  const reserved = reader.u8()
  const clusterId = readId(reader)
  const nodeId = readId(reader)
  const address = Buffer.from(reader.raw(reader.u8())).toString('latin1')
  if (reader.failed || reader.remaining > 0 || lane > 1 || reserved !== 0 || !areVersions(versions)) return undefined
  if (nodeId === noId || parsePeerAddress(address) === undefined) return undefined
  return { versions, lane: lane === 1 ? 'light' : 'bulk', clusterId: knownId(clusterId), nodeId, address }
}

export function encodeWelcome({ version, clusterId, nodeId }: Welcome): Uint8Array {
  const writer = new ByteWriter()
  writer.u8(version)
  writeId(writer, clusterId ?? noId)
  writeId(writer, nodeId)
  return writer.toBytes()
}

export function decodeWelcome(bytes: Uint8Array): Welcome | undefined {
  const reader = new ByteReader(bytes)
  const version = reader.u8()
  const clusterId = readId(reader)
  const nodeId = readId(reader)
  if (reader.failed || reader.remaining > 0 || version === 0 || nodeId === noId) return undefined
  return { version, clusterId: knownId(clusterId), nodeId }
}

export function encodeRefused({ reason, versions }: Refused): Uint8Array {
  return Uint8Array.of(refusals.indexOf(reason), versions.lowest, versions.highest)
}

export function decodeRefused(bytes: Uint8Array): Refused | undefined {
  if (bytes.length !== 3) return undefined
  const reason = refusals[bytes[0]!]
  const versions = { lowest: bytes[1]!, highest: bytes[2]! }
  return reason === undefined || reason === '' || !areVersions(versions) ? undefined : { reason, versions }
}

/** The highest version that both speak. */
export function commonVersion(a: Versions, b: Versions): number | undefined {
  const version = Math.min(a.highest, b.highest)
  return version < Math.max(a.lowest, b.lowest) ? undefined : version
}

/** Why two nodes that say this of themselves do not talk: two of one id are copies of one directory. */
export function strangeness(
  self: { readonly clusterId: string | undefined; readonly nodeId: string },
  other: { readonly clusterId: string | undefined; readonly nodeId: string },
): Refusal | undefined {
  if (self.nodeId === other.nodeId) return 'sameNode'
  const areOfOne = self.clusterId === undefined || other.clusterId === undefined || self.clusterId === other.clusterId
  return areOfOne ? undefined : 'cluster'
}

function areVersions({ lowest, highest }: Versions): boolean {
  return lowest > 0 && lowest <= highest
}

export function knownId(id: string): string | undefined {
  return id === noId ? undefined : id
}
