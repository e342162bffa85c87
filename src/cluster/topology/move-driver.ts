/**
 * Carries the moves of a topology from stage to stage, when its nodes are so far. One node does: the first voter that answers. Where two
 * take themselves for it, no harm comes of that, since each step names the stage that it goes on from.
 *
 * What it waits for before a step:
 *
 *   barrier     every node concerned that answers, and of every group of replicas so many that the others cannot make a quorum, goes by the
 *               epoch of the present stage: from then on nobody can work two stages behind, since too few would take it
 *   streaming   also, every new replica has exchanged what it has with a majority of the old ones, after it came to this stage; a quorum of
 *               writes before had at least one of them
 *   cleanUp     also, whoever has lost the partition has handed over what it had to a majority of the new replicas, unless it does not
 *               answer: then it does when it comes back
 *
 * A move to a node that does not answer any more is taken back after a while, where it still can be, and begins again when the node answers.
 *
 * An object without a thread, clock or socket: `receive` and `tick` move it.
 */

import { decodeMoveMessage, encodeMoveMessage, type MoveProgress } from './move-messages.ts'
import { abortMoves, advanceMoves, beginMoves, stageOfMoves } from './moves.ts'
import type { ChangeDone, TopologyChange } from './proposals.ts'
import { ackGroups } from './replica-sets.ts'
import { isSettled, type PartitionState, type Topology } from './topology.ts'
import { finish } from './transitions.ts'

export type MoveDriverOptions = {
  readonly nodeId: string
  readonly topology: () => Topology | undefined
  /** How far this node is. */
  readonly progress: () => MoveProgress
  readonly isAlive: (nodeId: string) => boolean
  /** Brings a change into the chain. */
  readonly change: (apply: TopologyChange, done: ChangeDone) => void
  readonly send: (nodeId: string, bytes: Uint8Array) => void
  readonly parameters?: Partial<MoveParameters>
}

export type MoveParameters = {
  /** How often nodes are asked how far they are. */
  readonly askIntervalMs: number
  /** A move to a node that has not answered for so long is taken back. */
  readonly abortAfterMs: number
}

export const moveDefaults: MoveParameters = { askIntervalMs: 200, abortAfterMs: 60_000 }

/** Exchanges with so many of these nodes. */
export type MoveWork = { readonly others: readonly string[]; readonly needed: number }

/** What the present stage asks of one of a partition's replicas beside the barrier; undefined: nothing. */
export function workOf(partition: PartitionState, nodeId: string): MoveWork | undefined {
  const { stage, old, new: added } = partition
  if (stage === 'streaming' && mustCatchUp(partition, nodeId)) {
    const own = old.includes(nodeId) ? 1 : 0
    return { others: old.filter((other) => other !== nodeId), needed: majorityOf(old) - own }
  }
  if (stage === 'cleanUp' && old.includes(nodeId) && !added.includes(nodeId))
    return { others: added, needed: majorityOf(added) }
  return undefined
}

/** Whether a node may lack what a quorum of the old replicas has taken, before reads go to the new ones. */
function mustCatchUp({ old, new: added }: PartitionState, nodeId: string): boolean {
  // A list that gets shorter has smaller quorums: those who stay may have missed what a quorum of the longer one took.
  return added.includes(nodeId) && (!old.includes(nodeId) || added.length < old.length)
}

/** How many of a list's nodes leave too few others for a quorum of it. */
export function majorityOf(list: readonly string[]): number {
  return Math.floor(list.length / 2) + 1
}

export class MoveDriver {
  readonly #options: MoveDriverOptions
  readonly #parameters: MoveParameters
  readonly #told = new Map<string, MoveProgress>()
  #nextAskMs = 0
  #isChanging = false
  /** Since when some node that a move goes to has not answered. */
  #silentSinceMs: number | undefined

  constructor(options: MoveDriverOptions) {
    this.#options = options
    this.#parameters = { ...moveDefaults, ...options.parameters }
  }

  /** A message of another node about moves. */
  receive(from: string, bytes: Uint8Array): void {
    const message = decodeMoveMessage(bytes)
    if (message === undefined) return
    if (message.type === 'tell') this.#told.set(from, message.progress)
    else this.#options.send(from, encodeMoveMessage({ type: 'tell', progress: this.#options.progress() }))
  }

