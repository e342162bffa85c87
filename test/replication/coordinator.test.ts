import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { ErrorCode } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { partitionOfSlot, slotOfKey } from '../../src/cluster/slots.ts'
import { Limits } from '../../src/config.ts'
import type { ShardCoordinator } from '../../src/replication/coordinator.ts'
import type {
  BatchOperation,
  BatchResult,
  ETag,
  ListOptions,
  ListPage,
  ReadAnswer,
  WriteAnswer,
  WriteOptions,
} from '../../src/replication/requests.ts'
import { FrameKind } from '../../src/shard/command.ts'
import { ReadResult } from '../../src/storage/resident-reader.ts'
import { bucketOf, type Result, ShardRig, send } from '../shard/shard-rig.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { bytesOf, textOf } from '../storage/store-rig.ts'
import { CoordinatorRig } from './coordinator-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const key = bytesOf('key')
const value = bytesOf('value')
const bucket = bucketOf()

const put = (rig: CoordinatorRig, options: WriteOptions = {}, of = key): Result<WriteAnswer> =>
  send((done) => rig.coordinator.put(bucket, of, value, options, done))
const list = (rig: CoordinatorRig, options: Partial<ListOptions> = {}): Result<ListPage> =>
  send((done) => rig.coordinator.list(bucket, { limit: 10, values: false, ...options }, done))
/** A read that has to ask the owner. */
const contendedGet = (rig: CoordinatorRig, timeoutMs?: number): Result<ReadAnswer> => {
  rig.readResult = ReadResult.contended
  return send((done) => rig.coordinator.get(bucket, key, { timeoutMs }, done))
}
const failureOf = ({ error, calls }: Result<unknown>): string | undefined =>
  calls === 0 ? 'none yet' : error === undefined ? undefined : `${error.code} ${error.outcome}`

test('ShardCoordinator.tick() ends requests at their deadlines, writes with outcome unknown and reads with none', () => {
  const rig = new CoordinatorRig()
  const requests = [
    { result: put(rig, { timeoutMs: 100 }), atMs: 100, failure: 'TIMEOUT unknown' },
    { result: contendedGet(rig, 150), atMs: 150, failure: 'TIMEOUT none' },
    { result: list(rig, { timeoutMs: 200 }), atMs: 200, failure: 'TIMEOUT none' },
    { result: put(rig), atMs: Limits.timeoutMsDefault, failure: 'TIMEOUT unknown' },
    { result: put(rig, { timeoutMs: 30_000 }), atMs: 30_000, failure: 'TIMEOUT unknown' },
  ]
  assert.equal(rig.coordinator.pendingCount, requests.length)
  for (const { result, atMs, failure } of requests) {
    rig.pass(atMs - 1 - rig.clock.monotonicMs())
    assert.equal(result.calls, 0, 'Not before its time')
    rig.pass(1)
    assert.equal(failureOf(result), failure)
  }
  assert.equal(rig.coordinator.pendingCount, 0)
})

test('ShardCoordinator.receive() drops replies that come too late, twice, or to nobody', () => {
  const rig = new CoordinatorRig()
  const late = put(rig, { timeoutMs: 100 })
  rig.pass(100)
  assert.equal(failureOf(late), 'TIMEOUT unknown')
  // The next request takes the same slot of the table.
  const next = put(rig)
  rig.answerWrite(rig.sent[0]!)
  assert.equal(next.calls, 0, 'The late reply is not taken for that of another request')
  rig.answerWrite(rig.sent[1]!)
  assert.equal(failureOf(next), undefined)
  rig.answerWrite(rig.sent[1]!)
  const forged = { ...rig.sent[1]!, i32: Int32Array.of(0, -1) }
  rig.answerWrite(forged)
  assert.equal(rig.coordinator.pendingCount, 0)
})

