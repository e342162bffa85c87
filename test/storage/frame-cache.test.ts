import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { createFrameCacheMemory, FrameCache } from '../../src/storage/frame-cache.ts'
import { type CacheReport, type CacheSeed, pieceWords, wordOf } from './frame-cache-thread.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const frameBytes = 256

function cacheOf(frames: number, ways = 8): FrameCache {
  const cache = new FrameCache(createFrameCacheMemory(frames * frameBytes, frameBytes))
  for (let way = 0; way < ways; way++) cache.grow()
  return cache
}

function insert(cache: FrameCache, owner: number, piece: number, words = pieceWords): void {
  const made = Int32Array.from({ length: words }, (_, index) => wordOf(owner, piece, index))
  cache.insert(owner, piece, made, 6, made, 6, words - 6)
}

/** Whether a piece is there; fails where it is another. */
function holds(cache: FrameCache, owner: number, piece: number, words = pieceWords): boolean {
  if (!cache.find(owner, piece)) return false
  const found = cache.i32.slice(cache.start >>> 2, (cache.start >>> 2) + words)
  assert.ok(cache.isStill())
  assert.deepEqual(
    [...found],
    Array.from({ length: words }, (_, index) => wordOf(owner, piece, index) | 0),
  )
  return true
}

test('FrameCache gives back what it keeps, and nothing else', () => {
  for (let seed = 0; seed < 20 * scale; seed++) {
    const random = new SeededRandom(seed)
    const cache = cacheOf(64, 1 + random.below(8))
    let found = 0
    for (let round = 0; round < 3000; round++) {
      const owner = 1 + random.below(4)
      const piece = random.below(30)
      if (holds(cache, owner, piece)) found++
      else insert(cache, owner, piece)
    }
    assert.ok(found > 100, `Seed ${seed}: ${found} hits`)
  }
})

test('FrameCache keeps nothing before it may, nothing that is too large, and knows owners apart', () => {
  const cache = cacheOf(64, 0)
  insert(cache, 1, 1)
  assert.equal(holds(cache, 1, 1), false)
  assert.equal(cache.bytes, 0)
  cache.grow()
  assert.ok(cache.bytes >= 8 * frameBytes && cache.bytes < 9 * frameBytes)
  insert(cache, 1, 1, frameBytes / 4 + 1)
  assert.equal(holds(cache, 1, 1), false)
  insert(cache, 1, 1, frameBytes / 4)
  assert.ok(holds(cache, 1, 1, frameBytes / 4))
  assert.equal(holds(cache, 2, 1), false)
  for (let way = 0; way < 20; way++) cache.grow()
  assert.equal(cache.ways, 8)
  assert.ok(cache.isWhole)
})

test('FrameCache lets what is asked for again and again stay, and what is asked for once go', () => {
  const cache = cacheOf(1024)
  const hot = Array.from({ length: 200 }, (_, piece) => piece)
  for (const piece of hot) insert(cache, 1, piece)
  let misses = 0
  for (let round = 0; round < 200; round++) {
    for (const piece of hot) {
      if (holds(cache, 1, piece)) continue
      misses++
      insert(cache, 1, piece)
    }
    for (let cold = 0; cold < 200; cold++) insert(cache, 2, round * 200 + cold)
  }
  assert.ok(cache.displaced > 1000, `${cache.displaced} pieces were displaced`)
  assert.ok(misses < 0.02 * 200 * hot.length, `${misses} of ${200 * hot.length} reads of hot pieces missed`)
})

test('FrameCache under several threads never shows a torn piece, nor one under another name', {
  timeout: 60_000 * scale,
}, async (t) => {
  const memory = createFrameCacheMemory(16 * frameBytes, frameBytes)
  const own = new FrameCache(memory)
  for (let way = 0; way < 2; way++) own.grow()
  const stop = new SharedArrayBuffer(16)
  const words = new Int32Array(stop)
  const threads = [1, 2, 3].map((seed) => {
    const data: CacheSeed = { memory, seed, stop }
    const worker = new Worker(new URL('./frame-cache-thread.ts', import.meta.url), { workerData: data })
    return new Promise<CacheReport>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })
  })
  for (let way = 2; way < 8; way++) {
    await new Promise((resolve) => setTimeout(resolve, 250 * scale))
    own.grow()
  }
  // A busy machine takes its time to start threads: all of them have to have done something.
  const untilMs = performance.now() + 30_000 * scale
  while ([1, 2, 3].some((seed) => Atomics.load(words, seed) <= 1000) && performance.now() < untilMs)
    await new Promise((resolve) => setTimeout(resolve, 50))
  Atomics.store(words, 0, 1)
  const reports = await Promise.all(threads)
  t.diagnostic(JSON.stringify({ reports, displaced: own.displaced }))
  for (const { wrong, hits, misses } of reports) {
    assert.deepEqual(wrong, [])
    assert.ok(hits > 1000 && misses > 1000)
  }
  assert.ok(own.displaced > 1000)
})
