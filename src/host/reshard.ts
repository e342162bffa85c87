/**
 * The generations of a node's log: `log/<generation>/<shard>`. A start with another number of shards, or another segment size,
 * deals the present generation into a new one before any worker runs; the catalog's commit is the moment of change.
 */
import { crc32 } from 'node:zlib'
import { SunwiseError } from '../base/errors.ts'
import { firstPartitionOfShard, partitionOfSlot, shardOfPartition } from '../cluster/slots.ts'
import type { Catalog, Disk, Done } from '../env.ts'
import { dealLogs } from '../storage/log-dealer.ts'
import { reshardTables } from '../storage/table-catalog.ts'
import type { PartitionRange } from '../storage/table-rows.ts'
import type { LogRow, NodeRecord } from './node-record.ts'

/** Directory of one shard's log, relative to the data directory. */
export function logDirectoryOf(generation: number, shard: number): string {
  return `log/${generation}/${shard}`
}

/** Where salvage leaves a damaged generation, relative to the data directory. */
export function quarantineOf(generation: number): string {
  return `quarantine-${generation}`
}

export type ReshardOptions = {
  readonly disk: Disk
  readonly catalog: Catalog
  readonly record: NodeRecord
  readonly present: LogRow
  readonly shards: number
  readonly segmentBytes: number
  /** Deal whatever is readable, even if nothing else changes: the new generation has no damage. */
  readonly salvage: boolean
  readonly log: (line: string) => void
}

/** Brings the log to the wanted form; returns the row that holds now. Interrupted anywhere, the next start does it again. */
export async function reshard(options: ReshardOptions): Promise<LogRow> {
  const { disk, catalog, record, present, shards, segmentBytes, salvage, log } = options
  let row = present
  if (present.shards !== shards || present.segmentBytes !== segmentBytes || salvage) {
    const generation = present.generation + 1
    // What an interrupted attempt left was never valid.
    await removeGeneration(disk, generation)
    const newDirectories = range(shards).map((shard) => logDirectoryOf(generation, shard))
    for (const directory of newDirectories) disk.makeDirectoryNow(directory)
    const records = await new Promise<number>((resolve, reject) => {
      dealLogs(
        {
          disk,
          crc32: (bytes, start, end) => crc32(bytes.subarray(start, end)),
          oldDirectories: range(present.shards).map((shard) => logDirectoryOf(present.generation, shard)),
          oldSegmentBytes: present.segmentBytes,
          oldEnds: record.cleanEnds(present.generation),
          newDirectories,
          newSegmentBytes: segmentBytes,
          salvage,
          actor: record.actor,
          skipped: ({ path, from, to }) => log(`Salvaged around damage in ${path}, bytes ${from} to ${to}`),
          shardOfSlot: (slot) => shardOfPartition(partitionOfSlot(slot), shards),
          partitionOfSlot,
        },
        (error, dealt) => (error === undefined ? resolve(dealt) : reject(error)),
      )
    }).catch(async (error: unknown) => {
      // The present generation is as it was; of a full disk the new one is the greater part.
      await removeGeneration(disk, generation).catch(() => {})
      throw withAdvice(error, present.shards)
    })
    log(`Dealt ${records} log records of ${present.shards} shards to ${shards}`)
    const retired = salvage ? present.retired : [...present.retired, present.generation]
    row = { generation, shards, segmentBytes, retired }
    // New logs begin their sequences anew, and so nothing of them was flushed yet.
    await record.putLog(
      row,
      reshardTables(
        catalog,
        present.shards,
        range(shards).map((shard) => partitionsOf(shard, shards)),
      ),
    )
    if (salvage) await quarantine(disk, present.generation)
  }
  for (const generation of row.retired) await removeGeneration(disk, generation)
  // Salvage was interrupted after the commit: the damaged generation still stands in its old place.
  for (const name of disk.listNow('log')) if (Number(name) < row.generation) await quarantine(disk, Number(name))
  row = { ...row, retired: [] }
  await record.putLog(row)
  return row
}

/** The error of a deal. Without room for a second log the node may still start as it was. */
function withAdvice(error: unknown, shards: number): unknown {
  if (!(error instanceof SunwiseError) || error.code !== 'DISK_FULL') return error
  const message = `${error.message}; the log cannot be dealt to another number of shards, so free some space or start with --shards ${shards}`
  return new SunwiseError('DISK_FULL', message, { outcome: 'none', cause: error })
}

/** Partitions of a shard of `shards`. */
export function partitionsOf(shard: number, shards: number): PartitionRange {
  return {
    firstPartition: firstPartitionOfShard(shard, shards),
    endPartition: firstPartitionOfShard(shard + 1, shards),
  }
}

/** Where the tables of all shards are. */
export const tablesDirectory = 'tables'

const range = (count: number): number[] => Array.from({ length: count }, (_, index) => index)

const settled = (start: (done: Done) => void): Promise<void> =>
  new Promise((resolve, reject) => {
    start((error) => (error === undefined ? resolve() : reject(error)))
  })

/** Puts a damaged generation out of the way, whole: somebody may want to look into it. */
async function quarantine(disk: Disk, generation: number): Promise<void> {
  await settled((done) => disk.rename(`log/${generation}`, quarantineOf(generation), done))
  await settled((done) => disk.syncDirectory('log', done))
}

async function removeGeneration(disk: Disk, generation: number): Promise<void> {
  for (const shard of disk.listNow(`log/${generation}`)) {
    for (const name of disk.listNow(`log/${generation}/${shard}`)) {
      await settled((done) => disk.remove(`log/${generation}/${shard}/${name}`, done))
    }
    await settled((done) => disk.remove(`log/${generation}/${shard}`, done))
  }
  await settled((done) => disk.remove(`log/${generation}`, done))
  try {
    await settled((done) => disk.syncDirectory('log', done))
  } catch (error) {
    if (!(error instanceof SunwiseError)) throw error
    if (disk.listNow('log').length > 0) throw error
  }
}
