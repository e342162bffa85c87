/**
 * A bar chart as SVG text: one bar per contender, grouped by case, on a logarithmic axis, since the contenders of one case
 * lie orders of magnitude apart. Colours follow the role, so that ours is found at a glance; text is plain and the
 * background transparent, so that it reads on light and dark pages.
 */
import type { Role } from './case.ts'
import { quantityText, type RowResult } from './harness.ts'

const colours: Record<Role, string> = { ours: '#d97706', peer: '#4f6bed', floor: '#6b7280', shown: '#a8a29e' }
const width = 860
const labelWidth = 330
const barHeight = 16
const barGap = 4
const titleHeight = 26
const valueWidth = 130

type Bar = { readonly label: string; readonly role: Role; readonly value: number; readonly unit: string }
type Block = { readonly title: string; readonly bars: readonly Bar[] }

/** The chart of some rows; a case without a single measurement has no bars and is left out. */
export function chartOf(title: string, results: readonly RowResult[]): string {
  const blocks = results.flatMap((row) =>
    row.cases.map((item): Block => {
      const bars = item.contenders.flatMap(({ role, name, summary }) =>
        summary === undefined ? [] : [{ label: name, role, value: summary.median, unit: item.unit }],
      )
      const better = item.higherIsBetter ? 'longer is better' : 'shorter is better'
      return { title: `${row.name} ${row.title}: ${item.label} (${item.unit}, ${better})`, bars }
    }),
  )
  const drawn = blocks.filter(({ bars }) => bars.length > 0)
  const parts: string[] = []
  let y = titleHeight + 10
  for (const block of drawn) {
    parts.push(text(10, y + 16, block.title, 'bold'))
    y += titleHeight
    for (const bar of block.bars) {
      parts.push(...drawBar(bar, block.bars, y))
      y += barHeight + barGap
    }
    y += 10
  }
  const head = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${y}" viewBox="0 0 ${width} ${y}" font-family="sans-serif" font-size="12">`
  return `${[head, text(10, 20, `${title} (bar length is logarithmic within a block)`, 'bold'), ...parts, '</svg>'].join('\n')}\n`
}

function drawBar(bar: Bar, bars: readonly Bar[], y: number): string[] {
  const values = bars.map(({ value }) => value)
  // The axis starts at half of the smallest value: a bar's length is its order of magnitude above that.
  const start = Math.log10(Math.min(...values) / 2)
  const span = Math.log10(Math.max(...values)) - start
  const room = width - labelWidth - valueWidth
  const length = Math.max(2, (room * (Math.log10(bar.value) - start)) / span)
  const rectangle = `<rect x="${labelWidth}" y="${y}" width="${length.toFixed(1)}" height="${barHeight}" rx="2" fill="${colours[bar.role]}"/>`
  const value = `${quantityText(bar.value)} ${bar.unit}`
  return [
    text(labelWidth - 8, y + 12, `${bar.label} (${bar.role})`, 'normal', 'end'),
    rectangle,
    text(labelWidth + length + 6, y + 12, value),
  ]
}

function text(x: number, y: number, content: string, weight = 'normal', anchor = 'start'): string {
  const escaped = content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
  return `<text x="${x.toFixed(1)}" y="${y}" text-anchor="${anchor}" font-weight="${weight}" fill="#808890">${escaped}</text>`
}
