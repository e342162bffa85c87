/** What a shard does with what other replicas have: merge commands, clocks, trees, over a simulated node. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SunwiseError } from '../../src/base/errors.ts'
import { partitionOfSlot, slotOfKey } from '../../src/cluster/slots.ts'
import { CompareVerb } from '../../src/shard/command.ts'
import { ActorRegistry } from '../../src/versions/actor-registry.ts'
import { encodeSet } from '../../src/versions/set-codec.ts'
import { type Attested, decodeAttested, decodeStable, encodeStable, type Stable } from '../../src/versions/stability.ts'
import type { ActorTable, Vector, Version } from '../../src/versions/version-set.ts'
import { RingSim } from '../sim/ring/ring-sim.ts'
import type { SimNode } from '../sim/ring/sim-node.ts'

const key = Buffer.from('{tag}key')
const partition = partitionOfSlot(slotOfKey(key, 0, key.length))
/** Actors of another node, by index. */
const actors: ActorTable = { lowOf: (index) => 100 + index, highOf: () => 5 }

/** One node alone, whose partitions have other replicas as far as it knows. */
function nodeAlone(): { readonly sim: RingSim; readonly node: SimNode } {
  const sim = new RingSim({ seed: 'merge', nodes: 1, operations: 0, faults: [], keys: [key.toString()] })
  sim.start()
  sim.pass(500)
  // As if others held the partition, too.
  sim.nodes[0]!.act(({ replica }) => replica.track([partition], false, 1000, (error) => assert.equal(error, undefined)))
  sim.pass(500)
  return { sim, node: sim.nodes[0]! }
}

function setOf(dots: readonly [actor: number, counter: number, value: string][], vector: Vector): Uint8Array {
  const versions = dots.map(
    ([actor, counter, value]): Version => ({
      actor,
      counter,
      tombstone: value === '',
      expiresAtMs: 0,
      timestamp: 0,
      contentType: 'application/octet-stream',
      value: Buffer.from(value),
    }),
  )
  return encodeSet({ versions, vector }, actors)
}

/** Merges and waits; the error's code, or 'ok'. */
function merge(sim: RingSim, node: SimNode, set: Uint8Array): string {
  let said: string | undefined
  node.act(({ replica }) =>
    replica.merge(1, key, set, false, 'sync', 1000, (error) => {
      said = error?.code ?? 'ok'
    }),
  )
  assert.ok(sim.passUntil(() => said !== undefined, 3000))
  return said!
}

const textOf = (sim: RingSim, node: SimNode): string => Buffer.from(sim.held(node, key.toString())).toString('latin1')

test('Shard: a merge is durable when it is answered, and is there after a power cut with its clock', () => {
  const { sim, node } = nodeAlone()
  assert.equal(merge(sim, node, setOf([[0, 2, 'value two']], [{ actor: 0, counter: 2 }])), 'ok')
  node.cutPower()
  node.start()
  sim.pass(500)
  assert.ok(textOf(sim, node).includes('value two'))
  const { store } = node.shard
  const actor = store.actorIndex(100, 5)
  const clock = store.clockOf(partition)!
  assert.ok(clock.covers(actor, 2) && !clock.covers(actor, 1))
})

test('Shard: what came late and was replaced here since does not come back', () => {
  const { sim, node } = nodeAlone()
  assert.equal(merge(sim, node, setOf([[0, 1, 'old']], [{ actor: 0, counter: 1 }])), 'ok')
  assert.equal(merge(sim, node, setOf([[0, 2, 'new']], [{ actor: 0, counter: 2 }])), 'ok')
  assert.equal(merge(sim, node, setOf([[0, 1, 'old']], [{ actor: 0, counter: 1 }])), 'ok')
  assert.ok(textOf(sim, node).includes('new') && !textOf(sim, node).includes('old'))
})

