import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { type ErrorCode, type Outcome, SunwiseError } from '../../src/base/errors.ts'
import { type Client, type ConnectOptions, connect } from '../../src/client/connect.ts'
import { partitionOfKey } from '../../src/cluster/slots.ts'
import { FakeServer, type Interceptor } from './fake-server.ts'

const text = (value: Uint8Array | undefined): string | undefined =>
  value === undefined ? undefined : Buffer.from(value).toString()

function rejectsWith(promise: Promise<unknown>, code: ErrorCode, outcome: Outcome): Promise<void> {
  return assert.rejects(promise, (error) => {
    assert.ok(error instanceof SunwiseError, String(error))
    assert.deepEqual([error.code, error.outcome], [code, outcome], error.message)
    return true
  })
}

/** Some fake servers that share their values, and a client of them. */
class Rig implements AsyncDisposable {
  readonly servers: readonly FakeServer[]
  readonly client: Client

  private constructor(servers: readonly FakeServer[], options: Partial<ConnectOptions>) {
    this.servers = servers
    for (const server of servers) {
      server.buckets.set('default', servers[0]!.values)
      server.versions = servers[0]!.versions
    }
    this.client = connect({ endpoints: servers.map(({ origin }) => origin), timeoutMs: 20_000, ...options })
  }

  static async start(count: number, options: Partial<ConnectOptions> = {}): Promise<Rig> {
    return new Rig(await Promise.all(Array.from({ length: count }, () => FakeServer.start())), options)
  }

  get requests(): number {
    return this.servers.reduce((sum, { requests }) => sum + requests.length, 0)
  }

  /** Puts `intercept` before every server, and forgets what they were asked. */
  intercept(intercept: Interceptor | undefined): void {
    for (const server of this.servers) {
      server.requests.length = 0
      server.intercept = intercept
    }
  }

  /** The next `times` requests fail with `code`, wherever they come. */
  failNext(times: number, code: ErrorCode, extra: Record<string, unknown> = {}): void {
    let left = times
    this.intercept((_, response) => {
      if (left-- <= 0) return false
      FakeServer.problem(response, code, extra)
      return true
    })
  }

