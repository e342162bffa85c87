import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runDemo } from './demo.ts'

const records = Math.round(2_000 * Number(process.env['SUNWISE_TEST_SCALE'] ?? 1))

test('Demo: a server killed in the middle of an import loses nothing that it acknowledged', async (t) => {
  const verified = await runDemo({ records, log: (line) => t.diagnostic(line) })
  assert.equal(verified, records)
})

test('Demo: the check fails where an acknowledged write is not what was written', async () => {
  await assert.rejects(runDemo({ records: 2_000, log: () => {}, sabotage: 1 }), /1 records are wrong after the crash/)
})
