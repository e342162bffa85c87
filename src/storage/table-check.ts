/**
 * Reads an SSTable whole and says what is wrong with it: each block's checksum, the order of its keys within and between blocks, the
 * filter, and the counts of its meta. For threads that may wait for the disk.
 */
import { compareBytes, copyBytes } from '../base/bytes.ts'
import type { Crc32 } from '../base/crc32.ts'
import { SunwiseError } from '../base/errors.ts'
import { KeyHash } from '../base/key-hash.ts'
import type { WorkMemory } from '../base/work-memory.ts'
import { Limits } from '../config.ts'
import type { DiskFile, JobWorld } from '../env.ts'
import { filterSeed } from './bloom-filter.ts'
import type { StorageTools } from './flush.ts'
import { RecordFlag, recordBucket, recordHeaderBytes, recordKeyBytes } from './record.ts'
import { type BlockCodec, MetaWord, type TableId } from './sstable.ts'
import { TableIterator } from './sstable-iterator.ts'
import { metaMayContain, readTableMeta } from './sstable-meta.ts'
import type { PartitionRange } from './table-rows.ts'

export type TableCheckOptions = {
  readonly file: DiskFile
  /** Undefined: whichever table it is. */
  readonly tableId: TableId | undefined
  readonly crc32: Crc32
  readonly codec: BlockCodec | undefined
  /** Told of bytes that were read, to slow the check down; may throw to end it. */
  readonly pace: (bytes: number) => void
  /** Default: memory of its own. */
  readonly memory?: WorkMemory
}

export type TableCheck = {
  /** Records in blocks that could be read. */
  readonly records: number
  /** What is wrong, and the partitions in which nothing can be relied on; whole: all of them. */
  readonly findings: readonly {
    readonly detail: string
    readonly firstPartition: number
    readonly endPartition: number
  }[]
}

/** A check without what lies outside of some ranges: of a table, that is history and harms nobody. */
export function checkWithin(check: TableCheck, ranges: readonly PartitionRange[]): TableCheck {
  const isWithin = ({ firstPartition, endPartition }: PartitionRange): boolean =>
    ranges.some((range) => firstPartition < range.endPartition && range.firstPartition < endPartition)
  return { ...check, findings: check.findings.filter(isWithin) }
}

const portionBytes = 256 * 1024
/** A table with more damage than this is lost anyhow. */
const findingsMax = 100

export type TableCheckInput = { readonly path: string; readonly tableId: TableId }

/** The job that looks through a table. @throws DISK_FAILED, CLOSED where it was cancelled; damage is in the answer */
export function checkTableFile({ path, tableId }: TableCheckInput, world: JobWorld, tools: StorageTools): TableCheck {
  const file = world.disk.openNow(path)
  try {
    const pace = (bytes: number): void => {
      world.pace(bytes)
      if (world.isCancelled) throw new SunwiseError('CLOSED', `The check of "${path}" was cancelled`)
    }
    return checkTable({ file, tableId, ...tools, pace, memory: world.memory })
  } finally {
    file.close()
  }
}

/** Checks a table. @throws DISK_FAILED, and what `pace` throws; damage is in the answer */
export function checkTable({ file, tableId, crc32, codec, pace, memory }: TableCheckOptions): TableCheck {
  const findings: { detail: string; firstPartition: number; endPartition: number }[] = []
  let meta: Int32Array
  try {
    meta = readTableMeta(file, tableId, crc32, memory)
  } catch (error) {
    const whole = { firstPartition: 0, endPartition: Number.POSITIVE_INFINITY }
    return { records: 0, findings: [{ detail: corruptionOf(error), ...whole }] }
  }
  const hash = new KeyHash(filterSeed)
  const firstPartition = meta[MetaWord.firstPartition]!
  const endPartition = firstPartition + meta[MetaWord.partitions]!
  let records = 0
  let tombstones = 0
  let lastPartition = -1
  let lastBucket = -1
  const lastKey = new Uint8Array(Limits.storedKeyBytesMax)
  let lastKeyBytes = 0
  let from = firstPartition
  /** Notes damage in a partition; the check goes on behind it. */
  const note = (detail: string, partition: number): void => {
    findings.push({ detail, firstPartition: partition, endPartition: partition + 1 })
    from = partition + 1
  }
  while (from < endPartition && findings.length < findingsMax) {
    const iterator = new TableIterator({
      file,
      meta,
      crc32,
      codec,
      firstPartition: from,
      endPartition,
      portionBytes,
      pace,
      ...(memory === undefined ? {} : { memory }),
    })
    try {
      from = endPartition
      while (iterator.next()) {
        const { u8, i32, at, partition } = iterator
        const bucketId = recordBucket(i32, at)
        const start = at + recordHeaderBytes
        const end = start + recordKeyBytes(u8, at)
        const order =
          partition - lastPartition || bucketId - lastBucket || compareBytes(u8, start, end, lastKey, 0, lastKeyBytes)
        if (order <= 0) {
          note(`keys of partition ${partition} are out of order`, partition)
          break
        }
        hash.update(bucketId, u8, start, end)
        if (!metaMayContain(meta, 0, hash.low, hash.high)) {
          note(`the filter denies a key of partition ${partition}`, partition)
          break
        }
        lastPartition = partition
        lastBucket = bucketId
        lastKeyBytes = end - start
        copyBytes(u8, start, lastKey, 0, lastKeyBytes)
        records++
        if (u8[at + 12]! & RecordFlag.tombstone) tombstones++
      }
    } catch (error) {
      note(corruptionOf(error), iterator.nextPartition)
    } finally {
      iterator.close()
    }
  }
  // With so much damage nothing behind it is relied on.
  if (from < endPartition) findings.push({ detail: 'there is more damage behind', firstPartition: from, endPartition })
  if (findings.length === 0) {
    const wrong = [
      ['records', records, meta[MetaWord.records]! >>> 0],
      ['tombstones', tombstones, meta[MetaWord.tombstones]! >>> 0],
    ] as const
    for (const [what, found, said] of wrong) {
      if (found === said) continue
      findings.push({ detail: `it has ${found} ${what}, and its index says ${said}`, firstPartition, endPartition })
    }
  }
  return { records, findings }
}

/** What an error says of the table. @throws the error where it says nothing of it */
function corruptionOf(error: unknown): string {
  if (error instanceof SunwiseError && error.code === 'TABLE_CORRUPT') {
    return String(error.extra?.['damage'] ?? error.message)
  }
  throw error
}
