import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AssertionError } from '../../src/base/assert.ts'
import { SunwiseError } from '../../src/base/errors.ts'
import {
  bandCountOf,
  clip,
  decodeFacts,
  decodeRow,
  encodeFacts,
  encodeRow,
  factsKey,
  isTableId,
  partitionBytes,
  rangeBytes,
  rowEdits,
  rowKey,
  rowKeyPrefix,
  type TableEdit,
  type TableFacts,
  type TableRow,
  TableRows,
  tablesWithoutRows,
} from '../../src/storage/table-rows.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const hex = (...fields: string[]): string => fields.join('').replaceAll(' ', '')
const idOf = (name: number): string => name.toString(16).padStart(16, '0')
const shardRange = { firstPartition: 0, endPartition: 8 }

/** Table `name` of an age over [first, end). */
function rowOf(name: number, sequence: number, firstPartition: number, endPartition: number, level = 0): TableRow {
  return { tableId: idOf(name), sequence, level, firstPartition, endPartition }
}

function factsOf(row: TableRow, changes: Partial<TableFacts> = {}): TableFacts {
  const { tableId, firstPartition, endPartition } = row
  const bands = bandCountOf(endPartition - firstPartition)
  return {
    tableId,
    firstPartition,
    endPartition,
    fileBytes: 10 * bands + 2,
    records: 10,
    tombstones: 2,
    heldTombstones: 1,
    expiring: 0,
    earliestExpiryMs: 0,
    medianExpiryMs: 0,
    deadBytes: 3,
    bandBytes: new Array<number>(bands).fill(10),
    buckets: [],
    isComplete: true,
    ...changes,
  }
}

const added = (row: TableRow, changes?: Partial<TableFacts>): TableEdit['add'][number] => ({
  row,
  facts: factsOf(row, changes),
})
const flushOf = (row: TableRow): TableEdit => ({ remove: [], add: [added(row)] })
/** Table names of a stack, newest first. */
const names = (rows: TableRows, partition: number): number[] =>
  rows.rowsOf(partition).map((row) => Number.parseInt(row.tableId, 16))

/** Flushes 1, 2, 3 over all eight partitions. */
function threeFlushes(): TableRows {
  let rows = TableRows.empty(shardRange)
  for (const name of [1, 2, 3]) rows = rows.apply(flushOf(rowOf(name, name, 0, 8)))
  return rows
}

test('TableRows: a flush lies on top of its partitions; older snapshots do not change', () => {
  const empty = TableRows.empty(shardRange)
  const one = empty.apply(flushOf(rowOf(1, 1, 0, 8)))
  const two = one.apply(flushOf(rowOf(2, 2, 3, 5)))
  assert.deepEqual([names(two, 2), names(two, 3), names(two, 4), names(two, 5)], [[1], [2, 1], [2, 1], [1]])
  assert.deepEqual([empty.runs, one.runs, two.runs], [0, 1, 2])
  assert.deepEqual([empty.newestSequence, two.newestSequence], [0, 2])
  assert.equal(two.rowsOf(3), two.rowsOf(4), 'Neighbours with the same rows share one array')
  assert.deepEqual([...two.tableIds()], [idOf(1), idOf(2)])
})

