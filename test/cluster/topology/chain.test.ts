/** The chain of epochs under everything that a network, disks and crashes may do: one value for each epoch, and each change once. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../../src/base/seeded-random.ts'
import { Chain, forcedEpochStep } from '../../../src/cluster/topology/chain.ts'
import { encodeChainMessage } from '../../../src/cluster/topology/chain-messages.ts'
import { isAtRest } from '../../../src/cluster/topology/invariants.ts'
import { encodeTopology } from '../../../src/cluster/topology/topology-bytes.ts'
import { changeMembers, forceRemove, putBucket } from '../../../src/cluster/topology/transitions.ts'
import { Limits } from '../../../src/config.ts'
import { ChainSim, noFaults, type SimNode } from './chain-sim.ts'
import { addressOf, clusterId, clusterOf, drawnChange, idOf, joinOf, nextMove, stepped } from './topology-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const seconds = 1000

/** Drives what is planned from whichever node is up, until `isDone`, and asks again what is lost. */
function drive(sim: ChainSim, isDone: () => boolean, ask: (node: SimNode) => void, limitMs = 120 * seconds): boolean {
  const tookMs = sim.runUntil(() => {
    if (isDone()) return true
    const up = sim.nodes.filter(({ isUp, chain }) => isUp && chain.topology !== undefined && chain.changesPending === 0)
    if (up.length === 0) return false
    const node = sim.random.pick(up)
    const move = nextMove(node.chain.topology!)
    if (move !== undefined) sim.change(node, move)
    else ask(node)
    return false
  }, limitMs)
  return tookMs !== undefined
}

/** 1 -> 2 -> 3 -> 2 -> 1 members. */
function growAndShrink(sim: ChainSim): void {
  const [first, second, third] = [0, 1, 2].map(idOf) as [string, string, string]
  for (const [members, apply] of [
    [[first, second], joinOf(1)],
    [[first, second, third], joinOf(2)],
    [[second, third], { type: 'leave', nodeId: first }],
    [[third], { type: 'leave', nodeId: second }],
  ] as const) {
    const isThere = (): boolean => {
      const ids = sim.book.latest.members.map(({ nodeId }) => nodeId)
      return isAtRest(sim.book.latest) && ids.join() === members.join()
    }
    const ask = (node: SimNode): void => sim.change(node, (before) => changeMembers(before, [apply]))
    assert.ok(drive(sim, isThere, ask), `There are ${members.length} members at last`)
  }
  assert.ok(sim.runUntil(() => sim.isConverged, 30 * seconds) !== undefined, 'All have the end of the chain')
  sim.checkEnd()
}

test('Chain: 1, 2, 3, 2, 1 members, with a crash at every message and every save', (t) => {
  const whole = new ChainSim('grow')
  whole.start(3, 2)
  growAndShrink(whole)
  const steps = whole.happenings
  let crashes = 0
  for (let step = 0; step < steps; step++) {
    const sim = new ChainSim('grow')
    sim.start(3, 2)
    try {
      sim.beforeHappening = (node) => {
        if (sim.happenings !== step) return
        crashes++
        sim.crash(node)
        sim.restartLater(node, 300)
      }
      growAndShrink(sim)
    } catch (error) {
      throw new Error(`Crash at step ${step}: ${error instanceof Error ? error.message : error}`, { cause: error })
    }
  }
  t.diagnostic(`${whole.book.latest.epoch} epochs, ${crashes} crashes`)
  assert.ok(crashes > 100)
})

