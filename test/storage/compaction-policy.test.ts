/**
 * The policy against a simulated shard (measured), against a model of reads (property), and case by case.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { Limits } from '../../src/config.ts'
import {
  type Compaction,
  type CompactionParameters,
  type CompactionState,
  compactionDefaults,
  deadBytesAfter,
  debt,
  pickCompaction,
  runsMax,
} from '../../src/storage/compaction-policy.ts'
import {
  bandCountOf,
  decodeFacts,
  decodeRow,
  encodeFacts,
  factsKey,
  type PartitionRange,
  rowEdits,
  type TableFacts,
  type TableRow,
  TableRows,
  tablesWithoutRows,
} from '../../src/storage/table-rows.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const valueRecordBytes = 140
const tombstoneBytes = 40

type LoadOptions = {
  readonly partitions: number
  readonly keys: number
  readonly flushBytes: number
  readonly parameters: CompactionParameters
  /** Bytes that merges may write while one byte is flushed. */
  readonly pace: number
  /** Merges at once. */
  readonly jobs: number
  /** Whether flushes know what they replace, or say 0. */
  readonly knowsDead: boolean
  readonly partitionOf: (key: number) => number
}

/** What a phase of the load cost. */
type Measures = {
  flushBytes: number
  mergeBytes: number
  merges: number
  runsMost: number
  /** Runs of a partition that has any, on average; summed over time. */
  runsTime: number
  time: number
  debtMost: number
}

/** Keys of one table by partition, ascending: key x 2, plus 1 for a tombstone. */
type Content = { readonly facts: TableFacts; readonly cells: readonly Uint32Array[] }
type Job = { readonly compaction: Compaction; readonly outputs: readonly Content[]; bytesLeft: number }

/**
 * A shard under load, record by record: real rows, real policy, and tables that are sorted arrays of keys. Merges write at a
 * given pace beside the flushes; time is counted in bytes that merges could have written.
 */
class SimulatedShard {
  rows: TableRows
  readonly contents = new Map<string, Content>()
  readonly facts = new Map<string, TableFacts>()
  measures = SimulatedShard.#noMeasures()
  readonly #options: LoadOptions
  readonly #random = new SeededRandom(7)
  readonly #state: Uint8Array
  readonly #running: Job[] = []
  #tables = 0
  #runs = 0

  constructor(options: LoadOptions) {
    this.#options = options
    this.rows = TableRows.empty({ firstPartition: 0, endPartition: options.partitions })
    this.#state = new Uint8Array(options.keys)
  }

