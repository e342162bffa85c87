/**
 * A Bloom filter whose bits for one key lie in one cache line of 512 bits (Putze, Sanders and Singler, 2007), so that asking costs
 * one miss. The line comes from one lane of the key's hash, the bits from the other, multiplied by the golden ratio for each probe
 * (as in RocksDB's FastLocalBloom). Part of the format of tables: the same key gives the same bits for ever.
 *
 * The hash is `KeyHash` with `filterSeed`. It is no secret: who aims keys at one line makes reads slower, never wrong.
 */
import type { HashSeed } from '../base/key-hash.ts'

/** Seed of the hash that filters are built with. On disk: never change it. */
export const filterSeed: HashSeed = { low: 0x53554e57, high: 0x49534531 }

export const filterLineBytes = 64
const lineWords = filterLineBytes / 4
const lineBits = filterLineBytes * 8
const goldenRatio = 0x9e3779b9 | 0

/** Lines of a filter for `keys` keys; at least one. */
export function filterLines(keys: number, bitsPerKey: number): number {
  return Math.max(1, Math.ceil((keys * bitsPerKey) / lineBits))
}

/** Probes with the fewest false positives: ln 2 times the bits of a key, a little fewer since lines fill unevenly. */
export function filterProbes(bitsPerKey: number): number {
  return Math.max(1, Math.min(12, Math.round(bitsPerKey * 0.6)))
}

/** Sets the bits of a key in the filter of `lines` lines that starts at `words[base]`. */
export function addToFilter(
  words: Int32Array,
  base: number,
  lines: number,
  probes: number,
  hashLow: number,
  hashHigh: number,
): void {
  const line = base + lineOf(lines, hashLow) * lineWords
  let bits = hashHigh | 0
  for (let probe = 0; probe < probes; probe++) {
    const at = line + (bits >>> 28)
    words[at] = words[at]! | (1 << ((bits >>> 23) & 31))
    bits = Math.imul(bits, goldenRatio)
  }
}

/** False: the key was surely not added. */
export function mayContain(
  words: Int32Array,
  base: number,
  lines: number,
  probes: number,
  hashLow: number,
  hashHigh: number,
): boolean {
  const line = base + lineOf(lines, hashLow) * lineWords
  let bits = hashHigh | 0
  for (let probe = 0; probe < probes; probe++) {
    if (((words[line + (bits >>> 28)]! >>> ((bits >>> 23) & 31)) & 1) === 0) return false
    bits = Math.imul(bits, goldenRatio)
  }
  return true
}

/** The hash scaled to the number of lines: no division, and every line equally likely. */
function lineOf(lines: number, hashLow: number): number {
  return Math.floor(((hashLow >>> 0) * lines) / 0x1_0000_0000)
}
