/**
 * Which nodes hold which partitions. The result is recorded in the topology and changed only by a change of members: then as many
 * replicas move as must, and no others.
 *
 *   1. Keep: of the lists before, what is still a member.
 *   2. Walk: a list that wants more goes clockwise over the virtual nodes from its partition's start (Karger et al., 1997; Dynamo, 2007)
 *      and takes distinct nodes, distinct zones first, passing over a node that has its share (bounded loads: Mirrokni, Thorup,
 *      Zadimoghaddam, 2018).
 *   3. Refill: where the walk leaves nodes below their share, since they were in most of the lists that wanted more, replicas that it has just
 *      placed, and that move in any case, are handed on along a chain of nodes (an augmenting path, as in bipartite matching) to one that is.
 *   4. Level: nodes below their share take replicas from those furthest above theirs, until all are within one replica of it, as far as
 *      zones allow. On a new ring this evens out what the walk left; later it is what moves data to a node that joins.
 *   5. Order: the first of a list coordinates (decisions.md), so firsts are levelled, too, by turns within lists, which moves no data.
 *
 * Deterministic: members in any order give the same result. Arithmetic only; some milliseconds for a hundred nodes.
 */
import { assert } from '../base/assert.ts'
import { KeyHash } from '../base/key-hash.ts'
import { Limits } from '../config.ts'
import { countBy, fairShares, type PlacementMember, type ZoneSpread, zoneSpreadOf } from './fair-shares.ts'

/** Preference lists: for each partition the ids of its replicas, the coordinator first. */
export type Placement = readonly (readonly string[])[]

/** A place of a list that `to` takes from `from`, which takes another in turn. */
type Link = {
  readonly from: string
  readonly to: string
  readonly partition: number
  readonly before: Link | undefined
}
type VirtualNode = { readonly position: number; readonly nodeId: string }

/** Virtual nodes of a member of average weight. */
const virtualNodes = 64
const virtualNodesMax = 4096
/** Shares are sums of fractions. */
const rounding = 1e-9
/** Partitions that are filled between two looks at who has its share. */
const partitionsPerSweep = 32
const ringSeed = { low: 0x52_49_4e_47, high: 0x53_55_4e_57 }

/**
 * Places `copies` replicas of every partition, or as many as there are members. `before` is the placement that is in force: what can stay
 * stays. Members are at least one, with distinct ids and weights above 0. `partitions` is a power of two.
 */
export function place(
  members: readonly PlacementMember[],
  copies: number,
  before?: Placement,
  partitions: number = Limits.partitions,
): Placement {
  assert(members.length > 0 && copies > 0, 'There is somebody to place replicas on')
  const sorted = [...members].sort((a, b) => (a.nodeId < b.nodeId ? -1 : 1))
  const placing = new Placing(sorted, copies, partitions)
  placing.keep(before)
  placing.walk()
  placing.refill()
  placing.level()
  placing.order()
  return placing.lists
}

/** Replicas that `after` has and `before` has not: what a change moves. */
export function movedReplicas(before: Placement, after: Placement): number {
  let moved = 0
  for (const [partition, list] of after.entries()) {
    for (const nodeId of list) if (!before[partition]!.includes(nodeId)) moved++
  }
  return moved
}

class Placing {
  readonly lists: string[][]
  /** How many of each list stayed; they stand first. */
  readonly #kept: number[]
  readonly #partitions: number
  readonly #members: ReadonlyMap<string, PlacementMember>
  readonly #zones: ReadonlyMap<string, number>
  readonly #spread: ZoneSpread
  readonly #shares: ReadonlyMap<string, number>
  readonly #loads = new Map<string, number>()
  readonly #hash = new KeyHash(ringSeed)
  readonly #bytes = new Map<string, Uint8Array>()

