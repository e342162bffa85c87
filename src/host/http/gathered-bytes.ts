/**
 * Bytes that arrive in chunks, gathered into one Buffer. The first chunk is kept as it is, so that what arrives whole is not
 * copied; with the second one all move into a buffer that doubles when it is full. A list of chunks would do less copying but
 * a client that sends one byte per chunk would make it a hundred times larger than its bytes.
 */
export class GatheredBytes {
  /** Bytes to make room for at once, when a second chunk arrives; 0 where the total is not known. */
  readonly #expectedBytes: number
  #whole: Buffer | undefined = undefined
  #length = 0
  #owned = false

  constructor(expectedBytes = 0) {
    this.#expectedBytes = expectedBytes
  }

  get length(): number {
    return this.#length
  }

  /** Appends a chunk, which may not change from now on until `take`. */
  add(chunk: Buffer): void {
    const length = this.#length + chunk.length
    if (this.#whole === undefined) {
      this.#whole = chunk
    } else {
      if (!this.#owned || length > this.#whole.length) {
        const grown = Buffer.allocUnsafeSlow(Math.max(length, 2 * this.#length, this.#expectedBytes))
        this.#whole.copy(grown, 0, 0, this.#length)
        this.#whole = grown
        this.#owned = true
      }
      chunk.copy(this.#whole, this.#length)
    }
    this.#length = length
  }

  /** Hands over what was gathered and starts anew. */
  take(): Buffer {
    const bytes = this.#whole === undefined ? Buffer.alloc(0) : this.#whole.subarray(0, this.#length)
    this.#whole = undefined
    this.#length = 0
    this.#owned = false
    return bytes
  }
}
