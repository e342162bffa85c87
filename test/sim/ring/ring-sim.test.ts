import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { test } from 'node:test'
import { decodePeerMessage, encodePeerMessage } from '../../../src/replication/peer-message.ts'
import { ActorRegistry } from '../../../src/versions/actor-registry.ts'
import { decodeSet } from '../../../src/versions/set-codec.ts'
import { profileOf } from './profile.ts'
import { faultKinds, losingKinds, RingSim, type RingSimOptions } from './ring-sim.ts'
import type { SimNode } from './sim-node.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const sweepOperations = 200

function run(options: Partial<RingSimOptions> & { readonly seed: string }): RingSim {
  const sim = new RingSim({ nodes: 3, operations: 400, faults: faultKinds, ...options })
  const result = sim.run()
  assert.deepEqual(result.violations, [], `seed ${options.seed}`)
  sim.dispose()
  return sim
}

/** Seeds of the sweep, with the members that they begin with: topology-sim.test.ts has them come and go. */
function sweep(first: number, count: number): void {
  for (let seed = first; seed < first + count; seed++) {
    const profile = profileOf(String(seed), sweepOperations)
    const sim = new RingSim({ ...profile, faults: profile.faults.filter((kind) => kind !== 'members') })
    const again = `npm run sim -- --seed ${seed} --ops ${sweepOperations} --faults ${sim.options.faults.join(',')}`
    assert.deepEqual(sim.run().violations, [], again)
    sim.dispose()
  }
}

test('RingSim: the same seed twice has the same trace, another seed another one', () => {
  const hashOf = (seed: string): string =>
    new RingSim({ seed, nodes: 5, operations: 300, faults: faultKinds }).run().hash
  assert.equal(hashOf('again'), hashOf('again'))
  assert.notEqual(hashOf('again'), hashOf('other'))
})

test('RingSim: without faults every write is acknowledged, and a sequential blind writer makes no siblings', () => {
  const sim = run({ seed: 'calm', faults: [], nodes: 5 })
  const failed = sim.history.writes.filter(({ outcome }) => outcome !== 'acked')
  assert.deepEqual(failed, [])
  const alone = run({ seed: 'alone', faults: [], nodes: 5, clients: 1 })
  const shown = alone.history.reads.map(({ values }) => values.length)
  assert.ok(shown.length > 50)
  assert.ok(Math.max(...shown) <= 1, 'One writer after the other makes no siblings')
})

test('RingSim: under all faults nothing acknowledged is lost, nothing deleted comes back, no quorum read is stale', () => {
  let acked = 0
  for (let seed = 0; seed < 60 * scale; seed++) acked += run({ seed: `all ${seed}`, nodes: 3 + (seed % 5) }).acked
  assert.ok(acked > 60 * 40 * scale, `${acked} writes were acknowledged`)
})

test('RingSim: a hundred seeds of the sweep break no promise', () => {
  sweep(1, 100 * scale)
})

test('RingSim: two hundred seeds that nobody has seen before break no promise', () => {
  sweep(randomInt(1_000_000, 1_000_000_000), 200 * scale)
})

test('RingSim: with sloppy quorums nothing acknowledged is lost', () => {
  for (let seed = 0; seed < 20 * scale; seed++) run({ seed: `sloppy ${seed}`, nodes: 4 + (seed % 4), sloppy: true })
})

test('RingSim: below sync nothing acknowledged is lost when processes are killed', () => {
  const faults = faultKinds.filter((kind) => kind !== 'power')
  for (let seed = 0; seed < 20 * scale; seed++) run({ seed: `os ${seed}`, durability: 'os', faults })
})

test('RingSim: what one node loses, its disk or unsynced writes, is not lost', () => {
  for (let seed = 0; seed < 30 * scale; seed++) {
    const others = faultKinds.filter((kind) => kind !== 'power' && kind !== 'diskError')
    run({ seed: `losing ${seed}`, durability: 'os', faults: [...others, ...losingKinds] })
  }
})

test('RingSim: with data in tables nothing acknowledged is lost, and nothing deleted comes back', () => {
  for (let seed = 0; seed < 25 * scale; seed++)
    run({ seed: `tables ${seed}`, nodes: 3, hasTables: true, operations: 800 })
})

test('RingSim: with sloppy quorums what one node loses with its disk is not lost, since hints survive kills', () => {
  const faults = faultKinds.filter((kind) => kind !== 'skew')
  for (let seed = 0; seed < 20 * scale; seed++) {
    run({ seed: `sloppy losing ${seed}`, nodes: 4 + (seed % 4), sloppy: true, faults: [...faults, 'lostDisk'] })
  }
})

