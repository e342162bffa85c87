/** Hostile bytes over raw sockets: every one gets a 4xx (or nothing), changes no state, and leaves the server alive. */
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import fc from 'fast-check'
import { Harness, limitsFor, problemCodeOf, statusesOf, until } from './http-harness.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const put = 'PUT /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\n'
const get = 'GET /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\n'

async function checkAlive(harness: Harness, what: string): Promise<void> {
  assert.equal(harness.coordinator.writes, 0, `${what} wrote something`)
  assert.equal((await harness.call('GET', '/healthz')).status, 200, `${what} hurt the server`)
  assert.deepEqual(harness.logged, [], what)
}

test('Messages that are not well-formed HTTP get one problem answer, and the connection closes', async () => {
  await using harness = await Harness.start()
  const cases: [string, string, number, string][] = [
    [
      'length and chunks',
      `${put}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n`,
      400,
      'BAD_REQUEST',
    ],
    [
      'chunks and length',
      `${put}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n`,
      400,
      'BAD_REQUEST',
    ],
    ['two lengths', `${put}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd`, 400, 'BAD_REQUEST'],
    ['two equal lengths', `${put}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc`, 400, 'BAD_REQUEST'],
    ['a list of lengths', `${put}Content-Length: 3, 3\r\n\r\nabc`, 400, 'BAD_REQUEST'],
    ['a signed length', `${put}Content-Length: +3\r\n\r\nabc`, 400, 'BAD_REQUEST'],
    ['a negative length', `${put}Content-Length: -3\r\n\r\nabc`, 400, 'BAD_REQUEST'],
    ['a length above 64 bits', `${put}Content-Length: 99999999999999999999\r\n\r\nabc`, 400, 'BAD_REQUEST'],
    ['line feeds alone', 'PUT /v1/kv/default/k HTTP/1.1\nHost: localhost\nContent-Length: 1\n\nv', 400, 'BAD_REQUEST'],
    ['a folded header', `${put}X-A: b\r\n c\r\nContent-Length: 1\r\n\r\nv`, 400, 'BAD_REQUEST'],
    ['a space before the colon', `${put}Content-Length : 1\r\n\r\nv`, 400, 'BAD_REQUEST'],
    ['an unknown coding', `${put}Transfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n`, 400, 'BAD_REQUEST'],
    [
      'a coding after chunked',
      `${put}Transfer-Encoding: chunked, gzip\r\n\r\n3\r\nabc\r\n0\r\n\r\n`,
      400,
      'BAD_REQUEST',
    ],
    ['a NUL in the target', `PUT /v1/kv/default/a\0b HTTP/1.1\r\nHost: localhost\r\n\r\n`, 400, 'BAD_REQUEST'],
    ['a NUL in a header', `${put}X-A: a\0b\r\n\r\n`, 400, 'BAD_REQUEST'],
    ['an unknown version', 'GET / HTTP/9.9\r\nHost: localhost\r\n\r\n', 400, 'BAD_REQUEST'],
    ['RESP', '*1\r\n$4\r\nPING\r\n', 400, 'BAD_REQUEST'],
    ['a TLS hello', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 400, 'BAD_REQUEST'],
    [
      'a chunk length that is none',
      `${put}Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n`,
      400,
      'BAD_REQUEST',
    ],
    [
      'a chunk longer than its length',
      `${put}Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n`,
      400,
      'BAD_REQUEST',
    ],
    [
      'a chunk length above 64 bits',
      `${put}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n`,
      400,
      'BAD_REQUEST',
    ],
    [
      'chunk extensions of 40 KB',
      `${put}Transfer-Encoding: chunked\r\n\r\n1;${'a'.repeat(40_000)}\r\nv\r\n0\r\n\r\n`,
      413,
      'REQUEST_TOO_LARGE',
    ],
    ['headers of 20 KB', `${put}X-A: ${'a'.repeat(20_000)}\r\n\r\n`, 431, 'HEADERS_TOO_LARGE'],
    [
      'a target of 20 KB',
      `PUT /v1/kv/default/${'a'.repeat(20_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n`,
      414,
      'URI_TOO_LONG',
    ],
    ['a length one short', `${put}Content-Length: 2\r\n\r\nabc`, 400, 'BAD_REQUEST'],
    ['an unknown method', 'BREW /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\n\r\n', 400, 'BAD_REQUEST'],
    ['a proxy request', 'CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n', 405, 'METHOD_NOT_ALLOWED'],
  ]
  for (const [what, bytes, status, code] of cases) {
    const text = await harness.raw([Buffer.from(bytes, 'latin1')])
    assert.deepEqual(statusesOf(text), [status], what)
    assert.equal(problemCodeOf(text), code, what)
    assert.match(text, /Content-Type: application\/problem\+json/, what)
    assert.match(text, /Connection: close/, what)
    await checkAlive(harness, what)
  }
})

