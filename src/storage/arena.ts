/**
 * The arena of one shard: record memory in fixed segments inside SharedArrayBuffer slabs. Segment `s` is the image of log
 * file `s`. All of it is reserved when the node starts (untouched pages cost nothing), so that no thread ever meets an
 * address whose buffer it lacks.
 *
 * An address is a u32: slab number in the top 4 bits, 4-byte word within the slab below. 0 is no record, since every segment
 * starts with a group header.
 *
 * Each segment has a generation in shared memory. The owner bumps it before it reuses a segment; a reader that saw the old
 * one drops what it copied. Only the owner writes; anyone may read.
 */
import { assert } from '../base/assert.ts'
import { Limits } from '../config.ts'

/** The shared memory of one arena; can be posted to any thread. */
export type ArenaMemory = {
  readonly segmentBytes: number
  readonly segments: number
  readonly slabs: readonly SharedArrayBuffer[]
  /** One i32 per segment. */
  readonly generations: SharedArrayBuffer
}

export const wordsPerSlabBits = 28
export const slabWordMask = (1 << wordsPerSlabBits) - 1

/** Reserves memory for `segments` segments of `segmentBytes`, a power of two from 4 KiB to 1 GiB. */
export function createArenaMemory(segmentBytes: number, segments: number): ArenaMemory {
  assert(segmentBytes >= 4096 && segmentBytes <= Limits.slabBytesMax, 'A segment has 4 KiB to 1 GiB')
  assert((segmentBytes & (segmentBytes - 1)) === 0, 'The size of a segment is a power of two')
  assert(segments * segmentBytes <= Limits.arenaBytesMax, 'An arena has at most 16 GiB')
  const segmentsPerSlab = Limits.slabBytesMax / segmentBytes
  const slabs: SharedArrayBuffer[] = []
  for (let first = 0; first < segments; first += segmentsPerSlab) {
    slabs.push(new SharedArrayBuffer(Math.min(segmentsPerSlab, segments - first) * segmentBytes))
  }
  return { segmentBytes, segments, slabs, generations: new SharedArrayBuffer(4 * segments) }
}

/** Views of an arena for one thread. */
export class Arena {
  readonly segmentBytes: number
  readonly segments: number
  readonly u8: readonly Uint8Array[]
  readonly i32: readonly Int32Array[]
  readonly generations: Int32Array
  /** Segment of an address: `(slab << segmentsPerSlabBits) | (word >>> segmentWordBits)`. */
  readonly segmentWordBits: number
  readonly segmentsPerSlabBits: number

  constructor(memory: ArenaMemory) {
    this.segmentBytes = memory.segmentBytes
    this.segments = memory.segments
    this.u8 = memory.slabs.map((slab) => new Uint8Array(slab))
    this.i32 = memory.slabs.map((slab) => new Int32Array(slab))
    this.generations = new Int32Array(memory.generations)
    this.segmentWordBits = Math.log2(memory.segmentBytes) - 2
    this.segmentsPerSlabBits = wordsPerSlabBits - this.segmentWordBits
  }

  /** Slab that segment `segment` lies in. */
  slabOfSegment(segment: number): number {
    return segment >>> this.segmentsPerSlabBits
  }

  /** First byte of a segment within its slab. */
  startOfSegment(segment: number): number {
    return (segment & ((1 << this.segmentsPerSlabBits) - 1)) * this.segmentBytes
  }

  /** Address of byte `offset` (a multiple of 4) of a segment. */
  address(segment: number, offset: number): number {
    return ((this.slabOfSegment(segment) << wordsPerSlabBits) | ((this.startOfSegment(segment) + offset) >>> 2)) >>> 0
  }

  segmentOfAddress(address: number): number {
    return (
      ((address >>> wordsPerSlabBits) << this.segmentsPerSlabBits) | ((address & slabWordMask) >>> this.segmentWordBits)
    )
  }

  /** Makes every reader that is inside the segment drop its copy. Before the owner overwrites it. */
  invalidateSegment(segment: number): void {
    Atomics.add(this.generations, segment, 1)
  }
}
