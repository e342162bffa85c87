/** Changes of a topology: every epoch is whole, every step is one, and what is asked for comes about in the end. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../../src/base/seeded-random.ts'
import { invariantsOf, isAtRest, stepInvariantsOf } from '../../../src/cluster/topology/invariants.ts'
import { abortMoves, advanceMoves, beginMoves, movesLeft, stageOfMoves } from '../../../src/cluster/topology/moves.ts'
import { isRefusal, type Refusal } from '../../../src/cluster/topology/refusal.ts'
import {
  isRetiredBucket,
  isSettled,
  type Stage,
  stages,
  type Topology,
  votersOf,
} from '../../../src/cluster/topology/topology.ts'
import {
  changeMembers,
  create,
  deleteBucket,
  finish,
  forceRemove,
  type MemberChange,
  putBucket,
} from '../../../src/cluster/topology/transitions.ts'
import { Limits } from '../../../src/config.ts'
import {
  type Change,
  clusterId,
  clusterOf,
  created,
  given,
  idOf,
  joinOf,
  memberOf,
  nextMove,
  settled,
  stepped,
  walk,
} from './topology-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const codeOf = (outcome: Topology | Refusal): string => (isRefusal(outcome) ? outcome.refused : 'accepted')
const changed = (topology: Topology, ...changes: MemberChange[]): Topology =>
  stepped(topology, (before) => changeMembers(before, changes))
const leaveOf = (node: number, isDown = false): MemberChange => ({ type: 'leave', nodeId: idOf(node), isDown })
const listsOf = (topology: Topology): readonly string[] => topology.partitions.map(({ old }) => old.join(' '))
const idsOf = (topology: Topology): readonly string[] => topology.members.map(({ nodeId }) => nodeId)
/** A batch at this stage. */
function movingAt(topology: Topology, stage: Stage, count = 4): Topology {
  let present = stepped(topology, (before) => beginMoves(before, count))
  while (stageOfMoves(present) !== stage) present = stepped(present, nextMove(present)!)
  return present
}

test('Topology: a cluster of one has all partitions, and the default bucket', () => {
  const topology = created(1024)
  assert.equal(topology.epoch, 1)
  assert.deepEqual(topology.voters, [idOf(0)])
  assert.ok(isAtRest(topology))
  assert.deepEqual(
    topology.buckets.map(({ id, name, n }) => ({ id, name, n })),
    [{ id: 1, name: 'default', n: 3 }],
  )
  assert.equal(codeOf(create({ clusterId, member: { nodeId: 'x', address: 'a' } })), 'BAD_MEMBER')
})

test('Topology: one joins, the next, both leave: 1, 2, 3, 2, 1 members, each partition on as many as it can be', (t) => {
  let topology = created(64)
  const stagesSeen = new Set<Stage>()
  for (const [change, members] of [
    [joinOf(1), 2],
    [joinOf(2), 3],
    [leaveOf(1), 2],
    [leaveOf(0), 1],
  ] as const) {
    topology = settled(changed(topology, change), (each) => stagesSeen.add(stageOfMoves(each)), 16)
    assert.ok(isAtRest(topology))
    assert.equal(topology.members.length, members)
    assert.ok(topology.partitions.every(({ old }) => old.length === members))
    assert.deepEqual(topology.voters, votersOf(topology.members))
  }
  assert.deepEqual(idsOf(topology), [idOf(2)])
  assert.deepEqual([...stagesSeen].sort(), [...stages].sort())
  t.diagnostic(`${topology.epoch} epochs`)
})

test('Topology: two who join at once are planned together, in one epoch or in two', () => {
  const together = settled(changed(created(64), joinOf(1), joinOf(2)))
  const apart = settled(changed(changed(created(64), joinOf(1)), joinOf(2)))
  assert.deepEqual(listsOf(together), listsOf(apart))
  const both = changed(clusterOf(4, 64), leaveOf(1), joinOf(5))
  assert.ok(isAtRest(settled(both)))
  assert.equal(codeOf(changeMembers(created(), [joinOf(1), joinOf(1)])), 'MEMBER_EXISTS')
})

test('Topology: who joins or leaves while others move is planned when their moves have ended', () => {
  for (const stage of stages.slice(1)) {
    const moving = movingAt(changed(clusterOf(3, 64), joinOf(3)), stage)
    const later = changed(moving, joinOf(4), leaveOf(0))
    assert.ok(later.isPlanDue)
    assert.deepEqual(later.partitions, moving.partitions, 'What moves goes on as it began')
    assert.equal(codeOf(finish(later)), 'MOVES_LEFT')
    const end = settled(later)
    assert.ok(isAtRest(end))
    assert.deepEqual(idsOf(end), [1, 2, 3, 4].map(idOf))
  }
})

