/** The jobs that the pool knows, by their kinds. */
import type { JobWorld } from '../env.ts'
import { type CompactionInput, type CompactionOutput, compact } from '../storage/compaction.ts'
import { type FlushInput, type FlushOutput, flush, type StorageTools } from '../storage/flush.ts'
import { checkTableFile, type TableCheck, type TableCheckInput } from '../storage/table-check.ts'
import { nativeCrc32, zstd } from './native-codes.ts'

const tools: StorageTools = { crc32: nativeCrc32, codec: zstd }

export const jobTable: Readonly<Record<string, (input: never, world: JobWorld) => unknown>> = {
  flush: (input: FlushInput, world: JobWorld): FlushOutput => flush(input, world, tools),
  check: (input: TableCheckInput, world: JobWorld): TableCheck => checkTableFile(input, world, tools),
  compact: (input: CompactionInput, world: JobWorld): CompactionOutput => compact(input, world, tools),
}
