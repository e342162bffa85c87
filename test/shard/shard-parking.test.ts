/** Commands that find no room wait for it, all of them, in their order. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import type { ReadAnswer, WriteAnswer } from '../../src/replication/requests.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { bytesOf, textOf } from '../storage/store-rig.ts'
import { bucketOf, ShardRig, send } from './shard-rig.ts'

const value = (index: number): Uint8Array => bytesOf(String(index).padEnd(1000, '.'))
const numberOf = (answer: ReadAnswer): number => Number.parseInt(textOf(answer.values[0]!.value), 10)

/** A node on a disk whose operations end only between turns, so that the next segment is never there at once. */
function openRig(): { readonly rig: ShardRig; readonly disk: SimDisk; readonly settle: () => void } {
  const disk = new SimDisk({ completions: 'queued' })
  const random = new SeededRandom(1)
  const rig = new ShardRig({ disk, clock: new SimClock() }).open(() => disk.drain(random))
  const settle = (): void => {
    for (let round = 0; rig.coordinator.pendingCount > 0; round++) {
      assert.ok(round < 1000, 'Every command is answered in the end')
      disk.drain(random)
      rig.turn()
    }
  }
  disk.drain(random)
  return { rig, disk, settle }
}

test('Shard.receive() loses none of the commands that were taken together with one that waits for a segment', () => {
  const { rig, settle } = openRig()
  // Several segments' worth at once: the first waits in the middle of a portion, with others behind it.
  const results = Array.from({ length: 60 }, (_, index) =>
    send<WriteAnswer>((done) => rig.coordinator.put(bucketOf(), bytesOf(`key-${index}`), value(index), {}, done)),
  )
  settle()
  for (const [index, { error, calls }] of results.entries()) {
    assert.equal(error, undefined)
    assert.equal(calls, 1)
    assert.equal(numberOf(rig.get(bytesOf(`key-${index}`))), index)
  }
})

test('Shard.receive() applies commands on one key in their order while they wait for a segment', () => {
  const { rig, settle } = openRig()
  const key = bytesOf('key')
  const results = Array.from({ length: 60 }, (_, index) =>
    index % 7 === 2
      ? send<WriteAnswer>((done) => rig.coordinator.delete(bucketOf(), key, {}, done))
      : send<WriteAnswer>((done) => rig.coordinator.put(bucketOf(), key, value(index), {}, done)),
  )
  settle()
  assert.ok(results.every(({ error, calls }) => error === undefined && calls === 1))
  assert.equal(numberOf(rig.get(key)), 59)
  assert.equal(rig.get(key).values.length, 1)
})

test('Shard.receive() refuses what waits for a segment, each once, where the disk turns out to be full', () => {
  const { rig, disk, settle } = openRig()
  disk.fail({ kind: 'create', error: 'ENOSPC', times: Number.POSITIVE_INFINITY })
  const results = Array.from({ length: 60 }, (_, index) =>
    send<WriteAnswer>((done) => rig.coordinator.put(bucketOf(), bytesOf(`key-${index}`), value(index), {}, done)),
  )
  settle()
  const refused = results.filter(({ error }) => error !== undefined)
  assert.ok(refused.length > 0 && refused.length < 60, 'One segment was there, a second was not to be had')
  for (const { error } of refused) {
    assert.equal(error?.code, 'DISK_FULL')
    assert.equal(error?.outcome, 'none')
  }
  for (const [index, { error }] of results.entries()) {
    assert.equal(rig.get(bytesOf(`key-${index}`)).values.length, error === undefined ? 1 : 0)
  }
})
