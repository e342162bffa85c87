/**
 * Simulated jobs: the door `Jobs` over a simulated disk. A job waits until a test, or the seed, lets it run; it then runs to its end at
 * once, as one on another thread may while its shard does nothing.
 */
import type { SunwiseError } from '../../src/base/errors.ts'
import { SunwiseError as Coded } from '../../src/base/errors.ts'
import type { SeededRandom } from '../../src/base/seeded-random.ts'
import { ReusedMemory } from '../../src/base/work-memory.ts'
import type { Disk, Jobs, JobWorld } from '../../src/env.ts'

export type SimJobFunction = (input: never, world: JobWorld) => unknown

type Waiting = {
  readonly kind: string
  readonly input: unknown
  readonly done: (error: SunwiseError | undefined, output: unknown) => void
}

export class SimJobs implements Jobs {
  readonly #disk: Disk
  readonly #kinds: Readonly<Record<string, SimJobFunction>>
  readonly #onQueued: () => void
  /** Jobs find in their buffers what others left there. */
  readonly #memory = new ReusedMemory(1 << 22)
  #waiting: Waiting[] = []
  /** Jobs run so far, by kind. */
  readonly counts: Record<string, number> = {}

  constructor(disk: Disk, kinds: Readonly<Record<string, SimJobFunction>>, onQueued: () => void = () => {}) {
    this.#disk = disk
    this.#kinds = kinds
    this.#onQueued = onQueued
  }

  get waitingCount(): number {
    return this.#waiting.length
  }

  run(kind: string, input: unknown, done: (error: SunwiseError | undefined, output: unknown) => void): void {
    this.#waiting.push({ kind, input, done })
    this.#onQueued()
  }

  /** Runs one of the jobs that wait; false where none does. */
  runNext(random: SeededRandom): boolean {
    if (this.#waiting.length === 0) return false
    const [job] = this.#waiting.splice(random.below(this.#waiting.length), 1)
    const { kind, input, done } = job!
    this.counts[kind] = (this.counts[kind] ?? 0) + 1
    let output: unknown
    try {
      output = this.#kinds[kind]!(input as never, {
        disk: this.#disk,
        pace: () => {},
        isCancelled: false,
        memory: this.#memory,
      })
    } catch (error) {
      if (!(error instanceof Coded)) throw error
      done(error, undefined)
      return true
    } finally {
      this.#memory.end()
    }
    done(undefined, output)
    return true
  }
}
