import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SunwiseError } from '../../../src/base/errors.ts'
import {
  acceptsLines,
  checkContentType,
  mediaTypeOf,
  parseEntityTags,
  RequestFields,
  strongTagsOf,
} from '../../../src/host/http/request-fields.ts'

test('Fields are found whatever their case, and lists given twice are joined', () => {
  const fields = new RequestFields([
    'HOST',
    'a',
    'if-none-MATCH',
    '"1"',
    'If-None-Match',
    '"2"',
    'x-other',
    'b',
    'Sunwise-CONTEXT',
    'AA',
  ])
  assert.equal(fields.host, 'a')
  assert.equal(fields.ifNoneMatch, '"1", "2"')
  assert.equal(fields.context, 'AA')
  assert.equal(fields.repeated, undefined)
})

test('A field that must be single and is not is reported', () => {
  for (const name of ['Host', 'Origin', 'Content-Type', 'Content-Length', 'Sunwise-Context']) {
    assert.equal(new RequestFields([name, 'a', name, 'a']).repeated, name.toLowerCase())
  }
})

test('Entity tags are quoted, weak or strong, and any opaque text', () => {
  assert.deepEqual(parseEntityTags('If-Match', ' "a" ,W/"b,c", ""'), [
    { tag: 'a', weak: false },
    { tag: 'b,c', weak: true },
    { tag: '', weak: false },
  ])
  assert.equal(parseEntityTags('If-Match', ' * '), '*')
  assert.deepEqual(strongTagsOf('W/"a", "b"'), ['b'])
  for (const text of ['', 'a', '"a', '"a" b', '"a",', ',"a"', '*, "a"', 'w/"a"']) {
    assert.throws(() => parseEntityTags('If-Match', text), SunwiseError, text)
  }
})

test('Media types are compared without case, parameters or blanks', () => {
  assert.equal(mediaTypeOf(undefined), '')
  assert.equal(mediaTypeOf(' Application/JSON ; charset=utf-8'), 'application/json')
  for (const accept of ['application/x-ndjson', 'text/html, application/x-ndjson;q=0.5', 'APPLICATION/X-NDJSON']) {
    assert.ok(acceptsLines(accept), accept)
  }
  for (const accept of [undefined, '*/*', 'application/*', 'application/json', 'application/x-ndjson; q=0']) {
    assert.ok(!acceptsLines(accept), accept ?? 'no Accept')
  }
})

test('A content type is stored only if it can be a header again', () => {
  assert.equal(checkContentType(''), undefined)
  assert.equal(checkContentType('text/plain; charset="utf-8"'), 'text/plain; charset="utf-8"')
  for (const text of ['a\r\nb', 'a\tb', '\u00e9', ' a', 'a'.repeat(256), '\x7f']) {
    assert.throws(() => checkContentType(text), SunwiseError, JSON.stringify(text))
  }
})
