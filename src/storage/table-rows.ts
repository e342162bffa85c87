/**
 * Which tables hold the data of a shard, and in which order they are read.
 *
 * A row says that one table holds what one shard knows about the partitions [firstPartition, endPartition) as of an age: its
 * `sequence`, larger is newer. For every partition the rows that cover it, by descending sequence, are its stack; a read walks it
 * down and stops at the first hit. A table may have several rows, in one shard (a merge took the middle) or in many (another number
 * of threads); its file lives as long as any row names it.
 *
 * Invariants, which `TableRows` keeps and checks:
 *   - the rows of a stack have distinct sequences, so the order of reading is never in doubt; all rows of a table in a shard have
 *     its one sequence and level;
 *   - an edit without removals (a flush) adds the newest row of each of its partitions;
 *   - an edit with removals (a merge) replaces rows that are adjacent in age: in no partition does a row that stays lie between
 *     what goes and what comes. Else an old value would rise above a newer one, or sink below an older.
 *
 * Rows are values. `TableRows` never changes: an edit makes a new one, so a reader may keep the one that it began with.
 *
 * Catalog rows; keys are printable ASCII, numbers little-endian, ids sixteen lower-case hexadecimal characters:
 *
 *   row/SHARD/TABLEID/PARTITION      one row; SHARD in decimal, PARTITION its first one as five decimal digits, so that a scan of
 *                                    `row/SHARD/` gives the rows of a table in their order
 *      0 u8  formatVersion (1)       1 u8 level               2 u16 endPartition          4 u48 sequence               10 bytes
 *
 *   table/TABLEID                    the facts of one table
 *      0 u8  formatVersion (2)       1 u8 flags (1: complete) 2 u16 firstPartition        4 u16 endPartition
 *      6 u16 bands                   8 u48 fileBytes         14 u48 deadBytes            20 u48 earliestExpiryMs
 *     26 u48 medianExpiryMs         32 u32 records           36 u32 tombstones           40 u32 heldTombstones
 *     44 u32 expiring               48 bands x u48 bandBytes
 *      then u8 buckets, and for each: u32 bucketId, u32 records        (version 1 ends before: its buckets are not known)
 *
 * This module reads and writes no files and no catalog, and does not decide what to merge (compaction-policy.ts).
 */
import { assert } from '../base/assert.ts'
import { ByteReader, ByteWriter } from '../base/bytes.ts'
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { CatalogEdit } from '../env.ts'

export const rowFormatVersion = 1
export const factsFormatVersion = 2
/** Buckets whose records are counted in the facts of a table at most. */
export const bucketsCountedMax = 32
/** Bands of a table at most; a table of fewer partitions has one band for each. */
export const bandsMax = 64
/** Merges that the most merged byte of a table may count. */
export const levelMax = 255
/** Sequences are u48 on disk; a shard that flushed a thousand times a second would need 8,900 years. */
export const sequenceMax = 2 ** 48 - 1

/** Partitions [firstPartition, endPartition). */
export type PartitionRange = {
  readonly firstPartition: number
  /** The partition behind the last. */
  readonly endPartition: number
}

/** A part of a table: what an edit removes, and what a merge reads. */
export type RowPart = PartitionRange & {
  /** Sixteen lower-case hexadecimal characters. */
  readonly tableId: string
}

/** One table in the stacks of a range of partitions of one shard. */
export type TableRow = RowPart & {
  /** Age: larger is newer. A merge's output takes the largest of its inputs. */
  readonly sequence: number
  /** How often the most merged of its bytes were merged, as compaction-policy.ts counts it; a flush has 0. */
  readonly level: number
}

/** What is known about a table without opening it. Bytes are of the file; estimates say so. */
export type TableFacts = PartitionRange & {
  readonly tableId: string
  readonly fileBytes: number
  readonly records: number
  /** Records without a live version. */
  readonly tombstones: number
  /**
   * Those tombstones that a merge had to keep although nothing older lay below it, since some replica may still lack them. Merging
   * them again is idle work until something is known to have changed.
   */
  readonly heldTombstones: number
  /** Records with a version that expires; the earliest moment of that; about when half of them have expired. 0: none. */
  readonly expiring: number
  readonly earliestExpiryMs: number
  readonly medianExpiryMs: number
  /**
   * Estimate: bytes of records in older tables that records of this one replace or delete, and which a merge with those tables would
   * save. Who cannot know gives `fileBytes`, the worst that there can be, and pays with some more merges.
   */
  readonly deadBytes: number
  /** Bytes of records in equal bands of the partitions: partition p is in band `floor((p - first) x bands / partitions)`. */
  readonly bandBytes: readonly number[]
  /** How many of the records are of which bucket, for the first buckets that were met: of the others nothing is known. */
  readonly buckets: readonly BucketCount[]
  /** False: shipped by a peer; a read that hits it must go on to what lies below. */
  readonly isComplete: boolean
}

