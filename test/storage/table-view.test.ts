/** The view of a shard's tables: what is published is found, and nothing disappears under a reader, on whatever thread. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { SunwiseError } from '../../src/base/errors.ts'
import { HostDisk } from '../../src/host/disk.ts'
import { nativeCrc32 } from '../../src/host/native-codes.ts'
import { decodeRecord } from '../../src/storage/record.ts'
import { TableWriter } from '../../src/storage/sstable-writer.ts'
import { TableFinder } from '../../src/storage/table-finder.ts'
import {
  createTableMemory,
  type OpenTable,
  pinWords,
  readersMax,
  type TableMemory,
  TableView,
  ViewWord,
} from '../../src/storage/table-view.ts'
import { keysOfTable, partitionOfTables, type ReaderReport, type ReaderSeed } from './table-reader-thread.ts'
import { actors, recordOf, valueSet } from './table-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const directory = mkdtempSync(join(tmpdir(), 'sunwise-view-'))
after(() => rmSync(directory, { recursive: true, force: true }))
const disk = new HostDisk(directory)
const tableCount = 6

/** Tables with the same keys; the values of each are its number. */
for (let number = 0; number < tableCount; number++) {
  const file = disk.createNow(`${number}.sst`)
  const tableId = { low: number, high: 7 }
  const writer = new TableWriter({
    file,
    tableId,
    crc32: nativeCrc32,
    bitsPerKey: 10,
    actors,
    isComplete: true,
    pace: () => {},
  })
  for (const key of keysOfTable) {
    const { u8, i32 } = recordOf({
      partition: partitionOfTables,
      bucketId: 1,
      key,
      set: valueSet(new Uint8Array(50).fill(number)),
    })
    writer.add(partitionOfTables, u8, i32, 0)
  }
  writer.finish()
  file.close()
}

function makeView(memory: TableMemory): TableView {
  return new TableView({ disk, memory, crc32: nativeCrc32, actorIndex: (low) => low - 1 })
}

const openTable = (view: TableView, number: number): OpenTable => view.open({ low: number, high: 7 }, `${number}.sst`)

test('TableView: a table that a reader may still look at stays open, and its memory is not used again', () => {
  const memory = createTableMemory(1024 * 1024, 256 * 1024)
  const view = makeView(memory)
  const pins = new Int32Array(memory.pins)
  const version = (): number => Atomics.load(new Int32Array(memory.control), ViewWord.version)
  const closed: OpenTable[] = []
  const reclaim = (): void => view.reclaim((table) => closed.push(table))
  const first = openTable(view, 0)
  view.publish(() => [first], 1)
  // Readers of this version, and of the next.
  pins[3 * pinWords] = version()
  const second = openTable(view, 1)
  assert.notEqual(second.start, first.start)
  view.publish(() => [second], 1)
  pins[5 * pinWords] = version()
  view.leave(first)
  reclaim()
  assert.deepEqual(closed, [])
  assert.notEqual(openTable(view, 2).start, first.start, 'Its memory is still its own')
  pins[3 * pinWords] = 0
  reclaim()
  assert.deepEqual(closed, [first], 'Only a reader of a later version is left, and it cannot know it')
  assert.throws(() => disk.readHandleNow(first.file.handle, new Uint8Array(4), 0, 4, 0), SunwiseError)
  assert.equal(openTable(view, 3).start, first.start, 'Its memory is free')
})

test('TableView: memory and slots that tables give back are given out again, and a view without room says so', () => {
  const memory = createTableMemory(64 * 1024, 256 * 1024)
  const view = makeView(memory)
  const tables: OpenTable[] = []
  assert.throws(
    () => {
      for (;;) tables.push(openTable(view, tables.length % tableCount))
    },
    (error) => (error as SunwiseError).code === 'OVERLOADED',
  )
  assert.ok(tables.length > 2)
  const { bytesUsed } = view
  for (const which of [1, 0, 2]) view.leave(tables[which]!)
  view.publish(() => [], 0)
  view.reclaim(() => {})
  assert.ok(view.bytesUsed < bytesUsed)
  const again = [0, 1, 2].map((number) => openTable(view, number))
  assert.deepEqual(again.map(({ start }) => start).sort(), [0, 1, 2].map((which) => tables[which]!.start).sort())
  assert.equal(view.bytesUsed, bytesUsed)
})

