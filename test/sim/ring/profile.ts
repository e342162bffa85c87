/** What a seed stands for in a sweep: how many nodes, which faults, which durability. Many seeds have some faults off (swarm testing). */
import { SeededRandom } from '../../../src/base/seeded-random.ts'
import { changeKinds, faultKinds, losingKinds, type RingSimOptions } from './ring-sim.ts'

/** Of so many seeds one has members that come and go: every partition moves then, which takes as long as ten other seeds. */
const changesOneIn = 24

/**
 * The run of a seed, drawn from the seed itself: 3 to 7 nodes, and about two thirds of all faults; in some members come and go, and no
 * disk is lost then: voters that lose theirs meanwhile are for test/cluster/topology/chain.test.ts.
 */
export function profileOf(seed: string, operations: number): RingSimOptions {
  const random = new SeededRandom(`profile ${seed}`)
  const nodes = random.between(3, 7)
  const hasChanges = nodes > 3 && random.chance(1, changesOneIn)
  const isLosing = !hasChanges && random.chance(1, 4)
  const durability = isLosing || random.chance(1, 4) ? 'os' : 'sync'
  const faults = faultKinds.filter((kind) => {
    // Below `sync` a power cut takes what was acknowledged: it strikes one node alone then, as `lostWrites`.
    if (durability === 'os' && (kind === 'power' || kind === 'diskError')) return false
    return random.chance(2, 3)
  })
  const losing = losingKinds.filter(() => random.chance(2, 3))
  return {
    seed,
    nodes,
    operations,
    ...(hasChanges ? { members: random.between(3, nodes - 1), changesMax: 2 } : {}),
    faults: [...faults, ...(isLosing ? losing : []), ...(hasChanges ? changeKinds : [])],
    durability,
    sloppy: random.chance(1, 4),
    hasTables: random.chance(1, 3),
    listers: random.chance(1, 4) ? 1 : 0,
  }
}
