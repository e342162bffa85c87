/**
 * The rules of the house, executed: who may import whom, no circles, and no clock, timer, randomness, promise or `node:`
 * import below `host/`. These are correctness rules: a leak ends the simulator's determinism.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'
import { test } from 'node:test'

const root = join(import.meta.dirname, '..', 'src')
const files = (readdirSync(root, { recursive: true }) as string[]).filter((name) => name.endsWith('.ts')).sort()

/** Floors from low to high; an entry may import only from lower or equal rows that it names. */
const mayImport: Record<string, readonly string[]> = {
  base: ['base'],
  'env.ts': ['base'],
  'config.ts': ['base'],
  versions: ['base', 'versions'],
  storage: ['base', 'versions', 'env.ts', 'config.ts', 'storage'],
  cluster: ['base', 'versions', 'env.ts', 'config.ts', 'cluster'],
  shard: ['base', 'versions', 'env.ts', 'config.ts', 'storage', 'cluster', 'shard'],
  replication: ['base', 'versions', 'env.ts', 'config.ts', 'storage', 'cluster', 'shard', 'replication'],
  'node.ts': ['base', 'versions', 'env.ts', 'config.ts', 'storage', 'cluster', 'shard', 'replication', 'node.ts'],
}
const top = (path: string): string => path.split('/')[0] ?? path
const isPure = (path: string): boolean => top(path) in mayImport

/** Comments and string contents removed, so that words in prose do not count. */
function codeOf(text: string): string {
  return text
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/(^|[^:'"`])\/\/.*$/gm, '$1')
    .replace(/'(?:[^'\\\n]|\\.)*'/g, "''")
}

function importsOf(path: string): string[] {
  const text = readFileSync(join(root, path), 'utf8')
  return [
    ...text.matchAll(/(?:import|export)\s[^'"]*?from\s+'([^']+)'|import\s+'([^']+)'|import\(\s*'([^']+)'\s*\)/g),
  ].map((match) => match[1] ?? match[2] ?? match[3] ?? '')
}

test('Floors: every import points down the floors of the house', () => {
  assert.ok(files.length > 5)
  const wrong: string[] = []
  for (const file of files) {
    const allowed = mayImport[top(file)]
    if (allowed === undefined) continue
    for (const target of importsOf(file)) {
      const resolved = target.startsWith('.') ? normalize(join(dirname(file), target)) : target
      if (!target.startsWith('.') || !allowed.includes(top(resolved))) wrong.push(`${file} imports ${target}`)
    }
  }
  assert.deepEqual(wrong, [])
})

test('Floors: there are no import circles', () => {
  const visiting: string[] = []
  const done = new Set<string>()
  const visit = (file: string): void => {
    if (done.has(file)) return
    assert.ok(!visiting.includes(file), `Import circle: ${[...visiting, file].join(' -> ')}`)
    visiting.push(file)
    for (const target of importsOf(file)) {
      if (target.startsWith('.')) visit(normalize(join(dirname(file), target)))
    }
    visiting.pop()
    done.add(file)
  }
  for (const file of files) visit(file)
})

test('Floors: no clock, timer, randomness or promise below host/', () => {
  const banned: [RegExp, string][] = [
    [/\bDate\b/, 'the wall clock'],
    [/\bperformance\b/, 'the monotonic clock'],
    [/\bMath\.random\b/, 'randomness'],
    [/\bcrypto\b/, 'randomness'],
    [/\bset(Timeout|Interval|Immediate)\b/, 'a timer'],
    [/\bqueueMicrotask\b|\bnextTick\b/, 'a microtask'],
    [/\bPromise\b|\bawait\b|\basync\b/, 'a promise'],
    [/\bprocess\b/, 'the process'],
    [/\bBuffer\b/, 'Buffer, which stays in host/'],
    [/\bconsole\b/, 'the console'],
    [/\bAtomics\.wait(Async)?\b/, 'blocking'],
  ]
  const wrong: string[] = []
  for (const file of files.filter(isPure)) {
    const code = codeOf(readFileSync(join(root, file), 'utf8'))
    for (const [pattern, what] of banned) if (pattern.test(code)) wrong.push(`${file} uses ${what}`)
  }
  assert.deepEqual(wrong, [])
})

test('Floors: only host/ and entry files import node: modules and packages', () => {
  const entries = ['index.ts', 'main.ts', 'cli', 'client', 'host']
  const wrong = files
    .filter((file) => !entries.includes(top(file)))
    .flatMap((file) =>
      importsOf(file)
        .filter((target) => !target.startsWith('.'))
        .map((target) => `${file}: ${target}`),
    )
  assert.deepEqual(wrong, [])
})

test('Floors: no drawers, barrels or default exports', () => {
  for (const file of files) {
    assert.doesNotMatch(relative('.', file), /(^|\/)(utils?|helpers?|common|types|constants)\.ts$/)
    const text = codeOf(readFileSync(join(root, file), 'utf8'))
    assert.doesNotMatch(text, /export default|export \* from/, file)
  }
})