test('TableRows: a merge replaces its range only, and leaves the rest of its inputs as one or two rows', () => {
  const before = threeFlushes()
  const output = rowOf(9, 2, 3, 5, 1)
  const inputs = clip([rowOf(2, 2, 0, 8), rowOf(1, 1, 0, 8)], { firstPartition: 3, endPartition: 5 })
  const after = before.apply({ remove: inputs, add: [added(output)] })
  assert.deepEqual(
    [names(after, 2), names(after, 3), names(after, 4), names(after, 5)],
    [
      [3, 2, 1],
      [3, 9],
      [3, 9],
      [3, 2, 1],
    ],
  )
  assert.deepEqual(
    after.rows.filter((row) => row.tableId === idOf(1)),
    [rowOf(1, 1, 0, 3), rowOf(1, 1, 5, 8)],
  )
  assert.deepEqual(tablesWithoutRows([idOf(1), idOf(4)], [after]), [idOf(4)])
  // The other two parts of table 1, in one edit without an output: nothing was left of them.
  const emptied = after.apply({ remove: [rowOf(1, 1, 0, 3), rowOf(1, 1, 5, 8)], add: [] })
  assert.deepEqual(
    [names(emptied, 0), names(emptied, 4)],
    [
      [3, 2],
      [3, 9],
    ],
  )
  assert.deepEqual(tablesWithoutRows([idOf(1), idOf(2)], [emptied, TableRows.empty(shardRange)]), [idOf(1)])
})

test('TableRows: edits that would let a value pass another in age, or that name what is not there, are refused', () => {
  const rows = threeFlushes()
  const cases: [string, TableEdit, RegExp][] = [
    ['a flush below another', flushOf(rowOf(9, 2, 0, 8)), /passes table/],
    [
      'a merge around a row that stays',
      { remove: [rowOf(1, 1, 0, 8), rowOf(3, 3, 0, 8)], add: [added(rowOf(9, 3, 0, 8))] },
      /passes table/,
    ],
    [
      'the same in one partition only',
      { remove: [rowOf(1, 1, 0, 8), rowOf(3, 3, 0, 8), rowOf(2, 2, 0, 7)], add: [added(rowOf(9, 3, 0, 8))] },
      /in partition 7/,
    ],
    [
      'an output older than an input',
      { remove: [rowOf(2, 2, 0, 8), rowOf(1, 1, 0, 8)], add: [added(rowOf(9, 1, 0, 8))] },
      /is older than/,
    ],
    [
      'an output newer than what lies above',
      { remove: [rowOf(2, 2, 0, 8), rowOf(1, 1, 0, 8)], add: [added(rowOf(9, 4, 0, 8))] },
      /passes table/,
    ],
    [
      'an output outside of its inputs',
      { remove: clip([rowOf(3, 3, 0, 8)], { firstPartition: 0, endPartition: 2 }), add: [added(rowOf(9, 3, 0, 3))] },
      /of which nothing was removed/,
    ],
    ['a part that is not there', { remove: [rowOf(4, 1, 0, 8)], add: [] }, /has no rows/],
    ['a part twice', { remove: [rowOf(1, 1, 0, 4), rowOf(1, 1, 3, 5)], add: [] }, /has no rows/],
    ['an empty part', { remove: [rowOf(1, 1, 3, 3)], add: [] }, /covers no partitions/],
    [
      'a row outside of its table',
      { remove: [], add: [{ row: rowOf(9, 9, 0, 8), facts: factsOf(rowOf(9, 9, 0, 7)) }] },
      /not in its facts/,
    ],
    [
      'facts of another table',
      { remove: [], add: [{ row: rowOf(9, 9, 0, 8), facts: factsOf(rowOf(8, 9, 0, 8)) }] },
      /not in its facts/,
    ],
    ['a row of another shard', flushOf(rowOf(9, 9, 0, 9)), /of another shard/],
    [
      'two outputs in one place',
      { remove: [rowOf(3, 3, 0, 8)], add: [added(rowOf(8, 3, 0, 4)), added(rowOf(9, 3, 3, 8))] },
      /of one age in partition 3/,
    ],
    ['a row that is none', flushOf({ ...rowOf(9, 9, 0, 8), level: 256 }), /its level/],
    ['facts that are none', { remove: [], add: [added(rowOf(9, 9, 0, 8), { tombstones: 11 })] }, /its tombstones/],
  ]
  for (const [name, edit, reason] of cases) {
    assert.match(rows.problemOf(edit) ?? 'no problem', reason, name)
    assert.throws(() => rows.apply(edit), AssertionError, name)
  }
  assert.equal(rows.problemOf(flushOf(rowOf(9, 4, 0, 8))), undefined)
})