export type BucketCount = { readonly bucketId: number; readonly records: number }

/** Facts of tables by id. */
export type FactsById = ReadonlyMap<string, TableFacts>

/** An atomic change of the rows of a shard. */
export type TableEdit = {
  /** Whole rows or parts of rows; a part lies in rows of its table without a gap. */
  readonly remove: readonly RowPart[]
  readonly add: readonly { readonly row: TableRow; readonly facts: TableFacts }[]
}

/** Whether `text` can be a table's id. */
export function isTableId(text: string): boolean {
  return /^[0-9a-f]{16}$/.test(text)
}

/** How many bands a table of so many partitions has. */
export function bandCountOf(partitions: number): number {
  return Math.min(bandsMax, partitions)
}

/** Estimate of the bytes of records that the table holds in one partition; 0 outside of it. */
export function partitionBytes(facts: TableFacts, partition: number): number {
  const { firstPartition, endPartition, bandBytes } = facts
  if (partition < firstPartition || partition >= endPartition) return 0
  const partitions = endPartition - firstPartition
  const bands = bandBytes.length
  const band = Math.floor(((partition - firstPartition) * bands) / partitions)
  return bandBytes[band]! / (bandStart(band + 1, bands, partitions) - bandStart(band, bands, partitions))
}

/**
 * Estimate of the bytes of the file that serve a range of partitions: its share of the bytes of the bands, of the whole file. The
 * shares of ranges that together make up the table's sum up to `fileBytes`.
 */
export function rangeBytes(facts: TableFacts, firstPartition: number, endPartition: number): number {
  const partitions = facts.endPartition - facts.firstPartition
  const bands = facts.bandBytes.length
  const first = Math.max(firstPartition - facts.firstPartition, 0)
  const end = Math.min(endPartition - facts.firstPartition, partitions)
  let inside = 0
  let all = 0
  for (let band = 0; band < bands; band++) {
    const bytes = facts.bandBytes[band]!
    const start = bandStart(band, bands, partitions)
    const stop = bandStart(band + 1, bands, partitions)
    inside += bytes * (Math.max(0, Math.min(end, stop) - Math.max(first, start)) / (stop - start))
    all += bytes
  }
  return all === 0 ? 0 : facts.fileBytes * (inside / all)
}

/** First partition of a band, counted from the table's first. */
function bandStart(band: number, bands: number, partitions: number): number {
  return Math.ceil((band * partitions) / bands)
}

/** What is wrong with facts; undefined where nothing is. */
function factsProblem(facts: TableFacts): string | undefined {
  const { firstPartition, endPartition, fileBytes, records, tombstones, expiring } = facts
  if (!isTableId(facts.tableId)) return 'its id is none'
  if (!isRange(facts)) return 'it covers no partitions'
  if (facts.bandBytes.length !== bandCountOf(endPartition - firstPartition)) return 'it has a wrong number of bands'
  if (!isCount(fileBytes, sequenceMax) || fileBytes === 0 || !isCount(facts.deadBytes, sequenceMax)) return 'its bytes'
  if (!isCount(records, 0xffff_ffff) || records === 0) return 'it has no records'
  if (!isCount(tombstones, records) || !isCount(facts.heldTombstones, tombstones)) return 'its tombstones'
  if (!isCount(expiring, records) || !isCount(facts.earliestExpiryMs, facts.medianExpiryMs)) return 'its expiries'
  if (!isCount(facts.medianExpiryMs, sequenceMax) || (expiring === 0) !== (facts.medianExpiryMs === 0)) {
    return 'its expiries'
  }
  const ids = new Set(facts.buckets.map(({ bucketId }) => bucketId))
  const counted = facts.buckets.reduce((sum, bucket) => sum + bucket.records, 0)
  if (ids.size !== facts.buckets.length || ids.size > bucketsCountedMax || !isCount(counted, records))
    return 'its buckets'
  if (facts.buckets.some((bucket) => !isCount(bucket.bucketId, 0xffff_ffff) || !isCount(bucket.records, records))) {
    return 'its buckets'
  }
  let bytes = 0
  for (const each of facts.bandBytes) {
    if (!isCount(each, fileBytes)) return 'its bands'
    bytes += each
  }
  return bytes === 0 || bytes > fileBytes ? 'its bands' : undefined
}

