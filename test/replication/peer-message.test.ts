import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type ErrorCode, ErrorTable } from '../../src/base/errors.ts'
import { hintBucketId, Limits } from '../../src/config.ts'
import { emptySet } from '../../src/replication/local-replica.ts'
import { decodePeerMessage, encodePeerMessage, type PeerMessage } from '../../src/replication/peer-message.ts'
import { bytesOf } from '../storage/store-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

const u32 = fc.integer({ min: 0, max: 0xffff_ffff })
const bucketId = fc.integer({ min: 0, max: hintBucketId - 1 })
const bytes = fc.uint8Array({ maxLength: 60 })
const key = fc.uint8Array({ minLength: 1, maxLength: 40 })
const node = fc.constantFrom('a', '00000000000000ff', 'node-7')
const durability = fc.constantFrom('sync', 'interval', 'os')
const digest = fc.record({ low: u32, high: u32 })
const head = { requestId: u32, epoch: u32, fence: u32, timeoutMs: u32 }
const code = fc.constantFrom(...(Object.keys(ErrorTable) as ErrorCode[]))
const failure = fc.option(fc.record({ code, outcome: fc.constantFrom('none', 'partial', 'unknown') }), {
  nil: undefined,
})

const arbitraryMessage = fc
  .oneof(
    fc.record({
      ...head,
      type: fc.constant('write'),
      bucketId,
      lastWriteWins: fc.boolean(),
      durability,
      key,
      set: bytes,
      hintFor: fc.option(node, { nil: undefined }),
    }),
    fc.record({ ...head, type: fc.constant('read'), bucketId, key, wantsSet: fc.boolean() }),
    fc.record({
      ...head,
      type: fc.constant('written'),
      failure,
      isDurable: fc.boolean(),
      credit: fc.integer({ min: 0, max: 0xffff }),
    }),
    fc.record({
      ...head,
      type: fc.constant('found'),
      failure,
      life: u32,
      isDurable: fc.boolean(),
      digest,
      set: fc.option(bytes, { nil: undefined }),
    }),
    fc.record({
      ...head,
      type: fc.constant('forward'),
      operation: fc.constantFrom('put', 'delete', 'get'),
      bucketId,
      key,
      value: bytes,
      contentType: fc.constantFrom('', 'text/plain'),
      context: fc.option(bytes, { nil: undefined }),
      ifMatch: fc.option(fc.oneof(fc.constant('*'), fc.array(digest, { maxLength: 5 })), { nil: undefined }),
      ifNoneMatch: fc.boolean(),
      ttlMs: fc.constantFrom(undefined, 1, 2 ** 40, Number.POSITIVE_INFINITY),
      durability: fc.option(durability, { nil: undefined }),
      sloppy: fc.constantFrom(undefined, true, false),
      level: fc.constantFrom(undefined, 'one', 'quorum', 'all', 1, 5),
    }),
    fc.record({
      ...head,
      type: fc.constant('forwarded'),
      failure,
      set: fc.option(bytes, { nil: undefined }),
      sloppy: fc.boolean(),
      isDurable: fc.boolean(),
      repaired: fc.integer({ min: 0, max: 5 }),
      replicas: fc.integer({ min: 0, max: 5 }),
      acks: fc.array(fc.record({ node, isFallback: fc.boolean(), isDurable: fc.boolean() }), { maxLength: 5 }),
    }),
    fc.record({
      ...head,
      type: fc.constant('compare'),
      partition: fc.integer({ min: 0, max: Limits.partitions - 1 }),
      wantsClock: fc.boolean(),
      of: fc.constantFrom('children', 'leafKeys'),
      numbers: bytes,
      stable: bytes,
    }),
    fc.record({
      ...head,
      type: fc.constant('compared'),
      failure,
      life: u32,
      clock: bytes,
      attested: bytes,
      answer: bytes,
    }),
    fc.record({
      ...head,
      type: fc.constant('list'),
      partition: fc.integer({ min: 0, max: Limits.partitions - 1 }),
      bucketId,
      withValues: fc.boolean(),
      limit: fc.integer({ min: 1, max: Limits.listLimitMax }),
      bytesMax: fc.integer({ min: 0, max: Limits.listReplyBytesMax }),
      prefix: bytes,
      after: fc.option(key, { nil: undefined }),
    }),
    fc.record({
      ...head,
      type: fc.constant('listed'),
      failure,
      isDurable: fc.boolean(),
      end: fc.option(key, { nil: undefined }),
      entries: bytes,
    }),
  )
  .map((message) => structuredClone(message)) as fc.Arbitrary<PeerMessage>

