/**
 * Shard workers that throw, end, hang or meet a failing disk in a running server: the worker is restarted, its shard comes back
 * from the log with everything that was acknowledged, requests meanwhile get a coded answer, and the other shard serves on.
 * Faults come from outside, through the hook.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { Agent } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { partitionOfSlot, shardOfPartition, slotOfKey } from '../../src/cluster/slots.ts'
import { faultEnvironment, giveOrder } from './faults.ts'
import { noteReply, readBack } from './load.ts'
import { askAt, pathOf, problemOf, type Reply, ServerProcess } from './server-process.ts'
import { Witness } from './witness.ts'

const root = mkdtempSync(join(tmpdir(), 'sunwise-crash-'))
let directories = 0

after(() => rmSync(root, { recursive: true, force: true }))

type Place = { readonly data: string; readonly orders: string }

function newPlace(): Place {
  const place = join(root, `place-${directories++}`)
  return { data: join(place, 'data'), orders: join(place, 'orders') }
}

function start(place: Place, ...flags: readonly string[]): Promise<ServerProcess> {
  return ServerProcess.start(place.data, { flags: ['--shards', '2', ...flags], env: faultEnvironment(place) })
}

function shardOf(key: string): number {
  const bytes = Buffer.from(key)
  return shardOfPartition(partitionOfSlot(slotOfKey(bytes, 0, bytes.length)), 2)
}

/** Keys that a shard of two owns. */
function keysOf(shard: number, count: number): string[] {
  const keys: string[] = []
  for (let index = 0; keys.length < count; index++) if (shardOf(`key ${index}`) === shard) keys.push(`key ${index}`)
  return keys
}

