/**
 * The way to one address: dials when there is something to send, says hello, writes what has gathered, one frame at a time. Nothing but
 * handshake and pongs comes back on it; the peer dials for what it has to say.
 *
 *   resting -> dialing -> greeting -> up -> resting      rests grow with failures, and are drawn from 0 up (full jitter)
 *
 * What was queued or on its way when a connection ends is lost: messages arrive in order and once, or not at all. While it rests after a
 * failure nothing is taken. A connection is dead where a ping that was written has no answer, or what is written makes no progress: a
 * slow peer that goes on taking bytes is not.
 */
import type { Socket } from 'node:net'
import { Limits } from '../../config.ts'
import { encodeFrame, FrameDecoder, type FrameFault, FrameType, protocolVersion } from './frame.ts'
import {
  commonVersion,
  decodeRefused,
  decodeWelcome,
  encodeHello,
  handshakeBytesMax,
  type Lane,
  strangeness,
} from './handshake.ts'
import { parsePeerAddress } from './peer-address.ts'
import type { PeerContext } from './peer-context.ts'
import type { PeerTrouble } from './peer-counters.ts'
import { SendQueue } from './send-queue.ts'

export class PeerLink {
  readonly address: string
  readonly #lane: Lane
  readonly #context: PeerContext
  readonly #queue: SendQueue
  #state: 'resting' | 'dialing' | 'greeting' | 'up' = 'resting'
  #socket: Socket | undefined
  #decoder: FrameDecoder
  #version = 0
  #sinceMs = 0
  #failures = 0
  #restUntilMs = 0
  #flushIsDue = false
  /** Ping without an answer: when it was written, if it was. */
  #ping: { readonly sequence: number; readonly atMs: number; isWritten: boolean } | undefined
  #pings = 0
  #pingDueMs = 0
  #progressMs = 0
  #usedMs: number
  #whenDrained: (() => void) | undefined
  /** Node at the other end, as it says itself. */
  peerNodeId: string | undefined
  peerClusterId: string | undefined
  /** Milliseconds from the last ping to its answer. */
  roundTripMs: number | undefined

