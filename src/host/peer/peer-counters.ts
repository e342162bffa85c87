/** What a transport counts. */
import type { FrameFault } from './frame.ts'
import type { Refusal } from './handshake.ts'

/** Why a connection was closed, or a datagram or message dropped, beside what the peer said wrong. */
export type PeerTrouble = FrameFault | Refusal | 'handshakeTimeout' | 'dead' | 'strangers' | 'replaced' | 'tls' | 'code'

export class PeerCounters {
  bytesSent = 0
  bytesReceived = 0
  framesSent = 0
  framesReceived = 0
  messagesSent = 0
  messagesReceived = 0
  /** Messages that were taken and then lost with their connection. */
  messagesDropped = 0
  /** Messages that were not taken. */
  messagesRefused = 0
  datagramsSent = 0
  datagramsReceived = 0
  /** Connections made, and attempts and connections that failed. */
  connects = 0
  disconnects = 0
  readonly #troubles = new Map<string, number>()

  count(direction: 'in' | 'out' | 'datagram', trouble: PeerTrouble): void {
    const name = `${direction} ${trouble}`
    this.#troubles.set(name, (this.#troubles.get(name) ?? 0) + 1)
  }

  /** How often something went wrong, in one direction. */
  troubles(direction: 'in' | 'out' | 'datagram', trouble: PeerTrouble): number {
    return this.#troubles.get(`${direction} ${trouble}`) ?? 0
  }

  /** All that went wrong: `direction trouble`, and how often. */
  get allTroubles(): ReadonlyMap<string, number> {
    return this.#troubles
  }
}
