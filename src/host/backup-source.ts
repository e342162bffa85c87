/**
 * Where a backup comes from: a node that runs, asked over its control socket to hold its files, or a directory that nobody uses, whose
 * lock is taken meanwhile.
 */
import { join } from 'node:path'
import { SunwiseError } from '../base/errors.ts'
import { segmentFileName } from '../storage/commit-log.ts'
import type { HeldSegment, HeldShard } from '../storage/hold.ts'
import { listSegments } from '../storage/log-recovery.ts'
import { loadTables } from '../storage/table-catalog.ts'
import { type BackupProgress, type BackupSource, type BackupSummary, writeBackup } from './backup.ts'
import { restoringName } from './backup-manifest.ts'
import { HostCatalog } from './catalog.ts'
import { ControlClient } from './control-socket.ts'
import { acquireDirectoryLock, holderOf } from './directory-lock.ts'
import { HostDisk } from './disk.ts'
import { directoryFormatVersion, isOwnRow, NodeRecord } from './node-record.ts'
import { logDirectoryOf, partitionsOf } from './reshard.ts'

export type CreateBackupOptions = {
  readonly dataDirectory: string
  /** Of the backups; made if it does not exist. */
  readonly directory: string
  /** Backups that stay, this one included. */
  readonly keep: number
  readonly onProgress: (progress: BackupProgress) => void
  readonly signal?: AbortSignal | undefined
  /** Whether every block of a table that is copied is checked; that holds the calling thread up for parts of a second. */
  readonly checks?: boolean
}

/**
 * Adds a backup of a data directory, whether a node runs on it or not. Rejects with NOT_READY or OVERLOADED where the node cannot hold
 * its files, with TABLE_CORRUPT where a table is damaged, with DISK_FULL or DISK_FAILED; then earlier backups are as they were.
 */
export async function createBackup(options: CreateBackupOptions): Promise<BackupSummary> {
  const { dataDirectory, directory, keep, onProgress, signal, checks = false } = options
  const held = await openSource(dataDirectory)
  try {
    return await writeBackup(held.source, directory, { keep, onProgress, signal, checks })
  } finally {
    await held.close()
  }
}

export type OpenSource = {
  readonly source: BackupSource
  /** No node runs on it. */
  readonly isAtRest: boolean
  close(): Promise<void>
}

/** Sees to it that the files of a data directory stay as they are until `close`. Rejects as `createBackup` does. */
export async function openSource(dataDirectory: string): Promise<OpenSource> {
  const holder = await holderOf(dataDirectory)
  return holder === undefined ? openAtRest(dataDirectory) : openRunning(dataDirectory, holder)
}

async function openRunning(dataDirectory: string, holder: string): Promise<OpenSource> {
  const client = await ControlClient.connect(dataDirectory)
  if (client === undefined) {
    const message = `Cannot back up "${dataDirectory}": process ${holder} uses it and does not answer; try again when it serves`
    throw new SunwiseError('NOT_READY', message)
  }
  try {
    const held = await client.hold()
    const source: BackupSource = {
      ...held,
      directory: dataDirectory,
      releaseLogs: () => client.releaseLogs(),
      check: () => client.check(),
    }
    return { source, isAtRest: false, close: async () => client.close() }
  } catch (error) {
    client.close()
    throw error
  }
}

async function openAtRest(dataDirectory: string): Promise<OpenSource> {
  const disk = new HostDisk(dataDirectory)
  const names = disk.listNow('')
  if (!names.includes('catalog') || names.includes(restoringName)) {
    const why = names.includes('catalog') ? 'it is being restored' : 'there is no catalog in it'
    throw new SunwiseError('DIRECTORY_UNUSABLE', `Cannot back up "${dataDirectory}": ${why}`)
  }
  const lock = await acquireDirectoryLock(dataDirectory)
  let catalog: HostCatalog | undefined
  try {
    catalog = await HostCatalog.open(join(dataDirectory, 'catalog'))
    const { identity, log } = new NodeRecord(catalog)
    if (identity?.format !== directoryFormatVersion || log === undefined) {
      const why =
        identity === undefined ? 'no node has finished its first start in it' : `it has format ${identity.format}`
      throw new SunwiseError('DIRECTORY_UNUSABLE', `Cannot back up "${dataDirectory}": ${why}`)
    }
    const shards = Array.from({ length: log.shards }, (_, shard) => {
      const { rows, facts, flushedThrough } = loadTables(catalog!, shard, partitionsOf(shard, log.shards))
      const segments = segmentsAtRest(disk, logDirectoryOf(log.generation, shard))
      return { segments, rows: rows.rows, facts: [...facts.values()], flushedThrough } satisfies HeldShard
    })
    const source: BackupSource = {
      directory: dataDirectory,
      nodeId: identity.nodeId,
      log,
      rows: catalog.scan('').filter(([key]) => isOwnRow(key)),
      shards,
      releaseLogs: async () => {},
      check: async () => {},
    }
    const opened = catalog
    return {
      source,
      isAtRest: true,
      close: async () => {
        await opened.close()
        await lock.release()
      },
    }
  } catch (error) {
    await catalog?.close()
    await lock.release()
    throw error
  }
}

function segmentsAtRest(disk: HostDisk, directory: string): HeldSegment[] {
  return listSegments(disk, directory).map((segment) => {
    const file = disk.openNow(`${directory}/${segmentFileName(segment)}`)
    const bytes = file.sizeNow()
    file.close()
    return { segment, bytes, head: undefined }
  })
}
