/** Fuzzing of what arrives as JSON: bodies of batches, records of imports, answers of servers. `JSON.parse` is the judge. */
import assert from 'node:assert/strict'
import { isUtf8 } from 'node:buffer'
import { SunwiseError } from '../../src/base/errors.ts'
import type { SeededRandom } from '../../src/base/seeded-random.ts'
import { parseImportRecord } from '../../src/cli/import-record.ts'
import { ImportSplitter } from '../../src/cli/import-splitter.ts'
import {
  entryIn,
  errorOfReply,
  isObject,
  parseJson as parseAnswer,
  receiptOf,
  valuesIn,
} from '../../src/client/http-answer.ts'
import { Limits } from '../../src/config.ts'
import { batchOperationOf } from '../../src/host/http/batch-operation.ts'
import { JsonElements, type JsonLimits, parseJson } from '../../src/host/http/json-elements.ts'
import { fuzz } from './fuzzing.ts'

const limits: JsonLimits = { bytesMax: 600, depthMax: 8, membersMax: 40 }
const words = [
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '"',
  '\\',
  '\n',
  '\\u0000',
  '\\ud800',
  'null',
  'true',
  '-0',
  '1e999',
  '{"a":1,"a":2}',
  '"__proto__":',
  '[[[[[[[[[',
  '\xc3\xa9',
  '\xff',
  '\xef\xbb\xbf',
]
const inputsOf = (values: readonly unknown[]): Uint8Array[] => values.map((value) => Buffer.from(JSON.stringify(value)))

/** The value of a text, or the fact that there is none. */
function parsedValueOf(bytes: Uint8Array): { readonly value: unknown } | undefined {
  if (!isUtf8(bytes)) return undefined
  try {
    return { value: JSON.parse(Buffer.from(bytes).toString('utf8')) }
  } catch {
    return undefined
  }
}

/** Feeds a body in pieces that are drawn. */
function elementsOf(
  form: 'array' | 'lines',
  body: Uint8Array,
  random: SeededRandom,
): { readonly elements: unknown[]; readonly error: SunwiseError | undefined } {
  const elements: unknown[] = []
  const splitter = new JsonElements(form, limits, (element) => {
    elements.push(element)
    return undefined
  })
  const mayCut = (random.u32() & 3) !== 0
  for (let at = 0; at < body.length; ) {
    const bytes = mayCut ? 1 + (random.u32() & 31) : body.length
    const error = splitter.feed(Buffer.from(body.subarray(at, at + bytes)))
    if (error !== undefined) return { elements, error }
    at += bytes
  }
  return { elements, error: splitter.end() }
}

const batch = [
  { op: 'put', key: 'a', value: 'text', ttl: '30s', contentType: 'text/plain' },
  { op: 'get', key64: '_w' },
  { op: 'delete', key: 'b', ifNoneMatch: '*' },
  { op: 'put', key: 'c', value64: 'AAE=', ifMatch: ['0123456789abcdef'], ttl: 1000 },
]

fuzz('an array in any pieces has the elements that JSON.parse finds, or is refused', () => ({
  inputs: [...inputsOf([batch, [], [1, 'a,]', [2, [3]], null], [{ a: { b: [1, 2, { c: '"\\' }] } }]])],
  words,
  bytesMax: 500,
  look: (input, random) => {
    const { elements, error } = elementsOf('array', input, random)
    const whole = parsedValueOf(input)
    if (error === undefined) {
      assert.ok(whole !== undefined, 'What is accepted is JSON')
      assert.equal(JSON.stringify(elements), JSON.stringify(whole.value))
      return true
    }
    assert.ok(error instanceof SunwiseError && ['BAD_REQUEST', 'REQUEST_TOO_LARGE'].includes(error.code))
    // Only limits and names given twice may be refused of what is an array.
    if (whole !== undefined && Array.isArray(whole.value)) {
      assert.match(error.message, /name twice|deeper than|too many members|larger than|not valid UTF-8/)
    }
    return false
  },
}))

fuzz('lines in any pieces have the elements that JSON.parse finds, or are refused', () => ({
  inputs: [batch, [1, 'a', null], []].map((values) =>
    Buffer.from(values.map((value) => JSON.stringify(value)).join('\n')),
  ),
  words,
  bytesMax: 500,
  look: (input, random) => {
    const { elements, error } = elementsOf('lines', input, random)
    const lines = Buffer.from(input)
      .toString('latin1')
      .split('\n')
      .filter((line) => /[^ \t\r]/.test(line))
      .map((line) => parsedValueOf(Buffer.from(line, 'latin1')))
    if (error === undefined) {
      assert.equal(elements.length, lines.length)
      for (const [index, element] of elements.entries()) {
        assert.equal(JSON.stringify(element), JSON.stringify(lines[index]?.value))
      }
      return true
    }
    assert.ok(['BAD_REQUEST', 'REQUEST_TOO_LARGE'].includes(error.code))
    if (lines.every((line) => line !== undefined)) {
      assert.match(error.message, /name twice|deeper than|too many members|larger than|not valid UTF-8|empty place/)
    }
    return false
  },
}))

