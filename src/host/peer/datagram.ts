/**
 * A datagram between nodes. Numbers are little-endian.
 *
 *   0  u32 magic "SWd1"
 *   4  u8  version (1)
 *   5  u8  flags: 1 a code stands at the end   2 an echo is wanted   4 this is an echo, and has no message
 *   6  u16 bytes of the message
 *   8  u64 cluster, 0 where it is not known   16 u64 node
 *   24 u32 mark: comes back in the echo
 *   28 u8  length, own address in ASCII
 *      message
 *      u64 SipHash of all before under the cluster's key, where flag 1 is set
 *      u32 crc32 of all before
 *
 * Decoding takes any bytes and never throws. Where a node has a key, it takes only what has its code.
 */
import { crc32 } from 'node:zlib'
import { ByteReader, ByteWriter } from '../../base/bytes.ts'
import type { SipHash } from '../../base/siphash.ts'
import { noId, readId, writeId } from '../../cluster/topology/topology-bytes.ts'
import { Limits } from '../../config.ts'
import { readU32 } from './frame.ts'
import { knownId } from './handshake.ts'
import { parsePeerAddress } from './peer-address.ts'

export const datagramVersion = 1
const magic = 0x31645753
const Flag = { coded: 1, wantsEcho: 2, echo: 4 } as const
/** Bytes beside address and message. */
export const datagramHeadBytes = 29 + 8 + 4

export type Datagram = {
  readonly clusterId: string | undefined
  readonly nodeId: string
  readonly address: string
  readonly mark: number
  readonly kind: 'message' | 'messageWithEcho' | 'echo'
  readonly message: Uint8Array
}

export type DatagramFault = 'magic' | 'version' | 'flags' | 'length' | 'checksum' | 'content' | 'code'

export function encodeDatagram(datagram: Datagram, code: SipHash | undefined): Uint8Array {
  const { clusterId, nodeId, address, mark, kind, message } = datagram
  const writer = new ByteWriter(datagramHeadBytes + address.length + message.length)
  writer.u32(magic)
  writer.u8(datagramVersion)
  const echo = kind === 'echo' ? Flag.echo : kind === 'messageWithEcho' ? Flag.wantsEcho : 0
  writer.u8(echo | (code === undefined ? 0 : Flag.coded))
  writer.u16(message.length)
  writeId(writer, clusterId ?? noId)
  writeId(writer, nodeId)
  writer.u32(mark)
  writer.u8(address.length)
  writer.raw(Buffer.from(address, 'latin1'))
  writer.raw(message)
  if (code !== undefined) {
    const bytes = writer.toBytes()
    codeOf(code, bytes, bytes.length)
    writer.u32(code.low)
    writer.u32(code.high)
  }
  writer.u32(crc32(writer.toBytes()))
  return writer.toBytes()
}

export function decodeDatagram(bytes: Uint8Array, code: SipHash | undefined): Datagram | DatagramFault {
  if (bytes.length < datagramHeadBytes - 8 || bytes.length > Limits.peerDatagramBytesMax) return 'length'
  if (readU32(bytes, 0) !== magic) return 'magic'
  if (crc32(bytes.subarray(0, bytes.length - 4)) !== readU32(bytes, bytes.length - 4)) return 'checksum'
  if (bytes[4] !== datagramVersion) return 'version'
  const flags = bytes[5]!
  const isEcho = (flags & Flag.echo) !== 0
  const wantsEcho = (flags & Flag.wantsEcho) !== 0
  if (flags > 7 || (isEcho && wantsEcho)) return 'flags'
  const isCoded = (flags & Flag.coded) !== 0
  if (code !== undefined && !isCoded) return 'code'
  const end = bytes.length - 4 - (isCoded ? 8 : 0)
  const reader = new ByteReader(bytes, 6, end)
  const messageBytes = reader.u16()
  const clusterId = knownId(readId(reader))
  const nodeId = readId(reader)
  const mark = reader.u32()
  const address = Buffer.from(reader.raw(reader.u8())).toString('latin1')
  if (reader.failed || reader.remaining !== messageBytes) return 'content'
  if (nodeId === noId || parsePeerAddress(address) === undefined || (isEcho && messageBytes > 0)) return 'content'
  if (code !== undefined) {
    codeOf(code, bytes, end)
    // One word, so that the time does not tell how much of a guess was right.
    if (((code.low ^ readU32(bytes, end)) | (code.high ^ readU32(bytes, end + 4))) !== 0) return 'code'
  }
  const kind = isEcho ? 'echo' : wantsEcho ? 'messageWithEcho' : 'message'
  return { clusterId, nodeId, address, mark, kind, message: reader.raw(messageBytes) }
}

function codeOf(code: SipHash, bytes: Uint8Array, end: number): void {
  code.start()
  code.update(bytes, 0, end)
  code.finish()
}
