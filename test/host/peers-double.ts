/** The door to other nodes within one process, for tests: messages arrive a little later, unless the way is cut. */

import { Limits } from '../../src/config.ts'
import type { OpenPeers } from '../../src/host/cluster-member.ts'
import type { Peer } from '../../src/node.ts'

export class PeersDouble {
  readonly #byAddress = new Map<string, (from: Peer, bytes: Uint8Array) => void>()
  /** Addresses that nothing comes from and nothing goes to. */
  readonly cut = new Set<string>()

  at(address: string): OpenPeers {
    return async ({ nodeId, received }) => {
      this.#byAddress.set(address, received)
      return {
        address,
        datagramBytesMax: Limits.peerDatagramBytesMax,
        send: (to, bytes) => {
          const copy = bytes.slice()
          setImmediate(() => {
            if (this.cut.has(address) || this.cut.has(to)) return
            this.#byAddress.get(to)?.({ nodeId, address }, copy)
          })
          return true
        },
        setCluster: () => {},
        close: async () => {
          this.#byAddress.delete(address)
        },
      }
    }
  }
}
