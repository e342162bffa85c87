/** Topologies for tests: members by number, steps that are checked, and walks that a seed draws. */
import assert from 'node:assert/strict'
import type { SeededRandom } from '../../../src/base/seeded-random.ts'
import { invariantsOf, stepInvariantsOf } from '../../../src/cluster/topology/invariants.ts'
import { abortMoves, advanceMoves, beginMoves, stageOfMoves } from '../../../src/cluster/topology/moves.ts'
import { isRefusal, type Refusal } from '../../../src/cluster/topology/refusal.ts'
import type { Topology } from '../../../src/cluster/topology/topology.ts'
import {
  changeMembers,
  create,
  deleteBucket,
  finish,
  forceRemove,
  type MemberChange,
  type NewMember,
  putBucket,
} from '../../../src/cluster/topology/transitions.ts'

export const clusterId = 'c1c2c3c4c5c6c7c8'
export type Change = (topology: Topology) => Topology | Refusal

/** The id of node 0, 1, ... */
export const idOf = (node: number): string => (0xa0 + node).toString(16).padStart(16, '0')
export const addressOf = (node: number): string => `node-${node}:7071`
/** Under which node 0, 1, ... votes at first. */
export const acceptorOf = (node: number): string => (0xac00 + node).toString(16).padStart(16, '0')
export const memberOf = (node: number, zone = ''): NewMember => ({ nodeId: idOf(node), address: addressOf(node), zone })
export const joinOf = (node: number, zone = ''): MemberChange => ({ type: 'join', ...memberOf(node, zone) })

/** What a step gives, which must be a topology. */
export function given(outcome: Topology | Refusal): Topology {
  if (isRefusal(outcome)) throw new Error(`${outcome.refused}: ${outcome.why}`)
  assert.deepEqual(invariantsOf(outcome), [])
  return outcome
}

/** The topology after a step that is allowed, with all that must hold of it. */
export function stepped(before: Topology, change: Change): Topology {
  const after = given(change(before))
  assert.deepEqual(stepInvariantsOf(before, after), [])
  return after
}

export function created(partitions = 16, zone = ''): Topology {
  return given(create({ clusterId, member: memberOf(0, zone), partitions }))
}

/** The next step of whatever is planned, from begin to finish; undefined where nothing is. */
export function nextMove(topology: Topology, count = 64): Change | undefined {
  if (topology.batch !== 0) {
    const { batch } = topology
    const from = stageOfMoves(topology)
    return (before) => advanceMoves(before, { batch, from })
  }
  for (const change of [(before: Topology) => beginMoves(before, count), finish]) {
    if (!isRefusal(change(topology))) return change
  }
  return undefined
}

/** Carries out all that is planned. `each` sees every epoch on the way. */
export function settled(topology: Topology, each: (topology: Topology) => void = () => {}, count = 64): Topology {
  let present = topology
  for (let move = nextMove(present, count); move !== undefined; move = nextMove(present, count)) {
    present = stepped(present, move)
    each(present)
  }
  return present
}

/** A cluster of `nodes`, at rest. */
export function clusterOf(nodes: number, partitions = 16, zones = 1): Topology {
  const zoneOf = (node: number): string => (zones === 1 ? '' : `zone ${node % zones}`)
  const joins = Array.from({ length: nodes - 1 }, (_, index) => joinOf(index + 1, zoneOf(index + 1)))
  const first = created(partitions, zoneOf(0))
  return joins.length === 0 ? first : settled(stepped(first, (before) => changeMembers(before, joins)))
}

/** The same with the ids under which its members vote. */
export function withAcceptors(topology: Topology): Topology {
  const named = topology.members.map((member) => ({
    ...member,
    acceptor: acceptorOf(Number.parseInt(member.nodeId, 16) - 0xa0),
  }))
  return { ...topology, members: named }
}

/** A change that may or may not be allowed now. */
export function drawnChange(topology: Topology, random: SeededRandom, nodes = 7): Change {
  const node = random.below(nodes)
  const nodeId = idOf(node)
  const zone = `zone ${random.below(3)}`
  const weight = random.pick([0.5, 1, 1, 2, 3.25])
  const isDown = random.chance(1, 3)
  const bucket = `bucket-${random.below(4)}`
  switch (random.below(14)) {
    case 0:
    case 1:
      return (before) => changeMembers(before, [joinOf(node, zone)])
    case 2:
      return (before) => changeMembers(before, [{ type: 'leave', nodeId, isDown }])
    case 3: {
      const joiner = memberOf(random.below(nodes), zone)
      return (before) => changeMembers(before, [{ type: 'replace', leaver: nodeId, isDown, joiner }])
    }
    case 4:
      return (before) => changeMembers(before, [{ type: 'adjust', nodeId, weight }])
    case 5: {
      const other = joinOf(random.below(nodes), zone)
      return (before) => changeMembers(before, [{ type: 'leave', nodeId }, other])
    }
    case 6: {
      const n = random.between(1, 5)
      const sloppy = random.chance(1, 2)
      return (before) => putBucket(before, bucket, { n, sloppy })
    }
    case 7:
      return (before) => deleteBucket(before, bucket)
    case 8:
      return random.chance(1, 4) ? (before) => forceRemove(before, nodeId) : finish
    case 9: {
      const { batch } = topology
      return (before) => abortMoves(before, batch)
    }
    default: {
      const count = random.between(1, 8)
      return nextMove(topology, count) ?? ((before) => changeMembers(before, [joinOf(node, zone)]))
    }
  }
}

/** The epochs of a random life, each checked against the one before. */
export function* walk(random: SeededRandom, steps: number, partitions = 16): Generator<Topology> {
  let topology = created(partitions)
  yield topology
  for (let step = 0; step < steps; step++) {
    const change = drawnChange(topology, random)
    const outcome = change(topology)
    if (isRefusal(outcome)) continue
    topology = stepped(topology, () => outcome)
    yield topology
  }
}
