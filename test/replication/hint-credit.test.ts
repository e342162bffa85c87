import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HintCredit } from '../../src/replication/hint-credit.ts'
import { SimClock } from '../sim/sim-clock.ts'

test('HintCredit: begins with few, grows while hints are taken quickly, and is bounded', () => {
  const clock = new SimClock()
  const credit = new HintCredit(clock)
  const told: number[] = []
  for (let count = 0; count < 5000; count++) {
    const ended = credit.begin('n1')
    clock.advance(1)
    told.push(ended(true))
  }
  assert.ok(told[0]! <= 5)
  assert.ok(told[100]! < 20, 'not at once')
  assert.equal(told.at(-1), 64)
})

test('HintCredit: halves when a hint is refused or slow, once for those that are under way together, and never ends', () => {
  const clock = new SimClock()
  const credit = new HintCredit(clock)
  for (let count = 0; count < 5000; count++) credit.begin('n1')(true)
  const together = Array.from({ length: 30 }, () => credit.begin('n1'))
  for (const ended of together) ended(false)
  assert.equal(credit.window, 32)
  const slow = credit.begin('n1')
  clock.advance(1000)
  assert.equal(slow(true), 16)
  for (let count = 0; count < 50; count++) {
    const ended = credit.begin('n1')
    clock.advance(1000)
    ended(false)
  }
  assert.equal(credit.window, 1)
})

test('HintCredit: nodes that have hints share it; with more of them than it takes some are told to wait', () => {
  const clock = new SimClock()
  const credit = new HintCredit(clock)
  for (let count = 0; count < 5000; count++) credit.begin('n1')(true)
  assert.equal(credit.begin('n2')(true), 32)
  let last = -1
  for (let node = 0; node < 100; node++) last = credit.begin(`m${node}`)(true)
  assert.equal(last, 0)
  clock.advance(10_000)
  assert.equal(credit.begin('n1')(true), 64, 'Those that have none any more are not counted')
})