  set(key: string, ...values: readonly string[]): void {
    this.servers[0]!.values.set(
      key,
      values.map((value) => ({ value: Buffer.from(value), contentType: 'text/plain', etag: values.join() })),
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client.close()
    await Promise.all(this.servers.map((server) => server[Symbol.asyncDispose]()))
  }
}

test('Client gets, puts, deletes, lists and batches', async () => {
  await using rig = await Rig.start(2)
  const { client } = rig
  assert.deepEqual((await client.get('a')).values, [])
  const { etag } = await client.put('a', 'one', { contentType: 'text/plain', ttlMs: Number.POSITIVE_INFINITY })
  const entry = await client.get(Buffer.from('a'))
  assert.deepEqual([text(entry.value), entry.values[0]!.contentType, entry.etag], ['one', 'text/plain', etag])
  await client.put('a', 'two', { ifMatch: etag! })
  await rejectsWith(client.put('a', 'three', { ifMatch: [etag!] }), 'PRECONDITION_FAILED', 'none')
  const [read, absent] = await client.batch([
    { op: 'get', key: 'a' },
    { op: 'get', key: 'b' },
    { op: 'put', key: 'c', value: 'three' },
  ])
  assert.deepEqual([text(read!.entry!.value), absent!.entry!.value], ['two', undefined])
  const listed: string[] = []
  for await (const { key, entry } of client.list({ values: true })) listed.push(`${text(key)}=${text(entry?.value)}`)
  assert.deepEqual(listed, ['a=two', 'c=three'])
  await client.delete('a')
  assert.equal((await client.get('a')).value, undefined)
  rig.set('s', 'left', 'right')
  const siblings = await client.get('s')
  assert.deepEqual(
    siblings.values.map(({ value }) => text(value)),
    ['left', 'right'],
  )
})

test('Client shows the receipt where it is asked for', async () => {
  await using rig = await Rig.start(1)
  const receipt = { acks: 2, replicas: 3, sloppy: false, durable: true, epoch: 4, nodes: [{ node: 'a' }] }
  rig.intercept((request, response) => {
    if (request.query.get('receipt') === '1') response.setHeader('sunwise-receipt', JSON.stringify(receipt))
    return false
  })
  assert.deepEqual((await rig.client.put('k', 'v', { receipt: true })).receipt, receipt)
  assert.deepEqual((await rig.client.get('k', { receipt: true })).receipt, receipt)
  assert.equal((await rig.client.get('k')).receipt, undefined)
})

test('Every promise of the client settles by its deadline, with the outcome that is true', async () => {
  await using rig = await Rig.start(2, { timeoutMs: 150 })
  const { client } = rig
  await client.put('k', 'v', { timeoutMs: 20_000 })
  rig.intercept(() => true)
  const startedAt = performance.now()
  await Promise.all([
    rejectsWith(client.get('k'), 'TIMEOUT', 'none'),
    rejectsWith(client.get('k', { r: 'one' }), 'TIMEOUT', 'none'),
    rejectsWith(client.list().next(), 'TIMEOUT', 'none'),
    rejectsWith(client.batch([{ op: 'get', key: 'k' }]), 'TIMEOUT', 'none'),
    rejectsWith(
      client.update('k', () => 'v'),
      'TIMEOUT',
      'none',
    ),
  ])
  assert.ok(performance.now() - startedAt < 5_000)
  rig.intercept(undefined)
  await client.put('warm', 'v', { timeoutMs: 20_000 })
  rig.intercept(() => true)
  const error = await client.put('k', 'v').catch((thrown: unknown) => thrown)
  assert.ok(error instanceof SunwiseError && error.code === 'TIMEOUT')
  rig.intercept(undefined)
  await rejectsWith(
    client.update('k', () => new Promise(() => {})),
    'TIMEOUT',
    'none',
  )
  await rejectsWith(client.get('k', { timeoutMs: -1 }), 'BAD_TIMEOUT', 'none')
})

test('An aborted call of the client ends at once', async () => {
  await using rig = await Rig.start(2)
  const controller = new AbortController()
  const { signal } = controller
  rig.intercept(() => {
    controller.abort()
    return true
  })
  await rejectsWith(rig.client.get('k', { signal }), 'ABORTED', 'none')
  rig.intercept(undefined)
  await rejectsWith(rig.client.put('k', 'v', { signal }), 'ABORTED', 'none')
  await rejectsWith(
    rig.client.update('k', () => new Promise(() => {}), { signal }),
    'ABORTED',
    'none',
  )
  assert.equal(rig.servers[0]!.values.size, 0)
})

test('Client sends again what surely changed nothing, at another server', async () => {
  await using rig = await Rig.start(3, { hedges: false })
  const { client } = rig
  for (const code of ['OVERLOADED', 'NOT_READY', 'WRONG_EPOCH', 'SHARD_UNAVAILABLE', 'DISK_FULL'] as const) {
    rig.failNext(2, code)
    await client.put('k', code)
    assert.equal(rig.requests, 3, code)
    for (const { requests } of rig.servers) assert.equal(requests.length, 1, `${code}: each server was asked once`)
  }
  rig.failNext(1, 'QUORUM_NOT_MET', { outcome: 'none' })
  await client.put('k', 'v')
  rig.failNext(2, 'QUORUM_NOT_MET')
  assert.equal(text((await client.get('k')).value), 'v')
  assert.equal(rig.requests, 3, 'a read is repeated')
  rig.failNext(1000, 'STORE_FULL')
  await rejectsWith(client.put('k', 'w'), 'STORE_FULL', 'none')
  assert.equal(rig.requests, 1, 'what would fail again is not repeated')
})

test('Client never repeats a write whose outcome is unknown', async () => {
  await using rig = await Rig.start(3)
  const { client } = rig
  await client.get('k')
  for (const code of ['QUORUM_NOT_MET', 'TIMEOUT', 'INTERNAL'] as const) {
    rig.failNext(1, code)
    await rejectsWith(client.put('k', 'v'), code, 'unknown')
    assert.equal(rig.requests, 1, code)
  }
  rig.intercept((_, response) => {
    response.socket!.destroy()
    return true
  })
  await rejectsWith(client.delete('k'), 'NOT_READY', 'unknown')
  assert.equal(rig.requests, 1)
  rig.intercept((_, response) => {
    response.socket!.destroy()
    return true
  })
  const failures = await Promise.allSettled([client.put('x', 'v'), client.put('y', 'v')])
  assert.equal(rig.requests, 1, 'nor a batch of them')
  for (const failure of failures) assert.equal(failure.status === 'rejected' && failure.reason.outcome, 'unknown')
})

test('Client repeats a write whose precondition keeps it from applying twice, and calls its failure then unknown', async () => {
  await using rig = await Rig.start(2)
  const { client } = rig
  rig.failNext(1, 'QUORUM_NOT_MET')
  const { etag } = await client.put('k', 'v', { ifNoneMatch: '*' })
  assert.equal(rig.requests, 2)
  /** Applies the next request, and loses its answer. */
  const loseNext = (): void => {
    let left = 1
    rig.intercept((request, response) => {
      if (left-- <= 0) return false
      rig.set('k', request.body.toString())
      response.socket!.destroy()
      return true
    })
  }
  loseNext()
  await rejectsWith(client.put('k', 'w', { ifMatch: etag! }), 'PRECONDITION_FAILED', 'unknown')
  assert.equal(rig.requests, 2)
  loseNext()
  await rejectsWith(client.put('k', 'w', { ifMatch: '*' }), 'NOT_READY', 'unknown')
  assert.equal(rig.requests, 1, 'any value is no such precondition')
})

test('Client goes on while a server is gone, and comes back to it', async () => {
  await using rig = await Rig.start(3, { timeoutMs: 30_000 })
  const { client, servers } = rig
  const gone = servers[0]!
  gone.isReady = false
  gone.intercept = (_, response) => {
    FakeServer.problem(response, 'NOT_READY')
    return true
  }
  for (let index = 0; index < 60; index++) await client.put(`k${index}`, 'v')
  assert.equal(gone.values.size, 60)
  assert.equal(gone.requests.length, 3, 'after three failures it is left alone')
  gone.isReady = true
  gone.intercept = undefined
  const by = performance.now() + 20_000
  while (gone.requests.length === 3) {
    assert.ok(performance.now() < by)
    await client.get('k1')
  }
  assert.ok(gone.asides.includes('/readyz'), 'a probe found it well')
})

test('Client passes over a server that does not listen', async () => {
  const closed = await FakeServer.start()
  const { origin } = closed
  await closed[Symbol.asyncDispose]()
  await using server = await FakeServer.start()
  await using client = connect({ endpoints: [origin, server.origin] })
  await Promise.all(Array.from({ length: 20 }, (_, index) => client.put(`k${index}`, 'v', { w: 'one' })))
  assert.equal(server.values.size, 20)
  await using lone = connect({ endpoints: [origin], timeoutMs: 300 })
  await rejectsWith(lone.put('k', 'v'), 'NOT_READY', 'none')
})

test('A read that takes longer than most is sent to a second server', async () => {
  await using rig = await Rig.start(2, { timeoutMs: 60_000, batchMax: 1 })
  const { client, servers } = rig
  await client.put('k', 'v')
  const silent = servers[0]!
  silent.intercept = () => true
  const startedAt = performance.now()
  for (let index = 0; index < 4; index++) assert.equal(text((await client.get('k')).value), 'v')
  assert.ok(silent.requests.length > 0)
  assert.ok(performance.now() - startedAt < 20_000, 'long before a half of the deadline')
})

test('Of all reads only some are hedged', async () => {
  await using rig = await Rig.start(2, { batchMax: 1, connectionsMax: 200 })
  const { client } = rig
  const waiting: (() => void)[] = []
  let isOver = false
  rig.intercept((_, response: ServerResponse) => {
    if (isOver) return false
    waiting.push(() => FakeServer.problem(response, 'NOT_FOUND'))
    return true
  })
  const reads = Promise.all(Array.from({ length: 60 }, () => client.get('k')))
  const by = performance.now() + 20_000
  while (rig.requests < 70 && performance.now() < by) await new Promise((resolve) => setTimeout(resolve, 10))
  await new Promise((resolve) => setTimeout(resolve, 200))
  assert.equal(rig.requests, 70, 'ten were saved up')
  isOver = true
  for (const answer of waiting) answer()
  await reads
})

test('Where hedges are off, a silent server still leaves time to ask another', async () => {
  await using rig = await Rig.start(2, { timeoutMs: 1_000, hedges: false, batchMax: 1 })
  rig.set('k', 'v')
  rig.servers[0]!.intercept = () => true
  for (let index = 0; index < 2; index++) assert.equal(text((await rig.client.get('k')).value), 'v')
  // Which one is asked first is drawn: the silent one had the first or the second, or both.
  const asked = rig.servers[0]!.requests.length
  assert.ok(asked === 1 || asked === 2, `The silent one was asked ${asked} times`)
})

test('Operations of one turn travel in batches, reads apart from writes, within bounds', async () => {
  await using rig = await Rig.start(1, { batchMax: 100 })
  const { client } = rig
  const keys = Array.from({ length: 250 }, (_, index) => `k${index}`)
  const [puts, gets] = [keys.map((key) => client.put(key, `v ${key}`)), keys.map((key) => client.get(key))]
  await Promise.all([...puts, ...gets])
  assert.equal(rig.requests, 6)
  for (const { path, body } of rig.servers[0]!.requests) {
    assert.equal(path, '/v1/batch/default')
    const operations = JSON.parse(body.toString()) as { op: string }[]
    assert.ok(operations.length <= 100)
    assert.equal(new Set(operations.map(({ op }) => op)).size, 1)
  }
  const entries = await Promise.all(keys.map((key) => client.get(key)))
  assert.deepEqual(
    entries.map(({ value }) => text(value)),
    keys.map((key) => `v ${key}`),
  )
  rig.intercept(undefined)
  await client.get('k1')
  assert.equal(rig.servers[0]!.requests[0]!.path, '/v1/kv/default/k1', 'one alone goes as it is')
  rig.intercept(undefined)
  await Promise.all([client.put('a', new Uint8Array(1.5e6)), client.put('b', new Uint8Array(1.5e6))])
  assert.equal(rig.requests, 2, 'bytes bound a batch, too')
})

test('An operation of a batch fails alone, and goes once more where it changed nothing', async () => {
  await using rig = await Rig.start(1)
  const { client } = rig
  const problems = ['OVERLOADED', 'QUORUM_NOT_MET', 'STORE_FULL', undefined] as const
  rig.intercept((request, response) => {
    if (!request.path.startsWith('/v1/batch')) return false
    const rows = problems.map((code) =>
      code === undefined ? { status: 204 } : { status: 503, problem: FakeServer.problemOf(code) },
    )
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify(rows))
    return true
  })
  const results = await Promise.allSettled(problems.map((_, index) => client.put(`k${index}`, 'v')))
  const codes = results.map((result) => (result.status === 'rejected' ? result.reason.code : undefined))
  assert.deepEqual(codes, [undefined, 'QUORUM_NOT_MET', 'STORE_FULL', undefined])
  assert.deepEqual([...rig.servers[0]!.values.keys()], ['k0'])
  await rejectsWith(client.get(''), 'BAD_KEY', 'none')
})

