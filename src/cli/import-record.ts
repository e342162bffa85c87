/**
 * What one record of an import means, and the line that an export writes for it; each is the other's inverse.
 *
 *   {"key":"user:42","value":"text"}                      text, as its UTF-8 bytes
 *   {"key64":"...","value64":"...","contentType":"..."}   bytes: keys in base64url, values in base64
 *   {"key":"a","value":{"any":1}}                         any other JSON, stored exactly as it is written there
 *   ... ,"ttl":60000                                      milliseconds, or with a unit: "5m"
 *   ... ,"expires":1790000000000                          milliseconds since 1970; a record already expired is skipped
 *
 * With a key field the whole record is the value, byte for byte as it stands in the file, and the key is that field.
 * Nothing is guessed: a member that nobody knows, half a surrogate pair or base64 with a foreign character is a problem.
 */

import type { ClientEntry } from '../client/http-answer.ts'
import { textOfBytes } from '../client/key-bytes.ts'
import { Limits } from '../config.ts'
import { parseDurationMs } from './quantity.ts'
import { suggestionFor } from './suggestion.ts'

/** A value to store under a key. */
export type ImportRecord = {
  readonly key: Uint8Array
  readonly value: Uint8Array
  readonly contentType: string | undefined
  readonly ttlMs: number | undefined
}

/** A record, one that expired before it was read, or what is wrong with it. */
export type ParsedRecord =
  | { readonly kind: 'record'; readonly record: ImportRecord }
  | { readonly kind: 'expired' }
  | { readonly kind: 'problem'; readonly problem: string }

const MEMBERS = ['key', 'key64', 'value', 'value64', 'contentType', 'ttl', 'expires', 'etag', 'siblings']
/** Nesting beyond this is refused before JSON.parse sees it. */
const DEPTH_MAX = 64

const problem = (text: string): ParsedRecord => ({ kind: 'problem', problem: text })

/** Whether brackets nest deeper than `DEPTH_MAX`; strings do not count. */
function isTooDeep(text: string): boolean {
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x22) {
      for (at++; at < text.length && text.charCodeAt(at) !== 0x22; at++) if (text.charCodeAt(at) === 0x5c) at++
    } else if (code === 0x7b || code === 0x5b) {
      if (++depth > DEPTH_MAX) return true
    } else if (code === 0x7d || code === 0x5d) depth--
  }
  return false
}

/** The source text of the last member `name` of the JSON object `text`, which is known to be valid. */
function sourceOfMember(text: string, name: string): string {
  let source = ''
  let depth = 0
  let start = -1
  let label = ''
  for (let at = 0; at < text.length; at++) {
    const character = text[at]!
    if (character === '"') {
      const begin = at
      for (at++; text[at] !== '"'; at++) if (text[at] === '\\') at++
      if (depth === 1 && start === -1) label = JSON.parse(text.slice(begin, at + 1))
    } else if (character === '{' || character === '[') depth++
    else if (character === ':' && depth === 1) start = at + 1
    else if (character === '}' || character === ']' || character === ',') {
      if (depth === 1 && start !== -1) {
        if (label === name) source = text.slice(start, at).trim()
        start = -1
      }
      if (character !== ',') depth--
    }
  }
  return source
}

/** Bytes of base64 in either alphabet, padded or not; undefined if it is anything else. */
export function decodeBase64(text: string): Uint8Array | undefined {
  if (!/^[A-Za-z0-9+/_-]*={0,2}$/.test(text)) return undefined
  if (text.endsWith('=') && text.length % 4 !== 0) return undefined
  const bytes = Buffer.from(text, 'base64')
  const digits = text.replace(/=+$/, '')
  return bytes.toString('base64url') === digits.replaceAll('+', '-').replaceAll('/', '_') ? bytes : undefined
}

function ttlOf(members: Readonly<Record<string, unknown>>, nowMs: number): number | 'expired' | undefined | string {
  const ttl = members['ttl'] ?? undefined
  const expires = members['expires'] ?? undefined
  if (ttl !== undefined && expires !== undefined) return 'has both ttl and expires'
  if (expires !== undefined) {
    if (typeof expires !== 'number' || !Number.isSafeInteger(expires)) return 'expires must be milliseconds since 1970'
    return expires <= nowMs ? 'expired' : expires - nowMs
  }
  if (ttl === undefined) return undefined
  const ttlMs = typeof ttl === 'number' ? ttl : typeof ttl === 'string' ? parseDurationMs(ttl) : undefined
  if (ttlMs === undefined || !Number.isSafeInteger(ttlMs) || ttlMs < 1) return 'ttl must be a positive duration'
  return ttlMs
}

function keyProblem(key: Uint8Array): string | undefined {
  if (key.length >= 1 && key.length <= Limits.keyBytesMax) return undefined
  return `the key has ${key.length} bytes; expected 1 to ${Limits.keyBytesMax}`
}

