import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  type ActorTable,
  counterMax,
  counterOf,
  covers,
  descends,
  digest,
  digestOfDot,
  digestOfText,
  digestText,
  emptyVersionSet,
  expire,
  isLive,
  isSimple,
  joinVectors,
  liveVersions,
  resolveLastWriteWins,
  sync,
  syncWithClock,
  update,
  type Vector,
  type Version,
  type VersionSet,
  winnerFirst,
} from '../../src/versions/version-set.ts'

/** Actor indices 0 to 3 with ids whose order is not that of the indices. */
const actors: ActorTable = {
  highOf: (index) => [0x80000000, 1, 1, 0][index]!,
  lowOf: (index) => [5, 0xfffffff0, 7, 0xffffffff][index]!,
}

function versionOf(actor: number, counter: number, change: Partial<Version> = {}): Version {
  return {
    actor,
    counter,
    tombstone: false,
    expiresAtMs: 0,
    timestamp: 0,
    contentType: 'text/plain',
    value: Uint8Array.of(actor, counter & 0xff),
    ...change,
  }
}

const vectorOf = (...entries: [number, number][]): Vector => entries.map(([actor, counter]) => ({ actor, counter }))
const dots = (set: VersionSet): string[] => set.versions.map(({ actor, counter }) => `${actor}.${counter}`)

const arbitraryVector: fc.Arbitrary<Vector> = fc
  .uniqueArray(fc.record({ actor: fc.nat(5), counter: fc.integer({ min: 1, max: 4 }) }), {
    selector: (entry) => entry.actor,
    maxLength: 5,
  })
  .map((entries) => entries.sort((a, b) => a.actor - b.actor))

test('covers() and counterOf() look an actor up in a sorted vector', () => {
  const vector = vectorOf([1, 5], [4, counterMax])
  assert.equal(counterOf(vector, 0), 0)
  assert.equal(counterOf(vector, 1), 5)
  assert.equal(counterOf(vector, 2), 0)
  assert.equal(counterOf(vector, 9), 0)
  assert.equal(covers(vector, 1, 5), true)
  assert.equal(covers(vector, 1, 6), false)
  assert.equal(covers(vector, 2, 1), false)
  assert.equal(covers(vector, 4, counterMax), true)
  assert.equal(covers([], 0, 1), false)
})

test('joinVectors() is the least vector that descends both', () => {
  fc.assert(
    fc.property(arbitraryVector, arbitraryVector, (a, b) => {
      const joined = joinVectors(a, b)
      for (let actor = 0; actor <= 5; actor++) {
        assert.equal(counterOf(joined, actor), Math.max(counterOf(a, actor), counterOf(b, actor)))
      }
      for (let index = 1; index < joined.length; index++) assert.ok(joined[index - 1]!.actor < joined[index]!.actor)
      const descendsByDefinition = b.every((entry) => covers(a, entry.actor, entry.counter))
      assert.equal(descends(a, b), descendsByDefinition)
      assert.ok(descends(joined, a) && descends(joined, b))
      if (descendsByDefinition) assert.equal(joined, a, 'nothing is copied where nothing is new')
    }),
  )
})

test('update() with a context replaces what it covers and keeps the rest as siblings, sorted by dot', () => {
  let set = update(emptyVersionSet, undefined, versionOf(2, 1))
  set = update(set, [], versionOf(0, 1))
  set = update(set, [], versionOf(2, 2))
  assert.deepEqual(dots(set), ['0.1', '2.1', '2.2'])
  const next = update(set, vectorOf([2, 1], [3, 9]), versionOf(1, 4))
  assert.deepEqual(dots(next), ['0.1', '1.4', '2.2'])
  assert.deepEqual(next.vector, vectorOf([0, 1], [1, 4], [2, 2], [3, 9]))
  assert.deepEqual(dots(set), ['0.1', '2.1', '2.2'], 'the argument is not changed')
})

