import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BenchRecords } from '../../../src/cli/bench/bench-records.ts'

const records = new BenchRecords(16, 100)

test('A key is the record number in decimal digits, as db_bench writes it', () => {
  assert.equal(Buffer.from(records.key(1234567)).toString(), '0000000001234567')
  assert.equal(records.key(0).length, 16)
})

test('fault() finds another record, another length and every changed byte', () => {
  const value = Buffer.from(records.value(7, 99))
  assert.equal(records.fault(7, value, 100), undefined)
  assert.match(records.fault(8, value, 100) ?? '', /value of record 7/)
  assert.match(records.fault(7, value, 99) ?? '', /99 bytes instead of 100/)
  for (let at = 0; at < 100; at++) {
    const changed = Buffer.from(value)
    changed[at]! ^= 1
    assert.notEqual(records.fault(7, changed, 100), undefined, `byte ${at}`)
  }
})

test('Values differ by nonce, and are those of any other run with this size', () => {
  assert.notDeepEqual(records.value(7, 1), records.value(7, 2))
  assert.deepEqual(records.value(7, 1), new BenchRecords(20, 100).value(7, 1))
  const small = new BenchRecords(10, 8)
  assert.equal(small.fault(5, Buffer.from(small.value(5, 3)), 8), undefined)
})
