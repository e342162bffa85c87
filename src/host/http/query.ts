/**
 * Query strings, parsed by hand: an unknown, repeated or inapplicable parameter is refused, never ignored, and no value is
 * clamped. Names are plain; values are percent-decoded where they may need it.
 *
 * `+` in a text value is refused: forms mean a space by it and keys mean a plus, and a wrong guess would list other keys.
 */
import { type ErrorCode, SunwiseError } from '../../base/errors.ts'
import { type Durability, Limits } from '../../config.ts'
import type { QuorumLevel } from '../../replication/requests.ts'
import { decodeBase64Url } from './base64.ts'
import { parseDurationMs } from './duration.ts'
import { quote, suggest } from './suggestion.ts'
import { decodePercent } from './target.ts'

/** Every query parameter of the API. */
export type QueryName =
  | 'r'
  | 'w'
  | 'ttl'
  | 'timeout'
  | 'siblings'
  | 'key64'
  | 'sloppy'
  | 'receipt'
  | 'durability'
  | 'prefix'
  | 'prefix64'
  | 'limit'
  | 'cursor'
  | 'values'

/** The parameters of one request; what was not given is undefined, or false for a flag. */
export type Query = {
  r: QuorumLevel | undefined
  w: QuorumLevel | undefined
  /** Infinity for `ttl=none`: no expiry even where the bucket has one. */
  ttlMs: number | undefined
  timeoutMs: number | undefined
  siblings: 'winner' | 'all' | undefined
  key64: boolean
  sloppy: boolean | undefined
  receipt: boolean
  durability: Durability | undefined
  prefix: Uint8Array | undefined
  limit: number | undefined
  cursor: Uint8Array | undefined
  values: boolean
}

function emptyQuery(): Query {
  return {
    r: undefined,
    w: undefined,
    ttlMs: undefined,
    timeoutMs: undefined,
    siblings: undefined,
    key64: false,
    sloppy: undefined,
    receipt: false,
    durability: undefined,
    prefix: undefined,
    limit: undefined,
    cursor: undefined,
    values: false,
  }
}

/** The query of a request that has none. */
export const noQuery: Readonly<Query> = Object.freeze(emptyQuery())

function refuse(code: ErrorCode, name: string, text: string, expected: string): never {
  throw new SunwiseError(code, `The query parameter ${name}=${quote(text)} is not ${expected}`)
}

/**
 * A quorum level from its text; whether a number is above the bucket's n is for the caller.
 * @throws SunwiseError `BAD_QUORUM`
 */
export function parseQuorum(name: string, text: string): QuorumLevel {
  if (text === 'one' || text === 'quorum' || text === 'all') return text
  const level = naturalOf(text)
  return level !== undefined && level >= 1 ? level : refuse('BAD_QUORUM', name, text, 'one, quorum, all or 1 to n')
}

/** Decimal digits, at most nine, as a number. */
function naturalOf(text: string): number | undefined {
  if (text.length === 0 || text.length > 9) return undefined
  let value = 0
  for (let index = 0; index < text.length; index++) {
    const digit = text.charCodeAt(index) - 48
    if (digit < 0 || digit > 9) return undefined
    value = value * 10 + digit
  }
  return value
}

/**
 * A time to live in milliseconds from `ttl=` or a JSON `ttl`; Infinity for `none`.
 * @throws SunwiseError `BAD_TTL`
 */
export function parseTtlMs(text: string): number {
  if (text === 'none') return Number.POSITIVE_INFINITY
  const ttlMs = parseDurationMs(text, Limits.ttlMsMax)
  return ttlMs ?? refuse('BAD_TTL', 'ttl', text, 'a positive duration such as 1500, 30s, 5m, 2h or 7d, up to 36500d')
}

function flagOf(name: string, text: string): boolean {
  return text === '1' ? true : refuse('BAD_REQUEST', name, text, '1')
}

