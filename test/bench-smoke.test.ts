/** The bench itself: its judgement and its reply counter by cases, and the whole of it once with tiny sizes. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { type ContenderPlan, type Role, type Row, type Size, Unavailable } from '../native-free-bench/case.ts'
import {
  compactionGigabytes,
  foundShare,
  operationsPerSecond,
  percentileMicros,
} from '../native-free-bench/contenders/db-bench.ts'
import { perOperation } from '../native-free-bench/counts.ts'
import { type ContenderResult, judge, measureRow, quantityText, summarize } from '../native-free-bench/harness.ts'
import { renderRequest } from '../native-free-bench/http-contender.ts'
import { inChild } from '../native-free-bench/isolate.ts'
import { KeySet, keyText } from '../native-free-bench/key-set.ts'
import { LoadGenerator } from '../native-free-bench/load-generator.ts'
import { profileTable, threadTimes } from '../native-free-bench/profile.ts'
import { ReplyCounter } from '../native-free-bench/reply-counter.ts'
import { pasted, type Report } from '../native-free-bench/report.ts'
import { rows } from '../native-free-bench/rows.ts'

const run = promisify(execFile)
const main = join(import.meta.dirname, '..', 'native-free-bench', 'main.ts')

test('Bench: --smoke measures every row, with finite positive medians', { timeout: 600_000 }, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-bench-'))
  try {
    const { stdout } = await run(process.execPath, [main, '--smoke', '--out', directory])
    const report = JSON.parse(readFileSync(join(directory, 'bench.json'), 'utf8')) as Report
    assert.deepEqual(
      report.rows.map(({ name }) => name),
      rows.map(({ name }) => name),
    )
    for (const row of report.rows) {
      assert.ok(row.cases.length > 0, row.name)
      for (const { label, contenders } of row.cases) {
        for (const { role, name, summary, rounds, skipped } of contenders) {
          const where = `${row.name}, ${label}, ${name}`
          if (skipped !== undefined) {
            assert.notEqual(role, 'ours', where)
            assert.match(skipped, /not on the PATH/, where)
            continue
          }
          assert.equal(rounds.length, report.rounds, where)
          assert.ok(summary !== undefined && Number.isFinite(summary.median) && summary.median > 0, where)
        }
      }
      assert.match(stdout, new RegExp(`^\\| ${row.name} \\|`, 'm'))
    }
    // Counts come from other threads: without their probes and counters these would be missing, not 0.
    for (const [name, count] of [
      ['E3', 'wakes/op'],
      ['E3', 'log groups/op'],
      ['E3', 'shard heap B/op'],
      ['E2', 'preads/present key'],
      ['E4', 'write amp'],
      ['E4', 'space amp'],
      ['E5', 'write amp'],
      ['E6', 'p99 us'],
      ['E7', 'preads/present key'],
      ['E8', 'runs'],
      ['L1', 'p99 us'],
      ['E9', 'syncs/op'],
      ['H2', 'syncs/op'],
      ['H2', 'shard cpu us/op'],
      ['L2', 'longest callback ms'],
      ['L2', 'longest callback cpu ms'],
      ['L2', 'longest loop delay ms'],
      ['M1', 'rss B/record'],
    ] as const) {
      const ours = report.rows
        .find((row) => row.name === name)
        ?.cases[0]?.contenders.find(({ role }) => role === 'ours')
      assert.ok((ours?.counts[count] ?? 0) > 0, `${name} ${count}`)
    }
    const charts = readdirSync(directory).filter((name) => name.endsWith('.svg'))
    assert.deepEqual(charts.sort(), ['engine.svg', 'http.svg', 'limits.svg', 'threads.svg'])
    assert.match(readFileSync(join(directory, 'engine.svg'), 'utf8'), /^<svg [\s\S]*<rect [\s\S]*<\/svg>\n$/)
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('Bench: an unknown row or a bad number of rounds is refused before anything runs', async () => {
  await assert.rejects(run(process.execPath, [main, 'E99']), /There is no row E99/)
  await assert.rejects(run(process.execPath, [main, '--rounds', '0']), /--rounds is a positive integer/)
})

test('summarize() gives median, extremes and the interquartile range over the median', () => {
  assert.deepEqual(summarize([5]), { median: 5, min: 5, max: 5, spread: 0 })
  assert.deepEqual(summarize([300, 100, 200, 90, 110]), { median: 110, min: 90, max: 300, spread: 100 / 110 })
  assert.deepEqual(summarize([1, 2]), { median: 1.5, min: 1, max: 2, spread: 0.5 / 1.5 })
})

const result = (role: Role, name: string, rounds: number[], counts = {}): ContenderResult => ({
  role,
  name,
  rounds,
  counts,
  summary: rounds.length === 0 ? undefined : summarize(rounds),
  skipped: rounds.length === 0 ? 'not here' : undefined,
})

test('judge() takes the ratio within each round and in the direction of the unit', () => {
  const gate = { against: 'lmdb', atLeast: 2, stretch: 3 }
  // Both sides are twice as slow in the second round, as on a disturbed machine: the ratio stays.
  const times = [result('ours', 'sunwise', [100, 200, 100]), result('peer', 'lmdb', [250, 500, 250])]
  assert.deepEqual(judge(gate, { higherIsBetter: false }, times), {
    gate,
    value: 2.5,
    verdict: 'pass',
    reason: undefined,
  })
  assert.equal(judge({ ...gate, stretch: 2.5 }, { higherIsBetter: false }, times).verdict, 'stretch')
  assert.equal(judge({ ...gate, atLeast: 2.6 }, { higherIsBetter: false }, times).verdict, 'miss')
  assert.equal(judge(gate, { higherIsBetter: true }, times).value, 0.4)
})

test('judge() holds a count of ours against the same count of another contender', () => {
  const gate = { count: 'p99 us', timesOf: 'rocksdb', atMost: 1.5, stretch: 1 }
  const verdictOf = (ours: number, theirs: number): string =>
    judge(gate, { higherIsBetter: true }, [
      result('ours', 'sunwise', [9], { 'p99 us': ours }),
      result('peer', 'rocksdb', [9], { 'p99 us': theirs }),
    ]).verdict
  assert.deepEqual([verdictOf(10, 10), verdictOf(15, 10), verdictOf(16, 10)], ['stretch', 'pass', 'miss'])
  const without = [result('ours', 'sunwise', [9], { 'p99 us': 1 }), result('peer', 'rocksdb', [])]
  assert.equal(judge(gate, { higherIsBetter: true }, without).reason, 'rocksdb: not here')
})

test('judge() gives no verdict on a wide spread, a missing side or a machine that cannot tell', () => {
  const gate = { against: 'lmdb', atLeast: 2, stretch: 3 }
  const ours = result('ours', 'sunwise', [100, 100, 100, 100, 100])
  const noisy = result('peer', 'lmdb', [200, 240, 300, 400, 500])
  const steady = result('peer', 'lmdb', [300, 300, 300, 300, 300])
  const lower = { higherIsBetter: false }
  assert.equal(judge(gate, lower, [ours, noisy]).verdict, 'not judged')
  assert.equal(judge(gate, lower, [ours, steady]).verdict, 'stretch')
  assert.equal(judge(gate, { ...lower, notJudgedBecause: 'two cores' }, [ours, steady]).reason, 'two cores')
  assert.equal(judge(gate, lower, [ours, result('peer', 'lmdb', [])]).reason, 'lmdb: not here')
  assert.equal(judge(gate, lower, [result('ours', 'sunwise', []), steady]).reason, 'ours: not here')
})

test('judge() holds a count of ours against its limit', () => {
  const gate = { count: 'p50 ms', atMost: 1, stretch: 0.5 }
  const verdictOf = (count: number): string =>
    judge(gate, { higherIsBetter: true }, [result('ours', 'sunwise', [9], { 'p50 ms': count })]).verdict
  assert.deepEqual([verdictOf(0.5), verdictOf(1), verdictOf(1.01)], ['stretch', 'pass', 'miss'])
  assert.equal(judge(gate, { higherIsBetter: true }, [result('ours', 'sunwise', [9])]).verdict, 'not measured')
})

/** A row of contenders that log what is done to them; `breaksIn` names the call of the peer that fails. */
function loggingRow(log: string[], breaksIn?: 'open' | 'run' | 'value'): Row {
  const plan = (role: Role, name: string): ContenderPlan => ({
    role,
    name,
    open: () => {
      const breaks = (call: string): boolean => role === 'peer' && call === breaksIn
      log.push(`open ${name}`)
      if (breaks('open')) return Promise.reject(new Error('It broke'))
      return Promise.resolve({
        run: () => {
          log.push(`run ${name}`)
          if (breaks('run')) return Promise.reject(new Error('It broke'))
          const value = breaks('value') ? Number.NaN : log.length
          return Promise.resolve({ value, operations: 1, counts: { place: log.length } })
        },
        close: () => {
          log.push(`close ${name}`)
          return Promise.resolve()
        },
      })
    },
  })
  const contenders = [plan('ours', 'a'), plan('peer', 'b'), plan('floor', 'c')]
  contenders.push({ role: 'peer', name: 'd', open: () => Promise.reject(new Unavailable('not on this machine')) })
  const item = { label: 'one', unit: 'ms', higherIsBetter: false, gates: [], contenders } as const
  return { name: 'X1', title: 'a test', group: 'limits', cases: () => [item] }
}

