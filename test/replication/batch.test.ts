import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SunwiseError } from '../../src/base/errors.ts'
import type { BucketId } from '../../src/base/ids.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { Limits } from '../../src/config.ts'
import { runBatch } from '../../src/replication/batch.ts'
import type { BatchOperation, BatchResult, Bucket, ReadAnswer, WriteAnswer } from '../../src/replication/requests.ts'
import { SimClock } from '../sim/sim-clock.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const bucket = { id: 1 as BucketId, name: 'default', valueBytesMax: 1000 } as unknown as Bucket
const receipt = { acks: 1, replicas: 1, sloppy: false, durable: true, epoch: 1 }
const written: WriteAnswer = { etag: undefined, context: undefined, siblings: 1, expiresAtMs: undefined, receipt }
const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))

/** Answers operations in the order that a test wants, from a map. */
class SlowMap {
  readonly values = new Map<string, Uint8Array>()
  readonly waiting: (() => void)[] = []
  most = 0
  isAtOnce = false

  get(_: Bucket, key: Uint8Array, __: object, done: (error: undefined, answer: ReadAnswer) => void): void {
    this.#later(() => {
      const value = this.values.get(Buffer.from(key).toString())
      const values =
        value === undefined ? [] : [{ value, contentType: 'application/octet-stream', expiresAtMs: undefined }]
      done(undefined, { values, etag: undefined, context: undefined, receipt })
    })
  }

  put(
    _: Bucket,
    key: Uint8Array,
    value: Uint8Array,
    __: object,
    done: (error: undefined, answer: WriteAnswer) => void,
  ): void {
    this.#later(() => {
      this.values.set(Buffer.from(key).toString(), value)
      done(undefined, written)
    })
  }

  delete(_: Bucket, key: Uint8Array, __: object, done: (error: undefined, answer: WriteAnswer) => void): void {
    this.#later(() => {
      this.values.delete(Buffer.from(key).toString())
      done(undefined, written)
    })
  }

  #later(action: () => void): void {
    if (this.isAtOnce) return action()
    this.waiting.push(action)
    this.most = Math.max(this.most, this.waiting.length)
  }
}

function start(map: SlowMap, operations: readonly BatchOperation[], clock = new SimClock(), timeoutMs?: number) {
  const said: { error: SunwiseError | undefined; results: readonly BatchResult[] | undefined; times: number } = {
    error: undefined,
    results: undefined,
    times: 0,
  }
  runBatch(map, clock, bucket, operations, { timeoutMs }, (error, results) => {
    said.error = error
    said.results = results
    said.times++
  })
  return said
}

/** What a get of a batch gave, as text. */
function shown(result: BatchResult): string | undefined {
  assert.ok(result.op === 'get' && 'answer' in result)
  const value = result.answer.values[0]?.value
  return value === undefined ? undefined : Buffer.from(value).toString()
}

test('runBatch() applies operations on one key in request order, whatever the order of answers', () => {
  for (let seed = 0; seed < 200 * scale; seed++) {
    const random = new SeededRandom(`batch ${seed}`)
    const map = new SlowMap()
    const model = new Map<string, string>()
    const wanted: (string | undefined)[] = []
    const operations = Array.from({ length: 1 + random.below(60) }, (_, index): BatchOperation => {
      const name = `key${random.below(5)}`
      const key = bytesOf(name)
      const draw = random.below(3)
      if (draw === 0) {
        wanted[index] = model.get(name)
        return { op: 'get', key }
      }
      if (draw === 1) {
        model.delete(name)
        return { op: 'delete', key }
      }
      model.set(name, `${index}`)
      return { op: 'put', key, value: bytesOf(`${index}`) }
    })
    const said = start(map, operations)
    while (map.waiting.length > 0) map.waiting.splice(random.below(map.waiting.length), 1)[0]!()
    assert.equal(said.times, 1, `seed ${seed}`)
    assert.equal(said.results!.length, operations.length)
    for (const [index, result] of said.results!.entries()) {
      assert.equal(result.op, operations[index]!.op)
      if (result.op === 'get') assert.equal(shown(result), wanted[index], `seed ${seed}, operation ${index}`)
    }
    assert.ok(map.most <= 5, 'One operation of each key is under way at a time')
  }
})

test('runBatch() with answers that come at once ends once, however many operations there are', () => {
  const map = new SlowMap()
  map.isAtOnce = true
  const operations = Array.from({ length: Limits.batchOperationsMax }, (_, index): BatchOperation => {
    return { op: 'put', key: bytesOf(`key${index % 7}`), value: bytesOf(`${index}`) }
  })
  assert.equal(start(map, operations).times, 1)
  assert.equal(
    Buffer.from(map.values.get('key0')!).toString(),
    `${Limits.batchOperationsMax - (Limits.batchOperationsMax % 7 || 7)}`,
  )
  assert.deepEqual(start(map, []).results, [])
})

test('runBatch(): what was not begun before the deadline has done nothing, and says so', () => {
  const map = new SlowMap()
  const clock = new SimClock()
  const key = bytesOf('key')
  const put = (text: string): BatchOperation => ({ op: 'put', key, value: bytesOf(text) })
  const said = start(map, [put('first'), put('second'), { op: 'get', key: bytesOf('other') }], clock, 100)
  clock.advanceTo(clock.monotonicMs() + 101)
  for (const action of map.waiting.splice(0)) action()
  assert.equal(said.times, 1)
  const [first, second] = said.results!
  assert.ok('answer' in first!)
  assert.ok('error' in second! && second.error.code === 'TIMEOUT' && second.error.outcome === 'none')
  assert.equal(Buffer.from(map.values.get('key')!).toString(), 'first')
})

test('runBatch(): too many operations are refused whole, and values stop at the limit of an answer', () => {
  const map = new SlowMap()
  map.isAtOnce = true
  const many = Array.from(
    { length: Limits.batchOperationsMax + 1 },
    (): BatchOperation => ({ op: 'get', key: bytesOf('key') }),
  )
  const refused = start(map, many)
  assert.ok(refused.error instanceof SunwiseError && refused.error.code === 'REQUEST_TOO_LARGE')
  map.values.set('key', new Uint8Array(Limits.responseBytesMax / 2))
  const said = start(
    map,
    Array.from({ length: 4 }, (): BatchOperation => ({ op: 'get', key: bytesOf('key') })),
  )
  assert.deepEqual(
    said.results!.map((result) => ('error' in result ? result.error.code : 'ok')),
    ['ok', 'ok', 'RESPONSE_LIMIT', 'RESPONSE_LIMIT'],
  )
})

test('runBatch() keeps its own copies of keys and values that wait', () => {
  const map = new SlowMap()
  const key = bytesOf('key')
  const value = bytesOf('second')
  start(map, [
    { op: 'put', key, value: bytesOf('first') },
    { op: 'put', key, value },
  ])
  key.fill(0x78)
  value.fill(0x78)
  while (map.waiting.length > 0) map.waiting.shift()!()
  assert.deepEqual([...map.values.keys()], ['key'])
  assert.equal(Buffer.from(map.values.get('key')!).toString(), 'second')
})
