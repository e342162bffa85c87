/**
 * How far nodes are with the moves under way. Little-endian, version 1:
 *
 *   ask    u8 version   u8 1   u32 epoch                      how far are you? The sender drives the moves of that epoch
 *   tell   u8 version   u8 2   u32 epoch   u8 isDone          the epoch that the sender goes by, for good; whether its part of that stage is done
 */
import { ByteReader, ByteWriter } from '../../base/bytes.ts'
import { isEpoch } from './invariants.ts'

export type MoveProgress = {
  /** The node goes by this epoch, and by no earlier one any more: all that it took in before has ended. 0: by none. */
  readonly epoch: number
  /** What this epoch asks of it is done: a new replica has what the old ones have, an old one has handed over. */
  readonly isDone: boolean
}

export type MoveMessage =
  | { readonly type: 'ask'; readonly epoch: number }
  | { readonly type: 'tell'; readonly progress: MoveProgress }

const version = 1
const ask = 1
const tell = 2

export function encodeMoveMessage(message: MoveMessage): Uint8Array {
  const writer = new ByteWriter(8)
  writer.u8(version)
  writer.u8(message.type === 'ask' ? ask : tell)
  writer.u32(message.type === 'ask' ? message.epoch : message.progress.epoch)
  if (message.type === 'tell') writer.u8(message.progress.isDone ? 1 : 0)
  return writer.toBytes()
}

/** The message that `encodeMoveMessage` wrote; undefined for any other bytes. */
export function decodeMoveMessage(bytes: Uint8Array): MoveMessage | undefined {
  const reader = new ByteReader(bytes)
  if (reader.u8() !== version) return undefined
  const type = reader.u8()
  const epoch = reader.u32()
  if (type === ask) return reader.failed || reader.remaining > 0 || !isEpoch(epoch) ? undefined : { type: 'ask', epoch }
  const isDone = reader.u8()
  if (type !== tell || isDone > 1 || reader.failed || reader.remaining > 0) return undefined
  return { type: 'tell', progress: { epoch, isDone: isDone === 1 } }
}
