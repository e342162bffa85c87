import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decodeBase64, exportLine, parseImportRecord } from '../../src/cli/import-record.ts'
import { ImportSplitter } from '../../src/cli/import-splitter.ts'

const NOW_MS = 1_790_000_000_000
const parse = (text: string, keyField?: string) => parseImportRecord(Buffer.from(text), keyField, NOW_MS)

function recordOf(
  text: string,
  keyField?: string,
): { key: string; value: string; contentType: string | undefined; ttlMs: number | undefined } {
  const parsed = parse(text, keyField)
  assert.ok(parsed.kind === 'record', `${text}: ${JSON.stringify(parsed)}`)
  const { key, value, contentType, ttlMs } = parsed.record
  return { key: Buffer.from(key).toString('latin1'), value: Buffer.from(value).toString('latin1'), contentType, ttlMs }
}

test('exportLine() writes what the splitter and parseImportRecord() read back, for any bytes', () => {
  const stored = fc.record({
    key: fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 40 }),
      fc.string({ minLength: 1, unit: 'binary' }).map((text) => new Uint8Array(Buffer.from(text))),
    ),
    value: fc.oneof(
      fc.uint8Array({ maxLength: 100 }),
      fc.string({ unit: 'binary' }).map((text) => new Uint8Array(Buffer.from(text))),
    ),
    contentType: fc.constantFrom('application/octet-stream', 'text/plain; charset="x"'),
    expiresAtMs: fc.option(fc.integer({ min: NOW_MS + 1, max: NOW_MS * 2 }), { nil: undefined }),
  })
  fc.assert(
    fc.property(fc.array(stored, { maxLength: 5 }), (all) => {
      const lines = all.map(({ key, ...value }) =>
        exportLine(key, { values: [value], siblings: 1, etag: 'e', context: 'c', acks: '1/1' }),
      )
      const splitter = new ImportSplitter()
      const pieces = [...splitter.push(Buffer.from(lines.join(''))), ...splitter.end()]
      assert.equal(pieces.length, all.length)
      for (const [index, { key, value, contentType, expiresAtMs }] of all.entries()) {
        const parsed = parseImportRecord(pieces[index]!.bytes!, undefined, NOW_MS)
        assert.ok(parsed.kind === 'record')
        assert.deepEqual(Buffer.from(parsed.record.key), Buffer.from(key))
        assert.deepEqual(Buffer.from(parsed.record.value), Buffer.from(value))
        assert.equal(parsed.record.contentType, contentType)
        assert.equal(parsed.record.ttlMs, expiresAtMs === undefined ? undefined : expiresAtMs - NOW_MS)
      }
    }),
  )
})

test('exportLine() is stable', () => {
  const value = (bytes: number[], expiresAtMs?: number) => ({
    value: Uint8Array.from(bytes),
    contentType: 'a/b',
    expiresAtMs,
  })
  const entry = { siblings: 2, etag: 'e', context: 'c', acks: '1/1' }
  assert.equal(
    exportLine(Buffer.from('grüß'), { ...entry, values: [value([104, 105]), value([255], 7)] }),
    '{"key":"grüß","value":"hi","contentType":"a/b","siblings":[{"value64":"/w==","contentType":"a/b","expires":7}]}\n',
  )
  assert.equal(
    exportLine(Uint8Array.of(255, 239), { ...entry, values: [value([0])] }),
    '{"key64":"_-8","value":"\\u0000","contentType":"a/b"}\n',
  )
})

test('parseImportRecord() reads text, bytes, JSON, expiry', () => {
  const plain = { contentType: undefined, ttlMs: undefined }
  assert.deepEqual(recordOf('{"key":"a","value":"b"}'), { key: 'a', value: 'b', ...plain })
  assert.deepEqual(recordOf('{"key64":"_-8","value64":"/w=="}'), { key: '\xff\xef', value: '\xff', ...plain })
  assert.deepEqual(recordOf('{"key64":"/+8=","value64":""}'), { key: '\xff\xef', value: '', ...plain })
  assert.equal(recordOf('{"key":"a","value":"b","ttl":"5m"}').ttlMs, 300_000)
  assert.equal(recordOf('{"key":"a","value":"b","ttl":7}').ttlMs, 7)
  assert.equal(recordOf(`{"key":"a","value":"b","expires":${NOW_MS + 9}}`).ttlMs, 9)
  assert.equal(recordOf('{"key":"a","value":"b","expires":null,"ttl":null,"etag":"x"}').ttlMs, undefined)
  assert.deepEqual(parse(`{"key":"a","value":"b","expires":${NOW_MS}}`), { kind: 'expired' })
})

test('parseImportRecord() keeps JSON values exactly as they are written', () => {
  const sources = [
    '{"x": [1, 2.50 ,"}\\"]"] }',
    '12345678901234567890',
    '-0',
    '1e999',
    'true',
    'null',
    '[ ]',
    '{"value":{"key":1}}',
  ]
  for (const source of sources) {
    const record = recordOf(`{"other_":0,"key":"a","value": ${source} ,"ttl":1}`.replace('"other_":0,', ''))
    assert.deepEqual(record, { key: 'a', value: source, contentType: 'application/json', ttlMs: 1 })
  }
  assert.equal(recordOf('{"val\\u0075e":[1],"key":"a"}').value, '[1]')
  assert.equal(recordOf('{"value":[1],"value":[2],"key":"a"}').value, '[2]')
})

