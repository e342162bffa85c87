import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type LateMergeInput, Merge, type MergeInput, type RecordSource } from '../../src/storage/merge.ts'
import { descends, expire, sync, type Vector, type VersionSet } from '../../src/versions/version-set.ts'
import { compareEntries, type Entry, entryAt, recordOf, valueSet } from './table-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const textBytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const nowMs = 1_800_000_000_000
const graceMs = 60_000

/** A source over entries in order; its memory is overwritten with each record, as an iterator's may be. */
class ListSource implements RecordSource {
  u8: Uint8Array = new Uint8Array(0)
  i32: Int32Array = new Int32Array(0)
  at = 0
  partition = 0
  readonly #entries: readonly Entry[]
  #next = 0

  constructor(entries: readonly Entry[]) {
    this.#entries = entries
  }

  next(): boolean {
    this.u8.fill(0xee)
    const entry = this.#entries[this.#next++]
    if (entry === undefined) return false
    const { u8, i32 } = recordOf(entry)
    this.u8 = u8
    this.i32 = i32
    this.partition = entry.partition
    return true
  }
}

type Run = {
  readonly entries: readonly Entry[]
  readonly isComplete: boolean
  readonly indices: Uint16Array | undefined
}

/** Up to where all replicas of replicated partitions have all writes. */
const stable: Vector = [
  { actor: 0, counter: 4 },
  { actor: 1, counter: 3 },
  { actor: 2, counter: 5 },
]

function mergeAll(
  runs: readonly Run[],
  dropsTombstones: boolean,
  retired: readonly number[] = [],
  replicated: readonly number[] = [],
): { entries: Entry[]; merge: Merge } {
  const open = new Set<number>()
  const inputs = runs.map(({ entries, isComplete, indices }, age): MergeInput | LateMergeInput => {
    const input = { source: new ListSource(entries), isComplete, actorIndices: indices }
    if (age % 2 === 0) return input
    const begin = (): MergeInput => {
      open.add(age)
      return input
    }
    return { fromPartition: entries[0]?.partition ?? 7, open: begin, close: () => assert.ok(open.delete(age)) }
  })
  const isRetiredBucket = (bucketId: number): boolean => retired.includes(bucketId)
  const merge = new Merge({
    inputs,
    nowMs,
    graceMs,
    dropsTombstones,
    isRetiredBucket,
    replicated: new Map(replicated.map((partition) => [partition, { vector: stable, expiredBeforeMs: 0 }])),
  })
  const entries: Entry[] = []
  while (merge.next()) {
    entries.push(entryAt(merge))
    for (const age of open) {
      const own = runs[age]!.entries
      assert.ok(own[0]!.partition <= merge.partition, 'It is open no sooner than it must')
      assert.ok(own.at(-1)!.partition >= merge.partition, 'nor longer')
    }
  }
  assert.equal(open.size, 0, 'All that was opened is closed')
  return { entries, merge }
}

const keyOf = (entry: Entry): string => `${entry.partition}/${entry.bucketId}/${Buffer.from(entry.key).toString('hex')}`

function sorted(entries: readonly Entry[]): Entry[] {
  return [...new Map(entries.map((entry) => [keyOf(entry), entry])).values()].sort(compareEntries)
}

function renamed(set: VersionSet, indices: Uint16Array | undefined): VersionSet {
  if (indices === undefined) return set
  const inOrder = (a: { actor: number; counter: number }, b: { actor: number; counter: number }): number =>
    a.actor - b.actor || a.counter - b.counter
  return {
    versions: set.versions.map((version) => ({ ...version, actor: indices[version.actor]! })).sort(inOrder),
    vector: set.vector.map((entry) => ({ ...entry, actor: indices[entry.actor]! })).sort(inOrder),
  }
}