const tiny: Size = {
  mode: 'smoke',
  roundMs: 1,
  keySets: [1],
  writtenKeys: 1,
  tableKeys: [1],
  servedKeys: 1,
  connections: 1,
  threads: [1],
  scratch: tmpdir(),
}

test('measureRow() warms up, interleaves the contenders and names what is not there', async () => {
  const log: string[] = []
  const lines: string[] = []
  const { cases } = await measureRow(loggingRow(log), tiny, 2, (line) => lines.push(line))
  const round = ['run a', 'run b', 'run c']
  assert.deepEqual(log, ['open a', 'open b', 'open c', ...round, ...round, ...round, 'close a', 'close b', 'close c'])
  assert.deepEqual(
    cases[0]?.contenders.map(({ name, rounds, skipped }) => [name, rounds, skipped]),
    [
      ['a', [7, 10], undefined],
      ['b', [8, 11], undefined],
      ['c', [9, 12], undefined],
      ['d', [], 'not on this machine'],
    ],
  )
  assert.deepEqual(cases[0]?.contenders[0]?.counts, { place: 8.5 })
  assert.ok(lines.includes('  peer d: skipped, not on this machine'))
})

test('measureRow() closes every open contender when one breaks or measures nonsense', async () => {
  for (const [breaksIn, message, closed] of [
    ['open', /It broke/, ['close a', 'close c']],
    ['run', /It broke/, ['close a', 'close b', 'close c']],
    ['value', /b measured NaN ms/, ['close a', 'close b', 'close c']],
  ] as const) {
    const log: string[] = []
    await assert.rejects(
      measureRow(loggingRow(log, breaksIn), tiny, 2, () => {}),
      message,
    )
    assert.deepEqual(
      log.filter((line) => line.startsWith('close')),
      closed,
      breaksIn,
    )
  }
})

