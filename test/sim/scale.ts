/**
 * Membership and placement at several sizes, in simulation: `npm run sim:scale` writes evidence/scale.json and the chart
 * evidence/scale.svg, from which `node scripts/readme.ts --tables` draws a section of the README. Seeds are fixed: the same sources give the
 * same figures.
 */
import { writeFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'
import { type ScaleEvidence, scaleChart } from '../../scripts/scale.ts'
import { Limits } from '../../src/config.ts'
import { figuresOf } from '../cluster/membership/membership-report.ts'
import { placementFigures } from '../cluster/placement-report.ts'
import { sourceUnderTest } from '../source-under-test.ts'

const project = join(import.meta.dirname, '..', '..')
const memberCounts = [10, 100, 300, 1000]
/** On a thousand nodes the partitions that there are make three replicas a node, or four: what more of them would bring stands beside it. */
const nodeCounts = [
  { sizes: [3, 10, 100, 1000], partitions: Limits.partitions },
  { sizes: [1000], partitions: Limits.partitionsMax },
]

const beganMs = performance.now()
const { commit, isModified } = sourceUnderTest()
const membership = memberCounts.map((members) => {
  process.stderr.write(`${members} members\n`)
  return figuresOf(members)
})
const placement = nodeCounts.flatMap(({ sizes, partitions }) => {
  process.stderr.write(`placement on ${sizes.join(', ')} nodes\n`)
  return placementFigures(sizes, partitions)
})
const scale: ScaleEvidence = {
  at: new Date().toISOString(),
  commit,
  isModified,
  node: process.versions.node,
  machine: `${process.platform} ${process.arch}, ${availableParallelism()} cores, ${cpus()[0]?.model ?? 'unknown processor'}`,
  seconds: Math.round((performance.now() - beganMs) / 1000),
  membership,
  placement,
}
writeFileSync(join(project, 'evidence', 'scale.json'), `${JSON.stringify(scale, undefined, 2)}\n`)
writeFileSync(join(project, 'evidence', 'scale.svg'), scaleChart(scale))
