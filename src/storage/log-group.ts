/**
 * The log group: what one commit writes. A segment is a file of groups, one behind the other from offset 0, and equals its
 * arena segment byte for byte. Little-endian, at multiples of 4.
 *
 *      0 u32 magic             0x31475753, "SWG1"
 *      4 u32 crc               CRC-32 of the group from offset 8 to its end
 *      8 u32 sequence          of the segment; higher than that of every segment before it in this log, never reused
 *     12 u32 groupNumber       0, 1, 2 ... within the segment
 *     16 u32 groupBytes        with this header, a multiple of 4
 *     20 u32 syncedSequence    when this header was written, the log was on stable storage up to
 *     24 u32 syncedBytes       byte syncedBytes of segment syncedSequence
 *     28 u32 0
 *     32 records
 *
 * The first group of a segment starts with control records (log-control.ts). A segment whose data stands elsewhere carries a
 * retirement mark over its first group, and, once that one is on stable storage, another at offset 512:
 *
 *      0 u32 magic 0x31525753, "SWR1"    4 u32 crc of the bytes 8 to 15    8 u32 sequence    12 u32 magic once more
 *
 * The first decides, torn or not, since it is only written when nothing is needed any more. A power cut may tear the first group
 * of the next segment in this file, too: if it ends within the mark, the last word of the mark is left of it, where a first group
 * has 0. If it ends behind, the mark at offset 512 stands in another sector, or the header names the newer segment.
 *
 * Damage before the greatest synced position named in any valid header is corruption; behind it the log ends at the first
 * bad group, even if valid groups follow, because the kernel writes unsynced pages in any order.
 */
import type { Crc32 } from '../base/crc32.ts'

/** A place in the log: byte `bytes` of the segment with this sequence. */
export type LogPosition = { readonly sequence: number; readonly bytes: number }

/** Version of records, groups and control records together; in every segment head. */
export const logFormatVersion = 1
export const groupMagic = 0x31475753
export const retiredMagic = 0x31525753
export const groupHeaderBytes = 32
export const retirementMarkBytes = 16
/** Where the second mark stands. */
export const secondMarkOffset = 512

/** Writes the header of a group whose records stand behind it; `start` is its first byte. */
export function sealGroup(
  u8: Uint8Array,
  i32: Int32Array,
  start: number,
  groupBytes: number,
  sequence: number,
  groupNumber: number,
  syncedSequence: number,
  syncedBytes: number,
  crc32: Crc32,
): void {
  const word = start >>> 2
  i32[word] = groupMagic
  i32[word + 2] = sequence
  i32[word + 3] = groupNumber
  i32[word + 4] = groupBytes
  i32[word + 5] = syncedSequence
  i32[word + 6] = syncedBytes
  i32[word + 7] = 0
  i32[word + 1] = crc32(u8, start + 8, start + groupBytes)
}

/** Whether a whole, undamaged group starts at `start`; `end` bounds its length. Reads untrusted bytes. */
export function isGroup(u8: Uint8Array, i32: Int32Array, start: number, end: number, crc32: Crc32): boolean {
  if (start + groupHeaderBytes > end) return false
  const word = start >>> 2
  if (i32[word] !== groupMagic) return false
  const groupBytes = i32[word + 4]! >>> 0
  if (groupBytes < groupHeaderBytes || (groupBytes & 3) !== 0 || groupBytes > end - start) return false
  return i32[word + 1]! >>> 0 === crc32(u8, start + 8, start + groupBytes)
}

export function groupSequence(i32: Int32Array, start: number): number {
  return i32[(start >>> 2) + 2]! >>> 0
}

export function groupNumber(i32: Int32Array, start: number): number {
  return i32[(start >>> 2) + 3]! >>> 0
}

export function groupBytes(i32: Int32Array, start: number): number {
  return i32[(start >>> 2) + 4]! >>> 0
}

export function groupSyncedSequence(i32: Int32Array, start: number): number {
  return i32[(start >>> 2) + 5]! >>> 0
}

export function groupSyncedBytes(i32: Int32Array, start: number): number {
  return i32[(start >>> 2) + 6]! >>> 0
}

/** The mark that replaces the start of a segment whose data is no longer needed. */
export function retirementMark(sequence: number, crc32: Crc32): Uint8Array {
  const mark = new Uint8Array(retirementMarkBytes)
  const words = new Int32Array(mark.buffer)
  words[0] = retiredMagic
  words[2] = sequence
  words[3] = retiredMagic
  words[1] = crc32(mark, 8, retirementMarkBytes)
  return mark
}

/** The sequence of a retired segment whose file starts at `start`; -1 if there is no valid mark. */
export function retiredSequence(u8: Uint8Array, i32: Int32Array, start: number, crc32: Crc32): number {
  const word = start >>> 2
  // A checksum of 32 bits alone lets bytes through that nobody wrote as a mark, such as eight of 0xff between a magic and 0.
  if (i32[word] !== retiredMagic || i32[word + 3] !== retiredMagic) return -1
  if (i32[word + 1]! >>> 0 !== crc32(u8, start + 8, start + retirementMarkBytes)) return -1
  return i32[word + 2]! >>> 0
}

/**
 * Whether a first group at `start`, whose checksum does not hold, ends in a mark: a torn write of it left the mark's last word, or
 * that word's upper bytes. Its number would be 0.
 */
export function endsInMark(i32: Int32Array, start: number): boolean {
  const number = i32[(start >>> 2) + 3]!
  return [0, 8, 16, 24].some((bits) => number === (retiredMagic >>> bits) << bits)
}
