/**
 * The door `Jobs`, over piscina: threads that flush, and threads for everything else, so that a flush, which writers wait for, never
 * stands behind a compaction, which may take seconds. Threads start with the first job and end when there is none for a while.
 */
import { availableParallelism } from 'node:os'
import { Piscina } from 'piscina'
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { Jobs } from '../env.ts'
import type { JobRate } from './job-pace.ts'
import { JobControl, type JobResult, type JobTask } from './job-task.ts'
import { moduleUrl } from './module-url.ts'

const idleMs = 10_000
/** How long jobs that were cancelled may take to notice. */
const closeMs = 2_000

export class JobPool implements Jobs {
  readonly #directory: string
  readonly #control = new SharedArrayBuffer(12)
  #urgent: Piscina | undefined
  #background: Piscina | undefined
  readonly #running = new Set<Promise<void>>()
  #isClosed = false

  /** `directory` is the root of the jobs' disk. */
  constructor(directory: string) {
    this.#directory = directory
  }

  run(kind: string, input: unknown, done: (error: SunwiseError | undefined, output: unknown) => void): void {
    if (this.#isClosed) return done(new SunwiseError('CLOSED', 'The node is stopping'), undefined)
    if (this.#running.size >= Limits.jobsMax) {
      return done(new SunwiseError('OVERLOADED', `Cannot take job "${kind}": ${Limits.jobsMax} wait`), undefined)
    }
    const isPaced = kind !== 'flush'
    if (isPaced) this.#background ??= makePool(backgroundThreads())
    else this.#urgent ??= makePool(1)
    const pool = isPaced ? this.#background! : this.#urgent!
    const task: JobTask = { kind, input, directory: this.#directory, control: this.#control, isPaced }
    const running = pool.run(task, { name: 'runJob' }).then(
      ({ error, output }: JobResult) => {
        done(error === undefined ? undefined : new SunwiseError(error.code, error.message), output)
      },
      (cause: unknown) => {
        const code = this.#isClosed ? 'CLOSED' : 'INTERNAL'
        done(new SunwiseError(code, `Job "${kind}" got no answer: ${String(cause)}`, { cause }), undefined)
      },
    )
    this.#running.add(running)
    void running.finally(() => this.#running.delete(running))
  }

  /** How fast each thread for paced jobs may go. */
  setRate({ bytesPerSecond, rests }: JobRate): void {
    const control = new Int32Array(this.#control)
    Atomics.store(control, JobControl.kibPerSecond, Math.ceil(bytesPerSecond / 1024))
    Atomics.store(control, JobControl.isHurried, rests ? 0 : 1)
  }

  /** Cancels what runs and ends the threads. */
  async close(): Promise<void> {
    this.#isClosed = true
    const control = new Int32Array(this.#control)
    Atomics.store(control, JobControl.cancelled, 1)
    Atomics.notify(control, JobControl.cancelled)
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, closeMs)
    })
    await Promise.race([Promise.all(this.#running), late])
    clearTimeout(timer)
    await Promise.all([this.#urgent?.destroy(), this.#background?.destroy()])
  }
}

/** Threads that all pools of a process together may have. */
export function jobThreads(): number {
  return 1 + backgroundThreads()
}

/** One for two processors: the others serve. */
function backgroundThreads(): number {
  return Math.max(1, Math.floor(availableParallelism() / 2))
}

function makePool(maxThreads: number): Piscina {
  return new Piscina({
    filename: moduleUrl('job-worker', import.meta.url).href,
    minThreads: 0,
    maxThreads,
    idleTimeout: idleMs,
    maxQueue: Limits.jobsMax,
    concurrentTasksPerWorker: 1,
    // Jobs keep their data in buffers; a young generation of the usual size would be three times this.
    resourceLimits: { maxYoungGenerationSizeMb: 4 },
  })
}
