/** Which pairs of partition and peer are compared when: the peers are what the test says, and every exchange fails or finds nothing. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SunwiseError } from '../../src/base/errors.ts'
import { type ComparedPartition, Exchanges } from '../../src/replication/exchanges.ts'
import { type CompareMessage, decodePeerMessage } from '../../src/replication/peer-message.ts'
import { RepairBudget } from '../../src/replication/repair-budget.ts'
import { RepairLedger } from '../../src/replication/repair-ledger.ts'
import { CompareVerb } from '../../src/shard/command.ts'
import { ActorRegistry } from '../../src/versions/actor-registry.ts'
import { treeArity } from '../../src/versions/hash-tree.ts'
import { PartitionClock } from '../../src/versions/partition-clock.ts'
import { encodeAttested, encodeStable, nothingStable } from '../../src/versions/stability.ts'
import { SimClock } from '../sim/sim-clock.ts'

const actors = new ActorRegistry()
const noClock = new PartitionClock().encode(actors)
const attested = encodeAttested(noClock, 0, encodeStable(nothingStable, actors))
const undamaged = new Uint8Array(4)
const lanes = new Uint8Array(treeArity * 8)
const tickMs = 50

function answerTo(verb: number): Uint8Array {
  if (verb === CompareVerb.joinStable) return attested
  if (verb === CompareVerb.damage) return undamaged
  return verb === CompareVerb.children ? lanes : noClock
}

class Rig {
  readonly clock = new SimClock()
  readonly ledger = new RepairLedger(this.clock)
  readonly alive = new Set(['n1', 'n2'])
  readonly failing = new Set<string>()
  held: ComparedPartition[] = [1, 2, 3].map((partition) => ({
    partition,
    others: ['n1', 'n2'],
    wantedSince: undefined,
  }))
  wanted: ComparedPartition[] = []
  alone: number[] = []
  epoch = 1
  /** Partition and peer of each exchange that began. */
  begun: string[] = []
  readonly exchanges = new Exchanges({
    self: 'n0',
    clock: this.clock,
    replica: {
      compare: (verb, _partition, _payload, _timeoutMs, done) => done(undefined, answerTo(verb)),
      read: (_bucketId, _key, _timeoutMs, done) => done(new SunwiseError('NOT_READY', 'no'), undefined),
      merge: (_bucketId, _key, _set, _lww, _durability, _timeoutMs, done) => done(undefined, undefined),
    },
    routing: () => ({
      epoch: this.epoch,
      readersOf: () => [],
      writersOf: () => [],
      fallbacksOf: () => [],
      isAlive: (node) => this.alive.has(node),
      standingOf: () => ({ epoch: this.epoch, fence: 1 }),
      accepts: () => true,
      holds: () => true,
    }),
    partitions: this,
    ledger: this.ledger,
    budget: new RepairBudget(this.clock, 1e9),
    bucketOf: () => undefined,
    send: (to, bytes) => {
      const message = decodePeerMessage(bytes) as CompareMessage
      const name = `${message.partition} ${to}`
      this.begun.push(name)
      this.#answers.push(() => {
        const failure = this.failing.has(name) ? ({ code: 'OVERLOADED', outcome: 'none' } as const) : undefined
        const head = { requestId: message.requestId, epoch: 1, fence: 0, timeoutMs: 0, life: 1 }
        this.exchanges.receive(to, { type: 'compared', ...head, failure, clock: noClock, attested, answer: lanes })
      })
      return true
    },
    durability: 'sync',
    restMs: 500,
  })
  readonly #answers: (() => void)[] = []

  isTouched(partition: number): boolean {
    return partition !== 2
  }

  othersOf(partition: number): readonly string[] {
    return this.held.find((each) => each.partition === partition)?.others ?? []
  }

  /** Lets time pass; what began meanwhile. */
  pass(durationMs: number): string[] {
    this.begun = []
    for (let ms = 0; ms < durationMs; ms += tickMs) {
      this.clock.advance(tickMs)
      this.exchanges.tick()
      for (const answer of this.#answers.splice(0)) answer()
    }
    return this.begun
  }
}

test('Exchanges: all that may hold something is compared in turn, at intervals, with peers that answer', () => {
  const rig = new Rig()
  assert.deepEqual(rig.pass(450), [], 'Not at once after a start')
  const round = rig.pass(2600)
  assert.deepEqual(round.slice(0, 5), ['1 n1', '1 n2', '3 n1', '3 n2', '1 n1'])
  assert.ok(round.length <= 6)
  rig.alive.delete('n1')
  assert.deepEqual([...new Set(rig.pass(3000))].sort(), ['1 n2', '3 n2'])
})

test('Exchanges: a marked pair comes first, again and again until it succeeds, and the others have their turns meanwhile', () => {
  const rig = new Rig()
  rig.pass(500)
  rig.failing.add('3 n2')
  rig.ledger.mark(3, 'n2')
  const begun = rig.pass(10_000)
  const marked = begun.filter((name) => name === '3 n2').length
  assert.ok(marked >= 7 && marked <= 16, `${marked} tries`)
  assert.ok(begun.filter((name) => name === '1 n1').length >= 3, 'It holds nobody up')
  assert.equal(rig.ledger.statusOf(3, 'n2').state, 'marked')
  rig.failing.clear()
  rig.pass(2000)
  assert.equal(rig.ledger.statusOf(3, 'n2').state, 'equal')
  rig.ledger.mark(9, 'n1')
  rig.pass(500)
  assert.equal(rig.ledger.markCount, 0, 'What is not held here is not compared')
})

test('Exchanges: those that a move waits for and those that are marked come by turns, and neither keeps the rest from its own', () => {
  const rig = new Rig()
  rig.pass(500)
  rig.epoch = 5
  rig.wanted = Array.from({ length: 40 }, (_, index) => ({ partition: 100 + index, others: ['n1'], wantedSince: 5 }))
  rig.held.push(
    ...Array.from({ length: 40 }, (_, index) => ({ partition: 200 + index, others: ['n2'], wantedSince: undefined })),
  )
  for (let index = 0; index < 40; index++) rig.ledger.mark(200 + index, 'n2')
  const begun = rig.pass(50 * 80)
  const count = (least: number, end: number): number =>
    begun.slice(0, 40).filter((name) => Number.parseInt(name, 10) >= least && Number.parseInt(name, 10) < end).length
  assert.ok(count(100, 200) >= 12, `${count(100, 200)} of moves`)
  assert.ok(count(200, 300) >= 12, `${count(200, 300)} marked`)
  assert.ok(count(0, 100) >= 2, `${count(0, 100)} in turn`)
  for (const { partition } of rig.wanted) assert.equal(rig.ledger.statusOf(partition, 'n1').epoch, 5)
  assert.ok(!rig.pass(1000).some((name) => name.startsWith('10')), 'Once is enough')
})
