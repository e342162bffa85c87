/** Hints of one node: its shard is the real one over a simulated disk, other nodes are what the test says. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { partitionOfKey } from '../../src/cluster/slots.ts'
import { Limits } from '../../src/config.ts'
import { HintStore } from '../../src/replication/hint-store.ts'
import { decodePeerMessage, type WriteMessage } from '../../src/replication/peer-message.ts'
import { RepairBudget } from '../../src/replication/repair-budget.ts'
import { RepairLedger } from '../../src/replication/repair-ledger.ts'
import { ActorRegistry } from '../../src/versions/actor-registry.ts'
import { decodeSet, encodeSet } from '../../src/versions/set-codec.ts'
import { emptyVersionSet, update } from '../../src/versions/version-set.ts'
import { bucketOf, ShardRig } from '../shard/shard-rig.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { bytesOf, textOf } from '../storage/store-rig.ts'

const bucketId = 1
const all = Array.from({ length: Limits.partitions }, (_, index) => index)

/** A version set of one value, written by an actor of its own. */
function setOf(value: string, actorLow: number): Uint8Array {
  const actors = new ActorRegistry()
  const version = {
    actor: actors.indexOf(actorLow, 9),
    counter: 1,
    tombstone: false,
    expiresAtMs: 0,
    timestamp: 0,
    contentType: 'text/plain',
    value: bytesOf(value),
  }
  return encodeSet(update(emptyVersionSet, undefined, version), actors)
}

function valuesOf(set: Uint8Array): string[] {
  const decoded = decodeSet(set, 0, set.length, new ActorRegistry().indexOf)
  assert.ok(typeof decoded !== 'string')
  return decoded.versions.map(({ value }) => textOf(value)).sort()
}

type Sent = { readonly to: string; readonly message: WriteMessage }

/** The node n0. Its disk and clock outlive a restart. */
class HintRig {
  readonly disk: SimDisk
  readonly clock = new SimClock()
  readonly random: SeededRandom
  readonly alive = new Set(['n0', 'n1', 'n2', 'n3'])
  writers: readonly string[] = ['n0', 'n1', 'n2']
  epoch = 1
  options: { readonly bytesMax?: number; readonly ageMsMax?: number } = {}
  isBucketKnown = true
  /** What targets say that they take. */
  credit = 16
  bytesPerSecond = 1_000_000
  ledger = new RepairLedger(this.clock)
  budget = new RepairBudget(this.clock, this.bytesPerSecond)
  sent: Sent[] = []
  rig: ShardRig
  hints: HintStore

  constructor(seed: string) {
    this.random = new SeededRandom(seed)
    this.disk = new SimDisk({ random: this.random.fork('disk') })
    this.rig = this.#open()
    this.hints = this.#begin()
  }

