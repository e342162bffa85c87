import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { networkInterfaces } from 'node:os'
import { test } from 'node:test'
import { SunwiseError } from '../../../src/base/errors.ts'
import { Limits } from '../../../src/config.ts'
import { probeBind } from '../../../src/host/http/address.ts'
import { renderHttpMetrics } from '../../../src/host/http/counters.ts'
import { Harness, limitsFor, problemCodeOf, statusesOf, until } from './http-harness.ts'

const hasCode = (code: string) => (error: unknown) => error instanceof SunwiseError && error.code === code

test('Health, readiness, version, limits and metrics are served', async () => {
  await using harness = await Harness.start()
  assert.deepEqual(await harness.json('GET', '/healthz'), { ok: true, reasons: [], httpStatus: 200 })
  harness.ready.push('shard 1 is restarting')
  const ready = await harness.call('GET', '/readyz')
  assert.equal(ready.status, 503)
  assert.equal(ready.headers['retry-after'], '1')
  assert.deepEqual(JSON.parse(ready.body.toString()), { ok: false, reasons: ['shard 1 is restarting'] })
  harness.ready.length = 0
  harness.warnings.push('the disk is full')
  const warned = await harness.json('GET', '/readyz')
  assert.deepEqual(warned, { ok: true, reasons: [], warnings: ['the disk is full'], httpStatus: 200 })
  harness.live.push('a worker hangs')
  assert.equal((await harness.call('GET', '/healthz')).status, 503)
  const version = await harness.json('GET', '/version')
  assert.deepEqual(version, { name: 'sunwise', version: '1.2.3', api: 'v1', nodeId: 'n1', httpStatus: 200 })
  const limits = await harness.json('GET', '/v1/limits')
  assert.equal(limits['keyBytesMax'], Limits.keyBytesMax)
  assert.equal(limits['valueBytesMax'], 1024 * 1024)
  const metrics = await harness.call('GET', '/metrics')
  assert.match(String(metrics.headers['content-type']), /^text\/plain; version=0\.0\.4/)
  assert.match(metrics.body.toString(), /sunwise_http_requests_total\{method="GET",status="5xx"\} 2\n/)
  const head = await harness.call('HEAD', '/version')
  assert.equal(head.status, 200)
  assert.equal(head.body.length, 0)
})

test('A route that does not exist is 404, an existing one with another method 405', async () => {
  await using harness = await Harness.start()
  for (const path of ['/', '/v1', '/v1/kv', '/nothing', '/v1/batch', '/healthz/', '/V1/limits']) {
    const answer = await harness.json('GET', path)
    assert.equal(answer['httpStatus'], 404, path)
    assert.equal(answer['code'], 'ROUTE_NOT_FOUND', path)
  }
  const post = await harness.call('POST', '/v1/buckets', { body: '{}' })
  assert.equal(post.status, 405)
  assert.equal(post.headers.allow, 'GET, HEAD')
})

test('Only known names may stand in Host: a rebound name of a web page is refused', async () => {
  await using harness = await Harness.start()
  const ask = (host: string) => harness.call('GET', '/version', { headers: { Host: host } })
  for (const host of [
    'localhost',
    'localhost:1',
    'LOCALHOST',
    '127.0.0.1:80',
    '[::1]',
    '[::1]:99',
    'kv.example:7070',
  ]) {
    assert.equal((await ask(host)).status, 200, host)
  }
  for (const host of [
    'evil.example',
    'localhost.evil.example',
    'localhost:',
    'localhost:99999999',
    'localhost:8x',
    '[::1',
    '[::1]x',
    '10.0.0.1',
    '[localhost]',
    ':80',
    ' ',
  ]) {
    const answer = await ask(host)
    assert.equal(answer.status, 400, host)
    assert.equal(JSON.parse(answer.body.toString()).code, 'BAD_HOST', host)
  }
})

test('A web page of another origin may not write; one of this origin may', async () => {
  await using harness = await Harness.start()
  const headers = { Origin: 'http://evil.example' }
  for (const [method, path] of [
    ['PUT', '/v1/kv/default/k'],
    ['DELETE', '/v1/kv/default/k'],
    ['POST', '/v1/batch/default'],
    ['PUT', '/v1/buckets/b'],
  ] as const) {
    const answer = await harness.json(method, path, { headers, body: '' })
    assert.equal(answer['httpStatus'], 403, method)
    assert.equal(answer['code'], 'ORIGIN_REFUSED')
  }
  assert.equal((await harness.call('PUT', '/v1/kv/default/k', { headers: { Origin: 'null' }, body: 'v' })).status, 403)
  assert.equal(harness.coordinator.writes, 0)
  const read = await harness.call('GET', '/version', { headers })
  assert.equal(read.status, 200)
  assert.equal(read.headers['access-control-allow-origin'], undefined)
  const own = { Origin: 'http://localhost:7070', Host: 'localhost:7070' }
  assert.equal((await harness.call('PUT', '/v1/kv/default/k', { headers: own, body: 'v' })).status, 204)
})

test('An address that others can reach is refused unless the operator insists', async () => {
  for (const host of ['0.0.0.0', '::', '192.0.2.1', 'example.com']) {
    await assert.rejects(new Harness().server.listen({ host, port: 0 }), hasCode('ADDRESS_REFUSED'), host)
    await assert.rejects(probeBind(host, 0), hasCode('ADDRESS_REFUSED'), host)
  }
  const open = new Harness({ insecure: true })
  const address = await open.server.listen({ host: '0.0.0.0', port: 0 })
  open.port = address.port
  try {
    const own = Object.values(networkInterfaces())
      .flatMap((entries) => entries ?? [])
      .find((entry) => entry.family === 'IPv4')
    assert.equal((await open.call('GET', '/version', { headers: { Host: own!.address } })).status, 200)
    assert.equal((await open.call('GET', '/version', { headers: { Host: 'evil.example' } })).status, 400)
  } finally {
    await open.server.drain(0)
  }
})