test('RingSim: what fallbacks acknowledged is there although each node was stopped in turn and a replica lost its disk', () => {
  const keys = Array.from({ length: 40 }, (_, index) => `{tag${index % 10}}key${index}`)
  for (let seed = 0; seed < 5 * scale; seed++) {
    const sim = new RingSim({ seed: `fallbacks ${seed}`, nodes: 5, operations: 0, faults: [], keys, sloppy: true })
    sim.start()
    sim.pass(500)
    const nodeOf = (index: number): SimNode => sim.nodes[(seed + index) % 5]!
    const [loser, writer] = [nodeOf(0), nodeOf(3)]
    const sleepers = [nodeOf(1), nodeOf(2)]
    for (const sleeper of sleepers) sleeper.kill()
    sim.passUntilNoticed()
    let acked = 0
    let stoodIn = 0
    for (const key of keys) {
      const bytes = Buffer.from(key)
      writer.act(({ coordinator }) =>
        coordinator.put(sim.bucket, bytes, bytes, {}, (error, answer) => {
          assert.equal(error, undefined)
          assert.ok(answer!.receipt.durable)
          acked++
          if (answer!.receipt.sloppy) stoodIn++
        }),
      )
    }
    assert.ok(sim.passUntil(() => acked === keys.length, 5000))
    assert.ok(stoodIn > 5, `fallbacks stood in for ${stoodIn} writes`)
    sim.stopEachInTurn(seed % 2 === 0 ? 'power' : 'kill')
    loser.loseDisk()
    for (const sleeper of sleepers) sleeper.start()
    sim.pass(500)
    // Once more while hints are handed over.
    sim.stopEachInTurn('kill')
    loser.start()
    sim.pass(30_000)
    for (const { node } of sim.nodes) assert.equal(node.hints.count, 0)
    let read = 0
    for (const key of keys) {
      writer.act(({ coordinator }) =>
        coordinator.get(sim.bucket, Buffer.from(key), {}, (error, answer) => {
          assert.equal(error, undefined)
          const shown = answer!.values.map(({ value }) => Buffer.from(value).toString())
          assert.deepEqual(shown, [key], `seed ${seed}`)
          read++
        }),
      )
    }
    assert.ok(sim.passUntil(() => read === keys.length, 5000))
  }
})

test('RingSim: a node that knows of a replica that is down leaves its hint before the write, and no kill parts the two', () => {
  for (let seed = 0; seed < 20 * scale; seed++) {
    const sim = new RingSim({ seed: `before ${seed}`, nodes: 3, operations: 0, faults: [], keys: ['key'] })
    sim.start()
    sim.pass(500)
    const [first, , last] = sim.replicasOf('key')
    last!.kill()
    sim.passUntilNoticed()
    // Killed before anybody answers, perhaps before anything is written.
    first!.act(({ coordinator }) => coordinator.put(sim.bucket, Buffer.from('key'), Buffer.from('value'), {}, () => {}))
    sim.pass(0.02 * seed)
    first!.kill()
    sim.pass(1000)
    first!.start()
    sim.pass(2000)
    const isWritten = Buffer.from(sim.held(first!, 'key')).includes('value')
    if (isWritten) assert.deepEqual(first!.node.hints.counts(), [[last!.nodeId, 1]], `seed ${seed}`)
  }
})

test('RingSim: hints reach their targets although messages are lost', () => {
  for (let seed = 0; seed < 5 * scale; seed++) {
    const keys = Array.from({ length: 40 }, (_, index) => `{tag${index % 4}}key${index}`)
    const sim = new RingSim({ seed: `hints ${seed}`, nodes: 3, operations: 0, faults: [], keys })
    sim.start()
    sim.pass(500)
    const [writer, , sleeper] = sim.nodes
    // It knows the partitions: a node that may have lost all of one compares it first, and needs more messages for that.
    let begun = 0
    for (const key of keys.slice(0, 4)) {
      writer!.act(({ coordinator }) =>
        coordinator.put(sim.bucket, Buffer.from(key), Buffer.from('first'), { w: 'all' }, (error) => {
          assert.equal(error, undefined)
          begun++
        }),
      )
    }
    assert.ok(sim.passUntil(() => begun === 4, 5000))
    sleeper!.kill()
    sim.passUntilNoticed()
    let acked = 0
    for (const key of keys) {
      const bytes = Buffer.from(key)
      const done = (error: Error | undefined): void => {
        assert.equal(error, undefined)
        acked++
      }
      writer!.act(({ coordinator }) => coordinator.put(sim.bucket, bytes, bytes, {}, done))
    }
    assert.ok(sim.passUntil(() => acked === keys.length, 5000))
    assert.ok(writer!.node.hints.count + sim.nodes[1]!.node.hints.count >= keys.length, 'Each write left a hint')
    sim.network.faults.lossOneIn = 3
    sleeper!.start()
    sim.pass(60_000)
    for (const key of keys)
      assert.ok(Buffer.from(sim.held(sleeper!, key)).includes(key), `seed ${seed}: ${key} is there`)
    // The last answers may be lost, too.
    sim.network.faults.lossOneIn = 0
    sim.pass(20_000)
    for (const { node } of sim.nodes) assert.equal(node.hints.count, 0)
  }
})

