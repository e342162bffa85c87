import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../../src/base/seeded-random.ts'
import { EventQueue } from './event-queue.ts'
import { cutsOf, partitionShapes } from './partition-shapes.ts'
import { SimNetwork } from './sim-network.ts'

type Arrival = { readonly atMs: number; readonly text: string }

function sendAll(network: SimNetwork, events: EventQueue, count: number): Arrival[] {
  const arrived: Arrival[] = []
  network.deliver = (_from, _to, bytes) =>
    arrived.push({ atMs: events.nowMs, text: Buffer.from(bytes).toString('latin1') })
  for (let index = 0; index < count; index++) network.send('a', 'b', Buffer.from(`message ${index}`))
  while (events.step(Number.POSITIVE_INFINITY));
  return arrived
}

function rig(): { readonly network: SimNetwork; readonly events: EventQueue } {
  const events = new EventQueue()
  return { events, network: new SimNetwork(events, new SeededRandom('network')) }
}

test('SimNetwork: what has flipped bits is refused by its checksum and counted, and the rest arrives as it was sent', () => {
  const { network, events } = rig()
  network.faults.flipOneIn = 3
  const arrived = sendAll(network, events, 3000)
  assert.ok(network.flipped > 800 && network.flipped < 1200, `${network.flipped} were flipped`)
  assert.equal(network.refused, network.flipped)
  assert.equal(arrived.length, 3000 - network.refused)
  for (const { text } of arrived) assert.match(text, /^message [0-9]+$/)
})

test('SimNetwork: messages are lost, come twice, and pass each other, each by its own draw', () => {
  const lossy = rig()
  lossy.network.faults.lossOneIn = 2
  const left = sendAll(lossy.network, lossy.events, 2000).length
  assert.equal(left, 2000 - lossy.network.lost)
  assert.ok(left > 850 && left < 1150, `${left} arrived`)

  const repeating = rig()
  repeating.network.faults.repeatOneIn = 2
  const all = sendAll(repeating.network, repeating.events, 2000)
  assert.equal(all.length, 2000 + repeating.network.repeated)
  assert.ok(repeating.network.repeated > 850)
  assert.equal(new Set(all.map(({ text }) => text)).size, 2000)

  const late = rig()
  late.network.faults.delayMsMax = 50
  const order = sendAll(late.network, late.events, 100).map(({ text }) => Number(text.split(' ')[1]))
  assert.equal(order.length, 100)
  assert.notDeepEqual(
    order,
    [...order].sort((a, b) => a - b),
  )
})

test('SimNetwork: nothing passes a link that is cut, one way alone, and what is clogged comes when its time is over', () => {
  const { network, events } = rig()
  network.cut('a', 'b')
  assert.deepEqual(sendAll(network, events, 10), [])
  assert.ok(!network.isCut('b', 'a'))
  network.mend()
  network.clog('a', 'b', 500)
  const arrived = sendAll(network, events, 10)
  assert.equal(arrived.length, 10)
  for (const { atMs } of arrived) assert.ok(atMs >= 500)
})

test('Shapes of partitions: each cuts something of five nodes, and leaves what its name says', () => {
  const names = ['a', 'b', 'c', 'd', 'e']
  for (const shape of partitionShapes) {
    if (shape === 'mend') continue
    const cuts = new Set(cutsOf(shape, names).map(([from, to]) => `${from}${to}`))
    const hears = (from: string, to: string): boolean => from !== to && !cuts.has(`${from}${to}`)
    const reached = (from: string): string[] => names.filter((to) => hears(from, to) && hears(to, from))
    assert.ok(cuts.size > 0 && cuts.size < 20, shape)
    for (const cut of cuts) assert.notEqual(cut[0], cut[1], shape)
    if (shape === 'halves') assert.deepEqual([reached('a'), reached('c')], [['b'], ['d', 'e']])
    if (shape === 'one') assert.deepEqual([reached('a'), reached('b')], [[], ['c', 'd', 'e']])
    if (shape === 'bridge') assert.deepEqual([reached('e').length, reached('a')], [4, ['b', 'e']])
    if (shape === 'majorities') {
      const majorities = names.map((name) => [name, ...reached(name)].sort().join(''))
      assert.ok(majorities.every((majority) => majority.length === 3))
      assert.equal(new Set(majorities).size, 5)
    }
    if (shape === 'deaf') assert.ok(names.slice(1).every((name) => hears('a', name) && !hears(name, 'a')))
    if (shape === 'mute') assert.ok(names.slice(1).every((name) => hears(name, 'a') && !hears('a', name)))
    if (shape === 'oneWay') assert.ok(hears('c', 'a') && !hears('a', 'c'))
  }
})
