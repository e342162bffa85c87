import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ReadPace } from '../../src/storage/read-pace.ts'
import { SimClock } from '../sim/sim-clock.ts'

function read(pace: ReadPace, clock: SimClock, durationMs: number, bytes = 2048): void {
  const startMs = pace.begin()
  clock.advance(durationMs)
  pace.end(startMs, bytes)
}

test('ReadPace lets a thread wait while next to no read is slow', () => {
  const clock = new SimClock()
  const pace = new ReadPace(clock)
  for (let round = 0; round < 3000; round++) {
    assert.ok(pace.mayWait(), `read ${round}`)
    // Two of each 256: the 99th percentile is fast.
    read(pace, clock, round % 128 === 0 ? 5 : 0.002)
  }
})

test('ReadPace stops a thread from waiting at the third slow read, and lets it try again after a while', () => {
  const clock = new SimClock()
  const pace = new ReadPace(clock)
  for (let slow = 0; slow < 3; slow++) {
    assert.ok(pace.mayWait())
    read(pace, clock, 0.2)
  }
  assert.equal(pace.mayWait(), false)
  clock.advance(9)
  assert.equal(pace.mayWait(), false)
  clock.advance(2)
  assert.equal(pace.mayWait(), true)
  read(pace, clock, 0.2)
  assert.equal(pace.mayWait(), false, 'One more slow read ends the trial')
  clock.advance(11)
  for (let fast = 0; fast < 400; fast++) {
    assert.ok(pace.mayWait())
    read(pace, clock, 0.002)
  }
  read(pace, clock, 0.2)
  assert.ok(pace.mayWait(), 'After enough fast reads a single slow one is forgiven again')
})

test('ReadPace grants large blocks the time that copying them takes', () => {
  const clock = new SimClock()
  const pace = new ReadPace(clock)
  for (let large = 0; large < 10; large++) read(pace, clock, 0.5, 512 * 1024)
  assert.ok(pace.mayWait())
  for (let large = 0; large < 3; large++) read(pace, clock, 0.7, 512 * 1024)
  assert.equal(pace.mayWait(), false)
})

test('ReadPace does not take a read for a slow one that the device knows nothing of', () => {
  const clock = new SimClock()
  let deviceBytes = 4096
  const pace = new ReadPace(clock, () => deviceBytes)
  for (let slow = 0; slow < 100; slow++) {
    read(pace, clock, 3)
    assert.ok(pace.mayWait(), 'The thread had lost its processor')
  }
  for (let slow = 0; slow < 3; slow++) {
    deviceBytes += 4096
    assert.ok(pace.mayWait())
    read(pace, clock, 0.2)
  }
  assert.equal(pace.mayWait(), false)
})
