/** A hash over everything that happened in a run, in its order: equal traces have equal hashes, and others next to never. Not for secrets. */

const offset = 0x811c9dc5
const otherOffset = 0x9747b28c

export class TraceHash {
  readonly #double = new Float64Array(1)
  readonly #words = new Uint32Array(this.#double.buffer)
  #low = offset
  #high = otherOffset

  note(kind: string, atMs: number, first: string, second: string, number: number): void {
    this.#text(kind)
    this.#number(atMs)
    this.#text(first)
    this.#text(second)
    this.#number(number)
  }

  /** Sixteen hexadecimal digits. */
  get hex(): string {
    return [this.#low, this.#high].map((word) => (word >>> 0).toString(16).padStart(8, '0')).join('')
  }

  #text(text: string): void {
    for (let index = 0; index < text.length; index++) this.#word(text.charCodeAt(index))
    this.#word(text.length)
  }

  #number(number: number): void {
    this.#double[0] = number
    this.#word(this.#words[0]!)
    this.#word(this.#words[1]!)
  }

  /** Two hashes of 32 bits that feed each other. */
  #word(word: number): void {
    const low = Math.imul(this.#low ^ word, 0x85eb_ca6b)
    const high = Math.imul(this.#high ^ word ^ (low >>> 15), 0xc2b2_ae35)
    this.#low = low ^ (high >>> 13)
    this.#high = high ^ (low << 7)
  }
}
