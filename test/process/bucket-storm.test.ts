/**
 * Buckets that are deleted and made again while all workers are busy: whoever has the answer to the change meets no worker that
 * goes by the buckets of before.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { ServerProcess } from './server-process.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const roundsWanted = Math.round(25 * scale)
const directory = mkdtempSync(join(tmpdir(), 'sunwise-buckets-'))

after(() => rmSync(directory, { recursive: true, force: true }))

test('Node: what a deleted bucket held never shows, and nothing written to its successor is lost', async () => {
  await using server = await ServerProcess.start(directory, { flags: ['--shards', '2'] })
  const json = { 'content-type': 'application/json' }
  const keys = Array.from({ length: 8 }, (_, index) => `/v1/kv/storm/key-${index}`)
  let isOver = false
  // Batches keep the workers in long turns.
  const noises = Array.from({ length: 4 }, async (_, client) => {
    const operations = Array.from({ length: 1000 }, (_, index) => ({
      op: 'put',
      key: `noise ${client} ${index}`,
      value: 'x'.repeat(2000),
    }))
    while (!isOver) await server.ask('POST', '/v1/batch/default', JSON.stringify(operations), json)
  })
  try {
    for (let round = 0; round < roundsWanted; round++) {
      const value = `round ${round}`
      const made = await server.ask('PUT', '/v1/buckets/storm', '{}', json)
      assert.equal(made.status, 201)
      const writes = await Promise.all(keys.map((key) => server.ask('PUT', key, value)))
      assert.ok(writes.every(({ status }) => status === 204))
      // Twice as many connections as keys, so that both workers are asked for each.
      for (const { status, body } of await Promise.all([...keys, ...keys].map((key) => server.ask('GET', key)))) {
        assert.equal(status, 200)
        assert.equal(body.toString(), value)
      }
      assert.equal((await server.ask('DELETE', '/v1/buckets/storm')).status, 204)
      for (const { status } of await Promise.all([...keys, ...keys].map((key) => server.ask('GET', key)))) {
        assert.equal(status, 404)
      }
    }
  } finally {
    isOver = true
    await Promise.all(noises)
  }
})
