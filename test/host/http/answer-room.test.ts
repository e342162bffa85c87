/** Answers that nobody reads: they are bounded in bytes, and their room comes back. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { Harness, limitsFor } from './http-harness.ts'

const valueBytes = 100_000
const limits = { ...limitsFor(1024 * 1024), pendingAnswerBytesMax: 10 * valueBytes }
const asks = 40

async function startWithValue(): Promise<Harness> {
  const harness = await Harness.start({ limits })
  const body = Buffer.alloc(valueBytes, 'x')
  assert.equal((await harness.call('PUT', '/v1/kv/default/large', { body })).status, 204)
  return harness
}

/** Sends requests in one piece, so that all of them are worked on before the first answer has left. */
async function pipeline(harness: Harness, requests: readonly string[]): Promise<Socket> {
  const socket = connect(harness.port, '127.0.0.1')
  await once(socket, 'connect')
  socket.pause()
  socket.write(requests.map((line) => `${line} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n`).join(''))
  return socket
}

/** Reads on until so many answers have begun; their statuses. */
async function statusesOf(socket: Socket, count: number): Promise<readonly number[]> {
  let text = ''
  for await (const part of socket) {
    // Values are all x: status lines stand out.
    text += (part as Buffer).toString('latin1').replaceAll(/x{10,}/g, 'x')
    const statuses = [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]))
    if (statuses.length === count) return statuses
  }
  return assert.fail('The connection ended early')
}

const countOf = (statuses: readonly number[], status: number): number =>
  statuses.filter((each) => each === status).length

for (const [what, target] of [
  ['values', '/v1/kv/default/large'],
  ['values as siblings', '/v1/kv/default/large?siblings=all'],
] as const) {
  test(`Answers with ${what} that wait to be read are bounded; beyond, reads are OVERLOADED`, async () => {
    await using harness = await startWithValue()
    const socket = await pipeline(harness, Array<string>(asks).fill(`GET ${target}`))
    const statuses = await statusesOf(socket, asks)
    socket.destroy()
    assert.equal(countOf(statuses, 200) + countOf(statuses, 503), asks)
    assert.ok(countOf(statuses, 200) >= 1)
    assert.ok(countOf(statuses, 503) >= asks / 2, `Refused: ${countOf(statuses, 503)} of ${asks}`)
    // All of it was read: there is room for as much again.
    for (let again = 0; again < 15; again++) assert.equal((await harness.call('GET', target)).status, 200)
  })
}

test('The room of answers comes back when their connection is cut', async () => {
  await using harness = await startWithValue()
  for (let round = 0; round < 5; round++) {
    const socket = await pipeline(harness, Array<string>(asks).fill('GET /v1/kv/default/large'))
    socket.resume()
    await once(socket, 'data')
    socket.destroy()
  }
  while ((await harness.server.connections) > 1) await new Promise((resolve) => setImmediate(resolve))
  const socket = await pipeline(harness, Array<string>(10).fill('GET /v1/kv/default/large'))
  const statuses = await statusesOf(socket, 10)
  socket.destroy()
  assert.deepEqual(statuses, Array<number>(10).fill(200))
})

test('Small answers and HEAD need no room', async () => {
  await using harness = await startWithValue()
  await harness.call('PUT', '/v1/kv/default/small', { body: 'x' })
  const requests = [
    ...Array<string>(30).fill('GET /v1/kv/default/large'),
    ...Array<string>(10).fill('GET /v1/kv/default/small'),
  ]
  const socket = await pipeline(harness, requests)
  const statuses = await statusesOf(socket, requests.length)
  socket.destroy()
  assert.deepEqual(statuses.slice(30), Array<number>(10).fill(200))
})

test('While a client does not read, others get what needs no room, and the whole of a batch but its reads', async () => {
  const large = 24 * 1024 * 1024
  const room = { ...limits, valueBytesMax: large, pendingAnswerBytesMax: large + valueBytes / 2 }
  await using harness = await Harness.start({ limits: room })
  harness.buckets.put('large', { valueBytesMax: large }, () => {})
  assert.equal((await harness.call('PUT', '/v1/kv/large/large', { body: Buffer.alloc(large) })).status, 204)
  await harness.call('PUT', '/v1/kv/default/key', { body: Buffer.alloc(valueBytes, 'x') })
  // More than the buffers of the system take.
  const socket = await pipeline(harness, ['GET /v1/kv/large/large'])
  const isFull = async (): Promise<boolean> => (await harness.call('GET', '/v1/kv/default/key')).status === 503
  while (!(await isFull())) await new Promise((resolve) => setImmediate(resolve))
  const operations = [
    { op: 'put', key: 'written', value: 'v' },
    { op: 'get', key: 'key' },
    { op: 'get', key: 'none' },
  ]
  const headers = { 'Content-Type': 'application/json' }
  const body = JSON.stringify(operations)
  const batch = await harness.call('POST', '/v1/batch/default', { headers, body })
  const statuses = (JSON.parse(batch.body.toString()) as { status: number }[]).map(({ status }) => status)
  assert.deepEqual(statuses, [204, 503, 404])
  const prefer = { Prefer: 'return=representation' }
  const put = await harness.call('PUT', '/v1/kv/default/put', { headers: prefer, body: Buffer.alloc(valueBytes) })
  assert.equal(put.status, 204, 'Written, but not sent back')
  for (const accept of ['application/json', 'application/x-ndjson']) {
    const listed = await harness.call('GET', '/v1/kv/default?values=1', { headers: { Accept: accept } })
    assert.equal(listed.status, 503, accept)
    assert.equal(listed.headers['retry-after'], '1')
  }
  assert.equal((await harness.call('GET', '/v1/kv/default')).status, 200)
  assert.equal((await harness.call('HEAD', '/v1/kv/default/key')).status, 200)
  socket.destroy()
  while (await isFull()) await new Promise((resolve) => setImmediate(resolve))
})
