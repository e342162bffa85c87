/**
 * Contenders in processes of their own, so that heaps, garbage and page caches of one do not slow another. This file is
 * both ends: `inChild` starts a process that runs this file's `serve`, which loads the contender's module and obeys.
 *
 *     parent                      child
 *     {verb: open, ...}    ->     import module, call its `open(options)`
 *                          <-     {facts}                      e.g. the port it listens on
 *     {verb: run}          ->     run() between two totals
 *                          <-     {measurement}
 *     {verb: totals}       ->
 *                          <-     {totals}
 *     {verb: close}        ->     close(), exit
 *
 * Every contender module exports `open(options)`. A contender that is measured from outside (a server) has no `run`.
 *
 * Profiling flags of this process are handed on: `node --cpu-prof --cpu-prof-dir=D native-free-bench/main.ts E3` leaves a
 * profile of every thread of every contender in D.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { type Contender, type Measurement, Unavailable } from './case.ts'
import { perOperation, type Totals, totalsNow } from './counts.ts'

/** What a contender module gives to the process that runs it. */
export type Hosted = {
  /** Told to the parent once open, such as a port. */
  readonly facts?: Readonly<Record<string, number>>
  run?(): Promise<Measurement> | Measurement
  /** Settles when nothing that the last run left goes on, such as merges: waited for, uncounted, before another contender runs. */
  settled?(): Promise<void>
  /** Totals that it counts itself, beside those of the process. */
  totals?(): Promise<Totals> | Totals
  close(): Promise<void> | void
}

/** The shape of a contender module. `options` is plain data. */
export type HostedModule<Options> = { open(options: Options): Promise<Hosted> | Hosted }

type Request =
  | { readonly verb: 'open'; readonly module: string; readonly options: unknown }
  | { readonly verb: 'run' | 'totals' | 'close' }

type Reply = {
  readonly facts?: Readonly<Record<string, number>>
  readonly measurement?: Measurement
  readonly totals?: Totals
  readonly error?: { readonly message: string; readonly unavailable: boolean }
}

/** A contender module open in another process. */
export class Child {
  readonly #process: ChildProcess
  #settle: { resolve(reply: Reply): void; reject(error: Error): void } | undefined
  #facts: Readonly<Record<string, number>> = {}

  private constructor(nodeFlags: readonly string[]) {
    this.#process = fork(fileURLToPath(import.meta.url), ['serve'], {
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      execArgv: [...process.execArgv.filter((flag) => flag.startsWith('--cpu-prof')), ...nodeFlags],
    })
    this.#process.on('message', (reply: Reply) => this.#answer(reply))
    this.#process.on('exit', (code, signal) => {
      this.#settle?.reject(new Error(`The contender's process ended with ${signal ?? `code ${code}`}`))
      this.#settle = undefined
    })
  }

  /** Starts a process and opens `module` (a path relative to this folder) in it. */
  static async open(module: string, options: unknown, nodeFlags: readonly string[] = []): Promise<Child> {
    const child = new Child(nodeFlags)
    try {
      child.#facts = (await child.#ask({ verb: 'open', module, options })).facts ?? {}
    } catch (error) {
      child.#process.kill()
      throw error
    }
    return child
  }

  /** What the module told when it was open. */
  fact(name: string): number {
    const fact = this.#facts[name]
    if (fact === undefined) throw new Error(`The contender told no ${name}`)
    return fact
  }

  async run(): Promise<Measurement> {
    const { measurement } = await this.#ask({ verb: 'run' })
    if (measurement === undefined) throw new Error('The contender gave no measurement')
    return measurement
  }

  /** Totals of the whole process; heap bytes are those of its main thread. */
  async totals(): Promise<Totals> {
    return (await this.#ask({ verb: 'totals' })).totals ?? {}
  }

  async close(): Promise<void> {
    const ended = new Promise<void>((resolve) => this.#process.once('exit', () => resolve()))
    await this.#ask({ verb: 'close' })
    await ended
  }

  #ask(request: Request): Promise<Reply> {
    return new Promise((resolve, reject) => {
      this.#settle = { resolve, reject }
      if (this.#process.exitCode === null) this.#process.send(request)
      else reject(new Error("The contender's process has ended"))
    })
  }

  #answer(reply: Reply): void {
    const settle = this.#settle
    this.#settle = undefined
    if (reply.error === undefined) settle?.resolve(reply)
    else settle?.reject(reply.error.unavailable ? new Unavailable(reply.error.message) : new Error(reply.error.message))
  }
}

/** An opener that runs `module` (a path relative to this folder) in a process of its own. */
export function inChild(module: string, options: unknown, nodeFlags: readonly string[] = []): () => Promise<Contender> {
  return () => Child.open(module, options, nodeFlags)
}

async function measured(hosted: Hosted): Promise<Measurement> {
  if (hosted.run === undefined) throw new Error('This contender is measured from outside')
  const ownBefore = await hosted.totals?.()
  const before = { ...ownBefore, ...totalsNow() }
  const { value, operations, counts } = await hosted.run()
  const processAfter = totalsNow()
  const after = { ...(await hosted.totals?.()), ...processAfter }
  await hosted.settled?.()
  return { value, operations, counts: { ...perOperation(before, after, operations), ...counts } }
}

function serve(): void {
  let hosted: Hosted | undefined
  const obey = async (request: Request): Promise<Reply> => {
    if (request.verb === 'open') {
      const module = (await import(new URL(request.module, import.meta.url).href)) as HostedModule<unknown>
      hosted = await module.open(request.options)
      return hosted.facts === undefined ? {} : { facts: hosted.facts }
    }
    if (hosted === undefined) throw new Error('Nothing is open')
    if (request.verb === 'run') return { measurement: await measured(hosted) }
    if (request.verb === 'totals') return { totals: { ...(await hosted.totals?.()), ...totalsNow() } }
    await hosted.close()
    return {}
  }
  process.on('message', (request: Request) => {
    obey(request)
      .catch((error: Error): Reply => {
        const unavailable = error instanceof Unavailable
        return { error: { message: unavailable ? error.message : (error.stack ?? String(error)), unavailable } }
      })
      .then((reply) => {
        process.send?.(reply, () => {
          if (request.verb === 'close') process.exit(0)
        })
      })
  })
  process.on('disconnect', () => process.exit(1))
}

if (process.argv[2] === 'serve' && process.send !== undefined && process.argv[1] === fileURLToPath(import.meta.url)) {
  serve()
}
