import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import {
  counterOf,
  covers,
  descends,
  emptyVersionSet,
  joinVectors,
  sync,
  syncWithClock,
  update,
  type Vector,
  type Version,
  type VersionSet,
} from '../../src/versions/version-set.ts'
import {
  CausalHistories,
  type Components,
  collectingKinds,
  form,
  type Operation,
  plainKinds,
  productComponents,
  type ViolationKind,
  violationOf,
} from './causal-histories.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

function arbitraryOperations(kinds: readonly Operation[0][]): fc.Arbitrary<Operation[]> {
  const operation = fc.tuple(fc.constantFrom(...kinds), fc.nat(3), fc.nat(11), fc.nat(2))
  return fc.array(operation, { minLength: 20, maxLength: 100, size: 'max' })
}

const runs = Math.ceil(900 * scale)

function testHistories(context: TestContext, kinds: readonly Operation[0][], hasClocks: boolean): void {
  let commands = 0
  let collected = 0
  fc.assert(
    fc.property(arbitraryOperations(kinds), (operations) => {
      const histories = new CausalHistories(productComponents, hasClocks)
      for (const operation of operations) histories.run(operation)
      collected += histories.collectedCount
      histories.settle()
      commands += operations.length
    }),
    { numRuns: runs },
  )
  context.diagnostic(`${commands} commands, ${collected} keys collected`)
  assert.ok(commands >= runs * 40, 'runs are long enough to mean something')
  if (hasClocks) assert.ok(collected >= runs, 'deleted keys are forgotten while writes go on')
}

test('Causal histories: version sets show exactly the maximal writes seen, and converge', (context) => {
  testHistories(context, plainKinds, false)
})

test('Causal histories: under partition clocks deleted keys are forgotten, and no late copy revives them', (context) => {
  testHistories(context, collectingKinds, true)
})

// Deliberate bugs. A checker that catches none of them proves nothing.

function vectorPlus(vector: Vector, version: Version): Vector {
  return joinVectors(vector, [version])
}

const byDot = (a: Version, b: Version): number => a.actor - b.actor || a.counter - b.counter
const sameDot = (a: Version) => (b: Version) => byDot(a, b) === 0

/** `sync` with its rule for a version that only one side holds replaced. */
function syncBy(keep: (version: Version, other: VersionSet) => boolean): typeof sync {
  return (a, b) => ({
    versions: [
      ...a.versions.filter((version) => b.versions.some(sameDot(version)) || keep(version, b)),
      ...b.versions.filter((version) => !a.versions.some(sameDot(version)) && keep(version, a)),
    ].sort(byDot),
    vector: joinVectors(a.vector, b.vector),
  })
}

type Bug = {
  readonly name: string
  readonly change: Partial<Components>
  readonly hasClocks?: boolean
  /** How it must show in at least one run. */
  readonly shows: readonly ViolationKind[]
}

const bugs: readonly Bug[] = [
  {
    name: 'update() replaces siblings that the context does not cover',
    change: { update: (set, context, version) => update(set, joinVectors(context ?? [], set.vector), version) },
    shows: ['lost write'],
  },
  {
    name: 'update() keeps what the context covers',
    change: {
      update: (set, context, version) => ({
        ...update(set, context, version),
        versions: [...set.versions, version].sort(byDot),
      }),
    },
    shows: ['false sibling', 'resurrection'],
  },
  {
    name: 'update() forgets the context once it has been applied',
    change: {
      update: (set, context, version) => ({
        ...update(set, context, version),
        vector: vectorPlus(set.vector, version),
      }),
    },
    shows: ['false sibling', 'resurrection'],
  },
  {
    name: 'update() leaves the new dot out of the vector',
    change: {
      update: (set, context, version) => ({
        ...update(set, context, version),
        vector: joinVectors(set.vector, context ?? []),
      }),
    },
    shows: ['false sibling', 'resurrection'],
  },
  {
    name: 'update() takes a context to cover one counter less than it says',
    change: {
      update: (set, context, version) => {
        const shorter = (context ?? set.vector).map(({ actor, counter }) => ({ actor, counter: counter - 1 }))
        return { ...update(set, shorter, version), vector: vectorPlus(joinVectors(set.vector, context ?? []), version) }
      },
    },
    shows: ['false sibling', 'resurrection'],
  },
  {
    name: 'sync() keeps all versions of both sides',
    change: { sync: syncBy(() => true) },
    shows: ['false sibling', 'resurrection'],
  },
  {
    name: 'sync() keeps only versions that both sides hold',
    change: { sync: syncBy(() => false) },
    shows: ['lost write'],
  },
  {
    name: 'sync() takes a version for seen where its actor is known at all',
    change: { sync: syncBy((version, other) => counterOf(other.vector, version.actor) === 0) },
    shows: ['lost write'],
  },
  {
    name: 'sync() drops what the other vector covers even if both hold it',
    change: {
      sync: (a, b) => {
        const merged = sync(a, b)
        return {
          ...merged,
          versions: merged.versions.filter((version) => a === b || !covers(b.vector, version.actor, version.counter)),
        }
      },
    },
    shows: ['lost write'],
  },
  {
    name: 'sync() does not join the vectors',
    change: { sync: (a, b) => ({ ...sync(a, b), vector: a.vector }) },
    shows: ['false sibling', 'resurrection'],
  },
  {
    name: 'sync() lets the side with the newer vector win',
    change: { sync: (a, b) => (descends(a.vector, b.vector) || a.vector.length > b.vector.length ? a : b) },
    shows: ['lost write'],
  },
  {
    name: 'syncWithClock() does not ask the clock',
    change: { syncWithClock: (local, incoming) => sync(local, incoming) },
    hasClocks: true,
    shows: ['resurrection'],
  },
  {
    name: 'syncWithClock() drops what the clock covers though it is held',
    change: {
      syncWithClock: (local, incoming, clock) => {
        const merged = syncWithClock(local, incoming, clock)
        return { ...merged, versions: merged.versions.filter(({ actor, counter }) => !clock.covers(actor, counter)) }
      },
    },
    hasClocks: true,
    shows: ['lost write'],
  },
  {
    name: 'tombstones are collected before every replica has them',
    change: { collectsEarly: true },
    hasClocks: true,
    shows: ['resurrection'],
  },
  {
    name: 'a clock is taken over without the data it covers',
    change: { clockOverData: true },
    hasClocks: true,
    shows: ['lost write'],
  },
  {
    name: 'a replica that lost its state uses its dots again',
    change: { reusesDots: true },
    shows: ['lost write', 'assertion'],
  },
]

