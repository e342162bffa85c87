import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hintBucketId } from '../../src/config.ts'
import { emptySet } from '../../src/replication/local-replica.ts'
import { decodePeerMessage, encodePeerMessage } from '../../src/replication/peer-message.ts'
import { bytesOf } from '../storage/store-rig.ts'

test("decodePeerMessage() takes no message about a bucket that is another node's own", () => {
  const head = { requestId: 1, epoch: 1, timeoutMs: 1000, key: bytesOf('key') }
  const isTaken = (bucketId: number): readonly boolean[] => {
    const write = { lastWriteWins: false, durability: 'sync', set: emptySet, hintFor: undefined } as const
    const nothing = { context: undefined, ifMatch: undefined, ifNoneMatch: false, ttlMs: undefined } as const
    const asBucket = { durability: undefined, sloppy: undefined, level: undefined } as const
    const value = { value: new Uint8Array(0), contentType: '' }
    return [
      encodePeerMessage({ ...head, ...write, type: 'write', bucketId }),
      encodePeerMessage({ ...head, type: 'read', bucketId, wantsSet: true }),
      encodePeerMessage({ ...head, ...nothing, ...asBucket, ...value, type: 'forward', operation: 'put', bucketId }),
    ].map((bytes) => decodePeerMessage(bytes) !== undefined)
  }
  assert.deepEqual(isTaken(hintBucketId - 1), [true, true, true])
  assert.deepEqual(isTaken(hintBucketId), [false, false, false])
  assert.deepEqual(isTaken(0xffff_ffff), [false, false, false])
})