/** What is wrong with a row by itself; undefined where nothing is. */
function rowProblem(row: TableRow): string | undefined {
  if (!isTableId(row.tableId)) return 'its id is none'
  if (!isRange(row)) return 'it covers no partitions'
  if (!isCount(row.sequence, sequenceMax)) return 'its sequence'
  return isCount(row.level, levelMax) ? undefined : 'its level'
}

function isCount(value: number, max: number): boolean {
  return Number.isSafeInteger(value) && value >= 0 && value <= max
}

function isRange({ firstPartition, endPartition }: PartitionRange): boolean {
  return isCount(firstPartition, Limits.slots) && isCount(endPartition, Limits.slots) && firstPartition < endPartition
}

/** By partition, then newest first. */
function compareRows(a: TableRow, b: TableRow): number {
  return a.firstPartition - b.firstPartition || b.sequence - a.sequence
}

/**
 * The rows of one shard, which owns the partitions [firstPartition, endPartition). Immutable. Making one costs O(partitions x rows of a
 * stack), some 0.1 ms for a thousand partitions: nothing beside the megabytes that were flushed or merged for it.
 */
export class TableRows {
  readonly firstPartition: number
  readonly endPartition: number
  /** All rows, by first partition, then newest first. */
  readonly rows: readonly TableRow[]
  /** Largest sequence of all rows; 0 without any. The next flush takes a larger one. */
  readonly newestSequence: number
  /** By partition, from the shard's first; neighbours with the same rows share one array. */
  readonly #stacks: readonly (readonly TableRow[])[]

  private constructor(range: PartitionRange, sorted: readonly TableRow[], stacks: readonly (readonly TableRow[])[]) {
    this.firstPartition = range.firstPartition
    this.endPartition = range.endPartition
    this.rows = sorted
    this.#stacks = stacks
    this.newestSequence = sorted.reduce((newest, row) => Math.max(newest, row.sequence), 0)
  }

  /** A shard without tables. */
  static empty(range: PartitionRange): TableRows {
    assert(isRange(range), 'A shard owns partitions')
    return new TableRows(range, [], new Array<readonly TableRow[]>(range.endPartition - range.firstPartition).fill([]))
  }

  /**
   * The rows that a catalog held for the shard, in any order. What they cover outside of its partitions is cut off: those belong to
   * another shard now. @throws CATALOG_CORRUPT where they contradict each other.
   */
  static from(range: PartitionRange, rows: readonly TableRow[]): TableRows {
    assert(isRange(range), 'A shard owns partitions')
    for (const row of rows) {
      const problem = rowProblem(row)
      if (problem !== undefined) throw catalogCorrupt(`the row of table "${row.tableId}": ${problem}`)
    }
    const made = TableRows.#make(range, clip(rows, range))
    if (typeof made === 'string') throw catalogCorrupt(made)
    return made
  }

  /** The stack of a partition of this shard, newest first. */
  rowsOf(partition: number): readonly TableRow[] {
    assert(partition >= this.firstPartition && partition < this.endPartition, 'The partition is one of the shard')
    return this.#stacks[partition - this.firstPartition]!
  }

  /** Greatest number of rows in a stack. */
  get runs(): number {
    return this.#stacks.reduce((most, stack) => Math.max(most, stack.length), 0)
  }

  /** Ids of the tables that have a row here. */
  tableIds(): ReadonlySet<string> {
    return new Set(this.rows.map((row) => row.tableId))
  }

  /**
   * Why `edit` cannot be applied; undefined if it can. Who began a merge before the shard lost partitions asks here first: its edit
   * removes what is gone, and its outputs are to be thrown away.
   */
  problemOf(edit: TableEdit): string | undefined {
    const made = this.#edited(edit)
    return typeof made === 'string' ? made : undefined
  }