test('update() without a context replaces all that the coordinator sees', () => {
  let set = update(emptyVersionSet, [], versionOf(2, 1))
  set = update(set, [], versionOf(0, 1))
  set = update(set, undefined, versionOf(0, 5, { tombstone: true }))
  assert.deepEqual(dots(set), ['0.5'])
  assert.deepEqual(set.vector, vectorOf([0, 5], [2, 1]))
})

test('update() takes the last counter, and refuses as our own bug a dot that was seen or is out of range', () => {
  const set = update(emptyVersionSet, undefined, versionOf(1, 3))
  assert.deepEqual(dots(update(set, undefined, versionOf(1, counterMax))), [`1.${counterMax}`])
  assert.throws(() => update(set, undefined, versionOf(1, 3)), /nobody has seen/)
  assert.throws(() => update(set, vectorOf([1, 9]), versionOf(1, 9)), /nobody has seen/)
  for (const counter of [0, -1, 1.5, counterMax + 1]) {
    assert.throws(() => update(set, undefined, versionOf(1, counter)), /2\^48 - 1/)
  }
})

test('sync() keeps what both hold and what the other has not seen', () => {
  const a = { versions: [versionOf(0, 1), versionOf(1, 2)], vector: vectorOf([0, 1], [1, 2]) }
  const b = { versions: [versionOf(0, 1), versionOf(2, 8)], vector: vectorOf([0, 1], [1, 2], [2, 8]) }
  assert.deepEqual(sync(a, b), b)
  assert.deepEqual(sync(b, a), b)
  const c = { versions: [versionOf(3, 1)], vector: vectorOf([3, 1]) }
  assert.deepEqual(dots(sync(b, c)), ['0.1', '2.8', '3.1'])
})

test('sync() returns its first argument itself where the second adds nothing', () => {
  const old = update(emptyVersionSet, undefined, versionOf(0, 1))
  const now = update(old, undefined, versionOf(1, 1))
  const copy = { versions: [...now.versions], vector: [...now.vector] }
  assert.equal(sync(now, old), now)
  assert.equal(sync(now, copy), now)
  assert.equal(sync(now, now), now)
  assert.equal(sync(now, emptyVersionSet), now)
  assert.notEqual(sync(old, now), old)
  const wider = { versions: now.versions, vector: vectorOf([0, 1], [1, 1], [2, 1]) }
  assert.deepEqual(sync(now, wider).vector, wider.vector, 'a wider past alone is news')
})

test('sync() keeps the tombstone where one side has expired the same version', () => {
  const live = update(emptyVersionSet, undefined, versionOf(0, 1, { expiresAtMs: 100 }))
  const dead = expire(live, 100, 0)
  assert.equal(sync(live, dead).versions[0]!.tombstone, true)
  assert.equal(sync(dead, live), dead)
})

test('syncWithClock() drops an incoming version that the clock covers and the key no longer holds', () => {
  const clock = { covers: (actor: number, counter: number) => actor === 0 && counter <= 5 }
  const incoming = { versions: [versionOf(0, 5), versionOf(0, 6), versionOf(1, 1)], vector: vectorOf([0, 6], [1, 1]) }
  assert.deepEqual(dots(syncWithClock(emptyVersionSet, incoming, clock)), ['0.6', '1.1'])
  const holding = { versions: [versionOf(0, 5)], vector: vectorOf([0, 5]) }
  assert.deepEqual(dots(syncWithClock(holding, incoming, clock)), ['0.5', '0.6', '1.1'])
  const seen = { versions: [versionOf(2, 1)], vector: vectorOf([1, 1], [2, 1]) }
  assert.deepEqual(dots(syncWithClock(seen, incoming, clock)), ['0.6', '2.1'], 'the vector still counts')
  const deleted = { versions: [versionOf(0, 4)], vector: vectorOf([0, 4]) }
  assert.deepEqual(syncWithClock(emptyVersionSet, deleted, clock).versions, [])
})

