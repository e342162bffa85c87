import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { SunwiseError } from '../../../src/base/errors.ts'
import { JsonElements, type JsonLimits, parseJson } from '../../../src/host/http/json-elements.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const roomy: JsonLimits = { bytesMax: 1_000_000, depthMax: 32, membersMax: 10_000 }

function cut(
  form: 'array' | 'lines',
  body: Buffer,
  sizes: readonly number[],
  limits = roomy,
): unknown[] | SunwiseError {
  const elements: unknown[] = []
  const splitter = new JsonElements(form, limits, (element) => {
    elements.push(element)
    return undefined
  })
  let at = 0
  for (let turn = 0; at < body.length; turn++) {
    const size = sizes[turn % sizes.length] ?? body.length
    const error = splitter.feed(Buffer.from(body.subarray(at, at + size)))
    if (error !== undefined) return error
    at += size
  }
  return splitter.end() ?? elements
}

const sizes = fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 5 })
const document = fc.array(fc.jsonValue({ maxDepth: 4 }), { maxLength: 6 })

/** fast-check makes -0, which JSON writes as 0. */
const throughJson = (value: unknown): unknown => JSON.parse(JSON.stringify(value))

test('An array cut anywhere has the elements that JSON.parse finds', () => {
  fc.assert(
    fc.property(document, sizes, fc.integer({ min: 0, max: 3 }), (values, cuts, indent) => {
      const text = ` ${JSON.stringify(values, undefined, indent)}\r\n`
      assert.deepEqual(cut('array', Buffer.from(text), cuts), throughJson(values))
    }),
    { numRuns: 1000 * scale },
  )
})

test('Lines cut anywhere have the elements that JSON.parse finds', () => {
  fc.assert(
    fc.property(document, sizes, fc.constantFrom('\n', '\r\n', '\n\n \n'), (values, cuts, end) => {
      const text = values.map((value) => JSON.stringify(value)).join(end)
      assert.deepEqual(cut('lines', Buffer.from(text), cuts), throughJson(values))
    }),
    { numRuns: 1000 * scale },
  )
})

test('Text that JSON.parse refuses is refused, and what it takes as an array is taken', () => {
  const token = fc.constantFrom(
    '[',
    ']',
    '{',
    '}',
    ',',
    ':',
    '"',
    '\\',
    '1',
    ' ',
    'null',
    '"a"',
    '{"a":1}',
    '\n',
    '-',
    'e',
  )
  fc.assert(
    fc.property(fc.array(token, { maxLength: 12 }), sizes, (tokens, cuts) => {
      const text = tokens.join('')
      let expected: unknown
      try {
        expected = JSON.parse(text)
      } catch {
        expected = undefined
      }
      const found = cut('array', Buffer.from(text), cuts)
      if (Array.isArray(expected)) assert.deepEqual(found, expected)
      else assert.ok(!Array.isArray(found), text)
    }),
    { numRuns: 5000 * scale },
  )
})

test('Size, depth and members of an element are limited before it is parsed', () => {
  const tight: JsonLimits = { bytesMax: 20, depthMax: 3, membersMax: 4 }
  const code = (text: string, form: 'array' | 'lines' = 'array'): string => {
    const found = cut(form, Buffer.from(text), [7], tight)
    return Array.isArray(found) ? 'taken' : found.code
  }
  assert.equal(code(`["${'a'.repeat(18)}"]`), 'taken')
  assert.equal(code(`["${'a'.repeat(19)}"]`), 'REQUEST_TOO_LARGE')
  assert.equal(code(`"${'a'.repeat(19)}"`, 'lines'), 'REQUEST_TOO_LARGE')
  assert.equal(code('[[[[]]]]'), 'taken')
  assert.equal(code('[[[[[]]]]]'), 'BAD_REQUEST')
  assert.equal(code('[[1,2,3,4,5]]'), 'taken')
  assert.equal(code('[[1,2,3,4,5,6]]'), 'BAD_REQUEST')
  assert.equal(code('["[[[[[[,,,,,,::::"]'), 'taken')
  assert.equal(code('[{"a":1,"a":2}]'), 'BAD_REQUEST')
  assert.equal(code('[{"a":{"b":1}}]'), 'taken')
})

test('A whole text is checked like an element', () => {
  assert.deepEqual(parseJson(Buffer.from(' {"a":[1]}\n'), roomy), { a: [1] })
  for (const text of ['', '\ufeff{}', '{"a":1,"a":1}', '['.repeat(33) + ']'.repeat(33), '{"a":1} x', '{"a":01}']) {
    assert.throws(() => parseJson(Buffer.from(text), roomy), { code: 'BAD_REQUEST' }, text)
  }
  assert.throws(() => parseJson(Buffer.from('"\xff"', 'latin1'), roomy), { code: 'BAD_REQUEST' })
  assert.throws(() => parseJson(Buffer.from('[1,2,3]'), { ...roomy, membersMax: 1 }), { code: 'BAD_REQUEST' })
})
