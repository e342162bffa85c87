import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

function run(...words: string[]): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
  return spawnSync(process.execPath, [join(import.meta.dirname, 'main.ts'), ...words], { encoding: 'utf8' })
}

test('npm run sim: the last line is what came of the run, and the same arguments give the same', () => {
  const words = ['--seed', '7', '--nodes', '4', '--ops', '60', '--faults', 'loss,kill,members']
  const [first, second] = [run(...words), run(...words)]
  assert.equal(first.status, 0, first.stdout + first.stderr)
  const result = JSON.parse(first.stdout.trim().split('\n').at(-1)!)
  assert.deepEqual(Object.keys(result), [
    'seed',
    'nodes',
    'ops',
    'acked',
    'faults',
    'hash',
    'violations',
    'simulatedSeconds',
    'wallSeconds',
  ])
  assert.deepEqual([result.seed, result.nodes, result.ops, result.violations], ['7', 4, 60, []])
  assert.equal(JSON.parse(second.stdout.trim().split('\n').at(-1)!).hash, result.hash)
})

test('npm run sim: a scenario is printed as it goes, and what nobody knows is refused with what there is', () => {
  const { status, stdout } = run('--scenario', 'siblings')
  assert.equal(status, 0)
  assert.equal(stdout, readFileSync(join(import.meta.dirname, '..', 'scenarios', 'siblings.txt'), 'utf8'))
  const unknown = run('--scenario', 'nothing')
  assert.equal(unknown.status, 2)
  assert.match(unknown.stderr, /siblings/)
  for (const words of [['--faults', 'fire'], ['--ops', '0'], ['--nodes', 'x'], ['--what']])
    assert.equal(run(...words).status, 2)
})
