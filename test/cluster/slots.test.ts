import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  firstPartitionOfShard,
  partitionOfSlot,
  shardOfPartition,
  slotOfKey,
  slotOfTag,
} from '../../src/cluster/slots.ts'
import { Limits } from '../../src/config.ts'

const slot = (text: string): number => {
  const bytes = new TextEncoder().encode(text)
  return slotOfKey(bytes, 0, bytes.length)
}

test('slotOfKey() follows the hash tag rules of Redis Cluster', () => {
  assert.equal(slot('123456789'), 12739)
  assert.equal(slot('foo'), 12182)
  assert.equal(slot('somekey'), 11058)
  assert.equal(slot('{user1000}.following'), slot('{user1000}.followers'))
  assert.equal(slot('foo{hash_tag}'), 2515)
  assert.equal(slot('bar{hash_tag}'), 2515)
  assert.equal(slot('{foo}'), slot('foo'))
  // An empty tag does not count: the whole key is hashed.
  assert.notEqual(slot('foo{}{bar}'), slot('bar'))
  // The first brace opens and the next one closes: the tag is `{bar`.
  assert.equal(slot('foo{{bar}}zap'), slot('{bar'))
  assert.equal(slot('foo{bar}{zap}'), slot('bar'))
  assert.notEqual(slot('foo{bar'), slot('bar'))
})

test('slotOfTag() is the slot of every key that begins with a whole tag, and of no other prefix', () => {
  const tagSlot = (text: string): number => {
    const bytes = new TextEncoder().encode(text)
    return slotOfTag(bytes, 0, bytes.length)
  }
  for (const prefix of ['{foo}', 'a{foo}', 'a{foo}b{c}', '{{x}', '{a}{']) {
    for (const rest of ['', 'x', '}', '{y}', '}{']) assert.equal(tagSlot(prefix), slot(prefix + rest), prefix + rest)
  }
  for (const prefix of ['', 'foo', '{', '{foo', 'foo{', '{}', '{}{a}', '}', '}a{b'])
    assert.equal(tagSlot(prefix), -1, prefix)
})

test('Every partition belongs to exactly one shard, in contiguous ranges of equal size to within one', () => {
  for (let shards = 1; shards <= Limits.shardsMax; shards++) {
    const counts = new Array<number>(shards).fill(0)
    for (let partition = 0; partition < Limits.partitions; partition++) {
      const shard = shardOfPartition(partition, shards)
      counts[shard]!++
      assert.ok(partition >= firstPartitionOfShard(shard, shards))
      assert.ok(partition < firstPartitionOfShard(shard + 1, shards))
    }
    assert.ok(Math.max(...counts) - Math.min(...counts) <= 1)
  }
  assert.equal(partitionOfSlot(0), 0)
  assert.equal(partitionOfSlot(16383), 1023)
})
