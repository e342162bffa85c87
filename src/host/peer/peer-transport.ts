/**
 * Messages to and from other nodes: the door `Network`, over TCP (frame.ts, handshake.ts) and UDP (datagram.ts) on one port.
 *
 * Each node dials those that it has something to say to; a connection carries messages one way. Bulk and what tells who is alive have
 * connections of their own: datagrams go over UDP, and over the light connection where they are too long or do not get through.
 * All queues are bounded (config.ts); what a peer sends is checked before it is used, and the first fault closes its connection.
 *
 * Connections are neither encrypted nor proven to be of whom they say: a node listens where others can reach it only on its operator's word.
 */
import { connect, createServer, type Server, type Socket } from 'node:net'
import { SunwiseError } from '../../base/errors.ts'
import { Limits } from '../../config.ts'
import type { Clock, Network, Random } from '../../env.ts'
import type { Peer } from '../../node.ts'
import { bindErrorOf, checkBindAddress } from '../http/address.ts'
import { datagramHeadBytes } from './datagram.ts'
import { DatagramPort } from './datagram-port.ts'
import type { Hello, Lane, Refusal } from './handshake.ts'
import { formatPeerAddress, parsePeerAddress } from './peer-address.ts'
import type { PeerContext } from './peer-context.ts'
import { PeerCounters, type PeerTrouble } from './peer-counters.ts'
import { PeerInlet } from './peer-inlet.ts'
import { PeerLink } from './peer-link.ts'
import { SharedRoom } from './shared-room.ts'

export type PeerTransportOptions = {
  /** Sixteen lower-case hexadecimal digits. */
  readonly nodeId: string
  /** Likewise; undefined before the node has joined one. */
  readonly clusterId?: string | undefined
  /** 16 bytes under which datagrams have codes; undefined: none. */
  readonly clusterKey?: Uint8Array | undefined
  readonly host: string
  /** 0: any free one. */
  readonly port: number
  /** `host:port` where others reach this node, if it is not where it listens. */
  readonly advertised?: string | undefined
  /** Allows an address other than loopback without certificates. */
  readonly insecure: boolean
  /** False: no datagrams, all goes over TCP. */
  readonly udp?: boolean
  readonly clock: Clock
  readonly random: Random
  /** Takes each message; its bytes stay as they are. Who keeps them for long keeps a copy, since they may lie in something larger. */
  readonly receive: (from: Peer, message: Uint8Array) => void
  /** Told of each try to reach an address where a node of another cluster is. */
  readonly estranged?: (address: string) => void
  /** Told why a peer is not talked to; not more than once a minute for the same. */
  readonly warn?: (text: string) => void
}

/** How things stand with one address. */
export type PeerStatus = {
  readonly address: string
  readonly nodeId: string | undefined
  readonly isConnected: boolean
  readonly queueBytes: number
  readonly roundTripMs: number | undefined
}

type Links = { readonly bulk: PeerLink; light: PeerLink | undefined }

const tickMs = 100
const warnRestMs = 60_000
const warningsMax = 256
const bindTriesMax = 10

export class PeerTransport implements Network {
  readonly counters = new PeerCounters()
  readonly #options: PeerTransportOptions
  readonly #context: PeerContext
  readonly #links = new Map<string, Links>()
  /** Those that have not said who they are, oldest first, and those that have, by node and lane. */
  readonly #strangers = new Set<PeerInlet>()
  readonly #inlets = new Map<string, PeerInlet>()
  readonly #sockets = new Set<Socket>()
  readonly #warnings = new Map<string, number>()
  #server: Server | undefined
  #datagrams: DatagramPort | undefined
  #timer: NodeJS.Timeout | undefined
  #clusterId: string | undefined
  #address = ''
  #port = 0
  #isClosing = false

  private constructor(options: PeerTransportOptions) {
    this.#options = options
    this.#clusterId = options.clusterId
    const { clock, random, receive, nodeId } = options
    this.#context = {
      nodeId,
      address: () => this.#address,
      clusterId: () => this.#clusterId,
      nowMs: () => clock.monotonicMs(),
      random,
      counters: this.counters,
      sendRoom: new SharedRoom(Limits.peerQueueBytesAllMax),
      receiveRoom: new SharedRoom(Limits.peerReceiveBytesAllMax),
      dial: ({ host, port }, ready) => this.#keep(connect({ host, port }, ready)),
      certified: () => undefined,
      isCertifying: false,
      receive: (from, message) => {
        if (!this.#isClosing) receive(from, message)
      },
      estranged: (address) => options.estranged?.(address),
      warn: (where, trouble) => this.#warn(where, trouble),
    }
  }