test('TableRows: a shard that owns other partitions keeps what it holds of them', () => {
  const rows = threeFlushes().apply(flushOf(rowOf(4, 4, 0, 2)))
  const trimmed = rows.trim({ firstPartition: 2, endPartition: 6 })
  assert.deepEqual(trimmed.rows, [rowOf(3, 3, 2, 6), rowOf(2, 2, 2, 6), rowOf(1, 1, 2, 6)])
  assert.deepEqual([trimmed.firstPartition, trimmed.endPartition], [2, 6])
  assert.deepEqual(tablesWithoutRows(rows.tableIds(), [trimmed]), [idOf(4)])
  assert.throws(() => trimmed.rowsOf(1), AssertionError)
  // A merge that began before finds its inputs gone.
  const late = { remove: clip(rows.rows, { firstPartition: 1, endPartition: 3 }), add: [] }
  assert.equal(rows.problemOf(late), undefined)
  assert.match(trimmed.problemOf(late) ?? '', /has no rows/)
  // More partitions: there are no rows of them yet.
  assert.deepEqual(names(trimmed.trim(shardRange), 0), [])
})

test('TableRows.from() cuts rows to the partitions of the shard, and refuses what contradicts itself', () => {
  const rows = TableRows.from({ firstPartition: 2, endPartition: 8 }, [
    rowOf(1, 1, 0, 3),
    rowOf(2, 7, 1, 2),
    rowOf(3, 5, 2, 9),
  ])
  assert.deepEqual(rows.rows, [rowOf(3, 5, 2, 8), rowOf(1, 1, 2, 3)])
  const wrong: [TableRow[], RegExp][] = [
    [[rowOf(1, 1, 0, 4), rowOf(2, 1, 3, 8)], /of one age in partition 3/],
    [[rowOf(1, 1, 0, 4), rowOf(1, 1, 3, 8)], /of one age in partition 3/],
    [[rowOf(1, 1, 0, 4), rowOf(1, 2, 4, 8)], /two ages/],
    [[rowOf(1, 1, 0, 4), rowOf(1, 1, 4, 8, 1)], /two ages/],
    [[rowOf(1, 1, 4, 4)], /covers no partitions/],
    [[{ ...rowOf(1, 1, 0, 4), tableId: 'ABCDEF0123456789' }], /its id/],
    [[rowOf(1, 2 ** 48, 0, 4)], /its sequence/],
  ]
  for (const [some, reason] of wrong) {
    assert.throws(
      () => TableRows.from(shardRange, some),
      (error) => error instanceof SunwiseError && error.code === 'CATALOG_CORRUPT' && reason.test(error.message),
    )
  }
})

test('TableRows: bytes of a range follow the bands of the table, and all ranges together are the file', () => {
  // 100 partitions in 64 bands: some hold two partitions, some one; the data is in the first band only.
  const row = rowOf(1, 1, 10, 110)
  const skewed = factsOf(row, { fileBytes: 1200, bandBytes: [1000, ...new Array<number>(63).fill(0)] })
  assert.deepEqual(
    [9, 10, 11, 12, 110].map((partition) => partitionBytes(skewed, partition)),
    [0, 500, 500, 0, 0],
  )
  assert.equal(rangeBytes(skewed, 10, 11), 600)
  assert.equal(rangeBytes(skewed, 0, 1000), 1200)
  assert.equal(rangeBytes(skewed, 12, 110), 0)
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 300 }),
      fc.array(fc.integer({ min: 0, max: 1e6 }), { minLength: 64, maxLength: 64 }),
      fc.array(fc.integer({ min: 0, max: 300 }), { maxLength: 5 }),
      (partitions, bytes, cuts) => {
        const bandBytes = bytes.slice(0, bandCountOf(partitions))
        bandBytes[0]! += 1
        const all = bandBytes.reduce((sum, band) => sum + band, 0)
        const facts = factsOf(rowOf(1, 1, 5, 5 + partitions), { bandBytes, fileBytes: all + 777 })
        const borders = [0, ...cuts, 400].sort((a, b) => a - b)
        let sum = 0
        for (let index = 1; index < borders.length; index++)
          sum += rangeBytes(facts, borders[index - 1]!, borders[index]!)
        assert.ok(Math.abs(sum - facts.fileBytes) < 1e-3, `${sum} of ${facts.fileBytes}`)
        // What the writer counts into a band comes out of the partitions of that band.
        let single = 0
        for (let partition = 0; partition < 400; partition++) single += partitionBytes(facts, partition)
        assert.ok(Math.abs(single - all) < 1e-3)
        const band = Math.floor((bandBytes.length * (partitions - 1)) / partitions)
        assert.ok(bandBytes[band]! >= partitionBytes(facts, 5 + partitions - 1))
      },
    ),
    { numRuns: 100 * scale },
  )
})

