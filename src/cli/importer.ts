/**
 * Writes many records through batches with several in flight, and knows at any moment what became of each.
 *
 * Invariants:
 * - Records of one key are written in the order of the file: a key waits while an earlier record of it is under way.
 * - A record is sent again only when the server said that it was not written and may be retried.
 * - When the server as a whole fails, nothing more is sent; `resumeAfter` says how many leading records need not be sent again.
 * - Memory: at most `concurrency` batches and one in the making, each of at most `BATCH_BYTES` and one record.
 */
import { SunwiseError } from '../base/errors.ts'
import type { HttpClient } from '../client/http-client.ts'
import type { ImportRecord } from './import-record.ts'

/** Operations and bytes of one batch: large enough to share a sync, small enough for many to be under way. */
const BATCH_RECORDS = 250
const BATCH_BYTES = 1024 * 1024
/** A larger value travels alone: in a batch its base64 might exceed the largest body. */
const SINGLE_BYTES = 2 * 1024 * 1024
/** Pauses before refused records are sent again. */
const RETRY_PAUSE_MS = { first: 50, max: 2_000 } as const

type Pending = { readonly ordinal: number; readonly name: string; readonly record: ImportRecord }

/** What became of the records so far. */
export type ImportCounts = {
  stored: number
  /** Surely not written. */
  failed: number
  /** May have been written. */
  unknown: number
  /** Bytes of keys and values stored. */
  bytes: number
}

export type ImporterOptions = {
  /** Batches in flight. */
  readonly concurrency: number
  /** Most records of a batch; 250 if left out. */
  readonly batchRecords?: number
  /** How long records that the server refuses for the moment are sent again. */
  readonly retryMs: number
  readonly signal?: AbortSignal
  /** Called once per record, in no particular order; `error` is undefined when it is stored. */
  readonly onResult?: (ordinal: number, record: ImportRecord, error: SunwiseError | undefined) => void
  /** Called per request with its size and time. */
  readonly onRequest?: (records: number, elapsedMs: number) => void
}

/** One import. Call `add` for each record in turn, then `finish`. */
export class Importer {
  readonly counts: ImportCounts = { stored: 0, failed: 0, unknown: 0, bytes: 0 }
  readonly #client: HttpClient
  readonly #options: ImporterOptions
  readonly #inFlight = new Set<Promise<void>>()
  /** Keys in the making and under way. */
  readonly #names = new Set<string>()
  /** Ordinals without a result, oldest first. */
  readonly #unsettled = new Set<number>()
  #building: Pending[] = []
  #buildingBytes = 0
  #lastOrdinal = 0
  #fatal: SunwiseError | undefined

  constructor(client: HttpClient, options: ImporterOptions) {
    this.#client = client
    this.#options = options
  }

