/**
 * The tables of a node in its catalog: what a shard starts with, what its commits become, and which files nothing names. Over the
 * door `Catalog`, for the thread that owns it.
 */
import { SunwiseError } from '../base/errors.ts'
import type { Catalog, CatalogEdit, Disk } from '../env.ts'
import { type Damage, type DamageById, damageKey, damageOf } from './table-health.ts'
import {
  decodeFacts,
  decodeRow,
  factsKey,
  type PartitionRange,
  rowEdits,
  rowKeyPrefix,
  type TableFacts,
  type TableRow,
  TableRows,
} from './table-rows.ts'
import { flushedKey, flushedOf, tableFileName } from './tables.ts'

/** What the catalog holds for one shard. */
export type CatalogTables = {
  readonly rows: TableRows
  readonly facts: ReadonlyMap<string, TableFacts>
  readonly flushedThrough: number
  readonly damaged: DamageById
}

/** Rows and facts of a shard that owns the partitions of `range`. @throws CATALOG_CORRUPT, DISK_FAILED */
export function loadTables(catalog: Catalog, shard: number, range: PartitionRange): CatalogTables {
  const found: TableRow[] = []
  const facts = new Map<string, TableFacts>()
  const damaged = new Map<string, readonly Damage[]>()
  for (const [key, value] of catalog.scan(rowKeyPrefix(shard))) {
    const row = decodeRow(key, value)?.row
    if (row === undefined) throw badRow(key)
    found.push(row)
    if (facts.has(row.tableId)) continue
    const own = catalog.get(factsKey(row.tableId))
    const decoded = own === undefined ? undefined : decodeFacts(factsKey(row.tableId), own)
    if (decoded === undefined) throw badRow(factsKey(row.tableId))
    facts.set(row.tableId, decoded)
    const damage = catalog.get(damageKey(row.tableId))
    if (damage !== undefined) damaged.set(row.tableId, damageOf(damageKey(row.tableId), damage))
  }
  return {
    rows: TableRows.from(range, found),
    facts,
    flushedThrough: flushedOf(catalog.get(flushedKey(shard))),
    damaged,
  }
}

/**
 * Commits rows of one shard. Of the tables that it names no more, those that no shard names lose their facts in the same commit; they are
 * the answer. One call at a time per catalog, or the answers of two could each count on the other's rows.
 */
export function commitTables(
  catalog: Catalog,
  shards: number,
  shard: number,
  edits: readonly CatalogEdit[],
  unnamed: readonly string[],
  done: (error: SunwiseError | undefined, orphans: readonly string[]) => void,
): void {
  const isNamed = (tableId: string): boolean => {
    for (let other = 0; other < shards; other++) {
      if (other !== shard && catalog.scan(`${rowKeyPrefix(other)}${tableId}/`).length > 0) return true
    }
    return false
  }
  const orphans = unnamed.filter((tableId) => !isNamed(tableId))
  const gone = orphans.flatMap((tableId): CatalogEdit[] => [
    { op: 'delete', key: factsKey(tableId) },
    { op: 'delete', key: damageKey(tableId) },
  ])
  catalog.commit([...edits, ...gone], (error) => done(error, error === undefined ? orphans : []))
}

/**
 * What another number of shards, with the partitions `after`, does to the catalog: each gets the rows of its partitions, and no table is touched. The logs are
 * others from then on, so nothing of them is flushed. @throws CATALOG_CORRUPT, DISK_FAILED
 */
export function reshardTables(catalog: Catalog, before: number, after: readonly PartitionRange[]): CatalogEdit[] {
  const edits: CatalogEdit[] = []
  const rows: TableRow[] = []
  for (let shard = 0; shard < before; shard++) {
    edits.push({ op: 'delete', key: flushedKey(shard) })
    for (const [key, value] of catalog.scan(rowKeyPrefix(shard))) {
      const row = decodeRow(key, value)?.row
      if (row === undefined) throw badRow(key)
      rows.push(row)
      edits.push({ op: 'delete', key })
    }
  }
  for (const [shard, range] of after.entries()) {
    edits.push(...rowEdits(shard, TableRows.empty(range), TableRows.from(range, rows)))
  }
  return edits
}

/** Files in the directory of tables that the catalog does not name: what flushes and compactions left that were cut short. */
export function strayFiles(catalog: Catalog, disk: Disk, directory: string): string[] {
  const named = new Set(catalog.scan('table/').map(([key]) => tableFileName(key.slice('table/'.length))))
  return disk.listNow(directory).filter((name) => name.endsWith('.sst') && !named.has(name))
}

function badRow(key: string): SunwiseError {
  return new SunwiseError('CATALOG_CORRUPT', `Cannot read row "${key}" of the catalog; restore a backup`)
}
