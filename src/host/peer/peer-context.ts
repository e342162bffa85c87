/** What the connections of one transport share. */
import type { Socket } from 'node:net'
import type { Random } from '../../env.ts'
import type { Peer } from '../../node.ts'
import type { PeerAddress } from './peer-address.ts'
import type { PeerCounters, PeerTrouble } from './peer-counters.ts'
import type { SharedRoom } from './shared-room.ts'

export type PeerContext = {
  readonly nodeId: string
  /** Where others reach this node. */
  readonly address: () => string
  readonly clusterId: () => string | undefined
  readonly nowMs: () => number
  readonly random: Random
  readonly counters: PeerCounters
  readonly sendRoom: SharedRoom
  readonly receiveRoom: SharedRoom
  /** Begins a connection; `ready` is called once it may be written to. */
  readonly dial: (address: PeerAddress, ready: () => void) => Socket
  /** The node that the other end's certificate names; undefined where there are no certificates. */
  readonly certified: (socket: Socket) => string | undefined
  /** Whether peers must have certificates. */
  readonly isCertifying: boolean
  readonly receive: (from: Peer, message: Uint8Array) => void
  /** The node at an address is of another cluster. */
  readonly estranged: (address: string) => void
  /** Says that a peer is not talked to. */
  readonly warn: (where: string, trouble: PeerTrouble) => void
}