  /** All records up to this ordinal have a result that sending them again would not better. */
  get resumeAfter(): number {
    for (const ordinal of this.#unsettled) return ordinal - 1
    return this.#lastOrdinal
  }

  /** Takes a record; waits while enough is under way. @throws SunwiseError when the server as a whole failed */
  async add(ordinal: number, record: ImportRecord): Promise<void> {
    const name = Buffer.from(record.key).toString('latin1')
    const bytes = record.key.length + record.value.length
    if (this.#names.has(name)) {
      await this.#flush()
      while (this.#names.has(name) && this.#inFlight.size > 0) await Promise.race(this.#inFlight)
    }
    if (this.#buildingBytes + bytes > BATCH_BYTES) await this.#flush()
    this.#check()
    this.#names.add(name)
    this.#unsettled.add(ordinal)
    this.#lastOrdinal = ordinal
    this.#building.push({ ordinal, name, record })
    this.#buildingBytes += bytes
    if (this.#building.length >= (this.#options.batchRecords ?? BATCH_RECORDS)) await this.#flush()
  }

  /** Notes that a record needs nothing done: it counts as settled for `resumeAfter`. */
  skip(ordinal: number): void {
    this.#lastOrdinal = ordinal
  }

  /** Sends what is left and waits for all answers. @throws SunwiseError when the server as a whole failed */
  async finish(): Promise<void> {
    if (this.#fatal === undefined) await this.#flush()
    await Promise.all(this.#inFlight)
    this.#check()
  }

  #check(): void {
    if (this.#fatal !== undefined) throw this.#fatal
  }

  async #flush(): Promise<void> {
    while (this.#inFlight.size >= this.#options.concurrency) await Promise.race(this.#inFlight)
    this.#check()
    if (this.#building.length === 0) return
    const sending: Promise<void> = this.#send(this.#building).finally(() => this.#inFlight.delete(sending))
    this.#building = []
    this.#buildingBytes = 0
    this.#inFlight.add(sending)
  }

  async #send(batch: Pending[]): Promise<void> {
    const giveUpAt = performance.now() + this.#options.retryMs
    let pauseMs: number = RETRY_PAUSE_MS.first
    for (let left = batch; ; pauseMs = Math.min(RETRY_PAUSE_MS.max, pauseMs * 2)) {
      const refused: Pending[] = []
      let refusal: SunwiseError | undefined
      const started = performance.now()
      try {
        const errors = await this.#request(left)
        this.#options.onRequest?.(left.length, performance.now() - started)
        left.forEach((pending, index) => {
          const error = errors[index]
          if (error?.retryable && error.outcome === 'none') {
            refused.push(pending)
            refusal = error
          } else {
            this.#unsettled.delete(pending.ordinal)
            this.#settle(pending, error)
          }
        })
      } catch (caught) {
        this.#fail(left, caught)
        return
      }
      if (refusal === undefined) return
      if (this.#options.signal?.aborted || performance.now() + pauseMs > giveUpAt) {
        // What is refused for so long is the server's state, not this record's fault.
        this.#fail(refused, refusal)
        return
      }
      left = refused
      await new Promise((resolve) => setTimeout(resolve, pauseMs * (0.5 + Math.random())))
    }
  }

  /** One result per record, undefined for success. Rejects when the request as a whole failed. */
  async #request(batch: readonly Pending[]): Promise<(SunwiseError | undefined)[]> {
    const { signal } = this.#options
    const call = signal === undefined ? {} : { signal }
    const { record } = batch[0]!
    if (batch.length > 1 || record.value.length <= SINGLE_BYTES) {
      const operations = batch.map(({ record: { key, value, ttlMs, contentType } }) => {
        return { op: 'put' as const, key, value, ttlMs, contentType }
      })
      return (await this.#client.batch(operations, call)).map((result) => result.error)
    }
    try {
      await this.#client.put(record.key, record.value, {
        ...call,
        ...(record.ttlMs === undefined ? {} : { ttlMs: record.ttlMs }),
        ...(record.contentType === undefined ? {} : { contentType: record.contentType }),
      })
      return [undefined]
    } catch (error) {
      const isOwnFault = error instanceof SunwiseError && error.code === 'VALUE_TOO_LARGE'
      if (isOwnFault) return [error]
      throw error
    }
  }

  #settle(pending: Pending, error: SunwiseError | undefined): void {
    this.#names.delete(pending.name)
    if (error === undefined) {
      this.counts.stored++
      this.counts.bytes += pending.record.key.length + pending.record.value.length
    } else if (error.outcome === 'none') this.counts.failed++
    else this.counts.unknown++
    this.#options.onResult?.(pending.ordinal, pending.record, error)
  }

  /** The server as a whole failed: `batch` and all that follows stay unsettled. */
  #fail(batch: readonly Pending[], caught: unknown): void {
    const error =
      caught instanceof SunwiseError ? caught : new SunwiseError('INTERNAL', String(caught), { cause: caught })
    this.#fatal ??= error
    for (const pending of batch) this.#settle(pending, error)
  }
}
