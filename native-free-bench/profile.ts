/**
 * Where a row's time goes in Sunwise's own threads, by source file.
 *
 *     node native-free-bench/profile.ts [ROW] [--paste]
 *
 * Runs one round of the row (E4 if none is named) with V8's sampling profiler in every thread, and adds up each thread's own time by the
 * file whose code was running. Prints a table; `--paste` puts it between its markers in README.md as well. Threads of peers are left out:
 * a thread counts as Sunwise's where it ran code of `src/`.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { machineNow } from './machine.ts'
import { pasted } from './report.ts'

/** What V8 writes, as far as it is used here: nodes of the call tree, one sample of a node after another, microseconds between them. */
export type Profile = {
  readonly nodes: readonly {
    readonly id: number
    readonly callFrame: { readonly functionName: string; readonly url: string }
  }[]
  readonly samples: readonly number[]
  readonly timeDeltas: readonly number[]
}

/** Own time of one thread, microseconds by place; `(idle)` is not in it. */
export type ThreadTimes = { readonly kind: string; readonly microsByPlace: ReadonlyMap<string, number> }

const rowsMax = 8
const idle = '(idle)'
const kinds = [
  ['merging and flushing', 'src/host/job-worker.ts'],
  ['shard', 'src/shard/shard.ts'],
  ['node', 'src/host/node-host.ts'],
  ['application', 'src/index.ts'],
] as const

/** A thread's own times, or undefined where it is none of Sunwise's. */
export function threadTimes({ nodes, samples, timeDeltas }: Profile): ThreadTimes | undefined {
  const places = new Map(nodes.map(({ id, callFrame }) => [id, placeOf(callFrame)]))
  const microsByPlace = new Map<string, number>()
  for (const [index, id] of samples.entries()) {
    const place = places.get(id)
    if (place === undefined || place === idle) continue
    microsByPlace.set(place, (microsByPlace.get(place) ?? 0) + Math.max(0, timeDeltas[index] ?? 0))
  }
  const kind = kinds.find(([, file]) => [...places.values()].includes(file))?.[0]
  return kind === undefined ? undefined : { kind, microsByPlace }
}

/** The source file that a frame is in; Node's own and V8's by their names. */
function placeOf({ functionName, url }: { readonly functionName: string; readonly url: string }): string {
  const at = url.lastIndexOf('/src/')
  // Threads of the pool wait in piscina's code for work, and in the pace of their jobs for others to go first.
  if (url.includes('/node_modules/piscina/')) return idle
  if (url.endsWith('/src/host/job-worker.ts') && functionName === 'pace') return idle
  if (url.startsWith('file:') && at >= 0) return url.slice(at + 1)
  if (url.startsWith('node:')) return `Node (${url.split('/')[0]})`
  if (url !== '') return 'other code'
  if (functionName === '(garbage collector)') return 'collecting garbage'
  if (functionName === '(program)') return 'system calls and V8'
  return functionName.startsWith('(') ? functionName : 'native functions'
}

/** One table: for each kind of thread its busiest places, in percent of that kind's own time. */
export function profileTable(row: string, threads: readonly ThreadTimes[]): string {
  const lines = kinds.flatMap(([kind]) => {
    const ofKind = threads.filter((thread) => thread.kind === kind)
    const sums = new Map<string, number>()
    for (const { microsByPlace } of ofKind) {
      for (const [place, micros] of microsByPlace) sums.set(place, (sums.get(place) ?? 0) + micros)
    }
    const all = [...sums.values()].reduce((total, micros) => total + micros, 0)
    if (all === 0) return []
    const first = [...sums].sort((left, right) => right[1] - left[1]).slice(0, rowsMax)
    const shares = first.map(([place, micros]) => `${place} ${Math.round((100 * micros) / all)} %`)
    return [`| ${kind} | ${(all / 1e6).toFixed(1)} s | ${shares.join(', ')} |`]
  })
  return [`Row ${row}:`, '', '| Threads | Busy | Where |', '| --- | --- | --- |', ...lines].join('\n')
}

function main(): void {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { paste: { type: 'boolean', default: false } },
  })
  const [row = 'E4'] = positionals
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-profile-'))
  try {
    const flags = ['--cpu-prof', `--cpu-prof-dir=${directory}`]
    const bench = join(import.meta.dirname, 'main.ts')
    execFileSync(process.execPath, [...flags, bench, row, '--rounds', '1', '--out', join(directory, 'report')], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    const threads = readdirSync(directory)
      .filter((name) => name.endsWith('.cpuprofile'))
      .map((name) => threadTimes(JSON.parse(readFileSync(join(directory, name), 'utf8')) as Profile))
      .filter((thread) => thread !== undefined)
    const { processor, cores, node, commit, startedAt } = machineNow()
    const machine = `${cores} x ${processor}, Node ${node}, commit ${commit}, ${startedAt.slice(0, 10)}. ${profileTable(row, threads)}`
    process.stdout.write(`${machine}\n`)
    if (!values.paste) return
    const readme = join(import.meta.dirname, '..', 'README.md')
    writeFileSync(readme, pasted(readFileSync(readme, 'utf8'), machine, 'profile'))
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main()
