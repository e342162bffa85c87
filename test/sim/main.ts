/**
 * One run of the simulated ring:
 *
 *   npm run sim -- --seed 42 [--nodes 5] [--ops 2000] [--faults loss,kill] [--shrink SECONDS]
 *   npm run sim -- --scenario NAME
 *
 * Nodes, faults and durability come from the seed where they are not given. The last line of output is one JSON object
 * `{seed, nodes, ops, acked, faults, hash, violations, simulatedSeconds, wallSeconds}`. The same arguments give the same run. Before it stands,
 * where a promise was broken, which; and then the shortest command that breaks the same one, as far as it was found in `--shrink` seconds.
 *
 * A scenario is a transcript of test/scenarios/: it is printed as it goes now.
 *
 * Exit code 0 without violations, or where a scenario goes as its file says; 1 else; 2 for bad arguments.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { runScenario } from '../scenarios/scenario.ts'
import { profileOf } from './ring/profile.ts'
import { changeKinds, type FaultKind, faultKinds, losingKinds, RingSim, type RingSimResult } from './ring/ring-sim.ts'
import { kindOf, shrink, type Trial } from './ring/shrink.ts'

const known: readonly FaultKind[] = [...faultKinds, ...losingKinds, ...changeKinds]
const scenarios = join(import.meta.dirname, '..', 'scenarios')
const shrinkSecondsDefault = 30

function fail(message: string): never {
  process.stderr.write(`${message}\n`)
  process.exit(2)
}

function countOf(name: string, text: string | undefined, least: number, most: number): number | undefined {
  if (text === undefined) return undefined
  const count = Number(text)
  if (!Number.isInteger(count) || count < least || count > most)
    fail(`--${name} is an integer from ${least} to ${most}`)
  return count
}

function faultsOf(text: string | undefined): readonly FaultKind[] | undefined {
  if (text === undefined) return undefined
  return text
    .split(',')
    .filter((name) => name !== '' && name !== 'none')
    .map((name) => known.find((kind) => kind === name) ?? fail(`No fault "${name}"; there are ${known.join(', ')}`))
}

const options = {
  seed: { type: 'string' },
  nodes: { type: 'string' },
  ops: { type: 'string' },
  faults: { type: 'string' },
  shrink: { type: 'string' },
  scenario: { type: 'string' },
} as const
type Given = Partial<Record<keyof typeof options, string>>

function argumentsOf(): Given {
  try {
    return parseArgs({ options }).values
  } catch (error) {
    return fail((error as Error).message)
  }
}

function showScenario(name: string): number {
  const path = join(scenarios, `${basename(name, '.txt')}.txt`)
  const names = readdirSync(scenarios).filter((file) => file.endsWith('.txt'))
  if (!existsSync(path))
    fail(`No scenario "${name}"; there are ${names.map((file) => basename(file, '.txt')).join(', ')}`)
  const text = readFileSync(path, 'utf8')
  const now = runScenario(text)
  process.stdout.write(now)
  return now === text ? 0 : 1
}

function runOf(seed: string, trial: Trial): RingSimResult {
  const sim = new RingSim({ ...profileOf(seed, trial.operations), nodes: trial.nodes, faults: trial.faults })
  const result = sim.run()
  sim.dispose()
  return result
}

/** Tells the commit and the shortest command that repeats the violation. */
function explain(seed: string, trial: Trial, violation: string, seconds: number): void {
  const endMs = performance.now() + 1000 * seconds
  const fails = (smaller: Trial): boolean => {
    const [first] = runOf(seed, smaller).violations
    return first !== undefined && kindOf(first) === kindOf(violation)
  }
  const { operations, nodes, faults } = shrink(trial, fails, () => performance.now() > endMs)
  const names = faults.length === 0 ? 'none' : faults.join(',')
  process.stdout.write(`commit ${commitOf()}\n`)
  process.stdout.write(`npm run sim -- --seed ${seed} --nodes ${nodes} --ops ${operations} --faults ${names}\n`)
}

function commitOf(): string {
  try {
    return execFileSync('git', ['rev-parse', 'HEAD'], {
      cwd: import.meta.dirname,
      encoding: 'utf8',
      stdio: 'pipe',
    }).trim()
  } catch {
    return 'unknown'
  }
}

function main(given: Given): number {
  if (given.scenario !== undefined) return showScenario(given.scenario)
  const seed = given.seed ?? '1'
  const profile = profileOf(seed, countOf('ops', given.ops, 1, 1_000_000) ?? 2000)
  const trial = {
    operations: profile.operations,
    nodes: countOf('nodes', given.nodes, 1, 50) ?? profile.nodes,
    faults: faultsOf(given.faults) ?? profile.faults,
  }
  const seconds = countOf('shrink', given.shrink, 0, 86_400) ?? shrinkSecondsDefault
  const result = runOf(seed, trial)
  const [violation] = result.violations
  if (violation !== undefined) {
    process.stdout.write(`seed ${seed}: ${violation}\n`)
    explain(seed, trial, violation, seconds)
  }
  process.stdout.write(`${JSON.stringify(result)}\n`)
  return violation === undefined ? 0 : 1
}

process.exitCode = main(argumentsOf())