test('ShardCoordinator.shardDown() ends what waits for that shard alone: writes unknown, reads none', () => {
  const rig = new CoordinatorRig(2)
  const keyOf = (shard: number): Uint8Array => {
    for (let index = 0; ; index++) {
      const candidate = bytesOf(`key${index}`)
      const slot = slotOfKey(candidate, 0, candidate.length)
      if (partitionOfSlot(slot) >>> 9 === shard) return candidate
    }
  }
  const first = put(rig, {}, keyOf(0))
  const second = put(rig, {}, keyOf(1))
  const page = list(rig)
  assert.deepEqual(
    rig.sent.map(({ shard }) => shard),
    [0, 1, 0],
  )
  rig.down.add(0)
  rig.coordinator.shardDown(0)
  assert.equal(failureOf(first), 'SHARD_UNAVAILABLE unknown')
  assert.equal(failureOf(page), 'SHARD_UNAVAILABLE none')
  assert.equal(second.calls, 0)
  // Nothing more is sent to it.
  const refused = put(rig, {}, keyOf(0))
  assert.equal(failureOf(refused), 'SHARD_UNAVAILABLE none')
  assert.equal(failureOf(list(rig)), 'SHARD_UNAVAILABLE none')
  assert.equal(rig.sent.length, 3)
  rig.answerWrite(rig.sent[1]!)
  assert.equal(failureOf(second), undefined)
})

test('ShardCoordinator.close() ends everything', () => {
  const rig = new CoordinatorRig()
  const results = [put(rig), contendedGet(rig), list(rig)]
  rig.coordinator.close()
  assert.deepEqual(results.map(failureOf), ['CLOSED unknown', 'CLOSED none', 'CLOSED none'])
  assert.equal(rig.coordinator.pendingCount, 0)
})

test('ShardCoordinator: a full queue and a full table refuse with OVERLOADED and outcome none, and send nothing', () => {
  const rig = new CoordinatorRig()
  rig.isQueueFull = true
  assert.equal(failureOf(put(rig)), 'OVERLOADED none')
  assert.equal(failureOf(list(rig)), 'OVERLOADED none')
  assert.equal(failureOf(contendedGet(rig)), 'OVERLOADED none')
  assert.equal(rig.coordinator.pendingCount, 0)
  rig.isQueueFull = false
  const taken = Array.from({ length: Limits.pendingRequestsMax }, () => put(rig))
  assert.equal(failureOf(put(rig)), 'OVERLOADED none')
  assert.equal(failureOf(list(rig)), 'OVERLOADED none')
  assert.equal(failureOf(contendedGet(rig)), 'OVERLOADED none')
  assert.equal(rig.sent.length, Limits.pendingRequestsMax)
  rig.answerWrite(rig.sent[5]!)
  assert.equal(taken[5]!.calls, 1)
  assert.equal(put(rig).calls, 0, 'There is room again')
})

test('ShardCoordinator.get() says so where the shard is recovering, and asks the owner where the key is contended', () => {
  const rig = new CoordinatorRig()
  rig.readResult = ReadResult.unavailable
  const refused = send<ReadAnswer>((done) => rig.coordinator.get(bucket, key, {}, done))
  assert.equal(failureOf(refused), 'SHARD_UNAVAILABLE none')
  const asked = contendedGet(rig)
  assert.equal(asked.calls, 0)
  assert.equal(rig.sent.at(-1)!.u8[0], FrameKind.get)
  rig.answerRead(rig.sent.at(-1)!)
  assert.deepEqual(asked.answer?.values, [])
  const failed = contendedGet(rig)
  rig.answerRead(rig.sent.at(-1)!, 'DISK_FAILED')
  assert.equal(failureOf(failed), 'DISK_FAILED none')
})

test('ShardCoordinator passes errors of a shard on with the outcome that it says', () => {
  const rig = new CoordinatorRig()
  for (const [error, outcome] of [
    ['STORE_FULL', 'none'],
    ['DISK_FULL', 'unknown'],
    ['DISK_FULL', 'none'],
    ['DISK_FAILED', 'unknown'],
    ['DISK_FAILED', 'none'],
    ['TOO_MANY_SIBLINGS', 'none'],
  ] as const) {
    const result = put(rig)
    rig.answerWrite(rig.sent.at(-1)!, { error, outcome, isPresent: false })
    assert.equal(failureOf(result), `${error} ${outcome}`)
    assert.equal(result.error!.extra, undefined)
  }
  const failed = put(rig, { ifMatch: '*' })
  rig.answerWrite(rig.sent.at(-1)!, { error: 'PRECONDITION_FAILED' })
  assert.equal(failureOf(failed), 'PRECONDITION_FAILED none')
  assert.match(String(failed.error!.extra?.['etag']), /^[0-9a-f]{16}$/)
  assert.ok(failed.error!.extra?.['context'] instanceof Uint8Array)
})

