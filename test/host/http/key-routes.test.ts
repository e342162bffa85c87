import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SunwiseError } from '../../../src/base/errors.ts'
import { Limits } from '../../../src/config.ts'
import { Harness, until } from './http-harness.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

function encodeKey(key: Uint8Array): string {
  return [...key].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('')
}

/** Writes two concurrent values under a key: both claim to have seen the same version. */
async function writeSiblings(harness: Harness, path: string): Promise<void> {
  const first = await harness.call('PUT', path, { body: 'zero' })
  const context = String(first.headers['sunwise-context'])
  await harness.call('PUT', path, { body: 'one', headers: { 'Sunwise-Context': context } })
  await harness.call('PUT', path, {
    body: 'two',
    headers: { 'Sunwise-Context': context, 'Content-Type': 'text/plain' },
  })
}

test('A value comes back with the bytes, content type and version that the write was given', async () => {
  await using harness = await Harness.start()
  const written = await harness.call('PUT', '/v1/kv/default/user:1', {
    body: 'hello',
    headers: { 'Content-Type': 'text/plain' },
  })
  assert.equal(written.status, 204)
  assert.equal(written.body.length, 0)
  const read = await harness.call('GET', '/v1/kv/default/user:1')
  assert.equal(read.status, 200)
  assert.equal(read.body.toString(), 'hello')
  assert.equal(read.headers['content-type'], 'text/plain')
  assert.match(String(read.headers.etag), /^"[0-9a-f]{16}"$/)
  assert.equal(read.headers.etag, written.headers.etag)
  assert.equal(read.headers['sunwise-context'], written.headers['sunwise-context'])
  assert.equal(read.headers['sunwise-acks'], '1/1')
  assert.equal(read.headers['x-content-type-options'], 'nosniff')
  assert.match(String(read.headers['sunwise-request-id']), /^test-[0-9a-z]+$/)
  assert.notEqual(read.headers['sunwise-request-id'], written.headers['sunwise-request-id'])
  assert.equal(read.headers['sunwise-siblings'], undefined)
  assert.equal(read.headers['sunwise-expires'], undefined)
})

test('HEAD answers with the headers of GET and no body', async () => {
  await using harness = await Harness.start()
  await harness.call('PUT', '/v1/kv/default/k', { body: 'x'.repeat(5000) })
  const get = await harness.call('GET', '/v1/kv/default/k')
  const head = await harness.call('HEAD', '/v1/kv/default/k')
  assert.equal(head.status, 200)
  assert.equal(head.body.length, 0)
  assert.equal(head.headers['content-length'], '5000')
  for (const name of ['content-type', 'content-length', 'etag', 'sunwise-context', 'sunwise-acks']) {
    assert.equal(head.headers[name], get.headers[name], name)
  }
  const missing = await harness.call('HEAD', '/v1/kv/default/none')
  assert.equal(missing.status, 404)
  assert.equal(missing.body.length, 0)
})

test('Any key and any value round-trip, in the path and as base64url', async () => {
  await using harness = await Harness.start()
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 80 })
  await fc.assert(
    fc.asyncProperty(bytes, fc.uint8Array({ maxLength: 6000 }), async (key, value) => {
      const path = `/v1/kv/default/${encodeKey(key)}`
      assert.equal((await harness.call('PUT', path, { body: value })).status, 204)
      const plain = await harness.call('GET', path)
      assert.deepEqual(new Uint8Array(plain.body), value)
      const coded = await harness.call('GET', `/v1/kv/default/${Buffer.from(key).toString('base64url')}?key64=1`)
      assert.deepEqual(new Uint8Array(coded.body), value)
    }),
    { numRuns: Math.ceil(60 * scale) },
  )
})

test('An encoded slash, a raw slash and a plus are bytes of the key like others', async () => {
  await using harness = await Harness.start()
  await harness.call('PUT', '/v1/kv/default/a/b//c+d%00%ff', { body: 'v' })
  assert.equal((await harness.call('GET', '/v1/kv/default/a%2Fb%2f/c%2Bd%00%FF')).body.toString(), 'v')
  assert.equal((await harness.call('GET', '/v1/kv/default/a/b//c%20d%00%ff')).status, 404)
  const list = await harness.json('GET', '/v1/kv/default')
  assert.deepEqual(list['keys'], [{ key64: Buffer.from('a/b//c+d\0\xff', 'latin1').toString('base64url') }])
})

