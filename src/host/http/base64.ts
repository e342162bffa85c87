/**
 * Strict base64 (RFC 4648 section 4, padded) and base64url (section 5, without padding). Node's decoder skips what it does
 * not know; a key or a context must never be guessed at, so text that is not the canonical encoding of its bytes is refused.
 */

/** The bytes as a Buffer over the same memory. */
export function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** base64url of the bytes, without padding. */
export function encodeBase64Url(bytes: Uint8Array): string {
  return bufferOf(bytes).toString('base64url')
}

/** Padded base64 of the bytes. */
export function encodeBase64(bytes: Uint8Array): string {
  return bufferOf(bytes).toString('base64')
}

/** The bytes of canonical unpadded base64url, fresh; undefined for any other text. */
export function decodeBase64Url(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url')
  return bytes.toString('base64url') === text ? bytes : undefined
}

/** The bytes of canonical padded base64, fresh; undefined for any other text. */
export function decodeBase64(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64')
  return bytes.toString('base64') === text ? bytes : undefined
}
