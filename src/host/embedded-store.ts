/**
 * The application's side of an embedded store: its thread is a front end, a reader of shared memory and a ring client. Its
 * event loop is kept alive only while requests are under way.
 */
import { Worker } from 'node:worker_threads'
import { BytePool } from '../base/byte-pool.ts'
import { SunwiseError } from '../base/errors.ts'
import type { Config } from '../config.ts'
import { LocalReads } from '../replication/local-reads.ts'
import type { EmbeddedData, FromNode, ToNode } from './embedded-messages.ts'
import type { ErrorMessage, FromThread } from './messages.ts'
import { moduleUrl } from './module-url.ts'
import { ThreadRuntime } from './thread-runtime.ts'
import { TurnLoop, turnMsMax } from './turn-loop.ts'

const tickMs = 20

const closedError = new SunwiseError('CLOSED', 'The store is closed')

const errorOf = (message: ErrorMessage): SunwiseError => new SunwiseError(message.code, message.message)

export class EmbeddedStore {
  readonly runtime: ThreadRuntime
  readonly reads: LocalReads
  readonly nodeId: string
  /** The data directory. */
  readonly directory: string
  readonly recoveredRecords: number
  readonly #worker: Worker
  readonly #loop: TurnLoop
  readonly #timer: NodeJS.Timeout
  #isTimerHeld = false
  #isPublishDue = false
  #failure: SunwiseError | undefined
  #closing: Promise<void> | undefined
  #stopped: ((error: SunwiseError | undefined) => void) | undefined
  readonly #log: (line: string) => void

  /** Starts the node thread and joins it; rejects with a coded error. */
  static open(config: Config, log: (line: string) => void): Promise<EmbeddedStore> {
    const data: EmbeddedData = { config }
    const worker = new Worker(moduleUrl('embedded-node', import.meta.url), { workerData: data, name: 'sunwise-node' })
    return new Promise((resolve, reject) => {
      const failed = (error: Error): void => {
        worker.off('exit', ended)
        void worker.terminate()
        reject(
          error instanceof SunwiseError
            ? error
            : new SunwiseError('INTERNAL', `The node thread failed: ${error.message}`, { cause: error }),
        )
      }
      const ended = (code: number): void => failed(new Error(`it exited with code ${code}`))
      worker.once('error', failed)
      worker.once('exit', ended)
      const waiting = (message: FromNode): void => {
        if (message.type === 'log') return log(message.line)
        if (message.type === 'startFailed') return failed(errorOf(message.error))
        if (message.type !== 'started') return
        worker.off('message', waiting)
        worker.off('error', failed)
        worker.off('exit', ended)
        resolve(new EmbeddedStore(worker, message, config.directory, log))
      }
      worker.on('message', waiting)
    })
  }

