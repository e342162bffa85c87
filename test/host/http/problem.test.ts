import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ErrorTable, SunwiseError } from '../../../src/base/errors.ts'
import {
  errorOf,
  internalDetail,
  problemOf,
  problemOfError,
  retryAfterSeconds,
} from '../../../src/host/http/problem.ts'

test('A problem has the members of its code, then those of the error', () => {
  const problem = problemOf({
    code: 'PRECONDITION_FAILED',
    detail: 'no',
    requestId: 'r-1',
    target: '/v1/kv/default/k?w=1',
    extra: { etag: '00', context: new Uint8Array([255]), code: 'FAKE' },
  })
  assert.deepEqual(problem, {
    type: 'urn:sunwise:problem:precondition-failed',
    title: ErrorTable.PRECONDITION_FAILED.title,
    status: 412,
    code: 'PRECONDITION_FAILED',
    detail: 'no',
    outcome: 'none',
    retryable: false,
    requestId: 'r-1',
    instance: '/v1/kv/default/k',
    etag: '00',
    context: '_w',
  })
})

test('A target of any length is cut', () => {
  const problem = problemOf({ code: 'NOT_FOUND', detail: 'no', target: `/${'a'.repeat(5000)}` })
  assert.equal(String(problem['instance']).length, 512)
})

test('Only coded errors keep their text', () => {
  const coded = new SunwiseError('TIMEOUT', 'late', { outcome: 'partial' })
  assert.equal(errorOf(coded), coded)
  assert.equal(problemOfError(coded)['outcome'], 'partial')
  const internal = errorOf(new TypeError('secret'))
  assert.equal(internal.code, 'INTERNAL')
  assert.equal(internal.message, internalDetail)
})

test('Retry-After stands on 429 and 503 and is at least a second', () => {
  assert.equal(retryAfterSeconds(503, undefined), 1)
  assert.equal(retryAfterSeconds(429, { retryAfterMs: 2001 }), 3)
  assert.equal(retryAfterSeconds(503, { retryAfterMs: -5 }), 1)
  assert.equal(retryAfterSeconds(507, { retryAfterMs: 2001 }), 0)
})
