/**
 * One run of the simulated ring:
 *
 *   npm run sim -- --seed 42 [--nodes 5] [--ops 2000] [--faults loss,kill]
 *
 * Nodes, faults and durability come from the seed where they are not given. The last line of output is one JSON object
 * `{seed, nodes, ops, acked, faults, hash, violations, simulatedSeconds, wallSeconds}`. Exit code 0 without violations, 1 with, 2 for bad
 * arguments. The same arguments give the same run.
 */
import { parseArgs } from 'node:util'
import { profileOf } from './ring/profile.ts'
import { type FaultKind, faultKinds, losingKinds, RingSim } from './ring/ring-sim.ts'

const known: readonly FaultKind[] = [...faultKinds, ...losingKinds]

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

function argumentsOf(): { seed: string; nodes?: string; ops?: string; faults?: string } {
  try {
    const options = {
      seed: { type: 'string' },
      nodes: { type: 'string' },
      ops: { type: 'string' },
      faults: { type: 'string' },
    } as const
    const { values } = parseArgs({ options })
    return { ...values, seed: values.seed ?? '1' }
  } catch (error) {
    return fail((error as Error).message)
  }
}

const given = argumentsOf()
const profile = profileOf(given.seed, countOf('ops', given.ops, 1, 1_000_000) ?? 2000)
const sim = new RingSim({
  ...profile,
  nodes: countOf('nodes', given.nodes, 1, 50) ?? profile.nodes,
  faults: faultsOf(given.faults) ?? profile.faults,
})
const result = sim.run()
for (const violation of result.violations) process.stdout.write(`${violation}\n`)
process.stdout.write(`${JSON.stringify(result)}\n`)
process.exitCode = result.violations.length === 0 ? 0 : 1
