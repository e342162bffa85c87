/**
 * What coordinators and replicas of different nodes say to each other about keys. One message is one operation; the transport packs many
 * into a frame, and adds checksum, cluster and sender. Little-endian, version 1:
 *
 *      0 u8 version   1 u8 type   2 u16 0   4 u32 requestId   8 u32 epoch   12 u32 fence   16 u32 timeoutMs (answers: both 0)
 *
 *   1 write     take in what another replica has of a key
 *     20 u32 bucketId   24 u8 flags: 1 last write wins, 2 hint   25 u8 durability   26 u16 0   28 key | set | (hint) target
 *   2 read      what have you of a key
 *     20 u32 bucketId   24 u8 flags: 1 the set, not only its digest   25 u8 0   26 u16 0   28 key
 *   3 written   answer to 1
 *     20 failure | u8 durable | u16 credit: so many hints more the sender may have under way to this node (of an answer to a hint; else 0)
 *   4 found     answer to 2
 *     20 failure | u32 life | u8 flags: 1 the set, 2 durable | u32 digestLow | u32 digestHigh | (1) set
 *   5 forward   coordinate this operation
 *     20 u32 bucketId   24 u8 operation: 1 put, 2 delete, 3 get   25 u8 flags: 1 context, 2 ifMatch any, 4 ifMatch, 8 ifNoneMatch,
 *        16 ttl, 32 durability, 64 sloppy, 128 not sloppy   26 u8 level   27 u8 durability   28 key | value | content type
 *        | (1) context | (4) u8 count, count x { u32 low, u32 high } | (16) u64 ttlMs, 0: none
 *   6 forwarded answer to 5
 *     20 failure | u8 flags: 1 set, 2 sloppy, 4 durable | u16 repaired | u16 replicas | u8 acks, each { u8 flags: 1 fallback,
 *        2 durable; node } | (1) set
 *
 *   7 compare   what have you of a partition
 *     20 u16 partition   22 u8 wants: 1 clock, 2 children, 4 keys of leaves   23 u8 0   24 numbers of nodes or leaves, u16 each
 *        | what the sender knows to be stable
 *   8 compared  answer to 7, as the shard gives it (shard/command.ts)
 *     20 failure | u32 life | clock | attested | answer
 *
 *   9 list      what have you of the next keys of a partition
 *     20 u16 partition   22 u8 flags: 1 with values, 2 behind a key   23 u8 0   24 u32 bucketId   28 u32 limit   32 u32 bytesMax   36 prefix | (2) after
 *  10 listed    answer to 9: keys in order, dead ones too, all that there are up to the end
 *     20 failure | u8 flags: 1 an end, 2 durable | (1) end | entries, one behind the other { u16 keyBytes, u32 setBytes, key, set }
 *        Without an end this is the rest of the partition. Sets have no values unless they were asked for.
 *
 * A life is a number that each start of a node draws anew, and each loss of data to damage in answers to who repairs: what a node said before it may have been lost. A failure is { u8 codeBytes (0: none failed), code of the error table, u8 outcome }: codes are for ever, their numbers are not. Key, set, value, context, target, node, prefix, after, end,
 * entries, content type, numbers, clock, stable, attested (versions/stability.ts) and answer are each a u32 length and the bytes. Level: 0 the bucket's, 1 one, 2 quorum,
 * 3 all, 4 + k: k replicas. A decoder takes this form only and never throws.
 */
import { assert } from '../base/assert.ts'
import { ByteReader, ByteWriter } from '../base/bytes.ts'
import { type ErrorCode, ErrorTable, type Outcome, OutcomeNumber, outcomeOf } from '../base/errors.ts'
import { type Durability, DurabilityNumber, hintBucketId, Limits } from '../config.ts'
import type { Digest } from '../versions/version-set.ts'
import type { QuorumLevel, ReceiptNode } from './requests.ts'

export const peerMessageVersion = 1

