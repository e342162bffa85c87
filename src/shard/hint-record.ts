/**
 * A hint as a record: what a replica missed while it was out of reach, kept by a node that was not, so that it outlives that node's restart.
 * It lies in a bucket of its own (`hintBucketId`), under the slot of the key that it is about: in the same shard and partition, so that
 * a hint can share the group commit of the write that it belongs to. Its key, numbers big-endian so that what is for one target lies together:
 *
 *      0 u8 targetBytes   1 target (visible ASCII)   then u32 bucketId | key
 *
 * Its value is empty where this node's own replica has the key (what that has when the hint is handed over is sent), else a version set
 * (versions/set-codec.ts). Its timestamp is when it was left.
 *
 * Hints are local, and no versions of the partition. The record names this run's actor with the counter 0, which no write ever has: no
 * dot is used up, no clock hears of it (storage/partition-clocks.ts), nothing that replicas compare counts it, and peers cannot name the
 * bucket. A hint that was handed over gets a tombstone of the same kind, which goes like one of a single node: with the segment that it
 * lies in, or with the merge that takes in all that is older. The owner merges what is kept for one key and target, since only it
 * sees all of it.
 */
import { equalBytes } from '../base/bytes.ts'
import { Limits } from '../config.ts'
import { ActorRegistry } from '../versions/actor-registry.ts'
import { decodeSet, encodeSet } from '../versions/set-codec.ts'
import { sync } from '../versions/version-set.ts'

/** What a hint is about. */
export type HintKey = { readonly target: string; readonly bucketId: number; readonly key: Uint8Array }

/** The key of a hint's record. The target is ASCII of 1 to `Limits.hintTargetBytesMax` characters. */
export function encodeHintKey({ target, bucketId, key }: HintKey): Uint8Array {
  const bytes = new Uint8Array(1 + target.length + 4 + key.length)
  bytes[0] = target.length
  for (let index = 0; index < target.length; index++) bytes[1 + index] = target.charCodeAt(index)
  const at = 1 + target.length
  bytes[at] = bucketId >>> 24
  bytes[at + 1] = bucketId >>> 16
  bytes[at + 2] = bucketId >>> 8
  bytes[at + 3] = bucketId
  bytes.set(key, at + 4)
  return bytes
}

/** What `encodeHintKey` wrote; undefined for any other bytes. `key` is a copy. */
export function decodeHintKey(bytes: Uint8Array): HintKey | undefined {
  const targetBytes = bytes[0] ?? 0
  const at = 1 + targetBytes
  const keyBytes = bytes.length - at - 4
  if (targetBytes === 0 || keyBytes < 1 || keyBytes > Limits.keyBytesMax) return undefined
  let target = ''
  for (const code of bytes.subarray(1, at)) target += String.fromCharCode(code)
  const bucketId = ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
  return { target, bucketId, key: bytes.slice(at + 4) }
}

/** Whether bytes are a value that a hint may have. */
export function isHintValue(value: Uint8Array): boolean {
  return value.length === 0 || typeof decodeSet(value, 0, value.length, new ActorRegistry().indexOf) !== 'string'
}

/** Both values of a hint in one; `held` itself where the other one adds nothing. */
export function mergeHintValues(held: Uint8Array, incoming: Uint8Array): Uint8Array {
  if (incoming.length === 0) return held
  if (held.length === 0) return incoming
  // Numbers of their own: what passes through here is none of the log's actors.
  const actors = new ActorRegistry()
  const a = decodeSet(held, 0, held.length, actors.indexOf)
  const b = decodeSet(incoming, 0, incoming.length, actors.indexOf)
  if (typeof b === 'string') return held
  if (typeof a === 'string') return incoming
  const merged = encodeSet(sync(a, b), actors)
  const isSame = merged.length === held.length && equalBytes(merged, 0, held, 0, held.length)
  return isSame ? held : merged
}
