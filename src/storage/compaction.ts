/**
 * Merges parts of tables into new ones: a job for a thread of the pool. It reads a range of partitions of each input, in order, and
 * writes tables that end at the borders of partitions. Nothing changes before the owner takes the answer and the catalog has it:
 * a job that ends half-way, or whose answer is lost, leaves files that the next start removes.
 */
import { SunwiseError } from '../base/errors.ts'
import type { DiskFile, JobWorld } from '../env.ts'
import { abandon, type StorageTools } from './flush.ts'
import type { ActorId } from './log-control.ts'
import { Merge, type MergeCounts } from './merge.ts'
import type { TableId } from './sstable.ts'
import { TableIterator } from './sstable-iterator.ts'
import { metaIsComplete, readTableMeta } from './sstable-meta.ts'
import { TableWriter, type WrittenTable } from './sstable-writer.ts'

export type CompactionInput = {
  /**
   * Newest first. What a table holds outside of its runs is history: it was merged into another table before, and must not be met
   * again.
   */
  readonly runs: readonly {
    readonly path: string
    readonly tableId: TableId
    readonly firstPartition: number
    readonly endPartition: number
    /** What its actors are called in `actors`; undefined: the same. */
    readonly actorIndices: Uint16Array | undefined
  }[]
  readonly actors: readonly ActorId[]
  /** Names for as many tables as there may be. */
  readonly outputs: readonly { readonly path: string; readonly tableId: TableId }[]
  readonly directory: string
  /** A table ends at the first border of partitions behind so many bytes. */
  readonly tableBytesWanted: number
  readonly bitsPerKey: number
  readonly nowMs: number
  readonly graceMs: number
  /** The inputs hold all that any table has of the range. */
  readonly dropsTombstones: boolean
  /** Whether the outputs hold all that lies below them. */
  readonly isComplete: boolean
  /** Whether blocks of the outputs are compressed, where that makes them shorter. */
  readonly compresses: boolean
  readonly liveBuckets: readonly number[]
}

export type CompactionOutput = {
  /** Written and durable, in the order of their partitions, with the place of their name in `outputs`. */
  readonly tables: readonly { readonly output: number; readonly table: WrittenTable }[]
  readonly counts: MergeCounts
}

const portionBytes = 512 * 1024

/** The job. @throws DISK_FULL, DISK_FAILED, TABLE_CORRUPT, CLOSED; then its files are removed, if the disk allows */
export function compact(input: CompactionInput, world: JobWorld, tools: StorageTools): CompactionOutput {
  const { disk } = world
  const { crc32, codec } = tools
  const pace = (bytes: number): void => {
    world.pace(bytes)
    if (world.isCancelled) throw new SunwiseError('CLOSED', `Compaction in "${input.directory}" was cancelled`)
  }
  const files: DiskFile[] = []
  const outputs: { output: number; table: WrittenTable }[] = []
  let writer: TableWriter | undefined
  let file: DiskFile | undefined
  try {
    const metas = new Map<string, { readonly file: DiskFile; readonly meta: Int32Array }>()
    const open = (path: string, tableId: TableId): { readonly file: DiskFile; readonly meta: Int32Array } => {
      const known = metas.get(path)
      if (known !== undefined) return known
      const opened = disk.openNow(path)
      files.push(opened)
      const table = { file: opened, meta: readTableMeta(opened, tableId, crc32) }
      metas.set(path, table)
      return table
    }
    const inputs = input.runs.map(({ path, tableId, firstPartition, endPartition, actorIndices }) => {
      const table = open(path, tableId)
      const range = { firstPartition, endPartition, portionBytes, pace }
      const source = new TableIterator({ ...table, crc32, codec, ...range })
      return { source, isComplete: metaIsComplete(table.meta, 0), actorIndices }
    })
    const liveBuckets = new Set(input.liveBuckets)
    const merge = new Merge({
      inputs,
      nowMs: input.nowMs,
      graceMs: input.graceMs,
      dropsTombstones: input.dropsTombstones,
      isRetiredBucket: (bucketId) => !liveBuckets.has(bucketId),
    })
    const finish = (): void => {
      outputs.push({ output: outputs.length, table: writer!.finish() })
      file!.close()
      writer = undefined
      file = undefined
    }
    let partition = -1
    while (merge.next()) {
      const isBorder = merge.partition !== partition
      partition = merge.partition
      const isLastName = outputs.length + 1 === input.outputs.length
      if (writer !== undefined && isBorder && !isLastName && writer.bytes >= input.tableBytesWanted) finish()
      if (writer === undefined) {
        const { path, tableId } = input.outputs[outputs.length]!
        file = disk.createNow(path)
        const { actors, bitsPerKey, isComplete } = input
        writer = new TableWriter({
          file,
          tableId,
          crc32,
          bitsPerKey,
          actors,
          isComplete,
          codec: input.compresses ? codec : undefined,
          pace,
        })
      }
      writer.add(partition, merge.u8, merge.i32, merge.at)
    }
    if (writer !== undefined) finish()
    disk.syncDirectoryNow(input.directory)
    return { tables: outputs, counts: merge.counts }
  } catch (error) {
    if (file !== undefined) abandon(world, file, input.outputs[outputs.length]!.path)
    for (const { output } of outputs) abandon(world, { close: () => {} }, input.outputs[output]!.path)
    throw error
  } finally {
    for (const opened of files) opened.close()
  }
}
