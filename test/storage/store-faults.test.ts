/**
 * Every call of the disk fails once: with an i/o error, for want of space, or with a power cut in its middle. Whatever was
 * acknowledged or read as durable is there afterwards, what was refused is not, and the node goes on when the disk is whole.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Durability } from '../../src/config.ts'
import { type DiskCallKind, SimCrash } from '../sim/sim-disk.ts'
import { FaultRun, type FaultRunOptions } from './fault-run.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

type Mode = Pick<FaultRunOptions, 'durabilities' | 'completions' | 'preallocate'>
const modes: Record<string, Mode> = {
  sync: { durabilities: ['sync'], completions: 'immediate', preallocate: true },
  os: { durabilities: ['os'], completions: 'immediate', preallocate: false },
  'sync with queued operations': { durabilities: ['sync'], completions: 'queued', preallocate: true },
  mixed: { durabilities: ['sync', 'os', 'interval'] as Durability[], completions: 'queued', preallocate: true },
}

/** The workload without a fault: how many calls of each kind there are. */
function countCalls(mode: Mode, seed: number): FaultRun {
  const run = new FaultRun({ ...mode, seed, codes: [] })
  run.run()
  assert.ok(run.tally.recycled > 0, 'Memory was recycled')
  assert.ok(run.tally.acknowledged > 100)
  return run
}

type Sum = Record<string, number>
function add(sum: Sum, run: FaultRun): void {
  for (const [name, count] of Object.entries(run.tally)) sum[name] = (sum[name] ?? 0) + count
}

/** Every call of a kind is tried; with a small scale, only so many of the writes and syncs, spread evenly. */
function placesOf(count: number, seed: number): number[] {
  const step = Math.max(1, Math.round(count / (60 * scale)))
  return Array.from({ length: count }, (_, index) => index + 1).filter((place) => place % step === seed % step)
}

const failingKinds: readonly DiskCallKind[] = ['open', 'create', 'size', 'read', 'write', 'sync', 'list']
const seeds = Array.from({ length: Math.max(1, Math.round(scale)) }, (_, index) => index + 1)

for (const [name, mode] of Object.entries(modes)) {
  test(`Store: an i/o error of any call loses nothing that was promised (${name})`, (t) => {
    const sum: Sum = {}
    for (const seed of seeds) {
      const { calls } = countCalls(mode, seed).disk
      for (const kind of failingKinds) {
        for (const nth of placesOf(calls[kind], seed)) {
          for (const dropsCaches of kind === 'sync' && name === 'sync' ? [false, true] : [false]) {
            const failing = kind === 'sync' ? { failingSync: nth } : {}
            const run = new FaultRun({ ...mode, ...failing, seed, dropsCaches, codes: ['DISK_FAILED'] })
            run.disk.fail({ kind, error: 'EIO', nth })
            explain(`seed ${seed}, EIO at ${kind} ${nth}${dropsCaches ? ', caches dropped' : ''}`, () => {
              run.run()
              run.kill()
              run.powerCut()
              run.goOn()
            })
            // A process that is killed first never hears of an error that it was waiting for.
            const isNoticed = run.tally.shardsFailed + run.tally.startsFailed > 0
            assert.ok(isNoticed || mode.completions === 'queued', `EIO at ${kind} ${nth} is noticed`)
            add(sum, run)
          }
        }
      }
    }
    t.diagnostic(JSON.stringify(sum))
    assert.ok(sum['unknown']! > 0 && sum['refused']! > 0 && sum['startsFailed']! > 0 && sum['shardsFailed']! > 0)
  })

  test(`Store: a full disk refuses what it cannot take, and nothing else (${name})`, (t) => {
    const sum: Sum = {}
    for (const seed of seeds) {
      const { calls } = countCalls(mode, seed).disk
      for (const kind of ['write', 'create'] as const) {
        for (const nth of placesOf(calls[kind], seed)) {
          for (const times of [1, 6]) {
            const run = new FaultRun({ ...mode, seed, codes: ['DISK_FULL', 'OVERLOADED'] })
            run.disk.fail({ kind, error: 'ENOSPC', nth, times })
            explain(`seed ${seed}, ENOSPC at ${kind} ${nth}, ${times} times`, () => {
              run.run()
              run.powerCut()
              run.goOn()
            })
            assert.equal(run.tally.shardsFailed, 0, 'Want of space is not final')
            add(sum, run)
          }
        }
      }
    }
    t.diagnostic(JSON.stringify(sum))
    assert.ok(sum['refused']! > 0)
  })

  test(`Store: a disk that stays full serves reads, and takes writes when there is room again (${name})`, (t) => {
    const sum: Sum = {}
    for (let nth = 1; nth < 60; nth += Math.max(1, Math.round(9 / scale))) {
      for (const kind of ['write', 'create'] as const) {
        const run = new FaultRun({ ...mode, seed: nth, codes: ['DISK_FULL', 'OVERLOADED'] })
        run.disk.fail({ kind, error: 'ENOSPC', nth, times: Number.POSITIVE_INFINITY })
        explain(`seed ${nth}, ENOSPC from ${kind} ${nth} on`, () => {
          run.run()
          run.readAll()
          run.goOn()
        })
        assert.equal(run.tally.shardsFailed, 0, 'Want of space is not final')
        add(sum, run)
      }
    }
    t.diagnostic(JSON.stringify(sum))
    assert.ok(sum['refused']! > 100)
  })

  test(`Store: a power cut in any change of the disk loses nothing that was promised (${name})`, (t) => {
    const sum: Sum = {}
    for (const seed of seeds) {
      const { changesTotal } = countCalls(mode, seed).disk
      for (let change = 1; change <= changesTotal; change++) {
        const run = new FaultRun({ ...mode, seed, crashAtChange: change, codes: [] })
        explain(`seed ${seed}, power cut in change ${change}`, () => {
          assert.throws(() => run.run(), SimCrash)
          run.powerCut()
          run.goOn()
          run.powerCut()
        })
        add(sum, run)
      }
    }
    t.diagnostic(JSON.stringify(sum))
  })
}

/** Names the place in the message of what fails. */
function explain(place: string, body: () => void): void {
  try {
    body()
  } catch (error) {
    throw new Error(`${place}: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
  }
}