test('ShardCoordinator: the receipt of a write says whether it is on stable storage', () => {
  const rig = new CoordinatorRig()
  for (const isDurable of [true, false]) {
    const result = put(rig)
    rig.answerWrite(rig.sent.at(-1)!, { isDurable })
    assert.deepEqual(result.answer!.receipt, { acks: 1, replicas: 1, sloppy: false, durable: isDurable, epoch: 1 })
  }
})

function etags(count: number): ETag[] {
  return Array.from({ length: count }, (_, index) => index.toString(16).padStart(16, '0') as ETag)
}

/** Requests that are refused before anything is sent, with the reason. */
type Refused = readonly [string, ErrorCode, (coordinator: ShardCoordinator) => Result<unknown>]
const refusals: readonly Refused[] = [
  ['an empty key', 'BAD_KEY', (c) => send<ReadAnswer>((done) => c.get(bucket, new Uint8Array(0), {}, done))],
  [
    'a key that is too long',
    'BAD_KEY',
    (c) => send<WriteAnswer>((done) => c.delete(bucket, new Uint8Array(Limits.keyBytesMax + 1), {}, done)),
  ],
  [
    'a value that is too large',
    'VALUE_TOO_LARGE',
    (c) => send<WriteAnswer>((done) => c.put(bucket, key, new Uint8Array(bucket.valueBytesMax + 1), {}, done)),
  ],
  ...[0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 2].flatMap((level): Refused[] => [
    [`r=${level}`, 'BAD_QUORUM', (c) => send<ReadAnswer>((done) => c.get(bucket, key, { r: level }, done))],
    [`w=${level}`, 'BAD_QUORUM', (c) => send<WriteAnswer>((d) => c.put(bucket, key, value, { w: level }, d))],
  ]),
  [
    'w=2 of 3 where there is one replica',
    'QUORUM_NOT_MET',
    (c) => send<WriteAnswer>((done) => c.put(bucketOf({ n: 3 }), key, value, { w: 2 }, done)),
  ],
  ...[0, -5, Number.NaN, Number.POSITIVE_INFINITY, Limits.timeoutMsMax + 1].flatMap((timeoutMs): Refused[] => [
    [`get in ${timeoutMs} ms`, 'BAD_TIMEOUT', (c) => send<ReadAnswer>((d) => c.get(bucket, key, { timeoutMs }, d))],
    [
      `put in ${timeoutMs} ms`,
      'BAD_TIMEOUT',
      (c) => send<WriteAnswer>((d) => c.put(bucket, key, value, { timeoutMs }, d)),
    ],
    [
      `list in ${timeoutMs} ms`,
      'BAD_TIMEOUT',
      (c) => send<ListPage>((d) => c.list(bucket, { limit: 1, values: false, timeoutMs }, d)),
    ],
  ]),
  ...[0, -1, Number.NaN, Limits.ttlMsMax + 1, Number.NEGATIVE_INFINITY].map(
    (ttlMs): Refused => [
      `a time to live of ${ttlMs}`,
      'BAD_TTL',
      (c) => send<WriteAnswer>((d) => c.put(bucket, key, value, { ttlMs }, d)),
    ],
  ),
  ...['a\nb', 'é', 'x'.repeat(Limits.contentTypeBytesMax + 1), '\x7f'].map(
    (contentType): Refused => [
      `content type ${contentType.slice(0, 5)}`,
      'BAD_REQUEST',
      (c) => send<WriteAnswer>((d) => c.put(bucket, key, value, { contentType }, d)),
    ],
  ),
  [
    'one ETag too many',
    'BAD_REQUEST',
    (c) => send<WriteAnswer>((d) => c.put(bucket, key, value, { ifMatch: etags(Limits.ifMatchETagsMax + 1) }, d)),
  ],
  [
    'one ETag too many to delete',
    'BAD_REQUEST',
    (c) => send<WriteAnswer>((d) => c.delete(bucket, key, { ifMatch: etags(Limits.ifMatchETagsMax + 1) }, d)),
  ],
  ...[new Uint8Array(0), new Uint8Array(5), new Uint8Array(Limits.contextBytesMax + 1)].map(
    (context): Refused => [
      `a context of ${context.length} bytes`,
      'BAD_CONTEXT',
      (c) => send<WriteAnswer>((d) => c.put(bucket, key, value, { context }, d)),
    ],
  ),
  ...[0, -1, 1.5, Number.NaN, Limits.listLimitMax + 1].map(
    (limit): Refused => [
      `a list of ${limit}`,
      'UNPROCESSABLE',
      (c) => send<ListPage>((d) => c.list(bucket, { limit, values: false }, d)),
    ],
  ),
  [
    'a cursor that is none',
    'BAD_CURSOR',
    (c) => send<ListPage>((d) => c.list(bucket, { limit: 1, values: false, cursor: new Uint8Array(20) }, d)),
  ],
  [
    'a prefix that is too long',
    'BAD_KEY',
    (c) =>
      send<ListPage>((d) =>
        c.list(bucket, { limit: 1, values: false, prefix: new Uint8Array(Limits.keyBytesMax + 1) }, d),
      ),
  ],
  [
    'a batch that is too long',
    'REQUEST_TOO_LARGE',
    (c) =>
      send<readonly BatchResult[]>((d) =>
        c.batch(bucket, new Array(Limits.batchOperationsMax + 1).fill({ op: 'get', key }), {}, d),
      ),
  ],
]

