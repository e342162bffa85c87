/** Branded numbers: what can be confused has a type of its own. Each brand has one constructor, which checks its range. */
import { assert } from './assert.ts'

declare const brand: unique symbol
type Branded<Base, Name extends string> = Base & { readonly [brand]: Name }

/** CRC16 of a key (or of its hash tag) modulo 16384. */
export type Slot = Branded<number, 'Slot'>
/** A fixed slice of the ring: `slot >> 4` with the 1024 partitions of a default cluster. */
export type PartitionId = Branded<number, 'PartitionId'>
/** Index of a shard within its node, 0 to shards-1. */
export type ShardId = Branded<number, 'ShardId'>
/** u32 that names a bucket in stored keys; never reused. */
export type BucketId = Branded<number, 'BucketId'>
/** Index of a thread that takes part in the rings of a node. */
export type ThreadId = Branded<number, 'ThreadId'>
/** Milliseconds since 1970 on the wall clock. */
export type EpochMs = Branded<number, 'EpochMs'>
/** Milliseconds on the monotonic clock, from an arbitrary start. */
export type MonotonicMs = Branded<number, 'MonotonicMs'>

export function slotOf(value: number): Slot {
  assert(Number.isInteger(value) && value >= 0 && value < 16384, 'A slot is an integer from 0 to 16383')
  return value as Slot
}

export function partitionIdOf(value: number): PartitionId {
  assert(Number.isInteger(value) && value >= 0 && value < 16384, 'A partition is an integer from 0 to 16383')
  return value as PartitionId
}

export function shardIdOf(value: number): ShardId {
  assert(Number.isInteger(value) && value >= 0 && value < 256, 'A shard is an integer from 0 to 255')
  return value as ShardId
}

export function bucketIdOf(value: number): BucketId {
  assert(Number.isInteger(value) && value >= 0 && value <= 0xffffffff, 'A bucket id is a u32')
  return value as BucketId
}

export function threadIdOf(value: number): ThreadId {
  assert(Number.isInteger(value) && value >= 0 && value < 512, 'A thread is an integer from 0 to 511')
  return value as ThreadId
}
