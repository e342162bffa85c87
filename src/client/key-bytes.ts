/**
 * Keys and values between bytes and the texts that carry them: percent-encoded in a path, as they are in JSON where they
 * are UTF-8, in base64 where they are not. Nothing is replaced on the way: bytes that come back are the bytes sent.
 */
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'

const strictDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const unreserved = new Set(Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/'))
const hexOf = Array.from({ length: 256 }, (_, byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`)

/** The text of `bytes` if they are UTF-8, else undefined; so `Buffer.from(text)` gives exactly `bytes` back. */
export function textOfBytes(bytes: Uint8Array): string | undefined {
  try {
    return strictDecoder.decode(bytes)
  } catch {
    return undefined
  }
}

/** Bytes of a key. @throws SunwiseError `BAD_KEY` if it is empty, too long, or a string that is not well formed. */
export function bytesOfKey(key: string | Uint8Array): Uint8Array {
  if (typeof key === 'string' && !key.isWellFormed()) {
    throw new SunwiseError('BAD_KEY', 'The key is not a well-formed string: it has half a surrogate pair')
  }
  const bytes = typeof key === 'string' ? Buffer.from(key) : key
  if (bytes.length === 0 || bytes.length > Limits.keyBytesMax) {
    throw new SunwiseError('BAD_KEY', `The key has ${bytes.length} bytes; expected 1 to ${Limits.keyBytesMax}`)
  }
  return bytes
}

/** `bytes` for the path of a URL: everything but unreserved characters and `/` is percent-encoded. */
export function percentEncode(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += unreserved.has(byte) ? String.fromCharCode(byte) : hexOf[byte]
  return text
}

/** `{name}` as text where the bytes are UTF-8, else `{name64}` in base64. */
export function textOrBase64(
  name: string,
  bytes: Uint8Array,
  encoding: 'base64' | 'base64url',
): Record<string, string> {
  const text = textOfBytes(bytes)
  return text === undefined ? { [`${name}64`]: Buffer.from(bytes).toString(encoding) } : { [name]: text }
}
