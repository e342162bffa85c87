/** Members of a cluster, each with its own threads and directory, with a double for the network between them. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { SunwiseError } from '../../src/base/errors.ts'
import type { OpenPeers } from '../../src/host/cluster-member.ts'
import { tcpPeers } from '../../src/host/peer/tcp-peers.ts'
import { type RunningServer, startServer } from '../../src/host/server.ts'
import { askAt, pathOf, problemOf, type Reply } from '../process/server-process.ts'
import { PeersDouble } from './peers-double.ts'

const MiB = 1024 * 1024
const root = mkdtempSync(join(tmpdir(), 'sunwise-member-'))
after(() => rmSync(root, { recursive: true, force: true }))

/** Stops what a test has started, however it ends. */
class Started implements AsyncDisposable {
  readonly servers: RunningServer[] = []

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.servers) await server.close()
  }
}

type Place = { readonly started: Started; readonly peers: Pick<PeersDouble, 'at'>; readonly log?: string[] }

async function begin(
  { started, peers, log = [] }: Place,
  name: string,
  join?: readonly string[],
  salvage = false,
): Promise<RunningServer> {
  const server = await startServer({
    directory: `${root}/${name}`,
    http: { host: '127.0.0.1', port: 0 },
    shards: 1,
    memoryBytes: 96 * MiB,
    durability: 'os',
    syncIntervalMs: 100,
    valueBytesMax: MiB,
    insecure: false,
    salvage,
    ...(join === undefined
      ? {}
      : {
          cluster: {
            openPeers: peers.at(`${name}:1`),
            join,
            zone: '',
            node: {
              exchangeRestMs: 5,
              membership: { probeIntervalMs: 100, probeTimeoutMs: 50, smallClusterSuspicionMs: 500 },
            },
          },
        }),
    log: (line) => log.push(line),
    onFatal: (error) => log.push(`fatal: ${error.message}`),
  })
  started.servers.push(server)
  return server
}

const ask = (server: RunningServer, method: string, path: string, body?: string, headers = {}): Promise<Reply> =>
  askAt(server.address.port, false, method, path, body, headers)