  /** The rows after `edit`, of which `problemOf` has nothing to say. */
  apply(edit: TableEdit): TableRows {
    const made = this.#edited(edit)
    assert(typeof made !== 'string', 'An edit fits the rows that it is applied to; ask problemOf() first')
    return made
  }

  /** The rows of a shard that now owns the partitions of `range`: what lies outside is cut off. */
  trim(range: PartitionRange): TableRows {
    assert(isRange(range), 'A shard owns partitions')
    const made = TableRows.#make(range, clip(this.rows, range))
    assert(typeof made !== 'string', 'Cutting rows makes no contradiction')
    return made
  }

  #edited(edit: TableEdit): TableRows | string {
    const rest = subtract(this.rows, edit.remove)
    if (typeof rest === 'string') return rest
    for (const { row, facts } of edit.add) {
      const problem = rowProblem(row) ?? factsProblem(facts)
      if (problem !== undefined) return `table "${row.tableId}": ${problem}`
      if (row.tableId !== facts.tableId || !isWithin(row, facts)) return `table "${row.tableId}" is not in its facts`
      if (!isWithin(row, this)) return `table "${row.tableId}" covers partitions of another shard`
    }
    const added = edit.add.map(({ row }) => row)
    return this.#orderProblem(edit, rest, added) ?? TableRows.#make(this, [...rest, ...added])
  }

  /** Whether some row that stays lies in age between what goes and what comes, in some partition. */
  #orderProblem(edit: TableEdit, rest: readonly TableRow[], added: readonly TableRow[]): string | undefined {
    const isFlush = edit.remove.length === 0
    if (!isFlush) {
      const first = Math.min(...edit.remove.map((part) => part.firstPartition))
      const end = Math.max(...edit.remove.map((part) => part.endPartition))
      const stray = added.find((row) => !isWithin(row, { firstPartition: first, endPartition: end }))
      if (stray !== undefined) return `table "${stray.tableId}" covers partitions of which nothing was removed`
    }
    const staying = TableRows.#make(this, rest)
    if (typeof staying === 'string') return staying
    for (const { sequence, firstPartition, endPartition, tableId } of added) {
      for (let partition = firstPartition; partition < endPartition; partition++) {
        const oldest = isFlush ? sequence : this.#oldestRemoved(edit.remove, partition, sequence)
        if (oldest === undefined) return `table "${tableId}" is older than what it replaces`
        for (const row of staying.rowsOf(partition)) {
          if (isFlush ? row.sequence >= sequence : row.sequence >= oldest && row.sequence <= sequence) {
            return `table "${tableId}" passes table "${row.tableId}" in age in partition ${partition}`
          }
        }
      }
    }
    return undefined
  }

  /** Sequence of the oldest row of the partition that goes, or `sequence`; undefined if one that goes is newer than that. */
  #oldestRemoved(remove: readonly RowPart[], partition: number, sequence: number): number | undefined {
    let oldest = sequence
    for (const row of this.rowsOf(partition)) {
      const goes = remove.some((part) => part.tableId === row.tableId && contains(part, partition))
      if (goes && row.sequence > sequence) return undefined
      if (goes) oldest = Math.min(oldest, row.sequence)
    }
    return oldest
  }

  static #make(range: PartitionRange, rows: readonly TableRow[]): TableRows | string {
    const sorted = rows.toSorted(compareRows)
    const problem = tablesProblem(sorted)
    if (problem !== undefined) return problem
    const partitions = range.endPartition - range.firstPartition
    const stacks = Array.from({ length: partitions }, (): TableRow[] => [])
    for (const row of rows.toSorted((a, b) => b.sequence - a.sequence)) {
      for (let partition = row.firstPartition; partition < row.endPartition; partition++) {
        const stack = stacks[partition - range.firstPartition]!
        if (stack.at(-1)?.sequence === row.sequence) {
          return `tables "${stack.at(-1)?.tableId}" and "${row.tableId}" are of one age in partition ${partition}`
        }
        stack.push(row)
      }
    }
    for (let index = 1; index < partitions; index++) {
      if (isSame(stacks[index]!, stacks[index - 1]!)) stacks[index] = stacks[index - 1]!
    }
    return new TableRows(range, sorted, stacks)
  }
}

