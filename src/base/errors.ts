/**
 * The one table of errors. Codes are API and never change meaning between major versions; messages are for people.
 *
 * `outcome` says what a failed request did to the data, and it must be true:
 * `none` nothing was written and nothing will be; `partial` some of it was; `unknown` it may have been or may yet be.
 * The README's table is checked against this one, both ways, by test/base/errors.test.ts.
 */

/** What a failed request did to the stored data. */
export type Outcome = 'none' | 'partial' | 'unknown'

type ErrorRow = {
  readonly status: number
  readonly title: string
  /** The outcome where the code alone decides it; the thrower may say otherwise. */
  readonly outcome: Outcome
  /** Whether the same request may succeed later without being changed. */
  readonly retryable: boolean
  /** Exit code of the command line for this error. */
  readonly exit: 1 | 2 | 3 | 4 | 5 | 6
}

const row = (
  status: number,
  title: string,
  outcome: Outcome,
  retryable: boolean,
  exit: ErrorRow['exit'],
): ErrorRow => ({ status, title, outcome, retryable, exit })

export const ErrorTable = {
  BAD_REQUEST: row(400, 'The request is malformed', 'none', false, 2),
  BAD_KEY: row(400, 'The key is empty, too long or not well encoded', 'none', false, 2),
  BAD_BUCKET: row(400, 'The bucket name or its properties are invalid', 'none', false, 2),
  BAD_CONTEXT: row(400, 'The causal context is unreadable or belongs to another key', 'none', false, 2),
  BAD_CURSOR: row(400, 'The list cursor is unreadable or belongs to another list', 'none', false, 2),
  BAD_QUORUM: row(400, 'R or W is not between 1 and N', 'none', false, 2),
  BAD_TTL: row(400, 'The time to live is not a positive duration within the limit', 'none', false, 2),
  BAD_TIMEOUT: row(400, 'The timeout is not a positive duration within the limit', 'none', false, 2),
  BAD_HOST: row(400, 'The Host header is missing or not one that this node serves', 'none', false, 2),
  NOT_FOUND: row(404, 'There is no such key', 'none', false, 3),
  BUCKET_NOT_FOUND: row(404, 'There is no such bucket', 'none', false, 3),
  ROUTE_NOT_FOUND: row(404, 'There is no such route', 'none', false, 2),
  METHOD_NOT_ALLOWED: row(405, 'The route does not serve this method', 'none', false, 2),
  NOT_ACCEPTABLE: row(406, 'The answer has no representation of an acceptable type', 'none', false, 2),
  CONFLICT: row(409, 'The request conflicts with the present state', 'none', false, 4),
  PRECONDITION_FAILED: row(412, 'The precondition does not hold', 'none', false, 4),
  VALUE_TOO_LARGE: row(413, 'The value is larger than the limit', 'none', false, 2),
  REQUEST_TOO_LARGE: row(413, 'The request body is larger than the limit', 'none', false, 2),
  RESPONSE_LIMIT: row(413, 'The answer would be larger than the limit', 'none', true, 1),
  URI_TOO_LONG: row(414, 'The request target is longer than the limit', 'none', false, 2),
  UNSUPPORTED_MEDIA_TYPE: row(415, 'The content type is not one that this route reads', 'none', false, 2),
  UNPROCESSABLE: row(422, 'A field of the request has an invalid value', 'none', false, 2),
  TOO_MANY_SIBLINGS: row(409, 'The key has too many siblings; read it and write with its context', 'none', false, 4),
  VERSION_SET_TOO_LARGE: row(413, 'The versions of the key together are larger than the limit', 'none', false, 4),
  TOO_MANY_BUCKETS: row(409, 'The node already holds the greatest number of buckets', 'none', false, 4),
  OVERLOADED: row(503, 'A queue of this node is full', 'none', true, 5),
  SHARD_UNAVAILABLE: row(503, 'The shard that owns the key is restarting', 'none', true, 5),
  QUORUM_NOT_MET: row(503, 'Too few replicas answered', 'unknown', true, 5),
  NOT_READY: row(503, 'The node is starting or stopping', 'none', true, 5),
  WRONG_EPOCH: row(503, 'The nodes of the cluster do not agree yet on who holds the key', 'none', true, 5),
  CLOCK_UNSURE: row(503, 'The clock of this node is too far from those of its peers', 'none', true, 5),
  TIMEOUT: row(504, 'The deadline passed before the answer', 'unknown', true, 6),
  ABORTED: row(499, 'The caller aborted the request', 'unknown', true, 6),
  STORE_FULL: row(507, 'The memory budget of the node is used up', 'none', false, 5),
  DISK_FULL: row(507, 'The disk is full', 'none', true, 5),
  DISK_FAILED: row(500, 'The disk reported an error', 'unknown', false, 1),
  LOG_CORRUPT: row(500, 'The commit log is damaged before its synced end', 'none', false, 1),
  TABLE_CORRUPT: row(500, 'A table file is damaged', 'none', false, 1),
  TABLE_TOO_LARGE: row(500, 'A table file would be larger than one can be', 'none', false, 1),
  CATALOG_CORRUPT: row(500, 'The catalog is damaged or of another version', 'none', false, 1),
  BACKUP_CORRUPT: row(500, 'A backup is damaged, or of another node', 'none', false, 1),
  DIRECTORY_LOCKED: row(500, 'Another process holds the data directory', 'none', true, 1),
  DIRECTORY_UNUSABLE: row(500, 'The data directory cannot be used', 'none', false, 1),
  ADDRESS_IN_USE: row(500, 'The address is in use by another process', 'none', true, 1),
  ADDRESS_REFUSED: row(500, 'The address is not loopback and the server is not secured', 'none', false, 2),
  BAD_CONFIG: row(500, 'The configuration is invalid', 'none', false, 2),
  NOT_RESIDENT: row(500, 'The value is not in memory and reading it would block', 'none', true, 1),
  CLOSED: row(500, 'The store is closed', 'none', false, 1),
  WORKERS_FAILED: row(500, 'Shard workers crashed too often; the node has stopped', 'unknown', false, 1),
  INTERNAL: row(500, 'A bug in Sunwise', 'unknown', false, 1),
  ORIGIN_REFUSED: row(403, 'A web page of another origin may not change data', 'none', false, 2),
  REQUEST_TIMEOUT: row(408, 'The request did not arrive in time', 'none', true, 5),
  HEADERS_TOO_LARGE: row(431, 'The request headers are larger than the limit', 'none', false, 2),
} as const satisfies Record<string, ErrorRow>

