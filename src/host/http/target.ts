/**
 * Request targets as bytes. A key is the percent-decoded rest of the path after the bucket, taken from the raw target before
 * any router touches it: it may hold any byte, `%2F` and `/` are the same byte, `+` is itself, and `.` and `..` mean nothing
 * here (clients fold them before sending; such keys travel as `key64`).
 *
 * What it does not do: query strings (query.ts) and routing (server.ts).
 */
import { SunwiseError } from '../../base/errors.ts'
import { Limits } from '../../config.ts'
import { decodeBase64Url } from './base64.ts'
import { quote } from './suggestion.ts'

/** Decoding stopped at a `%` that two hexadecimal digits do not follow. */
export const malformedPercent = -1
/** Decoding stopped at a character that a request target may not hold raw: non-ASCII, a control, a space or `#`. */
export const characterRefused = -2
/** The decoded bytes do not fit. */
export const decodedTooLong = -3

function hexadecimalDigit(code: number): number {
  if (code >= 48 && code <= 57) return code - 48
  const lower = code | 32
  return lower >= 97 && lower <= 102 ? lower - 87 : -1
}

/**
 * Percent-decodes `text[start, end)` into `into`. Returns the number of bytes, or one of the three negative faults above.
 * Nothing is allocated.
 */
export function decodePercent(text: string, start: number, end: number, into: Uint8Array): number {
  const room = into.length
  let bytes = 0
  for (let at = start; at < end; at++) {
    let code = text.charCodeAt(at)
    if (code === 0x25) {
      if (at + 2 >= end) return malformedPercent
      const high = hexadecimalDigit(text.charCodeAt(at + 1))
      const low = hexadecimalDigit(text.charCodeAt(at + 2))
      if (high < 0 || low < 0) return malformedPercent
      code = high * 16 + low
      at += 2
    } else if (code <= 0x20 || code >= 0x7f || code === 0x23) return characterRefused
    if (bytes === room) return decodedTooLong
    into[bytes++] = code
  }
  return bytes
}

/** Throws what a negative result of `decodePercent` means for a key. */
function refuseKey(fault: number): never {
  if (fault === malformedPercent) {
    throw new SunwiseError('BAD_KEY', 'The key holds a % that two hexadecimal digits do not follow; write % as %25')
  }
  if (fault === characterRefused) {
    throw new SunwiseError('BAD_KEY', 'The key holds a character that must be percent-encoded')
  }
  throw new SunwiseError('BAD_KEY', `The key is longer than ${Limits.keyBytesMax} bytes`)
}

/** @throws SunwiseError `BAD_KEY` unless a key of so many bytes is allowed. */
export function checkKeyBytes(bytes: number): void {
  if (bytes === 0) throw new SunwiseError('BAD_KEY', 'The key is empty')
  if (bytes > Limits.keyBytesMax) {
    throw new SunwiseError('BAD_KEY', `The key has ${bytes} bytes; the limit is ${Limits.keyBytesMax}`)
  }
}

/** Decodes keys of one thread without allocating: one scratch, and one view of it per length, made when first needed. */
export class KeyDecoder {
  /** Room for the longest key written as base64url, with something to spare. */
  readonly #scratch = new Uint8Array(2 * Limits.keyBytesMax)
  readonly #views: (Uint8Array | undefined)[] = new Array(Limits.keyBytesMax + 1).fill(undefined)

  /**
   * The key in `target[start, end)`. The bytes belong to this decoder and hold until its next call: a coordinator copies
   * them before it returns, everyone else must.
   * @throws SunwiseError `BAD_KEY`
   */
  decode(target: string, start: number, end: number): Uint8Array {
    const bytes = decodePercent(target, start, end, this.#scratch)
    if (bytes < 0) refuseKey(bytes)
    if (bytes === 0 || bytes > Limits.keyBytesMax) checkKeyBytes(bytes)
    let view = this.#views[bytes]
    if (view === undefined) {
      view = this.#scratch.subarray(0, bytes)
      this.#views[bytes] = view
    }
    return view
  }

  /**
   * The key whose base64url stands in `target[start, end)`, fresh.
   * @throws SunwiseError `BAD_KEY`
   */
  decode64(target: string, start: number, end: number): Uint8Array {
    const bytes = decodePercent(target, start, end, this.#scratch)
    if (bytes < 0) refuseKey(bytes)
    const key = decodeBase64Url(Buffer.from(this.#scratch.subarray(0, bytes)).toString('latin1'))
    if (key === undefined) throw new SunwiseError('BAD_KEY', 'key64=1 says that the key is base64url, but it is not')
    checkKeyBytes(key.length)
    return key
  }
}

/** Whether a text is a bucket name: 1 to 128 of A-Z a-z 0-9 . _ - */
export function isBucketName(name: string): boolean {
  if (name.length === 0 || name.length > Limits.bucketNameBytesMax) return false
  for (let index = 0; index < name.length; index++) {
    const code = name.charCodeAt(index)
    const fine =
      (code >= 48 && code <= 57) ||
      (code >= 65 && code <= 90) ||
      (code >= 97 && code <= 122) ||
      code === 46 ||
      code === 95 ||
      code === 45
    if (!fine) return false
  }
  return true
}

/**
 * The bucket name in one raw path segment. Its characters need no encoding but may have one.
 * @throws SunwiseError `BAD_BUCKET`
 */
export function bucketNameOf(segment: string): string {
  let name = segment
  if (segment.includes('%')) {
    const scratch = new Uint8Array(Limits.bucketNameBytesMax + 1)
    const bytes = decodePercent(segment, 0, segment.length, scratch)
    name = bytes < 0 ? '' : Buffer.from(scratch.subarray(0, bytes)).toString('latin1')
  }
  if (isBucketName(name)) return name
  throw new SunwiseError(
    'BAD_BUCKET',
    `The bucket name ${quote(segment)} is not 1 to ${Limits.bucketNameBytesMax} of A-Z a-z 0-9 . _ -`,
  )
}
