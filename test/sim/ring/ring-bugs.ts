/** Bugs of replication made on purpose, in the form of ../deliberate-bugs.ts; the simulated ring must catch each. */
import type { DeliberateBug } from '../deliberate-bugs.ts'

const coordinator = 'src/replication/quorum-coordinator.ts'
const localReplica = 'src/replication/local-replica.ts'
const shard = 'src/shard/shard.ts'
const versionSet = 'src/versions/version-set.ts'

const ringTest = (name: string) => ({ file: 'test/sim/ring/ring-sim.test.ts', name: `RingSim: ${name}` })
const allFaults = ringTest(
  'under all faults nothing acknowledged is lost, nothing deleted comes back, no quorum read is stale',
)
const scenario = (file: string) => ({
  file: 'test/scenarios/scenarios.test.ts',
  name: `Scenario ${file}: goes as its transcript says`,
})

export const ringBugs: readonly DeliberateBug[] = [
  {
    what: 'answers a write when one replica has it',
    patches: [{ file: coordinator, from: 'return count >= acksNeeded(level, group.length)', to: 'return count >= 1' }],
    test: allFaults,
  },
  {
    what: 'answers a read whose replies differ without bringing those behind up to date',
    patches: [
      {
        file: coordinator,
        from: '    const stale = [...replies].filter(([, reply]) => !sameDigest(reply.digest, target)).map(([node]) => node)',
        to: '    const stale: string[] = []; void target',
      },
    ],
    test: allFaults,
  },
  {
    what: 'answers a read with one reply although they differ',
    patches: [
      {
        file: coordinator,
        from: 'if (whole !== undefined && [...replies.values()].every((reply) => sameDigest(reply.digest, whole.digest))) {',
        to: 'if (whole !== undefined) {',
      },
    ],
    test: allFaults,
  },
  {
    what: 'counts a failed answer of a replica as one that has the write',
    patches: [
      {
        file: coordinator,
        from: '    if (message.failure !== undefined) {\n      if (hintFor === undefined) this.#miss',
        to: '    if (message.failure !== undefined && message.requestId < 0) {\n      if (hintFor === undefined) this.#miss',
      },
    ],
    test: scenario('refused.txt'),
  },
  {
    what: 'says of a write that one replica has that it did nothing',
    patches: [
      {
        file: coordinator,
        from: "done?.(quorumNotMet(needed, acks.size, new Set(groups.flat()).size, 'partial'), undefined)",
        to: "done?.(quorumNotMet(needed, acks.size, new Set(groups.flat()).size, 'none'), undefined)",
      },
    ],
    test: allFaults,
  },
  {
    what: 'says of a write that it sent on and that was not answered that it did nothing',
    patches: [
      { file: coordinator, from: "operation.isWrite ? 'unknown' : 'none'", to: "operation.isWrite ? 'none' : 'none'" },
    ],
    test: allFaults,
  },
  {
    what: 'says of a local write that was not answered that it did nothing',
    patches: [{ file: localReplica, from: "return isRead(request) ? 'none' : 'unknown'", to: "return 'none'" }],
    test: allFaults,
  },
  {
    what: 'puts what another replica has in the place of what is there',
    patches: [
      {
        file: shard,
        from: '    let next = syncWithClock(local, incoming, clock)',
        to: '    let next = old === 0 ? syncWithClock(local, incoming, clock) : incoming',
      },
    ],
    test: allFaults,
  },
  {
    what: 'replaces with a context what the context does not cover',
    patches: [
      { file: versionSet, from: '  const replaced = context ?? set.vector', to: '  const replaced = set.vector' },
    ],
    test: allFaults,
  },
  {
    what: 'forgets the vector of the losing side of a merge',
    patches: [
      {
        file: versionSet,
        from: '  const vector = joinVectors(a.vector, b.vector)\n  return isUnchanged',
        to: '  const vector = a.vector.length > 0 ? joinVectors(a.vector, versions.map(({ actor, counter }) => ({ actor, counter })).filter((entry, index, all) => all[index + 1]?.actor !== entry.actor)) : b.vector\n  return isUnchanged',
      },
    ],
    test: allFaults,
  },
  {
    what: 'issues dots of the same actor again after a power cut took unsynced writes',
    patches: [
      {
        file: 'test/sim/ring/sim-node.ts',
        from: '    if (this.#mayMissWrites) {\n      this.#actor = this.#newActor()',
        to: '    if (this.#mayMissWrites) {',
      },
    ],
    test: ringTest('what one node loses, its disk or unsynced writes, is not lost'),
  },
  {
    what: 'drops hints of replicas that missed a write',
    patches: [
      {
        file: coordinator,
        from: 'if (!stoodIn.has(node)) this.#options.hints.missed',
        to: 'if (node === undefined) this.#options.hints.missed',
      },
    ],
    test: scenario('strict.txt'),
  },
  {
    what: 'forgets a hint when it is sent, not when it is taken',
    patches: [
      {
        file: 'src/replication/hint-store.ts',
        from: '    if (!isSent) this.#flights.delete(requestId)',
        to: '    this.#flights.delete(requestId)\n    const hint = this.#hints.get(target)?.get(nameOf(bucketId, key))\n    if (isSent && hint !== undefined) this.#remove(hint)',
      },
    ],
    test: ringTest('hints reach their targets although messages are lost'),
  },
]
