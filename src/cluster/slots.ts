/**
 * From key bytes to slot, from slot to partition, from partition to shard. The first two are part of the on-disk format and
 * equal on every node; the third is this node's own affair and changes with its number of shards.
 */
import { crc16, crc16Without } from '../base/crc16.ts'
import { Limits } from '../config.ts'

const openBrace = 0x7b
const closeBrace = 0x7d

/**
 * The slot of a key: CRC16 & 16383 of the key, or of what stands between the first `{` and the next `}` if that is not
 * empty, so that keys with one tag stay together (Redis Cluster specification, "hash tags").
 */
export function slotOfKey(key: Uint8Array, start: number, end: number): number {
  const whole = crc16Without(key, start, end, openBrace)
  if (whole >= 0) return whole & (Limits.slots - 1)
  const tagged = slotOfTag(key, start, end)
  return tagged < 0 ? crc16(key, start, end) & (Limits.slots - 1) : tagged
}

/** The slot of every key that begins with these bytes, where they hold a whole tag; else -1: such keys are anywhere. */
export function slotOfTag(prefix: Uint8Array, start: number, end: number): number {
  let open = start
  while (open < end && prefix[open] !== openBrace) open++
  let close = open + 1
  while (close < end && prefix[close] !== closeBrace) close++
  return close < end && close > open + 1 ? crc16(prefix, open + 1, close) & (Limits.slots - 1) : -1
}

/** Slots per partition are 2^4: 16384 / 1024. */
const partitionShift = Math.log2(Limits.slots / Limits.partitions)

/** The partition that a slot lies in. */
export function partitionOfSlot(slot: number): number {
  return slot >>> partitionShift
}

/** The partition of a whole key. */
export function partitionOfKey(key: Uint8Array): number {
  return partitionOfSlot(slotOfKey(key, 0, key.length))
}

/** The shard that owns a partition when the node has `shards` of them: contiguous, equal to within one partition. */
export function shardOfPartition(partition: number, shards: number): number {
  return ((partition * shards) / Limits.partitions) | 0
}

/** First partition of a shard; that of `shard + 1` ends its range. */
export function firstPartitionOfShard(shard: number, shards: number): number {
  return Math.ceil((shard * Limits.partitions) / shards)
}
