import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decodeBase64, decodeBase64Url, encodeBase64, encodeBase64Url } from '../../../src/host/http/base64.ts'

test('Bytes come back from both encodings', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 50 }), (bytes) => {
      assert.deepEqual(new Uint8Array(decodeBase64(encodeBase64(bytes))!), bytes)
      assert.deepEqual(new Uint8Array(decodeBase64Url(encodeBase64Url(bytes))!), bytes)
    }),
  )
})

test('A view into a larger buffer is encoded alone', () => {
  const bytes = new Uint8Array([1, 2, 3, 255, 4]).subarray(3, 4)
  assert.equal(encodeBase64(bytes), '/w==')
  assert.equal(encodeBase64Url(bytes), '_w')
})

test('Text that is not the one encoding of its bytes is refused', () => {
  for (const text of ['/w', '_w==', '/x==', '/w= =', '/w==\n', 'A', '====', '/w==/w==']) {
    assert.equal(decodeBase64(text), undefined, text)
  }
  for (const text of ['/w', '_w==', '_x', '_w ', 'A', '=', '\u00e9', '_w.'])
    assert.equal(decodeBase64Url(text), undefined, text)
})