test('The first bind is exclusive: a second process finds the port in use', async () => {
  const port = await probeBind('127.0.0.1', 0)
  assert.ok(port > 0)
  const first = new Harness()
  const second = new Harness()
  const shared = await first.server.listen({ host: '127.0.0.1', port, reusePort: true })
  try {
    assert.equal(shared.port, port)
    await assert.rejects(probeBind('127.0.0.1', port), hasCode('ADDRESS_IN_USE'))
    await assert.rejects(new Harness().server.listen({ host: '127.0.0.1', port }), hasCode('ADDRESS_IN_USE'))
    if (shared.reusePort) {
      assert.equal((await second.server.listen({ host: '127.0.0.1', port, reusePort: true })).port, port)
    }
  } finally {
    await first.server.drain(0)
    await second.server.drain(0)
  }
  assert.equal(await probeBind('127.0.0.1', port), port)
})

test('Draining finishes what is in flight, closes idle connections and takes no new ones', async () => {
  const harness = await Harness.start()
  const idle = connect(harness.port, '127.0.0.1')
  const idleClosed = new Promise<void>((resolve) => idle.on('close', () => resolve()))
  idle.resume()
  idle.write('GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await until(() => harness.counters.values[0] === 1)
  harness.coordinator.holding = true
  const inFlight = harness.raw(['PUT /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv'])
  await until(() => harness.coordinator.held.length === 1)
  const drained = harness.server.drain(10_000)
  await idleClosed
  await assert.rejects(harness.call('GET', '/version'))
  harness.coordinator.held[0]!()
  const text = await inFlight
  assert.deepEqual(statusesOf(text), [204])
  assert.match(text, /Connection: close/)
  await drained
  assert.equal(harness.coordinator.writes, 1)
})

test('While draining the node says that it is not ready, and the last pipelined answer closes', async () => {
  const harness = await Harness.start()
  harness.coordinator.holding = true
  const socket = connect(harness.port, '127.0.0.1')
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1')
  })
  const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()))
  socket.write('GET /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await until(() => harness.coordinator.held.length === 1)
  const drained = harness.server.drain(10_000)
  socket.write(
    'GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\n\r\n',
  )
  await until(() => harness.coordinator.held.length === 2)
  for (const finish of harness.coordinator.held) finish()
  await closed
  await drained
  assert.deepEqual(statusesOf(text), [404, 503, 404])
  assert.match(text, /The node is stopping/)
  assert.equal([...text.matchAll(/Connection: close/g)].length, 1)
})

test('What is left after the grace period is cut', async () => {
  const harness = await Harness.start()
  harness.coordinator.holding = true
  const hanging = harness.raw(['GET /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\n\r\n'])
  await until(() => harness.coordinator.held.length === 1)
  await harness.server.drain(20)
  assert.equal(await hanging, '')
  harness.coordinator.held[0]!()
})

test('Connections above the limit are closed at once', async () => {
  await using harness = await Harness.start({
    limits: { ...limitsFor(1000), connectionsMax: 2 },
  })
  const first = [connect(harness.port, '127.0.0.1'), connect(harness.port, '127.0.0.1')]
  await until(() => harness.counters.values[0] === 2)
  assert.equal(await harness.raw([]), '')
  assert.equal(harness.counters.values[2], 1)
  for (const socket of first) socket.destroy()
  await until(() => harness.counters.values[0] === 0)
  assert.equal((await harness.call('GET', '/version')).status, 200)
})

test('Pipelined reads run together; a write waits for them and holds back what follows', async () => {
  await using harness = await Harness.start()
  const { coordinator } = harness
  coordinator.holding = true
  const key = (method: string, extra = '') => `${method} /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\n${extra}\r\n`
  const text = harness.raw([
    key('GET') +
      key('GET') +
      key('PUT', 'Content-Length: 1\r\n') +
      'v' +
      key('GET') +
      key('GET', 'Connection: close\r\n'),
  ])
  const finish = (): void => coordinator.held.shift()!()
  await until(() => coordinator.held.length === 2)
  assert.equal(coordinator.writes, 0)
  finish()
  assert.equal(coordinator.held.length, 1)
  finish()
  await until(() => coordinator.writes === 1)
  assert.equal(coordinator.held.length, 1, 'the reads after the write wait for it')
  finish()
  await until(() => coordinator.held.length === 2)
  finish()
  finish()
  assert.deepEqual(statusesOf(await text), [404, 404, 204, 200, 200])
})

test('Pipelined requests beyond what may wait are OVERLOADED, in their place', async () => {
  await using harness = await Harness.start()
  harness.coordinator.holding = true
  const count = Limits.pendingRequestsMax + 10
  const text = harness.raw(['DELETE /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(count)], {
    enough: (received) => received.length > 500_000 && statusesOf(received).length === count,
  })
  const overloaded = /problems_total\{code="OVERLOADED"\} 9\n/
  await until(() => overloaded.test(renderHttpMetrics([harness.counters])))
  harness.coordinator.holding = false
  // The first answer frees the line: everything that waits runs at once.
  harness.coordinator.held[0]!()
  const received = await text
  const statuses = statusesOf(received)
  assert.equal(statuses.length, count)
  assert.deepEqual(statuses.slice(-10), [204, ...Array(9).fill(503)])
  assert.equal(problemCodeOf(received), 'OVERLOADED')
})
