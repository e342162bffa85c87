import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SunwiseError } from '../../../src/base/errors.ts'
import type { ClusterDoor } from '../../../src/host/member-frames.ts'
import { Harness } from './http-harness.ts'

/** Notes what it is asked, and answers with that. */
class DoorDouble implements ClusterDoor {
  readonly asked: unknown[] = []
  error: SunwiseError | undefined

  question: ClusterDoor['question'] = (question, done) => this.#answer(question, done)
  change: ClusterDoor['change'] = (change, done) => this.#answer(change, done)

  #answer(asked: unknown, done: Parameters<ClusterDoor['change']>[1]): void {
    this.asked.push(asked)
    if (this.error === undefined) done(undefined, { asked: this.asked.length })
    else done(this.error, undefined)
  }
}

const post = (body: unknown) => ({ body: JSON.stringify(body), headers: { 'content-type': 'application/json' } })
const nodeId = '0123456789abcdef'

test('The routes about the cluster ask the node, and say so where it serves alone', async () => {
  const cluster = new DoorDouble()
  await using harness = await Harness.start({ cluster })
  assert.equal((await harness.json('GET', '/v1/cluster'))['asked'], 1)
  await harness.json('GET', '/v1/nodes')
  await harness.json('GET', '/v1/ring')
  await harness.json('GET', '/v1/explain/default/a%2Fb/c')
  assert.deepEqual(cluster.asked.slice(0, 3), [{ about: 'cluster' }, { about: 'nodes' }, { about: 'ring' }])
  const { key, ...place } = cluster.asked[3] as { key: Uint8Array; about: string; bucketId: number }
  assert.deepEqual(place, { about: 'key', bucketId: harness.buckets.find('default')!.id })
  assert.equal(Buffer.from(key).toString(), 'a/b/c')
  assert.equal((await harness.call('GET', '/v1/explain/none/key')).status, 404)
  await using alone = await Harness.start()
  for (const path of ['/v1/cluster', '/v1/nodes', '/v1/ring', '/v1/explain/default/key']) {
    const answer = await alone.call('GET', path)
    assert.equal(answer.status, 409)
    assert.match(answer.body.toString(), /--peer/)
  }
})

test('Changes of the cluster are checked before the node is asked', async () => {
  const cluster = new DoorDouble()
  await using harness = await Harness.start({ cluster })
  for (const [path, body] of [
    ['leave', { nodeId: 'short' }],
    ['leave', { nodeId, force: true }],
    ['remove', { nodeId, force: 1 }],
    ['remove', { nodeId, other: true }],
    ['remove', [nodeId]],
  ] as const) {
    assert.equal((await harness.call('POST', `/v1/cluster/${path}`, post(body))).status, 422, JSON.stringify(body))
  }
  assert.deepEqual(cluster.asked, [])
  assert.equal((await harness.call('POST', '/v1/cluster/leave', post({ nodeId }))).status, 200)
  assert.equal((await harness.call('POST', '/v1/cluster/remove', post({ nodeId, force: true }))).status, 200)
  assert.deepEqual(cluster.asked, [
    { type: 'leave', nodeId },
    { type: 'remove', nodeId, force: true },
  ])
  cluster.error = new SunwiseError('CONFLICT', 'It is no member', { extra: { refused: 'MEMBER_UNKNOWN' } })
  const refused = await harness.call('POST', '/v1/cluster/leave', post({ nodeId }))
  assert.equal(refused.status, 409)
  assert.equal(JSON.parse(refused.body.toString())['refused'], 'MEMBER_UNKNOWN')
})

test('receipt=1 tells who answered, and sloppy is passed on', async () => {
  await using harness = await Harness.start()
  const put = await harness.call('PUT', '/v1/kv/default/key?receipt=1&sloppy=1', { body: 'x' })
  assert.equal(put.status, 204)
  assert.deepEqual(JSON.parse(put.headers['sunwise-receipt'] as string), {
    acks: 1,
    replicas: 1,
    sloppy: false,
    durable: true,
    epoch: 1,
  })
  assert.equal((harness.coordinator.lastOptions as { sloppy?: boolean }).sloppy, true)
  assert.ok((await harness.call('GET', '/v1/kv/default/key?receipt=1')).headers['sunwise-receipt'] !== undefined)
  assert.equal((await harness.call('GET', '/v1/kv/default/key')).headers['sunwise-receipt'], undefined)
  assert.equal((await harness.call('PUT', '/v1/kv/default/key?sloppy=yes', { body: 'x' })).status, 400)
})