test('measureRow() keeps the median of a count, and of a longest stretch the maximum', async () => {
  const values = [9, 1, 5, 2]
  const contender = {
    run: () => {
      const counts = { 'wakes/op': values[0]!, 'longest callback ms': values[0]! }
      return Promise.resolve({ value: values.shift()!, operations: 1, counts })
    },
    close: () => Promise.resolve(),
  }
  const plan: ContenderPlan = { role: 'ours', name: 'a', open: () => Promise.resolve(contender) }
  const item = { label: 'one', unit: 'ms', higherIsBetter: false, gates: [], contenders: [plan] } as const
  const row: Row = { name: 'X1', title: 'a test', group: 'limits', cases: () => [item] }
  const { cases } = await measureRow(row, tiny, 3, () => {})
  // The first run warms up and is forgotten.
  assert.deepEqual(cases[0]?.contenders[0]?.counts, { 'wakes/op': 2, 'longest callback ms': 5 })
})

test('perOperation() divides what grew by the operations and keeps a longest stretch whole', () => {
  const before = { 'cpu us': 100, 'longest callback ms': 0 }
  const after = { 'cpu us': 300, 'longest callback ms': 4, 'new B': 7 }
  assert.deepEqual(perOperation(before, after, 50), { 'cpu us/op': 4, 'longest callback ms': 4 })
})

