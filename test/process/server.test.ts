/** The server as an operator meets it: a process that is started, stopped, refused and repaired. */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { askAt, type Ending, pathOf, problemOf, ServerProcess } from './server-process.ts'

const root = mkdtempSync(join(tmpdir(), 'sunwise-server-'))
let directories = 0
const newDirectory = (): string => join(root, `data-${directories++}`)

after(() => rmSync(root, { recursive: true, force: true }))

/** The failure that a process told on stderr as its last line. */
function failureOf(ending: Ending): { readonly error: string; readonly code: string } {
  const line = ending.said.trim().split('\n').at(-1) ?? ''
  assert.match(line, /^\{.*\}$/, `No failure in JSON: ${ending.said}`)
  return JSON.parse(line) as { error: string; code: string }
}

test('SIGTERM: every request under way is answered, then the process ends with 0', { timeout: 240_000 }, async () => {
  const directory = newDirectory()
  await using server = await ServerProcess.start(directory, { flags: ['--shards', '2'] })
  const { port } = server.ready
  // Bodies that are half sent when the signal comes.
  const slow = Array.from({ length: 8 }, (_, index) => {
    const headers = { 'content-length': 6 }
    const sent = request({
      host: '127.0.0.1',
      port,
      agent: false,
      method: 'PUT',
      path: pathOf(`slow ${index}`),
      headers,
    })
    sent.write('abc')
    const status = new Promise<number>((resolve, reject) => {
      sent.on('error', reject)
      sent.on('response', (reply) => {
        reply.resume()
        reply.on('end', () => resolve(reply.statusCode!))
      })
    })
    return { sent, status }
  })
  // They have arrived once later requests of other connections are answered by both workers.
  for (let index = 0; index < 40; index++) await askAt(port, false, 'PUT', pathOf(`before ${index}`), 'value')
  const agent = new Agent({ keepAlive: true, maxSockets: 32 })
  const acknowledged: string[] = []
  const refusals: string[] = []
  const clients = Array.from({ length: 16 }, async (_, client) => {
    for (let index = 0; ; index++) {
      const key = `client ${client} ${index}`
      const reply = await askAt(port, agent, 'PUT', pathOf(key), key).catch(() => undefined)
      if (reply?.status === 204) acknowledged.push(key)
      else if (reply !== undefined) refusals.push(problemOf(reply).code)
      if (reply === undefined || reply.status !== 204) return
    }
  })
  while (acknowledged.length < 100) await new Promise((resolve) => setImmediate(resolve))
  const stopped = server.stop()
  while (!server.said.includes('SIGTERM')) await new Promise((resolve) => setImmediate(resolve))
  for (const { sent } of slow) sent.end('def')
  assert.deepEqual(
    await Promise.all(slow.map(({ status }) => status)),
    slow.map(() => 204),
  )
  const ending = await stopped
  await Promise.all(clients)
  agent.destroy()
  assert.deepEqual(
    refusals.filter((code) => code !== 'NOT_READY'),
    [],
  )
  assert.equal(ending.code, 0, ending.said)
  assert.match(ending.said, /stopped cleanly/)
  await using again = await ServerProcess.start(directory, { flags: ['--shards', '2'] })
  for (const key of acknowledged) assert.equal((await again.ask('GET', pathOf(key))).body.toString(), key)
  for (let index = 0; index < 8; index++) {
    assert.equal((await again.ask('GET', pathOf(`slow ${index}`))).body.toString(), 'abcdef')
  }
  assert.equal((await again.stop()).code, 0)
})

test('SIGTERM of an idle server with kept connections ends it at once', { timeout: 120_000 }, async () => {
  await using server = await ServerProcess.start(newDirectory(), { flags: ['--drain-timeout', '100s'] })
  assert.equal((await server.ask('GET', '/healthz')).status, 200)
  const started = performance.now()
  assert.equal((await server.stop()).code, 0)
  assert.ok(performance.now() - started < 30_000, 'An idle connection must not hold a stop')
})

