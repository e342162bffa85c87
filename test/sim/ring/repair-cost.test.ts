import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RepairCostRig } from './repair-cost.ts'

test('Exchanges: the bytes of repair go with what differs, not with what there is', (t) => {
  const rig = new RepairCostRig()
  for (const [differing, perKeyMax] of [
    [1, 2500],
    [10, 2000],
    [100, 1500],
    [1000, 1200],
  ] as const) {
    const cost = rig.measure(differing)
    t.diagnostic(
      `${differing} of 10000 keys differ: ${cost.repairBytes} bytes, ${cost.bytesPerKey.toFixed(0)} a key; ${cost.idleBytes} where none does`,
    )
    assert.ok(cost.bytesPerKey <= perKeyMax, `${cost.bytesPerKey} bytes a key for ${differing}`)
    assert.ok(cost.idleBytes < 16 * 1024, 'Where nothing differs, little is said')
    assert.ok(cost.keysRepaired >= differing && cost.keysRepaired <= 2 * differing, `${cost.keysRepaired}`)
  }
})