test('inChild() rejects with what went wrong in the other process, and names what is unavailable', async () => {
  await assert.rejects(inChild('contenders/no-such.ts', {})(), /no-such\.ts/)
  const options = { scratch: tmpdir(), benchmark: 'fillrandom', operations: 1, threads: 1, flags: [] }
  const path = process.env['PATH']
  process.env['PATH'] = ''
  try {
    await assert.rejects(inChild('contenders/db-bench.ts', options)(), (error) => error instanceof Unavailable)
  } finally {
    process.env['PATH'] = path
  }
})

test('quantityText() keeps three digits', () => {
  assert.deepEqual([0, 0.01234, 1.5, 12.34, 999.6, 123_456].map(quantityText), [
    '0',
    '0.0123',
    '1.5',
    '12.3',
    '1,000',
    '123,000',
  ])
})

test('pasted() replaces what stands between the markers and nothing else', () => {
  const document = 'a\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nb\n'
  assert.equal(pasted(document, 'new'), 'a\n<!-- bench:begin -->\nnew\n<!-- bench:end -->\nb\n')
  assert.throws(() => pasted('no markers', 'new'), /bench:begin/)
})

test('operationsPerSecond() reads the line that db_bench prints', () => {
  const output =
    'RocksDB: version 7.8.3\nfillrandom   :      22.128 micros/op 45190 ops/sec 1.416 seconds 64000 operations;\n'
  assert.equal(operationsPerSecond(output, 'fillrandom'), 45190)
  assert.throws(() => operationsPerSecond('Segmentation fault', 'fillrandom'), /no ops\/sec/)
})

test('db_bench prints found keys, percentiles and what compactions wrote, and they are read where they are', () => {
  const output = [
    'readwhilewriting :       3.547 micros/op 273811 ops/sec 1.030 seconds 281999 operations;   20.4 MB/s (3 of 4 found)',
    'Percentiles: P50: 1.67 P75: 2.49 P99: 7.24 P99.9: 41.90 P99.99: 2825.01',
    'Cumulative compaction: 0.31 GB write, 1.54 MB/s write, 0.00 GB read, 0.00 MB/s read, 0.1 seconds',
  ].join('\n')
  assert.equal(foundShare(output), 0.75)
  assert.deepEqual([percentileMicros(output, 'P99'), percentileMicros(output, 'P99.9')], [7.24, 41.9])
  assert.equal(compactionGigabytes(output), 0.31)
  assert.deepEqual(
    [foundShare(''), percentileMicros('', 'P99'), compactionGigabytes('')],
    [undefined, undefined, undefined],
  )
})

test('KeySet gives the same data for the same count, 16-byte keys and probes within it', () => {
  const set = new KeySet(1000)
  assert.deepEqual(set.probeIndices, new KeySet(1000).probeIndices)
  assert.ok(set.probeIndices.every((index) => index < 1000))
  assert.ok(new Set(set.probeIndices).size > 500)
  assert.equal(keyText(42), '0000000000000042')
  assert.equal(Buffer.from(set.probeKeys().buffer, 0, 16).toString(), keyText(set.probeIndices[0]!))
  assert.equal(set.value(7).length, 100)
  assert.deepEqual(set.value(7), new KeySet(1000).value(7))
})

const reply = (status: number, body: string): string =>
  `HTTP/1.1 ${status} Some words\r\nDate: today\r\n${status === 204 ? '' : `Content-Length: ${body.length}\r\n`}\r\n${body}`

/** Feeds `text` to a counter in pieces cut at `cuts`; the number of replies counted. */
function countIn(counter: ReplyCounter, text: string, cuts: readonly number[]): number {
  const bytes = Buffer.from(text, 'latin1')
  const bounds = [0, ...[...cuts].map((cut) => cut % bytes.length).sort((left, right) => left - right), bytes.length]
  let replies = 0
  for (let index = 1; index < bounds.length; index++)
    replies += counter.push(bytes.subarray(bounds[index - 1], bounds[index]))
  return replies
}

