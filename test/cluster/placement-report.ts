/** Balance and movement of placement and of two simpler schemes, over clusters of many sizes. */
import { KeyHash } from '../../src/base/key-hash.ts'
import { fairShares, type PlacementMember } from '../../src/cluster/fair-shares.ts'
import { movedReplicas, type Placement, place } from '../../src/cluster/placement.ts'
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
  const shares = fairShares(members, copies)
  return Math.max(...members.map(({ nodeId }) => (loads.get(nodeId) ?? 0) / shares.get(nodeId)!))
}

type Change = {
  readonly name: string
  readonly before: readonly PlacementMember[]
  readonly after: readonly PlacementMember[]
  /** Replicas that the new shares take from the old ones. */
  readonly fair: number
}

/** One node joins, one leaves, one gets twice its weight. */
export function changes(nodes: number, isMixed: boolean): Change[] {
  const before = membersOf(nodes, isMixed, 1)
  const changed = { ...before[1]!, weight: 2 * before[1]!.weight }
  const kinds = [
    ['join', [...before, memberOf(nodes, isMixed, 1)]],
    ['leave', before.slice(1)],
    ['weight', before.with(1, changed)],
  ] as const
  return kinds.map(([name, after]) => {
    const old = fairShares(before, copies)
    let fair = 0
    for (const [nodeId, share] of fairShares(after, copies)) fair += Math.max(0, share - (old.get(nodeId) ?? 0))
    return { name, before, after, fair }
  })
}

type Scheme = (members: readonly PlacementMember[], before?: Placement) => Placement

function hashOf(text: string, salt: number): number {
  const bytes = new TextEncoder().encode(text)
  hash.update(salt, bytes, 0, bytes.length)
  return hash.low >>> 0
}

/** A plain consistent-hash ring of 150 tokens for weight 1, without bounds. */
const ringOfTokens: Scheme = (members) => {
  const ring = members
    .flatMap(({ nodeId, weight }) =>
      Array.from({ length: 150 * weight }, (_, token) => ({ at: hashOf(nodeId, token), nodeId })),
    )
    .sort((a, b) => a.at - b.at)
  return Array.from({ length: Limits.partitions }, (_, partition) => {
    const position = (partition / Limits.partitions) * 2 ** 32
    const start = Math.max(
      0,
      ring.findIndex(({ at }) => at >= position),
    )
    const list: string[] = []
    for (let step = 0; step < ring.length && list.length < Math.min(copies, members.length); step++) {
      const { nodeId } = ring[(start + step) % ring.length]!
      if (!list.includes(nodeId)) list.push(nodeId)
    }
    return list
  })
}

/** Weighted rendezvous hashing for each partition (Thaler and Ravishankar, 1998; logarithmic weights). */
const rendezvous: Scheme = (members) =>
  Array.from({ length: Limits.partitions }, (_, partition) =>
    members
      .map(({ nodeId, weight }) => ({ nodeId, score: -weight / Math.log((hashOf(nodeId, partition) + 0.5) / 2 ** 32) }))
      .sort((a, b) => b.score - a.score)
      .slice(0, copies)
      .map(({ nodeId }) => nodeId),
  )

const schemes: readonly (readonly [string, Scheme])[] = [
  ['placement', (members, before) => place(members, copies, before)],
  ['ring of 150 tokens', ringOfTokens],
  ['rendezvous', rendezvous],
]

/** One table: greatest load against its share, and movement against the fair share, for each scheme. */
export function reportText(sizes: readonly number[] = [3, 5, 12, 48, 100]): string {
  const rows: string[] = []
  for (const isMixed of [false, true]) {
    for (const nodes of sizes) {
      const members = membersOf(nodes, isMixed, 1)
      const cells = schemes.map(([, scheme]) => {
        const worst = worstOf(members, scheme(members)).toFixed(2)
        const moves = changes(nodes, isMixed).map(({ before, after, fair }) => {
          if (fair < 1) return '0'
          const first = scheme(before)
          return (movedReplicas(first, scheme(after, first)) / fair).toFixed(2)
        })
        return `${worst}; ${moves.join(' ')}`
      })
      rows.push(`| ${nodes} | ${isMixed ? 'mixed' : 'equal'} | ${cells.join(' | ')} |`)
    }
  }
  const names = schemes.map(([name]) => name).join(' | ')
  const head = [`| Nodes | Weights | ${names} |`, `| ---: | --- | ${schemes.map(() => '---').join(' | ')} |`]
  return [...head, ...rows].join('\n')
}
