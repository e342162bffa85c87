/**
 * A Sunwise server as `sunwise start` runs it: the node thread is this one, every shard worker listens on the same port. Its
 * keys are loaded over HTTP in batches before it is measured.
 */
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Durability } from '../../src/config.ts'
import { startServer } from '../../src/host/server.ts'
import type { Totals } from '../counts.ts'
import type { Hosted } from '../isolate.ts'
import { KeySet, keyText } from '../key-set.ts'
import { probeTotals } from '../shard-facts.ts'

type Options = {
  readonly scratch: string
  readonly workers: number
  readonly durability: Durability
  readonly keys: number
  /** Default: what `sunwise start` takes. */
  readonly memoryBytes?: number
}

const batchOperations = 500
const updatesName = 'sunwise_shard_counter_updates_total'
/** At rest shards write their counters down ten times a second. */
const updateWaitMs = 5000
const pollMs = 5
/** The shards' counters in `/metrics`, and their names in the report. */
const counters: Readonly<Record<string, string>> = {
  sunwise_shard_log_groups_total: 'log groups',
  sunwise_shard_log_syncs_total: 'syncs',
  sunwise_shard_log_bytes_total: 'log B',
  sunwise_shard_owner_reads_total: 'owner reads',
}

export async function open(options: Options): Promise<Hosted> {
  const { scratch, workers, durability, keys, memoryBytes = 2 ** 30 } = options
  const server = await startServer({
    directory: join(scratch, `server-${process.pid}`),
    http: { host: '127.0.0.1', port: 0 },
    shards: workers,
    memoryBytes,
    durability,
    syncIntervalMs: 100,
    valueBytesMax: 2 ** 20,
    insecure: false,
    log: (line) => process.stderr.write(`${line}\n`),
    onFatal: (error) => {
      throw error
    },
  })
  const origin = `http://127.0.0.1:${server.address.port}`
  await load(origin, new KeySet(keys))
  return {
    facts: { port: server.address.port },
    totals: async () => {
      // The longest callbacks are those since the last time somebody asked.
      const probes = await probeTotals(workers, true)
      return { ...(await metricTotals(origin)), ...probes }
    },
    close: () => server.close(),
  }
}

async function load(origin: string, set: KeySet): Promise<void> {
  for (let index = 0; index < set.count; index += batchOperations) {
    const length = Math.min(batchOperations, set.count - index)
    const operations = Array.from({ length }, (_, offset) => ({
      op: 'put',
      key: keyText(index + offset),
      value64: set.value(index + offset).toString('base64'),
    }))
    const response = await fetch(`${origin}/v1/batch/default`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(operations),
    })
    const results = (await response.json()) as readonly { readonly status: number }[]
    if (results.length !== length || results.some(({ status }) => status !== 204)) {
      throw new Error(`The server did not take the keys: ${JSON.stringify(results).slice(0, 200)}`)
    }
  }
  const response = await fetch(`${origin}/v1/kv/default/${keyText(0)}`)
  if (!set.value(0).equals(new Uint8Array(await response.arrayBuffer()))) throw new Error('It gave another value')
}

/** What all shards have counted, once their counters say what happened before the call. */
async function metricTotals(origin: string): Promise<Totals> {
  const before = await updatesOf(origin)
  const deadlineMs = performance.now() + updateWaitMs
  for (;;) {
    const text = await metricsText(origin)
    const updates = countersIn(text).get(updatesName) ?? []
    if (updates.length > 0 && updates.every((count, shard) => count > (before[shard] ?? 0))) return totalsIn(text)
    if (performance.now() > deadlineMs) throw new Error('A shard did not write down its counters')
    await delay(pollMs)
  }
}

async function updatesOf(origin: string): Promise<readonly number[]> {
  return countersIn(await metricsText(origin)).get(updatesName) ?? []
}

async function metricsText(origin: string): Promise<string> {
  return (await fetch(`${origin}/metrics`)).text()
}

/** The values of each counter that shards have, shard by shard. */
function countersIn(text: string): Map<string, number[]> {
  const values = new Map<string, number[]>()
  for (const line of text.split('\n')) {
    const [, name, value] = /^(\w+)\{shard="\d+"\} (\S+)$/.exec(line) ?? []
    if (name !== undefined) values.set(name, [...(values.get(name) ?? []), Number(value)])
  }
  return values
}

function totalsIn(text: string): Totals {
  const totals: Record<string, number> = {}
  for (const [name, values] of countersIn(text)) {
    const count = counters[name]
    if (count !== undefined) totals[count] = values.reduce((sum, value) => sum + value, 0)
  }
  return totals
}
