import assert from 'node:assert/strict'
import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { deepCheck } from '../../src/cli/deep-check.ts'
import { createBackup } from '../../src/host/backup-source.ts'
import { checkDirectory } from '../../src/host/directory-check.ts'
import { open } from '../../src/index.ts'

const MiB = 1024 * 1024
const root = mkdtempSync(join(tmpdir(), 'sunwise-check-'))
const keys = 16_000
const nothing = (): void => {}

after(() => rmSync(root, { recursive: true, force: true }))

/** A data directory with tables and a log. */
async function makeData(directory: string): Promise<void> {
  await using store = await open({ dir: directory, shards: 1, memoryBytes: 72 * MiB, durability: 'os' })
  for (let first = 0; first < keys; first += 250) {
    const values = Array.from({ length: 250 }, (_, index) => first + index)
    await Promise.all(values.map((key) => store.put(`key ${key}`, `${key}/${'x'.repeat(5000)}`)))
  }
  // While a node runs, its tables are read all the same.
  const { tables, records, logs, findings } = await checkDirectory(directory, nothing)
  assert.ok(tables > 0 && records > 0)
  assert.equal(logs, undefined)
  assert.deepEqual(findings, [])
}

test('checkDirectory() and doctor name every damaged file, and find nothing where nothing is wrong', async () => {
  const data = join(root, 'data')
  await makeData(data)
  const progress: number[] = []
  const whole = await checkDirectory(data, ({ bytes, bytesTotal }) => progress.push(bytes / bytesTotal))
  assert.deepEqual(whole.findings, [])
  assert.equal(progress.at(-1), 1)
  const inLogs = whole.logs!.reduce((sum, { records }) => sum + records, 0)
  assert.ok(whole.records + inLogs >= keys)
  assert.ok((await deepCheck(data)).every(({ state }) => state === 'ok'))

  const [first, second, third] = readdirSync(join(data, 'tables'))
  assert.ok(third !== undefined)
  const damaged = join(root, 'damaged')
  cpSync(data, damaged, { recursive: true, filter: (path) => !/\/(lock\.|control)/.test(path) })
  const tables = join(damaged, 'tables')
  const bytes = readFileSync(join(tables, first!))
  bytes[40_000] = bytes[40_000]! ^ 1
  writeFileSync(join(tables, first!), bytes)
  truncateSync(join(tables, second!), 5000)
  unlinkSync(join(tables, third))
  const { findings } = await checkDirectory(damaged, nothing)
  assert.equal(findings.length, 3)
  for (const [name, what] of [
    [first, /block \d+ at byte \d+ is damaged/],
    [second, /its end is damaged or missing/],
    [third, /ENOENT/],
  ] as const) {
    assert.match(findings.find((line) => line.startsWith(`tables/${name}: `)) ?? '', what)
  }
  // A glance sees what the ends of the files show.
  const verdict = (await deepCheck(damaged)).find(({ check }) => check === 'tables')
  assert.equal(verdict?.state, 'bad')
  assert.match(verdict.detail, /2 damaged/)

  // A copy of damage takes the place of no backup.
  const backups = join(root, 'backups')
  const options = { dataDirectory: damaged, directory: backups, keep: 3, onProgress: nothing, checks: true }
  await assert.rejects(createBackup(options), (error: Error) => /damaged|ENOENT/.test(error.message))
  assert.deepEqual(
    readdirSync(backups).filter((name) => name.endsWith('.json')),
    [],
  )
})

test('checkDirectory() names damage of a log', async () => {
  const data = join(root, 'logged')
  {
    await using store = await open({ dir: data, shards: 1, memoryBytes: 72 * MiB })
    for (let key = 0; key < 100; key++) await store.put(`key ${key}`, 'x'.repeat(100))
  }
  const log = join(data, 'log', '1', '0', '00000.log')
  const bytes = readFileSync(log)
  bytes[3000] = bytes[3000]! ^ 1
  writeFileSync(log, bytes)
  const { findings } = await checkDirectory(data, nothing)
  assert.equal(findings.length, 1)
  assert.match(findings[0]!, /^log of shard 0: .*00000\.log/)
})