test('Client holds a bounded number of operations and connections', async () => {
  await using rig = await Rig.start(1, { operationsMax: 20, connectionsMax: 3, batchMax: 1 })
  const { client } = rig
  const results = await Promise.allSettled(Array.from({ length: 30 }, (_, index) => client.put(`k${index}`, 'v')))
  const refused = results.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[]
  assert.equal(refused.length, 10)
  for (const { reason } of refused) assert.deepEqual([reason.code, reason.outcome], ['OVERLOADED', 'none'])
  assert.ok(rig.servers[0]!.concurrencyMax <= 3)
  await client.put('again', 'v')
})

test('A key goes to a server that holds it, and the ring is looked at again when its epoch differs', async () => {
  await using rig = await Rig.start(3, { batchMax: 1, hedges: false })
  const { client, servers } = rig
  const ids = ['a', 'b', 'c']
  const publish = (epoch: number, turn: number): void => {
    const partitions = Array.from({ length: 1024 }, (_, partition) => [ids[(partition + turn) % 3]!])
    for (const [index, server] of servers.entries()) server.cluster = { nodeId: ids[index]!, epoch, partitions }
  }
  const keys = Array.from({ length: 60 }, (_, index) => `key ${index}`)
  const whenAt = async (epoch: number): Promise<void> => {
    const by = performance.now() + 20_000
    while (client.ringEpoch !== epoch) {
      assert.ok(performance.now() < by)
      await client.get('k', { receipt: true })
    }
  }
  /** Asks for each key, and gives how many came to the node that `turn` assigns. */
  const asked = async (turn: number): Promise<number> => {
    rig.intercept(rig.servers[0]!.intercept)
    for (const key of keys) await client.get(key)
    return keys.filter((key) => {
      const server = servers[(partitionOfKey(Buffer.from(key)) + turn) % 3]!
      return server.requests.some(({ path }) => path.endsWith(encodeURIComponent(key)))
    }).length
  }
  publish(7, 0)
  await whenAt(7)
  assert.equal(await asked(0), keys.length)
  publish(8, 1)
  assert.equal(await asked(0), keys.length, 'nothing told of the new one yet')
  const receipt = { acks: 1, replicas: 1, sloppy: false, durable: true, epoch: 8 }
  rig.intercept((_, response) => {
    response.setHeader('sunwise-receipt', JSON.stringify(receipt))
    return false
  })
  await whenAt(8)
  assert.equal(await asked(1), keys.length)
})

