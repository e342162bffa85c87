/** The pool of job threads: real threads, real files. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { SunwiseError } from '../../src/base/errors.ts'
import { HostDisk } from '../../src/host/disk.ts'
import { JobPool } from '../../src/host/job-pool.ts'
import { nativeCrc32 } from '../../src/host/native-codes.ts'
import type { CompactionInput, CompactionOutput } from '../../src/storage/compaction.ts'
import { tableIdText } from '../../src/storage/sstable.ts'
import { TableWriter } from '../../src/storage/sstable-writer.ts'
import { actors, recordOf, valueSet } from '../storage/table-rig.ts'

const directory = mkdtempSync(join(tmpdir(), 'sunwise-jobs-'))
mkdirSync(join(directory, 'tables'))
after(() => rmSync(directory, { recursive: true, force: true }))

/** Writes a table of `records` values of 1 KiB; returns its path. */
function makeTable(low: number, records: number): string {
  const tableId = { low, high: 1 }
  const path = `tables/${tableIdText(tableId)}.sst`
  const file = new HostDisk(directory).createNow(path)
  const writer = new TableWriter({
    file,
    tableId,
    crc32: nativeCrc32,
    bitsPerKey: 10,
    actors,
    isComplete: true,
    pace: () => {},
  })
  for (let index = 0; index < records; index++) {
    const key = Buffer.from(`key ${String(index).padStart(8, '0')}`)
    const { u8, i32 } = recordOf({ partition: 1, bucketId: 1, key, set: valueSet(new Uint8Array(1024).fill(low)) })
    writer.add(1, u8, i32, 0)
  }
  writer.finish()
  file.close()
  return path
}

/** A compaction of tables, newest first, into one with the id `low`. */
function compactionOf(lows: readonly number[], low: number): CompactionInput {
  const pathOf = (id: number): string => `tables/${tableIdText({ low: id, high: 1 })}.sst`
  const range = { firstPartition: 0, endPartition: 1024, actorIndices: undefined }
  return {
    runs: lows.map((id) => ({ path: pathOf(id), tableId: { low: id, high: 1 }, ...range })),
    actors,
    outputs: [{ path: pathOf(low), tableId: { low, high: 1 } }],
    directory: 'tables',
    tableBytesWanted: 2 ** 30,
    bitsPerKey: 10,
    nowMs: 0,
    graceMs: 0,
    dropsTombstones: true,
    isComplete: true,
    compresses: false,
    buckets: { live: new Set([1]), below: 2 },
    replicated: new Map(),
  }
}

const run = <Output>(pool: JobPool, kind: string, input: unknown): Promise<Output> =>
  new Promise((resolve, reject) => {
    pool.run(kind, input, (error, output) => (error === undefined ? resolve(output as Output) : reject(error)))
  })

test('JobPool runs a compaction on a thread of its own, and says what it wrote', async () => {
  const pool = new JobPool(directory)
  makeTable(1, 100)
  makeTable(2, 50)
  const output = await run<CompactionOutput>(pool, 'compact', compactionOf([2, 1], 3))
  assert.equal(output.tables.length, 1)
  assert.equal(output.tables[0]!.table.records, 100)
  assert.equal(output.counts.superseded, 50)
  assert.ok(readdirSync(join(directory, 'tables')).includes(`${tableIdText({ low: 3, high: 1 })}.sst`))
  await pool.close()
})

test('JobPool compresses what it merges where that is wanted, and merges what is compressed', async () => {
  const pool = new JobPool(directory)
  makeTable(11, 200)
  const packed = await run<CompactionOutput>(pool, 'compact', { ...compactionOf([11], 12), compresses: true })
  const plain = await run<CompactionOutput>(pool, 'compact', compactionOf([12], 13))
  assert.equal(packed.tables[0]!.table.records, 200)
  assert.equal(plain.tables[0]!.table.records, 200)
  const [packedBytes, plainBytes] = [packed, plain].map((output) => output.tables[0]!.table.fileBytes)
  assert.ok(packedBytes! < plainBytes! / 4, `${packedBytes} against ${plainBytes} bytes`)
  const [before, after] = [11, 13].map((low) =>
    readFileSync(join(directory, `tables/${tableIdText({ low, high: 1 })}.sst`)),
  )
  assert.equal(after!.length, before!.length)
  await pool.close()
})

test('JobPool hands errors of jobs on with their codes, and jobs that break as INTERNAL; the next job runs', async () => {
  const pool = new JobPool(directory)
  const path = makeTable(4, 10)
  writeFileSync(join(directory, path), 'no table')
  await assert.rejects(run(pool, 'compact', compactionOf([4], 5)), { code: 'TABLE_CORRUPT' })
  await assert.rejects(run(pool, 'compact', compactionOf([99], 5)), { code: 'DISK_FAILED' })
  await assert.rejects(run(pool, 'no such job', {}), { code: 'INTERNAL', message: /no such job/ })
  await assert.rejects(run(pool, 'compact', {}), { code: 'INTERNAL', message: /broke/ })
  makeTable(6, 10)
  const output = await run<CompactionOutput>(pool, 'compact', compactionOf([6], 7))
  assert.equal(output.tables[0]!.table.records, 10)
  const left = readdirSync(join(directory, 'tables'))
  assert.ok(!left.includes(`${tableIdText({ low: 5, high: 1 })}.sst`), 'What failed leaves no file')
  await pool.close()
})

test('JobPool paces what is not urgent, and close() ends it and leaves no file', { timeout: 120_000 }, async () => {
  const pool = new JobPool(directory)
  makeTable(8, 4000)
  // Eight MiB to read and to write at a quarter of one a second: it would be done after half a minute.
  pool.setRate({ bytesPerSecond: 256 * 1024, rests: false })
  const outcome = run(pool, 'compact', compactionOf([8], 9)).then(
    () => 'done',
    (error: SunwiseError) => error.code,
  )
  // The urgent lane has a thread of its own: this one does not wait for the other.
  await assert.rejects(run(pool, 'flush', {}), { code: 'INTERNAL' })
  await pool.close()
  assert.equal(await outcome, 'CLOSED')
  await assert.rejects(run(pool, 'compact', compactionOf([8], 9)), { code: 'CLOSED' })
  assert.ok(!readdirSync(join(directory, 'tables')).includes(`${tableIdText({ low: 9, high: 1 })}.sst`))
})