async function until(what: string, isDone: () => Promise<boolean>): Promise<void> {
  const by = performance.now() + 60_000
  while (!(await isDone())) {
    assert.ok(performance.now() < by, `${what} within 60 s`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

test('startServer() alone and then as a cluster of one: what was written stays, with its context', async () => {
  const name = 'alone'
  const peers = new PeersDouble()
  let context = ''
  {
    await using started = new Started()
    const server = await begin({ started, peers }, name)
    assert.equal(server.peerAddress, undefined)
    const put = await ask(server, 'PUT', pathOf('before'), 'kept')
    assert.equal(put.status, 204)
    context = put.headers['sunwise-context'] as string
    assert.equal(
      (await ask(server, 'PUT', '/v1/buckets/two', '{"n":2}', { 'content-type': 'application/json' })).status,
      201,
    )
    assert.equal((await ask(server, 'PUT', '/v1/kv/two/key', 'also kept')).status, 204)
  }
  await using started = new Started()
  const server = await begin({ started, peers }, name, [])
  await server.joined
  const got = await ask(server, 'GET', pathOf('before'))
  assert.equal(got.body.toString(), 'kept')
  assert.equal(got.headers['sunwise-acks'], '1/1')
  assert.equal((await ask(server, 'GET', '/v1/kv/two/key')).body.toString(), 'also kept')
  // The context was given out by the node while it was alone.
  const put = await ask(server, 'PUT', pathOf('before'), 'changed', { 'sunwise-context': context })
  assert.equal(put.status, 204, put.body.toString())
  const after = await ask(server, 'GET', pathOf('before'))
  assert.equal(after.body.toString(), 'changed')
  assert.equal(after.headers['sunwise-siblings'], undefined)
  assert.equal((await ask(server, 'DELETE', pathOf('before'))).status, 204)
  assert.equal((await ask(server, 'GET', pathOf('before'))).status, 404)
  assert.equal(problemOf(await ask(server, 'PUT', `${pathOf('before')}?w=4`, 'x')).code, 'BAD_QUORUM')
  const tooMany = await ask(server, 'PUT', `${pathOf('before')}?w=2`, 'x')
  assert.deepEqual([problemOf(tooMany).code, problemOf(tooMany).outcome], ['QUORUM_NOT_MET', 'none'])
})

test('startServer() refuses to serve a member alone, and to join with data of its own', async () => {
  const peers = new PeersDouble()
  {
    await using started = new Started()
    await begin({ started, peers }, 'member', []).then((server) => server.joined)
    const alone = await begin({ started, peers }, 'hermit')
    assert.equal((await ask(alone, 'PUT', pathOf('key'), 'own')).status, 204)
  }
  await using started = new Started()
  const refused = { code: 'DIRECTORY_UNUSABLE' }
  await assert.rejects(
    begin({ started, peers }, 'member'),
    (error) => error instanceof SunwiseError && error.code === refused.code,
  )
  await assert.rejects(begin({ started, peers }, 'hermit', ['member:1']), refused)
})

test('startServer() gives nothing of a member up: what it lost, others would take for deleted', async () => {
  const peers = new PeersDouble()
  {
    await using started = new Started()
    await begin({ started, peers }, 'lossy', []).then((server) => server.joined)
  }
  await using started = new Started()
  await assert.rejects(begin({ started, peers }, 'lossy', [], true), (error) => {
    assert.ok(error instanceof SunwiseError && error.code === 'DIRECTORY_UNUSABLE')
    assert.match(error.message, /--replaces [0-9a-f]{16}/)
    return true
  })
  await begin({ started, peers }, 'lossy', []).then((server) => server.joined)
})

test('A member that is told to join those of another cluster ends, and says why', async () => {
  await using started = new Started()
  const overTcp = (): OpenPeers => tcpPeers({ host: '127.0.0.1', port: 0 }, '', false, () => {})
  const peers = { at: overTcp }
  const log: string[] = []
  {
    await using first = new Started()
    await begin({ started: first, peers }, 'settled', []).then((server) => server.joined)
  }
  const other = await begin({ started, peers }, 'foreign', [])
  await begin({ started, peers, log }, 'settled', [other.peerAddress!])
  await until('it ends', async () => log.some((line) => line.startsWith('fatal: Cannot join')))
})

test('A member that is closed while it is being let in begins nothing any more', async () => {
  const peers = new PeersDouble()
  await using started = new Started()
  const log: string[] = []
  const first = await begin({ started, peers }, 'letting', [])
  await first.joined
  let server: RunningServer | undefined
  let closed: Promise<void> | undefined
  let clustersSet = 0
  /** Closes the server in the turn in which the member was let in: the catalog does not know of it yet. */
  const at = (address: string): OpenPeers => {
    const open = peers.at(address)
    return async (options) => {
      const received: typeof options.received = (from, bytes) => {
        options.received(from, bytes)
        closed ??= server?.close()
      }
      return { ...(await open({ ...options, received })), setCluster: () => void clustersSet++ }
    }
  }
  peers.cut.add('hasty:1')
  server = await begin({ started, peers: { at }, log }, 'hasty', [first.peerAddress!])
  peers.cut.delete('hasty:1')
  await until('it is let in', async () => closed !== undefined)
  await closed
  assert.equal(clustersSet, 0)
  assert.deepEqual(
    log.filter((line) => line.startsWith('fatal')),
    [],
  )
})

test('Members join by themselves, every node serves every key, and buckets are everywhere', async () => {
  const peers = new PeersDouble()
  const log: string[] = []
  await using started = new Started()
  const place = { started, peers, log }
  // The second waits for the first.
  const second = await begin(place, 'b', ['a:1'])
  assert.equal(problemOf(await ask(second, 'GET', pathOf('key'))).code, 'NOT_READY')
  assert.equal((await ask(second, 'GET', '/readyz')).status, 503)
  await until('it says that it waits', async () => log.some((line) => line.includes('waiting for a:1')))
  const first = await begin(place, 'a', [])
  await first.joined
  const acknowledged = new Map<string, string>()
  const write = async (server: RunningServer, key: string, value: string): Promise<void> => {
    // While partitions move, a node that is an epoch behind refuses; what may be tried again, is.
    await until(`${key} is taken`, async () => {
      const reply = await ask(server, 'PUT', pathOf(key), value)
      assert.ok(reply.status === 204 || reply.status === 503, reply.body.toString())
      return reply.status === 204
    })
    acknowledged.set(key, value)
  }
  for (let index = 0; index < 50; index++) await write(first, `early ${index}`, `value ${index}`)
  await second.joined
  const third = await begin(place, 'c', ['b:1', 'a:1'])
  await third.joined
  const servers = [first, second, third]
  for (let index = 0; index < 60; index++) await write(servers[index % 3]!, `moving ${index}`, `value ${index}`)
  await until('all has moved', async () => {
    const reply = await ask(third, 'PUT', `${pathOf('w3')}?w=3`, 'x')
    return reply.status === 204 && reply.headers['sunwise-acks'] === '3/3'
  })
  const bucket = await ask(second, 'PUT', '/v1/buckets/shared', '{"n":3}', { 'content-type': 'application/json' })
  assert.equal(bucket.status, 201, bucket.body.toString())
  for (const server of servers) {
    await until('the bucket is known', async () => (await ask(server, 'GET', '/v1/buckets/shared')).status === 200)
  }
  const put = await ask(first, 'PUT', '/v1/kv/shared/key', 'one')
  const context = put.headers['sunwise-context'] as string
  assert.equal((await ask(third, 'PUT', '/v1/kv/shared/key', 'two', { 'sunwise-context': context })).status, 204)
  assert.equal((await ask(second, 'GET', '/v1/kv/shared/key')).body.toString(), 'two')
  for (const server of servers) {
    for (const [key, value] of acknowledged) {
      assert.equal((await ask(server, 'GET', pathOf(key))).body.toString(), value, key)
    }
  }
  const told = async (path: string) => JSON.parse((await ask(second, 'GET', path)).body.toString())
  const { nodeId, members, voters } = await told('/v1/cluster')
  assert.equal(nodeId, second.nodeId)
  assert.deepEqual(
    new Set(members.map((member: { nodeId: string }) => member.nodeId)),
    new Set(servers.map((server) => server.nodeId)),
  )
  assert.ok(voters.length > 0)
  assert.equal((await told('/v1/nodes')).nodes.length, 3)
  assert.equal((await told('/v1/ring')).partitions.length, 1024)
  const explained = await told('/v1/explain/shared/key')
  assert.deepEqual([explained.read.needed, explained.read.replicas.length], [2, 3])
  const receipt = await ask(second, 'GET', '/v1/kv/shared/key?receipt=1')
  assert.ok(JSON.parse(receipt.headers['sunwise-receipt'] as string).nodes.length >= 2)
  // One is cut off: the others go on, and it has everything when it is back.
  peers.cut.add('c:1')
  await until('the others notice', async () => (await ask(first, 'PUT', pathOf('cut'), 'x')).status === 204)
  for (let index = 0; index < 20; index++) {
    const reply = await ask(servers[index % 2]!, 'PUT', pathOf(`cut ${index}`), `value ${index}`)
    if (reply.status === 204) acknowledged.set(`cut ${index}`, `value ${index}`)
  }
  assert.ok(acknowledged.size > 120, `${acknowledged.size} writes were acknowledged`)
  peers.cut.clear()
  await until('it is back', async () => (await ask(third, 'PUT', `${pathOf('back')}?w=3`, 'x')).status === 204)
  for (const [key, value] of acknowledged) {
    assert.equal((await ask(third, 'GET', pathOf(key))).body.toString(), value, key)
  }
})
