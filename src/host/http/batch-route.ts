/**
 * `POST /v1/batch/{bucket}`: up to 1000 operations in one request, not atomic, answered in request order with a status each.
 * The body is parsed while it arrives but nothing is applied before it is complete and well-formed, so that half a body
 * changes nothing. A well-formed operation with a bad field fails alone.
 *
 * The values in one answer stop at `Limits.responseBytesMax`; reads beyond it get RESPONSE_LIMIT and may be asked for again.
 */
import { type ErrorCode, SunwiseError } from '../../base/errors.ts'
import { Limits } from '../../config.ts'
import type { BatchOperation, BatchResult } from '../../replication/requests.ts'
import { AnswerStream } from './answer-stream.ts'
import { batchOperationOf } from './batch-operation.ts'
import { type Exchange, unreadDetail } from './exchange.ts'
import type { Front } from './front.ts'
import { JsonElements } from './json-elements.ts'
import { findBucket } from './key-routes.ts'
import { problemOf, problemOfError } from './problem.ts'
import { parseQuery } from './query.ts'
import { checkBodyEncoding, readBody } from './request-body.ts'
import { acceptsLines, mediaTypeOf } from './request-fields.ts'
import { batchRoute } from './route-table.ts'
import { readMembers, valueBytesOf, writeMembers } from './stored-value.ts'

/** Members of one operation: a dozen fields and a list of etags. */
const operationMembersMax = 256

const lineType = 'application/x-ndjson'

function problemText(code: ErrorCode, detail: string): string {
  return JSON.stringify(problemOf({ code, detail }))
}

/** Writes results as text, counting the bytes of values so far. */
class ResultWriter {
  #valueBytes = 0

  text(result: BatchResult): string {
    if ('error' in result) {
      return `{"status":${result.error.status},"problem":${JSON.stringify(problemOfError(result.error))}}`
    }
    if (result.op !== 'get') return `{"status":204${writeMembers(result.answer)}}`
    const { answer } = result
    if (answer.values.length === 0) {
      return `{"status":404${readMembers(answer)},"problem":${problemText('NOT_FOUND', 'There is no value under this key')}}`
    }
    const bytes = valueBytesOf(answer)
    if (this.#valueBytes + bytes > Limits.responseBytesMax) {
      const detail = `The values of one answer stop at ${Limits.responseBytesMax} bytes; ask for this key again`
      return `{"status":413,"problem":${problemText('RESPONSE_LIMIT', detail)}}`
    }
    this.#valueBytes += bytes
    return `{"status":${answer.values.length > 1 ? 300 : 200}${readMembers(answer)}}`
  }
}

/** One request's operations, in order: those to apply, and the errors of the others. */
class BatchPlan {
  readonly operations: BatchOperation[] = []
  readonly #errors: (SunwiseError | undefined)[] = []
  readonly #valueBytesMax: number

  constructor(valueBytesMax: number) {
    this.#valueBytesMax = valueBytesMax
  }

  get length(): number {
    return this.#errors.length
  }

  /** Adds one parsed element; returns an error only where the whole request is over. */
  add(element: unknown): SunwiseError | undefined {
    if (this.#errors.length === Limits.batchOperationsMax) {
      return new SunwiseError('REQUEST_TOO_LARGE', `A batch has at most ${Limits.batchOperationsMax} operations`)
    }
    try {
      this.operations.push(batchOperationOf(element, this.#valueBytesMax))
      this.#errors.push(undefined)
    } catch (thrown) {
      if (!(thrown instanceof SunwiseError)) throw thrown
      this.#errors.push(thrown)
    }
    return undefined
  }

  /** Puts the results of the applied operations between the errors of the others. */
  merge(results: readonly BatchResult[]): BatchResult[] {
    let next = 0
    return this.#errors.map((error) => (error === undefined ? results[next++]! : { op: 'get', error }))
  }
}

/** Answers one batch. @throws SunwiseError for the caller to answer with */
export function answerBatch(front: Front, exchange: Exchange, bucketSegment: string): void {
  const query = parseQuery(exchange.target, exchange.target.indexOf('?'), batchRoute.query)
  const bucket = findBucket(front, bucketSegment)
  checkBodyEncoding(exchange)
  const mediaType = mediaTypeOf(exchange.fields.contentType)
  if (mediaType !== 'application/json' && mediaType !== lineType) {
    throw new SunwiseError('UNSUPPORTED_MEDIA_TYPE', `A batch is application/json (an array) or ${lineType}`)
  }
  const inLines = mediaType === lineType
  const outLines = inLines || acceptsLines(exchange.fields.accept)
  const plan = new BatchPlan(Math.min(front.limits.valueBytesMax, bucket.valueBytesMax))
  const limits = { bytesMax: Limits.batchBytesMax, depthMax: Limits.jsonDepthMax, membersMax: operationMembersMax }
  const elements = new JsonElements(inLines ? 'lines' : 'array', limits, (element) => plan.add(element))
  /** Refuses the whole request, saying at which operation. */
  const refuse = (error: SunwiseError): void => {
    exchange.fail(
      new SunwiseError(error.code, error.message, { outcome: 'none', extra: { index: plan.length, ...error.extra } }),
    )
  }
  readBody(exchange, Limits.batchBytesMax, 'REQUEST_TOO_LARGE', {
    chunk: (bytes) => elements.feed(bytes),
    fault: refuse,
    end() {
      const error = elements.end()
      if (error !== undefined) {
        refuse(error)
        return
      }
      if (plan.operations.length === 0) {
        writeResults(exchange, outLines, plan.merge([]))
        return
      }
      const options = { timeoutMs: query.timeoutMs }
      front.coordinator.batch(bucket, plan.operations, options, (failure, results) => {
        try {
          if (results === undefined) exchange.crash(failure)
          else writeResults(exchange, outLines, plan.merge(results))
        } catch (thrown) {
          exchange.crash(thrown)
        }
      })
    },
  })
}

const bytesRead = (result: BatchResult): number =>
  result.op === 'get' && 'answer' in result ? valueBytesOf(result.answer) : 0

/** What was written stays written: where the answer finds no room, only its reads are refused. */
function withinRoom(exchange: Exchange, results: readonly BatchResult[]): readonly BatchResult[] {
  const bytes = results.reduce((sum, result) => sum + bytesRead(result), 0)
  if (exchange.holdAnswer(Math.min(bytes, Limits.responseBytesMax))) return results
  const error = new SunwiseError('OVERLOADED', unreadDetail)
  return results.map((result) => (bytesRead(result) > 0 ? { op: 'get', error } : result))
}

function writeResults(exchange: Exchange, lines: boolean, all: readonly BatchResult[]): void {
  const results = withinRoom(exchange, all)
  const stream = new AnswerStream(exchange, 200, ['Content-Type', lines ? lineType : 'application/json'])
  const writer = new ResultWriter()
  let index = 0
  if (!lines) stream.write('[')
  const go = (): void => {
    while (index < results.length) {
      const text = writer.text(results[index]!)
      const end = lines ? '\n' : index + 1 < results.length ? ',' : ''
      index++
      if (!stream.write(text + end)) {
        stream.whenReady(go)
        return
      }
    }
    if (!lines) stream.write(']')
    stream.end()
  }
  go()
}
