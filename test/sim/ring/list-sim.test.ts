/** Lists in a ring under load and faults: whatever was acknowledged before a list began is in it once, and nothing that was deleted. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { SunwiseError } from '../../../src/base/errors.ts'
import { partitionOfKey } from '../../../src/cluster/slots.ts'
import { Limits } from '../../../src/config.ts'
import type { HeldPage } from '../../../src/replication/local-replica.ts'
import {
  decodePeerMessage,
  encodePeerMessage,
  type ListedMessage,
  type PeerMessage,
} from '../../../src/replication/peer-message.ts'
import type { ListOptions, ListPage } from '../../../src/replication/requests.ts'
import { RingClient } from './ring-client.ts'
import { changeKinds, faultKinds, RingSim, type RingSimOptions } from './ring-sim.ts'
import type { SimNode } from './sim-node.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

/** Runs seeds, in which at least so many lists have to come to their ends. */
function run(name: string, seeds: number, listsMin: number, options: Partial<RingSimOptions>): void {
  let listed = 0
  for (let seed = 0; seed < seeds * scale; seed++) {
    const sim = new RingSim({ seed: `${name} ${seed}`, nodes: 5, operations: 400, faults: [], listers: 2, ...options })
    assert.deepEqual(sim.run().violations, [], `seed ${name} ${seed}`)
    listed += sim.listed
    sim.dispose()
  }
  assert.ok(listed >= seeds * listsMin * scale, `${listed} lists`)
}

test('Lists: under all faults each key that was acknowledged is listed once, and none that was deleted', () => {
  run('lists', 4, 4, { faults: faultKinds })
})

test('Lists: of what lies in tables each key that was acknowledged is listed once, and none that was deleted', () => {
  run('lists of tables', 1, 3, { faults: ['loss', 'kill', 'pause'], hasTables: true, operations: 1200 })
})

test('Lists: go on with their cursors at any node while partitions move to members that join and leave', () => {
  const faults = [...changeKinds, ...changeKinds, 'kill', 'delay'] as const
  run('lists and moves', 1, 15, { members: 3, changesMax: 3, faults, operations: 800 })
})

/** Two dozen in each of some partitions one behind the other. */
const keys = Array.from({ length: 25_000 }, (_, index) => `key${index}`).filter((key) => {
  const partition = partitionOfKey(Buffer.from(key))
  return partition >= 100 && partition < 112
})
/** All in one partition. */
const tagged = Array.from({ length: 60 }, (_, index) => `{tag}${String(index).padStart(2, '0')}`)
const all = [...keys, ...tagged]
const live = all.filter((_, index) => index % 4 !== 0)

/** A ring whose nodes differ: of each key one replica lacks the value, and of each that was deleted another one lacks that. */
function divided(seed: string): RingClient {
  // Nothing brings them together meanwhile.
  const quiet = { exchangeRestMs: 3_600_000, isSteady: true }
  const client = new RingClient(new RingSim({ seed, nodes: 3, operations: 0, faults: [], keys: all, ...quiet })).start()
  const { sim } = client
  const without = (key: string, place: number, write: (at: SimNode) => void): void => {
    const replicas = sim.replicasOf(key)
    sim.network.cut(replicas[0]!.name, replicas[place]!.name)
    write(replicas[0]!)
    sim.pass(1)
    sim.network.mend()
  }
  // Whoever lacks something is waited for, and gets no hint.
  const options = { timeoutMs: 600_000 }
  for (const [index, key] of all.entries()) {
    without(key, 1 + (index % 2), (at) => client.put(at, key, `${key}!`, options))
    if (index % 4 === 0) without(key, 2 - (index % 2), (at) => client.delete(at, key, options))
  }
  return client
}

function page(client: RingClient, at: SimNode, options: Partial<ListOptions>): ListPage | SunwiseError {
  const { sim } = client
  let said: ListPage | SunwiseError | undefined
  at.act(({ coordinator }) =>
    coordinator.list(sim.bucket, { limit: 100, values: false, ...options }, (error, answer) => {
      said = answer ?? error
    }),
  )
  assert.ok(sim.passUntil(() => said !== undefined, 20_000))
  return said!
}

