/**
 * Datagrams on the port of the peer protocol. Whether they get through is found out by echoes: who has not heard one for a while asks for
 * them, and says so (`isDoubtful`) once several stay out, so that what matters goes over a connection too.
 */
import { createSocket, type Socket } from 'node:dgram'
import { lookup } from 'node:dns'
import { isIP } from 'node:net'
import { SipHash } from '../../base/siphash.ts'
import { Limits } from '../../config.ts'
import { bindErrorOf } from '../http/address.ts'
import { type Datagram, datagramHeadBytes, decodeDatagram, encodeDatagram } from './datagram.ts'
import { strangeness } from './handshake.ts'
import { parsePeerAddress } from './peer-address.ts'
import type { PeerContext } from './peer-context.ts'

/** What is known of the way to an address. */
type Path = {
  readonly mark: number
  ip: string | undefined
  lookedUpMs: number
  isLookedUp: boolean
  echoedMs: number
  /** Echoes that were asked for in vain, and since when. */
  unanswered: number
  unansweredSinceMs: number
}

const lookupLastsMs = 10_000
const echoLastsMs = 1_000
const unansweredMax = 3

export class DatagramPort {
  readonly #context: PeerContext
  readonly #socket: Socket
  readonly #family: 4 | 6
  readonly #paths = new Map<string, Path>()
  readonly #pathsByMark = new Map<number, Path>()
  #code: SipHash | undefined

  private constructor(context: PeerContext, socket: Socket, family: 4 | 6) {
    this.#context = context
    this.#socket = socket
    this.#family = family
    socket.on('message', (bytes, { address, port }) => this.#take(bytes, address, port))
  }

  /** Rejects with ADDRESS_IN_USE or BAD_CONFIG. */
  static open(context: PeerContext, host: string, port: number): Promise<DatagramPort> {
    const family = host.includes(':') ? 6 : 4
    const socket = createSocket({ type: family === 6 ? 'udp6' : 'udp4' })
    return new Promise((resolve, reject) => {
      socket.once('error', (error) => {
        socket.close()
        reject(bindErrorOf(host, port, error))
      })
      socket.bind({ port, address: host, exclusive: true }, () => {
        socket.removeAllListeners('error')
        // A datagram that cannot be sent is lost.
        socket.on('error', () => {})
        resolve(new DatagramPort(context, socket, family))
      })
    })
  }

  /** From here on datagrams have a code under this key, and others are dropped. */
  setKey(key: Uint8Array | undefined): void {
    this.#code = key === undefined ? undefined : new SipHash(key)
  }

  /** False where the message is too long for a datagram. */
  send(to: string, message: Uint8Array): boolean {
    const own = this.#context.address()
    if (datagramHeadBytes + own.length + message.length > Limits.peerDatagramBytesMax) return false
    const path = this.#pathOf(to)
    const nowMs = this.#context.nowMs()
    const asks = nowMs - path.echoedMs > echoLastsMs
    if (asks && path.unanswered++ === 0) path.unansweredSinceMs = nowMs
    this.#transmit(to, path, asks ? 'messageWithEcho' : 'message', message)
    return true
  }

  /** Whether nothing says that datagrams to an address get there. */
  isDoubtful(to: string): boolean {
    const path = this.#paths.get(to)
    if (path === undefined || path.unanswered < unansweredMax) return false
    return this.#context.nowMs() - path.unansweredSinceMs > echoLastsMs
  }

  close(): Promise<void> {
    return new Promise((resolve) => this.#socket.close(() => resolve()))
  }

  #pathOf(address: string): Path {
    const found = this.#paths.get(address)
    if (found !== undefined) return found
    if (this.#paths.size >= Limits.peerAddressesMax) {
      const [oldest] = this.#paths
      this.#paths.delete(oldest![0])
      this.#pathsByMark.delete(oldest![1].mark)
    }
    const path = {
      mark: this.#context.random.u32(),
      ip: undefined,
      lookedUpMs: Number.NEGATIVE_INFINITY,
      isLookedUp: false,
      echoedMs: Number.NEGATIVE_INFINITY,
      unanswered: 0,
      unansweredSinceMs: 0,
    }
    this.#paths.set(address, path)
    this.#pathsByMark.set(path.mark, path)
    return path
  }

  #transmit(to: string, path: Path, kind: Datagram['kind'], message: Uint8Array): void {
    const { host, port } = parsePeerAddress(to) ?? { host: '', port: 0 }
    if (port === 0) return
    const bytes = this.#encode(path.mark, kind, message)
    if (isIP(host) !== 0) return this.#write(bytes, host, port)
    const nowMs = this.#context.nowMs()
    if (path.ip !== undefined && nowMs - path.lookedUpMs < lookupLastsMs) return this.#write(bytes, path.ip, port)
    // One question at a time; what comes meanwhile goes where the last answer pointed.
    if (path.isLookedUp) return path.ip === undefined ? undefined : this.#write(bytes, path.ip, port)
    path.isLookedUp = true
    lookup(host, { family: this.#family === 4 ? 4 : 0 }, (error, ip) => {
      path.isLookedUp = false
      path.ip = error === null ? ip : undefined
      path.lookedUpMs = nowMs
      if (path.ip !== undefined) this.#write(bytes, path.ip, port)
    })
  }

  #write(bytes: Uint8Array, ip: string, port: number): void {
    const version = isIP(ip)
    if (version === 6 && this.#family === 4) return
    const target = version === 4 && this.#family === 6 ? `::ffff:${ip}` : ip
    this.#context.counters.datagramsSent++
    this.#context.counters.bytesSent += bytes.length
    try {
      this.#socket.send(bytes, port, target, () => {})
    } catch {
      // It was closed while a name was looked up.
    }
  }

  #encode(mark: number, kind: Datagram['kind'], message: Uint8Array): Uint8Array {
    const { nodeId, address, clusterId } = this.#context
    return encodeDatagram({ clusterId: clusterId(), nodeId, address: address(), mark, kind, message }, this.#code)
  }

  #take(bytes: Uint8Array, ip: string, port: number): void {
    const { counters, nodeId, clusterId, receive, nowMs } = this.#context
    counters.bytesReceived += bytes.length
    counters.datagramsReceived++
    const datagram = decodeDatagram(bytes, this.#code)
    if (typeof datagram === 'string') return counters.count('datagram', datagram)
    const strange = strangeness({ nodeId, clusterId: clusterId() }, datagram)
    if (strange !== undefined) return counters.count('datagram', strange)
    if (datagram.kind === 'echo') {
      const path = this.#pathsByMark.get(datagram.mark)
      if (path !== undefined) {
        path.echoedMs = nowMs()
        path.unanswered = 0
      }
      return
    }
    // Never longer than what it answers.
    if (datagram.kind === 'messageWithEcho')
      this.#write(this.#encode(datagram.mark, 'echo', new Uint8Array(0)), ip, port)
    receive(datagram, datagram.message)
  }
}
