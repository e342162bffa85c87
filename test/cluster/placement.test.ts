/** Placement: what every result must be, whatever the members; that changes move little; and figures beside those of simpler schemes. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  fairShares,
  leastUnevenness,
  type PlacementMember,
  unevennessWarning,
  zoneSpreadOf,
} from '../../src/cluster/fair-shares.ts'
import { movedReplicas, type Placement, place } from '../../src/cluster/placement.ts'
import { Limits } from '../../src/config.ts'
import { balanceOf, changes, membersOf, placementFigures } from './placement-report.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

const memberOf = fc.record({
  weight: fc.constantFrom(0.1, 0.5, 1, 1, 1, 2, 3, 10),
  zone: fc.constantFrom('a', 'a', 'b', 'c', 'd'),
})
const clusterOf = fc.record({
  members: fc.array(memberOf, { minLength: 1, maxLength: 12 }),
  copies: fc.integer({ min: 1, max: 5 }),
})

const named = (members: readonly Omit<PlacementMember, 'nodeId'>[], first = 0): PlacementMember[] =>
  members.map((member, index) => ({ ...member, nodeId: `node ${first + index}` }))

/** What is wrong with a placement; undefined where nothing is. */
function problemOf(
  members: readonly PlacementMember[],
  copies: number,
  placement: Placement,
  partitions: number = Limits.partitions,
): string | undefined {
  if (placement.length !== partitions) return `${placement.length} lists`
  const byId = new Map(members.map((member) => [member.nodeId, member]))
  const nodes = new Map<string, number>()
  for (const { zone } of members) nodes.set(zone, (nodes.get(zone) ?? 0) + 1)
  const wanted = Math.min(copies, members.length)
  for (const [partition, list] of placement.entries()) {
    if (list.length !== wanted) return `partition ${partition} has ${list.length} replicas instead of ${wanted}`
    if (new Set(list).size !== list.length) return `partition ${partition} has a node twice`
    if (!list.every((nodeId) => byId.has(nodeId))) return `partition ${partition} has a stranger`
    const zones = new Map<string, number>()
    for (const nodeId of list) {
      const { zone } = byId.get(nodeId)!
      zones.set(zone, (zones.get(zone) ?? 0) + 1)
    }
    // A zone has two more than another only where the other has no more nodes.
    for (const [zone, count] of nodes) {
      for (const used of zones.values()) {
        const own = zones.get(zone) ?? 0
        if (own < count && used > own + 1) return `partition ${partition} has ${used} in one zone and ${own} in ${zone}`
      }
    }
  }
  return undefined
}

test('fairShares(): all replicas are shared out, by weight as far as zones and distinct nodes allow', () => {
  const property = fc.property(clusterOf, ({ members, copies }) => {
    const own = named(members)
    const shares = fairShares(own, copies)
    const total = Limits.partitions * Math.min(copies, own.length)
    const sum = [...shares.values()].reduce((all, share) => all + share, 0)
    assert.ok(Math.abs(sum - total) < 1e-6 * total, `${sum} of ${total}`)
    for (const share of shares.values()) assert.ok(share >= 0 && share <= Limits.partitions + 1e-6)
    // Of two nodes of a zone, the heavier has no less, and in proportion unless it has all.
    for (const a of own) {
      for (const b of own) {
        if (a.zone !== b.zone || a.weight > b.weight) continue
        const [light, heavy] = [shares.get(a.nodeId)!, shares.get(b.nodeId)!]
        assert.ok(light <= heavy + 1e-6)
        if (heavy < Limits.partitions - 1e-6) assert.ok(Math.abs(heavy * a.weight - light * b.weight) < 1e-3 * heavy)
      }
    }
  })
  fc.assert(property, { numRuns: Math.ceil(300 * scale) })
  const even = fairShares(membersOf(4, false, 1), 3)
  assert.deepEqual([...even.values()], [768, 768, 768, 768])
  assert.deepEqual(zoneSpreadOf(membersOf(5, false, 2), 3), { copies: 3, full: 1 })
})

test('place(): lists are full, of distinct members, spread over zones, and the same in any order of members', () => {
  const property = fc.property(clusterOf, ({ members, copies }) => {
    const own = named(members)
    const placement = place(own, copies)
    assert.equal(problemOf(own, copies, placement), undefined)
    assert.deepEqual(place([...own].reverse(), copies), placement)
    assert.deepEqual(place(own, copies, placement), placement, 'Where nothing changes, nothing moves')
  })
  fc.assert(property, { numRuns: Math.ceil(60 * scale) })
})

