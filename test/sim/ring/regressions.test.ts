/**
 * Famous bugs of stores of this kind, each as the steps that showed it elsewhere. kv679 is Riak's: the clock of a key goes backward on a replica
 * that forgot, a later write gets a name that an earlier one had, and is taken for old.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Limits } from '../../../src/config.ts'
import { firstExchangeRequestId } from '../../../src/replication/exchanges.ts'
import { firstHintRequestId } from '../../../src/replication/hint-store.ts'
import { decodePeerMessage } from '../../../src/replication/peer-message.ts'
import { RingClient } from './ring-client.ts'
import { RingSim, type RingSimOptions } from './ring-sim.ts'
import type { SimNode } from './sim-node.ts'

/** Replicas do not compare by themselves for as long as a test takes. */
const neverMs = 1e9
const key = '{tag}key'

function ring(seed: string, options: Partial<RingSimOptions> = {}): RingClient {
  const sim = new RingSim({ seed, nodes: 3, operations: 0, faults: [], keys: [key], ...options })
  return new RingClient(sim).start()
}

function kill(client: RingClient, ...nodes: readonly SimNode[]): void {
  for (const node of nodes) node.kill()
  client.sim.passUntilNoticed()
}

function start(client: RingClient, ...nodes: readonly SimNode[]): void {
  for (const node of nodes) node.start()
  client.sim.passUntilNoticed()
}

/** Writes over other keys until memory was recycled, and something holds that hangs on it. False: it does not. */
function recycleUntil(client: RingClient, isDone: () => boolean): boolean {
  const at = client.sim.nodes.find((node) => node.isUp)!
  for (let count = 0; count < 4000; count++) {
    if (count % 50 === 0 && isDone()) return true
    client.put(at, `{filler}${count % 40}`, 'x'.repeat(2000))
  }
  return false
}

const upNodes = ({ sim }: RingClient): SimNode[] => sim.nodes.filter((node) => node.isUp)
const sumOf = (client: RingClient, of: (node: SimNode['node']) => number): number =>
  upNodes(client).reduce((sum, { node }) => sum + of(node), 0)

test('Regression: kv679 lost clock. A coordinator that lost its state between two puts names no write as one before', () => {
  for (const exchangeRestMs of [100, neverMs]) {
    const client = ring(`lost clock ${exchangeRestMs}`, { exchangeRestMs })
    const { sim } = client
    const [first, second] = sim.replicasOf(key)
    for (let count = 0; count < 5; count++) {
      const { context } = client.get(first!, key)
      client.put(first!, key, `early ${count}`, { context, w: 'all' })
    }
    first!.loseDisk()
    first!.start()
    sim.passUntilNoticed()
    client.put(first!, key, 'later')
    assert.ok(client.values(second!, key).includes('later'))
    if (exchangeRestMs === 100) client.settle()
    else client.get(second!, key, { r: 'all' })
    for (const node of sim.replicasOf(key)) assert.ok(client.held(node, key)!.includes('later'), node.name)
    assert.ok(!client.values(second!, key, 'all').includes('early 3'), 'What was replaced does not come back')
  }
})

test('Regression: kv679 lost clock. A coordinator that lost unsynced writes takes a new actor', () => {
  const client = ring('lost writes', { durability: 'os' })
  const { sim } = client
  const [first, second] = sim.replicasOf(key)
  client.put(first!, key, 'kept', { w: 'all' })
  for (let count = 0; count < 5; count++) {
    const { context } = client.get(first!, key)
    client.put(first!, key, `early ${count}`, { context })
  }
  first!.cutPower()
  first!.start()
  sim.passUntilNoticed()
  client.put(first!, key, 'later')
  client.settle()
  assert.ok(client.values(second!, key, 'all').includes('later'))
})

