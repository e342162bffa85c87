/**
 * How far this node's wall clock is from those of the others. Expiry and `lww` compare times that several nodes took: a node whose clock is
 * far off would let values expire early, or win over whatever is written later. So such a node says so, and takes neither until it agrees.
 *
 *   this node                     peer
 *   ask    own time t0      ->
 *                           <-    tell   t0, the peer's time p        at t1: offset = p - (t0 + t1) / 2, unsure by (t1 - t0) / 2
 *
 * (Cristian, 1989.) One peer is asked at a time, in turn, so that a node's share does not grow with the cluster. What counts is the
 * median over all peers heard lately and this node itself, each with what is unsure in its favour: with three or more nodes the one
 * that is off knows it; of two, both doubt.
 *
 * Messages, little-endian, version 1:
 *
 *   ask    u8 version   u8 1   u64 epochMs of the asker
 *   tell   u8 version   u8 2   u64 epochMs of the asker, as it was asked   u64 epochMs of the teller
 *
 * An object without a thread, clock or socket of its own: `receive` and `tick` move it.
 */
import { ByteReader, ByteWriter } from '../base/bytes.ts'
import { Limits } from '../config.ts'
import type { Clock, Random } from '../env.ts'

export const clockOffsetMsMax = Limits.clockOffsetMsMax
const askIntervalMs = 1000
/** What a peer said counts for so long; clocks drift by a tenth of a second in it at the very worst. */
const rememberMs = 120_000
/** Peers that are remembered: a median over so many is as good as over all. */
const peersMax = 64
/** An answer that took longer says next to nothing. */
const roundTripMsMax = 2000

export type ClockMessage =
  | { readonly type: 'ask'; readonly askedMs: number }
  | { readonly type: 'tell'; readonly askedMs: number; readonly epochMs: number }

const version = 1
const ask = 1
const tell = 2

export function encodeClockMessage(message: ClockMessage): Uint8Array {
  const writer = new ByteWriter(18)
  writer.u8(version)
  writer.u8(message.type === 'ask' ? ask : tell)
  writer.u64(message.askedMs)
  if (message.type === 'tell') writer.u64(message.epochMs)
  return writer.toBytes()
}

/** The message that `encodeClockMessage` wrote; undefined for any other bytes. */
export function decodeClockMessage(bytes: Uint8Array): ClockMessage | undefined {
  const reader = new ByteReader(bytes)
  if (reader.u8() !== version) return undefined
  const type = reader.u8()
  const askedMs = reader.u64()
  const epochMs = type === tell ? reader.u64() : 0
  if (reader.failed || reader.remaining > 0 || !Number.isSafeInteger(askedMs) || !Number.isSafeInteger(epochMs))
    return undefined
  if (type === ask) return { type: 'ask', askedMs }
  return type === tell ? { type: 'tell', askedMs, epochMs } : undefined
}

/**
 * Milliseconds that the others are ahead of this node, by the median of `offsets` and of this node's own 0; of an even number the one
 * that is farther from 0.
 */
export function medianOffset(offsets: readonly number[]): number {
  const sorted = [...offsets, 0].sort((a, b) => a - b)
  const upper = sorted[sorted.length >>> 1]!
  const lower = sorted[(sorted.length - 1) >>> 1]!
  return Math.abs(lower) > Math.abs(upper) ? lower : upper
}

export type ClockWatchOptions = {
  readonly clock: Clock
  readonly random: Random
  /** Other members that answer. */
  readonly peers: () => readonly string[]
  readonly send: (nodeId: string, bytes: Uint8Array) => void
}

type Asked = { readonly peer: string; readonly epochMs: number; readonly monotonicMs: number }

export class ClockWatch {
  readonly #options: ClockWatchOptions
  /** By peer, in the order in which they were heard. */
  readonly #heard = new Map<string, { readonly offsetMs: number; readonly atMs: number }>()
  #asked: Asked | undefined
  #nextAskMs = 0
  #next: number
  #offsetMs = 0

  constructor(options: ClockWatchOptions) {
    this.#options = options
    this.#next = options.random.u32()
  }

  /** Milliseconds that the others' clocks are ahead of this node's. 0 as long as nobody was heard. */
  get offsetMs(): number {
    return this.#offsetMs
  }

  /** Whether this node's time is not to be trusted. */
  get isAstray(): boolean {
    return Math.abs(this.#offsetMs) > clockOffsetMsMax
  }

  /** A message of another node. */
  receive(from: string, bytes: Uint8Array): void {
    const message = decodeClockMessage(bytes)
    if (message === undefined) return
    const { clock } = this.#options
    if (message.type === 'ask') {
      const epochMs = Math.max(0, Math.floor(clock.epochMs()))
      this.#options.send(from, encodeClockMessage({ type: 'tell', askedMs: message.askedMs, epochMs }))
      return
    }
    const asked = this.#asked
    if (asked === undefined || asked.peer !== from || asked.epochMs !== message.askedMs) return
    this.#asked = undefined
    const atMs = clock.monotonicMs()
    const roundTripMs = atMs - asked.monotonicMs
    if (roundTripMs > roundTripMsMax) return
    // This clock may have been set meanwhile: what it says now counts, and how long it took by the other one.
    const ahead = message.epochMs - (clock.epochMs() - roundTripMs / 2)
    const offsetMs = Math.sign(ahead) * Math.max(0, Math.abs(ahead) - roundTripMs / 2)
    this.#heard.delete(from)
    this.#heard.set(from, { offsetMs, atMs })
    if (this.#heard.size > peersMax) this.#heard.delete(this.#heard.keys().next().value!)
    this.#judge()
  }

  /** Every 20 to 100 ms. */
  tick(nowMs: number): void {
    if (nowMs < this.#nextAskMs) return
    this.#nextAskMs = nowMs + askIntervalMs
    for (const [peer, { atMs }] of this.#heard) {
      if (nowMs - atMs <= rememberMs) break
      this.#heard.delete(peer)
      this.#judge()
    }
    const peers = this.#options.peers()
    if (peers.length === 0) return
    const peer = peers[this.#next++ % peers.length]!
    const epochMs = Math.max(0, Math.floor(this.#options.clock.epochMs()))
    this.#asked = { peer, epochMs, monotonicMs: nowMs }
    this.#options.send(peer, encodeClockMessage({ type: 'ask', askedMs: epochMs }))
  }

  #judge(): void {
    this.#offsetMs = medianOffset([...this.#heard.values()].map(({ offsetMs }) => offsetMs))
  }
}