/** The same by maps and whole sets. */
function model(
  runs: readonly Run[],
  dropsTombstones: boolean,
  retired: readonly number[],
  replicated: readonly number[],
): Entry[] {
  const merged = new Map<string, { entry: Entry; isComplete: boolean }>()
  for (const run of runs) {
    for (const entry of run.entries) {
      const set = renamed(entry.set, run.indices)
      const newer = merged.get(keyOf(entry))
      if (newer === undefined) merged.set(keyOf(entry), { entry: { ...entry, set }, isComplete: run.isComplete })
      else if (!newer.isComplete) {
        newer.entry = { ...entry, set: sync(newer.entry.set, set) }
        newer.isComplete = run.isComplete
      }
    }
  }
  return [...merged.values()]
    .map(({ entry }) =>
      replicated.includes(entry.partition) ? entry : { ...entry, set: expire(entry.set, nowMs, graceMs) },
    )
    .filter(({ bucketId }) => !retired.includes(bucketId))
    .filter(
      ({ set, partition }) =>
        !dropsTombstones ||
        !set.versions.every((version) => version.tombstone) ||
        (replicated.includes(partition) && !descends(stable, set.vector)),
    )
    .sort(compareEntries)
}

/** Sets as they come about: dots of three actors, some of them seen, some siblings. */
const versionSet: fc.Arbitrary<VersionSet> = fc
  .record({
    vector: fc.array(fc.nat(6), { minLength: 3, maxLength: 3 }),
    shown: fc.array(fc.nat(2), { minLength: 1, maxLength: 3 }),
    kinds: fc.array(fc.nat(5), { minLength: 3, maxLength: 3 }),
  })
  .map(({ vector, shown, kinds }) => {
    const seen = vector.map((counter, actor) => ({ actor, counter })).filter(({ counter }) => counter > 0)
    if (seen.length === 0) return valueSet(textBytes('alone'))
    const actors = [...new Set(shown.map((index) => seen[index % seen.length]!.actor))].sort()
    const versions = actors.map((actor) => {
      const { counter } = seen.find((entry) => entry.actor === actor)!
      const kind = kinds[actor]!
      const tombstone = kind === 0
      return {
        actor,
        counter,
        tombstone,
        expiresAtMs: tombstone ? 0 : kind === 1 ? nowMs - graceMs - 1 : kind === 2 ? nowMs - graceMs + 1 : 0,
        timestamp: 0,
        contentType: 'application/octet-stream',
        value: tombstone ? new Uint8Array(0) : textBytes(`${actor} ${counter}`),
      }
    })
    return { versions, vector: seen }
  })

const entry = fc.record({
  partition: fc.nat(2),
  bucketId: fc.constantFrom(1, 2, 3),
  key: fc.constantFrom('a', 'b', 'c', 'aa', 'ab').map(textBytes),
  set: versionSet,
})

const run = fc.record({
  entries: fc.array(entry, { maxLength: 20 }).map(sorted),
  isComplete: fc.boolean(),
  indices: fc.constantFrom(undefined, Uint16Array.of(0, 1, 2), Uint16Array.of(2, 0, 1), Uint16Array.of(7, 3, 300)),
})

test('Merge: gives for each key what whole version sets give', () => {
  fc.assert(
    fc.property(
      fc.array(run, { minLength: 1, maxLength: 6 }),
      fc.boolean(),
      fc.constantFrom([], [2]),
      fc.subarray([0, 1, 2]),
      (runs, drops, retired, replicated) => {
        const { entries, merge } = mergeAll(runs, drops, retired, replicated)
        assert.deepEqual(entries, model(runs, drops, retired, replicated))
        assert.equal(merge.counts.records, entries.length)
        const taken = runs.reduce((sum, { entries: own }) => sum + own.length, 0)
        const { superseded, droppedTombstones, retired: gone } = merge.counts
        assert.equal(entries.length + superseded + droppedTombstones + gone, taken)
      },
    ),
    { numRuns: 2000 * scale },
  )
})

test('Merge: nothing in, nothing out', () => {
  assert.deepEqual(mergeAll([], true).entries, [])
  assert.deepEqual(mergeAll([{ entries: [], isComplete: true, indices: undefined }], true).entries, [])
})

test('Merge: a tombstone hides what is older, and is dropped only with it', () => {
  const key = textBytes('k')
  const gone = { partition: 1, bucketId: 1, key, set: valueSet(new Uint8Array(0), { counter: 2, tombstone: true }) }
  const old = { partition: 1, bucketId: 1, key, set: valueSet(textBytes('old')) }
  const runs = [gone, old].map((only) => ({ entries: [only], isComplete: true, indices: undefined }))
  assert.deepEqual(mergeAll(runs, false).entries, [gone])
  assert.deepEqual(mergeAll(runs, true).entries, [])
  assert.equal(mergeAll(runs, true).merge.counts.droppedTombstones, 1)
})
