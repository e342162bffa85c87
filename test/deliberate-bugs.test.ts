/**
 * The tests can fail: each bug of sim/deliberate-bugs.ts is made in a copy of the sources, and the test that it names must fail
 * there. That it passes without the bug is what the suite itself shows; that a copy is as good as the sources, one test of each file
 * shows that runs in a copy without a bug (in long tiers each test does). There are too many for every run of the suite: it makes a third of
 * them, drawn anew each time; SUNWISE_TEST_SEED draws the same third again, and long tiers make all.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { SeededRandom } from '../src/base/seeded-random.ts'
import { deliberateBugs as bugsOfOneNode, type DeliberateBug, type Patch } from './sim/deliberate-bugs.ts'
import { ringBugs } from './sim/ring/ring-bugs.ts'

const deliberateBugs: readonly DeliberateBug[] = [...bugsOfOneNode, ...ringBugs]
const root = join(import.meta.dirname, '..')
const outputCharactersMax = 100_000

/** How large a test is, and how long it may take. */
type Size = { readonly scale: number; readonly limitMs: number }

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const usual: Size = { scale: 1, limitMs: 240_000 }
/**
 * Property tests draw their cases, and few of them may show a bug: against one, they draw four times as many, and end with the
 * first that shows it. Some bugs make loops endless.
 */
const againstBug: Size = { scale: 4, limitMs: 120_000 }

const seed = Number(process.env['SUNWISE_TEST_SEED'] ?? randomInt(2 ** 31))

/** Every item in a long tier; else a third of them, as the seed draws it. */
function drawn<Item>(items: readonly Item[]): readonly Item[] {
  if (scale > 1) return items
  const random = new SeededRandom(seed)
  const left = [...items]
  return Array.from({ length: Math.ceil(items.length / 3) }, () => left.splice(random.below(left.length), 1)[0]!)
}

/** A copy of the sources and tests, with patches. */
function sandbox(t: TestContext, patches: readonly Patch[]): string {
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-bug-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  for (const name of ['src', 'test', 'package.json'])
    cpSync(join(root, name), join(directory, name), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(directory, 'node_modules'))
  for (const { file, from, to } of patches) {
    const path = join(directory, file)
    const text = readFileSync(path, 'utf8')
    assert.equal(text.split(from).length, 2, `${file} has this exactly once:\n${from}`)
    writeFileSync(
      path,
      text.replace(from, () => to),
    )
  }
  return directory
}

type Outcome = {
  readonly result: 'passed' | 'failed' | 'hung' | 'not run'
  readonly output: string
  readonly durationMs: number
}

/** Runs one test by its name in a process of its own. */
function runTest(directory: string, { file, name }: DeliberateBug['test'], { scale, limitMs }: Size): Promise<Outcome> {
  const { NODE_TEST_CONTEXT: _, ...inherited } = process.env
  const env = { ...inherited, SUNWISE_TEST_SCALE: String(scale) }
  const pattern = `^${name.replace(/[^A-Za-z0-9 ]/g, '\\$&')}$`
  const startMs = performance.now()
  return new Promise((resolve, reject) => {
    const child = spawn(
      process.execPath,
      // Without --test there is no process below this one, which a kill would leave behind.
      ['--test-reporter=tap', `--test-name-pattern=${pattern}`, join(directory, file)],
      { cwd: directory, env, stdio: ['ignore', 'pipe', 'pipe'], timeout: limitMs, killSignal: 'SIGKILL' },
    )
    let output = ''
    let line = ''
    let verdict: 'passed' | 'failed' | undefined
    const take = (text: string): void => {
      output = (output + text).slice(-outputCharactersMax)
    }
    // The verdict stands before what a failure has to say, which may be long.
    const readVerdict = (text: string): void => {
      const lines = (line + text).split('\n')
      line = lines.pop()!
      for (const whole of lines) {
        // TAP escapes these two in names.
        const said = whole.replace(/\\([\\#])/g, '$1')
        if (said.startsWith('ok ') && said.includes(` - ${name}`)) verdict ??= 'passed'
        if (said.startsWith('not ok ') && said.includes(` - ${name}`)) verdict ??= 'failed'
      }
    }
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      take(text)
      readVerdict(text)
    })
    child.stderr.setEncoding('utf8').on('data', take)
    child.on('error', reject)
    child.on('close', (_code, signal) => {
      const result = verdict ?? (signal === 'SIGKILL' ? 'hung' : 'not run')
      resolve({ result, output, durationMs: performance.now() - startMs })
    })
  })
}

/** Does things at most two at a time. */
async function twoAtATime<Item>(items: readonly Item[], work: (item: Item) => Promise<void>): Promise<void> {
  const left = [...items]
  const lane = async (): Promise<void> => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item)
  }
  await Promise.all([lane(), lane()])
}

test('Deliberate bugs: every patch changes the present source, and every test has its own name', () => {
  for (const { what, patches, test: catcher } of deliberateBugs) {
    assert.ok(patches.length > 0, what)
    for (const { file, from, to } of patches) {
      assert.notEqual(from, to)
      assert.equal(
        readFileSync(join(root, file), 'utf8').split(from).length,
        2,
        `${what}: ${file} has this once:\n${from}`,
      )
    }
    assert.match(catcher.file, /\.test\.ts$/)
  }
})

test('Deliberate bugs: each that is made is caught by its test, which passes without it', {
  concurrency: true,
}, async (t) => {
  const bugs = drawn(deliberateBugs)
  t.diagnostic(`seed ${seed}: ${bugs.length} of ${deliberateBugs.length} bugs`)
  const catchers = [...new Map(bugs.map(({ test: catcher }) => [catcher.name, catcher])).values()]
  const ofEachFile = [...new Map(catchers.map((catcher) => [catcher.file, catcher])).values()]
  const sound = sandbox(t, [])
  const jobs = [
    ...(scale > 1 ? catchers : ofEachFile).map((catcher) => async () => {
      await t.test(`without a bug: ${catcher.name}`, async () => {
        const { result, output } = await runTest(sound, catcher, usual)
        assert.equal(result, 'passed', output)
      })
    }),
    ...bugs.map((bug) => async () => {
      await t.test(`a node that ${bug.what}`, async (t) => {
        const { result, output, durationMs } = await runTest(sandbox(t, bug.patches), bug.test, againstBug)
        t.diagnostic(`${bug.test.name}: ${result} after ${Math.round(durationMs)} ms`)
        assert.ok(result === 'failed' || result === 'hung', `${result}: ${output}`)
        assert.doesNotMatch(output, /ERR_MODULE_NOT_FOUND|SyntaxError/, 'The copy with the bug runs')
      })
    }),
  ]
  await twoAtATime(jobs, (job) => job())
})
