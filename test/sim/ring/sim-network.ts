/**
 * The simulated network: messages between nodes as bytes, each delayed, lost, repeated or with bits flipped by its own draw, and links that are
 * cut, one way or both, or clogged for a while. As the transport does it, a message travels with a checksum of its bytes; what does
 * not match it at the receiver is refused and counted, and nothing of it is looked at. A message that its checksum does not show to be
 * damaged is delivered as it came.
 */
import { crc32 } from 'node:zlib'
import type { SeededRandom } from '../../../src/base/seeded-random.ts'
import type { EventQueue } from './event-queue.ts'

export type NetworkFaults = {
  /** Of so many messages one is lost, comes twice, or has some bits flipped on its way; 0: none. */
  lossOneIn: number
  repeatOneIn: number
  flipOneIn: number
  /** Most of a delay beyond the usual. */
  delayMsMax: number
}

const usualDelayMs = 0.2
/** Bytes that may be on their way; more is not taken. */
export const bytesQueuedMax = 16 * 1024 * 1024
const checksumBytes = 4
/** More than a checksum of 32 bits always finds; of those beyond, one in four thousand million passes. */
const flipsMax = 4

export const noFaults: Readonly<NetworkFaults> = { lossOneIn: 0, repeatOneIn: 0, flipOneIn: 0, delayMsMax: 0 }

export class SimNetwork {
  readonly #events: EventQueue
  readonly #random: SeededRandom
  readonly #cut = new Set<string>()
  readonly #cloggedUntilMs = new Map<string, number>()
  bytesUnderWay = 0
  faults: NetworkFaults = { ...noFaults }
  deliver: (from: string, to: string, bytes: Uint8Array) => void = () => {}
  sent = 0
  lost = 0
  repeated = 0
  /** Messages with flipped bits, those of them that the receiver refused. */
  flipped = 0
  refused = 0
  bytesSent = 0

  constructor(events: EventQueue, random: SeededRandom) {
    this.#events = events
    this.#random = random
  }

  /** False where the queue is full, as a send queue of the transport is. */
  send(from: string, to: string, bytes: Uint8Array): boolean {
    if (this.bytesUnderWay + bytes.length > bytesQueuedMax) return false
    this.sent++
    this.bytesSent += bytes.length
    const { lossOneIn, repeatOneIn, flipOneIn } = this.faults
    const copies = this.#draws(repeatOneIn) ? 2 : 1
    if (copies === 2) this.repeated++
    for (let copy = 0; copy < copies; copy++) {
      if (this.#draws(lossOneIn) || this.isCut(from, to)) this.lost++
      else if (this.#draws(flipOneIn)) this.#carry(from, to, this.#flipped(bytes))
      else this.#carry(from, to, bytes.slice())
    }
    return true
  }

  /** `undefined`: on arrival it is refused. */
  #carry(from: string, to: string, bytes: Uint8Array | undefined): void {
    const clogMs = Math.max(0, (this.#cloggedUntilMs.get(linkOf(from, to)) ?? 0) - this.#events.nowMs)
    const delayMs = clogMs + usualDelayMs + this.#random.fraction() ** 4 * this.faults.delayMsMax
    const size = bytes?.length ?? 0
    this.bytesUnderWay += size
    this.#events.after(delayMs, () => {
      this.bytesUnderWay -= size
      if (this.isCut(from, to)) this.lost++
      else if (bytes === undefined) this.refused++
      else this.deliver(from, to, bytes)
    })
  }

  /** The message with some bits flipped, its checksum among them; undefined where that shows. */
  #flipped(bytes: Uint8Array): Uint8Array | undefined {
    this.flipped++
    const frame = new Uint8Array(bytes.length + checksumBytes)
    frame.set(bytes)
    const view = new DataView(frame.buffer)
    view.setUint32(bytes.length, crc32(bytes), true)
    const flips = new Set<number>()
    for (let left = this.#random.between(1, flipsMax); left > 0; left--) flips.add(this.#random.below(8 * frame.length))
    for (const bit of flips) frame[bit >>> 3]! ^= 1 << (bit & 7)
    const arrived = frame.subarray(0, bytes.length)
    return crc32(arrived) === view.getUint32(bytes.length, true) ? arrived : undefined
  }

  isCut(from: string, to: string): boolean {
    return this.#cut.has(linkOf(from, to))
  }

  /** Nothing passes from one node to the other. */
  cut(from: string, to: string): void {
    this.#cut.add(linkOf(from, to))
  }

  clog(from: string, to: string, forMs: number): void {
    this.#cloggedUntilMs.set(linkOf(from, to), this.#events.nowMs + forMs)
  }

  /** Ends all cuts. What is clogged goes on when its time is over. */
  mend(): void {
    this.#cut.clear()
  }

  #draws(oneIn: number): boolean {
    return oneIn > 0 && this.#random.chance(1, oneIn)
  }
}

function linkOf(from: string, to: string): string {
  return `${from}>${to}`
}
