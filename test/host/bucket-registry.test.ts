/** Buckets on the node thread: when a change is answered, and which limit of values holds. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SunwiseError } from '../../src/base/errors.ts'
import { hintBucketId } from '../../src/config.ts'
import { BucketRegistry } from '../../src/host/bucket-registry.ts'
import { NodeRecord } from '../../src/host/node-record.ts'
import type { Bucket } from '../../src/replication/requests.ts'
import { isRetired } from '../../src/storage/known-buckets.ts'
import { SimCatalog } from '../sim/sim-catalog.ts'

const MiB = 1024 * 1024

/** Everything that can be done without another event has been done. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

test('BucketRegistry answers a change only when all threads go by it', async () => {
  const told: { readonly names: readonly string[]; readonly take: () => void }[] = []
  const changed = (buckets: readonly Bucket[]): Promise<void> =>
    new Promise((resolve) => told.push({ names: buckets.map(({ name }) => name), take: resolve }))
  const registry = new BucketRegistry(new NodeRecord(new SimCatalog()), MiB, changed)
  const answers: string[] = []
  void registry.put('carts', {}).then(() => answers.push('put'))
  void registry.delete('carts').then(() => answers.push('delete'))
  await turn()
  assert.deepEqual(told[0]?.names, ['carts'])
  assert.deepEqual(answers, [])
  told[0].take()
  await turn()
  assert.deepEqual(answers, ['put'])
  assert.deepEqual(told[1]?.names, [])
  told[1].take()
  await turn()
  assert.deepEqual(answers, ['put', 'delete'])
})

test('BucketRegistry lets a bucket without a limit of its own follow that of the server, and caps one with', async () => {
  const catalog = new SimCatalog()
  const started = (valueBytesMax: number): BucketRegistry =>
    new BucketRegistry(new NodeRecord(catalog), valueBytesMax, () => Promise.resolve())
  const limitsOf = (registry: BucketRegistry): Record<string, number> =>
    Object.fromEntries(registry.all.map(({ name, valueBytesMax }) => [name, valueBytesMax]))
  const first = started(MiB)
  await first.ensureDefault()
  await first.put('small', { valueBytesMax: 1000 })
  assert.deepEqual(limitsOf(first), { default: MiB, small: 1000 })
  const larger = started(16 * MiB)
  assert.deepEqual(limitsOf(larger), { default: 16 * MiB, small: 1000 })
  const { bucket } = await larger.put('large', { valueBytesMax: 8 * MiB })
  assert.equal(bucket.valueBytesMax, 8 * MiB)
  const smaller = started(MiB)
  assert.deepEqual(limitsOf(smaller), { default: MiB, small: 1000, large: MiB })
  // Another property of a bucket may change although its limit is above that of this server.
  assert.equal((await smaller.put('large', { ttlMs: 5000 })).bucket.valueBytesMax, MiB)
  await assert.rejects(
    smaller.put('large', { valueBytesMax: 2 * MiB }),
    (error) => error instanceof SunwiseError && error.code === 'BAD_BUCKET',
  )
  assert.deepEqual(limitsOf(started(16 * MiB)), { default: 16 * MiB, small: 1000, large: 8 * MiB })
})

test('BucketRegistry gives no bucket an id that is reserved, and nobody takes that of hints for a deleted one', async () => {
  const catalog = new SimCatalog()
  const value = new TextEncoder().encode(JSON.stringify({ next: hintBucketId - 1 }))
  catalog.commit([{ op: 'put', key: 'bucketId', value }], () => {})
  await turn()
  const registry = new BucketRegistry(new NodeRecord(catalog), MiB, () => Promise.resolve())
  const { bucket } = await registry.put('last', {})
  assert.equal(bucket.id, hintBucketId - 1)
  await assert.rejects(registry.put('more', {}), { code: 'TOO_MANY_BUCKETS' })
  await registry.delete('last')
  const known = { live: new Set<number>(), below: registry.below }
  assert.equal(isRetired(known, bucket.id), true)
  assert.equal(isRetired(known, hintBucketId), false)
})
