/** How the ring does at several sizes, from evidence/scale.json, which `npm run sim:scale` writes: tables for the README, and a chart. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { MembershipFigures } from '../test/cluster/membership/membership-report.ts'
import type { PlacementFigures, SchemeFigures } from '../test/cluster/placement-report.ts'

/** The file evidence/scale.json. Placement figures that have no meaning, since nothing has to move, are absent. */
export type ScaleEvidence = {
  readonly at: string
  readonly commit: string
  /** Whether sources or tests differed from the commit. */
  readonly isModified: boolean
  readonly node: string
  readonly machine: string
  readonly seconds: number
  readonly membership: readonly MembershipFigures[]
  readonly placement: readonly PlacementFigures[]
}

export function readScale(root: string): ScaleEvidence {
  return JSON.parse(readFileSync(join(root, 'evidence', 'scale.json'), 'utf8')) as ScaleEvidence
}

/** The chart and both tables, with what they mean. */
export function scaleTables(scale: ScaleEvidence): string {
  const { at, commit, isModified, node, machine, membership, placement } = scale
  return [
    `Written by \`npm run sim:scale\` on ${at.slice(0, 10)}, commit ${commit.slice(0, 7)}${isModified ? ' with changes' : ''}, Node ${node}, ${machine}; all figures: [evidence/scale.json](evidence/scale.json).`,
    '',
    '![Detection time, and bytes per node and second, over the number of members](evidence/scale.svg)',
    '',
    'Membership: times after a crash, medians; from the first member that takes it for down the news spreads to all. The last column counts',
    'members that were wrongly taken for down, in 100 simulated seconds in which one datagram in twenty is lost and, every 20 s, one member in',
    'twenty stalls for 5 s. Bytes are those of the datagrams at rest, while nothing changes, without the headers of UDP and IP.',
    '',
    ...tableLines(
      [
        'Members',
        'Suspected by the first',
        'Down for all',
        'News spread in',
        'Bytes a node and second',
        'Wrongly down',
      ],
      membership.map(({ members, suspectedMs, deadMs, spreadMs, bytesPerSecond, wronged }) => [
        members.toLocaleString('en'),
        ...[suspectedMs, deadMs, spreadMs].map(secondsText),
        bytesPerSecond.toFixed(0),
        String(wronged),
      ]),
    ),
    '',
    'Placement of three replicas: the greatest load of a node against its share, then what moves when a node joins, leaves, or gets twice its',
    'weight, against the replicas that have to move (1.00 is the least that reaches the new shares; a scheme that misses them may move less).',
    'Replicas are whole, so that a load of 1.00 needs many of them on each node: with three of each of the 1,024 partitions that a cluster has,',
    'the most is below 1.05 up to 169 nodes of equal weight, below 1.10 up to 337, and 1.30 with a thousand, whatever the placement. Beyond 1.10',
    'each node says so in its log. A greater number of partitions cannot be chosen.',
    '',
    ...tableLines(
      ['Nodes', 'Weights', 'Partitions', 'Sunwise', 'Ring of 150 tokens', 'Rendezvous hashing'],
      placement.map(({ nodes, isMixed, partitions, ours, tokens, rendezvous }) => [
        nodes.toLocaleString('en'),
        isMixed ? '1 to 4' : 'equal',
        partitions.toLocaleString('en'),
        ...[ours, tokens, rendezvous].map(schemeText),
      ]),
    ),
  ].join('\n')
}

function tableLines(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)]
}

function secondsText(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}

function schemeText({ worst, join: joined, leave, weight }: SchemeFigures): string {
  return [worst, joined, leave, weight].map((value) => value?.toFixed(2) ?? '-').join(' / ')
}

const chartWidth = 860
const chartHeight = 260
const plot = { width: 330, top: 50, bottom: 210 }

type Line = { readonly label: string; readonly colour: string; readonly values: readonly number[] }

/** Two charts side by side over the number of members, whose axis is logarithmic; the other axes begin at zero. */
export function scaleChart({ membership }: ScaleEvidence): string {
  const sizes = membership.map(({ members }) => members)
  const detection: readonly Line[] = [
    { label: 'down for all', colour: '#d97706', values: membership.map(({ deadMs }) => deadMs / 1000) },
    {
      label: 'suspected by the first',
      colour: '#4f6bed',
      values: membership.map(({ suspectedMs }) => suspectedMs / 1000),
    },
  ]
  const bytes: readonly Line[] = [
    { label: 'sent', colour: '#d97706', values: membership.map(({ bytesPerSecond }) => bytesPerSecond) },
  ]
  const head = `<svg xmlns="http://www.w3.org/2000/svg" width="${chartWidth}" height="${chartHeight}" viewBox="0 0 ${chartWidth} ${chartHeight}" font-family="sans-serif" font-size="12">`
  const parts = [
    ...plotLines('Seconds after a crash', sizes, detection, 60),
    ...plotLines('Bytes per node and second', sizes, bytes, 490),
  ]
  return `${[head, '<title>Detection time, and bytes per node and second, over the number of members</title>', ...parts, '</svg>'].join('\n')}\n`
}

function plotLines(title: string, sizes: readonly number[], lines: readonly Line[], left: number): string[] {
  const most = topOf(Math.max(...lines.flatMap(({ values }) => values)))
  const least = Math.log10(sizes[0]!)
  const span = Math.log10(sizes.at(-1)!) - least
  const xOf = (size: number): number => left + (plot.width * (Math.log10(size) - least)) / span
  const yOf = (value: number): number => plot.bottom - ((plot.bottom - plot.top) * value) / most
  const grid = [0, most / 2, most].flatMap((value) => [
    `<line x1="${left}" y1="${yOf(value)}" x2="${left + plot.width}" y2="${yOf(value)}" stroke="#808890" stroke-opacity="0.3"/>`,
    text(left - 8, yOf(value) + 4, String(value), 'end'),
  ])
  const marks = sizes.map((size) => text(xOf(size), plot.bottom + 18, size.toLocaleString('en'), 'middle'))
  const drawn = lines.flatMap(({ label, colour, values }) => {
    const points = values.map((value, index) => `${xOf(sizes[index]!).toFixed(1)},${yOf(value).toFixed(1)}`)
    return [
      `<polyline points="${points.join(' ')}" fill="none" stroke="${colour}" stroke-width="2"/>`,
      text(left + plot.width, yOf(values.at(-1)!) - 8, label, 'end', colour),
    ]
  })
  return [
    text(left, 24, title),
    ...grid,
    ...marks,
    text(left + plot.width / 2, plot.bottom + 36, 'members', 'middle'),
    ...drawn,
  ]
}

/** The end of an axis: the next of 1, 2, 4, 6, 8 or 10 times a power of ten. */
function topOf(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((top) => top >= value)!
}

function text(x: number, y: number, content: string, anchor = 'start', colour = '#808890'): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}" fill="${colour}">${content}</text>`
}
