/**
 * Loaded before anything else into every thread of a contender (`--import`, which worker threads inherit): shard threads
 * answer on a broadcast channel what they allocated, how much processor time they took and how long they kept their thread.
 * The product knows nothing of it.
 *
 *     asker -> {ask: n, reset}       on the channel; `reset`: the longest ones start anew
 *     shard -> {answer: n, totals}   one per shard thread
 *
 * With `?callbacks` behind the path of this file a hook notes how long each callback of the event loop ran, and the longest
 * delay of the loop. That costs about a microsecond a callback, so only the row that asks for it pays.
 */
import { createHook } from 'node:async_hooks'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { getHeapStatistics } from 'node:v8'
import { BroadcastChannel, isMainThread, threadName } from 'node:worker_threads'

export const probeChannel = 'sunwise-bench-probe'

export type ProbeQuestion = { readonly ask: number; readonly reset: boolean }
export type ProbeAnswer = { readonly answer: number; readonly totals: Readonly<Record<string, number>> }

/** The longest callback so far by wall-clock time, and (maybe another one) by processor time; ms. */
const longest = { callbackMs: 0, processorMs: 0 }
let depth = 0
let startMs = 0
let startUsage: NodeJS.CpuUsage = { user: 0, system: 0 }

/** Notes the outermost callbacks; what they call in turn is part of them. */
function watchCallbacks(): void {
  const before = (): void => {
    if (depth++ > 0) return
    startUsage = process.threadCpuUsage()
    startMs = performance.now()
  }
  const after = (): void => {
    if (--depth > 0) return
    depth = 0
    const tookMs = performance.now() - startMs
    if (tookMs <= longest.callbackMs && tookMs < 1) return
    const { user, system } = process.threadCpuUsage(startUsage)
    longest.callbackMs = Math.max(longest.callbackMs, tookMs)
    // The system may count processor time in ticks of some milliseconds: never believe more than went by.
    longest.processorMs = Math.max(longest.processorMs, Math.min(tookMs, (user + system) / 1000))
  }
  createHook({ before, after, trackPromises: false }).enable()
}

function answerQuestions(watches: boolean): void {
  const channel = new BroadcastChannel(probeChannel)
  const delay = monitorEventLoopDelay({ resolution: 1 })
  if (watches) {
    watchCallbacks()
    delay.enable()
  }
  channel.onmessage = (event) => {
    const { ask, reset } = (event as { data: ProbeQuestion }).data
    if (ask === undefined) return
    const { user, system } = process.threadCpuUsage()
    // @types/node lags behind: the field is in V8 since Node 24.
    const heap = getHeapStatistics() as ReturnType<typeof getHeapStatistics> & { total_allocated_bytes?: number }
    const totals: Record<string, number> = { 'shard cpu us': user + system }
    if (heap.total_allocated_bytes !== undefined) totals['shard heap B'] = heap.total_allocated_bytes
    if (watches) {
      totals['longest callback ms'] = longest.callbackMs
      totals['longest callback cpu ms'] = longest.processorMs
      totals['longest loop delay ms'] = delay.max / 1e6
      if (reset) {
        longest.callbackMs = 0
        longest.processorMs = 0
        delay.reset()
      }
    }
    const answer: ProbeAnswer = { answer: ask, totals }
    channel.postMessage(answer)
  }
  // The types know `unref` only on the object that Node really gives.
  ;(channel as BroadcastChannel & { unref(): void }).unref()
}

if (!isMainThread && threadName?.startsWith('sunwise-shard') === true) {
  answerQuestions(new URL(import.meta.url).searchParams.has('callbacks'))
}
