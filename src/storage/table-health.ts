/**
 * What is known of the health of a shard's tables, and which of them to look through next: one under suspicion first, since a merge or
 * a read met damage or an error in it; else, at the rate of the scrub and once a day, all in turn. At a start nothing is known of the last
 * pass, so the order is drawn: a node that is started often looks at all of its tables in the end.
 *
 * Damage is noted by table and partition and stays with the table, over restarts, too (the catalog has a row of it). A partition with
 * a damaged table in it is walled off for merges from that table downwards: what lies above may be merged, so that runs do not pile up;
 * what lies below is never shown in place of what was lost.
 *
 *   row `damaged/<table id>` of the catalog, JSON: { "format": 1, "damage": [{ "firstPartition", "endPartition", "detail" } ...] }
 *
 * An object without a thread: it is told what happens, and asked what to do.
 */
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { CatalogEdit, Random } from '../env.ts'
import type { BusyRange } from './compaction-policy.ts'
import type { TableCheck } from './table-check.ts'
import type { PartitionRange, TableRows } from './table-rows.ts'

/** What is wrong with a table in a range of partitions: nothing that it has there can be relied on. */
export type Damage = PartitionRange & { readonly detail: string }

/** Damage of tables by their ids. */
export type DamageById = ReadonlyMap<string, readonly Damage[]>

const formatVersion = 1
/** A table that cannot be read is tried again after so long; when it fails then, too, it is taken for damaged. */
const secondTryMs = 10_000
/** From the beginning of one pass over all tables to that of the next, at the least. */
const passMsLeast = 24 * 3_600_000

export class TableHealth {
  readonly #random: Random
  /** Bytes to look through in a millisecond; 0: none but suspects. */
  readonly #rate: number
  readonly #damage = new Map<string, readonly Damage[]>()
  readonly #suspects = new Set<string>()
  /** When a table that could not be read is tried again. */
  readonly #failed = new Map<string, number>()
  /** The round in which a table was looked through last. */
  readonly #rounds = new Map<string, number>()
  #round = 1
  #nextScrubMs: number | undefined
  #passBeganMs = 0

  constructor(damaged: DamageById, scrubBytesPerSecond: number, random: Random) {
    for (const [tableId, damage] of damaged) {
      this.#damage.set(tableId, damage)
      // Its file may have been put right meanwhile.
      this.#suspects.add(tableId)
    }
    this.#rate = scrubBytesPerSecond / 1000
    this.#random = random
  }

  /** Tables with damage. */
  get damagedTables(): number {
    return this.#damage.size
  }

  /** Merges wait until it is known which of their inputs are damaged. */
  get hasSuspects(): boolean {
    return this.#suspects.size > 0
  }

  /** Passes over all tables that have ended. */
  get passes(): number {
    return this.#round - 1
  }

  damageOf(tableId: string): readonly Damage[] {
    return this.#damage.get(tableId) ?? []
  }

