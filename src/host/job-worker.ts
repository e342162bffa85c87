/**
 * What a thread of the job pool runs: one job at a time, waiting for the disk where it must. It serves nobody, so it gives way to
 * the threads that do, unless writers wait for what it does: by its priority, by short bursts of work, and by a rate.
 */
import { readlinkSync } from 'node:fs'
import { setPriority } from 'node:os'
import { SunwiseError } from '../base/errors.ts'
import { ReusedMemory } from '../base/work-memory.ts'
import { Limits } from '../config.ts'
import type { JobWorld } from '../env.ts'
import { HostDisk } from './disk.ts'
import { JobBursts } from './job-pace.ts'
import { jobTable } from './job-table.ts'
import { JobControl, type JobResult, type JobTask } from './job-task.ts'

const niceness = 10
const memory = new ReusedMemory(Limits.jobMemoryBytes)
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
  } finally {
    memory.end()
  }
}

function worldOf({ directory, control, isPaced }: JobTask): JobWorld {
  const words = new Int32Array(control)
  const bursts = new JobBursts(isPaced, performance.now())
  return {
    disk: new HostDisk(directory),
    memory,
    pace: (bytes) => {
      const bytesPerSecond = Atomics.load(words, JobControl.kibPerSecond) * 1024
      const rests = Atomics.load(words, JobControl.isHurried) === 0
      const restMs = bursts.restMs(bytes, performance.now(), { bytesPerSecond, rests })
      if (restMs === 0) return
      // A cancelled job is woken.
      Atomics.wait(words, JobControl.cancelled, 0, restMs)
      bursts.resume(performance.now())
    },
    get isCancelled() {
      return Atomics.load(words, JobControl.cancelled) === 1
    },
  }
}