test('parseImportRecord() stores whole records under a field of theirs', () => {
  const text = '{ "id" : "k" , "n": 1.50, "value64": "no base64" }'
  assert.deepEqual(recordOf(text, 'id'), { key: 'k', value: text, contentType: 'application/json', ttlMs: undefined })
  assert.equal(recordOf('{"id":12345678901234567890}', 'id').key, '12345678901234567890')
  for (const bad of ['{"x":1}', '{"id":null}', '{"id":{}}', '{"id":""}', '{"id":"\\ud800"}', '[1]']) {
    assert.equal(parse(bad, 'id').kind, 'problem', bad)
  }
  assert.equal(parse('{"id":"x"}', 'toString').kind, 'problem')
})

test('parseImportRecord() refuses hostile lines and says why', () => {
  const hostile: [string, RegExp][] = [
    ['', /not JSON/],
    ['{', /not JSON/],
    ['[]', /not a JSON object/],
    ['null', /not a JSON object/],
    ['"text"', /not a JSON object/],
    ['{"key":"a","value":"b"}{"key":"c"}', /not JSON/],
    ['{"key":"a"}', /either value or value64/],
    ['{"value":"a"}', /either key or key64/],
    ['{"key":"a","key64":"YQ","value":"b"}', /either key or key64/],
    ['{"key":"a","value":"b","value64":"YQ=="}', /either value or value64/],
    ['{"key":1,"value":"b"}', /key is not text/],
    ['{"key":"","value":"b"}', /0 bytes/],
    [`{"key":"${'k'.repeat(2049)}","value":"b"}`, /2049 bytes/],
    ['{"key":"\\ud800","value":"b"}', /surrogate/],
    ['{"key":"a","value":"\\udc00"}', /surrogate/],
    ['{"key64":"a","value":"b"}', /key64 is not base64/],
    ['{"key64":"YQ==","value64":"Y Q=="}', /value64 is not base64/],
    ['{"key64":"YQ==","value64":"YR=="}', /value64 is not base64/],
    ['{"key":"a","value64":7}', /value64 is not base64/],
    ['{"key":"a","vlaue":"b"}', /unknown member "vlaue" \(did you mean value\?\)/],
    ['{"key":"a","value":"b","color":1}', /unknown member "color".*--key-field/],
    ['{"__proto__":{"key":"a"},"value":"b"}', /unknown member "__proto__"/],
    ['{"key":"a","value":"b","ttl":0}', /ttl/],
    ['{"key":"a","value":"b","ttl":-1}', /ttl/],
    ['{"key":"a","value":"b","ttl":1.5}', /ttl/],
    ['{"key":"a","value":"b","ttl":1e999}', /ttl/],
    ['{"key":"a","value":"b","ttl":"soon"}', /ttl/],
    ['{"key":"a","value":"b","ttl":1,"expires":1}', /both/],
    ['{"key":"a","value":"b","expires":"tomorrow"}', /expires/],
    ['{"key":"a","value":"b","contentType":"a\\r\\nb: c"}', /contentType/],
    ['{"key":"a","value":"b","contentType":7}', /contentType/],
    [`{"key":"a","value":${'['.repeat(100_000)}${']'.repeat(100_000)}}`, /nested deeper/],
  ]
  for (const [line, message] of hostile) {
    const parsed = parse(line)
    assert.ok(parsed.kind === 'problem', line.slice(0, 80))
    assert.match(parsed.problem, message)
    assert.ok(parsed.problem.length < 200)
  }
  const notText = parseImportRecord(Uint8Array.of(0x7b, 0xff, 0x7d), undefined, NOW_MS)
  assert.deepEqual(notText, { kind: 'problem', problem: 'is not UTF-8' })
})

test('parseImportRecord() never throws, whatever the line', () => {
  const pieces = fc.constantFrom(
    '{',
    '}',
    '[',
    ']',
    '"',
    '\\',
    ':',
    ',',
    'key',
    'value',
    '"key":"a"',
    '"value":',
    '1',
    ' ',
    '\\u00',
    'é',
  )
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 30 }), (parts) => {
      const parsed = parse(parts.join(''))
      assert.ok(['record', 'problem', 'expired'].includes(parsed.kind))
      assert.ok(['record', 'problem'].includes(parse(parts.join(''), 'key').kind))
    }),
    { numRuns: 5_000 },
  )
})

test('decodeBase64() reads both alphabets and nothing else', () => {
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      const buffer = Buffer.from(bytes)
      assert.deepEqual(Buffer.from(decodeBase64(buffer.toString('base64'))!), buffer)
      assert.deepEqual(Buffer.from(decodeBase64(buffer.toString('base64url'))!), buffer)
    }),
  )
  for (const bad of ['a', 'YQ=', 'YQ===', 'Y=Q', 'YQ==\n', 'é', '=']) {
    assert.equal(decodeBase64(bad), undefined, bad)
  }
})
