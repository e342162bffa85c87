/** What env.ts says of the door `Network`, as tests that every implementation must pass. */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { Network } from '../../src/env.ts'

export type NodeUnderTest = {
  readonly address: string
  /** The door of the node, as long as it is up. */
  readonly network: Network
  /** Messages that came, since the last call, with the address of their sender. */
  readonly take: () => readonly { readonly from: string; readonly bytes: Uint8Array }[]
}

export type NetworkUnderTest = {
  /** Three nodes that are up, on a network without faults. */
  readonly nodes: readonly [NodeUnderTest, NodeUnderTest, NodeUnderTest]
  /** Lets time pass until something holds, or fails. */
  readonly until: (holds: () => boolean, what: string) => Promise<void>
  /** A node is gone, and there again under the same address. */
  readonly takeDown: (node: number) => Promise<void>
  readonly bringUp: (node: number) => Promise<void>
  /** So many bytes in one queue are surely too many. */
  readonly tooManyBytes: number
}

function messageOf(number: number, length: number): Uint8Array {
  const bytes = Uint8Array.from({ length }, (_, index) => number * 31 + index * 7 + (index >> 8))
  new DataView(bytes.buffer).setUint32(0, number, true)
  return bytes
}

/** The number of a message whose bytes are all as they were sent. */
function numberOf(bytes: Uint8Array): number {
  assert.ok(bytes.length >= 4, 'It has its number')
  const number = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)
  assert.equal(Buffer.compare(bytes, messageOf(number, bytes.length)), 0, `Message ${number} is as it was sent`)
  return number
}

/** Runs the suite against the networks that `makeNetwork` makes; `name` stands before each test's name. */
export function networkSuite(name: string, makeNetwork: (t: TestContext) => Promise<NetworkUnderTest>): void {
  test(`${name}: messages of all lengths arrive once, whole, with their sender`, async (t) => {
    const { nodes, until } = await makeNetwork(t)
    const [a, b, c] = nodes
    const lengths = [4, 5, 100, 1400, 4096, 65_535, 65_536, 262_144, 300_000, 1_500_000]
    const sent = lengths.map((length, number) => messageOf(number, length))
    for (const bytes of sent) {
      assert.ok(a.network.send(b.address, bytes, 'stream'))
      // What was sent is the sender's again.
      const copy = bytes.slice()
      bytes.fill(0)
      assert.ok(c.network.send(b.address, copy, 'stream'))
    }
    const came: Record<string, { number: number; length: number }[]> = { [a.address]: [], [c.address]: [] }
    await until(() => {
      for (const { from, bytes } of b.take()) came[from]!.push({ number: numberOf(bytes), length: bytes.length })
      return came[a.address]!.length >= lengths.length && came[c.address]!.length >= lengths.length
    }, 'all messages have come')
    const expected = lengths.map((length, number) => ({ number, length }))
    const byNumber = (of: string) => came[of]!.sort((one, other) => one.number - other.number)
    assert.deepEqual(byNumber(a.address), expected)
    assert.deepEqual(byNumber(c.address), expected)
    assert.deepEqual([a.take().length, c.take().length], [0, 0])
  })

  test(`${name}: thousands of messages both ways arrive once`, async (t) => {
    const { nodes, until } = await makeNetwork(t)
    const [a, b] = nodes
    const seen = [new Set<number>(), new Set<number>()]
    const takeAll = (): void => {
      for (const [index, node] of [a, b].entries()) {
        for (const { bytes } of node.take()) {
          const number = numberOf(bytes)
          assert.ok(!seen[index]!.has(number), `Message ${number} comes once`)
          seen[index]!.add(number)
        }
      }
    }
    for (let number = 0; number < 5000; number++) {
      assert.ok(a.network.send(b.address, messageOf(number, 4 + (number % 200)), 'stream'))
      assert.ok(b.network.send(a.address, messageOf(number, 4 + (number % 100)), 'stream'))
    }
    await until(() => {
      takeAll()
      return seen.every(({ size }) => size === 5000)
    }, 'all messages have come')
  })

  test(`${name}: datagrams arrive whole, sooner or later`, async (t) => {
    const { nodes, until } = await makeNetwork(t)
    const [a, b] = nodes
    const seen = new Set<number>()
    let number = 0
    await until(() => {
      for (const length of [4, 700, 1400]) a.network.send(b.address, messageOf(number++, length), 'datagram')
      for (const { from, bytes } of b.take()) {
        assert.equal(from, a.address)
        numberOf(bytes)
        seen.add(bytes.length)
      }
      return seen.size === 3
    }, 'datagrams of all lengths have come')
  })

  test(`${name}: a full queue refuses, and what it took arrives`, async (t) => {
    const { nodes, until, tooManyBytes } = await makeNetwork(t)
    const [a, b] = nodes
    const taken: number[] = []
    const length = 100_000
    let number = 0
    for (; number * length < tooManyBytes; number++) {
      if (a.network.send(b.address, messageOf(number, length), 'stream')) taken.push(number)
    }
    assert.ok(taken.length > 0 && taken.length < number, `${taken.length} of ${number} were taken`)
    const came: number[] = []
    await until(() => {
      came.push(...b.take().map(({ bytes }) => numberOf(bytes)))
      return came.length >= taken.length
    }, 'what was taken has come')
    assert.deepEqual(
      came.sort((one, other) => one - other),
      taken,
    )
    assert.ok(a.network.send(b.address, messageOf(number, length), 'stream'), 'There is room again')
  })

  test(`${name}: a node that was down is reached again, and nothing comes twice`, async (t) => {
    const { nodes, until, takeDown, bringUp } = await makeNetwork(t)
    const [a, b, c] = nodes
    let number = 0
    const seen = new Set<number>()
    const takeAll = (): number => {
      const came = b.take().map(({ bytes }) => numberOf(bytes))
      for (const one of came) {
        assert.ok(!seen.has(one), `Message ${one} comes once`)
        seen.add(one)
      }
      return came.length
    }
    const reach = (what: string): Promise<void> =>
      until(() => {
        a.network.send(b.address, messageOf(number++, 200), 'stream')
        return takeAll() > 0
      }, what)
    await reach('the node is reached')
    await takeDown(1)
    for (let message = 0; message < 100; message++) a.network.send(b.address, messageOf(number++, 200), 'stream')
    // Others are no worse off.
    a.network.send(c.address, messageOf(0, 50), 'stream')
    await until(() => c.take().length > 0, 'another node is reached')
    takeAll()
    await bringUp(1)
    await reach('the node is reached again')
    await takeDown(0)
    await bringUp(0)
    await reach('the node is reached from one that was down')
  })

  test(`${name}: what has no place to go is lost without harm`, async (t) => {
    const { nodes, until } = await makeNetwork(t)
    const [a, b] = nodes
    for (const address of ['127.0.0.1:1', 'nobody', '', 'a:b:c', 'x'.repeat(300)]) {
      for (const kind of ['stream', 'datagram'] as const) a.network.send(address, messageOf(1, 20), kind)
    }
    a.network.send(b.address, messageOf(2, 20), 'stream')
    await until(() => b.take().length > 0, 'others are reached')
  })
}