  #open(): ShardRig {
    return new ShardRig({ disk: this.disk, clock: this.clock, unsyncedNoted: true, segmentBytes: 65536 }).open()
  }

  #begin(): HintStore {
    const { rig } = this
    this.ledger = new RepairLedger(this.clock)
    this.budget = new RepairBudget(this.clock, this.bytesPerSecond)
    rig.replica.track(all, false, 1000, (error) => assert.equal(error, undefined))
    rig.settle()
    return new HintStore({
      self: 'n0',
      clock: this.clock,
      replica: rig.replica,
      routing: () => ({
        epoch: this.epoch,
        readersOf: () => this.writers,
        writersOf: () => [this.writers],
        fallbacksOf: () => [],
        isAlive: (node) => this.alive.has(node),
        standingOf: () => ({ epoch: this.epoch, fence: this.epoch }),
        accepts: () => true,
        holds: () => true,
      }),
      ledger: this.ledger,
      budget: this.budget,
      bucketOf: (id) => (id === bucketId && this.isBucketKnown ? bucketOf() : undefined),
      send: (to, bytes) => {
        const message = decodePeerMessage(bytes)
        assert.ok(message?.type === 'write')
        this.sent.push({ to, message })
        return true
      },
      durability: 'sync',
      ...this.options,
    })
  }

  /** The process ends, perhaps with the power; another one begins. */
  restart(how: 'kill' | 'power' = 'power'): void {
    if (how === 'kill') this.disk.kill(this.random)
    else this.disk.crash(this.random)
    this.sent = []
    this.clock.advance(1000)
    this.rig = this.#open()
    this.hints = this.#begin()
  }

  /** Ticks, and what they set going. */
  pass(ticks = 1, stepMs = 50): void {
    for (let tick = 0; tick < ticks; tick++) {
      this.clock.advance(stepMs)
      this.rig.tick()
      this.budget.tick()
      this.hints.tick()
      this.rig.settle()
    }
  }

  keep(target: string, key: string, set: Uint8Array, durability: 'sync' | 'os' = 'sync'): boolean | SunwiseError {
    let said: boolean | SunwiseError | undefined
    this.hints.keep(target, bucketId, bytesOf(key), set, durability, (error, isDurable) => {
      said = error ?? isDurable
    })
    this.rig.settle()
    assert.ok(said !== undefined)
    return said
  }

  missed(target: string, key: string): void {
    this.hints.missed(target, bucketId, bytesOf(key))
    this.rig.settle()
  }

  /** A target answers what it was sent. */
  answer({ to, message }: Sent, code?: 'OVERLOADED' | 'WRONG_EPOCH'): void {
    const failure = code === undefined ? undefined : ({ code, outcome: 'none' } as const)
    const { requestId } = message
    const head = { requestId, epoch: 1, fence: 0, timeoutMs: 0 }
    this.hints.receive(to, { type: 'written', ...head, failure, isDurable: true, credit: this.credit })
    this.rig.settle()
  }

  /** Lets time pass, and targets take what comes, until there are no more hints. Keys by target. */
  drain(ticks = 400): string[] {
    const taken: string[] = []
    for (let tick = 0; tick < ticks && (this.hints.count > 0 || this.hints.isLoading); tick++) {
      this.pass()
      for (const each of this.sent.splice(0)) {
        taken.push(`${each.to} ${textOf(each.message.key)} ${valuesOf(each.message.set).join('+')}`.trimEnd())
        this.answer(each)
      }
    }
    return taken.sort()
  }

  records(): number {
    let count = 0
    let place: Parameters<typeof this.rig.replica.listHints>[0] | undefined = { partition: 0, after: undefined }
    while (place !== undefined) {
      this.rig.replica.listHints(place, false, 1 << 20, 1000, (error, page) => {
        assert.equal(error, undefined)
        count += page!.hints.length
        place = page!.next
      })
      this.rig.settle()
    }
    return count
  }
}

test('HintStore: a fallback acknowledges as durably as asked, and what it has outlives a power cut', () => {
  const node = new HintRig('fallback')
  node.alive.delete('n1')
  let isAnswered = false
  node.hints.keep('n1', bucketId, bytesOf('a'), setOf('one', 1), 'os', (error, isDurable) => {
    assert.equal(error, undefined)
    assert.equal(isDurable, false)
    isAnswered = true
  })
  assert.equal(isAnswered, false, 'It is not written yet')
  node.rig.settle()
  assert.ok(isAnswered)
  assert.equal(node.keep('n1', 'a', setOf('two', 2)), true)
  assert.equal(node.keep('n1', 'b', setOf('three', 3)), true)
  node.restart()
  assert.equal(node.hints.count, 0, 'Hints are read back beside other work')
  node.pass(20)
  assert.deepEqual(node.hints.counts(), [['n1', 2]])
  assert.equal(node.hints.isLoading, false)
  assert.deepEqual(node.sent, [])
  node.alive.add('n1')
  assert.deepEqual(node.drain(), ['n1 a one+two', 'n1 b three'])
  assert.equal(node.hints.counters.delivered, 2)
  assert.equal(node.records(), 0)
  assert.equal(node.hints.bytes, 0)
  node.restart('kill')
  node.pass(20)
  assert.equal(node.hints.count, 0, 'What was handed over does not come back')
})

test('HintStore: what comes before hints were read back is merged with what lies in the shard', () => {
  const node = new HintRig('merged')
  node.alive.delete('n1')
  node.keep('n1', 'a', setOf('one', 1))
  node.restart()
  assert.equal(node.keep('n1', 'a', setOf('two', 2)), true)
  node.alive.add('n1')
  assert.deepEqual(node.drain(), ['n1 a one+two'])
})

