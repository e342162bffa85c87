import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { type ErrorCode, ErrorTable, SunwiseError } from '../../src/base/errors.ts'
import { writePeerPorts } from '../../src/cli/dev-ports.ts'
import type { ExitCode } from '../../src/cli/failure.ts'
import { type Machinery, runCommandLine } from '../../src/cli/program.ts'
import type { ServerOptions } from '../../src/host/server.ts'
import { FakeServer } from '../client/fake-server.ts'
import { FakeTerminal } from './fake-terminal.ts'

const folder = mkdtempSync(join(tmpdir(), 'sunwise-cli-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const noServer: Machinery = { startServer: () => assert.fail('no server is wanted here') }

type Run = { code: ExitCode; output: string; errors: string; terminal: FakeTerminal }

/** Runs one command line against `server`. */
async function run(
  server: FakeServer | undefined,
  words: readonly string[],
  prepare?: (terminal: FakeTerminal) => void,
): Promise<Run> {
  const terminal = new FakeTerminal()
  if (server !== undefined) terminal.environment['SUNWISE_ENDPOINT'] = server.origin
  prepare?.(terminal)
  const code = await runCommandLine(words, terminal, noServer)
  return { code, output: terminal.output, errors: terminal.errorText, terminal }
}

test('put, get and del carry any bytes and print nothing else', async () => {
  await using server = await FakeServer.start()
  const value = Buffer.from([0, 255, 10, 13])
  const put = await run(server, ['put', 'dir/kéy', '-'], (terminal) => {
    terminal.stdin = Readable.from([value])
  })
  assert.deepEqual([put.code, put.output, put.errors], [0, '', ''])
  const got = await run(server, ['get', 'dir/kéy'])
  assert.equal(got.code, 0)
  assert.deepEqual(got.terminal.outputBytes, value)
  const file = join(folder, 'value')
  writeFileSync(file, 'from a file')
  await run(server, ['put', '--key64', '_-8', '--file', file, '--ttl', '1h', '--content-type', 'text/plain'])
  assert.equal(server.values.get('\xff\xef')?.[0]?.value.toString(), 'from a file')
  const row = JSON.parse((await run(server, ['get', '--key64', '_-8', '-o', 'json'])).output)
  assert.deepEqual([row.key64, row.value, row.contentType, row.siblings], ['_-8', 'from a file', 'text/plain', 1])
  assert.ok(row.expires > Date.now())
  assert.equal((await run(server, ['del', 'dir/kéy'])).code, 0)
  const gone = await run(server, ['get', 'dir/kéy'])
  assert.deepEqual([gone.code, gone.output], [3, ''])
  assert.match(gone.errors, /There is no key "dir\/kéy" \(NOT_FOUND\)/)
})

test('put takes its value from exactly one place', async () => {
  await using server = await FakeServer.start()
  for (const words of [
    ['put', 'k'],
    ['put', 'k', 'v', '--file', 'f'],
    ['put', '--key64', '!', 'v'],
    ['put', 'k', 'v', '--ttl', 'soon'],
  ]) {
    assert.equal((await run(server, words)).code, 2, words.join(' '))
  }
  assert.equal((await run(server, ['put', 'k', '--file', join(folder, 'absent')])).code, 1)
  const huge = await run(server, ['put', 'k', '-'], (terminal) => {
    terminal.stdin = Readable.from(Array.from({ length: 17 }, () => Buffer.alloc(1024 * 1024)))
  })
  assert.match(huge.errors, /VALUE_TOO_LARGE/)
  assert.equal(server.values.size, 0)
})

test('put and del pass preconditions and context on', async () => {
  await using server = await FakeServer.start()
  const receipt = JSON.parse((await run(server, ['put', 'k', 'v', '--if-none-match', '-o', 'json'])).output)
  assert.deepEqual([receipt.key, receipt.etag, receipt.acks], ['k', '1', '1/1'])
  assert.equal((await run(server, ['put', 'k', 'v', '--if-none-match'])).code, 4)
  assert.equal((await run(server, ['put', 'k', 'v', '--if-match', '"1"', '--context', 'ctx'])).code, 0)
  assert.equal(server.requests.at(-1)!.headers['sunwise-context'], 'ctx')
  const conflict = await run(server, ['del', 'k', '--if-match', '7', '-o', 'json'])
  assert.equal(conflict.code, 4)
  const failure = JSON.parse(conflict.errors)
  assert.deepEqual([failure.code, failure.outcome, failure.etag], ['PRECONDITION_FAILED', 'none', '2'])
})

test('get shows the winner and says that there are siblings; --siblings shows all', async () => {
  await using server = await FakeServer.start()
  const sibling = (text: string) => ({ value: Buffer.from(text), contentType: 'a/b', etag: 'e' })
  server.values.set('k', [sibling('one'), sibling('two')])
  const winner = await run(server, ['get', 'k'])
  assert.deepEqual([winner.output, winner.code], ['one', 0])
  assert.match(winner.errors, /2 siblings/)
  const all = JSON.parse((await run(server, ['get', 'k', '--siblings'])).output)
  assert.deepEqual(
    all.values.map(({ value }: { value: string }) => value),
    ['one', 'two'],
  )
  assert.equal(all.context, 'ctx-e')
})

test('ls streams keys, safe for a terminal', async () => {
  await using server = await FakeServer.start()
  for (const key of ['a', 'line\nbreak', '\x1b[2J', '\xff']) {
    server.values.set(key, [{ value: Buffer.from(key === 'a' ? 'tab\there' : 'v'), contentType: 'a/b', etag: 'e' }])
  }
  const lines = (text: string): string[] => text.trimEnd().split('\n').sort()
  assert.deepEqual(lines((await run(server, ['ls'])).output), ['"\\u001b[2J"', '"line\\nbreak"', 'a', 'base64url:_w'])
  assert.deepEqual((await run(server, ['ls', 'a', '--values'])).output, 'a\t"tab\\there"\n')
  assert.equal(lines((await run(server, ['ls', '--limit', '2'])).output).length, 2)
  const rows = lines((await run(server, ['ls', '-o', 'json', '--values'])).output).map((line) => JSON.parse(line))
  assert.equal(rows.length, 4)
  assert.equal(rows.find(({ key }) => key === 'a').value, 'tab\there')
  assert.equal((await run(server, ['ls', '--limit', '0'])).code, 2)
  assert.equal((await run(server, ['ls', '-b', 'absent'])).code, 3)
})

test('Every error code ends the command with the exit code of its row', async () => {
  await using server = await FakeServer.start()
  for (const code of Object.keys(ErrorTable) as ErrorCode[]) {
    server.intercept = (_, response) => {
      // Asked to wait for longer than it may, the client gives up at the first answer.
      FakeServer.problem(response, code, {}, { 'retry-after': '600' })
      return true
    }
    const { code: exit, errors } = await run(server, ['put', 'k', 'v'])
    const { outcome, exit: expected } = ErrorTable[code]
    assert.equal(exit, expected, code)
    assert.match(errors, new RegExp(`${code}${outcome === 'none' ? '' : `, outcome ${outcome}`}`))
  }
})

test('A write whose connection broke is an unknown outcome; a server that is not there is unavailable', async () => {
  const server = await FakeServer.start()
  server.intercept = (_, response) => {
    response.socket!.destroy()
    return true
  }
  assert.equal((await run(server, ['put', 'k', 'v'])).code, 6)
  const { origin } = server
  await server[Symbol.asyncDispose]()
  // Time for all attempts: one that is cut short would be a timeout.
  const { code, errors } = await run(undefined, ['get', 'k', '--endpoint', origin, '--timeout', '30s'])
  assert.equal(code, 5)
  assert.match(errors, /ECONNREFUSED.*Is the server running\?/)
})

test('Usage errors end with 2 and suggest; help and version with 0', async () => {
  const usage: [string[], RegExp][] = [
    [['gte', 'k'], /unknown command 'gte'[\s\S]*Did you mean get\?/],
    [['start', '--shrads', '2'], /unknown option '--shrads'[\s\S]*Did you mean --shards\?/],
    [['get'], /missing required argument 'key'/],
    [['get', 'a', 'b'], /too many arguments/],
    [['get', 'k', '--output', 'xml'], /--output is "xml"; expected text or json/],
    [['get', 'k', '--config', '/nonexistent.json'], /Cannot read the configuration file/],
    [['start'], /start needs --data-dir/],
    [[], /Usage: sunwise/],
  ]
  for (const [words, message] of usage) {
    const { code, output, errors } = await run(undefined, words)
    assert.equal(code, 2, words.join(' '))
    assert.match(errors, message)
    assert.equal(output, '')
  }
  for (const words of [['--help'], ['get', '--help'], ['--version'], ['version']]) {
    const { code, output, errors } = await run(undefined, words)
    assert.deepEqual([code, errors], [0, ''], words.join(' '))
    assert.notEqual(output, '')
  }
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
  assert.equal((await run(undefined, ['--version'])).output, `${version}\n`)
  assert.deepEqual(JSON.parse((await run(undefined, ['version', '-o', 'json'])).output).version, version)
})

test('A configuration file counts after flags and environment, and its faults are named', async () => {
  await using server = await FakeServer.start()
  server.buckets.set('fromfile', new Map())
  server.buckets.set('fromenv', new Map())
  const file = join(folder, 'sunwise.json')
  writeFileSync(file, JSON.stringify({ bucket: 'fromfile', output: 'json' }))
  const bucketOf = async (words: string[], environment: Record<string, string>): Promise<string> => {
    await run(server, ['put', 'k', 'v', ...words], (terminal) => Object.assign(terminal.environment, environment))
    return server.requests.at(-1)!.path
  }
  assert.equal(await bucketOf(['--config', file], {}), '/v1/kv/fromfile/k')
  assert.equal(await bucketOf([], { SUNWISE_CONFIG: file }), '/v1/kv/fromfile/k')
  assert.equal(await bucketOf(['--config', file], { SUNWISE_BUCKET: 'fromenv' }), '/v1/kv/fromenv/k')
  assert.equal(await bucketOf(['--config', file, '-b', 'default'], { SUNWISE_BUCKET: 'fromenv' }), '/v1/kv/default/k')
  writeFileSync(file, '{"buckt":"x"}')
  assert.match((await run(server, ['get', 'k', '--config', file])).errors, /Unknown key "buckt".*did you mean bucket/)
  writeFileSync(file, '{')
  assert.equal((await run(server, ['get', 'k', '--config', file])).code, 2)
})

test('Errors are coloured only where a terminal shows it and nobody objects', async () => {
  const errorsWith = async (isTTY: boolean, environment: Record<string, string>): Promise<string> => {
    const terminal = new FakeTerminal({ isTTY })
    Object.assign(terminal.environment, environment)
    await runCommandLine(['start'], terminal, noServer)
    return terminal.errorText
  }
  const red = '\u001b[31m'
  assert.ok((await errorsWith(true, {})).startsWith(red))
  assert.ok(!(await errorsWith(true, { NO_COLOR: '1' })).includes(red))
  assert.ok(!(await errorsWith(false, {})).includes(red))
  assert.ok((await errorsWith(false, { FORCE_COLOR: '1' })).startsWith(red))
})

test('What export writes, import reads back into the same bucket content', async () => {
  await using source = await FakeServer.start()
  await using target = await FakeServer.start()
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 30 })
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(bytes, bytes), { maxLength: 30 }), async (rows) => {
      source.values.clear()
      target.values.clear()
      for (const [key, value] of rows) {
        source.values.set(Buffer.from(key).toString('latin1'), [
          { value: Buffer.from(value), contentType: 'x/y', etag: '1' },
        ])
      }
      const exported = await run(source, ['export', '-'])
      assert.equal(exported.code, 0, exported.errors)
      const imported = await run(target, ['import', '-'], (terminal) => {
        terminal.stdin = Readable.from([exported.terminal.outputBytes])
      })
      assert.equal(imported.code, 0, imported.errors)
      const content = (server: FakeServer) =>
        [...server.values].map(([key, [first]]) => [key, first!.value.toString('latin1'), first!.contentType]).sort()
      assert.deepEqual(content(target), content(source))
    }),
    { numRuns: 20 },
  )
})

