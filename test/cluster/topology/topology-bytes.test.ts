/** Topologies as bytes: one form each, nothing that is none, and deltas that say the same in less. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../../src/base/seeded-random.ts'
import { invariantsOf } from '../../../src/cluster/topology/invariants.ts'
import { beginMoves } from '../../../src/cluster/topology/moves.ts'
import { signed } from '../../../src/cluster/topology/plan.ts'
import type { Topology } from '../../../src/cluster/topology/topology.ts'
import {
  applyDelta,
  decodeTopology,
  digestOf,
  digestOfBytes,
  encodeDelta,
  encodeTopology,
} from '../../../src/cluster/topology/topology-bytes.ts'
import { changeMembers, finish, putBucket } from '../../../src/cluster/topology/transitions.ts'
import { Limits } from '../../../src/config.ts'
import { fuzz } from '../../fuzz/fuzzing.ts'
import { clusterOf, created, given, joinOf, memberOf, settled, stepped, walk } from './topology-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const deltaOf = (before: Topology, after: Topology): Uint8Array =>
  encodeDelta(before, digestOf(before), after, digestOf(after))

/** Two members, one of them joining, a partition of each kind. */
function goldenTopology(): Topology {
  const joined = stepped(created(2), (before) =>
    changeMembers(before, [{ type: 'join', ...memberOf(1, 'b'), acceptor: '000000eff0f1f2f3' }]),
  )
  const moving = stepped(signed(joined, '1122334455667788'), (before) => beginMoves(before, 1))
  return given(putBucket(moving, 'x', { n: 2, w: 1, conflict: 'lww', durability: 'os', ttlMs: 1000 }))
}

test('Topology bytes: a topology has exactly these', () => {
  const hex = [
    '02 00 c8c7c6c5c4c3c2c1 04000000 01 00 03000000 03000000', // version, whole, cluster, epoch 4, 2 partitions, batch 3, next bucket 3
    '01 a000000000000000 01 8877665544332211', // one voter, one change
    '0200', // two members
    'a000000000000000 01 6400 01000000 0000000000000000 0000000000000000 0b 6e6f64652d303a37303731 00', // normal, weight 1, joined at 1
    'a100000000000000 00 6400 02000000 0000000000000000 f3f2f1f0ef000000 0b 6e6f64652d313a37303731 01 62', // joining at 2, zone b
    '0200', // two buckets
    '01000000 07 64656661756c74 03 07 07 00 00 0000000000000000 00000000', // default: 3, quorum, quorum
    '02000000 01 78 02 07 01 02 01 e803000000000000 00000000', // x: 2, quorum, 1, lww, os, 1 s
    '49 00 02 0100 03 02', // writeBothReadOld: 0 to 1 0, since 3, fence 1
    '48 00 02 0001 01 00', // stable, planned: 0 to 0 1, since 1
  ]
  assert.equal(encodeTopology(goldenTopology()).toHex(), hex.join('').replaceAll(' ', ''))
  assert.equal(digestOf(goldenTopology()), '3ab4135448eed46a')
})

test('Topology bytes: a delta has exactly these', () => {
  const before = created(2)
  const after = stepped(before, (topology) => putBucket(topology, 'x', { n: 1, sloppy: true }))
  const hex = [
    `02 01 01000000 ${swapped(digestOf(before))} ${swapped(digestOf(after))}`, // version, delta, from epoch 1, digests
    'c8c7c6c5c4c3c2c1 02000000 01 00 00000000 03000000 01 a000000000000000 00', // frame
    '02 0200', // buckets only
    '01000000 07 64656661756c74 03 07 07 00 00 0000000000000000 00000000',
    '02000000 01 78 01 07 07 01 00 0000000000000000 00000000',
    '0000', // no partitions
  ]
  assert.equal(deltaOf(before, after).toHex(), hex.join('').replaceAll(' ', ''))
})

const swapped = (id: string): string => id.match(/../g)!.reverse().join('')

