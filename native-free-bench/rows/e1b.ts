import { countText, type Row } from '../case.ts'
import { inChild } from '../isolate.ts'

const peer = 'lmdb getBinary'

/** E1b: the same read as a caller writes it, a string in and a fresh value out. */
export const row: Row = {
  name: 'E1b',
  title: 'getSync(string) giving a fresh value, 16+100 B, random',
  group: 'engine',
  cases: ({ keySets, roundMs, scratch }) =>
    keySets.map((keys) => ({
      label: `${countText(keys)} keys`,
      unit: 'ns/op',
      higherIsBetter: false,
      gates: [{ against: peer, atLeast: 1.5, stretch: 2 }],
      contenders: [
        {
          role: 'ours',
          name: 'sunwise getSync',
          open: inChild('contenders/sunwise-get.ts', { scratch, keys, roundMs, call: 'getSync' }),
        },
        {
          role: 'peer',
          name: peer,
          open: inChild('contenders/lmdb-get.ts', { scratch, keys, roundMs, result: 'copy' }),
        },
        { role: 'shown', name: 'Map<string, Buffer>', open: inChild('contenders/map-get.ts', { keys, roundMs }) },
      ],
    })),
}
