import type { Row } from '../case.ts'
import { fillCase } from './e4.ts'

const valueBytes = 1000
/** Records of this row per record of E4: some more bytes than there. */
const keysShare = { smoke: 0.25, default: 0.4, full: 0.4 } as const

/** E5: E4 with large values. */
export const row: Row = {
  name: 'E5',
  title: 'fillrandom to disk with flushes and compactions, 16+1000 B',
  group: 'engine',
  cases: (size) => [
    fillCase(size, Math.round(size.tableKeys[0]! * keysShare[size.mode]), valueBytes, { atLeast: 1, stretch: 2 }),
  ],
}