test('Keys that are empty, too long or badly encoded are BAD_KEY', async () => {
  await using harness = await Harness.start()
  const bad = [
    '',
    '?key64=1',
    'a%',
    'a%2',
    'a%zz',
    'k'.repeat(Limits.keyBytesMax + 1),
    '%41'.repeat(Limits.keyBytesMax + 1),
    '_w==?key64=1',
    'a+b?key64=1',
    'a?key64=1',
    `${Buffer.alloc(Limits.keyBytesMax + 1).toString('base64url')}?key64=1`,
  ]
  for (const key of bad) {
    for (const method of ['GET', 'PUT', 'DELETE']) {
      const answer = await harness.json(method, `/v1/kv/default/${key}`)
      assert.equal(answer['httpStatus'], 400, `${method} ${key.slice(0, 40)}`)
      assert.equal(answer['code'], 'BAD_KEY', `${method} ${key.slice(0, 40)}`)
    }
  }
  const longest = `/v1/kv/default/${'%6b'.repeat(Limits.keyBytesMax)}`
  assert.equal((await harness.call('PUT', longest, { body: 'v' })).status, 204)
  assert.equal((await harness.call('GET', `/v1/kv/default/${'k'.repeat(Limits.keyBytesMax)}`)).body.toString(), 'v')
  assert.equal(harness.coordinator.size, 1)
})

test('A target longer than the limit is URI_TOO_LONG', async () => {
  await using harness = await Harness.start()
  const answer = await harness.json('GET', `/v1/kv/default/${'k'.repeat(13_000)}`)
  assert.equal(answer['httpStatus'], 414)
  assert.equal(answer['code'], 'URI_TOO_LONG')
})

test('A bucket that does not exist is 404, a name that cannot exist 400', async () => {
  await using harness = await Harness.start()
  const missing = await harness.json('GET', '/v1/kv/nothing/k')
  assert.equal(missing['code'], 'BUCKET_NOT_FOUND')
  assert.equal(missing['status'], 404)
  for (const name of ['a%20b', 'a%zz', 'x'.repeat(129), '%ff']) {
    const bad = await harness.json('PUT', `/v1/kv/${name}/k`, { body: 'v' })
    assert.equal(bad['code'], 'BAD_BUCKET', name)
  }
  assert.equal((await harness.call('PUT', '/v1/kv/def%61ult/k', { body: 'v' })).status, 204)
  assert.equal((await harness.call('GET', '/v1/kv/default/k')).status, 200)
})

test('A deleted key is 404 with the context that a new write needs; deleting twice succeeds', async () => {
  await using harness = await Harness.start()
  const never = await harness.call('GET', '/v1/kv/default/k')
  assert.equal(never.status, 404)
  assert.equal(never.headers['sunwise-context'], undefined)
  assert.equal(never.headers['content-type'], 'application/problem+json')
  assert.equal((await harness.call('DELETE', '/v1/kv/default/k')).status, 204)
  await harness.call('PUT', '/v1/kv/default/k', { body: 'v' })
  assert.equal((await harness.call('DELETE', '/v1/kv/default/k')).status, 204)
  assert.equal((await harness.call('DELETE', '/v1/kv/default/k')).status, 204)
  const deleted = await harness.call('GET', '/v1/kv/default/k')
  assert.equal(deleted.status, 404)
  assert.equal(typeof deleted.headers['sunwise-context'], 'string')
  assert.equal(deleted.headers.etag, undefined)
  const problem = JSON.parse(deleted.body.toString())
  assert.deepEqual(
    { ...problem, requestId: typeof problem.requestId },
    {
      type: 'urn:sunwise:problem:not-found',
      title: 'There is no such key',
      status: 404,
      code: 'NOT_FOUND',
      detail: 'There is no value under this key',
      outcome: 'none',
      retryable: false,
      requestId: 'string',
      instance: '/v1/kv/default/k',
    },
  )
})

