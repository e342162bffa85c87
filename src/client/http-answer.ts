/**
 * Answers of the server as values: entries, receipts, and errors with the code and outcome of their problem document. Every
 * field is checked before it is believed: what answers may be another program.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { type ErrorCode, ErrorTable, type Outcome, SunwiseError } from '../base/errors.ts'
import type { Receipt } from '../replication/requests.ts'
import { textOfBytes } from './key-bytes.ts'

/** An answer, read whole. */
export type Reply = { readonly status: number; readonly headers: IncomingHttpHeaders; readonly body: Buffer }

/** One stored value. */
export type ClientValue = {
  readonly value: Uint8Array
  readonly contentType: string
  /** Milliseconds since 1970; undefined: never expires. */
  readonly expiresAtMs: number | undefined
}

/** What a key holds. */
export type ClientEntry = {
  /** None where there is no such key; siblings with the winner first; one if only the winner was asked for. */
  readonly values: readonly ClientValue[]
  /** Values that the key really has. */
  readonly siblings: number
  readonly etag: string | undefined
  /** Opaque; present for a deleted key, too. */
  readonly context: string | undefined
  /** Replicas that answered, such as `1/1`. */
  readonly acks: string | undefined
  /** Who answered, and how; where it was asked for. */
  readonly receipt?: Receipt
}

/** What a write came to. */
export type ClientReceipt = Omit<ClientEntry, 'values'>

/** A JSON object whose members nobody has checked yet. */
export type Json = Readonly<Record<string, unknown>>

/** Whether `value` is a JSON object, neither null nor a list. */
export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The member `name` if it is a string. */
export function stringIn(json: Json, name: string): string | undefined {
  const value = json[name]
  return typeof value === 'string' ? value : undefined
}

/** The bytes of the member `name64` (either base64) or of the text member `name`. */
export function bytesIn(json: Json, name: string): Uint8Array | undefined {
  const encoded = stringIn(json, `${name}64`)
  if (encoded !== undefined) return Buffer.from(encoded, 'base64')
  const text = stringIn(json, name)
  return text === undefined ? undefined : Buffer.from(text)
}

const withoutQuotes = (etag: string | undefined): string | undefined => etag?.replace(/^"(.*)"$/, '$1')

function expiryOf(json: Json): number | undefined {
  const expires = json['expires'] ?? json['expiresAtMs']
  return typeof expires === 'number' ? expires : undefined
}

function valueIn(json: Json): ClientValue | undefined {
  const value = bytesIn(json, 'value')
  if (value === undefined) return undefined
  const contentType = stringIn(json, 'contentType') ?? 'application/octet-stream'
  return { value, contentType, expiresAtMs: expiryOf(json) }
}

/** Values of a list of siblings; undefined unless all can be read. */
export function valuesIn(list: unknown): ClientValue[] | undefined {
  if (!Array.isArray(list)) return undefined
  const values = list.map((item: unknown) => (isObject(item) ? valueIn(item) : undefined))
  return values.every((value) => value !== undefined) ? values : undefined
}

/** An entry of a batch answer or of a list page. */
export function entryIn(json: Json): ClientEntry {
  const single = valueIn(json)
  const values = valuesIn(json['values']) ?? valuesIn(json['siblings']) ?? (single === undefined ? [] : [single])
  return {
    values,
    siblings: typeof json['siblings'] === 'number' ? json['siblings'] : values.length,
    etag: withoutQuotes(stringIn(json, 'etag')),
    context: stringIn(json, 'context'),
    acks: stringIn(json, 'acks'),
  }
}

/** @throws SunwiseError `INTERNAL` if the bytes are not JSON in UTF-8. */
export function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(textOfBytes(bytes) ?? '')
  } catch (cause) {
    throw new SunwiseError('INTERNAL', 'The server answered something that is not JSON', { cause, outcome: 'unknown' })
  }
}

/** The error that a problem document tells of. Without a known code its status decides. */
export function errorOfProblem(problem: Json, status: number, isRead: boolean): SunwiseError {
  const { code, detail, title, outcome, ...extra } = problem
  const known = typeof code === 'string' && Object.hasOwn(ErrorTable, code)
  const told = outcome === 'none' || outcome === 'partial' || outcome === 'unknown' ? outcome : undefined
  const text = [detail, title].find((part) => typeof part === 'string' && part !== '') ?? `HTTP status ${status}`
  if (!known) return errorOfStatus(status, `${text}`, isRead)
  return new SunwiseError(code as ErrorCode, `${text}`, { extra, ...(told === undefined ? {} : { outcome: told }) })
}

/** For answers without a problem document of ours, as from a proxy in between. */
export function errorOfStatus(status: number, detail: string, isRead: boolean): SunwiseError {
  const code: ErrorCode =
    status === 404
      ? 'ROUTE_NOT_FOUND'
      : status === 412
        ? 'PRECONDITION_FAILED'
        : status === 413
          ? 'REQUEST_TOO_LARGE'
          : status === 429 || status === 502 || status === 503
            ? 'NOT_READY'
            : status === 504
              ? 'TIMEOUT'
              : status >= 400 && status < 500
                ? 'BAD_REQUEST'
                : 'INTERNAL'
  const outcome: Outcome = isRead || (status >= 400 && status < 500) ? 'none' : 'unknown'
  return new SunwiseError(code, detail, { outcome })
}

/** The error that an answer tells of. */
export function errorOfReply(reply: Reply, isRead: boolean): SunwiseError {
  const type = reply.headers['content-type'] ?? ''
  if (/^application\/(problem\+)?json\b/.test(type)) {
    try {
      const problem: unknown = JSON.parse(reply.body.toString('utf8'))
      if (isObject(problem)) return errorOfProblem(problem, reply.status, isRead)
    } catch {
      // Not JSON after all: the status must do.
    }
  }
  return errorOfStatus(reply.status, `The server answered HTTP status ${reply.status}`, isRead)
}

/** A header that was sent once. */
export function headerOf(reply: Reply, name: string): string | undefined {
  const value = reply.headers[name]
  return typeof value === 'string' ? value : undefined
}

/** A finite number in a header. */
export function numberIn(text: string | undefined): number | undefined {
  const value = Number(text)
  return text === undefined || text === '' || !Number.isFinite(value) ? undefined : value
}

/** The receipt in a header field; undefined if it cannot be read. */
function receiptIn(text: string | undefined): Receipt | undefined {
  if (text === undefined) return undefined
  try {
    const receipt: unknown = JSON.parse(text)
    if (!isObject(receipt)) return undefined
    const { acks, replicas, epoch, sloppy, durable, nodes } = receipt
    const areNumbers = [acks, replicas, epoch].every((each) => typeof each === 'number')
    const areFacts = [sloppy, durable].every((each) => typeof each === 'boolean')
    const areNodes = nodes === undefined || (Array.isArray(nodes) && nodes.every(isObject))
    return areNumbers && areFacts && areNodes ? (receipt as Receipt) : undefined
  } catch {
    return undefined
  }
}

/** What the headers of an answer about one key say. */
export function receiptOf(reply: Reply, siblingsDefault: number): ClientReceipt {
  const receipt = receiptIn(headerOf(reply, 'sunwise-receipt'))
  return {
    ...(receipt === undefined ? {} : { receipt }),
    siblings: numberIn(headerOf(reply, 'sunwise-siblings')) ?? siblingsDefault,
    etag: withoutQuotes(headerOf(reply, 'etag')),
    context: headerOf(reply, 'sunwise-context'),
    acks: headerOf(reply, 'sunwise-acks'),
  }
}
