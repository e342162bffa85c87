/**
 * CRC16 as Redis Cluster uses it for slots: CRC-16/XMODEM, polynomial 0x1021, initial value 0, nothing reflected
 * (Redis Cluster specification, appendix A). `123456789` gives 0x31c3 = 12739.
 */

/** Four tables of 256 entries one after another: table k gives the effect of a byte with k bytes behind it ("slicing by 4"). */
const tables = new Uint16Array(4 * 256)
for (let byte = 0; byte < 256; byte++) {
  let crc = byte << 8
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : (crc << 1) & 0xffff
  tables[byte] = crc
}
for (let at = 256; at < tables.length; at++) {
  const before = tables[at - 256]!
  tables[at] = ((before << 8) & 0xffff) ^ tables[before >>> 8]!
}

/** CRC16 of `bytes[start, end)`. */
export function crc16(bytes: Uint8Array, start: number, end: number): number {
  return crc16Without(bytes, start, end, -1)
}

/** CRC16 of `bytes[start, end)` if no byte there is `forbidden`, else -1: one pass for those who have to look anyway. */
export function crc16Without(bytes: Uint8Array, start: number, end: number, forbidden: number): number {
  let crc = 0
  let at = start
  for (; at + 4 <= end; at += 4) {
    const first = bytes[at]!
    const second = bytes[at + 1]!
    const third = bytes[at + 2]!
    const fourth = bytes[at + 3]!
    if (first === forbidden || second === forbidden || third === forbidden || fourth === forbidden) return -1
    crc =
      tables[768 + ((crc >>> 8) ^ first)]! ^
      tables[512 + ((crc & 0xff) ^ second)]! ^
      tables[256 + third]! ^
      tables[fourth]!
  }
  for (; at < end; at++) {
    if (bytes[at] === forbidden) return -1
    crc = ((crc << 8) & 0xffff) ^ tables[(crc >>> 8) ^ bytes[at]!]!
  }
  return crc
}
