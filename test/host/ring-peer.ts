/**
 * One end of a ring for tests across real threads: a producer or a consumer that sleeps on its doorbell and checks every
 * byte. The test runs it on its own thread by calling it, and on another by starting this file as a worker.
 */
import assert from 'node:assert/strict'
import { type MessagePort, parentPort, Worker, workerData } from 'node:worker_threads'
import type { ThreadId } from '../../src/base/ids.ts'
import type { RingRegion } from '../../src/base/ring-buffer.ts'
import { RingConsumer } from '../../src/base/ring-consumer.ts'
import { RingProducer } from '../../src/base/ring-producer.ts'
import { createBellPorts, Doorbell } from '../../src/host/doorbell.ts'

const MiB = 1 << 20
export const messageBytesMax = 72 * MiB
export const peer = 1 as ThreadId

/** What both ends know: the consumer predicts every length. */
export type Traffic = {
  readonly seed: number
  readonly messages: number
  /** Usual lengths are 0 to this. */
  readonly bytesMax: number
  /** One message of so many has `largeBytes`; 0: none. */
  readonly largeEvery: number
  readonly largeBytes: number
  /** Messages per publish are 1 to this. */
  readonly batchMax: number
  /** Turns of an empty loop after each batch, at most: the forced slowness of either side. */
  readonly producerPauseMax: number
  readonly consumerPauseMax: number
  /** Turns of an empty loop around each atomic access, at most: widens every race. */
  readonly jitterMax: number
}

export const defaultTraffic: Traffic = {
  seed: 1,
  messages: 1000,
  bytesMax: 300,
  largeEvery: 0,
  largeBytes: 0,
  batchMax: 16,
  producerPauseMax: 0,
  consumerPauseMax: 0,
  jitterMax: 0,
}

export type Role = 'produce' | 'consume' | 'answer' | 'answer polled'
export type Summary = {
  readonly messages: number
  readonly bytes: number
  readonly rung: number
  readonly heard: number
}

type Assignment = {
  readonly role: Role
  readonly region: RingRegion
  readonly back: RingRegion | undefined
  readonly port: MessagePort
  readonly traffic: Traffic
}

/** xorshift32: both ends draw the same lengths. */
export class Draw {
  #state: number

  constructor(seed: number) {
    this.#state = seed | 0 || 1
  }

  upTo(max: number): number {
    let state = this.#state
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    this.#state = state
    return max === 0 ? 0 : (state >>> 0) % (max + 1)
  }
}

const bytesOf = (traffic: Traffic, draw: Draw, sequence: number): number => {
  if (traffic.largeEvery > 0 && sequence % traffic.largeEvery === traffic.largeEvery - 1) return traffic.largeBytes
  return draw.upTo(traffic.bytesMax)
}

const wordOf = (sequence: number, index: number): number =>
  Math.imul(sequence + 1, 0x9e3779b1) + Math.imul(index, 0x85ebca6b)

function write(u8: Uint8Array, i32: Int32Array, start: number, bytes: number, sequence: number): void {
  const words = bytes >> 2
  for (let index = 0; index < words; index++) i32[(start >> 2) + index] = wordOf(sequence, index)
  for (let index = words << 2; index < bytes; index++) u8[start + index] = wordOf(sequence, index)
}

function check(u8: Uint8Array, i32: Int32Array, start: number, bytes: number, sequence: number): void {
  const words = bytes >> 2
  let wrong = 0
  for (let index = 0; index < words; index++) wrong |= i32[(start >> 2) + index]! ^ wordOf(sequence, index)
  for (let index = words << 2; index < bytes; index++) wrong |= u8[start + index]! ^ (wordOf(sequence, index) & 255)
  assert.equal(wrong, 0, `message ${sequence} of ${bytes} bytes has other content`)
}

let sink = 0
/** Wastes time without sleeping: so long that the other side gets on. */
export function pause(turns: number): void {
  for (let turn = 0; turn < turns; turn++) sink = (sink + turn) | 0
}

/** Puts a random pause before and after every atomic access of this thread. */
export function jitterAtomics(max: number, seed: number): void {
  const draw = new Draw(seed)
  for (const name of ['load', 'store', 'exchange'] as const) {
    const original = Atomics[name] as (...parameters: unknown[]) => unknown
    Object.assign(Atomics, {
      [name]: (...parameters: unknown[]) => {
        pause(draw.upTo(max))
        const result = original.apply(Atomics, parameters)
        pause(draw.upTo(max))
        return result
      },
    })
  }
}

/** A doorbell that can be awaited. A bell heard while nobody waits is remembered. */
export class Bell {
  readonly doorbell = new Doorbell()
  #heard = false
  #resolve: (() => void) | undefined = undefined

  constructor(port: MessagePort) {
    this.doorbell.onWake(() => {
      this.#heard = true
      this.#resolve?.()
    })
    this.doorbell.connect(peer, port)
  }

  ring(): void {
    this.doorbell.ring(peer)
  }

  async heard(): Promise<void> {
    if (!this.#heard) {
      await new Promise<void>((resolve) => {
        this.#resolve = resolve
      })
    }
    this.#heard = false
    this.#resolve = undefined
  }
}

