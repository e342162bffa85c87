/**
 * What a node must not forget of the chain, as four rows:
 *
 *   topology   the latest decided epoch it knows, as topology-bytes.ts draws it
 *   vote       u8 version (1)   u32 epoch   u8 1: ballot   u8 1: [ballot   value]     its vote on the epoch after
 *   ballot     u8 version (1)   u64 counter                                           the highest that it proposed with
 *   acceptor   u8 version (1)   u64 id   u32 length   place                           under which it votes and proposes since it has these rows
 *
 * A vote on an epoch that is decided by now says nothing any more, and may lie there.
 *
 * Whoever has lost the rows has no id either, and takes another one; so does who finds that they were copied to another place. Rows that
 * are put back behind its back, as by an earlier image of a whole disk, nobody can notice.
 */
import { ByteReader, ByteWriter } from '../../base/bytes.ts'
import type { Done } from '../../env.ts'
import type { VoterState } from '../paxos.ts'
import { readAccepted, readBallot, writeAccepted, writeBallot } from './chain-messages.ts'
import { noId, readId, writeId } from './topology-bytes.ts'

export type ChainRowName = 'topology' | 'vote' | 'ballot' | 'acceptor'

export type ChainRows = { readonly [Name in ChainRowName]?: Uint8Array | undefined }

/** A narrow view of the catalog. */
export type ChainStore = {
  /**
   * Replaces these rows, all or none; `done` comes after they are durable. Saves apply in the order of their calls. After an error they may
   * hold or not.
   */
  save(rows: ChainRows, done: Done): void
}

/** `place`: where the rows were when the id was drawn, as whoever stores them tells places apart. */
export type StoredAcceptor = { readonly id: string; readonly place: string }

export type StoredVote = { readonly epoch: number; readonly state: VoterState<Uint8Array> }

const version = 1

export function encodeVote({ epoch, state }: StoredVote): Uint8Array {
  const writer = new ByteWriter()
  writer.u8(version)
  writer.u32(epoch)
  writer.u8(state.promised === undefined ? 0 : 1)
  if (state.promised !== undefined) writeBallot(writer, state.promised)
  writeAccepted(writer, state.accepted)
  return writer.toBytes()
}

/** Undefined where the row is damaged or of another version. */
export function decodeVote(bytes: Uint8Array): StoredVote | undefined {
  const reader = new ByteReader(bytes)
  if (reader.u8() !== version) return undefined
  const epoch = reader.u32()
  const flag = reader.u8()
  const promised = flag === 1 ? readBallot(reader) : undefined
  if (flag > 1 || (flag === 1 && promised === undefined)) return undefined
  const read = readAccepted(reader)
  if (read === undefined || reader.failed || reader.remaining > 0) return undefined
  return { epoch, state: { promised, accepted: read.accepted } }
}

export function encodeCounter(counter: number): Uint8Array {
  const writer = new ByteWriter(16)
  writer.u8(version)
  writer.u64(counter)
  return writer.toBytes()
}

/** Undefined where the row is damaged or of another version. */
export function decodeCounter(bytes: Uint8Array): number | undefined {
  const reader = new ByteReader(bytes)
  const isKnown = reader.u8() === version
  const counter = reader.u64()
  return isKnown && !reader.failed && reader.remaining === 0 ? counter : undefined
}

export function encodeAcceptor({ id, place }: StoredAcceptor): Uint8Array {
  const writer = new ByteWriter(64)
  writer.u8(version)
  writeId(writer, id)
  writer.bytes(new TextEncoder().encode(place))
  return writer.toBytes()
}

/** Undefined where the row is damaged or of another version. */
export function decodeAcceptor(bytes: Uint8Array): StoredAcceptor | undefined {
  const reader = new ByteReader(bytes)
  const isKnown = reader.u8() === version
  const id = readId(reader)
  const place = new TextDecoder().decode(reader.bytes())
  const isWhole = isKnown && id !== noId && !reader.failed && reader.remaining === 0
  return isWhole ? { id, place } : undefined
}