test('RingSim: an exchange that could not bring a key together joins no clock, and the key is not taken for deleted', () => {
  const keys = ['{tag}before', '{tag}key']
  const sim = new RingSim({ seed: 'partial', nodes: 2, operations: 0, faults: [], keys })
  sim.start()
  sim.pass(500)
  const [writer, sleeper] = sim.replicasOf(keys[0]!)
  const put = (key: string, w: 'one' | 'all'): void => {
    let isAcked = false
    writer!.act(({ coordinator }) =>
      coordinator.put(sim.bucket, Buffer.from(key), Buffer.from('value'), { w }, (error) => {
        assert.equal(error, undefined)
        isAcked = true
      }),
    )
    assert.ok(sim.passUntil(() => isAcked, 5000))
  }
  // Both have something of the partition, and so both compare it.
  put(keys[0]!, 'all')
  sleeper!.kill()
  sim.passUntilNoticed()
  put(keys[1]!, 'one')
  // Trees and clocks are compared, but the value itself does not get through: no hint, no repair, and reads of it fail.
  const { deliver } = sim.network
  let failed = 0
  sim.network.deliver = (from, to, bytes) => {
    const message = bytes[0] === 1 && from === writer!.name ? decodePeerMessage(bytes.subarray(1)) : undefined
    if (message?.type === 'write') return
    if (message?.type !== 'found') return deliver(from, to, bytes)
    failed++
    const failure = { code: 'OVERLOADED', outcome: 'none' } as const
    deliver(from, to, Uint8Array.of(1, ...encodePeerMessage({ ...message, failure, set: undefined })))
  }
  sleeper!.start()
  assert.ok(
    sim.passUntil(() => failed >= 3, 120_000),
    'Exchanges find the key and ask for it',
  )
  sim.pass(5000)
  sim.network.deliver = deliver
  sim.pass(60_000)
  for (const node of [writer!, sleeper!])
    assert.ok(Buffer.from(sim.held(node, keys[1]!)).includes('value'), `${node.name} has the value`)
})

test('RingSim: an answer to a process that ended is not taken for one to the process after it', () => {
  const keys = ['{tag}first', '{tag}second']
  const sim = new RingSim({ seed: 'late answer', nodes: 2, operations: 0, faults: [], keys })
  // The first replica: others would send the write on to it.
  const nodeOf = (place: number) => sim.replicasOf(keys[0]!)[place]
  const [first, second] = [nodeOf(0), nodeOf(1)]
  const put = (key: string): { code: string | undefined } => {
    const said: { code: string | undefined } = { code: undefined }
    const bytes = Buffer.from(key)
    const options = { w: 'all', timeoutMs: 2500 } as const
    first!.act(({ coordinator }) =>
      coordinator.put(sim.bucket, bytes, bytes, options, (error) => {
        said.code = error?.code ?? 'ok'
      }),
    )
    return said
  }
  sim.start()
  sim.pass(500)
  // Answers about data are held up, news of who is there are not.
  const { deliver } = sim.network
  const held: (() => void)[] = []
  sim.network.deliver = (from, to, bytes) => {
    const isAnswer = from === second!.name && to === first!.name && bytes[0] === 1
    if (isAnswer) held.push(() => deliver(from, to, bytes))
    else deliver(from, to, bytes)
  }
  put(keys[0]!)
  sim.pass(100)
  first!.kill()
  first!.start()
  sim.passUntilNoticed()
  sim.network.cut(first!.name, second!.name)
  const late = put(keys[1]!)
  sim.pass(50)
  assert.ok(held.length > 0, 'The first write was answered')
  for (const release of held) release()
  sim.pass(5000)
  assert.equal(late.code, 'QUORUM_NOT_MET', 'Nobody else has it')
})

test('RingSim: a write that was sent on to its coordinator, and comes there twice, is one write', () => {
  const sim = new RingSim({ seed: 'twice', nodes: 3, operations: 0, faults: [], keys: ['key'] })
  sim.start()
  sim.pass(500)
  sim.network.faults.repeatOneIn = 1
  const origin = sim.replicasOf('key')[1]!
  let isAcked = false
  origin.act(({ coordinator }) =>
    coordinator.put(sim.bucket, Buffer.from('key'), Buffer.from('value'), {}, (error) => {
      assert.equal(error, undefined)
      isAcked = true
    }),
  )
  assert.ok(sim.passUntil(() => isAcked, 5000))
  sim.pass(500)
  const bytes = sim.held(origin, 'key')
  const set = decodeSet(bytes, 0, bytes.length, new ActorRegistry().indexOf)
  assert.ok(typeof set !== 'string')
  assert.deepEqual(
    set.vector.map(({ counter }) => counter),
    [1],
  )
})

test('RingSim: a node that lost unsynced writes names no two writes alike', () => {
  for (let seed = 0; seed < 10 * scale; seed++) {
    const faults = ['lostWrites', 'delay', 'partition', 'pause'] as const
    run({ seed: `dots ${seed}`, operations: 600, faults, durability: 'os' })
  }
})
