/**
 * Frames between nodes: what one peer writes to the other in one go. Numbers are little-endian.
 *
 *   0  u32 magic "SWn1"
 *   4  u32 crc32 of all that follows
 *   8  u8  version: 0 for hello, welcome and refused, whose form never changes; else the one that both agreed on
 *   9  u8  type
 *   10 u16 flags, none yet: 0
 *   12 u32 bytes of the payload
 *   16 payload, by type:
 *        hello, welcome, refused   handshake.ts
 *        messages                  [u32 bytes, u32 bit 31: the message goes on in the next entry   bytes] x any number
 *        ping, pong                u32 sequence
 *
 * Nothing of a frame is used before its checksum holds, and nothing is allocated for a length above the limit. A decoder takes any
 * bytes, in any pieces, and never throws; the first fault ends it, since where the next frame begins is unknown then.
 */
import { crc32 } from 'node:zlib'
import { assert } from '../../base/assert.ts'
import type { SharedRoom } from './shared-room.ts'

export const frameHeaderBytes = 16
/** Version of the frames that come after the handshake. */
export const protocolVersion = { lowest: 1, highest: 1 } as const

export const FrameType = { hello: 1, welcome: 2, refused: 3, messages: 4, ping: 5, pong: 6 } as const
const typeMax = 6
const handshakeTypeMax = 3
const magic = 0x316e5753

/** What is wrong with bytes of a peer. */
export type FrameFault = 'magic' | 'version' | 'type' | 'flags' | 'length' | 'checksum' | 'content' | 'memory'

/** Takes one whole frame; its payload is `bytes[start, end)`, which stays as it is. A fault ends the decoder. */
export type TakeFrame = (type: number, bytes: Uint8Array, start: number, end: number) => FrameFault | undefined

/** Writes head and checksum of a frame whose payload stands in `bytes` from `frameHeaderBytes` up to `end`. */
export function sealFrame(bytes: Uint8Array, end: number, version: number, type: number): void {
  assert(end >= frameHeaderBytes && end <= bytes.length, 'A frame has a head and lies within its bytes')
  writeU32(bytes, 0, magic)
  bytes[8] = version
  bytes[9] = type
  bytes[10] = 0
  bytes[11] = 0
  writeU32(bytes, 12, end - frameHeaderBytes)
  writeU32(bytes, 4, crc32(bytes.subarray(8, end)))
}

export function encodeFrame(version: number, type: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(frameHeaderBytes + payload.length)
  bytes.set(payload, frameHeaderBytes)
  sealFrame(bytes, bytes.length, version, type)
  return bytes
}

/** Finds frames in what a connection brings. */
export class FrameDecoder {
  /** That of the frames to come; 0 until the handshake is done. */
  version = 0
  /** Greatest payload. */
  payloadBytesMax: number
  readonly #room: SharedRoom
  /** A frame that has come in part, and how much of it. */
  #held: Uint8Array = new Uint8Array(frameHeaderBytes)
  #heldBytes = 0
  #roomTaken = 0
  #isEnded = false

  constructor(payloadBytesMax: number, room: SharedRoom) {
    this.payloadBytesMax = payloadBytesMax
    this.#room = room
  }

  /** Nothing is taken any more; what was held goes. */
  end(): void {
    this.#isEnded = true
    this.#forget()
  }

  /** Takes the next bytes, which must not change afterwards. What is wrong with them, if anything is. */
  push(chunk: Uint8Array, take: TakeFrame): FrameFault | undefined {
    let at = 0
    while (at < chunk.length && !this.#isEnded) {
      const left = chunk.length - at
      let fault: FrameFault | undefined
      if (this.#heldBytes === 0 && left >= frameHeaderBytes) {
        fault = this.#headFault(chunk, at)
        const bytes = frameHeaderBytes + readU32(chunk, at + 12)
        if (fault === undefined && left >= bytes) {
          fault = frameFault(chunk, at, at + bytes, take)
          at += bytes
        } else if (fault === undefined) {
          fault = this.#hold(bytes)
          at += this.#gather(chunk, at)
        }
      } else {
        at += this.#gather(chunk, at)
        fault = this.#gathered(take)
      }
      if (fault !== undefined) {
        this.end()
        return fault
      }
    }
    return undefined
  }

  #headFault(bytes: Uint8Array, at: number): FrameFault | undefined {
    if (readU32(bytes, at) !== magic) return 'magic'
    const type = bytes[at + 9]!
    if (type === 0 || type > typeMax) return 'type'
    if (bytes[at + 8] !== (type <= handshakeTypeMax ? 0 : this.version)) return 'version'
    if (bytes[at + 10] !== 0 || bytes[at + 11] !== 0) return 'flags'
    return readU32(bytes, at + 12) > this.payloadBytesMax ? 'length' : undefined
  }

  /** Makes place for a frame of so many bytes. */
  #hold(bytes: number): FrameFault | undefined {
    if (!this.#room.take(bytes)) return 'memory'
    this.#roomTaken += bytes
    const held = new Uint8Array(bytes)
    held.set(this.#held.subarray(0, this.#heldBytes))
    this.#held = held
    return undefined
  }

  #gather(chunk: Uint8Array, at: number): number {
    const bytes = Math.min(chunk.length - at, this.#held.length - this.#heldBytes)
    this.#held.set(chunk.subarray(at, at + bytes), this.#heldBytes)
    this.#heldBytes += bytes
    return bytes
  }

  #gathered(take: TakeFrame): FrameFault | undefined {
    if (this.#heldBytes < this.#held.length) return undefined
    if (this.#roomTaken === 0) {
      const fault = this.#headFault(this.#held, 0)
      if (fault !== undefined) return fault
      const bytes = frameHeaderBytes + readU32(this.#held, 12)
      if (bytes > frameHeaderBytes) return this.#hold(bytes)
    }
    // Whoever takes it may keep views of it.
    const held = this.#held
    this.#forget()
    return frameFault(held, 0, held.length, take)
  }

  #forget(): void {
    this.#room.giveBack(this.#roomTaken)
    this.#roomTaken = 0
    this.#held = new Uint8Array(frameHeaderBytes)
    this.#heldBytes = 0
  }
}

function frameFault(bytes: Uint8Array, start: number, end: number, take: TakeFrame): FrameFault | undefined {
  if (crc32(bytes.subarray(start + 8, end)) !== readU32(bytes, start + 4)) return 'checksum'
  return take(bytes[start + 9]!, bytes, start + frameHeaderBytes, end)
}

export function writeU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value
  bytes[at + 1] = value >>> 8
  bytes[at + 2] = value >>> 16
  bytes[at + 3] = value >>> 24
}

export function readU32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0
}
