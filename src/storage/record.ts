/**
 * The record: one key with its version set, laid out alike in the arena, the commit log and (later) tables. Little-endian;
 * starts at a multiple of 4 and is a multiple of 4 long, so that keys and values can be compared and copied by words.
 *
 *      0 u32 recordBytes       whole record, padding included
 *      4 u16 slot
 *      6 u16 keyBytes          1..2308 (2048 but for hints); in a control record, its kind
 *      8 u32 bucketId
 *     12 u8  flags             RecordFlag; bits 4-5: bytes of padding behind the value
 *     13 u8  contentTypeCode   ContentTypes; 1: spelled out
 *     14 u16 actor             index into the log's actor table
 *     16 u32 counterLow
 *     20 u16 counterHigh       the dot's counter has 48 bits
 *     22 u16 contentTypeBytes  length of a content type that is spelled out
 *     24 key, padded to 4
 *        u32 x 2 expiry        milliseconds since 1970, where flagged
 *        u32 x 2 timestamp     hybrid logical clock, where flagged
 *        content type, padded to 4
 *        value, padded to 4
 *
 * That is the simple form: one version, and its vector is just its dot. Otherwise (flag `simple` off; flag `expiry` says that
 * some version expires, `tombstone` that none is live) the fields from 13 on are
 *
 *     13 u8 0   14 u16 versionCount   16 u16 vectorCount   18 u16 0   20 u32 0
 *     24 key, padded to 4
 *        vectorCount  x { u16 actor, u16 counterHigh, u32 counterLow }
 *        versionCount x { u16 actor, u16 counterHigh, u32 counterLow, u8 flags, u8 contentTypeCode, u16 contentTypeBytes,
 *                         u32 valueBytes, expiry, timestamp, content type padded, value padded }
 *
 * A control record (flag `control`) carries facts about the log itself: see log-control.ts. Format version: LogFormatVersion
 * in log-group.ts. Records are checked by the checksum of their group, never one by one (a call per record costs more than
 * the write).
 */
import { assert } from '../base/assert.ts'
import { copyBytes, pad4 } from '../base/bytes.ts'
import type { Vector, VectorEntry, Version, VersionSet } from '../versions/version-set.ts'

/** Bits of the flags byte. On disk: never change these values. */
export const RecordFlag = {
  simple: 1,
  tombstone: 2,
  expiry: 4,
  timestamp: 8,
  paddingMask: 0x30,
  control: 0x40,
} as const

export const recordHeaderBytes = 24
const paddingShift = 4
const versionHeaderBytes = 16

/** Content types by code. On disk: append only. Code 0 is the default, code 1 says that the type is spelled out. */
export const ContentTypes: readonly string[] = [
  'application/octet-stream',
  '',
  'text/plain',
  'text/plain; charset=utf-8',
  'text/plain;charset=UTF-8',
  'application/json',
  'application/json; charset=utf-8',
  'text/html',
  'text/html; charset=utf-8',
  'text/css',
  'application/xml',
  'application/msgpack',
  'application/cbor',
  'application/x-www-form-urlencoded',
  'application/protobuf',
  'image/png',
  'image/jpeg',
  'image/webp',
  'image/svg+xml',
  'application/pdf',
  'application/gzip',
  'application/x-ndjson',
]
export const contentTypeSpelledOut = 1
const codeOfType: ReadonlyMap<string, number> = new Map(
  ContentTypes.map((type, code) => [type, code] as const).filter(([, code]) => code !== contentTypeSpelledOut),
)

/** The code of a content type; `contentTypeSpelledOut` for one that has none. */
export function contentTypeCodeOf(type: string): number {
  return codeOfType.get(type) ?? contentTypeSpelledOut
}

function asciiInto(text: string, target: Uint8Array, at: number): void {
  for (let index = 0; index < text.length; index++) target[at + index] = text.charCodeAt(index)
}

function asciiOf(bytes: Uint8Array, start: number, end: number): string {
  let text = ''
  for (let at = start; at < end; at++) text += String.fromCharCode(bytes[at]!)
  return text
}

/** Bytes of a simple record. */
export function simpleRecordBytes(flags: number, keyBytes: number, typeBytes: number, valueBytes: number): number {
  const optional = (flags & RecordFlag.expiry ? 8 : 0) + (flags & RecordFlag.timestamp ? 8 : 0)
  return recordHeaderBytes + pad4(keyBytes) + optional + pad4(typeBytes) + pad4(valueBytes)
}