  static #noMeasures(): Measures {
    return { flushBytes: 0, mergeBytes: 0, merges: 0, runsMost: 0, runsTime: 0, time: 0, debtMost: 0 }
  }

  /** Writes every key of `keys` (or deletes it) in order, flush by flush, merging beside it. */
  write(keys: Uint32Array, isDelete: boolean): void {
    const perFlush = Math.floor(this.#options.flushBytes / (isDelete ? tombstoneBytes : valueRecordBytes))
    for (let at = 0; at < keys.length; at += perFlush) {
      this.#flush(keys.subarray(at, Math.min(at + perFlush, keys.length)), isDelete)
      this.#work(this.#options.flushBytes * this.#options.pace)
    }
  }

  /** Lets the shard settle. Returns how many merges that took. */
  settle(nowMs = 0): number {
    const before = this.measures.merges
    this.#work(Number.POSITIVE_INFINITY, true, nowMs)
    return this.measures.merges - before
  }

  takeMeasures(): Measures {
    const taken = this.measures
    this.measures = SimulatedShard.#noMeasures()
    return taken
  }

  get fileBytes(): number {
    let bytes = 0
    for (const facts of this.facts.values()) bytes += facts.fileBytes
    return bytes
  }

  get liveBytes(): number {
    return valueRecordBytes * this.#state.reduce((sum, state) => sum + (state === 1 ? 1 : 0), 0)
  }

  #flush(keys: Uint32Array, isDelete: boolean): void {
    const { partitions, partitionOf, knowsDead } = this.#options
    const lists = Array.from({ length: partitions }, (): number[] => [])
    let dead = 0
    for (const key of new Set(keys)) {
      lists[partitionOf(key)]!.push(key * 2 + (isDelete ? 1 : 0))
      if (this.#state[key] === 1) dead += valueRecordBytes
      if (this.#state[key] === 2) dead += tombstoneBytes
      this.#state[key] = isDelete ? 2 : 1
    }
    const table = this.#table(
      0,
      lists.map((list) => Uint32Array.from(list).sort()),
      knowsDead ? dead : 0,
      false,
    )
    assert.ok(table !== undefined)
    const { firstPartition, endPartition, tableId } = table.facts
    const row = { tableId, sequence: this.rows.newestSequence + 1, level: 0, firstPartition, endPartition }
    this.rows = this.rows.apply({ remove: [], add: [{ row, facts: table.facts }] })
    this.#add(table)
    this.measures.flushBytes += table.facts.fileBytes
    this.#look()
  }

  #look(): void {
    let runs = 0
    let covered = 0
    for (let partition = 0; partition < this.#options.partitions; partition++) {
      const { length } = this.rows.rowsOf(partition)
      runs += length
      if (length > 0) covered++
      this.measures.runsMost = Math.max(this.measures.runsMost, length)
    }
    this.#runs = covered === 0 ? 0 : runs / covered
    this.measures.debtMost = Math.max(this.measures.debtMost, debt(this.rows, this.facts, this.#options.parameters))
  }

  /** Merges until `bytes` were written; in an idle shard, until nothing is left to merge. */
  #work(bytes: number, isIdle = false, nowMs = 0): void {
    let left = bytes
    for (;;) {
      while (this.#running.length < this.#options.jobs) {
        const busy = this.#running.map(({ compaction }) => ({
          firstPartition: compaction.firstPartition,
          endPartition: compaction.endPartition,
          newestSequence: compaction.outputSequence,
        }))
        const picked = pickCompaction(this.rows, this.facts, { busy, isIdle, nowMs }, this.#options.parameters)
        if (picked === undefined) break
        this.#running.push(this.#begin(picked))
      }
      if (this.#running.length === 0) break
      const share = Math.min(...this.#running.map(({ bytesLeft }) => bytesLeft))
      const step = Math.min(left, share * this.#running.length)
      left -= step
      for (const job of this.#running) job.bytesLeft -= step / this.#running.length
      this.#pass(step)
      if (left <= 0) return
      for (let index = this.#running.length - 1; index >= 0; index--) {
        if (this.#running[index]!.bytesLeft < 1) this.#finish(this.#running.splice(index, 1)[0]!)
      }
    }
    if (Number.isFinite(left)) this.#pass(left)
  }

  #pass(time: number): void {
    this.measures.time += time
    this.measures.runsTime += time * this.#runs
  }

  #begin(compaction: Compaction): Job {
    const cells: Uint32Array[] = Array.from({ length: this.#options.partitions }, () => new Uint32Array(0))
    let held = 0
    for (let partition = compaction.firstPartition; partition < compaction.endPartition; partition++) {
      let merged = new Uint32Array(0)
      for (const row of compaction.inputs) {
        if (partition < row.firstPartition || partition >= row.endPartition) continue
        merged = mergeKeys(merged, this.contents.get(row.tableId)!.cells[partition]!)
      }
      cells[partition] = compaction.isLast ? merged.filter((key) => (key & 1) === 0) : merged
      held += cells[partition]!.length
    }
    if (held === 0) return { compaction, outputs: [], bytesLeft: 0 }
    const table = this.#table(1, cells, 0, compaction.isLast)!
    const facts = { ...table.facts, deadBytes: deadBytesAfter(compaction, this.facts, [table.facts.fileBytes])[0]! }
    return { compaction, outputs: [{ cells, facts }], bytesLeft: facts.fileBytes }
  }

  #finish({ compaction, outputs }: Job): void {
    const { outputSequence: sequence, outputLevel: level } = compaction
    const add = outputs.map(({ facts }) => {
      const { tableId, firstPartition, endPartition } = facts
      return { row: { tableId, sequence, level, firstPartition, endPartition }, facts }
    })
    this.rows = this.rows.apply({ remove: compaction.inputs, add })
    for (const table of outputs) {
      this.#add(table)
      this.measures.mergeBytes += table.facts.fileBytes
    }
    this.measures.merges++
    for (const tableId of tablesWithoutRows(this.facts.keys(), [this.rows])) {
      this.facts.delete(tableId)
      this.contents.delete(tableId)
    }
    this.#look()
  }

  #add(table: Content): void {
    this.contents.set(table.facts.tableId, table)
    this.facts.set(table.facts.tableId, table.facts)
  }

  #table(kind: number, cells: readonly Uint32Array[], deadBytes: number, isLast: boolean): Content | undefined {
    const firstPartition = cells.findIndex((cell) => cell.length > 0)
    if (firstPartition < 0) return undefined
    const endPartition = cells.findLastIndex((cell) => cell.length > 0) + 1
    const partitions = endPartition - firstPartition
    const bandBytes = new Array<number>(bandCountOf(partitions)).fill(0)
    let records = 0
    let tombstones = 0
    for (let partition = firstPartition; partition < endPartition; partition++) {
      let dead = 0
      for (const key of cells[partition]!) dead += key & 1
      const all = cells[partition]!.length
      records += all
      tombstones += dead
      const band = Math.floor(((partition - firstPartition) * bandBytes.length) / partitions)
      bandBytes[band]! += (all - dead) * valueRecordBytes + dead * tombstoneBytes
    }
    const fileBytes = bandBytes.reduce((sum, bytes) => sum + bytes, 0)
    const tableId = (kind * 2 ** 40 + this.#tables++).toString(16).padStart(16, '0')
    const facts = {
      tableId,
      firstPartition,
      endPartition,
      fileBytes,
      records,
      tombstones,
      heldTombstones: isLast ? tombstones : 0,
      expiring: 0,
      earliestExpiryMs: 0,
      medianExpiryMs: 0,
      deadBytes,
      bandBytes,
      buckets: [],
      isComplete: true,
    }
    return { cells, facts }
  }

  /** All keys, each once, in random order. */
  permutation(): Uint32Array {
    const keys = Uint32Array.from({ length: this.#options.keys }, (_, key) => key)
    for (let last = keys.length - 1; last > 0; last--) {
      const other = this.#random.below(last + 1)
      const held = keys[last]!
      keys[last] = keys[other]!
      keys[other] = held
    }
    return keys
  }

  draws(count: number): Uint32Array {
    return Uint32Array.from({ length: count }, () => this.#random.below(this.#options.keys))
  }
}

let scratch = new Uint32Array(1024)

/** The keys of both, where `newer` wins. */
function mergeKeys(newer: Uint32Array, older: Uint32Array): Uint32Array<ArrayBuffer> {
  if (newer.length === 0) return older.slice()
  if (scratch.length < newer.length + older.length) scratch = new Uint32Array(2 * (newer.length + older.length))
  let from = 0
  let below = 0
  let count = 0
  while (from < newer.length && below < older.length) {
    const a = newer[from]!
    const b = older[below]!
    if (a >>> 1 === b >>> 1) below++
    scratch[count++] = a >>> 1 <= b >>> 1 ? newer[from++]! : older[below++]!
  }
  while (from < newer.length) scratch[count++] = newer[from++]!
  while (below < older.length) scratch[count++] = older[below++]!
  return scratch.slice(0, count)
}

/** The load of the project's targets: 20M records of 140 B, flushed 24 MB at a time; everything smaller by one factor. */
function loadOptions(changes: Partial<LoadOptions> = {}): LoadOptions {
  const size = Math.min(1, scale / 20)
  const parameters: CompactionParameters = {
    ...compactionDefaults,
    wasteBytesMin: compactionDefaults.wasteBytesMin * size,
    sliceBytesMin: compactionDefaults.sliceBytesMin * size,
    sliceBytesMax: compactionDefaults.sliceBytesMax * size,
    pendingBytesMax: compactionDefaults.pendingBytesMax * size,
    deadBytesMax: compactionDefaults.deadBytesMax * size,
  }
  const partitions = 1024
  return {
    partitions,
    keys: 20e6 * size,
    flushBytes: 24e6 * size,
    parameters,
    pace: 8,
    jobs: 1,
    knowsDead: true,
    partitionOf: (key) => key % partitions,
    ...changes,
  }
}

type Phase = {
  readonly amplification: number
  readonly runsMost: number
  readonly runsMean: number
  readonly debtMost: number
  /** Of what was flushed, what merges wrote once no more came. */
  readonly settling: number
  readonly fileBytes: number
  readonly liveBytes: number
}

/** Runs one phase to its end and rest, and reports it. */
function measure(shard: SimulatedShard, name: string, load: () => void, report: (line: string) => void): Phase {
  load()
  const busy = shard.takeMeasures()
  const busySpace = shard.fileBytes / shard.liveBytes
  shard.settle()
  const idle = shard.takeMeasures()
  assert.equal(shard.settle(), 0, 'A store at rest stays at rest')
  const phase: Phase = {
    amplification: (busy.flushBytes + busy.mergeBytes) / busy.flushBytes,
    runsMost: busy.runsMost,
    runsMean: busy.runsTime / busy.time,
    debtMost: busy.debtMost,
    settling: idle.mergeBytes / busy.flushBytes,
    fileBytes: shard.fileBytes,
    liveBytes: shard.liveBytes,
  }
  const figures = [
    `write amplification ${phase.amplification.toFixed(2)} and ${phase.settling.toFixed(2)} to settle`,
    `runs ${phase.runsMean.toFixed(2)} on average, ${phase.runsMost} at most`,
    `space ${phase.liveBytes === 0 ? 'all dead' : busySpace.toFixed(2)}, settled ${phase.liveBytes === 0 ? `${phase.fileBytes} B` : (phase.fileBytes / phase.liveBytes).toFixed(2)}`,
    `debt ${phase.debtMost.toFixed(2)}`,
    `${busy.merges} and ${idle.merges} merges`,
  ]
  report(`${name}: ${figures.join('; ')}`)
  return phase
}

test('CompactionPolicy: a load, an overwriting and a deletion of uniform keys stay within the targets', (t) => {
  const options = loadOptions()
  const shard = new SimulatedShard(options)
  const report = (line: string): void => t.diagnostic(line)
  const load = measure(shard, 'load', () => shard.write(shard.permutation(), false), report)
  assert.ok(load.amplification + load.settling <= 6)
  const overwrite = measure(shard, 'overwrite', () => shard.write(shard.draws(options.keys), false), report)
  assert.ok(overwrite.amplification + overwrite.settling <= 8)
  const again = measure(shard, 'overwrite again', () => shard.write(shard.draws(options.keys), false), report)
  assert.ok(again.amplification + again.settling <= 8)
  const deletion = measure(shard, 'delete all', () => shard.write(shard.permutation(), true), report)
  assert.deepEqual([deletion.fileBytes, deletion.liveBytes, shard.rows.rows.length], [0, 0, 0])
  for (const phase of [load, overwrite, again, deletion]) {
    assert.ok(phase.runsMost <= 10 && phase.runsMean <= 6)
    assert.ok(phase.fileBytes <= 1.3 * phase.liveBytes)
    assert.ok(phase.debtMost < 0.25)
  }
})

test('CompactionPolicy: where flushes do not know what they replace, space waits for the shard to be idle, and no more', (t) => {
  const options = loadOptions({ knowsDead: false })
  const shard = new SimulatedShard(options)
  const report = (line: string): void => t.diagnostic(line)
  shard.write(shard.permutation(), false)
  const overwrite = measure(
    shard,
    'overwrite, not knowing',
    () => shard.write(shard.draws(options.keys), false),
    report,
  )
  assert.ok(overwrite.amplification + overwrite.settling <= 8 && overwrite.runsMost <= 10)
  assert.ok(overwrite.fileBytes <= 1.3 * overwrite.liveBytes)
  const deletion = measure(shard, 'delete all, not knowing', () => shard.write(shard.permutation(), true), report)
  assert.equal(deletion.fileBytes, 0)
})

test('CompactionPolicy: all data in one partition cannot be sliced, and newer runs are merged while the great merge runs', (t) => {
  const options = loadOptions({ partitions: 8, partitionOf: () => 5, jobs: 2 })
  const shard = new SimulatedShard(options)
  const report = (line: string): void => t.diagnostic(line)
  const load = measure(shard, 'load of one partition', () => shard.write(shard.permutation(), false), report)
  const overwrite = measure(shard, 'overwrite', () => shard.write(shard.draws(options.keys), false), report)
  const deletion = measure(shard, 'delete all', () => shard.write(shard.permutation(), true), report)
  assert.ok(load.amplification + load.settling <= 6 && overwrite.amplification + overwrite.settling <= 8)
  for (const { runsMost, fileBytes, liveBytes, debtMost } of [load, overwrite, deletion]) {
    assert.ok(runsMost <= 12 && debtMost < 0.5)
    assert.ok(fileBytes <= 1.3 * liveBytes)
  }
})

const idOf = (name: number): string => name.toString(16).padStart(16, '0')
const idle: CompactionState = { busy: [], isIdle: true, nowMs: 0 }
const atWork: CompactionState = { ...idle, isIdle: false }
/** As the defaults, but for tables of some hundred bytes. */
const small: CompactionParameters = { ...compactionDefaults, sliceBytesMin: 0, sliceBytesMax: 640, wasteBytesMin: 1 }

type Table = { readonly row: TableRow; readonly facts: TableFacts }

/** A table whose every partition has `bytesPerPartition`; its records have 10 bytes. */
function tableOf(row: TableRow, bytesPerPartition: number, changes: Partial<TableFacts> = {}): Table {
  const { tableId, firstPartition, endPartition } = row
  const partitions = endPartition - firstPartition
  const bandBytes = new Array<number>(bandCountOf(partitions)).fill(bytesPerPartition)
  assert.equal(bandBytes.length, partitions, 'One band for each partition')
  const fileBytes = bytesPerPartition * partitions
  const facts = {
    tableId,
    firstPartition,
    endPartition,
    fileBytes,
    records: fileBytes / 10,
    tombstones: 0,
    heldTombstones: 0,
    expiring: 0,
    earliestExpiryMs: 0,
    medianExpiryMs: 0,
    deadBytes: 0,
    bandBytes,
    buckets: [],
    isComplete: true,
    ...changes,
  }
  return { row, facts }
}

/** Rows and facts of `tables` in a shard of 16 partitions. */
function shardOf(tables: readonly Table[]): { rows: TableRows; facts: Map<string, TableFacts> } {
  const range = { firstPartition: 0, endPartition: 16 }
  return {
    rows: TableRows.from(
      range,
      tables.map(({ row }) => row),
    ),
    facts: new Map(tables.map(({ facts }) => [facts.tableId, facts])),
  }
}

function rowOf(name: number, level = 0, firstPartition = 0, endPartition = 16): TableRow {
  return { tableId: idOf(name), sequence: name, level, firstPartition, endPartition }
}

/** Table ids of the inputs, newest first, as numbers. */
const inputsOf = (compaction: Compaction | undefined): number[] =>
  (compaction?.inputs ?? []).map(({ tableId }) => Number.parseInt(tableId, 16))

/** A stack of flushes of equal size over all partitions, `levels` from the oldest on. */
function stackOf(levels: readonly number[], changes: Partial<TableFacts> = {}): ReturnType<typeof shardOf> {
  return shardOf(levels.map((level, index) => tableOf(rowOf(index + 1, level), 10, index === 0 ? {} : changes)))
}

test('CompactionPolicy: a stack with one run too many is merged as the binomial schedule does', () => {
  const cases: [number[], number[], number][] = [
    // Levels from the oldest on; tables that are merged, newest first; level of the result.
    [[0, 0, 0, 0, 0], [], 0],
    [[0, 0, 0, 0, 0, 0], [6, 5, 4, 3, 2, 1], 1],
    [[1, 0, 0, 0, 0, 0], [6, 5, 4, 3, 2], 1],
    [[1, 1, 1, 0, 0, 0], [6, 5, 4], 1],
    [[1, 1, 1, 1, 1, 0], [6, 5, 4, 3, 2, 1], 2],
    [[3, 2, 2, 1, 1, 0], [6, 5, 4], 2],
    // Two runs too many: enough of them go in.
    [[3, 2, 1, 1, 1, 0, 0], [7, 6, 5, 4, 3], 2],
    // Late: the cheapest merge of the newest.
    [[3, 2, 1, 1, 1, 0, 0, 0, 0], [9, 8, 7, 6], 1],
  ]
  for (const [levels, inputs, level] of cases) {
    const { rows, facts } = stackOf(levels)
    const picked = pickCompaction(rows, facts, atWork)
    assert.deepEqual(inputsOf(picked), inputs, String(levels))
    if (picked === undefined) continue
    assert.equal(picked.outputLevel, level, String(levels))
    assert.equal(picked.isLast, inputs.includes(1))
    assert.equal(picked.outputSequence, levels.length)
    assert.equal(picked.reason, levels.length > 8 ? 'urgent' : 'crowded')
    assert.deepEqual([picked.firstPartition, picked.endPartition], [0, 16])
    assert.equal(picked.inputBytes, 160 * inputs.length)
  }
})

test('CompactionPolicy: a merge is sliced between partitions, and a partition that is larger goes alone', () => {
  const { rows, facts } = stackOf([0, 0, 0, 0, 0, 0])
  const slice = { ...small, sliceBytesMax: 300 }
  const first = pickCompaction(rows, facts, atWork, slice)!
  assert.deepEqual([first.firstPartition, first.endPartition, first.inputBytes], [0, 5, 300])
  const second = pickCompaction(rows, facts, { ...atWork, busy: [first] }, slice)!
  assert.deepEqual([second.firstPartition, second.endPartition], [5, 10])
  const alone = pickCompaction(rows, facts, atWork, { ...small, sliceBytesMax: 10 })!
  assert.deepEqual([alone.firstPartition, alone.endPartition], [0, 1])
  assert.ok(alone.inputs.every((row) => row.firstPartition === 0 && row.endPartition === 1))
  // Every partition is being merged.
  assert.equal(pickCompaction(rows, facts, { ...atWork, busy: [{ firstPartition: 0, endPartition: 16 }] }), undefined)
})

test('CompactionPolicy: where a merge is small, neighbours with the same runs come along, and those that are merged already do last', () => {
  // Only partitions 4 to 6 have so much dead; another merge holds partition 12.
  const tables = [tableOf(rowOf(1, 1), 10), tableOf(rowOf(2, 0, 4, 7), 10, { deadBytes: 30 })]
  const { rows, facts } = shardOf(tables)
  const state = { ...atWork, busy: [{ firstPartition: 12, endPartition: 13 }] }
  const rangeFor = (sliceBytesMin: number): number[] => {
    const picked = pickCompaction(rows, facts, state, { ...small, sliceBytesMin })!
    assert.deepEqual([picked.reason, picked.isLast], ['dead', true])
    return [picked.firstPartition, picked.endPartition, picked.inputBytes]
  }
  assert.deepEqual(rangeFor(0), [4, 7, 60])
  assert.deepEqual(rangeFor(60), [4, 7, 60])
  assert.deepEqual(rangeFor(75), [4, 9, 80])
  assert.deepEqual(rangeFor(1000), [0, 12, 150])
})

test('CompactionPolicy: while the lower part of a stack is being merged, only newer runs are, once they pile up', () => {
  const levels = [2, 1, 1, 0, 0, 0, 0]
  const { rows, facts } = stackOf(levels)
  const below = { firstPartition: 0, endPartition: 16, newestSequence: 3 }
  const picked = pickCompaction(rows, facts, { ...atWork, busy: [below] })!
  assert.deepEqual([inputsOf(picked), picked.isLast, picked.outputSequence], [[7, 6, 5, 4], false, 7])
  assert.equal(pickCompaction(rows, facts, { ...atWork, busy: [{ ...below, newestSequence: 4 }] }), undefined)
  assert.equal(pickCompaction(rows, facts, { ...atWork, busy: [{ firstPartition: 0, endPartition: 16 }] }), undefined)
  // Half of the partitions are free: they are not taken along with those above a merge, nor the other way round.
  const half = { ...below, endPartition: 8 }
  const above = pickCompaction(rows, facts, { ...atWork, busy: [half] })!
  assert.deepEqual([above.firstPartition, above.endPartition, inputsOf(above)], [0, 8, [7, 6, 5, 4]])
  const beside = pickCompaction(rows, facts, { ...atWork, busy: [half, { ...half, newestSequence: 7 }] })!
  assert.deepEqual([beside.firstPartition, beside.endPartition], [8, 16])
})

test('CompactionPolicy: a stack is merged whole once a quarter of it is dead; idle, once a tenth is', () => {
  // Four runs of 160 B: deadBytes of the three newer ones, each.
  const dead = (deadBytes: number) => stackOf([3, 2, 1, 0], { deadBytes })
  const reason = (state: CompactionState, { rows, facts }: ReturnType<typeof stackOf>): string | undefined => {
    const picked = pickCompaction(rows, facts, state)
    if (picked !== undefined)
      assert.deepEqual([inputsOf(picked), picked.isLast, picked.outputLevel], [[4, 3, 2, 1], true, 3])
    return picked?.reason
  }
  assert.equal(reason(atWork, dead(54)), 'dead')
  assert.equal(reason(atWork, dead(53)), undefined)
  // Tombstones count as dead themselves.
  assert.equal(reason(atWork, stackOf([3, 2, 1, 0], { tombstones: 6 })), 'dead')
  assert.equal(reason(atWork, stackOf([3, 2, 1, 0], { tombstones: 5 })), undefined)
  // What the oldest run says to replace does not exist any more.
  const alone = shardOf([tableOf(rowOf(1, 3), 10, { deadBytes: 160 })])
  assert.equal(pickCompaction(alone.rows, alone.facts, idle), undefined)
})

test('CompactionPolicy: an idle shard keeps runs that are each more than four times those above, and merges others', () => {
  const stack = (bytes: readonly number[], changes: Partial<TableFacts> = {}) =>
    shardOf(bytes.map((each, index) => tableOf(rowOf(index + 1, 0), each, index === 0 ? {} : changes)))
  const picked = (tables: ReturnType<typeof shardOf>): number[] =>
    inputsOf(pickCompaction(tables.rows, tables.facts, idle))
  assert.deepEqual(picked(stack([1000, 200, 40])), [])
  assert.deepEqual(picked(stack([1000, 200, 50])), [3, 2, 1])
  assert.deepEqual(picked(stack([1000, 100, 50])), [3, 2])
  assert.deepEqual(picked(stack([1000, 100, 20, 10])), [4, 3, 2])
  assert.deepEqual(picked(stack([1000])), [])
  // Dead by a tenth of all, incomplete: whole.
  assert.deepEqual(picked(stack([1000, 100], { deadBytes: 1759 })), [])
  assert.deepEqual(picked(stack([1000, 100], { deadBytes: 1760 })), [2, 1])
  const shipped = stack([1000, 10], { isComplete: false })
  assert.deepEqual(picked(shipped), [2, 1])
  assert.equal(pickCompaction(shipped.rows, shipped.facts, idle)?.isComplete, true)
  assert.equal(pickCompaction(shipped.rows, shipped.facts, atWork), undefined)
  // Merged with others but not with the oldest, it stays incomplete.
  const crowd = stackOf([1, 0, 0, 0, 0, 0], { isComplete: false })
  assert.equal(pickCompaction(crowd.rows, crowd.facts, atWork)?.isComplete, false)
})

test('CompactionPolicy: an oldest run with many tombstones or expired records is rewritten when idle, for as long as that helps', () => {
  const pick = (changes: Partial<TableFacts>, state: CompactionState): Compaction | undefined => {
    const { rows, facts } = shardOf([tableOf(rowOf(1, 2), 10, changes), tableOf(rowOf(2), 1)])
    return pickCompaction(rows, facts, state)
  }
  const rewritten = pick({ tombstones: 2 }, idle)
  assert.deepEqual([inputsOf(rewritten), rewritten?.reason, rewritten?.isLast], [[1], 'rewrite', true])
  assert.deepEqual([rewritten?.outputLevel, rewritten?.outputSequence], [2, 1])
  assert.equal(pick({ tombstones: 2 }, atWork), undefined)
  assert.equal(pick({ tombstones: 1 }, idle), undefined)
  // A replica may still lack them.
  assert.equal(pick({ tombstones: 2, heldTombstones: 2 }, idle), undefined)
  assert.equal(pick({ tombstones: 2, heldTombstones: 2 }, { ...idle, released: new Set([idOf(2)]) }), undefined)
  assert.deepEqual(inputsOf(pick({ tombstones: 2, heldTombstones: 2 }, { ...idle, released: new Set([idOf(1)]) })), [1])

  const expiring = { expiring: 3, earliestExpiryMs: 1000, medianExpiryMs: 5000 }
  const at = (nowMs: number): CompactionState => ({ ...idle, nowMs: nowMs + Limits.expiryGraceMs })
  assert.equal(pick(expiring, at(4999)), undefined)
  assert.equal(pick(expiring, at(5000)), undefined, 'half of 3 of 16 is not enough')
  assert.deepEqual(inputsOf(pick(expiring, at(6000))), [1])
  assert.deepEqual(inputsOf(pick({ ...expiring, expiring: 4 }, at(5000))), [1])
  assert.equal(pick({ ...expiring, expiring: 1 }, at(1e9)), undefined)
  assert.deepEqual(inputsOf(pick({ ...expiring, earliestExpiryMs: 5000 }, at(5000))), [1], 'all at one moment')
  // Of a young run, they count as dead; the stack is merged whole.
  const { rows, facts } = stackOf([1, 0], { expiring: 16, earliestExpiryMs: 1000, medianExpiryMs: 5000 })
  assert.deepEqual(
    [4999, 9000].map((nowMs) => pickCompaction(rows, facts, { ...at(nowMs), isIdle: false })?.reason),
    [undefined, 'dead'],
  )
})

test('CompactionPolicy: what holds much of deleted buckets is rewritten when idle, wherever it lies; at work what is mostly that', () => {
  const counted = (retired: number): Partial<TableFacts> => ({
    records: 16,
    buckets: [
      { bucketId: 1, records: 16 - retired },
      { bucketId: 2, records: retired },
    ],
  })
  const buckets = { live: new Set([1]), below: 3 }
  const pick = (old: number, young: number, state: CompactionState): Compaction | undefined => {
    const { rows, facts } = shardOf([tableOf(rowOf(1, 2), 10, counted(old)), tableOf(rowOf(2), 1, counted(young))])
    return pickCompaction(rows, facts, { ...state, buckets })
  }
  assert.equal(pick(1, 1, idle), undefined)
  assert.deepEqual([inputsOf(pick(2, 0, idle)), pick(2, 0, idle)?.reason], [[2, 1], 'settle'])
  const young = pick(0, 2, idle)
  assert.deepEqual([inputsOf(young), young?.reason, young?.isLast], [[2], 'rewrite', false])
  assert.equal(pick(2, 2, atWork), undefined)
  assert.deepEqual([inputsOf(pick(5, 0, atWork)), pick(5, 0, atWork)?.reason], [[2, 1], 'dead'])
  const { rows, facts } = shardOf([tableOf(rowOf(1, 2), 10, counted(16))])
  assert.equal(pickCompaction(rows, facts, { ...idle, buckets: { live: new Set([1, 2]), below: 3 } }), undefined)
  assert.equal(pickCompaction(rows, facts, idle), undefined, 'Nothing is known of buckets')
  const early = { live: new Set([1]), below: 2 }
  assert.equal(pickCompaction(rows, facts, { ...idle, buckets: early }), undefined, 'It may be a new one')
  assert.deepEqual(inputsOf(pickCompaction(rows, facts, { ...atWork, buckets })), [1])
})

test('CompactionPolicy: the small rest of a large file is rewritten when idle, and the file goes', () => {
  const large = tableOf(rowOf(1, 1), 100)
  const other = tableOf(rowOf(2, 1, 0, 12), 100)
  const { rows, facts } = shardOf([large, other])
  const rest = rows.apply({ remove: [rowOf(1, 1, 0, 9)], add: [] })
  const picked = pickCompaction(rest, facts, idle, { ...small, idleYoungShare: 10, sliceBytesMax: 6400 })
  assert.deepEqual([inputsOf(picked), picked?.firstPartition, picked?.endPartition], [[1], 9, 16])
  assert.equal(picked?.reason, 'rewrite')
  const most = rows.apply({ remove: [rowOf(1, 1, 0, 7)], add: [] })
  assert.equal(pickCompaction(most, facts, idle, { ...small, idleYoungShare: 10 }), undefined)
  assert.equal(pickCompaction(rest, facts, atWork, small), undefined)
  // What another shard holds of the file is not waste.
  const half = TableRows.from({ firstPartition: 9, endPartition: 16 }, [large.row])
  assert.equal(pickCompaction(half, facts, idle, small), undefined)
})

test('CompactionPolicy: a small store is merged a few times and never again, however often it is asked', () => {
  const options = loadOptions({
    partitions: 16,
    keys: 1000,
    flushBytes: 50_000,
    partitionOf: (key) => key % 16,
    parameters: compactionDefaults,
  })
  const shard = new SimulatedShard(options)
  shard.write(shard.draws(300), false)
  assert.equal(shard.settle(), 0, 'One flush is left as it is')
  shard.write(shard.draws(300), false)
  assert.equal(shard.settle(), 1)
  assert.equal(shard.settle(Number.MAX_SAFE_INTEGER), 0)
  assert.equal(shard.rows.runs, 1)
})

test('CompactionPolicy.deadBytesAfter() keeps what a merge did not save', () => {
  const { rows, facts } = stackOf([1, 1, 1, 0, 0, 0], { deadBytes: 100 })
  const picked = pickCompaction(rows, facts, atWork, { ...compactionDefaults, deadShareMax: 10 })!
  assert.deepEqual([inputsOf(picked), picked.inputBytes], [[6, 5, 4], 480])
  assert.deepEqual(deadBytesAfter(picked, facts, [480]), [300])
  assert.deepEqual(deadBytesAfter(picked, facts, [300]), [120])
  assert.deepEqual(deadBytesAfter(picked, facts, [500]), [300])
  assert.deepEqual(deadBytesAfter(picked, facts, [120, 240, 120]), [75, 150, 75], 'Several outputs share it by size')
  assert.deepEqual(deadBytesAfter(picked, facts, [0, 0]), [0, 0])
  assert.deepEqual(deadBytesAfter(picked, facts, []), [])
  assert.deepEqual(deadBytesAfter({ ...picked, isLast: true }, facts, [480]), [0])
})

test('CompactionPolicy.debt() is 0 at ease and 1 two runs before the greatest number of them, in even steps', () => {
  const debts = Array.from({ length: runsMax + 1 }, (_, runs) => {
    const { rows, facts } = stackOf(new Array<number>(runs).fill(0))
    return debt(rows, facts)
  })
  const easy = compactionDefaults.runsWanted + compactionDefaults.runsLate
  // A few bytes of the gigabytes that may be pending.
  assert.ok(debts.slice(0, easy + 1).every((each) => each < 1e-6))
  assert.deepEqual(debts.slice(runsMax - 2), [1, 1, 1])
  for (let runs = easy; runs < runsMax - 2; runs++) {
    assert.ok(Math.abs(debts[runs + 1]! - debts[runs]! - 1 / (runsMax - 2 - easy)) < 1e-6)
  }
  const heavy = stackOf([0, 0, 0, 0, 0, 0, 0])
  assert.equal(debt(heavy.rows, heavy.facts, { ...small, pendingBytesMax: 640 }), 0.5)
  const dead = stackOf([0, 0, 0], { deadBytes: 400 })
  assert.equal(debt(dead.rows, dead.facts, { ...small, deadBytesMax: 1280 }), 0.5)
})

test('CompactionPolicy.debt() never falls with another flush', () => {
  const flushes = fc.array(
    fc.record({
      first: fc.nat(15),
      partitions: fc.integer({ min: 1, max: 16 }),
      bytes: fc.integer({ min: 1, max: 100 }),
      dead: fc.nat(3000),
      tombstones: fc.nat(10),
    }),
    { maxLength: 30 },
  )
  const parameters = { ...small, pendingBytesMax: 20_000, deadBytesMax: 60_000 }
  fc.assert(
    fc.property(flushes, (list) => {
      const tables: Table[] = []
      let before = 0
      for (const [index, { first, partitions, bytes, dead, tombstones }] of list.entries()) {
        const row = rowOf(index + 1, 0, first, Math.min(16, first + partitions))
        tables.push(tableOf(row, bytes * 10, { deadBytes: dead, tombstones }))
        const { rows, facts } = shardOf(tables)
        const now = debt(rows, facts, parameters)
        assert.ok(now >= before && now <= 1, `${before} before, ${now} after flush ${index}`)
        before = now
      }
    }),
    { numRuns: 200 * scale },
  )
})

type Write = { readonly partition: number; readonly key: number; readonly isDelete: boolean }
type Command =
  | { readonly kind: 'flush'; readonly writes: readonly Write[]; readonly dead: number; readonly isComplete: boolean }
  | { readonly kind: 'begin'; readonly isIdle: boolean; readonly sharesBusy: boolean }
  | { readonly kind: 'finish'; readonly which: number }
  | { readonly kind: 'crash' }
  | { readonly kind: 'trim'; readonly range: PartitionRange }

/** One record: the value that the `write`th write of all gave, or a tombstone. */
type ModelRecord = { readonly partition: number; readonly key: number; readonly value: number | undefined }

const modelPartitions = 6
const modelParameters: CompactionParameters = {
  ...compactionDefaults,
  runsWanted: 3,
  runsLate: 1,
  sliceBytesMax: 120,
  wasteBytesMin: 1,
}

/** Tables as plain lists of records, beside what the newest value of each key is. */
class ModelShard {
  rows = TableRows.empty({ firstPartition: 0, endPartition: modelPartitions })
  facts = new Map<string, TableFacts>()
  readonly #records = new Map<string, readonly ModelRecord[]>()
  readonly #newest = new Map<string, number>()
  readonly #catalog = new Map<string, Uint8Array>()
  #running: Compaction[] = []
  /** Those under way when the shard lost partitions; their edits may not fit any more. */
  readonly #overtaken = new Set<Compaction>()
  #writes = 0
  #tables = 0

  run(command: Command): void {
    if (command.kind === 'flush') this.#flush(command)
    if (command.kind === 'begin') this.#begin(command.isIdle, command.sharesBusy)
    if (command.kind === 'finish' && this.#running.length > 0) {
      this.#finish(this.#running.splice(command.which % this.#running.length, 1)[0]!)
    }
    if (command.kind === 'crash') this.#restart()
    if (command.kind === 'trim') this.#trim(command.range)
    this.check()
  }

  /** Merges until the idle shard rests. */
  settle(): void {
    while (this.#running.length > 0) this.#finish(this.#running.pop()!)
    let cells = this.#cells
    let rewritesLeft = cells
    while (this.#begin(true, false)) {
      const [compaction] = this.#running.splice(0)
      this.#finish(compaction!)
      assert.ok(this.#cells <= cells, 'Merging never adds a run')
      rewritesLeft = this.#cells < cells ? this.#cells : rewritesLeft - 1
      assert.ok(rewritesLeft >= 0, 'A store at rest is not rewritten for ever')
      cells = this.#cells
    }
    this.check()
  }

  /** The newest value of every key by a search through the rows, newest first, is that of the last write. */
  check(): void {
    for (let partition = this.rows.firstPartition; partition < this.rows.endPartition; partition++) {
      for (let key = 0; key < 4; key++) {
        assert.equal(this.#search(partition, key), this.#newest.get(`${partition}/${key}`), `${partition}/${key}`)
      }
    }
  }

  get #cells(): number {
    return this.rows.rows.reduce((sum, row) => sum + row.endPartition - row.firstPartition, 0)
  }

  #search(partition: number, key: number): number | undefined {
    for (const { tableId } of this.rows.rowsOf(partition)) {
      const found = this.#records.get(tableId)!.find((one) => one.partition === partition && one.key === key)
      if (found !== undefined) return found.value
    }
    return undefined
  }

  #flush({ writes, dead, isComplete }: Extract<Command, { kind: 'flush' }>): void {
    const records = new Map<string, ModelRecord>()
    for (const { partition, key, isDelete } of writes) {
      if (partition < this.rows.firstPartition || partition >= this.rows.endPartition) continue
      const value = isDelete ? undefined : ++this.#writes
      records.set(`${partition}/${key}`, { partition, key, value })
      if (value === undefined) this.#newest.delete(`${partition}/${key}`)
      else this.#newest.set(`${partition}/${key}`, value)
    }
    if (records.size === 0) return
    const facts = this.#table([...records.values()], dead, isComplete, 0)
    const { tableId, firstPartition, endPartition } = facts
    const row = { tableId, sequence: this.rows.newestSequence + 1, level: 0, firstPartition, endPartition }
    this.#become(this.rows.apply({ remove: [], add: [{ row, facts }] }), [facts])
  }

  #begin(isIdle: boolean, sharesBusy: boolean): boolean {
    const busy = this.#running.map(({ firstPartition, endPartition, outputSequence }) =>
      sharesBusy ? { firstPartition, endPartition, newestSequence: outputSequence } : { firstPartition, endPartition },
    )
    const state = { busy, isIdle, nowMs: 0 }
    const picked = pickCompaction(this.rows, this.facts, state, modelParameters)
    if (picked === undefined) return false
    assert.ok(picked.inputBytes <= modelParameters.sliceBytesMax || picked.endPartition === picked.firstPartition + 1)
    this.#running.push(picked)
    return true
  }

  #finish(compaction: Compaction): void {
    const newest = new Map<string, ModelRecord>()
    for (const { tableId, firstPartition, endPartition } of compaction.inputs) {
      for (const one of this.#records.get(tableId)!) {
        if (one.partition < firstPartition || one.partition >= endPartition) continue
        const name = `${one.partition}/${one.key}`
        if (!newest.has(name)) newest.set(name, one)
      }
    }
    // Some tombstones stay: those of key 0 are of use to another replica.
    const kept = [...newest.values()].filter(({ value, key }) => value !== undefined || !compaction.isLast || key === 0)
    const outputs: TableFacts[] = []
    const half = Math.floor((compaction.firstPartition + compaction.endPartition) / 2)
    for (const part of [
      kept.filter(({ partition }) => partition < half),
      kept.filter(({ partition }) => partition >= half),
    ]) {
      if (part.length === 0) continue
      const held = compaction.isLast ? part.filter(({ value }) => value === undefined).length : 0
      outputs.push(this.#table(part, compaction.isLast ? 0 : 7, compaction.isComplete, held))
    }
    const { outputSequence: sequence, outputLevel: level } = compaction
    const add = outputs.map((facts) => {
      const { tableId, firstPartition, endPartition } = facts
      return { row: { tableId, sequence, level, firstPartition, endPartition }, facts }
    })
    const edit = { remove: compaction.inputs, add }
    const problem = this.rows.problemOf(edit)
    if (problem !== undefined) {
      assert.ok(this.#overtaken.has(compaction), problem)
      return
    }
    this.#become(this.rows.apply(edit), outputs)
  }

  /** The process ends: what was under way is lost, and everything comes back from the bytes of the catalog. */
  #restart(): void {
    this.#running = []
    const rows: TableRow[] = []
    this.facts = new Map()
    for (const [key, bytes] of this.#catalog) {
      const row = decodeRow(key, bytes)
      const facts = decodeFacts(key, bytes)
      assert.ok(row !== undefined || facts !== undefined)
      if (row !== undefined) rows.push(row.row)
      if (facts !== undefined) this.facts.set(facts.tableId, facts)
    }
    this.rows = TableRows.from(this.rows, rows)
  }

  #trim(range: PartitionRange): void {
    for (const compaction of this.#running) this.#overtaken.add(compaction)
    this.#become(this.rows.trim(range), [])
    for (const name of this.#newest.keys()) {
      const partition = Number(name.split('/')[0])
      if (partition < range.firstPartition || partition >= range.endPartition) this.#newest.delete(name)
    }
  }

  /** Takes an edit over into the catalog as one commit would, and forgets tables that no row names. */
  #become(rows: TableRows, added: readonly TableFacts[]): void {
    for (const facts of added) {
      this.facts.set(facts.tableId, facts)
      this.#catalog.set(factsKey(facts.tableId), encodeFacts(facts))
    }
    for (const edit of rowEdits(0, this.rows, rows)) {
      if (edit.op === 'put') this.#catalog.set(edit.key, edit.value)
      else this.#catalog.delete(edit.key)
    }
    this.rows = rows
    for (const tableId of tablesWithoutRows(this.facts.keys(), [rows])) {
      this.facts.delete(tableId)
      this.#catalog.delete(factsKey(tableId))
    }
  }

  #table(records: readonly ModelRecord[], deadBytes: number, isComplete: boolean, heldTombstones: number): TableFacts {
    const tableId = idOf(++this.#tables)
    this.#records.set(tableId, records)
    const partitions = records.map(({ partition }) => partition)
    const firstPartition = Math.min(...partitions)
    const endPartition = Math.max(...partitions) + 1
    const bandBytes = new Array<number>(endPartition - firstPartition).fill(0)
    for (const partition of partitions) bandBytes[partition - firstPartition]! += 10
    const tombstones = records.filter(({ value }) => value === undefined).length
    const row = { tableId, sequence: 0, level: 0, firstPartition, endPartition }
    const counts = { records: records.length, fileBytes: 10 * records.length, tombstones, heldTombstones }
    return tableOf(row, 1, { ...counts, bandBytes, deadBytes, isComplete }).facts
  }
}

const writeOf = fc.record({
  partition: fc.nat(modelPartitions - 1),
  key: fc.nat(3),
  isDelete: fc.boolean(),
})
const commandOf: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('flush' as const),
      writes: fc.array(writeOf, { minLength: 1, maxLength: 16 }),
      dead: fc.nat(200),
      isComplete: fc.boolean(),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant('begin' as const), isIdle: fc.boolean(), sharesBusy: fc.boolean() }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('finish' as const), which: fc.nat(9) }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'crash' as const }) },
  {
    weight: 1,
    arbitrary: fc.tuple(fc.nat(modelPartitions - 1), fc.nat(modelPartitions - 1)).map(([a, b]) => ({
      kind: 'trim' as const,
      range: { firstPartition: Math.min(a, b), endPartition: Math.max(a, b) + 1 },
    })),
  },
)

test('CompactionPolicy: the newest value is found after any flushes, merges, crashes and moves, and the shard comes to rest', () => {
  fc.assert(
    fc.property(fc.array(commandOf, { maxLength: 80, size: 'max' }), (commands) => {
      const shard = new ModelShard()
      for (const command of commands) shard.run(command)
      shard.settle()
    }),
    { numRuns: 800 * scale },
  )
})