test('decodePeerMessage() gives what encodePeerMessage() took', () => {
  fc.assert(
    fc.property(arbitraryMessage, (message) => {
      assert.deepEqual(decodePeerMessage(encodePeerMessage(message)), message)
    }),
    { numRuns: 1000 * scale },
  )
})

test('decodePeerMessage() refuses every truncation and every byte too many', () => {
  fc.assert(
    fc.property(arbitraryMessage, (message) => {
      const encoded = encodePeerMessage(message)
      for (let end = 0; end < encoded.length; end++) {
        assert.equal(decodePeerMessage(encoded.slice(0, end)), undefined, `cut at ${end} of ${encoded.length}`)
      }
      assert.equal(decodePeerMessage(Uint8Array.of(...encoded, 0)), undefined)
    }),
    { numRuns: 200 * scale },
  )
})

test('decodePeerMessage() never throws on damaged bytes, and what it takes can be encoded again', () => {
  fc.assert(
    fc.property(arbitraryMessage, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }), (message, flips) => {
      const encoded = encodePeerMessage(message)
      for (const [position, flip] of flips) encoded[position % encoded.length]! ^= flip
      const decoded = decodePeerMessage(encoded)
      if (decoded !== undefined) assert.deepEqual(decodePeerMessage(encodePeerMessage(decoded)), decoded)
    }),
    { numRuns: 5000 * scale },
  )
})

const standing = { epoch: 1, fence: 1 }
const readWithoutKey = { type: 'read', requestId: 1, ...standing, timeoutMs: 1, bucketId: 1, wantsSet: true } as const

test('decodePeerMessage() refuses lengths that lie before it allocates anything', () => {
  const encoded = encodePeerMessage({ ...readWithoutKey, key: Uint8Array.of(1) })
  encoded.fill(0xff, 28, 32)
  assert.equal(decodePeerMessage(encoded), undefined)
})

test('decodePeerMessage() refuses keys that no client could have written', () => {
  for (const length of [0, Limits.keyBytesMax + 1]) {
    assert.equal(decodePeerMessage(encodePeerMessage({ ...readWithoutKey, key: new Uint8Array(length) })), undefined)
  }
})

test('decodePeerMessage() refuses lists that ask for more than a replica gathers at once', () => {
  const list = { type: 'list', requestId: 1, ...standing, timeoutMs: 1, bucketId: 1, withValues: true } as const
  const usual = { ...list, partition: 0, limit: 1, bytesMax: 1, prefix: new Uint8Array(0), after: undefined }
  const isTaken = (message: PeerMessage): boolean => decodePeerMessage(encodePeerMessage(message)) !== undefined
  assert.ok(isTaken(usual))
  assert.ok(!isTaken({ ...usual, limit: 0 }))
  assert.ok(!isTaken({ ...usual, limit: Limits.listLimitMax + 1 }))
  assert.ok(!isTaken({ ...usual, bytesMax: Limits.listReplyBytesMax + 1 }))
  assert.ok(!isTaken({ ...usual, partition: Limits.partitions }))
  assert.ok(!isTaken({ ...usual, prefix: new Uint8Array(Limits.keyBytesMax + 1) }))
  assert.ok(!isTaken({ ...usual, after: new Uint8Array(0) }))
  assert.ok(!isTaken({ ...usual, bucketId: hintBucketId }))
})

test('decodePeerMessage() takes a code that this release does not know for an error of the other node', () => {
  const encoded = encodePeerMessage({
    type: 'written',
    requestId: 1,
    epoch: 1,
    fence: 1,
    timeoutMs: 0,
    failure: { code: 'TIMEOUT', outcome: 'unknown' },
    isDurable: false,
    credit: 0,
  })
  encoded[21] = 'X'.charCodeAt(0)
  const decoded = decodePeerMessage(encoded)
  assert.ok(decoded?.type === 'written')
  assert.deepEqual(decoded.failure, { code: 'INTERNAL', outcome: 'unknown' })
})

