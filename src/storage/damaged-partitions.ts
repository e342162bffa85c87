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
 *   given up     what is damaged is passed over by reads, too, and by the merge that writes clean tables in the place of the damaged ones
 *   whole        the catalog has no damage of it any more
 *
 * Damage that comes later hides what the clock covers by then: it resets the clock anew before anything is compared. Until the merge is
 * through its damage is noted in the catalog: after a start all of this begins anew.
 *
 * Why what is damaged may be given up. A key whose newest record lay there was missing here, or showed something older, when all of the
 * partition was compared; nothing of it counted as known, so whatever any other replica had of it was brought, and what others had replaced
 * was replaced here, by a record in memory, which hides all tables. Where the exchange found both sides equal without the damaged block,
 * nothing of that block is wanted. Blocks that are known count as damaged even if they can be read again: what they have was compared by nobody.
 */
import { SunwiseError } from '../base/errors.ts'

type Damaged = { readonly blocks: Set<string>; isLearning: boolean; isResyncing: boolean; generation: number }

export type DamagedPartitionsOptions = {
  /** Forgets what the partition is known to have; false: it has no other replicas. */
  readonly reset: (partition: number) => boolean
  readonly setResyncing: (partition: number, isResyncing: boolean) => void
  /** Tells readers to leave what is damaged to the owner, who passes over it. */
  readonly setGivenUp: (partition: number, isGivenUp: boolean) => void
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
    const { reset, setResyncing, setGivenUp, nextGeneration } = this.#options
    if (!reset(partition)) return false
    const blocks = this.#damaged.get(partition)?.blocks ?? new Set()
    this.#damaged.set(partition, { blocks, isLearning: true, isResyncing: true, generation: nextGeneration() })
    setResyncing(partition, true)
    setGivenUp(partition, false)
    return true
  }

  /** Something damaged is passed over. @throws TABLE_CORRUPT where it may hide what the clock covers; the clock was reset then */
  readonly passOver = (partition: number, tableIdLow: number, block: number): void => {
    const damaged = this.#damaged.get(partition)
    const name = blockName(tableIdLow, block)
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

  /** What is damaged of a partition and is wanted no more; undefined: something may be. Blocks by table and number, as `blockName` has them. */
  givenUp(partition: number): ReadonlySet<string> | undefined {
    const damaged = this.#damaged.get(partition)
    return damaged === undefined || damaged.isResyncing || damaged.isLearning ? undefined : damaged.blocks
  }

  /** These alone are still known to have damaged tables: others are as if nothing had been, once they have what they lost. The ones that were dropped. */
  keepOnly(partitions: ReadonlySet<number>): number[] {
    const whole = [...this.#damaged.keys()].filter(
      (partition) => !partitions.has(partition) && this.givenUp(partition) !== undefined,
    )
    for (const partition of whole) {
      this.#damaged.delete(partition)
      this.#options.setGivenUp(partition, false)
    }
    return whole
  }

  /** Everything that others have was brought here since the reset of this generation. */
  resynced(partition: number, generation: number): void {
    const damaged = this.#damaged.get(partition)
    if (damaged === undefined || damaged.generation !== generation) return
    damaged.isResyncing = false
    this.#options.setGivenUp(partition, true)
    this.#options.setResyncing(partition, false)
  }
}

/** What a block of a table is called; -1: all of it. */
export function blockName(tableIdLow: number, block: number): string {
  return `${tableIdLow | 0} ${block}`
}