test('Regression: kv679 fallbacks. A coordinator that forgot and learns an old clock from fallbacks loses no later write', () => {
  const client = ring('fallback clocks', { nodes: 6, sloppy: true, exchangeRestMs: neverMs })
  const { sim } = client
  const [first, ...others] = sim.replicasOf(key)
  const fallbacks = sim.nodes.filter((node) => !sim.replicasOf(key).includes(node))
  const write = (value: string): void => {
    const { context } = client.get(first!, key, { r: 1 })
    client.put(first!, key, value, { context })
  }
  kill(client, ...others)
  write('bob')
  write('jim')
  // Fallbacks have the old clock, and do not hand it over yet.
  kill(client, ...fallbacks)
  start(client, ...others)
  write('jon')
  write('joe')
  kill(client, ...others)
  first!.loseDisk()
  start(client, first!, ...fallbacks)
  sim.pass(5000)
  client.put(first!, key, 'anne')
  start(client, ...others)
  sim.pass(60_000)
  const shown = client.values(first!, key, 'all')
  assert.ok(shown.includes('anne') && shown.includes('joe'), `${shown}`)
  assert.ok(!shown.includes('bob') && !shown.includes('jim') && !shown.includes('jon'), `${shown}`)
})

test('Regression: kv679 fallbacks, the other order. A primary that forgets when it is handed something loses no later write', () => {
  const client = ring('fallback order', { nodes: 5, n: 2, sloppy: true, exchangeRestMs: neverMs })
  const { sim } = client
  const [first, second] = sim.replicasOf(key)
  const [one, two, three] = sim.nodes.filter((node) => !sim.replicasOf(key).includes(node))
  const write = (at: SimNode, value: string): void => {
    const { context } = client.get(at, key, { r: 1 })
    client.put(at, key, value, { context })
  }
  kill(client, second!, two!, three!)
  write(first!, 'alice')
  kill(client, one!)
  start(client, two!)
  write(first!, 'bob')
  write(first!, 'charlie')
  kill(client, two!, first!)
  start(client, second!, three!)
  write(second!, 'dave')
  // The first primary forgets, and is handed what the third fallback has.
  first!.loseDisk()
  start(client, first!)
  sim.pass(10_000)
  start(client, one!)
  sim.pass(10_000)
  write(first!, 'emma')
  start(client, two!)
  sim.pass(30_000)
  const shown = client.values(first!, key, 'all')
  assert.ok(shown.includes('emma') && shown.includes('charlie'), `${shown}`)
  assert.ok(!shown.includes('alice') && !shown.includes('bob'), `${shown}`)
})

test('Regression: doomstone. A tombstone that a fallback hands over when all had forgotten it does not take what was written anew', () => {
  const client = ring('doomstone', { nodes: 4, sloppy: true })
  const { sim } = client
  const [first, second, third] = sim.replicasOf(key)
  const fallback = sim.nodes.find((node) => !sim.replicasOf(key).includes(node))!
  for (const value of ['bob', 'phil', 'pete']) client.put(first!, key, value, { w: 'all' })
  kill(client, third!)
  client.delete(first!, key, { w: 'all' })
  assert.deepEqual(fallback.node.hints.counts(), [[third!.nodeId, 1]], 'The fallback has it')
  kill(client, fallback)
  start(client, third!)
  client.settle()
  const isForgotten = (): boolean => [first!, second!, third!].every((node) => client.held(node, key) === undefined)
  assert.ok(recycleUntil(client, isForgotten), 'All primaries forget it')
  client.put(first!, key, 'jon')
  start(client, fallback)
  client.settle()
  assert.deepEqual(client.values(second!, key, 'all'), ['jon'])
  for (const node of [first!, second!, third!]) assert.equal(client.held(node, key), 'jon')
})

test('Regression: doomstone. A replica that crashed and comes back with the tombstone does not take what was written anew', () => {
  const client = ring('crashed doomstone')
  const { sim } = client
  const [first, second, third] = sim.replicasOf(key)
  client.put(first!, key, 'bob', { w: 'all' })
  client.delete(first!, key, { w: 'all' })
  client.settle()
  // It knows no more than that: what the others find out from now on it misses.
  third!.kill()
  sim.passUntilNoticed()
  assert.equal(
    recycleUntil(client, () => [first!, second!].every((node) => client.held(node, key) === undefined)),
    true,
  )
  client.put(first!, key, 'jon')
  assert.equal(client.held(second!, key), 'jon')
  start(client, third!)
  client.settle()
  for (const node of [first!, second!, third!]) assert.equal(client.held(node, key), 'jon')
})

