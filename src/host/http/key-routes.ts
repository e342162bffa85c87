/**
 * `GET|HEAD|PUT|DELETE /v1/kv/{bucket}/{key...}`: the routes that carry the load. They are answered on the raw request,
 * before any router: key bytes come straight from the target, one header list and one body go to the connection, and no
 * promise is made.
 *
 * Context and precondition are kept apart: `Sunwise-Context` names the versions a write replaces and never fails it;
 * `If-Match` and `If-None-Match` do.
 */
import { SunwiseError } from '../../base/errors.ts'
import type {
  Bucket,
  QuorumLevel,
  ReadAnswer,
  ReadOptions,
  WriteAnswer,
  WriteOptions,
} from '../../replication/requests.ts'
import type { Exchange } from './exchange.ts'
import type { Front } from './front.ts'
import { parseQuery, type Query } from './query.ts'
import { checkBodyEncoding, collectBody } from './request-body.ts'
import { checkContentType, parseContext, parseEntityTags, strongTagsOf } from './request-fields.ts'
import { deleteKeyRoute, getKeyRoute, putKeyRoute } from './route-table.ts'
import { octetStream, pushContentType, pushReceipt, pushVersion, siblingsJson, valueBytesOf } from './stored-value.ts'
import { bucketNameOf, KeyDecoder } from './target.ts'

/** The path under which keys stand. */
export const keyPathStart = '/v1/kv/'

/** The methods of a key, as an Allow field lists them. */
export const keyMethods = 'GET, HEAD, PUT, DELETE'

const plainRead: ReadOptions = Object.freeze({})

/**
 * The bucket of a raw path segment.
 * @throws SunwiseError `BAD_BUCKET`, `BUCKET_NOT_FOUND`
 */
export function findBucket(front: Front, segment: string): Bucket {
  const bucket = front.buckets.find(segment)
  if (bucket !== undefined) return bucket
  const name = bucketNameOf(segment)
  const decoded = name === segment ? undefined : front.buckets.find(name)
  if (decoded !== undefined) return decoded
  throw new SunwiseError('BUCKET_NOT_FOUND', `There is no bucket '${name}'; create it with PUT /v1/buckets/${name}`)
}

/** @throws SunwiseError `BAD_QUORUM` where more replicas are asked for than the bucket has */
export function checkQuorum(name: 'r' | 'w', level: QuorumLevel | undefined, bucket: Bucket): void {
  if (typeof level === 'number' && level > bucket.n) {
    throw new SunwiseError(
      'BAD_QUORUM',
      `${name}=${level} is more than the ${bucket.n} replicas of bucket '${bucket.name}'`,
    )
  }
}

function readOptionsOf(query: Readonly<Query>): ReadOptions {
  return query.r === undefined && query.timeoutMs === undefined ? plainRead : { r: query.r, timeoutMs: query.timeoutMs }
}

function writeOptionsOf(
  exchange: Exchange,
  query: Readonly<Query>,
  contentType: string | undefined,
  ownsKey: boolean,
): WriteOptions {
  const { fields } = exchange
  let ifNoneMatch: '*' | undefined
  if (fields.ifNoneMatch !== undefined) {
    if (fields.ifNoneMatch.trim() !== '*') {
      throw new SunwiseError('BAD_REQUEST', 'A write takes If-None-Match only as *: apply if there is no value')
    }
    ifNoneMatch = '*'
  }
  return {
    w: query.w,
    sloppy: query.sloppy,
    timeoutMs: query.timeoutMs,
    context: fields.context === undefined ? undefined : parseContext(fields.context),
    ifMatch: fields.ifMatch === undefined ? undefined : strongTagsOf(fields.ifMatch),
    ifNoneMatch,
    ttlMs: query.ttlMs,
    contentType,
    durability: query.durability,
    ownsKey,
  }
}

