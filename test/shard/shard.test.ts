import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { bytesOf, textOf } from '../storage/store-rig.ts'
import { ShardRig } from './shard-rig.ts'

test('Shard: smoke', () => {
  const disk = new SimDisk()
  const clock = new SimClock()
  const rig = new ShardRig({ disk, clock }).open()
  const r = rig.put(bytesOf('k'), bytesOf('v'))
  assert.equal(r.error, undefined)
  assert.equal(textOf(rig.get(bytesOf('k')).values[0]!.value), 'v')
  rig.close()
})
