/**
 * Memory for simulated shards, cut small, and used again: a node that is killed leaves its memory to the next start, zeroed wherever its
 * run can have written. So a start costs microseconds, not the milliseconds in which a system hands out megabytes of zeros.
 */
import assert from 'node:assert/strict'
import { createArenaMemory } from '../../../src/storage/arena.ts'
import { chunkBytes, createIndexMemory } from '../../../src/storage/hash-index.ts'
import { controlWords, type ShardMemory } from '../../../src/storage/shard-memory.ts'
import { createTableMemory, ViewWord } from '../../../src/storage/table-view.ts'

export type MemoryPlan = {
  readonly segmentBytes: number
  readonly segments: number
  readonly tableMetaBytes: number
  readonly tableCacheBytes: number
}

/** As many as an index needs that says it has room (hash-index.ts); few of them are ever used. */
const chunksMax = 2560
const actorsMax = 4096
const free = new Map<MemoryPlan, ShardMemory[]>()

/** Memory full of zeros. */
export function takeMemory(plan: MemoryPlan): ShardMemory {
  return free.get(plan)?.pop() ?? create(plan)
}

/** Nobody looks at the memory any more. Its index has taken so many chunks. */
export function giveMemory(plan: MemoryPlan, memory: ShardMemory, chunksTaken: number): void {
  const { control, arena, index, actors, tables } = memory
  const { blocks, records } = tables
  const last = new Int32Array(actors)
  assert.equal(last.at(-1), 0, 'A simulated node has few actors')
  zero(control, arena.generations, ...arena.slabs, index.partitions, index.directories, actors)
  new Uint8Array(index.chunks[0]!, 0, chunksTaken * chunkBytes).fill(0)
  zero(tables.control, tables.runs, tables.slots, tables.pins, ...tables.metas)
  for (const cache of [blocks, records]) zero(cache.control, cache.sets, ...cache.frames)
  new Int32Array(tables.control)[ViewWord.version] = 2
  const list = free.get(plan)
  if (list === undefined) free.set(plan, [memory])
  else list.push(memory)
}

function create({ segmentBytes, segments, tableMetaBytes, tableCacheBytes }: MemoryPlan): ShardMemory {
  return {
    control: new SharedArrayBuffer(controlWords * 4),
    arena: createArenaMemory(segmentBytes, segments),
    index: createIndexMemory(chunksMax),
    actors: new SharedArrayBuffer(actorsMax * 8),
    tables: createTableMemory(tableMetaBytes, tableCacheBytes),
  }
}

function zero(...buffers: readonly SharedArrayBuffer[]): void {
  for (const buffer of buffers) new Uint8Array(buffer).fill(0)
}