  private constructor(
    worker: Worker,
    started: FromNode & { type: 'started' },
    directory: string,
    log: (line: string) => void,
  ) {
    this.#worker = worker
    this.#log = log
    this.directory = directory
    this.nodeId = started.nodeId
    this.recoveredRecords = started.recoveredRecords
    const { seed } = started
    const pool = new BytePool()
    this.runtime = new ThreadRuntime(
      seed,
      (message) => this.#ask(message),
      (bytes) => pool.allocate(bytes),
    )
    const { links, coordinator, bell, readers, clock } = this.runtime
    this.reads = new LocalReads({
      shards: seed.shards,
      readerOf: (shard) => readers[shard]!,
      hashSeed: seed.hashSeed,
      epochMs: () => clock.epochMs(),
    })
    this.#loop = new TurnLoop(links, bell, () => (links.drain(() => true, turnMsMax) > 0 ? 'worked' : 'idle'))
    links.handle(
      () => {},
      (u8, i32, start) => coordinator.receive(u8, i32, start),
      () => this.#onSend(),
    )
    this.runtime.connect(seed)
    bell.unref()
    this.#timer = setInterval(() => this.#tick(), tickMs)
    this.#timer.unref()
    worker.on('message', (message: FromNode) => this.#receive(message))
    worker.on('error', (error) =>
      this.#fail(new SunwiseError('INTERNAL', `The node thread failed: ${String(error)}`, { cause: error })),
    )
    worker.on('exit', () => this.#fail(new SunwiseError('CLOSED', 'The node thread has ended')))
    // Adding the first listener of messages holds the event loop again, so this comes behind it.
    worker.unref()
    this.#loop.schedule()
  }

  /** Why the store cannot serve any more; undefined while it can. */
  get failure(): SunwiseError | undefined {
    return this.#failure
  }

  /** Wakes rung and heard by this thread, for benches. */
  get wakes(): { readonly rung: number; readonly heard: number } {
    return { rung: this.runtime.bell.bellsRung, heard: this.runtime.bell.bellsHeard }
  }

  /** Ends cleanly. Requests under way settle first or fail with CLOSED. A second call waits for the first. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    const wasFailed = this.#failure !== undefined
    this.#failure ??= closedError
    this.#worker.ref()
    try {
      if (wasFailed) return
      await this.#drain()
      await new Promise<void>((resolve, reject) => {
        this.#stopped = (error) => (error === undefined ? resolve() : reject(error))
        this.#post({ type: 'stop' })
      })
    } finally {
      this.#release(closedError)
      await this.#worker.terminate()
    }
  }

  /** Waits until what was asked before has been answered; every request has a deadline, so this ends. */
  async #drain(): Promise<void> {
    this.#timer.ref()
    const { coordinator, buckets } = this.runtime
    while (coordinator.pendingCount + buckets.waitingCount > 0) await new Promise((resolve) => setTimeout(resolve, 1))
  }

  /** Settles what still waits, and lets go of everything that could hold the application's event loop. */
  #release(error: SunwiseError): void {
    clearInterval(this.#timer)
    this.runtime.coordinator.close()
    this.runtime.buckets.fail(error)
    this.#loop.stop()
    this.runtime.bell[Symbol.dispose]()
  }

  /** Frames were written: publish them when the code that runs now is done, so that one bell serves all of it. */
  #onSend(): void {
    if (!this.#isTimerHeld) {
      this.#isTimerHeld = true
      this.#timer.ref()
    }
    if (this.#isPublishDue) return
    this.#isPublishDue = true
    queueMicrotask(() => {
      this.#isPublishDue = false
      this.runtime.links.publish()
    })
  }

  #tick(): void {
    // After a stall of the application answers may lie here that came in time: take them before deadlines are judged.
    this.runtime.links.drain(() => true)
    this.runtime.coordinator.tick()
    this.runtime.links.publish()
    if (this.runtime.coordinator.pendingCount === 0 && this.#isTimerHeld && this.#failure === undefined) {
      this.#isTimerHeld = false
      this.#timer.unref()
    }
  }

  #receive(message: FromNode): void {
    switch (message.type) {
      case 'log':
        this.#log(message.line)
        return
      case 'fatal':
        this.#fail(errorOf(message.error))
        return
      case 'stopped':
        this.#stopped?.(message.error === undefined ? undefined : errorOf(message.error))
        return
      case 'started':
      case 'startFailed':
        return
      default:
        if (this.runtime.receive(message)) this.#loop.schedule()
    }
  }

  #fail(error: SunwiseError): void {
    if (this.#failure === undefined) {
      this.#failure = error
      for (let shard = 0; shard < this.runtime.readers.length; shard++) this.runtime.coordinator.shardDown(shard)
      this.#release(error)
      this.#log(error.message)
    }
    this.#stopped?.(error)
  }

  #ask(message: FromThread): void {
    if (message.type === 'admin') this.#post({ type: 'admin', id: message.id, request: message.request })
  }

  #post(message: ToNode): void {
    this.#worker.postMessage(message)
  }
}