test('Topology: a replaced member hands its places to its successor, and nothing else moves', () => {
  const before = clusterOf(5, 64)
  const joiner = memberOf(7)
  const planned = changed(before, { type: 'replace', leaver: idOf(2), joiner })
  const heir = (list: readonly string[]): readonly string[] =>
    list.map((nodeId) => (nodeId === idOf(2) ? joiner.nodeId : nodeId)).toSorted()
  for (const { old, new: added } of planned.partitions) assert.deepEqual(added.toSorted(), heir(old))
  // The plan made anew half-way is the same.
  const half = changed(movingAt(planned, 'streaming', 16), { type: 'adjust', nodeId: idOf(1), address: 'elsewhere:1' })
  const end = settled(half)
  for (const [index, { old }] of end.partitions.entries()) {
    assert.deepEqual(old.toSorted(), heir(before.partitions[index]!.old))
  }
  assert.deepEqual(idsOf(end), [0, 1, 3, 4, 7].map(idOf))
  assert.ok(end.members.every(({ replaces }) => replaces === undefined))
})

test('Topology: another weight moves partitions in proportion, another address none', () => {
  const before = clusterOf(4, 64)
  const loadOf = (topology: Topology): number => topology.partitions.filter(({ old }) => old.includes(idOf(1))).length
  const after = settled(changed(before, { type: 'adjust', nodeId: idOf(1), weight: 0.5 }))
  assert.ok(loadOf(after) < loadOf(before))
  assert.equal(movesLeft(changed(before, { type: 'adjust', nodeId: idOf(1), address: 'other:1' })), 0)
  const adjust = (weight: number): string =>
    codeOf(changeMembers(before, [{ type: 'adjust', nodeId: idOf(1), weight }]))
  assert.deepEqual([1, 0, -1, Number.NaN, 0.001, 1000, 2].map(adjust), [
    'NO_CHANGE',
    ...Array.from({ length: 5 }, () => 'BAD_MEMBER'),
    'accepted',
  ])
})

test('Topology: moves are taken back before they are read, and not after; then the change itself can be', () => {
  const before = clusterOf(3, 64)
  for (const stage of stages.slice(1)) {
    const moving = movingAt(changed(before, joinOf(3)), stage)
    const { batch } = moving
    assert.equal(codeOf(abortMoves(moving, batch - 1)), 'STAGE_PASSED')
    if (stage === 'writeBothReadNew' || stage === 'cleanUp') {
      assert.equal(codeOf(abortMoves(moving, batch)), 'STAGE_PASSED')
      continue
    }
    const back = stepped(moving, (topology) => abortMoves(topology, batch))
    assert.equal(stageOfMoves(back), 'stable')
    assert.deepEqual(listsOf(back), listsOf(before))
    assert.ok(movesLeft(back) > 0, 'What was planned still is')
    const end = settled(changed(back, leaveOf(3)))
    assert.deepEqual(listsOf(end), listsOf(before))
    assert.deepEqual(idsOf(end), idsOf(before))
  }
})

test('Topology: a step names the batch and the stage it goes on from, so that none is skipped', () => {
  const moving = movingAt(changed(created(16), joinOf(1)), 'streaming')
  const { batch } = moving
  assert.equal(codeOf(beginMoves(moving)), 'MOVES_UNDER_WAY')
  const next = stepped(moving, (before) => advanceMoves(before, { batch, from: 'streaming' }))
  assert.equal(codeOf(advanceMoves(next, { batch, from: 'streaming' })), 'STAGE_PASSED')
  const again = movingAt(
    stepped(moving, (before) => abortMoves(before, batch)),
    'streaming',
  )
  assert.equal(codeOf(advanceMoves(again, { batch, from: 'streaming' })), 'STAGE_PASSED', 'Another batch')
  assert.equal(codeOf(beginMoves(created())), 'NOTHING_TO_MOVE')
  assert.equal(codeOf(finish(created())), 'NOTHING_TO_FINISH')
})

test('Topology: a batch is at most 64 partitions', () => {
  const planned = changed(created(1024), joinOf(1))
  const begun = stepped(planned, (before) => beginMoves(before, 1000))
  assert.equal(begun.partitions.filter(({ stage }) => stage !== 'stable').length, Limits.movingPartitionsMax)
  assert.equal(
    stepped(planned, (before) => beginMoves(before, 3)).partitions.filter((each) => !isSettled(each)).length,
    1024,
  )
})