  constructor(members: readonly PlacementMember[], copies: number, partitions: number) {
    this.#partitions = partitions
    this.lists = Array.from({ length: partitions }, () => [])
    this.#kept = this.lists.map(() => 0)
    this.#members = new Map(members.map((member) => [member.nodeId, member]))
    assert(this.#members.size === members.length, 'Members have distinct ids')
    assert(
      members.every(({ weight }) => Number.isFinite(weight) && weight > 0),
      'Weights are above 0',
    )
    this.#zones = countBy(members)
    this.#spread = zoneSpreadOf(members, copies)
    this.#shares = fairShares(members, copies, partitions)
    for (const { nodeId } of members) {
      this.#loads.set(nodeId, 0)
      this.#bytes.set(nodeId, new TextEncoder().encode(nodeId))
    }
  }

  keep(before: Placement | undefined): void {
    if (before === undefined) return
    assert(before.length === this.#partitions, 'A placement has a list for every partition')
    for (const [partition, list] of before.entries()) {
      for (const nodeId of list) {
        if (this.#members.has(nodeId) && this.#fits(partition, nodeId)) this.#add(partition, nodeId)
      }
      this.#kept[partition] = this.lists[partition]!.length
    }
  }

  walk(): void {
    let ring: readonly VirtualNode[] = this.#ring()
    for (const [partition, list] of this.lists.entries()) {
      // Who has its share is not met again: else the last walks of a large ring would go all the way round.
      if (partition % partitionsPerSweep === 0) ring = ring.filter(({ nodeId }) => this.#excess(nodeId) < -rounding)
      if (list.length === this.#spread.copies) continue
      const start = firstAtOrAfter(ring, (partition / this.#partitions) * 2 ** 32)
      while (list.length < this.#spread.copies) this.#add(partition, this.#nextClockwise(partition, ring, start))
    }
  }

  /** The next node that has room for a whole replica; else one whose share ends within a replica; else the one that is least too full. */
  #nextClockwise(partition: number, ring: readonly VirtualNode[], start: number): string {
    let partly: string | undefined
    for (let step = 0; step < ring.length; step++) {
      const { nodeId } = ring[(start + step) % ring.length]!
      const excess = this.#excess(nodeId)
      if (excess >= -rounding || (partly !== undefined && excess > rounding - 1)) continue
      if (!this.#fits(partition, nodeId)) continue
      if (excess <= rounding - 1) return nodeId
      partly = nodeId
    }
    return partly ?? this.#leastLoaded(partition)
  }

  /** Brings nodes that are a replica or more below their shares up to them by what moves in any case. On a new ring that is left to `level`. */
  refill(): void {
    const refilled = [...this.lists.keys()].filter((partition) => {
      const kept = this.#kept[partition]!
      return kept > 0 && kept < this.lists[partition]!.length
    })
    for (const nodeId of this.#loads.keys()) {
      while (this.#excess(nodeId) <= -1 && this.#refillOne(nodeId, refilled));
    }
  }

  /** The shortest chain from a node that lacks a replica to one above its share: each takes a place of the next. False: there is none. */
  #refillOne(nodeId: string, refilled: readonly number[]): boolean {
    const met = new Set([nodeId])
    const ends: Link[] = [{ from: nodeId, to: nodeId, partition: -1, before: undefined }]
    for (const end of ends) {
      for (const partition of refilled) {
        const list = this.lists[partition]!
        if (list.includes(end.from)) continue
        for (const from of list.slice(this.#kept[partition]!)) {
          if (met.has(from) || !this.#fits(partition, end.from, from)) continue
          met.add(from)
          const link = { from, to: end.from, partition, before: end }
          if (this.#excess(from) > rounding) return this.#handOn(link)
          ends.push(link)
        }
      }
    }
    return false
  }

  /** From the end of the chain, where a node has too many. What was found out about one list may not hold when another link changed it. */
  #handOn(last: Link): boolean {
    for (let link = last; link.before !== undefined; link = link.before) {
      const { partition, from, to } = link
      if (!this.lists[partition]!.includes(from) || !this.#fits(partition, to, from)) return false
      this.#move(partition, from, to)
    }
    return true
  }

  /** Moves replicas one by one from nodes above their shares to nodes below theirs, while that brings both nearer. */
  level(): void {
    for (let isMoving = true; isMoving; ) {
      isMoving = false
      for (const nodeId of this.#loads.keys()) {
        while (this.#excess(nodeId) <= -1 && this.#take(nodeId, 0)) isMoving = true
      }
      for (const nodeId of this.#loads.keys()) {
        while (this.#excess(nodeId) >= 1 && this.#give(nodeId)) isMoving = true
      }
    }
  }

  order(): void {
    const firsts = new Map<string, number>()
    const total = this.#partitions / [...this.#shares.values()].reduce((sum, share) => sum + share, 0)
    for (const list of this.lists) firsts.set(list[0]!, (firsts.get(list[0]!) ?? 0) + 1)
    const excess = (nodeId: string): number => (firsts.get(nodeId) ?? 0) - this.#shares.get(nodeId)! * total
    for (let isTurning = true; isTurning; ) {
      isTurning = false
      for (const list of this.lists) {
        let best = 0
        for (let place = 1; place < list.length; place++) if (excess(list[place]!) < excess(list[best]!)) best = place
        // Each turn lowers the sum of squares of all excesses, so this ends.
        if (best === 0 || excess(list[0]!) - excess(list[best]!) <= 1 + 1e-9) continue
        firsts.set(list[0]!, firsts.get(list[0]!)! - 1)
        firsts.set(list[best]!, (firsts.get(list[best]!) ?? 0) + 1)
        ;[list[0], list[best]] = [list[best]!, list[0]!]
        isTurning = true
      }
    }
  }

  /** By how many replicas a node is above its share. */
  #excess(nodeId: string): number {
    return this.#loads.get(nodeId)! - this.#shares.get(nodeId)!
  }

  #add(partition: number, nodeId: string): void {
    this.lists[partition]!.push(nodeId)
    this.#loads.set(nodeId, this.#loads.get(nodeId)! + 1)
  }

  /** Whether a node may join the list, in place of `without` where that is named: it is not in it, and zones stay as spread as they can be. */
  #fits(partition: number, nodeId: string, without?: string): boolean {
    const list = this.lists[partition]!
    if (list.includes(nodeId)) return false
    if (without === undefined && list.length >= this.#spread.copies) return false
    const { zone } = this.#members.get(nodeId)!
    const inZone = (wanted: string): number =>
      list.filter((other) => other !== without && this.#members.get(other)!.zone === wanted).length
    const { full, copies } = this.#spread
    const own = inZone(zone)
    if (own < Math.min(full, this.#zones.get(zone)!)) return true
    if (own > full) return false
    // One of the replicas beyond the full rounds: the places of the others must be left for the zones that lack some.
    let lacking = 0
    for (const [other, nodes] of this.#zones)
      if (other !== zone) lacking += Math.max(0, Math.min(full, nodes) - inZone(other))
    const length = list.length - (without === undefined ? 0 : 1)
    return length + 1 + lacking <= copies
  }

  #leastLoaded(partition: number): string {
    let least: string | undefined
    for (const nodeId of this.#loads.keys()) {
      if (this.#fits(partition, nodeId) && (least === undefined || this.#excess(nodeId) < this.#excess(least)))
        least = nodeId
    }
    assert(least !== undefined, 'There are as many nodes as replicas of a partition')
    return least
  }

  /** Gives a node that lacks replicas one of the node furthest above its share, if that is above `least`. */
  #take(nodeId: string, least: number): boolean {
    let from: { readonly partition: number; readonly nodeId: string } | undefined
    let most = least
    let highest = least
    for (const other of this.#loads.keys()) highest = Math.max(highest, this.#excess(other))
    const start = this.#hashOf(nodeId, 0) % this.#partitions
    // Nobody beyond the highest is found by going on.
    for (let step = 0; step < this.#partitions && most < highest; step++) {
      const partition = (start + step * 389) % this.#partitions
      const list = this.lists[partition]!
      if (list.includes(nodeId)) continue
      for (const other of list) {
        if (this.#excess(other) <= most || !this.#fits(partition, nodeId, other)) continue
        most = this.#excess(other)
        from = { partition, nodeId: other }
      }
    }
    if (from === undefined) return false
    this.#move(from.partition, from.nodeId, nodeId)
    return true
  }

  /** Gives one replica of a node that has too many to the node furthest below its share. */
  #give(nodeId: string): boolean {
    let to: { readonly partition: number; readonly nodeId: string } | undefined
    let least = 0
    for (const [partition, list] of this.lists.entries()) {
      if (!list.includes(nodeId)) continue
      for (const other of this.#loads.keys()) {
        if (this.#excess(other) >= least || !this.#fits(partition, other, nodeId)) continue
        least = this.#excess(other)
        to = { partition, nodeId: other }
      }
    }
    if (to === undefined) return false
    this.#move(to.partition, nodeId, to.nodeId)
    return true
  }

  /** Puts `to` in the place of `from`. */
  #move(partition: number, from: string, to: string): void {
    const list = this.lists[partition]!
    list[list.indexOf(from)] = to
    this.#loads.set(from, this.#loads.get(from)! - 1)
    this.#loads.set(to, this.#loads.get(to)! + 1)
  }

  /** The virtual nodes of all members, clockwise. */
  #ring(): readonly VirtualNode[] {
    const members = [...this.#members.values()]
    const average = members.reduce((sum, { weight }) => sum + weight, 0) / members.length
    const ring = members.flatMap(({ nodeId, weight }) => {
      const count = Math.min(virtualNodesMax, Math.max(1, Math.round((virtualNodes * weight) / average)))
      return Array.from({ length: count }, (_, index) => ({ position: this.#hashOf(nodeId, index + 1), nodeId }))
    })
    return ring.sort((a, b) => a.position - b.position || (a.nodeId < b.nodeId ? -1 : 1))
  }

  /** A u32 of a node and a number. */
  #hashOf(nodeId: string, index: number): number {
    const bytes = this.#bytes.get(nodeId)!
    this.#hash.update(index, bytes, 0, bytes.length)
    return this.#hash.low >>> 0
  }
}

function firstAtOrAfter(ring: readonly { readonly position: number }[], position: number): number {
  let low = 0
  let high = ring.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (ring[middle]!.position < position) low = middle + 1
    else high = middle
  }
  return low === ring.length ? 0 : low
}
