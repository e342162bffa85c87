/**
 * Small byte arrays as views of shared blocks: a view costs a fifth of an array with memory of its own, which must be allocated,
 * zeroed and swept. A block lives as long as any of its views, so who keeps one small value for ever keeps up to 64 KiB.
 *
 * Not shared between threads; large arrays get memory of their own.
 */

const blockBytes = 64 * 1024
/** A sixteenth of a block, so that little of its end is lost. */
const pooledBytesMax = 4 * 1024

export class BytePool {
  #block = new ArrayBuffer(blockBytes)
  #next = 0

  /** An array of `bytes` bytes that nobody else has. All zero, since no byte of a block is given out twice. */
  allocate(bytes: number): Uint8Array {
    if (bytes > pooledBytesMax) return new Uint8Array(bytes)
    if (bytes > blockBytes - this.#next) {
      this.#block = new ArrayBuffer(blockBytes)
      this.#next = 0
    }
    const view = new Uint8Array(this.#block, this.#next, bytes)
    this.#next += (bytes + 7) & ~7
    return view
  }
}