test('A second server on the same port is refused with ADDRESS_IN_USE, and the first serves on', {
  timeout: 120_000,
}, async () => {
  await using first = await ServerProcess.start(newDirectory(), { flags: ['--shards', '2'] })
  await using second = ServerProcess.spawn(newDirectory(), { flags: ['--http', `127.0.0.1:${first.ready.port}`] })
  const ending = await second.exited
  assert.equal(ending.code, 1)
  assert.equal(failureOf(ending).code, 'ADDRESS_IN_USE')
  assert.match(failureOf(ending).error, new RegExp(`:${first.ready.port}\\b`))
  assert.equal((await first.ask('PUT', pathOf('key'), 'value')).status, 204)
})

test('A second server on the same directory is refused with DIRECTORY_LOCKED and told who has it', {
  timeout: 120_000,
}, async () => {
  const directory = newDirectory()
  await using first = await ServerProcess.start(directory)
  await using second = ServerProcess.spawn(directory)
  const ending = await second.exited
  assert.equal(ending.code, 1)
  assert.equal(failureOf(ending).code, 'DIRECTORY_LOCKED')
  assert.match(failureOf(ending).error, new RegExp(`\\b${first.pid}\\b`))
  assert.equal((await first.ask('PUT', pathOf('key'), 'value')).status, 204)
  await first.kill()
  // The lock of a killed process is nobody's.
  await using third = await ServerProcess.start(directory)
  assert.equal((await third.ask('GET', pathOf('key'))).body.toString(), 'value')
})

test('An address that others can reach is refused without --insecure', { timeout: 120_000 }, async () => {
  const directory = newDirectory()
  await using refused = ServerProcess.spawn(directory, { flags: ['--http', '0.0.0.0:0'] })
  const ending = await refused.exited
  assert.equal(ending.code, 2)
  assert.equal(failureOf(ending).code, 'ADDRESS_REFUSED')
  await using insecure = await ServerProcess.start(directory, { flags: ['--http', '0.0.0.0:0', '--insecure'] })
  assert.equal((await insecure.ask('PUT', pathOf('key'), 'value')).status, 204)
})

test('Another number of --shards keeps every key, deletion, type and expiry', { timeout: 240_000 }, async () => {
  const directory = newDirectory()
  const contexts = new Map<string, string>()
  const shardCounts = [1, 3, 2]
  let expires: string | undefined
  for (const [round, shards] of shardCounts.entries()) {
    await using server = await ServerProcess.start(directory, { flags: ['--shards', String(shards)] })
    assert.equal(server.ready.shards, shards)
    for (let index = 0; index < 60 * round; index++) {
      const reply = await server.ask('GET', pathOf(`key ${index}`))
      assert.equal(reply.status, index % 4 === 0 ? 404 : 200)
      assert.equal(reply.headers['sunwise-context'], contexts.get(`key ${index}`))
      if (index % 4 === 0) continue
      assert.equal(reply.body.toString(), `value ${index}`)
      assert.equal(reply.headers['content-type'], 'text/x-test')
    }
    if (round > 0) assert.equal((await server.ask('GET', pathOf('expiring'))).headers['sunwise-expires'], expires)
    else expires = String((await server.ask('PUT', `${pathOf('expiring')}?ttl=10m`, 'v')).headers['sunwise-expires'])
    for (let index = 60 * round; index < 60 * (round + 1); index++) {
      const key = `key ${index}`
      const put = await server.ask('PUT', pathOf(key), `value ${index}`, { 'content-type': 'text/x-test' })
      assert.equal(put.status, 204)
      const last = index % 4 === 0 ? await server.ask('DELETE', pathOf(key)) : put
      assert.equal(last.status, 204)
      contexts.set(key, String(last.headers['sunwise-context']))
    }
    assert.equal((await server.stop()).code, 0)
  }
})