test('TableRows: the catalog rows of an edit lead from one set of rows to the other', () => {
  const before = threeFlushes()
  const inputs = clip(before.rows, { firstPartition: 0, endPartition: 3 })
  const after = before.apply({ remove: inputs, add: [added(rowOf(9, 3, 0, 3, 1))] })
  const edits = rowEdits(2, before, after)
  assert.equal(edits.filter(({ op }) => op === 'put').length, 4)
  const catalog = new Map(before.rows.map((row) => [rowKey(2, row), encodeRow(row)]))
  for (const edit of edits) {
    if (edit.op === 'put') catalog.set(edit.key, edit.value)
    else catalog.delete(edit.key)
  }
  const read = [...catalog].map(([key, bytes]) => decodeRow(key, bytes)!)
  assert.ok(read.every(({ shard }) => shard === 2))
  assert.deepEqual(
    TableRows.from(
      shardRange,
      read.map(({ row }) => row),
    ).rows,
    after.rows,
  )
  assert.deepEqual(rowEdits(2, after, after), [])
})

test('TableRows: a row has exactly this key and these bytes', () => {
  const row = { ...rowOf(0xabc, 0x0102_0304_0506, 7, 0x4000, 5) }
  assert.equal(rowKeyPrefix(63), 'row/63/')
  assert.equal(rowKey(63, row), 'row/63/0000000000000abc/00007')
  assert.equal(encodeRow(row).toHex(), hex('01 05 0040', '060504030201'))
  assert.deepEqual(decodeRow('row/63/0000000000000abc/00007', encodeRow(row)), { shard: 63, row })
})

test('TableRows: facts have exactly this key and these bytes', () => {
  const facts: TableFacts = {
    tableId: '0123456789abcdef',
    firstPartition: 1,
    endPartition: 4,
    fileBytes: 0x0a_0000_0001,
    records: 0x1000,
    tombstones: 0x20,
    heldTombstones: 0x10,
    expiring: 3,
    earliestExpiryMs: 0x0190_0000_0000,
    medianExpiryMs: 0x0190_0000_0001,
    deadBytes: 0xff,
    bandBytes: [1, 0x09_0000_0000, 3],
    buckets: [
      { bucketId: 7, records: 0x0fff },
      { bucketId: 0x0102_0304, records: 1 },
    ],
    isComplete: true,
  }
  assert.equal(factsKey(facts.tableId), 'table/0123456789abcdef')
  const bytes = encodeFacts(facts)
  assert.equal(
    bytes.toHex(),
    hex(
      '02 01 0100 0400 0300',
      '010000000a00', // file bytes
      'ff0000000000', // dead bytes
      '000000009001', // earliest expiry
      '010000009001', // median expiry
      '00100000 20000000 10000000 03000000', // records, tombstones, held, expiring
      '010000000000 000000000900 030000000000', // bands
      '02 07000000 ff0f0000 04030201 01000000', // buckets
    ),
  )
  assert.deepEqual(decodeFacts(factsKey(facts.tableId), bytes), facts)
  const first = new Uint8Array([1, ...bytes.subarray(1, bytes.length - 17)])
  assert.deepEqual(decodeFacts(factsKey(facts.tableId), first), { ...facts, buckets: [] }, 'version 1')
  const shipped = { ...facts, isComplete: false }
  assert.deepEqual(decodeFacts(factsKey(facts.tableId), encodeFacts(shipped)), shipped)
  assert.equal(isTableId(facts.tableId), true)
  assert.equal(isTableId('0123456789abcdeF'), false)
})