  constructor(context: PeerContext, address: string, lane: Lane) {
    this.#context = context
    this.address = address
    this.#lane = lane
    this.#usedMs = context.nowMs()
    this.#decoder = new FrameDecoder(handshakeBytesMax, context.receiveRoom)
    const queueBytesMax = lane === 'light' ? Limits.peerLightQueueBytesMax : Limits.peerQueueBytesMax
    this.#queue = new SendQueue(
      { frameBytesMax: Limits.peerFrameBytesMax, messageBytesMax: Limits.peerMessageBytesMax, queueBytesMax },
      context.sendRoom,
    )
  }

  get isUp(): boolean {
    return this.#state === 'up'
  }

  get queueBytes(): number {
    return this.#queue.bytes
  }

  get usedMs(): number {
    return this.#usedMs
  }

  /** Copies a message in. False where it was not taken. */
  send(message: Uint8Array): boolean {
    const { counters } = this.#context
    if (this.#state === 'resting' && !this.#begin()) {
      counters.messagesRefused++
      return false
    }
    if (!this.#queue.push(message)) {
      counters.messagesRefused++
      return false
    }
    this.#usedMs = this.#context.nowMs()
    counters.messagesSent++
    this.#flushSoon()
    return true
  }

  /** Every 100 ms or so. */
  tick(nowMs: number): void {
    if (this.#state === 'dialing' || this.#state === 'greeting') {
      if (nowMs - this.#sinceMs > Limits.peerHandshakeMs) this.#fail('handshakeTimeout')
    } else if (this.#state === 'up') this.#tickUp(nowMs)
  }

  /** Calls back once nothing waits any more. */
  drained(done: () => void): void {
    if (this.#queue.isEmpty || this.#state === 'resting') done()
    else this.#whenDrained = done
  }

  /** Ends it after what the system has been given. */
  end(): void {
    this.#socket?.end()
  }

  close(): void {
    this.#socket?.destroy()
    this.#ended()
  }

  /** False while it rests. */
  #begin(): boolean {
    const nowMs = this.#context.nowMs()
    const to = parsePeerAddress(this.address)
    if (nowMs < this.#restUntilMs || to === undefined) return false
    this.#state = 'dialing'
    this.#sinceMs = nowMs
    this.#decoder = new FrameDecoder(handshakeBytesMax, this.#context.receiveRoom)
    const socket = this.#context.dial(to, () => this.#greet(socket))
    this.#socket = socket
    socket.setNoDelay(true)
    // What happened is told by `close`.
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#socket === socket && this.#ended())
    socket.on('data', (bytes: Uint8Array) => this.#socket === socket && this.#take(bytes))
    return true
  }

  #greet(socket: Socket): void {
    if (this.#socket !== socket || this.#state !== 'dialing') return
    const { nodeId, address, clusterId } = this.#context
    this.#state = 'greeting'
    const hello = { versions: protocolVersion, lane: this.#lane, clusterId: clusterId(), nodeId, address: address() }
    this.#write(encodeFrame(0, FrameType.hello, encodeHello(hello)))
  }

  #take(bytes: Uint8Array): void {
    this.#context.counters.bytesReceived += bytes.length
    const fault = this.#decoder.push(bytes, (type, frame, start, end) => {
      this.#context.counters.framesReceived++
      return this.#takeFrame(type, frame.subarray(start, end))
    })
    if (fault !== undefined) this.#fail(fault)
  }

  #takeFrame(type: number, payload: Uint8Array): FrameFault | undefined {
    if (this.#state === 'up') return type === FrameType.pong ? this.#takePong(payload) : 'type'
    if (this.#state !== 'greeting') return 'type'
    if (type === FrameType.refused) {
      const refused = decodeRefused(payload)
      if (refused === undefined) return 'content'
      this.#fail(refused.reason)
      return undefined
    }
    return type === FrameType.welcome ? this.#takeWelcome(payload) : 'type'
  }

  #takeWelcome(payload: Uint8Array): FrameFault | undefined {
    const welcome = decodeWelcome(payload)
    if (welcome === undefined) return 'content'
    const { version } = welcome
    if (commonVersion(protocolVersion, { lowest: version, highest: version }) === undefined) return 'version'
    const { nodeId, clusterId, certified, isCertifying } = this.#context
    const strange = strangeness({ nodeId, clusterId: clusterId() }, welcome)
    const isProven = !isCertifying || certified(this.#socket!) === welcome.nodeId
    if (strange !== undefined || !isProven) {
      this.#fail(strange ?? 'certificate')
      return undefined
    }
    const nowMs = this.#context.nowMs()
    this.#state = 'up'
    this.#version = version
    this.#decoder.version = version
    this.peerNodeId = welcome.nodeId
    this.peerClusterId = welcome.clusterId
    this.#sinceMs = nowMs
    this.#progressMs = nowMs
    this.#pingDueMs = nowMs
    this.#context.counters.connects++
    this.#flushSoon()
    return undefined
  }

  #takePong(payload: Uint8Array): FrameFault | undefined {
    const ping = this.#ping
    if (payload.length !== 4 || ping === undefined) return 'content'
    if (new DataView(payload.buffer, payload.byteOffset).getUint32(0, true) !== ping.sequence) return 'content'
    this.#ping = undefined
    this.roundTripMs = this.#context.nowMs() - ping.atMs
    return undefined
  }

  #tickUp(nowMs: number): void {
    if (this.#queue.isEmpty && nowMs - this.#usedMs > Limits.peerIdleMs) return void this.#socket!.end()
    const ping = this.#ping
    if (ping !== undefined) {
      const sinceMs = ping.isWritten ? ping.atMs : this.#progressMs
      if (nowMs - Math.max(ping.atMs, sinceMs) > Limits.peerDeadMs) this.#fail('dead')
    } else if (nowMs >= this.#pingDueMs) {
      const next = { sequence: ++this.#pings, atMs: nowMs, isWritten: false }
      this.#ping = next
      this.#pingDueMs = nowMs + Limits.peerPingMs
      const payload = new Uint8Array(4)
      new DataView(payload.buffer).setUint32(0, next.sequence, true)
      this.#write(encodeFrame(this.#version, FrameType.ping, payload), () => {
        next.isWritten = true
      })
    }
  }

  /** At the end of this turn of the loop, so that what it sends goes out in one piece. */
  #flushSoon(): void {
    if (this.#flushIsDue || this.#state !== 'up') return
    this.#flushIsDue = true
    setImmediate(() => {
      this.#flushIsDue = false
      if (this.#state === 'up') this.#flush()
    })
  }

  #flush(): void {
    const frame = this.#queue.take(this.#version)
    if (frame === undefined) return
    this.#write(frame, () => {
      this.#queue.written()
      if (this.#queue.isEmpty) this.#tellDrained()
      else this.#flush()
    })
  }

  #write(frame: Uint8Array, written: () => void = () => {}): void {
    const socket = this.#socket!
    this.#context.counters.framesSent++
    this.#context.counters.bytesSent += frame.length
    socket.write(frame, (error) => {
      if (error || this.#socket !== socket) return
      this.#progressMs = this.#context.nowMs()
      written()
    })
  }

  #fail(trouble: PeerTrouble): void {
    this.#context.counters.count('out', trouble)
    this.#context.warn(this.address, trouble)
    this.close()
    if (trouble === 'cluster') this.#context.estranged(this.address)
  }

  /** The connection is no more. */
  #ended(): void {
    if (this.#state === 'resting') return
    const { counters, random, nowMs } = this.#context
    const now = nowMs()
    const wasGood = this.#state === 'up' && now - this.#sinceMs > Limits.peerRestMsMax
    this.#failures = wasGood ? 0 : this.#failures + 1
    const restMsMax = Math.min(Limits.peerRestMsMax, Limits.peerRestMsMin * 2 ** Math.min(16, this.#failures))
    this.#restUntilMs = now + (random.u32() / 0x1_0000_0000) * restMsMax
    this.#state = 'resting'
    this.#socket = undefined
    this.#ping = undefined
    this.roundTripMs = undefined
    this.#decoder.end()
    counters.disconnects++
    counters.messagesDropped += this.#queue.clear()
    this.#tellDrained()
  }

  #tellDrained(): void {
    const done = this.#whenDrained
    this.#whenDrained = undefined
    done?.()
  }
}
