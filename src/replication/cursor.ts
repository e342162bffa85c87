/**
 * The cursor of a list: where the next page starts, as opaque bytes that only this cluster can make.
 *
 *     0 u8 version (1)   1 u8 flags (1: behind `key`, otherwise at the start of the partition)   2 u16 partition
 *     4 u32 bucketId     8 key bytes ...     last 8: SipHash of all before under the cluster's key
 *
 * The prefix is not in it: the same cursor with another prefix goes on from the same place.
 */
import type { SipHash } from '../base/siphash.ts'

const version = 1
const headBytes = 8
const macBytes = 8

export type CursorPosition = {
  readonly partition: number
  /** Go on behind this key; undefined: at the start of the partition. */
  readonly after: Uint8Array | undefined
}

export class CursorCodec {
  readonly #mac: SipHash

  constructor(mac: SipHash) {
    this.#mac = mac
  }

  encode(bucketId: number, position: CursorPosition): Uint8Array {
    const key = position.after ?? new Uint8Array(0)
    const bytes = new Uint8Array(headBytes + key.length + macBytes)
    const view = new DataView(bytes.buffer)
    view.setUint8(0, version)
    view.setUint8(1, position.after === undefined ? 0 : 1)
    view.setUint16(2, position.partition, true)
    view.setUint32(4, bucketId, true)
    bytes.set(key, headBytes)
    const end = bytes.length - macBytes
    this.#sign(bytes, end)
    view.setUint32(end, this.#mac.low, true)
    view.setUint32(end + 4, this.#mac.high, true)
    return bytes
  }

  /** Undefined where the bytes were not made by `encode` for this bucket. */
  decode(bucketId: number, bytes: Uint8Array): CursorPosition | undefined {
    const end = bytes.length - macBytes
    if (end < headBytes) return undefined
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    this.#sign(bytes, end)
    if (view.getUint32(end, true) !== this.#mac.low || view.getUint32(end + 4, true) !== this.#mac.high)
      return undefined
    if (view.getUint8(0) !== version || view.getUint32(4, true) !== bucketId) return undefined
    const partition = view.getUint16(2, true)
    return { partition, after: view.getUint8(1) === 1 ? bytes.slice(headBytes, end) : undefined }
  }

  #sign(bytes: Uint8Array, end: number): void {
    this.#mac.start()
    this.#mac.update(bytes, 0, end)
    this.#mac.finish()
  }
}