/** Whether a Prefer field asks for the stored value back (RFC 7240). */
function prefersRepresentation(prefer: string | undefined): boolean {
  if (prefer === undefined) return false
  return prefer.split(',').some((preference) => /^\s*return\s*=\s*"?representation"?\s*(;|$)/i.test(preference))
}

/** The routes of single keys, for one thread. */
export class KeyRoutes {
  readonly #front: Front
  readonly #keys = new KeyDecoder()

  constructor(front: Front) {
    this.#front = front
  }

  /**
   * Answers an exchange whose target names a key: `slash` is the index of the `/` after the bucket, `questionMark` that of
   * the query or -1.
   * @throws SunwiseError for the caller to answer with, if nothing was asked of the coordinator yet
   */
  handle(exchange: Exchange, slash: number, questionMark: number): void {
    switch (exchange.method) {
      case 'GET':
      case 'HEAD':
        this.#get(exchange, slash, questionMark)
        break
      case 'PUT':
        this.#put(exchange, slash, questionMark)
        break
      case 'DELETE':
        this.#delete(exchange, slash, questionMark)
        break
      default:
        exchange.failWith('METHOD_NOT_ALLOWED', `A key takes ${keyMethods}`, undefined, undefined, [
          'Allow',
          keyMethods,
        ])
    }
  }

  #bucket(exchange: Exchange, slash: number): Bucket {
    return findBucket(this.#front, exchange.target.slice(keyPathStart.length, slash))
  }

  /** The key of an exchange; it holds until the next one is decoded. */
  #key(exchange: Exchange, slash: number, questionMark: number, key64: boolean): Uint8Array {
    const { target } = exchange
    const end = questionMark === -1 ? target.length : questionMark
    return key64 ? this.#keys.decode64(target, slash + 1, end) : this.#keys.decode(target, slash + 1, end)
  }

  #get(exchange: Exchange, slash: number, questionMark: number): void {
    const query = parseQuery(exchange.target, questionMark, getKeyRoute.query)
    const bucket = this.#bucket(exchange, slash)
    checkQuorum('r', query.r, bucket)
    const key = this.#key(exchange, slash, questionMark, query.key64)
    this.#front.coordinator.get(bucket, key, readOptionsOf(query), (error, answer) => {
      try {
        if (answer !== undefined) answerRead(exchange, query, answer)
        else exchange.crash(error)
      } catch (thrown) {
        exchange.crash(thrown)
      }
    })
  }

  #put(exchange: Exchange, slash: number, questionMark: number): void {
    const query = parseQuery(exchange.target, questionMark, putKeyRoute.query)
    const bucket = this.#bucket(exchange, slash)
    checkQuorum('w', query.w, bucket)
    checkBodyEncoding(exchange)
    const { fields } = exchange
    const contentType = fields.contentType === undefined ? undefined : checkContentType(fields.contentType)
    const options = writeOptionsOf(exchange, query, contentType, true)
    // The body arrives later, when the decoder has moved on to other keys: a copy, which the coordinator may keep.
    const key = Buffer.from(this.#key(exchange, slash, questionMark, query.key64))
    const bytesMax = Math.min(this.#front.limits.valueBytesMax, bucket.valueBytesMax)
    collectBody(exchange, bytesMax, 'VALUE_TOO_LARGE', (value) => {
      this.#front.coordinator.put(bucket, key, value, options, (error, answer) => {
        try {
          if (answer === undefined) exchange.crash(error)
          else if (answer.siblings === 1 && prefersRepresentation(fields.prefer) && exchange.holdAnswer(value.length)) {
            const headers = writeHeaders(answer, query.receipt)
            headers.push('Preference-Applied', 'return=representation')
            pushContentType(headers, contentType ?? octetStream)
            exchange.answer(200, headers, value)
          } else exchange.answer(204, writeHeaders(answer, query.receipt), undefined)
        } catch (thrown) {
          exchange.crash(thrown)
        }
      })
    })
  }

  #delete(exchange: Exchange, slash: number, questionMark: number): void {
    const query = parseQuery(exchange.target, questionMark, deleteKeyRoute.query)
    const bucket = this.#bucket(exchange, slash)
    checkQuorum('w', query.w, bucket)
    const options = writeOptionsOf(exchange, query, undefined, false)
    const key = this.#key(exchange, slash, questionMark, query.key64)
    this.#front.coordinator.delete(bucket, key, options, (error, answer) => {
      try {
        if (answer === undefined) exchange.crash(error)
        else exchange.answer(204, writeHeaders(answer, query.receipt), undefined)
      } catch (thrown) {
        exchange.crash(thrown)
      }
    })
  }
}

