/** What a node says in datagrams, whole: with the byte that names the part of it that speaks. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeMessage, encodeMessage, headBytesMax } from '../../../src/cluster/membership/messages.ts'
import { RingSim } from './ring-sim.ts'
import { simDatagramBytesMax } from './sim-node.ts'

test('Node: the longest news of members fill a datagram, and never more, so that they go as one', () => {
  const sim = new RingSim({ seed: 'datagrams', nodes: 3, operations: 0, faults: [], keys: ['key'] })
  sim.start()
  sim.pass(1000)
  const [speaker, other] = sim.nodes
  const lengths: number[] = []
  const { deliver } = sim.network
  sim.network.deliver = (from, to, bytes) => {
    const type = bytes[0] === 2 ? decodeMessage(bytes.subarray(1))?.type : undefined
    if (from === speaker!.name && type !== undefined && type !== 'state' && type !== 'pull') lengths.push(bytes.length)
    deliver(from, to, bytes)
  }
  // Addresses of all lengths, so that some message has room for not one byte more.
  for (let index = 0; index < 200; index++) {
    const nodeId = (0x1000 + index).toString(16).padStart(16, '0')
    const address = `${other!.name}${'x'.repeat(index % 40)}:1`
    const update = { nodeId, state: 'left', incarnation: 1, from: nodeId, address } as const
    const message = encodeMessage({ type: 'gossip', sender: nodeId, updates: [update] })
    speaker!.act(({ membership }) => membership.receive(other!.name, message, sim.events.nowMs))
  }
  sim.pass(10_000)
  const longest = Math.max(...lengths)
  assert.ok(longest <= simDatagramBytesMax, `${longest} bytes`)
  assert.ok(longest > simDatagramBytesMax - headBytesMax - 50, `${longest} bytes: they are filled`)
})
