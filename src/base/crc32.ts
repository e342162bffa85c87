/**
 * CRC-32 (IEEE 802.3, reflected polynomial 0xedb88320), slicing by 8 (Kounavis and Berry, 2005). The portable twin of the
 * engine's own `crc32`, which `host/` passes in instead because it is faster; test/base/crc32.test.ts holds them equal.
 */

/** Checksum of `bytes[start, end)`; the form in which a checksum is passed to the log. */
export type Crc32 = (bytes: Uint8Array, start: number, end: number) => number

const tables = new Uint32Array(8 * 256)
for (let byte = 0; byte < 256; byte++) {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1
  tables[byte] = crc >>> 0
}
for (let byte = 0; byte < 256; byte++) {
  for (let slice = 1; slice < 8; slice++) {
    const before = tables[(slice - 1) * 256 + byte]!
    tables[slice * 256 + byte] = (before >>> 8) ^ tables[before & 0xff]!
  }
}

export function crc32(bytes: Uint8Array, start: number, end: number): number {
  let crc = 0xffffffff
  let at = start
  for (; at + 8 <= end; at += 8) {
    const low = crc ^ (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24))
    crc =
      tables[7 * 256 + (low & 0xff)]! ^
      tables[6 * 256 + ((low >>> 8) & 0xff)]! ^
      tables[5 * 256 + ((low >>> 16) & 0xff)]! ^
      tables[4 * 256 + (low >>> 24)]! ^
      tables[3 * 256 + bytes[at + 4]!]! ^
      tables[2 * 256 + bytes[at + 5]!]! ^
      tables[256 + bytes[at + 6]!]! ^
      tables[bytes[at + 7]!]!
  }
  for (; at < end; at++) crc = (crc >>> 8) ^ tables[(crc ^ bytes[at]!) & 0xff]!
  return ~crc >>> 0
}
