/** A cluster of real processes: every node serves every key, one is killed and comes back, one more joins, and nothing acknowledged is lost. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { connect } from '../../src/client/connect.ts'
import { ClientLoad } from './client-load.ts'
import { pathOf, ServerProcess } from './server-process.ts'

const root = mkdtempSync(join(tmpdir(), 'sunwise-cluster-'))
after(() => rmSync(root, { recursive: true, force: true }))

const common = ['--shards', '1', '--memory', '96mb', '--durability', 'os']

function start(name: string, peer: string, seeds: readonly string[]): ServerProcess {
  const joins = seeds.length === 0 ? [] : ['--join', seeds.join(',')]
  return ServerProcess.spawn(join(root, name), { flags: [...common, '--peer', peer, ...joins] })
}

async function ready(server: ServerProcess): Promise<ServerProcess> {
  assert.ok(await server.isReady, server.said)
  return server
}

async function until(what: string, isDone: () => Promise<boolean>, explain: () => string): Promise<void> {
  const by = performance.now() + 60_000
  while (!(await isDone())) {
    assert.ok(performance.now() < by, `${what} within 60 s: ${explain()}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

type ListPage = {
  readonly keys: readonly { readonly key: string; readonly value: string }[]
  readonly cursor: string
  readonly complete: boolean
}

/** Writes through one node after the other, again where a node says that it may be tried again, and keeps what was acknowledged. */
class Writer {
  readonly acknowledged = new Map<string, string>()
  refused = 0

  async write(server: ServerProcess, key: string, value: string): Promise<void> {
    await until(
      `${key} is taken`,
      async () => {
        const reply = await server.ask('PUT', pathOf(key), value)
        if (reply.status !== 204) this.refused++
        assert.ok(reply.status === 204 || reply.status >= 503, reply.body.toString())
        return reply.status === 204
      },
      () => server.said,
    )
    this.acknowledged.set(key, value)
  }

  async check(server: ServerProcess): Promise<void> {
    for (const [key, value] of this.acknowledged) {
      let text = ''
      await until(
        `${key} can be read`,
        async () => {
          const reply = await server.ask('GET', pathOf(key))
          text = reply.body.toString()
          assert.ok(reply.status === 200 || reply.status >= 503, `${key}: ${text}`)
          return reply.status === 200
        },
        () => text,
      )
      assert.equal(text, value, key)
    }
  }

  /** Lists all keys in pages, each from the next server, and again from its cursor where one says that it may be tried again. */
  async checkList(servers: readonly ServerProcess[]): Promise<void> {
    const listed = new Map<string, string>()
    let cursor = ''
    let pages = 0
    for (let isThrough = false; !isThrough; ) {
      const path = `/v1/kv/default?values=1&limit=20${cursor}`
      let text = ''
      await until(
        'a page can be read',
        async () => {
          const server = servers[pages++ % servers.length]!
          const reply = await server.ask('GET', path)
          text = reply.body.toString()
          assert.ok(reply.status === 200 || reply.status >= 503, `${path}: ${text}`)
          return reply.status === 200
        },
        () => text,
      )
      const page = JSON.parse(text) as ListPage
      for (const { key, value } of page.keys) {
        assert.ok(!listed.has(key), `${key} is listed once`)
        listed.set(key, value)
      }
      cursor = `&cursor=${page.cursor}`
      isThrough = page.complete
    }
    assert.ok(pages > this.acknowledged.size / 20)
    for (const [key, value] of this.acknowledged) assert.equal(listed.get(key), value, key)
  }
}

test('Three processes are a cluster: one is killed and comes back, a fourth joins, and all that was acknowledged is there', async () => {
  const writer = new Writer()
  await using a = await ready(start('a', '127.0.0.1:0', []))
  const first = a.ready.peer!
  assert.match(first, /^127\.0\.0\.1:\d+$/)
  for (let index = 0; index < 30; index++) await writer.write(a, `alone ${index}`, `value ${index}`)
  await using b = start('b', '127.0.0.1:0', [first])
  const c = start('c', '127.0.0.1:0', [first])
  await using _c = c
  await Promise.all([ready(b), ready(c)])
  const nodes = [a, b, c]
  for (let index = 0; index < 60; index++) await writer.write(nodes[index % 3]!, `moving ${index}`, `value ${index}`)
  await until(
    'three replicas take a write',
    async () => {
      const reply = await b.ask('PUT', `${pathOf('all')}?w=3`, 'x')
      return reply.status === 204 && reply.headers['sunwise-acks'] === '3/3'
    },
    () => a.said,
  )
  for (const node of nodes) await writer.check(node)
  await writer.checkList(nodes)

  const timeoutMs = 6_000
  await using client = connect({ endpoints: nodes.map(({ ready }) => ready.http), timeoutMs })
  await until(
    'the client knows the ring',
    async () => {
      await client.get('all')
      return client.ringEpoch !== undefined
    },
    () => a.said,
  )
  const lanes = 8
  const load = new ClientLoad(client, timeoutMs, lanes)
  const loaded = (count: number) =>
    until(
      `${count} operations are done`,
      async () => load.done >= count,
      () => a.said,
    )
  await loaded(100)
  const { peer } = c.ready
  await c.kill()
  await loaded(load.done + 200)
  // Of each lane what was under way there, and what another node had sent on to it before it knew.
  const failures = await load.finish()
  assert.ok(failures <= 2 * lanes, `${failures} operations failed`)
  const left = [a, b]
  for (let index = 0; index < 40; index++) await writer.write(left[index % 2]!, `down ${index}`, `value ${index}`)
  for (const node of left) await writer.check(node)
  await writer.checkList(left)

  await using again = await ready(start('c', peer!, []))
  await until(
    'three replicas take a write again',
    async () => (await again.ask('PUT', `${pathOf('back')}?w=3`, 'x')).status === 204,
    () => again.said,
  )
  await writer.check(again)

  await using d = await ready(start('d', '127.0.0.1:0', [peer!, first]))
  for (let index = 0; index < 20; index++) await writer.write(d, `fourth ${index}`, `value ${index}`)
  for (const node of [a, d]) await writer.check(node)
  await writer.checkList([a, b, d])
  assert.ok(writer.acknowledged.size >= 150)
})
