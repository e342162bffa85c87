import assert from 'node:assert/strict'
import { test } from 'node:test'
import { faultKinds, RingSim } from './ring-sim.ts'
import { kindOf, shrink, type Trial } from './shrink.ts'

const large: Trial = { operations: 2000, nodes: 7, faults: faultKinds }

test('shrink: what is left is what a failure hangs on, and nothing else', () => {
  let runs = 0
  const least = shrink(
    large,
    ({ operations, nodes, faults }) => {
      runs++
      return operations >= 37 && nodes >= 3 && faults.includes('kill') && faults.includes('clog')
    },
    () => false,
  )
  assert.deepEqual([...least.faults].sort(), ['clog', 'kill'])
  assert.equal(least.nodes, 3)
  assert.ok(least.operations >= 37 && least.operations < 45, `${least.operations} operations`)
  assert.ok(runs < 400, `${runs} runs`)
})

test('shrink: when time is up it gives the smallest that failed so far', () => {
  let left = 1
  const least = shrink(
    large,
    () => true,
    () => left-- <= 0,
  )
  assert.deepEqual(least, { ...large, operations: 200 })
})

test('shrink: violations of one kind are alike, whatever key and time they name', () => {
  assert.equal(kindOf('lost write: value 7 of {tag1}key5, acknowledged at 3.0 ms'), 'lost write')
  assert.equal(kindOf('stale read: {tag1}key5 at 7.0 ms without 3'), kindOf('stale read: x at 1.0 ms without 4'))
  assert.notEqual(kindOf('stale read: a at 1'), kindOf('resurrection: value 3 of a'))
})

test('shrink: a run whose history is broken on purpose comes down to a few operations without faults', () => {
  const fails = ({ operations, nodes, faults }: Trial): boolean => {
    const sim = new RingSim({ seed: 'broken', operations, nodes, faults })
    // A write that nobody made, and that all believe to have been acknowledged.
    const record = sim.history.begin('{tag0}key0', 'put', undefined, 0)
    record.outcome = 'acked'
    record.endedMs = 1
    const { violations } = sim.run()
    sim.dispose()
    return violations.length > 0 && kindOf(violations[0]!) === 'lost write'
  }
  const given: Trial = { operations: 40, nodes: 4, faults: ['loss', 'kill'] }
  assert.ok(fails({ ...given, operations: 1 }))
  const least = shrink(given, fails, () => false)
  assert.deepEqual(least, { operations: 1, nodes: 1, faults: [] })
})