test('Shard: concurrent versions become siblings, in whatever order they come', () => {
  const left = setOf([[0, 1, 'left']], [{ actor: 0, counter: 1 }])
  const right = setOf([[1, 1, 'right']], [{ actor: 1, counter: 1 }])
  const held = [
    [left, right],
    [right, left, left],
  ].map((order) => {
    const { sim, node } = nodeAlone()
    for (const set of order) assert.equal(merge(sim, node, set), 'ok')
    return textOf(sim, node)
  })
  assert.equal(held[0], held[1])
  assert.ok(held[0]!.includes('left') && held[0]!.includes('right'))
})

test('Shard: bytes that are no version set change nothing', () => {
  const { sim, node } = nodeAlone()
  assert.equal(merge(sim, node, Uint8Array.of(1, 2, 3)), 'UNPROCESSABLE')
  assert.ok(node.isUp)
  assert.equal(textOf(sim, node).length, 8)
})

test('Shard: a version of its own actor that it never wrote makes it take a new one first', () => {
  const { sim, node } = nodeAlone()
  const { store } = node.shard
  const [low, high] = [store.actorLow(store.actor), store.actorHigh(store.actor)]
  const forged = encodeSet(
    {
      versions: [
        {
          actor: 0,
          counter: 9,
          tombstone: false,
          expiresAtMs: 0,
          timestamp: 0,
          contentType: 'application/octet-stream',
          value: Buffer.from('x'),
        },
      ],
      vector: [{ actor: 0, counter: 9 }],
    },
    { lowOf: () => low, highOf: () => high },
  )
  assert.equal(merge(sim, node, forged), 'NOT_READY')
  assert.notDeepEqual([store.actorLow(store.actor), store.actorHigh(store.actor)], [low, high])
  assert.equal(merge(sim, node, forged), 'ok', 'What another incarnation wrote is taken in')
})

test('Shard: a merge that could not be written is in no clock', () => {
  const { sim, node } = nodeAlone()
  node.disk.fail({ kind: 'write', error: 'ENOSPC', times: Number.POSITIVE_INFINITY })
  const said = merge(sim, node, setOf([[0, 1, 'x'.repeat(100)]], [{ actor: 0, counter: 1 }]))
  assert.notEqual(said, 'ok')
  const { store } = node.shard
  assert.equal(store.clockOf(partition)!.covers(store.actorIndex(100, 5), 1), false)
  node.disk.heal()
  sim.pass(2000)
  assert.equal(merge(sim, node, setOf([[0, 1, 'y']], [{ actor: 0, counter: 1 }])), 'ok', 'and is taken in later')
  assert.ok(textOf(sim, node).includes('y'))
})

test('Shard: the tree of a partition is the sum of what is there, however it came to be', () => {
  const { sim, node } = nodeAlone()
  const { store } = node.shard
  const lanesOf = (): string => String(store.treeOf(partition).children([0]))
  const empty = lanesOf()
  merge(sim, node, setOf([[0, 1, 'a']], [{ actor: 0, counter: 1 }]))
  const first = lanesOf()
  assert.notEqual(first, empty)
  merge(sim, node, setOf([[0, 2, 'b']], [{ actor: 0, counter: 2 }]))
  const second = lanesOf()
  assert.notEqual(second, first)
  node.kill()
  node.start()
  sim.pass(500)
  assert.equal(String(node.shard.store.treeOf(partition).children([0])), second, 'Built anew it is the same')
  assert.ok(node.shard.store.treeOf(partition).isWhole())
})

test('LocalReplica.compare(): numbers that name no node of a tree are refused', () => {
  const { sim, node } = nodeAlone()
  let refusal: SunwiseError | undefined
  node.act(({ replica }) =>
    replica.compare(2, partition, Uint8Array.of(0xff, 0xff), 1000, (error) => {
      refusal = error
    }),
  )
  assert.ok(sim.passUntil(() => refusal !== undefined, 2000))
  assert.ok(refusal instanceof SunwiseError && refusal.code === 'UNPROCESSABLE')
})