type Head = {
  readonly requestId: number
  /** What the sender's topology says of the partition (cluster/topology/replica-sets.ts); answers have no fence. */
  readonly epoch: number
  readonly fence: number
  readonly timeoutMs: number
}

/** Why something failed, as another node tells it. */
export type PeerFailure = { readonly code: ErrorCode; readonly outcome: Outcome }

export type WriteMessage = Head & {
  readonly type: 'write'
  readonly bucketId: number
  readonly lastWriteWins: boolean
  readonly durability: Durability
  readonly key: Uint8Array
  readonly set: Uint8Array
  /** The replica that this is a hint for. */
  readonly hintFor: string | undefined
}
export type ReadMessage = Head & {
  readonly type: 'read'
  readonly bucketId: number
  readonly key: Uint8Array
  readonly wantsSet: boolean
}
export type WrittenMessage = Head & {
  readonly type: 'written'
  readonly failure: PeerFailure | undefined
  readonly isDurable: boolean
  /** Hints that the sender may have under way to this node from now on; 0: none for a while, or not a hint. */
  readonly credit: number
}
export type FoundMessage = Head & {
  readonly type: 'found'
  readonly failure: PeerFailure | undefined
  readonly life: number
  readonly isDurable: boolean
  readonly digest: Digest
  readonly set: Uint8Array | undefined
}
export type ForwardMessage = Head & {
  readonly type: 'forward'
  readonly operation: 'put' | 'delete' | 'get'
  readonly bucketId: number
  readonly key: Uint8Array
  readonly value: Uint8Array
  readonly contentType: string
  readonly context: Uint8Array | undefined
  readonly ifMatch: readonly Digest[] | '*' | undefined
  readonly ifNoneMatch: boolean
  /** Undefined: the bucket's; Infinity: none. */
  readonly ttlMs: number | undefined
  readonly durability: Durability | undefined
  readonly sloppy: boolean | undefined
  readonly level: QuorumLevel | undefined
}
export type ForwardedMessage = Head & {
  readonly type: 'forwarded'
  readonly failure: PeerFailure | undefined
  readonly set: Uint8Array | undefined
  readonly sloppy: boolean
  readonly isDurable: boolean
  readonly repaired: number
  readonly replicas: number
  readonly acks: readonly ReceiptNode[]
}
export type CompareMessage = Head & {
  readonly type: 'compare'
  readonly partition: number
  readonly wantsClock: boolean
  /** Lanes of the children of nodes, or keys of leaves. */
  readonly of: 'children' | 'leafKeys'
  readonly numbers: Uint8Array
  /** With the clock: what the sender knows to be stable (versions/stability.ts). Else no bytes. */
  readonly stable: Uint8Array
}
export type ComparedMessage = Head & {
  readonly type: 'compared'
  readonly failure: PeerFailure | undefined
  readonly life: number
  readonly clock: Uint8Array
  /** With the clock: what the replica attests and knows to be stable (versions/stability.ts). Else no bytes. */
  readonly attested: Uint8Array
  readonly answer: Uint8Array
}
export type ListMessage = Head & {
  readonly type: 'list'
  readonly partition: number
  readonly bucketId: number
  readonly withValues: boolean
  readonly limit: number
  readonly bytesMax: number
  readonly prefix: Uint8Array
  /** Undefined: from the beginning of the partition. */
  readonly after: Uint8Array | undefined
}
export type ListedMessage = Head & {
  readonly type: 'listed'
  readonly failure: PeerFailure | undefined
  readonly isDurable: boolean
  /** There may be more behind this key; undefined: there is none. */
  readonly end: Uint8Array | undefined
  readonly entries: Uint8Array
}
export type PeerMessage =
  | WriteMessage
  | ReadMessage
  | WrittenMessage
  | FoundMessage
  | ForwardMessage
  | ForwardedMessage
  | CompareMessage
  | ComparedMessage
  | ListMessage
  | ListedMessage

