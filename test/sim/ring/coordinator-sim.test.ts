/** What a coordinator says in a ring of nodes: batches, and clocks that are not to be trusted. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { SunwiseError } from '../../../src/base/errors.ts'
import { decodePeerMessage, encodePeerMessage } from '../../../src/replication/peer-message.ts'
import type { BatchOperation, BatchResult, WriteOptions } from '../../../src/replication/requests.ts'
import { RingSim } from './ring-sim.ts'
import type { SimNode } from './sim-node.ts'

function start(seed: string): RingSim {
  const sim = new RingSim({ seed, nodes: 3, operations: 0, faults: [], keys: ['key'] })
  sim.start()
  sim.pass(1000)
  return sim
}

function put(sim: RingSim, at: SimNode, options: WriteOptions, lww = false): SunwiseError | undefined {
  const said: { error: SunwiseError | undefined; isDone: boolean } = { error: undefined, isDone: false }
  const bucket = lww ? { ...sim.bucket, conflict: 'lww' as const } : sim.bucket
  at.act(({ coordinator }) =>
    coordinator.put(bucket, Buffer.from('key'), Buffer.from('value'), options, (error) => {
      said.error = error
      said.isDone = true
    }),
  )
  assert.ok(sim.passUntil(() => said.isDone, 10_000))
  return said.error
}

test('Coordinator: a node whose clock is far from its peers refuses writes that compare times, takes the others, and recovers', () => {
  const sim = start('clock astray')
  const [first] = sim.replicasOf('key')
  sim.pass(5000)
  assert.equal(put(sim, first!, { ttlMs: 60_000 }), undefined)
  first!.clock.jumpEpoch(3_600_000)
  sim.pass(5000)
  for (const error of [put(sim, first!, { ttlMs: 60_000 }), put(sim, first!, {}, true)]) {
    assert.equal(error?.code, 'CLOCK_UNSURE')
    assert.equal(error?.outcome, 'none')
  }
  assert.equal(put(sim, first!, {}), undefined)
  for (const { node } of sim.nodes) assert.equal(node.clockWatch.isAstray, node === first!.node)
  first!.clock.jumpEpoch(-3_600_000)
  sim.pass(5000)
  assert.equal(put(sim, first!, { ttlMs: 60_000 }), undefined)
})

test('Coordinator: a batch at any node applies operations on one key in their order, beside those on others', () => {
  for (const at of [0, 1, 2]) {
    const sim = start(`batch ${at}`)
    const operations: BatchOperation[] = []
    for (let round = 0; round < 6; round++) {
      for (let index = 0; index < 10; index++) {
        const key = Buffer.from(`key${index}`)
        operations.push({ op: 'put', key, value: Buffer.from(`${round}`) }, { op: 'get', key })
      }
    }
    let results: readonly BatchResult[] | undefined
    sim.nodes[at]!.act(({ coordinator }) =>
      coordinator.batch(sim.bucket, operations, {}, (error, answers) => {
        assert.equal(error, undefined)
        results = answers
      }),
    )
    assert.ok(sim.passUntil(() => results !== undefined, 10_000))
    for (const [index, result] of results!.entries()) {
      assert.ok('answer' in result, `operation ${index}`)
      if (result.op !== 'get') continue
      const values = result.answer.values.map(({ value }) => Buffer.from(value).toString())
      assert.deepEqual(values, [`${Math.floor(index / 20)}`], `operation ${index}`)
      assert.ok(result.answer.receipt.acks >= 2)
    }
  }
})

test('Coordinator: a read whose first replica is slow asks the next for its value, not for a digest alone', () => {
  const sim = new RingSim({ seed: 'hedge', nodes: 5, operations: 0, faults: [], keys: ['key'] })
  sim.start()
  sim.pass(1000)
  assert.equal(put(sim, sim.replicasOf('key')[0]!, { w: 'all' }), undefined)
  const at = sim.nodes.find((node) => !sim.replicasOf('key').includes(node))!
  const asked: { readonly node: string; readonly wantsSet: boolean }[] = []
  const { deliver } = sim.network
  sim.network.deliver = (from, to, bytes) => {
    const message = bytes[0] === 1 ? decodePeerMessage(bytes.subarray(1)) : undefined
    if (from === at.name && message?.type === 'read') asked.push({ node: to, wantsSet: message.wantsSet })
    deliver(from, to, bytes)
  }
  let values: readonly string[] | undefined
  at.act(({ coordinator }) =>
    coordinator.get(sim.bucket, Buffer.from('key'), { timeoutMs: 2000 }, (error, answer) => {
      assert.equal(error, undefined)
      values = answer!.values.map(({ value }) => Buffer.from(value).toString())
    }),
  )
  // Only now is it known who was asked for the value: that one sleeps before it hears of it.
  const first = sim.replicasOf('key')[0]!
  first.pause(1500)
  assert.ok(
    sim.passUntil(() => values !== undefined, 1000),
    'It does not wait for the one that sleeps',
  )
  assert.deepEqual(values, ['value'])
  assert.deepEqual(
    asked.map(({ wantsSet }) => wantsSet),
    [true, false, true],
  )
  assert.equal(new Set(asked.map(({ node }) => node)).size, 3, 'Each was asked once')
})

test('Coordinator: a write that a replica refuses since it is an epoch behind is sent to it again, and acknowledged by all', () => {
  for (const code of ['WRONG_EPOCH', 'NOT_READY'] as const) {
    const sim = start(`behind ${code}`)
    const [first, second] = sim.replicasOf('key')
    let refused = 0
    const { deliver } = sim.network
    sim.network.deliver = (from, to, bytes) => {
      const message = bytes[0] === 1 ? decodePeerMessage(bytes.subarray(1)) : undefined
      const isAnswer = from === second!.name && to === first!.name && message?.type === 'written'
      if (!isAnswer || refused >= 3) return deliver(from, to, bytes)
      refused++
      deliver(from, to, Uint8Array.of(1, ...encodePeerMessage({ ...message, failure: { code, outcome: 'none' } })))
    }
    assert.equal(put(sim, first!, { w: 'all', timeoutMs: 2000 }), undefined)
    assert.equal(refused, 3)
    sim.network.deliver = deliver
    for (const { node } of sim.nodes) assert.equal(node.hints.count, 0, 'Nobody missed it')
    assert.ok(sim.passUntil(() => first!.node.coordinator.pendingCount === 0, 5000))
  }
})

test('Coordinator: a write that a replica goes on to refuse ends by its deadline, and says that some have it', () => {
  const sim = start('behind for ever')
  const [first, second] = sim.replicasOf('key')
  const { deliver } = sim.network
  sim.network.deliver = (from, to, bytes) => {
    const message = bytes[0] === 1 ? decodePeerMessage(bytes.subarray(1)) : undefined
    const isAnswer = from === second!.name && to === first!.name && message?.type === 'written'
    if (!isAnswer) return deliver(from, to, bytes)
    const failure = { code: 'WRONG_EPOCH', outcome: 'none' } as const
    deliver(from, to, Uint8Array.of(1, ...encodePeerMessage({ ...message, failure })))
  }
  const error = put(sim, first!, { w: 'all', timeoutMs: 500 })
  assert.equal(error?.code, 'QUORUM_NOT_MET')
  assert.equal(error?.outcome, 'partial')
  assert.ok(sim.passUntil(() => first!.node.coordinator.pendingCount === 0, 5000))
})
