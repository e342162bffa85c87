/** Membership in simulated clusters: who is down is found by all, who is not is left in peace, and nobody sends more in a larger cluster. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../../src/base/seeded-random.ts'
import { Membership, membershipDefaults } from '../../../src/cluster/membership/membership.ts'
import { decodeMessage, encodeMessage } from '../../../src/cluster/membership/messages.ts'
import { suspicionMs } from '../../../src/cluster/membership/suspicion.ts'
import { MembershipSim } from './membership-sim.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const seconds = 1000

/** A cluster in which all know all. */
function cluster(seed: string, count: number): MembershipSim {
  const sim = new MembershipSim(seed)
  sim.start(count)
  const tookMs = sim.runUntil(() => sim.hasConverged(), 120 * seconds)
  assert.ok(tookMs !== undefined, `${count} members find each other (seed ${seed})`)
  sim.run(2 * seconds)
  sim.observations.length = 0
  return sim
}

for (const count of [2, 3, 5, 30]) {
  test(`Membership: of ${count} members one crashes, and all see it down; it comes back, and all see it alive`, (t) => {
    for (let run = 0; run < Math.ceil(5 * scale); run++) {
      const seed = `crash ${count} ${run}`
      const sim = cluster(seed, count)
      const victim = sim.members[1 + sim.random.below(count - 1)]!
      sim.crash(victim)
      const tookMs = sim.runUntil(() => sim.allSee(victim.nodeId, ['dead']), 200 * seconds)
      assert.ok(tookMs !== undefined, `It is found (seed ${seed})`)
      for (const { nodeId, state } of sim.observations) {
        if (nodeId !== victim.nodeId) assert.equal(state, 'alive', `Nobody else is suspected (seed ${seed})`)
      }
      sim.restart(victim)
      assert.ok(sim.runUntil(() => sim.hasConverged(), 60 * seconds) !== undefined, `It is back (seed ${seed})`)
      if (run === 0) t.diagnostic(`down for all after ${tookMs} ms`)
    }
  })
}

test('Membership: who leaves is left at once, without a suspicion, and stays so', () => {
  const sim = cluster('leave', 12)
  const leaver = sim.members[5]!
  leaver.membership.leave()
  sim.run(1 * seconds)
  sim.crash(leaver)
  assert.ok(sim.runUntil(() => sim.allSee(leaver.nodeId, ['left']), 10 * seconds) !== undefined)
  sim.run(60 * seconds)
  assert.ok(sim.allSee(leaver.nodeId, ['left']))
  assert.ok(sim.observations.every(({ state }) => state === 'left'))
})

test('Membership: a member that stalls for 5 s again and again takes nobody for down, and is not taken for it for good', (t) => {
  const sim = cluster('stalls', 30)
  const slow = sim.members[7]!
  for (let round = 0; round < 20; round++) {
    slow.stalledUntilMs = sim.nowMs + 5 * seconds
    sim.run(10 * seconds)
  }
  const wronged = sim.observations.filter(({ nodeId, state }) => nodeId !== slow.nodeId && state === 'dead')
  assert.deepEqual(wronged, [], 'Nobody else is taken for dead')
  const own = sim.observations.filter(({ observer, state }) => observer === slow.nodeId && state === 'dead')
  assert.deepEqual(own, [], 'It convicts nobody itself')
  t.diagnostic(
    `suspected ${new Set(sim.observations.filter(({ state }) => state === 'suspect').map(({ atMs }) => Math.floor(atMs / 10_000))).size} times in 20 stalls`,
  )
  assert.ok(sim.runUntil(() => sim.hasConverged(), 60 * seconds) !== undefined)
})

test('Membership: with every tenth datagram lost, members are not taken for dead', (t) => {
  const sim = cluster('loss', 30)
  sim.lossOneIn = 10
  sim.run(300 * seconds)
  const dead = sim.observations.filter(({ state }) => state === 'dead')
  t.diagnostic(`${sim.observations.filter(({ state }) => state === 'suspect').length} suspicions heard in 300 s`)
  assert.deepEqual(dead, [])
})

test('Membership: both sides of a partition see the other down, and find together again', () => {
  const sim = cluster('partition', 10)
  const side = (address: string): boolean => Number(/\d+/.exec(address)![0]) < 4
  sim.reaches = (from, to) => side(from) === side(to)
  sim.run(60 * seconds)
  for (const observer of sim.members) {
    for (const member of sim.members) {
      const wanted = side(observer.address) === side(member.address) ? 'alive' : 'dead'
      assert.equal(observer.membership.member(member.nodeId)!.state, wanted)
    }
  }
  sim.reaches = () => true
  assert.ok(sim.runUntil(() => sim.hasConverged(), 120 * seconds) !== undefined)
})

test('Membership: a member that is cut off from one other only is not even suspected, since others ping it', () => {
  const sim = cluster('one way', 10)
  sim.reaches = (from, to) => !(from === sim.members[2]!.address && to === sim.members[3]!.address)
  sim.run(120 * seconds)
  assert.deepEqual(sim.observations, [])
})

