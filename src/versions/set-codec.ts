/**
 * A version set as it travels between nodes, and between threads where one of them has no actor table: everything is named by 64-bit actor
 * ids, so any node reads it, and equal sets have equal bytes. Little-endian, version 1:
 *
 *      0 u8  format version    1 u8 0    2 u16 vectorCount    4 u16 versionCount    6 u16 0
 *      8 vector, ascending by actor id as unsigned 64-bit numbers, each
 *          0 u32 actorLow   4 u32 actorHigh   8 u32 counterLow   12 u16 counterHigh
 *        versions, ascending by (actor id, counter), each
 *          0 u16 place of its actor in the vector   2 u16 counterHigh   4 u32 counterLow
 *          8 u8 flags: 1 tombstone, 2 expiry, 4 timestamp   9 u8 typeBytes   10 u16 0   12 u32 valueBytes
 *         16 (expiry) u64 expiresAtMs | (timestamp) u64 | content type | value
 *
 * Every actor of a version stands in the vector, since a vector covers the dots of its set. Whoever carries it adds the checksum. The
 * decoder takes this form only and never throws: a peer's bytes are not trusted.
 */
import { ByteReader, ByteWriter } from '../base/bytes.ts'
import type { ActorIndexer } from './partition-clock.ts'
import {
  type ActorTable,
  counterMax,
  type Vector,
  type VectorEntry,
  type Version,
  type VersionSet,
} from './version-set.ts'

export const setFormatVersion = 1

const headBytes = 8
const entryBytes = 14
const versionBytes = 16
const countMax = 0xffff
const typeBytesMax = 0xff
const Flag = { tombstone: 1, expiry: 2, timestamp: 4 } as const
const flagsKnown = Flag.tombstone | Flag.expiry | Flag.timestamp
/** Content type of a version without a value. */
const defaultContentType = 'application/octet-stream'

/** Why bytes are not a version set. `actor`: the actor table has no room for one of its actors. */
export type SetFault = 'version' | 'length' | 'order' | 'form' | 'actor'

type Id = { readonly low: number; readonly high: number }

function compareIds(a: Id, b: Id): number {
  return a.high - b.high || a.low - b.low
}

/** The set as bytes. */
export function encodeSet(set: VersionSet, actors: ActorTable): Uint8Array {
  const vector = set.vector
    .map(({ actor, counter }) => ({ actor, counter, low: actors.lowOf(actor) >>> 0, high: actors.highOf(actor) >>> 0 }))
    .sort(compareIds)
  const placeOf = new Map(vector.map(({ actor }, place) => [actor, place]))
  const versions = set.versions
    .map((version) => ({ version, place: placeOf.get(version.actor)! }))
    .sort((a, b) => a.place - b.place || a.version.counter - b.version.counter)
  const valueBytes = versions.reduce((sum, { version }) => sum + version.value.length + 48, 0)
  const writer = new ByteWriter(headBytes + entryBytes * vector.length + valueBytes)
  writer.u8(setFormatVersion)
  writer.u8(0)
  writer.u16(vector.length)
  writer.u16(versions.length)
  writer.u16(0)
  for (const { low, high, counter } of vector) {
    writer.u32(low)
    writer.u32(high)
    writer.u32(counter >>> 0)
    writer.u16(Math.floor(counter / 0x1_0000_0000))
  }
  for (const { version, place } of versions) writeVersion(writer, version, place)
  return writer.toBytes()
}

function writeVersion(writer: ByteWriter, version: Version, place: number): void {
  const { counter, tombstone, expiresAtMs, timestamp, value } = version
  const contentType = version.contentType === defaultContentType ? '' : version.contentType
  writer.u16(place)
  writer.u16(Math.floor(counter / 0x1_0000_0000))
  writer.u32(counter >>> 0)
  writer.u8(
    (tombstone ? Flag.tombstone : 0) | (expiresAtMs > 0 ? Flag.expiry : 0) | (timestamp > 0 ? Flag.timestamp : 0),
  )
  writer.u8(contentType.length)
  writer.u16(0)
  writer.u32(value.length)
  if (expiresAtMs > 0) writer.u64(expiresAtMs)
  if (timestamp > 0) writer.u64(timestamp)
  for (let index = 0; index < contentType.length; index++) writer.u8(contentType.charCodeAt(index))
  writer.raw(value)
}

