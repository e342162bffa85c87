/**
 * A Sunwise server as `sunwise start` runs it: the node thread is this one, every shard worker listens on the same port. Its
 * keys are loaded over HTTP in batches before it is measured.
 */
import { join } from 'node:path'
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
/** The shards' counters in `/metrics`, which are written every 20 ms, and their names in the report. */
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

async function metricTotals(origin: string): Promise<Totals> {
  await new Promise((resolve) => setTimeout(resolve, 60))
  const totals: Record<string, number> = {}
  for (const line of (await (await fetch(`${origin}/metrics`)).text()).split('\n')) {
    const [, name, value] = /^(\w+)\{shard="\d+"\} (\S+)$/.exec(line) ?? []
    const count = name === undefined ? undefined : counters[name]
    if (count !== undefined) totals[count] = (totals[count] ?? 0) + Number(value)
  }
  return totals
}
