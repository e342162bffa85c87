/** The other end of ring-echo.ts: copies every frame out of the ring and answers with its first word. */
import { parentPort, workerData } from 'node:worker_threads'
import { keyBytes, valueBytes } from '../key-set.ts'

export const framesInRing = 1024
export const frameWords = (keyBytes + valueBytes) / 4

type Shared = {
  readonly control: Int32Array
  readonly frames: Int32Array
  readonly replies: Int32Array
  readonly mode: 'awake' | 'asleep'
}

function answer({ control, frames, replies, mode }: Shared): void {
  const out = new Int32Array(frameWords)
  let answered = Atomics.load(control, 16)
  const run = Atomics.load(control, 32)
  // An odd run number is a run; the parent counts it on at the end.
  while (run % 2 === 1 && Atomics.load(control, 32) === run) {
    const sent = Atomics.load(control, 0)
    if (sent === answered) {
      if (mode === 'asleep') Atomics.wait(control, 0, sent, 100)
      continue
    }
    for (; answered !== sent; answered++) {
      const base = (answered % framesInRing) * frameWords
      for (let word = 0; word < frameWords; word++) out[word] = frames[base + word]!
      replies[answered % framesInRing] = out[0]!
    }
    Atomics.store(control, 16, answered)
    if (mode === 'asleep') Atomics.notify(control, 16)
  }
}

parentPort?.on('message', () => answer(workerData as Shared))
