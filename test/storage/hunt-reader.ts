/**
 * A thread that reads random keys of a shard's memory without locks, as fast as it can, and judges each answer by what
 * hunt-values.ts says a read may see. The reader's module is named by the parent, so that a broken one can be hunted, too.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { KeyHash } from '../../src/base/key-hash.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { partitionOfSlot, slotOfKey } from '../../src/cluster/slots.ts'
import { decodeRecord, RecordFlag, recordBucket, recordHeaderBytes, recordKeyBytes } from '../../src/storage/record.ts'
import type { ShardMemory } from '../../src/storage/shard-memory.ts'
import { type HuntBoard, HuntFlag, keyName, lastDeletion, valueBytesMax, versionOfValue } from './hunt-values.ts'

/** What a reader is told at the start of a round. */
export type HuntRound = {
  readonly round: number
  readonly seed: number
  readonly memory: ShardMemory
  readonly board: HuntBoard
  readonly keys: number
  readonly tags: number
  readonly bucketId: number
}

/** What it says at the end of one. */
export type HuntReport = {
  readonly reads: number
  readonly hits: number
  readonly misses: number
  readonly retries: number
  readonly contended: number
  /** The first wrong read. */
  readonly wrong: string | undefined
}

export const hashSeed = { low: 77, high: 78 }

if (parentPort !== null) {
  const port = parentPort
  const { readerUrl } = workerData as { readerUrl: string }
  const { ResidentReader, ReadResult } = (await import(
    readerUrl
  )) as typeof import('../../src/storage/resident-reader.ts')

  const run = ({ round, seed, memory, board, keys, tags, bucketId }: HuntRound): HuntReport => {
    const random = new SeededRandom(seed)
    const reader = new ResidentReader(memory, process.arch === 'arm64')
    const staged = new Int32Array(board.staged)
    const published = new Int32Array(board.published)
    const flags = new Int32Array(board.flags)
    const hash = new KeyHash(hashSeed)
    const names = Array.from({ length: keys }, (_, key) => new TextEncoder().encode(keyName(key, tags, round)))
    const hashes = new Uint32Array(keys)
    const partitions = new Uint16Array(keys)
    for (const [key, name] of names.entries()) {
      hash.update(bucketId, name, 0, name.length)
      hashes[key] = hash.low
      partitions[key] = partitionOfSlot(slotOfKey(name, 0, name.length))
    }
    /** No read of this thread may see an older version than this. */
    const seen = new Int32Array(keys)
    const buffer = new ArrayBuffer(valueBytesMax + 512)
    const u8 = new Uint8Array(buffer)
    const i32 = new Int32Array(buffer)
    let reads = 0
    let hits = 0
    let misses = 0
    let contended = 0
    let wrong: string | undefined

    /** Why what a record says is wrong; its version is in `found`. -1: it is a tombstone. */
    let found = 0
    const judgeRecord = (key: number, bytes: number): string | undefined => {
      const name = names[key]!
      if (i32[0] !== bytes || recordBucket(i32, 0) !== bucketId || recordKeyBytes(u8, 0) !== name.length) {
        return 'a record that is not of this key'
      }
      for (let index = 0; index < name.length; index++) {
        if (u8[recordHeaderBytes + index] !== name[index]) return 'a record of another key'
      }
      found = -1
      if (u8[12]! & RecordFlag.tombstone) return undefined
      const { value } = decodeRecord(u8, i32, 0).versions[0]!
      found = versionOfValue(value, 0, value.length, key)
      return found < 0 ? 'a torn record' : undefined
    }

    /** Reads one key; what was wrong about the answer, if anything. */
    const readOne = (key: number): string | undefined => {
      const name = names[key]!
      const draw = random.below(16)
      const least = Math.max(Atomics.load(published, key), seen[key]!)
      let bytes: number
      let problem: string | undefined
      if (draw < 4) {
        bytes = reader.readRecord(partitions[key]!, hashes[key]!, bucketId, name, 0, name.length, i32)
        if (bytes > 0) problem = judgeRecord(key, bytes)
      } else {
        // Word by word, byte by byte, and into too little room.
        const at = draw < 10 ? 8 : draw < 15 ? 9 : buffer.byteLength - 24
        bytes = reader.readValue(partitions[key]!, hashes[key]!, bucketId, name, 0, name.length, u8, i32, at)
        if (bytes >= 0) {
          found = versionOfValue(u8, at, bytes, key)
          if (found < 0) problem = 'a torn value'
        }
      }
      const most = Atomics.load(staged, key)
      if (problem !== undefined) return problem
      switch (bytes) {
        case ReadResult.contended:
          contended++
          return undefined
        case ReadResult.tooSmall:
          return reader.neededBytes > 0 ? undefined : 'an empty value that does not fit'
        case ReadResult.unavailable:
          return 'a shard that is not up'
        case ReadResult.absent:
        case ReadResult.special:
          found = -1
      }
      if (found < 0) {
        misses++
        const deletion = lastDeletion(key, most)
        return deletion >= least ? undefined : 'no key, which is there'
      }
      hits++
      if (found < least) return `version ${found}, which is stale`
      if (found > most) return `version ${found}, which is not written yet`
      seen[key] = found
      return undefined
    }

    while (Atomics.load(flags, HuntFlag.stop) === 0) {
      for (let batch = 0; batch < 64; batch++) {
        const inUse = Atomics.load(flags, HuntFlag.keys)
        // Some keys are hotter than others, and some are new.
        const draw = random.below(8)
        const span = draw < 2 ? Math.min(inUse, 16) : draw < 4 ? Math.min(inUse, 512) : inUse
        if (span === 0) continue
        const key = draw < 2 ? random.below(span) : inUse - 1 - random.below(span)
        const before = Atomics.load(published, key)
        const problem = readOne(key)
        reads++
        if (problem === undefined) continue
        Atomics.add(flags, HuntFlag.wrong, 1)
        wrong ??= `Key ${key} in round ${round} reads ${problem}; published before: ${before}, seen: ${seen[key]}, staged behind: ${Atomics.load(staged, key)}`
      }
    }
    return { reads, hits, misses, retries: reader.retries, contended, wrong }
  }

  port.on('message', (round: HuntRound) => port.postMessage(run(round)))
  port.postMessage('ready')
}
