import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { Limits } from '../../../src/config.ts'
import { encodeFrame, FrameDecoder, FrameType } from '../../../src/host/peer/frame.ts'
import { decodeRefused, encodeHello, type Hello } from '../../../src/host/peer/handshake.ts'
import { SharedRoom } from '../../../src/host/peer/shared-room.ts'
import { networkSuite } from '../../conformance/network-suite.ts'
import { SimClock } from '../../sim/sim-clock.ts'
import { clusterId, idOf, openPeer, type PeerRig, until } from './peer-rig.ts'

const text = (value: string): Uint8Array => Buffer.from(value)

for (const udp of [true, false]) {
  networkSuite(`PeerTransport ${udp ? 'with' : 'without'} UDP`, async (t) => {
    const rigs: PeerRig[] = []
    for (const node of [1, 2, 3]) rigs.push(await openPeer({ nodeId: idOf(node), udp }))
    t.after(() => Promise.all(rigs.map(({ transport }) => transport.close(0))))
    const ports = rigs.map(({ transport }) => transport.port)
    const underTest = (node: number) => ({
      address: rigs[node]!.transport.address,
      network: {
        datagramBytesMax: rigs[node]!.transport.datagramBytesMax,
        send: (...args: Parameters<PeerRig['transport']['send']>) => rigs[node]!.transport.send(...args),
      },
      take: () => rigs[node]!.come.splice(0),
    })
    return {
      nodes: [underTest(0), underTest(1), underTest(2)],
      until,
      takeDown: (node) => rigs[node]!.transport.close(0),
      bringUp: async (node) => {
        rigs[node] = await openPeer({ nodeId: idOf(node + 1), udp, port: ports[node]! })
      },
      tooManyBytes: 2 * Limits.peerQueueBytesMax,
    }
  })
}

async function pair(t: TestContext, options: Parameters<typeof openPeer>[0][] = []): Promise<[PeerRig, PeerRig]> {
  const a = await openPeer({ nodeId: idOf(1), ...options[0] })
  const b = await openPeer({ nodeId: idOf(2), ...options[1] })
  t.after(() => Promise.all([a.transport.close(0), b.transport.close(0)]))
  return [a, b]
}

test('PeerTransport: messages of one connection arrive in their order, many to a frame', async (t) => {
  const [a, b] = await pair(t)
  const count = 20_000
  for (let number = 0; number < count; number++) a.transport.send(b.transport.address, text(String(number)), 'stream')
  await until(() => b.come.length === count, 'all have come')
  assert.deepEqual(
    b.come.map(({ bytes }) => Number(Buffer.from(bytes).toString())),
    Array.from({ length: count }, (_, number) => number),
  )
  assert.ok(a.transport.counters.framesSent < 50, `${a.transport.counters.framesSent} frames`)
  assert.equal(b.come[0]!.nodeId, idOf(1))
  assert.equal(b.come[0]!.from, a.transport.address)
})

test('PeerTransport: a node of another cluster is refused, one that knows none is let in', async (t) => {
  const [a, b] = await pair(t, [{}, { clusterId: 'ffffffffffffffff' }])
  a.transport.send(b.transport.address, text('x'), 'stream')
  a.transport.send(b.transport.address, text('x'), 'datagram')
  await until(() => a.transport.counters.troubles('out', 'cluster') === 1, 'the dialer is told')
  await until(() => b.transport.counters.troubles('datagram', 'cluster') === 1, 'the datagram is dropped')
  assert.equal(b.transport.counters.troubles('in', 'cluster'), 1)
  assert.match(a.warnings[0]!, /another cluster/)
  const c = await openPeer({ nodeId: idOf(3), clusterId: undefined })
  t.after(() => c.transport.close(0))
  c.transport.send(b.transport.address, text('joins'), 'stream')
  await until(() => b.come.length === 1, 'who knows none is let in')
  assert.equal(b.come[0]!.nodeId, idOf(3))
  // It joins the other cluster: the connection goes, and the next one is refused.
  c.transport.setCluster(clusterId, undefined)
  await until(() => {
    c.transport.send(b.transport.address, text('x'), 'stream')
    return b.transport.counters.troubles('in', 'cluster') === 2
  }, 'it is refused now')
  assert.equal(b.come.length, 1)
})

test('PeerTransport: a copy of the directory of this node is refused', async (t) => {
  const [a, b] = await pair(t, [{}, { nodeId: idOf(1) }])
  a.transport.send(b.transport.address, text('x'), 'stream')
  await until(() => a.transport.counters.troubles('out', 'sameNode') === 1, 'it is refused')
  assert.match(a.warnings[0]!, /copy of the other/)
  assert.equal(b.come.length, 0)
})

