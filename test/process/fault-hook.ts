/**
 * Faults for a server under test, brought in from outside: preloaded into every thread of the process by `--import`, it wraps
 * the functions of node:fs that write, and acts on orders in a directory. The product knows nothing of it.
 *
 * SUNWISE_TEST_FAULTS holds JSON: `data` is the directory whose files count; `failNth` lets the n-th counted call of the whole
 * process fail with `code`, once; `orders` is a directory where a file `shard-N` makes the worker of shard N do what its text
 * says, once: `exit`, `throw`, `hang`, `stall` (one second), `fail CALL CODE` (the next call of that name fails), or `delay
 * CALL MS` (the next call of that name with a callback begins so much later).
 * Every fault that is done is told on stderr, and the number of counted calls at the end of the process.
 */
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import { getEnvironmentData, isMainThread, setEnvironmentData, workerData } from 'node:worker_threads'

export type Faults = {
  readonly data: string
  readonly failNth?: number
  readonly code?: string
  readonly orders?: string
}

type AnyFunction = (...values: unknown[]) => unknown

const text = process.env['SUNWISE_TEST_FAULTS']
if (text !== undefined) install(JSON.parse(text) as Faults)

function install(faults: Faults): void {
  const shared = 'sunwise-test-fault-count'
  if (isMainThread) setEnvironmentData(shared, new SharedArrayBuffer(4) as never)
  const count = new Int32Array(getEnvironmentData(shared) as unknown as SharedArrayBuffer)
  const shard = (workerData as { shard?: { shard?: number } } | null)?.shard?.shard
  const { readlinkSync, existsSync, readFileSync, unlinkSync } = fs
  const wanted: { call: string; code: string }[] = []
  const delays: { call: string; ms: number }[] = []

  const tell = (line: string): void => {
    fs.writeSync(2, `fault hook: ${line}\n`)
  }
  const pathOf = (what: unknown): string => {
    if (typeof what !== 'number') return String(what)
    try {
      return readlinkSync(`/proc/self/fd/${what}`)
    } catch {
      return ''
    }
  }
  const fault = (call: string, what: unknown): Error | undefined => {
    const path = pathOf(what)
    if (!path.startsWith(`${faults.data}/`) && path !== faults.data) return undefined
    const number = Atomics.add(count, 0, 1) + 1
    let code = number === faults.failNth ? (faults.code ?? 'EIO') : undefined
    const order = wanted.findIndex((entry) => entry.call === call)
    if (order >= 0) code = wanted.splice(order, 1)[0]!.code
    if (code === undefined) return undefined
    tell(`${call} of ${path.slice(faults.data.length)} fails with ${code} (call ${number})`)
    return Object.assign(new Error(`${code}: injected, ${call}`), { code, syscall: call })
  }
  const functions = fs as unknown as Record<string, AnyFunction>
  const calls = ['open', 'write', 'fsync', 'fdatasync', 'ftruncate', 'rename', 'unlink', 'rmdir', 'mkdir', 'link']
  for (const call of calls) {
    const atOnce = functions[`${call}Sync`]!
    functions[`${call}Sync`] = (...values) => {
      const error = fault(call, values[0])
      if (error !== undefined) throw error
      return atOnce.apply(fs, values)
    }
    const later = functions[call]!
    functions[call] = (...values) => {
      const error = fault(call, values[0])
      if (error === undefined) {
        const delay = delays.findIndex((entry) => entry.call === call)
        if (delay < 0) return later.apply(fs, values)
        tell(`${call} waits`)
        setTimeout(() => later.apply(fs, values), delays.splice(delay, 1)[0]!.ms)
        return undefined
      }
      setImmediate(values.at(-1) as AnyFunction, error)
      return undefined
    }
  }
  syncBuiltinESMExports()

  if (isMainThread) process.on('exit', () => tell(`${count[0]} calls`))
  const { orders } = faults
  if (orders === undefined || shard === undefined) return
  const order = join(orders, `shard-${shard}`)
  setInterval(() => {
    if (!existsSync(order)) return
    const [what, call, code] = readFileSync(order, 'utf8').trim().split(' ')
    unlinkSync(order)
    tell(`shard ${shard}: ${what} ${call ?? ''}`)
    if (what === 'exit') process.exit(7)
    if (what === 'throw') throw new Error('Thrown by order')
    if (what === 'hang') for (;;);
    if (what === 'stall') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000)
    if (what === 'fail') wanted.push({ call: call!, code: code! })
    if (what === 'delay') delays.push({ call: call!, ms: Number(code) })
  }, 10).unref()
}
