import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { bytesOf, textOf } from '../storage/store-rig.ts'
import { bucketOf, ShardRig } from './shard-rig.ts'

type Page = {
  readonly keys: readonly { readonly key: Uint8Array }[]
  readonly cursor: Uint8Array | undefined
}

test('a list by a prefix with a whole hash tag gives what any list gives, from one partition alone', () => {
  const random = new SeededRandom('tagged lists')
  const rig = new ShardRig({ disk: new SimDisk(), clock: new SimClock(), shards: 2, segmentBytes: 65536 }).open()
  const names = new Set<string>()
  for (let index = 0; index < 600; index++) {
    const tag = `{${random.below(12)}}`
    const name = random.pick([
      `${tag}${index}`,
      `a${tag}${index}`,
      `a${tag}{${random.below(3)}}${index}`,
      `${index}{}`,
      `{${index}`,
    ])
    names.add(name)
    assert.equal(rig.put(bytesOf(name), bytesOf('v')).error, undefined)
  }
  let frames = 0
  const listed = (prefix: string, limit: number): string[] => {
    const found: string[] = []
    let cursor: Uint8Array | undefined
    do {
      const { error, answer } = rig.wait<Page>((done) => {
        rig.coordinator.list(bucketOf(), { prefix: bytesOf(prefix), limit, values: false, cursor }, done)
      })
      assert.equal(error, undefined)
      frames++
      found.push(...answer!.keys.map(({ key }) => textOf(key)))
      cursor = answer!.cursor
    } while (cursor !== undefined)
    return found
  }
  for (const prefix of ['', '{1}', 'a{1}', '{1', 'a{', 'a{1}{', 'a{1}{2}', '{}', '5{}', '{99}', '{11}1']) {
    for (const limit of [1, 3, 1000]) {
      const wanted = [...names].filter((name) => name.startsWith(prefix)).sort()
      assert.deepEqual(listed(prefix, limit).sort(), wanted, `"${prefix}", ${limit} a page`)
    }
  }
  // Nothing but one look: a page of a list over everything needs one for each shard at least.
  frames = 0
  const before = rig.shards.map(({ store }) => store.index.entries)
  assert.equal(listed('{3}', 1000).length, [...names].filter((name) => name.startsWith('{3}')).length)
  assert.equal(frames, 1)
  assert.deepEqual(
    rig.shards.map(({ store }) => store.index.entries),
    before,
  )
  // A cursor of another list goes on behind its place, or not at all.
  const first = rig.wait<Page>((done) => rig.coordinator.list(bucketOf(), { limit: 5, values: false }, done)).answer!
  const rest = rig.wait<Page>((done) => {
    rig.coordinator.list(bucketOf(), { prefix: bytesOf('{3}'), limit: 1000, values: false, cursor: first.cursor }, done)
  })
  assert.ok(rest.answer!.keys.every(({ key }) => textOf(key).startsWith('{3}')))
  rig.close()
})