test('Requests that are well-formed but not for this server get a 4xx', async () => {
  await using harness = await Harness.start()
  const close = 'Connection: close\r\n\r\n'
  const cases: [string, string, number, string][] = [
    ['no Host', `PUT /v1/kv/default/k HTTP/1.1\r\nContent-Length: 0\r\n${close}`, 400, 'BAD_HOST'],
    ['two Hosts', `${put}Host: localhost\r\nContent-Length: 0\r\n${close}`, 400, 'BAD_REQUEST'],
    [
      'an absolute target',
      `PUT http://localhost/v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\n${close}`,
      400,
      'BAD_REQUEST',
    ],
    ['the star target', `OPTIONS * HTTP/1.1\r\nHost: localhost\r\n${close}`, 400, 'BAD_REQUEST'],
    ['TRACE', `TRACE /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\n${close}`, 405, 'METHOD_NOT_ALLOWED'],
    [
      'raw non-ASCII in a key',
      `PUT /v1/kv/default/\xff HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n${close}`,
      400,
      'BAD_REQUEST',
    ],
    [
      'a fragment',
      `PUT /v1/kv/default/a#b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n${close}`,
      400,
      'BAD_KEY',
    ],
    ['an odd expectation', `${put}Expect: tea\r\nContent-Length: 1\r\n${close}v`, 400, 'BAD_REQUEST'],
    [
      'two contexts',
      `${put}Sunwise-Context: AA\r\nSunwise-Context: AA\r\nContent-Length: 0\r\n${close}`,
      400,
      'BAD_REQUEST',
    ],
    ['%ff in a bucket', `GET /v1/buckets/%ff HTTP/1.1\r\nHost: localhost\r\n${close}`, 400, 'BAD_REQUEST'],
    ['an overlong %', `GET /v1/buckets/%c0%af HTTP/1.1\r\nHost: localhost\r\n${close}`, 400, 'BAD_REQUEST'],
    ['a malformed % in a route', `GET /v1/buckets/%zz HTTP/1.1\r\nHost: localhost\r\n${close}`, 400, 'BAD_REQUEST'],
  ]
  for (const [what, bytes, status, code] of cases) {
    const text = await harness.raw([Buffer.from(bytes, 'latin1')])
    assert.deepEqual(statusesOf(text), [status], what)
    const known = problemCodeOf(text)
    assert.ok(known === code || (code === 'BAD_REQUEST' && known === 'BAD_BUCKET'), `${what}: ${known}`)
    await checkAlive(harness, what)
  }
})

test('Header and query names of Object.prototype are names like others', async () => {
  await using harness = await Harness.start()
  const text = await harness.raw([`${get}__proto__: a\r\nconstructor: b\r\ntoString: c\r\nConnection: close\r\n\r\n`])
  assert.deepEqual(statusesOf(text), [404])
  assert.deepEqual(statusesOf(await harness.raw([`${get}Upgrade: websocket\r\nConnection: close\r\n\r\n`])), [404])
  await checkAlive(harness, 'prototype names')
})

test('1,200 header fields are one request', async () => {
  await using harness = await Harness.start()
  const fields = Array.from({ length: 1200 }, (_, index) => `a${index}: b\r\n`).join('')
  const text = await harness.raw([`${get}${fields}Connection: close\r\n\r\n`])
  assert.ok([404, 431].includes(statusesOf(text)[0] ?? 0))
  await checkAlive(harness, 'many fields')
})

test('Overlong and surrogate UTF-8 in a key are bytes like others', async () => {
  await using harness = await Harness.start()
  for (const key of ['%c0%af', '%ed%a0%80', '%f5%80%80%80', '%00', '%ff']) {
    assert.equal((await harness.call('PUT', `/v1/kv/default/${key}`, { body: key })).status, 204)
    assert.equal((await harness.call('GET', `/v1/kv/default/${key}`)).body.toString(), key)
  }
  assert.equal((await harness.call('GET', '/v1/kv/default/%2f')).status, 404)
})

