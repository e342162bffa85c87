/**
 * The promise that counts most, under real kills: SIGKILL at random instants under write load, and during the start that
 * follows; then everything is read back. Nothing acknowledged is lost, nothing deleted comes back, and what was shown once
 * stays, in every durability mode and over changes of the number of shards.
 *
 * SIGKILL takes the process, not the page cache: power cuts are the simulator's matter. A long run (SUNWISE_TEST_SCALE above 1)
 * appends its facts to evidence/runs.jsonl.
 */
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { sourceUnderTest } from '../source-under-test.ts'
import { bulky, readBack, startLoad } from './load.ts'
import { ServerProcess } from './server-process.ts'
import { Witness } from './witness.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const kills = Math.ceil(6 * scale)
const durabilities = ['sync', 'interval', 'os'] as const
const project = join(import.meta.dirname, '..', '..')

/** Writes that each life of a server acknowledges at least, however slow the machine is. */
const writesOfLifeMin = 60

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Waits for what the load on a server brings about; the deadline of the test bounds it. */
async function until(server: ServerProcess, holds: () => boolean): Promise<void> {
  while (!holds()) {
    assert.ok(!server.isGone, `The server ended under load: ${server.said}`)
    await wait(5)
  }
}

const tablesIn = (directory: string): string[] => readdirSync(join(directory, 'tables'))

function appendToLedger(facts: object): void {
  mkdirSync(join(project, 'evidence'), { recursive: true })
  const line = JSON.stringify({ run: 'kill-loop', at: new Date().toISOString(), ...facts })
  appendFileSync(join(project, 'evidence', 'runs.jsonl'), `${line}\n`)
}

test(`Server: ${kills} kills under load lose nothing acknowledged and revive nothing deleted`, {
  timeout: 400_000 * Math.max(1, scale),
}, async (context) => {
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-kill-'))
  const witness = new Witness()
  const source = scale > 1 ? sourceUnderTest() : undefined
  const started = performance.now()
  const wrong: string[] = []
  let killsDuringStart = 0
  try {
    for (let kill = 0; kill < kills; kill++) {
      const shards = String(1 + (Math.floor(kill / 2) % 2))
      const flags = ['--durability', durabilities[kill % 3]!, '--shards', shards, '--memory', '140mb']
      if (kill % 3 === 2) {
        await using hasty = ServerProcess.spawn(directory, { flags })
        await wait(randomInt(1000))
        await hasty.kill()
        killsDuringStart++
      }
      await using server = await ServerProcess.start(directory, { flags })
      wrong.push(...(await readBack(server, witness)))
      assert.deepEqual(wrong, [], `After kill ${kill}; the directory ${directory} is kept`)
      const load = startLoad(server, witness, 8)
      const enough = witness.acknowledgedWrites + writesOfLifeMin
      await until(server, () => witness.acknowledgedWrites >= enough)
      await wait(randomInt(500))
      await server.kill()
      await load.stop()
      for (const code of load.refusals.keys())
        assert.equal(code, 'OVERLOADED', 'A healthy server refuses only for a moment')
    }
    await using server = await ServerProcess.start(directory)
    wrong.push(...(await readBack(server, witness)))
    assert.deepEqual(wrong, [], `After the last kill; the directory ${directory} is kept`)
    assert.equal((await server.stop()).code, 0)
    // A clean stop loses nothing either.
    await using again = await ServerProcess.start(directory)
    assert.deepEqual(await readBack(again, witness), [])
    await again.stop()
  } finally {
    const seconds = Math.round((performance.now() - started) / 1000)
    const { acknowledgedWrites, unknownWrites } = witness
    const facts = { kills, killsDuringStart, acknowledgedWrites, unknownWrites, failures: wrong.length, seconds }
    context.diagnostic(JSON.stringify(facts))
    if (source !== undefined) appendToLedger({ ...source, ...facts })
  }
  assert.ok(
    witness.acknowledgedWrites >= writesOfLifeMin * kills,
    `Only ${witness.acknowledgedWrites} writes prove little`,
  )
  assert.ok(witness.unknownWrites > 0, 'No kill met a write under way')
  rmSync(directory, { recursive: true, force: true })
})

test(`Server: ${kills} kills while data goes to tables, and tables are merged, lose nothing and revive nothing`, {
  timeout: 400_000 * Math.max(1, scale),
}, async (context) => {
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-tables-'))
  const witness = new Witness()
  const source = scale > 1 ? sourceUnderTest() : undefined
  const started = performance.now()
  const wrong: string[] = []
  const tables = new Set<string>()
  const flagsOf = (kill: number): string[] => {
    const shards = 1 + (Math.floor(kill / 3) % 2)
    return ['--durability', durabilities[kill % 3]!, '--shards', String(shards), '--memory', `${70 * shards}mb`]
  }
  try {
    for (let kill = 0; kill < kills; kill++) {
      const flags = flagsOf(kill)
      await using server = await ServerProcess.start(directory, { flags })
      wrong.push(...(await readBack(server, witness)))
      assert.deepEqual(wrong, [], `After kill ${kill}; the directory ${directory} is kept`)
      const load = startLoad(server, witness, 8, '', bulky)
      // Half of the kills come soon after a table was made, the others at any time.
      const isNew = (name: string): boolean => !tables.has(name)
      if (kill % 2 === 1) await until(server, () => tablesIn(directory).some(isNew))
      await wait(500 + randomInt(1000))
      await server.kill()
      await load.stop()
      for (const code of load.refusals.keys()) assert.match(code, /^(OVERLOADED|TIMEOUT)$/)
      for (const name of tablesIn(directory)) tables.add(name)
    }
    await using server = await ServerProcess.start(directory, { flags: flagsOf(0) })
    wrong.push(...(await readBack(server, witness)))
    assert.deepEqual(wrong, [], `After the last kill; the directory ${directory} is kept`)
    assert.equal((await server.stop()).code, 0)
  } finally {
    const seconds = Math.round((performance.now() - started) / 1000)
    const { acknowledgedWrites, unknownWrites } = witness
    const facts = { kills, tables: tables.size, acknowledgedWrites, unknownWrites, failures: wrong.length, seconds }
    context.diagnostic(JSON.stringify(facts))
    if (source !== undefined) appendToLedger({ ...source, ...facts })
  }
  assert.ok(tables.size >= kills / 2, `Only ${tables.size} tables were met`)
  rmSync(directory, { recursive: true, force: true })
})