test('ReplyCounter finds every reply however the bytes are cut', () => {
  const anyReply = fc.record({ status: fc.constantFrom(200, 204, 404), length: fc.nat(50) })
  fc.assert(
    fc.property(fc.array(anyReply, { minLength: 1 }), fc.array(fc.nat()), (replies, cuts) => {
      const text = replies.map(({ status, length }) => reply(status, status === 204 ? '' : 'H'.repeat(length))).join('')
      const counter = new ReplyCounter(false)
      assert.equal(countIn(counter, text, cuts), replies.length)
      assert.equal(counter.failures, replies.filter(({ status }) => status === 404).length)
    }),
  )
})

test('ReplyCounter of fixed replies counts those of one length and their failures', () => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom(200, 404), { minLength: 1 }),
      fc.nat(50),
      fc.array(fc.nat()),
      (statuses, length, cuts) => {
        const counter = new ReplyCounter(true)
        const text = statuses.map((status) => reply(status, 'b'.repeat(length))).join('')
        assert.equal(countIn(counter, text, cuts), statuses.length)
        assert.equal(counter.failures, statuses.filter((status) => status === 404).length)
      },
    ),
  )
})

test('ReplyCounter refuses replies of another length, chunked replies and what is not HTTP', () => {
  const counter = new ReplyCounter(true)
  const text = reply(200, 'bbb') + reply(200, 'bbbb') + reply(200, 'bbb')
  assert.throws(() => counter.push(Buffer.from(text)), /another length/)
  const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
  assert.throws(() => new ReplyCounter(false).push(Buffer.from(chunked)), /no Content-Length/)
  assert.throws(() => new ReplyCounter(false).push(Buffer.from('SSH-2.0\r\n\r\n')), /not an HTTP/)
})

test('LoadGenerator counts what the server answered, and in open loop counts a stall from the time requests were due', async () => {
  let requests = 0
  let stallMs = 0
  const server = createServer((request, response) => {
    requests++
    request.resume()
    const stall = stallMs
    stallMs = 0
    const wake = performance.now() + stall
    while (performance.now() < wake);
    response.end('value')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const bodies = [renderRequest('GET', '/a'), renderRequest('PUT', '/b', Buffer.from('body'))]
  const load = await LoadGenerator.connect({ port, connections: 3, threads: 2, requests: bodies, replies: 'fixed' })
  try {
    const closed = await load.run({ durationMs: 50 })
    assert.equal(closed.replies, requests)
    assert.equal(closed.latency.count(), requests)
    assert.equal(closed.failures, 0)

    requests = 0
    stallMs = 1000
    // 2 threads x 200 requests due within 2 s; a stall of 1 s holds back half of them, not only the 3 under way. What a busy
    // machine adds may take another 2 s before requests stay unsent.
    const open = await load.run({ durationMs: 2000, ratePerSecond: 200 })
    assert.equal(open.replies, 400)
    assert.equal(open.replies, requests)
    assert.equal(open.unsent, 0)
    const late = open.latency.count() - open.latency.countAtMost(2 ** 26 - 1)
    assert.ok(late > 60, `${late} replies were later than 67 ms`)
  } finally {
    await load.close()
    server.closeAllConnections()
    server.close()
  }
})

test('threadTimes() adds up own time by file, without rest; profileTable() shows shares of each kind of thread', () => {
  const frame = (id: number, functionName: string, url: string) => ({ id, callFrame: { functionName, url } })
  const shard = threadTimes({
    nodes: [
      frame(1, '(idle)', ''),
      frame(2, '#write', 'file:///a/src/shard/shard.ts'),
      frame(3, 'find', 'file:///a/src/storage/store.ts'),
      frame(4, '(garbage collector)', ''),
      frame(5, 'onMessage', 'file:///a/node_modules/piscina/dist/worker.js'),
    ],
    samples: [1, 2, 3, 3, 4, 5, 2],
    timeDeltas: [9000, 100_000, 300_000, 300_000, 200_000, 9000, 100_000],
  })
  assert.equal(shard?.kind, 'shard')
  const table = profileTable('E4', [shard])
  assert.match(
    table,
    /\| shard \| 1\.0 s \| src\/storage\/store\.ts 60 %, src\/shard\/shard\.ts 20 %, collecting garbage 20 % \|$/,
  )
  assert.equal(threadTimes({ nodes: [frame(1, 'run', 'file:///a/peer.js')], samples: [1], timeDeltas: [5] }), undefined)
})