/**
 * The set that `encodeSet` wrote to `bytes[start, end)`, or why there is none. Values are copies. Actors are noted only once all
 * else is known to be right: bytes that are no set leave no trace in the actor table.
 */
export function decodeSet(
  bytes: Uint8Array,
  start: number,
  end: number,
  actorIndex: ActorIndexer,
): VersionSet | SetFault {
  const reader = new ByteReader(bytes, start, end)
  const formatVersion = reader.u8()
  const reserved = reader.u8()
  const vectorCount = reader.u16()
  const versionCount = reader.u16()
  const reservedToo = reader.u16()
  if (reader.failed) return 'length'
  if (formatVersion !== setFormatVersion) return 'version'
  if (reserved !== 0 || reservedToo !== 0) return 'form'
  if (vectorCount * entryBytes + versionCount * versionBytes > reader.remaining) return 'length'
  const ids: (Id & { readonly counter: number })[] = []
  for (let place = 0; place < vectorCount; place++) {
    const low = reader.u32()
    const high = reader.u32()
    const counterLow = reader.u32()
    const counter = reader.u16() * 0x1_0000_0000 + counterLow
    const id = { low, high, counter }
    if (place > 0 && compareIds(ids[place - 1]!, id) >= 0) return 'order'
    if (counter === 0) return 'form'
    ids.push(id)
  }
  const versions: (Omit<Version, 'actor'> & { readonly place: number })[] = []
  for (let index = 0; index < versionCount; index++) {
    const version = readVersion(reader)
    if (typeof version === 'string') return version
    const before = versions.at(-1)
    if (before !== undefined && before.place - version.place >= 0) {
      if (before.place !== version.place || before.counter >= version.counter) return 'order'
    }
    const entry = ids[version.place]
    if (entry === undefined || version.counter === 0 || version.counter > entry.counter) return 'form'
    versions.push(version)
  }
  if (reader.remaining !== 0) return 'length'
  const actors: number[] = []
  for (const { low, high } of ids) {
    const actor = actorIndex(low, high)
    if (actor < 0) return 'actor'
    actors.push(actor)
  }
  const vector: Vector = ids
    .map(({ counter }, place): VectorEntry => ({ actor: actors[place]!, counter }))
    .sort((a, b) => a.actor - b.actor)
  return {
    versions: versions
      .map(({ place, ...version }): Version => ({ ...version, actor: actors[place]! }))
      .sort((a, b) => a.actor - b.actor || a.counter - b.counter),
    vector,
  }
}

function readVersion(reader: ByteReader): (Omit<Version, 'actor'> & { readonly place: number }) | SetFault {
  const place = reader.u16()
  const counterHigh = reader.u16()
  const counter = counterHigh * 0x1_0000_0000 + reader.u32()
  const flags = reader.u8()
  const typeBytes = reader.u8()
  const reserved = reader.u16()
  const valueBytes = reader.u32()
  const tombstone = (flags & Flag.tombstone) !== 0
  const expiresAtMs = flags & Flag.expiry ? reader.u64() : 0
  const timestamp = flags & Flag.timestamp ? reader.u64() : 0
  if (reader.failed || typeBytes + valueBytes > reader.remaining) return 'length'
  if ((flags & ~flagsKnown) !== 0 || reserved !== 0) return 'form'
  if ((flags & Flag.expiry) !== 0 && expiresAtMs === 0) return 'form'
  if ((flags & Flag.timestamp) !== 0 && timestamp === 0) return 'form'
  // A tombstone has nothing to show, and nothing to expire.
  if (tombstone && (typeBytes > 0 || valueBytes > 0 || expiresAtMs > 0)) return 'form'
  let contentType = ''
  for (let index = 0; index < typeBytes; index++) {
    const code = reader.u8()
    if (code < 0x20 || code >= 0x7f) return 'form'
    contentType += String.fromCharCode(code)
  }
  if (contentType === defaultContentType) return 'form'
  return {
    place,
    counter,
    tombstone,
    expiresAtMs,
    timestamp,
    contentType: contentType === '' ? defaultContentType : contentType,
    value: reader.raw(valueBytes),
  }
}

/** Whether a set fits the format: counts are u16, content types a byte long. What clients may store always does. */
export function fitsFormat(set: VersionSet): boolean {
  return (
    set.vector.length <= countMax &&
    set.versions.length <= countMax &&
    set.versions.every(({ contentType, counter }) => contentType.length <= typeBytesMax && counter <= counterMax)
  )
}