test('HintStore: a hint of its own replica names the key, and the state of then is sent', () => {
  const node = new HintRig('own')
  node.alive.delete('n2')
  node.rig.put(bytesOf('a'), bytesOf('first'))
  node.missed('n2', 'a')
  const writes = node.rig.shards[0]!.store.groups
  node.missed('n2', 'a')
  assert.equal(node.rig.shards[0]!.store.groups, writes, 'One hint is enough for all that a key goes through')
  node.restart()
  node.rig.put(bytesOf('a'), bytesOf('second'))
  node.alive.add('n2')
  assert.deepEqual(node.drain(), ['n2 a second'])
  assert.equal(node.records(), 0)
})

test('HintStore: what comes while a hint is under way is not removed with it', () => {
  const node = new HintRig('meanwhile')
  node.keep('n1', 'a', setOf('one', 1))
  node.pass()
  const [first] = node.sent.splice(0)
  node.hints.missed('n1', bucketId, bytesOf('a'))
  node.keep('n1', 'a', setOf('two', 2))
  node.answer(first!)
  assert.equal(node.hints.count, 1)
  assert.deepEqual(node.drain(), ['n1 a one+two'])
  // The same while its record is being removed.
  node.keep('n1', 'b', setOf('one', 1))
  node.pass()
  const { message } = node.sent.splice(0)[0]!
  const written = {
    type: 'written',
    epoch: 1,
    fence: 0,
    timeoutMs: 0,
    failure: undefined,
    isDurable: true,
    credit: 1,
  } as const
  node.hints.receive('n1', { ...written, requestId: message.requestId })
  node.hints.missed('n1', bucketId, bytesOf('b'))
  node.rig.settle()
  assert.equal(node.hints.count, 1)
  assert.equal(node.records(), 1)
  node.restart()
  node.pass(20)
  assert.equal(node.hints.count, 1)
})

test('HintStore: a target that refuses or is silent is asked again, and hints go on meanwhile', () => {
  const node = new HintRig('again')
  for (let index = 0; index < 40; index++) node.keep('n1', `k${index}`, setOf('v', 1))
  node.pass()
  assert.equal(node.sent.length, 1, 'Nobody knows yet how many it takes')
  node.answer(node.sent.pop()!)
  assert.equal(node.sent.length, 16, 'So many are under way')
  const [refused, taken] = node.sent
  node.answer(refused!, 'OVERLOADED')
  node.answer(taken!)
  assert.equal(node.sent.length, 18)
  node.sent = []
  node.pass(1, 500)
  assert.equal(node.sent.length, 0)
  node.pass(1, 5000)
  node.pass(1, 1000)
  assert.equal(node.drain().length, 38)
  assert.equal(node.hints.count, 0)
})

test("HintStore: beyond its bytes a replica's hint is dropped and counted, a fallback's refused", () => {
  const node = new HintRig('full')
  node.options = { bytesMax: 1000 }
  node.restart()
  node.alive.delete('n1')
  for (let index = 0; index < 20; index++) node.missed('n1', `k${index}`)
  assert.ok(node.hints.bytes <= 1000)
  const { droppedFull, kept } = node.hints.counters
  assert.deepEqual([node.hints.count, droppedFull], [kept, 20 - kept])
  assert.ok(droppedFull > 0)
  const { marked, behind } = Object.groupBy(
    Array.from({ length: 20 }, (_, index) => node.ledger.statusOf(partitionOfKey(bytesOf(`k${index}`)), 'n1').state),
    (state) => state,
  )
  assert.deepEqual([marked?.length, behind?.length], [droppedFull, kept], 'What was dropped is compared first')
  const said = node.keep('n1', 'a', setOf('one', 1))
  assert.equal((said as SunwiseError).code, 'OVERLOADED')
  assert.equal((said as SunwiseError).outcome, 'none')
  assert.equal(node.records(), node.hints.count, 'What was refused is nowhere')
})

test('HintStore: with more hints on disk than fit it reads on as it hands over', () => {
  const node = new HintRig('many')
  node.alive.delete('n1')
  const keys = Array.from({ length: 700 }, (_, index) => `k${index}`)
  for (const key of keys)
    node.hints.keep('n1', bucketId, bytesOf(key), setOf(key, 1), 'os', (error) => assert.equal(error, undefined))
  node.rig.settle()
  node.options = { bytesMax: 60_000 }
  node.restart('kill')
  node.pass(50)
  assert.ok(node.hints.bytes <= 60_000)
  assert.ok(node.hints.count > 50 && node.hints.count < 300, `${node.hints.count} are in memory`)
  assert.equal(node.hints.isLoading, true)
  node.alive.add('n1')
  assert.deepEqual(node.drain(3000), keys.map((key) => `n1 ${key} ${key}`).sort())
  assert.equal(node.hints.counters.droppedFull + node.hints.counters.droppedOld, 0)
  assert.equal(node.records(), 0)
})

