import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SunwiseError } from '../../../src/base/errors.ts'
import { Limits } from '../../../src/config.ts'
import { Harness, statusesOf } from './http-harness.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const path = '/v1/batch/default'
const json = { 'Content-Type': 'application/json' }
const lines = { 'Content-Type': 'application/x-ndjson' }

type Result = Record<string, unknown> & { status: number; problem?: Record<string, unknown> }

async function batch(harness: Harness, operations: readonly unknown[]): Promise<Result[]> {
  const answer = await harness.call('POST', path, { body: JSON.stringify(operations), headers: json })
  assert.equal(answer.status, 200, answer.body.toString())
  assert.equal(answer.headers['content-type'], 'application/json')
  return JSON.parse(answer.body.toString())
}

test('A batch answers each operation in request order with its own status', async () => {
  await using harness = await Harness.start()
  const results = await batch(harness, [
    { op: 'put', key: 'a', value: 'text \u{1f600}', contentType: 'text/plain', ttl: '30s' },
    { op: 'put', key64: '_w', value64: '/w==' },
    { op: 'get', key: 'a' },
    { op: 'get', key64: '_w' },
    { op: 'get', key: 'none' },
    { op: 'delete', key: 'a' },
    { op: 'get', key: 'a' },
  ])
  assert.deepEqual(
    results.map((result) => result.status),
    [204, 204, 200, 200, 404, 204, 404],
  )
  assert.equal(results[2]!['value'], 'text \u{1f600}')
  assert.equal(results[2]!['contentType'], 'text/plain')
  assert.equal(results[2]!['expires'], harness.coordinator.nowMs + 30_000)
  assert.equal(results[2]!['etag'], results[0]!['etag'])
  assert.equal(results[2]!['context'], results[0]!['context'])
  assert.equal(results[3]!['value64'], '/w==')
  assert.equal(results[3]!['value'], undefined)
  assert.equal(results[4]!['context'], undefined)
  assert.equal(results[4]!.problem?.['code'], 'NOT_FOUND')
  assert.equal(typeof results[6]!['context'], 'string')
})

test('A batch in lines is answered in lines', async () => {
  await using harness = await Harness.start()
  const body = '{"op":"put","key":"a","value":"1"}\r\n\n{"op":"get","key":"a"}'
  const answer = await harness.call('POST', path, { body, headers: lines })
  assert.equal(answer.headers['content-type'], 'application/x-ndjson')
  const results = answer.body.toString().split('\n')
  assert.equal(results.length, 3)
  assert.equal(results[2], '')
  assert.equal(JSON.parse(results[1]!).value, '1')
  const accepted = await harness.call('POST', path, {
    body: '[{"op":"get","key":"a"}]',
    headers: { ...json, Accept: 'application/x-ndjson' },
  })
  assert.equal(accepted.headers['content-type'], 'application/x-ndjson')
  assert.equal(JSON.parse(accepted.body.toString()).status, 200)
})