test('Regression: a hint that is late for years, to a replica that lost its disk, does not bring back what was deleted', () => {
  const client = ring('late hint', { nodes: 4, sloppy: true })
  const { sim } = client
  const [first, second, third] = sim.replicasOf(key)
  const fallback = sim.nodes.find((node) => !sim.replicasOf(key).includes(node))!
  kill(client, third!)
  client.put(first!, key, 'old', { w: 'all' })
  assert.deepEqual(fallback.node.hints.counts(), [[third!.nodeId, 1]])
  kill(client, fallback)
  start(client, third!)
  client.settle()
  assert.equal(client.held(third!, key), 'old')
  client.delete(first!, key, { w: 'all' })
  client.settle()
  const isForgotten = (): boolean => [first!, second!, third!].every((node) => client.held(node, key) === undefined)
  assert.ok(recycleUntil(client, isForgotten), 'All forget the delete')
  third!.kill()
  third!.loseDisk()
  sim.passUntilNoticed()
  // It meets the fallback first, and nobody who knows of the delete.
  for (const node of [first!, second!]) {
    sim.network.cut(node.name, third!.name)
    sim.network.cut(third!.name, node.name)
  }
  third!.start()
  fallback.start()
  sim.pass(30_000)
  assert.equal(client.held(third!, key), undefined, 'It cannot know yet that this was deleted')
  assert.equal(fallback.node.hints.count, 1)
  sim.network.mend()
  client.settle()
  assert.deepEqual(client.values(third!, key, 'all'), [])
  assert.equal(client.held(third!, key), undefined)
  assert.equal(fallback.node.hints.count, 0)
})

test('Regression: gc grace. Deletes hold although a replica was away for longer than anybody would wait', () => {
  const client = ring('away')
  const { sim } = client
  const keys = Array.from({ length: 20 }, (_, index) => `{tag}away${index}`)
  const [first, second, third] = sim.replicasOf(key)
  for (const each of keys) client.put(first!, each, 'old', { w: 'all' })
  client.settle()
  kill(client, third!)
  for (const each of keys) client.delete(first!, each)
  // Hours pass, hints grow too old, memory is used again and again.
  for (const { clock } of sim.nodes) clock.jumpEpoch(30 * 86_400_000)
  sim.pass(60_000)
  recycleUntil(client, () => false)
  for (const each of keys)
    assert.deepEqual([client.held(first!, each), client.held(second!, each)], ['†', '†'], 'One replica has not got it')
  start(client, third!)
  assert.deepEqual(client.values(third!, keys[0]!), [])
  client.settle()
  for (const each of keys) {
    assert.deepEqual(client.values(third!, each, 'all'), [])
    assert.notEqual(client.held(third!, each), 'old')
  }
  const isForgotten = (): boolean =>
    keys.every((each) => sim.nodes.every((node) => client.held(node, each) === undefined))
  assert.ok(recycleUntil(client, isForgotten), 'Once all have the deletes they are forgotten')
})

test('Regression: repair for ever. After many incarnations replicas are equal, and comparing them finds nothing to do', () => {
  const client = ring('incarnations', { durability: 'os' })
  const { sim } = client
  const keys = Array.from({ length: 24 }, (_, index) => `{tag${index % 3}}key${index}`)
  for (let round = 0; round < 24; round++) {
    const node = sim.nodes[round % 3]!
    for (const each of keys.slice(round % 4)) {
      const at = sim.random.pick(sim.nodes)
      if (sim.random.chance(1, 4)) client.delete(at, each)
      else client.put(at, each, `${round}`)
    }
    if (round % 6 === 5) node.loseDisk()
    else node.cutPower()
    sim.pass(sim.random.below(400))
    node.start()
    sim.passUntilNoticed()
  }
  client.settle()
  const before = sumOf(client, ({ exchanges }) => exchanges.keysRepaired + exchanges.differing)
  const ended = sumOf(client, ({ exchanges }) => exchanges.ended)
  sim.pass(30_000)
  assert.ok(sumOf(client, ({ exchanges }) => exchanges.ended) > ended + 50)
  assert.equal(
    sumOf(client, ({ exchanges }) => exchanges.keysRepaired + exchanges.differing),
    before,
    'No repairs',
  )
  for (const { node } of sim.nodes) {
    const states = node.repairStatus().map(({ state, equalAsOfMs }) => [state, equalAsOfMs! > 0])
    assert.ok(states.length >= 6 && states.every(([state, isProved]) => state === 'equal' && isProved))
  }
})

