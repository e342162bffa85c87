/**
 * The data of the engine rows: N keys of 16 bytes (decimal digits, as db_bench writes them) with values of 100 random
 * bytes, and a stream of random probes. The same count gives the same keys, values and probes in every contender.
 *
 * Probes are rendered before anything is measured, one after another in one array, so that a contender pays for reading
 * its key once, in order, and for nothing else. The stream has at most a million keys: their records lie all over the
 * table, so a larger stream would not find more of them in cache.
 */

export const keyBytes = 16
export const valueBytes = 100
const probesMax = 1 << 20
const poolBytes = 1 << 20

/** A small deterministic generator (xorshift32): the same seed gives the same numbers everywhere. */
export class Sequence {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0 || 1
  }

  /** A u32. */
  next(): number {
    let state = this.#state
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    this.#state = state >>> 0
    return this.#state
  }

  /** An integer from 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor((this.next() / 2 ** 32) * limit)
  }
}

/** Writes the key of record `index` as 16 decimal digits to `target[at, at + 16)`. */
export function writeKey(index: number, target: Uint8Array, at: number): void {
  let rest = index
  for (let position = keyBytes - 1; position >= 0; position--) {
    const next = Math.floor(rest / 10)
    target[at + position] = 48 + rest - next * 10
    rest = next
  }
}

/** The key of record `index` as text. */
export function keyText(index: number): string {
  return String(index).padStart(keyBytes, '0')
}

/** Keys, values and probes of `count` records. */
export class KeySet {
  readonly count: number
  /** How many probes the stream has before it starts again. */
  readonly probeCount: number
  /** Record numbers of the probes, uniformly random. */
  readonly probeIndices: Uint32Array
  readonly #pool: Buffer

  constructor(count: number, seed = 1) {
    this.count = count
    this.probeCount = Math.min(Math.max(count, 1024), probesMax)
    this.probeIndices = new Uint32Array(this.probeCount)
    const sequence = new Sequence(seed)
    for (let probe = 0; probe < this.probeCount; probe++) this.probeIndices[probe] = sequence.below(count)
    this.#pool = Buffer.allocUnsafeSlow(poolBytes)
    for (let at = 0; at < poolBytes; at += 4) this.#pool.writeUInt32LE(sequence.next(), at)
  }

  /** A view of the value of record `index`; valid as long as the set. */
  value(index: number): Buffer {
    const at = (index * 61) % (poolBytes - valueBytes)
    return this.#pool.subarray(at, at + valueBytes)
  }

  /** The bytes of all probes' keys, one after another. */
  probeKeys(): Uint8Array {
    const keys = new Uint8Array(this.probeCount * keyBytes)
    for (let probe = 0; probe < this.probeCount; probe++) writeKey(this.probeIndices[probe]!, keys, probe * keyBytes)
    return keys
  }

  /** The probes' keys as strings. */
  probeTexts(): string[] {
    return Array.from(this.probeIndices, keyText)
  }
}