test('TableRows: decoding refuses keys and bytes that are not whole', () => {
  const row = rowOf(1, 5, 7, 9)
  const bytes = encodeRow(row)
  const key = rowKey(0, row)
  for (const wrong of ['row/00/0000000000000001/00007', 'row/0/1/00007', `${key}0`, `x${key}`, key.slice(0, -1), '']) {
    assert.equal(decodeRow(wrong, bytes), undefined, wrong)
  }
  assert.equal(decodeRow(key, new Uint8Array([...bytes, 0])), undefined)
  for (let end = 0; end < bytes.length; end++) assert.equal(decodeRow(key, bytes.subarray(0, end)), undefined)
  assert.equal(decodeRow(key, bytes.with(0, 2)), undefined, 'another version')
  assert.equal(decodeRow(key, bytes.with(2, 7)), undefined, 'no partitions')
  assert.equal(decodeRow(key, bytes.with(3, 0x41)), undefined, 'too many partitions')

  const facts = factsOf(row, {
    expiring: 2,
    earliestExpiryMs: 5,
    medianExpiryMs: 6,
    buckets: [{ bucketId: 1, records: 3 }],
  })
  const whole = encodeFacts(facts)
  const factsAt = factsKey(facts.tableId)
  assert.deepEqual(decodeFacts(factsAt, whole), facts)
  for (const wrong of ['table/1', `${factsAt}0`, 'table/', ''])
    assert.equal(decodeFacts(wrong, whole), undefined, wrong)
  for (let end = 0; end < whole.length; end++) assert.equal(decodeFacts(factsAt, whole.subarray(0, end)), undefined)
  assert.equal(decodeFacts(factsAt, new Uint8Array([...whole, 0])), undefined)
  const changes: [string, number, number][] = [
    ['version', 0, 3],
    ['version', 0, 0],
    ['buckets', whole.length - 9, 2],
    ['records of a bucket', whole.length - 4, 11],
    ['flags', 1, 2],
    ['range', 4, 7],
    ['bands', 6, 3],
    ['file bytes', 8, 0],
    ['expiries', 26, 4],
    ['records', 32, 0],
    ['tombstones', 36, 11],
    ['held tombstones', 40, 3],
    ['expiring', 44, 0],
    ['bands beyond the file', 48, 0xff],
  ]
  for (const [name, at, value] of changes) assert.equal(decodeFacts(factsAt, whole.with(at, value)), undefined, name)
})

test('TableRows: no bytes make decoding throw, and what it takes encodes back to them', () => {
  const key = rowKey(0, rowOf(1, 5, 7, 9))
  const factsAt = factsKey(idOf(1))
  const base = encodeFacts(factsOf(rowOf(1, 1, 7, 9)))
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 12 }),
      fc.array(fc.tuple(fc.nat(base.length - 1), fc.nat(255)), { maxLength: 4 }),
      (bytes, changes) => {
        const found = decodeRow(key, bytes)
        if (found !== undefined) assert.deepEqual(encodeRow(found.row), bytes)
        const changed = changes.reduce((all, [at, value]) => all.with(at, value), base)
        const facts = decodeFacts(factsAt, changed)
        if (facts !== undefined) assert.deepEqual(encodeFacts(facts), changed)
      },
    ),
    { numRuns: 1000 * scale },
  )
})