function writeHeaders(answer: WriteAnswer, isWhole: boolean): string[] {
  const headers: string[] = []
  pushVersion(headers, answer)
  if (answer.siblings > 1) headers.push('Sunwise-Siblings', String(answer.siblings))
  if (answer.expiresAtMs !== undefined) headers.push('Sunwise-Expires', String(answer.expiresAtMs))
  pushReceipt(headers, answer.receipt, isWhole)
  return headers
}

/** Whether `If-Match` or `If-None-Match` of a read decides its answer (RFC 9110 section 13.2.2). */
function conditionOf(exchange: Exchange, answer: ReadAnswer): 'answer' | 'unmodified' | 'failed' {
  const { ifMatch, ifNoneMatch } = exchange.fields
  if (ifMatch !== undefined) {
    const tags = strongTagsOf(ifMatch)
    if (tags !== '*' && (answer.etag === undefined || !tags.includes(answer.etag))) return 'failed'
  }
  if (ifNoneMatch !== undefined) {
    const tags = parseEntityTags('If-None-Match', ifNoneMatch)
    if (tags === '*' || tags.some((entry) => entry.tag === answer.etag)) return 'unmodified'
  }
  return 'answer'
}

function answerRead(exchange: Exchange, { siblings, receipt: isWhole }: Readonly<Query>, answer: ReadAnswer): void {
  const headers: string[] = []
  const winner = answer.values[0]
  if (winner === undefined) {
    if (answer.context !== undefined) pushVersion(headers, { ...answer, etag: undefined })
    pushReceipt(headers, answer.receipt, isWhole)
    exchange.failWith('NOT_FOUND', 'There is no value under this key', undefined, undefined, headers)
    return
  }
  const { fields } = exchange
  if (fields.ifMatch !== undefined || fields.ifNoneMatch !== undefined) {
    const condition = conditionOf(exchange, answer)
    if (condition === 'failed') {
      const extra = { etag: answer.etag, context: answer.context }
      exchange.failWith('PRECONDITION_FAILED', 'The key has another version than If-Match asks for', 'none', extra)
      return
    }
    if (condition === 'unmodified') {
      pushVersion(headers, answer)
      pushReceipt(headers, answer.receipt, isWhole)
      exchange.answer(304, headers, undefined)
      return
    }
  }
  pushVersion(headers, answer)
  const count = answer.values.length
  if (count > 1) headers.push('Sunwise-Siblings', String(count))
  if (siblings === 'all' || (count > 1 && siblings !== 'winner')) {
    pushReceipt(headers, answer.receipt, isWhole)
    // As base64 in JSON.
    if (!exchange.holdAnswer(Math.ceil((valueBytesOf(answer) * 4) / 3))) return exchange.failUnread()
    exchange.answerJson(siblings === 'all' ? 200 : 300, headers, siblingsJson(answer.values))
    return
  }
  if (!exchange.holdAnswer(winner.value.length)) return exchange.failUnread()
  if (winner.expiresAtMs !== undefined) headers.push('Sunwise-Expires', String(winner.expiresAtMs))
  pushContentType(headers, winner.contentType)
  pushReceipt(headers, answer.receipt, isWhole)
  exchange.answer(200, headers, winner.value)
}