test('export gives a file its name only when it is complete', async () => {
  await using server = await FakeServer.start()
  for (let index = 0; index < 100; index++)
    server.values.set(`k${index}`, [{ value: Buffer.from('v'), contentType: 'a/b', etag: '1' }])
  const file = join(folder, 'export.ndjson')
  server.intercept = (request, response) => {
    if (!request.query.has('cursor')) return false
    FakeServer.problem(response, 'LOG_CORRUPT')
    return true
  }
  assert.equal((await run(server, ['export', file])).code, 1)
  assert.equal(existsSync(file) || existsSync(`${file}.part`), false)
  server.intercept = undefined
  const { code, output } = await run(server, ['export', file, '-o', 'json', '--prefix', 'k1'])
  assert.deepEqual([code, JSON.parse(output).records], [0, 11])
  assert.equal(readFileSync(file, 'utf8').trimEnd().split('\n').length, 11)
  server.values.set(
    's',
    [1, 2].map(() => ({ value: Buffer.from('v'), contentType: 'a/b', etag: '1' })),
  )
  assert.match((await run(server, ['export', '-', '--prefix', 's'])).errors, /1 keys have siblings/)
})

test('import counts what it cannot read, stores the rest, and ends with an error', async () => {
  await using server = await FakeServer.start()
  const file = join(folder, 'mixed.ndjson')
  writeFileSync(
    file,
    '{"key":"a","value":"1"}\nrubbish\n{"key":"b","value":"2","expires":1}\n{"key":"c","value":{"x":1}}\n',
  )
  const text = await run(server, ['import', file])
  assert.equal(text.code, 1)
  assert.match(text.errors, /line 2: is not JSON[\s\S]*2 records stored, 1 failed, 1 expired before/)
  assert.deepEqual([...server.values.keys()], ['a', 'c'])
  const { code, output } = await run(server, ['import', file, '-o', 'json'])
  const { read, stored, failed, expired, resumeAfter } = JSON.parse(output)
  assert.deepEqual([code, read, stored, failed, expired, resumeAfter], [1, 4, 2, 1, 1, 4])
  writeFileSync(file, 'x\n'.repeat(30))
  const many = await run(server, ['import', file])
  assert.equal(many.errors.match(/is not JSON/g)?.length, 10)
  assert.match(many.errors, /30 failed/)
})

