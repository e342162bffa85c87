/**
 * Messages out of the payloads of frames (frame.ts), and long ones out of their pieces. A piece that is not the last has at least
 * `pieceBytesMin`, so that what a peer makes this node keep is little more than what it sends.
 */
import { type FrameFault, readU32 } from './frame.ts'
import type { SharedRoom } from './shared-room.ts'

export const pieceBytesMin = 4096
/** Bytes before each entry. */
export const entryHeaderBytes = 4
export const goesOnBit = 0x8000_0000

export class MessageReader {
  readonly #messageBytesMax: number
  readonly #room: SharedRoom
  #pieces: Uint8Array[] = []
  #piecesBytes = 0
  #isEnded = false

  constructor(messageBytesMax: number, room: SharedRoom) {
    this.#messageBytesMax = messageBytesMax
    this.#room = room
  }

  /** Nothing is delivered any more, and pieces of a message go. */
  end(): void {
    this.#isEnded = true
    this.#forget()
  }

  /** Delivers the messages that end within a payload, in their order. What they are delivered as stays as it is. */
  read(bytes: Uint8Array, start: number, end: number, deliver: (message: Uint8Array) => void): FrameFault | undefined {
    let at = start
    while (at < end && !this.#isEnded) {
      if (end - at < entryHeaderBytes) return 'content'
      const head = readU32(bytes, at)
      const goesOn = head >= goesOnBit
      const length = goesOn ? head - goesOnBit : head
      at += entryHeaderBytes
      if (length > end - at) return 'content'
      const entry = bytes.subarray(at, at + length)
      at += length
      if (!goesOn && this.#piecesBytes === 0) deliver(entry)
      else {
        if (goesOn && length < pieceBytesMin) return 'content'
        const fault = this.#keep(entry)
        if (fault !== undefined) return fault
        if (!goesOn) deliver(this.#joined())
      }
    }
    return undefined
  }

  #keep(piece: Uint8Array): FrameFault | undefined {
    if (this.#piecesBytes + piece.length > this.#messageBytesMax) return 'length'
    if (!this.#room.take(piece.length)) return 'memory'
    this.#pieces.push(piece.slice())
    this.#piecesBytes += piece.length
    return undefined
  }

  #joined(): Uint8Array {
    const message = new Uint8Array(this.#piecesBytes)
    let at = 0
    for (const piece of this.#pieces) {
      message.set(piece, at)
      at += piece.length
    }
    this.#forget()
    return message
  }

  #forget(): void {
    this.#room.giveBack(this.#piecesBytes)
    this.#pieces = []
    this.#piecesBytes = 0
  }
}
