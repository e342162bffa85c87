/**
 * How much room on the disk a merge wants: what it writes before its inputs go, and by how much the merges that follow it make the
 * disk fuller before they end. A table whose rows are merged slice by slice keeps its file until the last; meanwhile, what the slices
 * kept of it lies on the disk twice. Where they drop more than that, by estimate, only the slice itself counts.
 *
 * Pure. Estimates: tombstones of a table are spread evenly, and only half of them are thought to meet an older record.
 */
import { assert } from '../base/assert.ts'
import type { Compaction } from './compaction-policy.ts'
import { type FactsById, rangeBytes, type TableFacts, type TableRows } from './table-rows.ts'

const hitShare = 0.5

/** Bytes that `compaction`, and what is to follow it, may need at some time. */
export function mergeRoomBytes(compaction: Compaction, rows: TableRows, facts: FactsById): number {
  let liveBytes = 0
  let liveRecords = 0
  let tombstones = 0
  /** Live bytes of tables that go on: inside of this merge, and outside. */
  let keptBytes = 0
  let restBytes = 0
  for (const { tableId } of new Map(compaction.inputs.map((row) => [row.tableId, row])).values()) {
    const table = facts.get(tableId)
    assert(table !== undefined, 'There are facts of every table with rows')
    const dropped = compaction.isLast ? table.tombstones / table.records : 0
    const inside = rowBytes(rows, table, compaction.firstPartition, compaction.endPartition)
    const outside = rowBytes(rows, table, 0, Number.MAX_SAFE_INTEGER) - inside
    const share = inside / table.fileBytes
    tombstones += table.tombstones * share
    liveRecords += (table.records - table.tombstones) * share
    liveBytes += inside * (1 - dropped)
    if (outside > 0) keptBytes += inside * (1 - dropped)
    restBytes += outside * (1 - dropped)
  }
  const removedBytes = liveRecords === 0 ? 0 : Math.min(liveBytes, tombstones * hitShare * (liveBytes / liveRecords))
  const growthShare = keptBytes === 0 ? 0 : Math.max(0, keptBytes - removedBytes) / keptBytes
  return Math.ceil(liveBytes - removedBytes + restBytes * growthShare)
}

/** Bytes of a table that its rows name between two partitions. */
function rowBytes(rows: TableRows, table: TableFacts, firstPartition: number, endPartition: number): number {
  let bytes = 0
  for (const row of rows.rows) {
    if (row.tableId !== table.tableId) continue
    const from = Math.max(row.firstPartition, firstPartition)
    const end = Math.min(row.endPartition, endPartition)
    if (end > from) bytes += rangeBytes(table, from, end)
  }
  return bytes
}