/** Offset of the first byte behind the key's padding, from the start of the record at `at`. */
export function keyEndPadded(u8: Uint8Array, at: number): number {
  return recordHeaderBytes + pad4(u8[at + 6]! | (u8[at + 7]! << 8))
}

/** Where the value of the simple record at `at` starts; ends at `at + recordBytes - padding`. */
export function simpleValueStart(u8: Uint8Array, at: number): number {
  const flags = u8[at + 12]!
  const optional = (flags & RecordFlag.expiry ? 8 : 0) + (flags & RecordFlag.timestamp ? 8 : 0)
  const typeBytes = u8[at + 22]! | (u8[at + 23]! << 8)
  return at + keyEndPadded(u8, at) + optional + pad4(typeBytes)
}

/** Padding bytes behind the value of a simple record. */
export function valuePadding(flags: number): number {
  return (flags & RecordFlag.paddingMask) >>> paddingShift
}

/** Milliseconds since 1970 at which the simple record at `at` expires; 0: never. */
export function simpleExpiry(u8: Uint8Array, i32: Int32Array, at: number): number {
  if ((u8[at + 12]! & RecordFlag.expiry) === 0) return 0
  const word = (at + keyEndPadded(u8, at)) >>> 2
  return (i32[word]! >>> 0) + (i32[word + 1]! >>> 0) * 0x1_0000_0000
}

/** Hybrid logical clock of the simple record at `at`; 0: none. */
export function simpleTimestamp(u8: Uint8Array, i32: Int32Array, at: number): number {
  const flags = u8[at + 12]!
  if ((flags & RecordFlag.timestamp) === 0) return 0
  const word = (at + keyEndPadded(u8, at) + (flags & RecordFlag.expiry ? 8 : 0)) >>> 2
  return (i32[word]! >>> 0) + (i32[word + 1]! >>> 0) * 0x1_0000_0000
}

export function recordBytesAt(i32: Int32Array, at: number): number {
  return i32[at >>> 2]! >>> 0
}

export function recordSlot(u8: Uint8Array, at: number): number {
  return u8[at + 4]! | (u8[at + 5]! << 8)
}

export function recordKeyBytes(u8: Uint8Array, at: number): number {
  return u8[at + 6]! | (u8[at + 7]! << 8)
}

export function recordBucket(i32: Int32Array, at: number): number {
  return i32[(at >>> 2) + 2]! >>> 0
}

export function simpleActor(u8: Uint8Array, at: number): number {
  return u8[at + 14]! | (u8[at + 15]! << 8)
}

export function simpleCounter(u8: Uint8Array, i32: Int32Array, at: number): number {
  return (i32[(at >>> 2) + 4]! >>> 0) + (u8[at + 20]! | (u8[at + 21]! << 8)) * 0x1_0000_0000
}

/** Writes the fixed part and the key of a record; the caller fills the rest. */
function encodeHead(
  u8: Uint8Array,
  i32: Int32Array,
  at: number,
  recordBytes: number,
  slot: number,
  bucketId: number,
  key: Uint8Array,
  keyStart: number,
  keyBytes: number,
): void {
  const word = at >>> 2
  i32[word] = recordBytes
  i32[word + 1] = slot | (keyBytes << 16)
  i32[word + 2] = bucketId
  i32[(at + recordHeaderBytes + pad4(keyBytes) - 4) >>> 2] = 0
  copyBytes(key, keyStart, u8, at + recordHeaderBytes, keyBytes)
}

/**
 * Encodes a simple record at `at` from parts that may lie in ring memory, without allocating. `flags` has tombstone, expiry
 * and timestamp as needed; the padding bits and `simple` are added here. Returns the record's bytes.
 */