test('Topology: the dead half of a two-node cluster is removed only by force', () => {
  const two = clusterOf(2)
  assert.equal(codeOf(changeMembers(two, [leaveOf(1, true)])), 'FORCE_NEEDED')
  assert.equal(codeOf(changeMembers(two, [leaveOf(1)])), 'accepted', 'Alive, it hands over what it has')
  for (const node of [0, 1]) {
    const one = stepped(two, (before) => forceRemove(before, idOf(node)))
    assert.ok(isAtRest(one))
    assert.deepEqual(one.voters, [idOf(1 - node)])
    assert.ok(one.partitions.every(({ old, fence }) => old.length === 1 && fence === one.epoch))
  }
  assert.equal(codeOf(changeMembers(clusterOf(3), [leaveOf(1, true)])), 'accepted', 'Two others have everything')
  assert.equal(codeOf(forceRemove(created(), idOf(0))), 'LAST_MEMBER')
  assert.equal(codeOf(forceRemove(two, idOf(6))), 'MEMBER_UNKNOWN')
})

test('Topology: force takes back what moves, and waits for what is read already', () => {
  for (const stage of stages.slice(1)) {
    const moving = movingAt(changed(clusterOf(2, 64), joinOf(2)), stage)
    const isRead = stage === 'writeBothReadNew' || stage === 'cleanUp'
    assert.equal(codeOf(forceRemove(moving, idOf(1))), isRead ? 'MOVES_UNDER_WAY' : 'accepted')
    if (isRead) continue
    const end = settled(stepped(moving, (before) => forceRemove(before, idOf(1))))
    assert.deepEqual(idsOf(end), [0, 2].map(idOf))
    assert.ok(end.partitions.every(({ old }) => old.length === 2))
  }
})

test('Topology: what cannot be is refused, and changes nothing', () => {
  const three = clusterOf(3)
  const refusals: [string, Change][] = [
    ['MEMBER_EXISTS', (before) => changeMembers(before, [joinOf(1)])],
    ['MEMBER_UNKNOWN', (before) => changeMembers(before, [leaveOf(6)])],
    ['MEMBER_LEAVING', (before) => changeMembers(before, [leaveOf(1), leaveOf(1)])],
    ['MEMBER_LEAVING', (before) => changeMembers(before, [leaveOf(1), joinOf(1)])],
    [
      'LAST_MEMBER',
      (before) =>
        changeMembers(
          before,
          [0, 1, 2].map((node) => leaveOf(node)),
        ),
    ],
    ['LAST_MEMBER', (before) => changeMembers(before, [...[0, 1, 2].map((node) => leaveOf(node)), joinOf(4)])],
    ['NO_CHANGE', (before) => changeMembers(before, [])],
    ['BAD_MEMBER', (before) => changeMembers(before, [{ ...joinOf(4), address: '' } as MemberChange])],
    ['BAD_MEMBER', (before) => changeMembers(before, [{ ...joinOf(4), zone: 'x'.repeat(65) } as MemberChange])],
    ['BUCKET_NEEDED', (before) => deleteBucket(before, 'default')],
    ['BUCKET_UNKNOWN', (before) => deleteBucket(before, 'x')],
    ['BUCKET_IMMUTABLE', (before) => putBucket(before, 'default', { n: 2 })],
    ['BUCKET_IMMUTABLE', (before) => putBucket(before, 'default', { conflict: 'lww' })],
    ['BAD_BUCKET', (before) => putBucket(before, 'a b', {})],
    ['BAD_BUCKET', (before) => putBucket(before, 'x', { n: 6 })],
    ['BAD_BUCKET', (before) => putBucket(before, 'x', { n: 2, r: 3 })],
    ['BAD_BUCKET', (before) => putBucket(before, 'x', { ttlMs: 0 })],
    ['NO_CHANGE', (before) => putBucket(before, 'default', { n: 3 })],
  ]
  const before = JSON.stringify(three)
  for (const [code, change] of refusals) assert.equal(codeOf(change(three)), code)
  assert.equal(JSON.stringify(three), before)
})