  /** Every 20 to 100 ms. */
  tick(nowMs: number): void {
    if (nowMs < this.#nextAskMs) return
    this.#nextAskMs = nowMs + this.#parameters.askIntervalMs
    const { nodeId, isAlive } = this.#options
    const topology = this.#options.topology()
    if (topology === undefined || topology.voters.find((voter) => voter === nodeId || isAlive(voter)) !== nodeId) {
      this.#told.clear()
      return
    }
    const moving = topology.partitions.filter((partition) => !isSettled(partition) || partition.stage !== 'stable')
    if (moving.length === 0) return this.#finish(topology)
    const members = new Set(topology.members.map((member) => member.nodeId))
    for (const known of this.#told.keys()) if (!members.has(known)) this.#told.delete(known)
    this.#told.set(nodeId, this.#options.progress())
    for (const member of members) {
      if (member !== nodeId && isAlive(member))
        this.#options.send(member, encodeMoveMessage({ type: 'ask', epoch: topology.epoch }))
    }
    this.#drive(topology, moving, nowMs)
  }

  #drive(topology: Topology, moving: readonly PartitionState[], nowMs: number): void {
    const from = stageOfMoves(topology)
    const { batch } = topology
    // Of those that are planned to move only some do just now.
    const concerned = batch === 0 ? moving : moving.filter(({ stage }) => stage !== 'stable')
    if (batch === 0) {
      // It would wait for a node that does not answer, and be taken back.
      if (concerned.some((partition) => this.#isBlocked(partition))) return
      if (concerned.every((partition) => this.#isPassed(topology, partition))) this.#change((each) => beginMoves(each))
      return
    }
    const isOpen = from === 'writeBothReadOld' || from === 'streaming'
    if (isOpen && concerned.some((partition) => this.#isBlocked(partition))) {
      this.#silentSinceMs ??= nowMs
      if (nowMs - this.#silentSinceMs >= this.#parameters.abortAfterMs) this.#change((each) => abortMoves(each, batch))
      return
    }
    this.#silentSinceMs = undefined
    if (!concerned.every((partition) => this.#isPassed(topology, partition) && this.#isDone(topology, partition)))
      return
    this.#change((each) => advanceMoves(each, { batch, from }))
  }

  /** Members that join are members, those that leave are gone, once nothing moves for them. */
  #finish(topology: Topology): void {
    if (topology.members.some(({ state }) => state !== 'normal')) this.#change(finish)
  }

  #answers(nodeId: string): boolean {
    return nodeId === this.#options.nodeId || this.#options.isAlive(nodeId)
  }

  /** Whether a node that would have to catch up does not answer. */
  #isBlocked(partition: PartitionState): boolean {
    return partition.new.some((nodeId) => mustCatchUp(partition, nodeId) && !this.#answers(nodeId))
  }

  #goesBy(nodeId: string, epoch: number): boolean {
    return (this.#told.get(nodeId)?.epoch ?? 0) >= epoch
  }

  /** Whether nobody can work under a stage before the present one. */
  #isPassed({ buckets }: Topology, partition: PartitionState): boolean {
    const { since } = partition
    for (const nodeId of [...partition.old, ...partition.new]) {
      if (this.#answers(nodeId) && !this.#goesBy(nodeId, since)) return false
    }
    return buckets.every(({ n }) =>
      [...ackGroups(partition, n), partition.old.slice(0, n), partition.new.slice(0, n)].every(
        (group) => group.filter((nodeId) => this.#goesBy(nodeId, since)).length >= majorityOf(group),
      ),
    )
  }

  /** Whether what the present stage asks of the partition's nodes is done. */
  #isDone(topology: Topology, partition: PartitionState): boolean {
    return [...partition.old, ...partition.new].every((nodeId) => {
      if (workOf(partition, nodeId) === undefined) return true
      const told = this.#told.get(nodeId)
      if (told !== undefined && told.epoch === topology.epoch && told.isDone) return true
      return partition.stage === 'cleanUp' && !this.#answers(nodeId)
    })
  }

  #change(apply: TopologyChange): void {
    if (this.#isChanging) return
    this.#isChanging = true
    this.#options.change(apply, () => {
      this.#isChanging = false
      // What was told belongs to the epoch before.
      this.#nextAskMs = 0
    })
  }
}
