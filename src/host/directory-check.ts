/**
 * Looks at everything in a data directory: every block of every table, and the logs where no node runs on it. A running node is asked
 * to hold its tables meanwhile; its logs change too fast to be judged from outside.
 */
import { SunwiseError } from '../base/errors.ts'
import { tableIdOf } from '../storage/sstable.ts'
import { readTableMeta } from '../storage/sstable-meta.ts'
import { checkTable, checkWithin } from '../storage/table-check.ts'
import type { TableFacts, TableRow } from '../storage/table-rows.ts'
import { tableFileName } from '../storage/tables.ts'
import type { BackupProgress } from './backup.ts'
import { openSource } from './backup-source.ts'
import { HostDisk } from './disk.ts'
import { checkLogs, type LogFinding } from './log-check.ts'
import { nativeCrc32, zstd } from './native-codes.ts'
import { tablesDirectory } from './reshard.ts'

export type DirectoryCheck = {
  readonly tables: number
  readonly records: number
  readonly bytes: number
  /** Of each shard's log; undefined: a node writes them. */
  readonly logs: readonly LogFinding[] | undefined
  /** One line for each damage, with the file; empty: all is as it was written. */
  readonly findings: readonly string[]
}

/** Reads a data directory whole. Rejects where there is none, or where its node cannot hold it. */
export async function checkDirectory(
  dataDirectory: string,
  onProgress: (progress: BackupProgress) => void,
  signal?: AbortSignal,
): Promise<DirectoryCheck> {
  const opened = await openSource(dataDirectory)
  const findings: string[] = []
  let records = 0
  let bytes = 0
  let files = 0
  try {
    const { source } = opened
    await source.releaseLogs()
    const disk = new HostDisk(dataDirectory)
    const tables = factsOf(source.shards)
    const rows = source.shards.flatMap((shard) => shard.rows)
    const bytesTotal = tables.reduce((sum, { fileBytes }) => sum + fileBytes, 0)
    for (const facts of tables) {
      let read = 0
      const own = rows.filter(({ tableId }) => tableId === facts.tableId)
      const check = checkOne(disk, facts, own, (portion) => {
        if (signal?.aborted === true) throw new SunwiseError('ABORTED', 'The check was aborted', { outcome: 'none' })
        read += portion
        onProgress({ bytes: bytes + read, bytesTotal, files })
      })
      findings.push(...check.findings)
      records += check.records
      bytes += facts.fileBytes
      files++
      onProgress({ bytes, bytesTotal, files })
      await new Promise((resolve) => setImmediate(resolve))
    }
    await source.check()
  } finally {
    await opened.close()
  }
  const logs = opened.isAtRest ? await checkLogs(dataDirectory) : undefined
  for (const { shard, error } of logs ?? [])
    if (error !== undefined) findings.push(`log of shard ${shard}: ${error.message}`)
  return { tables: files, records, bytes, logs, findings }
}

/** What the ends of every table say, which is quick. `directory` is one that nobody uses. */
export async function glanceAtTables(directory: string): Promise<{ tables: number; findings: readonly string[] }> {
  const opened = await openSource(directory)
  try {
    const disk = new HostDisk(directory)
    const tables = factsOf(opened.source.shards)
    const findings = tables.flatMap((facts) => {
      const path = pathOf(facts)
      try {
        const file = disk.openNow(path)
        try {
          const size = file.sizeNow()
          if (size !== facts.fileBytes) return [`${path}: it has ${size} bytes instead of ${facts.fileBytes}`]
          readTableMeta(file, tableIdOf(facts.tableId), nativeCrc32)
          return []
        } finally {
          file.close()
        }
      } catch (error) {
        return [`${path}: ${messageOf(error)}`]
      }
    })
    return { tables: tables.length, findings }
  } finally {
    await opened.close()
  }
}

function checkOne(
  disk: HostDisk,
  facts: TableFacts,
  rows: readonly TableRow[],
  pace: (bytes: number) => void,
): { readonly records: number; readonly findings: readonly string[] } {
  const path = pathOf(facts)
  try {
    const file = disk.openNow(path)
    try {
      const tableId = tableIdOf(facts.tableId)
      const check = checkTable({ file, tableId, crc32: nativeCrc32, codec: zstd, pace })
      const { records, findings } = checkWithin(check, rows)
      const lines = findings.map(({ detail }) => `${path}: ${detail}`)
      if (check.findings.length === 0 && records !== facts.records) {
        lines.push(`${path}: it has ${records} records, and the catalog says ${facts.records}`)
      }
      return { records, findings: lines }
    } finally {
      file.close()
    }
  } catch (error) {
    if (error instanceof SunwiseError && error.code === 'ABORTED') throw error
    return { records: 0, findings: [`${path}: ${messageOf(error)}`] }
  }
}

/** Each table once: several shards may have parts of one. */
function factsOf(shards: readonly { readonly facts: readonly TableFacts[] }[]): TableFacts[] {
  return [...new Map(shards.flatMap(({ facts }) => facts.map((each) => [each.tableId, each] as const))).values()]
}

const pathOf = ({ tableId }: TableFacts): string => `${tablesDirectory}/${tableFileName(tableId)}`

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
