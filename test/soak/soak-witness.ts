/**
 * What a soak may rely on, small enough for millions of keys: per key the numbers of the writes that a read may show, not their
 * bytes, which are made again from the number (SoakValues).
 *
 * A write with a time to live may show until it ends and is nothing from then on; between the two clocks that were read around it
 * both are right.
 */

/** One outcome of a key: the write that it shows, or 0 for none, and when that ends. */
export type Outcome = {
  readonly write: number
  /** The value may be gone from here on; Infinity: it does not expire. */
  readonly endsFromMs: number
  /** The value is gone from here on. */
  readonly endsByMs: number
}

/** A read: the write that it showed, 0 for none, and the clock before it was asked and after it was answered. */
export type Shown = { readonly write: number; readonly fromMs: number; readonly byMs: number }

const nothing: Outcome = { write: 0, endsFromMs: Number.POSITIVE_INFINITY, endsByMs: Number.POSITIVE_INFINITY }

export class SoakWitness {
  readonly #outcomes = new Map<number, readonly Outcome[]>()
  acknowledgedWrites = 0
  unknownWrites = 0

  /** Notes an acknowledged write of a key, undefined for a deletion: it alone can show. */
  acknowledged(key: number, outcome: Outcome | undefined): void {
    this.acknowledgedWrites++
    this.#outcomes.set(key, [outcome ?? nothing])
  }

  /** Notes a write that may or may not have taken effect. */
  unknown(key: number, outcome: Outcome | undefined): void {
    this.unknownWrites++
    this.#outcomes.set(key, [...this.#of(key), outcome ?? nothing])
  }

  /** Judges a read: undefined if it is right, else what is wrong. What was shown is what must be there from then on. */
  judge(key: number, shown: Shown): string | undefined {
    const before = this.#of(key)
    const after = before.filter((outcome) => explains(outcome, shown))
    if (after.length > 0) {
      this.#outcomes.set(key, after)
      return undefined
    }
    const expected = before.map(
      ({ write, endsByMs }) => `write ${write}${endsByMs < Infinity ? ` until ${endsByMs}` : ''}`,
    )
    return `shows write ${shown.write} at ${shown.byMs} instead of ${expected.join(' or ')}`
  }

  /** Keys that show a value for sure, at a time. */
  *surelyLive(atMs: number): Generator<number> {
    for (const [key, outcomes] of this.#outcomes) {
      if (outcomes.every(({ write, endsFromMs }) => write !== 0 && endsFromMs > atMs)) yield key
    }
  }

  /** Whether a key may show a value from a time on. */
  mayShow(key: number, fromMs: number): boolean {
    return this.#of(key).some(({ write, endsByMs }) => write !== 0 && endsByMs >= fromMs)
  }

  #of(key: number): readonly Outcome[] {
    return this.#outcomes.get(key) ?? [nothing]
  }
}

function explains({ write, endsFromMs, endsByMs }: Outcome, shown: Shown): boolean {
  if (shown.write === 0) return write === 0 || shown.byMs >= endsFromMs
  return shown.write === write && shown.fromMs <= endsByMs
}

/** Values that cannot be compressed, each of them made from the number of its write alone. */
export class SoakValues {
  static readonly bytesMin = 50
  static readonly bytesMax = 20_000
  readonly #pool: Buffer

  /** `fill` gives the bytes that all values are cut from. */
  constructor(fill: (into: Uint8Array) => void) {
    this.#pool = Buffer.alloc(1 << 20)
    fill(this.#pool)
  }

  /** The value of a write: its number as text, and bytes that no other write of near number has at the same place. */
  of(write: number): Buffer {
    const spread = Math.imul(write, 0x9e37_79b1) >>> 0
    const { bytesMin, bytesMax } = SoakValues
    // One in two is small; the others are of any size.
    const bound = (spread & 1) === 0 ? 600 : bytesMax
    const bytes = bytesMin + ((spread >>> 4) % (bound - bytesMin + 1))
    const start = (spread >>> 7) % (this.#pool.length - bytesMax)
    return Buffer.concat([Buffer.from(`${write} `), this.#pool.subarray(start, start + bytes)]).subarray(0, bytes)
  }

  /** The write that a value is of; -1: it is none that was ever made. */
  writeOf(value: Buffer): number {
    const write = Number.parseInt(value.toString('latin1', 0, 16), 10)
    return Number.isSafeInteger(write) && this.of(write).equals(value) ? write : -1
  }
}
