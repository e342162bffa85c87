/** The actor table of a log: whatever a record names is defined before it, whatever happened to the group in between. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { bytesOf, logDirectory, StoreRig } from './store-rig.ts'

const newDisk = (): SimDisk => {
  const disk = new SimDisk()
  disk.makeDirectoryNow(logDirectory)
  return disk
}

test('Store.actorIndex() has the log define an actor again where the group that defined it was dropped', () => {
  const disk = newDisk()
  const rig = new StoreRig(disk).open()
  rig.put('first', bytesOf('value'))
  rig.store.flush()
  const foreign = rig.store.actorIndex(7, 8)
  disk.fail({ kind: 'write', error: 'ENOSPC' })
  assert.equal(typeof rig.put('dropped', bytesOf('value')), 'number')
  rig.store.flush()
  assert.equal(rig.failures.length, 1)
  // The next group names the actor, too: its log must say who that is.
  const own = rig.store.actor
  const counter = rig.store.nextCounter(rig.partitionOf('kept'))
  const version = {
    actor: own,
    counter,
    tombstone: false,
    expiresAtMs: 0,
    timestamp: 0,
    contentType: 'application/octet-stream',
    value: bytesOf('value'),
  }
  const vector = [
    { actor: own, counter },
    { actor: foreign, counter: 3 },
  ]
  assert.equal(typeof rig.putSet('kept', { versions: [version], vector }), 'number')
  rig.store.flush()
  assert.equal(rig.value('kept'), 'value')
  disk.kill(new SeededRandom(1))

  const next = new StoreRig(disk, { actor: { low: 5, high: 5 } }).open()
  const named = next.get('kept')!.vector.map(({ actor }) => [next.store.actorLow(actor), next.store.actorHigh(actor)])
  assert.deepEqual(named, [
    [1, 2],
    [7, 8],
  ])
  assert.notEqual(next.store.actor, foreign, 'The actor of the next run is another one')
})

test('Store.changeActor() needs no room in the log, and the next record is of the new actor', () => {
  const disk = newDisk()
  const rig = new StoreRig(disk, { segments: 8 }).open()
  rig.put('old', bytesOf('value'))
  rig.store.flush()
  disk.fail({ kind: 'create', error: 'ENOSPC', times: Number.POSITIVE_INFINITY })
  let filled = 0
  for (const bytes of [500, 1]) {
    while (typeof rig.put(`fill-${filled}`, new Uint8Array(bytes)) === 'number') filled++
  }
  rig.store.flush()
  assert.ok(filled > 0)
  rig.store.changeActor({ low: 9, high: 9 })
  disk.heal()
  rig.store.step(1_000, 1_000)
  assert.equal(typeof rig.put('new', bytesOf('value')), 'number')
  rig.close()
  const next = new StoreRig(disk, { actor: { low: 9, high: 9 } }).open()
  const idOf = (key: string): number => next.store.actorLow(next.get(key)!.versions[0]!.actor)
  assert.equal(idOf('old'), 1)
  assert.equal(idOf('new'), 9)
  assert.equal(next.store.nextCounter(next.partitionOf('new')), 2, 'It goes on where it stopped')
})