test('Regression: expiry. What expires at different times on replicas that compare does not come back, and is no cause to repair', () => {
  const client = ring('expiry')
  const { sim } = client
  const keys = Array.from({ length: 30 }, (_, index) => `{tag${index % 2}}ttl${index}`)
  // As far apart as they may be and nobody notices; and one is killed in between, so that it reads all of it anew.
  for (const [index, { clock }] of sim.nodes.entries()) clock.jumpEpoch(index * 15_000)
  for (const each of keys) client.put(sim.nodes[0]!, each, 'short', { ttlMs: 5000, w: 'all' })
  client.settle()
  const repairsOf = (node: SimNode): number => node.node.exchanges.keysRepaired
  const before = sim.nodes.map(repairsOf)
  sim.pass(40_000)
  sim.nodes[1]!.kill()
  sim.nodes[1]!.start()
  before[1] = 0
  sim.pass(200_000)
  for (const each of keys) assert.deepEqual(client.values(sim.nodes[1]!, each, 'all'), [])
  assert.deepEqual(sim.nodes.map(repairsOf), before, 'Nobody repaired any of it')
  const isForgotten = (): boolean =>
    keys.every((each) => sim.nodes.every((node) => client.held(node, each) === undefined))
  assert.ok(recycleUntil(client, isForgotten), 'Once it is over on all clocks all forget it')
  client.settle()
  const after = sim.nodes.map(repairsOf)
  sim.pass(20_000)
  assert.deepEqual(sim.nodes.map(repairsOf), after)
  for (const each of keys) assert.deepEqual(client.values(sim.nodes[2]!, each, 'all'), [])
})

test('Regression: times to live that overflow. Where a number of bits ends a value neither is over at once nor lives for ever', () => {
  const client = ring('overflow')
  const { sim } = client
  const taken: string[] = []
  for (const bits of [31, 32, 41, 48, 53]) {
    for (const ttlMs of [2 ** bits - 1, 2 ** bits, 2 ** bits + 1]) {
      const each = `{tag${taken.length % 4}}${ttlMs}`
      let said: string | undefined
      sim.nodes[1]!.act(({ coordinator }) =>
        coordinator.put(sim.bucket, Buffer.from(each), Buffer.from(each), { ttlMs, w: 'all' }, (error) => {
          said = error?.code ?? 'taken'
        }),
      )
      assert.ok(sim.passUntil(() => said !== undefined, 5000))
      assert.equal(said, ttlMs > Limits.ttlMsMax ? 'BAD_TTL' : 'taken', `${ttlMs} ms`)
      if (said === 'taken') taken.push(each)
      else assert.equal(client.held(sim.nodes[0]!, each), undefined)
    }
  }
  assert.ok(taken.length >= 6)
  sim.pass(60_000)
  client.settle()
  for (const each of taken) for (const node of sim.nodes) assert.deepEqual(client.values(node, each, 'all'), [each])
  // A day before and a day after the end of 31 bits.
  const ends = 2 ** 31
  for (const { clock } of sim.nodes) clock.jumpEpoch(ends - 86_400_000)
  assert.equal(taken.filter((each) => client.values(sim.nodes[2]!, each).length > 0).length, taken.length)
  for (const { clock } of sim.nodes) clock.jumpEpoch(2 * 86_400_000)
  const left = taken.filter((each) => client.values(sim.nodes[2]!, each).length > 0)
  assert.deepEqual(left, taken.slice(3), 'Those of 31 bits are over, and no others')
})

/** Watches the hints that are under way to a node; the most at a time, in the first 100 ms and in all. */
function watchHintsTo(client: RingClient, target: SimNode): { first: number; all: number } {
  const { sim } = client
  const most = { first: 0, all: 0 }
  const underWay = new Set<string>()
  let beganMs = Number.POSITIVE_INFINITY
  const { deliver } = sim.network
  sim.network.deliver = (from, to, bytes) => {
    const message = bytes[0] === 1 ? decodePeerMessage(bytes.subarray(1)) : undefined
    const id = message?.requestId ?? 0
    if (id >= firstHintRequestId && id < firstExchangeRequestId) {
      if (message?.type === 'write' && to === target.name) {
        beganMs = Math.min(beganMs, sim.events.nowMs)
        underWay.add(`${from} ${id}`)
        most.all = Math.max(most.all, underWay.size)
        if (sim.events.nowMs < beganMs + 100) most.first = most.all
      } else if (message?.type === 'written' && from === target.name) underWay.delete(`${to} ${id}`)
    }
    deliver(from, to, bytes)
  }
  return most
}

