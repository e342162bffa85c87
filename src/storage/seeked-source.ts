/** What a table holds of a partition from a key on, as a source of a merge: lists read tables through it. */
import type { RecordSource } from './merge.ts'
import type { TableIterator } from './sstable-iterator.ts'

/** An iterator that begins at a key: it seeks when its first record is wanted. */
export class SeekedSource implements RecordSource {
  readonly #iterator: TableIterator
  readonly #seek: () => boolean
  readonly #failed: () => void
  #isBegun = false

  /** `failed` is called where it throws. */
  constructor(iterator: TableIterator, partition: number, bucketId: number, key: Uint8Array, failed: () => void) {
    this.#iterator = iterator
    this.#failed = failed
    this.#seek = () => iterator.seek(partition, bucketId, key)
  }

  get u8(): Uint8Array {
    return this.#iterator.u8
  }

  get i32(): Int32Array {
    return this.#iterator.i32
  }

  get at(): number {
    return this.#iterator.at
  }

  get partition(): number {
    return this.#iterator.partition
  }

  next(): boolean {
    try {
      if (this.#isBegun) return this.#iterator.next()
      this.#isBegun = true
      return this.#seek()
    } catch (error) {
      this.#failed()
      throw error
    }
  }
}
