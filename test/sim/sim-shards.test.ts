import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import type { Shards } from '../../src/env.ts'
import { type ShardsUnderTest, shardsSuite } from '../conformance/shards-suite.ts'
import { SimShards } from './sim-shards.ts'

const tooManyBytes = 64 * 1024 * 1024

function underTest(): ShardsUnderTest {
  const links = new SimShards({ shards: 3, queueBytesMax: tooManyBytes / 2 })
  const taken: Uint8Array[][] = [[], [], []]
  let open = -1
  for (const shard of taken.keys()) {
    links.serve(
      shard,
      (_thread, u8, _i32, start, bytes) => taken[shard]!.push(u8.slice(start, start + bytes)),
      () => open === shard,
    )
  }
  const lengths = new Map<number, number>()
  let replies: Uint8Array[] = []
  links.listen(0, (u8, i32, start) => replies.push(u8.slice(start, start + lengths.get(i32[(start >>> 2) + 1]!)!)))
  return {
    shards: links.door(0),
    take: (shard) => {
      open = shard
      links.drain()
      open = -1
      return taken[shard]!.splice(0)
    },
    endTurn: () => links.publish(0),
    reply: (shard, frame) => {
      const door = links.replies(shard)
      const target = door.beginReply(0, frame.length)
      if (target === undefined) return false
      target.u8.set(frame, target.start)
      lengths.set(target.i32[(target.start >>> 2) + 1]!, frame.length)
      door.commitReply(0)
      links.publish(shard + 1)
      return true
    },
    takeReplies: () => {
      links.drain()
      const all = replies
      replies = []
      return all
    },
    takeDown: (shard) => links.takeDown(shard),
    bringUp: (shard) => links.bringUp(shard),
    tooManyBytes,
  }
}

shardsSuite('SimShards', underTest)

function send(door: Shards, shard: number, number: number): boolean {
  const target = door.begin(shard, 8)
  if (target === undefined) return false
  target.i32[target.start >>> 2] = number
  door.commit(shard)
  return true
}

/** Which frames came where, in their order, for one seed. */
function deliveries(seed: number, refusalOneIn = 0): string[] {
  const links = new SimShards({ shards: 2, random: new SeededRandom(seed), refusalOneIn })
  const seen: string[] = []
  for (const shard of [0, 1]) {
    links.serve(shard, (thread, _u8, i32, start) => seen.push(`${thread}>${shard}:${i32[start >>> 2]}`))
  }
  for (let number = 0; number < 20; number++) {
    for (const thread of [0, 1, 2]) {
      if (!send(links.door(thread), number % 2, number)) seen.push(`${thread} refused ${number}`)
    }
  }
  for (const thread of [0, 1, 2]) links.publish(thread)
  links.drain()
  assert.equal(links.pending, 0)
  return seen
}

test('SimShards: the same seed gives the same deliveries, and another seed others', () => {
  assert.deepEqual(deliveries(1), deliveries(1))
  assert.notDeepEqual(deliveries(1), deliveries(2))
  assert.deepEqual(deliveries(1, 4), deliveries(1, 4))
})

test('SimShards interleaves the frames of different threads, and never those of one pair', () => {
  const orders = new Set<string>()
  for (let seed = 0; seed < 30; seed++) {
    const seen = deliveries(seed)
    assert.equal(seen.length, 60)
    for (const pair of ['0>0:', '1>0:', '2>0:', '0>1:', '1>1:', '2>1:']) {
      const numbers = seen.filter((text) => text.startsWith(pair)).map((text) => Number(text.slice(4)))
      assert.deepEqual(
        numbers,
        [...numbers].sort((a, b) => a - b),
      )
      assert.equal(numbers.length, 10)
    }
    orders.add(seen.map((text) => text.slice(0, 4)).join(''))
  }
  assert.equal(orders.size, 30)
})

test('SimShards refuses frames now and then although the shard is up, and sends nothing of them', () => {
  const seen = deliveries(3, 4)
  const refused = seen.filter((text) => text.includes('refused')).length
  assert.ok(refused > 5 && refused < 30, `${refused} refused`)
  assert.equal(seen.length, 60)
})

test('SimShards lends garbage, takes copies, and takes back what it handed over', () => {
  const links = new SimShards({ shards: 1 })
  const kept: { u8: Uint8Array; start: number }[] = []
  links.serve(0, (_thread, u8, _i32, start, bytes) => {
    assert.deepEqual([...u8.subarray(start, start + bytes)], [1, 2, 3, 4, 0xa5, 0xa5, 0xa5, 0xa5])
    kept.push({ u8, start })
  })
  const door = links.door(0)
  const target = door.begin(0, 8)!
  assert.ok(target.u8.every((byte) => byte === 0xa5))
  target.u8.set([1, 2, 3, 4], target.start)
  door.commit(0)
  target.u8.fill(9)
  door.publish()
  links.drain()
  assert.ok(kept[0]!.u8.every((byte) => byte === 0xa5))
})

test('SimShards delivers nothing to a shard that does not accept, and says when frames wait', () => {
  let queued = 0
  let accepts = false
  let taken = 0
  const links = new SimShards({ shards: 1, onQueued: () => queued++ })
  links.serve(
    0,
    () => taken++,
    () => accepts,
  )
  const door = links.door(0)
  send(door, 0, 1)
  assert.equal(queued, 0)
  door.publish()
  door.publish()
  assert.equal(queued, 1)
  assert.equal(links.step(), false)
  assert.equal(links.pending, 1)
  accepts = true
  assert.equal(links.step(), true)
  assert.equal(taken, 1)
})

test('SimShards drops and counts replies of and to shards that are down', () => {
  const links = new SimShards({ shards: 2 })
  assert.ok(links.replies(0).beginReply(2, 16) !== undefined)
  links.takeDown(1)
  assert.equal(links.replies(0).beginReply(2, 16), undefined)
  assert.equal(links.replies(1).beginReply(0, 16), undefined)
  assert.equal(links.droppedReplies, 2)
  links.bringUp(1)
  assert.ok(links.replies(1).beginReply(0, 16) !== undefined)
})
