/**
 * Problem documents (RFC 9457): the one form of every error answer.
 *
 *     {"type":"urn:sunwise:problem:bad-key","title":"The key is empty, ...","status":400,"code":"BAD_KEY",
 *      "detail":"The key is empty","outcome":"none","retryable":false,"requestId":"k3-1f","instance":"/v1/kv/default/"}
 *
 * `code` is for programs, `detail` for people; further members come from the error's `extra`. No stack trace, path of a
 * file or text of an unexpected error ever reaches a client.
 */
import { type ErrorCode, ErrorTable, type Outcome, SunwiseError } from '../../base/errors.ts'
import { encodeBase64Url } from './base64.ts'

/** The media type of problem documents. */
export const problemType = 'application/problem+json'

/** What a client is told about a failure that nobody foresaw. */
export const internalDetail = 'An unexpected error; the log of the node has it under this request id'

/** Longest part of a request target that a problem repeats. */
const instanceCharactersMax = 512

/** The error to answer with for anything thrown: itself if it is coded, else INTERNAL without its text. */
export function errorOf(thrown: unknown): SunwiseError {
  return thrown instanceof SunwiseError ? thrown : new SunwiseError('INTERNAL', internalDetail, { cause: thrown })
}

/** The fields of a problem that do not come from the error table. */
export type ProblemFields = {
  readonly code: ErrorCode
  readonly detail: string
  /** Undefined: the table's. */
  readonly outcome?: Outcome | undefined
  readonly requestId?: string | undefined
  /** The raw request target; the query is left out. */
  readonly target?: string | undefined
  readonly extra?: Readonly<Record<string, unknown>> | undefined
}

/** The problem document as a plain object, members in their documented order. */
export function problemOf(fields: ProblemFields): Record<string, unknown> {
  const row = ErrorTable[fields.code]
  const problem: Record<string, unknown> = {
    type: `urn:sunwise:problem:${fields.code.toLowerCase().replaceAll('_', '-')}`,
    title: row.title,
    status: row.status,
    code: fields.code,
    detail: fields.detail,
    outcome: fields.outcome ?? row.outcome,
    retryable: row.retryable,
  }
  if (fields.requestId !== undefined) problem['requestId'] = fields.requestId
  if (fields.target !== undefined) {
    const questionMark = fields.target.indexOf('?')
    const path = questionMark === -1 ? fields.target : fields.target.slice(0, questionMark)
    problem['instance'] = path.slice(0, instanceCharactersMax)
  }
  if (fields.extra !== undefined) {
    for (const [name, value] of Object.entries(fields.extra)) {
      if (!Object.hasOwn(problem, name)) problem[name] = value instanceof Uint8Array ? encodeBase64Url(value) : value
    }
  }
  return problem
}

/** The problem document of an error as one item of a larger answer: without request id and target. */
export function problemOfError(error: SunwiseError): Record<string, unknown> {
  return problemOf({ code: error.code, detail: error.message, outcome: error.outcome, extra: error.extra })
}

/** Seconds for `Retry-After` where the status calls for it: 429 and 503. */
export function retryAfterSeconds(status: number, extra: Readonly<Record<string, unknown>> | undefined): number {
  if (status !== 429 && status !== 503) return 0
  const retryAfterMs = extra?.['retryAfterMs']
  return typeof retryAfterMs === 'number' && retryAfterMs > 0 ? Math.ceil(retryAfterMs / 1000) : 1
}
