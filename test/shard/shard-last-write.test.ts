/** Buckets where the last write wins: the last one, whatever its actor, its context, and the clock. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { bytesOf, textOf } from '../storage/store-rig.ts'
import { bucketOf, ShardRig } from './shard-rig.ts'

const bucket = bucketOf({ conflict: 'lww' })
const key = bytesOf('key')
const shown = (rig: ShardRig): string | undefined => {
  const { values } = rig.get(key, bucket)
  assert.ok(values.length <= 1)
  return values[0] === undefined ? undefined : textOf(values[0].value)
}

test('Shard: the last write wins over those of an earlier actor with higher counters, though its context is old', () => {
  const disk = new SimDisk()
  const clock = new SimClock()
  const first = new ShardRig({ disk, clock, actor: { low: 1, high: 1 } }).open()
  const old = first.put(key, bytesOf('first'), {}, bucket).answer!.context
  for (let write = 0; write < 5; write++) first.put(key, bytesOf(`later ${write}`), {}, bucket)
  disk.kill(new SeededRandom(1))
  const second = new ShardRig({ disk, clock, actor: { low: 2, high: 2 } }).open()
  second.put(key, bytesOf('last'), { context: old }, bucket)
  assert.equal(shown(second), 'last')
  second.delete(key, { context: old }, bucket)
  assert.equal(shown(second), undefined)
  second.put(key, bytesOf('again'), { context: old }, bucket)
  second.close()
  assert.equal(shown(new ShardRig({ disk, clock, actor: { low: 3, high: 3 } }).open()), 'again')
})

test('Shard: what was written last is what a bucket of the last write shows', () => {
  const step = fc.record({
    kind: fc.constantFrom('put', 'put', 'put', 'delete', 'restart'),
    /** Which of the contexts given out so far; none where there is no such one. */
    context: fc.nat(6),
    skewMs: fc.constantFrom(0, 0, 1, 50, -1, -5_000, 5_000),
    expires: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
      const disk = new SimDisk()
      const clock = new SimClock()
      let actors = 1
      let rig = new ShardRig({ disk, clock, actor: { low: actors, high: 1 } }).open()
      const contexts: (Uint8Array | undefined)[] = []
      let expected: string | undefined
      for (const [index, { kind, context, skewMs, expires }] of steps.entries()) {
        clock.jumpEpoch(skewMs)
        const options = { context: contexts.at(-1 - context), ttlMs: expires ? 86_400_000 : undefined }
        if (kind === 'restart') {
          rig.close()
          disk.kill(new SeededRandom(index))
          rig = new ShardRig({ disk, clock, actor: { low: ++actors, high: 1 } }).open()
        } else if (kind === 'put') {
          expected = `value ${index}`
          contexts.push(rig.put(key, bytesOf(expected), options, bucket).answer!.context)
        } else {
          expected = undefined
          contexts.push(rig.delete(key, { context: options.context }, bucket).answer!.context)
        }
        assert.equal(shown(rig), expected)
      }
    }),
  )
})