/** A message before it has its number. */
export type Unnumbered<Message extends PeerMessage = PeerMessage> = Message extends PeerMessage
  ? Omit<Message, 'requestId'>
  : never

export const PeerMessageType = {
  write: 1,
  read: 2,
  written: 3,
  found: 4,
  forward: 5,
  forwarded: 6,
  compare: 7,
  compared: 8,
  list: 9,
  listed: 10,
} as const
const operations = ['put', 'delete', 'get'] as const
const durabilities = Object.keys(DurabilityNumber) as Durability[]
const ForwardFlag = {
  context: 1,
  ifMatchAny: 2,
  ifMatch: 4,
  ifNoneMatch: 8,
  ttl: 16,
  durability: 32,
  sloppy: 64,
  strict: 128,
} as const
const nameBytesMax = 256

const scratchBytesMax = 64 * 1024
/** Every message is written here and copied once. */
const writer = new ByteWriter(scratchBytesMax)

export function encodePeerMessage(message: PeerMessage): Uint8Array {
  writer.clear(scratchBytesMax)
  writer.u8(peerMessageVersion)
  writer.u8(PeerMessageType[message.type])
  writer.u16(0)
  writer.u32(message.requestId)
  writer.u32(message.epoch)
  writer.u32(message.fence)
  writer.u32(message.timeoutMs)
  switch (message.type) {
    case 'write':
      writer.u32(message.bucketId)
      writer.u8((message.lastWriteWins ? 1 : 0) | (message.hintFor === undefined ? 0 : 2))
      writer.u8(DurabilityNumber[message.durability])
      writer.u16(0)
      writer.bytes(message.key)
      writer.bytes(message.set)
      if (message.hintFor !== undefined) writer.bytes(ascii(message.hintFor))
      break
    case 'read':
      writer.u32(message.bucketId)
      writer.u8(message.wantsSet ? 1 : 0)
      writer.u8(0)
      writer.u16(0)
      writer.bytes(message.key)
      break
    case 'written':
      writeFailure(writer, message.failure)
      writer.u8(message.isDurable ? 1 : 0)
      writer.u16(message.credit)
      break
    case 'found':
      writeFailure(writer, message.failure)
      writer.u32(message.life)
      writer.u8((message.set === undefined ? 0 : 1) | (message.isDurable ? 2 : 0))
      writer.u32(message.digest.low)
      writer.u32(message.digest.high)
      if (message.set !== undefined) writer.bytes(message.set)
      break
    case 'forward':
      writeForward(writer, message)
      break
    case 'compare':
      writer.u16(message.partition)
      writer.u8((message.wantsClock ? 1 : 0) | (message.of === 'children' ? 2 : 4))
      writer.u8(0)
      writer.bytes(message.numbers)
      writer.bytes(message.stable)
      break
    case 'compared':
      writeFailure(writer, message.failure)
      writer.u32(message.life)
      writer.bytes(message.clock)
      writer.bytes(message.attested)
      writer.bytes(message.answer)
      break
    case 'list':
      writer.u16(message.partition)
      writer.u8((message.withValues ? 1 : 0) | (message.after === undefined ? 0 : 2))
      writer.u8(0)
      writer.u32(message.bucketId)
      writer.u32(message.limit)
      writer.u32(message.bytesMax)
      writer.bytes(message.prefix)
      if (message.after !== undefined) writer.bytes(message.after)
      break
    case 'listed':
      writeFailure(writer, message.failure)
      writer.u8((message.end === undefined ? 0 : 1) | (message.isDurable ? 2 : 0))
      if (message.end !== undefined) writer.bytes(message.end)
      writer.bytes(message.entries)
      break
    case 'forwarded':
      writeFailure(writer, message.failure)
      writer.u8((message.set === undefined ? 0 : 1) | (message.sloppy ? 2 : 0) | (message.isDurable ? 4 : 0))
      writer.u16(message.repaired)
      writer.u16(message.replicas)
      writer.u8(message.acks.length)
      for (const ack of message.acks) {
        writer.u8((ack.isFallback ? 1 : 0) | (ack.isDurable ? 2 : 0))
        writer.bytes(ascii(ack.node))
      }
      if (message.set !== undefined) writer.bytes(message.set)
      break
  }
  return writer.toBytes()
}