test('liveVersions() leaves out tombstones and what has expired at this very millisecond', () => {
  const set = {
    versions: [versionOf(0, 1), versionOf(1, 1, { tombstone: true }), versionOf(2, 1, { expiresAtMs: 1000 })],
    vector: vectorOf([0, 1], [1, 1], [2, 1]),
  }
  assert.deepEqual(
    liveVersions(set, 999).map(({ actor }) => actor),
    [0, 2],
  )
  assert.deepEqual(
    liveVersions(set, 1000).map(({ actor }) => actor),
    [0],
  )
  assert.equal(isLive(set.versions[2]!, 999), true)
  assert.equal(isLive(set.versions[2]!, 1000), false)
  const simple = update(emptyVersionSet, undefined, versionOf(0, 1))
  assert.equal(liveVersions(simple, 1e15), simple.versions, 'nothing is copied where all are live')
})

test('expire() turns an expired version into an empty tombstone of the same dot once the grace is over', () => {
  const set = {
    versions: [versionOf(0, 1, { timestamp: 7, expiresAtMs: 1000 }), versionOf(1, 1)],
    vector: vectorOf([0, 1], [1, 1]),
  }
  assert.equal(expire(set, 1059, 60), set)
  const over = expire(set, 1060, 60)
  assert.deepEqual(over.versions[0], {
    actor: 0,
    counter: 1,
    tombstone: true,
    expiresAtMs: 0,
    timestamp: 7,
    contentType: 'application/octet-stream',
    value: new Uint8Array(0),
  })
  assert.equal(over.versions[1], set.versions[1])
  assert.equal(over.vector, set.vector)
  assert.equal(expire(over, 1e15, 60), over, 'a tombstone does not change again')
})

test('isSimple() holds for one version whose dot is all of its past', () => {
  const first = update(emptyVersionSet, undefined, versionOf(1, 4))
  assert.equal(isSimple(first), true)
  assert.equal(isSimple(update(first, undefined, versionOf(1, 5))), true)
  assert.equal(isSimple(update(first, undefined, versionOf(2, 1))), false)
  assert.equal(isSimple(update(first, [], versionOf(1, 5))), false)
  assert.equal(isSimple({ versions: [versionOf(1, 4)], vector: vectorOf([1, 5]) }), false)
  assert.equal(isSimple({ versions: [versionOf(1, 4)], vector: vectorOf([2, 4]) }), false)
  assert.equal(isSimple(emptyVersionSet), false)
})

test('winnerFirst() orders by timestamp, then counter, then unsigned 64-bit actor id, all descending', () => {
  const ordered = [
    versionOf(3, 1, { timestamp: 2 ** 50 }),
    versionOf(3, 9, { timestamp: 5 }),
    versionOf(0, 8, { timestamp: 5 }),
    versionOf(1, 8, { timestamp: 5 }),
    versionOf(2, 8, { timestamp: 5 }),
    versionOf(3, 8, { timestamp: 5 }),
    versionOf(0, 99),
  ]
  fc.assert(
    fc.property(fc.shuffledSubarray(ordered, { minLength: ordered.length }), (shuffled) => {
      const copy = [...shuffled]
      assert.deepEqual(winnerFirst(shuffled, actors), ordered)
      assert.deepEqual(shuffled, copy, 'the argument is not reordered')
    }),
  )
})

test('resolveLastWriteWins() keeps the winner alone, be it a tombstone, and the whole vector', () => {
  const set = {
    versions: [versionOf(0, 1, { timestamp: 9, tombstone: true }), versionOf(1, 7, { timestamp: 8 })],
    vector: vectorOf([0, 1], [1, 7]),
  }
  const resolved = resolveLastWriteWins(set, actors)
  assert.deepEqual(dots(resolved), ['0.1'])
  assert.equal(resolved.vector, set.vector)
  assert.equal(resolveLastWriteWins(resolved, actors), resolved)
  assert.equal(resolveLastWriteWins(emptyVersionSet, actors), emptyVersionSet)
})

