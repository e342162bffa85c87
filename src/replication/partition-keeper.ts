/**
 * What this node holds under the topology, and how far it is with it. With each epoch:
 *
 *   tracked     the partitions that it holds together with others have clocks in its shards, before it takes anything of them from others
 *   settled     what its shards were asked before has ended: from then on the node goes by the epoch, and says so
 *   compared    its partitions with the other replicas, those first that a move waits for. Who has nothing of one leaves that to those who have
 *   left over   what it has of partitions that it holds no more is handed over to those who do, whenever that was: a node that was away
 *               for all of a move, too
 *
 * An object without a thread: `adopt`, `tick`.
 */

import { type MoveWork, majorityOf, workOf } from '../cluster/topology/move-driver.ts'
import type { MoveProgress } from '../cluster/topology/move-messages.ts'
import { replicasOf } from '../cluster/topology/replica-sets.ts'
import type { Topology } from '../cluster/topology/topology.ts'
import { CompareVerb } from '../shard/command.ts'
import type { ComparedPartition, ComparedPartitions } from './exchanges.ts'
import type { LocalReplica } from './local-replica.ts'

export type PartitionKeeperOptions = {
  readonly self: string
  readonly replica: Pick<LocalReplica, 'track' | 'underWay' | 'compare' | 'isTouched' | 'touch'>
  /** Epoch in which the last exchange with a peer began that left nothing out; 0: none. */
  readonly exchangedIn: (partition: number, peer: string) => number
  /** A pair is to be compared first. */
  readonly mark: (partition: number, peer: string) => void
}

type Held = ComparedPartition & { readonly work: MoveWork | undefined }

const answerMs = 1000
/** Partitions that are looked at in one tick for what a life before has left there. */
const looksPerTick = 64
const nothing = new Uint8Array(0)
/** A clock without entries (versions/partition-clock.ts). */
const emptyClockBytes = 4

export class PartitionKeeper implements ComparedPartitions {
  readonly #options: PartitionKeeperOptions
  #topology: Topology | undefined
  #held: readonly Held[] = []
  #waitedFor: readonly Held[] = []
  /** Partitions that this node holds and no other does. */
  #alone: readonly number[] = []
  readonly #others = new Map<number, readonly string[]>()
  /** Partitions that had a clock with something in it when this run began. */
  readonly #remembered = new Set<number>()
  readonly #tracked = new Set<number>()
  #untracked: { readonly partition: number; readonly isEmpty: boolean }[] = []
  #isTracking = false
  #before: ReadonlySet<object> = new Set()
  /** Partitions that this node holds no more and has something of, by whom it is to be handed over to since when. */
  readonly #leftOver = new Map<number, number>()
  /** Where to go on looking, after a start, for what is here. */
  #nextLook = 0
  #looking = 0
  #epoch = 0

  constructor(options: PartitionKeeperOptions) {
    this.#options = options
  }

  /** Goes by another epoch from now on. What comes after this call is under it. */
  adopt(topology: Topology, before: Topology | undefined): void {
    const { self, replica } = this.#options
    this.#topology = topology
    this.#untracked = []
    const held: Held[] = []
    const alone: number[] = []
    for (const [partition, state] of topology.partitions.entries()) {
      const holders = replicasOf(state, 'stability')
      const isHolder = holders.includes(self)
      if (!isHolder) {
        const was = before?.partitions[partition]
        if (was !== undefined && replicasOf(was, 'stability').includes(self) && this.#tracked.has(partition)) {
          // It may have handed over already, in that stage.
          this.#leftOver.set(partition, was.stage === 'cleanUp' ? was.since : topology.epoch)
        }
        continue
      }
      this.#leftOver.delete(partition)
      const others = holders.filter((other) => other !== self)
      if (others.length === 0) {
        alone.push(partition)
        continue
      }
      if (!this.#tracked.has(partition)) {
        // Who was the only one has all that was ever written to it.
        const isEmpty = state.old.length > 1 || state.old[0] !== self
        this.#untracked.push({ partition, isEmpty })
        if (!isEmpty) replica.touch(partition)
      }
      const work = workOf(state, self)
      held.push({ partition, others, work, wantedSince: work === undefined ? undefined : state.since })
    }
    this.#held = held
    this.#alone = alone
    this.#waitedFor = held.filter(({ wantedSince }) => wantedSince !== undefined)
    this.#others.clear()
    for (const { partition, others } of held) this.#others.set(partition, others)
    this.#before = replica.underWay()
    this.#track()
  }

  /** Tells the shards anew what has replicas elsewhere: one of them has started again. */
  trackAnew(): void {
    const topology = this.#topology
    if (topology === undefined) return
    this.#tracked.clear()
    this.adopt(topology, topology)
  }

  get held(): readonly ComparedPartition[] {
    return this.#held
  }

  /** Some have no clock, since no other node ever had them: those do not answer, and what they forget hangs on nobody. */
  get alone(): readonly number[] {
    return this.#alone.filter((partition) => this.isTouched(partition))
  }