/** The message that `encodePeerMessage` wrote; undefined for any other bytes. */
export function decodePeerMessage(bytes: Uint8Array): PeerMessage | undefined {
  const reader = new ByteReader(bytes)
  const version = reader.u8()
  const type = reader.u8()
  const reserved = reader.u16()
  const head: Head = { requestId: reader.u32(), epoch: reader.u32(), fence: reader.u32(), timeoutMs: reader.u32() }
  if (reader.failed || version !== peerMessageVersion || reserved !== 0) return undefined
  const message = readBody(reader, type, head)
  return reader.failed || reader.remaining !== 0 ? undefined : message
}

function readBody(reader: ByteReader, type: number, head: Head): PeerMessage | undefined {
  switch (type) {
    case PeerMessageType.write: {
      const bucketId = reader.u32()
      const flags = reader.u8()
      const durability = durabilityOf(reader.u8())
      if (flags > 3 || durability === undefined || reader.u16() !== 0) return undefined
      const key = reader.bytes()
      const set = reader.bytes()
      const hintFor = (flags & 2) !== 0 ? textOf(reader.bytes()) : undefined
      if (!isKey(key) || !isBucket(bucketId) || ((flags & 2) !== 0 && hintFor === undefined)) return undefined
      return { ...head, type: 'write', bucketId, lastWriteWins: (flags & 1) !== 0, durability, key, set, hintFor }
    }
    case PeerMessageType.read: {
      const bucketId = reader.u32()
      const flags = reader.u8()
      if (flags > 1 || reader.u8() !== 0 || reader.u16() !== 0) return undefined
      const key = reader.bytes()
      if (!isKey(key) || !isBucket(bucketId)) return undefined
      return { ...head, type: 'read', bucketId, key, wantsSet: flags === 1 }
    }
    case PeerMessageType.written: {
      const failure = readFailure(reader)
      const durable = reader.u8()
      if (failure === null || durable > 1) return undefined
      return { ...head, type: 'written', failure, isDurable: durable === 1, credit: reader.u16() }
    }
    case PeerMessageType.found: {
      const failure = readFailure(reader)
      const life = reader.u32()
      const flags = reader.u8()
      if (failure === null || flags > 3) return undefined
      const digest = { low: reader.u32(), high: reader.u32() }
      const set = (flags & 1) !== 0 ? reader.bytes() : undefined
      return { ...head, type: 'found', failure, life, isDurable: (flags & 2) !== 0, digest, set }
    }
    case PeerMessageType.forward:
      return readForward(reader, head)
    case PeerMessageType.compare: {
      const partition = reader.u16()
      const wants = reader.u8()
      const isWhole = (wants & ~1) === 2 || (wants & ~1) === 4
      if (partition >= Limits.partitions || !isWhole || reader.u8() !== 0) return undefined
      const of = (wants & 2) !== 0 ? 'children' : 'leafKeys'
      const wantsClock = (wants & 1) !== 0
      const numbers = reader.bytes()
      return { ...head, type: 'compare', partition, wantsClock, of, numbers, stable: reader.bytes() }
    }
    case PeerMessageType.compared: {
      const failure = readFailure(reader)
      if (failure === null) return undefined
      const life = reader.u32()
      const clock = reader.bytes()
      return { ...head, type: 'compared', failure, life, clock, attested: reader.bytes(), answer: reader.bytes() }
    }
    case PeerMessageType.list: {
      const partition = reader.u16()
      const flags = reader.u8()
      if (partition >= Limits.partitions || flags > 3 || reader.u8() !== 0) return undefined
      const bucketId = reader.u32()
      const limit = reader.u32()
      const bytesMax = reader.u32()
      const prefix = reader.bytes()
      const after = (flags & 2) !== 0 ? reader.bytes() : undefined
      const isUsable = limit > 0 && limit <= Limits.listLimitMax && bytesMax <= Limits.listReplyBytesMax
      if (!isUsable || !isBucket(bucketId) || prefix.length > Limits.keyBytesMax) return undefined
      if (after !== undefined && !isKey(after)) return undefined
      return {
        ...head,
        type: 'list',
        partition,
        bucketId,
        withValues: (flags & 1) !== 0,
        limit,
        bytesMax,
        prefix,
        after,
      }
    }
    case PeerMessageType.listed: {
      const failure = readFailure(reader)
      const flags = reader.u8()
      if (failure === null || flags > 3) return undefined
      const end = (flags & 1) !== 0 ? reader.bytes() : undefined
      if (end !== undefined && !isKey(end)) return undefined
      return { ...head, type: 'listed', failure, isDurable: (flags & 2) !== 0, end, entries: reader.bytes() }
    }
    case PeerMessageType.forwarded: {
      const failure = readFailure(reader)
      const flags = reader.u8()
      if (failure === null || flags > 7) return undefined
      const repaired = reader.u16()
      const replicas = reader.u16()
      const count = reader.u8()
      const acks: ReceiptNode[] = []
      for (let index = 0; index < count && !reader.failed; index++) {
        const ackFlags = reader.u8()
        const node = textOf(reader.bytes())
        if (ackFlags > 3 || node === undefined) return undefined
        acks.push({ node, isFallback: (ackFlags & 1) !== 0, isDurable: (ackFlags & 2) !== 0 })
      }
      const set = (flags & 1) !== 0 ? reader.bytes() : undefined
      const answer = { sloppy: (flags & 2) !== 0, isDurable: (flags & 4) !== 0, repaired, replicas, acks }
      return { ...head, type: 'forwarded', failure, set, ...answer }
    }
    default:
      return undefined
  }
}

