/** What a log cannot be dealt into: it is refused with a code, and the data stays as it was. */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { open } from '../../src/index.ts'

const MiB = 1024 * 1024

test('A store with a value too large for the segments of a new configuration refuses to start, and keeps the value', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'sunwise-dealer-'))
  const large = { dir, shards: 1, durability: 'os', valueBytesMax: 16 * MiB, memoryBytes: 1100 * MiB } as const
  try {
    {
      await using store = await open(large)
      await store.put('large', new Uint8Array(16 * MiB).fill(7))
    }
    await assert.rejects(open({ ...large, valueBytesMax: 1 * MiB, memoryBytes: 200 * MiB }), {
      code: 'BAD_CONFIG',
      message: /--value-max/,
    })
    await using store = await open(large)
    assert.equal(store.getSync('large')?.length, 16 * MiB)
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
})