/** Faults and load for a while, then peace. */
function run(seed: string): { readonly epochs: number; readonly messages: number; readonly wiped: number } {
  const draw = new SeededRandom(seed)
  // Some give up before they hear what has become of their change.
  const sim = new ChainSim(seed, { changeTimeoutMs: draw.pick([300, 3000, 30_000]) })
  const { random } = sim
  if (draw.chance(1, 2)) sim.start(random.between(1, 7))
  else sim.startAtRest(random.between(3, 6))
  const oneIn = (...choices: number[]): number => random.pick(choices)
  sim.faults = {
    lossOneIn: oneIn(0, 3, 10, 50),
    doubleOneIn: oneIn(0, 2, 10),
    lateOneIn: oneIn(0, 5, 30),
    saveErrorOneIn: oneIn(0, 0, 20),
  }
  const crashOneIn = oneIn(0, 20, 60, 200)
  const cutOneIn = oneIn(0, 10, 40)
  // A fork of its own: without wipes a seed draws what it always did.
  const wipes = sim.random.fork('wipes')
  const wipeOneIn = wipes.pick([0, 5, 15])
  let sides = 0
  let wiped = 0
  const images = new Map<SimNode, SimNode['durable']>()
  for (let turn = 0; turn < 60; turn++) {
    sim.run(random.between(10, 120))
    const node = random.pick(sim.nodes)
    if (!node.isUp) {
      if (random.chance(1, 3)) sim.restart(node)
      continue
    }
    if (wipeOneIn > 0 && wipes.chance(1, wipeOneIn) && sim.canLose(node)) {
      // A disk that is lost, or an earlier copy of it that is put back.
      const image = images.get(node)
      sim.wipe(node, image !== undefined && wipes.chance(1, 2) ? image : {})
      wiped++
      sim.restartLater(node, wipes.between(1, 500))
      continue
    }
    if (wipes.chance(1, 10)) images.set(node, node.durable)
    if (crashOneIn > 0 && random.chance(1, crashOneIn)) {
      // In the middle of something, where there is something.
      const at = sim.happenings + random.below(6)
      sim.beforeHappening = (other) => {
        if (sim.happenings >= at && other === node && node.isUp) sim.crash(node)
      }
      continue
    }
    sim.beforeHappening = () => {}
    if (cutOneIn > 0 && random.chance(1, cutOneIn)) {
      sides = random.chance(1, 3) ? 0 : random.u32()
      const isOneWay = random.chance(1, 4)
      sim.reaches = (from, to) => ((sides >>> from) & 1) === ((sides >>> to) & 1) || (isOneWay && from < to)
    }
    if (node.chain.topology === undefined) continue
    if (random.chance(1, 3)) sim.mark(node)
    else sim.change(node, drawnChange(node.chain.topology, random, sim.nodes.length))
  }
  for (const node of sim.nodes) if (!node.isUp) sim.restart(node)
  // Others may have left before who lost its disk was named again, so that the votes of those who are left do not suffice.
  if (sim.canDecide) heal(sim)
  sim.checkEnd()
  return { epochs: sim.book.latest.epoch, messages: sim.happenings, wiped }
}

/** All are up and reach each other: everybody gets his change in, and has the whole chain. */
function heal(sim: ChainSim): void {
  sim.faults = { ...noFaults }
  sim.reaches = () => true
  sim.beforeHappening = () => {}
  for (const node of sim.nodes) if (!node.isUp) sim.restart(node)
  const haveChain = (): boolean => sim.nodes.every(({ chain }) => chain.topology !== undefined)
  assert.ok(sim.runUntil(haveChain, 10 * seconds) !== undefined, 'All have a chain')
  const isQuiet = (): boolean => sim.nodes.every(({ chain }) => chain.changesPending === 0)
  assert.ok(sim.runUntil(isQuiet, 40 * seconds) !== undefined, 'No change waits')
  // What a majority has accepted, and nobody knows of, comes to light with the next change.
  const last = sim.nodes.map((node) => sim.mark(node))
  const areDecided = (): boolean => {
    for (const [index, name] of last.entries()) {
      // Some give up early, and ask again.
      if (sim.marks.get(name)?.type === 'failed') last[index] = sim.mark(sim.nodes[index]!)
    }
    return last.every((name) => sim.marks.get(name)?.type === 'decided')
  }
  assert.ok(sim.runUntil(areDecided, 10 * seconds) !== undefined, 'Everybody can change the cluster again')
  assert.ok(sim.runUntil(() => sim.isConverged, 10 * seconds) !== undefined, 'All hear of it')
}

