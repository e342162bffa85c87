import assert from 'node:assert/strict'
import { test } from 'node:test'
import { encodeSet } from '../../../src/versions/set-codec.ts'
import type { VersionSet } from '../../../src/versions/version-set.ts'
import { DotLedger } from './dot-ledger.ts'

const actors = { lowOf: (actor: number) => 100 + actor, highOf: () => 7 }

function setOf(actor: number, counter: number, value: string, tombstone = false): Uint8Array {
  const version = {
    actor,
    counter,
    timestamp: 1,
    expiresAtMs: 0,
    tombstone,
    contentType: '',
    value: Buffer.from(value),
  }
  const set: VersionSet = { vector: [{ actor, counter }], versions: [version] }
  return encodeSet(set, actors)
}

test('DotLedger: a dot that names two writes is found, whether they are of one key, of two, or one is a delete', () => {
  const ledger = new DotLedger()
  assert.equal(ledger.note('{a}one', setOf(1, 1, '11')), undefined)
  assert.equal(ledger.note('{a}one', setOf(1, 1, '11')), undefined)
  assert.equal(ledger.note('{a}one', setOf(2, 1, '12')), undefined)
  assert.equal(ledger.note('{a}one', setOf(1, 2, '13')), undefined)
  // Another partition counts by itself.
  assert.equal(ledger.note('{b}one', setOf(1, 1, '14')), undefined)
  assert.equal(ledger.count, 4)
  assert.match(ledger.note('{a}one', setOf(1, 1, '15')) ?? '', /one dot for two writes/)
  assert.match(ledger.note('{a}two', setOf(1, 1, '11')) ?? '', /one dot for two writes/)
  assert.match(ledger.note('{a}one', setOf(1, 1, '', true)) ?? '', /one dot for two writes/)
  assert.match(ledger.note('{a}one', new Uint8Array(3)) ?? '', /cannot be read/)
})
