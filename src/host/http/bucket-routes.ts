/**
 * `GET|PUT|DELETE /v1/buckets[/{bucket}]`: buckets and their properties as JSON. Field names and types are checked here;
 * whether the numbers fit together is for the owner of the buckets.
 */
import { SunwiseError } from '../../base/errors.ts'
import { type Durability, Limits } from '../../config.ts'
import type { Bucket, BucketProperties, QuorumLevel } from '../../replication/requests.ts'
import { ttlMsOf } from './batch-operation.ts'
import type { Exchange } from './exchange.ts'
import type { Front } from './front.ts'
import { parseJson } from './json-elements.ts'
import { findBucket } from './key-routes.ts'
import { parseQuery } from './query.ts'
import { checkBodyEncoding, collectBody } from './request-body.ts'
import { mediaTypeOf } from './request-fields.ts'
import { quote, suggest } from './suggestion.ts'
import { bucketNameOf } from './target.ts'

/** Properties are a handful of short fields. */
const propertiesMembersMax = 64

const propertyNames = ['n', 'r', 'w', 'sloppy', 'conflict', 'durability', 'ttl', 'valueBytesMax'] as const
type PropertyName = (typeof propertyNames)[number]

/** A bucket as clients see it. The id is internal and left out. */
function bucketJson(bucket: Bucket): Record<string, unknown> {
  return {
    name: bucket.name,
    n: bucket.n,
    r: bucket.r,
    w: bucket.w,
    sloppy: bucket.sloppy,
    conflict: bucket.conflict,
    durability: bucket.durability ?? null,
    ttl: bucket.ttlMs ?? null,
    valueBytesMax: bucket.valueBytesMax,
  }
}

function refuse(name: string, expected: string): never {
  throw new SunwiseError('UNPROCESSABLE', `The property ${name} is not ${expected}`, { extra: { property: name } })
}

function positiveInteger(name: string, value: unknown): number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0
    ? value
    : refuse(name, 'a positive integer')
}

function quorumLevel(name: string, value: unknown): QuorumLevel {
  if (value === 'one' || value === 'quorum' || value === 'all') return value
  if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) return value
  return refuse(name, 'one, quorum, all or a positive integer')
}

function durabilityOf(value: unknown): Durability | undefined {
  if (value === null) return undefined
  return value === 'sync' || value === 'interval' || value === 'os'
    ? value
    : refuse('durability', 'sync, interval, os or null')
}

function propertyOf(name: PropertyName, value: unknown): BucketProperties {
  switch (name) {
    case 'n':
      return { n: positiveInteger(name, value) }
    case 'r':
      return { r: quorumLevel(name, value) }
    case 'w':
      return { w: quorumLevel(name, value) }
    case 'sloppy':
      return { sloppy: typeof value === 'boolean' ? value : refuse(name, 'true or false') }
    case 'conflict':
      return { conflict: value === 'siblings' || value === 'lww' ? value : refuse(name, 'siblings or lww') }
    case 'durability':
      return { durability: durabilityOf(value) }
    case 'ttl': {
      const ttlMs = value === null ? undefined : ttlMsOf(value)
      return { ttlMs: ttlMs === Number.POSITIVE_INFINITY ? undefined : ttlMs }
    }
    case 'valueBytesMax':
      return { valueBytesMax: positiveInteger(name, value) }
  }
}

/**
 * The properties in a parsed JSON object; `null` resets `durability` and `ttl` to the server's.
 * @throws SunwiseError `UNPROCESSABLE`, `BAD_TTL`
 */
export function bucketPropertiesOf(value: unknown): BucketProperties {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new SunwiseError('UNPROCESSABLE', 'The properties of a bucket are a JSON object')
  }
  let properties: BucketProperties = {}
  for (const [name, property] of Object.entries(value)) {
    const known = propertyNames.find((candidate) => candidate === name)
    if (known === undefined) {
      throw new SunwiseError(
        'UNPROCESSABLE',
        `${quote(name)} is not a property of buckets${suggest(name, propertyNames)}`,
        { extra: { property: name.slice(0, 64) } },
      )
    }
    properties = { ...properties, ...propertyOf(known, property) }
  }
  return properties
}

/** Answers `GET /v1/buckets`. */
export function answerBuckets(front: Front, exchange: Exchange): void {
  parseQuery(exchange.target, exchange.target.indexOf('?'), [])
  exchange.answerJson(200, [], JSON.stringify({ buckets: front.buckets.all().map(bucketJson) }))
}

/** Answers `GET /v1/buckets/{bucket}`. */
export function answerBucket(front: Front, exchange: Exchange, segment: string): void {
  parseQuery(exchange.target, exchange.target.indexOf('?'), [])
  exchange.answerJson(200, [], JSON.stringify(bucketJson(findBucket(front, segment))))
}

/** Answers `PUT /v1/buckets/{bucket}`: 201 where it was created, 200 where it was changed. */
export function answerBucketPut(front: Front, exchange: Exchange, segment: string): void {
  parseQuery(exchange.target, exchange.target.indexOf('?'), [])
  const name = bucketNameOf(segment)
  checkBodyEncoding(exchange)
  if (exchange.hasBody && mediaTypeOf(exchange.fields.contentType) !== 'application/json') {
    throw new SunwiseError('UNSUPPORTED_MEDIA_TYPE', 'The properties of a bucket are application/json')
  }
  collectBody(exchange, Limits.propertiesBytesMax, 'REQUEST_TOO_LARGE', (body) => {
    const limits = {
      bytesMax: Limits.propertiesBytesMax,
      depthMax: Limits.jsonDepthMax,
      membersMax: propertiesMembersMax,
    }
    const properties = body.length === 0 ? {} : bucketPropertiesOf(parseJson(body, limits))
    front.buckets.put(name, properties, (error, answer) => {
      try {
        if (answer === undefined) exchange.crash(error)
        else {
          const headers = answer.created ? ['Location', `/v1/buckets/${name}`] : []
          exchange.answerJson(answer.created ? 201 : 200, headers, JSON.stringify(bucketJson(answer.bucket)))
        }
      } catch (thrown) {
        exchange.crash(thrown)
      }
    })
  })
}

/** Answers `DELETE /v1/buckets/{bucket}`. */
export function answerBucketDelete(front: Front, exchange: Exchange, segment: string): void {
  parseQuery(exchange.target, exchange.target.indexOf('?'), [])
  const bucket = findBucket(front, segment)
  front.buckets.delete(bucket.name, (error) => {
    try {
      if (error === undefined) exchange.answer(204, [], undefined)
      else exchange.crash(error)
    } catch (thrown) {
      exchange.crash(thrown)
    }
  })
}
