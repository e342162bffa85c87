/** A disk that is full of the store's own garbage: deletes make room without the help of anybody. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ShardRig } from '../shard/shard-rig.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { bytesOf, textOf } from './store-rig.ts'

const segmentBytes = 16 * 1024
const value = 'x'.repeat(150)

/** Time passes, and with it the recycler's work. */
function pass(rig: ShardRig): void {
  for (let ticks = 0; ticks < 40; ticks++) {
    rig.options.clock.advance(20)
    rig.tick()
  }
}

for (const segmentsThatFit of [6, 9, 14]) {
  test(`Store: after deletes a disk that was full takes writes again, with room for ${segmentsThatFit} segments`, () => {
    const disk = new SimDisk({ capacityBytes: (segmentsThatFit + 0.5) * segmentBytes })
    const options = { segmentBytes, segments: 48, disk, clock: new SimClock() }
    const rig = new ShardRig(options).open()
    const held = new Set<string>()
    let refusal: string | undefined
    for (let index = 0; refusal === undefined; index++) {
      assert.ok(index < 5000, 'A disk ends')
      const { error } = rig.put(bytesOf(`{one}key ${index}`), bytesOf(value))
      if (error === undefined) held.add(`{one}key ${index}`)
      else if (error.code === 'OVERLOADED') pass(rig)
      else {
        assert.equal(error.outcome, 'none')
        refusal = error.code
      }
    }
    assert.equal(refusal, 'DISK_FULL')
    for (let index = 0; index < held.size; index += 2) {
      const { error } = rig.delete(bytesOf(`{one}key ${index}`))
      assert.equal(error, undefined, `Delete ${index} of ${held.size} has room`)
      held.delete(`{one}key ${index}`)
      if (index % 16 === 0) pass(rig)
    }
    for (let index = held.size; index > 0; index--) pass(rig)
    const wanted = Math.floor(held.size / 4)
    for (let index = 0; index < wanted; index++) {
      const { error } = rig.put(bytesOf(`{one}new ${index}`), bytesOf(value))
      if (error?.code === 'OVERLOADED') pass(rig)
      else {
        assert.equal(error, undefined, `Put ${index} of ${wanted} has room`)
        held.add(`{one}new ${index}`)
      }
    }
    assert.ok([...held].filter((key) => key.startsWith('{one}new')).length > wanted / 2)
    rig.close()
    const again = new ShardRig(options).open()
    for (const key of held) assert.equal(textOf(again.get(bytesOf(key)).values[0]!.value), value, key)
  })
}
