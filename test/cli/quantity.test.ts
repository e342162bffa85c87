import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  formatAddress,
  formatBytes,
  formatCount,
  formatDuration,
  parseAddress,
  parseBytes,
  parseDurationMs,
} from '../../src/cli/quantity.ts'

test('parseBytes() reads sizes with units of powers of 1024', () => {
  const sizes: [string, number][] = [
    ['0', 0],
    ['1048576', 1048576],
    ['512mb', 512 * 1024 ** 2],
    ['1gb', 1024 ** 3],
    ['1G', 1024 ** 3],
    ['1.5GiB', 1.5 * 1024 ** 3],
    ['64 kb', 65536],
    ['7b', 7],
    ['2TiB', 2 * 1024 ** 4],
  ]
  for (const [text, bytes] of sizes) assert.equal(parseBytes(text), bytes, text)
})

test('parseBytes() refuses what is not a size', () => {
  const refused = [
    '',
    'gb',
    '-1',
    '1pb',
    '1e9',
    '0x10',
    '1.0000000001b',
    '1..5gb',
    '1gb ',
    ' 1gb',
    '1_000',
    '٣',
    '99999999tb',
    '1constructor',
  ]
  for (const text of refused) assert.equal(parseBytes(text), undefined, text)
})

test('parseDurationMs() reads durations and refuses the rest', () => {
  const durations: [string, number][] = [
    ['1500', 1500],
    ['250ms', 250],
    ['30s', 30_000],
    ['5m', 300_000],
    ['2H', 7_200_000],
    ['7d', 604_800_000],
    ['1.5s', 1500],
  ]
  for (const [text, ms] of durations) assert.equal(parseDurationMs(text), ms, text)
  for (const text of ['', '-1s', '1w', '1h30m', 's', '0.0001ms', 'Infinity'])
    assert.equal(parseDurationMs(text), undefined, text)
})

test('parseAddress() reads hosts, ports and both', () => {
  const addresses: [string, string, number][] = [
    ['127.0.0.1:7070', '127.0.0.1', 7070],
    [':0', '127.0.0.1', 0],
    ['8080', '127.0.0.1', 8080],
    ['0.0.0.0', '0.0.0.0', 7],
    ['node-1.example.org', 'node-1.example.org', 7],
    ['localhost:65535', 'localhost', 65535],
    ['[::1]:9', '::1', 9],
    ['[::1]', '::1', 7],
  ]
  for (const [text, host, port] of addresses) assert.deepEqual(parseAddress(text, 7), { host, port }, text)
  for (const text of [
    '',
    ':',
    'a:b',
    'host:65536',
    '::1:80',
    'http://x',
    'a b:1',
    '[::1',
    'host:-1',
    '[1]:80',
    '[1.2.3.4]',
  ]) {
    assert.equal(parseAddress(text, 7), undefined, text)
  }
})

test('parseAddress() reads back what formatAddress() writes', () => {
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), fc.nat(65535), (host, port) => {
      assert.deepEqual(parseAddress(formatAddress({ host, port }), 1), { host, port })
    }),
  )
})

test('Quantities are written for people', () => {
  assert.deepEqual([0, 512, 1536, 150 * 1024, 1024 ** 5].map(formatBytes), [
    '0 B',
    '512 B',
    '1.5 KiB',
    '150 KiB',
    '1024 TiB',
  ])
  assert.deepEqual(
    [0, 420, 42_000, 59_900, 130_000, 3_599_900, 11_100_000, Number.POSITIVE_INFINITY].map(formatDuration),
    ['0.0s', '0.4s', '42s', '1m00s', '2m10s', '1h00m', '3h05m', '-'],
  )
  assert.deepEqual([0, 999, 1000, 1234567.4].map(formatCount), ['0', '999', '1,000', '1,234,567'])
})
