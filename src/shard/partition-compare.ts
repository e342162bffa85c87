/**
 * Answers the compare commands of a shard (command.ts): what this replica has of a partition, for another one to find the difference. Each
 * answer is of one moment, between two groups of writes.
 *
 * A tree that does not exist yet, and the keys of leaves, take a pass over the partition: a thousandth of the keys, unless hash tags put
 * more into it.
 */
import { ByteReader, ByteWriter } from '../base/bytes.ts'
import { SunwiseError } from '../base/errors.ts'
import { hintBucketId } from '../config.ts'
import { recordBucket, recordHeaderBytes, recordKeyBytes } from '../storage/record.ts'
import type { Store } from '../storage/store.ts'
import { treeLeaves, treeNodes } from '../versions/hash-tree.ts'
import { type ClockFault, PartitionClock } from '../versions/partition-clock.ts'
import { decodeStable, encodeAttested, encodeStable } from '../versions/stability.ts'
import type { ActorTable } from '../versions/version-set.ts'
import { CompareVerb } from './command.ts'

/** Bytes of keys in one answer; leaves behind it are to be asked for again. */
const keysBytesMax = 1024 * 1024
const nothing = new Uint8Array(0)

export class PartitionCompare {
  readonly #store: Store
  readonly #actors: ActorTable

  readonly #epochMs: () => number

  constructor(store: Store, actors: ActorTable, epochMs: () => number) {
    this.#store = store
    this.#actors = actors
    this.#epochMs = epochMs
  }

  /** @throws TABLE_CORRUPT, DISK_FAILED, NOT_READY for a partition that has no other replicas, UNPROCESSABLE */
  answer(verb: number, partition: number, payload: Uint8Array): Uint8Array {
    const clock = this.#store.clockOf(partition)
    if (clock === undefined) {
      if (verb === CompareVerb.clock) return nothing
      throw new SunwiseError('NOT_READY', `Partition ${partition} is not known to have other replicas`)
    }
    switch (verb) {
      case CompareVerb.clock:
        return clock.encode(this.#actors)
      case CompareVerb.children:
        return this.#children(partition, payload)
      case CompareVerb.leafKeys:
        return this.#leafKeys(partition, payload)
      case CompareVerb.joinClock:
        return this.#join(partition, payload)
      case CompareVerb.damage:
        return this.#damage(partition, payload)
      case CompareVerb.joinStable:
        return this.#joinStable(partition, clock, payload)
      default:
        throw new SunwiseError('UNPROCESSABLE', `There is no question ${verb} about partitions`)
    }
  }

  #children(partition: number, payload: Uint8Array): Uint8Array {
    const nodes = numbersOf(payload, treeNodes - treeLeaves)
    const lanes = this.#store.treeOf(partition).children(nodes)
    return new Uint8Array(lanes.buffer, lanes.byteOffset, lanes.byteLength)
  }

  #leafKeys(partition: number, payload: Uint8Array): Uint8Array {
    const leaves = numbersOf(payload, treeLeaves)
    const { trees } = this.#store
    const byLeaf = new Map(leaves.map((leaf) => [leaf, new ByteWriter(64)]))
    this.#store.visitPartition(partition, (u8, i32, at) => {
      if (recordBucket(i32, at) === hintBucketId) return
      const leaf = trees.leafOf(u8, i32, at)
      const writer = byLeaf.get(leaf)
      if (writer === undefined) return
      const { low, high } = trees.digestOf(u8, i32, at)
      if (low === 0 && high === 0) return
      const keyBytes = recordKeyBytes(u8, at)
      writer.u16(leaf)
      writer.u16(keyBytes)
      writer.u32(recordBucket(i32, at))
      writer.u32(low)
      writer.u32(high)
      writer.raw(u8.subarray(at + recordHeaderBytes, at + recordHeaderBytes + keyBytes))
    })
    const answer = new ByteWriter(1024)
    answer.u16(0)
    let told = 0
    for (const writer of byLeaf.values()) {
      if (told > 0 && answer.length + writer.length > keysBytesMax) break
      answer.raw(writer.toBytes())
      told++
    }
    const bytes = answer.toBytes()
    bytes[0] = told
    bytes[1] = told >>> 8
    return bytes
  }

  #join(partition: number, payload: Uint8Array): Uint8Array {
    const reader = new ByteReader(payload)
    const generation = reader.u32()
    if (generation !== this.#store.damaged.generationOf(partition)) {
      throw new SunwiseError('NOT_READY', `Partition ${partition} has lost data to damage since it was compared`)
    }
    if (!this.#store.joinClock(partition, this.#decoded(reader.raw(reader.remaining)))) {
      throw new SunwiseError('OVERLOADED', 'The log has no room just now; try again')
    }
    return nothing
  }

  #damage(partition: number, payload: Uint8Array): Uint8Array {
    const { damaged } = this.#store
    const generation = new ByteReader(payload).u32()
    if (payload.length === 4) damaged.resynced(partition, generation)
    const answer = new ByteWriter(4)
    answer.u32(damaged.generationOf(partition))
    return answer.toBytes()
  }

  #joinStable(partition: number, clock: PartitionClock, payload: Uint8Array): Uint8Array {
    if (payload.length > 0) {
      const stable = decodeStable(payload, this.#indexOf)
      if (typeof stable === 'string') throw malformed(stable)
      this.#store.joinStable(partition, stable)
    }
    // What is not on stable storage may be lost, and then others must not have forgotten what it deleted.
    // Nor does who lost something know what all have.
    const mayAttest = this.#store.isDurable && this.#store.damaged.generationOf(partition) === 0
    const attested = mayAttest ? clock.encode(this.#actors) : nothing
    const stable = encodeStable(this.#store.stableOf(partition), this.#actors)
    return encodeAttested(attested, Math.max(0, Math.floor(this.#epochMs())), stable)
  }

  readonly #indexOf = (low: number, high: number): number => this.#store.actorIndex(low, high)

  #decoded(payload: Uint8Array): PartitionClock {
    const clock = PartitionClock.decode(payload, 0, payload.length, this.#indexOf)
    if (typeof clock === 'string') throw malformed(clock)
    return clock
  }
}

function malformed(fault: ClockFault): SunwiseError {
  return new SunwiseError('UNPROCESSABLE', `The clock is malformed: ${fault}`)
}

/** The u16 numbers of a payload, each below `bound`. */
function numbersOf(payload: Uint8Array, bound: number): number[] {
  const numbers: number[] = []
  for (let at = 0; at + 1 < payload.length; at += 2) {
    const number = payload[at]! | (payload[at + 1]! << 8)
    if (number >= bound) throw new SunwiseError('UNPROCESSABLE', `A tree has no node ${number} there`)
    numbers.push(number)
  }
  return numbers
}
