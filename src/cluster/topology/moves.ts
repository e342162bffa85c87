/**
 * Carries out what is planned, batch by batch: up to 64 partitions go through the stages together, and the next begin when these have
 * ended. Whoever drives the moves (that is not here) waits for the barrier of a stage before it asks for the next.
 *
 * A step names the batch and the stage it goes on from, so that two who drive at once, or one that is late, cannot skip a stage.
 */
import { Limits } from '../../config.ts'
import { nextOf, planned } from './plan.ts'
import { type Refusal, refusal } from './refusal.ts'
import { isSettled, type PartitionState, type Stage, stages, type Topology } from './topology.ts'

/** Which moves a step is about. */
export type MoveStep = { readonly batch: number; readonly from: Stage }

/** The stage of the moves under way; `stable` where there are none. */
export function stageOfMoves({ partitions }: Topology): Stage {
  return partitions.find(({ stage }) => stage !== 'stable')?.stage ?? 'stable'
}

/** Partitions that are planned to move, or do. */
export function movesLeft({ partitions }: Topology): number {
  return partitions.reduce((sum, partition) => sum + (isSettled(partition) ? 0 : 1), 0)
}

/** Begins to move the next partitions, up to `count`, taken from all over the ring, so that all shards of a node have their part. */
export function beginMoves(topology: Topology, count: number = Limits.movingPartitionsMax): Topology | Refusal {
  if (topology.batch !== 0)
    return refusal('MOVES_UNDER_WAY', 'Cannot begin to move: the moves under way have not ended')
  const waiting = [...topology.partitions.keys()].filter((index) => !isSettled(topology.partitions[index]!))
  if (waiting.length === 0) return refusal('NOTHING_TO_MOVE', 'Cannot begin to move: nothing is planned')
  const taken = Math.min(Math.max(1, Math.floor(count)), Limits.movingPartitionsMax, waiting.length)
  const chosen = new Set(
    Array.from({ length: taken }, (_, place) => waiting[Math.floor((place * waiting.length) / taken)]!),
  )
  const epoch = topology.epoch + 1
  const partitions = topology.partitions.map((partition, index) =>
    chosen.has(index) ? atStage(partition, 'writeBothReadOld', epoch) : partition,
  )
  return nextOf(topology, { partitions, batch: epoch })
}

/** Takes the moves under way from a stage to the next; after the last they have ended. */
export function advanceMoves(topology: Topology, step: MoveStep): Topology | Refusal {
  const stage = stageOfMoves(topology)
  if (topology.batch === 0 || topology.batch !== step.batch || stage !== step.from)
    return refusal('STAGE_PASSED', `Cannot go on from ${step.from} of batch ${step.batch}: it is not there any more`)
  const epoch = topology.epoch + 1
  if (stage !== 'cleanUp') {
    const following = stages[stages.indexOf(stage) + 1]!
    return nextOf(topology, { partitions: moved(topology, (partition) => atStage(partition, following, epoch)) })
  }
  const settled = (partition: PartitionState): PartitionState => ({
    ...atStage(partition, 'stable', epoch),
    old: partition.new,
  })
  return ended(topology, moved(topology, settled))
}

/** Takes the moves under way back, while nobody has read from where they go; they stay planned. */
export function abortMoves(topology: Topology, batch: number): Topology | Refusal {
  if (topology.batch === 0 || topology.batch !== batch)
    return refusal('STAGE_PASSED', `Cannot abort batch ${batch}: it has ended`)
  const stage = stageOfMoves(topology)
  if (stage !== 'writeBothReadOld' && stage !== 'streaming')
    return refusal('STAGE_PASSED', `Cannot abort batch ${batch}: the new replicas are read already`)
  return ended(
    topology,
    moved(topology, (partition) => rolledBack(partition, topology.epoch + 1)),
  )
}

/** The partition as it is where its move is taken back. */
export function rolledBack(partition: PartitionState, epoch: number): PartitionState {
  return partition.stage === 'stable' ? partition : atStage(partition, 'stable', epoch)
}

function ended(topology: Topology, partitions: readonly PartitionState[]): Topology {
  const next = nextOf(topology, { partitions, batch: 0 })
  return next.isPlanDue ? planned(next) : next
}

function moved(topology: Topology, change: (partition: PartitionState) => PartitionState): readonly PartitionState[] {
  return topology.partitions.map((partition) => (partition.stage === 'stable' ? partition : change(partition)))
}

/** The stage before ends here: requests from before it began are refused from now on. */
function atStage(partition: PartitionState, stage: Stage, epoch: number): PartitionState {
  return { ...partition, stage, since: epoch, fence: partition.since }
}