test('import stores whole records of an array under a field', async () => {
  await using server = await FakeServer.start()
  const file = join(folder, 'cities.json')
  writeFileSync(file, '[{"name":"Vila","lat":"42.50"},\n {"name":"Ordino"}]')
  assert.equal((await run(server, ['import', file, '--key-field', 'name'])).code, 0)
  assert.equal(server.values.get('Vila')?.[0]?.value.toString(), '{"name":"Vila","lat":"42.50"}')
  assert.equal(server.values.get('Vila')?.[0]?.contentType, 'application/json')
  writeFileSync(file, '[{"name":"Vila"},')
  const cut = await run(server, ['import', file, '--key-field', 'name'])
  assert.equal(cut.code, 1)
  assert.match(cut.errors, /cut short/)
})

test('import goes on where it ended with --skip', async () => {
  await using server = await FakeServer.start()
  const file = join(folder, 'resume.ndjson')
  const lines = Array.from({ length: 1_000 }, (_, index) => `{"key":"k${index}","value":"v"}`)
  writeFileSync(file, lines.join('\n'))
  let batches = 0
  server.intercept = (_, response) => {
    if (++batches !== 3) return false
    FakeServer.problem(response, 'STORE_FULL')
    return true
  }
  const first = await run(server, ['import', file, '--concurrency', '1', '-o', 'json'])
  assert.equal(first.code, 5)
  const { resumeAfter, stored } = JSON.parse(first.output)
  assert.deepEqual([resumeAfter, stored], [500, 500])
  assert.match(first.errors, /--skip 500/)
  const second = JSON.parse((await run(server, ['import', file, '--skip', '500', '-o', 'json'])).output)
  assert.deepEqual([second.stored, server.values.size], [500, 1_000])
})

