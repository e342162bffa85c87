/**
 * Keys and values of a benchmark. A value says whose it is and can be checked to its last byte when it is read:
 *
 *     u32 record number | u32 nonce | window of a pool of random bytes, at a place that the nonce tells
 *
 * A key is the record number in decimal digits, padded to the left, as db_bench writes it. The pool depends on nothing but the size of
 * values, so that one run can check what another wrote.
 */
import { assert } from '../../base/assert.ts'
import { SeededRandom } from '../../base/seeded-random.ts'

const headerBytes = 8
/** Windows begin at any of so many places: the high bits of a product, on which every bit of the nonce tells. */
const windowBits = 20
const windowShift = 32 - windowBits

/** The least that holds record number and nonce. */
export const valueSizeMin = headerBytes
/** The least that holds every record number. */
export const keySizeMin = 10

export class BenchRecords {
  readonly keySize: number
  readonly valueSize: number
  readonly #pool: Buffer

  constructor(keySize: number, valueSize: number) {
    assert(keySize >= keySizeMin && valueSize >= valueSizeMin, 'Keys and values hold their record number')
    this.keySize = keySize
    this.valueSize = valueSize
    this.#pool = Buffer.allocUnsafeSlow(2 ** windowBits + valueSize)
    const random = new SeededRandom('bench values')
    for (let at = 0; at + 4 <= this.#pool.length; at += 4) this.#pool.writeUInt32LE(random.u32(), at)
    this.#pool.fill(0, this.#pool.length & ~3)
  }

  /** Writes the key of a record into `into`, which may be longer than the key. */
  writeKey(record: number, into: Uint8Array): void {
    let rest = record
    for (let position = this.keySize - 1; position >= 0; position--) {
      const next = Math.floor(rest / 10)
      into[position] = 48 + rest - next * 10
      rest = next
    }
  }

  /** The key of a record, fresh. */
  key(record: number): Uint8Array {
    const key = Buffer.allocUnsafe(this.keySize)
    this.writeKey(record, key)
    return key
  }

  /** A value of a record, fresh. */
  value(record: number, nonce: number): Uint8Array {
    const value = Buffer.allocUnsafe(this.valueSize)
    value.writeUInt32LE(record >>> 0, 0)
    value.writeUInt32LE(nonce >>> 0, 4)
    const from = this.#window(nonce)
    this.#pool.copy(value, headerBytes, from, from + this.valueSize - headerBytes)
    return value
  }

  /** What is wrong with `value[0, length)` as the value of a record; undefined: nothing. */
  fault(record: number, value: Buffer, length: number): string | undefined {
    if (length !== this.valueSize) return `has ${length} bytes instead of ${this.valueSize}`
    const owner = value.readUInt32LE(0)
    if (owner !== record >>> 0) return `is the value of record ${owner}`
    const from = this.#window(value.readUInt32LE(4))
    const order = this.#pool.compare(value, headerBytes, length, from, from + length - headerBytes)
    return order === 0 ? undefined : 'is not what was written'
  }

  #window(nonce: number): number {
    return Math.imul(nonce, 0x9e3779b1) >>> windowShift
  }
}
