import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Compaction } from '../../src/storage/compaction-policy.ts'
import { mergeRoomBytes } from '../../src/storage/merge-room.ts'
import { type TableFacts, type TableRow, TableRows } from '../../src/storage/table-rows.ts'

const all = { firstPartition: 0, endPartition: 1024 }
const youngId = '00000000000000aa'
const oldId = '00000000000000bb'

function factsOf(tableId: string, fileBytes: number, records: number, tombstones: number): TableFacts {
  return {
    ...all,
    tableId,
    fileBytes,
    records,
    tombstones,
    heldTombstones: 0,
    expiring: 0,
    earliestExpiryMs: 0,
    medianExpiryMs: 0,
    deadBytes: 0,
    bandBytes: [fileBytes],
    buckets: [],
    isComplete: true,
  }
}

/** A merge of partitions [0, endPartition) of a young table and an old one of 100,000 bytes in 100 records. */
function room(young: TableFacts, endPartition: number, isLast = true): number {
  const old = factsOf(oldId, 100_000, 100, 0)
  const rows: TableRow[] = [
    { ...all, tableId: youngId, sequence: 2, level: 0 },
    { ...all, tableId: oldId, sequence: 1, level: 1 },
  ]
  const inputs = rows.map((row) => ({ ...row, endPartition }))
  const compaction: Compaction = {
    firstPartition: 0,
    endPartition,
    reason: 'dead',
    inputs,
    inputBytes: ((young.fileBytes + old.fileBytes) * endPartition) / 1024,
    outputLevel: 1,
    outputSequence: 2,
    isLast,
    isComplete: true,
  }
  const facts = new Map([young, old].map((table) => [table.tableId, table]))
  return mergeRoomBytes(compaction, TableRows.from(all, rows), facts)
}

test('mergeRoomBytes(): a merge of whole tables wants what it writes: at most all of its inputs', () => {
  assert.equal(room(factsOf(youngId, 20_000, 20, 0), 1024), 120_000)
})

test('mergeRoomBytes(): a slice wants what it writes, and what the slices after it keep of tables that go with the last', () => {
  // A quarter is written; of the rest, all stays until the tables go.
  assert.equal(room(factsOf(youngId, 20_000, 20, 0), 256), 120_000)
})

test('mergeRoomBytes(): where half of the tombstones hit, a merge writes that much less', () => {
  // 40 tombstones, 20 of which remove a record of 1000 bytes each; they themselves go with the oldest table.
  assert.equal(room(factsOf(youngId, 4_000, 40, 40), 1024), 80_000)
  assert.equal(room(factsOf(youngId, 4_000, 40, 40), 1024, false), 84_000 - 800)
})

test('mergeRoomBytes(): more tombstones, less room; never below nothing', () => {
  const rooms = [0, 20, 40, 100, 1000].map((tombstones) => room(factsOf(youngId, 10_000, 1000, tombstones), 256))
  for (const [index, bytes] of rooms.entries()) {
    assert.ok(bytes >= 0, String(rooms))
    if (index > 0) assert.ok(bytes <= rooms[index - 1]!, String(rooms))
  }
  assert.equal(rooms.at(-1), 0)
})
