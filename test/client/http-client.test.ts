import assert from 'node:assert/strict'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { test } from 'node:test'
import fc from 'fast-check'
import { type ErrorCode, type Outcome, SunwiseError } from '../../src/base/errors.ts'
import { HttpClient } from '../../src/client/http-client.ts'
import { FakeServer } from './fake-server.ts'

const bytes = (text: string): Uint8Array => Buffer.from(text)

function rejectsWith(promise: Promise<unknown>, code: ErrorCode, outcome?: Outcome): Promise<void> {
  return assert.rejects(promise, (error) => {
    assert.ok(error instanceof SunwiseError, String(error))
    assert.equal(error.code, code, error.message)
    if (outcome !== undefined) assert.equal(error.outcome, outcome)
    return true
  })
}

test('HttpClient gives back the bytes of any key and value', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin })
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ minLength: 1, maxLength: 64 }),
      fc.uint8Array({ maxLength: 200 }),
      async (key, value) => {
        await client.put(key, value, { contentType: 'text/x-test' })
        const entry = await client.get(key)
        assert.equal(entry.values.length, 1)
        assert.deepEqual(Buffer.from(entry.values[0]!.value), Buffer.from(value))
        assert.equal(entry.values[0]!.contentType, 'text/x-test')
        assert.ok(server.values.has(Buffer.from(key).toString('latin1')))
      },
    ),
    { numRuns: 50 },
  )
})

test('HttpClient.get() tells absent, single and sibling values apart', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin })
  const absent = await client.get('nothing')
  assert.deepEqual(absent, { values: [], siblings: 0, etag: undefined, context: 'gone', acks: undefined })
  const sibling = (text: string) => ({ value: Buffer.from(text), contentType: 'text/plain', etag: '9', expires: 7 })
  server.values.set('two', [sibling('[1]'), sibling('b')])
  const both = await client.get('two')
  assert.deepEqual([both.siblings, both.context, both.etag, both.acks], [2, 'ctx-9', '9', '1/1'])
  assert.deepEqual(
    both.values.map(({ value }) => Buffer.from(value).toString()),
    ['[1]', 'b'],
  )
  assert.equal(both.values[1]!.expiresAtMs, 7)
  const winner = await client.get('two', { siblings: 'winner' })
  assert.deepEqual([winner.siblings, winner.values.length], [2, 1])
  server.values.set('json', [{ ...sibling('[{"value64":"YQ=="}]'), contentType: 'application/json' }])
  assert.equal(Buffer.from((await client.get('json')).values[0]!.value).toString(), '[{"value64":"YQ=="}]')
})

test('HttpClient sends contexts, preconditions, ttl and deadline as the interface wants them', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin, bucket: 'default' })
  const { etag } = await client.put('a/b', bytes('1'), { context: 'c1', ttlMs: 1500, w: 'all', timeoutMs: 9000 })
  const sent = server.requests.at(-1)!
  assert.equal(sent.path, '/v1/kv/default/a/b')
  assert.deepEqual(Object.fromEntries(sent.query), { w: 'all', ttl: '1500', timeout: '9000' })
  assert.equal(sent.headers['sunwise-context'], 'c1')
  await client.put('a/b', bytes('2'), { ifMatch: [etag!] })
  assert.equal(server.requests.at(-1)!.headers['if-match'], `"${etag}"`)
  await rejectsWith(client.put('a/b', bytes('3'), { ifMatch: [etag!] }), 'PRECONDITION_FAILED', 'none')
  await rejectsWith(client.put('a/b', bytes('3'), { ifNoneMatch: '*' }), 'PRECONDITION_FAILED')
  const failure = await client.delete('a/b', { ifMatch: ['x'] }).catch((error: unknown) => error)
  assert.ok(failure instanceof SunwiseError)
  assert.equal(failure.extra?.['etag'], '2')
  await client.delete('a/b')
  assert.equal(server.values.size, 0)
})

test('HttpClient.batch() gives one result per operation in their order', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin })
  const raw = new Uint8Array([0, 255, 10])
  const results = await client.batch([
    { op: 'put', key: raw, value: raw, ttlMs: 60_000, contentType: 'a/b' },
    { op: 'get', key: raw },
    { op: 'get', key: 'absent' },
    { op: 'delete', key: raw },
    { op: 'put', key: 'text', value: bytes('grüß') },
  ])
  assert.deepEqual(
    results.map(({ status }) => status),
    [204, 200, 404, 204, 204],
  )
  assert.deepEqual(Buffer.from(results[1]!.entry!.values[0]!.value), Buffer.from(raw))
  assert.deepEqual(results[2]!.entry!.values, [])
  assert.equal(server.values.get('text')?.[0]?.value.toString(), 'grüß'.toString())
  server.intercept = (request, response) => {
    if (!request.path.startsWith('/v1/batch')) return false
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify([{ status: 503, problem: FakeServer.problemOf('QUORUM_NOT_MET') }, { status: 507 }]))
    return true
  }
  const failures = await client.batch([
    { op: 'put', key: 'a', value: raw },
    { op: 'get', key: 'b' },
  ])
  assert.equal(failures[0]!.error?.code, 'QUORUM_NOT_MET')
  assert.equal(failures[0]!.error?.outcome, 'unknown')
  assert.equal(failures[1]!.error?.outcome, 'none')
  await rejectsWith(client.batch([{ op: 'put', key: 'a', value: raw }]), 'INTERNAL', 'unknown')
})