test('import that is interrupted finishes what is under way and says where to go on', async () => {
  await using server = await FakeServer.start()
  const file = join(folder, 'long.ndjson')
  writeFileSync(file, Array.from({ length: 50_000 }, (_, index) => `{"key":"k${index}","value":"v"}`).join('\n'))
  const terminal = new FakeTerminal()
  terminal.environment['SUNWISE_ENDPOINT'] = server.origin
  let batches = 0
  server.intercept = () => {
    if (++batches === 3) terminal.signal('SIGINT')
    return false
  }
  const code = await runCommandLine(['import', file, '-o', 'json'], terminal, noServer)
  assert.equal(code, 1)
  const { stored, resumeAfter } = JSON.parse(terminal.output)
  assert.equal(stored, server.values.size)
  assert.ok(stored >= resumeAfter && resumeAfter > 0 && resumeAfter < 50_000)
  assert.match(terminal.errorText, new RegExp(`--skip ${resumeAfter}`))
  assert.deepEqual([terminal.listenerCount, terminal.exitCodes], [0, []])
})

test('import keeps its memory bounded while the server is slow', async () => {
  await using server = await FakeServer.start()
  let produced = 0
  const source = new Readable({
    highWaterMark: 64 * 1024,
    read() {
      produced++
      this.push(produced > 400 ? null : `{"key":"k${produced}","value":"${'x'.repeat(100_000)}"}\n`)
    },
  })
  const ahead: number[] = []
  server.intercept = async () => {
    ahead.push(produced - server.values.size)
    return false
  }
  const { code } = await run(server, ['import', '-', '--concurrency', '2'], (terminal) => {
    terminal.stdin = source
  })
  assert.equal(code, 0)
  assert.equal(server.values.size, 400)
  // Two batches of 1 MiB under way, one in the making, one chunk read ahead: about 40 records of 100 KB.
  assert.ok(Math.max(...ahead) < 60, `${Math.max(...ahead)} records read ahead`)
})

