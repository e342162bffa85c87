import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Harness } from './http-harness.ts'

const json = { 'Content-Type': 'application/json' }

test('Buckets are created, read, changed, listed and deleted', async () => {
  await using harness = await Harness.start()
  const put = (properties: unknown) =>
    harness.call('PUT', '/v1/buckets/carts', { body: JSON.stringify(properties), headers: json })
  const created = await put({
    n: 3,
    r: 'one',
    w: 2,
    sloppy: true,
    conflict: 'lww',
    durability: 'os',
    ttl: '1h',
    valueBytesMax: 10,
  })
  assert.equal(created.status, 201)
  assert.equal(created.headers.location, '/v1/buckets/carts')
  const bucket = {
    name: 'carts',
    n: 3,
    r: 'one',
    w: 2,
    sloppy: true,
    conflict: 'lww',
    durability: 'os',
    ttl: 3_600_000,
    valueBytesMax: 10,
  }
  assert.deepEqual(JSON.parse(created.body.toString()), bucket)
  const changed = await put({ ttl: null, durability: null })
  assert.equal(changed.status, 200)
  assert.deepEqual(JSON.parse(changed.body.toString()), { ...bucket, ttl: null, durability: null })
  const read = await harness.json('GET', '/v1/buckets/carts')
  assert.equal(read['ttl'], null)
  const all = await harness.json('GET', '/v1/buckets')
  assert.deepEqual(
    (all['buckets'] as { name: string }[]).map(({ name }) => name),
    ['default', 'carts'],
  )
  assert.equal((await put({ n: 2 })).status, 409)
  assert.equal((await harness.call('DELETE', '/v1/buckets/carts')).status, 204)
  assert.equal((await harness.json('DELETE', '/v1/buckets/carts'))['code'], 'BUCKET_NOT_FOUND')
  assert.equal((await harness.json('GET', '/v1/buckets/carts'))['code'], 'BUCKET_NOT_FOUND')
  assert.equal((await harness.json('DELETE', '/v1/buckets/default'))['code'], 'CONFLICT')
})

test('A bucket without properties has the defaults', async () => {
  await using harness = await Harness.start()
  const answer = await harness.call('PUT', '/v1/buckets/plain')
  assert.equal(answer.status, 201)
  assert.equal(JSON.parse(answer.body.toString()).conflict, 'siblings')
})

test('Bad properties are 422 with the property, bad names 400, other types 415', async () => {
  await using harness = await Harness.start()
  const bad: [unknown, string | undefined][] = [
    [{ n: 0 }, 'n'],
    [{ n: 1.5 }, 'n'],
    [{ n: '3' }, 'n'],
    [{ r: 'some' }, 'r'],
    [{ w: 0 }, 'w'],
    [{ sloppy: 1 }, 'sloppy'],
    [{ conflict: 'last' }, 'conflict'],
    [{ durability: 'never' }, 'durability'],
    [{ valueBytesMax: -1 }, 'valueBytesMax'],
    [{ nn: 1 }, 'nn'],
    [[], undefined],
    [null, undefined],
    ['text', undefined],
  ]
  for (const [properties, property] of bad) {
    const answer = await harness.json('PUT', '/v1/buckets/b', { body: JSON.stringify(properties), headers: json })
    assert.equal(answer['httpStatus'], 422, JSON.stringify(properties))
    assert.equal(answer['property'], property)
  }
  const put = (body: string, headers: Record<string, string> = json) =>
    harness.json('PUT', '/v1/buckets/b', { body, headers })
  assert.equal((await put('{"ttl":0}'))['code'], 'BAD_TTL')
  assert.equal((await put('{"n":1e999}'))['code'], 'UNPROCESSABLE')
  assert.equal((await put('{"n":1,"n":2}'))['code'], 'BAD_REQUEST')
  assert.equal((await put('{"__proto__":{}}'))['code'], 'UNPROCESSABLE')
  assert.equal((await put('{}', {}))['code'], 'UNSUPPORTED_MEDIA_TYPE')
  assert.equal((await put(`{"n":${' '.repeat(70_000)}1}`))['code'], 'REQUEST_TOO_LARGE')
  assert.equal((await harness.json('PUT', '/v1/buckets/a%20b'))['code'], 'BAD_BUCKET')
  assert.equal((await harness.json('PUT', `/v1/buckets/${'b'.repeat(129)}`))['code'], 'BAD_BUCKET')
  assert.equal((await harness.json('GET', '/v1/buckets/b?x=1'))['code'], 'BAD_REQUEST')
  assert.equal(harness.buckets.all().length, 1)
})