test('place(): through joins, leaves and changes of weights, zones and copies, every placement is whole', () => {
  const change = fc.oneof(
    fc.record({ kind: fc.constant('join' as const), member: memberOf }),
    fc.record({
      kind: fc.constantFrom('leave' as const, 'weigh' as const, 'zone' as const),
      at: fc.nat(),
      member: memberOf,
    }),
    fc.record({ kind: fc.constant('copies' as const), copies: fc.integer({ min: 1, max: 5 }) }),
  )
  const property = fc.property(clusterOf, fc.array(change, { minLength: 1, maxLength: 8 }), (cluster, steps) => {
    let { copies } = cluster
    let members = named(cluster.members)
    let placement = place(members, copies)
    for (const [step, each] of steps.entries()) {
      if (each.kind === 'join') members = [...members, ...named([each.member], 100 + step)]
      else if (each.kind === 'copies') copies = each.copies
      else {
        const at = each.at % members.length
        const changed = {
          ...members[at]!,
          ...(each.kind === 'weigh' ? { weight: each.member.weight } : { zone: each.member.zone }),
        }
        if (each.kind !== 'leave') members = members.with(at, changed)
        else if (members.length > 1) members = members.toSpliced(at, 1)
      }
      placement = place(members, copies, placement)
      assert.equal(problemOf(members, copies, placement), undefined, `step ${step}`)
    }
  })
  fc.assert(property, { numRuns: Math.ceil(40 * scale) })
})

test('place(): loads are within one replica of their shares, equal or mixed, in one zone and in three', () => {
  for (const zones of [1, 3]) {
    for (const isMixed of [false, true]) {
      for (const nodes of [3, 4, 5, 8, 12, 24, 48, 100, 300]) {
        const members = membersOf(nodes, isMixed, zones)
        const placement = place(members, 3)
        assert.equal(problemOf(members, 3, placement), undefined)
        const shares = fairShares(members, 3)
        for (const [nodeId, load] of balanceOf(placement).loads) {
          assert.ok(Math.abs(load - shares.get(nodeId)!) < 1, `${nodes} nodes: ${load} for ${shares.get(nodeId)}`)
        }
        for (const [nodeId, firsts] of balanceOf(placement).firsts) {
          const share = shares.get(nodeId)! / Math.min(3, nodes)
          assert.ok(Math.abs(firsts - share) < 2, `${nodes} nodes: coordinates ${firsts} for ${share}`)
        }
      }
    }
  }
})

test('place(): a ring of any number of partitions is whole, and stays so through a join', () => {
  for (const partitions of [1, 16, 64, 4096, 16384]) {
    for (const nodes of [1, 2, 3, 7]) {
      const before = membersOf(nodes, false, 2)
      const after = membersOf(nodes + 1, false, 2)
      let placement = place(before, 3, undefined, partitions)
      assert.equal(problemOf(before, 3, placement, partitions), undefined)
      placement = place(after, 3, placement, partitions)
      assert.equal(problemOf(after, 3, placement, partitions), undefined)
    }
  }
})

test('place(): a join, a leave and another weight move little more than their fair share', () => {
  for (const isMixed of [false, true]) {
    for (const nodes of [4, 5, 8, 12, 24, 48, 100, 300]) {
      for (const { name, before, after, fair } of changes(nodes, isMixed)) {
        const first = place(before, 3)
        const moved = movedReplicas(first, place(after, 3, first))
        assert.ok(moved <= 1.12 * fair + 1, `${name} of ${nodes} nodes moves ${moved}, and ${fair} would be fair`)
      }
    }
  }
})

test('placement beside rings of 150 tokens and rendezvous hashing: loads nearer to their shares, no more movement', () => {
  const rows = placementFigures([12, 48], Limits.partitions)
  assert.equal(rows.length, 4)
  for (const { ours, tokens, rendezvous } of rows) {
    assert.ok(ours.worst < tokens.worst && ours.worst < rendezvous.worst)
    assert.ok(ours.worst < 1.05)
    for (const moved of [ours.join, ours.leave, ours.weight]) assert.ok(moved! <= 1.05)
  }
})

test('leastUnevenness() is what whole replicas leave, and operators are told where it is beyond a tenth', () => {
  for (let members = 3; members <= 1000; members++) {
    const unevenness = leastUnevenness(members, 3)
    if (members < 170) assert.ok(unevenness <= 1.05, `${members} members`)
    if (members < 338) assert.equal(unevennessWarning(members, 3), undefined)
    assert.equal(unevenness > 1.1, unevennessWarning(members, 3) !== undefined)
  }
  assert.equal(leastUnevenness(1, 3), 1)
  assert.match(unevennessWarning(1000, 3)!, /1000 members .* hold 30% more/)
  assert.match(unevennessWarning(338, 3)!, /338 members/)
})
