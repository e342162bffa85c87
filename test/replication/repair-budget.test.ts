import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RepairBudget, type RepairKind, repairKinds } from '../../src/replication/repair-budget.ts'
import { SimClock } from '../sim/sim-clock.ts'

const bytesPerSecond = 100_000

class Rig {
  readonly clock = new SimClock()
  readonly budget = new RepairBudget(this.clock, bytesPerSecond)
  /** Bytes that each kind was let through. */
  readonly gone: Record<RepairKind, number> = { hints: 0, exchanges: 0, moves: 0 }
  readonly order: RepairKind[] = []

  ask(kind: RepairKind, bytes: number): void {
    this.budget.ask(kind, bytes, () => {
      this.gone[kind] += bytes
      this.order.push(kind)
    })
  }

  pass(durationMs: number, each?: () => void): void {
    for (let ms = 0; ms < durationMs; ms += 50) {
      each?.()
      this.clock.advance(50)
      this.budget.tick()
    }
  }

  get total(): number {
    return repairKinds.reduce((sum, kind) => sum + this.gone[kind], 0)
  }
}

test('RepairBudget: who asks for room waits, and all kinds together get no more than the rate', () => {
  const rig = new Rig()
  for (let count = 0; count < 2000; count++) for (const kind of repairKinds) rig.ask(kind, 1000)
  assert.ok(rig.budget.waiting > 5900)
  rig.pass(10_000)
  // What the bucket held at first comes on top, and the last piece may go beyond.
  assert.ok(rig.total <= 10 * bytesPerSecond + 0.2 * bytesPerSecond + 1000, `${rig.total} bytes`)
  assert.ok(rig.total >= 10 * bytesPerSecond)
  assert.equal(rig.budget.used.hints + rig.budget.used.moves + rig.budget.used.exchanges, rig.total)
})

test('RepairBudget: kinds that wait get equal shares, whatever the size of their pieces and the order in which they came', () => {
  const rig = new Rig()
  for (let count = 0; count < 200; count++) rig.ask('moves', 20_000)
  for (let count = 0; count < 4000; count++) rig.ask('hints', 300)
  for (let count = 0; count < 4000; count++) rig.ask('exchanges', 700)
  rig.pass(12_000)
  for (const kind of repairKinds) {
    assert.ok(Math.abs(rig.gone[kind] - rig.total / 3) < 25_000, `${kind}: ${rig.gone[kind]} of ${rig.total}`)
  }
})

test('RepairBudget: a kind that had all of it for a long time owes nothing to one that comes, nor the other way round', () => {
  const rig = new Rig()
  let isHinting = true
  const each = (): void => {
    while (isHinting && rig.budget.waiting < 20) rig.ask('hints', 1000)
  }
  rig.pass(60_000, each)
  const hints = rig.gone.hints
  assert.ok(hints > 59 * bytesPerSecond, 'Alone it has all')
  for (let count = 0; count < 2000; count++) rig.ask('moves', 1000)
  isHinting = false
  for (let count = 0; count < 2000; count++) rig.ask('hints', 1000)
  rig.pass(10_000)
  assert.ok(rig.gone.moves > 4 * bytesPerSecond, `${rig.gone.moves}`)
  assert.ok(rig.gone.hints - hints > 4 * bytesPerSecond, `${rig.gone.hints - hints}`)
})

test('RepairBudget: a piece larger than the bucket goes, and those behind it wait for it', () => {
  const rig = new Rig()
  rig.ask('moves', 10)
  rig.ask('moves', 1_000_000)
  rig.ask('hints', 1000)
  assert.deepEqual(rig.order, ['moves', 'moves'])
  rig.pass(9000)
  assert.equal(rig.budget.waiting, 1, 'Ten seconds of debt')
  rig.pass(2000)
  assert.deepEqual(rig.order, ['moves', 'moves', 'hints'])
})

test('RepairBudget: what came in answers is paid for', () => {
  const rig = new Rig()
  rig.budget.charge('exchanges', 5 * bytesPerSecond)
  rig.ask('hints', 1)
  rig.pass(4000)
  assert.equal(rig.gone.hints, 0)
  rig.pass(1000)
  assert.equal(rig.gone.hints, 1)
})
