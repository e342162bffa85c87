/**
 * The hash trees of partitions that other nodes have, too (versions/hash-tree.ts), as this replica's data is now: what a record of a key
 * adds to its leaf is taken out when another takes its place. A tree is begun by who needs it, with one pass over the partition, and
 * kept from then on; where data goes without a word (a bucket is deleted), trees are dropped, and built anew when they are wanted.
 *
 *   leaf      of a key: 12 bits of its hash
 *   summand   64 bits over (bucket, key, digest of the dots); the hash of keys here is the same on every node
 *
 * A key without versions adds nothing: to others it looks as if it had never been. Nor does one that is deleted, or over by its expiry, where
 * every replica has that and all that it replaced (versions/stability.ts): each may forget it when it likes.
 */
import { KeyHash } from '../base/key-hash.ts'
import { hintBucketId } from '../config.ts'
import { HashTree, treeLeaves } from '../versions/hash-tree.ts'
import { joinStable, nothingStable, type Stable } from '../versions/stability.ts'
import { type ActorTable, counterOf, type Digest, descends, digest, digestOfDot } from '../versions/version-set.ts'
import {
  decodeRecord,
  RecordFlag,
  recordBucket,
  recordHeaderBytes,
  recordKeyBytes,
  simpleActor,
  simpleCounter,
  simpleExpiry,
} from './record.ts'

/** Part of the protocol between nodes: it never changes. */
const publicSeed = { low: 0x5357_4e31, high: 0x7472_6565 }

/**
 * Whether a record holds nothing but deletes, and versions that are over on all clocks, that every replica has, with all that they
 * replaced. It hangs on the record and on what is stable alone: replicas that know the same of that forget the same.
 */
export function isForgettable(u8: Uint8Array, i32: Int32Array, at: number, stable: Stable): boolean {
  const flags = u8[at + 12]!
  if ((flags & (RecordFlag.tombstone | RecordFlag.expiry)) === 0) return false
  const isDeleted = (flags & RecordFlag.tombstone) !== 0
  // Nobody else has hints.
  if (recordBucket(i32, at) === hintBucketId) return isDeleted
  const { vector, expiredBeforeMs } = stable
  if (vector.length === 0) return false
  if (flags & RecordFlag.simple) {
    if (!isDeleted && simpleExpiry(u8, i32, at) >= expiredBeforeMs) return false
    return counterOf(vector, simpleActor(u8, at)) >= simpleCounter(u8, i32, at)
  }
  const set = decodeRecord(u8, i32, at)
  const isOver = set.versions.every(
    ({ tombstone, expiresAtMs }) => tombstone || (expiresAtMs > 0 && expiresAtMs < expiredBeforeMs),
  )
  return isOver && descends(vector, set.vector)
}

export class PartitionTrees {
  readonly #actors: ActorTable
  readonly #hash = new KeyHash(publicSeed)
  readonly #trees = new Map<number, HashTree>()
  readonly #stable = new Map<number, Stable>()
  /** Partitions with something in their trees that expires. */
  readonly #expiring = new Set<number>()
  /** Of the record that was looked at last. */
  #leaf = 0
  #low = 0
  #high = 0

  constructor(actors: ActorTable) {
    this.#actors = actors
  }

  get isEmpty(): boolean {
    return this.#trees.size === 0
  }

  treeOf(partition: number): HashTree | undefined {
    return this.#trees.get(partition)
  }

  /** An empty tree, to which the caller adds all records of the partition at once. */
  begin(partition: number): HashTree {
    const tree = new HashTree()
    this.#trees.set(partition, tree)
    this.#expiring.delete(partition)
    return tree
  }

  /**
   * All replicas of a partition have all writes up to here. It never goes back. What is deleted for good leaves the tree, so it is built anew.
   */
  joinStable(partition: number, stable: Stable): void {
    const before = this.stableOf(partition)
    const joined = joinStable(before, stable)
    if (joined === before) return
    this.#stable.set(partition, joined)
    const isTimeAlone = descends(before.vector, joined.vector)
    if (!isTimeAlone || this.#expiring.has(partition)) this.#trees.delete(partition)
  }

  /** Up to where all replicas of a partition have all writes, as far as is known in this run. */
  stableOf(partition: number): Stable {
    return this.#stable.get(partition) ?? nothingStable
  }

  clear(): void {
    this.#trees.clear()
  }

  /** What a partition has is not known any more. */
  drop(partition: number): void {
    this.#trees.delete(partition)
  }

  add(partition: number, u8: Uint8Array, i32: Int32Array, at: number): void {
    const tree = this.#trees.get(partition)
    if (tree !== undefined && this.#look(partition, u8, i32, at)) tree.add(this.#leaf, this.#low, this.#high)
  }

  remove(partition: number, u8: Uint8Array, i32: Int32Array, at: number): void {
    const tree = this.#trees.get(partition)
    if (tree !== undefined && this.#look(partition, u8, i32, at)) tree.remove(this.#leaf, this.#low, this.#high)
  }

  /** The leaf of a record's key. */
  leafOf(u8: Uint8Array, i32: Int32Array, at: number): number {
    const keyStart = at + recordHeaderBytes
    this.#hash.update(recordBucket(i32, at), u8, keyStart, keyStart + recordKeyBytes(u8, at))
    return (this.#hash.high >>> 4) & (treeLeaves - 1)
  }

  /** The digest of a record's dots; 0, 0 where it has no versions. */
  digestOf(u8: Uint8Array, i32: Int32Array, at: number): Digest {
    const flags = u8[at + 12]!
    if ((flags & RecordFlag.simple) === 0) return digest(decodeRecord(u8, i32, at), this.#actors)
    const actor = simpleActor(u8, at)
    const isTombstone = (flags & RecordFlag.tombstone) !== 0
    return digestOfDot(this.#actors.lowOf(actor), this.#actors.highOf(actor), simpleCounter(u8, i32, at), isTombstone)
  }

  /** Finds leaf and summand; false where there is nothing to add. */
  #look(partition: number, u8: Uint8Array, i32: Int32Array, at: number): boolean {
    if (recordBucket(i32, at) === hintBucketId) return false
    const { low, high } = this.digestOf(u8, i32, at)
    if (low === 0 && high === 0) return false
    if (isForgettable(u8, i32, at, this.stableOf(partition))) return false
    if (u8[at + 12]! & RecordFlag.expiry) this.#expiring.add(partition)
    this.#leaf = this.leafOf(u8, i32, at)
    // One round each way: a difference in either half shows in both.
    const mixed = Math.imul(low ^ this.#hash.low, 0x85eb_ca6b) + high
    this.#high = Math.imul(mixed ^ (mixed >>> 15) ^ this.#hash.high, 0xc2b2_ae35) | 0
    this.#low = (mixed + Math.imul(this.#high ^ (this.#high >>> 13), 0x27d4_eb2f)) | 0
    return true
  }
}