test('Regression: hint storm. A node that was away under load is handed what it missed slowly, and gets by exchange what found no room', () => {
  const client = ring('storm', { hintBytesMax: 60_000, exchangeRestMs: neverMs })
  const { sim } = client
  const keys = Array.from({ length: 400 }, (_, index) => `{tag${index % 8}}storm${index}`)
  const sleeper = sim.nodes[2]!
  kill(client, sleeper)
  for (const each of keys) client.put(sim.nodes[0]!, each, each)
  const kept = sumOf(client, ({ hints }) => hints.count)
  const dropped = sumOf(client, ({ hints }) => hints.counters.droppedFull)
  assert.ok(kept > 50 && dropped > 50, `${kept} kept, ${dropped} dropped`)
  assert.ok(sumOf(client, ({ hints }) => hints.bytes) <= 2 * 60_000)
  assert.ok(sumOf(client, ({ repairs }) => repairs.markCount) > 0)
  const marked = sim.nodes[0]!.node.repairStatus().filter(({ peer }) => peer === sleeper.nodeId)
  assert.ok(marked.some(({ state }) => state === 'marked'))
  const most = watchHintsTo(client, sleeper)
  start(client, sleeper)
  sim.pass(20_000)
  assert.ok(most.first >= 1 && most.first <= 24, `${most.first} hints at a time at first`)
  assert.ok(most.all <= 64, `${most.all} hints at a time`)
  assert.equal(
    sumOf(client, ({ hints }) => hints.count),
    0,
  )
  assert.equal(
    sumOf(client, ({ repairs }) => repairs.markCount),
    0,
    'Marked partitions were compared',
  )
  for (const each of keys) assert.equal(client.held(sleeper, each), each)
})

test('Regression: hints of a holder that was restarted reach their target', () => {
  const client = ring('holder', { nodes: 5, sloppy: true, exchangeRestMs: neverMs })
  const { sim } = client
  const [first, second, third] = sim.replicasOf(key)
  kill(client, second!, third!)
  client.put(first!, key, 'value', { w: 'all' })
  const holders = sim.nodes.filter((node) => node.isUp && node.node.hints.count > 0)
  assert.ok(holders.length >= 2)
  for (const holder of holders) holder.cutPower()
  if (first!.isUp) first!.kill()
  sim.pass(1000)
  for (const holder of holders) if (!holder.isUp) holder.start()
  start(client, second!, third!)
  sim.pass(20_000)
  for (const node of [second!, third!]) assert.equal(client.held(node, key), 'value')
  assert.equal(
    sumOf(client, ({ hints }) => hints.count),
    0,
  )
})

test('Regression: missing is not deleted. A replica that lost its disk does not spread that it has nothing', () => {
  const client = ring('emptiness')
  const { sim } = client
  const keys = Array.from({ length: 60 }, (_, index) => `{tag${index % 3}}key${index}`)
  for (const each of keys) client.put(sim.nodes[0]!, each, each, { w: 'all' })
  client.settle()
  for (let round = 0; round < 3; round++) {
    const node = sim.nodes[round]!
    node.loseDisk()
    node.start()
    sim.pass(300)
    client.settle()
    for (const each of keys) for (const other of sim.nodes) assert.equal(client.held(other, each), each)
  }
})

test('Regression: flipped bits. A replica whose tables are damaged says so until the others have brought back what they have', () => {
  const keys = Array.from({ length: 400 }, (_, index) => `{tag${index % 4}}key${index}`)
  const client = ring('flipped bits', { hasTables: true, keys })
  const { sim } = client
  const [first, second, bad] = sim.nodes
  for (const each of keys) client.put(first!, each, each.padEnd(100), { w: 'all' })
  sim.pass(5000)
  bad!.kill()
  const tables = bad!.disk.paths().filter((path) => path.endsWith('.sst'))
  assert.ok(tables.length > 0)
  for (const path of tables) {
    const { length } = bad!.disk.bytesOf(path)
    for (let offset = 100; offset < length; offset += 2000) bad!.disk.flipBit(path, offset, offset % 8)
  }
  const saidOf = (each: string): string => {
    let said: string | undefined
    bad!.act(({ replica }) =>
      replica.read(1, Buffer.from(each), 1000, (error, held) => {
        said = error?.code ?? Buffer.from(held!.set).toString('latin1')
      }),
    )
    assert.ok(sim.passUntil(() => said !== undefined, 5000))
    assert.ok(said === 'TABLE_CORRUPT' || said!.includes(each), 'It never says that it has nothing')
    return said!
  }
  bad!.start()
  const refused = keys.filter((each) => saidOf(each) === 'TABLE_CORRUPT').length
  assert.ok(refused > 0, 'Damage is met')
  sim.passUntilNoticed()
  sim.pass(60_000)
  for (const each of keys) {
    for (const node of [first!, second!]) assert.equal(client.held(node, each)?.trim(), each, node.name)
    assert.deepEqual(client.values(first!, each), [each.padEnd(100)])
    assert.notEqual(saidOf(each), 'TABLE_CORRUPT', `${each} is back`)
  }
})

