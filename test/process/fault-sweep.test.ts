/**
 * Every call of the file system that can fail, failing once: a short life of a server (start, writes over several log segments,
 * deletes, stop) is counted in calls, and then repeated with the n-th call failing, for each n. Whatever happens, the process
 * does not vanish without a word, nothing is acknowledged that is not there, and the next start finds everything.
 *
 * A run of the default size takes some n by chance; SUNWISE_TEST_SCALE of 20 and more takes them all.
 */
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { faultEnvironment } from './faults.ts'
import { noteReply, readBack } from './load.ts'
import { type Ending, pathOf, ServerProcess } from './server-process.ts'
import { Witness } from './witness.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const seed = Number(process.env['SUNWISE_TEST_SEED'] ?? Date.now() % 1_000_000)
const runsOfScenario = Math.ceil(4 * scale)
const allFrom = 20

const root = mkdtempSync(join(tmpdir(), 'sunwise-sweep-'))
after(() => rmSync(root, { recursive: true, force: true }))

type Scenario = {
  readonly name: string
  readonly flags: readonly string[]
  /** Directory to start from; a fresh one if undefined. */
  readonly from: string | undefined
  /** What `from` holds. */
  readonly witness: Witness
}

/** Writes over three log segments; ends early when the server is gone. */
async function work(server: ServerProcess, witness: Witness): Promise<void> {
  const refusals = new Map<string, number>()
  const write = async (key: string, value: string | undefined, query = ''): Promise<void> => {
    if (server.isGone) return
    try {
      const reply = await server.ask(value === undefined ? 'DELETE' : 'PUT', pathOf(key) + query, value)
      noteReply(witness, key, value, reply, refusals)
    } catch {
      witness.unknown(key, value)
    }
  }
  for (let round = 0; round < 6; round++) {
    const writes: Promise<void>[] = []
    for (let key = 0; key < 8; key++) {
      const value = round % 3 === 2 && key < 3 ? undefined : `round ${round} of key ${key}`
      writes.push(write(`key ${key}`, value, key % 2 === 0 ? '' : '?durability=os'))
    }
    for (let key = 0; key < 4; key++) writes.push(write(`large ${key}`, `${round} `.padEnd(900_000, 'x')))
    await Promise.all(writes)
  }
}

/** A process that ended by itself has said why, with a code, and was not ended by a signal. */
function checkEnding(ending: Ending, what: string): void {
  assert.equal(ending.signal, null, `${what}: ended by ${ending.signal}: ${ending.said}`)
  if (ending.code === 0) return
  const failure = /^\{.*"code":"([A-Z_]+)".*\}$/m.exec(ending.said)?.[1]
  assert.ok(failure !== undefined, `${what}: ended with ${ending.code} and no coded message: ${ending.said}`)
  assert.notEqual(failure, 'INTERNAL', `${what}: ${ending.said}`)
}

async function lifeWithFault(scenario: Scenario, nth: number, code: string): Promise<string> {
  const what = `${scenario.name}, call ${nth} failing with ${code} (seed ${seed})`
  const data = join(root, 'data')
  rmSync(data, { recursive: true, force: true })
  if (scenario.from !== undefined) cpSync(scenario.from, data, { recursive: true })
  const witness = scenario.witness.copy()
  const env = faultEnvironment({ data, failNth: nth, code })
  await using server = ServerProcess.spawn(data, { flags: scenario.flags, env })
  if (await server.isReady) {
    await work(server, witness)
    if (!server.isGone) await server.whenServing
    if (!server.isGone) assert.deepEqual(await readBack(server, witness), [], `${what}, still running: ${server.said}`)
    server.signal('SIGTERM')
  }
  const ending = await server.exited
  checkEnding(ending, what)
  await using again = await ServerProcess.start(data, { flags: scenario.flags }).catch((error: unknown) =>
    assert.fail(`${what}: ${String(error)}; it had said: ${ending.said}`),
  )
  assert.deepEqual(await readBack(again, witness), [], `${what}: ${ending.said}`)
  assert.equal((await again.ask('PUT', pathOf('afterwards'), 'value')).status, 204, what)
  return /fault hook: (\w+ of \S+ fails)/.exec(ending.said)?.[1] ?? 'not reached'
}

async function callsOf(scenario: Scenario): Promise<number> {
  const data = join(root, 'count')
  rmSync(data, { recursive: true, force: true })
  if (scenario.from !== undefined) cpSync(scenario.from, data, { recursive: true })
  await using server = await ServerProcess.start(data, { flags: scenario.flags, env: faultEnvironment({ data }) })
  const witness = scenario.witness.copy()
  await work(server, witness)
  const ending = await server.stop()
  assert.equal(ending.code, 0, ending.said)
  return Number(/fault hook: (\d+) calls/.exec(ending.said)?.[1])
}

/** A directory with data of one shard, for scenarios that begin with some. */
async function prepared(): Promise<{ readonly from: string; readonly witness: Witness }> {
  const from = join(root, 'prepared')
  const witness = new Witness()
  await using server = await ServerProcess.start(from, { flags: ['--shards', '1', '--memory', '68mb'] })
  await work(server, witness)
  assert.equal((await server.stop()).code, 0)
  return { from, witness }
}

test('Any call of the file system may fail once: no acknowledged write is lost and no process ends in silence', {
  timeout: 240_000 * Math.max(1, scale),
}, async (context) => {
  const random = new SeededRandom(seed)
  const { from, witness } = await prepared()
  const scenarios: Scenario[] = [
    {
      name: 'A first start',
      flags: ['--shards', '1', '--memory', '68mb'],
      from: undefined,
      witness: new Witness(),
    },
    { name: 'A start with another number of shards', flags: ['--shards', '2', '--memory', '160mb'], from, witness },
  ]
  const sites = new Map<string, number>()
  for (const scenario of scenarios) {
    const calls = await callsOf(scenario)
    assert.ok(calls > 30, `Only ${calls} calls were counted`)
    const all = Array.from({ length: calls }, (_, index) => index + 1)
    const chosen = scale >= allFrom ? all : random.shuffle(all).slice(0, runsOfScenario)
    for (const [index, nth] of chosen.entries()) {
      const site = await lifeWithFault(scenario, nth, index % 2 === 0 ? 'EIO' : 'ENOSPC')
      sites.set(site, (sites.get(site) ?? 0) + 1)
    }
  }
  context.diagnostic(`seed ${seed}: ${JSON.stringify(Object.fromEntries(sites))}`)
})