test('digest() is equal on two nodes whose tables index the actors differently', () => {
  const other: ActorTable = { highOf: (index) => actors.highOf(3 - index), lowOf: (index) => actors.lowOf(3 - index) }
  const here = {
    versions: [versionOf(0, 1), versionOf(1, 2 ** 40), versionOf(3, 2, { tombstone: true })],
    vector: vectorOf([0, 1], [1, 2 ** 40], [3, 2]),
  }
  const there = {
    versions: [versionOf(0, 2, { tombstone: true }), versionOf(2, 2 ** 40), versionOf(3, 1)],
    vector: vectorOf([0, 2], [2, 2 ** 40], [3, 1]),
  }
  assert.deepEqual(digest(here, actors), digest(there, other))
  assert.notDeepEqual(digest(here, actors), digest(there, actors))
})

test('digest() differs wherever dots or tombstone flags differ', () => {
  const seen = new Set<string>()
  let sets = 0
  const add = (versions: Version[]): void => {
    sets++
    seen.add(digestText(digest({ versions, vector: [] }, actors)))
  }
  add([])
  const counters = [1, 2, 3, 255, 256, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 47, counterMax]
  const all = [0, 1, 2, 3].flatMap((actor) =>
    counters.flatMap((counter) => [versionOf(actor, counter), versionOf(actor, counter, { tombstone: true })]),
  )
  for (const [index, first] of all.entries()) {
    add([first])
    for (const second of all.slice(index + 1)) {
      if (first.actor !== second.actor || first.counter !== second.counter) add([first, second])
    }
  }
  assert.equal(seen.size, sets)
})

test('digest() of consecutive writes spreads over all 64 bits', () => {
  const ones = new Uint32Array(64)
  const samples = 20_000
  for (let counter = 1; counter <= samples; counter++) {
    const { low, high } = digestOfDot(17, 4, counter, false)
    for (let bit = 0; bit < 32; bit++) {
      ones[bit]! += (low >>> bit) & 1
      ones[32 + bit]! += (high >>> bit) & 1
    }
  }
  // Standard deviation 71; six of them away in one of 64 bits is no accident.
  for (const [bit, count] of ones.entries()) assert.ok(Math.abs(count - samples / 2) < 430, `bit ${bit}: ${count}`)
})

test('digest() is part of peer messages: its values never change', () => {
  const one = { versions: [versionOf(0, 1)], vector: vectorOf([0, 1]) }
  const two = { versions: [versionOf(1, 2 ** 33 + 5), versionOf(2, 9, { tombstone: true })], vector: [] }
  assert.deepEqual(digest(emptyVersionSet, actors), { low: 0, high: 0 })
  assert.equal(digestText(digest(one, actors)), 'f6397bd6d5ad4dfa')
  assert.equal(digestText(digest(two, actors)), '6e06dea6da9454dc')
})

test('digestOfDot() is the digest of the set with that version alone', () => {
  for (const tombstone of [false, true]) {
    const set = { versions: [versionOf(1, 2 ** 41 + 3, { tombstone })], vector: [] }
    // Halves may come from signed views.
    assert.deepEqual(digestOfDot(0xfffffff0 | 0, 1, 2 ** 41 + 3, tombstone), digest(set, actors))
  }
})

test('digestText() and digestOfText() are inverse, and nothing else is a digest', () => {
  assert.equal(digestText({ low: 1, high: 0xf }), '0000000f00000001')
  fc.assert(
    fc.property(fc.nat(0xffffffff), fc.nat(0xffffffff), (low, high) => {
      assert.deepEqual(digestOfText(digestText({ low, high })), { low, high })
    }),
  )
  const wrong = [
    '',
    '0',
    '000000010000000',
    '00000001000000011',
    '000000010000000G',
    '000000010000000A',
    '0x00000100000001',
  ]
  for (const text of [...wrong, '-000000100000001', '0000000100000001\n'])
    assert.equal(digestOfText(text), undefined, text)
})
