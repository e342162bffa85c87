/**
 * What a thread of the job pool runs: one job at a time, waiting for the disk where it must. It serves nobody, so it gives way to
 * the threads that do, unless writers wait for what it does.
 */
import { readlinkSync } from 'node:fs'
import { setPriority } from 'node:os'
import { SunwiseError } from '../base/errors.ts'
import type { JobWorld } from '../env.ts'
import { HostDisk } from './disk.ts'
import { jobTable } from './job-table.ts'
import { JobControl, type JobResult, type JobTask } from './job-task.ts'

/** Bytes after which a job looks at its rate. */
const pacedBytes = 256 * 1024
const niceness = 10
let hasGivenWay = false

/** Lets the other threads of the process go first, where the system knows threads of their own (Linux). */
function giveWay(): void {
  if (hasGivenWay) return
  hasGivenWay = true
  try {
    const thread = Number(readlinkSync('/proc/thread-self').split('/').at(-1))
    if (Number.isSafeInteger(thread)) setPriority(thread, niceness)
  } catch {
    // Elsewhere, or where it is forbidden, jobs compete like the rest.
  }
}

/** Runs a task; the pool calls it by its name. */
export function runJob(task: JobTask): JobResult {
  if (task.isPaced) giveWay()
  const job = jobTable[task.kind]
  if (job === undefined)
    return { error: { code: 'INTERNAL', message: `There is no job "${task.kind}"` }, output: undefined }
  try {
    return { error: undefined, output: job(task.input as never, worldOf(task)) }
  } catch (error) {
    if (error instanceof SunwiseError) {
      return { error: { code: error.code, message: error.message }, output: undefined }
    }
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error)
    return { error: { code: 'INTERNAL', message: `Job "${task.kind}" broke: ${message}` }, output: undefined }
  }
}

function worldOf({ directory, control, isPaced }: JobTask): JobWorld {
  const words = new Int32Array(control)
  let bytesSince = 0
  let sinceMs = performance.now()
  return {
    disk: new HostDisk(directory),
    pace: (bytes) => {
      bytesSince += bytes
      if (!isPaced || bytesSince < pacedBytes) return
      const kibPerSecond = Atomics.load(words, JobControl.kibPerSecond)
      const wantedMs = kibPerSecond === 0 ? 0 : (bytesSince / 1024 / kibPerSecond) * 1000
      const leftMs = wantedMs - (performance.now() - sinceMs)
      if (leftMs > 0) Atomics.wait(words, JobControl.cancelled, 0, leftMs)
      bytesSince = 0
      sinceMs = performance.now()
    },
    get isCancelled() {
      return Atomics.load(words, JobControl.cancelled) === 1
    },
  }
}