/** A stable error code. */
export type ErrorCode = keyof typeof ErrorTable

export type SunwiseErrorOptions = {
  readonly outcome?: Outcome
  readonly cause?: unknown
  /** Extra members of the problem document, such as the present `etag` of a failed precondition. */
  readonly extra?: Readonly<Record<string, unknown>>
}

/**
 * An operational failure. `message` names what failed, on what, and what to do; `code`, `status`, `outcome` and
 * `retryable` are for programs.
 */
export class SunwiseError extends Error {
  override name = 'SunwiseError'
  readonly code: ErrorCode
  readonly status: number
  readonly outcome: Outcome
  readonly retryable: boolean
  readonly extra: Readonly<Record<string, unknown>> | undefined

  constructor(code: ErrorCode, message: string, options: SunwiseErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    const entry = ErrorTable[code]
    this.code = code
    this.status = entry.status
    this.outcome = options.outcome ?? entry.outcome
    this.retryable = entry.retryable
    this.extra = options.extra
  }
}

const codes = Object.keys(ErrorTable) as ErrorCode[]

/**
 * Numbers of the codes within one process, for frames between threads of the same version. They may change with any
 * release and never reach disk or another node. 0 means success.
 */
export const errorNumberOf: ReadonlyMap<ErrorCode, number> = new Map(codes.map((code, index) => [code, index + 1]))

/** The code of a number from `errorNumberOf`; a number that names none is a bug of the sender. */
export function errorCodeOf(number: number): ErrorCode {
  return codes[number - 1] ?? 'INTERNAL'
}

/** Numbers of the outcomes in frames between threads. */
export const OutcomeNumber = { none: 0, partial: 1, unknown: 2 } as const satisfies Record<Outcome, number>

/** The outcome of a number from `OutcomeNumber`. */
export function outcomeOf(number: number): Outcome {
  return number === 0 ? 'none' : number === 1 ? 'partial' : 'unknown'
}
