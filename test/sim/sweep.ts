/**
 * Many seeds of the simulated ring, over all cores:
 *
 *   npm run sim:sweep -- [--seeds 10000] [--ops 2000] [--first 0] [--threads 2] [--minutes N]
 *
 * With `--minutes` it begins no seed after that time, and tells how many it has done. Prints each seed with a violation and how to run it alone, and at the end one line of JSON, which also goes to evidence/runs.jsonl.
 * Exit code 0 without violations, 1 with, 2 for bad arguments.
 */
import { appendFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { sourceUnderTest } from '../source-under-test.ts'
import { profileOf } from './ring/profile.ts'
import { RingSim, type RingSimResult } from './ring/ring-sim.ts'

const project = join(import.meta.dirname, '..', '..')
const seedsPerPortion = 5
const violationsMax = 20

type Portion = { readonly first: number; readonly count: number }

/** What a run threw beside its violations. */
type Thrown = { readonly seed: string; readonly thrown: string }

/** A thread runs portions of seeds until there are no more. */
function work(operations: number): void {
  parentPort!.on('message', ({ first, count }: Portion) => {
    for (let seed = first; seed < first + count; seed++) {
      try {
        const sim = new RingSim(profileOf(String(seed), operations))
        parentPort!.postMessage(sim.run())
        sim.dispose()
      } catch (error) {
        // Not a broken promise but a broken simulator: all the more it must be known which seed it was.
        parentPort!.postMessage({
          seed: String(seed),
          thrown: String((error as Error).stack ?? error),
        } satisfies Thrown)
      }
    }
    parentPort!.postMessage('done')
  })
}

type Sums = { seeds: number; ops: number; acked: number; faults: Record<string, number>; simulatedSeconds: number }

async function sweep(
  seeds: number,
  operations: number,
  first: number,
  threads: number,
  minutes: number,
): Promise<number> {
  // Asked before the run, since the tree may move on meanwhile.
  const source = sourceUnderTest()
  const beganMs = performance.now()
  const sums: Sums = { seeds: 0, ops: 0, acked: 0, faults: {}, simulatedSeconds: 0 }
  const failed: string[] = []
  let next = first
  const told = (seed: string, what: string): void => {
    failed.push(seed)
    process.stdout.write(`seed ${seed}: ${what}\n  npm run sim -- --seed ${seed} --ops ${operations}\n`)
  }
  const take = (result: RingSimResult | Thrown): void => {
    sums.seeds++
    if ('thrown' in result) return told(result.seed, result.thrown)
    sums.ops += result.ops
    sums.acked += result.acked
    sums.simulatedSeconds += result.simulatedSeconds
    for (const [kind, count] of Object.entries(result.faults)) sums.faults[kind] = (sums.faults[kind] ?? 0) + count
    if (result.violations.length > 0) told(result.seed, result.violations[0]!)
    if (sums.seeds % 100 === 0 || sums.seeds === seeds) showProgress(sums, seeds, failed.length, beganMs)
  }
  const runThread = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL(import.meta.url), { workerData: { operations } })
      let given = ''
      const give = (): void => {
        const isTimeUp = performance.now() - beganMs >= minutes * 60_000
        if (isTimeUp || next >= first + seeds || failed.length >= violationsMax) {
          void worker.terminate().then(() => resolve())
          return
        }
        const count = Math.min(seedsPerPortion, first + seeds - next)
        given = `${next} to ${next + count - 1}`
        worker.postMessage({ first: next, count } satisfies Portion)
        next += count
      }
      worker.on('message', (message: RingSimResult | Thrown | 'done') => (message === 'done' ? give() : take(message)))
      worker.on('error', (error) => reject(new Error(`A thread ended in the seeds ${given}`, { cause: error })))
      give()
    })
  await Promise.all(Array.from({ length: threads }, runThread))
  const seconds = (performance.now() - beganMs) / 1000
  const facts = {
    run: 'ring-sweep',
    at: new Date().toISOString(),
    ...source,
    ...sums,
    simulatedSeconds: Math.round(sums.simulatedSeconds),
    firstSeed: first,
    operationsPerSeed: operations,
    failures: failed.length,
    seconds: Math.round(seconds),
    seedsPerMinute: Math.round((sums.seeds / seconds) * 60),
    operationsPerSecondAndThread: Math.round(sums.ops / seconds / threads),
  }
  appendFileSync(join(project, 'evidence', 'runs.jsonl'), `${JSON.stringify(facts)}\n`)
  process.stdout.write(`${JSON.stringify(facts)}\n`)
  return failed.length === 0 ? 0 : 1
}

function showProgress({ seeds, ops }: Sums, all: number, failures: number, beganMs: number): void {
  const width = 30
  const full = Math.round((seeds / all) * width)
  const rate = Math.round((ops / (performance.now() - beganMs)) * 1000)
  const line = `[${'#'.repeat(full)}${'.'.repeat(width - full)}] ${seeds} of ${all} seeds, ${rate} operations/s, ${failures} failed`
  process.stderr.write(process.stderr.isTTY ? `\r${line}${seeds === all ? '\n' : ''}` : `${line}\n`)
}

function numberOf(text: string | undefined, fallback: number, least: number): number {
  const value = text === undefined ? fallback : Number(text)
  if (Number.isInteger(value) && value >= least) return value
  process.stderr.write('--seeds, --ops, --first, --threads and --minutes are whole numbers\n')
  process.exit(2)
}

if (isMainThread) {
  const names = ['seeds', 'ops', 'first', 'threads', 'minutes'] as const
  const options = Object.fromEntries(names.map((name) => [name, { type: 'string' } as const]))
  const values: Partial<Record<string, string | boolean>> = parseArgs({ options }).values
  const text = (name: (typeof names)[number]): string | undefined => values[name]?.toString()
  process.exitCode = await sweep(
    numberOf(text('seeds'), 10_000, 1),
    numberOf(text('ops'), 2000, 1),
    numberOf(text('first'), 0, 0),
    numberOf(text('threads'), availableParallelism(), 1),
    text('minutes') === undefined ? Number.POSITIVE_INFINITY : numberOf(text('minutes'), 1, 1),
  )
} else work((workerData as { operations: number }).operations)
