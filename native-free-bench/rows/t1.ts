import type { Case, Row } from '../case.ts'
import { inChild } from '../isolate.ts'

const port = 'MessagePort'
const ring = 'bare ring'

/** T1: a put that crosses from one thread to another and its answer back, alone and in batches. */
export const row: Row = {
  name: 'T1',
  title: 'put across threads and back, 16+100 B',
  group: 'threads',
  cases: ({ roundMs }) => [
    ...[1, 16, 256].map((batch): Case => {
      // A batch of one is judged against the floor only: the gate against MessagePort is for batches.
      const peerGates = batch === 1 ? [] : [{ against: port, atLeast: 10, stretch: 30 }]
      return {
        label: `awake, batch ${batch}`,
        unit: 'ns/op',
        higherIsBetter: false,
        gates: [...peerGates, { against: ring, atLeast: 0.5, stretch: 0.75 }],
        contenders: [
          {
            role: 'ours',
            name: 'sunwise ring',
            open: inChild('contenders/sunwise-ring.ts', { mode: 'awake', batch, roundMs }),
          },
          { role: 'peer', name: port, open: inChild('contenders/port-echo.ts', { mode: 'awake', batch, roundMs }) },
          { role: 'floor', name: ring, open: inChild('contenders/ring-echo.ts', { mode: 'awake', batch, roundMs }) },
          {
            role: 'shown',
            name: 'MessagePort, both polling',
            open: inChild('contenders/port-echo.ts', { mode: 'polled', batch, roundMs }),
          },
        ],
      }
    }),
    {
      label: 'asleep, batch 1',
      unit: 'ns/op',
      higherIsBetter: false,
      gates: [
        { against: port, atLeast: 1.5, stretch: 1.5 },
        { count: 'idle cpu %', atMost: 1, stretch: 1 },
      ],
      contenders: [
        {
          role: 'ours',
          name: 'sunwise ring',
          open: inChild('contenders/sunwise-ring.ts', { mode: 'asleep', batch: 1, roundMs }),
        },
        { role: 'peer', name: port, open: inChild('contenders/port-echo.ts', { mode: 'asleep', batch: 1, roundMs }) },
        {
          role: 'floor',
          name: 'Atomics.wait',
          open: inChild('contenders/ring-echo.ts', { mode: 'asleep', batch: 1, roundMs }),
        },
      ],
    },
  ],
}