test('Data beyond the memory budget is served from tables, after a kill, too', { timeout: 240_000 }, async () => {
  const directory = newDirectory()
  const flags = ['--memory', '68mb', '--shards', '1', '--durability', 'os']
  await using server = await ServerProcess.start(directory, { flags })
  const values = 250
  const contentOf = (index: number): Buffer => Buffer.alloc(512 * 1024, index)
  for (let index = 0; index < values; ) {
    // Writers wait for the disk, which may be a slow one.
    const reply = await server.ask('PUT', `${pathOf(`fill ${index}`)}?timeout=20s`, contentOf(index))
    if (reply.status === 204) index++
    else assert.deepEqual([problemOf(reply).code, problemOf(reply).outcome], ['OVERLOADED', 'none'])
  }
  for (let index = 0; index < values; index += 2) {
    assert.equal((await server.ask('DELETE', `${pathOf(`fill ${index}`)}?timeout=20s`)).status, 204)
  }
  const check = async (from: ServerProcess): Promise<void> => {
    for (let index = 0; index < values; index++) {
      const reply = await from.ask('GET', pathOf(`fill ${index}`))
      assert.equal(reply.status, index % 2 === 0 ? 404 : 200, `fill ${index}`)
      if (index % 2 === 1) assert.ok(reply.body.equals(contentOf(index)), `fill ${index}`)
    }
  }
  await check(server)
  await server.kill()
  await using again = await ServerProcess.start(directory, { flags })
  await check(again)
})

test('A log that is damaged before its synced end stops the start, named by file and offset; --salvage starts', {
  timeout: 240_000,
}, async () => {
  const directory = newDirectory()
  const count = 40
  {
    await using server = await ServerProcess.start(directory, { flags: ['--shards', '1'] })
    for (let index = 0; index < count; index++) {
      assert.equal((await server.ask('PUT', pathOf(`key ${index}`), `value number ${index}.`)).status, 204)
    }
    await server.kill()
  }
  const log = join(directory, 'log', '1', '0')
  const name = readdirSync(log).find((file) => readFileSync(join(log, file)).includes('value number 20.'))!
  const intact = readFileSync(join(log, name))
  const damaged = Buffer.from(intact)
  damaged[intact.indexOf('value number 20.')]! ^= 0x10
  writeFileSync(join(log, name), damaged)
  for (let attempt = 0; attempt < 2; attempt++) {
    await using refused = ServerProcess.spawn(directory, { flags: ['--shards', '1'] })
    const ending = await refused.exited
    assert.equal(ending.code, 1)
    const { code, error } = failureOf(ending)
    assert.equal(code, 'LOG_CORRUPT')
    assert.ok(error.includes(name), error)
    const offset = Number(/(?:offset|byte) (\d+)/.exec(error)?.[1])
    const at = intact.indexOf('value number 20.')
    assert.ok(offset < at && offset > at - 300, error)
    assert.ok(readFileSync(join(log, name)).equals(damaged), 'A refused start changes nothing')
  }
  // Another number of shards reads the same log, and must not be a way around it.
  await using dealt = ServerProcess.spawn(directory, { flags: ['--shards', '2'] })
  const ending = await dealt.exited
  assert.equal(failureOf(ending).code, 'LOG_CORRUPT')
  await using salvaged = await ServerProcess.start(directory, { flags: ['--shards', '1', '--salvage'] })
  assert.match(salvaged.said, new RegExp(`Salvaged around damage in .*${name}`))
  let missing = 0
  for (let index = 0; index < count; index++) {
    const reply = await salvaged.ask('GET', pathOf(`key ${index}`))
    if (reply.status === 404) missing++
    else assert.equal(reply.body.toString(), `value number ${index}.`)
  }
  assert.equal(missing, 1)
  assert.equal((await salvaged.ask('PUT', pathOf('key 20'), 'written anew')).status, 204)
  await salvaged.kill()
  // What was kept stands in a log of its own now: no start needs the flag again, and the damaged log is still there.
  const quarantines = (): string[] => readdirSync(directory).filter((entry) => entry.startsWith('quarantine-'))
  assert.deepEqual(quarantines(), ['quarantine-1'])
  // As if the process had been killed before it could put the damaged log away.
  renameSync(join(directory, 'quarantine-1'), join(directory, 'log', '1'))
  await using again = await ServerProcess.start(directory, { flags: ['--shards', '1'] })
  assert.equal((await again.ask('GET', pathOf('key 20'))).body.toString(), 'written anew')
  assert.equal((await again.ask('GET', pathOf('key 21'))).body.toString(), 'value number 21.')
  assert.deepEqual(quarantines(), ['quarantine-1'])
})
