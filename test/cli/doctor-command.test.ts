import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { examine, type Verdict } from '../../src/cli/doctor-command.ts'
import { runCommandLine } from '../../src/cli/program.ts'
import { HostCatalog } from '../../src/host/catalog.ts'
import { acquireDirectoryLock } from '../../src/host/directory-lock.ts'
import { directoryFormatVersion, NodeRecord } from '../../src/host/node-record.ts'
import { FakeTerminal } from './fake-terminal.ts'

const folder = mkdtempSync(join(tmpdir(), 'sunwise-doctor-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const settings = { http: { host: '127.0.0.1', port: 0 }, memory: 64 * 1024 ** 2, shards: 1 }

/** A directory as a server leaves it, as far as doctor looks. */
async function makeDirectory(name: string, format: number = directoryFormatVersion): Promise<string> {
  const path = join(folder, name)
  mkdirSync(path, { mode: 0o755 })
  const catalog = await HostCatalog.open(join(path, 'catalog'))
  await new NodeRecord(catalog).putIdentity({ format, nodeId: 'n1', clusterId: 'c', clusterKey: '' })
  await catalog.close()
  mkdirSync(join(path, 'log', '1', '0'), { recursive: true })
  writeFileSync(join(path, 'log', '1', '0', 'segment'), 'x'.repeat(1024))
  return path
}

const verdictOf = (verdicts: readonly Verdict[], check: string): Verdict => {
  const verdict = verdicts.find((each) => each.check === check)
  assert.ok(verdict !== undefined, check)
  return verdict
}

test('doctor finds nothing wrong where all is well', async () => {
  const verdicts = await examine({ ...settings, dataDir: await makeDirectory('well') }, undefined)
  for (const { check, state, detail } of verdicts) assert.notEqual(state, 'bad', `${check}: ${detail}`)
  assert.match(verdictOf(verdicts, 'content').detail, /catalog and 1 log files \(1\.0 KiB\)/)
  const fresh = await examine({ ...settings, dataDir: join(folder, 'not', 'yet') }, undefined)
  assert.match(verdictOf(fresh, 'data directory').detail, /does not exist yet/)
  assert.equal(verdictOf(fresh, 'content').state, 'ok')
})

test('doctor finds a directory that is none, or holds something else', async () => {
  const file = join(folder, 'file')
  writeFileSync(file, '')
  assert.equal(verdictOf(await examine({ ...settings, dataDir: file }, undefined), 'data directory').state, 'bad')
  const foreign = join(folder, 'foreign')
  mkdirSync(foreign)
  writeFileSync(join(foreign, 'photo.jpg'), '')
  const content = verdictOf(await examine({ ...settings, dataDir: foreign }, undefined), 'content')
  assert.deepEqual([content.state, content.detail], ['bad', 'not empty, and without a catalog (photo.jpg)'])
  const open = await makeDirectory('open')
  chmodSync(open, 0o777)
  assert.equal(verdictOf(await examine({ ...settings, dataDir: open }, undefined), 'data directory').state, 'warning')
  const logless = join(folder, 'logless')
  mkdirSync(join(logless, 'catalog'), { recursive: true })
  assert.match(verdictOf(await examine({ ...settings, dataDir: logless }, undefined), 'content').detail, /ENOENT/)
})

test('doctor refuses a directory of another format, and a catalog that is damaged', async () => {
  const dataDir = await makeDirectory('later', directoryFormatVersion + 1)
  const later = verdictOf(await examine({ ...settings, dataDir }, () => assert.fail('it cannot be read')), 'format')
  assert.deepEqual([later.state, later.detail], ['bad', `format ${directoryFormatVersion + 1}`])
  writeFileSync(join(dataDir, 'catalog', 'data.mdb'), 'x'.repeat(8192))
  const damaged = verdictOf(await examine({ ...settings, dataDir }, undefined), 'format')
  assert.equal(damaged.state, 'bad')
  assert.match(damaged.detail, /catalog/i)
})

test('doctor names the process that holds the directory', async () => {
  const dataDir = await makeDirectory('held')
  const lock = await acquireDirectoryLock(dataDir)
  let looked = 0
  const deepCheck = async () => {
    looked++
    return []
  }
  const held = verdictOf(await examine({ ...settings, dataDir }, deepCheck), 'lock')
  assert.deepEqual([held.state, held.detail], ['warning', `held by process ${process.pid}`])
  assert.equal(looked, 0, 'nobody looks into a directory that is in use')
  await lock.release()
  assert.equal(verdictOf(await examine({ ...settings, dataDir }, deepCheck), 'lock').detail, 'free')
  assert.equal(looked, 1)
})

test('doctor reports what the deep check finds, and its failure', async () => {
  const dataDir = await makeDirectory('deep')
  const found: Verdict = { check: 'log', state: 'bad', detail: 'damaged' }
  assert.deepEqual((await examine({ ...settings, dataDir }, async () => [found])).at(-1), found)
  const failed = await examine({ ...settings, dataDir }, () => Promise.reject(new Error('unreadable')))
  assert.deepEqual(failed.at(-1), { check: 'log', state: 'bad', detail: 'unreadable' })
})

test('doctor finds an address in use, too little memory and too many threads', async () => {
  const listener = createServer()
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve))
  const { port } = listener.address() as AddressInfo
  const dataDir = await makeDirectory('crowded')
  const verdicts = await examine({ dataDir, http: { host: '127.0.0.1', port }, memory: 2 ** 50, shards: 64 }, undefined)
  assert.equal(verdictOf(verdicts, 'http address').detail, `127.0.0.1:${port} is in use`)
  assert.equal(verdictOf(verdicts, 'memory').state, 'bad')
  await new Promise((resolve) => listener.close(resolve))
  const elsewhere = await examine({ ...settings, dataDir, http: { host: '203.0.113.1', port: 1 } }, undefined)
  assert.equal(verdictOf(elsewhere, 'http address').state, 'bad')
})

test('doctor prints a table or JSON and ends with 1 if something is wrong', async () => {
  const run = async (dataDir: string, ...words: string[]) => {
    const terminal = new FakeTerminal()
    const machinery = { startServer: () => assert.fail('no server is wanted here') }
    const code = await runCommandLine(
      ['doctor', '--data-dir', dataDir, '--http', '127.0.0.1:0', '--memory', '64mb', ...words],
      terminal,
      machinery,
    )
    return { code, output: terminal.output, errors: terminal.errorText }
  }
  const well = await run(await makeDirectory('printed'))
  assert.deepEqual([well.code, well.errors], [0, ''])
  assert.match(well.output, /^ok {7}node {12}v\d+/)
  const file = join(folder, 'printed-file')
  writeFileSync(file, '')
  const ill = await run(file, '-o', 'json')
  const { ok, verdicts } = JSON.parse(ill.output)
  assert.deepEqual([ill.code, ok], [1, false])
  assert.equal(verdictOf(verdicts, 'data directory').state, 'bad')
})
