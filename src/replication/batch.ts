/**
 * A batch over a coordinator of single operations. Not atomic: operations on one key run in request order, each when the one before it has
 * ended; those on different keys run beside each other, so that what goes to one peer in a turn travels together. One deadline for all: what
 * was not begun by then has done nothing, and says so. Values of one answer stop at `Limits.responseBytesMax`.
 */
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { Clock } from '../env.ts'
import { checkBatch } from './checks.ts'
import type { BatchOperation, BatchResult, Bucket, Callback, Coordinator, ReadAnswer, WriteAnswer } from './requests.ts'

/** Operations of one batch under way at a time; the others wait, in their order. */
const underWayMax = 256

export function runBatch(
  coordinator: Pick<Coordinator, 'get' | 'put' | 'delete'>,
  clock: Clock,
  bucket: Bucket,
  operations: readonly BatchOperation[],
  options: { readonly timeoutMs?: number | undefined },
  done: Callback<readonly BatchResult[]>,
): void {
  const problem = checkBatch(operations.length)
  if (problem !== undefined) return done(problem, undefined)
  if (operations.length === 0) return done(undefined, [])
  new Batch(coordinator, clock, bucket, operations, options.timeoutMs, done).run()
}

class Batch {
  readonly #coordinator: Pick<Coordinator, 'get' | 'put' | 'delete'>
  readonly #clock: Clock
  readonly #bucket: Bucket
  readonly #operations: readonly BatchOperation[]
  readonly #timeoutMs: number | undefined
  readonly #deadlineMs: number
  readonly #done: Callback<readonly BatchResult[]>
  readonly #results: BatchResult[]
  /** By operation, the next one on the same key; 0: none. */
  readonly #followers: Uint32Array
  /** Operations that may begin, in request order. */
  readonly #ready: number[] = []
  #left: number
  #underWay = 0
  #isBeginning = false
  #valueBytes = 0

  constructor(
    coordinator: Pick<Coordinator, 'get' | 'put' | 'delete'>,
    clock: Clock,
    bucket: Bucket,
    operations: readonly BatchOperation[],
    timeoutMs: number | undefined,
    done: Callback<readonly BatchResult[]>,
  ) {
    this.#coordinator = coordinator
    this.#clock = clock
    this.#bucket = bucket
    // Keys and values are the caller's only until this call returns; what waits for another one is begun later.
    this.#operations = operations.map((operation) => {
      const key = operation.key.slice()
      return operation.op === 'put' ? { ...operation, key, value: operation.value.slice() } : { ...operation, key }
    })
    this.#timeoutMs = timeoutMs
    this.#deadlineMs = clock.monotonicMs() + (timeoutMs ?? Limits.timeoutMsDefault)
    this.#done = done
    this.#results = new Array(operations.length)
    this.#followers = new Uint32Array(operations.length)
    this.#left = operations.length
  }

  run(): void {
    const latest = new Map<string, number>()
    for (const [index, { key }] of this.#operations.entries()) {
      const text = keyText(key)
      const before = latest.get(text)
      if (before === undefined) this.#ready.push(index)
      else this.#followers[before] = index
      latest.set(text, index)
    }
    this.#begin()
  }

  /** Begins what may; an operation that ends at once makes room for the next without a call within a call. */
  #begin(): void {
    if (this.#isBeginning) return
    this.#isBeginning = true
    while (this.#ready.length > 0 && this.#underWay < underWayMax) {
      this.#underWay++
      this.#operate(this.#ready.shift()!)
    }
    this.#isBeginning = false
    if (this.#left === 0) this.#done(undefined, this.#results)
  }

  #operate(index: number): void {
    const operation = this.#operations[index]!
    const { op, key } = operation
    const leftMs = Math.ceil(this.#deadlineMs - this.#clock.monotonicMs())
    // One that cannot be used is refused for every operation, by the check that all share.
    const isUsable = this.#timeoutMs === undefined || this.#timeoutMs > 0
    if (isUsable && leftMs <= 0) {
      const message = 'The deadline of the batch passed before this operation was begun'
      return this.#settle(index, { op, error: new SunwiseError('TIMEOUT', message, { outcome: 'none' }) })
    }
    const timeoutMs = isUsable ? leftMs : this.#timeoutMs
    if (op === 'get') {
      if (this.#valueBytes > Limits.responseBytesMax) return this.#settle(index, { op, error: responseLimit() })
      this.#coordinator.get(this.#bucket, key, { timeoutMs }, (error, answer) =>
        this.#settle(index, error === undefined ? this.#read(answer!) : { op, error }),
      )
      return
    }
    const answered: Callback<WriteAnswer> = (error, answer) =>
      this.#settle(index, error === undefined ? { op, answer: answer! } : { op, error })
    const options = { ...operation.options, timeoutMs }
    if (op === 'put') this.#coordinator.put(this.#bucket, key, operation.value, options, answered)
    else this.#coordinator.delete(this.#bucket, key, options, answered)
  }

  #read(answer: ReadAnswer): BatchResult {
    for (const { value } of answer.values) this.#valueBytes += value.length
    return this.#valueBytes > Limits.responseBytesMax ? { op: 'get', error: responseLimit() } : { op: 'get', answer }
  }

  #settle(index: number, result: BatchResult): void {
    this.#results[index] = result
    this.#left--
    this.#underWay--
    const follower = this.#followers[index]!
    // Those that were asked for first go first.
    if (follower > 0) this.#ready.push(follower)
    this.#begin()
  }
}

/** What the gets of a batch are told that come after its answer is full. */
export function responseLimit(): SunwiseError {
  const message = `The values of one batch stop at ${Limits.responseBytesMax} bytes; ask for this key again`
  return new SunwiseError('RESPONSE_LIMIT', message)
}

/** The bytes of a key as a text that a Map takes, one character each. */
export function keyText(key: Uint8Array): string {
  let text = ''
  for (const byte of key) text += String.fromCharCode(byte)
  return text
}
