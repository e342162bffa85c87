/**
 * One thread of the load generator: some connections, one request in flight on each. See load-generator.ts for what is
 * measured; here stands only how. Nothing is allocated per request but what the socket itself allocates.
 */
import { connect, type Socket } from 'node:net'
import { parentPort, workerData } from 'node:worker_threads'
import { Histogram, histogramWords } from '../src/base/histogram.ts'
import type { LoadRun, LoadThreadData, LoadThreadMessage } from './load-generator.ts'
import { ReplyCounter } from './reply-counter.ts'

const pauseMs = 0.05

class LoadThread {
  readonly #requests: readonly Buffer[]
  readonly #sockets: Socket[] = []
  readonly #counters: ReplyCounter[] = []
  readonly #next: Uint32Array
  /** When the request under way on a connection was sent (closed loop) or due (open loop); ms. */
  readonly #since: Float64Array
  /** Connections without a request under way, in open loop. */
  readonly #free: number[] = []
  readonly #words = new Uint32Array(histogramWords)
  readonly #histogram = new Histogram(this.#words)
  readonly #sleeper = new Int32Array(new SharedArrayBuffer(4))
  #underWay = 0
  #replies = 0
  #startMs = 0
  #endMs = 0
  /** Milliseconds between two due requests; 0: closed loop. */
  #intervalMs = 0
  #sent = 0
  #due = 0

  constructor(data: LoadThreadData) {
    const bytes = Buffer.from(data.bytes.buffer, data.bytes.byteOffset, data.bytes.byteLength)
    const count = data.offsets.length - 1
    this.#requests = Array.from({ length: count }, (_, index) =>
      bytes.subarray(data.offsets[index], data.offsets[index + 1]),
    )
    this.#since = new Float64Array(data.connections)
    this.#next = new Uint32Array(data.connections)
    for (let index = 0; index < data.connections; index++) {
      this.#next[index] = (data.firstRequest + Math.floor((index * count) / data.connections)) % count
      this.#counters.push(new ReplyCounter(data.fixedReplies))
      this.#sockets.push(this.#connect(index, data))
    }
  }

  /** Resolves when every connection stands. */
  async connected(): Promise<void> {
    await Promise.all(this.#sockets.map((socket) => new Promise((resolve) => socket.once('connect', resolve))))
  }

  start({ durationMs, ratePerSecond }: LoadRun): void {
    this.#histogram.reset()
    for (const counter of this.#counters) counter.failures = 0
    this.#replies = 0
    this.#sent = 0
    this.#intervalMs = ratePerSecond === undefined ? 0 : 1000 / ratePerSecond
    this.#due = ratePerSecond === undefined ? 0 : Math.max(1, Math.floor((durationMs * ratePerSecond) / 1000))
    this.#startMs = performance.now()
    this.#endMs = this.#startMs + durationMs
    if (this.#intervalMs === 0) {
      for (let index = 0; index < this.#sockets.length; index++) this.#send(index, performance.now())
      return
    }
    this.#free.length = 0
    for (let index = 0; index < this.#sockets.length; index++) this.#free.push(index)
    this.#tick()
  }

  #connect(index: number, data: LoadThreadData): Socket {
    const socket = connect({ host: data.host, port: data.port, noDelay: true })
    const counter = this.#counters[index]!
    socket.on('data', (chunk: Buffer) => {
      const replies = counter.push(chunk)
      if (replies === 1) this.#answered(index)
      else if (replies > 1) throw new Error('More replies than requests on one connection')
    })
    // An exception ends the thread, and the generator hears of it: a load with fewer connections would be another load.
    socket.on('close', () => {
      throw new Error('The server closed a connection of the load generator')
    })
    return socket
  }

  #send(index: number, sinceMs: number): void {
    const request = this.#next[index]!
    this.#next[index] = request + 1 === this.#requests.length ? 0 : request + 1
    this.#since[index] = sinceMs
    this.#underWay++
    this.#sockets[index]!.write(this.#requests[request]!)
  }

  #answered(index: number): void {
    const nowMs = performance.now()
    this.#histogram.record((nowMs - this.#since[index]!) * 1e6)
    this.#replies++
    this.#underWay--
    if (this.#intervalMs === 0) {
      if (nowMs < this.#endMs) this.#send(index, nowMs)
      else if (this.#underWay === 0) this.#finish(nowMs)
      return
    }
    this.#free.push(index)
    this.#sendDue(nowMs)
  }

  #sendDue(nowMs: number): void {
    while (this.#free.length > 0 && this.#sent < this.#due) {
      const dueMs = this.#startMs + this.#sent * this.#intervalMs
      if (dueMs > nowMs) return
      this.#sent++
      this.#send(this.#free.pop()!, dueMs)
    }
  }

  #tick(): void {
    const nowMs = performance.now()
    this.#sendDue(nowMs)
    const late = nowMs > this.#endMs + (this.#endMs - this.#startMs)
    if (this.#underWay === 0 && (this.#sent === this.#due || late)) {
      this.#finish(nowMs)
      return
    }
    if (late) this.#due = this.#sent
    const idleMs = this.#startMs + this.#sent * this.#intervalMs - nowMs
    if (idleMs > pauseMs) Atomics.wait(this.#sleeper, 0, 0, pauseMs)
    setImmediate(() => this.#tick())
  }

  #finish(nowMs: number): void {
    const dueAtFirst =
      this.#intervalMs === 0 ? 0 : Math.max(1, Math.floor((this.#endMs - this.#startMs) / this.#intervalMs))
    say({
      replies: this.#replies,
      failures: this.#counters.reduce((total, counter) => total + counter.failures, 0),
      unsent: Math.max(0, dueAtFirst - this.#replies),
      elapsedMs: nowMs - this.#startMs,
      histogram: this.#words,
    })
  }
}

function say(message: LoadThreadMessage): void {
  parentPort?.postMessage(message)
}

const thread = new LoadThread(workerData as LoadThreadData)
await thread.connected()
parentPort?.on('message', (run: LoadRun) => thread.start(run))
say({ connected: true })
