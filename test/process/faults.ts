/** The test's side of the fault hook: how a server is started with it, and how orders are given. */
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Faults } from './fault-hook.ts'

/** The environment that brings faults into a server process. */
export function faultEnvironment(faults: Faults): Record<string, string> {
  const hook = pathToFileURL(join(import.meta.dirname, 'fault-hook.ts')).href
  const options = [process.env['NODE_OPTIONS'] ?? '', `--import=${hook}`].join(' ').trim()
  return { NODE_OPTIONS: options, SUNWISE_TEST_FAULTS: JSON.stringify(faults) }
}

/** Gives the worker of a shard an order; settles when the worker has taken it. */
export async function giveOrder(orders: string, shard: number, what: string): Promise<void> {
  mkdirSync(orders, { recursive: true })
  const path = join(orders, `shard-${shard}`)
  writeFileSync(`${path}.new`, what)
  renameSync(`${path}.new`, path)
  while (existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 2))
}