for (const { name, change, hasClocks = false, shows } of bugs) {
  test(`Causal histories: the checker catches the bug that ${name}`, () => {
    const components = { ...productComponents, ...change }
    const kinds = hasClocks ? collectingKinds : plainKinds
    const seen = new Set<ViolationKind>()
    // One seed: whether a bug is caught must not depend on luck.
    for (const operations of fc.sample(arbitraryOperations(kinds), { seed: 1, numRuns: 150 })) {
      const violation = violationOf(operations, components, hasClocks)
      if (violation !== undefined) seen.add(violation.kind)
    }
    for (const kind of shows)
      assert.ok(seen.has(kind), `${kind} was not seen, but: ${[...seen].join(', ') || 'nothing'}`)
  })
}

test('riak kv679: a replica that forgets a key and reuses its dots loses an acknowledged write; a new actor does not', () => {
  // Two writes of replica 0 reach replica 1. Replica 0 loses its state, accepts a write, and the two meet again.
  const operations: Operation[] = [
    ['putBlind', 0, 0, 0],
    ['putBlind', 0, 0, 0],
    ['syncBoth', 0, 1, 0],
    ['forget', 0, 0, 0],
    ['putBlind', 0, 0, 0],
    ['syncBoth', 0, 1, 0],
  ]
  const lost = violationOf(operations, { ...productComponents, reusesDots: true }, false)
  assert.equal(lost?.kind, 'lost write')
  assert.match(lost.message, /write 2 is not in \{0\.2=1 \| 0:2\}/)
  assert.equal(violationOf(operations, productComponents, false), undefined)
})

function versionOf(actor: number, counter: number, write: number): Version {
  return {
    actor,
    counter,
    tombstone: false,
    expiresAtMs: 0,
    timestamp: write + 1,
    contentType: 'text/plain',
    value: new Uint8Array(0),
  }
}

test('Two clients that read, merge and write in turns, 1,000 times each, never leave more than two siblings', () => {
  let set = emptyVersionSet
  let siblingsMost = 0
  const contexts: [Vector, Vector] = [[], []]
  for (let write = 0; write < 2000; write++) {
    const client = write % 2
    // The other client reads just before this one writes on what it read itself before the other's last write.
    contexts[1 - client] = set.vector
    set = update(set, contexts[client], versionOf(0, write + 1, write))
    siblingsMost = Math.max(siblingsMost, set.versions.length)
  }
  assert.equal(siblingsMost, 2)
  assert.equal(set.vector.length, 1)
})

test('Two clients through two replicas that meet rarely never leave more siblings than there are clients', () => {
  const sets: [VersionSet, VersionSet] = [emptyVersionSet, emptyVersionSet]
  let siblingsMost = 0
  for (let write = 0; write < 2000; write++) {
    const replica = write % 2
    const context = sets[replica]!.vector
    sets[replica] = update(sets[replica]!, context, versionOf(replica, Math.floor(write / 2) + 1, write))
    if (write % 14 === 13) {
      sets[0] = sync(sets[0], sets[1])
      sets[1] = sync(sets[1], sets[0])
      assert.equal(form(sets[0]), form(sets[1]))
    }
    siblingsMost = Math.max(siblingsMost, sets[0].versions.length, sets[1].versions.length)
  }
  assert.equal(siblingsMost, 2)
})
