/**
 * What waits for one peer: messages, gathered into frames as they come. One frame at a time is being written; meanwhile the next one
 * fills. Bounded in bytes, for this peer and for all of them together.
 */
import { assert } from '../../base/assert.ts'
import { FrameType, frameHeaderBytes, sealFrame, writeU32 } from './frame.ts'
import { entryHeaderBytes, goesOnBit } from './message-reader.ts'
import type { SharedRoom } from './shared-room.ts'

export type SendQueueLimits = {
  readonly frameBytesMax: number
  readonly messageBytesMax: number
  /** Of all messages that wait; a longer one is taken where nothing else does. */
  readonly queueBytesMax: number
}

/** `messages` end in the frame. */
type Frame = { readonly bytes: Uint8Array; readonly end: number; readonly messages: number }

const bufferBytesMin = 2048
/** A buffer up to this is used again. */
const spareBytesMax = 64 * 1024

export class SendQueue {
  readonly #limits: SendQueueLimits
  readonly #room: SharedRoom
  readonly #whole: Frame[] = []
  #open: Uint8Array | undefined
  #end = frameHeaderBytes
  #openMessages = 0
  #underWay: Frame | undefined
  #spare: Uint8Array | undefined
  /** Bytes that wait or are being written. */
  bytes = 0
  /** Messages that do. */
  messages = 0

  constructor(limits: SendQueueLimits, room: SharedRoom) {
    assert(limits.frameBytesMax > 2 * bufferBytesMin, 'Frames have room for pieces')
    this.#limits = limits
    this.#room = room
  }

  get isEmpty(): boolean {
    return this.bytes === 0
  }

  /** Copies a message in; false where there is no room: nothing was done. */
  push(message: Uint8Array): boolean {
    const { frameBytesMax, messageBytesMax, queueBytesMax } = this.#limits
    if (message.length > messageBytesMax) return false
    const pieceBytesMax = frameBytesMax - frameHeaderBytes - entryHeaderBytes
    const pieces = Math.max(1, Math.ceil(message.length / pieceBytesMax))
    const bytes = message.length + pieces * entryHeaderBytes
    if (this.bytes > 0 && this.bytes + bytes > queueBytesMax) return false
    if (!this.#room.take(bytes)) return false
    this.bytes += bytes
    this.messages++
    let at = 0
    // Pieces that others follow have a frame each; the last one shares its own.
    for (; message.length - at > pieceBytesMax; at += pieceBytesMax) {
      this.#close()
      this.#append(message, at, at + pieceBytesMax, true)
      this.#close()
    }
    this.#append(message, at, message.length, false)
    this.#openMessages++
    return true
  }

  /** The next frame, sealed, where none is being written and something waits; `written` must follow. */
  take(version: number): Uint8Array | undefined {
    if (this.#underWay !== undefined) return undefined
    if (this.#whole.length === 0) this.#close()
    const frame = this.#whole.shift()
    if (frame === undefined) return undefined
    this.#underWay = frame
    sealFrame(frame.bytes, frame.end, version, FrameType.messages)
    return frame.bytes.subarray(0, frame.end)
  }

  /** The frame taken last is out of this process's hands. */
  written(): void {
    const frame = this.#underWay
    assert(frame !== undefined, 'A frame was being written')
    this.#underWay = undefined
    this.#release(frame)
    if (frame.bytes.length <= spareBytesMax) this.#spare = frame.bytes
  }

  /** Throws all away; how many messages were lost. */
  clear(): number {
    const { messages } = this
    this.#close()
    for (const frame of this.#whole) this.#release(frame)
    if (this.#underWay !== undefined) this.#release(this.#underWay)
    this.#whole.length = 0
    // It may be read still.
    this.#underWay = undefined
    this.#spare = undefined
    assert(this.bytes === 0, 'What waited is what was counted')
    return messages
  }

  #release({ end, messages }: Frame): void {
    this.messages -= messages
    this.bytes -= end - frameHeaderBytes
    this.#room.giveBack(end - frameHeaderBytes)
  }

  #append(message: Uint8Array, start: number, end: number, goesOn: boolean): void {
    const bytes = entryHeaderBytes + end - start
    if (this.#end + bytes > this.#limits.frameBytesMax) this.#close()
    const open = this.#roomFor(bytes)
    writeU32(open, this.#end, goesOn ? end - start + goesOnBit : end - start)
    open.set(
      start === 0 && end === message.length ? message : message.subarray(start, end),
      this.#end + entryHeaderBytes,
    )
    this.#end += bytes
  }

  #roomFor(bytes: number): Uint8Array {
    let open = this.#open
    if (open === undefined) {
      open = this.#spare ?? new Uint8Array(bufferBytesMin)
      this.#spare = undefined
    }
    if (this.#end + bytes > open.length) {
      const grown = new Uint8Array(Math.min(this.#limits.frameBytesMax, Math.max(2 * open.length, this.#end + bytes)))
      grown.set(open.subarray(0, this.#end))
      open = grown
    }
    this.#open = open
    return open
  }

  /** What has gathered is a frame. */
  #close(): void {
    if (this.#open === undefined) return
    this.#whole.push({ bytes: this.#open, end: this.#end, messages: this.#openMessages })
    this.#open = undefined
    this.#openMessages = 0
    this.#end = frameHeaderBytes
  }
}
