/** The client against a real server. One against a cluster is in cluster.test.ts. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { connect } from '../../src/client/connect.ts'
import { text, union } from './client-load.ts'
import { ServerProcess } from './server-process.ts'

const root = mkdtempSync(join(tmpdir(), 'sunwise-client-'))
after(() => rmSync(root, { recursive: true, force: true }))

const common = ['--shards', '1', '--memory', '96mb', '--durability', 'os']

test('Client and server understand each other', async () => {
  await using server = await ServerProcess.start(join(root, 'one'), { flags: common })
  await using client = connect({ endpoints: [server.ready.http], timeoutMs: 60_000 })
  const bytes = Buffer.from([0, 255, 10])
  const keys = Array.from({ length: 300 }, (_, index) => `key/${index} {ü}`)
  await Promise.all(keys.map((key) => client.put(key, key, { contentType: 'text/plain', ttlMs: 3_600_000 })))
  const entries = await Promise.all(keys.map((key) => client.get(key)))
  assert.deepEqual(
    entries.map(({ value }) => text(value)),
    keys,
  )
  assert.ok(entries.every(({ values }) => values[0]!.contentType === 'text/plain' && values[0]!.expiresAtMs! > 1e12))

  const { context, etag } = await client.put(bytes, bytes, { ifNoneMatch: '*' })
  await client.put(bytes, 'left', { context: context! })
  const { siblings, receipt } = await client.put(bytes, 'right', { context: context!, receipt: true })
  assert.equal(siblings, 2)
  assert.deepEqual([receipt!.acks, receipt!.replicas, receipt!.sloppy], [1, 1, false])
  const held = await client.get(bytes)
  assert.deepEqual(held.values.map(({ value }) => text(value)).sort(), ['left', 'right'])
  await assert.rejects(client.put(bytes, 'late', { ifMatch: etag! }), { code: 'PRECONDITION_FAILED', outcome: 'none' })
  assert.equal(text((await client.update(bytes, union('mine'))).value), 'left mine right')
  assert.equal((await client.get(bytes)).siblings, 1)

  // Counted one by one: conflicts are found and done again.
  await Promise.all(
    Array.from({ length: 6 }, () => client.update('count', ([value]) => String(Number(text(value?.value) ?? 0) + 1))),
  )
  assert.equal(text((await client.get('count')).value), '6')
  assert.equal((await client.update('count', () => null)).value, undefined)
  assert.deepEqual((await client.get('count')).values, [])
  await client.update('count', () => 'again')

  let listed = 0
  for await (const { key, entry } of client.list({ prefix: 'key/', values: true, pageLimit: 70 })) {
    assert.equal(text(entry!.value), text(key))
    listed++
  }
  assert.equal(listed, keys.length)
  const [put, get] = await client.batch([
    { op: 'put', key: 'b', value: 'v', ifNoneMatch: '*' },
    { op: 'get', key: 'absent' },
  ])
  assert.deepEqual([put!.status, get!.status, get!.entry!.value], [204, 404, undefined])
  await assert.rejects(client.put('k', new Uint8Array(2 ** 21)), { code: 'VALUE_TOO_LARGE', outcome: 'none' })
  await assert.rejects(client.get('k', { r: 4 }), { code: 'BAD_QUORUM' })
  assert.equal(client.ringEpoch, undefined)
})
