/**
 * A round trip between two threads over Sunwise's own rings and bells: frames of key and value go over, a small reply comes
 * back for each. `awake`: both threads spin. `asleep`: one frame, then a pause in which both threads fall asleep; counts
 * the processor time of a stretch in which nothing happens.
 */
import { Worker } from 'node:worker_threads'
import { threadIdOf } from '../../src/base/ids.ts'
import { createRing } from '../../src/base/ring-buffer.ts'
import { RingConsumer } from '../../src/base/ring-consumer.ts'
import { RingProducer } from '../../src/base/ring-producer.ts'
import { createBellPorts, Doorbell } from '../../src/host/doorbell.ts'
import type { Measurement } from '../case.ts'
import type { Hosted } from '../isolate.ts'
import { keyBytes, valueBytes } from '../key-set.ts'

type Options = { readonly mode: 'awake' | 'asleep'; readonly batch: number; readonly roundMs: number }

const pauseMs = 2
const idleMs = 200
const ringBytes = 1 << 20
const frameWords = (keyBytes + valueBytes) / 4
const other = threadIdOf(1)

export async function open({ mode, batch, roundMs }: Options): Promise<Hosted> {
  const requests = createRing(ringBytes)
  const replies = createRing(ringBytes)
  const stop = new Int32Array(new SharedArrayBuffer(4))
  const [mine, theirs] = createBellPorts()
  const worker = new Worker(new URL('sunwise-ring-thread.ts', import.meta.url), {
    workerData: { requests, replies, port: theirs, mode, stop },
    transferList: [theirs],
  })
  await new Promise((resolve) => worker.once('online', resolve))
  const producer = new RingProducer(requests, { outboxBytesMax: 0, messageBytesMax: 1024 })
  const consumer = new RingConsumer(replies, { messageBytesMax: 1024 })
  const bell = new Doorbell()
  const frame = new Int32Array(frameWords).fill(7)
  let answered = 0
  let resolveTrip: (() => void) | undefined
  const take = (_u8: Uint8Array, i32: Int32Array, start: number): void => {
    if (i32[start >> 2] !== 7) throw new Error('The ring lost a frame')
    answered++
  }
  bell.onWake(() => resolveTrip?.())
  bell.connect(other, mine)

  const send = (): void => {
    for (let count = 0; count < batch; count++) {
      if (producer.reserve(keyBytes + valueBytes) < 0) throw new Error('The ring is full')
      const { i32, start } = producer
      const base = start >> 2
      for (let word = 0; word < frameWords; word++) i32[base + word] = frame[word]!
      producer.commit()
    }
    if (producer.publish()) bell.ring(other)
  }
  const runAwake = (): Measurement => {
    let trips = 0
    let elapsedMs = 0
    Atomics.store(stop, 0, 0)
    bell.ring(other)
    const start = performance.now()
    do {
      for (let trip = 0; trip < 64; trip++) {
        answered = 0
        send()
        while (answered < batch) consumer.drain(take, batch)
      }
      trips += 64
      elapsedMs = performance.now() - start
    } while (elapsedMs < roundMs)
    Atomics.store(stop, 0, 1)
    return { value: (elapsedMs * 1e6) / (trips * batch), operations: trips * batch, counts: {} }
  }
  const roundTrip = async (): Promise<void> => {
    answered = 0
    send()
    for (;;) {
      consumer.drain(take, batch)
      if (answered === batch) return
      if (consumer.prepareSleep()) {
        await new Promise<void>((resolve) => {
          resolveTrip = resolve
        })
      }
      consumer.awake()
    }
  }
  const runAsleep = async (): Promise<Measurement> => {
    let trips = 0
    let elapsedMs = 0
    const bellsBefore = bell.bellsRung + bell.bellsHeard
    const end = performance.now() + roundMs
    do {
      await new Promise((resolve) => setTimeout(resolve, pauseMs))
      const start = performance.now()
      await roundTrip()
      elapsedMs += performance.now() - start
      trips++
    } while (performance.now() < end)
    const bells = bell.bellsRung + bell.bellsHeard - bellsBefore
    const before = process.cpuUsage()
    await new Promise((resolve) => setTimeout(resolve, idleMs))
    const { user, system } = process.cpuUsage(before)
    return {
      value: (elapsedMs * 1e6) / (trips * batch),
      operations: trips * batch,
      counts: { 'wakes/op': bells / (trips * batch), 'idle cpu %': (user + system) / (idleMs * 10) },
    }
  }
  return {
    run: () => (mode === 'awake' ? runAwake() : runAsleep()),
    close: async () => {
      Atomics.store(stop, 0, 1)
      bell[Symbol.dispose]()
      await worker.terminate()
    },
  }
}
