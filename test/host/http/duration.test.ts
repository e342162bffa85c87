import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseDurationMs } from '../../../src/host/http/duration.ts'

test('Durations are milliseconds or carry a unit', () => {
  const max = Number.MAX_SAFE_INTEGER
  const cases: [string, number][] = [
    ['1500', 1500],
    ['250ms', 250],
    ['30s', 30_000],
    ['5m', 300_000],
    ['2h', 7_200_000],
    ['7d', 604_800_000],
    ['007', 7],
  ]
  for (const [text, expected] of cases) assert.equal(parseDurationMs(text, max), expected, text)
})

test('Malformed, zero and too long durations are refused, never clamped', () => {
  for (const text of [
    '',
    '0',
    '0s',
    '-1',
    '+1',
    '1.5s',
    '1e3',
    ' 1',
    '1 s',
    '1S',
    's',
    '1w',
    '1ss',
    'NaN',
    'Infinity',
    '1constructor',
    '9'.repeat(16),
  ]) {
    assert.equal(parseDurationMs(text, Number.MAX_SAFE_INTEGER), undefined, text)
  }
  assert.equal(parseDurationMs('1000', 1000), 1000)
  assert.equal(parseDurationMs('1001', 1000), undefined)
  assert.equal(parseDurationMs('2s', 1999), undefined)
})
