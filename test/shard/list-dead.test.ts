/** Lists through long stretches of what was deleted. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import type { BatchOperation, BatchResult, ListPage } from '../../src/replication/requests.ts'
import { flush } from '../../src/storage/flush.ts'
import { SimCatalog } from '../sim/sim-catalog.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { SimJobs } from '../sim/sim-jobs.ts'
import { bytesOf, crc32, textOf } from '../storage/store-rig.ts'
import { bucketOf, ShardRig, send } from './shard-rig.ts'

const segmentBytes = 65536
const deadKeys = 110_000
const liveEvery = 11

test('A list through dead keys looks at so many for a page, and its cursor leads on to all that live', () => {
  const random = new SeededRandom(1)
  const disk = new SimDisk({ random: random.fork('disk') })
  const catalog = new SimCatalog({ random: random.fork('catalog'), completions: 'immediate' })
  const tools = { crc32, codec: undefined }
  const jobs = new SimJobs(disk, {
    flush: (input: never, world) => flush(input, world, tools),
    // Merging would take the dead away.
    compact: () => {
      throw new SunwiseError('DISK_FULL', 'No room for a merge')
    },
  })
  const clock = new SimClock()
  const rig = new ShardRig({
    disk,
    clock,
    preallocate: false,
    segmentBytes,
    segments: 72,
    budgetBytes: 60 * segmentBytes,
    tables: { catalog, jobs, random: random.fork('tables') },
  }).open()
  const run = (operations: readonly BatchOperation[]): void => {
    const result = send<readonly BatchResult[]>((done) => rig.coordinator.batch(bucketOf(), operations, {}, done))
    for (let round = 0; result.calls === 0; round++) {
      assert.ok(round < 5000)
      rig.turn()
      jobs.runNext(random)
      if (round % 8 === 7) {
        clock.advance(20)
        rig.tick()
      }
    }
    assert.equal(result.error, undefined)
    for (const each of result.answer!) assert.equal('error' in each && each.error, false)
  }
  const keyOf = (index: number): Uint8Array => bytesOf(`{one}${String(index).padStart(7, '0')}`)
  const ofAll = (operationOf: (index: number) => BatchOperation | undefined): void => {
    for (let first = 0; first < deadKeys; first += 1000) {
      const operations = Array.from({ length: 1000 }, (_, offset) => operationOf(first + offset))
      run(operations.filter((operation) => operation !== undefined))
    }
  }
  ofAll((index) => ({ op: 'put', key: keyOf(index), value: bytesOf('v') }))
  const isLive = (index: number): boolean => index === deadKeys - 1 || index % liveEvery === liveEvery - 1
  const { tables } = rig.shards[0]!.store
  assert.ok(tables!.flushes > 2, `${tables!.flushes} flushes`)
  ofAll((index) => (isLive(index) ? undefined : { op: 'delete', key: keyOf(index) }))

  const found: string[] = []
  let cursor: Uint8Array | undefined
  let pages = 0
  let shortPages = 0
  do {
    const from = cursor
    const result = send<ListPage>((done) =>
      rig.coordinator.list(bucketOf(), { limit: 10_000, values: false, cursor: from, timeoutMs: 600_000 }, done),
    )
    rig.settle()
    assert.equal(result.error, undefined)
    const { answer } = result
    for (const { key } of answer!.keys) found.push(textOf(key))
    cursor = answer!.cursor
    pages++
    if (cursor !== undefined && answer!.keys.length < 10_000) shortPages++
    assert.ok(pages < 100)
  } while (cursor !== undefined)
  const wanted = Array.from({ length: deadKeys }, (_, index) => index).filter(isLive)
  assert.deepEqual(
    found,
    wanted.map((index) => textOf(keyOf(index))),
  )
  assert.ok(shortPages > 0, 'A page ended early')
})
