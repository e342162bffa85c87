/**
 * One operation of a batch as clients write it, checked field by field.
 *
 *     {"op":"put","key":"a","value":"text","ttl":"30s","contentType":"text/plain","context":"...","ifMatch":["..."]}
 *     {"op":"get","key64":"_w"}
 *     {"op":"delete","key":"a","ifNoneMatch":"*"}
 *
 * `key64` and `context` are base64url, `value64` is padded base64. A text is its UTF-8 bytes; a text with half a surrogate
 * pair has none and is refused. A bad operation gets its own problem and does not stop the others.
 */
import { type ErrorCode, SunwiseError } from '../../base/errors.ts'
import { Limits } from '../../config.ts'
import type { BatchOperation, WriteOptions } from '../../replication/requests.ts'
import { decodeBase64, decodeBase64Url } from './base64.ts'
import { parseTtlMs } from './query.ts'
import { checkContentType, parseContext } from './request-fields.ts'
import { quote, suggest } from './suggestion.ts'
import { checkKeyBytes } from './target.ts'

const fieldsOfKey = ['op', 'key', 'key64'] as const
const fieldsOfWrite = [...fieldsOfKey, 'context', 'ifMatch', 'ifNoneMatch'] as const
const fieldsOf: Readonly<Record<BatchOperation['op'], readonly string[]>> = {
  get: fieldsOfKey,
  delete: fieldsOfWrite,
  put: [...fieldsOfWrite, 'value', 'value64', 'ttl', 'contentType'],
}

function refuse(detail: string, code: ErrorCode = 'UNPROCESSABLE'): never {
  throw new SunwiseError(code, detail)
}

function textOf(object: Readonly<Record<string, unknown>>, name: string, code: ErrorCode): string | undefined {
  const value = object[name]
  if (value === undefined) return undefined
  if (typeof value !== 'string') refuse(`The field ${name} is not a string`, code)
  if (!value.isWellFormed()) refuse(`The field ${name} holds half a surrogate pair: it has no UTF-8 form`, code)
  return value
}

function keyOf(object: Readonly<Record<string, unknown>>): Uint8Array {
  const key = textOf(object, 'key', 'BAD_KEY')
  const key64 = textOf(object, 'key64', 'BAD_KEY')
  if ((key === undefined) === (key64 === undefined))
    refuse('The operation has not exactly one of key and key64', 'BAD_KEY')
  const bytes = key === undefined ? decodeBase64Url(key64!) : Buffer.from(key)
  if (bytes === undefined) refuse('The field key64 is not base64url', 'BAD_KEY')
  checkKeyBytes(bytes.length)
  return bytes
}

function putValueOf(object: Readonly<Record<string, unknown>>, valueBytesMax: number): Uint8Array {
  const value = textOf(object, 'value', 'UNPROCESSABLE')
  const value64 = textOf(object, 'value64', 'UNPROCESSABLE')
  if ((value === undefined) === (value64 === undefined)) refuse('A put has not exactly one of value and value64')
  const bytes = value === undefined ? decodeBase64(value64!) : Buffer.from(value)
  if (bytes === undefined) refuse('The field value64 is not base64 with padding')
  if (bytes.length > valueBytesMax) {
    throw new SunwiseError('VALUE_TOO_LARGE', `The value has ${bytes.length} bytes; the limit is ${valueBytesMax}`, {
      extra: { bytesMax: valueBytesMax },
    })
  }
  return bytes
}

/**
 * A time to live in JSON: milliseconds as a number, or a text as in the query.
 * @throws SunwiseError `BAD_TTL`
 */
export function ttlMsOf(value: unknown): number {
  if (typeof value === 'string') return parseTtlMs(value)
  if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0 && value <= Limits.ttlMsMax) return value
  return refuse('The field ttl is neither a positive number of milliseconds within the limit nor a duration', 'BAD_TTL')
}

function writeOptionsOf(object: Readonly<Record<string, unknown>>): WriteOptions {
  const context = textOf(object, 'context', 'BAD_CONTEXT')
  const contentType = textOf(object, 'contentType', 'BAD_REQUEST')
  const { ifMatch, ifNoneMatch, ttl } = object
  if (ifNoneMatch !== undefined && ifNoneMatch !== '*') refuse('The field ifNoneMatch is not "*"')
  let tags: readonly string[] | '*' | undefined
  if (ifMatch === '*') tags = '*'
  else if (typeof ifMatch === 'string') tags = [ifMatch]
  else if (Array.isArray(ifMatch) && ifMatch.every((tag): tag is string => typeof tag === 'string')) tags = ifMatch
  else if (ifMatch !== undefined) refuse('The field ifMatch is not "*", an etag or a list of etags')
  return {
    context: context === undefined ? undefined : parseContext(context),
    ifMatch: tags,
    ifNoneMatch: ifNoneMatch === undefined ? undefined : '*',
    ttlMs: ttl === undefined ? undefined : ttlMsOf(ttl),
    contentType: contentType === undefined ? undefined : checkContentType(contentType),
  }
}

/**
 * The operation in one parsed JSON element.
 * @throws SunwiseError `UNPROCESSABLE`, or the code of the field (`BAD_KEY`, `BAD_CONTEXT`, `BAD_TTL`, `VALUE_TOO_LARGE`)
 */
export function batchOperationOf(element: unknown, valueBytesMax: number): BatchOperation {
  if (typeof element !== 'object' || element === null || Array.isArray(element)) {
    refuse('The operation is not a JSON object')
  }
  const object = element as Readonly<Record<string, unknown>>
  const op = object['op']
  if (op !== 'get' && op !== 'put' && op !== 'delete') refuse('The field op is not get, put or delete')
  for (const name in object) {
    if (!fieldsOf[op].includes(name)) {
      refuse(`The field ${quote(name)} is not one of a ${op}${suggest(name, fieldsOf[op])}`)
    }
  }
  const key = keyOf(object)
  if (op === 'get') return { op, key }
  const options = writeOptionsOf(object)
  return op === 'put' ? { op, key, value: putValueOf(object, valueBytesMax), options } : { op, key, options }
}