/** A table whose rows differ in age or level; undefined if there is none. */
function tablesProblem(rows: readonly TableRow[]): string | undefined {
  const firsts = new Map<string, TableRow>()
  for (const row of rows) {
    const first = firsts.get(row.tableId)
    if (first === undefined) firsts.set(row.tableId, row)
    else if (first.sequence !== row.sequence || first.level !== row.level) return `table "${row.tableId}" has two ages`
  }
  return undefined
}

function isSame(a: readonly TableRow[], b: readonly TableRow[]): boolean {
  return a.length === b.length && a.every((row, index) => row === b[index])
}

function isWithin(inner: PartitionRange, outer: PartitionRange): boolean {
  return inner.firstPartition >= outer.firstPartition && inner.endPartition <= outer.endPartition
}

function contains(range: PartitionRange, partition: number): boolean {
  return partition >= range.firstPartition && partition < range.endPartition
}

/** The parts of `rows` inside of `range`; rows that lie in it whole stay the same objects. */
export function clip<Row extends PartitionRange>(rows: readonly Row[], range: PartitionRange): Row[] {
  const clipped: Row[] = []
  for (const row of rows) {
    const firstPartition = Math.max(row.firstPartition, range.firstPartition)
    const endPartition = Math.min(row.endPartition, range.endPartition)
    if (firstPartition >= endPartition) continue
    clipped.push(isWithin(row, range) ? row : { ...row, firstPartition, endPartition })
  }
  return clipped
}

/** `rows` without `parts`; or what part is not there. */
function subtract(rows: readonly TableRow[], parts: readonly RowPart[]): TableRow[] | string {
  let rest = [...rows]
  for (const part of parts) {
    if (!isRange(part)) return `a part of table "${part.tableId}" covers no partitions`
    const kept: TableRow[] = []
    let missing = part.endPartition - part.firstPartition
    for (const row of rest) {
      const first = Math.max(row.firstPartition, part.firstPartition)
      const end = Math.min(row.endPartition, part.endPartition)
      if (row.tableId !== part.tableId || first >= end) {
        kept.push(row)
        continue
      }
      missing -= end - first
      if (row.firstPartition < first) kept.push({ ...row, endPartition: first })
      if (end < row.endPartition) kept.push({ ...row, firstPartition: end })
    }
    if (missing !== 0) {
      return `table "${part.tableId}" has no rows for all of partitions ${part.firstPartition} to ${part.endPartition - 1}`
    }
    rest = kept
  }
  return rest
}

/** Those of `tableIds` that no shard names: their files and facts may go, once the catalog durably holds the rows that say so. */
export function tablesWithoutRows(tableIds: Iterable<string>, shards: Iterable<TableRows>): string[] {
  const named = new Set<string>()
  for (const shard of shards) for (const row of shard.rows) named.add(row.tableId)
  return [...tableIds].filter((tableId) => !named.has(tableId))
}

/** Catalog key of a row of a shard. */
export function rowKey(shard: number, row: RowPart): string {
  return `${rowKeyPrefix(shard)}${row.tableId}/${String(row.firstPartition).padStart(5, '0')}`
}

/** What the keys of all rows of a shard begin with. */
export function rowKeyPrefix(shard: number): string {
  return `row/${shard}/`
}

/** Catalog key of a table's facts. */
export function factsKey(tableId: string): string {
  return `table/${tableId}`
}

/** What turns the catalog's rows of a shard from `before` into `after`; part of one commit with the facts of new tables. */
export function rowEdits(shard: number, before: TableRows, after: TableRows): CatalogEdit[] {
  const old = new Map(before.rows.map((row) => [rowKey(shard, row), row]))
  const edits: CatalogEdit[] = []
  for (const row of after.rows) {
    const key = rowKey(shard, row)
    const was = old.get(key)
    old.delete(key)
    const isKept = was?.endPartition === row.endPartition && was.sequence === row.sequence && was.level === row.level
    if (!isKept) edits.push({ op: 'put', key, value: encodeRow(row) })
  }
  for (const key of old.keys()) edits.push({ op: 'delete', key })
  return edits
}

/** A row as the catalog holds it; id and first partition stand in its key. */
export function encodeRow(row: TableRow): Uint8Array {
  assert(rowProblem(row) === undefined, 'A row is whole before it is written')
  const writer = new ByteWriter(10)
  writer.u8(rowFormatVersion)
  writer.u8(row.level)
  writer.u16(row.endPartition)
  writeU48(writer, row.sequence)
  return writer.toBytes()
}

