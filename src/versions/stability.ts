/**
 * Causal stability: which writes of a partition have reached every replica of it. A tombstone that all have, with all that it replaced, has done
 * its work: a copy of what it deleted can come only late, and every clock knows it. Never by age: a replica that is away holds it back.
 */
import type { PartitionClock } from './partition-clock.ts'
import { counterOf, type Vector } from './version-set.ts'

/** Up to which counter of each actor every one of these clocks has all writes. */
export function stableOf(clocks: readonly PartitionClock[]): Vector {
  const [first, ...others] = clocks.map((clock) => clock.bases())
  if (first === undefined) return []
  return first
    .map(({ actor, counter }) => ({
      actor,
      counter: others.reduce((least, bases) => Math.min(least, counterOf(bases, actor)), counter),
    }))
    .filter(({ counter }) => counter > 0)
}