test('HttpClient.list() walks all pages and keeps to prefix and limit', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin })
  for (let index = 0; index < 100; index++) {
    const key = index % 2 === 0 ? `p+${index}` : `q\xff${index}`
    server.values.set(key, [{ value: Buffer.from(`v${index}`), contentType: 'x/y', etag: '1' }])
  }
  const read = async (options: Parameters<HttpClient['list']>[0]): Promise<string[]> => {
    const keys: string[] = []
    for await (const { key, entry } of client.list(options)) {
      assert.equal(entry === undefined, options?.values !== true)
      keys.push(Buffer.from(key).toString('latin1'))
    }
    return keys
  }
  assert.deepEqual((await read({ pageLimit: 7 })).sort(), [...server.values.keys()].sort())
  assert.equal((await read({ prefix: 'p+', pageLimit: 7, values: true })).length, 50)
  assert.equal((await read({ prefix: Buffer.from('q\xff', 'latin1') })).length, 50)
  assert.equal((await read({ limit: 13, pageLimit: 5 })).length, 13)
  assert.deepEqual(await read({ prefix: 'nothing' }), [])
})

test('HttpClient.list() asks for smaller pages when an answer was too large', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin })
  for (let index = 0; index < 20; index++) {
    server.values.set(`k${index}`, [{ value: Buffer.from('v'), contentType: 'x/y', etag: '1' }])
  }
  server.intercept = (request, response) => {
    if (Number(request.query.get('limit')) <= 4) return false
    FakeServer.problem(response, 'RESPONSE_LIMIT')
    return true
  }
  let count = 0
  for await (const listed of client.list({ values: true })) count += listed.entry!.values.length
  assert.equal(count, 20)
})

test('HttpClient sends again what surely changed nothing, and only that', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin, timeoutMs: 10_000 })
  const failFirst = (times: number, code: ErrorCode, extra: Record<string, unknown> = {}): void => {
    let left = times
    server.requests.length = 0
    server.intercept = (_, response) => {
      if (left-- <= 0) return false
      FakeServer.problem(response, code, extra)
      return true
    }
  }
  failFirst(2, 'OVERLOADED')
  await client.put('k', bytes('v'))
  assert.equal(server.requests.length, 3)
  failFirst(1, 'QUORUM_NOT_MET')
  await rejectsWith(client.put('k', bytes('w')), 'QUORUM_NOT_MET', 'unknown')
  assert.equal(server.requests.length, 1, 'a write with an unknown outcome is not repeated')
  failFirst(1, 'QUORUM_NOT_MET', { outcome: 'none' })
  await client.put('k', bytes('x'))
  assert.equal(server.requests.length, 2)
  failFirst(1, 'QUORUM_NOT_MET')
  assert.equal((await client.get('k')).values.length, 1, 'a read is repeated')
  failFirst(1, 'STORE_FULL')
  await rejectsWith(client.put('k', bytes('y')), 'STORE_FULL', 'none')
  assert.equal(server.requests.length, 1, 'what is not retryable is not repeated')
  failFirst(1000, 'OVERLOADED')
  await rejectsWith(client.put('k', bytes('z')), 'OVERLOADED', 'none')
  assert.equal(server.requests.length, 5, 'attempts are bounded')
})

test('HttpClient does not wait for a Retry-After beyond its deadline', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin, timeoutMs: 5_000 })
  server.intercept = (_, response) => {
    FakeServer.problem(response, 'OVERLOADED', {}, { 'retry-after': '60' })
    return true
  }
  await rejectsWith(client.get('k'), 'OVERLOADED', 'none')
  assert.equal(server.requests.length, 1)
})

test('HttpClient settles by its deadline with the outcome that is true', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin, timeoutMs: 60 })
  // Over a connection that stands: while one is being made, nothing can have reached the server.
  await client.put('k', bytes('v'), { timeoutMs: 30_000 })
  server.intercept = () => true
  await rejectsWith(client.put('k', bytes('v')), 'TIMEOUT', 'unknown')
  await rejectsWith(client.get('k'), 'TIMEOUT', 'none')
  await rejectsWith(client.get('k', { timeoutMs: 0 }), 'BAD_TIMEOUT', 'none')
})

test('HttpClient deadline covers a body that never ends', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin, timeoutMs: 60 })
  server.intercept = (_, response) => {
    response.writeHead(200, { 'content-length': 10 })
    response.write('abc')
    return true
  }
  await rejectsWith(client.get('k'), 'TIMEOUT', 'none')
})

