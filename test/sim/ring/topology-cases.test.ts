/**
 * Single cases of a cluster that changes, each said step by step; topology-sim.test.ts draws them at random. Under load here means: one client after
 * the other reads and writes at any node, and each read has to show what was acknowledged last.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { abortMoves, stageOfMoves } from '../../../src/cluster/topology/moves.ts'
import type { Stage } from '../../../src/cluster/topology/topology.ts'
import { changeMembers, forceRemove, type MemberChange, putBucket } from '../../../src/cluster/topology/transitions.ts'
import { askForChange, RingClient } from './ring-client.ts'
import { idOf, RingSim, type RingSimOptions } from './ring-sim.ts'
import { Channel, EpochWatch, tap } from './ring-tap.ts'
import type { SimNode } from './sim-node.ts'

const movesMs = 600_000

function ring(seed: string, options: Partial<RingSimOptions> = {}): RingClient {
  const sim = new RingSim({ seed, nodes: 4, operations: 0, faults: [], ...options })
  return new RingClient(sim).start()
}

function keysOf(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `{case${index}}key`)
}

/** Asks for a change of members, and waits until it is decided. */
function change({ sim }: RingClient, at: SimNode, ...changes: readonly MemberChange[]): void {
  const asked = askForChange(at, (topology) => changeMembers(topology, changes))
  assert.ok(sim.passUntil(() => asked.outcome !== undefined, 30_000))
  assert.equal(asked.outcome?.type, 'decided')
}

/** Light ones, for which little moves. */
const join = (name: string, weight = 0.2): MemberChange => ({ type: 'join', nodeId: idOf(name), address: name, weight })
const replace = (leaver: string, joiner: string): MemberChange => ({
  type: 'replace',
  leaver: idOf(leaver),
  joiner: { nodeId: idOf(joiner), address: joiner },
})

function rest({ sim }: RingClient): void {
  assert.ok(
    sim.passUntil(() => sim.isAtRest, movesMs),
    sim.explain(),
  )
}

function until({ sim }: RingClient, stage: Stage): void {
  assert.ok(
    sim.passUntil(() => stageOfMoves(sim.topology) === stage, movesMs),
    sim.explain(),
  )
}

/** Reads and writes, one after the other, and what they have to show. */
class Load {
  readonly #client: RingClient
  readonly #acked = new Map<string, string>()
  readonly #keys: readonly string[]
  #count = 0

  constructor(client: RingClient, keys: readonly string[]) {
    this.#client = client
    this.#keys = keys
    for (const key of keys) this.write(client.sim.nodes[0]!, key)
  }

  write(at: SimNode, key: string): void {
    const value = `${this.#count++}`
    const said = this.#client.get(at, key)
    this.#client.put(at, key, value, { context: said.context })
    this.#acked.set(key, value)
  }

