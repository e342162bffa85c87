import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { SunwiseError } from '../../src/base/errors.ts'
import type { ImportRecord } from '../../src/cli/import-record.ts'
import { Importer, type ImporterOptions } from '../../src/cli/importer.ts'
import { HttpClient } from '../../src/client/http-client.ts'
import { FakeServer } from '../client/fake-server.ts'

const recordOf = (key: string, value: string): ImportRecord => ({
  key: Buffer.from(key),
  value: Buffer.from(value),
  contentType: undefined,
  ttlMs: undefined,
})
const options: ImporterOptions = { concurrency: 4, batchRecords: 5, retryMs: 5_000 }
const isBatch = (path: string): boolean => path.startsWith('/v1/batch/')

async function addAll(importer: Importer, records: readonly ImportRecord[]): Promise<void> {
  for (const [index, record] of records.entries()) await importer.add(index + 1, record)
  await importer.finish()
}

const numbered = (count: number): ImportRecord[] =>
  Array.from({ length: count }, (_, index) => recordOf(`k${index}`, `v${index}`))

test('Importer keeps the order of the records of one key, whatever is in flight', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin })
  // Answers come in any order, and each batch is applied only then.
  server.intercept = async () => {
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 4))
    return false
  }
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(12), { maxLength: 60 }), async (keys) => {
      server.values.clear()
      const importer = new Importer(client, options)
      await addAll(
        importer,
        keys.map((key, index) => recordOf(`k${key}`, `${index}`)),
      )
      assert.equal(importer.counts.stored, keys.length)
      assert.equal(importer.resumeAfter, keys.length)
      for (const [key, values] of server.values) {
        assert.equal(values[0]!.value.toString(), String(keys.lastIndexOf(Number(key.slice(1)))))
      }
    }),
    { numRuns: 20 },
  )
  assert.ok(server.concurrencyMax <= options.concurrency)
})

test('Importer has several batches in flight, and never more than it may', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin })
  let waiting: (() => void)[] = []
  server.intercept = () =>
    new Promise<boolean>((resolve) => {
      waiting.push(() => resolve(false))
      if (waiting.length < options.concurrency) return
      for (const answer of waiting) answer()
      waiting = []
    })
  // 8 full batches: each answer waits until 4 are under way, so fewer would never finish.
  await addAll(new Importer(client, options), numbered(40))
  assert.equal(server.concurrencyMax, options.concurrency)
  assert.equal(server.values.size, 40)
})

test('Importer sends again only what was surely not written and may be retried', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin })
  const problems = new Map([
    ['k1', 'OVERLOADED'],
    ['k2', 'QUORUM_NOT_MET'],
    ['k3', 'VALUE_TOO_LARGE'],
  ] as const)
  const sent: string[][] = []
  server.intercept = (request, response) => {
    const keys = (JSON.parse(request.body.toString()) as { key: string }[]).map(({ key }) => key)
    sent.push(keys)
    if (sent.length > 1) return false
    const results = keys.map((key) => {
      const code = problems.get(key as 'k1')
      return code === undefined ? { status: 204 } : { status: 500, problem: FakeServer.problemOf(code) }
    })
    response.end(JSON.stringify(results))
    return true
  }
  const results = new Map<number, string | undefined>()
  const importer = new Importer(client, {
    ...options,
    onResult: (ordinal, _, error) => {
      assert.ok(!results.has(ordinal), 'one result for each record')
      results.set(ordinal, error?.code)
    },
  })
  await addAll(importer, numbered(5))
  assert.deepEqual(sent, [['k0', 'k1', 'k2', 'k3', 'k4'], ['k1']])
  assert.deepEqual(Object.fromEntries(results), {
    1: undefined,
    2: undefined,
    3: 'QUORUM_NOT_MET',
    4: 'VALUE_TOO_LARGE',
    5: undefined,
  })
  assert.deepEqual(importer.counts, { stored: 3, failed: 1, unknown: 1, bytes: 12 })
})

test('Importer stops where the server as a whole fails, and says where to go on', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin, attemptsMax: 1 })
  let batches = 0
  server.intercept = (_, response) => {
    if (++batches <= 3) return false
    FakeServer.problem(response, 'STORE_FULL')
    return true
  }
  const importer = new Importer(client, { ...options, concurrency: 1 })
  await assert.rejects(addAll(importer, numbered(100)), { code: 'STORE_FULL' })
  await assert.rejects(importer.finish(), { code: 'STORE_FULL' })
  assert.equal(batches, 4)
  assert.deepEqual(importer.counts, { stored: 15, failed: 5, unknown: 0, bytes: importer.counts.bytes })
  assert.equal(importer.resumeAfter, 15)
})

test('Importer counts a batch without an answer as unknown, and does not send it again', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin })
  server.intercept = (_, response) => {
    response.socket!.destroy()
    return true
  }
  const importer = new Importer(client, options)
  await assert.rejects(addAll(importer, numbered(3)), (error: SunwiseError) => error.outcome === 'unknown')
  assert.deepEqual(importer.counts, { stored: 0, failed: 0, unknown: 3, bytes: 0 })
  assert.equal(server.requests.length, 1)
  assert.equal(importer.resumeAfter, 0)
})

test('Importer gives up on a server that refuses for too long', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin })
  server.intercept = (request, response) => {
    const count = (JSON.parse(request.body.toString()) as unknown[]).length
    response.end(JSON.stringify(Array(count).fill({ status: 503, problem: FakeServer.problemOf('OVERLOADED') })))
    return true
  }
  const importer = new Importer(client, { ...options, retryMs: 120 })
  await assert.rejects(addAll(importer, numbered(2)), { code: 'OVERLOADED' })
  assert.deepEqual([importer.counts.failed, importer.resumeAfter], [2, 0])
})

test('Importer sends a large value alone and counts one that is too large as its own fault', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin })
  server.intercept = (request, response) => {
    if (!request.path.endsWith('/huge')) return false
    FakeServer.problem(response, 'VALUE_TOO_LARGE')
    return true
  }
  const large = Buffer.alloc(3 * 1024 * 1024, 'x')
  const importer = new Importer(client, options)
  await addAll(importer, [
    recordOf('a', '1'),
    { ...recordOf('large', ''), value: large },
    { ...recordOf('huge', ''), value: large },
    recordOf('b', '2'),
  ])
  assert.equal(server.values.get('large')?.[0]?.value.length, large.length)
  assert.deepEqual([importer.counts.stored, importer.counts.failed], [3, 1])
  assert.deepEqual(server.requests.map(({ path }) => isBatch(path)).sort(), [false, false, true, true])
})
