/**
 * Balance and movement of placement and of two simpler schemes, over clusters of many sizes. `npm run sim:scale` writes them down
 * (test/sim/scale.ts).
 */
import { KeyHash } from '../../src/base/key-hash.ts'
import { fairShares, type PlacementMember } from '../../src/cluster/fair-shares.ts'
import { movedReplicas, type Placement, place } from '../../src/cluster/placement.ts'
import { slotOfKey } from '../../src/cluster/slots.ts'
import { Limits } from '../../src/config.ts'

const copies = 3
const mixedWeights = [1, 2, 1, 4]
const hash = new KeyHash({ low: 1, high: 2 })

/** A member with an id as nodes draw theirs. */
function memberOf(index: number, isMixed: boolean, zones: number): PlacementMember {
  const id = BigInt.asUintN(64, 0x9e37_79b9_7f4a_7c15n * BigInt(index + 1))
  const weight = isMixed ? mixedWeights[index % mixedWeights.length]! : 1
  return { nodeId: id.toString(16).padStart(16, '0'), weight, zone: `zone ${index % zones}` }
}

export function membersOf(nodes: number, isMixed: boolean, zones: number): PlacementMember[] {
  return Array.from({ length: nodes }, (_, index) => memberOf(index, isMixed, zones))
}

/** Replicas and first places of each node. */
export function balanceOf(placement: Placement): { loads: Map<string, number>; firsts: Map<string, number> } {
  const loads = new Map<string, number>()
  const firsts = new Map<string, number>()
  for (const list of placement) {
    for (const nodeId of list) loads.set(nodeId, (loads.get(nodeId) ?? 0) + 1)
    firsts.set(list[0]!, (firsts.get(list[0]!) ?? 0) + 1)
  }
  return { loads, firsts }
}

/** Greatest load of a node against its share by weight. */
function worstOf(members: readonly PlacementMember[], placement: Placement): number {
  const { loads } = balanceOf(placement)
  const shares = fairShares(members, copies, placement.length)
  return Math.max(...members.map(({ nodeId }) => (loads.get(nodeId) ?? 0) / shares.get(nodeId)!))
}

type Change = {
  readonly name: 'join' | 'leave' | 'weight'
  readonly before: readonly PlacementMember[]
  readonly after: readonly PlacementMember[]
  /** Replicas that the new shares take from the old ones. */
  readonly fair: number
}

/** One node joins, one leaves, one gets twice its weight. */
export function changes(nodes: number, isMixed: boolean, partitions: number = Limits.partitions): Change[] {
  const before = membersOf(nodes, isMixed, 1)
  const changed = { ...before[1]!, weight: 2 * before[1]!.weight }
  const kinds = [
    ['join', [...before, memberOf(nodes, isMixed, 1)]],
    ['leave', before.slice(1)],
    ['weight', before.with(1, changed)],
  ] as const
  const old = fairShares(before, copies, partitions)
  return kinds.map(([name, after]) => {
    let fair = 0
    for (const [nodeId, share] of fairShares(after, copies, partitions)) {
      fair += Math.max(0, share - (old.get(nodeId) ?? 0))
    }
    return { name, before, after, fair }
  })
}

/** Replica lists for `partitions`; `before` is the placement in force, which simpler schemes do not look at. */
type Scheme = (members: readonly PlacementMember[], partitions: number, before?: Placement) => Placement

const ours: Scheme = (members, partitions, before) => place(members, copies, before, partitions)

/** A plain consistent-hash ring of 150 tokens for weight 1, without bounds. */
const tokens: Scheme = (members, partitions) => {
  const ring = members
    .flatMap(({ nodeId, weight }) => {
      const hashOf = hasherOf(nodeId)
      return Array.from({ length: 150 * weight }, (_, token) => ({ at: hashOf(token), nodeId }))
    })
    .sort((a, b) => a.at - b.at)
  let start = 0
  return Array.from({ length: partitions }, (_, partition) => {
    const position = (partition / partitions) * 2 ** 32
    while (start < ring.length && ring[start]!.at < position) start++
    const list: string[] = []
    for (let step = 0; step < ring.length && list.length < Math.min(copies, members.length); step++) {
      const { nodeId } = ring[(start + step) % ring.length]!
      if (!list.includes(nodeId)) list.push(nodeId)
    }
    return list
  })
}