function bytesOf(name: string, text: string): Uint8Array {
  if (text.includes('+')) refuse('BAD_KEY', name, text, 'unambiguous: write %2B for a plus and %20 for a space')
  const scratch = new Uint8Array(Limits.keyBytesMax)
  const bytes = decodePercent(text, 0, text.length, scratch)
  return bytes < 0
    ? refuse('BAD_KEY', name, text, `percent-encoded and at most ${Limits.keyBytesMax} bytes`)
    : scratch.slice(0, bytes)
}

function assign(query: Query, name: QueryName, text: string): void {
  switch (name) {
    case 'r':
      query.r = parseQuorum(name, text)
      break
    case 'w':
      query.w = parseQuorum(name, text)
      break
    case 'ttl':
      query.ttlMs = parseTtlMs(text)
      break
    case 'timeout':
      query.timeoutMs =
        parseDurationMs(text, Limits.timeoutMsMax) ??
        refuse(
          'BAD_TIMEOUT',
          name,
          text,
          `a positive duration such as 500, 250ms or 30s, up to ${Limits.timeoutMsMax}ms`,
        )
      break
    case 'siblings':
      if (text !== 'winner' && text !== 'all') refuse('BAD_REQUEST', name, text, 'winner or all')
      query.siblings = text
      break
    case 'key64':
      query.key64 = flagOf(name, text)
      break
    case 'sloppy':
      if (text !== '0' && text !== '1') refuse('BAD_REQUEST', name, text, '0 or 1')
      query.sloppy = text === '1'
      break
    case 'receipt':
      query.receipt = flagOf(name, text)
      break
    case 'durability':
      if (text !== 'sync' && text !== 'interval' && text !== 'os') {
        refuse('BAD_REQUEST', name, text, 'sync, interval or os')
      }
      query.durability = text
      break
    case 'prefix':
      query.prefix = bytesOf(name, text)
      break
    case 'prefix64': {
      const prefix = decodeBase64Url(text)
      if (prefix === undefined || prefix.length > Limits.keyBytesMax) {
        refuse('BAD_KEY', name, text, `base64url of at most ${Limits.keyBytesMax} bytes`)
      }
      query.prefix = prefix
      break
    }
    case 'limit': {
      const limit = naturalOf(text)
      if (limit === undefined || limit < 1 || limit > Limits.listLimitMax) {
        refuse('BAD_REQUEST', name, text, `a number from 1 to ${Limits.listLimitMax}`)
      }
      query.limit = limit
      break
    }
    case 'cursor': {
      const cursor = text.length === 0 ? undefined : decodeBase64Url(text)
      query.cursor = cursor ?? refuse('BAD_CURSOR', name, text, 'a cursor that a list gave')
      break
    }
    case 'values':
      query.values = flagOf(name, text)
      break
  }
}

/**
 * The parameters after the `?` at `questionMark` (-1: none) of a target. `allowed` are those of the route.
 * @throws SunwiseError `BAD_REQUEST`, or the code of the parameter (`BAD_QUORUM`, `BAD_TTL`, `BAD_TIMEOUT`, `BAD_KEY`,
 * `BAD_CURSOR`)
 */
export function parseQuery(target: string, questionMark: number, allowed: readonly QueryName[]): Readonly<Query> {
  if (questionMark === -1 || questionMark === target.length - 1) return noQuery
  const query = emptyQuery()
  const seen: string[] = []
  for (let start = questionMark + 1; start <= target.length; ) {
    const ampersand = target.indexOf('&', start)
    const end = ampersand === -1 ? target.length : ampersand
    const equals = target.indexOf('=', start)
    const nameEnd = equals === -1 || equals > end ? end : equals
    const name = target.slice(start, nameEnd)
    const known = allowed.find((candidate) => candidate === name)
    if (known === undefined) {
      throw new SunwiseError(
        'BAD_REQUEST',
        `The query parameter ${quote(name)} is not one of this route${suggest(name, allowed)}`,
      )
    }
    const slot = known === 'prefix64' ? 'prefix' : known
    if (seen.includes(slot)) throw new SunwiseError('BAD_REQUEST', `The query parameter ${quote(name)} is given twice`)
    seen.push(slot)
    assign(query, known, nameEnd === end ? '' : target.slice(nameEnd + 1, end))
    start = end + 1
  }
  return query
}