test('ShardCoordinator refuses bad requests at once, with a code and outcome none, and sends nothing', () => {
  const rig = new CoordinatorRig()
  for (const [what, code, request] of refusals) {
    assert.equal(failureOf(request(rig.coordinator)), `${code} none`, what)
    assert.equal(rig.coordinator.pendingCount, 0, what)
    assert.equal(rig.sent.length, 0, what)
  }
})

test('ShardCoordinator takes what is just within the limits', () => {
  const rig = new CoordinatorRig()
  const longest = new Uint8Array(Limits.keyBytesMax)
  const requests = [
    send<WriteAnswer>((done) => rig.coordinator.put(bucket, longest, new Uint8Array(bucket.valueBytesMax), {}, done)),
    put(rig, { ttlMs: Limits.ttlMsMax, timeoutMs: Limits.timeoutMsMax, w: 1 }),
    put(rig, { ttlMs: Number.POSITIVE_INFINITY, w: 'all', contentType: 'x'.repeat(Limits.contentTypeBytesMax) }),
    list(rig, { limit: Limits.listLimitMax, prefix: longest }),
    put(rig, { ifMatch: etags(Limits.ifMatchETagsMax) }),
  ]
  assert.deepEqual(
    requests.map(failureOf),
    requests.map(() => 'none yet'),
  )
})

test('ShardCoordinator: a context is good for its own key and bucket alone', () => {
  const rig = new CoordinatorRig()
  const first = put(rig)
  rig.answerWrite(rig.sent[0]!)
  const context = first.answer!.context!
  assert.equal(put(rig, { context }).calls, 0)
  const other = bytesOf('other')
  assert.equal(failureOf(put(rig, { context }, other)), 'BAD_CONTEXT none')
  const inBucket = send<WriteAnswer>((done) =>
    rig.coordinator.put(bucketOf({ id: 2 as never }), key, value, { context }, done),
  )
  assert.equal(failureOf(inBucket), 'BAD_CONTEXT none')
  for (let byte = 0; byte < context.length; byte++) {
    const changed = context.slice()
    changed[byte]! ^= 1 << (byte % 8)
    assert.equal(failureOf(put(rig, { context: changed })), 'BAD_CONTEXT none', `byte ${byte}`)
  }
})

// Batches.

test('ShardCoordinator.batch() gives each operation its own result, once all have one', () => {
  const rig = new CoordinatorRig()
  const operations: BatchOperation[] = [
    { op: 'put', key, value },
    { op: 'put', key: new Uint8Array(0), value },
    { op: 'delete', key },
    { op: 'get', key: bytesOf('other') },
    { op: 'put', key, value, options: { timeoutMs: 50 } },
  ]
  const batch = send<readonly BatchResult[]>((done) =>
    rig.coordinator.batch(bucket, operations, { timeoutMs: 200 }, done),
  )
  assert.equal(rig.sent.length, 3)
  rig.answerWrite(rig.sent[1]!, { error: 'STORE_FULL', isPresent: false })
  rig.pass(50)
  assert.equal(batch.calls, 0)
  rig.pass(150)
  const outcomes = batch.answer!.map((result) =>
    'error' in result ? `${result.error.code} ${result.error.outcome}` : 'ok',
  )
  assert.deepEqual(outcomes, ['TIMEOUT unknown', 'BAD_KEY none', 'STORE_FULL none', 'ok', 'TIMEOUT unknown'])
  assert.deepEqual(
    batch.answer!.map(({ op }) => op),
    ['put', 'put', 'delete', 'get', 'put'],
  )
})