  /** A reader met damage or an error that may be in this table: it is looked through soon, unless it is known to be damaged. */
  suspect(tableId: string): void {
    if (!this.#damage.has(tableId) && !this.#failed.has(tableId)) this.#suspects.add(tableId)
  }

  /** A merge met damage or an error that may be in this table. It keeps off what is known, so this is something else. */
  suspectAnew(tableId: string): void {
    if (!this.#failed.has(tableId)) this.#suspects.add(tableId)
  }

  /** The table cannot be used at all. */
  unreadable(tableId: string, detail: string): void {
    this.#damage.set(tableId, [{ firstPartition: 0, endPartition: Limits.partitions, detail }])
  }

  /** The table to look through now, of those that are open; undefined: none. */
  next(open: Iterable<string>, nowMs: number): string | undefined {
    const [suspect] = this.#suspects
    if (suspect !== undefined) return suspect
    for (const [tableId, dueMs] of this.#failed) if (nowMs >= dueMs) return tableId
    if (this.#rate === 0) return undefined
    if (this.#nextScrubMs === undefined) {
      this.#nextScrubMs = nowMs + (this.#random.u32() % 60_000)
      this.#passBeganMs = this.#nextScrubMs
    }
    if (nowMs < this.#nextScrubMs) return undefined
    const left = [...open].filter(
      (tableId) =>
        !this.#damage.has(tableId) && !this.#failed.has(tableId) && this.#rounds.get(tableId) !== this.#round,
    )
    if (left.length > 0) return left[this.#random.u32() % left.length]
    // The pass has ended; the next one begins when it is due.
    this.#round++
    this.#nextScrubMs = Math.max(nowMs, this.#passBeganMs + passMsLeast)
    this.#passBeganMs = this.#nextScrubMs
    return undefined
  }

  /**
   * What came of looking through a table: the damage that is to be noted, if that has changed; none where the table was damaged and is
   * not any more.
   */
  checked(tableId: string, fileBytes: number, check: TableCheck, nowMs: number): readonly Damage[] | undefined {
    this.#done(tableId, fileBytes, nowMs)
    this.#failed.delete(tableId)
    if (check.findings.length === 0) return this.#damage.delete(tableId) ? [] : undefined
    const damage = check.findings.map(({ detail, firstPartition, endPartition }) => ({
      detail,
      firstPartition,
      endPartition: Math.min(endPartition, Limits.partitions),
    }))
    const isKnown = JSON.stringify(this.#damage.get(tableId)) === JSON.stringify(damage)
    this.#damage.set(tableId, damage)
    return isKnown ? undefined : damage
  }

  /** The table could not be read. The damage to be noted where that was so before. */
  failed(tableId: string, fileBytes: number, error: SunwiseError, nowMs: number): readonly Damage[] | undefined {
    this.#done(tableId, fileBytes, nowMs)
    if (!this.#failed.has(tableId)) {
      this.#failed.set(tableId, nowMs + secondTryMs)
      return undefined
    }
    this.#failed.delete(tableId)
    this.unreadable(tableId, error.message)
    return this.damageOf(tableId)
  }

  /** The check could not begin, or its table has left: later. */
  putOff(tableId: string, nowMs: number): void {
    this.#suspects.delete(tableId)
    if (this.#failed.has(tableId)) this.#failed.set(tableId, nowMs + secondTryMs)
    if (this.#nextScrubMs !== undefined) this.#nextScrubMs = Math.max(this.#nextScrubMs, nowMs + 1000)
  }

  /** The table is open as one that cannot be read, and stays so until the next start, whatever has become of its file. */
  stays(tableId: string): void {
    this.#suspects.delete(tableId)
    this.#failed.delete(tableId)
  }

  /** This damage alone is left of a table. */
  narrow(tableId: string, damage: readonly Damage[]): void {
    if (damage.length === 0) this.#damage.delete(tableId)
    else this.#damage.set(tableId, damage)
  }

  /** Whether nothing of a table can be relied on, as far as is known. */
  isWholly(tableId: string): boolean {
    return this.damageOf(tableId).some(
      ({ firstPartition, endPartition }) => firstPartition === 0 && endPartition === Limits.partitions,
    )
  }

  /** The table is gone. */
  forget(tableId: string): void {
    this.#damage.delete(tableId)
    this.#suspects.delete(tableId)
    this.#failed.delete(tableId)
    this.#rounds.delete(tableId)
  }

  /** Where merges must keep above what is damaged. */
  walls(rows: TableRows): BusyRange[] {
    if (this.#damage.size === 0) return []
    return rows.rows.flatMap((row) =>
      this.damageOf(row.tableId).flatMap((damage) => {
        const firstPartition = Math.max(row.firstPartition, damage.firstPartition)
        const endPartition = Math.min(row.endPartition, damage.endPartition)
        return firstPartition < endPartition ? [{ firstPartition, endPartition, newestSequence: row.sequence }] : []
      }),
    )
  }

  #done(tableId: string, fileBytes: number, nowMs: number): void {
    this.#suspects.delete(tableId)
    this.#rounds.set(tableId, this.#round)
    if (this.#rate > 0 && this.#nextScrubMs !== undefined) {
      this.#nextScrubMs = Math.max(this.#nextScrubMs, nowMs + fileBytes / this.#rate)
    }
  }
}

/** Key of the row that names the damage of a table. */
export function damageKey(tableId: string): string {
  return `damaged/${tableId}`
}

/** That row. */
export function damageEdit(tableId: string, damage: readonly Damage[]): CatalogEdit {
  const text = JSON.stringify({ format: formatVersion, damage })
  return { op: 'put', key: damageKey(tableId), value: new TextEncoder().encode(text) }
}

/** The damage in that row. @throws CATALOG_CORRUPT */
export function damageOf(key: string, value: Uint8Array): readonly Damage[] {
  try {
    const row = JSON.parse(new TextDecoder().decode(value)) as { readonly format: number; readonly damage: Damage[] }
    if (row.format === formatVersion) return row.damage
  } catch (cause) {
    throw badRow(key, cause)
  }
  throw badRow(key, undefined)
}

function badRow(key: string, cause: unknown): SunwiseError {
  return new SunwiseError('CATALOG_CORRUPT', `Cannot read row "${key}" of the catalog; restore a backup`, { cause })
}
