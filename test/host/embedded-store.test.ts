/** The application's end of an embedded store when the node thread fails. The thread is caught as it is made. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import workerThreads, { type Worker } from 'node:worker_threads'
import type { SunwiseError } from '../../src/index.ts'

const made: Worker[] = []
const OriginalWorker = workerThreads.Worker
workerThreads.Worker = class extends OriginalWorker {
  constructor(...values: ConstructorParameters<typeof OriginalWorker>) {
    super(...values)
    made.push(this)
  }
}
syncBuiltinESMExports()
const { open } = await import('../../src/index.ts')

const root = mkdtempSync(join(tmpdir(), 'sunwise-embedded-store-'))
after(() => rmSync(root, { recursive: true, force: true }))

let directories = 0
const options = () => ({ dir: join(root, String(directories++)), shards: 1, memoryBytes: 96 * 1024 * 1024 })

const codeOf = async (promise: Promise<unknown>): Promise<string> => {
  const outcome = await Promise.allSettled([promise])
  assert.equal(outcome[0].status, 'rejected')
  return ((outcome[0] as PromiseRejectedResult).reason as SunwiseError).code
}

test('open() rejects when the node thread ends before it has started', { timeout: 120_000 }, async () => {
  const opening = open(options())
  await Promise.resolve()
  void made.at(-1)!.terminate()
  assert.equal(await codeOf(opening), 'INTERNAL')
})

test('When the node thread ends, what is under way settles, later calls fail, and close() resolves', {
  timeout: 120_000,
}, async () => {
  const wanted = options()
  const logged: string[] = []
  const store = await open({ ...wanted, log: (line) => logged.push(line) })
  await store.put('key', 'value')
  const node = made.at(-1)!
  const ended = node.terminate()
  const underWay = [store.put('key', 'late'), store.putBucket('late'), store.deleteBucket('late')]
  // The end takes a moment, in which any of them may still be answered.
  const settled = await Promise.allSettled(underWay)
  for (const outcome of settled) {
    if (outcome.status === 'rejected')
      assert.match((outcome.reason as SunwiseError).code, /^(CLOSED|SHARD_UNAVAILABLE)$/)
  }
  await ended
  assert.equal(await codeOf(store.get('key')), 'CLOSED')
  assert.equal(await codeOf(store.put('key', 'value')), 'CLOSED')
  assert.equal(await codeOf(store.putBucket('bucket')), 'CLOSED')
  assert.throws(
    () => store.getSync('key'),
    (error) => (error as SunwiseError).code === 'CLOSED',
  )
  assert.ok(logged.some((line) => /node thread has ended/.test(line)))
  await store.close()
  await using again = await open(wanted)
  const stored = Buffer.from(again.getSync('key')!).toString()
  assert.match(stored, settled[0]!.status === 'fulfilled' ? /^late$/ : /^(value|late)$/)
})

test('A request that is under way when close() is called is answered, an admin request too', {
  timeout: 120_000,
}, async () => {
  const store = await open(options())
  const written = store.put('key', 'value')
  const bucket = store.putBucket('bucket')
  await store.close()
  assert.equal((await written).siblings, 1)
  assert.equal((await bucket).name, 'bucket')
})
