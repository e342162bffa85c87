import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import { SunwiseError } from '../../../src/base/errors.ts'
import type { ListOptions } from '../../../src/replication/requests.ts'
import { Harness, statusesOf, until } from './http-harness.ts'

const lines = { Accept: 'application/x-ndjson' }

function fill(harness: Harness, count: number, valueBytes = 1): void {
  const bucket = harness.buckets.find('default')!
  for (let index = 0; index < count; index++) {
    const key = Buffer.from(`key:${String(index).padStart(6, '0')}`)
    harness.coordinator.put(bucket, key, Buffer.alloc(valueBytes, 'v'), {}, () => {})
  }
}

test('Pages follow each other by cursor and give every key once', async () => {
  await using harness = await Harness.start()
  fill(harness, 25)
  const keys: string[] = []
  let query = 'limit=10'
  for (let page = 0; page < 3; page++) {
    const answer = await harness.json('GET', `/v1/kv/default?${query}`)
    assert.equal(answer['httpStatus'], 200)
    keys.push(...(answer['keys'] as { key: string }[]).map(({ key }) => key))
    assert.equal(answer['complete'], page === 2)
    assert.equal(answer['cursor'] === undefined, page === 2)
    query = `limit=10&cursor=${answer['cursor']}`
  }
  assert.equal(new Set(keys).size, 25)
  assert.deepEqual(keys, keys.toSorted())
})

test('A page asks as many replicas as r says, and tells how many of how many answered', async () => {
  await using harness = await Harness.start()
  harness.coordinator.listReceipt = { acks: 2, replicas: 3, sloppy: false, durable: true, epoch: 7 }
  const answer = await harness.call('GET', '/v1/kv/default?r=all')
  assert.equal(answer.headers['sunwise-acks'], '2/3')
  assert.equal((harness.coordinator.lastOptions as ListOptions).r, 'all')
  await harness.call('GET', '/v1/kv/default?r=1', { headers: lines })
  assert.equal((harness.coordinator.lastOptions as ListOptions).r, 1)
})

test('A prefix is bytes, percent-encoded or base64url; values come when asked for', async () => {
  await using harness = await Harness.start()
  await harness.call('PUT', '/v1/kv/default/%ffa', { body: 'one', headers: { 'Content-Type': 'text/plain' } })
  await harness.call('PUT', '/v1/kv/default/b', { body: Buffer.from([0xff]) })
  for (const query of ['prefix=%ff', `prefix64=${Buffer.from([0xff]).toString('base64url')}`]) {
    const answer = await harness.json('GET', `/v1/kv/default?${query}`)
    assert.deepEqual(answer['keys'], [{ key64: '_2E' }])
  }
  const answer = await harness.json('GET', '/v1/kv/default?values=1')
  const [b, other] = answer['keys'] as Record<string, unknown>[]
  assert.equal(b!['key'], 'b')
  assert.equal(b!['value64'], '/w==')
  assert.equal(typeof b!['etag'], 'string')
  assert.equal(other!['value'], 'one')
  assert.equal(other!['contentType'], 'text/plain')
})

test('List parameters out of range are refused', async () => {
  await using harness = await Harness.start()
  const cases: [string, string][] = [
    ['limit=0', 'BAD_REQUEST'],
    ['limit=10001', 'BAD_REQUEST'],
    ['limit=1e3', 'BAD_REQUEST'],
    ['cursor=', 'BAD_CURSOR'],
    ['cursor=%21', 'BAD_CURSOR'],
    ['prefix=%zz', 'BAD_KEY'],
    ['prefix=a+b', 'BAD_KEY'],
    ['prefix64=a=', 'BAD_KEY'],
    ['prefix=a&prefix64=YQ', 'BAD_REQUEST'],
    ['values=yes', 'BAD_REQUEST'],
    ['w=1', 'BAD_REQUEST'],
    ['r=0', 'BAD_QUORUM'],
    ['r=9', 'BAD_QUORUM'],
  ]
  for (const [query, code] of cases) {
    const answer = await harness.json('GET', `/v1/kv/default?${query}`)
    assert.equal(answer['httpStatus'], 400, query)
    assert.equal(answer['code'], code, query)
  }
  assert.equal((await harness.json('GET', '/v1/kv/none'))['code'], 'BUCKET_NOT_FOUND')
  assert.equal((await harness.json('GET', '/v1/kv/'))['code'], 'BAD_BUCKET')
  assert.equal(harness.coordinator.lists, 0)
})

