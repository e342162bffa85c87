/**
 * The floor between two threads: frames of key and value through one ring of shared memory, replies through another, with
 * nothing but a head and a tail. `awake`: both threads spin. `asleep`: both wait on a word, one frame, then a pause.
 *
 *     control words, a cache line apart: [0] frames sent, [16] frames answered, [32] run number
 */
import { Worker } from 'node:worker_threads'
import type { Measurement } from '../case.ts'
import type { Hosted } from '../isolate.ts'
import { framesInRing, frameWords } from './ring-echo-thread.ts'

type Options = { readonly mode: 'awake' | 'asleep'; readonly batch: number; readonly roundMs: number }

const pauseMs = 2

export async function open({ mode, batch, roundMs }: Options): Promise<Hosted> {
  const control = new Int32Array(new SharedArrayBuffer(256))
  const frames = new Int32Array(new SharedArrayBuffer(framesInRing * frameWords * 4))
  const replies = new Int32Array(new SharedArrayBuffer(framesInRing * 4))
  const worker = new Worker(new URL('ring-echo-thread.ts', import.meta.url), {
    workerData: { control, frames, replies, mode },
  })
  await new Promise((resolve) => worker.once('online', resolve))
  const frame = new Int32Array(frameWords).fill(7)
  let sent = 0

  const send = (): void => {
    for (let count = 0; count < batch; count++, sent++) {
      const base = (sent % framesInRing) * frameWords
      for (let word = 0; word < frameWords; word++) frames[base + word] = frame[word]!
    }
    Atomics.store(control, 0, sent)
  }
  const roundTrips = (durationMs: number): Measurement => {
    let trips = 0
    let elapsedMs = 0
    const start = performance.now()
    Atomics.add(control, 32, 1)
    worker.postMessage('run')
    do {
      for (let trip = 0; trip < 64; trip++) {
        send()
        while (Atomics.load(control, 16) !== sent);
        if (replies[(sent - 1) % framesInRing] !== 7) throw new Error('The ring lost a frame')
      }
      trips += 64
      elapsedMs = performance.now() - start
    } while (elapsedMs < durationMs)
    Atomics.add(control, 32, 1)
    return { value: (elapsedMs * 1e6) / (trips * batch), operations: trips * batch, counts: {} }
  }
  const wakes = (durationMs: number): Measurement => {
    let trips = 0
    let elapsedMs = 0
    const idle = new Int32Array(new SharedArrayBuffer(4))
    const end = performance.now() + durationMs
    Atomics.add(control, 32, 1)
    worker.postMessage('run')
    do {
      Atomics.wait(idle, 0, 0, pauseMs)
      const start = performance.now()
      send()
      Atomics.notify(control, 0)
      while (Atomics.load(control, 16) !== sent) Atomics.wait(control, 16, sent - batch)
      elapsedMs += performance.now() - start
      trips++
    } while (performance.now() < end)
    Atomics.add(control, 32, 1)
    Atomics.notify(control, 0)
    return { value: (elapsedMs * 1e6) / (trips * batch), operations: trips * batch, counts: {} }
  }
  return {
    run: () => (mode === 'awake' ? roundTrips(roundMs) : wakes(roundMs)),
    close: async () => {
      await worker.terminate()
    },
  }
}
