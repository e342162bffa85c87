/** Who is read, who is written, whose acknowledgements count, and who is too far behind, stage by stage. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../../src/base/seeded-random.ts'
import { beginMoves } from '../../../src/cluster/topology/moves.ts'
import { ackGroups, fenceOf, readSet, replicasOf, standingOf } from '../../../src/cluster/topology/replica-sets.ts'
import { type PartitionState, type Stage, stages, type Topology } from '../../../src/cluster/topology/topology.ts'
import { changeMembers } from '../../../src/cluster/topology/transitions.ts'
import { clusterOf, joinOf, nextMove, stepped, walk } from './topology-rig.ts'

const at = (stage: Stage, old: string, added: string): PartitionState => ({
  stage,
  old: old.split(''),
  new: added.split(''),
  since: 5,
  fence: 4,
})

test('Replica sets: each stage reads and writes as it is drawn', () => {
  const rows = stages.map((stage) => {
    const partition = at(stage, 'abc', 'bcd')
    const groups = ackGroups(partition).map((group) => group.join(''))
    const [read, write, stability] = (['read', 'write', 'stability'] as const).map((purpose) =>
      replicasOf(partition, purpose).join(''),
    )
    return `${stage}: reads ${read}, writes ${write}, acks ${groups.join(' and ')}, stability ${stability}`
  })
  assert.deepEqual(rows, [
    'stable: reads abc, writes abc, acks abc, stability abc',
    'writeBothReadOld: reads abc, writes abcd, acks abc and bcd, stability abcd',
    'streaming: reads abc, writes abcd, acks abc and bcd, stability abcd',
    'writeBothReadNew: reads bcd, writes bcda, acks abc and bcd, stability bcda',
    'cleanUp: reads bcd, writes bcd, acks bcd, stability bcda',
  ])
})

test('Replica sets: a bucket uses the first n of each list, and one group where both are alike', () => {
  const partition = at('streaming', 'abc', 'bad')
  assert.deepEqual(readSet(partition, 2), ['a', 'b'])
  assert.deepEqual(ackGroups(partition, 1), [['a'], ['b']])
  assert.deepEqual(ackGroups(partition, 2), [['a', 'b']])
  assert.deepEqual(replicasOf(partition, 'write', 1), ['a', 'b'])
  assert.deepEqual(ackGroups(at('streaming', 'a', 'abc'), 3), [['a'], ['a', 'b', 'c']])
})

test('Fences: the stages of one move get along with their neighbours, and with no others', () => {
  let topology = stepped(clusterOf(3), (before) => changeMembers(before, [joinOf(3)]))
  const partition = topology.partitions.findIndex(({ old, new: added }) => old.join() !== added.join())
  const epochs: Topology[] = [topology]
  topology = stepped(topology, (before) => beginMoves(before))
  epochs.push(topology)
  while (topology.partitions[partition]!.stage !== 'stable') {
    topology = stepped(topology, nextMove(topology)!)
    epochs.push(topology)
  }
  assert.equal(epochs.length, stages.length + 1)
  for (const [own, replica] of epochs.entries()) {
    for (const [other, request] of epochs.entries()) {
      const outcome = fenceOf(standingOf(replica, partition), standingOf(request, partition))
      const wanted = Math.abs(own - other) <= 1 ? 'accepted' : other < own ? 'requestBehind' : 'replicaBehind'
      assert.equal(outcome, wanted, `replica at ${own}, request at ${other}`)
    }
  }
})

test('Fences: whoever gets along, what one reads the other writes, W and R being majorities', () => {
  const random = new SeededRandom('fences')
  const majority = (list: readonly string[]): number => Math.floor(list.length / 2) + 1
  /** Whether every majority of one list meets every majority of the other. */
  const doMeet = (read: readonly string[], group: readonly string[]): boolean =>
    majority(read) + majority(group) > new Set([...read, ...group]).size
  let pairs = 0
  for (let run = 0; run < 20; run++) {
    const epochs = [...walk(random, 100, 8)]
    for (const [own, replica] of epochs.entries()) {
      for (const request of epochs.slice(Math.max(0, own - 12), own)) {
        for (const index of replica.partitions.keys()) {
          if (fenceOf(standingOf(replica, index), standingOf(request, index)) !== 'accepted') continue
          pairs++
          const sides = [replica.partitions[index]!, request.partitions[index]!] as const
          for (const [reader, writer] of [sides, sides.toReversed() as [PartitionState, PartitionState]]) {
            const read = readSet(reader)
            // Before new is read, what was written to old alone is shipped to it.
            const isCovered = ackGroups(writer).some((group) => doMeet(read, group))
            assert.ok(isCovered, `${reader.stage} reads ${read}, ${writer.stage} writes ${ackGroups(writer)}`)
          }
        }
      }
    }
  }
  assert.ok(pairs > 10_000)
})