fuzz('operations of a batch are whole, or refused with a code', () => ({
  inputs: inputsOf([...batch, { op: 'put', key: 'd', value: 'x'.repeat(64) }]),
  words: [...words, '"op":"put"', '"key":', '"value64":', '"ttl":-1', '"ifMatch":[1]', '"context":"AA"', 'constructor'],
  bytesMax: 400,
  look: (input) => {
    let operation: ReturnType<typeof batchOperationOf>
    try {
      operation = batchOperationOf(parseJson(Buffer.from(input), limits), 64)
    } catch (error) {
      assert.ok(error instanceof SunwiseError && error.outcome === 'none', String(error))
      assert.ok(error.status >= 400 && error.status < 500, error.code)
      return false
    }
    assert.ok(operation.key.length >= 1 && operation.key.length <= Limits.keyBytesMax)
    if (operation.op === 'put') assert.ok(operation.value.length <= 64)
    if (operation.op !== 'get') {
      const ttlMs = operation.options?.ttlMs
      assert.ok(ttlMs === undefined || ttlMs === Number.POSITIVE_INFINITY || (ttlMs > 0 && ttlMs <= Limits.ttlMsMax))
    }
    return true
  },
}))

fuzz('records of an import come whole from any pieces, and are read or named a problem', () => {
  const records = [
    { key: 'user:42', value: 'text' },
    { key64: '_w', value64: 'AAE=', contentType: 'application/octet-stream', ttl: '5m' },
    { key: 'a', value: { any: [1, 'b'] }, expires: 1_790_000_000_000 },
  ]
  return {
    inputs: [
      Buffer.from(JSON.stringify(records)),
      Buffer.from(records.map((record) => JSON.stringify(record)).join('\n')),
      Buffer.from(`\ufeff${JSON.stringify(records[0])}\r\n`),
      Buffer.from(JSON.stringify({ key: 'long', value: 'x'.repeat(270) })),
    ],
    words,
    bytesMax: 500,
    look: (input, random) => {
      const splitter = new ImportSplitter(300)
      let isAny = false
      let tooLong = 0
      let ordinal = 0
      const take = (pieces: ReturnType<ImportSplitter['push']>): void => {
        for (const { bytes, problem, ordinal: found } of pieces) {
          assert.equal(found, ++ordinal)
          assert.ok((bytes === undefined) !== (problem === undefined))
          if (problem?.startsWith('longer than')) tooLong++
          if (bytes === undefined) continue
          assert.ok(bytes.length >= 1 && bytes.length <= 300)
          const parsed = parseImportRecord(bytes, undefined, 1_780_000_000_000)
          if (parsed.kind === 'problem') assert.ok(parsed.problem.length > 0)
          if (parsed.kind !== 'record') continue
          const { key, ttlMs } = parsed.record
          assert.ok(key.length >= 1 && key.length <= Limits.keyBytesMax && (ttlMs === undefined || ttlMs >= 1))
          isAny = true
        }
      }
      for (let at = 0; at < input.length; ) {
        const bytes = 1 + (random.u32() & 63)
        take(splitter.push(input.slice(at, at + bytes)))
        assert.ok(splitter.bytesKept <= 300)
        at += bytes
      }
      take(splitter.end())
      const isOneLine = input.length > 300 && input[0] === 0x7b && !input.includes(0x0a)
      if (isOneLine) assert.deepEqual([ordinal, tooLong], [1, 1], 'A record that is too long is reported')
      return isAny
    },
  }
})

fuzz('answers of any server are read, or become a coded error', () => ({
  inputs: inputsOf([
    { value: 'text', etag: '"a"', context: 'AA', acks: '1/1', siblings: 1 },
    { siblings: [{ value64: 'AAE=', contentType: 'a/b', expires: 5 }, { value: '' }] },
    { code: 'STORE_FULL', status: 507, detail: 'no', outcome: 'none' },
    { type: 'x', title: 'y', code: 'NO_SUCH_CODE', outcome: 'partial' },
  ]),
  words,
  bytesMax: 300,
  look: (input, random) => {
    const status = 100 + (random.u32() % 500)
    const headers = { 'content-type': 'application/problem+json', etag: Buffer.from(input).toString('latin1') }
    const reply = { status, headers, body: Buffer.from(input) }
    for (const isRead of [true, false]) {
      const error = errorOfReply(reply, isRead)
      assert.ok(error instanceof SunwiseError && typeof error.message === 'string')
      assert.ok(['none', 'partial', 'unknown'].includes(error.outcome))
    }
    assert.ok(Number.isFinite(receiptOf(reply, 1).siblings))
    let json: unknown
    try {
      json = parseAnswer(input)
    } catch (error) {
      assert.ok(error instanceof SunwiseError && error.code === 'INTERNAL', String(error))
      return false
    }
    valuesIn(json)
    if (!isObject(json)) return false
    const entry = entryIn(json)
    assert.ok(typeof entry.siblings === 'number')
    for (const { value } of entry.values) assert.ok(value instanceof Uint8Array)
    return true
  },
}))
