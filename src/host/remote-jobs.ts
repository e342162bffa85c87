/** Jobs and commits of tables as a shard worker asks for them: by messages to the node thread, which has the pool and the catalog. */
import { SunwiseError } from '../base/errors.ts'
import type { CatalogEdit, Jobs } from '../env.ts'
import type { ErrorMessage, FromThread } from './messages.ts'

type JobDone = (error: SunwiseError | undefined, output: unknown) => void
type CommitDone = (error: SunwiseError | undefined, orphans: readonly string[]) => void

export class RemoteJobs implements Jobs {
  readonly #post: (message: FromThread) => void
  readonly #jobs = new Map<number, JobDone>()
  readonly #commits = new Map<number, CommitDone>()
  #nextId = 1

  constructor(post: (message: FromThread) => void) {
    this.#post = post
  }

  run(kind: string, input: unknown, done: JobDone): void {
    const id = this.#nextId++
    this.#jobs.set(id, done)
    this.#post({ type: 'job', id, kind, input })
  }

  commit(edits: readonly CatalogEdit[], unnamed: readonly string[], done: CommitDone): void {
    const id = this.#nextId++
    this.#commits.set(id, done)
    this.#post({ type: 'tableCommit', id, edits, unnamed })
  }

  jobDone(id: number, error: ErrorMessage | undefined, output: unknown): void {
    const done = this.#jobs.get(id)
    this.#jobs.delete(id)
    done?.(coded(error), output)
  }

  committed(id: number, error: ErrorMessage | undefined, orphans: readonly string[]): void {
    const done = this.#commits.get(id)
    this.#commits.delete(id)
    done?.(coded(error), orphans)
  }
}

function coded(error: ErrorMessage | undefined): SunwiseError | undefined {
  return error === undefined ? undefined : new SunwiseError(error.code, error.message)
}