/** Waits for a condition that the server brings about; fails after a bound. */
async function until(what: string, holds: () => boolean | Promise<boolean>, withinMs = 60_000): Promise<void> {
  const by = performance.now() + withinMs
  while (!(await holds())) {
    assert.ok(performance.now() < by, `Within ${withinMs} ms it never came about that ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/**
 * An answer over a new connection. Connections that the kernel gave to the dying worker are reset: then another one is made,
 * as any client would for a read. Undefined while nobody can be reached.
 */
async function askAnew(server: ServerProcess, method: string, path: string, body?: string): Promise<Reply | undefined> {
  try {
    return await askAt(server.ready.port, false, method, path, body)
  } catch {
    return undefined
  }
}

const isReady = (server: ServerProcess) => async (): Promise<boolean> =>
  (await askAnew(server, 'GET', '/readyz'))?.status === 200

/** The actor in the context of an answer: what names the writes of one incarnation of the node. */
function actorOf(reply: Reply): string {
  return Buffer.from(String(reply.headers['sunwise-context']), 'base64url').subarray(5, 13).toString('hex')
}

for (const [fault, message] of [
  ['throw', 'Thrown by order'],
  ['exit', 'exited with code 7'],
] as const) {
  test(`A worker that does "${fault}" under load is restarted, and nothing acknowledged is lost`, {
    timeout: 240_000,
  }, async () => {
    const place = newPlace()
    await using server = await start(place)
    const witness = new Witness()
    const refusals = new Map<string, number>()
    const agent = new Agent({ keepAlive: true, maxSockets: 16 })
    let isStopped = false
    let values = 0
    // Retried over fresh connections: half of those to the dying worker are cut.
    const clients = Array.from({ length: 12 }, async (_, client) => {
      const keys = [...keysOf(0, 36), ...keysOf(1, 36)].filter((_key, index) => index % 12 === client)
      for (let index = 0; !isStopped; index++) {
        const key = keys[index % keys.length]!
        const value = `${fault} ${++values}`
        let reply: Reply
        try {
          reply = await askAt(server.ready.port, agent, 'PUT', pathOf(key), value)
        } catch {
          witness.unknown(key, value)
          continue
        }
        noteReply(witness, key, value, reply, refusals)
      }
    })
    await until('writes are under way', () => witness.acknowledgedWrites > 300)
    await giveOrder(place.orders, 1, fault)
    await until('the crash is told', () => /Shard 1 crashed/.test(server.said))
    const atCrash = witness.acknowledgedWrites
    await until('the shard is back', isReady(server))
    await until('writes go on', () => witness.acknowledgedWrites > atCrash + 300)
    isStopped = true
    await Promise.all(clients)
    agent.destroy()
    assert.match(server.said, new RegExp(`Shard 1 crashed: .*${message}`))
    for (const code of refusals.keys()) assert.equal(code, 'SHARD_UNAVAILABLE')
    assert.deepEqual(await readBack(server, witness), [])
    assert.equal((await server.stop()).code, 0)
    await using again = await start(place)
    assert.deepEqual(await readBack(again, witness), [])
  })
}

test('A worker that crashes while its data goes to tables is restarted over them, and nothing acknowledged is lost', {
  timeout: 240_000,
}, async () => {
  const place = newPlace()
  const flags = ['--memory', '140mb', '--durability', 'os']
  await using server = await start(place, ...flags)
  const witness = new Witness()
  const tables = async (): Promise<number> => {
    const { body } = await server.ask('GET', '/metrics')
    return Number(/^sunwise_shard_flushes_total\{shard="0"\} (\d+)$/m.exec(body.toString())?.[1] ?? 0)
  }
  let values = 0
  const write = async (key: string, fresh: boolean): Promise<boolean> => {
    const value = `${++values} ${'x'.repeat(200_000)}`
    const ask = fresh ? askAnew(server, 'PUT', pathOf(key), value) : server.ask('PUT', pathOf(key), value)
    const reply = await ask
    if (reply === undefined) witness.unknown(key, value)
    else noteReply(witness, key, value, reply, new Map())
    return reply?.status === 204
  }
  const keys = keysOf(0, 400)
  for (let round = 0; (await tables()) < 2; round++) {
    assert.ok(round < keys.length, 'Data beyond memory goes to tables')
    await Promise.all([0, 1, 2, 3].map((lane) => write(keys[(4 * round + lane) % keys.length]!, false)))
  }
  await giveOrder(place.orders, 0, 'throw')
  await until('the crash is told', () => /Shard 0 crashed/.test(server.said))
  await until('the shard is back', isReady(server))
  assert.deepEqual(await readBack(server, witness), [])
  await until('writes go on', async () => (await write(keys[0]!, true)) && (await write(keysOf(1, 1)[0]!, true)))
  assert.deepEqual(await readBack(server, witness), [])
  assert.equal((await server.stop()).code, 0)
  await using again = await start(place, ...flags)
  assert.deepEqual(await readBack(again, witness), [])
})

test('Workers that crash at once both come back, and find each other', { timeout: 240_000 }, async () => {
  const place = newPlace()
  await using server = await start(place)
  const witness = new Witness()
  const keys = [...keysOf(0, 20), ...keysOf(1, 20)]
  for (const key of keys) {
    noteReply(witness, key, 'before', await server.ask('PUT', pathOf(key), 'before'), new Map())
  }
  await Promise.all([giveOrder(place.orders, 0, 'exit'), giveOrder(place.orders, 1, 'exit')])
  await until('both crashes are told', () => (server.said.match(/Shard \d crashed/g) ?? []).length === 2)
  await until('both shards are back', isReady(server))
  // Over many connections: each worker has to reach the other one.
  for (const key of keys) {
    for (let connection = 0; connection < 4; connection++) {
      const reply = await askAnew(server, 'PUT', pathOf(key), 'after')
      assert.equal(reply?.status, 204, `${key}: ${reply?.body}`)
      witness.acknowledged(key, 'after')
    }
  }
  assert.deepEqual(await readBack(server, witness), [])
  assert.equal((await server.stop()).code, 0)
})

test('A worker in an endless loop is found, restarted, and meanwhile the other shard serves', {
  timeout: 240_000,
}, async () => {
  const place = newPlace()
  await using server = await start(place)
  const [hung] = keysOf(1, 1)
  const [served] = keysOf(0, 1)
  // A connection that the worker of shard 0 serves: it answers while shard 1 hangs.
  assert.equal((await server.ask('PUT', pathOf(hung!), 'before')).status, 204)
  const agents = Array.from({ length: 24 }, () => new Agent({ keepAlive: true, maxSockets: 1 }))
  await Promise.all(agents.map((agent) => askAt(server.ready.port, agent, 'GET', '/healthz')))
  await giveOrder(place.orders, 1, 'hang')
  const hungAt = performance.now()
  const answers = agents.map(async (agent, index) => {
    const reply = await askAt(server.ready.port, agent, 'PUT', `${pathOf(served!)}?timeout=4s`, `while ${index}`)
    return { reply, agent, ms: performance.now() - hungAt }
  })
  const firstOne = await Promise.any(answers)
  assert.equal(firstOne.reply.status, 204)
  assert.ok(firstOne.ms < 4_500, 'The other shard waits for nobody, nor for the hung one to be found')
  // Its write to the hung shard ends by its deadline, and nobody can say whether it took effect.
  const late = await askAt(server.ready.port, firstOne.agent, 'PUT', `${pathOf(hung!)}?timeout=300ms`, 'during')
  assert.equal(late.status, 504)
  assert.equal(problemOf(late).code, 'TIMEOUT')
  assert.equal(problemOf(late).outcome, 'unknown')
  // What is in memory can be read all the same: reads do not cross threads.
  const read = await askAt(server.ready.port, firstOne.agent, 'GET', pathOf(hung!))
  assert.equal(read.body.toString(), 'before')
  await until('the hang is told', () => /Shard 1 crashed: .*did not turn for \d+ s/.test(server.said))
  const foundMs = performance.now() - hungAt
  assert.ok(foundMs > 4_000 && foundMs < 15_000, `A hang is found after 5 s, not after ${foundMs} ms`)
  await Promise.allSettled(answers)
  for (const agent of agents) agent.destroy()
  await until('the shard is back', isReady(server))
  const now = await server.ask('GET', pathOf(hung!))
  assert.ok(['before', 'during'].includes(now.body.toString()))
  assert.equal((await server.ask('PUT', pathOf(hung!), 'after')).status, 204)
  assert.equal((await server.stop()).code, 0)
})

test('SIGTERM ends a server with a worker in an endless loop, and nothing acknowledged is lost', {
  timeout: 240_000,
}, async () => {
  const place = newPlace()
  await using server = await start(place, '--drain-timeout', '100ms')
  const witness = new Witness()
  for (const key of [...keysOf(0, 10), ...keysOf(1, 10)]) {
    noteReply(witness, key, 'value', await server.ask('PUT', pathOf(key), 'value'), new Map())
  }
  await giveOrder(place.orders, 1, 'hang')
  const ending = await Promise.race([
    server.stop(),
    new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), 60_000).unref()),
  ])
  assert.ok(ending !== undefined, 'A hung worker must not hold a stop for ever')
  assert.equal(ending.signal, null)
  await using again = await start(place)
  assert.deepEqual(await readBack(again, witness), [])
})

test('A worker that stalls for a second is not taken for hung', { timeout: 240_000 }, async () => {
  const place = newPlace()
  await using server = await start(place)
  await giveOrder(place.orders, 1, 'stall')
  const [key] = keysOf(1, 1)
  await until('the shard answers again', async () => {
    return (await askAnew(server, 'PUT', pathOf(key!), 'value'))?.status === 204
  })
  assert.doesNotMatch(server.said, /crashed/)
})

test('A stop that begins while a sync takes long ends in order when the sync does', { timeout: 240_000 }, async () => {
  const place = newPlace()
  await using server = await start(place, '--durability', 'interval')
  await giveOrder(place.orders, 1, 'delay fdatasync 700')
  // So much to sync that it is done beside the loop.
  assert.equal((await server.ask('PUT', pathOf(keysOf(1, 1)[0]!), Buffer.alloc(1_000_000))).status, 204)
  await until('the sync waits', () => server.said.includes('fdatasync waits'))
  assert.equal((await server.stop()).code, 0, server.said)
})

test('Requests for a shard that is down get 503 SHARD_UNAVAILABLE with outcome none', {
  timeout: 240_000,
}, async () => {
  const place = newPlace()
  await using server = await start(place)
  // Enough in the log that its recovery takes a while.
  const [key, ...others] = keysOf(1, 40)
  const value = Buffer.alloc(1024 * 1024, 1)
  await Promise.all(others.map((other) => server.ask('PUT', `${pathOf(other)}?durability=os`, value)))
  assert.equal((await server.ask('PUT', pathOf(key!), 'acknowledged')).status, 204)
  const agents = Array.from({ length: 16 }, () => new Agent({ keepAlive: true, maxSockets: 1 }))
  await Promise.all(agents.map((agent) => askAt(server.ready.port, agent, 'GET', '/healthz')))
  await giveOrder(place.orders, 1, 'exit')
  const refusals: Reply[] = []
  await until('a request was refused, and one was served again', async () => {
    for (const agent of agents) {
      const reply = await askAt(server.ready.port, agent, 'GET', pathOf(key!)).catch(() => undefined)
      if (reply?.status === 503) refusals.push(reply)
      else if (reply?.status === 200) assert.equal(reply.body.toString(), 'acknowledged')
      else if (reply !== undefined) assert.fail(`A read got ${reply.status}: ${reply.body}`)
      const put = await askAt(server.ready.port, agent, 'PUT', pathOf('elsewhere'), 'x').catch(() => undefined)
      if (put?.status === 503) refusals.push(put)
    }
    return refusals.length > 0 && (await isReady(server)())
  })
  for (const agent of agents) agent.destroy()
  for (const reply of refusals) {
    const { code, outcome } = problemOf(reply)
    assert.equal(code, 'SHARD_UNAVAILABLE')
    assert.ok(reply.headers['retry-after'] !== undefined)
    assert.ok(outcome === 'none' || outcome === 'unknown')
  }
  assert.ok(refusals.some((reply) => problemOf(reply).outcome === 'none'))
})

test('The third crash within a minute ends the process with code 1 and says why', { timeout: 240_000 }, async () => {
  const place = newPlace()
  await using server = await start(place)
  assert.equal((await server.ask('PUT', pathOf('key'), 'acknowledged')).status, 204)
  for (let crash = 1; crash <= 2; crash++) {
    await giveOrder(place.orders, crash % 2, 'throw')
    await until('the crash is told', () => (server.said.match(/Shard \d crashed/g) ?? []).length === crash)
    await until('the shard is back', isReady(server))
  }
  await giveOrder(place.orders, 1, 'throw')
  const ending = await server.exited
  assert.equal(ending.signal, null)
  assert.equal(ending.code, 1)
  assert.match(ending.said, /WORKERS_FAILED/)
  assert.match(ending.said, /crashed 3 times within 60 s/)
  await using again = await start(place)
  assert.equal((await again.ask('GET', pathOf('key'))).body.toString(), 'acknowledged')
})

test('A failed fdatasync acknowledges nothing, and the shard restarts under a new actor', {
  timeout: 240_000,
}, async () => {
  const place = newPlace()
  await using server = await start(place)
  const witness = new Witness()
  const refusals = new Map<string, number>()
  const [fresh, ...keys] = keysOf(1, 21)
  let actor = ''
  for (const key of keys) {
    const reply = await server.ask('PUT', pathOf(key), 'before')
    noteReply(witness, key, 'before', reply, refusals)
    actor = actorOf(reply)
  }
  assert.deepEqual([...refusals], [])
  // Inline or on the pool: the order holds for whichever comes.
  await giveOrder(place.orders, 1, 'fail fdatasync EIO')
  const key = keys[0]!
  let reply: Reply | undefined
  try {
    reply = await server.ask('PUT', pathOf(key), 'during')
    noteReply(witness, key, 'during', reply, refusals)
  } catch {
    witness.unknown(key, 'during')
  }
  if (reply !== undefined) {
    assert.ok(reply.status >= 500, `A write whose sync failed got ${reply.status}`)
    assert.equal(problemOf(reply).outcome, 'unknown')
  }
  await until('the crash is told', () => /Shard 1 crashed: .*EIO/.test(server.said))
  await until('the shard is back', isReady(server))
  assert.deepEqual(await readBack(server, witness), [])
  // A key without a past: its context names the present actor alone.
  const after = await server.ask('PUT', pathOf(fresh!), 'after')
  assert.equal(after.status, 204)
  witness.acknowledged(fresh!, 'after')
  assert.notEqual(actorOf(after), actor, 'Writes go on under a new actor')
  const [ofOther] = keysOf(0, 1)
  assert.equal(actorOf(await server.ask('PUT', pathOf(ofOther!), 'after')), actorOf(after))
  await server.kill()
  await using again = await start(place)
  assert.deepEqual(await readBack(again, witness), [])
})

test('A sync that fails while the server stops is told: the end is not a clean one', { timeout: 240_000 }, async () => {
  const place = newPlace()
  await using server = await start(place, '--durability', 'os', '--sync-interval', '1m')
  const key = keysOf(1, 1)[0]!
  // The first write asks for less than sync, which the catalog must note before it counts.
  for (let write = 0; write < 20; write++) assert.equal((await server.ask('PUT', pathOf(key), `${write}`)).status, 204)
  await giveOrder(place.orders, 1, 'fail fdatasync EIO')
  const ending = await server.stop()
  assert.equal(ending.code, 1, ending.said)
  assert.match(ending.said, /EIO/)
  await using again = await start(place)
  assert.equal((await again.ask('GET', pathOf(key))).body.toString(), '19')
})
