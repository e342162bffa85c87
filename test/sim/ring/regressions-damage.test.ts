/** Damage of tables in a cluster: what one replica lost comes back from the others, and what it does not have never counts as deleted. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { partitionOfSlot, slotOfKey } from '../../../src/cluster/slots.ts'
import { CompareVerb } from '../../../src/shard/command.ts'
import { RingClient } from './ring-client.ts'
import { RingSim, type RingSimOptions } from './ring-sim.ts'
import type { SimNode } from './sim-node.ts'

const keys = Array.from({ length: 400 }, (_, index) => `{tag${index % 4}}key${index}`)
const contentOf = (key: string, round = 0): string => `${key} ${round}`.padEnd(100)

/** A ring whose nodes have their data in tables. */
function ring(seed: string, options: Partial<RingSimOptions> = {}): RingClient {
  const sim = new RingSim({ seed, nodes: 3, operations: 0, faults: [], hasTables: true, keys, ...options })
  return new RingClient(sim).start()
}

/** A ring in which all nodes have all keys, the last one of them to be damaged. */
function filled(
  seed: string,
  options: Partial<RingSimOptions> = {},
): { client: RingClient; sim: RingSim; first: SimNode; second: SimNode; bad: SimNode } {
  const client = ring(seed, options)
  const { sim } = client
  const [first, second] = sim.nodes
  for (const key of keys) client.put(first!, key, contentOf(key), { w: 'all' })
  sim.pass(10_000)
  return { client, sim, first: first!, second: second!, bad: sim.nodes.at(-1)! }
}

/** Flips a bit in every so many bytes of its tables, of their blocks alone where they are read up to `share`. */
function damage({ disk }: SimNode, every: number, from = 100, share = 1): void {
  const tables = disk.paths().filter((path) => path.endsWith('.sst'))
  assert.ok(tables.length > 0, 'It has tables')
  for (const path of tables) {
    const { length } = disk.bytesOf(path)
    for (let offset = from; offset < length * share; offset += every) disk.flipBit(path, offset, offset % 8)
  }
}

/** What a node answers from what it has itself: what it is asked alone, as for a read of one replica. */
function said({ sim }: RingClient, at: SimNode, key: string): string {
  let answer: string | undefined
  at.act(({ replica }) =>
    replica.read(1, Buffer.from(key), 1000, (error, held) => {
      answer = error?.code ?? Buffer.from(held!.set).toString('latin1')
    }),
  )
  assert.ok(sim.passUntil(() => answer !== undefined, 5000))
  return answer!
}

function partitionOf(key: string): number {
  const bytes = Buffer.from(key)
  return partitionOfSlot(slotOfKey(bytes, 0, bytes.length))
}

const tagOf = (key: string): string => key.slice(0, key.indexOf('}') + 1)

/** What comes of lists of all partitions that keys are in, as a node answers them alone. */
function listedBy({ sim }: RingClient, at: SimNode): string {
  let worst = ''
  for (const partition of new Set(keys.map(partitionOf))) {
    let isOver = false
    at.act(({ replica }) => {
      const range = { partition, bucketId: 1, prefix: new Uint8Array(0), after: undefined, limit: 1000 }
      replica.list({ ...range, bytesMax: 1 << 20, withValues: false }, 1000, (error) => {
        if (error !== undefined) worst = error.code
        isOver = true
      })
    })
    assert.ok(sim.passUntil(() => isOver, 5000))
  }
  return worst
}

/** Bytes of the clock by which a node attests what it has of a key's partition. */
function attestedBytes({ sim }: RingClient, at: SimNode, key: string): number {
  const partition = partitionOf(key)
  let clockBytes: number | undefined
  at.act(({ replica }) =>
    replica.compare(CompareVerb.joinStable, partition, new Uint8Array(0), 1000, (_error, answer) => {
      clockBytes = Buffer.from(answer!).readUInt32LE(8)
    }),
  )
  assert.ok(sim.passUntil(() => clockBytes !== undefined, 5000))
  return clockBytes!
}

/** Waits until a node answers for all of its partitions again. */
function passUntilWhole(client: RingClient, node: SimNode): void {
  const isWhole = (): boolean => keys.every((key) => said(client, node, key) !== 'TABLE_CORRUPT')
  for (let tries = 0; tries < 30 && !isWhole(); tries++) client.sim.pass(5000)
  assert.ok(isWhole(), `${node.name} answers for all keys again`)
}

