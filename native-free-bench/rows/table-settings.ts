/**
 * What the rows over tables have in common: how much memory each side gets, and the flags that give db_bench as much.
 *
 * Data are some 4 times the memory (64 MiB, the least of Sunwise, for two million records of 16+100 B). Ours gets `memoryBytes` for everything: records in
 * memory, the hash table, filters and block indexes of tables, caches. db_bench gets the same sum: half of it in two write
 * buffers of a quarter each, the other half as its block cache, and filters and indexes beyond that, as they are by default. Both
 * write a log before they answer and sync neither log nor answer (`os` and `--sync=0`); Bloom filters of 10 bits a key, no
 * compression, no statistics; db_bench's two background jobs stand against our two pool threads. Debian's db_bench is built with
 * assertions, and says so: a build without them is faster by some tenths.
 */
import { countText, type Size } from '../case.ts'
import { keyBytes, valueBytes as usualValueBytes } from '../key-set.ts'

const dataPerMemory = 4
const memoryBytesLeast = 64 * 2 ** 20
/** Less than the data, so that there are tables even then. */
const smokeMemoryBytes = 4 * 2 ** 20

/** The memory that each side gets for `keys` records. */
export function memoryBytesOf(keys: number, mode: Size['mode'], valueBytes = usualValueBytes): number {
  if (mode === 'smoke') return smokeMemoryBytes
  const wanted = (keys * (keyBytes + valueBytes)) / dataPerMemory
  return Math.max(memoryBytesLeast, Math.round(wanted / 2 ** 20) * 2 ** 20)
}

/** Gives db_bench `memoryBytes`. */
export function memoryFlags(memoryBytes: number): readonly string[] {
  return [
    `--write_buffer_size=${memoryBytes / 4}`,
    '--max_write_buffer_number=2',
    `--cache_size=${memoryBytes / 2}`,
    '--sync=0',
    '--disable_wal=0',
  ]
}

/** `1M keys, 16 MiB of memory`. */
export function sizeText(keys: number, memoryBytes: number): string {
  return `${countText(keys)} keys, ${memoryBytes / 2 ** 20} MiB of memory`
}