test('An operation with a bad field fails alone and says why', async () => {
  await using harness = await Harness.start()
  const cases: [unknown, number, string][] = [
    [{ op: 'put', key: '', value: 'v' }, 400, 'BAD_KEY'],
    [{ op: 'put', value: 'v' }, 400, 'BAD_KEY'],
    [{ op: 'put', key: 'a', key64: 'YQ', value: 'v' }, 400, 'BAD_KEY'],
    [{ op: 'put', key: 'k'.repeat(2049), value: 'v' }, 400, 'BAD_KEY'],
    [{ op: 'put', key: '\ud800', value: 'v' }, 400, 'BAD_KEY'],
    [{ op: 'put', key: 7, value: 'v' }, 400, 'BAD_KEY'],
    [{ op: 'get', key64: 'YQ==' }, 400, 'BAD_KEY'],
    [{ op: 'put', key: 'a' }, 422, 'UNPROCESSABLE'],
    [{ op: 'put', key: 'a', value: 'v', value64: 'dg==' }, 422, 'UNPROCESSABLE'],
    [{ op: 'put', key: 'a', value64: 'dg' }, 422, 'UNPROCESSABLE'],
    [{ op: 'put', key: 'a', value: 5 }, 422, 'UNPROCESSABLE'],
    [{ op: 'put', key: 'a', value: '\udc00' }, 422, 'UNPROCESSABLE'],
    [{ op: 'put', key: 'a', value: 'v', ttl: 0 }, 400, 'BAD_TTL'],
    [{ op: 'put', key: 'a', value: 'v', ttl: 1.5 }, 400, 'BAD_TTL'],
    [{ op: 'put', key: 'a', value: 'v', ttl: '5 s' }, 400, 'BAD_TTL'],
    [{ op: 'put', key: 'a', value: 'v', context: '!' }, 400, 'BAD_CONTEXT'],
    [{ op: 'put', key: 'a', value: 'v', contentType: 'a\nb' }, 400, 'BAD_REQUEST'],
    [{ op: 'put', key: 'a', value: 'v', ifMatch: 5 }, 422, 'UNPROCESSABLE'],
    [{ op: 'put', key: 'a', value: 'v', ifMatch: [5] }, 422, 'UNPROCESSABLE'],
    [{ op: 'put', key: 'a', value: 'v', ifNoneMatch: 'x' }, 422, 'UNPROCESSABLE'],
    [{ op: 'get', key: 'a', value: 'v' }, 422, 'UNPROCESSABLE'],
    [{ op: 'drop', key: 'a' }, 422, 'UNPROCESSABLE'],
    [{ key: 'a' }, 422, 'UNPROCESSABLE'],
    [5, 422, 'UNPROCESSABLE'],
    [null, 422, 'UNPROCESSABLE'],
    [[], 422, 'UNPROCESSABLE'],
    [{ op: 'put', key: 'a', value: 'v', ifMatch: '*' }, 412, 'PRECONDITION_FAILED'],
    [{ op: 'put', key: 'a', value: 'x'.repeat(1024 * 1024 + 1) }, 413, 'VALUE_TOO_LARGE'],
  ]
  const good = { op: 'put', key: 'good', value: 'v' }
  const results = await batch(harness, [good, ...cases.map(([operation]) => operation), good])
  assert.equal(results.length, cases.length + 2)
  assert.equal(results[0]!.status, 204)
  assert.equal(results.at(-1)!.status, 204)
  cases.forEach(([operation, status, code], index) => {
    const result = results[index + 1]!
    assert.equal(result.status, status, JSON.stringify(operation).slice(0, 80))
    assert.equal(result.problem?.['code'], code, JSON.stringify(operation).slice(0, 80))
    assert.equal(result.problem?.['outcome'], 'none')
  })
  assert.equal(harness.coordinator.size, 1)
  const proto = await harness.call('POST', path, { body: '[{"op":"get","key":"a","__proto__":1}]', headers: json })
  assert.equal(JSON.parse(proto.body.toString())[0].status, 422)
  const misspelt = await batch(harness, [{ op: 'put', key: 'a', vlaue: 'v' }])
  assert.match(String(misspelt[0]!.problem?.['detail']), /did you mean 'value'\?/)
})

test('Preconditions, contexts and siblings work within a batch', async () => {
  await using harness = await Harness.start()
  const [first] = await batch(harness, [{ op: 'put', key: 'k', value: 'a', ifNoneMatch: '*' }])
  const context = first!['context']
  const results = await batch(harness, [
    { op: 'put', key: 'k', value: 'x', ifNoneMatch: '*' },
    { op: 'put', key: 'k', value: 'b', context, ifMatch: [first!['etag']] },
    { op: 'put', key: 'k', value: 'c', context },
    { op: 'get', key: 'k' },
  ])
  assert.deepEqual(
    results.map((result) => result.status),
    [412, 204, 204, 300],
  )
  assert.equal(results[0]!.problem?.['etag'], first!['etag'])
  assert.equal(results[0]!.problem?.['context'], context)
  assert.equal(results[2]!['siblings'], 2)
  assert.equal(results[3]!['siblings'], 2)
  const values = results[3]!['values'] as { value: string }[]
  assert.deepEqual(
    values.map(({ value }) => value),
    ['c', 'b'],
  )
})

test('A malformed body applies nothing and says at which operation it broke', async () => {
  await using harness = await Harness.start()
  const good = '{"op":"put","key":"a","value":"v"}'
  const bad: [string, Record<string, string>][] = [
    [`${good}\n${good}\n{"op":`, lines],
    [`${good}\n${good}\n{"op":"put","key":"a\nb","value":"v"}`, lines],
    [`[${good},${good},{]`, json],
    [`[${good},${good},"\\x"]`, json],
  ]
  for (const [body, headers] of bad) {
    const answer = await harness.json('POST', path, { body, headers })
    assert.equal(answer['httpStatus'], 400, body)
    assert.equal(answer['code'], 'BAD_REQUEST')
    assert.equal(answer['outcome'], 'none')
    assert.equal(answer['index'], 2, body)
  }
  const notUtf8 = Buffer.from('{"op":"put","key":"\xff","value":"v"}\n', 'latin1')
  assert.equal((await harness.json('POST', path, { body: notUtf8, headers: lines }))['code'], 'BAD_REQUEST')
  assert.equal(harness.coordinator.writes, 0)
})

