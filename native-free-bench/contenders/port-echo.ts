/**
 * A round trip between two threads over a `MessagePort`: frames of key and value go over, a small reply comes back for
 * each. `awake`: batches follow each other at once. `polled`: the same, and both threads ask for messages in a loop
 * instead of sleeping in the event loop. `asleep`: one frame, then a pause in which both threads fall asleep.
 */
import { MessageChannel, receiveMessageOnPort, Worker } from 'node:worker_threads'
import type { Measurement } from '../case.ts'
import type { Hosted } from '../isolate.ts'
import { keyBytes, valueBytes } from '../key-set.ts'

type Options = {
  readonly mode: 'awake' | 'polled' | 'asleep'
  readonly batch: number
  readonly roundMs: number
}

const pauseMs = 2

export async function open({ mode, batch, roundMs }: Options): Promise<Hosted> {
  const { port1: port, port2: remote } = new MessageChannel()
  const stop = new Int32Array(new SharedArrayBuffer(4))
  const worker = new Worker(new URL('port-echo-thread.ts', import.meta.url), {
    workerData: { port: remote, polled: mode === 'polled', stop },
    transferList: [remote],
  })
  await new Promise((resolve) => worker.once('online', resolve))
  const frame = new Uint8Array(keyBytes + valueBytes)
  let awaited = 0
  let resolveBatch: (() => void) | undefined
  if (mode !== 'polled') {
    port.on('message', () => {
      if (--awaited === 0) resolveBatch?.()
    })
  }
  const roundTrip = (): Promise<void> =>
    new Promise((resolve) => {
      awaited = batch
      resolveBatch = resolve
      for (let sent = 0; sent < batch; sent++) port.postMessage(frame)
    })

  const runAwake = async (): Promise<Measurement> => {
    let trips = 0
    const start = performance.now()
    do {
      await roundTrip()
      trips++
    } while (performance.now() - start < roundMs)
    const operations = trips * batch
    return { value: ((performance.now() - start) * 1e6) / operations, operations, counts: {} }
  }
  const runPolled = (): Measurement => {
    let trips = 0
    const start = performance.now()
    Atomics.store(stop, 0, 0)
    port.postMessage(undefined)
    do {
      for (let sent = 0; sent < batch; sent++) port.postMessage(frame)
      for (let received = 0; received < batch; ) if (receiveMessageOnPort(port) !== undefined) received++
      trips++
    } while (performance.now() - start < roundMs)
    const elapsedMs = performance.now() - start
    Atomics.store(stop, 0, 1)
    const operations = trips * batch
    return { value: (elapsedMs * 1e6) / operations, operations, counts: {} }
  }
  const runAsleep = async (): Promise<Measurement> => {
    let trips = 0
    let elapsedMs = 0
    const end = performance.now() + roundMs
    do {
      await new Promise((resolve) => setTimeout(resolve, pauseMs))
      const start = performance.now()
      await roundTrip()
      elapsedMs += performance.now() - start
      trips++
    } while (performance.now() < end)
    return { value: (elapsedMs * 1e6) / (trips * batch), operations: trips * batch, counts: {} }
  }
  return {
    run: mode === 'awake' ? runAwake : mode === 'polled' ? runPolled : runAsleep,
    close: async () => {
      Atomics.store(stop, 0, 1)
      port.close()
      await worker.terminate()
    },
  }
}
