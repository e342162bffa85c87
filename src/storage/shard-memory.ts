/**
 * All shared memory of one shard: arena, index, actor table, and a control block of stamps and counters. The node thread
 * creates it and posts it to every thread; after a crash of the worker the shard gets a new one, and the old is abandoned.
 */
import { Limits } from '../config.ts'
import { type ArenaMemory, createArenaMemory } from './arena.ts'
import { createIndexMemory, type IndexMemory } from './hash-index.ts'
import { createTableMemory, type TableMemory } from './table-view.ts'

/** Words of the control block. Each group of words that different threads write stands on a 128-byte line of its own. */
export const ControlWord = {
  /** ShardState; written by the node thread and, from `recovering` to `up`, by the owner. */
  state: 0,
  /** Bumped whenever readers must look at the whole view anew (memory swapped, tables switched). */
  viewVersion: 1,
  /** 1 from before the owner first acknowledges a write that is not on stable storage; never taken back in this run. */
  mayHoldUnsynced: 2,
  /** 1: the disk has no room for growth; written by the node thread, with the news for who waits for room (disk-keeper.ts). */
  diskFull: 3,
  diskNews: 4,
  diskFreeKiB: 5,
  diskReserveKiB: 6,
  /** 1: merges must fit into what is left. */
  diskScarce: 7,
  /** Bumped by the owner on each turn of its loop; read by the supervisor. */
  heartbeat: 32,
  /** Records recovered so far, for progress. */
  recovered: 33,
  /** Counters of the owner, read by metrics. u32, wrapping. */
  writes: 64,
  groups: 65,
  syncs: 66,
  entries: 67,
  segmentsUsed: 68,
  indexKiB: 69,
  liveKiB: 70,
  recycledSegments: 71,
  expired: 72,
  refusedFull: 73,
  siblingWarnings: 74,
  /** 1: writes are refused for want of memory; 2: for want of disk. */
  writeRefusal: 75,
  ownerReads: 76,
  logKiB: 77,
  /** How often the counters were published; bumped after all others. */
  published: 78,
  /** Tables that are open, their bytes on disk, their bytes in memory, and how many of them a key may be looked up in. */
  tables: 79,
  tableKiB: 80,
  tableMetaKiB: 81,
  tableRuns: 82,
  flushes: 83,
  compactions: 84,
  flushedKiB: 85,
  compactedKiB: 86,
  /** How far merging is behind, thousandths: 0 keeps pace, at 1000 writers stop. */
  debtPermille: 87,
  /** Bytes that caches of tables may use. */
  tableCacheKiB: 88,
  /** Blocks of tables that were read beside everything else, since the disk was slow. */
  tableLoads: 89,
  /** By how much the owner came late to its last ticks, microseconds. */
  lateUs: 90,
  /** 1: writers are slowed down, or must stop: what gives them memory is not to rest. */
  writersWait: 103,
  /** How often the log met DISK_FULL, or something of tables waits for room: it wants the reserve. */
  diskFullMet: 91,
  /** Tables with damage, bytes looked through for it, and how often all tables were. */
  tablesDamaged: 100,
  checkedKiB: 101,
  scrubPasses: 102,
  /** Merges that are left undone: their result would be larger than a table can be. */
  mergesOverLimit: 104,
} as const
export const controlWords = 256

/** Values of ControlWord.state. */
export const ShardState = { starting: 0, recovering: 1, up: 2, down: 3 } as const

export type ShardMemory = {
  readonly control: SharedArrayBuffer
  readonly arena: ArenaMemory
  readonly index: IndexMemory
  /** Actor ids by index, two u32 each; entry before use, never changed. */
  readonly actors: SharedArrayBuffer
  readonly tables: TableMemory
}

/** How the budget of one shard is cut up. */
export type ShardPlan = {
  readonly segmentBytes: number
  /** Segments reserved; some more than the budget allows, so that recovery always has room. */
  readonly segments: number
  readonly chunksMax: number
  /** What segments, index and directories may use together. */
  readonly budgetBytes: number
}

/** Address space for metas of tables, however small the budget. */
const tableMetaBytesLeast = 16 * 1024 * 1024

/** Part of the budget that caches of tables may take at most. */
const cacheShareMax = 1 / 2

/** Smallest number of segments that lets the recycler work beside writers. */
export const segmentsMin = 8

/**
 * Cuts a shard's budget: segments as large as wanted but at least `segmentsMin` of them; the index may take half of the budget
 * (records of 28 bytes would need that much); address space for half as much again, since a log found on disk may be larger
 * than today's budget.
 */
export function planShard(budgetBytes: number, segmentBytes: number, segmentsOnDisk: number): ShardPlan {
  const affordable = Math.max(segmentsMin, Math.floor(budgetBytes / segmentBytes))
  const segments = Math.min(
    Math.floor(Limits.arenaBytesMax / segmentBytes),
    Math.max(affordable, segmentsOnDisk) + Math.max(4, Math.ceil(affordable / 2)),
  )
  return { segmentBytes, segments, chunksMax: Math.max(4096, Math.ceil(budgetBytes / 2 / 4096)), budgetBytes }
}

export function createShardMemory(plan: ShardPlan): ShardMemory {
  return {
    control: new SharedArrayBuffer(controlWords * 4),
    arena: createArenaMemory(plan.segmentBytes, plan.segments),
    index: createIndexMemory(plan.chunksMax),
    actors: new SharedArrayBuffer(65536 * 8),
    // Metas of tables take from what records may use; only address space is set aside for them.
    tables: createTableMemory(Math.max(tableMetaBytesLeast, plan.budgetBytes), plan.budgetBytes * cacheShareMax),
  }
}