function writeForward(writer: ByteWriter, message: ForwardMessage): void {
  const { operation, context, ifMatch, ifNoneMatch, ttlMs, durability, sloppy } = message
  writer.u32(message.bucketId)
  writer.u8(operations.indexOf(operation) + 1)
  writer.u8(
    (context === undefined ? 0 : ForwardFlag.context) |
      (ifMatch === '*' ? ForwardFlag.ifMatchAny : 0) |
      (ifMatch !== undefined && ifMatch !== '*' ? ForwardFlag.ifMatch : 0) |
      (ifNoneMatch ? ForwardFlag.ifNoneMatch : 0) |
      (ttlMs === undefined ? 0 : ForwardFlag.ttl) |
      (durability === undefined ? 0 : ForwardFlag.durability) |
      (sloppy === true ? ForwardFlag.sloppy : 0) |
      (sloppy === false ? ForwardFlag.strict : 0),
  )
  writer.u8(levelNumber(message.level))
  writer.u8(durability === undefined ? 0 : DurabilityNumber[durability])
  writer.bytes(message.key)
  writer.bytes(message.value)
  writer.bytes(ascii(message.contentType))
  if (context !== undefined) writer.bytes(context)
  if (ifMatch !== undefined && ifMatch !== '*') {
    assert(ifMatch.length <= Limits.ifMatchETagsMax, 'Whoever forwards a write has counted its ETags')
    writer.u8(ifMatch.length)
    for (const { low, high } of ifMatch) {
      writer.u32(low)
      writer.u32(high)
    }
  }
  if (ttlMs !== undefined) writer.u64(ttlMs === Number.POSITIVE_INFINITY ? 0 : Math.ceil(ttlMs))
}