export function encodeSimple(
  u8: Uint8Array,
  i32: Int32Array,
  at: number,
  slot: number,
  bucketId: number,
  flags: number,
  contentTypeCode: number,
  actor: number,
  counter: number,
  expiresAtMs: number,
  timestamp: number,
  key: Uint8Array,
  keyStart: number,
  keyBytes: number,
  type: Uint8Array,
  typeStart: number,
  typeBytes: number,
  value: Uint8Array,
  valueStart: number,
  valueBytes: number,
): number {
  const recordBytes = simpleRecordBytes(flags, keyBytes, typeBytes, valueBytes)
  encodeHead(u8, i32, at, recordBytes, slot, bucketId, key, keyStart, keyBytes)
  const word = at >>> 2
  const padding = pad4(valueBytes) - valueBytes
  i32[word + 3] = flags | RecordFlag.simple | (padding << paddingShift) | (contentTypeCode << 8) | (actor << 16)
  i32[word + 4] = counter
  i32[word + 5] = Math.floor(counter / 0x1_0000_0000) | (typeBytes << 16)
  let next = at + recordHeaderBytes + pad4(keyBytes)
  if (flags & RecordFlag.expiry) {
    i32[next >>> 2] = expiresAtMs
    i32[(next >>> 2) + 1] = Math.floor(expiresAtMs / 0x1_0000_0000)
    next += 8
  }
  if (flags & RecordFlag.timestamp) {
    i32[next >>> 2] = timestamp
    i32[(next >>> 2) + 1] = Math.floor(timestamp / 0x1_0000_0000)
    next += 8
  }
  if (typeBytes > 0) {
    i32[(next + pad4(typeBytes) - 4) >>> 2] = 0
    copyBytes(type, typeStart, u8, next, typeBytes)
    next += pad4(typeBytes)
  }
  if (valueBytes > 0) {
    i32[(next + pad4(valueBytes) - 4) >>> 2] = 0
    copyBytes(value, valueStart, u8, next, valueBytes)
  }
  return recordBytes
}

function isSimpleSet(set: VersionSet): boolean {
  if (set.versions.length !== 1 || set.vector.length !== 1) return false
  const version = set.versions[0]!
  const entry = set.vector[0]!
  return version.actor === entry.actor && version.counter === entry.counter
}

function versionFlags(version: Version): number {
  return (
    (version.tombstone ? RecordFlag.tombstone : 0) |
    (version.expiresAtMs > 0 ? RecordFlag.expiry : 0) |
    (version.timestamp > 0 ? RecordFlag.timestamp : 0)
  )
}

/** Length of the content type as stored: 0 unless it is spelled out. */
function typeBytesOf(version: Version): number {
  return contentTypeCodeOf(version.contentType) === contentTypeSpelledOut ? version.contentType.length : 0
}

/** Bytes of the record that holds `set` under a key of `keyBytes`. */
export function recordBytesOf(set: VersionSet, keyBytes: number): number {
  if (isSimpleSet(set)) {
    const version = set.versions[0]!
    return simpleRecordBytes(versionFlags(version), keyBytes, typeBytesOf(version), version.value.length)
  }
  let bytes = recordHeaderBytes + pad4(keyBytes) + 8 * set.vector.length
  for (const version of set.versions) {
    const optional = (version.expiresAtMs > 0 ? 8 : 0) + (version.timestamp > 0 ? 8 : 0)
    bytes += versionHeaderBytes + optional + pad4(typeBytesOf(version)) + pad4(version.value.length)
  }
  return bytes
}