type Fake = { options: ServerOptions; calls: string[]; release: () => void }

/** A server that does nothing but note what is asked of it. */
function fakeStart(fake: Fake): Machinery {
  return {
    startServer: async (options) => {
      fake.options = options
      fake.calls.push('start')
      return {
        address: { host: '127.0.0.1', port: 4321 },
        nodeId: 'n1',
        shards: 2,
        recoveredRecords: 7,
        peerAddress: undefined,
        joined: Promise.resolve(),
        drain: async (graceMs) => {
          fake.calls.push(`drain ${graceMs}`)
          await new Promise<void>((resolve) => {
            fake.release = resolve
          })
        },
        close: async () => {
          fake.calls.push('close')
        },
      }
    },
  }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve))
}

test('start says in one line that it is ready, drains at the first signal and ends at once at the second', async () => {
  const fake = { calls: [] as string[], release: () => {} } as Fake
  const terminal = new FakeTerminal()
  const words = [
    'start',
    '--data-dir',
    './d',
    '--http',
    '[::1]:0',
    '--memory',
    '512mb',
    '--shards',
    '2',
    '--durability',
    'os',
  ]
  const running = runCommandLine(
    [...words, '--drain-timeout', '3s', '--allowed-hosts', 'a,b'],
    terminal,
    fakeStart(fake),
  )
  await until(() => terminal.output !== '')
  assert.match(
    terminal.output,
    /^sunwise \S+ ready http=http:\/\/127\.0\.0\.1:4321 data=\.\/d node=n1 shards=2 recovered=7 pid=\d+\n$/,
  )
  const { log, onFatal, ...options } = fake.options
  assert.deepEqual(options, {
    directory: './d',
    http: { host: '::1', port: 0 },
    shards: 2,
    memoryBytes: 512 * 1024 ** 2,
    durability: 'os',
    syncIntervalMs: 100,
    valueBytesMax: 1024 ** 2,
    compression: 'none',
    scrubBytesPerSecond: 4 * 1024 ** 2,
    insecure: false,
    allowedHosts: ['a', 'b'],
    salvage: false,
    cluster: undefined,
  })
  log('a line of the log')
  assert.match(terminal.errorText, /a line of the log\n/)
  assert.equal(typeof onFatal, 'function')
  terminal.signal('SIGTERM')
  await until(() => fake.calls.includes('drain 3000'))
  assert.deepEqual(terminal.exitCodes, [])
  terminal.signal('SIGINT')
  assert.deepEqual(terminal.exitCodes, [1])
  fake.release()
  assert.equal(await running, 0)
  assert.deepEqual(fake.calls, ['start', 'drain 3000', 'close'])
  assert.equal(terminal.listenerCount, 0)
})