/** All keys, page by page, in the order in which they came. */
function listed(client: RingClient, at: SimNode, options: Partial<ListOptions>): string[] {
  const found: string[] = []
  for (let cursor: Uint8Array | undefined; ; ) {
    const answer = page(client, at, { ...options, cursor })
    if ('code' in answer) throw answer
    for (const { key, answer: read } of answer.keys) {
      const text = Buffer.from(key).toString()
      if (options.values)
        assert.deepEqual(
          read?.values.map(({ value }) => Buffer.from(value).toString()),
          [`${text}!`],
        )
      found.push(text)
    }
    assert.ok(answer.keys.length <= (options.limit ?? 100))
    if (answer.cursor === undefined) return found
    cursor = answer.cursor
  }
}

function inListOrder(texts: readonly string[]): string[] {
  const partitionOf = (text: string): number => partitionOfKey(Buffer.from(text))
  return [...texts].sort((a, b) => partitionOf(a) - partitionOf(b) || Buffer.compare(Buffer.from(a), Buffer.from(b)))
}

test('Lists: where each replica lacks other keys and other deletes, any two of them give each key once, in order, and nothing that was deleted', () => {
  const client = divided('divided')
  const { sim } = client
  const expected = inListOrder(live)
  for (const at of sim.nodes) {
    for (const limit of [3, 100, 1000]) {
      assert.deepEqual(listed(client, at, { limit, values: limit === 3 }), expected, `at ${at.name}, limit ${limit}`)
    }
    for (const prefix of ['key1', '{tag}', '{tag}1', 'nothing']) {
      const some = expected.filter((key) => key.startsWith(prefix))
      assert.deepEqual(listed(client, at, { limit: 7, prefix: Buffer.from(prefix) }), some, `prefix ${prefix}`)
    }
  }
  // One replica alone shows what it has: the test would show nothing if they had the same.
  assert.notDeepEqual(listed(client, sim.nodes[0]!, { r: 'one' }), expected)
  sim.dispose()
})

test('Lists: too few replicas fail a page with the partition that lacks them; fewer are asked for on request', () => {
  const client = new RingClient(new RingSim({ seed: 'few', nodes: 3, operations: 0, faults: [], keys })).start()
  const { sim } = client
  const [first, second, third] = sim.nodes
  client.put(first!, 'key7', 'key7!', { w: 'all' })
  const whole = page(client, first!, { r: 'all' })
  assert.ok('keys' in whole)
  assert.deepEqual([whole.receipt?.acks, whole.receipt?.replicas], [3, 3])
  third!.kill()
  sim.passUntilNoticed()
  const refused = page(client, first!, { r: 'all' })
  assert.ok('code' in refused)
  assert.deepEqual([refused.code, refused.outcome], ['QUORUM_NOT_MET', 'none'])
  assert.deepEqual(refused.extra, { needed: 3, acks: 2, replicas: 3, partition: 0 })
  assert.deepEqual(listed(client, first!, {}), ['key7'])
  // Nobody has noticed yet that this one is gone: it is waited for, and named.
  second!.pause(60_000)
  const late = page(client, first!, { timeoutMs: 400 })
  assert.ok('code' in late)
  assert.deepEqual([late.code, late.outcome, late.extra], ['TIMEOUT', 'none', { partition: 0 }])
  assert.deepEqual(listed(client, first!, { r: 'one' }), ['key7'])
  assert.equal(first!.node.coordinator.pendingCount, 0)
  const bad = page(client, first!, { r: 4 })
  assert.ok('code' in bad && bad.code === 'BAD_QUORUM')
  const foreign = page(client, first!, { cursor: new Uint8Array(30) })
  assert.ok('code' in foreign && foreign.code === 'BAD_CURSOR')
  sim.dispose()
})

test('Lists: more than a node gathers at once is refused, and does nothing', () => {
  const client = new RingClient(new RingSim({ seed: 'many', nodes: 3, operations: 0, faults: [], keys })).start()
  const { sim } = client
  const said: (string | undefined)[] = []
  for (let index = 0; index < Limits.listsPendingMax + 3; index++) {
    sim.nodes[0]!.act(({ coordinator }) =>
      coordinator.list(sim.bucket, { limit: 10, values: false }, (error) => said.push(error?.code)),
    )
  }
  assert.ok(sim.passUntil(() => said.length === Limits.listsPendingMax + 3, 20_000))
  assert.deepEqual(said.slice(0, 4), ['OVERLOADED', 'OVERLOADED', 'OVERLOADED', undefined])
  assert.equal(said.filter((code) => code !== undefined).length, 3)
  sim.dispose()
})