/** Encodes a version set; the simple form where it fits. Allocates: for siblings, merges and tests. Returns the bytes. */
export function encodeRecord(
  u8: Uint8Array,
  i32: Int32Array,
  at: number,
  slot: number,
  bucketId: number,
  key: Uint8Array,
  keyStart: number,
  keyBytes: number,
  set: VersionSet,
): number {
  if (isSimpleSet(set)) {
    const version = set.versions[0]!
    const typeBytes = typeBytesOf(version)
    const type = new Uint8Array(typeBytes)
    if (typeBytes > 0) asciiInto(version.contentType, type, 0)
    return encodeSimple(
      u8,
      i32,
      at,
      slot,
      bucketId,
      versionFlags(version),
      contentTypeCodeOf(version.contentType),
      version.actor,
      version.counter,
      version.expiresAtMs,
      version.timestamp,
      key,
      keyStart,
      keyBytes,
      type,
      0,
      typeBytes,
      version.value,
      0,
      version.value.length,
    )
  }
  assert(set.versions.length <= 0xffff && set.vector.length <= 0xffff, 'A record holds at most 65535 versions')
  const recordBytes = recordBytesOf(set, keyBytes)
  encodeHead(u8, i32, at, recordBytes, slot, bucketId, key, keyStart, keyBytes)
  let word = at >>> 2
  const flags =
    (set.versions.some((version) => version.expiresAtMs > 0) ? RecordFlag.expiry : 0) |
    (set.versions.every((version) => version.tombstone) ? RecordFlag.tombstone : 0)
  i32[word + 3] = flags | (set.versions.length << 16)
  i32[word + 4] = set.vector.length
  i32[word + 5] = 0
  word = (at + recordHeaderBytes + pad4(keyBytes)) >>> 2
  for (const entry of set.vector) {
    i32[word++] = entry.actor | (Math.floor(entry.counter / 0x1_0000_0000) << 16)
    i32[word++] = entry.counter
  }
  for (const version of set.versions) {
    const typeBytes = typeBytesOf(version)
    i32[word++] = version.actor | (Math.floor(version.counter / 0x1_0000_0000) << 16)
    i32[word++] = version.counter
    i32[word++] = versionFlags(version) | (contentTypeCodeOf(version.contentType) << 8) | (typeBytes << 16)
    i32[word++] = version.value.length
    if (version.expiresAtMs > 0) {
      i32[word++] = version.expiresAtMs
      i32[word++] = Math.floor(version.expiresAtMs / 0x1_0000_0000)
    }
    if (version.timestamp > 0) {
      i32[word++] = version.timestamp
      i32[word++] = Math.floor(version.timestamp / 0x1_0000_0000)
    }
    if (typeBytes > 0) {
      i32[word + (pad4(typeBytes) >>> 2) - 1] = 0
      asciiInto(version.contentType, u8, word << 2)
      word += pad4(typeBytes) >>> 2
    }
    if (version.value.length > 0) {
      i32[word + (pad4(version.value.length) >>> 2) - 1] = 0
      u8.set(version.value, word << 2)
      word += pad4(version.value.length) >>> 2
    }
  }
  assert(word << 2 === at + recordBytes, 'A record is as long as it was said to be')
  return recordBytes
}

/** Fresh memory for bytes that leave; its content is not looked at. */
export type Allocate = (bytes: number) => Uint8Array

const allocateAlone: Allocate = (bytes) => new Uint8Array(bytes)

/**
 * The version set of the record at `at`, whose bytes must be whole (checksummed or a validated copy). Values are copies, in
 * memory that `allocate` gives: an array of its own costs five times as much as a view of a pool.
 */
export function decodeRecord(
  u8: Uint8Array,
  i32: Int32Array,
  at: number,
  allocate: Allocate = allocateAlone,
): VersionSet {
  const flags = u8[at + 12]!
  if (flags & RecordFlag.simple) return decodeSimple(u8, i32, at, allocate)
  const versionCount = u8[at + 14]! | (u8[at + 15]! << 8)
  const vectorCount = u8[at + 16]! | (u8[at + 17]! << 8)
  let word = (at + keyEndPadded(u8, at)) >>> 2
  const vector: { actor: number; counter: number }[] = []
  for (let index = 0; index < vectorCount; index++) {
    vector.push({ actor: i32[word]! & 0xffff, counter: (i32[word]! >>> 16) * 0x1_0000_0000 + (i32[word + 1]! >>> 0) })
    word += 2
  }
  const versions: Version[] = []
  for (let index = 0; index < versionCount; index++) {
    const head = i32[word]!
    const counterLow = i32[word + 1]! >>> 0
    const kinds = i32[word + 2]!
    const valueBytes = i32[word + 3]! >>> 0
    word += 4
    const expiresAtMs = kinds & RecordFlag.expiry ? (i32[word]! >>> 0) + (i32[word + 1]! >>> 0) * 0x1_0000_0000 : 0
    if (kinds & RecordFlag.expiry) word += 2
    const timestamp = kinds & RecordFlag.timestamp ? (i32[word]! >>> 0) + (i32[word + 1]! >>> 0) * 0x1_0000_0000 : 0
    if (kinds & RecordFlag.timestamp) word += 2
    const typeBytes = kinds >>> 16
    const code = (kinds >>> 8) & 0xff
    const contentType =
      code === contentTypeSpelledOut
        ? asciiOf(u8, word << 2, (word << 2) + typeBytes)
        : (ContentTypes[code] ?? ContentTypes[0]!)
    word += pad4(typeBytes) >>> 2
    versions.push({
      actor: head & 0xffff,
      counter: (head >>> 16) * 0x1_0000_0000 + counterLow,
      tombstone: (kinds & RecordFlag.tombstone) !== 0,
      expiresAtMs,
      timestamp,
      contentType,
      value: copyOf(u8, word << 2, valueBytes, allocate),
    })
    word += pad4(valueBytes) >>> 2
  }
  return { versions, vector }
}