test('HintStore: what nobody took for too long is dropped and counted, after a restart as well', () => {
  const node = new HintRig('old')
  node.options = { ageMsMax: 60_000 }
  node.restart()
  node.alive.delete('n1')
  node.keep('n1', 'a', setOf('one', 1))
  node.missed('n1', 'b')
  node.pass(10, 5000)
  node.keep('n1', 'a', setOf('two', 2))
  node.pass(4, 5000)
  assert.equal(node.hints.counters.droppedOld, 1)
  assert.deepEqual(node.hints.counts(), [['n1', 1]], 'The other one has news')
  node.restart()
  node.pass(10, 5000)
  assert.equal(node.hints.count, 0)
  assert.equal(node.hints.counters.droppedOld, 1)
  assert.equal(node.records(), 0)
})

test('HintStore: what only a fallback has does not grow too old before some owner took it', () => {
  const node = new HintRig('alone')
  node.options = { ageMsMax: 60_000 }
  node.writers = ['n1', 'n2']
  node.restart()
  for (const owner of node.writers) node.alive.delete(owner)
  node.keep('n1', 'a', setOf('one', 1))
  node.pass(30, 5000)
  assert.equal(node.hints.count, 1, 'Nobody else has it')
  node.alive.add('n2')
  node.pass()
  const [sent] = node.sent.splice(0)
  assert.equal(sent?.to, 'n2')
  assert.deepEqual(valuesOf(sent!.message.set), ['one'])
  assert.equal(node.hints.count, 1, 'It has not said yet that it took it')
  node.answer(sent!)
  assert.equal(node.hints.count, 0)
  assert.equal(node.hints.counters.droppedOld, 1)
  assert.equal(node.ledger.statusOf(partitionOfKey(bytesOf('a')), 'n1').state, 'marked')
})

test('HintStore: what is handed over keeps to the budget of repair', () => {
  const node = new HintRig('budget')
  node.bytesPerSecond = 2000
  node.restart()
  for (let index = 0; index < 60; index++) node.keep('n1', `k${index}`, setOf('x'.repeat(100), 1))
  let bytes = 0
  for (let tick = 0; tick < 40; tick++) {
    node.pass()
    for (const each of node.sent.splice(0)) {
      bytes += each.message.set.length
      node.answer(each)
    }
  }
  assert.ok(bytes > 1500 && bytes < 5000, `${bytes} bytes in two seconds`)
  node.drain(2000)
  assert.equal(node.hints.counters.delivered, 60)
})

test('HintStore: hints of a node that is no replica any more go to those that are', () => {
  const node = new HintRig('moved')
  node.alive.delete('n1')
  node.keep('n1', 'a', setOf('one', 1))
  node.rig.put(bytesOf('b'), bytesOf('own'))
  node.missed('n1', 'b')
  node.epoch = 2
  node.writers = ['n0', 'n2', 'n3']
  node.pass(5)
  assert.deepEqual(node.drain(), ['n2 a one', 'n2 b own', 'n3 a one', 'n3 b own'])
  assert.equal(node.records(), 0)
  let own: Uint8Array | undefined
  node.rig.replica.read(bucketId, bytesOf('a'), 1000, (_, held) => {
    own = held?.set
  })
  assert.deepEqual(valuesOf(own!), ['one'], 'This node owns the key, too')
})

test('HintStore: hints of a bucket that is not known are kept', () => {
  const node = new HintRig('bucket')
  node.keep('n1', 'a', setOf('one', 1))
  node.isBucketKnown = false
  node.pass(20)
  assert.equal(node.hints.count, 1)
  node.isBucketKnown = true
  assert.deepEqual(node.drain(), ['n1 a one'])
})

test('HintStore: an answer to a run before is none to this one', () => {
  const node = new HintRig('stale')
  node.keep('n1', 'a', setOf('one', 1))
  node.pass()
  const [stale] = node.sent.splice(0)
  node.restart()
  node.pass(20)
  assert.equal(node.sent.length, 1)
  node.answer(stale!)
  assert.equal(node.hints.count, 1)
})
