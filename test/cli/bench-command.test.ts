import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { workloads } from '../../src/cli/bench/workload.ts'
import { runCommandLine } from '../../src/cli/program.ts'
import { open } from '../../src/index.ts'
import { FakeTerminal } from './fake-terminal.ts'

const folder = mkdtempSync(join(tmpdir(), 'sunwise-bench-cli-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const small = ['--num', '300', '--shards', '1', '--memory', '64mb', '--concurrency', '4']

async function bench(...words: readonly string[]): Promise<{ code: number; output: string; errors: string }> {
  const terminal = new FakeTerminal()
  const code = await runCommandLine(['bench', ...words], terminal, {
    startServer: () => assert.fail('no server is wanted here'),
  })
  assert.equal(terminal.listenerCount, 0)
  return { code, output: terminal.output, errors: terminal.errorText }
}

const ownDirectories = (): string[] =>
  readdirSync(tmpdir()).filter((name) => /^sunwise-bench-[A-Za-z0-9]{6}$/.test(name))

test('bench runs every benchmark by its name, each with one line', { timeout: 120_000 }, async () => {
  const names = workloads.map(({ name }) => name)
  const { code, output, errors } = await bench(...names, ...small)
  assert.equal(code, 0, errors)
  const lines = output.trimEnd().split('\n')
  assert.equal(lines.length, names.length)
  for (const [index, name] of names.entries()) {
    assert.match(
      lines[index]!,
      new RegExp(
        `^${name} +: [\\d.]+ micros/op [\\d,]+ ops/s [\\d.]+ MB/s; p50 [\\d.]+ p99 [\\d.]+ p99\\.9 [\\d.]+ us`,
      ),
    )
  }
  // fillsync leaves a store with next to nothing in it; the keys of fillseq are all there.
  assert.match(output, /^readmissing .*\(0 of 300 found\)$/m)
})

test('bench reads after fillseq find every key, and its own directory is removed', { timeout: 60_000 }, async () => {
  const before = ownDirectories()
  const { code, output } = await bench('fillseq', 'readrandom', 'ycsb-c', ...small, '-o', 'json')
  assert.equal(code, 0)
  const results = output
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  assert.deepEqual(
    results.map(({ name, operations, reads, found }) => [name, operations, reads, found]),
    [
      ['fillseq', 300, 0, 0],
      ['readrandom', 300, 300, 300],
      ['ycsb-c', 300, 300, 300],
    ],
  )
  for (const result of results) {
    assert.ok(result.p50Micros > 0 && result.p50Micros <= result.p99Micros && result.p99Micros <= result.p999Micros)
    assert.ok(result.p999Micros <= result.maxMicros && result.seconds > 0)
  }
  assert.deepEqual(
    ownDirectories().filter((name) => !before.includes(name)),
    [],
  )
})

test('bench that reads first fills the store and says so', { timeout: 60_000 }, async () => {
  const { code, output, errors } = await bench('readrandom', ...small)
  assert.equal(code, 0)
  assert.match(errors, /readrandom needs records: fillseq goes before it/)
  assert.match(output, /^readrandom .*\(300 of 300 found\)\n$/)
})

test('bench keeps a directory that was given, and --existing reads what is there', { timeout: 60_000 }, async () => {
  const dir = join(folder, 'kept')
  assert.equal((await bench('fillseq', ...small, '--data-dir', dir)).code, 0)
  const again = await bench('readrandom', ...small, '--data-dir', dir, '--existing', '--histogram')
  assert.equal(again.code, 0)
  assert.match(again.output, /^readrandom .*\(300 of 300 found\)\n/)
  assert.match(again.output, /^ +<= [\d.]+ us +\d+ +[\d.]+ % +100\.00 %/m)
})

test('bench ends with an error when a value is not what was written', { timeout: 60_000 }, async () => {
  const dir = join(folder, 'wrong')
  {
    await using store = await open({ dir, shards: 1, memoryBytes: 64 * 2 ** 20 })
    for (let record = 0; record < 300; record++) await store.put(String(record).padStart(16, '0'), new Uint8Array(100))
  }
  for (const name of ['readrandom', 'ycsb-e']) {
    const { code, output, errors } = await bench(name, ...small, '--data-dir', dir, '--existing')
    assert.deepEqual([code, output], [1, ''], name)
    assert.match(errors, new RegExp(`${name}: the value of record \\d+ is (not what was written|the value of record)`))
  }
})

test('bench refuses unknown names and senseless numbers before it opens anything', async () => {
  for (const [words, message] of [
    [['fillsec'], /There is no benchmark "fillsec".*fillse/],
    [['--num', '0'], /--num is "0"; expected a whole number/],
    [['--value-size', '4'], /--value-size is "4"/],
    [['--key-size', '9'], /--key-size is "9"/],
    [['--concurrency', '5000'], /--concurrency is "5000"/],
    [['--existing'], /--existing needs --data-dir/],
  ] as const) {
    const { code, errors } = await bench(...words)
    assert.equal(code, 2, words.join(' '))
    assert.match(errors, message)
  }
})
