import assert from 'node:assert/strict'
import { test } from 'node:test'
import { quote, suggest } from '../../../src/host/http/suggestion.ts'

test('The nearest known name is suggested, or the list where none is near', () => {
  assert.equal(suggest('tll', ['ttl', 'timeout', 'w']), "; did you mean 'ttl'?")
  assert.equal(suggest('TIMEOUTS', ['ttl', 'timeout']), "; did you mean 'timeout'?")
  assert.equal(suggest('x', ['ttl', 'w']), '; known are ttl, w')
  assert.equal(suggest('x', []), '; there are none here')
  assert.equal(suggest('t'.repeat(10_000), ['ttl']), '; known are ttl')
})

test('Long texts of users are cut in messages', () => {
  assert.equal(quote('a'), "'a'")
  assert.equal(quote('a'.repeat(100)).length, 64 + 5)
})