test('1,000 pipelined requests are answered in order', async () => {
  await using harness = await Harness.start()
  const count = 1000
  const requests = Array.from({ length: count }, (_, index) =>
    index % 2 === 0
      ? `PUT /v1/kv/default/k${index} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n${String(index).padStart(4, '0')}`
      : `GET /v1/kv/default/k${index - 1} HTTP/1.1\r\nHost: localhost\r\n${index === count - 1 ? 'Connection: close\r\n' : ''}\r\n`,
  )
  const text = await harness.raw([requests.join('')])
  const statuses = statusesOf(text)
  assert.equal(statuses.length, count)
  assert.ok(statuses.every((status, index) => status === (index % 2 === 0 ? 204 : 200)))
  const bodies = [...text.matchAll(/\r\n\r\n(\d{4})HTTP|\r\n\r\n(\d{4})$/g)].map((match) =>
    Number(match[1] ?? match[2]),
  )
  assert.deepEqual(
    bodies,
    Array.from({ length: count / 2 }, (_, index) => index * 2),
  )
})

test('Rubbish after pipelined requests closes the connection and never answers for one of them', async () => {
  await using harness = await Harness.start()
  harness.coordinator.holding = true
  const text = await harness.raw([`${get}\r\n${get}\r\nrubbish\r\n\r\n`])
  assert.deepEqual(statusesOf(text), [])
  for (const finish of harness.coordinator.held) finish()
  harness.coordinator.holding = false
  await checkAlive(harness, 'rubbish')
})

test('Expect: 100-continue is answered when the body is wanted and not when the request is refused', async () => {
  await using harness = await Harness.start()
  const wanted = await harness.raw([`${put}Expect: 100-continue\r\nContent-Length: 1\r\n\r\n`], {
    enough: (text) => text.includes('100 Continue'),
  })
  assert.deepEqual(statusesOf(wanted), [100])
  const refused = await harness.raw([`${put}Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n`])
  assert.deepEqual(statusesOf(refused), [413])
  const unknown = await harness.raw([
    'PUT /v1/kv/none/k HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n',
  ])
  assert.deepEqual(statusesOf(unknown), [404])
  await checkAlive(harness, 'expectations')
  const whole = await harness.raw([`${put}Expect: 100-Continue\r\nContent-Length: 1\r\nConnection: close\r\n\r\nv`])
  assert.deepEqual(statusesOf(whole), [100, 204])
  assert.equal(harness.coordinator.writes, 1)
})

test('A body that breaks off half-way changes nothing and gives its memory back', async () => {
  await using harness = await Harness.start({
    limits: { ...limitsFor(1000), pendingBodyBytesMax: 1000 },
  })
  for (const head of [
    `${put}Content-Length: 900\r\n\r\n${'x'.repeat(400)}`,
    `${put}Transfer-Encoding: chunked\r\n\r\n190\r\n${'x'.repeat(400)}\r\n1`,
    `POST /v1/batch/default HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 900\r\n\r\n{"op":"put","key":"a","value":"b"}\n`,
  ]) {
    await harness.raw([head], { end: true })
    await checkAlive(harness, head.slice(0, 60))
  }
  assert.equal((await harness.call('PUT', '/v1/kv/default/k', { body: Buffer.alloc(900) })).status, 204)
})

test('A refused body without an end is answered, read for a while, and then cut', async () => {
  await using harness = await Harness.start({ limits: limitsFor(1000) })
  const chunk = `800\r\n${'x'.repeat(2048)}\r\n`
  const chunked = await harness.raw([`${put}Transfer-Encoding: chunked\r\n\r\n`, chunk, chunk])
  assert.deepEqual(statusesOf(chunked), [413])
  assert.match(chunked, /Connection: close/)
  const announced = await harness.raw([`${put}Content-Length: 99999999\r\n\r\n`, 'x'.repeat(5000)])
  assert.deepEqual(statusesOf(announced), [413])
  const more = harness.raw([`${put}Content-Length: 99999999\r\n\r\n`, Buffer.alloc(20 * 1024 * 1024)])
  assert.deepEqual(statusesOf(await more), [413])
  await checkAlive(harness, 'an endless body')
})

test('A body in chunks of one byte costs its bytes, not its chunks', async () => {
  await using harness = await Harness.start()
  const value = Array.from({ length: 20_000 }, (_, index) => String(index % 10)).join('')
  const chunks = [...value].map((byte) => `1\r\n${byte}\r\n`).join('')
  const text = await harness.raw([`${put}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n${chunks}0\r\n\r\n`])
  assert.deepEqual(statusesOf(text), [204])
  assert.equal((await harness.call('GET', '/v1/kv/default/k')).body.toString(), value)
})