test('Topology bytes: what is encoded is decoded, whole and as a delta from any epoch before', (t) => {
  const random = new SeededRandom('topology bytes')
  let wholeBytes = 0
  let deltaBytes = 0
  let count = 0
  for (let run = 0; run < Math.ceil(20 * scale); run++) {
    const seen: Topology[] = []
    for (const topology of walk(random, 60, 2 ** random.below(6))) {
      const bytes = encodeTopology(topology)
      assert.deepEqual(decodeTopology(bytes), topology)
      assert.equal(digestOfBytes(bytes), digestOf(topology))
      if (seen.length > 0) {
        const before = random.pick(seen)
        const delta = deltaOf(before, topology)
        assert.deepEqual(applyDelta(before, digestOf(before), delta), topology)
        assert.equal(applyDelta(topology, digestOf(topology), delta), undefined)
        wholeBytes += bytes.length
        deltaBytes += deltaOf(seen.at(-1)!, topology).length
        count++
      }
      seen.push(topology)
    }
  }
  t.diagnostic(
    `${count} epochs, ${(wholeBytes / count).toFixed(0)} B whole, ${(deltaBytes / count).toFixed(0)} B as deltas`,
  )
})

/** A cluster whose moves are skipped: there are many. */
function settledAtOnce(nodes: number, partitions: number): Topology {
  const joins = Array.from({ length: nodes - 1 }, (_, index) => joinOf(index + 1))
  if (joins.length === 0) return created(partitions)
  const planned = given(changeMembers(created(partitions), joins))
  const moved = planned.partitions.map((partition) => ({ ...partition, old: partition.new, since: 2 }))
  return given(finish({ ...planned, partitions: moved }))
}

test('Topology bytes: the sizes of usual and largest topologies', (t) => {
  for (const [nodes, partitions] of [
    [1, 1024],
    [3, 1024],
    [12, 1024],
    [12, 16384],
  ] as const) {
    const topology = settledAtOnce(nodes, partitions)
    const moving = stepped(
      stepped(topology, (before) => changeMembers(before, [joinOf(nodes)])),
      (before) => beginMoves(before),
    )
    const bytes = encodeTopology(topology)
    const startMs = performance.now()
    assert.deepEqual(decodeTopology(bytes), topology)
    const tookMs = performance.now() - startMs
    const begun = deltaOf(topology, moving)
    t.diagnostic(
      `${nodes} nodes, ${partitions} partitions: ${bytes.length} B, decoded in ${tookMs.toFixed(1)} ms; while one joins ${encodeTopology(moving).length} B, ${begun.length} B as a delta`,
    )
  }
  const largest = Limits.clusterMembersMax * 350 + Limits.bucketsMax * 160 + Limits.partitionsMax * 32
  assert.ok(largest < Limits.topologyBytesMax)
})

test('Topology bytes: of more than 256 members each is named by two bytes', () => {
  const topology = settledAtOnce(300, 1024)
  assert.equal(topology.members.length, 300)
  assert.deepEqual(decodeTopology(encodeTopology(topology)), topology)
})

/** Some topologies of a life. */
function samples(): Topology[] {
  const random = new SeededRandom('topology samples')
  const all = [goldenTopology()]
  for (let run = 0; run < 4; run++) all.push(...[...walk(random, 60, 2 ** run)].filter((_, index) => index % 6 === 5))
  return all
}

fuzz('a topology has one form in bytes, and others are refused', () => ({
  inputs: samples().map(encodeTopology),
  look: (input) => {
    const topology = decodeTopology(input)
    if (topology === undefined) return false
    assert.deepEqual(invariantsOf(topology), [])
    assert.equal(Buffer.compare(encodeTopology(topology), input), 0)
    return true
  },
}))

fuzz('a delta makes the topology that it names, or is refused', () => {
  const before = clusterOf(3)
  const digest = digestOf(before)
  const afters = [
    stepped(before, (topology) => putBucket(topology, 'x', { n: 5 })),
    stepped(before, (topology) => changeMembers(topology, [joinOf(3)])),
    settled(
      stepped(before, (topology) => changeMembers(topology, [{ type: 'leave', nodeId: before.members[1]!.nodeId }])),
    ),
  ]
  const digests = new Set(afters.map(digestOf))
  return {
    inputs: afters.map((after) => deltaOf(before, after)),
    look: (input) => {
      const after = applyDelta(before, digest, input)
      if (after === undefined) return false
      assert.ok(digests.has(digestOf(after)), 'A delta is accepted that was never given out')
      return true
    },
  }
})