test('Regression: damage while it runs. A replica finds it, answers nothing alone, and takes back what the others have; nothing is deleted on its word', () => {
  const { client, sim, first, second, bad } = filled('damage while it runs')
  damage(bad, 2000)
  // Whoever starts reads from the disk, not from what it has cached.
  bad.kill()
  bad.start()
  const refused = keys.filter((key) => said(client, bad, key) === 'TABLE_CORRUPT').length
  assert.ok(refused > 0, 'Damage is met')
  sim.passUntilNoticed()
  passUntilWhole(client, bad)
  for (const key of keys) {
    for (const node of [first, second, bad]) assert.equal(client.held(node, key), contentOf(key), node.name)
  }
  client.put(bad, keys[0]!, contentOf(keys[0]!, 1), { w: 'all' })
  assert.ok(client.values(first, keys[0]!, 'all').includes(contentOf(keys[0]!, 1)), 'Its next write is new to all')
})

test('Regression: damage that is not yet repaired. A replica that cannot reach the others answers none of what it has alone', () => {
  const { client, sim, first, second, bad } = filled('damage alone')
  first.kill()
  second.kill()
  bad.kill()
  damage(bad, 2000)
  bad.start()
  sim.pass(20_000)
  // What it met is noted by now: of these partitions it answers nothing, whole or not.
  const refused = keys.filter((key) => said(client, bad, key) === 'TABLE_CORRUPT')
  assert.ok(refused.length > 0)
  for (const tag of new Set(refused.map(tagOf))) {
    for (const key of keys) if (tagOf(key) === tag) assert.ok(refused.includes(key), `${key} is refused, too`)
    assert.equal(attestedBytes(client, bad, tag), 0, 'It has no vote in what is stable')
  }
  first.start()
  sim.passUntilNoticed()
  sim.pass(60_000)
  // One of two others is not enough: the second may have the only other copy of an acknowledged write.
  assert.ok(
    keys.some((key) => said(client, bad, key) === 'TABLE_CORRUPT'),
    'It still waits for the second',
  )
  second.start()
  sim.passUntilNoticed()
  passUntilWhole(client, bad)
})

test('Regression: damage, and a node leaves. It hands over what can be read, the new owner has the rest from others, and nothing waits', () => {
  const { client, sim, bad } = filled('damage and leave', { nodes: 4, members: 4 })
  bad.kill()
  damage(bad, 2000)
  bad.start()
  sim.passUntilNoticed()
  sim.leave(bad.name)
  assert.ok(
    sim.passUntil(() => !sim.memberNames.includes(bad.name), 900_000),
    sim.explain(),
  )
  client.settle()
  for (const key of keys) {
    for (const node of sim.replicasOf(key)) assert.equal(client.held(node, key), contentOf(key), node.name)
  }
})

test('Regression: damage upon damage. What is damaged later, behind a clock that knows of it, is not taken for deleted', () => {
  const { client, sim, first, second, bad } = filled('damage upon damage')
  bad.kill()
  damage(bad, 8000, 100, 0.6)
  bad.start()
  sim.passUntilNoticed()
  passUntilWhole(client, bad)
  damage(bad, 2000, 1100, 0.6)
  // Deletes that all have change what trees leave out: all of the partition is looked at again.
  for (let tag = 0; tag < 4; tag++) client.put(first, `{tag${tag}}passing`, 'a value', { w: 'all' })
  for (let tag = 0; tag < 4; tag++) client.delete(first, `{tag${tag}}passing`, { w: 'all' })
  sim.pass(60_000)
  for (const key of keys) {
    for (const node of [first, second, bad]) assert.equal(client.held(node, key), contentOf(key), node.name)
  }
})

for (const [when, verb] of [
  ['between its clock and its tree', CompareVerb.children],
  ['between the comparison and the clock that it joins', CompareVerb.joinClock],
] as const) {
  test(`Regression: damage in the middle, ${when}. What it took is not deleted by others`, () => {
    const { client, sim, first, second, bad } = filled('damage in the middle')
    let isClockTold = false
    let isHit = false
    const { replica } = bad.node
    const compare = replica.compare.bind(replica)
    replica.compare = (asked, partition, payload, timeoutMs, done) => {
      const isHere = partition === partitionOf(keys[0]!)
      if (isHere && !isHit && asked === verb && (isClockTold || verb === CompareVerb.joinClock)) {
        isHit = true
        damage(bad, 2000)
        bad.shard.store.damaged.found(partition)
      }
      compare(asked, partition, payload, timeoutMs, (error, answer) => {
        if (isHere && asked === CompareVerb.clock) isClockTold = true
        done(error, answer)
      })
    }
    assert.ok(sim.passUntil(() => isHit, 120_000))
    sim.pass(120_000)
    for (const key of keys) {
      for (const node of [first, second]) assert.equal(client.held(node, key), contentOf(key), node.name)
    }
  })
}

