/** Segments are retired only when nothing in them can be needed again, whatever a power cut takes back. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { bytesOf, logDirectory, StoreRig } from './store-rig.ts'

const keys = ['a', 'b', 'c', 'd']
const options = { segments: 12, budgetBytes: 10 * 8192 }

function put(rig: StoreRig, key: string, version: number, sync: boolean): void {
  const ordinal = rig.put(key, bytesOf(`${version}:${'x'.repeat(600)}`), { sync })
  assert.equal(typeof ordinal, 'number', `Version ${version} of ${key} is staged`)
  rig.store.flush()
  assert.equal(rig.published, (ordinal as number) + 1, 'It is visible at once')
}

const versionOf = (rig: StoreRig, key: string): number => Number(rig.value(key)?.split(':')[0] ?? -1)

for (const copies of [0, 1]) {
  const what = copies === 0 ? 'all of whose records were overwritten' : 'with a record that is still live'
  test(`Store: a segment ${what} is retired after what is newer is on stable storage`, () => {
    let recycled = 0
    for (let seed = 0; seed < 60; seed++) {
      const random = new SeededRandom(seed)
      const disk = new SimDisk({ random: random.fork('disk') })
      disk.makeDirectoryNow(logDirectory)
      const rig = new StoreRig(disk, options).open()
      for (let index = 0; index < copies; index++) put(rig, `live${index}`, 1, true)
      for (const key of keys) put(rig, key, 1, true)
      // Overwritten again and again, and no sync: the clock of the interval stands still.
      let version = 1
      while (rig.store.recycledSegments === 0) {
        version++
        assert.ok(version < 100, 'Memory is recycled')
        for (const key of keys) put(rig, key, version, false)
        rig.store.step(0, 1)
        if (random.chance(1, 2)) rig.store.flush()
      }
      recycled += rig.store.recycledSegments
      disk.crash(random)
      const after = new StoreRig(disk, options).open()
      for (const key of keys) {
        const found = versionOf(after, key)
        assert.ok(found >= 1 && found <= version, `Seed ${seed}: ${key} holds version ${found} after a power cut`)
      }
      for (let index = 0; index < copies; index++) assert.equal(versionOf(after, `live${index}`), 1, `Seed ${seed}`)
    }
    assert.ok(recycled >= 60)
  })
}
