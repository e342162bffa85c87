/** What is wrong with a request before anything is done for it: the same answer from every coordinator. Values in, values out. */
import { type ErrorCode, ErrorTable, SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { Digest } from '../versions/version-set.ts'
import { checkLevel } from './quorum.ts'
import type { ETag, QuorumLevel } from './requests.ts'

export function checkKey(key: Uint8Array): SunwiseError | undefined {
  if (key.length >= 1 && key.length <= Limits.keyBytesMax) return undefined
  return new SunwiseError('BAD_KEY', `Cannot use a key of ${key.length} bytes: it must have 1 to ${Limits.keyBytesMax}`)
}

/** A level against the bucket's `n` and the replicas there are now, and a timeout. */
export function checkRequest(
  level: QuorumLevel,
  n: number,
  replicas: number,
  name: 'r' | 'w',
  timeoutMs: number | undefined,
): SunwiseError | undefined {
  if (timeoutMs !== undefined && !(timeoutMs > 0 && timeoutMs <= Limits.timeoutMsMax)) {
    const message = `Cannot use a timeout of ${timeoutMs} ms: it must be above 0 and at most ${Limits.timeoutMsMax}`
    return new SunwiseError('BAD_TIMEOUT', message)
  }
  return typeof level === 'number' ? checkLevel(level, n, replicas, name) : undefined
}

/** How many operations a batch has. */
export function checkBatch(operations: number): SunwiseError | undefined {
  if (operations <= Limits.batchOperationsMax) return undefined
  const message = `Cannot take a batch of ${operations} operations: the limit is ${Limits.batchOperationsMax}`
  return new SunwiseError('REQUEST_TOO_LARGE', message)
}

/** How many keys a page may have. */
export function checkListLimit(limit: number): SunwiseError | undefined {
  if (Number.isInteger(limit) && limit >= 1 && limit <= Limits.listLimitMax) return undefined
  const message = `Cannot list with limit ${limit}: it must be an integer from 1 to ${Limits.listLimitMax}`
  return new SunwiseError('UNPROCESSABLE', message)
}

export function checkListPrefix(prefix: Uint8Array): SunwiseError | undefined {
  if (prefix.length <= Limits.keyBytesMax) return undefined
  return new SunwiseError('BAD_KEY', `Cannot list with a prefix of ${prefix.length} bytes: no key is that long`)
}

/** Visible ASCII and spaces, as in an HTTP header; anything else could not be given back. */
export function checkContentType(contentType: string): SunwiseError | undefined {
  let isPlain = contentType.length <= Limits.contentTypeBytesMax
  for (let index = 0; index < contentType.length && isPlain; index++) {
    const code = contentType.charCodeAt(index)
    isPlain = code >= 0x20 && code < 0x7f
  }
  if (isPlain) return undefined
  const message = `Cannot store the content type "${contentType.slice(0, 64)}": it must be visible ASCII of at most ${Limits.contentTypeBytesMax} bytes`
  return new SunwiseError('BAD_REQUEST', message)
}

/** A time to live. */
export function checkTtl(ttlMs: number | undefined): SunwiseError | undefined {
  if (ttlMs === undefined || ttlMs === Infinity || (ttlMs > 0 && ttlMs <= Limits.ttlMsMax)) return undefined
  return new SunwiseError(
    'BAD_TTL',
    `Cannot use a time to live of ${ttlMs} ms: it must be above 0 and at most ${Limits.ttlMsMax}`,
  )
}

/** How many ETags an If-Match list has: one cut short would refuse writes it allows. */
export function checkIfMatch(ifMatch: readonly ETag[] | '*' | undefined): SunwiseError | undefined {
  if (ifMatch === undefined || ifMatch === '*' || ifMatch.length <= Limits.ifMatchETagsMax) return undefined
  const message = `Cannot use an If-Match list of ${ifMatch.length} ETags: the limit is ${Limits.ifMatchETagsMax}`
  return new SunwiseError('BAD_REQUEST', message)
}

/** The digests of an If-Match list that was checked; one that is no digest of ours matches nothing and is left out. */
export function parseETags(ifMatch: readonly ETag[] | '*' | undefined): readonly Digest[] {
  if (ifMatch === undefined || ifMatch === '*') return []
  return ifMatch
    .filter((etag) => /^[0-9a-f]{16}$/.test(etag))
    .map((etag) => ({ high: Number.parseInt(etag.slice(0, 8), 16), low: Number.parseInt(etag.slice(8), 16) }))
}

/** What to say of an error that a shard or another node told by its code alone. */
export function messageOf(code: ErrorCode): string {
  if (code === 'PRECONDITION_FAILED') return 'The key is not as If-Match or If-None-Match demands; read it again'
  return ErrorTable[code].title
}

/** The cursor of a list is none of this bucket, or was changed. */
export function badCursor(): SunwiseError {
  return new SunwiseError('BAD_CURSOR', 'Cannot read the cursor: use one of this bucket, unchanged')
}