test('ShardCoordinator.batch(): operations that find no room in the queue have outcome none', () => {
  const rig = new CoordinatorRig()
  rig.isQueueFull = true
  const operations: BatchOperation[] = [
    { op: 'put', key, value },
    { op: 'delete', key },
  ]
  const batch = send<readonly BatchResult[]>((done) => rig.coordinator.batch(bucket, operations, {}, done))
  assert.deepEqual(
    batch.answer!.map((result) => 'error' in result && `${result.error.code} ${result.error.outcome}`),
    ['OVERLOADED none', 'OVERLOADED none'],
  )
  const empty = send<readonly BatchResult[]>((done) => rig.coordinator.batch(bucket, [], {}, done))
  assert.deepEqual(empty.answer, [])
})

test('ShardCoordinator.batch(): the operations of each key take effect, and are seen, in the order of the batch', () => {
  const operation = fc.record({
    op: fc.constantFrom('get', 'put', 'put', 'delete'),
    key: fc.nat(5),
    size: fc.nat(300),
  })
  fc.assert(
    fc.property(
      fc.array(fc.array(operation, { maxLength: 60 }), { maxLength: 6 }),
      fc.constantFrom(1, 3),
      (batches, shards) => {
        const rig = new ShardRig({ disk: new SimDisk(), clock: new SimClock(), shards }).open()
        const model = new Map<string, string>()
        let writes = 0
        for (const drawn of batches) {
          const operations = drawn.map(({ op, key: number, size }): BatchOperation => {
            const of = bytesOf(`key${number}`)
            if (op === 'put') return { op, key: of, value: bytesOf(`${++writes} ${'v'.repeat(size)}`) }
            return { op: op as 'get' | 'delete', key: of }
          })
          const { answer } = rig.wait<readonly BatchResult[]>((done) =>
            rig.coordinator.batch(bucket, operations, {}, done),
          )
          for (const [index, result] of answer!.entries()) {
            const current = operations[index]!
            const name = textOf(current.key)
            assert.equal(result.op, current.op)
            assert.ok('answer' in result, 'error' in result ? result.error.message : '')
            if (current.op === 'put') model.set(name, textOf(current.value))
            else if (current.op === 'delete') model.delete(name)
            else {
              const read = result.answer as ReadAnswer
              assert.deepEqual(
                read.values.map((stored) => textOf(stored.value)),
                model.has(name) ? [model.get(name)] : [],
                `${name}, operation ${index}`,
              )
            }
          }
        }
      },
    ),
    { numRuns: 60 * scale },
  )
})

// Lists.

/** Keys in the order of lists. */
function inListOrder(keys: Iterable<string>): string[] {
  const rank = (text: string): [number, Uint8Array] => {
    const bytes = bytesOf(text)
    return [partitionOfSlot(slotOfKey(bytes, 0, bytes.length)), bytes]
  }
  return [...keys]
    .map((text) => ({ text, rank: rank(text) }))
    .sort((a, b) => a.rank[0] - b.rank[0] || Buffer.compare(a.rank[1], b.rank[1]))
    .map(({ text }) => text)
}

const keyText = fc.oneof(
  fc.nat(400).map((number) => `{one}${number}`),
  fc.nat(400).map((number) => `key${number}`),
  fc.string({ unit: fc.constantFrom('a', 'b', 'ü', '{', '}'), minLength: 1, maxLength: 6 }),
)

function pageOf(rig: ShardRig, options: ListOptions, of = bucket): ListPage {
  const { error, answer } = rig.wait<ListPage>((done) => rig.coordinator.list(of, options, done))
  if (error !== undefined) throw error
  return answer!
}