  isTouched(partition: number): boolean {
    return this.#options.replica.isTouched(partition)
  }

  othersOf(partition: number): readonly string[] {
    return this.#others.get(partition) ?? []
  }

  /**
   * Whether this node may have lost all that it had of a partition, or never had anything, and has not compared it since. Then it takes no
   * hints of it: a hint that was late for years may hold what was deleted and forgotten, and only a clock knows that. It is compared first now.
   */
  mayLackClock(partition: number): boolean {
    const { exchangedIn, mark, replica } = this.#options
    const others = this.othersOf(partition)
    if (others.length === 0 || this.#remembered.has(partition)) return false
    if (others.some((other) => exchangedIn(partition, other) > 0)) return false
    // It will be known soon.
    if (this.#nextLook <= partition || this.#looking > 0) return true
    replica.touch(partition)
    for (const other of others) mark(partition, other)
    return true
  }

  /** Partitions that moves wait for, and those that are to be handed over. */
  get wanted(): readonly ComparedPartition[] {
    if (this.#leftOver.size === 0) return this.#waitedFor
    const leftOver = [...this.#leftOver].map(([partition, wantedSince]) => {
      const others = replicasOf(this.#topology!.partitions[partition]!, 'write')
      return { partition, others, wantedSince }
    })
    return [...this.#waitedFor, ...leftOver]
  }

  /** Partitions with data that is not yet handed over. */
  get leftOver(): readonly number[] {
    return [...this.#leftOver.keys()]
  }

  get progress(): MoveProgress {
    return { epoch: this.#epoch, isDone: this.#epoch === this.#topology?.epoch && this.#isDone() }
  }

  /** Every 20 to 100 ms. */
  tick(): void {
    const topology = this.#topology
    if (topology === undefined) return
    this.#track()
    if (this.#before.size > 0) {
      const now = this.#options.replica.underWay()
      this.#before = new Set([...this.#before].filter((request) => now.has(request)))
    }
    if (this.#untracked.length === 0 && this.#before.size === 0) this.#epoch = topology.epoch
    this.#look(topology)
    this.#endHandingOver(topology)
  }

  #isDone(): boolean {
    return this.#held.every(
      ({ partition, work, wantedSince }) =>
        work === undefined || this.#exchanged(partition, work.others, wantedSince!) >= work.needed,
    )
  }

  /** With how many of these nodes an exchange was made that began in this epoch or later. */
  #exchanged(partition: number, others: readonly string[], since: number): number {
    return others.filter((other) => this.#options.exchangedIn(partition, other) >= since).length
  }

  /** Clocks of partitions that are new here; tried again where the log has no room yet. */
  #track(): void {
    if (this.#isTracking || this.#untracked.length === 0) return
    const { isEmpty } = this.#untracked[0]!
    const group = this.#untracked.filter((each) => each.isEmpty === isEmpty)
    this.#isTracking = true
    this.#options.replica.track(
      group.map(({ partition }) => partition),
      isEmpty,
      answerMs,
      (error) => {
        this.#isTracking = false
        if (error !== undefined) return
        for (const { partition } of group) this.#tracked.add(partition)
        this.#untracked = this.#untracked.filter(({ partition }) => !this.#tracked.has(partition))
      },
    )
  }

  /** After a start: which partitions this node has something of, those among them that it does not hold any more. */
  #look({ partitions, epoch }: Topology): void {
    const { replica, self } = this.#options
    // What has no clock yet would look as if nobody else had ever had it, and all of it would be compared for nothing.
    if (this.#untracked.length > 0) return
    for (let looks = 0; looks < looksPerTick && this.#nextLook < partitions.length; looks++) {
      if (this.#looking >= looksPerTick) return
      const partition = this.#nextLook++
      if (replica.isTouched(partition)) continue
      this.#looking++
      replica.compare(CompareVerb.clock, partition, nothing, answerMs, (_error, clock) => {
        this.#looking--
        const isHeld = replicasOf(this.#topology!.partitions[partition]!, 'stability').includes(self)
        if (clock === undefined) {
          this.#nextLook = Math.min(this.#nextLook, partition)
          return
        }
        // It has no clock: nobody else ever had it.
        if (clock.length === 0) return isHeld ? replica.touch(partition) : undefined
        if (clock.length <= emptyClockBytes) return
        if (!replica.isTouched(partition)) this.#remembered.add(partition)
        replica.touch(partition)
        this.#tracked.add(partition)
        if (!isHeld) this.#leftOver.set(partition, epoch)
      })
    }
  }

  #endHandingOver({ partitions }: Topology): void {
    for (const [partition, since] of this.#leftOver) {
      const others = replicasOf(partitions[partition]!, 'write')
      if (this.#exchanged(partition, others, since) >= majorityOf(others)) this.#leftOver.delete(partition)
    }
  }
}
