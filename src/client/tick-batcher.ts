/**
 * Gathers the operations of one turn of the event loop into batches: one request for each server and kind instead of one for each operation.
 * Reads and writes go apart, so that reads may be repeated and hedged. An operation alone in its turn goes as it is.
 *
 * Bounds: a batch has some operations and bytes at the most; what is gathered and under way is bounded by the client. What a batch refuses
 * without having done anything, or could not read, goes once more by itself, within the same deadline.
 */
import type { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { ClientEntry } from './http-answer.ts'
import type { ClientBatchOperation, HttpClient } from './http-client.ts'
import { bytesOfKey } from './key-bytes.ts'

/** Bytes of keys and values of one batch: as JSON they are at most six times as many. */
const BATCH_BYTES_MAX = Limits.batchBytesMax / 8

type Gathered = {
  readonly operation: ClientBatchOperation
  readonly key: Uint8Array
  readonly deadline: number
  readonly resolve: (entry: ClientEntry | Promise<ClientEntry>) => void
  readonly reject: (error: unknown) => void
}

/** Bytes that an operation adds to a request. */
function bytesOf(operation: ClientBatchOperation): number {
  return operation.key.length + (operation.op === 'put' ? operation.value.length : 0)
}

export class TickBatcher {
  readonly #client: HttpClient
  readonly #timeoutMs: number
  readonly #operationsMax: number
  #gathered: Gathered[] = []

  /** `timeoutMs` holds for every operation; a batch has at most `operationsMax`. */
  constructor(client: HttpClient, timeoutMs: number, operationsMax: number) {
    this.#client = client
    this.#timeoutMs = timeoutMs
    this.#operationsMax = Math.min(operationsMax, Limits.batchOperationsMax)
  }

  /**
   * The entry of one operation, without values for a write. It has no precondition, and its bytes stay as they are until
   * the promise settles.
   */
  add(operation: ClientBatchOperation): Promise<ClientEntry> {
    const key = bytesOfKey(operation.key)
    const { promise, resolve, reject } = Promise.withResolvers<ClientEntry>()
    if (this.#gathered.length === 0) setImmediate(() => this.#flush())
    this.#gathered.push({ operation, key, deadline: performance.now() + this.#timeoutMs, resolve, reject })
    return promise
  }

  #flush(): void {
    const groups = new Map<string, Gathered[]>()
    for (const gathered of this.#gathered) {
      const name = `${gathered.operation.op === 'get'} ${this.#client.endpointOf(gathered.key)}`
      const group = groups.get(name)
      if (group === undefined) groups.set(name, [gathered])
      else group.push(gathered)
    }
    this.#gathered = []
    for (const group of groups.values()) {
      let batch: Gathered[] = []
      let bytes = 0
      for (const gathered of group) {
        const added = bytesOf(gathered.operation)
        if (batch.length === this.#operationsMax || (batch.length > 0 && bytes + added > BATCH_BYTES_MAX)) {
          void this.#send(batch)
          batch = []
          bytes = 0
        }
        batch.push(gathered)
        bytes += added
      }
      void this.#send(batch)
    }
  }

  async #send(batch: readonly Gathered[]): Promise<void> {
    const [first] = batch
    if (batch.length === 1) return first!.resolve(this.#alone(first!))
    try {
      const operations = batch.map(({ operation }) => operation)
      const results = await this.#client.batch(operations, { timeoutMs: leftMs(first!) })
      for (const [index, gathered] of batch.entries()) {
        const { entry, error } = results[index]!
        if (entry !== undefined) gathered.resolve(entry)
        else if (mayRepeat(gathered.operation, error) && leftMs(gathered) > 1) gathered.resolve(this.#alone(gathered))
        else gathered.reject(error)
      }
    } catch (error) {
      for (const { reject } of batch) reject(error)
    }
  }

  async #alone(gathered: Gathered): Promise<ClientEntry> {
    const { operation, key } = gathered
    const timeoutMs = leftMs(gathered)
    if (operation.op === 'get') return await this.#client.get(key, { timeoutMs })
    const { context } = operation
    const options = { timeoutMs, ...(context === undefined ? {} : { context }) }
    if (operation.op === 'delete') return { ...(await this.#client.delete(key, options)), values: [] }
    const { value, ttlMs, contentType } = operation
    const receipt = await this.#client.put(key, value, {
      ...options,
      ...(ttlMs === undefined ? {} : { ttlMs }),
      ...(contentType === undefined ? {} : { contentType }),
    })
    return { ...receipt, values: [] }
  }
}

function mayRepeat(operation: ClientBatchOperation, { retryable, outcome }: SunwiseError): boolean {
  return retryable && (operation.op === 'get' || outcome === 'none')
}

/** Whole milliseconds until the deadline, and no less than one, which is the least that can be asked for. */
function leftMs({ deadline }: Gathered): number {
  return Math.max(1, Math.floor(deadline - performance.now()))
}
