import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type DotRange, dotsAheadMax, PartitionClock } from '../../src/versions/partition-clock.ts'
import { type ActorTable, counterMax } from '../../src/versions/version-set.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

/** Ids fall while indices rise, so that encoded order differs from the order in memory. */
const actors: ActorTable = { highOf: (index) => 0xa000_0000 - index, lowOf: (index) => index * 7 }
const indexOf = (_low: number, high: number): number => 0xa000_0000 - high

function clockOf(...dots: [actor: number, counter: number][]): PartitionClock {
  const clock = new PartitionClock()
  for (const [actor, counter] of dots) clock.add(actor, counter)
  return clock
}

function decoded(bytes: Uint8Array): PartitionClock {
  const clock = PartitionClock.decode(bytes, 0, bytes.length, indexOf)
  assert.ok(typeof clock !== 'string', `not a clock: ${String(clock)}`)
  return clock
}

/** The oracle: plain sets of dots. */
const dotsMost = 140
function assertHolds(clock: PartitionClock, held: ReadonlySet<number>, actor: number): void {
  let base = 0
  while (held.has(base + 1)) base++
  assert.equal(clock.base(actor), base)
  assert.equal(clock.top(actor), Math.max(0, ...held))
  for (let counter = 1; counter <= dotsMost + 40; counter++) {
    assert.equal(clock.covers(actor, counter), held.has(counter), `${actor}.${counter}`)
  }
}

const arbitraryDots = fc.array(fc.tuple(fc.nat(2), fc.integer({ min: 1, max: dotsMost })), { maxLength: 200 })
const heldBy = (dots: [number, number][], actor: number): Set<number> =>
  new Set(dots.filter((dot) => dot[0] === actor).map((dot) => dot[1]))

test('PartitionClock.add() in any order holds exactly those dots, and the base is the longest run from 1', () => {
  fc.assert(
    fc.property(arbitraryDots, (dots) => {
      const clock = clockOf(...dots)
      for (let actor = 0; actor <= 2; actor++) assertHolds(clock, heldBy(dots, actor), actor)
      assert.equal(clock.isEmpty, dots.length === 0)
      assert.deepEqual(
        clock.bases(),
        [0, 1, 2].flatMap((actor) => (clock.base(actor) > 0 ? [{ actor, counter: clock.base(actor) }] : [])),
      )
    }),
    { numRuns: 200 * scale },
  )
})

test('PartitionClock holds exactly its dots while the base moves far past the size of its bitmap', () => {
  const steps = fc.array(fc.tuple(fc.integer({ min: -4, max: 70 }), fc.nat(9)), { maxLength: 300, size: 'max' })
  fc.assert(
    fc.property(steps, (offsets) => {
      const clock = new PartitionClock()
      const held = new Set<number>()
      for (const [offset, kind] of offsets) {
        const counter = Math.max(1, clock.base(0) + offset)
        if (kind === 0) {
          clock.raiseBase(0, counter)
          for (let below = 1; below <= counter; below++) held.add(below)
        } else {
          const added = kind < 5 ? clock.base(0) + 1 : counter
          clock.add(0, added)
          held.add(added)
        }
        const base = clock.base(0)
        for (let near = Math.max(1, base - 5); near < base + 300; near++) {
          assert.equal(clock.covers(0, near), held.has(near), `${near} above base ${base}`)
        }
        assert.equal(clock.top(0), Math.max(...held))
      }
    }),
    { numRuns: 60 * scale },
  )
})

test('PartitionClock.raiseBase() adds all dots up to a counter and keeps those above', () => {
  fc.assert(
    fc.property(arbitraryDots, fc.integer({ min: 1, max: dotsMost }), (dots, counter) => {
      const clock = clockOf(...dots)
      clock.raiseBase(1, counter)
      const held = heldBy(dots, 1)
      for (let below = 1; below <= counter; below++) held.add(below)
      assertHolds(clock, held, 1)
      assertHolds(clock, heldBy(dots, 0), 0)
    }),
    { numRuns: 200 * scale },
  )
})

