/**
 * HTTP load from worker threads over raw sockets: requests are rendered before anything is measured, replies are counted
 * and not parsed, so that the generator costs as little as it can beside the server it measures.
 *
 * Closed loop: every connection sends its next request when its reply is there; this finds the peak. Open loop: requests
 * are due at a fixed rate, whether or not the server keeps up, and latency counts from the moment a request was due, not
 * from when a connection was free to send it (else a stall would hide the requests it held back: coordinated omission).
 * Between two due requests the generator pauses for 50 us at most instead of spinning, since on a small machine it shares
 * the processor with the server; so latencies may read up to 0.1 ms too long, never too short.
 */
import { Worker } from 'node:worker_threads'
import { Histogram, histogramWords } from '../src/base/histogram.ts'

export type LoadTarget = {
  readonly port: number
  readonly host?: string
  /** Connections of all threads together; kept open from run to run. */
  readonly connections: number
  readonly threads: number
  /** Whole requests as bytes; each connection walks through all of them from a place of its own. */
  readonly requests: readonly Uint8Array[]
  /** `fixed` where every reply has the length of the first one, which is cheaper; else `scanned`. */
  readonly replies: 'fixed' | 'scanned'
}

export type LoadRun = {
  readonly durationMs: number
  /** Requests per second over all connections; undefined: closed loop. */
  readonly ratePerSecond?: number
}

export type LoadResult = {
  readonly replies: number
  /** Replies that were not 2xx. */
  readonly failures: number
  /** Requests that were due in the open loop and could not be sent in twice the time. */
  readonly unsent: number
  readonly repliesPerSecond: number
  /** Nanoseconds from send (closed loop) or due time (open loop) to the end of the reply. */
  readonly latency: Histogram
}

/** What a load thread is started with. */
export type LoadThreadData = {
  readonly host: string
  readonly port: number
  readonly connections: number
  /** All requests, one after another. */
  readonly bytes: Uint8Array
  /** Request i is `bytes[offsets[i], offsets[i + 1])`. */
  readonly offsets: Uint32Array
  readonly fixedReplies: boolean
  /** Where the first connection starts among the requests. */
  readonly firstRequest: number
}

/** What a load thread answers after each run. */
export type LoadThreadResult = {
  readonly replies: number
  readonly failures: number
  readonly unsent: number
  readonly elapsedMs: number
  readonly histogram: Uint32Array
}

/** What a load thread says: that it is connected, or what a run gave. */
export type LoadThreadMessage = { readonly connected: true } | LoadThreadResult

/** Connected threads that can be told to send load, many times. */
export class LoadGenerator {
  readonly #workers: readonly Worker[]

  private constructor(workers: readonly Worker[]) {
    this.#workers = workers
  }

  /** Starts the threads and opens all connections. */
  static async connect(target: LoadTarget): Promise<LoadGenerator> {
    const offsets = new Uint32Array(new SharedArrayBuffer((target.requests.length + 1) * 4))
    for (const [index, request] of target.requests.entries()) offsets[index + 1] = offsets[index]! + request.length
    const bytes = new Uint8Array(new SharedArrayBuffer(offsets[target.requests.length]!))
    for (const [index, request] of target.requests.entries()) bytes.set(request, offsets[index])
    const workers = Array.from({ length: target.threads }, (_, thread) => {
      const share = Math.floor(target.connections / target.threads)
      const extra = thread < target.connections % target.threads ? 1 : 0
      const workerData: LoadThreadData = {
        host: target.host ?? '127.0.0.1',
        port: target.port,
        connections: share + extra,
        bytes,
        offsets,
        fixedReplies: target.replies === 'fixed',
        firstRequest: Math.floor((thread * target.requests.length) / target.threads),
      }
      return new Worker(new URL('load-thread.ts', import.meta.url), { workerData })
    })
    await Promise.all(workers.map(nextMessage))
    return new LoadGenerator(workers)
  }

  /** Sends load for `durationMs` and waits for the last replies. */
  async run({ durationMs, ratePerSecond }: LoadRun): Promise<LoadResult> {
    const rate = ratePerSecond === undefined ? undefined : ratePerSecond / this.#workers.length
    const answers = this.#workers.map(nextMessage)
    for (const worker of this.#workers) worker.postMessage({ durationMs, ratePerSecond: rate })
    const latency = new Histogram()
    const result = { replies: 0, failures: 0, unsent: 0, repliesPerSecond: 0, latency }
    for (const part of (await Promise.all(answers)) as LoadThreadResult[]) {
      result.replies += part.replies
      result.failures += part.failures
      result.unsent += part.unsent
      result.repliesPerSecond += (part.replies * 1000) / part.elapsedMs
      latency.merge(new Histogram(part.histogram.subarray(0, histogramWords)))
    }
    return result
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()))
  }
}

function nextMessage(worker: Worker): Promise<LoadThreadMessage> {
  return new Promise((resolve, reject) => {
    const settle = (message: LoadThreadMessage): void => {
      worker.off('error', reject)
      resolve(message)
    }
    worker.once('message', settle)
    worker.once('error', reject)
  })
}
