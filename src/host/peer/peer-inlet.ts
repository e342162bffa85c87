/**
 * A connection that another node dialed: it says who it is, and then what it has to say. Nothing that it sends is trusted: the first wrong byte
 * closes the connection. A peer that does not read its answers is not read either.
 */
import type { Socket } from 'node:net'
import { Limits } from '../../config.ts'
import { encodeFrame, FrameDecoder, type FrameFault, FrameType, frameHeaderBytes, protocolVersion } from './frame.ts'
import {
  commonVersion,
  decodeHello,
  encodeRefused,
  encodeWelcome,
  type Hello,
  handshakeBytesMax,
  type Refusal,
  strangeness,
} from './handshake.ts'
import { MessageReader } from './message-reader.ts'
import type { PeerContext } from './peer-context.ts'
import type { PeerTrouble } from './peer-counters.ts'

const unreadBytesMax = 16 * 1024

export class PeerInlet {
  readonly #context: PeerContext
  readonly #socket: Socket
  readonly #admit: (inlet: PeerInlet, hello: Hello) => Refusal | undefined
  readonly #decoder: FrameDecoder
  readonly #messages: MessageReader
  readonly #openedMs: number
  #heardMs: number
  #isEnded = false
  /** Who it is, once it has said so and was let in. */
  peer: Hello | undefined

  /** `admit` may refuse a peer that is not strange. */
  constructor(context: PeerContext, socket: Socket, admit: (inlet: PeerInlet, hello: Hello) => Refusal | undefined) {
    this.#context = context
    this.#socket = socket
    this.#admit = admit
    this.#decoder = new FrameDecoder(handshakeBytesMax, context.receiveRoom)
    this.#messages = new MessageReader(Limits.peerMessageBytesMax, context.receiveRoom)
    this.#openedMs = context.nowMs()
    this.#heardMs = this.#openedMs
    socket.setNoDelay(true)
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#end())
    socket.on('drain', () => socket.resume())
    socket.on('data', (bytes: Uint8Array) => this.#take(bytes))
  }

  tick(nowMs: number): void {
    if (this.peer === undefined) {
      if (nowMs - this.#openedMs > Limits.peerHandshakeMs) this.close('handshakeTimeout')
    } else if (nowMs - this.#heardMs > Limits.peerPingMs + 2 * Limits.peerDeadMs) this.close('dead')
  }

  /** Closes it for a reason that counts, or just so. */
  close(trouble?: PeerTrouble): void {
    if (this.#isEnded) return
    if (trouble !== undefined) {
      this.#context.counters.count('in', trouble)
      if (trouble !== 'replaced') this.#context.warn(this.peer?.address ?? this.#remote(), trouble)
    }
    this.#end()
    this.#socket.destroy()
  }

  #end(): void {
    this.#isEnded = true
    this.#decoder.end()
    this.#messages.end()
  }

  #take(bytes: Uint8Array): void {
    if (this.#isEnded) return
    const { counters, nowMs } = this.#context
    counters.bytesReceived += bytes.length
    this.#heardMs = nowMs()
    const fault = this.#decoder.push(bytes, (type, frame, start, end) => {
      counters.framesReceived++
      return this.#takeFrame(type, frame, start, end)
    })
    if (fault !== undefined) this.close(fault)
  }

  #takeFrame(type: number, frame: Uint8Array, start: number, end: number): FrameFault | undefined {
    if (this.peer === undefined) return type === FrameType.hello ? this.#takeHello(frame.subarray(start, end)) : 'type'
    if (type === FrameType.messages) return this.#takeMessages(frame, start, end)
    if (type !== FrameType.ping) return 'type'
    if (end - start !== 4) return 'content'
    this.#write(encodeFrame(this.#decoder.version, FrameType.pong, frame.subarray(start, end)))
    if (this.#socket.writableLength > unreadBytesMax) this.#socket.pause()
    return undefined
  }

  #takeMessages(frame: Uint8Array, start: number, end: number): FrameFault | undefined {
    const { receive, counters } = this.#context
    const from = this.peer!
    return this.#messages.read(frame, start, end, (message) => {
      counters.messagesReceived++
      receive(from, message)
    })
  }

  #takeHello(payload: Uint8Array): FrameFault | undefined {
    const hello = decodeHello(payload)
    if (hello === undefined) return 'content'
    const { nodeId, clusterId, certified, isCertifying } = this.#context
    const self = { nodeId, clusterId: clusterId() }
    const version = commonVersion(protocolVersion, hello.versions)
    const isProven = !isCertifying || certified(this.#socket) === hello.nodeId
    const reason =
      version === undefined
        ? 'version'
        : (strangeness(self, hello) ?? (isProven ? this.#admit(this, hello) : 'certificate'))
    if (reason !== undefined) {
      this.#refuse(reason)
      return undefined
    }
    this.peer = hello
    this.#decoder.version = version!
    this.#decoder.payloadBytesMax = Limits.peerFrameBytesMax - frameHeaderBytes
    this.#write(encodeFrame(0, FrameType.welcome, encodeWelcome({ ...self, version: version! })))
    return undefined
  }

  /** Says why, and closes. */
  #refuse(reason: Refusal): void {
    this.#context.counters.count('in', reason)
    this.#context.warn(this.#remote(), reason)
    this.#end()
    const frame = encodeFrame(0, FrameType.refused, encodeRefused({ reason, versions: protocolVersion }))
    this.#socket.end(frame)
    // What still comes is not read, and the connection goes when the peer has its answer.
    this.#socket.setTimeout(Limits.lingerMs, () => this.#socket.destroy())
  }

  #write(frame: Uint8Array): void {
    this.#context.counters.framesSent++
    this.#context.counters.bytesSent += frame.length
    this.#socket.write(frame)
  }

  #remote(): string {
    return `${this.#socket.remoteAddress}`
  }
}
