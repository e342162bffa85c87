import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { DiskSpace } from '../../src/storage/disk-space.ts'

const reserve = 100

test('DiskSpace: with room enough the reserve is taken, and growth is taken meanwhile', () => {
  const space = new DiskSpace(reserve, 0, false)
  assert.equal(space.look(1000, 0), 'take')
  assert.deepEqual([space.isFull, space.holdsReserve], [false, false])
  space.took()
  assert.equal(space.look(900, 500), undefined)
  assert.deepEqual([space.isFull, space.holdsReserve], [false, true])
})

test('DiskSpace: growth is refused below the low water, before anything fails, and taken again only above the high water', () => {
  const space = new DiskSpace(reserve, 0, true)
  const states = [100, 99, 100, 149, 150, 100, 99].map((free, index) => {
    assert.equal(space.look(free, index * 500), undefined, 'The reserve stays: nothing has failed')
    return space.isFull
  })
  assert.deepEqual(states, [false, true, true, true, false, false, true])
})

test('DiskSpace: the slack of a large disk comes on top of the reserve', () => {
  const space = new DiskSpace(reserve, 300, true)
  const states = [400, 399, 599, 600].map((free, index) => {
    space.look(free, index)
    return space.isFull
  })
  assert.deepEqual(states, [false, true, true, false])
})

test('DiskSpace: what met DISK_FULL gets the reserve, and growth waits until it is back and there is room beside it', () => {
  const space = new DiskSpace(reserve, 0, true)
  space.look(500, 0)
  space.met(10)
  assert.equal(space.isFull, true)
  assert.equal(space.look(20, 10), 'give up')
  space.gaveUp()
  assert.equal(space.look(120, 2_000), undefined)
  assert.equal(space.look(249, 2_500), undefined, 'Room for the reserve alone is not enough')
  assert.equal(space.look(250, 3_000), 'take')
  assert.equal(space.isFull, true)
  space.took()
  assert.equal(space.look(150, 3_500), undefined)
  assert.deepEqual([space.isFull, space.holdsReserve], [false, true])
})

test('DiskSpace: a disk that says it has room, and refuses all the same, is tried again less and less often', () => {
  const space = new DiskSpace(reserve, 0, true)
  const waits: number[] = []
  let nowMs = 0
  for (let round = 0; round < 8; round++) {
    space.met(nowMs)
    const fullSinceMs = nowMs
    while (space.isFull) {
      const action = space.look(1e9, nowMs)
      if (action === 'give up') space.gaveUp()
      if (action === 'take') space.took()
      nowMs += 500
    }
    waits.push(nowMs - fullSinceMs)
  }
  assert.ok(waits[0]! <= 2_500, `The first time growth is back soon: ${waits}`)
  assert.ok(waits.at(-1)! >= 30_000 && waits.at(-1)! <= 32_000, String(waits))
  // After a calm time it is as if for the first time.
  nowMs += 60_000
  space.met(nowMs)
  assert.equal(space.look(1e9, nowMs), 'give up')
  space.gaveUp()
  assert.equal(space.look(1e9, nowMs + 1_000), 'take')
})

test('DiskSpace: a reserve that found no room after all keeps growth refused', () => {
  const space = new DiskSpace(reserve, 0, false)
  assert.equal(space.look(1000, 0), 'take')
  space.tookNot(0)
  assert.equal(space.isFull, true)
  assert.equal(space.look(1000, 1_999), undefined)
  assert.equal(space.look(1000, 2_000), 'take')
})

test('DiskSpace: where no reserve can be had, free bytes alone decide', () => {
  const space = new DiskSpace(reserve, 0, false)
  space.goWithout()
  assert.deepEqual(
    [100, 99, 149, 150].map((free, index) => [space.look(free, index), space.isFull]),
    [
      [undefined, false],
      [undefined, true],
      [undefined, true],
      [undefined, false],
    ],
  )
})

test('DiskSpace: whatever happens, growth is refused while little is free, and comes back once much stays free', () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('look' as const), free: fc.integer({ min: 0, max: 600 }) }),
    fc.record({ kind: fc.constant('met' as const), free: fc.constant(0) }),
    fc.record({ kind: fc.constant('fails' as const), free: fc.integer({ min: 0, max: 600 }) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.boolean(), (steps, holds) => {
      const space = new DiskSpace(reserve, 0, holds)
      let nowMs = 0
      const look = (free: number, fails: boolean): void => {
        const action = space.look(free, nowMs)
        if (free < reserve) assert.equal(space.isFull, true)
        if (action === 'take') {
          assert.ok(free >= 2.5 * reserve && !space.holdsReserve)
          if (fails) space.tookNot(nowMs)
          else space.took()
        }
        if (action === 'give up') {
          assert.ok(space.isFull && space.holdsReserve)
          space.gaveUp()
        }
      }
      for (const { kind, free } of steps) {
        nowMs += 500
        if (kind === 'met') space.met(nowMs)
        else look(free, kind === 'fails')
        if (kind === 'met') assert.equal(space.isFull, true)
      }
      for (let looks = 0; looks < 70; looks++) {
        nowMs += 500
        look(1000, false)
      }
      assert.deepEqual([space.isFull, space.holdsReserve], [false, true])
    }),
    { verbose: true },
  )
})
