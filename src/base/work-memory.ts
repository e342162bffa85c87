/**
 * Buffers for long work that needs many of them for a while: merging tables, writing them. Made anew for every job they would
 * be garbage that outlives it by far, since a collector sees only the small objects in front of them; kept and used again they cost
 * what the largest job needs, and no page of them is faulted in twice.
 */
import { assert } from './assert.ts'

export type WorkMemory = {
  /** A buffer of at least `bytes`, at the start of its own ArrayBuffer, whose length is a multiple of 8. It holds anything. */
  take(bytes: number): Uint8Array
  /** Gives back what `take` gave, before the work ends; any view of it will do. It is not to be used any more. */
  give(view: ArrayBufferView): void
}

/** Memory that is left to the collector. */
export const freshMemory: WorkMemory = {
  take: (bytes) => new Uint8Array(Math.ceil(bytes / 8) * 8),
  give: () => {},
}

const bytesLeast = 1 << 10

/** Sizes of buffers: four for each power of two, so that at most a fifth of one lies waste. */
function bytesOf(size: number): number {
  return (bytesLeast / 4) * (4 + (size % 4)) * 2 ** Math.floor(size / 4)
}

/** The least size that takes so many bytes. */
function sizeOf(bytes: number): number {
  const wanted = Math.max(bytes, bytesLeast) / bytesLeast
  const power = Math.floor(Math.log2(wanted))
  return 4 * power + Math.ceil((wanted / 2 ** power - 1) * 4)
}

/** Keeps buffers for the next who takes one, by sizes. For one thread, and one job at a time. */
export class ReusedMemory implements WorkMemory {
  readonly #keptBytesMax: number
  /** Free buffers by their sizes. */
  readonly #free: Uint8Array[][] = []
  readonly #taken = new Map<ArrayBufferLike, Uint8Array>()
  #freeBytes = 0

  /** Of what is free, `keptBytesMax` bytes stay at most when a job ends. */
  constructor(keptBytesMax: number) {
    this.#keptBytesMax = keptBytesMax
  }

  get freeBytes(): number {
    return this.#freeBytes
  }

  take(bytes: number): Uint8Array {
    const size = sizeOf(bytes)
    const kept = this.#free[size]?.pop()
    if (kept !== undefined) this.#freeBytes -= kept.length
    const buffer = kept ?? new Uint8Array(bytesOf(size))
    this.#taken.set(buffer.buffer, buffer)
    return buffer
  }

  give(view: ArrayBufferView): void {
    const buffer = this.#taken.get(view.buffer)
    assert(buffer !== undefined, 'A buffer is given back once, by who took it')
    this.#taken.delete(view.buffer)
    const size = sizeOf(buffer.length)
    this.#free[size] ??= []
    this.#free[size].push(buffer)
    this.#freeBytes += buffer.length
  }

  /** The job has ended: all that it took is free, and what is too much is dropped, the largest first. */
  end(): void {
    for (const buffer of this.#taken.values()) this.give(buffer)
    for (let size = this.#free.length - 1; size >= 0 && this.#freeBytes > this.#keptBytesMax; size--) {
      const free = this.#free[size] ?? []
      while (free.length > 0 && this.#freeBytes > this.#keptBytesMax) this.#freeBytes -= free.pop()!.length
    }
  }
}
