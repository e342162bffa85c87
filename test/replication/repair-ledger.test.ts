import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RepairLedger } from '../../src/replication/repair-ledger.ts'
import { SimClock } from '../sim/sim-clock.ts'

const partition = 7
const peer = 'n1'

function rig(): { readonly clock: SimClock; readonly ledger: RepairLedger; readonly state: () => string } {
  const clock = new SimClock()
  const ledger = new RepairLedger(clock)
  return { clock, ledger, state: () => ledger.statusOf(partition, peer).state }
}

test('RepairLedger: equal as of the begin of the exchange that proved it, in its epoch', () => {
  const { clock, ledger, state } = rig()
  assert.equal(state(), 'unknown')
  clock.advance(1000)
  const beganMs = clock.epochMs()
  const begun = ledger.begin(partition, peer, 4)
  clock.advance(500)
  ledger.equal(begun, 3)
  assert.deepEqual(ledger.statusOf(partition, peer), {
    state: 'equal',
    equalAsOfMs: beganMs,
    epoch: 4,
    keysRepaired: 3,
  })
  assert.equal(ledger.statusOf(partition, 'n2').state, 'unknown')
})

test('RepairLedger: a write that a peer missed ends being equal, until an exchange that began after it', () => {
  const { clock, ledger, state } = rig()
  ledger.equal(ledger.begin(partition, peer, 1), 0)
  const asOfMs = ledger.statusOf(partition, peer).equalAsOfMs
  ledger.missed(partition, peer)
  assert.equal(state(), 'behind')
  assert.equal(ledger.statusOf(partition, peer).equalAsOfMs, asOfMs, 'What was proved stays so')
  clock.advance(1000)
  const begun = ledger.begin(partition, peer, 1)
  ledger.missed(partition, peer)
  ledger.equal(begun, 0)
  assert.equal(state(), 'behind', 'The exchange may have passed the key before')
  ledger.equal(ledger.begin(partition, peer, 1), 0)
  assert.equal(state(), 'equal')
})

test('RepairLedger: a write missed during the first exchange is not forgotten with it', () => {
  const { ledger, state } = rig()
  const begun = ledger.begin(partition, peer, 1)
  ledger.missed(partition, peer)
  ledger.equal(begun, 0)
  assert.equal(state(), 'behind')
})

test('RepairLedger: a mark survives exchanges that fail or began before it, and comes first in turn', () => {
  const { ledger, state } = rig()
  const before = ledger.begin(partition, peer, 1)
  ledger.mark(partition, peer)
  ledger.mark(8, peer)
  ledger.equal(before, 0)
  assert.equal(state(), 'marked')
  assert.deepEqual(
    [...ledger.marks],
    [
      { partition, peer },
      { partition: 8, peer },
    ],
  )
  ledger.passOver({ partition, peer }, true)
  assert.deepEqual([...ledger.marks][0], { partition: 8, peer }, 'One that fails lets others go before')
  assert.equal(state(), 'marked')
  ledger.equal(ledger.begin(partition, peer, 1), 5)
  assert.equal(state(), 'equal')
  assert.equal(ledger.markCount, 1)
  ledger.passOver({ partition: 8, peer }, false)
  assert.equal(ledger.markCount, 0)
})
