/** A run against stores that lie: whatever they do wrong must end it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SunwiseError } from '../../../src/base/errors.ts'
import { BenchRecords } from '../../../src/cli/bench/bench-records.ts'
import { type BenchedStore, type BenchResult, BenchRun, KnownRecords } from '../../../src/cli/bench/bench-run.ts'
import { workloads } from '../../../src/cli/bench/workload.ts'
import type { Key, Value, Written } from '../../../src/index.ts'

const num = 200
const records = new BenchRecords(16, 32)
const written: Written = {
  etag: undefined,
  context: undefined,
  siblings: 1,
  expires: undefined,
  receipt: { r: 1, w: 1 } as unknown as Written['receipt'],
}
const textOf = (key: Key): string => (typeof key === 'string' ? key : Buffer.from(key).toString('latin1'))

/** Keeps what it is given, in a map. */
class HonestStore implements BenchedStore {
  readonly values = new Map<string, Uint8Array>()

  readInto(key: Uint8Array, into: Uint8Array): number {
    const value = this.values.get(textOf(key))
    if (value === undefined) return -1
    into.set(value)
    return value.length
  }

  put(key: Key, value: Value): Promise<Written> {
    assert.ok(typeof value !== 'string')
    this.values.set(textOf(key), value)
    return Promise.resolve(written)
  }

  async *list({ prefix = '' }: { readonly prefix?: Key } = {}): ReturnType<BenchedStore['list']> {
    for (const [key, value] of this.values) {
      if (key.startsWith(textOf(prefix))) yield { key: Buffer.from(key, 'latin1'), value }
    }
  }
}

/** Runs workloads one after another against one store. */
async function run(store: BenchedStore, ...names: readonly string[]): Promise<readonly BenchResult[]> {
  const known = new KnownRecords(num)
  const results: BenchResult[] = []
  for (const name of names) {
    const workload = workloads.find((candidate) => candidate.name === name)
    assert.ok(workload !== undefined, name)
    const settings = { num: name === 'ycsb-e' ? num * 1000 : num, concurrency: 4, seed: 1 }
    results.push(await new BenchRun(store, workload, records, known, settings, { done: 0, bytes: 0 }).run())
  }
  return results
}

const refused = (message: RegExp) => (error: unknown) =>
  error instanceof SunwiseError && error.code === 'INTERNAL' && message.test(error.message)

test('A run against an honest store counts operations, reads and bytes', async () => {
  const [fill, read, scan] = await run(new HonestStore(), 'fillseq', 'readrandom', 'ycsb-e')
  assert.deepEqual([fill?.operations, fill?.reads, fill?.bytes], [num, 0, num * 48])
  assert.deepEqual([read?.reads, read?.found, read?.bytes, read?.histogram.count()], [num, num, num * 48, num])
  assert.ok(scan !== undefined && scan.reads > 0.8 * num && scan.found === scan.reads)
})

test('ycsb-d inserts records behind those that are there, and reads those', async () => {
  const store = new HonestStore()
  const [, latest] = await run(store, 'fillseq', 'ycsb-d')
  assert.equal(store.values.size, num + num - latest!.reads)
  assert.equal(latest?.found, latest?.reads)
  assert.ok(store.values.size > num)
})

test('A store that loses acknowledged writes ends the run, for reads and for scans', async () => {
  class Forgetful extends HonestStore {
    override put(): Promise<Written> {
      return Promise.resolve(written)
    }
  }
  await assert.rejects(run(new Forgetful(), 'fillseq', 'readrandom'), refused(/is gone although/))
  await assert.rejects(run(new Forgetful(), 'fillseq', 'ycsb-e'), refused(/was not listed although/))
})

test('A store that finds what nobody wrote ends the run', async () => {
  class Inventive extends HonestStore {
    override readInto(key: Uint8Array, into: Uint8Array): number {
      return super.readInto(key.subarray(0, 16), into)
    }
  }
  await assert.rejects(run(new Inventive(), 'fillseq', 'readmissing'), refused(/under a key nobody wrote/))
})

test('A store that gives the value of another key, or a cut one, ends the run', async () => {
  class Confused extends HonestStore {
    override readInto(_key: Uint8Array, into: Uint8Array): number {
      return super.readInto(records.key(num - 1), into)
    }
  }
  class Cutting extends HonestStore {
    override readInto(key: Uint8Array, into: Uint8Array): number {
      return super.readInto(key, into) - 1
    }
  }
  await assert.rejects(run(new Confused(), 'fillseq', 'readrandom'), refused(/is the value of record 199/))
  await assert.rejects(run(new Cutting(), 'fillseq', 'readrandom'), refused(/has 31 bytes instead of 32/))
})

test('A refused write ends the run with its own error', async () => {
  class Full extends HonestStore {
    override put(): Promise<Written> {
      return Promise.reject(new SunwiseError('DISK_FULL', 'There is no room'))
    }
  }
  await assert.rejects(run(new Full(), 'fillrandom'), { code: 'DISK_FULL' })
})