test('PartitionClock.join() is the union, and subtract() the difference, of two sets of dots', () => {
  fc.assert(
    fc.property(arbitraryDots, arbitraryDots, (ours, theirs) => {
      const a = clockOf(...ours)
      const b = clockOf(...theirs)
      const missing = a.subtract(b, 1000)
      const joined = clockOf(...ours)
      joined.join(b)
      for (let actor = 0; actor <= 2; actor++) {
        const inA = heldBy(ours, actor)
        const inB = heldBy(theirs, actor)
        const listed = new Set<number>()
        for (const range of missing.filter((range) => range.actor === actor)) {
          assert.ok(range.first <= range.last && !listed.has(range.first - 1), 'runs are as long as can be')
          for (let counter = range.first; counter <= range.last; counter++) listed.add(counter)
        }
        assert.deepEqual(listed, new Set([...inA].filter((counter) => !inB.has(counter)).sort((x, y) => x - y)))
        assertHolds(joined, inA.union(inB), actor)
        assertHolds(b, inB, actor)
      }
      const half = Math.floor(missing.length / 2)
      assert.deepEqual(a.subtract(b, half), missing.slice(0, half))
    }),
    { numRuns: 200 * scale },
  )
})

test('PartitionClock.subtract() names long gaps as single runs', () => {
  const a = new PartitionClock()
  a.raiseBase(3, 2 ** 40)
  a.add(3, 2 ** 40 + 2)
  const b = clockOf([3, 1], [3, 5])
  const expected: DotRange[] = [
    { actor: 3, first: 2, last: 4 },
    { actor: 3, first: 6, last: 2 ** 40 },
    { actor: 3, first: 2 ** 40 + 2, last: 2 ** 40 + 2 },
  ]
  assert.deepEqual(a.subtract(b, 10), expected)
  assert.deepEqual(a.subtract(b, 2), expected.slice(0, 2))
  assert.deepEqual(a.subtract(a, 10), [])
  assert.deepEqual(b.subtract(a, 10), [])
})

test('PartitionClock.add() refuses a dot too far above the base, and takes it once the base has come up', () => {
  const clock = new PartitionClock()
  assert.equal(clock.add(0, dotsAheadMax + 1), false)
  assert.equal(clock.covers(0, dotsAheadMax + 1), false)
  assert.equal(clock.isEmpty, true, 'a refused dot leaves nothing')
  assert.equal(clock.add(0, dotsAheadMax), true)
  assert.equal(clock.covers(0, dotsAheadMax), true)
  assert.equal(clock.add(0, 1), true)
  assert.equal(clock.add(0, dotsAheadMax + 1), true)
  assert.equal(clock.add(0, dotsAheadMax + 2), false)
  for (let counter = 2; counter < dotsAheadMax; counter++) clock.add(0, counter)
  assert.equal(clock.base(0), dotsAheadMax + 1)
})

test('PartitionClock holds counters up to 2^48 - 1, and refuses others as our own bug', () => {
  const clock = new PartitionClock()
  clock.raiseBase(1, counterMax - 3)
  clock.add(1, counterMax)
  clock.add(1, counterMax - 1)
  assert.equal(clock.base(1), counterMax - 3)
  assert.equal(clock.covers(1, counterMax - 2), false)
  const copy = decoded(clock.encode(actors))
  copy.add(1, counterMax - 2)
  assert.equal(copy.base(1), counterMax)
  for (const counter of [0, 0.5, counterMax + 1]) {
    assert.throws(() => clock.add(1, counter), /2\^48 - 1/)
    assert.throws(() => clock.raiseBase(1, counter), /2\^48 - 1/)
  }
  assert.throws(() => clock.add(0x1_0000, 1), /u16/)
})

test('PartitionClock.encode() has fixed bytes', () => {
  const clock = clockOf([0, 1], [0, 2], [0, 4], [0, 40], [2, 3])
  clock.raiseBase(1, 2 ** 33 + 1)
  const expected = [
    '01 00 0300',
    // actor 2: base 0, dot 3
    '0e000000 feffff9f 00000000 0000 0100 04000000',
    // actor 1: base 2^33 + 1
    '07000000 ffffff9f 01000000 0200 0000',
    // actor 0: base 2, dots 4 and 40 at bits 1 and 37
    '00000000 000000a0 02000000 0000 0200 02000000 20000000',
  ]
  assert.equal(clock.encode(actors).toHex(), expected.join('').replaceAll(' ', ''))
  assert.equal(new PartitionClock().encode(actors).toHex(), '01000000')
})