test('PeerTransport: an unreachable address is tried again after rests that grow, and takes nothing meanwhile', async (t) => {
  const clock = new SimClock()
  const [a, b] = await pair(t, [{ clock, random: { fill: () => {}, u32: () => 0xffff_ffff } }, {}])
  const { address } = b.transport
  await b.transport.close(0)
  const { counters } = a.transport
  for (const [failures, restMs] of [200, 400, 800, 1600, 3200, 5000, 5000].entries()) {
    assert.ok(a.transport.send(address, text('x'), 'stream'))
    await until(() => counters.disconnects === failures + 1, 'the attempt has failed')
    clock.advance(restMs - 1)
    assert.ok(!a.transport.send(address, text('x'), 'stream'), `It rests for ${restMs} ms`)
    clock.advance(1)
  }
  assert.equal(counters.messagesDropped, 7)
  assert.equal(a.transport.peers()[0]!.queueBytes, 0)
})

test('PeerTransport: a peer that reads nothing fills a bounded queue, and is dead after a while', async (t) => {
  const clock = new SimClock()
  const [a] = await pair(t, [{ clock }, {}])
  // It welcomes, and then stops reading.
  const { createServer } = await import('node:net')
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    sockets.push(socket)
    socket.once('data', () => {
      socket.pause()
      const welcome = new Uint8Array(17)
      welcome[0] = 1
      welcome.set([1, 2, 3], 9)
      socket.write(encodeFrame(0, FrameType.welcome, welcome))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const bound = server.address()
  assert.ok(typeof bound === 'object' && bound !== null)
  const address = `127.0.0.1:${bound.port}`
  a.transport.send(address, text('x'), 'stream')
  await until(() => a.transport.peers()[0]!.isConnected, 'it is connected')
  const bytes = new Uint8Array(1_000_000)
  let refused = 0
  await until(() => {
    if (!a.transport.send(address, bytes, 'stream')) refused++
    return refused > 3
  }, 'the queue is full')
  assert.ok(a.transport.peers()[0]!.queueBytes <= Limits.peerQueueBytesMax)
  a.transport.tick()
  clock.advance(Limits.peerDeadMs + 1)
  a.transport.tick()
  assert.equal(a.transport.counters.troubles('out', 'dead'), 1)
  assert.equal(a.transport.peers()[0]!.queueBytes, 0)
})

test('PeerTransport: pings tell the round trip, and a connection without messages goes in the end', async (t) => {
  const clock = new SimClock()
  const [a, b] = await pair(t, [{ clock }, {}])
  a.transport.send(b.transport.address, text('x'), 'stream')
  await until(() => a.transport.peers()[0]!.isConnected, 'it is connected')
  a.transport.tick()
  clock.advance(7)
  await until(() => a.transport.peers()[0]!.roundTripMs !== undefined, 'the answer has come')
  assert.ok(a.transport.peers()[0]!.roundTripMs! <= 7)
  clock.advance(Limits.peerIdleMs + 1)
  a.transport.tick()
  await until(() => !a.transport.peers()[0]!.isConnected, 'it is closed')
})

/** Speaks to a transport by hand. */
async function stranger(
  t: TestContext,
  port: number,
): Promise<{ socket: Socket; closed: () => boolean; came: Buffer[] }> {
  const socket = connect(port, '127.0.0.1')
  const came: Buffer[] = []
  let isClosed = false
  socket.on('error', () => {})
  socket.on('close', () => {
    isClosed = true
  })
  socket.on('data', (bytes: Buffer) => came.push(bytes))
  t.after(() => socket.destroy())
  await new Promise((resolve) => socket.once('connect', resolve))
  return { socket, closed: () => isClosed, came }
}

const hello: Hello = {
  versions: { lowest: 1, highest: 1 },
  lane: 'bulk',
  clusterId,
  nodeId: idOf(9),
  address: '127.0.0.1:9',
}
const helloFrame = (change: Partial<Hello> = {}): Uint8Array =>
  encodeFrame(0, FrameType.hello, encodeHello({ ...hello, ...change }))

test('PeerTransport: bad bytes close the connection and are counted, and others go on', async (t) => {
  const [a, b] = await pair(t)
  const { counters, port } = b.transport
  const damaged = helloFrame()
  damaged[20]! ^= 1
  const tooLong = helloFrame()
  tooLong[14] = 0xff
  const messages = (payload: Uint8Array): Uint8Array =>
    Buffer.concat([helloFrame(), encodeFrame(1, FrameType.messages, payload)])
  const cases = [
    ['magic', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')],
    ['checksum', damaged],
    ['length', tooLong],
    ['type', encodeFrame(0, 9, new Uint8Array(4))],
    ['type', encodeFrame(0, FrameType.welcome, new Uint8Array(17))],
    ['version', encodeFrame(1, FrameType.messages, new Uint8Array(8))],
    ['content', encodeFrame(0, FrameType.hello, new Uint8Array(30))],
    ['content', messages(Uint8Array.of(9, 0, 0, 0, 1))],
    ['content', messages(Uint8Array.of(1, 0, 0, 0x80, 1))],
    ['type', Buffer.concat([helloFrame(), helloFrame()])],
  ] as const
  for (const [trouble, bytes] of cases) {
    const before = counters.troubles('in', trouble)
    const { socket, closed } = await stranger(t, port)
    socket.write(bytes)
    await until(closed, `${trouble}: the connection is closed`)
    assert.equal(counters.troubles('in', trouble), before + 1, trouble)
  }
  a.transport.send(b.transport.address, text('well'), 'stream')
  await until(() => b.come.length === 1, 'others go on')
})

test('PeerTransport: whoever speaks only other versions is told which there are', async (t) => {
  const [, b] = await pair(t)
  const { socket, closed, came } = await stranger(t, b.transport.port)
  socket.write(helloFrame({ versions: { lowest: 7, highest: 9 } }))
  await until(closed, 'the connection is closed')
  let refused: unknown
  new FrameDecoder(100, new SharedRoom(1000)).push(Buffer.concat(came), (type, bytes, start, end) => {
    assert.equal(type, FrameType.refused)
    refused = decodeRefused(bytes.subarray(start, end))
    return undefined
  })
  assert.deepEqual(refused, { reason: 'version', versions: { lowest: 1, highest: 1 } })
})

test('PeerTransport: a peer that is slow to say who it is, and one too many of them, are closed', async (t) => {
  const clock = new SimClock()
  const [, b] = await pair(t, [{}, { clock }])
  const { counters } = b.transport
  const slow = await stranger(t, b.transport.port)
  slow.socket.write(helloFrame().subarray(0, 30))
  await until(() => counters.bytesReceived === 30, 'it has begun')
  clock.advance(Limits.peerHandshakeMs + 1)
  b.transport.tick()
  await until(slow.closed, 'it is closed')
  assert.equal(counters.troubles('in', 'handshakeTimeout'), 1)
  const first = await stranger(t, b.transport.port)
  for (let more = 0; more < Limits.peerStrangersMax; more++) await stranger(t, b.transport.port)
  await until(first.closed, 'the oldest is closed')
})

test('PeerTransport: a peer that connects again replaces its connection', async (t) => {
  const [, b] = await pair(t)
  const one = await stranger(t, b.transport.port)
  one.socket.write(helloFrame())
  await until(() => one.came.length === 1, 'it is welcome')
  const other = await stranger(t, b.transport.port)
  other.socket.write(helloFrame())
  await until(() => other.came.length === 1 && one.closed(), 'the first one is closed')
  const light = await stranger(t, b.transport.port)
  light.socket.write(helloFrame({ lane: 'light' }))
  await until(() => light.came.length === 1, 'the light one stands beside it')
  assert.ok(!other.closed())
})

test('PeerTransport: with a key, datagrams without its code are dropped', async (t) => {
  const clusterKey = new Uint8Array(16).fill(7)
  const [a, b] = await pair(t, [{ clusterKey }, { clusterKey }])
  a.transport.send(b.transport.address, text('coded'), 'datagram')
  await until(() => b.come.length === 1, 'it has come')
  const c = await openPeer({ nodeId: idOf(3) })
  t.after(() => c.transport.close(0))
  c.transport.send(b.transport.address, text('not coded'), 'datagram')
  await until(() => b.transport.counters.troubles('datagram', 'code') === 1, 'it is dropped')
  assert.equal(b.come.length, 1)
})

test('PeerTransport: where datagrams do not get through, the light connection carries them', async (t) => {
  const clock = new SimClock()
  const [a, b] = await pair(t, [{ clock }, { udp: false }])
  for (let sent = 0; sent < 3; sent++) a.transport.send(b.transport.address, text('lost'), 'datagram')
  clock.advance(1001)
  a.transport.send(b.transport.address, text('comes'), 'datagram')
  await until(() => b.come.length > 0, 'it has come')
  assert.equal(Buffer.from(b.come[0]!.bytes).toString(), 'comes')
})

test('PeerTransport.close() sends what is queued, and leaves nothing open', async (t) => {
  const openHandles = () => process.getActiveResourcesInfo().filter((name) => /TCP|UDP/.test(name)).length
  const before = openHandles()
  const [a, b] = await pair(t)
  for (let number = 0; number < 2000; number++) a.transport.send(b.transport.address, text(String(number)), 'stream')
  await a.transport.close()
  await until(() => b.come.length === 2000, 'all have come')
  assert.ok(!a.transport.send(b.transport.address, text('x'), 'stream'))
  await b.transport.close()
  await until(() => openHandles() <= before, `nothing is left open: ${openHandles()}, not ${before}`)
})

test('PeerTransport.listen() refuses addresses that others reach, and such that are in use', async (t) => {
  await assert.rejects(openPeer({ host: '0.0.0.0' }), { code: 'ADDRESS_REFUSED' })
  const open = await openPeer({ host: '0.0.0.0', insecure: true, advertised: '127.0.0.1:7' })
  t.after(() => open.transport.close(0))
  assert.equal(open.transport.address, '127.0.0.1:7')
  await assert.rejects(openPeer({ host: '0.0.0.0', insecure: true, port: open.transport.port }), {
    code: 'ADDRESS_IN_USE',
  })
  await assert.rejects(openPeer({ nodeId: 'me' }), { code: 'BAD_CONFIG' })
  await assert.rejects(openPeer({ advertised: 'here' }), { code: 'BAD_CONFIG' })
})
