/**
 * What nodes say to each other about the chain of epochs. Numbers are little-endian.
 *
 *   0 u8 version (1)   1 u8 type   2 u64 cluster, 0 from who knows none   10 u64 sender   then by type:
 *     have       u32 epoch   u64 digest          what the sender has; 0 and 0 for nothing
 *     whole      value                           a topology
 *     delta      value                           what has changed since an earlier one
 *     prepare    u32 epoch   ballot              of the instance that decides this epoch, likewise below
 *     promised   u32 epoch   ballot   u8 1: [ballot   value] follow, accepted last
 *     accept     u32 epoch   ballot   value
 *     accepted   u32 epoch   ballot
 *     refused    u32 epoch   ballot   ballot that was promised
 *     barred     u32 epoch   ballot              it has no vote: it may have forgotten what it said (chain.ts)
 *
 *   ballot   u64 counter, below 2^48   u64 proposer
 *   value    u32 length   bytes of topology-bytes.ts
 *
 * Decoding takes any bytes and never throws; there is one form for each message.
 */
import { ByteReader, ByteWriter } from '../../base/bytes.ts'
import { Limits } from '../../config.ts'
import type { Accepted, Ballot, PaxosReply, PaxosRequest } from '../paxos.ts'
import { readId, writeId } from './topology-bytes.ts'

export const chainVersion = 1

/** A value of Paxos is the bytes of a topology. */
export type ChainRequest = PaxosRequest<Uint8Array>
export type ChainReply = PaxosReply<Uint8Array> | { readonly type: 'barred'; readonly ballot: Ballot }

export type ChainContent =
  | { readonly type: 'have'; readonly epoch: number; readonly digest: string }
  | { readonly type: 'whole' | 'delta'; readonly value: Uint8Array }
  | { readonly type: 'request'; readonly epoch: number; readonly request: ChainRequest }
  | { readonly type: 'reply'; readonly epoch: number; readonly reply: ChainReply }

export type ChainMessage = ChainContent & { readonly clusterId: string; readonly sender: string }

const types = ['have', 'whole', 'delta', 'prepare', 'promised', 'accept', 'accepted', 'refused', 'barred'] as const
const counterMax = 2 ** 48 - 1

export function encodeChainMessage(message: ChainMessage): Uint8Array {
  const writer = new ByteWriter('value' in message ? message.value.length + 32 : 256)
  writer.u8(chainVersion)
  writer.u8(types.indexOf(typeOf(message)))
  writeId(writer, message.clusterId)
  writeId(writer, message.sender)
  switch (message.type) {
    case 'whole':
    case 'delta':
      writer.bytes(message.value)
      break
    case 'have':
      writer.u32(message.epoch)
      writeId(writer, message.digest)
      break
    default:
      writer.u32(message.epoch)
      writeVoting(writer, message.type === 'request' ? message.request : message.reply)
  }
  return writer.toBytes()
}

function typeOf(message: ChainMessage): (typeof types)[number] {
  if (message.type === 'request') return message.request.type
  return message.type === 'reply' ? message.reply.type : message.type
}

function writeVoting(writer: ByteWriter, voting: ChainRequest | ChainReply): void {
  writeBallot(writer, voting.ballot)
  if (voting.type === 'accept') writer.bytes(voting.value)
  if (voting.type === 'refused') writeBallot(writer, voting.promised)
  if (voting.type === 'promised') writeAccepted(writer, voting.accepted)
}

/** The message in these bytes; undefined where they are none. */
export function decodeChainMessage(bytes: Uint8Array): ChainMessage | undefined {
  const reader = new ByteReader(bytes)
  if (reader.u8() !== chainVersion) return undefined
  const type = types[reader.u8()]
  const clusterId = readId(reader)
  const sender = readId(reader)
  if (type === undefined) return undefined
  const content = readContent(reader, type)
  if (content === undefined || reader.failed || reader.remaining > 0) return undefined
  return { ...content, clusterId, sender }
}

function readContent(reader: ByteReader, type: (typeof types)[number]): ChainContent | undefined {
  if (type === 'whole' || type === 'delta') {
    const value = readValue(reader)
    return value === undefined ? undefined : { type, value }
  }
  const epoch = reader.u32()
  if (type === 'have') return { type, epoch, digest: readId(reader) }
  const ballot = readBallot(reader)
  if (ballot === undefined) return undefined
  switch (type) {
    case 'prepare':
      return { type: 'request', epoch, request: { type, ballot } }
    case 'accept': {
      const value = readValue(reader)
      return value === undefined ? undefined : { type: 'request', epoch, request: { type, ballot, value } }
    }
    case 'accepted':
    case 'barred':
      return { type: 'reply', epoch, reply: { type, ballot } }
    case 'refused': {
      const promised = readBallot(reader)
      return promised === undefined ? undefined : { type: 'reply', epoch, reply: { type, ballot, promised } }
    }
    default: {
      const read = readAccepted(reader)
      return read === undefined ? undefined : { type: 'reply', epoch, reply: { type, ballot, accepted: read.accepted } }
    }
  }
}

/** `u8 1: ballot and value follow`; also in the voter's row. */
export function writeAccepted(writer: ByteWriter, accepted: Accepted<Uint8Array> | undefined): void {
  writer.u8(accepted === undefined ? 0 : 1)
  if (accepted === undefined) return
  writeBallot(writer, accepted.ballot)
  writer.bytes(accepted.value)
}

export function readAccepted(reader: ByteReader): { readonly accepted: Accepted<Uint8Array> | undefined } | undefined {
  const flag = reader.u8()
  if (flag !== 1) return flag === 0 ? { accepted: undefined } : undefined
  const ballot = readBallot(reader)
  const value = readValue(reader)
  return ballot === undefined || value === undefined ? undefined : { accepted: { ballot, value } }
}

export function writeBallot(writer: ByteWriter, { counter, proposer }: Ballot): void {
  writer.u64(counter)
  writeId(writer, proposer)
}

export function readBallot(reader: ByteReader): Ballot | undefined {
  const counter = reader.u64()
  const proposer = readId(reader)
  return counter > counterMax || reader.failed ? undefined : { counter, proposer }
}

function readValue(reader: ByteReader): Uint8Array | undefined {
  const bytes = reader.bytes()
  return bytes.length > Limits.topologyBytesMax || reader.failed ? undefined : bytes
}