test('Siblings are all given with 300, or the winner, or the list with 200', async () => {
  await using harness = await Harness.start()
  await writeSiblings(harness, '/v1/kv/default/k')
  const all = await harness.call('GET', '/v1/kv/default/k')
  assert.equal(all.status, 300)
  assert.equal(all.headers['sunwise-siblings'], '2')
  assert.equal(all.headers['content-type'], 'application/json')
  assert.deepEqual(JSON.parse(all.body.toString()), [
    { value64: Buffer.from('two').toString('base64'), contentType: 'text/plain' },
    { value64: Buffer.from('one').toString('base64'), contentType: 'application/octet-stream' },
  ])
  const head = await harness.call('HEAD', '/v1/kv/default/k')
  assert.equal(head.status, 300)
  assert.equal(head.headers['content-length'], String(all.body.length))
  const winner = await harness.call('GET', '/v1/kv/default/k?siblings=winner')
  assert.equal(winner.status, 200)
  assert.equal(winner.body.toString(), 'two')
  assert.equal(winner.headers['sunwise-siblings'], '2')
  const list = await harness.call('GET', '/v1/kv/default/k?siblings=all')
  assert.equal(list.status, 200)
  assert.equal(list.body.toString(), all.body.toString())
  const context = String(all.headers['sunwise-context'])
  await harness.call('PUT', '/v1/kv/default/k', { body: 'merged', headers: { 'Sunwise-Context': context } })
  assert.equal((await harness.call('GET', '/v1/kv/default/k')).body.toString(), 'merged')
})

test('If-None-Match answers 304 for a version the client has', async () => {
  await using harness = await Harness.start()
  const { etag } = (await harness.call('PUT', '/v1/kv/default/k', { body: 'v' })).headers
  for (const tags of [`${etag}`, `W/${etag}`, `"other", ${etag}`, '*']) {
    const answer = await harness.call('GET', '/v1/kv/default/k', { headers: { 'If-None-Match': tags } })
    assert.equal(answer.status, 304, tags)
    assert.equal(answer.headers.etag, etag)
    assert.equal(typeof answer.headers['sunwise-context'], 'string')
    assert.equal(answer.body.length, 0)
  }
  const changed = await harness.call('GET', '/v1/kv/default/k', { headers: { 'If-None-Match': '"other"' } })
  assert.equal(changed.status, 200)
  for (const malformed of ['abc', '"open', '"a" "b"', '"a",', 'w/"a"']) {
    const answer = await harness.json('GET', '/v1/kv/default/k', { headers: { 'If-None-Match': malformed } })
    assert.equal(answer['code'], 'BAD_REQUEST', malformed)
  }
  const failed = await harness.json('GET', '/v1/kv/default/k', { headers: { 'If-Match': '"other"' } })
  assert.equal(failed['code'], 'PRECONDITION_FAILED')
})

test('A precondition that fails is 412 and tells the present version', async () => {
  await using harness = await Harness.start()
  const path = '/v1/kv/default/k'
  const noMatch = await harness.json('PUT', path, { body: 'v', headers: { 'If-Match': '*' } })
  assert.equal(noMatch['httpStatus'], 412)
  const created = await harness.call('PUT', path, { body: 'v', headers: { 'If-None-Match': '*' } })
  assert.equal(created.status, 204)
  const again = await harness.json('PUT', path, { body: 'w', headers: { 'If-None-Match': '*' } })
  assert.equal(again['httpStatus'], 412)
  assert.equal(again['code'], 'PRECONDITION_FAILED')
  assert.equal(again['outcome'], 'none')
  assert.equal(`"${again['etag']}"`, created.headers.etag)
  assert.equal(again['context'], created.headers['sunwise-context'])
  const weak = { 'If-Match': `W/${created.headers.etag}` }
  assert.equal((await harness.call('DELETE', path, { headers: weak })).status, 412)
  const matching = { 'If-Match': `"0000000000000000", ${created.headers.etag}` }
  assert.equal((await harness.call('DELETE', path, { headers: matching })).status, 204)
  const tags = await harness.json('PUT', path, { body: 'w', headers: { 'If-None-Match': '"a"' } })
  assert.equal(tags['code'], 'BAD_REQUEST')
})