test('start ends with 1 when the server cannot go on, and says why', async () => {
  const fake = { calls: [] as string[], release: () => {} } as Fake
  const terminal = new FakeTerminal()
  const running = runCommandLine(['start', '--data-dir', './d', '-o', 'json'], terminal, fakeStart(fake))
  await until(() => terminal.output !== '')
  const ready = JSON.parse(terminal.output)
  assert.deepEqual(
    [ready.event, ready.http, ready.port, ready.pid],
    ['ready', 'http://127.0.0.1:4321', 4321, process.pid],
  )
  fake.options.onFatal(new SunwiseError('WORKERS_FAILED', 'Shard 1 crashed 3 times'))
  assert.equal(await running, 1)
  assert.equal(JSON.parse(terminal.errorText).code, 'WORKERS_FAILED')
  assert.deepEqual(fake.calls, ['start'])
})

test('start that fails ends with the exit code of its error', async () => {
  for (const [code, expected] of [
    ['DIRECTORY_LOCKED', 1],
    ['ADDRESS_REFUSED', 2],
    ['ADDRESS_IN_USE', 1],
  ] as const) {
    const terminal = new FakeTerminal()
    const startServer = () => Promise.reject(new SunwiseError(code, 'no'))
    assert.equal(await runCommandLine(['start', '--data-dir', 'd'], terminal, { startServer }), expected)
    assert.match(terminal.errorText, new RegExp(code))
    assert.equal(terminal.output, '')
  }
})

test('dev has a data directory and says how to talk to it', async () => {
  const fake = { calls: [] as string[], release: () => {} } as Fake
  const terminal = new FakeTerminal()
  const running = runCommandLine(['dev'], terminal, fakeStart(fake))
  await until(() => terminal.errorText.includes('Ctrl-C'))
  assert.equal(fake.options.directory, './data/dev')
  assert.match(
    terminal.errorText,
    /curl -X PUT --data-binary 'hello' http:\/\/127\.0\.0\.1:4321\/v1\/kv\/default\/greeting/,
  )
  assert.equal(terminal.output.split('\n').length, 2, 'stdout holds the ready line only')
  terminal.signal('SIGINT')
  await until(() => fake.calls.includes('drain 10000'))
  fake.release()
  assert.equal(await running, 0)
})

test('dev --nodes says what does not go together, before anything is started', async () => {
  const directory = join(folder, 'dev-cluster')
  mkdirSync(join(directory, 'n3'), { recursive: true })
  const refused: [string[], RegExp][] = [
    [['--nodes', '0'], /--nodes is "0"; expected a number from 1 to 9/],
    [['--nodes', '10'], /--nodes is "10"; expected a number from 1 to 9/],
    [['--nodes', 'two'], /expected a number from 1 to 9/],
    [['--nodes', '2', '--peer', '127.0.0.1:0'], /without --peer, --join/],
    [['--nodes', '2', '--zone', 'a'], /without --peer, --join/],
    [['--nodes', '3', '--http', '127.0.0.1:65534'], /leaves no room for 3 ports/],
    [['--nodes', '2', '--data-dir', directory], /has more nodes than 2/],
  ]
  for (const [words, why] of refused) {
    const terminal = new FakeTerminal()
    assert.equal(await runCommandLine(['dev', ...words], terminal, noServer), 2, words.join(' '))
    assert.match(terminal.errorText, why)
    assert.equal(terminal.listenerCount, 0)
  }
})

test('dev --nodes does not start nodes that could not find each other', async () => {
  const directory = join(folder, 'dev-lost')
  mkdirSync(join(directory, 'n1'), { recursive: true })
  mkdirSync(join(directory, 'n2'))
  const words = ['dev', '--nodes', '2', '--data-dir', directory]
  const lost = new FakeTerminal()
  assert.equal(await runCommandLine(words, lost, noServer), 1)
  assert.match(lost.errorText, /its dev\.json, which says where they were, is gone or damaged \(DIRECTORY_UNUSABLE\)/)
  const servers = [createServer(), createServer()]
  const ports: number[] = []
  for (const server of servers) {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    ports.push((server.address() as { port: number }).port)
  }
  try {
    writePeerPorts(directory, ports)
    const taken = new FakeTerminal()
    assert.equal(await runCommandLine(words, taken, noServer), 1)
    assert.match(taken.errorText, new RegExp(`Ports ${ports.join(', ')}, .* are in use.* \\(ADDRESS_IN_USE\\)`))
  } finally {
    for (const server of servers) server.close()
  }
})
