import { notMeasured, type Row } from '../case.ts'

/** L2: the longest callback on a serving thread under load; its contender reports it as the count below, in ms. */
export const row: Row = {
  name: 'L2',
  title: 'longest callback on a serving thread under load',
  group: 'limits',
  cases: () => [
    {
      label: 'mixed load',
      unit: 'ms',
      higherIsBetter: false,
      gates: [{ count: 'longest callback ms', atMost: 5, stretch: 2 }],
      contenders: [{ role: 'ours', name: 'sunwise', open: notMeasured('no contender yet') }],
    },
  ],
}