test('Time to live, quorum, timeout and durability reach the coordinator as given', async () => {
  await using harness = await Harness.start()
  const written = await harness.call('PUT', '/v1/kv/default/k?w=all&ttl=30s&timeout=250ms&durability=os', { body: 'v' })
  assert.equal(written.headers['sunwise-expires'], String(harness.coordinator.nowMs + 30_000))
  assert.deepEqual(harness.coordinator.lastOptions, {
    w: 'all',
    timeoutMs: 250,
    context: undefined,
    ifMatch: undefined,
    ifNoneMatch: undefined,
    ttlMs: 30_000,
    contentType: undefined,
    durability: 'os',
    ownsKey: true,
    sloppy: undefined,
  })
  const read = await harness.call('GET', '/v1/kv/default/k?r=2&timeout=1500')
  assert.equal(read.headers['sunwise-expires'], String(harness.coordinator.nowMs + 30_000))
  assert.deepEqual(harness.coordinator.lastOptions, { r: 2, timeoutMs: 1500 })
  await harness.call('PUT', '/v1/kv/default/k?ttl=none', { body: 'v' })
  assert.equal((await harness.call('GET', '/v1/kv/default/k')).headers['sunwise-expires'], undefined)
})

test('Parameters out of range are refused with their own code and nothing is written', async () => {
  await using harness = await Harness.start()
  const cases: [string, string][] = [
    ['w=0', 'BAD_QUORUM'],
    ['w=4', 'BAD_QUORUM'],
    ['w=most', 'BAD_QUORUM'],
    ['w=-1', 'BAD_QUORUM'],
    ['w=', 'BAD_QUORUM'],
    ['ttl=0', 'BAD_TTL'],
    ['ttl=-5', 'BAD_TTL'],
    ['ttl=', 'BAD_TTL'],
    ['ttl=1.5s', 'BAD_TTL'],
    ['ttl=36501d', 'BAD_TTL'],
    ['ttl=9007199254740993', 'BAD_TTL'],
    ['ttl=NaN', 'BAD_TTL'],
    ['timeout=0', 'BAD_TIMEOUT'],
    ['timeout=11m', 'BAD_TIMEOUT'],
    ['durability=maybe', 'BAD_REQUEST'],
    ['key64=yes', 'BAD_REQUEST'],
    ['w=1&w=1', 'BAD_REQUEST'],
    ['r=1', 'BAD_REQUEST'],
    ['__proto__=1', 'BAD_REQUEST'],
    ['constructor=1', 'BAD_REQUEST'],
    ['w=1&', 'BAD_REQUEST'],
  ]
  for (const [query, code] of cases) {
    const answer = await harness.json('PUT', `/v1/kv/default/k?${query}`, { body: 'v' })
    assert.equal(answer['httpStatus'], 400, query)
    assert.equal(answer['code'], code, query)
  }
  assert.equal(harness.coordinator.writes, 0)
  const misspelt = await harness.json('PUT', '/v1/kv/default/k?tll=5', { body: 'v' })
  assert.match(String(misspelt['detail']), /did you mean 'ttl'\?/)
})

test('A context that is not base64url, or too long, is BAD_CONTEXT', async () => {
  await using harness = await Harness.start()
  for (const context of ['***', 'AA==', 'A', 'A'.repeat(8200)]) {
    const headers = { 'Sunwise-Context': context }
    const answer = await harness.json('PUT', '/v1/kv/default/k', { body: 'v', headers })
    assert.equal(answer['code'], 'BAD_CONTEXT', context.slice(0, 10))
  }
  assert.equal(harness.coordinator.writes, 0)
})

