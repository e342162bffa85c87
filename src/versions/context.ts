/**
 * The causal context that clients carry: an opaque token that says what an answer showed, so that the next write replaces
 * exactly that. Little-endian, version 1:
 *
 *      0 u8  format version
 *      1 u16 partition
 *      3 u16 entries
 *      5 entries, ascending by actor id as unsigned 64-bit numbers, each once:
 *          0 u32 actorLow   4 u32 actorHigh   8 u32 counterLow   12 u16 counterHigh
 *     -8 u32 macLow   u32 macHigh
 *
 *     mac = SipHash-2-4 under the cluster's key of { u32 'CTX1', the token before its mac, u32 bucket id, key bytes }
 *
 * The invariant: only a vector that this cluster gave out for this very key is accepted. A context of another key, bucket or
 * cluster, or a made-up one, would cover writes that its bearer never saw, and lose them silently. The word at the front keeps
 * codes of contexts apart from those of other tokens under the same key. The token has the 64-bit actor ids, so any node reads
 * it; one vector has one token on every node.
 *
 * It is not encrypted (it holds nothing but counts of writes) and does not expire.
 */
import type { SipHash } from '../base/siphash.ts'
import type { ActorTable, Vector } from './version-set.ts'

export const contextFormatVersion = 1

/** A longer token is refused unread. Equals `Limits.contextBytesMax`, of which its test makes sure. */
export const contextTokenBytesMax = 6 * 1024

const headerBytes = 5
const entryBytes = 14
const macBytes = 8

/** What the code of a context starts with: 'CTX1'. Tokens of other kinds under the same key start with another word. */
const macDomain = 0x31585443

/** Actors of a token at most: 437. */
export const contextEntriesMax = Math.floor((contextTokenBytesMax - headerBytes - macBytes) / entryBytes)

/** One actor of a context, by the halves of its 64-bit id, and the counter up to which its writes were seen. */
export type ContextEntry = { readonly high: number; readonly low: number; readonly counter: number }

/**
 * Why a token is refused: its length, its format version, its form (a genuine token never has it), its partition, or its code,
 * which is wrong for a forged token and for one of another key, bucket or cluster. To clients all are BAD_CONTEXT.
 */
export type ContextFault = 'length' | 'version' | 'form' | 'partition' | 'code'

/** Bytes of a token over `entryCount` actors. */
export function contextBytes(entryCount: number): number {
  return headerBytes + entryCount * entryBytes + macBytes
}

/**
 * Writes the context of a key into `into` from `start` on and returns its bytes; nothing else is allocated. Returns 0, with
 * `into` as it was, where the token would not fit there or has more than `contextEntriesMax` actors.
 */
export function encodeContext(
  siphash: SipHash,
  into: Uint8Array,
  start: number,
  partition: number,
  bucketId: number,
  key: Uint8Array,
  keyStart: number,
  keyEnd: number,
  vector: Vector,
  actors: ActorTable,
): number {
  const bytes = contextBytes(vector.length)
  if (vector.length > contextEntriesMax || start + bytes > into.length) return 0
  into[start] = contextFormatVersion
  putU16(into, start + 1, partition)
  putU16(into, start + 3, vector.length)
  let end = start + headerBytes
  for (const { actor, counter } of vector) {
    const low = actors.lowOf(actor) >>> 0
    const high = actors.highOf(actor) >>> 0
    // Vectors are sorted by index, tokens by id: an insertion sort, in place; there are few actors.
    let at = end
    while (at > start + headerBytes && isBelow(low, high, into, at - entryBytes)) at -= entryBytes
    if (at < end) into.copyWithin(at + entryBytes, at, end)
    putU32(into, at, low)
    putU32(into, at + 4, high)
    putU32(into, at + 8, counter)
    putU16(into, at + 12, Math.floor(counter / 0x1_0000_0000))
    end += entryBytes
  }
  authenticate(siphash, into, start, end, bucketId, key, keyStart, keyEnd)
  putU32(into, end, siphash.low)
  putU32(into, end + 4, siphash.high)
  return bytes
}

/**
 * The vector of the token `bytes[start, end)`, sorted by actor id, or why it is refused. Made for hostile bytes: never throws,
 * looks at no more than `contextTokenBytesMax` of them, and allocates only for a genuine token.
 */
export function decodeContext(
  siphash: SipHash,
  bytes: Uint8Array,
  start: number,
  end: number,
  partition: number,
  bucketId: number,
  key: Uint8Array,
  keyStart: number,
  keyEnd: number,
): readonly ContextEntry[] | ContextFault {
  const length = end - start
  if (length < headerBytes + macBytes || length > contextTokenBytesMax) return 'length'
  if (bytes[start] !== contextFormatVersion) return 'version'
  const count = u16At(bytes, start + 3)
  if (length !== contextBytes(count)) return 'length'
  if (u16At(bytes, start + 1) !== partition) return 'partition'
  const macAt = end - macBytes
  authenticate(siphash, bytes, start, macAt, bucketId, key, keyStart, keyEnd)
  // Both halves are compared before anything is decided, so that the time taken does not tell how much of a guess was right.
  if (((u32At(bytes, macAt) ^ siphash.low) | (u32At(bytes, macAt + 4) ^ siphash.high)) !== 0) return 'code'
  const entries: ContextEntry[] = []
  for (let at = start + headerBytes; at < macAt; at += entryBytes) {
    const low = u32At(bytes, at)
    const high = u32At(bytes, at + 4)
    const counter = u16At(bytes, at + 12) * 0x1_0000_0000 + u32At(bytes, at + 8)
    if (counter === 0) return 'form'
    if (
      at > start + headerBytes &&
      !isBelow(u32At(bytes, at - entryBytes), u32At(bytes, at - entryBytes + 4), bytes, at)
    ) {
      return 'form'
    }
    entries.push({ high, low, counter })
  }
  return entries
}

/** Leaves the code of the token `bytes[start, end)`, its mac apart, in `siphash`. */
function authenticate(
  siphash: SipHash,
  bytes: Uint8Array,
  start: number,
  end: number,
  bucketId: number,
  key: Uint8Array,
  keyStart: number,
  keyEnd: number,
): void {
  siphash.start()
  siphash.updateU32(macDomain)
  siphash.update(bytes, start, end)
  siphash.updateU32(bucketId)
  siphash.update(key, keyStart, keyEnd)
  siphash.finish()
}

/** Whether the id (low, high) is below that of the entry at `at`. */
function isBelow(low: number, high: number, bytes: Uint8Array, at: number): boolean {
  const otherHigh = u32At(bytes, at + 4)
  return high !== otherHigh ? high < otherHigh : low < u32At(bytes, at)
}

function putU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value
  bytes[at + 1] = value >>> 8
}

function putU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value
  bytes[at + 1] = value >>> 8
  bytes[at + 2] = value >>> 16
  bytes[at + 3] = value >>> 24
}

function u16At(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8)
}

function u32At(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0
}
