import assert from 'node:assert/strict'
import { test } from 'node:test'
import { GroupPace } from '../../src/host/group-pace.ts'

test('GroupPace closes a group in the first turn that brings nothing', () => {
  const pace = new GroupPace()
  assert.equal(pace.staysOpen(3, 3, true, 10), true)
  assert.equal(pace.staysOpen(1, 4, true, 10.1), true)
  assert.equal(pace.staysOpen(0, 4, true, 10.2), false)
})

test('GroupPace leaves nothing open where nothing is staged', () => {
  assert.equal(new GroupPace().staysOpen(5, 0, false, 1), false)
})

test('GroupPace closes a group after half a millisecond, however much comes', () => {
  const pace = new GroupPace()
  assert.equal(pace.staysOpen(1, 1, true, 5), true)
  assert.equal(pace.staysOpen(1, 2, true, 5.4), true)
  assert.equal(pace.staysOpen(1, 3, true, 5.5), false)
  assert.equal(pace.staysOpen(1, 1, true, 5.6), true)
})

test('GroupPace closes a group at its number of records, and at once where no sync is due', () => {
  assert.equal(new GroupPace().staysOpen(64, 1023, true, 0), true)
  assert.equal(new GroupPace().staysOpen(64, 1024, true, 0), false)
  assert.equal(new GroupPace().staysOpen(1, 1, false, 0), false)
})
