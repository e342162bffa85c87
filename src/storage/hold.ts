/**
 * What a backup copies of one shard: the image that a crash at one moment would leave. While a shard is held, no segment of its log
 * is retired and no file of a table removed, so that everything named here stays as it is.
 */
import {
  encodeFacts,
  factsKey,
  type PartitionRange,
  rowEdits,
  type TableFacts,
  type TableRow,
  TableRows,
} from './table-rows.ts'
import { flushedEdit } from './tables.ts'

/** A file of the log as it belongs into the image. */
export type HeldSegment = {
  /** Number of the segment, and so its file name. */
  readonly segment: number
  /** Bytes from its start that belong to the log; behind them may stand what came later. */
  readonly bytes: number
  /** What the file holds of a segment that was retired, or never used: marks say so to recovery. Then `bytes` is its length. */
  readonly head: Uint8Array | undefined
}

/** The log is on stable storage so far, and all that was acknowledged before the hold stands in it or in tables. */
export type HeldShard = {
  readonly segments: readonly HeldSegment[]
  readonly rows: readonly TableRow[]
  readonly facts: readonly TableFacts[]
  readonly flushedThrough: number
}

/** What is kept of a file that holds no live segment: both of its marks lie within. */
export const heldHeadBytes = 1024

/** Rows that a catalog needs to have the tables of a held shard, whose partitions are `range`. */
export function heldRows(held: HeldShard, shard: number, range: PartitionRange): (readonly [string, Uint8Array])[] {
  const edits = [
    ...rowEdits(shard, TableRows.empty(range), TableRows.from(range, held.rows)),
    flushedEdit(shard, held.flushedThrough),
  ]
  return [
    ...edits.flatMap((edit) => (edit.op === 'put' ? [[edit.key, edit.value] as const] : [])),
    ...held.facts.map((facts) => [factsKey(facts.tableId), encodeFacts(facts)] as const),
  ]
}