function keyedBy(field: string, text: string, members: Readonly<Record<string, unknown>>): ParsedRecord {
  if (!Object.hasOwn(members, field)) return problem(`has no member ${JSON.stringify(field)}`)
  const value = members[field]
  if (typeof value !== 'string' && typeof value !== 'number') {
    return problem(`${JSON.stringify(field)} is neither text nor a number`)
  }
  if (typeof value === 'string' && !value.isWellFormed()) return problem('the key has half a surrogate pair')
  // A number is taken as it is written: 1e3 and 12345678901234567890 stay what they are.
  const key = Buffer.from(typeof value === 'string' ? value : sourceOfMember(text, field))
  const wrong = keyProblem(key)
  if (wrong !== undefined) return problem(wrong)
  const record = { key, value: Buffer.from(text), contentType: 'application/json', ttlMs: undefined }
  return { kind: 'record', record }
}

/**
 * Reads one record. `keyField` names the member that is the key of records that are values as a whole; `nowMs` is the wall
 * clock, for expiry.
 */
export function parseImportRecord(bytes: Uint8Array, keyField: string | undefined, nowMs: number): ParsedRecord {
  const text = textOfBytes(bytes)
  if (text === undefined) return problem('is not UTF-8')
  if (isTooDeep(text)) return problem(`is nested deeper than ${DEPTH_MAX}`)
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    return problem('is not JSON')
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) return problem('is not a JSON object')
  const members = parsed as Readonly<Record<string, unknown>>
  if (keyField !== undefined) return keyedBy(keyField, text, members)

  for (const name of Object.keys(members)) {
    if (!MEMBERS.includes(name)) {
      const suggestion = suggestionFor(name, MEMBERS) || '; --key-field stores records whole'
      return problem(`has an unknown member ${JSON.stringify(name.slice(0, 40))}${suggestion}`)
    }
  }
  const { key, key64, value, value64, contentType } = members
  if ((key === undefined) === (key64 === undefined)) return problem('needs either key or key64')
  if ((value === undefined) === (value64 === undefined)) return problem('needs either value or value64')
  const keyText = key ?? key64
  if (typeof keyText !== 'string') return problem('the key is not text')
  if (!keyText.isWellFormed()) return problem('the key has half a surrogate pair')
  const keyBytes = key === undefined ? decodeBase64(keyText) : Buffer.from(keyText)
  if (keyBytes === undefined) return problem('key64 is not base64')
  const wrong = keyProblem(keyBytes)
  if (wrong !== undefined) return problem(wrong)

  let valueBytes: Uint8Array | undefined
  let type = contentType
  if (value64 !== undefined) {
    valueBytes = typeof value64 === 'string' ? decodeBase64(value64) : undefined
    if (valueBytes === undefined) return problem('value64 is not base64')
  } else if (typeof value === 'string') {
    if (!value.isWellFormed()) return problem('the value has half a surrogate pair')
    valueBytes = Buffer.from(value)
  } else {
    valueBytes = Buffer.from(sourceOfMember(text, 'value'))
    type ??= 'application/json'
  }
  if (type !== undefined && (typeof type !== 'string' || !/^[\x20-\x7e]{1,255}$/.test(type))) {
    return problem('contentType must be 1 to 255 characters of ASCII')
  }
  const ttl = ttlOf(members, nowMs)
  if (ttl === 'expired') return { kind: 'expired' }
  if (typeof ttl === 'string') return problem(ttl)
  const record = { key: keyBytes, value: valueBytes, contentType: type, ttlMs: ttl }
  return { kind: 'record', record }
}

/**
 * The NDJSON line, with its newline, that `parseImportRecord` reads back as the first value of `entry`. Further siblings
 * stand in `siblings`, for people: they cannot be imported as such. The context is left out: it means nothing elsewhere.
 */
export function exportLine(key: Uint8Array, entry: ClientEntry): string {
  const [winner, ...others] = entry.values
  const encoded = (value: Uint8Array): Record<string, string> => {
    const text = textOfBytes(value)
    return text === undefined ? { value64: Buffer.from(value).toString('base64') } : { value: text }
  }
  const row = (stored: ClientEntry['values'][number] | undefined): Record<string, unknown> =>
    stored === undefined
      ? {}
      : { ...encoded(stored.value), contentType: stored.contentType, expires: stored.expiresAtMs }
  const keyText = textOfBytes(key)
  const name = keyText === undefined ? { key64: Buffer.from(key).toString('base64url') } : { key: keyText }
  const siblings = others.length === 0 ? {} : { siblings: others.map(row) }
  return `${JSON.stringify({ ...name, ...row(winner), ...siblings })}\n`
}