/** Tells the shard what is stable, or nothing; what it attests, and knows to be stable then. */
function joinStable(
  sim: RingSim,
  node: SimNode,
  stable: Stable | undefined,
): { readonly attested: Attested | undefined; readonly stable: Stable } {
  const registry = new ActorRegistry()
  const payload = stable === undefined ? new Uint8Array(0) : encodeStable(stable, actors)
  let answer: Uint8Array | undefined
  node.act(({ replica }) =>
    replica.compare(CompareVerb.joinStable, partition, payload, 1000, (error, bytes) => {
      assert.equal(error, undefined)
      answer = bytes
    }),
  )
  assert.ok(sim.passUntil(() => answer !== undefined, 2000))
  const decoded = decodeAttested(answer!, registry.indexOf)
  assert.ok(typeof decoded !== 'string')
  const known = decodeStable(decoded.stable, registry.indexOf)
  assert.ok(typeof known !== 'string')
  return { attested: decoded.attested, stable: known }
}

test('Shard: what is stable never goes back, whatever it is told', () => {
  const { sim, node } = nodeAlone()
  const tell = (counter: number, expiredBeforeMs: number): number[] => {
    const { stable } = joinStable(sim, node, { vector: [{ actor: 0, counter }], expiredBeforeMs })
    return [stable.vector[0]!.counter, stable.expiredBeforeMs]
  }
  assert.deepEqual(tell(5, 60_000), [5, 60_000])
  assert.deepEqual(tell(3, 120_000), [5, 120_000])
  assert.deepEqual(tell(6, 0), [6, 120_000])
  assert.deepEqual(joinStable(sim, node, undefined).stable.vector[0]!.counter, 6)
})

test('Shard: a delete that is stable leaves the tree at once, and so does what has expired for all', () => {
  const { sim, node } = nodeAlone()
  const lanesOf = (): string => String(node.shard.store.treeOf(partition).children([0]))
  const empty = lanesOf()
  merge(sim, node, setOf([[0, 4, '']], [{ actor: 0, counter: 4 }]))
  assert.notEqual(lanesOf(), empty)
  joinStable(sim, node, { vector: [{ actor: 0, counter: 3 }], expiredBeforeMs: 0 })
  assert.notEqual(lanesOf(), empty, 'Not all have it')
  joinStable(sim, node, { vector: [{ actor: 0, counter: 4 }], expiredBeforeMs: 0 })
  assert.equal(lanesOf(), empty)
  const expiring = {
    actor: 0,
    counter: 5,
    tombstone: false,
    expiresAtMs: 100_000,
    timestamp: 0,
    contentType: 'text/plain',
    value: Buffer.from('x'),
  }
  merge(sim, node, encodeSet({ versions: [expiring], vector: [{ actor: 0, counter: 5 }] }, actors))
  joinStable(sim, node, { vector: [{ actor: 0, counter: 5 }], expiredBeforeMs: 60_000 })
  assert.notEqual(lanesOf(), empty, 'It is not over on all clocks')
  joinStable(sim, node, { vector: [{ actor: 0, counter: 5 }], expiredBeforeMs: 120_000 })
  assert.equal(lanesOf(), empty)
})

test('Shard: it attests what is on stable storage alone', () => {
  const { sim, node } = nodeAlone()
  const mergeUnsynced = (counter: number): void => {
    let isDone = false
    node.act(({ replica }) =>
      replica.merge(1, key, setOf([[0, counter, 'x']], [{ actor: 0, counter }]), false, 'os', 1000, (error) => {
        assert.equal(error, undefined)
        isDone = true
      }),
    )
    assert.ok(sim.passUntil(() => isDone, 2000))
  }
  mergeUnsynced(1)
  sim.pass(1000)
  mergeUnsynced(2)
  assert.equal(joinStable(sim, node, undefined).attested, undefined)
  sim.pass(1000)
  const { attested } = joinStable(sim, node, undefined)
  assert.equal(attested?.clock.bases().at(-1)?.counter, 2)
})