test('Chain: whatever is lost, late, doubled, cut off and crashes, epochs are agreed on and changes made once', (t) => {
  let epochs = 0
  let messages = 0
  let wiped = 0
  const runs = Math.ceil(300 * scale)
  const only = process.env['SUNWISE_TEST_SEED']
  for (let index = 0; index < runs; index++) {
    const seed = only ?? `chain ${index}`
    try {
      const outcome = run(seed)
      epochs += outcome.epochs
      messages += outcome.messages
      wiped += outcome.wiped
    } catch (error) {
      throw new Error(`Seed ${seed}: ${error instanceof Error ? error.message : error}`, { cause: error })
    }
    if (only !== undefined) break
  }
  t.diagnostic(`${runs} seeds, ${epochs} epochs, ${messages} messages and saves, ${wiped} disks lost`)
  assert.ok(only !== undefined || (epochs > 10 * runs && wiped > runs / 2))
})

/** Three voters, the first of which has had its change accepted by a majority, and cannot hear of it. */
function unheard(changeTimeoutMs: number): { readonly sim: ChainSim; readonly name: string } {
  const sim = new ChainSim('unheard', { changeTimeoutMs })
  sim.startAtRest(3)
  const { epoch } = sim.book.latest
  const name = sim.mark(sim.nodes[0]!)
  while (sim.book.latest.epoch === epoch) sim.run(1)
  sim.reaches = (_, to) => to !== 0
  return { sim, name }
}

test('Chain: a change that is not decided in time says truly whether it may yet be', () => {
  const { sim, name } = unheard(2 * seconds)
  const alone = new ChainSim('alone', { changeTimeoutMs: 2 * seconds })
  alone.startAtRest(3)
  alone.reaches = () => false
  const lonely = alone.mark(alone.nodes[0]!)
  for (const [each, mark, outcome] of [
    [sim, name, 'unknown'],
    [alone, lonely, 'none'],
  ] as const) {
    each.run(3 * seconds)
    const answer = each.marks.get(mark)
    assert.ok(answer?.type === 'failed' && answer.error.code === 'TIMEOUT' && answer.error.outcome === outcome)
    each.reaches = () => true
    heal(each)
    each.checkEnd()
  }
})

test('Chain: what a majority has accepted stays, though only they know; who made it hears of it', () => {
  const { sim, name } = unheard(60 * seconds)
  sim.mark(sim.nodes[1]!)
  sim.run(3 * seconds)
  sim.reaches = () => true
  assert.ok(sim.runUntil(() => sim.marks.get(name)?.type === 'decided', 5 * seconds) !== undefined)
  heal(sim)
  sim.checkEnd()
})

test('Chain: whoever hears of epochs too many to know what became of its change says so, and does not make it again', () => {
  const { sim, name } = unheard(60 * seconds)
  const forced = sim.force(sim.nodes[1]!, (before) => putBucket(before, 'forced', {}))
  assert.equal(forced?.type, 'decided')
  sim.reaches = () => true
  sim.run(5 * seconds)
  const answer = sim.marks.get(name)
  assert.ok(answer?.type === 'failed' && answer.error.outcome === 'unknown')
  heal(sim)
  assert.ok(!sim.book.latest.buckets.some((bucket) => bucket.name === name), 'What was forced goes on from before it')
})