test('HttpClient abort ends the request and leaves no listener behind', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin })
  const controller = new AbortController()
  let listeners = 0
  const { signal } = controller
  const add = signal.addEventListener.bind(signal)
  const remove = signal.removeEventListener.bind(signal)
  signal.addEventListener = (...parameters: Parameters<typeof add>) => {
    listeners++
    add(...parameters)
  }
  signal.removeEventListener = (...parameters: Parameters<typeof remove>) => {
    listeners--
    remove(...parameters)
  }
  await client.get('k', { signal })
  assert.equal(listeners, 0)
  server.intercept = () => {
    controller.abort()
    return true
  }
  await rejectsWith(client.put('k', bytes('v'), { signal }), 'ABORTED', 'unknown')
  assert.equal(listeners, 0)
  await rejectsWith(client.put('k', bytes('v'), { signal }), 'ABORTED', 'none')
})

test('HttpClient says that nothing was written where no server listens', async () => {
  const listener = createServer()
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve))
  const { port } = listener.address() as AddressInfo
  await new Promise((resolve) => listener.close(resolve))
  await using client = new HttpClient({ endpoint: `http://127.0.0.1:${port}`, attemptsMax: 2 })
  await rejectsWith(client.put('k', bytes('v')), 'NOT_READY', 'none')
})

test('HttpClient calls a write unknown when the connection breaks before the answer, and repeats a read', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin })
  server.intercept = (_, response) => {
    response.socket!.destroy()
    return true
  }
  await rejectsWith(client.put('k', bytes('v')), 'NOT_READY', 'unknown')
  assert.equal(server.requests.length, 1)
  let left = 2
  server.intercept = (_, response) => {
    if (left-- <= 0) return false
    response.socket!.destroy()
    return true
  }
  assert.equal((await client.get('k')).values.length, 0)
})

test('HttpClient makes coded errors of answers that are not ours', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin, attemptsMax: 1 })
  const answers: [number, string, string, ErrorCode, Outcome][] = [
    [502, 'text/html', '<h1>Bad gateway</h1>', 'NOT_READY', 'unknown'],
    [500, 'application/problem+json', '{"code":"toString","detail":"x"}', 'INTERNAL', 'unknown'],
    [400, 'application/json', 'not json', 'BAD_REQUEST', 'none'],
    [404, 'text/plain', 'no', 'ROUTE_NOT_FOUND', 'none'],
    [418, 'application/problem+json', '[]', 'BAD_REQUEST', 'none'],
  ]
  for (const [status, type, body, code, outcome] of answers) {
    server.intercept = (_, response) => {
      response.writeHead(status, { 'content-type': type })
      response.end(body)
      return true
    }
    await rejectsWith(client.put('k', bytes('v')), code, outcome)
  }
  server.intercept = (_, response) => {
    response.writeHead(200, { 'content-type': 'application/json' })
    response.end('{"keys":[{}]}')
    return true
  }
  await rejectsWith(client.listPage(), 'INTERNAL')
})

test('HttpClient refuses what listens but does not speak HTTP', async () => {
  const listener = createServer((socket) => {
    socket.on('error', () => {})
    socket.resume()
    socket.end('-ERR unknown command\r\n')
  })
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve))
  const { port } = listener.address() as AddressInfo
  await using client = new HttpClient({ endpoint: `http://127.0.0.1:${port}`, attemptsMax: 1 })
  await rejectsWith(client.get('k'), 'INTERNAL')
  await new Promise((resolve) => listener.close(resolve))
})

test('HttpClient checks keys, endpoint and its own state before it sends', async () => {
  assert.throws(() => new HttpClient({ endpoint: 'ftp://x' }), { code: 'BAD_CONFIG' })
  assert.throws(() => new HttpClient({ endpoint: 'nonsense' }), { code: 'BAD_CONFIG' })
  await using server = await FakeServer.start()
  const client = new HttpClient({ endpoint: server.origin })
  await rejectsWith(client.get(''), 'BAD_KEY')
  await rejectsWith(client.get('\ud800'), 'BAD_KEY')
  await rejectsWith(client.get('k'.repeat(2049)), 'BAD_KEY')
  assert.equal(server.requests.length, 0)
  client.close()
  await rejectsWith(client.get('k'), 'CLOSED', 'none')
})

test('HttpClient manages buckets', async () => {
  await using server = await FakeServer.start()
  await using client = new HttpClient({ endpoint: server.origin })
  assert.equal(await client.putBucket('carts', { conflict: 'lww' }), true)
  assert.equal(await client.putBucket('carts', {}), false)
  assert.deepEqual(await client.buckets(), [{ name: 'default' }, { name: 'carts' }])
  assert.deepEqual(await client.buckets('carts'), { name: 'carts' })
  await client.deleteBucket('carts')
  await rejectsWith(client.buckets('carts'), 'BUCKET_NOT_FOUND')
  assert.deepEqual(await client.version(), { version: 'fake' })
})
