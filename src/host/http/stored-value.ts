/**
 * Stored values as they appear in answers: their content type as a header that is safe to send, and their JSON form. A value
 * is given as text (`value`) only where it is valid UTF-8, so that no byte is ever changed; otherwise as `value64`.
 */
import { isUtf8 } from 'node:buffer'
import type { ReadAnswer, Receipt, StoredValue, WriteAnswer } from '../../replication/requests.ts'
import { bufferOf, encodeBase64, encodeBase64Url } from './base64.ts'
import { isHeaderText } from './request-fields.ts'

/** The content type of a value without one. */
export const octetStream = 'application/octet-stream'

/**
 * Appends the Content-Type of a stored value, with what keeps a browser from running it in this origin: a value is data,
 * never a page of the node. Types that no browser executes go without the policy, to spare bytes.
 */
export function pushContentType(headers: string[], contentType: string): void {
  if (contentType === octetStream) {
    headers.push('Content-Type', octetStream, 'X-Content-Type-Options', 'nosniff')
    return
  }
  const safe = contentType.length > 0 && isHeaderText(contentType) ? contentType : octetStream
  headers.push('Content-Type', safe, 'X-Content-Type-Options', 'nosniff')
  if (!inertTypes.has(safe)) headers.push('Content-Security-Policy', 'sandbox')
}

const inertTypes: ReadonlySet<string> = new Set([
  octetStream,
  'application/json',
  'text/plain',
  'text/plain; charset=utf-8',
  'text/plain;charset=UTF-8',
  'application/x-www-form-urlencoded',
  'image/png',
  'image/jpeg',
  'image/webp',
])

/** Texts of small `acks/replicas` pairs, so that answers do not build them. */
const acksTexts: readonly (readonly string[])[] = Array.from({ length: 8 }, (_, acks) =>
  Array.from({ length: 8 }, (_, replicas) => `${acks}/${replicas}`),
)

/** Appends what an answer says about the consistency it got; `isWhole`: with who answered. */
export function pushReceipt(headers: string[], receipt: Receipt, isWhole = false): void {
  headers.push('Sunwise-Acks', acksTexts[receipt.acks]?.[receipt.replicas] ?? `${receipt.acks}/${receipt.replicas}`)
  if (receipt.sloppy) headers.push('Sunwise-Sloppy', '1')
  // Ids of nodes are hexadecimal, so the JSON is fit for a header.
  if (isWhole) headers.push('Sunwise-Receipt', JSON.stringify(receipt))
}

/** Appends digest and context of a version set. */
export function pushVersion(headers: string[], answer: ReadAnswer | WriteAnswer): void {
  // Asked for once each: the answer to a write computes them.
  const { etag, context } = answer
  if (etag !== undefined) headers.push('ETag', `"${etag}"`)
  if (context !== undefined) headers.push('Sunwise-Context', encodeBase64Url(context))
}

/** The JSON member of a value: `"value":"text"` or `"value64":"..."`. */
function valueMember(value: Uint8Array): string {
  return isUtf8(value)
    ? `"value":${JSON.stringify(bufferOf(value).toString('utf8'))}`
    : `"value64":"${encodeBase64(value)}"`
}

/** The JSON member of a key: `"key":"text"` or `"key64":"..."` (base64url). */
export function keyMember(key: Uint8Array): string {
  return isUtf8(key) ? `"key":${JSON.stringify(bufferOf(key).toString('utf8'))}` : `"key64":"${encodeBase64Url(key)}"`
}

function metadataMembers(stored: StoredValue): string {
  const expires = stored.expiresAtMs === undefined ? '' : `,"expires":${stored.expiresAtMs}`
  // Most values have a type that is its own JSON.
  const type = inertTypes.has(stored.contentType) ? `"${stored.contentType}"` : JSON.stringify(stored.contentType)
  return `"contentType":${type}${expires}`
}

/** The list of a key's values in an answer to one key: always `value64`, so that one shape serves all values. */
export function siblingsJson(values: readonly StoredValue[]): string {
  return `[${values.map((stored) => `{"value64":"${encodeBase64(stored.value)}",${metadataMembers(stored)}}`).join(',')}]`
}

/** Digest and context of a version set, each with a leading comma: an ETag has hexadecimal digits alone. */
function versionMembers(answer: ReadAnswer | WriteAnswer): string {
  const { etag, context } = answer
  const text = etag === undefined ? '' : `,"etag":"${etag}"`
  return context === undefined ? text : `${text},"context":"${encodeBase64Url(context)}"`
}

/** The members of a read answer within a batch or a list, each with a leading comma. */
export function readMembers(answer: ReadAnswer): string {
  const text = versionMembers(answer)
  const [first] = answer.values
  if (first === undefined) return text
  if (answer.values.length === 1) return `${text},${valueMember(first.value)},${metadataMembers(first)}`
  const values = answer.values.map((stored) => `{${valueMember(stored.value)},${metadataMembers(stored)}}`)
  return `${text},"siblings":${values.length},"values":[${values.join(',')}]`
}

/** The members of a write answer within a batch, each with a leading comma. */
export function writeMembers(answer: WriteAnswer): string {
  let text = versionMembers(answer)
  if (answer.siblings > 1) text += `,"siblings":${answer.siblings}`
  if (answer.expiresAtMs !== undefined) text += `,"expires":${answer.expiresAtMs}`
  return text
}

/** Bytes of the values of an answer. */
export function valueBytesOf(answer: ReadAnswer): number {
  let bytes = 0
  for (const stored of answer.values) bytes += stored.value.length
  return bytes
}