test('Chain: the other half of a dead voter goes on by force, and what the dead one decided alone is thrown away', () => {
  const sim = new ChainSim('halves', { changeTimeoutMs: 2 * seconds })
  sim.startAtRest(2)
  const [voter, other] = [sim.nodes[0]!, sim.nodes[1]!]
  sim.reaches = () => false
  const inVain = sim.mark(other)
  sim.run(3 * seconds)
  assert.equal(sim.marks.get(inVain)?.type, 'failed')
  const { epoch } = sim.book.latest
  const outcome = sim.force(other, (before) => forceRemove(before, voter.nodeId))
  assert.equal(outcome?.type, 'decided')
  assert.equal(other.chain.topology!.epoch, epoch + forcedEpochStep)
  assert.deepEqual(other.chain.topology!.voters, [other.nodeId])
  // It was not dead at all.
  const lost = sim.mark(voter)
  sim.run(1 * seconds)
  assert.equal(sim.marks.get(lost)?.type, 'decided')
  sim.reaches = () => true
  sim.mark(other)
  assert.ok(sim.runUntil(() => voter.chain.topology!.epoch > epoch + forcedEpochStep, 10 * seconds) !== undefined)
  assert.equal(voter.chain.digest, other.chain.digest)
  assert.ok(!voter.chain.topology!.members.some(({ nodeId }) => nodeId === voter.nodeId))
})

test('Chain: whoever lags hears what has changed, or all of it, whichever is less', () => {
  const sim = new ChainSim('lag')
  sim.startAtRest(3)
  const lagging = sim.nodes[2]!
  const news: string[] = []
  sim.sent = (_, { type }) => {
    if (type === 'whole' || type === 'delta') news.push(type)
  }
  for (const [count, type] of [
    [1, 'delta'],
    [Limits.topologyHistoryMax + 10, 'whole'],
  ] as const) {
    sim.crash(lagging)
    for (let mark = 0; mark < count; mark++) {
      const name = sim.mark(sim.nodes[0]!)
      assert.ok(sim.runUntil(() => sim.marks.get(name) !== undefined, 5 * seconds) !== undefined)
    }
    sim.run(1 * seconds)
    news.length = 0
    sim.restart(lagging)
    assert.ok(sim.runUntil(() => sim.isConverged, 10 * seconds) !== undefined)
    assert.ok(news.length > 0 && news.every((each) => each === type), `${news}`)
  }
  sim.checkEnd()
})

test('Chain: what comes from another cluster, or is no message, is passed over', () => {
  const sim = new ChainSim('strange messages')
  sim.startAtRest(3)
  const [node] = sim.nodes as [SimNode]
  const { digest } = node.chain
  const other = encodeTopology({ ...sim.book.latest, clusterId: '00000000000000ff', epoch: 1000 })
  const own = encodeTopology({ ...sim.book.latest, epoch: 1000 })
  const tell = (clusterId: string, value: Uint8Array): void => {
    const message = { clusterId, sender: idOf(1), type: 'whole', value } as const
    node.chain.receive(addressOf(1), encodeChainMessage(message), sim.nowMs)
  }
  tell('00000000000000ff', other)
  tell(clusterId, other)
  tell('00000000000000ff', own)
  tell(clusterId, own.subarray(1))
  node.chain.receive(addressOf(1), new Uint8Array([1, 2, 3]), sim.nowMs)
  sim.run(2 * seconds)
  assert.equal(node.chain.digest, digest)
})

test('Chain: a ballot is not used again after a restart', () => {
  const sim = new ChainSim('ballots')
  sim.startAtRest(3)
  sim.reaches = () => false
  const [node] = sim.nodes as [SimNode]
  const counters: number[] = []
  sim.sent = ({ index }, message) => {
    if (index === 0 && message.type === 'request') counters.push(message.request.ballot.counter)
  }
  let highest = 0
  for (let life = 0; life < 5; life++) {
    sim.mark(node)
    sim.run(3 * seconds)
    assert.ok(counters.length > 0 && Math.min(...counters) > highest, `${counters} after ${highest}`)
    highest = Math.max(...counters.splice(0))
    sim.crash(node)
    sim.restart(node)
  }
})

