/**
 * After a failed sync the page cache may hold what is not on disk, and no later sync saves it (as PostgreSQL learned in 2018:
 * "fsyncgate"). A shard that restarts reads such pages from its files; what it then serves or acknowledges as durable must
 * survive a power cut all the same.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { ShardRig } from '../shard/shard-rig.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { FaultRun } from './fault-run.ts'
import { bytesOf, textOf } from './store-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

test('Store: what is read after a failed sync and a restart as durable survives a power cut', () => {
  for (let seed = 0; seed < 16 * scale; seed++) {
    const disk = new SimDisk({ random: new SeededRandom(seed) })
    const clock = new SimClock()
    const rig = new ShardRig({ disk, clock }).open()
    assert.equal(rig.put(bytesOf('early'), bytesOf('value')).error, undefined)
    disk.fail({ kind: 'sync', error: 'EIO' })
    const { error } = rig.put(bytesOf('key'), bytesOf('in doubt'))
    assert.equal(error?.outcome, 'unknown')
    disk.kill(new SeededRandom(seed))

    const next = new ShardRig({ disk, clock, actor: { low: 2, high: 2 } }).open()
    const read = next.get(bytesOf('key'))
    assert.ok(read.receipt.durable)
    const seen = read.values.map(({ value }) => textOf(value))
    for (let write = 0; write < 5; write++) {
      assert.ok(next.put(bytesOf(`later ${write}`), bytesOf('value')).answer?.receipt.durable)
    }
    disk.crash(new SeededRandom(seed))

    const last = new ShardRig({ disk, clock, actor: { low: 3, high: 3 } }).open()
    const values = (key: string): string[] => last.get(bytesOf(key)).values.map(({ value }) => textOf(value))
    assert.deepEqual(values('early'), ['value'])
    for (let write = 0; write < 5; write++) assert.deepEqual(values(`later ${write}`), ['value'], `later ${write}`)
    assert.deepEqual(values('key'), seen, 'What was served as durable stays')
  }
})

for (const durability of ['sync', 'os'] as const) {
  test(`Store: a failed sync anywhere, a restart, and then a power cut lose nothing that was promised (${durability})`, () => {
    const options = { durabilities: [durability], preallocate: true, codes: ['DISK_FAILED'] } as const
    for (const completions of ['immediate', 'queued'] as const) {
      const plain = new FaultRun({ ...options, completions, seed: 1 })
      plain.run()
      for (let nth = 1; nth <= plain.disk.calls.sync; nth += Math.max(1, Math.round(4 / scale))) {
        const run = new FaultRun({ ...options, completions, seed: 1, failingSync: nth })
        run.disk.fail({ kind: 'sync', error: 'EIO', nth })
        try {
          run.run()
          run.powerCut()
          run.goOn()
          run.powerCut()
        } catch (error) {
          throw new Error(`EIO at sync ${nth}, ${completions}: ${(error as Error).message}`, { cause: error })
        }
      }
    }
  })
}