test('TableFinder on other threads finds every key while tables come and go, and handles are used again', {
  timeout: 60_000 * scale,
}, async (t) => {
  const memory = createTableMemory(1024 * 1024, 256 * 1024)
  const view = makeView(memory)
  let present = openTable(view, 0)
  view.publish(() => [present], 1)
  const stop = new SharedArrayBuffer(12)
  const words = new Int32Array(stop)
  const readers = [1, 2].map((reader) => {
    const seed: ReaderSeed = { memory, reader, stop, tables: tableCount }
    const worker = new Worker(new URL('./table-reader-thread.ts', import.meta.url), { workerData: seed })
    return new Promise<ReaderReport>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })
  })
  const beganMs = performance.now()
  // A busy machine takes its time to start threads: all of them have to have looked at something.
  const isThrough = (): boolean => {
    const passedMs = performance.now() - beganMs
    const isBusy = [1, 2].every((reader) => Atomics.load(words, reader) > 200)
    return passedMs > (isBusy ? 1500 * scale : 30_000 * scale)
  }
  let changes = 0
  let closed = 0
  while (!isThrough()) {
    const next = openTable(view, ++changes % tableCount)
    const before = present
    present = next
    view.publish(() => [present], 1)
    view.leave(before)
    view.reclaim(() => closed++)
    // A reader that is not running may hold a pin for a while.
    while (changes - closed > 50) {
      await new Promise((resolve) => setImmediate(resolve))
      view.reclaim(() => closed++)
    }
  }
  Atomics.store(words, 0, 1)
  const reports = await Promise.all(readers)
  t.diagnostic(JSON.stringify({ changes, closed, reports }))
  for (const { wrong, finds } of reports) {
    assert.deepEqual(wrong, [])
    assert.ok(finds > 100)
  }
  assert.ok(closed > 100, `${closed} tables were closed under the readers`)
  assert.ok(readersMax > 2)
  const finder = new TableFinder({ disk, memory, crc32: nativeCrc32, codec: undefined, reader: 0 })
  assert.ok(finder.find(partitionOfTables, 1, keysOfTable[0]!, 0, keysOfTable[0]!.length))
})

test('TableFinder: one that has read nothing yet shows what another has put into the caches, whole', () => {
  const memory = createTableMemory(1024 * 1024, 8 * 1024 * 1024)
  const view = makeView(memory)
  for (let way = 0; way < 8; way++) view.growCaches()
  const table = openTable(view, 3)
  view.publish(() => [table], 1)
  const options = { disk, memory, crc32: nativeCrc32, codec: undefined }
  const first = new TableFinder({ ...options, reader: 1 })
  let recordHits = 0
  let blockHits = 0
  for (const [index, key] of keysOfTable.entries()) {
    assert.ok(first.find(partitionOfTables, 1, key, 0, key.length))
    // The next one may stand in the block that was read for this one.
    for (const wanted of [key, keysOfTable[(index + 1) % keysOfTable.length]!]) {
      const fresh = new TableFinder({ ...options, reader: 2 })
      assert.ok(fresh.find(partitionOfTables, 1, wanted, 0, wanted.length))
      assert.deepEqual(decodeRecord(fresh.u8, fresh.i32, fresh.at).versions[0]!.value, new Uint8Array(50).fill(3))
      recordHits += fresh.recordHits
      blockHits += fresh.blockHits
    }
  }
  assert.ok(recordHits > 100, `${recordHits} came from the cache of records`)
  assert.ok(blockHits > 0, `${blockHits} came from the cache of blocks`)
})
