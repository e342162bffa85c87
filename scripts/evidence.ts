/** What the long runs add up to that noted their facts in evidence/runs.jsonl, as a table for the README. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** One line of evidence/runs.jsonl. */
export type EvidenceRun = {
  readonly run: string
  readonly commit: string
  readonly failures: number
  readonly [fact: string]: unknown
}

export function readEvidence(root: string): readonly EvidenceRun[] {
  const lines = readFileSync(join(root, 'evidence', 'runs.jsonl'), 'utf8')
    .split('\n')
    .filter(Boolean)
  return lines.map((line) => JSON.parse(line) as EvidenceRun)
}

type Kind = { readonly run: string; readonly what: string; readonly text: (runs: readonly EvidenceRun[]) => string }

const kinds: readonly Kind[] = [
  {
    run: 'kill-loop',
    what: 'kills of a server under load, everything read back (`test/process/kill-loop.test.ts`)',
    text: (runs) =>
      `${sum(runs, 'kills')} kills, ${sum(runs, 'killsDuringStart')} of them during a start, ${sum(runs, 'acknowledgedWrites')} acknowledged writes`,
  },
  {
    run: 'ring-sweep',
    what: 'seeds of the simulated ring, under faults (`npm run sim:sweep`)',
    text: (runs) =>
      `${sum(runs, 'seeds')} seeds, ${sum(runs, 'ops')} operations, ${faultsOf(runs)} faults; the latest at ${thousands(latest(runs)['operationsPerSecondAndThread'])} operations a second and thread, ${thousands(latest(runs)['seedsPerMinute'])} seeds a minute`,
  },
  {
    run: 'large',
    what: 'far more data than memory: loaded, read, backed up under load, restarted, restored, compared (`npm run soak:large`)',
    text: (runs) => {
      const last = latest(runs)
      return `the latest: ${thousands(last['records'])} records, ${mebibytes(last['memoryBytes'])} of memory, ${thousands(last['loadPerSecond'])} puts and ${thousands(last['readsPerSecond'])} gets a second, ${String(last['readsCalls'])} reads of files a get, at most ${mebibytes(last['servingBytesMost'])} resident while it loaded and read, ${mebibytes(last['storeBytesMost'])} while it backed up, beside the heap of the application, a restart in ${thousands(last['restartMs'])} ms`
    },
  },
  {
    run: 'soak',
    what: 'ten times as much data as memory, through kills, stops and numbers of shards (`npm run soak`)',
    text: (runs) =>
      `${sum(runs, 'lives')} lives, ${sum(runs, 'kills')} of them ended by a kill, ${sum(runs, 'acknowledgedWrites')} acknowledged writes`,
  },
]

/** A row for each kind of run that there was. */
export function evidenceTable(runs: readonly EvidenceRun[]): string {
  const lines = kinds.flatMap(({ run, what, text }) => {
    const those = runs.filter((each) => each.run === run)
    if (those.length === 0) return []
    return [`| ${what} | ${text(those)} | ${sum(those, 'failures')} | ${latest(those).commit.slice(0, 7)} |`]
  })
  return [
    'Long runs, as they noted themselves in [evidence/runs.jsonl](evidence/runs.jsonl):',
    '',
    '| What | How much | Failures | Latest commit |',
    '| --- | --- | --- | --- |',
    ...lines,
  ].join('\n')
}

function latest(runs: readonly EvidenceRun[]): EvidenceRun {
  return runs.at(-1)!
}

function sum(runs: readonly EvidenceRun[], name: string): string {
  return runs.reduce((total, run) => total + Number(run[name] ?? 0), 0).toLocaleString('en')
}

function faultsOf(runs: readonly EvidenceRun[]): string {
  const counts = runs.flatMap((run) => Object.values(run['faults'] as Readonly<Record<string, number>>))
  return counts.reduce((total, count) => total + count, 0).toLocaleString('en')
}

function thousands(value: unknown): string {
  return Number(value).toLocaleString('en')
}

function mebibytes(value: unknown): string {
  return `${thousands(Math.round(Number(value) / 2 ** 20))} MiB`
}
