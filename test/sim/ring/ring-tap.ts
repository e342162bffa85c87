/** What passes between the nodes of a simulated ring, for tests that hold some of it back. */
import type { RingSim } from './ring-sim.ts'

/** First byte of a message between nodes (src/node.ts). */
export const Channel = { data: 1, membership: 2, chain: 3, moves: 4 } as const

export type Passing = {
  readonly from: string
  readonly to: string
  readonly channel: number
  readonly body: Uint8Array
}

/** Shows a test each message that arrives; where it says `false` the message is lost. Ends with the call of what it returns. */
export function tap(sim: RingSim, look: (passing: Passing) => boolean): () => void {
  const { deliver } = sim.network
  sim.network.deliver = (from, to, bytes) => {
    if (look({ from, to, channel: bytes[0]!, body: bytes.subarray(1) })) deliver(from, to, bytes)
  }
  return () => {
    sim.network.deliver = deliver
  }
}

/** Notes which topology each node goes by at each epoch, and says where two went by different ones. */
export class EpochWatch {
  readonly #digests = new Map<number, string>()
  readonly #sim: RingSim

  constructor(sim: RingSim) {
    this.#sim = sim
  }

  /** Undefined: so far all agree. */
  look(): string | undefined {
    for (const each of this.#sim.nodes) {
      const chain = each.isUp ? each.node.chain : undefined
      const epoch = chain?.topology?.epoch
      if (epoch === undefined) continue
      const before = this.#digests.get(epoch)
      if (before !== undefined && before !== chain!.digest) return `${each.name} has another epoch ${epoch}`
      this.#digests.set(epoch, chain!.digest)
    }
    return undefined
  }
}