test('encodePeerMessage() is the protocol between nodes: its bytes never change', () => {
  const hexOf = (message: PeerMessage): string => Buffer.from(encodePeerMessage(message)).toString('hex')
  const common = { requestId: 0x0102_0304, epoch: 5, fence: 4, timeoutMs: 6 }
  const start = '01TT0000 04030201 05000000 04000000 06000000'
  const expected = (type: string, rest: string): string => (start.replace('TT', type) + rest).replaceAll(' ', '')
  assert.equal(
    hexOf({
      ...common,
      type: 'write',
      bucketId: 7,
      lastWriteWins: true,
      durability: 'sync',
      key: Uint8Array.of(0xaa),
      set: Uint8Array.of(0xbb, 0xcc),
      hintFor: 'n1',
    }),
    expected('01', '07000000 03 02 0000 01000000 aa 02000000 bbcc 02000000 6e31'),
  )
  assert.equal(
    hexOf({ ...common, type: 'read', bucketId: 7, key: Uint8Array.of(0xaa), wantsSet: true }),
    expected('02', '07000000 01 00 0000 01000000 aa'),
  )
  assert.equal(
    hexOf({ ...common, type: 'written', failure: { code: 'CLOSED', outcome: 'none' }, isDurable: false, credit: 3 }),
    expected('03', '06 434c4f534544 00 00 0300'),
  )
  assert.equal(
    hexOf({
      ...common,
      type: 'found',
      failure: undefined,
      life: 3,
      isDurable: true,
      digest: { low: 1, high: 2 },
      set: undefined,
    }),
    expected('04', '00 03000000 02 01000000 02000000'),
  )
  assert.equal(
    hexOf({
      ...common,
      type: 'compare',
      partition: 9,
      wantsClock: true,
      of: 'children',
      numbers: Uint8Array.of(0, 0),
      stable: Uint8Array.of(0xdd),
    }),
    expected('07', '0900 03 00 02000000 0000 01000000 dd'),
  )
  const bytes = { clock: Uint8Array.of(0xaa), attested: Uint8Array.of(0xbb), answer: Uint8Array.of(0xcc) }
  assert.equal(
    hexOf({ ...common, type: 'compared', failure: undefined, life: 3, ...bytes }),
    expected('08', '00 03000000 01000000 aa 01000000 bb 01000000 cc'),
  )
  const place = { partition: 9, bucketId: 7, limit: 2, bytesMax: 0x100, prefix: Uint8Array.of(0xaa) }
  assert.equal(
    hexOf({ ...common, ...place, type: 'list', withValues: true, after: Uint8Array.of(0xaa, 0xbb) }),
    expected('09', '0900 03 00 07000000 02000000 00010000 01000000 aa 02000000 aabb'),
  )
  assert.equal(
    hexOf({ ...common, ...place, type: 'list', withValues: false, after: undefined }),
    expected('09', '0900 00 00 07000000 02000000 00010000 01000000 aa'),
  )
  const entries = Uint8Array.of(0xcc, 0xdd)
  assert.equal(
    hexOf({ ...common, type: 'listed', failure: undefined, isDurable: true, end: Uint8Array.of(0xaa), entries }),
    expected('0a', '00 03 01000000 aa 02000000 ccdd'),
  )
})

test("decodePeerMessage() takes no message about a bucket that is another node's own", () => {
  const head = { requestId: 1, epoch: 1, fence: 1, timeoutMs: 1000, key: bytesOf('key') }
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

test('decodePeerMessage() refuses a forwarded request whose level is no replicas', () => {
  const forward = {
    ...standing,
    type: 'forward',
    requestId: 1,
    timeoutMs: 1,
    bucketId: 1,
    operation: 'get',
    key: Uint8Array.of(1),
    value: new Uint8Array(0),
    contentType: '',
    context: undefined,
    ifMatch: undefined,
    ifNoneMatch: false,
    ttlMs: undefined,
    durability: undefined,
    sloppy: undefined,
  } as const
  const one = encodePeerMessage({ ...forward, level: 'one' })
  const all = encodePeerMessage({ ...forward, level: 'all' })
  const at = one.findIndex((byte, index) => byte !== all[index])
  assert.deepEqual([one[at], all[at]], [1, 3])
  assert.equal(decodePeerMessage(one.with(at, 5))?.type, 'forward')
  assert.equal(decodePeerMessage(one.with(at, 4)), undefined)
})