test('Regression: damage that is not yet repaired, and one more start. It still answers nothing alone, and is not taken for whole', () => {
  const { client, sim, second, bad } = filled('damage and one more start')
  second.kill()
  bad.kill()
  damage(bad, 2000, 100, 0.6)
  bad.start()
  sim.passUntilNoticed()
  for (let start = 0; start < 2; start++) {
    sim.pass(60_000)
    const refused = keys.filter((key) => said(client, bad, key) === 'TABLE_CORRUPT')
    assert.ok(refused.length > 0, `It waits after ${start} more starts`)
    assert.ok(bad.damageNoted > 0)
    bad.kill()
    bad.start()
    sim.passUntilNoticed()
  }
})

test('Regression: damage is mended. Clean tables take the place of damaged ones, and a start, and what is asked then, is as if nothing had been', () => {
  const { client, sim, first, second, bad } = filled('damage mended')
  const deleted = new Set(keys.filter((_, index) => index % 10 === 3))
  for (const key of deleted) client.delete(first, key, { w: 'all' })
  sim.pass(60_000)
  bad.kill()
  damage(bad, 2000, 100, 0.7)
  const rewritten = keys.filter((_, index) => index % 10 === 6)
  for (const key of rewritten) client.put(first, key, contentOf(key, 1))
  bad.start()
  sim.passUntilNoticed()
  const isMended = (): boolean => bad.damageNoted === 0 && bad.shard.store.tables!.damagedTables === 0
  sim.pass(10_000)
  assert.ok(sim.passUntil(isMended, 300_000), 'The catalog knows of no damage any more')
  client.settle()
  const holds = (): void => {
    for (const key of keys) {
      const answer = said(client, bad, key)
      assert.notEqual(answer, 'TABLE_CORRUPT', key)
      const isThere = answer.includes(contentOf(key)) || answer.includes(contentOf(key, 1))
      assert.equal(isThere, !deleted.has(key), key)
      if (rewritten.includes(key) && !deleted.has(key)) assert.ok(answer.includes(contentOf(key, 1)), key)
    }
    const listed = listedBy(client, bad)
    assert.notEqual(listed, 'TABLE_CORRUPT')
  }
  holds()
  first.kill()
  second.kill()
  bad.kill()
  bad.start()
  sim.pass(20_000)
  holds()
  assert.equal(bad.shard.store.tables!.damagedTables, 0)
})

for (const met of ['by the merge', 'by reads']) {
  test(`Regression: damage while it is mended. What is damaged once more before the clean tables are written, and met ${met}, is not left out of them`, () => {
    const { client, sim, first, second, bad } = filled('damage while mended')
    bad.kill()
    damage(bad, 8000, 100, 0.6)
    bad.start()
    const partitions = [...new Set(keys.map(partitionOf))]
    const { damaged } = bad.shard.store
    const isGivenUp = (): boolean => partitions.some((partition) => damaged.givenUp(partition) !== undefined)
    assert.ok(sim.passUntil(isGivenUp, 300_000), 'It has got back what it lost')
    assert.ok(bad.damageNoted > 0, 'And is not mended yet')
    damage(bad, 2000, 1100, 0.6)
    // Reads pass over what was known to be damaged, and over nothing else.
    bad.act(({ replica }) => {
      if (met === 'by reads') for (const key of keys) replica.read(1, Buffer.from(key), 1000, () => {})
    })
    sim.pass(60_000)
    const isMended = (): boolean => bad.damageNoted === 0 && bad.shard.store.tables!.damagedTables === 0
    assert.ok(sim.passUntil(isMended, 600_000), 'All of it is mended')
    for (const key of keys) {
      for (const node of [first, second, bad]) assert.equal(client.held(node, key), contentOf(key), node.name)
    }
  })
}
