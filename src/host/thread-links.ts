/**
 * The rings of one thread: to and from every thread that it exchanges frames with, and the bells beside them. It is the door
 * `Shards` and, for a shard worker, the door `Replies`; both write frames in place.
 *
 * Threads are numbered: 0 is the front end of an embedded store, or the node thread of a member of a cluster; shard `s` is thread
 * `s + 1`. A shard worker has a ring to itself, too, so that its own requests queue, batch and fail exactly like those of others.
 *
 * A turn: `drain` what came, let the shard flush, `publish` what was written, and sleep only when `prepareSleep` says that
 * nothing came meanwhile.
 */
import type { MessagePort } from 'node:worker_threads'
import type { ThreadId } from '../base/ids.ts'
import type { RingRegion } from '../base/ring-buffer.ts'
import { RingConsumer } from '../base/ring-consumer.ts'
import { RingProducer } from '../base/ring-producer.ts'
import { Limits } from '../config.ts'
import type { FrameTarget, Shards } from '../env.ts'
import { FrameKind } from '../shard/command.ts'
import type { Replies } from '../shard/shard.ts'
import type { Doorbell } from './doorbell.ts'

/**
 * Messages that wait for the end of the turn before they are shown to the other thread. Two threads then work at the same time
 * instead of one after the other: with 64 writes under way that is more than twice the throughput.
 */
const framesPerPublish = 16
/** Messages taken from one ring before it is asked again whether more can be taken. */
const framesPerDrain = 64
/** Portions taken from one ring before the next ring has its turn. */
const drainsPerTurn = 8

/** Both directions between this thread and a peer. */
export type Link = {
  readonly peer: number
  readonly outgoing: RingRegion
  readonly incoming: RingRegion
  /** Absent for the link of a thread to itself. */
  readonly port: MessagePort | undefined
}

/** Thread number of a shard. */
export function threadOfShard(shard: number): number {
  return shard + 1
}

type CommandHandler = (thread: number, u8: Uint8Array, i32: Int32Array, start: number, bytes: number) => void
type ReplyHandler = (u8: Uint8Array, i32: Int32Array, start: number) => void

type Peer = {
  readonly thread: number
  readonly producer: RingProducer
  readonly consumer: RingConsumer
  readonly handle: (u8: Uint8Array, i32: Int32Array, start: number, bytes: number) => void
  /** Something was committed since the last publish. */
  isDirty: boolean
  /** Frames committed since the last publication. */
  unpublished: number
}

export class ThreadLinks implements Shards, Replies {
  readonly count: number
  readonly #bell: Doorbell
  readonly #isShardUp: (shard: number) => boolean
  readonly #peers: (Peer | undefined)[] = []
  readonly #list: Peer[] = []
  /** Where the next drain begins in the list. */
  #first = 0
  #onCommand: CommandHandler = () => {}
  #onReply: ReplyHandler = () => {}
  #onSend: () => void = () => {}
  /** Replies that found no room even in the outbox; their requests end by their deadlines. */
  droppedReplies = 0

  constructor(shards: number, bell: Doorbell, isShardUp: (shard: number) => boolean) {
    this.count = shards
    this.#bell = bell
    this.#isShardUp = isShardUp
  }

  /** Sets who takes commands (a shard), replies (a coordinator), and who is told that something waits to be published. */
  handle(onCommand: CommandHandler, onReply: ReplyHandler, onSend: () => void): void {
    this.#onCommand = onCommand
    this.#onReply = onReply
    this.#onSend = onSend
  }

  connect(link: Link): void {
    this.disconnect(link.peer)
    const thread = link.peer
    const peer: Peer = {
      thread,
      producer: new RingProducer(link.outgoing, {
        outboxBytesMax: Limits.ringOutboxBytesMax,
        messageBytesMax: Limits.ringMessageBytesMax,
      }),
      consumer: new RingConsumer(link.incoming, { messageBytesMax: Limits.ringMessageBytesMax }),
      handle: (u8, i32, start, bytes) => {
        if (u8[start]! >= FrameKind.writeReply) this.#onReply(u8, i32, start)
        else this.#onCommand(thread, u8, i32, start, bytes)
      },
      isDirty: false,
      unpublished: 0,
    }
    this.#peers[thread] = peer
    this.#list.push(peer)
    if (link.port !== undefined) this.#bell.connect(thread as ThreadId, link.port)
  }

  disconnect(thread: number): void {
    const peer = this.#peers[thread]
    if (peer === undefined) return
    this.#peers[thread] = undefined
    this.#list.splice(this.#list.indexOf(peer), 1)
    this.#bell.disconnect(thread as ThreadId)
  }

  isUp(shard: number): boolean {
    return this.#peers[threadOfShard(shard)] !== undefined && this.#isShardUp(shard)
  }

  begin(to: number, bytes: number): FrameTarget | undefined {
    return this.beginTo(threadOfShard(to), bytes)
  }

  commit(to: number): void {
    this.commitTo(threadOfShard(to))
  }

  /** A reply target; undefined where the thread is gone or cannot take any more: the reply is dropped. */
  beginReply(thread: number, bytes: number): FrameTarget | undefined {
    const target = this.beginTo(thread, bytes)
    if (target === undefined) this.droppedReplies++
    return target
  }

  commitReply(thread: number): void {
    this.commitTo(thread)
  }

  /** `begin` for a thread, whatever it is. */
  beginTo(thread: number, bytes: number): FrameTarget | undefined {
    const peer = this.#peers[thread]
    if (peer === undefined || peer.producer.reserveOrQueue(bytes) < 0) return undefined
    return peer.producer
  }

  commitTo(thread: number): void {
    const peer = this.#peers[thread]!
    peer.producer.commit()
    if (!peer.isDirty) {
      peer.isDirty = true
      this.#onSend()
    }
    if (++peer.unpublished >= framesPerPublish) this.#publishTo(peer)
  }

  /**
   * Hands over what has come and returns the number of messages. `mayContinue` is asked between portions of a ring; after
   * `durationMs` the rest waits for the next turn, which begins with another ring, so that sockets and timers have theirs.
   */
  drain(mayContinue: () => boolean, durationMs = Number.POSITIVE_INFINITY): number {
    const list = this.#list
    const endMs = performance.now() + durationMs
    let messages = 0
    this.#first++
    for (let index = 0; index < list.length; index++) {
      const peer = list[(this.#first + index) % list.length]!
      for (let portion = 0; portion < drainsPerTurn && mayContinue(); portion++) {
        const taken = peer.consumer.drain(peer.handle, framesPerDrain)
        messages += taken
        if (taken < framesPerDrain || performance.now() >= endMs) break
      }
      if (peer.consumer.mustWakeProducer()) this.#bell.ring(peer.thread as ThreadId)
      if (performance.now() >= endMs) break
    }
    return messages
  }

  /** Makes everything committed visible and rings the bells of those who sleep. */
  publish(): void {
    for (const peer of this.#list) {
      if (!peer.isDirty && peer.producer.outboxBytes === 0) continue
      peer.isDirty = false
      this.#publishTo(peer)
    }
  }

  #publishTo(peer: Peer): void {
    peer.unpublished = 0
    if (peer.producer.publish()) this.#bell.ring(peer.thread as ThreadId)
  }

  /** Announces sleep to all producers; false if something came meanwhile, and then it is not announced. */
  prepareSleep(): boolean {
    for (const peer of this.#list) {
      if (peer.consumer.prepareSleep()) continue
      this.awake()
      return false
    }
    return true
  }

  /** Takes the announcement back. */
  awake(): void {
    for (const peer of this.#list) peer.consumer.awake()
  }
}
