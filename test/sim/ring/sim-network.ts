/**
 * The simulated network: messages between nodes as bytes, each delayed, lost, repeated or damaged by its own draw, and links that are cut, one
 * way or both, or clogged for a while. What is damaged is dropped at the receiver, as a checksum of the transport does it.
 */
import type { SeededRandom } from '../../../src/base/seeded-random.ts'
import type { EventQueue } from './event-queue.ts'

export type NetworkFaults = {
  /** Of so many messages one is lost, comes twice, or is damaged; 0: none. */
  lossOneIn: number
  repeatOneIn: number
  damageOneIn: number
  /** Most of a delay beyond the usual. */
  delayMsMax: number
}

const usualDelayMs = 0.2
const bytesQueuedMax = 16 * 1024 * 1024

export class SimNetwork {
  readonly #events: EventQueue
  readonly #random: SeededRandom
  readonly #cut = new Set<string>()
  readonly #cloggedUntilMs = new Map<string, number>()
  #bytesUnderWay = 0
  faults: NetworkFaults = { lossOneIn: 0, repeatOneIn: 0, damageOneIn: 0, delayMsMax: 0 }
  deliver: (from: string, to: string, bytes: Uint8Array) => void = () => {}
  sent = 0
  lost = 0
  bytesSent = 0

  constructor(events: EventQueue, random: SeededRandom) {
    this.#events = events
    this.#random = random
  }

  /** False where the queue is full, as a send queue of the transport is. */
  send(from: string, to: string, bytes: Uint8Array): boolean {
    if (this.#bytesUnderWay + bytes.length > bytesQueuedMax) return false
    this.sent++
    this.bytesSent += bytes.length
    const { lossOneIn, repeatOneIn, damageOneIn } = this.faults
    const copies = this.#draws(repeatOneIn) ? 2 : 1
    for (let copy = 0; copy < copies; copy++) {
      if (this.#draws(lossOneIn) || this.#draws(damageOneIn) || this.isCut(from, to)) {
        this.lost++
        continue
      }
      this.#carry(from, to, bytes.slice())
    }
    return true
  }

  #carry(from: string, to: string, bytes: Uint8Array): void {
    const clogMs = Math.max(0, (this.#cloggedUntilMs.get(linkOf(from, to)) ?? 0) - this.#events.nowMs)
    const delayMs = clogMs + usualDelayMs + this.#random.fraction() ** 4 * this.faults.delayMsMax
    this.#bytesUnderWay += bytes.length
    this.#events.after(delayMs, () => {
      this.#bytesUnderWay -= bytes.length
      if (this.isCut(from, to)) this.lost++
      else this.deliver(from, to, bytes)
    })
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

  /** Ends all cuts. */
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