test('Membership: a member that hears little takes the fault for its own, and accuses less', (t) => {
  const accusations = [membershipDefaults.awarenessMax, 1].map((awarenessMax) => {
    const sim = new MembershipSim('deaf', { awarenessMax })
    sim.start(30)
    assert.ok(sim.runUntil(() => sim.hasConverged(), 120 * seconds) !== undefined)
    const deaf = sim.members[4]!
    sim.reaches = (from, to) => (from !== deaf.address && to !== deaf.address) || sim.random.chance(1, 4)
    sim.observations.length = 0
    sim.run(300 * seconds)
    return sim.observations.filter(
      ({ observer, nodeId, state }) => observer === deaf.nodeId && nodeId !== deaf.nodeId && state === 'suspect',
    ).length
  })
  t.diagnostic(`${accusations[0]} suspicions with awareness, ${accusations[1]} without`)
  assert.ok(accusations[0]! * 2 < accusations[1]!, `${accusations}`)
})

test('Membership: who is suspected hears it with the next ping, however little room there is for news', () => {
  const sent: { to: string; bytes: Uint8Array }[] = []
  const [own, other] = ['00000000000000aa', '00000000000000bb']
  const membership = new Membership({
    nodeId: own,
    address: 'a:1',
    incarnation: 1,
    random: new SeededRandom('buddy'),
    nowMs: 0,
    send: (to, bytes) => sent.push({ to, bytes }),
  })
  const tell = (state: 'alive' | 'suspect', nowMs: number): void => {
    const update = { nodeId: other, state, incarnation: 5, from: '00000000000000cc', address: 'b:1' }
    membership.receive('c:1', encodeMessage({ type: 'gossip', sender: '00000000000000cc', updates: [update] }), nowMs)
  }
  tell('alive', 0)
  tell('suspect', 1)
  let pings = 0
  for (let nowMs = 50; nowMs < 7000; nowMs += 50) {
    membership.tick(nowMs)
    for (const { to, bytes } of sent.splice(0)) {
      const message = decodeMessage(bytes)!
      if (to !== 'b:1' || message.type !== 'ping') continue
      pings++
      assert.deepEqual(message.updates[0], {
        nodeId: other,
        state: 'suspect',
        incarnation: 5,
        from: own,
        address: 'b:1',
      })
    }
  }
  assert.ok(pings > 3)
})

test('Membership: bytes for each member and second do not grow with the cluster', (t) => {
  const rates = [10, 30, 100].map((count) => {
    const sim = cluster(`bytes ${count}`, count)
    sim.run(20 * seconds)
    for (const member of sim.members) member.bytesSent = 0
    sim.run(60 * seconds)
    return sim.members.reduce((sum, { bytesSent }) => sum + bytesSent, 0) / count / 60
  })
  t.diagnostic(rates.map((rate) => `${rate.toFixed(0)} B/s`).join(', '))
  for (const rate of rates) assert.ok(rate < 1.2 * rates[0]! && rate > 0.5 * rates[0]!, `${rates}`)
})

test('Membership: a tick that comes late tells of a pause, and convicts nobody', () => {
  const sim = cluster('pause', 3)
  const [first, second] = sim.members
  sim.crash(second!)
  sim.run(4 * seconds)
  assert.equal(first!.membership.member(second!.nodeId)!.state, 'suspect')
  first!.stalledUntilMs = sim.nowMs + 60 * seconds
  sim.members[2]!.stalledUntilMs = first!.stalledUntilMs
  sim.run(60.05 * seconds)
  assert.equal(first!.membership.member(second!.nodeId)!.state, 'suspect', 'The pause counts for nothing')
  sim.run(30 * seconds)
  assert.equal(first!.membership.member(second!.nodeId)!.state, 'dead')
})

test('Membership: a member whose stored incarnation was lost hears of it and goes above', () => {
  const sim = cluster('incarnation', 5)
  const member = sim.members[2]!
  sim.crash(member)
  assert.ok(sim.runUntil(() => sim.allSee(member.nodeId, ['dead']), 100 * seconds) !== undefined)
  member.incarnation = -1
  sim.restart(member)
  assert.ok(sim.runUntil(() => sim.hasConverged(), 60 * seconds) !== undefined)
  assert.ok(member.incarnation > 1)
})

test('suspicionMs() falls from its most to its least with confirmations; small clusters wait longer', () => {
  const options = {
    multiplier: membershipDefaults.suspicionMultiplier,
    maxMultiplier: membershipDefaults.suspicionMaxMultiplier,
    probeIntervalMs: 1000,
    smallClusterMs: 8000,
    leastMsMax: membershipDefaults.suspicionLeastMsMax,
  }
  assert.deepEqual(
    [0, 1, 2].map((count) => Math.round(suspicionMs(100, count, options))),
    [48_000, 22_763, 8000],
  )
  assert.equal(suspicionMs(3, 0, options), 8000)
  assert.equal(suspicionMs(4, 0, options), 24_000)
  // A thousand find a crash within 15 s, since what is confirmed does not wait longer than in a cluster of five hundred.
  assert.ok(suspicionMs(500, 2, options) < 11_000)
  assert.equal(suspicionMs(1000, 2, options), 11_000)
})
