/**
 * The header fields that the front end reads, taken in one pass over the raw list that Node's parser made. Node's own
 * `headers` object silently keeps the first of two `Host` fields; here a repeated field that must be single is a fault, and
 * repeated lists are joined as RFC 9110 section 5.3 says.
 */
import { SunwiseError } from '../../base/errors.ts'
import { Limits } from '../../config.ts'
import type { ETag } from '../../replication/requests.ts'
import { decodeBase64Url } from './base64.ts'
import { quote } from './suggestion.ts'

/** The fields of one request; undefined where absent. */
export class RequestFields {
  host: string | undefined = undefined
  origin: string | undefined = undefined
  accept: string | undefined = undefined
  prefer: string | undefined = undefined
  expect: string | undefined = undefined
  ifMatch: string | undefined = undefined
  ifNoneMatch: string | undefined = undefined
  contentType: string | undefined = undefined
  contentLength: string | undefined = undefined
  contentEncoding: string | undefined = undefined
  contentRange: string | undefined = undefined
  transferEncoding: string | undefined = undefined
  context: string | undefined = undefined
  /** Name of a field that occurs twice and must not. */
  repeated: string | undefined = undefined

  /** `raw` is Node's `rawHeaders`: names and values in turn. */
  constructor(raw: readonly string[]) {
    for (let index = 0; index + 1 < raw.length; index += 2) {
      const name = raw[index]!
      // Lengths first: most fields of a browser or a client library are none of ours, and this is the hot path.
      switch (name.length) {
        case 4:
        case 6:
        case 8:
        case 12:
        case 13:
        case 14:
        case 15:
        case 16:
        case 17:
          this.#take(name.toLowerCase(), raw[index + 1]!)
      }
    }
  }

  #take(name: string, value: string): void {
    switch (name) {
      case 'host':
        if (this.host !== undefined) this.repeated = name
        this.host = value
        break
      case 'origin':
        if (this.origin !== undefined) this.repeated = name
        this.origin = value
        break
      case 'accept':
        this.accept = this.accept === undefined ? value : `${this.accept}, ${value}`
        break
      case 'prefer':
        this.prefer = this.prefer === undefined ? value : `${this.prefer}, ${value}`
        break
      case 'expect':
        this.expect = value
        break
      case 'if-match':
        this.ifMatch = this.ifMatch === undefined ? value : `${this.ifMatch}, ${value}`
        break
      case 'if-none-match':
        this.ifNoneMatch = this.ifNoneMatch === undefined ? value : `${this.ifNoneMatch}, ${value}`
        break
      case 'content-type':
        if (this.contentType !== undefined) this.repeated = name
        this.contentType = value
        break
      case 'content-range':
        this.contentRange = value
        break
      case 'content-length':
        if (this.contentLength !== undefined) this.repeated = name
        this.contentLength = value
        break
      case 'content-encoding':
        this.contentEncoding = this.contentEncoding === undefined ? value : `${this.contentEncoding}, ${value}`
        break
      case 'transfer-encoding':
        this.transferEncoding = value
        break
      case 'sunwise-context':
        if (this.context !== undefined) this.repeated = name
        this.context = value
        break
    }
  }
}

/** Whether a text may stand in a header field as it is: visible ASCII and inner spaces. */
export function isHeaderText(text: string): boolean {
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code < 0x20 || code > 0x7e) return false
  }
  return true
}

/**
 * A content type that may be stored and given back; undefined for an empty one.
 * @throws SunwiseError `BAD_REQUEST`
 */
export function checkContentType(text: string): string | undefined {
  if (text.length === 0) return undefined
  if (text.length <= Limits.contentTypeBytesMax && isHeaderText(text) && text.trim() === text) return text
  throw new SunwiseError(
    'BAD_REQUEST',
    `The content type ${quote(text)} is not at most ${Limits.contentTypeBytesMax} visible ASCII characters`,
  )
}

/** The media type of a content type, in lower case and without parameters. */
export function mediaTypeOf(contentType: string | undefined): string {
  if (contentType === undefined) return ''
  const semicolon = contentType.indexOf(';')
  return (semicolon === -1 ? contentType : contentType.slice(0, semicolon)).trim().toLowerCase()
}

/** Whether an `Accept` field asks for lines of JSON by name. A wildcard does not. */
export function acceptsLines(accept: string | undefined): boolean {
  if (accept === undefined) return false
  return accept.split(',').some((range) => {
    const quality = /;\s*q=0(\.0*)?\s*(;|$)/i.test(range)
    return mediaTypeOf(range) === 'application/x-ndjson' && !quality
  })
}

/**
 * The causal context of a header field or of a JSON member.
 * @throws SunwiseError `BAD_CONTEXT`
 */
export function parseContext(text: string): Uint8Array {
  const charactersMax = Math.ceil((Limits.contextBytesMax * 4) / 3)
  const context = text.length === 0 || text.length > charactersMax ? undefined : decodeBase64Url(text)
  if (context !== undefined) return context
  throw new SunwiseError('BAD_CONTEXT', 'The context is not base64url as an answer gave it; read the key again')
}

/** One entry of an `If-Match` or `If-None-Match` list. */
export type EntityTag = { readonly tag: ETag; readonly weak: boolean }

/**
 * The entity tags of `If-Match` or `If-None-Match` (RFC 9110 section 8.8.3), or `*`.
 * @throws SunwiseError `BAD_REQUEST`
 */
export function parseEntityTags(field: string, text: string): readonly EntityTag[] | '*' {
  if (text.trim() === '*') return '*'
  const refuse = (): never => {
    throw new SunwiseError('BAD_REQUEST', `${field} ${quote(text)} is neither * nor a list of quoted entity tags`)
  }
  const tags: EntityTag[] = []
  let at = 0
  const skip = (): void => {
    while (text[at] === ' ' || text[at] === '\t') at++
  }
  for (;;) {
    skip()
    const weak = text.startsWith('W/', at)
    if (weak) at += 2
    if (text[at] !== '"') return refuse()
    const close = text.indexOf('"', at + 1)
    if (close === -1) return refuse()
    tags.push({ tag: text.slice(at + 1, close), weak })
    at = close + 1
    skip()
    if (at === text.length) return tags
    if (text[at] !== ',') return refuse()
    at++
  }
}

/** The tags of an `If-Match`: comparison is strong, so weak tags match nothing and are left out. */
export function strongTagsOf(text: string): readonly ETag[] | '*' {
  const tags = parseEntityTags('If-Match', text)
  return tags === '*' ? tags : tags.filter((entry) => !entry.weak).map((entry) => entry.tag)
}
