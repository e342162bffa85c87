/**
 * Merges parts of tables into new ones: a job for a thread of the pool. It reads a range of partitions of each input, in order, and
 * writes tables that end at the borders of partitions. Nothing changes before the owner takes the answer and the catalog has it:
 * a job that ends half-way, or whose answer is lost, leaves files that the next start removes.
 */
import type { Crc32 } from '../base/crc32.ts'
import { SunwiseError } from '../base/errors.ts'
import type { DiskFile, JobWorld } from '../env.ts'
import { abandon, type StorageTools } from './flush.ts'
import { isRetired, type KnownBuckets } from './known-buckets.ts'
import type { ActorId } from './log-control.ts'
import { type LateMergeInput, Merge, type MergeCounts } from './merge.ts'
import type { ReplicatedPartitions } from './partition-clocks.ts'
import type { TableId } from './sstable.ts'
import { TableIterator } from './sstable-iterator.ts'
import { metaIsComplete, readTableIndex } from './sstable-meta.ts'
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
    /** Blocks that are damaged, and wanted no more: they are passed over. Whatever else is damaged is TABLE_CORRUPT. */
    readonly givenUp?: ReadonlySet<number> | undefined
  }[]
  readonly actors: readonly ActorId[]
  /** Names for as many tables as there may be. */
  readonly outputs: readonly { readonly path: string; readonly tableId: TableId }[]
  readonly directory: string
  /** A table ends at the first border of partitions behind so many bytes. */
  readonly tableBytesWanted: number
  /** A table that would be larger is TABLE_TOO_LARGE. Default: the most that there can be. */
  readonly tableBytesMax?: number | undefined
  readonly bitsPerKey: number
  readonly nowMs: number
  readonly graceMs: number
  /** The inputs hold all that any table has of the range. */
  readonly dropsTombstones: boolean
  /** Whether the outputs hold all that lies below them. */
  readonly isComplete: boolean
  /** Whether blocks of the outputs are compressed, where that makes them shorter. */
  readonly compresses: boolean
  readonly buckets: KnownBuckets
  /** Partitions with replicas elsewhere. */
  readonly replicated: ReplicatedPartitions
}

export type CompactionOutput = {
  /** Written and durable, in the order of their partitions, with the place of their name in `outputs`. */
  readonly tables: readonly { readonly output: number; readonly table: WrittenTable }[]
  readonly counts: MergeCounts
}

const portionBytes = 256 * 1024

/** The job. @throws DISK_FULL, DISK_FAILED, TABLE_CORRUPT, TABLE_TOO_LARGE, CLOSED; then its files are removed, if the disk allows */
export function compact(input: CompactionInput, world: JobWorld, tools: StorageTools): CompactionOutput {
  const { disk, memory } = world
  const { crc32, codec } = tools
  const pace = (bytes: number): void => {
    world.pace(bytes)
    if (world.isCancelled) throw new SunwiseError('CLOSED', `Compaction in "${input.directory}" was cancelled`)
  }
  const tables = new InputTables(input.runs, world, crc32)
  const outputs: { output: number; table: WrittenTable }[] = []
  let writer: TableWriter | undefined
  let file: DiskFile | undefined
  try {
    const inputs = input.runs.map((run): LateMergeInput => {
      const { firstPartition, endPartition, actorIndices, givenUp } = run
      let source: TableIterator | undefined
      return {
        fromPartition: firstPartition,
        open: () => {
          const { file, meta } = tables.open(run)
          pace(0)
          const range = { firstPartition, endPartition, portionBytes, pace }
          const passing = givenUp === undefined ? {} : { givenUp }
          source = new TableIterator({ file, meta, crc32, codec, memory, ...range, ...passing })
          return { source, isComplete: metaIsComplete(meta, 0), actorIndices }
        },
        close: () => {
          source?.close()
          tables.close(run)
        },
      }
    })
    const merge = new Merge({
      inputs,
      nowMs: input.nowMs,
      graceMs: input.graceMs,
      dropsTombstones: input.dropsTombstones,
      isRetiredBucket: (bucketId) => isRetired(input.buckets, bucketId),
      replicated: input.replicated,
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
          bytesMax: input.tableBytesMax,
          codec: input.compresses ? codec : undefined,
          pace,
          memory,
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
    tables.closeAll()
  }
}

type InputRun = CompactionInput['runs'][number]
type InputTable = { readonly file: DiskFile; readonly meta: Int32Array }

/** The tables of a compaction, each open from its first run to its last: old runs follow each other, and few are needed at once. */
class InputTables {
  readonly #world: JobWorld
  readonly #crc32: Crc32
  readonly #open = new Map<string, InputTable>()
  /** Runs of each table that have not ended. */
  readonly #runs = new Map<string, number>()

  constructor(runs: readonly InputRun[], world: JobWorld, crc32: Crc32) {
    this.#world = world
    this.#crc32 = crc32
    for (const { path } of runs) this.#runs.set(path, (this.#runs.get(path) ?? 0) + 1)
  }

  /** @throws TABLE_CORRUPT, DISK_FAILED */
  open({ path, tableId }: InputRun): InputTable {
    const known = this.#open.get(path)
    if (known !== undefined) return known
    const { disk, memory } = this.#world
    const file = disk.openNow(path)
    try {
      const table = { file, meta: readTableIndex(file, tableId, this.#crc32, memory) }
      this.#open.set(path, table)
      return table
    } catch (error) {
      file.close()
      throw error
    }
  }

  /** A run of the table has ended. */
  close({ path }: InputRun): void {
    const left = this.#runs.get(path)! - 1
    this.#runs.set(path, left)
    const table = this.#open.get(path)
    if (left > 0 || table === undefined) return
    this.#open.delete(path)
    this.#world.memory.give(table.meta)
    table.file.close()
  }

  closeAll(): void {
    for (const { file } of this.#open.values()) file.close()
    this.#open.clear()
  }
}
