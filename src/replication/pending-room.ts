/**
 * The room that requests under way at a coordinator share: so many, and so many bytes of keys, values and version sets. Where there is no
 * other, one of any size is taken. Only new requests are refused: what comes to those under way is kept until their answer.
 */
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'

export class PendingRoom {
  readonly #bytesMax: number
  #count = 0
  #bytes = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  get count(): number {
    return this.#count
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Why a request that brings so many bytes finds no room, beside `others` that are counted elsewhere; undefined where it does. */
  refusal(bytes: number, others: number): SunwiseError | undefined {
    if (this.#count + others >= Limits.pendingRequestsMax) {
      const message = `Cannot take the request: ${Limits.pendingRequestsMax} are under way here`
      return new SunwiseError('OVERLOADED', message, { outcome: 'none' })
    }
    if (this.#bytes === 0 || this.#bytes + bytes <= this.#bytesMax) return undefined
    const message = `Cannot take the request: those that are under way here hold ${this.#bytes} of ${this.#bytesMax} bytes`
    return new SunwiseError('OVERLOADED', message, { outcome: 'none' })
  }

  enter(bytes: number): void {
    this.#count++
    this.#bytes += bytes
  }

  /** One that is under way holds so many bytes more. */
  grow(bytes: number): void {
    this.#bytes += bytes
  }

  leave(bytes: number): void {
    this.#count--
    this.#bytes -= bytes
  }
}
