/** The cap on the versions of one key, against clients that keep writing with an old context. */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Limits } from '../../src/config.ts'
import { open, type Store } from '../../src/index.ts'

async function withStore(run: (store: Store) => Promise<void>): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'sunwise-siblings-'))
  try {
    await using store = await open({ dir, shards: 1, durability: 'os', memoryBytes: 256 * 1024 * 1024 })
    await run(store)
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

/** Calls `write` until it is refused; how often it succeeded. */
async function countUntilRefused(write: () => Promise<unknown>): Promise<number> {
  for (let count = 0; count < 2 * Limits.siblingsMax; count++) {
    try {
      await write()
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'TOO_MANY_SIBLINGS')
      return count
    }
  }
  return Infinity
}

test('Shard: deletes with an old context are refused at the cap of versions', () =>
  withStore(async (store) => {
    const { context } = await store.put('key', 'seen')
    await store.put('key', 'not seen')
    assert.equal(await countUntilRefused(() => store.delete('key', { context })), Limits.siblingsMax - 1)
    assert.deepEqual(await store.get('key').then((entry) => new TextDecoder().decode(entry?.value)), 'not seen')
  }))

test('Shard: writes that expire at once and have an old context are refused at the cap of versions', () =>
  withStore(async (store) => {
    const { context } = await store.put('key', 'seen')
    await store.put('key', 'not seen')
    assert.equal(await countUntilRefused(() => store.put('key', 'x', { context, ttl: 1 })), Limits.siblingsMax - 1)
  }))

test('Shard: at the cap of versions a write with the present context replaces them all', () =>
  withStore(async (store) => {
    const { context } = await store.put('key', 'seen')
    await store.put('key', 'not seen')
    await countUntilRefused(() => store.delete('key', { context }))
    const entry = await store.get('key')
    const written = await store.put('key', 'merged', { context: entry?.context })
    assert.equal(written.siblings, 1)
    assert.ok((await countUntilRefused(() => store.delete('key', { context }))) > 0)
  }))