test('Client.update() merges siblings and writes with their context and etag', async () => {
  await using rig = await Rig.start(2)
  const { client } = rig
  const union = (values: readonly { readonly value: Uint8Array }[], added: string): string =>
    [...new Set([...values.flatMap(({ value }) => text(value)!.split(' ')), added])].sort().join(' ')
  const made = await client.update('new', (values) => union(values, 'x'))
  assert.equal(text(made.value), 'x')
  rig.set('cart', 'a b', 'b c')
  const entry = await client.update('cart', (values) => union(values, 'd'))
  assert.equal(text(entry.value), 'a b c d')
  const sent = rig.servers
    .flatMap(({ requests }) => requests)
    .find(({ path, method }) => path.endsWith('/cart') && method === 'PUT')!
  assert.deepEqual([sent.headers['if-match'], sent.headers['sunwise-context']], ['"a b,b c"', 'ctx-a b,b c'])
  assert.equal(text((await client.update('cart', () => undefined)).value), 'a b c d')
  assert.equal((await client.update('cart', async () => null)).value, undefined)
  assert.deepEqual((await client.get('cart')).values, [])
  await assert.rejects(
    client.update('cart', () => {
      throw new RangeError('of the caller')
    }),
    RangeError,
  )
})

test('Client.update() reads and merges again when others were faster, and no more than so often', async () => {
  await using rig = await Rig.start(2)
  const { client } = rig
  await client.put('counter', '0')
  const increments = Array.from({ length: 8 }, () =>
    client.update('counter', ([held]) => String(Number(text(held?.value)) + 1)),
  )
  await Promise.all(increments)
  assert.equal(text((await client.get('counter')).value), '8', 'nothing was lost')
  let merges = 0
  const stubborn = client.update('counter', async () => {
    rig.set('counter', `other ${++merges}`)
    return 'mine'
  })
  await rejectsWith(stubborn, 'PRECONDITION_FAILED', 'none')
  assert.equal(merges, 16)
})