test('A value above the limit is 413 whether its length is announced or not; at the limit it is taken', async () => {
  await using harness = await Harness.start({
    limits: {
      valueBytesMax: 200_000,
      connectionsMax: 100,
      pendingBodyBytesMax: 10_000_000,
      pendingAnswerBytesMax: 10_000_000,
    },
  })
  const path = '/v1/kv/default/k'
  const chunked = { 'Transfer-Encoding': 'chunked' }
  for (const headers of [{}, chunked]) {
    const over = await harness.json('PUT', path, { body: Buffer.alloc(200_001), headers })
    assert.equal(over['httpStatus'], 413)
    assert.equal(over['code'], 'VALUE_TOO_LARGE')
    assert.equal(over['bytesMax'], 200_000)
  }
  assert.equal(harness.coordinator.writes, 0)
  for (const headers of [{}, chunked]) {
    const value = Buffer.alloc(200_000, 'ab')
    assert.equal((await harness.call('PUT', path, { body: value, headers })).status, 204)
    assert.deepEqual((await harness.call('GET', path)).body, value)
  }
})

test('A body far above the limit gets its answer, not a reset connection', async () => {
  await using harness = await Harness.start()
  const answer = await harness.json('PUT', '/v1/kv/default/k', { body: Buffer.alloc(8 * 1024 * 1024) })
  assert.equal(answer['code'], 'VALUE_TOO_LARGE')
})

test('A bucket may have a smaller limit than the server', async () => {
  await using harness = await Harness.start()
  harness.buckets.put('small', { valueBytesMax: 10 }, () => {})
  assert.equal((await harness.call('PUT', '/v1/kv/small/k', { body: 'x'.repeat(11) })).status, 413)
  assert.equal((await harness.call('PUT', '/v1/kv/small/k', { body: 'x'.repeat(10) })).status, 204)
})

test('Bodies that do not fit into the memory of the server are OVERLOADED with Retry-After', async () => {
  await using harness = await Harness.start({
    limits: {
      valueBytesMax: 100_000,
      connectionsMax: 100,
      pendingBodyBytesMax: 50_000,
      pendingAnswerBytesMax: 10_000_000,
    },
  })
  for (const headers of [{}, { 'Transfer-Encoding': 'chunked' }]) {
    const answer = await harness.call('PUT', '/v1/kv/default/k', { body: Buffer.alloc(60_000), headers })
    assert.equal(answer.status, 503)
    assert.equal(answer.headers['retry-after'], '1')
    assert.equal(JSON.parse(answer.body.toString()).code, 'OVERLOADED')
  }
  // The room is given back: the same number of bytes fits again and again.
  for (let round = 0; round < 5; round++) {
    assert.equal((await harness.call('PUT', '/v1/kv/default/k', { body: Buffer.alloc(40_000) })).status, 204)
  }
})

test('An empty value is a value', async () => {
  await using harness = await Harness.start()
  assert.equal((await harness.call('PUT', '/v1/kv/default/k', { body: '' })).status, 204)
  const read = await harness.call('GET', '/v1/kv/default/k')
  assert.equal(read.status, 200)
  assert.equal(read.headers['content-length'], '0')
})

test('Prefer: return=representation gives the stored value back', async () => {
  await using harness = await Harness.start()
  const headers = { Prefer: 'respond-async, return=representation', 'Content-Type': 'text/plain' }
  const answer = await harness.call('PUT', '/v1/kv/default/k', { body: 'v', headers })
  assert.equal(answer.status, 200)
  assert.equal(answer.body.toString(), 'v')
  assert.equal(answer.headers['preference-applied'], 'return=representation')
  assert.equal(answer.headers['content-type'], 'text/plain')
})

