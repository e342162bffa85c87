/**
 * What the hunt for torn reads writes, and how its readers know a right value from a wrong one. Everything about version `v`
 * of key `k` follows from the two numbers: whether it is a deletion, how long its value is, and each byte of it.
 *
 * Two boards in shared memory bound what a read may see: the owner notes a version on `staged` before it can become visible,
 * and on `published` after it has. A reader looks at `published` before its read and at `staged` behind it.
 */

/** Longest value. */
export const valueBytesMax = 1016
const valueHeaderBytes = 8
/** So many keys of each dozen are deleted now and then. */
const transientOf12 = 4
/** A key that comes and goes is deleted by every fourth version. */
const deletionPeriod = 4

/** Words of `HuntBoard.flags`. */
export const HuntFlag = {
  /** 1: readers end their round. */
  stop: 0,
  /** Wrong reads so far. */
  wrong: 1,
  /** Keys that the owner has begun to write, from 0 on. */
  keys: 2,
} as const

/** Shared memory of one round besides the shard's. All Int32Array words. */
export type HuntBoard = {
  readonly staged: SharedArrayBuffer
  readonly published: SharedArrayBuffer
  readonly flags: SharedArrayBuffer
}

/** The names of a round's keys: `tags` hash tags, and so as many partitions. */
export function keyName(key: number, tags: number, round: number): string {
  return `{tag${(key * 7 + round) % tags}-${round}}${key}`
}

function mix(key: number, version: number): number {
  let hash = Math.imul(key + 1, 0x9e3779b1) ^ Math.imul(version, 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 15), 0xc2b2ae35)
  hash = Math.imul(hash ^ (hash >>> 13), 0x27d4eb2f)
  return (hash ^ (hash >>> 16)) >>> 0
}

/** Whether the key comes and goes; the others, once written, are there for ever. */
export function isTransient(key: number): boolean {
  return key % 12 < transientOf12
}

export function isDeletion(key: number, version: number): boolean {
  return version === 0 || (isTransient(key) && version % deletionPeriod === 0)
}

/** The last version up to `version` that leaves the key absent; 0 is the time before its first. */
export function lastDeletion(key: number, version: number): number {
  return isTransient(key) ? version - (version % deletionPeriod) : 0
}

export function valueBytesOf(key: number, version: number): number {
  const hash = mix(key, version)
  return valueHeaderBytes + (hash & 15 ? hash % 120 : hash % (valueBytesMax - valueHeaderBytes))
}

/** Writes the value of a version to the start of `into`; returns its length. */
export function fillValue(into: Uint8Array, key: number, version: number): number {
  const bytes = valueBytesOf(key, version)
  for (let index = 0; index < 4; index++) {
    into[index] = key >>> (8 * index)
    into[index + 4] = version >>> (8 * index)
  }
  let state = mix(key, version)
  const step = (state >>> 8) | 1
  for (let index = valueHeaderBytes; index < bytes; index++) {
    state = (state + step) | 0
    into[index] = state >>> 16
  }
  return bytes
}

/** The version that a value says it is; -1 if it is not, byte for byte, that version of that key. */
export function versionOfValue(u8: Uint8Array, at: number, bytes: number, key: number): number {
  if (bytes < valueHeaderBytes) return -1
  const named = u8[at]! | (u8[at + 1]! << 8) | (u8[at + 2]! << 16) | (u8[at + 3]! << 24)
  const version = u8[at + 4]! | (u8[at + 5]! << 8) | (u8[at + 6]! << 16) | (u8[at + 7]! << 24)
  if (named !== key || version <= 0 || isDeletion(key, version) || bytes !== valueBytesOf(key, version)) return -1
  let state = mix(key, version)
  const step = (state >>> 8) | 1
  for (let index = valueHeaderBytes; index < bytes; index++) {
    state = (state + step) | 0
    if (u8[at + index] !== ((state >>> 16) & 0xff)) return -1
  }
  return version
}
