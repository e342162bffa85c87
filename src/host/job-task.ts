/** Tasks of the job pool, as they cross from the node thread to a pool thread and back. */
import type { ErrorMessage } from './messages.ts'

/** Words of the memory that the pool shares with its jobs. */
export const JobControl = {
  /** 1: no answer is wanted any more. */
  cancelled: 0,
  /** What a paced job may read and write, in KiB a second; 0: as much as it can. */
  kibPerSecond: 1,
  /** 1: a paced job works without rests. */
  isHurried: 2,
} as const

export type JobTask = {
  readonly kind: string
  readonly input: unknown
  /** Data directory, absolute. */
  readonly directory: string
  readonly control: SharedArrayBuffer
  /** False: somebody waits for it, so it has no rate. */
  readonly isPaced: boolean
}

export type JobResult = { readonly error: ErrorMessage | undefined; readonly output: unknown }
