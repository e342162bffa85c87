/** What a seed stands for in a sweep: how many nodes, which faults, which durability. Many seeds have some faults off (swarm testing). */
import { SeededRandom } from '../../../src/base/seeded-random.ts'
import { faultKinds, losingKinds, type RingSimOptions } from './ring-sim.ts'

/** The run of a seed, drawn from the seed itself: 3 to 7 nodes, and about two thirds of all faults. */
export function profileOf(seed: string, operations: number): RingSimOptions {
  const random = new SeededRandom(`profile ${seed}`)
  const nodes = random.between(3, 7)
  const isLosing = random.chance(1, 4)
  const durability = isLosing || random.chance(1, 4) ? 'os' : 'sync'
  const faults = faultKinds.filter((kind) => {
    // Below `sync` a power cut takes what was acknowledged: it strikes one node alone then, as `lostWrites`.
    if (durability === 'os' && (kind === 'power' || kind === 'diskError')) return false
    return random.chance(2, 3)
  })
  return {
    seed,
    nodes,
    operations,
    faults: isLosing ? [...faults, ...losingKinds] : faults,
    durability,
    sloppy: random.chance(1, 4),
    hasTables: random.chance(1, 3),
  }
}