test('ShardCoordinator.list() gives the keys of a bucket in order, whatever the pages, prefixes and shards', () => {
  fc.assert(
    fc.property(
      fc.array(keyText, { maxLength: 150 }),
      fc.array(keyText, { maxLength: 30 }),
      fc.constantFrom('', '', 'key', '{one}1', 'a', 'zz', '{'),
      fc.integer({ min: 1, max: 40 }),
      fc.constantFrom(1, 2, 5),
      fc.boolean(),
      (present, gone, prefix, limit, shards, values) => {
        const clock = new SimClock()
        const rig = new ShardRig({ disk: new SimDisk(), clock, shards }).open()
        const other = bucketOf({ id: 9 as never })
        for (const text of present) rig.put(bytesOf(text), bytesOf(`value of ${text}`))
        for (const [index, text] of gone.entries()) {
          if (index % 2 === 0) rig.delete(bytesOf(text))
          else rig.put(bytesOf(text), value, { ttlMs: 10 })
          rig.put(bytesOf(text), value, {}, other)
        }
        clock.advance(20)
        const wanted = inListOrder(new Set(present).difference(new Set(gone))).filter((text) => text.startsWith(prefix))
        const found: string[] = []
        let cursor: Uint8Array | undefined
        for (let pages = 0; pages === 0 || cursor !== undefined; pages++) {
          const page = pageOf(rig, { limit, values, prefix: bytesOf(prefix), cursor })
          assert.ok(page.keys.length <= limit)
          assert.ok(page.keys.length > 0 || page.cursor === undefined || pages <= wanted.length, 'Pages lead somewhere')
          for (const listed of page.keys) {
            const text = textOf(listed.key)
            found.push(text)
            assert.equal(listed.answer !== undefined, values)
            if (values) assert.equal(textOf(listed.answer!.values[0]!.value), `value of ${text}`)
          }
          cursor = page.cursor
        }
        assert.deepEqual(found, wanted)
      },
    ),
    { numRuns: 60 * scale },
  )
})

test('ShardCoordinator.list(): keys that stay are listed once, in order, while others come and go between pages', () => {
  fc.assert(
    fc.property(fc.integer(), fc.integer({ min: 1, max: 20 }), (seed, limit) => {
      const random = new SeededRandom(seed)
      const rig = new ShardRig({ disk: new SimDisk(), clock: new SimClock(), shards: 2 }).open()
      const stays = new Set<string>()
      const everThere = new Set<string>()
      const textAt = (index: number): string => `${index % 2 === 0 ? '{one}' : 'k'}${index}`
      for (let index = 0; index < 100; index++) {
        rig.put(bytesOf(textAt(index)), value)
        everThere.add(textAt(index))
        if (index % 3 === 0) stays.add(textAt(index))
      }
      const found: string[] = []
      let cursor: Uint8Array | undefined
      do {
        const page = pageOf(rig, { limit, values: random.chance(1, 2), cursor })
        found.push(...page.keys.map((listed) => textOf(listed.key)))
        cursor = page.cursor
        for (let left = random.below(10); left > 0; left--) {
          const index = random.below(140)
          if (stays.has(textAt(index))) rig.put(bytesOf(textAt(index)), bytesOf('changed'))
          else if (random.chance(1, 2)) rig.delete(bytesOf(textAt(index)))
          else {
            rig.put(bytesOf(textAt(index)), value)
            everThere.add(textAt(index))
          }
        }
        // The key where the last page ended may go, too.
        const last = found.at(-1)
        if (last !== undefined && !stays.has(last)) rig.delete(bytesOf(last))
      } while (cursor !== undefined)
      assert.deepEqual(found, inListOrder(new Set(found)), 'In order, each once')
      assert.ok(new Set(found).isSubsetOf(everThere))
      assert.ok(stays.isSubsetOf(new Set(found)), 'Nothing that stays is left out')
    }),
    { numRuns: 40 * scale },
  )
})

test('ShardCoordinator.list() refuses cursors of other buckets and changed ones', () => {
  const rig = new ShardRig({ disk: new SimDisk(), clock: new SimClock() }).open()
  for (let index = 0; index < 10; index++) rig.put(bytesOf(`{one}${index}`), value)
  const { cursor } = pageOf(rig, { limit: 3, values: false })
  assert.ok(cursor !== undefined)
  assert.throws(() => pageOf(rig, { limit: 3, values: false, cursor }, bucketOf({ id: 2 as never })), {
    code: 'BAD_CURSOR',
  })
  for (let byte = 0; byte < cursor.length; byte++) {
    const changed = cursor.slice()
    changed[byte]! ^= 0x10
    assert.throws(() => pageOf(rig, { limit: 3, values: false, cursor: changed }), { code: 'BAD_CURSOR' })
  }
})

test('ShardCoordinator.list() ends at its deadline over all its chunks', () => {
  const rig = new CoordinatorRig()
  const page = list(rig, { timeoutMs: 100 })
  rig.pass(60)
  // The shard looked at some partitions and found nothing: the coordinator goes on from there.
  rig.answerRead(rig.sent[0]!, undefined, 256)
  assert.equal(rig.sent.length, 2)
  rig.pass(40)
  assert.equal(failureOf(page), 'TIMEOUT none')
})