test('Client.update() does not merge twice what may have been written', async () => {
  await using rig = await Rig.start(2)
  rig.set('counter', '1')
  let merges = 0
  rig.intercept((request, response) => {
    if (request.method !== 'PUT') return false
    response.socket!.destroy()
    return true
  })
  await rejectsWith(
    rig.client.update('counter', () => `${++merges}`),
    'NOT_READY',
    'unknown',
  )
  assert.equal(merges, 1)
})

test('A closed client fails what is under way and what comes after', async () => {
  await using rig = await Rig.start(2)
  const { client } = rig
  const arrived = Promise.withResolvers<void>()
  rig.intercept(() => {
    arrived.resolve()
    return true
  })
  const pending = [client.get('k'), client.get('k', { r: 'one' })]
  const failed = Promise.all(pending.map((promise) => rejectsWith(promise, 'CLOSED', 'none')))
  await arrived.promise
  client.close()
  await failed
  await rejectsWith(client.put('k', 'v'), 'CLOSED', 'none')
})

test('connect() refuses options that make no sense', () => {
  const endpoints = ['http://127.0.0.1:1']
  assert.throws(() => connect({ endpoints: [] }), { code: 'BAD_CONFIG' })
  assert.throws(() => connect({ endpoints: ['ftp://x'] }), { code: 'BAD_CONFIG' })
  assert.throws(() => connect({ endpoints, timeoutMs: 0 }), { code: 'BAD_CONFIG' })
  assert.throws(() => connect({ endpoints, batchMax: 0 }), { code: 'BAD_CONFIG' })
})

test('The client depends on nothing but Node, and on no part of the server', () => {
  const root = join(import.meta.dirname, '..', '..', 'src')
  const seen = new Set<string>()
  const foreign: string[] = []
  const visit = (file: string): void => {
    if (seen.has(file)) return
    seen.add(file)
    const imports = readFileSync(file, 'utf8').matchAll(/^(?:import|export)\s(?!type )[^'"]*?from\s+'([^']+)'/gm)
    for (const [, target] of imports) {
      if (target!.startsWith('.')) visit(join(dirname(file), target!))
      else if (!target!.startsWith('node:')) foreign.push(target!)
    }
  }
  visit(join(root, 'client', 'connect.ts'))
  assert.deepEqual(foreign, [])
  assert.ok(seen.size > 8)
  assert.ok([...seen].every((file) => !file.includes('/host/')))
})