test('Topology: ids of buckets are never given out again, and there are 1000 at most', () => {
  let topology = stepped(created(), (before) => putBucket(before, 'x', {}))
  const { id } = topology.buckets.at(-1)!
  topology = stepped(topology, (before) => deleteBucket(before, 'x'))
  assert.ok(isRetiredBucket(topology, id) && !isRetiredBucket(topology, 1) && !isRetiredBucket(topology, id + 1))
  topology = stepped(topology, (before) => putBucket(before, 'x', {}))
  assert.equal(topology.buckets.at(-1)!.id, id + 1)
  const changedLater = stepped(topology, (before) => putBucket(before, 'x', { w: 'all', ttlMs: 5 }))
  assert.equal(changedLater.buckets.at(-1)!.id, id + 1)
  while (topology.buckets.length < Limits.bucketsMax) {
    topology = putBucket(topology, `bucket-${topology.buckets.length}`, {}) as Topology
  }
  given(topology)
  assert.equal(codeOf(putBucket(topology, 'one-more', {})), 'TOO_MANY_BUCKETS')
})

test('Topology: a bucket with more replicas lengthens the lists by moves, and its end shortens them again', () => {
  const before = clusterOf(6, 64)
  const longer = settled(stepped(before, (topology) => putBucket(topology, 'wide', { n: 5 })))
  assert.ok(longer.partitions.every(({ old }) => old.length === 5))
  const shorter = settled(stepped(longer, (topology) => deleteBucket(topology, 'wide')))
  assert.ok(shorter.partitions.every(({ old }) => old.length === 3))
})

test('votersOf() takes the first 1, 3 or 5 by join order, one of each zone first', () => {
  const votersOfZones = (...zones: string[]): string =>
    votersOf(
      zones.map((zone, index) => ({
        nodeId: idOf(index),
        address: 'a',
        weight: 1,
        zone,
        joinedAt: index + 1,
        state: zone === '-' ? 'joining' : 'normal',
        replaces: undefined,
        acceptor: undefined,
      })),
    )
      .map((voter) => Number.parseInt(voter, 16) - 0xa0)
      .join(' ')
  assert.equal(votersOfZones('a'), '0')
  assert.equal(votersOfZones('a', 'a'), '0')
  assert.equal(votersOfZones('a', '-', '-'), '0')
  assert.equal(votersOfZones('a', 'a', 'a'), '0 1 2')
  assert.equal(votersOfZones('a', 'a', 'b', 'c'), '0 2 3')
  assert.equal(votersOfZones('a', 'a', 'b', 'b', 'a'), '0 2 1 3 4')
  assert.equal(votersOfZones('a', 'a', 'a', 'b', 'b', 'c', 'c'), '0 3 5 1 4')
})

test('Topology: through any life, every epoch and every step is whole, and what is planned ends', (t) => {
  const random = new SeededRandom('topology lives')
  let epochs = 0
  for (let run = 0; run < Math.ceil(60 * scale); run++) {
    let last = created()
    for (const topology of walk(random, 120, 16)) {
      last = topology
      epochs++
    }
    const end = settled(last)
    assert.ok(isAtRest(end), `run ${run}`)
    assert.deepEqual(end.voters, votersOf(end.members))
  }
  t.diagnostic(`${epochs} epochs`)
})

test('Topology: the checks find what is wrong', () => {
  const moving = movingAt(changed(clusterOf(3, 16), joinOf(3)), 'streaming')
  const at = moving.partitions.findIndex(({ stage }) => stage === 'streaming')
  const partition = moving.partitions[at]!
  const withPartition = (part: object): Topology => ({
    ...moving,
    partitions: moving.partitions.with(at, { ...partition, ...part }),
  })
  const wrong: Topology[] = [
    withPartition({ stage: 'cleanUp' }),
    withPartition({ new: partition.new.slice(1) }),
    withPartition({ new: [partition.new[0]!, partition.new[0]!, partition.new[1]!] }),
    withPartition({ new: [idOf(6), ...partition.new.slice(1)] }),
    withPartition({ fence: partition.since + 1 }),
    { ...moving, batch: 0 },
    { ...moving, voters: [idOf(0), idOf(1)] },
    { ...moving, voters: [idOf(3)] },
    { ...moving, nextBucketId: 1 },
    { ...moving, buckets: [] },
    { ...moving, members: moving.members.toReversed() },
    { ...moving, partitions: moving.partitions.slice(1) },
  ]
  for (const [index, topology] of wrong.entries()) assert.notDeepEqual(invariantsOf(topology), [], `wrong ${index}`)
  const skipped = { ...moving, epoch: moving.epoch + 1 }
  assert.deepEqual(stepInvariantsOf(moving, skipped), [])
  const { batch } = moving
  const next = stepped(moving, (before) => advanceMoves(before, { batch, from: 'streaming' }))
  const twice = given(advanceMoves(next, { batch, from: 'writeBothReadNew' }))
  assert.notDeepEqual(stepInvariantsOf(moving, { ...twice, epoch: moving.epoch + 1 }), [], 'A stage is skipped')
})