/** The shard and row of a catalog row; undefined where key or bytes are not what `rowKey` and `encodeRow` make. */
export function decodeRow(key: string, bytes: Uint8Array): { shard: number; row: TableRow } | undefined {
  const parts = /^row\/(0|[1-9][0-9]{0,2})\/([0-9a-f]{16})\/([0-9]{5})$/.exec(key)
  if (parts === null) return undefined
  const reader = new ByteReader(bytes)
  if (reader.u8() !== rowFormatVersion) return undefined
  const level = reader.u8()
  const endPartition = reader.u16()
  const sequence = readU48(reader)
  const row = { tableId: parts[2]!, sequence, level, firstPartition: Number(parts[3]), endPartition }
  if (reader.failed || reader.remaining > 0 || rowProblem(row) !== undefined) return undefined
  return { shard: Number(parts[1]), row }
}

/** Facts as the catalog holds them; the id stands in the key. */
export function encodeFacts(facts: TableFacts): Uint8Array {
  assert(factsProblem(facts) === undefined, 'Facts are whole before they are written')
  const writer = new ByteWriter(48 + 6 * facts.bandBytes.length)
  writer.u8(factsFormatVersion)
  writer.u8(facts.isComplete ? 1 : 0)
  writer.u16(facts.firstPartition)
  writer.u16(facts.endPartition)
  writer.u16(facts.bandBytes.length)
  writeU48(writer, facts.fileBytes)
  writeU48(writer, facts.deadBytes)
  writeU48(writer, facts.earliestExpiryMs)
  writeU48(writer, facts.medianExpiryMs)
  writer.u32(facts.records)
  writer.u32(facts.tombstones)
  writer.u32(facts.heldTombstones)
  writer.u32(facts.expiring)
  for (const bytes of facts.bandBytes) writeU48(writer, bytes)
  writer.u8(facts.buckets.length)
  for (const { bucketId, records } of facts.buckets) {
    writer.u32(bucketId)
    writer.u32(records)
  }
  return writer.toBytes()
}

/** The facts of a catalog row; undefined where key or bytes are not what `factsKey` and `encodeFacts` make. */
export function decodeFacts(key: string, bytes: Uint8Array): TableFacts | undefined {
  const tableId = /^table\/([0-9a-f]{16})$/.exec(key)?.[1]
  const reader = new ByteReader(bytes)
  const version = reader.u8()
  if (tableId === undefined || version < 1 || version > factsFormatVersion) return undefined
  const flags = reader.u8()
  const firstPartition = reader.u16()
  const endPartition = reader.u16()
  const bands = reader.u16()
  if (flags > 1 || bands > bandsMax) return undefined
  const fileBytes = readU48(reader)
  const deadBytes = readU48(reader)
  const earliestExpiryMs = readU48(reader)
  const medianExpiryMs = readU48(reader)
  const records = reader.u32()
  const tombstones = reader.u32()
  const heldTombstones = reader.u32()
  const expiring = reader.u32()
  const bandBytes = Array.from({ length: bands }, () => readU48(reader))
  const counted = version === 1 ? 0 : reader.u8()
  if (counted > bucketsCountedMax) return undefined
  const buckets = Array.from({ length: counted }, () => ({ bucketId: reader.u32(), records: reader.u32() }))
  const facts: TableFacts = {
    tableId,
    firstPartition,
    endPartition,
    fileBytes,
    records,
    tombstones,
    heldTombstones,
    expiring,
    earliestExpiryMs,
    medianExpiryMs,
    deadBytes,
    bandBytes,
    buckets,
    isComplete: flags === 1,
  }
  return reader.failed || reader.remaining > 0 || factsProblem(facts) !== undefined ? undefined : facts
}

function writeU48(writer: ByteWriter, value: number): void {
  writer.u32(value >>> 0)
  writer.u16(Math.floor(value / 0x1_0000_0000))
}

function readU48(reader: ByteReader): number {
  const low = reader.u32()
  return low + reader.u16() * 0x1_0000_0000
}

function catalogCorrupt(what: string): SunwiseError {
  const message = `Cannot use the tables that the catalog names: ${what}; restore the directory from a backup`
  return new SunwiseError('CATALOG_CORRUPT', message)
}
