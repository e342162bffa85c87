/**
 * Gives up what is damaged of a node's tables, so that the rest can be served as if nothing had been there: every table is read whole, and
 * the rows of the catalog lose the partitions in which a table is damaged. A table of which nothing is left is put aside. What older
 * tables hold of the same keys shows again, deleted keys too: that is why a salvage takes a new actor and says what it did.
 */
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { CatalogEdit } from '../env.ts'
import { tableIdOf } from '../storage/sstable.ts'
import { loadTables } from '../storage/table-catalog.ts'
import { checkTable, type TableCheck } from '../storage/table-check.ts'
import { damageKey } from '../storage/table-health.ts'
import { factsKey, type RowPart, rowEdits } from '../storage/table-rows.ts'
import { tableFileName } from '../storage/tables.ts'
import type { HostCatalog } from './catalog.ts'
import type { HostDisk } from './disk.ts'
import { nativeCrc32, zstd } from './native-codes.ts'
import { partitionsOf, tablesDirectory } from './reshard.ts'

/** Where the file of a table goes that was given up; nothing looks at it any more. */
const asideSuffix = '.damaged'

/** Takes what is damaged out of the catalog. No shard runs. Rejects with what the catalog or the disk reports. */
export async function salvageTables(
  catalog: HostCatalog,
  disk: HostDisk,
  shards: number,
  log: (line: string) => void,
): Promise<void> {
  const checks = new Map<string, TableCheck>()
  const edits: CatalogEdit[] = []
  const named = new Set<string>()
  for (let shard = 0; shard < shards; shard++) {
    const { rows: before, facts } = loadTables(catalog, shard, partitionsOf(shard, shards))
    const remove: RowPart[] = []
    for (const row of before.rows) {
      const check = checks.get(row.tableId) ?? look(disk, row.tableId)
      checks.set(row.tableId, check)
      for (const finding of check.findings) {
        const firstPartition = Math.max(row.firstPartition, finding.firstPartition)
        const endPartition = Math.min(row.endPartition, finding.endPartition)
        if (firstPartition >= endPartition) continue
        remove.push({ ...row, firstPartition, endPartition })
        const { records } = facts.get(row.tableId)!
        const all =
          finding.endPartition >= Limits.partitions ? `all of its ${records} records` : `partition ${firstPartition}`
        log(
          `Salvaged around damage of ${pathOf(row.tableId)}: ${finding.detail}; ${all} of shard ${shard} are given up`,
        )
      }
    }
    const after = before.apply({ remove, add: [] })
    edits.push(...rowEdits(shard, before, after))
    for (const tableId of after.tableIds()) named.add(tableId)
  }
  const lost = [...checks.keys()].filter((tableId) => !named.has(tableId))
  for (const tableId of lost) edits.push({ op: 'delete', key: factsKey(tableId) })
  for (const tableId of checks.keys()) edits.push({ op: 'delete', key: damageKey(tableId) })
  if (edits.length === 0) return
  await new Promise<void>((resolve, reject) => {
    catalog.commit(edits, (error) => (error === undefined ? resolve() : reject(error)))
  })
  const present = new Set(disk.listNow(tablesDirectory))
  for (const tableId of lost) {
    if (!present.has(tableFileName(tableId))) continue
    const path = pathOf(tableId)
    await new Promise<void>((resolve, reject) => {
      disk.rename(path, `${path}${asideSuffix}`, (error) => (error === undefined ? resolve() : reject(error)))
    })
    log(`Put ${path} aside as ${path}${asideSuffix}`)
  }
}

function look(disk: HostDisk, tableId: string): TableCheck {
  try {
    const file = disk.openNow(pathOf(tableId))
    try {
      return checkTable({ file, tableId: tableIdOf(tableId), crc32: nativeCrc32, codec: zstd, pace: () => {} })
    } finally {
      file.close()
    }
  } catch (error) {
    if (!(error instanceof SunwiseError)) throw error
    // What cannot be read is given up, too: that is what was asked for.
    return { records: 0, findings: [{ detail: error.message, firstPartition: 0, endPartition: Limits.partitions }] }
  }
}

const pathOf = (tableId: string): string => `${tablesDirectory}/${tableFileName(tableId)}`
