/**
 * The benchmarks that `sunwise bench` knows, by the names that db_bench and YCSB gave them, as data: who picks the records, how often
 * each operation comes. How they are run is bench-run.ts.
 *
 * YCSB's core workloads (Cooper et al., SoCC 2010) are those of its `workloads/` folder, except that a record has one field.
 */

/** One operation of a workload. `scan` lists up to 100 keys; `modify` reads and then writes the same key. */
export type OperationKind = 'read' | 'update' | 'insert' | 'scan' | 'modify' | 'missing'

export type Workload = {
  readonly name: string
  readonly help: string
  /** Which records; `sequence` takes each once, in order. */
  readonly records: 'sequence' | 'uniform' | 'scrambled' | 'latest'
  /** Shares of the operations; they add up to 1. */
  readonly mix: Readonly<Partial<Record<OperationKind, number>>>
  /** Starts with an empty store where the store is the benchmark's own. */
  readonly isFresh: boolean
  /** Needs records to be there. */
  readonly needsRecords: boolean
  /** Operations as a share of `--num`. */
  readonly share: number
  /** Each write is synced before its answer, whatever `--durability` says. */
  readonly isSynced: boolean
  /** One more writer works beside the readers, uncounted. */
  readonly hasWriter: boolean
}

const filling = { records: 'uniform', mix: { update: 1 }, isFresh: true, needsRecords: false, share: 1 } as const
const reading = { records: 'uniform', mix: { read: 1 }, isFresh: false, needsRecords: true, share: 1 } as const
const plain = { isSynced: false, hasWriter: false } as const
const ycsb = { ...reading, ...plain, records: 'scrambled' } as const

/** Every benchmark there is, in the order of the help. */
export const workloads: readonly Workload[] = [
  { ...filling, ...plain, name: 'fillseq', help: 'writes every key once, in order', records: 'sequence' },
  { ...filling, ...plain, name: 'fillrandom', help: 'writes random keys' },
  {
    ...filling,
    ...plain,
    name: 'fillsync',
    help: 'writes num/1000 random keys, each synced',
    share: 0.001,
    isSynced: true,
  },
  {
    ...filling,
    ...plain,
    name: 'overwrite',
    help: 'writes random keys that are there',
    isFresh: false,
    needsRecords: true,
  },
  { ...reading, ...plain, name: 'readrandom', help: 'reads random keys' },
  { ...reading, ...plain, name: 'readmissing', help: 'reads keys that are not there', mix: { missing: 1 } },
  { ...reading, ...plain, name: 'readwhilewriting', help: 'reads random keys beside one writer', hasWriter: true },
  { ...ycsb, name: 'ycsb-a', help: '50 % reads, 50 % updates, zipfian', mix: { read: 0.5, update: 0.5 } },
  { ...ycsb, name: 'ycsb-b', help: '95 % reads, 5 % updates, zipfian', mix: { read: 0.95, update: 0.05 } },
  { ...ycsb, name: 'ycsb-c', help: 'reads, zipfian' },
  {
    ...ycsb,
    name: 'ycsb-d',
    help: '95 % reads of the latest, 5 % inserts',
    mix: { read: 0.95, insert: 0.05 },
    records: 'latest',
  },
  {
    ...ycsb,
    name: 'ycsb-e',
    help: '95 % scans of up to 100 keys, 5 % inserts',
    mix: { scan: 0.95, insert: 0.05 },
    share: 0.001,
  },
  { ...ycsb, name: 'ycsb-f', help: '50 % reads, 50 % read-modify-writes, zipfian', mix: { read: 0.5, modify: 0.5 } },
]

/** The kind of an operation for a drawn fraction from 0 to 1. */
export function kindAt(mix: Workload['mix'], drawn: number): OperationKind {
  let rest = drawn
  let last: OperationKind = 'read'
  for (const [kind, share] of Object.entries(mix) as [OperationKind, number][]) {
    last = kind
    rest -= share
    if (rest < 0) return kind
  }
  return last
}
