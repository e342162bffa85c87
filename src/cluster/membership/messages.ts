/**
 * What members say to each other. Datagrams hold one message with news behind it; push-pull goes over streams, where lists have room.
 * Numbers are little-endian.
 *
 *   0 u8 version (1)   1 u8 type   2 u64 sender   then by type:
 *     ping        u32 sequence   u64 target
 *     pingRequest u32 sequence   u64 target   address of the target
 *     ack         u32 sequence
 *     nack        u32 sequence
 *     gossip      -
 *     pull        u64 digest of what the sender knows
 *     state       u8 1: an answer is wanted   then news of all members it knows, without a bound by the datagram
 *   u16 count   news x count:   u8 state   u64 member   u32 incarnation   u64 who says so   address
 *
 *   address: u8 length, bytes of UTF-8
 *
 * `ping` names its target, since an address may have passed to another node. Decoding takes any bytes and never throws.
 */
import { assert } from '../../base/assert.ts'
import { ByteReader, ByteWriter } from '../../base/bytes.ts'

export const membershipVersion = 1
export const memberStates = ['alive', 'suspect', 'dead', 'left'] as const
export type MemberState = (typeof memberStates)[number]

/** News about a member. */
export type MemberUpdate = {
  /** Sixteen lower-case hexadecimal digits. */
  readonly nodeId: string
  readonly state: MemberState
  readonly incarnation: number
  /** Who says so: confirmations count distinct ones. */
  readonly from: string
  readonly address: string
}

export type MembershipMessage = {
  readonly sender: string
  readonly updates: readonly MemberUpdate[]
} & (
  | { readonly type: 'ping'; readonly sequence: number; readonly target: string }
  | { readonly type: 'pingRequest'; readonly sequence: number; readonly target: string; readonly address: string }
  | { readonly type: 'ack' | 'nack'; readonly sequence: number }
  | { readonly type: 'gossip' }
  | { readonly type: 'pull'; readonly digest: string }
  | { readonly type: 'state'; readonly wantsAnswer: boolean }
)

const types = ['ping', 'pingRequest', 'ack', 'nack', 'gossip', 'pull', 'state'] as const
const addressBytesMax = 255
const updatesMax = 0xffff

/** Bytes of news in a message. */
export function updateBytes({ address }: MemberUpdate): number {
  return 22 + new TextEncoder().encode(address).length
}

/** Bytes of a message without its news, at the most: what a datagram keeps free for it. */
export const headBytesMax = 2 + 8 + 4 + 8 + 1 + addressBytesMax + 2

export function encodeMessage(message: MembershipMessage): Uint8Array {
  const writer = new ByteWriter(256)
  writer.u8(membershipVersion)
  writer.u8(types.indexOf(message.type))
  writeId(writer, message.sender)
  switch (message.type) {
    case 'ping':
      writer.u32(message.sequence)
      writeId(writer, message.target)
      break
    case 'pingRequest':
      writer.u32(message.sequence)
      writeId(writer, message.target)
      writeAddress(writer, message.address)
      break
    case 'ack':
    case 'nack':
      writer.u32(message.sequence)
      break
    case 'pull':
      writeId(writer, message.digest)
      break
    case 'state':
      writer.u8(message.wantsAnswer ? 1 : 0)
      break
    default:
  }
  writer.u16(message.updates.length)
  for (const { state, nodeId, incarnation, from, address } of message.updates) {
    writer.u8(memberStates.indexOf(state))
    writeId(writer, nodeId)
    writer.u32(incarnation)
    writeId(writer, from)
    writeAddress(writer, address)
  }
  return writer.toBytes()
}

/** The message in these bytes; undefined where they are none. */
export function decodeMessage(bytes: Uint8Array): MembershipMessage | undefined {
  const reader = new ByteReader(bytes)
  if (reader.u8() !== membershipVersion) return undefined
  const type = types[reader.u8()]
  if (type === undefined) return undefined
  const sender = readId(reader)
  const head = readHead(reader, type)
  if (head === undefined) return undefined
  const count = reader.u16()
  const updates: MemberUpdate[] = []
  for (let index = 0; index < count && !reader.failed; index++) {
    const state = memberStates[reader.u8()]
    if (state === undefined) return undefined
    const nodeId = readId(reader)
    const incarnation = reader.u32()
    const from = readId(reader)
    const address = readAddress(reader)
    if (address === undefined) return undefined
    updates.push({ nodeId, state, incarnation, from, address })
  }
  if (reader.failed || reader.remaining > 0 || count > updatesMax) return undefined
  return { ...head, sender, updates }
}

type Head = MembershipMessage extends infer Message
  ? Message extends MembershipMessage
    ? Omit<Message, 'sender' | 'updates'>
    : never
  : never

function readHead(reader: ByteReader, type: (typeof types)[number]): Head | undefined {
  switch (type) {
    case 'ping':
      return { type, sequence: reader.u32(), target: readId(reader) }
    case 'pingRequest': {
      const sequence = reader.u32()
      const target = readId(reader)
      const address = readAddress(reader)
      return address === undefined ? undefined : { type, sequence, target, address }
    }
    case 'ack':
    case 'nack':
      return { type, sequence: reader.u32() }
    case 'gossip':
      return { type }
    case 'pull':
      return { type, digest: readId(reader) }
    case 'state': {
      const flag = reader.u8()
      return flag > 1 ? undefined : { type, wantsAnswer: flag === 1 }
    }
    default:
      return undefined
  }
}

function writeId(writer: ByteWriter, id: string): void {
  writer.u32(Number.parseInt(id.slice(8), 16))
  writer.u32(Number.parseInt(id.slice(0, 8), 16))
}

function readId(reader: ByteReader): string {
  const low = reader.u32()
  const high = reader.u32()
  return high.toString(16).padStart(8, '0') + low.toString(16).padStart(8, '0')
}

function writeAddress(writer: ByteWriter, address: string): void {
  const bytes = new TextEncoder().encode(address)
  assert(bytes.length <= addressBytesMax, 'An address is short')
  writer.u8(bytes.length)
  writer.raw(bytes)
}

function readAddress(reader: ByteReader): string | undefined {
  const bytes = reader.raw(reader.u8())
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return undefined
  }
}
