import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as passMs } from 'node:timers/promises'
import { HostClock } from '../../src/host/clock.ts'
import { HostRandom } from '../../src/host/random.ts'
import { clockSuite } from '../conformance/clock-suite.ts'
import { randomSuite } from '../conformance/random-suite.ts'

clockSuite('HostClock', () => ({
  clock: new HostClock(),
  // The real clock moves by itself; this is the one wait in the suite.
  pass: async () => {
    await passMs(25)
  },
}))

randomSuite('HostRandom', () => new HostRandom())

test("HostClock: epochMs() is the system's time", () => {
  const before = Date.now()
  const now = new HostClock().epochMs()
  assert.ok(now >= before && now <= Date.now())
})
