/**
 * What npm publishes works where it is installed: packed, installed without install scripts into an empty folder, and run
 * from there. Needs the registry or npm's cache for the dependencies.
 */
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { residentBytesMax } from '../src/config.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..')
const folder = mkdtempSync(join(tmpdir(), 'sunwise-package-'))
const app = join(folder, 'app')
const program = join(app, 'node_modules', '.bin', 'sunwise')

const MiB = 1024 * 1024
const memoryBytes = 128 * MiB

/** Writes some twice its memory over HTTP, so that tables are written and merged. */
async function fillTwice(http: string): Promise<void> {
  const writes = 66_000
  const value = Buffer.alloc(4096, 'x')
  let next = 0
  const lane = async (): Promise<void> => {
    while (next < writes) {
      const key = (next++ * 7919) % 100_003
      const answer = await fetch(`${http}/v1/kv/default/key${key}`, { method: 'PUT', body: value })
      await answer.arrayBuffer()
      assert.equal(answer.status, 204)
    }
  }
  await Promise.all(Array.from({ length: 16 }, lane))
}

/** The most that a process ever had in memory; undefined where the system does not tell. */
function peakBytesOf(processId: number): number | undefined {
  const path = `/proc/${processId}/status`
  if (!existsSync(path)) return undefined
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(path, 'utf8'))![1]) * 1024
}

before(async () => {
  await run('npm', ['pack', '--silent', '--pack-destination', folder], { cwd: root, timeout: 240_000 })
  const tarball = readdirSync(folder).find((name) => name.endsWith('.tgz'))
  assert.ok(tarball !== undefined, 'npm pack made no tarball')
  mkdirSync(app)
  writeFileSync(join(app, 'package.json'), '{"private":true,"type":"module"}')
  const flags = ['--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--silent']
  await run('npm', ['install', ...flags, join(folder, tarball)], { cwd: app, timeout: 240_000 })
})

after(() => rmSync(folder, { recursive: true, force: true }))

test('Package: the installed program tells its version', async () => {
  const { stdout } = await run('npx', ['--no-install', 'sunwise', 'version', '-o', 'json'], { cwd: app })
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }
  assert.equal((JSON.parse(stdout) as { version: string }).version, manifest.version)
  assert.ok(statSync(program).mode & 0o100, 'the program is executable')
})

test('Package: it holds the built program and its papers, and nothing of the workshop', () => {
  const installed = join(app, 'node_modules', 'sunwise')
  const names = readdirSync(installed).sort()
  for (const name of ['LICENSE', 'dist', 'package.json']) assert.ok(names.includes(name), `${name} is missing`)
  for (const name of ['src', 'test', 'scripts', 'native-free-bench'])
    assert.ok(!names.includes(name), `${name} is shipped`)
  const files = readdirSync(join(installed, 'dist'), { recursive: true }) as string[]
  assert.ok(['main.js', 'index.js', 'index.d.ts'].every((name) => files.includes(name)))
  assert.deepEqual(
    files.filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts')),
    [],
  )
})

test('Package: the installed library opens a store', async () => {
  const script = join(app, 'library.js')
  writeFileSync(
    script,
    `import { open } from 'sunwise'
    await using store = await open({ dir: ${JSON.stringify(join(folder, 'library-data'))}, shards: 1 })
    await store.put('greeting', 'hello')
    const entry = await store.get('greeting')
    process.stdout.write(Buffer.from(entry.value))`,
  )
  assert.equal((await run(process.execPath, [script], { cwd: app, timeout: 240_000 })).stdout, 'hello')
})

test('Package: the installed server starts its workers, serves, stays within its memory, and stops cleanly', async (t) => {
  const flags = [
    'start',
    '--data-dir',
    join(folder, 'data'),
    '--http',
    '127.0.0.1:0',
    '--memory',
    `${memoryBytes / MiB}mb`,
    '--shards',
    '2',
  ]
  const server = spawn(process.execPath, [program, ...flags, '-o', 'json'], {
    cwd: app,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let errors = ''
  server.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text
  })
  const exited = new Promise<number | null>((resolve) => server.on('exit', (code) => resolve(code)))
  try {
    const ready = new Promise<string>((resolve) => server.stdout.setEncoding('utf8').once('data', resolve))
    const line = await Promise.race([ready, exited.then((code) => assert.fail(`ended with ${code}: ${errors}`))])
    const { http } = JSON.parse(line) as { http: string }
    const script = join(app, 'client.js')
    writeFileSync(
      script,
      `import { connect } from 'sunwise/client'
      await using client = connect({ endpoints: [${JSON.stringify(http)}] })
      await client.put('far', 'away')
      process.stdout.write((await client.get('far')).value)`,
    )
    assert.equal((await run(process.execPath, [script], { cwd: app })).stdout, 'away')
    const client = (...words: string[]) => run(process.execPath, [program, ...words, '--endpoint', http], { cwd: app })
    await client('put', 'greeting', 'hello')
    assert.equal((await client('get', 'greeting')).stdout, 'hello')
    await fillTwice(http)
    const peakBytes = peakBytesOf(server.pid!)
    if (peakBytes !== undefined) {
      t.diagnostic(
        `at the most ${Math.round(peakBytes / MiB)} MiB of ${Math.round(residentBytesMax(memoryBytes) / MiB)}`,
      )
      assert.ok(
        peakBytes <= residentBytesMax(memoryBytes),
        `It took ${peakBytes} bytes, and ${residentBytesMax(memoryBytes)} are promised`,
      )
    }
    server.kill('SIGTERM')
    assert.equal(await exited, 0, errors)
  } finally {
    server.kill('SIGKILL')
  }
})
