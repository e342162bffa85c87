/** Every key of one partition with its newest record, dead or alive, those in memory first: for who must look at all of it at once. */
import type { HashSeed } from '../base/key-hash.ts'
import { KeyHash } from '../base/key-hash.ts'
import { type Arena, slabWordMask, wordsPerSlabBits } from './arena.ts'
import type { HashIndex } from './hash-index.ts'
import { Merge } from './merge.ts'
import { recordBucket, recordHeaderBytes, recordKeyBytes } from './record.ts'
import type { Tables } from './tables.ts'

export type RecordVisit = (u8: Uint8Array, i32: Int32Array, at: number) => void

const neverDrops = { nowMs: 0, graceMs: 0, dropsTombstones: false, isRetiredBucket: () => false } as const
const noKey = new Uint8Array(0)

/** Visits all published records of a partition within this turn. What the visitor gets is valid until it returns. `damaged`: as of Tables.sourcesOf. @throws TABLE_CORRUPT, DISK_FAILED */
export function visitPartition(
  arena: Arena,
  index: HashIndex,
  tables: Tables | undefined,
  hashSeed: HashSeed,
  partition: number,
  visit: RecordVisit,
  damaged?: (tableIdLow: number, block: number) => void,
): void {
  for (let position = 0; position < index.directorySize(partition); ) {
    position = index.visitChunk(partition, position, (address) => {
      const slab = address >>> wordsPerSlabBits
      visit(arena.u8[slab]!, arena.i32[slab]!, (address & slabWordMask) << 2)
    })
  }
  const inputs = tables?.sourcesOf(partition, 0, noKey, damaged) ?? []
  if (inputs.length === 0) return
  const hash = new KeyHash(hashSeed)
  const merge = new Merge({ ...neverDrops, inputs })
  while (merge.next()) {
    const { u8, i32, at } = merge
    const keyStart = at + recordHeaderBytes
    const keyBytes = recordKeyBytes(u8, at)
    const bucketId = recordBucket(i32, at)
    hash.update(bucketId, u8, keyStart, keyStart + keyBytes)
    // What memory has of a key hides what tables have.
    if (index.find(partition, hash.low, bucketId, u8, keyStart, keyBytes) === 0) visit(u8, i32, at)
  }
}