  check(at: SimNode, key: string): void {
    assert.deepEqual(this.#client.values(at, key), [this.#acked.get(key)], `${key} at ${at.name}`)
  }

  checkAll(at: SimNode): void {
    for (const key of this.#keys) this.check(at, key)
  }

  /** Goes on until something holds, with time between two steps. */
  until(isDone: () => boolean, betweenMs: number): void {
    const { sim } = this.#client
    for (let step = 0; !isDone(); step++) {
      assert.ok(step < 5000, sim.explain())
      const at = sim.random.pick(sim.nodes.filter((node) => node.isUp && node.node.topology !== undefined))
      const key = sim.random.pick(this.#keys)
      if (sim.random.chance(1, 3)) this.write(at, key)
      else this.check(at, key)
      sim.pass(betweenMs)
    }
    assert.ok(this.#count > this.#keys.length)
  }
}

test('Topology cases: a move to a node that died is taken back after a minute, by itself, and goes through when the node is back', () => {
  const client = ring('abort', { nodes: 4, members: 3 })
  const { sim } = client
  const load = new Load(client, keysOf(24))
  const joiner = sim.nodes[3]!
  change(client, sim.nodes[0]!, join('n3'))
  until(client, 'streaming')
  // Somebody takes it back, and it begins again by itself.
  const { batch } = sim.topology
  const asked = askForChange(sim.nodes[1]!, (topology) => abortMoves(topology, batch))
  assert.ok(sim.passUntil(() => asked.outcome !== undefined, 30_000))
  assert.equal(asked.outcome?.type, 'decided')
  until(client, 'streaming')
  assert.notEqual(sim.topology.batch, batch)
  joiner.kill()
  const diedMs = sim.events.nowMs
  load.until(() => stageOfMoves(sim.topology) === 'stable' || sim.events.nowMs > diedMs + 120_000, 400)
  const tookMs = sim.events.nowMs - diedMs
  assert.ok(tookMs > 60_000 && tookMs < 100_000, `${tookMs} ms`)
  assert.ok(sim.topology.members.some(({ nodeId, state }) => nodeId === joiner.nodeId && state === 'joining'))
  load.until(() => sim.events.nowMs > diedMs + 130_000, 1000)
  assert.equal(stageOfMoves(sim.topology), 'stable', 'It does not begin anew while nobody is there')
  joiner.start()
  rest(client)
  assert.deepEqual(sim.memberNames, ['n0', 'n1', 'n2', 'n3'])
  load.checkAll(joiner)
})

test('Topology cases: a dead node is removed by force while others move, and what a quorum had is all there', () => {
  const client = ring('force', { nodes: 5, members: 4 })
  const { sim } = client
  const load = new Load(client, keysOf(24))
  change(client, sim.nodes[0]!, join('n4'))
  until(client, 'streaming')
  const dead = sim.nodes[2]!
  dead.loseDisk()
  sim.passUntilNoticed()
  const asked = askForChange(sim.nodes[1]!, (topology) => forceRemove(topology, dead.nodeId))
  assert.ok(sim.passUntil(() => asked.outcome !== undefined, 30_000))
  assert.equal(asked.outcome?.type, 'decided')
  assert.equal(stageOfMoves(sim.topology), 'stable', 'What was moving is taken back first')
  assert.ok(sim.topology.partitions.every((partition) => !partition.old.includes(dead.nodeId)))
  // Until the others have heard of it they are refused, and refuse.
  sim.pass(50)
  load.until(() => sim.isAtRest, 500)
  assert.deepEqual(sim.memberNames, ['n0', 'n1', 'n3', 'n4'])
  assert.ok(sim.topology.partitions.every((partition) => partition.old.length === 3))
  load.checkAll(sim.nodes[4]!)
})

test('Topology cases: a node that was away for a hundred epochs, its own leaving among them, hears of all, and hands over what only it had', () => {
  const client = ring('away', { nodes: 4, exchangeRestMs: 1e9 })
  const { sim } = client
  const away = sim.nodes[3]!
  const keys = keysOf(40).filter((key) => sim.replicasOf(key).includes(away))
  for (const key of keys) client.put(sim.nodes[0]!, key, 'early', { w: 'all' })
  // It alone has these: it was asked for no more than one acknowledgement, and is stopped at once.
  for (const other of sim.nodes) sim.network.cut(away.name, other.name)
  for (const key of keys) {
    const { context } = client.get(away, key, { r: 1 })
    client.put(away, key, 'its own', { context, w: 1 })
  }
  away.cutPower()
  sim.network.mend()
  sim.passUntilNoticed()
  for (const key of keys) assert.deepEqual(client.values(sim.nodes[1]!, key), ['early'])
  change(client, sim.nodes[0]!, { type: 'leave', nodeId: away.nodeId, isDown: true })
  rest(client)
  for (let count = 0; count < 100; count++) {
    const asked = askForChange(sim.nodes[count % 3]!, (topology) => putBucket(topology, `bucket${count}`, {}))
    assert.ok(sim.passUntil(() => asked.outcome !== undefined, 30_000))
  }
  assert.deepEqual(sim.memberNames, ['n0', 'n1', 'n2'])
  away.start()
  assert.ok(
    sim.passUntil(() => away.node.topology!.epoch === sim.topology.epoch, 5000),
    'It hears of them',
  )
  // After it has looked what it has.
  sim.pass(1000)
  assert.ok(
    sim.passUntil(() => away.node.keeper.leftOver.length === 0, movesMs),
    sim.explain(),
  )
  for (const key of keys) assert.deepEqual(client.values(sim.nodes[1]!, key), ['its own'])
})

test('Topology cases: a coordinator that is one stage behind is served, and what it writes is there after the move', () => {
  const client = ring('one behind', { nodes: 5, members: 3, exchangeRestMs: 1e9 })
  const { sim } = client
  const behind = sim.nodes[4]!
  const keys = keysOf(200)
  for (const key of keys) client.put(behind, key, 'early', { w: 'all' })
  let isHeld = true
  const end = tap(sim, ({ channel, to }) => !(isHeld && channel === Channel.chain && to === behind.name))
  change(client, sim.nodes[0]!, replace('n2', 'n3'))
  until(client, 'writeBothReadOld')
  // All others are there.
  sim.pass(20)
  const moving = keys.filter((key) => sim.placeOf(key).stage === 'writeBothReadOld')
  assert.ok(moving.length > 5)
  assert.equal(behind.node.topology!.epoch, 1)
  for (const key of moving) {
    const { context, values } = client.get(behind, key)
    assert.equal(Buffer.from(values[0]!.value).toString(), 'early')
    client.put(behind, key, 'late', { context })
  }
  until(client, 'cleanUp')
  for (const key of moving) {
    if (sim.placeOf(key).stage === 'cleanUp') assert.deepEqual(client.values(sim.nodes[0]!, key), ['late'])
  }
  isHeld = false
  end()
  assert.ok(sim.passUntil(() => behind.node.topology!.epoch === sim.topology.epoch, 5000))
  for (const key of moving) assert.deepEqual(client.values(behind, key), ['late'])
})

test('Topology cases: a member is replaced under load, both answering, and each read shows what was acknowledged last', () => {
  const client = ring('replace', { nodes: 4, members: 3 })
  const { sim } = client
  const load = new Load(client, keysOf(60))
  const before = sim.topology.partitions.map(({ old }) => old)
  change(client, sim.nodes[0]!, replace('n1', 'n3'))
  load.until(() => sim.isAtRest, 150)
  assert.deepEqual(sim.memberNames, ['n0', 'n2', 'n3'])
  const [leaver, joiner] = [idOf('n1'), idOf('n3')]
  for (const [partition, { old }] of sim.topology.partitions.entries()) {
    const expected = before[partition]!.map((nodeId) => (nodeId === leaver ? joiner : nodeId))
    assert.deepEqual([...old].sort(), [...expected].sort(), 'Who stays keeps its places')
  }
  load.checkAll(sim.nodes[3]!)
  load.checkAll(sim.nodes[1]!)
})

test('Topology cases: under load a member weighs more, and gets more partitions; each read shows what was acknowledged last', () => {
  const client = ring('weight', { nodes: 5 })
  const { sim } = client
  const load = new Load(client, keysOf(60))
  const heavy = sim.nodes[2]!
  const count = (): number => sim.topology.partitions.filter(({ old }) => old.includes(heavy.nodeId)).length
  const before = count()
  change(client, sim.nodes[0]!, { type: 'adjust', nodeId: heavy.nodeId, weight: 1.25 })
  load.until(() => sim.isAtRest, 150)
  assert.ok(count() > 1.1 * before, `${before}, then ${count()} partitions`)
  load.checkAll(heavy)
})

test('Topology cases: two change the cluster at once, at different nodes; both are done, once, and nothing is lost', () => {
  const client = ring('two at once', { nodes: 5, members: 4 })
  const { sim } = client
  const watch = new EpochWatch(sim)
  const load = new Load(client, keysOf(40))
  const asked = [
    askForChange(sim.nodes[0]!, (topology) => changeMembers(topology, [join('n4')])),
    askForChange(sim.nodes[1]!, (topology) =>
      changeMembers(topology, [{ type: 'adjust', nodeId: idOf('n3'), weight: 0.9 }]),
    ),
    // The same as the first: it comes second, and is told so.
    askForChange(sim.nodes[2]!, (topology) => changeMembers(topology, [join('n4')])),
  ]
  assert.ok(sim.passUntil(() => asked.every(({ outcome }) => outcome !== undefined), 30_000))
  const types = asked.map(({ outcome }) => outcome!.type)
  assert.equal(types.filter((type) => type === 'decided').length, 2, `${types}`)
  assert.equal(types[1], 'decided')
  load.until(() => {
    assert.equal(watch.look(), undefined)
    return sim.isAtRest
  }, 100)
  assert.deepEqual(sim.memberNames, ['n0', 'n1', 'n2', 'n3', 'n4'])
  assert.deepEqual(
    sim.topology.members.map(({ weight }) => weight),
    [1, 1, 1, 0.9, 0.2],
  )
  load.checkAll(sim.nodes[4]!)
})
