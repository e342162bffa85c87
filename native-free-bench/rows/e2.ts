import type { Case, Row, Size } from '../case.ts'
import { inChild } from '../isolate.ts'
import { valueBytes } from '../key-set.ts'
import { memoryBytesOf, memoryFlags, sizeText } from './table-settings.ts'

const peer = 'db_bench readrandom'

/**
 * Compacted: db_bench after its `compact`, all in one level; ours as its own compaction leaves it, since it has no command that
 * merges everything. As left by the fill: neither side gets time; db_bench is kept from compacting on, ours cannot be.
 */
function caseOf({ mode, roundMs, scratch }: Size, keys: number, isCompacted: boolean): Case {
  const memoryBytes = memoryBytesOf(keys, mode)
  const reads = mode === 'smoke' ? 2000 : roundMs * 300
  return {
    label: `${isCompacted ? 'compacted' : 'as left by the fill'}, ${sizeText(keys, memoryBytes)}`,
    unit: 'op/s',
    higherIsBetter: true,
    gates: [
      isCompacted ? { against: peer, atLeast: 1.2, stretch: 2 } : { against: peer, atLeast: 2, stretch: 4 },
      ...(isCompacted ? [{ count: 'preads/present key', atMost: 1.05, stretch: 1 }] : []),
    ],
    contenders: [
      {
        role: 'ours',
        name: 'sunwise getInto',
        open: inChild('contenders/sunwise-table-get.ts', {
          scratch,
          keys,
          memoryBytes,
          valueBytes,
          roundMs,
          absent: false,
          settles: isCompacted,
        }),
      },
      {
        role: 'peer',
        name: peer,
        open: inChild('contenders/db-bench.ts', {
          scratch,
          benchmark: 'readrandom',
          fill: isCompacted ? 'fillrandom,compact' : 'fillrandom',
          operations: keys,
          threads: 1,
          flags: [
            ...memoryFlags(memoryBytes),
            `--reads=${reads}`,
            ...(isCompacted ? [] : ['--disable_auto_compactions=1']),
          ],
        }),
      },
    ],
  }
}

/** E2: reading what lies in tables while their files are in the page cache, one reader thread. */
export const row: Row = {
  name: 'E2',
  title: 'random get from tables, files in the page cache, 16+100 B',
  group: 'engine',
  cases: (size) => size.tableKeys.slice(0, 1).flatMap((keys) => [caseOf(size, keys, true), caseOf(size, keys, false)]),
}