test('A batch of another type, of too many operations or too many bytes is refused', async () => {
  await using harness = await Harness.start()
  for (const headers of [{}, { 'Content-Type': 'text/plain' }, { 'Content-Type': 'application/json-seq' }]) {
    assert.equal((await harness.json('POST', path, { body: '[]', headers }))['httpStatus'], 415)
  }
  for (const type of ['application/json; charset=utf-8', 'Application/JSON', ' application/json\t']) {
    assert.equal(
      (await harness.call('POST', path, { body: '[]', headers: { 'Content-Type': type } })).status,
      200,
      type,
    )
  }
  const operations = Array.from({ length: Limits.batchOperationsMax + 1 }, () => ({ op: 'put', key: 'a', value: 'v' }))
  const many = await harness.json('POST', path, { body: JSON.stringify(operations), headers: json })
  assert.equal(many['httpStatus'], 413)
  assert.equal(many['code'], 'REQUEST_TOO_LARGE')
  assert.equal((await batch(harness, operations.slice(1))).length, Limits.batchOperationsMax)
  harness.coordinator.writes = 0
  const blank = Buffer.alloc(Limits.batchBytesMax + 1, ' ')
  for (const extra of [{}, { 'Transfer-Encoding': 'chunked' }]) {
    const large = await harness.json('POST', path, { body: blank, headers: { ...json, ...extra } })
    assert.equal(large['code'], 'REQUEST_TOO_LARGE')
  }
  assert.equal(harness.coordinator.writes, 0)
  assert.equal(
    (await harness.json('POST', '/v1/batch/none', { body: '[]', headers: json }))['code'],
    'BUCKET_NOT_FOUND',
  )
  assert.equal((await harness.json('POST', '/v1/batch/', { body: '[]', headers: json }))['code'], 'BAD_BUCKET')
  const timed = await harness.json('POST', `${path}?timeout=0`, { body: '[]', headers: json })
  assert.equal(timed['code'], 'BAD_TIMEOUT')
})

test('Values of one answer stop at the limit and the rest may be asked for again', async () => {
  await using harness = await Harness.start()
  const value = Buffer.alloc(1024 * 1024, 'v')
  await harness.call('PUT', '/v1/kv/default/big', { body: value })
  const gets = Array.from({ length: 18 }, () => ({ op: 'get', key: 'big' }))
  const results = await batch(harness, gets)
  assert.deepEqual(
    results.map((result) => result.status),
    [...Array(16).fill(200), 413, 413],
  )
  assert.equal(results[17]!.problem?.['code'], 'RESPONSE_LIMIT')
  assert.equal(results[17]!.problem?.['retryable'], true)
  assert.equal(results[15]!['value'], value.toString())
})

test('An error of the whole batch is one problem', async () => {
  await using harness = await Harness.start()
  harness.coordinator.nextError = new SunwiseError('TIMEOUT', 'The deadline passed', { outcome: 'partial' })
  const body = '[{"op":"put","key":"a","value":"v"}]'
  const answer = await harness.json('POST', `${path}?timeout=2s`, { body, headers: json })
  assert.equal(answer['httpStatus'], 504)
  assert.equal(answer['outcome'], 'partial')
  assert.deepEqual(harness.coordinator.lastOptions, { timeoutMs: 2000 })
})

test('Any batch gives the same results however its bytes are cut', async () => {
  await using harness = await Harness.start()
  const key = fc.uint8Array({ minLength: 1, maxLength: 6 }).map((bytes) => Buffer.from(bytes).toString('base64url'))
  const value = fc.uint8Array({ maxLength: 30 })
  const operation = fc.oneof(
    fc.record({ op: fc.constant('get'), key64: key }),
    fc.record({ op: fc.constant('delete'), key64: key }),
    fc.record({
      op: fc.constant('put'),
      key64: key,
      value64: value.map((bytes) => Buffer.from(bytes).toString('base64')),
    }),
    fc.record({
      op: fc.constant('put'),
      key: fc.string({ minLength: 1, unit: 'binary' }),
      value: fc.string({ unit: 'binary' }),
    }),
  )
  await fc.assert(
    fc.asyncProperty(
      fc.array(operation, { maxLength: 8 }),
      fc.boolean(),
      fc.integer({ min: 1, max: 40 }),
      async (operations, inLines, step) => {
        const text = inLines ? operations.map((one) => JSON.stringify(one)).join('\n') : JSON.stringify(operations)
        const body = Buffer.from(text)
        const pieces: Buffer[] = []
        for (let at = 0; at < body.length; at += step) {
          const piece = body.subarray(at, at + step)
          pieces.push(Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from('\r\n'))
        }
        const type = inLines ? 'application/x-ndjson' : 'application/json'
        const head = `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: ${type}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n`
        const answer = await harness.raw([head, ...pieces, '0\r\n\r\n'])
        assert.deepEqual(statusesOf(answer), [200], answer)
        const results = Buffer.from(answer.slice(answer.indexOf('\r\n\r\n') + 4), 'latin1').toString()
        const count = inLines ? results.split('\n').length - 1 : JSON.parse(results).length
        assert.equal(count, operations.length)
      },
    ),
    { numRuns: Math.ceil(60 * scale) },
  )
})