/**
 * Three voters: the first proposes, it and the second accept, and that is decided, but nobody hears of it. The second loses what it knew;
 * the third proposes another change, and asks the second.
 */
function forgotten(lose: (sim: ChainSim, voter: SimNode) => void): void {
  const { sim, name } = unheard(60 * seconds)
  const [first, second, third] = sim.nodes as [SimNode, SimNode, SimNode]
  lose(sim, second)
  // The first is cut off, and what it sent before comes too late.
  sim.reaches = (from, to) => from !== 0 && to !== 0
  sim.restart(second)
  const { epoch } = sim.book.latest
  const other = sim.mark(third)
  sim.run(10 * seconds)
  assert.equal(sim.marks.get(other), undefined, 'Whoever has forgotten helps to decide nothing')
  assert.equal(second.chain.topology!.epoch, epoch - 1, 'It has heard of the epoch that names it')
  assert.equal(sim.book.latest.epoch, epoch)
  sim.reaches = () => true
  assert.ok(sim.runUntil(() => sim.marks.get(other)?.type === 'decided', 20 * seconds) !== undefined)
  assert.equal(sim.marks.get(name)?.type, 'decided')
  // It votes again, without the first.
  const isNamed = (): boolean =>
    sim.book.latest.members.some(({ acceptor }) => acceptor === second.chain.acceptor) && sim.isConverged
  assert.ok(sim.runUntil(isNamed, 20 * seconds) !== undefined, 'It has itself named')
  assert.ok(sim.book.latest.voters.includes(second.nodeId))
  sim.crash(first)
  const without = sim.mark(third)
  assert.ok(sim.runUntil(() => sim.marks.get(without)?.type === 'decided', 10 * seconds) !== undefined)
  sim.restart(first)
  heal(sim)
  sim.checkEnd()
}

test('Chain: a voter that lost its disk does not vote under its old name; another epoch names it, and it does', () => {
  forgotten((sim, voter) => {
    sim.reaches = () => false
    sim.wipe(voter)
  })
})

test('Chain: a voter that was put back from an earlier copy does not vote under its old name', () => {
  const before = { topology: encodeTopology(clusterOf(3)), acceptor: new Uint8Array() }
  forgotten((sim, voter) => {
    const { topology, acceptor } = voter.durable
    assert.ok(topology !== undefined && acceptor !== undefined && voter.durable.vote !== undefined)
    sim.wipe(voter, { ...before, topology, acceptor })
  })
})

test('Chain: who lost its disk uses none of its ballots again', () => {
  const sim = new ChainSim('lost ballots')
  sim.startAtRest(3)
  const [node, , third] = sim.nodes as [SimNode, SimNode, SimNode]
  const used: string[][] = [[]]
  sim.sent = ({ index }, message) => {
    if (index !== 0 || message.type !== 'request') return
    const { counter, proposer } = message.request.ballot
    used.at(-1)!.push(`${counter} ${proposer}`)
  }
  // Nobody answers; then only one does, which tells it what is decided.
  sim.reaches = () => false
  sim.mark(node)
  sim.run(2 * seconds)
  sim.wipe(node)
  sim.reaches = (from, to) => from + to !== 1
  sim.restart(node)
  used.push([])
  sim.run(5 * seconds)
  sim.mark(node)
  sim.run(5 * seconds)
  const [before, after] = used as [string[], string[]]
  assert.ok(before.length > 0 && after.length > 0)
  assert.deepEqual(
    after.filter((ballot) => before.includes(ballot)),
    [],
  )
  assert.ok(third.chain.topology !== undefined)
  heal(sim)
  sim.checkEnd()
})