  /** Rejects with ADDRESS_REFUSED, ADDRESS_IN_USE or BAD_CONFIG. */
  static async listen(options: PeerTransportOptions): Promise<PeerTransport> {
    checkBindAddress(options.host, options.insecure)
    const isId = (id: string): boolean => /^[0-9a-f]{16}$/.test(id) && !/^0+$/.test(id)
    if (!isId(options.nodeId) || (options.clusterId !== undefined && !isId(options.clusterId)))
      throw new SunwiseError('BAD_CONFIG', 'The ids of nodes and clusters are sixteen lower-case hexadecimal digits')
    if (options.advertised !== undefined && parsePeerAddress(options.advertised) === undefined)
      throw new SunwiseError('BAD_CONFIG', `"${options.advertised}" is no address of a node; give host:port`)
    const transport = new PeerTransport(options)
    await transport.#open()
    return transport
  }

  /** Where others reach this node: `host:port`. */
  get address(): string {
    return this.#address
  }

  get port(): number {
    return this.#port
  }

  /** Longest message for which `datagram` is a datagram; longer ones go over the light connection. */
  get datagramBytesMax(): number {
    return Limits.peerDatagramBytesMax - datagramHeadBytes - this.#address.length
  }

  /**
   * Copies a message into the queue of an address. False where it was not taken: the queue is full, the message longer than any may be, or
   * the address was found unreachable a moment ago.
   */
  send(address: string, bytes: Uint8Array, kind: 'stream' | 'datagram'): boolean {
    if (this.#isClosing) return false
    if (kind === 'stream') return this.#linksOf(address)?.bulk.send(bytes) ?? false
    const datagrams = this.#datagrams
    const isSent = datagrams?.send(address, bytes) ?? false
    if (isSent && !datagrams!.isDoubtful(address)) return true
    return this.#light(address, bytes) || isSent
  }

  /** The node is of this cluster now: connections to and from others are closed. */
  setCluster(clusterId: string, clusterKey: Uint8Array | undefined): void {
    this.#clusterId = clusterId
    this.#datagrams?.setKey(clusterKey)
    const isOther = (id: string | undefined): boolean => id !== undefined && id !== clusterId
    for (const inlet of [...this.#inlets.values()]) if (isOther(inlet.peer?.clusterId)) inlet.close('cluster')
    for (const { bulk, light } of this.#links.values()) {
      for (const link of [bulk, light]) if (link?.isUp === true && isOther(link.peerClusterId)) link.close()
    }
  }

  /** Addresses that this node has something to do with. */
  peers(): PeerStatus[] {
    return [...this.#links.values()].map(({ bulk, light }) => ({
      address: bulk.address,
      nodeId: bulk.peerNodeId ?? light?.peerNodeId,
      isConnected: bulk.isUp,
      queueBytes: bulk.queueBytes + (light?.queueBytes ?? 0),
      roundTripMs: bulk.roundTripMs ?? light?.roundTripMs,
    }))
  }

  /** Looks after connections; a timer calls it. */
  tick(): void {
    const nowMs = this.#context.nowMs()
    for (const { bulk, light } of this.#links.values()) {
      bulk.tick(nowMs)
      light?.tick(nowMs)
    }
    for (const inlet of [...this.#strangers, ...this.#inlets.values()]) inlet.tick(nowMs)
  }

  /** Takes nothing more, lets go out what is queued, for `graceMs` at the most, and closes everything. */
  async close(graceMs = 1_000): Promise<void> {
    if (this.#isClosing) return
    this.#isClosing = true
    const links = [...this.#links.values()].flatMap(({ bulk, light }) => (light === undefined ? [bulk] : [bulk, light]))
    await within(graceMs, Promise.all(links.map((link) => new Promise<void>((resolve) => link.drained(resolve)))))
    for (const link of links) link.end()
    const closed = [...this.#sockets].map((socket) => new Promise<void>((resolve) => socket.once('close', resolve)))
    for (const inlet of [...this.#strangers, ...this.#inlets.values()]) inlet.close()
    await within(Math.min(graceMs, 200), Promise.all(closed))
    for (const link of links) link.close()
    clearInterval(this.#timer)
    for (const socket of this.#sockets) socket.destroy()
    await Promise.all([this.#datagrams?.close(), new Promise((resolve) => this.#server!.close(resolve))])
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** One port for both: where the system chooses it, what is free for one may be taken for the other. */
  async #open(): Promise<void> {
    const { host, port, advertised, udp = true, clusterKey } = this.#options
    for (let tries = 1; ; tries++) {
      const server = await this.#listen()
      const bound = server.address()
      this.#port = typeof bound === 'object' && bound !== null ? bound.port : port
      this.#address = advertised ?? formatPeerAddress({ host, port: this.#port })
      this.#server = server
      if (!udp) break
      try {
        this.#datagrams = await DatagramPort.open(this.#context, host, this.#port)
        this.#datagrams.setKey(clusterKey)
        break
      } catch (error) {
        await new Promise((resolve) => server.close(resolve))
        if (port !== 0 || tries === bindTriesMax) throw error
      }
    }
    this.#timer = setInterval(() => this.tick(), tickMs)
  }

  #listen(): Promise<Server> {
    const { host, port } = this.#options
    const server = createServer((socket) => this.#accept(this.#keep(socket)))
    return new Promise((resolve, reject) => {
      server.once('error', (error) => reject(bindErrorOf(host, port, error)))
      server.listen({ host, port, exclusive: true }, () => {
        server.removeAllListeners('error')
        server.on('error', () => {})
        resolve(server)
      })
    })
  }

  #keep(socket: Socket): Socket {
    this.#sockets.add(socket)
    socket.once('close', () => this.#sockets.delete(socket))
    return socket
  }

  #accept(socket: Socket): void {
    if (this.#isClosing) return void socket.destroy()
    const inlet = new PeerInlet(this.#context, socket, (which, hello) => this.#admit(which, hello))
    if (this.#strangers.size >= Limits.peerStrangersMax) {
      const [oldest] = this.#strangers
      this.#strangers.delete(oldest!)
      oldest!.close('strangers')
    }
    this.#strangers.add(inlet)
    socket.once('close', () => {
      this.#strangers.delete(inlet)
      const { peer } = inlet
      if (peer !== undefined && this.#inlets.get(placeOf(peer)) === inlet) this.#inlets.delete(placeOf(peer))
    })
  }

  /** A peer that comes again has lost its other connection, even where this end has not noticed. */
  #admit(inlet: PeerInlet, hello: Hello): Refusal | undefined {
    if (this.#isClosing) return 'closing'
    const place = placeOf(hello)
    const before = this.#inlets.get(place)
    if (before === undefined && this.#inlets.size >= Limits.peerConnectionsMax) return 'full'
    this.#strangers.delete(inlet)
    this.#inlets.set(place, inlet)
    before?.close('replaced')
    return undefined
  }

  #light(address: string, bytes: Uint8Array): boolean {
    const links = this.#linksOf(address)
    if (links === undefined) return false
    links.light ??= new PeerLink(this.#context, address, 'light')
    return links.light.send(bytes)
  }

  #linksOf(address: string): Links | undefined {
    const found = this.#links.get(address)
    if (found !== undefined) return found
    if (parsePeerAddress(address) === undefined || (this.#links.size >= Limits.peerAddressesMax && !this.#makePlace()))
      return undefined
    const links: Links = { bulk: new PeerLink(this.#context, address, 'bulk'), light: undefined }
    this.#links.set(address, links)
    return links
  }

  /** Forgets the address unused longest, of those where nothing is under way. */
  #makePlace(): boolean {
    const usedMs = ({ bulk, light }: Links): number => Math.max(bulk.usedMs, light?.usedMs ?? 0)
    const isIdle = ({ bulk, light }: Links): boolean => bulk.queueBytes + (light?.queueBytes ?? 0) === 0
    let oldest: Links | undefined
    for (const links of this.#links.values()) {
      if (isIdle(links) && (oldest === undefined || usedMs(links) < usedMs(oldest))) oldest = links
    }
    if (oldest === undefined) return false
    oldest.bulk.close()
    oldest.light?.close()
    return this.#links.delete(oldest.bulk.address)
  }

  #warn(where: string, trouble: PeerTrouble): void {
    const { warn } = this.#options
    const text = `Peer ${where}: ${troubleTexts[trouble]}`
    const nowMs = this.#context.nowMs()
    if (warn === undefined || nowMs - (this.#warnings.get(text) ?? Number.NEGATIVE_INFINITY) < warnRestMs) return
    this.#warnings.delete(text)
    this.#warnings.set(text, nowMs)
    if (this.#warnings.size > warningsMax) this.#warnings.delete(this.#warnings.keys().next().value!)
    warn(text)
  }
}

const troubleTexts: { readonly [Trouble in PeerTrouble]: string } = {
  magic: 'what it sends is not the protocol of peers',
  version: 'it speaks no version of the protocol that this node speaks',
  type: 'it sends what has no place there',
  flags: 'it sets flags that this version does not know',
  length: 'it sends more than may be sent in one piece',
  checksum: 'what it sends is damaged',
  content: 'what it sends cannot be read',
  memory: 'there is no memory left for what it sends',
  cluster: 'it is of another cluster',
  sameNode: 'it has the id of this node: one of the two directories is a copy of the other, or the address is its own',
  certificate: 'its certificate does not name the node that it says it is',
  full: 'it has no place for one more connection',
  closing: 'it is stopping',
  handshakeTimeout: 'it did not say who it is in time',
  dead: 'it does not answer any more',
  strangers: 'too many connections had not said who they are',
  replaced: 'it has connected again',
  tls: 'its certificate is not one of this cluster',
  code: 'its datagrams do not have the code of this cluster',
}

function placeOf({ nodeId, lane }: { readonly nodeId: string; readonly lane: Lane }): string {
  return `${nodeId} ${lane}`
}

/** Waits for something, but no longer than that. */
async function within(limitMs: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  await Promise.race([
    work,
    new Promise((resolve) => {
      timer = setTimeout(resolve, limitMs)
    }),
  ])
  clearTimeout(timer)
}