test('Lists: a replica that disagrees on who holds a partition refuses, and is asked again; what makes no sense is not believed', () => {
  const client = new RingClient(new RingSim({ seed: 'epochs', nodes: 3, operations: 0, faults: [], keys })).start()
  const { sim } = client
  const [first, second] = sim.nodes
  client.put(first!, 'key7', 'key7!', { w: 'all' })
  const { deliver } = sim.network
  const answers: PeerMessage[] = []
  let change: (message: ListedMessage) => ListedMessage = (message) => message
  sim.network.deliver = (from, to, bytes) => {
    const message = bytes[0] === 1 ? decodePeerMessage(bytes.subarray(1)) : undefined
    if (message?.type !== 'listed') return deliver(from, to, bytes)
    answers.push(message)
    deliver(from, to, Uint8Array.of(1, ...encodePeerMessage(change(message))))
  }
  const question = {
    type: 'list',
    requestId: 5,
    epoch: 0,
    fence: 0,
    timeoutMs: 1000,
    partition: partitionOfKey(Buffer.from('key7')),
    bucketId: 1,
    withValues: true,
    limit: 10,
    bytesMax: 1000,
    prefix: new Uint8Array(0),
    after: undefined,
  } as const
  const peer = { nodeId: first!.nodeId, address: first!.name }
  const ask = (message: PeerMessage): ListedMessage => {
    answers.length = 0
    second!.receive(peer, Uint8Array.of(1, ...encodePeerMessage(message)))
    assert.ok(sim.passUntil(() => answers.length > 0, 5000))
    const [answer] = answers
    assert.ok(answer?.type === 'listed')
    return answer
  }
  assert.equal(ask(question).failure?.code, 'WRONG_EPOCH')
  const told = ask({ ...question, epoch: 1, fence: 1 })
  assert.deepEqual([told.failure, told.end], [undefined, undefined])
  assert.ok(told.entries.length > 0)

  let refusals = 20
  change = (message) => {
    if (refusals-- <= 0) return message
    return { ...message, failure: { code: 'WRONG_EPOCH', outcome: 'none' }, entries: new Uint8Array(0) }
  }
  assert.deepEqual(listed(client, first!, {}), ['key7'])
  assert.ok(refusals <= 0)
  for (const lie of [
    { entries: told.entries.subarray(1) },
    { entries: told.entries },
    { end: Uint8Array.of(1), entries: told.entries },
  ]) {
    change = (message) => ({ ...message, ...lie })
    const answer = page(client, first!, {})
    assert.ok('code' in answer, 'Keys of another partition, or cut off')
    assert.equal(answer.code, 'INTERNAL')
  }
  sim.dispose()
})

test('LocalReplica: a page for another replica ends where its bytes or keys are used up, and says where', () => {
  const client = new RingClient(
    new RingSim({ seed: 'pages', nodes: 3, operations: 0, faults: [], keys: tagged }),
  ).start()
  const { sim } = client
  for (const key of tagged) client.put(sim.nodes[0]!, key, key.repeat(20), { w: 'all' })
  const usual = {
    partition: partitionOfKey(Buffer.from('{tag}')),
    bucketId: 1,
    prefix: new Uint8Array(0),
    after: undefined,
  }
  const held = (bytesMax: number, limit: number, withValues: boolean): HeldPage => {
    let got: HeldPage | undefined
    sim.nodes[0]!.act(({ replica }) =>
      replica.list({ ...usual, bytesMax, limit, withValues }, 1000, (_, given) => {
        got = given
      }),
    )
    assert.ok(sim.passUntil(() => got !== undefined, 5000))
    return got!
  }
  assert.equal(held(1_000_000, 1000, true).end, undefined)
  const few = held(1000, 1000, true)
  assert.ok(few.end !== undefined && few.entries.length < 1200)
  assert.equal(Buffer.from(held(1, 1000, true).end!).toString(), tagged[0])
  assert.equal(Buffer.from(held(1_000_000, 7, false).end!).toString(), tagged[6])
  const bare = held(1_000_000, 1000, false)
  assert.ok(bare.entries.length < 70 * tagged.length, 'Values stay where they are')
  sim.dispose()
})
