import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SunwiseError } from '../../../src/base/errors.ts'
import { Limits } from '../../../src/config.ts'
import {
  bucketNameOf,
  characterRefused,
  decodedTooLong,
  decodePercent,
  isBucketName,
  KeyDecoder,
  malformedPercent,
} from '../../../src/host/http/target.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const hasCode = (code: string) => (error: unknown) => error instanceof SunwiseError && error.code === code

/** Any of the spellings that a client may choose for a byte. */
function spell(byte: number, choice: number): string {
  const hexadecimal = byte.toString(16).padStart(2, '0')
  const mayBeRaw = byte > 0x20 && byte < 0x7f && byte !== 0x25 && byte !== 0x23 && byte !== 0x3f
  if (mayBeRaw && choice === 0) return String.fromCharCode(byte)
  return `%${choice === 1 ? hexadecimal.toUpperCase() : hexadecimal}`
}

test('Any bytes come back from any spelling of them', () => {
  const into = new Uint8Array(64)
  const bytes = fc.array(fc.tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 0, max: 2 })), { maxLength: 64 })
  fc.assert(
    fc.property(bytes, (spelt) => {
      const text = `/x/${spelt.map(([byte, choice]) => spell(byte, choice)).join('')}?`
      const length = decodePercent(text, 3, text.length - 1, into)
      assert.equal(length, spelt.length)
      assert.deepEqual(
        [...into.subarray(0, length)],
        spelt.map(([byte]) => byte),
      )
    }),
    { numRuns: 2000 * scale },
  )
})

test('Any text is decoded or refused, never read past its end', () => {
  const into = new Uint8Array(8)
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 20 }), (text) => {
      const length = decodePercent(text, 0, text.length, into)
      assert.ok(length <= 8 && length >= decodedTooLong)
    }),
    { numRuns: 5000 * scale },
  )
  assert.equal(decodePercent('a%4', 0, 3, into), malformedPercent)
  assert.equal(decodePercent('a%41', 0, 3, into), malformedPercent)
  assert.equal(decodePercent('%g0', 0, 3, into), malformedPercent)
  for (const text of ['\u00e9', '\0', ' ', '#', '\x7f', '\u{1f600}']) {
    assert.equal(decodePercent(text, 0, text.length, into), characterRefused, JSON.stringify(text))
  }
  assert.equal(decodePercent('123456789', 0, 9, into), decodedTooLong)
})

test('A decoder gives one view per length and refuses keys by their bytes, not their characters', () => {
  const keys = new KeyDecoder()
  assert.equal(Buffer.from(keys.decode('/ab%63', 1, 6)).toString(), 'abc')
  assert.equal(keys.decode('xyz', 0, 3), keys.decode('abc', 0, 3), 'no view is made twice')
  const longest = '%41'.repeat(Limits.keyBytesMax)
  assert.equal(keys.decode(longest, 0, longest.length).length, Limits.keyBytesMax)
  assert.throws(() => keys.decode(`${longest}a`, 0, longest.length + 1), hasCode('BAD_KEY'))
  assert.throws(() => keys.decode('', 0, 0), hasCode('BAD_KEY'))
  assert.deepEqual([...keys.decode64('_w', 0, 2)], [255])
  for (const text of ['', '_w=', '/w', 'A', '_x', '%5fw%']) {
    assert.throws(() => keys.decode64(text, 0, text.length), hasCode('BAD_KEY'), text)
  }
  assert.deepEqual([...keys.decode64('%5Fw', 0, 4)], [255])
})

test('Bucket names are 1 to 128 unreserved characters', () => {
  for (const name of ['a', 'A-b_c.9', '.', '..', 'x'.repeat(128)]) assert.ok(isBucketName(name), name)
  for (const name of ['', 'a b', 'a/b', 'a%', '\u00e9', 'x'.repeat(129), 'a~b', 'a:b'])
    assert.ok(!isBucketName(name), name)
  assert.equal(bucketNameOf('%61b'), 'ab')
  for (const segment of ['%', '%2f', 'a%20', '%61'.repeat(129)]) {
    assert.throws(() => bucketNameOf(segment), hasCode('BAD_BUCKET'), segment)
  }
})