function readForward(reader: ByteReader, head: Head): ForwardMessage | undefined {
  const bucketId = reader.u32()
  const operation = operations[reader.u8() - 1]
  const flags = reader.u8()
  const levelCode = reader.u8()
  const durabilityCode = reader.u8()
  // 4 would be a level of no replicas.
  if (operation === undefined || levelCode === 4 || levelCode > 4 + Limits.replicasMax) return undefined
  const durability = (flags & ForwardFlag.durability) !== 0 ? durabilityOf(durabilityCode) : undefined
  if ((flags & ForwardFlag.durability) !== 0 ? durability === undefined : durabilityCode !== 0) return undefined
  const key = reader.bytes()
  const value = reader.bytes()
  const contentType = textOf(reader.bytes())
  if (!isKey(key) || !isBucket(bucketId) || contentType === undefined) return undefined
  const context = (flags & ForwardFlag.context) !== 0 ? reader.bytes() : undefined
  let ifMatch: readonly Digest[] | '*' | undefined = (flags & ForwardFlag.ifMatchAny) !== 0 ? '*' : undefined
  if ((flags & ForwardFlag.ifMatch) !== 0) {
    if (ifMatch !== undefined) return undefined
    const digests: Digest[] = []
    for (let left = reader.u8(); left > 0; left--) digests.push({ low: reader.u32(), high: reader.u32() })
    ifMatch = digests
  }
  const ttl = (flags & ForwardFlag.ttl) !== 0 ? reader.u64() : undefined
  const isBoth = (flags & ForwardFlag.sloppy) !== 0 && (flags & ForwardFlag.strict) !== 0
  if (isBoth) return undefined
  return {
    ...head,
    type: 'forward',
    operation,
    bucketId,
    key,
    value,
    contentType,
    context,
    ifMatch,
    ifNoneMatch: (flags & ForwardFlag.ifNoneMatch) !== 0,
    ttlMs: ttl === 0 ? Number.POSITIVE_INFINITY : ttl,
    durability,
    sloppy: (flags & ForwardFlag.sloppy) !== 0 ? true : (flags & ForwardFlag.strict) !== 0 ? false : undefined,
    level: levelOf(levelCode),
  }
}

function writeFailure(writer: ByteWriter, failure: PeerFailure | undefined): void {
  const code = failure?.code ?? ''
  writer.u8(code.length)
  writer.raw(ascii(code))
  if (failure !== undefined) writer.u8(OutcomeNumber[failure.outcome])
}

/** Null: the bytes are malformed. A code that this release does not know is an error of the other node. */
function readFailure(reader: ByteReader): PeerFailure | undefined | null {
  const codeBytes = reader.u8()
  if (codeBytes === 0) return undefined
  const code = textOf(reader.raw(codeBytes))
  const outcome = reader.u8()
  if (code === undefined || outcome > OutcomeNumber.unknown) return null
  return { code: isErrorCode(code) ? code : 'INTERNAL', outcome: outcomeOf(outcome) }
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ErrorTable, code)
}

function levelNumber(level: QuorumLevel | undefined): number {
  if (level === undefined) return 0
  if (typeof level === 'number') return 4 + level
  return { one: 1, quorum: 2, all: 3 }[level]
}

function levelOf(code: number): QuorumLevel | undefined {
  if (code > 4) return code - 4
  return ([undefined, 'one', 'quorum', 'all', undefined] as const)[code]
}

function durabilityOf(number: number): Durability | undefined {
  return durabilities.find((durability) => DurabilityNumber[durability] === number)
}

function isKey(key: Uint8Array): boolean {
  return key.length > 0 && key.length <= Limits.keyBytesMax
}

/** Reserved buckets are this node's own. */
function isBucket(bucketId: number): boolean {
  return bucketId < hintBucketId
}

function ascii(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0))
}

/** Visible ASCII of a name or a content type. */
function textOf(bytes: Uint8Array): string | undefined {
  if (bytes.length > nameBytesMax) return undefined
  let text = ''
  for (const byte of bytes) {
    if (byte < 0x20 || byte >= 0x7f) return undefined
    text += String.fromCharCode(byte)
  }
  return text
}
