/**
 * How many replicas each node is to hold: in proportion to its weight, as far as zones allow. A partition spreads its replicas over as many
 * zones as it can, one in each, then a second in each, and no node holds two of one partition; so what a zone or a node may hold is
 * bounded from both sides, and what is beyond the bounds of some is shared by the others in proportion to theirs.
 *
 * Arithmetic only. Shares are real numbers; placement.ts makes whole ones of them.
 */
import { assert } from '../base/assert.ts'
import { Limits } from '../config.ts'

/** A member of the ring, as placement sees it. */
export type PlacementMember = {
  readonly nodeId: string
  /** Its part of the data, against those of the others; above 0. */
  readonly weight: number
  readonly zone: string
}

/** How replicas of one partition spread over zones. */
export type ZoneSpread = {
  /** Replicas of each partition: as many as wanted, or as there are nodes. */
  readonly copies: number
  /** Every zone with so many nodes has at least so many replicas of a partition, and none has more than one more. */
  readonly full: number
}

/** Beyond this, operators are told. */
const unevennessMax = 1.1

type Bounded = { readonly weight: number; readonly least: number; readonly most: number }

/** How `copies` replicas of a partition spread over the zones of `members`. */
export function zoneSpreadOf(members: readonly PlacementMember[], copies: number): ZoneSpread {
  const nodes = [...countBy(members).values()]
  const placed = Math.min(copies, members.length)
  let full = 0
  for (let left = placed; ; full++) {
    const zones = nodes.filter((count) => count > full).length
    if (zones === 0 || zones > left) break
    left -= zones
  }
  return { copies: placed, full }
}

/** Greatest load of one of `members` equal nodes against its share that no placement can avoid, since replicas are whole. */
export function leastUnevenness(members: number, copies: number, partitions: number = Limits.partitions): number {
  const share = (partitions * Math.min(copies, members)) / members
  return Math.ceil(share) / share
}

/** What an operator of a cluster is told whose nodes cannot be loaded evenly any more; undefined where they can. */
export function unevennessWarning(members: number, copies: number): string | undefined {
  const unevenness = leastUnevenness(members, copies)
  if (unevenness <= unevennessMax) return undefined
  const percent = Math.round(100 * (unevenness - 1))
  return `${members} members share ${Limits.partitions} partitions of ${copies} replicas: some hold ${percent}% more than their share, whatever is done`
}

/** Replicas that each node is to hold, by its id; together `partitions` x copies. */
export function fairShares(
  members: readonly PlacementMember[],
  copies: number,
  partitions: number = Limits.partitions,
): Map<string, number> {
  const spread = zoneSpreadOf(members, copies)
  const zones = [...countBy(members)]
  const byZone = fill(
    zones.map(([zone, nodes]) => ({
      weight: weightOf(members.filter((member) => member.zone === zone)),
      least: partitions * Math.min(spread.full, nodes),
      most: partitions * Math.min(spread.full + 1, nodes),
    })),
    partitions * spread.copies,
  )
  const shares = new Map<string, number>()
  for (const [index, [zone]] of zones.entries()) {
    const own = members.filter((member) => member.zone === zone)
    const ofNodes = fill(
      own.map(({ weight }) => ({ weight, least: 0, most: partitions })),
      byZone[index]!,
    )
    for (const [position, { nodeId }] of own.entries()) shares.set(nodeId, ofNodes[position]!)
  }
  return shares
}

/** Nodes of each zone, in the order in which zones come. */
export function countBy(members: readonly PlacementMember[]): Map<string, number> {
  const nodes = new Map<string, number>()
  for (const { zone } of members) nodes.set(zone, (nodes.get(zone) ?? 0) + 1)
  return nodes
}

function weightOf(members: readonly PlacementMember[]): number {
  return members.reduce((sum, { weight }) => sum + weight, 0)
}

/** Shares `total` by weight within bounds: each gets one factor times its weight, cut to its bounds. */
function fill(parts: readonly Bounded[], total: number): number[] {
  const at = (factor: number): number[] =>
    parts.map(({ weight, least, most }) => Math.min(most, Math.max(least, factor * weight)))
  const sumAt = (factor: number): number => at(factor).reduce((sum, share) => sum + share, 0)
  // Between two factors at which some part meets a bound, the sum is a straight line.
  const bends = parts.flatMap(({ weight, least, most }) => [least / weight, most / weight]).sort((a, b) => a - b)
  let low = 0
  for (const bend of bends) {
    const sum = sumAt(bend)
    if (sum >= total) {
      const before = sumAt(low)
      return at(sum === before ? bend : low + ((bend - low) * (total - before)) / (sum - before))
    }
    low = bend
  }
  assert(total - sumAt(low) < 1e-6 * total, 'All replicas find a place')
  return at(low)
}
