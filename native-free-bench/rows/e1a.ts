import { countText, type Row } from '../case.ts'
import { inChild } from '../isolate.ts'

const peer = 'lmdb getBinaryFast'
const floor = 'probe + copy'

/** E1a: reading resident keys in the process, the value into the caller's buffer. */
export const row: Row = {
  name: 'E1a',
  title: 'in-process get of a resident key, 16+100 B, random',
  group: 'engine',
  cases: ({ keySets, roundMs, scratch }) =>
    keySets.map((keys) => ({
      label: `${countText(keys)} keys`,
      unit: 'ns/op',
      higherIsBetter: false,
      gates: [
        { against: peer, atLeast: 2, stretch: 2.5 },
        { against: floor, atLeast: 0.6, stretch: 0.8 },
      ],
      contenders: [
        {
          role: 'ours',
          name: 'sunwise getInto',
          open: inChild('contenders/sunwise-get.ts', { scratch, keys, roundMs, call: 'getInto' }),
        },
        {
          role: 'peer',
          name: peer,
          open: inChild('contenders/lmdb-get.ts', { scratch, keys, roundMs, result: 'view' }),
        },
        { role: 'floor', name: floor, open: inChild('contenders/floor-get.ts', { keys, roundMs }) },
        {
          role: 'shown',
          name: 'sunwise engine alone',
          open: inChild('contenders/sunwise-engine-get.ts', { scratch, keys, roundMs }),
        },
      ],
    })),
}
