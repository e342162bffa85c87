/** The bounds of a coordinator of replicated keys, alone: what it sends lies here, and what it asks its own replica is answered by hand. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { Limits } from '../../src/config.ts'
import type { LocalReplica } from '../../src/replication/local-replica.ts'
import { decodePeerMessage, type PeerMessage } from '../../src/replication/peer-message.ts'
import { QuorumCoordinator } from '../../src/replication/quorum-coordinator.ts'
import type { Receipt } from '../../src/replication/requests.ts'
import { ActorRegistry } from '../../src/versions/actor-registry.ts'
import { encodeSet } from '../../src/versions/set-codec.ts'
import { digest, emptyVersionSet, update, type VersionSet } from '../../src/versions/version-set.ts'
import { bucketOf } from '../bucket.ts'
import { SimClock } from '../sim/sim-clock.ts'

const bucket = bucketOf({ name: 'some' })
const key = Buffer.from('key')
type Written = Parameters<LocalReplica['write']>[2]

function rig(self: string) {
  const clock = new SimClock()
  const replicas = ['a', 'b', 'c']
  const writes: Written[] = []
  const sent: Uint8Array[] = []
  const targets: string[] = []
  const coordinator = new QuorumCoordinator({
    self,
    clock,
    random: new SeededRandom('coordinator'),
    replica: {
      write: (_write: unknown, _timeoutMs: number, done: Written) => writes.push(done),
    } as unknown as LocalReplica,
    hints: { missed: () => {}, keep: () => {} },
    routing: () => ({
      epoch: 1,
      readersOf: () => replicas,
      writersOf: () => [replicas],
      fallbacksOf: () => [],
      isAlive: () => true,
      standingOf: () => ({ epoch: 1, fence: 0 }),
      accepts: () => true,
      holds: () => true,
    }),
    bucketOf: () => bucket,
    send: (node, bytes) => targets.push(node) > 0 && sent.push(bytes) > 0,
    clusterKey: new Uint8Array(16),
    durability: 'sync',
    isClockAstray: () => false,
    pendingBytesMax: 10_000,
  })
  const failures: (SunwiseError | undefined)[] = []
  const put = (bytes: number): void =>
    coordinator.put(bucket, key, new Uint8Array(bytes), {}, (error) => failures.push(error))
  return { clock, coordinator, writes, sent, targets, failures, put }
}

test('QuorumCoordinator: writes beyond its bytes are refused before anything is done, others taken, and all is given back', () => {
  const { coordinator, writes, failures, put } = rig('a')
  put(20_000)
  assert.equal(writes.length, 1, 'One of any size is taken where there is no other')
  writes.shift()!(new SunwiseError('TIMEOUT', 'No answer'), undefined)
  assert.equal(failures.shift()?.code, 'TIMEOUT')
  assert.equal(coordinator.pendingBytes, 0)
  put(6_000)
  put(6_000)
  assert.equal(failures.length, 1)
  assert.deepEqual([failures[0]!.code, failures[0]!.outcome], ['OVERLOADED', 'none'])
  assert.equal(writes.length, 1, 'What is refused does not reach the replica')
  put(3_000)
  assert.equal(writes.length, 2)
  assert.equal(coordinator.pendingBytes, 9_000 + 2 * key.length)
  for (const done of writes) done(new SunwiseError('TIMEOUT', 'No answer'), undefined)
  assert.equal(coordinator.pendingBytes, 0)
  assert.equal(coordinator.pendingCount, 0)
})

test('QuorumCoordinator: what it has sent on counts until the answer, or the deadline', () => {
  const { clock, coordinator, sent, failures, put } = rig('elsewhere')
  put(6_000)
  put(6_000)
  assert.deepEqual(
    failures.map((error) => [error?.code, error?.outcome]),
    [['OVERLOADED', 'none']],
  )
  assert.deepEqual(
    sent.map((bytes) => decodePeerMessage(bytes)?.type),
    ['forward'],
  )
  coordinator.get(bucket, key, {}, (error) => failures.push(error))
  assert.equal(coordinator.pendingCount, 2, 'A read that brings a key finds room')
  clock.advance(Limits.timeoutMsDefault + 1)
  coordinator.tick()
  assert.deepEqual(
    failures.slice(1).map((error) => error?.code),
    ['TIMEOUT', 'TIMEOUT'],
  )
  assert.equal(coordinator.pendingBytes, 0)
  assert.equal(coordinator.pendingCount, 0)
})

test('QuorumCoordinator: a write takes as many ETags as a frame has room for, and is refused with one more', () => {
  const etags = (count: number): string[] =>
    Array.from({ length: count }, (_, index) => index.toString(16).padStart(16, '0'))
  for (const self of ['a', 'elsewhere']) {
    const { coordinator, sent, writes, failures } = rig(self)
    const put = (count: number): void =>
      coordinator.put(bucket, key, new Uint8Array(1), { ifMatch: etags(count) }, (error) => failures.push(error))
    put(Limits.ifMatchETagsMax + 1)
    coordinator.delete(bucket, key, { ifMatch: etags(Limits.ifMatchETagsMax + 1) }, (error) => failures.push(error))
    assert.deepEqual(
      failures.map((error) => [error?.code, error?.outcome]),
      [
        ['BAD_REQUEST', 'none'],
        ['BAD_REQUEST', 'none'],
      ],
    )
    assert.equal(sent.length + writes.length, 0)
    put(Limits.ifMatchETagsMax)
    assert.equal(failures.length, 2)
    assert.equal(sent.length + writes.length, 1)
    if (self === 'a') continue
    const message = decodePeerMessage(sent[0]!)
    assert.ok(message?.type === 'forward' && message.ifMatch !== '*')
    assert.equal(message.ifMatch?.length, Limits.ifMatchETagsMax)
  }
})

test('QuorumCoordinator: who answers a read after it was merged, and is behind, does not count as one that has it', () => {
  const actors = new ActorRegistry()
  const actor = actors.indexOf(1, 1)
  const version = { actor, tombstone: false, expiresAtMs: 0, timestamp: 0, contentType: '', value: Buffer.from('v') }
  const older = update(emptyVersionSet, undefined, { ...version, counter: 1 })
  const newer = update(older, undefined, { ...version, counter: 2 })
  for (const isRepaired of [true, false]) {
    const { clock, coordinator, sent, targets } = rig('elsewhere')
    let failure: SunwiseError | undefined
    let receipt: Receipt | undefined
    coordinator.get(bucket, key, {}, (error, answer) => {
      failure = error
      receipt = answer?.receipt
    })
    const { requestId } = decodePeerMessage(sent[0]!)!
    const head = { requestId, epoch: 1, fence: 0, timeoutMs: 0 }
    const told = (set: VersionSet, isWhole: boolean): PeerMessage => ({
      ...head,
      type: 'found',
      failure: undefined,
      life: 1,
      isDurable: true,
      digest: digest(set, actors),
      set: isWhole ? encodeSet(set, actors) : undefined,
    })
    coordinator.receive('a', told(newer, true))
    clock.advance(Limits.timeoutMsDefault / 2)
    coordinator.tick()
    coordinator.receive('c', told(older, false))
    coordinator.receive('c', told(older, true))
    assert.deepEqual(
      sent.map((bytes, index) => `${decodePeerMessage(bytes)?.type} ${targets[index]}`),
      ['read a', 'read b', 'read c', 'read c', 'write c'],
    )
    coordinator.receive('b', told(older, false))
    const problem = isRepaired ? undefined : ({ code: 'OVERLOADED', outcome: 'none' } as const)
    coordinator.receive('c', { ...head, type: 'written', failure: problem, isDurable: true, credit: 0 })
    assert.equal(failure?.code, isRepaired ? undefined : 'QUORUM_NOT_MET', 'Only one replica has it')
    assert.deepEqual(
      receipt?.nodes?.map(({ node }) => node),
      isRepaired ? ['a', 'c'] : undefined,
    )
    assert.equal(coordinator.pendingCount, 0)
  }
})
