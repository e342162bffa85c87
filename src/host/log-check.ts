/** A look at the commit logs of a data directory that no process holds: reads all of it, changes nothing. For `doctor`. */
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import type { SunwiseError } from '../base/errors.ts'
import { Arena, createArenaMemory } from '../storage/arena.ts'
import type { LogPosition } from '../storage/log-group.ts'
import { type RecoveredLog, recoverLog, segmentsOnDisk } from '../storage/log-recovery.ts'
import { HostCatalog } from './catalog.ts'
import { HostDisk } from './disk.ts'
import { NodeRecord } from './node-record.ts'
import { logDirectoryOf } from './reshard.ts'

/** What the log of one shard holds, or why it cannot be read. */
export type LogFinding = {
  readonly shard: number
  readonly records: number
  readonly bytes: number
  /** Behind the end of the log: a torn tail, which the next start drops. */
  readonly droppedBytes: number
  readonly error: SunwiseError | undefined
}

/** Reads every shard's log. Rejects with CATALOG_CORRUPT where the catalog cannot be read. */
export async function checkLogs(directory: string): Promise<readonly LogFinding[]> {
  const catalog = await HostCatalog.open(join(directory, 'catalog'))
  try {
    const record = new NodeRecord(catalog)
    const row = record.log
    if (row === undefined) return []
    const ends = record.cleanEnds(row.generation)
    const findings: LogFinding[] = []
    for (let shard = 0; shard < row.shards; shard++) {
      const log = logDirectoryOf(row.generation, shard)
      findings.push(await checkLog(directory, log, row.segmentBytes, shard, ends?.[shard]))
    }
    return findings
  } finally {
    await catalog.close()
  }
}

function checkLog(
  root: string,
  directory: string,
  segmentBytes: number,
  shard: number,
  syncedEnd: LogPosition | undefined,
): Promise<LogFinding> {
  const disk = new HostDisk(root)
  const segments = segmentsOnDisk(disk, directory, segmentBytes)
  const empty = { shard, records: 0, bytes: 0, droppedBytes: 0 }
  return new Promise((resolve) => {
    recoverLog(
      {
        disk,
        directory,
        arena: new Arena(createArenaMemory(segmentBytes, Math.max(1, segments))),
        crc32: (bytes, start, end) => crc32(bytes.subarray(start, end)),
        salvage: false,
        syncedEnd,
        readOnly: true,
        alive: () => {},
        visit: () => {},
      },
      (error: SunwiseError | undefined, log: RecoveredLog | undefined) => {
        if (log === undefined) return resolve({ ...empty, error })
        const { records, bytes, droppedBytes } = log
        resolve({ shard, records, bytes, droppedBytes, error })
      },
    )
  })
}
