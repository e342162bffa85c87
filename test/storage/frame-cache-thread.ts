/** A thread that reads and fills a small cache with others: each word of a piece says whose it is, and which. */
import { parentPort, workerData } from 'node:worker_threads'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { FrameCache, type FrameCacheMemory } from '../../src/storage/frame-cache.ts'

export const pieceWords = 60
export const owners = 5
export const pieces = 40

/** Word `index` of a piece. */
export function wordOf(owner: number, piece: number, index: number): number {
  return Math.imul(owner * 1000 + piece, 0x9e3779b1) + index
}

export type CacheSeed = {
  readonly memory: FrameCacheMemory
  readonly seed: number
  /** One i32 for each: 1 in the first ends all threads, in that of a seed is the lesser of its hits and misses. */
  readonly stop: SharedArrayBuffer
}

export type CacheReport = {
  readonly hits: number
  readonly misses: number
  readonly torn: number
  readonly wrong: readonly string[]
}

function run({ memory, seed, stop }: CacheSeed): CacheReport {
  const cache = new FrameCache(memory)
  const random = new SeededRandom(seed)
  const stopped = new Int32Array(stop)
  const copy = new Int32Array(pieceWords)
  const made = new Int32Array(pieceWords)
  const wrong: string[] = []
  let hits = 0
  let misses = 0
  let torn = 0
  while (Atomics.load(stopped, 0) === 0 && wrong.length < 5) {
    Atomics.store(stopped, seed, Math.min(hits, misses))
    const owner = 1 + random.below(owners)
    const piece = random.below(pieces)
    if (cache.find(owner, piece)) {
      const { i32, start } = cache
      for (let index = 0; index < pieceWords; index++) copy[index] = i32[(start >>> 2) + index]!
      if (!cache.isStill()) {
        torn++
        continue
      }
      hits++
      const at = copy.findIndex((word, index) => word !== (wordOf(owner, piece, index) | 0))
      if (at >= 0) wrong.push(`word ${at} of piece ${piece} of ${owner} is ${copy[at]}`)
    } else {
      misses++
      for (let index = 0; index < pieceWords; index++) made[index] = wordOf(owner, piece, index)
      cache.insert(owner, piece, made, 10, made, 10, pieceWords - 10)
    }
  }
  return { hits, misses, torn, wrong }
}

if (parentPort !== null && (workerData as CacheSeed | null)?.memory !== undefined) {
  parentPort.postMessage(run(workerData as CacheSeed))
}
