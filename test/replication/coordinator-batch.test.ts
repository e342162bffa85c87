/** The bound on the values of one batch answer, which the coordinator keeps: behind it nothing is read any more. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bucketIdOf, type EpochMs, type MonotonicMs } from '../../src/base/ids.ts'
import { Limits } from '../../src/config.ts'
import { ShardCoordinator } from '../../src/replication/coordinator.ts'
import type { BatchResult, Bucket } from '../../src/replication/requests.ts'
import { encodeRecord } from '../../src/storage/record.ts'
import type { ResidentReader } from '../../src/storage/resident-reader.ts'

const bucket: Bucket = {
  id: bucketIdOf(1),
  name: 'default',
  n: 1,
  r: 'one',
  w: 'one',
  sloppy: false,
  conflict: 'siblings',
  durability: undefined,
  ttlMs: undefined,
  valueBytesMax: Limits.valueBytesMax,
}
const key = new Uint8Array([107])

/** A coordinator over one key whose value has `valueBytes`, and the number of times that its record was copied. */
function coordinatorOver(valueBytes: number): { coordinator: ShardCoordinator; copies: () => number } {
  let copies = 0
  const version = {
    actor: 0,
    counter: 1,
    tombstone: false,
    expiresAtMs: 0,
    timestamp: 0,
    contentType: 'application/octet-stream',
    value: new Uint8Array(valueBytes),
  }
  const reader = {
    isUp: true,
    neededBytes: 0,
    actors: { lowOf: () => 1, highOf: () => 2 },
    readRecord(...[, , , , , , i32]: Parameters<ResidentReader['readRecord']>): number {
      reader.neededBytes = valueBytes + 64
      if (i32.length << 2 < reader.neededBytes) return -5
      copies++
      const set = { versions: [version], vector: [{ actor: 0, counter: 1 }] }
      return encodeRecord(new Uint8Array(i32.buffer), i32, 0, 0, 1, key, 0, key.length, set)
    },
  }
  const options = {
    clock: { monotonicMs: () => 0 as MonotonicMs, epochMs: () => 1_000 as EpochMs },
    shards: { count: 1, begin: () => undefined, commit: () => {}, publish: () => {}, isUp: () => true },
    readerOf: () => reader as unknown as ResidentReader,
    hashSeed: { low: 1, high: 2 },
    clusterKey: new Uint8Array(16),
    durability: 'sync',
  } as const
  return { coordinator: new ShardCoordinator(options), copies: () => copies }
}

function getMany(coordinator: ShardCoordinator, count: number): readonly BatchResult[] {
  let results: readonly BatchResult[] = []
  const operations = Array.from({ length: count }, () => ({ op: 'get', key }) as const)
  coordinator.batch(bucket, operations, {}, (_error, answers) => {
    results = answers!
  })
  return results
}

test('ShardCoordinator.batch() answers values up to the limit and refuses the rest without reading it', () => {
  const { coordinator, copies } = coordinatorOver(1024 * 1024)
  const results = getMany(coordinator, Limits.batchOperationsMax)
  const fitting = Limits.responseBytesMax / (1024 * 1024)
  assert.equal(results.length, Limits.batchOperationsMax)
  for (const [index, result] of results.entries()) {
    if (index < fitting) assert.ok('answer' in result, `operation ${index} has an answer`)
    else assert.equal('error' in result && result.error.code, 'RESPONSE_LIMIT', `operation ${index} is refused`)
  }
  // One more is read to learn that it does not fit.
  assert.equal(copies(), fitting + 1)
})

test('ShardCoordinator.batch() answers every read of small values', () => {
  const { coordinator, copies } = coordinatorOver(100)
  const results = getMany(coordinator, Limits.batchOperationsMax)
  assert.ok(results.every((result) => 'answer' in result))
  assert.equal(copies(), Limits.batchOperationsMax)
})