test('Hostile JSON is refused before it is parsed', async () => {
  await using harness = await Harness.start()
  const deep = (open: string, close: string, levels: number) => open.repeat(levels) + close.repeat(levels)
  const million = `{"op":"put",${Array.from({ length: 1_000_000 }, (_, index) => `"${index}":1`).join(',')}}`
  const cases: [string, string, number][] = [
    ['depth 33', `[${deep('[', ']', 33)}]`, 400],
    ['depth 100,000', deep('[', ']', 100_000), 400],
    ['10^6 names', `[${million}]`, 400],
    ['a byte order mark', '\ufeff[]', 400],
    ['half an array', '[{"op":"get","key":"a"}', 400],
    ['text after the array', '[] []', 400],
    ['a missing item', '[,]', 400],
    ['a comma too many', '[{"op":"get","key":"a"},]', 400],
    ['a name twice', '[{"op":"put","key":"a","key":"b","value":"v"}]', 400],
    ['nothing', '', 400],
    ['a lone quote', '["', 400],
    ['an object', '{"op":"get","key":"a"}', 400],
  ]
  for (const [what, body, status] of cases) {
    const headers = { 'Content-Type': 'application/json' }
    const answer = await harness.json('POST', '/v1/batch/default', { body, headers })
    assert.equal(answer['httpStatus'], status, what)
    await checkAlive(harness, what)
    const bucket = await harness.json('PUT', '/v1/buckets/default', { body: body || '"', headers })
    assert.ok(Number(bucket['httpStatus']) >= 400 && Number(bucket['httpStatus']) < 500, what)
  }
})

test('A request that does not arrive in time is 408', async () => {
  await using harness = await Harness.start({ timeouts: { headersMs: 60, requestMs: 120, checkMs: 20 } })
  const headers = await harness.raw([get])
  assert.deepEqual(statusesOf(headers), [408])
  assert.equal(problemCodeOf(headers), 'REQUEST_TIMEOUT')
  const body = await harness.raw([`${put}Content-Length: 10\r\n\r\nx`])
  assert.deepEqual(statusesOf(body), [408])
  await checkAlive(harness, 'slow requests')
})

test('A client that never reads its answers is cut off', async () => {
  await using harness = await Harness.start({ timeouts: { idleMs: 100 } })
  const bucket = harness.buckets.find('default')!
  harness.coordinator.put(bucket, Buffer.from('big'), Buffer.alloc(1024 * 1024), {}, () => {})
  harness.coordinator.writes = 0
  const socket = connect(harness.port, '127.0.0.1')
  socket.on('error', () => {})
  socket.pause()
  const request = 'GET /v1/kv/default/big HTTP/1.1\r\nHost: localhost\r\n\r\n'
  for (let index = 0; index < 64; index++) socket.write(request)
  await until(() => harness.counters.values[0] === 0 && harness.counters.values[1] === 1)
  socket.destroy()
  await checkAlive(harness, 'a slow reader')
})

test('Random bytes and mutated requests never stop the server', async () => {
  await using harness = await Harness.start()
  const words = fc.constantFrom(
    'GET ',
    'PUT ',
    ' HTTP/1.1',
    '\r\n',
    '\n',
    '\0',
    'Host: localhost',
    'Content-Length: 5',
    'Content-Length: 0',
    'Transfer-Encoding: chunked',
    '/v1/kv/default/',
    '%',
    '%ff',
    '?',
    '&',
    'w=',
    '5\r\nhello\r\n',
    '0\r\n\r\n',
    ': ',
    'Expect: 100-continue',
    'Connection: close',
    '/v1/batch/default',
    'POST ',
    '[{',
    '"op"',
    '\xff',
    'a'.repeat(5000),
  )
  const message = fc.array(fc.oneof(words, fc.string({ unit: 'binary-ascii', maxLength: 12 })), { maxLength: 20 })
  await fc.assert(
    fc.asyncProperty(message, fc.boolean(), async (parts, whole) => {
      const bytes = Buffer.from(parts.join(''), 'latin1')
      await harness.raw(whole ? [bytes] : [bytes.subarray(0, bytes.length >> 1), bytes.subarray(bytes.length >> 1)], {
        end: true,
      })
    }),
    { numRuns: Math.ceil(200 * scale) },
  )
  assert.equal((await harness.call('GET', '/healthz')).status, 200)
  assert.deepEqual(harness.logged, [])
})
