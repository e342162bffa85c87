import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { pushContentType, pushReceipt, readMembers, writeMembers } from '../../../src/host/http/stored-value.ts'
import type { ReadAnswer, Receipt } from '../../../src/replication/requests.ts'

const receipt: Receipt = { acks: 2, replicas: 3, sloppy: false, durable: true, epoch: 1 }

test('The receipt says acks, replicas, and fallbacks where they were counted', () => {
  const headers: string[] = []
  pushReceipt(headers, receipt)
  pushReceipt(headers, { ...receipt, acks: 9, replicas: 12, sloppy: true })
  assert.deepEqual(headers, ['Sunwise-Acks', '2/3', 'Sunwise-Acks', '9/12', 'Sunwise-Sloppy', '1'])
})

test('A value is text in JSON only where its bytes are UTF-8; none is changed', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array(),
        fc.string({ unit: 'binary' }).map((text) => new TextEncoder().encode(text)),
      ),
      (value) => {
        const answer: ReadAnswer = {
          values: [{ value, contentType: 'a"b', expiresAtMs: 5 }],
          etag: '00',
          context: new Uint8Array([255]),
          receipt,
        }
        const parsed = JSON.parse(`{"x":1${readMembers(answer)}}`)
        const back = parsed.value === undefined ? Buffer.from(parsed.value64, 'base64') : Buffer.from(parsed.value)
        assert.deepEqual(new Uint8Array(back), value)
        assert.equal(parsed.contentType, 'a"b')
        assert.equal(parsed.expires, 5)
        assert.equal(parsed.context, '_w')
      },
    ),
    { numRuns: 500 },
  )
})

test('A write answer has only the members that it knows', () => {
  const nothing = { etag: undefined, context: undefined, siblings: 0, expiresAtMs: undefined, receipt }
  assert.equal(writeMembers(nothing), '')
  const all = { etag: '00', context: new Uint8Array([255]), siblings: 2, expiresAtMs: 7, receipt }
  assert.equal(writeMembers(all), ',"etag":"00","context":"_w","siblings":2,"expires":7')
})

test('A content type that no browser runs goes without a policy, any other with one', () => {
  const headersOf = (type: string): string[] => {
    const headers: string[] = []
    pushContentType(headers, type)
    return headers
  }
  assert.ok(!headersOf('application/json').includes('Content-Security-Policy'))
  for (const type of ['text/html', 'image/svg+xml', 'application/xml', 'APPLICATION/JSON']) {
    assert.ok(headersOf(type).includes('Content-Security-Policy'), type)
  }
  assert.equal(headersOf('')[1], 'application/octet-stream')
})