/** The content type of the simple record at `at`. */
export function simpleContentType(u8: Uint8Array, at: number): string {
  const code = u8[at + 13]!
  if (code !== contentTypeSpelledOut) return ContentTypes[code] ?? ContentTypes[0]!
  const typeBytes = u8[at + 22]! | (u8[at + 23]! << 8)
  const start = simpleValueStart(u8, at) - pad4(typeBytes)
  return asciiOf(u8, start, start + typeBytes)
}

function copyOf(u8: Uint8Array, start: number, bytes: number, allocate: Allocate): Uint8Array {
  const into = allocate(bytes)
  // Whoever gives no memory wants no values.
  if (into.length === bytes) copyBytes(u8, start, into, 0, bytes)
  return into
}

function decodeSimple(u8: Uint8Array, i32: Int32Array, at: number, allocate: Allocate): VersionSet {
  const flags = u8[at + 12]!
  const actor = simpleActor(u8, at)
  const counter = simpleCounter(u8, i32, at)
  let word = (at + keyEndPadded(u8, at)) >>> 2
  if (flags & RecordFlag.expiry) word += 2
  const timestamp = flags & RecordFlag.timestamp ? (i32[word]! >>> 0) + (i32[word + 1]! >>> 0) * 0x1_0000_0000 : 0
  const valueStart = simpleValueStart(u8, at)
  const valueBytes = at + recordBytesAt(i32, at) - valuePadding(flags) - valueStart
  const value = copyOf(u8, valueStart, valueBytes, allocate)
  const version: Version = {
    actor,
    counter,
    tombstone: (flags & RecordFlag.tombstone) !== 0,
    expiresAtMs: simpleExpiry(u8, i32, at),
    timestamp,
    contentType: simpleContentType(u8, at),
    value,
  }
  return { versions: [version], vector: [{ actor, counter }] }
}

/** The vector alone of the record at `at`. */
export function decodeVector(u8: Uint8Array, i32: Int32Array, at: number): Vector {
  if (u8[at + 12]! & RecordFlag.simple) return [{ actor: simpleActor(u8, at), counter: simpleCounter(u8, i32, at) }]
  const vectorCount = u8[at + 16]! | (u8[at + 17]! << 8)
  const vector: { actor: number; counter: number }[] = []
  let word = (at + keyEndPadded(u8, at)) >>> 2
  for (let index = 0; index < vectorCount; index++) {
    vector.push({ actor: i32[word]! & 0xffff, counter: (i32[word]! >>> 16) * 0x1_0000_0000 + (i32[word + 1]! >>> 0) })
    word += 2
  }
  return vector
}

/** Rewrites the actors that the record at `at` names: index `a` becomes `indices[a]`. The record is not a control record. */
export function translateActors(u8: Uint8Array, i32: Int32Array, at: number, indices: Uint16Array): void {
  const word = at >>> 2
  if (u8[at + 12]! & RecordFlag.simple) {
    i32[word + 3] = (i32[word + 3]! & 0xffff) | (indices[i32[word + 3]! >>> 16]! << 16)
    return
  }
  // Sets are kept in the order of their actors' indices, which may be another now.
  const set = decodeRecord(u8, i32, at)
  const renamed = <Dot extends VectorEntry>(dot: Dot): Dot => ({ ...dot, actor: indices[dot.actor]! })
  const inOrder = (a: VectorEntry, b: VectorEntry): number => a.actor - b.actor || a.counter - b.counter
  const keyStart = at + recordHeaderBytes
  const key = u8.slice(keyStart, keyStart + recordKeyBytes(u8, at))
  const bytes = encodeRecord(u8, i32, at, recordSlot(u8, at), recordBucket(i32, at), key, 0, key.length, {
    versions: set.versions.map(renamed).sort(inOrder),
    vector: set.vector.map(renamed).sort(inOrder),
  })
  assert(bytes === recordBytesAt(i32, at), 'A record with other actors is as long as before')
}