test('HEAD of a list has no body', async () => {
  await using harness = await Harness.start()
  fill(harness, 3)
  const head = await harness.call('HEAD', '/v1/kv/default')
  assert.equal(head.status, 200)
  assert.equal(head.body.length, 0)
  const stream = await harness.call('HEAD', '/v1/kv/default', { headers: lines })
  assert.equal(stream.headers['content-type'], 'application/x-ndjson')
})

test('A stream gives every key as one line, page after page', async () => {
  await using harness = await Harness.start()
  fill(harness, 2500, 100)
  const answer = await harness.call('GET', '/v1/kv/default?values=1', { headers: lines })
  assert.equal(answer.headers['content-type'], 'application/x-ndjson')
  const listed = answer.body
    .toString()
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  assert.equal(new Set(listed.map(({ key }) => key)).size, 2500)
  assert.equal(listed[0].value, 'v'.repeat(100))
  assert.ok(harness.coordinator.lists > 10)
  const limited = await harness.call('GET', '/v1/kv/default?limit=1001', { headers: lines })
  assert.equal(limited.body.toString().trimEnd().split('\n').length, 1001)
  const empty = await harness.call('GET', '/v1/kv/default?prefix=none', { headers: lines })
  assert.equal(empty.status, 200)
  assert.equal(empty.body.length, 0)
  const page = await harness.call('GET', '/v1/kv/default?limit=1', { headers: { Accept: 'application/x-ndjson;q=0' } })
  assert.equal(page.headers['content-type'], 'application/json')
})

test('A stream waits for a reader that is slow and stops when it goes away', async () => {
  await using harness = await Harness.start()
  fill(harness, 4000, 10_000)
  const socket = connect(harness.port, '127.0.0.1')
  socket.on('error', () => {})
  socket.pause()
  socket.write('GET /v1/kv/default?values=1 HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n')
  // 40 MB do not fit into the buffers of a connection: the calls must come to rest before the end of the bucket.
  let before = -1
  await new Promise<void>((resolve) => {
    const watch = setInterval(() => {
      const { lists } = harness.coordinator
      if (lists > 0 && lists === before) {
        clearInterval(watch)
        resolve()
      }
      before = lists
    }, 100)
  })
  const resting = harness.coordinator.lists
  assert.ok(resting < 50, `${resting} of 63 pages were asked for although nobody read`)
  socket.destroy()
  await until(() => harness.counters.values[0] === 0)
  assert.ok(harness.coordinator.lists <= resting + 1)
  assert.deepEqual(harness.logged, [])
})

test('A stream that fails half-way does not look complete', async () => {
  await using harness = await Harness.start()
  fill(harness, 2500)
  const list = harness.coordinator.list.bind(harness.coordinator)
  harness.coordinator.list = (bucket, options, done) => {
    if (harness.coordinator.lists === 2) harness.coordinator.nextError = new SunwiseError('QUORUM_NOT_MET', 'no')
    list(bucket, options, done)
  }
  const text = await harness.raw([
    'GET /v1/kv/default HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n',
  ])
  assert.deepEqual(statusesOf(text), [200])
  assert.match(text, /\{"problem":\{.*"code":"QUORUM_NOT_MET"/)
  assert.ok(!text.endsWith('0\r\n\r\n'), 'the last chunk says that the answer is complete')
  harness.coordinator.nextError = new SunwiseError('OVERLOADED', 'no')
  assert.equal((await harness.json('GET', '/v1/kv/default', { headers: lines }))['httpStatus'], 503)
  harness.coordinator.nextError = new SunwiseError('BAD_CURSOR', 'no')
  assert.equal((await harness.json('GET', '/v1/kv/default'))['code'], 'BAD_CURSOR')
})