/** Sends the whole traffic; returns when the ring has taken all of it. */
export async function produce(region: RingRegion, bell: Bell, traffic: Traffic): Promise<Summary> {
  const producer = new RingProducer(region, { outboxBytesMax: 80 * MiB, messageBytesMax })
  const lengths = new Draw(traffic.seed)
  const moods = new Draw(traffic.seed + 1)
  let total = 0
  let left = moods.upTo(traffic.batchMax)
  const publish = (): void => {
    if (producer.publish()) bell.ring()
  }
  for (let sequence = 0; sequence < traffic.messages; sequence++) {
    const bytes = bytesOf(traffic, lengths, sequence)
    total += bytes
    // Most go the strict way, which waits for room; some, and all large ones, may queue.
    const mayQueue = bytes > producer.frameBytesMax || moods.upTo(7) === 0
    for (;;) {
      const start = mayQueue ? producer.reserveOrQueue(bytes) : producer.reserve(bytes)
      if (start >= 0) break
      publish()
      if (producer.outboxBytes === 0 && producer.wantRoom()) continue
      await bell.heard()
      publish()
    }
    write(producer.u8, producer.i32, producer.start, bytes, sequence)
    producer.commit()
    if (--left > 0) continue
    left = moods.upTo(traffic.batchMax)
    publish()
    pause(moods.upTo(traffic.producerPauseMax))
  }
  for (;;) {
    publish()
    if (producer.outboxBytes === 0) break
    await bell.heard()
  }
  return { messages: traffic.messages, bytes: total, rung: bell.doorbell.bellsRung, heard: bell.doorbell.bellsHeard }
}

/** A consumer whose steps the test may interleave with its own. */
export class CheckingConsumer {
  readonly consumer: RingConsumer
  readonly #lengths: Draw
  readonly #moods: Draw
  readonly #traffic: Traffic
  messages = 0
  bytes = 0

  constructor(region: RingRegion, traffic: Traffic) {
    this.consumer = new RingConsumer(region, { messageBytesMax })
    this.#lengths = new Draw(traffic.seed)
    this.#moods = new Draw(traffic.seed + 2)
    this.#traffic = traffic
  }

  readonly #take = (u8: Uint8Array, i32: Int32Array, start: number, bytes: number): void => {
    assert.equal(bytes, bytesOf(this.#traffic, this.#lengths, this.messages), `length of message ${this.messages}`)
    check(u8, i32, start, bytes, this.messages)
    this.messages++
    this.bytes += bytes
  }

  drain(): void {
    this.consumer.drain(this.#take, 1 + this.#moods.upTo(200))
    pause(this.#moods.upTo(this.#traffic.consumerPauseMax))
  }
}

/** Takes messages until there were `messages`; sleeps whenever the ring is empty. */
export async function consume(region: RingRegion, bell: Bell, traffic: Traffic): Promise<Summary> {
  const end = new CheckingConsumer(region, traffic)
  while (end.messages < traffic.messages) {
    end.drain()
    if (end.consumer.mustWakeProducer()) bell.ring()
    if (end.messages === traffic.messages || !end.consumer.prepareSleep()) continue
    await bell.heard()
    end.consumer.awake()
  }
  const { messages, bytes } = end
  return { messages, bytes, rung: bell.doorbell.bellsRung, heard: bell.doorbell.bellsHeard }
}

/** Sends each message's first word back and sleeps at once; polled: the answer is taken by a spinning thread, so no bell. */
async function answer(assignment: Assignment, bell: Bell): Promise<Summary> {
  const consumer = new RingConsumer(assignment.region, { messageBytesMax })
  const producer = new RingProducer(assignment.back!, { outboxBytesMax: 0, messageBytesMax: 8 })
  let messages = 0
  const echo = (_u8: Uint8Array, i32: Int32Array, start: number): void => {
    assert.ok(producer.reserve(8) >= 0)
    producer.i32[producer.start >> 2] = i32[start >> 2]!
    producer.commit()
    messages++
  }
  const moods = new Draw(assignment.traffic.seed + 4)
  while (messages < assignment.traffic.messages) {
    consumer.drain(echo, 100)
    if (producer.publish()) bell.ring()
    pause(moods.upTo(assignment.traffic.consumerPauseMax))
    if (messages === assignment.traffic.messages || !consumer.prepareSleep()) continue
    await bell.heard()
    consumer.awake()
  }
  return { messages, bytes: 0, rung: bell.doorbell.bellsRung, heard: bell.doorbell.bellsHeard }
}

/** A worker with one role, and this thread's bell to it. */
export class Peer {
  readonly worker: Worker
  readonly bell: Bell
  /** The worker's summary; rejects with its error. */
  readonly summary: Promise<Summary>

  constructor(role: Role, region: RingRegion, traffic: Traffic, back?: RingRegion) {
    const [mine, other] = createBellPorts()
    this.bell = new Bell(mine)
    const assignment: Assignment = { role, region, back, port: other, traffic }
    this.worker = new Worker(new URL(import.meta.url), { workerData: assignment, transferList: [other] })
    this.summary = new Promise((resolve, reject) => {
      this.worker.once('message', resolve)
      this.worker.once('error', reject)
    })
    this.summary.catch(() => {})
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.bell.doorbell[Symbol.dispose]()
    await this.worker.terminate()
  }
}

async function work(assignment: Assignment): Promise<void> {
  const { role, region, traffic, port } = assignment
  if (traffic.jitterMax > 0) jitterAtomics(traffic.jitterMax, traffic.seed + 3)
  const bell = new Bell(port)
  const summary =
    role === 'produce'
      ? await produce(region, bell, traffic)
      : role === 'consume'
        ? await consume(region, bell, traffic)
        : await answer(assignment, bell)
  parentPort?.postMessage(summary)
  bell.doorbell[Symbol.dispose]()
}

if (parentPort !== null && (workerData as Assignment | undefined)?.region !== undefined) {
  await work(workerData as Assignment)
}
