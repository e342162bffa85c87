/**
 * Partitions with replicas elsewhere that lost data here to damage of tables. What is damaged is passed over when such a partition is compared, and
 * only then: nothing of it has been known to be here since its clock was reset, so what does not show up is missing, and never counts as
 * deleted. To everybody else it stays TABLE_CORRUPT.
 *
 *   found        damage is known of a table, or what a look at all of the partition passed over was not passed over before
 *   reset        the clock is empty, another actor goes on; nothing is attested, no read is answered but to who repairs
 *   learning     until the first look at all of it has ended, whatever is damaged is taken note of
 *   resynced     an exchange with every other replica, begun since the reset, has left nothing out: reads are answered again
 *
 * Damage that comes later hides what the clock covers by then: it resets the clock anew before anything is compared. The table stays as it
 * is, and its damage is noted in the catalog: after a start all of this begins anew.
 */
import { SunwiseError } from '../base/errors.ts'

type Damaged = { readonly blocks: Set<string>; isLearning: boolean; isResyncing: boolean; generation: number }

export type DamagedPartitionsOptions = {
  /** Forgets what the partition is known to have; false: it has no other replicas. */
  readonly reset: (partition: number) => boolean
  readonly setResyncing: (partition: number, isResyncing: boolean) => void
  /** A number that was not given before, above 0. */
  readonly nextGeneration: () => number
}

export class DamagedPartitions {
  readonly #options: DamagedPartitionsOptions
  readonly #damaged = new Map<number, Damaged>()

  constructor(options: DamagedPartitionsOptions) {
    this.#options = options
  }

  has(partition: number): boolean {
    return this.#damaged.has(partition)
  }

  /** The generation of the reset from which a partition is being brought up; 0: none is. */
  generationOf(partition: number): number {
    const damaged = this.#damaged.get(partition)
    return damaged?.isResyncing === true ? damaged.generation : 0
  }

  /** Damage of a partition is known. True: its clock was reset. */
  found(partition: number): boolean {
    const { reset, setResyncing, nextGeneration } = this.#options
    if (!reset(partition)) return false
    const blocks = this.#damaged.get(partition)?.blocks ?? new Set()
    this.#damaged.set(partition, { blocks, isLearning: true, isResyncing: true, generation: nextGeneration() })
    setResyncing(partition, true)
    return true
  }

  /** Something damaged is passed over. @throws TABLE_CORRUPT where it may hide what the clock covers; the clock was reset then */
  readonly passOver = (partition: number, tableIdLow: number, block: number): void => {
    const damaged = this.#damaged.get(partition)
    const name = `${tableIdLow} ${block}`
    if (damaged?.blocks.has(name) === true) return
    if (damaged?.isLearning === true) {
      damaged.blocks.add(name)
      return
    }
    this.found(partition)
    const message = `Partition ${partition} has lost data to damage since it was last compared: what it has is compared anew`
    throw new SunwiseError('TABLE_CORRUPT', message)
  }

  /** All of a partition was looked at. */
  lookedAt(partition: number): void {
    const damaged = this.#damaged.get(partition)
    if (damaged !== undefined) damaged.isLearning = false
  }

  /** Everything that others have was brought here since the reset of this generation. */
  resynced(partition: number, generation: number): void {
    const damaged = this.#damaged.get(partition)
    if (damaged === undefined || damaged.generation !== generation) return
    damaged.isResyncing = false
    this.#options.setResyncing(partition, false)
  }
}