test('An encoded body, a partial body and a strange content type are refused', async () => {
  await using harness = await Harness.start()
  const put = (headers: Record<string, string>) => harness.json('PUT', '/v1/kv/default/k', { body: 'v', headers })
  assert.equal((await put({ 'Content-Encoding': 'gzip' }))['httpStatus'], 415)
  assert.equal((await put({ 'Content-Encoding': 'identity, br' }))['code'], 'UNSUPPORTED_MEDIA_TYPE')
  assert.equal((await put({ 'Content-Range': 'bytes 0-0/2' }))['code'], 'BAD_REQUEST')
  assert.equal((await put({ 'Content-Type': `a/${'b'.repeat(255)}` }))['code'], 'BAD_REQUEST')
  assert.equal((await put({ 'Content-Type': 'text/\xe4' }))['code'], 'BAD_REQUEST')
  assert.equal(harness.coordinator.writes, 0)
  const identity = { 'Content-Encoding': 'identity' }
  assert.equal((await harness.call('PUT', '/v1/kv/default/k', { body: 'v', headers: identity })).status, 204)
})

test('A stored page is never a page of this origin', async () => {
  await using harness = await Harness.start()
  const headers = { 'Content-Type': 'text/html' }
  await harness.call('PUT', '/v1/kv/default/k', { body: '<script>', headers })
  const read = await harness.call('GET', '/v1/kv/default/k')
  assert.equal(read.headers['content-type'], 'text/html')
  assert.equal(read.headers['content-security-policy'], 'sandbox')
  // A content type that came in by another way and cannot stand in a header is not sent.
  const bucket = harness.buckets.find('default')!
  harness.coordinator.put(bucket, Buffer.from('odd'), Buffer.from('v'), { contentType: 'a\r\nSet-Cookie: b' }, () => {})
  const odd = await harness.call('GET', '/v1/kv/default/odd')
  assert.equal(odd.headers['content-type'], 'application/octet-stream')
  assert.equal(odd.headers['set-cookie'], undefined)
})

test('Other methods on a key are 405 with Allow', async () => {
  await using harness = await Harness.start()
  for (const method of ['POST', 'PATCH', 'OPTIONS', 'TRACE', 'PROPFIND']) {
    const answer = await harness.call(method, '/v1/kv/default/k')
    assert.equal(answer.status, 405, method)
    assert.equal(answer.headers.allow, 'GET, HEAD, PUT, DELETE')
    assert.equal(answer.headers['access-control-allow-origin'], undefined)
  }
})

test('An error of the coordinator keeps code, outcome and extra members', async () => {
  await using harness = await Harness.start()
  harness.coordinator.nextError = new SunwiseError('QUORUM_NOT_MET', '1 of 2 answered', {
    outcome: 'partial',
    extra: { acks: 1, needed: 2, retryAfterMs: 2500, status: 200 },
  })
  const answer = await harness.call('PUT', '/v1/kv/default/k', { body: 'v' })
  assert.equal(answer.status, 503)
  assert.equal(answer.headers['retry-after'], '3')
  const problem = JSON.parse(answer.body.toString())
  assert.equal(problem.code, 'QUORUM_NOT_MET')
  assert.equal(problem.outcome, 'partial')
  assert.equal(problem.retryable, true)
  assert.equal(problem.acks, 1)
  assert.equal(problem.status, 503)
})

test('A bug behind the front end is INTERNAL, logged, and tells the client nothing', async () => {
  await using harness = await Harness.start()
  harness.coordinator.get = () => {
    throw new TypeError('secret detail')
  }
  const answer = await harness.call('GET', '/v1/kv/default/k')
  assert.equal(answer.status, 500)
  const text = answer.body.toString()
  assert.equal(JSON.parse(text).code, 'INTERNAL')
  assert.doesNotMatch(text, /secret|TypeError|\.ts/)
  assert.equal(harness.logged.length, 1)
})

test('An answer for a client that went away is dropped quietly', async () => {
  await using harness = await Harness.start()
  harness.coordinator.holding = true
  const request = 'GET /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\n\r\n'
  const gone = harness.raw([request], { end: false, enough: () => false })
  await until(() => harness.coordinator.held.length > 0)
  // The server is told to cut everything while the answer is still out.
  const drained = harness.server.drain(0)
  await gone
  await drained
  harness.coordinator.holding = false
  for (const finish of harness.coordinator.held) finish()
  assert.deepEqual(harness.logged, [])
  assert.equal(harness.counters.values[6], 1)
})
