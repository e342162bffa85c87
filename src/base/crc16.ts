/**
 * CRC16 as Redis Cluster uses it for slots: CRC-16/XMODEM, polynomial 0x1021, initial value 0, nothing reflected
 * (Redis Cluster specification, appendix A). `123456789` gives 0x31c3 = 12739.
 */

const table = new Uint16Array(256)
for (let byte = 0; byte < 256; byte++) {
  let crc = byte << 8
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : (crc << 1) & 0xffff
  table[byte] = crc
}

/** CRC16 of `bytes[start, end)`. */
export function crc16(bytes: Uint8Array, start: number, end: number): number {
  let crc = 0
  for (let at = start; at < end; at++) crc = ((crc << 8) & 0xffff) ^ table[(crc >>> 8) ^ bytes[at]!]!
  return crc
}