test('PartitionClock.decode() gives back what encode() wrote, and equal clocks have equal bytes', () => {
  fc.assert(
    fc.property(arbitraryDots, (dots) => {
      const clock = clockOf(...dots)
      const bytes = clock.encode(actors)
      const copy = decoded(bytes)
      for (let actor = 0; actor <= 2; actor++) assertHolds(copy, heldBy(dots, actor), actor)
      assert.deepEqual(clockOf(...dots.toReversed()).encode(actors), bytes)
      assert.deepEqual(copy.encode(actors), bytes)
    }),
    { numRuns: 200 * scale },
  )
})

test('PartitionClock.decode() reads the range it is given', () => {
  const bytes = clockOf([0, 1], [1, 3]).encode(actors)
  const padded = new Uint8Array(bytes.length + 9).fill(0xff)
  padded.set(bytes, 4)
  const clock = PartitionClock.decode(padded, 4, 4 + bytes.length, indexOf)
  assert.ok(typeof clock !== 'string')
  assert.deepEqual(clock.encode(actors), bytes)
})

const header = '01000100'
const actor0 = '00000000000000a0'
const actor1 = '07000000ffffff9f'
const base1 = '010000000000'

test('PartitionClock.decode() says why bytes are not a clock', () => {
  const faults: [string, string][] = [
    ['', 'length'],
    ['010000', 'length'],
    ['02000000', 'version'],
    ['00000000', 'version'],
    ['01010000', 'form'],
    ['0100000000', 'length'],
    [`${header}${actor0}${base1}0000ff`, 'length'],
    [`01000200${actor0}${base1}0000`, 'length'],
    [`${header}${actor0}${base1}0100`, 'length'],
    [`01000200${actor0}${base1}0000${actor0}${base1}0000`, 'order'],
    [`01000200${actor0}${base1}0000${actor1}${base1}0000`, 'order'],
    // No dots; a last word of 0; the dot above the base; a dot above 2^48 - 1; too many words.
    [`${header}${actor0}0000000000000000`, 'form'],
    [`${header}${actor0}${base1}010000000000`, 'form'],
    [`${header}${actor0}${base1}010001000000`, 'form'],
    [`${header}${actor0}feffffffffff010002000000`, 'form'],
    [`${header}${actor0}${base1}0108${'00000000'.repeat(2048)}01000000`, 'form'],
  ]
  for (const [hex, fault] of faults) {
    const bytes = Uint8Array.fromHex(hex)
    assert.equal(
      PartitionClock.decode(bytes, 0, bytes.length, () => assert.fail('an actor was noted')),
      fault,
      hex.slice(0, 80),
    )
  }
  const unknown = Uint8Array.fromHex(`${header}${actor0}${base1}0000`)
  assert.equal(
    PartitionClock.decode(unknown, 0, unknown.length, () => -1),
    'actor',
  )
  decoded(unknown)
  decoded(Uint8Array.fromHex(`${header}${actor0}fdffffffffff010002000000`))
  decoded(Uint8Array.fromHex(`${header}${actor0}${base1}0008${'00000000'.repeat(2047)}01000000`))
})

test('PartitionClock.decode() refuses every truncation, and never throws on damaged or random bytes', () => {
  const bytes = clockOf([0, 1], [0, 40], [1, 2], [2, 1], [2, 2]).encode(actors)
  for (let length = 0; length < bytes.length; length++) {
    assert.equal(PartitionClock.decode(bytes, 0, length, indexOf), 'length')
  }
  // Any index will do for a damaged id, as long as two ids never share one.
  const anyIndex = (): ((low: number, high: number) => number) => {
    let next = 0
    return () => next++
  }
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const damaged = bytes.slice()
    damaged[bit >>> 3]! ^= 1 << (bit & 7)
    const clock = PartitionClock.decode(damaged, 0, damaged.length, anyIndex())
    // There is no checksum here: a flip that leaves a clock leaves one in normal form.
    if (typeof clock !== 'string') for (const { counter } of clock.bases()) assert.ok(counter <= counterMax)
  }
  let clocks = 0
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), fc.nat(3), (random, count) => {
      random.set([1, 0, count, 0].slice(0, random.length))
      const clock = PartitionClock.decode(random, 0, random.length, anyIndex())
      if (typeof clock !== 'string') clocks++
    }),
    { numRuns: 2000 * scale },
  )
  assert.ok(clocks > 0, 'the fuzz reaches the end of the decoder')
})