test('Regression: repair for ever. After members came and went replicas are equal, and comparing them finds nothing to do', () => {
  const keys = Array.from({ length: 12 }, (_, index) => `{tag${index % 3}}key${index}`)
  const client = ring('comings and goings', { nodes: 4, members: 3, keys })
  const { sim } = client
  const write = (value: string): void => {
    const members = sim.nodes.filter(({ name }) => sim.memberNames.includes(name))
    for (const each of keys) client.put(sim.random.pick(members), each, value)
  }
  for (const [index, change] of [() => sim.join('n3'), () => sim.leave('n0')].entries()) {
    write(`${index}`)
    const { epoch } = sim.topology
    change()
    assert.ok(
      sim.passUntil(() => sim.topology.epoch > epoch && sim.isAtRest, 600_000),
      sim.explain(),
    )
  }
  write('last')
  client.settle()
  const work = (): number => sumOf(client, ({ exchanges }) => exchanges.keysRepaired + exchanges.differing)
  const before = work()
  sim.pass(20_000)
  assert.equal(work(), before, 'No repairs')
  for (const each of keys) for (const node of sim.replicasOf(each)) assert.equal(client.held(node, each), 'last')
})

test('Regression: a replica whose others have left forgets what is deleted and what expires, as one that never had any', () => {
  const client = ring('left alone', { nodes: 2 })
  const { sim } = client
  client.put(sim.nodes[0]!, key, 'early', { w: 'all' })
  client.settle()
  sim.leave('n1')
  assert.ok(sim.passUntil(() => sim.isAtRest && sim.memberNames.length === 1, 600_000))
  const [only] = sim.nodes
  client.put(only!, '{tag}ttl', 'short', { ttlMs: 5000 })
  client.delete(only!, key)
  sim.pass(300_000)
  const isForgotten = (): boolean => [key, '{tag}ttl'].every((each) => client.held(only!, each) === undefined)
  assert.ok(recycleUntil(client, isForgotten))
})

test('Regression: clock set back. The last write wins over an older one that comes late, though the delete between them is forgotten', () => {
  const client = ring('clock set back', { nodes: 4, sloppy: true, conflict: 'lww' })
  const { sim } = client
  const [first, second, third] = sim.replicasOf(key)
  const fallback = sim.nodes.find((node) => !sim.replicasOf(key).includes(node))!
  kill(client, first!, second!)
  client.put(third!, key, 'late', { w: 2 })
  assert.notEqual(fallback.node.hints.count, 0)
  // Nobody but the fallback has it.
  kill(client, fallback, third!)
  third!.loseDisk()
  start(client, first!, second!, third!)
  client.put(first!, key, 'old', { w: 'all' })
  client.delete(first!, key, { w: 'all' })
  client.settle()
  const isForgotten = (): boolean => [first!, second!, third!].every((node) => client.held(node, key) === undefined)
  assert.ok(recycleUntil(client, isForgotten), 'All forget the delete')
  // The clocks of all, so that none of them finds itself astray.
  for (const { clock } of sim.nodes) clock.jumpEpoch(-3_600_000)
  kill(client, first!)
  start(client, first!)
  client.put(first!, key, 'new', { w: 'all' })
  start(client, fallback)
  client.settle()
  assert.equal(fallback.node.hints.count, 0, 'What was late has come')
  for (const node of [first!, second!, third!]) assert.equal(client.held(node, key), 'new')
})
