/** Bytes that connections share: who needs some takes them, and gives them back. Never more are out than there are. */
import { assert } from '../../base/assert.ts'

export class SharedRoom {
  readonly #bytesMax: number
  /** Bytes that are out. */
  bytes = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  /** False where so many are not left: none is taken then. */
  take(bytes: number): boolean {
    if (this.bytes + bytes > this.#bytesMax) return false
    this.bytes += bytes
    return true
  }

  giveBack(bytes: number): void {
    assert(bytes <= this.bytes, 'No more is given back than was taken')
    this.bytes -= bytes
  }
}