test('Chain: a change that is not decided since voters have lost what they voted says which', () => {
  const sim = new ChainSim('barred', { changeTimeoutMs: 3 * seconds })
  sim.startAtRest(3)
  const [first, second, third] = sim.nodes as [SimNode, SimNode, SimNode]
  for (const node of [second, third]) {
    sim.wipe(node)
    sim.restart(node)
  }
  sim.run(2 * seconds)
  const name = sim.mark(first)
  sim.run(5 * seconds)
  const answer = sim.marks.get(name)
  assert.ok(answer?.type === 'failed' && answer.error.code === 'TIMEOUT' && answer.error.outcome === 'none')
  assert.match(answer.error.message, new RegExp(`lost what they had voted: .*${second.nodeId}`))
  // Two of three are gone for good: whoever has the chain goes on by force, and the others vote again.
  const forced = sim.force(first, (before) => forceRemove(before, third.nodeId))
  assert.equal(forced?.type, 'decided')
  const areNamed = (): boolean =>
    sim.isConverged && sim.book.latest.members.some(({ acceptor }) => acceptor === second.chain.acceptor)
  assert.ok(sim.runUntil(areNamed, 20 * seconds) !== undefined)
})

test('Chain: the only member of a cluster whose data was copied names itself, and goes on', () => {
  const sim = new ChainSim('copied')
  sim.startAtRest(1)
  const [node] = sim.nodes as [SimNode]
  sim.wipe(node, node.durable)
  sim.restart(node)
  const name = sim.mark(node)
  assert.ok(sim.runUntil(() => sim.marks.get(name)?.type === 'decided', 10 * seconds) !== undefined)
  sim.checkEnd()
})

test('Chain: two topologies of one epoch are noticed', () => {
  const forks: number[] = []
  const chains = [0, 1].map((node) => {
    const topology = stepped(clusterOf(2), (before) => putBucket(before, `of-${node}`, {}))
    return new Chain({
      nodeId: idOf(node),
      random: new SeededRandom(node),
      nowMs: 0,
      store: { save: () => {} },
      stored: { topology: encodeTopology(topology) },
      send: (_, bytes) => chains[1 - node]!.receive(addressOf(node), bytes, 0),
      forked: (epoch) => forks.push(epoch),
    })
  })
  chains[0]!.tick(10_000)
  assert.deepEqual(forks, [chains[0]!.topology!.epoch])
})

test('Chain: a node that has no cluster refuses changes, and takes none that it was not told to follow', () => {
  const sim = new ChainSim('stranger')
  sim.start(2)
  const [, second] = sim.nodes as [SimNode, SimNode]
  const name = sim.mark(second)
  const answer = sim.marks.get(name)
  assert.ok(answer?.type === 'failed' && answer.error.code === 'NOT_READY')
  second.chain.follow([])
  sim.run(5 * seconds)
  assert.equal(second.chain.topology, undefined)
  second.chain.follow([sim.nodes[0]!.address])
  sim.run(5 * seconds)
  assert.equal(second.chain.digest, sim.nodes[0]!.chain.digest)
})

test('Chain: at most 64 changes wait', () => {
  const sim = new ChainSim('many')
  sim.startAtRest(3)
  const [node] = sim.nodes as [SimNode]
  const names = Array.from({ length: Limits.topologyChangesPendingMax }, () => sim.mark(node))
  const answer = sim.marks.get(sim.mark(node))
  assert.ok(answer?.type === 'failed' && answer.error.code === 'OVERLOADED')
  const tookMs = sim.runUntil(() => names.every((name) => sim.marks.get(name)?.type === 'decided'), 60 * seconds)
  assert.ok(tookMs !== undefined)
  sim.checkEnd()
})

test('Chain: a stored row that is none is CATALOG_CORRUPT', () => {
  const options = { nodeId: idOf(0), random: new SeededRandom(1), nowMs: 0, store: { save: () => {} }, send: () => {} }
  for (const row of ['topology', 'vote', 'ballot', 'acceptor'] as const) {
    for (const bytes of [new Uint8Array(0), new Uint8Array(9).fill(7)]) {
      assert.throws(() => new Chain({ ...options, stored: { [row]: bytes } }), { code: 'CATALOG_CORRUPT' })
    }
  }
})