/** Weighted rendezvous hashing for each partition (Thaler and Ravishankar, 1998; logarithmic weights). */
const rendezvous: Scheme = (members, partitions) => {
  const hashers = members.map(({ nodeId, weight }) => ({ nodeId, weight, hashOf: hasherOf(nodeId) }))
  return Array.from({ length: partitions }, (_, partition) => {
    const best: { readonly nodeId: string; readonly score: number }[] = []
    for (const { nodeId, weight, hashOf } of hashers) {
      const score = -weight / Math.log((hashOf(partition) + 0.5) / 2 ** 32)
      if (best.length === copies && score <= best[copies - 1]!.score) continue
      best.push({ nodeId, score })
      best.sort((a, b) => b.score - a.score)
      if (best.length > copies) best.pop()
    }
    return best.map(({ nodeId }) => nodeId)
  })
}

/** A u32 of a node and a number. */
function hasherOf(nodeId: string): (salt: number) => number {
  const bytes = new TextEncoder().encode(nodeId)
  return (salt) => {
    hash.update(salt, bytes, 0, bytes.length)
    return hash.low >>> 0
  }
}

/** How a scheme does: its greatest load against its share, and movement against the fair one; undefined where nothing has to move. */
export type SchemeFigures = { readonly worst: number } & Readonly<Record<Change['name'], number | undefined>>

export type PlacementFigures = {
  readonly nodes: number
  readonly isMixed: boolean
  readonly partitions: number
  readonly ours: SchemeFigures
  readonly tokens: SchemeFigures
  readonly rendezvous: SchemeFigures
}

function figuresOf(scheme: Scheme, nodes: number, isMixed: boolean, partitions: number): SchemeFigures {
  const members = membersOf(nodes, isMixed, 1)
  const before = scheme(members, partitions)
  const moved = changes(nodes, isMixed, partitions).map(({ name, after, fair }) => {
    return [name, fair < 1 ? undefined : movedReplicas(before, scheme(after, partitions, before)) / fair] as const
  })
  return { worst: worstOf(members, before), ...(Object.fromEntries(moved) as Record<Change['name'], number>) }
}

/** Figures of all schemes, with equal weights and with weights from 1 to 4. */
export function placementFigures(sizes: readonly number[], partitions: number): PlacementFigures[] {
  return [false, true].flatMap((isMixed) =>
    sizes.map((nodes) => ({
      nodes,
      isMixed,
      partitions,
      ours: figuresOf(ours, nodes, isMixed, partitions),
      tokens: figuresOf(tokens, nodes, isMixed, partitions),
      rendezvous: figuresOf(rendezvous, nodes, isMixed, partitions),
    })),
  )
}

/** Of `keys` and their replicas, the part that moves when a node joins `nodes` others, and the part that it is to have. */
export function keysMoved(nodes: number, partitions: number, keys: number): { moved: number; fair: number } {
  const before = membersOf(nodes, false, 1)
  const after = [...before, memberOf(nodes, false, 1)]
  const first = place(before, copies, undefined, partitions)
  const second = place(after, copies, first, partitions)
  const arriving = second.map((list, partition) => list.filter((nodeId) => !first[partition]!.includes(nodeId)).length)
  let moved = 0
  for (let key = 0; key < keys; key++) {
    const bytes = new TextEncoder().encode(`key ${key}`)
    const slot = slotOfKey(bytes, 0, bytes.length)
    moved += arriving[slot >>> (14 - Math.log2(partitions))]!
  }
  return { moved: moved / (keys * copies), fair: 1 / (nodes + 1) }
}
