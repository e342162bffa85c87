/**
 * The library as an application uses it: real threads, real files. One store serves most tests, each in keys of its own; tests
 * about opening and closing have directories of their own.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import type { ErrorCode } from '../src/base/errors.ts'
import {
  type BatchOperation,
  type BucketStore,
  type Entry,
  type Key,
  type OpenOptions,
  open,
  type Store,
  SunwiseError,
} from '../src/index.ts'

const MiB = 1024 * 1024
const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

const root = mkdtempSync(join(tmpdir(), 'sunwise-library-'))
let directories = 0
const newDirectory = (): string => join(root, `store-${directories++}`)
const openAt = (dir: string, options: Partial<OpenOptions> = {}): Promise<Store> =>
  open({ dir, shards: 1, memoryBytes: 288 * MiB, ...options })

let store: Store

before(async () => {
  store = await openAt(newDirectory(), { shards: 2 })
})

after(async () => {
  await store.close()
  rmSync(root, { recursive: true, force: true })
})

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const text = (value: Uint8Array | undefined): string | undefined =>
  value === undefined ? undefined : new TextDecoder().decode(value)
const textsOf = (entry: Entry | undefined): string[] => (entry?.siblings ?? []).map((value) => text(value)!).sort()

/** What a promise is rejected with: a coded error and nothing else. */
async function rejection(promise: Promise<unknown>): Promise<SunwiseError> {
  try {
    await promise
  } catch (error) {
    assert.ok(error instanceof SunwiseError, `Not a coded error: ${String(error)}`)
    return error
  }
  assert.fail('The promise was fulfilled')
}

async function rejectsWith(code: ErrorCode, promise: Promise<unknown>): Promise<SunwiseError> {
  const error = await rejection(promise)
  assert.equal(error.code, code, error.message)
  return error
}

function throwsWith(code: ErrorCode, call: () => unknown): void {
  assert.throws(call, (error) => error instanceof SunwiseError && error.code === code)
}

async function keysOf(bucket: BucketStore, prefix?: Key): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of bucket.list(prefix === undefined ? {} : { prefix })) keys.push(text(key)!)
  return keys.sort()
}

// Values.

test('Store.get() gives back the bytes, the type and the receipt of a put', async () => {
  const written = await store.put('plain', bytes('value'), { contentType: 'text/x-test' })
  const entry = await store.get('plain')
  assert.ok(entry)
  assert.equal(text(entry.value), 'value')
  assert.equal(entry.contentType, 'text/x-test')
  assert.equal(entry.etag, written.etag)
  assert.deepEqual(entry.context, written.context)
  assert.deepEqual(
    entry.siblings.map((value) => text(value)),
    ['value'],
  )
  assert.equal(entry.expires, undefined)
  assert.deepEqual(entry.receipt, { acks: 1, replicas: 1, sloppy: false, durable: true, epoch: 1 })
  assert.deepEqual(written.receipt, entry.receipt)
  assert.equal(written.siblings, 1)
  assert.equal((await store.get('plain'))!.contentType, 'text/x-test')
})

test('Store.get() of an absent key is undefined, in every form of read', async () => {
  assert.equal(await store.get('absent'), undefined)
  assert.equal(store.getSync('absent'), undefined)
  assert.equal(store.getInto(bytes('absent'), new Uint8Array(8)), -1)
})

test('Store.put() overwrites, also with shorter, longer and empty values', async () => {
  for (const value of ['a', 'longer than before', '', 'b']) {
    await store.put('overwritten', value)
    assert.equal(text((await store.get('overwritten'))!.value), value)
    assert.equal(text(store.getSync('overwritten')), value)
  }
})

test('Store.getSync() sees a write as soon as its promise is fulfilled', async () => {
  for (let index = 0; index < 200; index++) {
    await store.put('fresh', String(index), { durability: 'os' })
    assert.equal(text(store.getSync('fresh')), String(index))
  }
})

test('Store.getInto() writes to the view that it is given, aligned or not, among others of the same buffer', async () => {
  await store.put('k', 'abcdefg')
  const key = bytes('k')
  const whole = new Uint8Array(64)
  for (const [start, length] of [
    [0, 8],
    [8, 16],
    [3, 20],
    [12, 7],
  ] as const) {
    whole.fill(46)
    assert.equal(store.getInto(key, whole.subarray(start, start + length)), 7)
    assert.equal(new TextDecoder().decode(whole.subarray(start, start + 7)), 'abcdefg')
    assert.ok(whole.subarray(0, start).every((byte) => byte === 46))
  }
})

test('The receipt of a read claims stable storage only while no write asked for less', async () => {
  await using fresh = await openAt(newDirectory(), { shards: 1 })
  assert.equal((await fresh.put('synced', '1')).receipt.durable, true)
  assert.equal((await fresh.get('synced'))!.receipt.durable, true)
  // The first such write is synced all the same, while the catalog learns that later ones are not.
  for (let tries = 0; tries < 1000; tries++) {
    if (!(await fresh.put('unsynced', '2', { durability: 'os' })).receipt.durable) break
  }
  assert.equal((await fresh.put('unsynced', '3', { durability: 'os' })).receipt.durable, false)
  assert.equal((await fresh.get('unsynced'))!.receipt.durable, false)
})

test('Store.getInto() copies the value, or says how much room it needs', async () => {
  await store.put('copied', 'twelve bytes')
  const into = new Uint8Array(12)
  assert.equal(store.getInto(bytes('copied'), into), 12)
  assert.equal(store.getInto('copied', into), 12, 'A key may be text')
  assert.equal(text(into), 'twelve bytes')
  const small = new Uint8Array(11).fill(7)
  assert.equal(store.getInto(bytes('copied'), small), -2 - 12)
  assert.equal(store.getInto(bytes('copied'), new Uint8Array(0)), -2 - 12)
})

test('A string key is the same key as its UTF-8 bytes', async () => {
  for (const key of ['ascii', 'grüße', '日本語', '🌞'.repeat(40), 'x'.repeat(100)]) {
    await store.put(key, key)
    assert.equal(text((await store.get(bytes(key)))!.value), key)
    assert.equal(text(store.getSync(bytes(key))), key)
    await store.put(bytes(key), 'by bytes')
    assert.equal(text(store.getSync(key)), 'by bytes')
  }
})

test('Keys and values are raw octets: every byte comes back', async () => {
  const value = Uint8Array.from({ length: 256 }, (_, index) => index)
  for (let byte = 0; byte < 256; byte++) await store.put(new Uint8Array([255, byte]), value.subarray(byte))
  for (let byte = 0; byte < 256; byte++) {
    assert.deepEqual(store.getSync(new Uint8Array([255, byte])), value.slice(byte))
  }
})

test('Bytes that the caller changes after put() or get() do not change what is stored', async () => {
  const key = bytes('mine')
  const value = bytes('original')
  const written = store.put(key, value)
  key.fill(0)
  value.fill(0)
  await written
  const entry = (await store.get('mine'))!
  assert.equal(text(entry.value), 'original')
  entry.value.fill(1)
  store.getSync('mine')!.fill(2)
  assert.equal(text(store.getSync('mine')), 'original')
})

// Deletes.

test('Store.delete() removes a key and is no error for an absent one', async () => {
  await store.put('deleted', 'there')
  const gone = await store.delete('deleted')
  assert.equal(gone.siblings, 0)
  assert.equal(await store.get('deleted'), undefined)
  assert.equal(store.getSync('deleted'), undefined)
  assert.deepEqual(await keysOf(store, 'deleted'), [])
  await store.delete('deleted')
  const never = await store.delete('never there')
  assert.equal(never.etag, undefined)
  await store.put('deleted', 'again')
  assert.equal(text(store.getSync('deleted')), 'again')
})

// Versions.

test('Two writes with one context become siblings, and a write with theirs replaces both', async () => {
  await store.put('cart', 'base')
  const { context } = (await store.get('cart'))!
  await store.put('cart', 'left', { context })
  const second = await store.put('cart', 'right', { context })
  assert.equal(second.siblings, 2)
  const both = (await store.get('cart'))!
  assert.deepEqual(textsOf(both), ['left', 'right'])
  assert.equal(text(both.value), text(both.siblings[0]))
  assert.deepEqual(store.getSync('cart'), both.value)
  const merged = await store.put('cart', 'merged', { context: both.context })
  assert.equal(merged.siblings, 1)
  assert.deepEqual(textsOf(await store.get('cart')), ['merged'])
})

test('A delete with a stale context removes what it saw and keeps what it did not see', async () => {
  const first = await store.put('half', 'seen')
  await store.put('half', 'unseen', { context: (await store.put('half', 'other')).context })
  await store.delete('half', { context: first.context })
  assert.deepEqual(textsOf(await store.get('half')), ['unseen'])
})

test('A write without a context replaces all siblings', async () => {
  const { context } = await store.put('blind', 'base')
  await store.put('blind', 'left', { context })
  await store.put('blind', 'right', { context })
  assert.equal((await store.put('blind', 'one')).siblings, 1)
  assert.deepEqual(textsOf(await store.get('blind')), ['one'])
})

test('A key may be changed by its owner as soon as a call has returned', async () => {
  await using store = await openAt(newDirectory())
  const key = Buffer.from('mine')
  const writing = store.put(key, 'value')
  key.fill(0x78)
  const { context } = await writing
  await store.put('mine', 'next', { context })
  assert.equal((await store.get('mine'))?.siblings.length, 1)
  assert.equal(await store.get('xxxx'), undefined)
})

test('A context of another key, another bucket or changed bytes is BAD_CONTEXT', async () => {
  const { context } = await store.put('contexts', 'value')
  await store.putBucket('contexts')
  await rejectsWith('BAD_CONTEXT', store.put('contexts of another', 'value', { context }))
  await rejectsWith('BAD_CONTEXT', store.bucket('contexts').put('contexts', 'value', { context }))
  for (let index = 0; index < context!.length; index++) {
    const forged = context!.slice()
    forged[index]! ^= 1
    const error = await rejectsWith('BAD_CONTEXT', store.put('contexts', 'forged', { context: forged }))
    assert.equal(error.outcome, 'none')
  }
  await rejectsWith('BAD_CONTEXT', store.delete('contexts', { context: new Uint8Array(0) }))
  assert.equal(text(store.getSync('contexts')), 'value')
})

test('The 101st sibling is refused with TOO_MANY_SIBLINGS, and a write with their context goes on', async () => {
  const { context } = await store.put('crowd', 'base')
  for (let index = 0; index < 100; index++) {
    assert.equal((await store.put('crowd', `v${index}`, { context })).siblings, index + 1)
  }
  const error = await rejectsWith('TOO_MANY_SIBLINGS', store.put('crowd', 'one more', { context }))
  assert.equal(error.outcome, 'none')
  const entry = (await store.get('crowd'))!
  assert.equal(entry.siblings.length, 100)
  await store.put('crowd', 'merged', { context: entry.context })
  assert.deepEqual(textsOf(await store.get('crowd')), ['merged'])
})

// Preconditions.

test('ifNoneMatch "*" writes an absent or deleted key only', async () => {
  await store.put('created once', 'first', { ifNoneMatch: '*' })
  const error = await rejectsWith('PRECONDITION_FAILED', store.put('created once', 'second', { ifNoneMatch: '*' }))
  assert.equal(error.outcome, 'none')
  assert.equal(text(store.getSync('created once')), 'first')
  await store.delete('created once')
  await store.put('created once', 'third', { ifNoneMatch: '*' })
  assert.equal(text(store.getSync('created once')), 'third')
})

test('ifMatch writes and deletes exactly the version that was seen', async () => {
  await rejectsWith('PRECONDITION_FAILED', store.put('matched', 'value', { ifMatch: '*' }))
  const { etag } = await store.put('matched', 'first')
  await store.put('matched', 'second', { ifMatch: etag! })
  await rejectsWith('PRECONDITION_FAILED', store.put('matched', 'third', { ifMatch: etag! }))
  await rejectsWith('PRECONDITION_FAILED', store.delete('matched', { ifMatch: etag! }))
  await rejectsWith('PRECONDITION_FAILED', store.put('matched', 'third', { ifMatch: 'no etag of ours' }))
  await store.put('matched', 'third', { ifMatch: '*' })
  await store.delete('matched', { ifMatch: (await store.get('matched'))!.etag })
  assert.equal(await store.get('matched'), undefined)
})

test('Of many conditional writes at once exactly one applies', async () => {
  const outcomes = await Promise.allSettled(
    Array.from({ length: 64 }, (_, index) => store.put('raced', String(index), { ifNoneMatch: '*' })),
  )
  const winners = outcomes.flatMap((outcome, index) => (outcome.status === 'fulfilled' ? [index] : []))
  assert.equal(winners.length, 1)
  assert.equal(text(store.getSync('raced')), String(winners[0]))
})

// Time.

test('A value with a time to live says when it ends, and is gone then in every read', async () => {
  const beforeMs = Date.now()
  const written = await store.put('short-lived', 'value', { ttl: 150 })
  assert.ok(written.expires! >= beforeMs + 150 && written.expires! <= Date.now() + 151)
  assert.equal((await store.get('short-lived'))?.expires ?? written.expires, written.expires)
  while (Date.now() < written.expires!) await new Promise((resolve) => setImmediate(resolve))
  assert.equal(store.getSync('short-lived'), undefined)
  assert.equal(store.getInto(bytes('short-lived'), new Uint8Array(9)), -1)
  assert.equal(await store.get('short-lived'), undefined)
  assert.deepEqual(await keysOf(store, 'short-lived'), [])
  await store.put('short-lived', 'anew', { ifNoneMatch: '*' })
  assert.equal((await store.get('short-lived'))!.expires, undefined)
})

test('A time to live of a bucket holds for writes that name none', async () => {
  await store.putBucket('fleeting', { ttlMs: 60_000 })
  const bucket = store.bucket('fleeting')
  assert.ok((await bucket.put('key', 'value')).expires! > Date.now() + 50_000)
  assert.equal((await bucket.put('key', 'value', { ttl: Infinity })).expires, undefined)
  assert.ok((await bucket.put('key', 'value', { ttl: 1_000_000 })).expires! > Date.now() + 900_000)
})

test('A nonsensical time to live is BAD_TTL and writes nothing', async () => {
  for (const ttl of [0, -1, Number.NaN, 100 * 365 * 86_400_000 + 1]) {
    await rejectsWith('BAD_TTL', store.put('bad ttl', 'value', { ttl }))
  }
  assert.equal(store.getSync('bad ttl'), undefined)
})

test('A nonsensical deadline is BAD_TIMEOUT in every call', async () => {
  for (const deadline of [0, -1, Number.NaN, 600_001]) {
    await rejectsWith('BAD_TIMEOUT', store.get('key', { deadline }))
    await rejectsWith('BAD_TIMEOUT', store.put('key', 'value', { deadline }))
    await rejectsWith('BAD_TIMEOUT', store.delete('key', { deadline }))
    const results = await store.batch([{ op: 'put', key: 'key', value: 'value', options: { ttl: 9 } }], { deadline })
    assert.equal(results[0]!.error?.code, 'BAD_TIMEOUT')
    await rejectsWith('BAD_TIMEOUT', store.list({ deadline }).next())
  }
})

test('A deadline that passes while the application stalls does not hide an answer that came in time', async () => {
  await store.put('stalled', 'before')
  const writing = store.put('stalled', 'during', { deadline: 100 })
  setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300))
  assert.equal((await writing).siblings, 1)
  assert.equal(text(store.getSync('stalled')), 'during')
})

test('An aborted signal ends a call at once, and tells what is known of its effect', async () => {
  const early = await rejectsWith('ABORTED', store.put('aborted', 'value', { signal: AbortSignal.abort() }))
  assert.equal(early.outcome, 'none')
  assert.equal(await store.get('aborted'), undefined)
  const controller = new AbortController()
  const late = rejectsWith('ABORTED', store.put('aborted', 'value', { signal: controller.signal }))
  controller.abort(new Error('enough'))
  const error = await late
  assert.equal(error.outcome, 'unknown')
  assert.match(String(error.cause), /enough/)
  await rejectsWith('ABORTED', store.list({ signal: AbortSignal.abort() }).next())
  await rejectsWith('ABORTED', store.batch([{ op: 'get', key: 'aborted' }], { signal: AbortSignal.abort() }))
  const unused = new AbortController()
  await store.put('aborted', 'later', { signal: unused.signal })
  unused.abort()
  assert.equal(text(store.getSync('aborted')), 'later')
})

// Limits.

test('Keys have 1 to 2,048 bytes', async () => {
  const longest = 'k'.repeat(2048)
  await store.put(longest, 'value')
  assert.equal(text(store.getSync(longest)), 'value')
  assert.equal(text(store.getSync(bytes(longest))), 'value')
  assert.equal(text((await store.get(longest))!.value), 'value')
  // 683 characters of three bytes each: short as a string, too long as a key.
  for (const key of ['', 'k'.repeat(2049), '語'.repeat(683), new Uint8Array(0), new Uint8Array(2049)]) {
    const error = await rejectsWith('BAD_KEY', store.put(key, 'value'))
    assert.equal(error.outcome, 'none')
    await rejectsWith('BAD_KEY', store.get(key))
    await rejectsWith('BAD_KEY', store.delete(key))
    throwsWith('BAD_KEY', () => store.getSync(key))
  }
  throwsWith('BAD_KEY', () => store.getInto(new Uint8Array(2049), new Uint8Array(1)))
  throwsWith('BAD_KEY', () => store.getInto('x'.repeat(2049), new Uint8Array(1)))
})

test('Values have at most the bytes of the limit', async () => {
  const largest = new Uint8Array(MiB).fill(3)
  await store.put('large', largest)
  assert.equal(Buffer.compare(store.getSync('large')!, largest), 0)
  assert.equal(Buffer.compare((await store.get('large'))!.value, largest), 0)
  const error = await rejectsWith('VALUE_TOO_LARGE', store.put('large', new Uint8Array(MiB + 1)))
  assert.equal(error.outcome, 'none')
  assert.equal(store.getSync('large')!.length, MiB)
})

test('Values of 16 MiB work where the store was opened for them', { timeout: 240_000 }, async () => {
  const dir = newDirectory()
  const options = { valueBytesMax: 16 * MiB, memoryBytes: 1100 * MiB }
  const value = Buffer.alloc(16 * MiB)
  for (let at = 0; at < value.length; at += 4) value.writeUInt32LE(at, at)
  {
    await using large = await openAt(dir, options)
    await large.put('huge', value)
    const { context } = await large.put('huge', value)
    await large.put('huge', value.subarray(1), { context })
    await large.put('huge', value.subarray(2), { context })
    assert.deepEqual((await large.get('huge'))!.siblings.map(({ length }) => length).sort(), [
      16 * MiB - 2,
      16 * MiB - 1,
    ])
    await rejectsWith('VALUE_TOO_LARGE', large.put('huge', new Uint8Array(16 * MiB + 1)))
    await large.put('huge', value)
  }
  await using large = await openAt(dir, options)
  assert.equal(Buffer.compare(large.getSync('huge')!, value), 0)
  let listed = 0
  for await (const entry of large.list()) listed += entry.value!.length
  assert.equal(listed, 16 * MiB)
})

test('Siblings that together pass the limit are refused with VERSION_SET_TOO_LARGE', async () => {
  const value = new Uint8Array(MiB)
  const { context } = await store.put('heavy', value)
  await store.put('heavy', value, { context })
  await store.put('heavy', value, { context })
  await store.put('heavy', value, { context })
  const error = await rejectsWith('VERSION_SET_TOO_LARGE', store.put('heavy', value, { context }))
  assert.equal(error.outcome, 'none')
  await store.delete('heavy')
})

test('Data beyond the memory budget goes to tables: read, listed, deleted, and all there after a restart', {
  timeout: 240_000,
}, async () => {
  const directory = newDirectory()
  const options = { memoryBytes: 68 * MiB, durability: 'os' } as const
  // Writers wait for the disk, which may be a slow one.
  const patient = { deadline: 30_000 }
  const values = 400
  const contentOf = (index: number): Uint8Array => new Uint8Array(512 * 1024).fill(index)
  // What a slow disk holds is not read while a thread waits.
  const storedOf = async (reader: Store, key: string): Promise<Uint8Array | undefined> => {
    try {
      return reader.getSync(key)
    } catch (error) {
      assert.equal((error as SunwiseError).code, 'NOT_RESIDENT')
      return (await reader.get(key, patient))?.value
    }
  }
  const check = async (reader: Store): Promise<void> => {
    for (let index = 0; index < values; index++) {
      const value = await storedOf(reader, `fill ${index}`)
      if (index % 2 === 0) assert.equal(value, undefined, `fill ${index}`)
      else assert.deepEqual(value, contentOf(index), `fill ${index}`)
    }
  }
  {
    await using small = await openAt(directory, options)
    for (let index = 0; index < values; index++) await small.put(`fill ${index}`, contentOf(index), patient)
    for (let index = 0; index < values; index++) {
      assert.equal((await storedOf(small, `fill ${index}`))?.[0], index % 256)
    }
    for (let index = 0; index < values; index += 2) await small.delete(`fill ${index}`, patient)
    await check(small)
  }
  await using again = await openAt(directory, options)
  await check(again)
  const listed: string[] = []
  for await (const { key } of again.list({ prefix: 'fill ' })) listed.push(text(key)!)
  const wanted = Array.from({ length: values / 2 }, (_, index) => `fill ${2 * index + 1}`)
  assert.deepEqual(listed.sort(), wanted.sort())
  const { context } = (await again.get('fill 1'))!
  await again.put('fill 1', 'with its context', { context })
  assert.equal(text(again.getSync('fill 1')), 'with its context')
  assert.equal((await again.put('fill 1', 'blind')).siblings, 1)
})

// Many at once.

test('Writes at once all take effect, the last one of a key last', async () => {
  const writes: Promise<unknown>[] = []
  for (let round = 0; round < 20; round++) {
    for (let key = 0; key < 50; key++) writes.push(store.put(`many ${key}`, `${round}`))
  }
  await Promise.all(writes)
  for (let key = 0; key < 50; key++) assert.equal(text(store.getSync(`many ${key}`)), '19')
})

test('Beyond the requests that may be under way, calls are refused with OVERLOADED and none', async () => {
  const outcomes = await Promise.allSettled(
    Array.from({ length: 9000 }, (_, index) => store.put(`flood ${index}`, 'value', { durability: 'os' })),
  )
  let refused = 0
  for (const [index, outcome] of outcomes.entries()) {
    if (outcome.status === 'fulfilled') {
      assert.equal(text(store.getSync(`flood ${index}`)), 'value')
      continue
    }
    refused++
    assert.equal(outcome.reason.code, 'OVERLOADED')
    assert.equal(outcome.reason.outcome, 'none')
    assert.equal(store.getSync(`flood ${index}`), undefined)
  }
  assert.equal(refused, 9000 - 8192)
})

test('Store.batch() answers each operation in order, and operations on one key apply in order', async () => {
  const results = await store.batch([
    { op: 'get', key: 'in batch' },
    { op: 'put', key: 'in batch', value: 'first' },
    { op: 'get', key: 'in batch' },
    { op: 'put', key: 'in batch', value: 'second', options: { ifNoneMatch: '*' } },
    { op: 'delete', key: 'in batch' },
    { op: 'get', key: 'in batch' },
    { op: 'put', key: '', value: 'bad' },
    { op: 'put', key: 'in batch', value: 'last', options: { contentType: 'text/plain', ttl: 60_000 } },
    { op: 'get', key: bytes('in batch') },
  ])
  assert.equal(results.length, 9)
  assert.equal(results[0]!.entry, undefined)
  assert.equal(results[0]!.error, undefined)
  assert.equal(results[1]!.written!.siblings, 1)
  assert.equal(text(results[2]!.entry!.value), 'first')
  assert.equal(results[3]!.error!.code, 'PRECONDITION_FAILED')
  assert.equal(results[4]!.written!.siblings, 0)
  assert.equal(results[5]!.entry, undefined)
  assert.equal(results[6]!.error!.code, 'BAD_KEY')
  assert.ok(results[7]!.written!.expires! > Date.now())
  assert.equal(text(results[8]!.entry!.value), 'last')
  assert.equal(results[8]!.entry!.contentType, 'text/plain')
  assert.deepEqual(await store.batch([]), [])
})

test('Store.batch() takes 1,000 operations and refuses 1,001', async () => {
  const operations = Array.from(
    { length: 1001 },
    (_, index): BatchOperation => ({ op: 'put', key: `batch ${index}`, value: String(index) }),
  )
  const error = await rejectsWith('REQUEST_TOO_LARGE', store.batch(operations))
  assert.equal(error.outcome, 'none')
  assert.equal(store.getSync('batch 0'), undefined)
  const results = await store.batch(operations.slice(0, 1000))
  assert.ok(results.every((result) => result.error === undefined))
  for (let index = 0; index < 1000; index++) assert.equal(text(store.getSync(`batch ${index}`)), String(index))
})

// Lists and buckets.

test('Store.list() gives every key of a bucket once, over many pages, with and without values', async () => {
  await store.putBucket('listed')
  const bucket = store.bucket('listed')
  const expected = new Map<string, string>()
  for (let from = 0; from < 3000; from += 1000) {
    await bucket.batch(
      Array.from({ length: 1000 }, (_, index): BatchOperation => {
        const key = `${index % 2 === 0 ? 'even' : 'odd'}:${from + index}`
        expected.set(key, `value of ${key}`)
        return { op: 'put', key, value: `value of ${key}`, options: { durability: 'os' } }
      }),
    )
  }
  const listed = new Map<string, string | undefined>()
  for await (const { key, value } of bucket.list()) {
    assert.ok(!listed.has(text(key)!), `Key ${text(key)} came twice`)
    listed.set(text(key)!, text(value))
  }
  assert.deepEqual(listed, expected.size === listed.size ? listed : expected)
  for (const [key, value] of expected) assert.equal(listed.get(key), value)
  const odd = await keysOf(bucket, 'odd:')
  assert.deepEqual(odd, [...expected.keys()].filter((key) => key.startsWith('odd:')).sort())
  let withoutValues = 0
  for await (const { value } of bucket.list({ values: false, prefix: bytes('even:1') })) {
    assert.equal(value, undefined)
    withoutValues++
  }
  assert.equal(withoutValues, [...expected.keys()].filter((key) => key.startsWith('even:1')).length)
  assert.deepEqual(await keysOf(bucket, 'neither'), [])
})

test('Buckets keep their keys apart, and a deleted bucket takes its keys with it', async () => {
  assert.ok(store.buckets().some(({ name }) => name === 'default'))
  const created = await store.putBucket('apart', { conflict: 'lww', durability: 'os', valueBytesMax: 10 })
  assert.equal(created.conflict, 'lww')
  const bucket = store.bucket('apart')
  await store.put('same key', 'of default')
  await bucket.put('same key', 'of apart')
  assert.equal(text(store.getSync('same key')), 'of default')
  assert.equal(text(bucket.getSync('same key')), 'of apart')
  assert.equal(text((await bucket.get('same key'))!.value), 'of apart')
  await rejectsWith('VALUE_TOO_LARGE', bucket.put('same key', 'eleven byte'))
  await store.putBucket('apart', { valueBytesMax: 11 })
  await bucket.put('same key', 'eleven byte')
  await rejectsWith('CONFLICT', store.putBucket('apart', { conflict: 'siblings' }))
  await rejectsWith('BAD_BUCKET', store.putBucket('no good name'))
  await store.deleteBucket('apart')
  await rejectsWith('BUCKET_NOT_FOUND', bucket.get('same key'))
  await rejectsWith('BUCKET_NOT_FOUND', bucket.put('same key', 'value'))
  await rejectsWith('BUCKET_NOT_FOUND', bucket.list().next())
  throwsWith('BUCKET_NOT_FOUND', () => bucket.getSync('same key'))
  await store.putBucket('apart')
  assert.equal(bucket.getSync('same key'), undefined)
  assert.deepEqual(await keysOf(bucket), [])
  assert.equal(text(store.getSync('same key')), 'of default')
  await rejectsWith('CONFLICT', store.deleteBucket('default'))
  await rejectsWith('BUCKET_NOT_FOUND', store.deleteBucket('never there'))
})

test('A bucket with conflict "lww" keeps one value whatever the contexts', async () => {
  await store.putBucket('winner', { conflict: 'lww' })
  const bucket = store.bucket('winner')
  const { context } = await bucket.put('key', 'base')
  await bucket.put('key', 'left', { context })
  assert.equal((await bucket.put('key', 'right', { context })).siblings, 1)
  assert.equal((await bucket.get('key'))!.siblings.length, 1)
})

// Opening and closing.

test('open() refuses nonsense with BAD_CONFIG', async () => {
  const dir = newDirectory()
  for (const options of [
    { shards: -1 },
    { shards: 1.5 },
    { shards: 65 },
    { valueBytesMax: 0 },
    { valueBytesMax: 16 * MiB + 1 },
    { memoryBytes: 0 },
    { memoryBytes: 8 * MiB },
    { syncIntervalMs: 0 },
  ]) {
    await rejectsWith('BAD_CONFIG', openAt(dir, options))
  }
  await using fine = await openAt(dir)
  assert.equal(fine.recoveredRecords >= 0, true)
})

test('open() of a path that is no directory is DIRECTORY_UNUSABLE', async () => {
  await rejectsWith('DIRECTORY_UNUSABLE', openAt(join(import.meta.dirname, 'index.test.ts')))
})

test('A directory is open once at a time: DIRECTORY_LOCKED, and free again after close()', async () => {
  const dir = newDirectory()
  const first = await openAt(dir)
  await first.put('key', 'value')
  const error = await rejectsWith('DIRECTORY_LOCKED', openAt(dir))
  assert.match(error.message, new RegExp(`\\b${process.pid}\\b`))
  await first.put('key', 'still works')
  await first.close()
  await using second = await openAt(dir)
  assert.equal(second.nodeId, first.nodeId)
  assert.equal(text(second.getSync('key')), 'still works')
})

test('After close() every call fails with CLOSED, and a second close() waits for the first', async () => {
  const dir = newDirectory()
  const closed = await openAt(dir)
  const bucket = closed.bucket('default')
  const underWay = closed.put('under way', 'value')
  const first = closed.close()
  await closed.close()
  await using again = await openAt(dir)
  await first
  await underWay
  assert.equal(text(again.getSync('under way')), 'value')
  const calls = [
    closed.get('key'),
    closed.put('key', 'value'),
    closed.delete('key'),
    closed.batch([{ op: 'get', key: 'key' }]),
    closed.list().next(),
    closed.putBucket('bucket'),
    closed.deleteBucket('bucket'),
    bucket.get('key'),
  ]
  for (const call of calls) await rejectsWith('CLOSED', call)
  throwsWith('CLOSED', () => closed.getSync('key'))
  throwsWith('CLOSED', () => closed.getInto(bytes('key'), new Uint8Array(1)))
})

test('"await using" closes the store at the end of its block', async () => {
  const dir = newDirectory()
  let left: Store
  {
    await using inside = await openAt(dir)
    left = inside
    await inside.put('key', 'value')
  }
  throwsWith('CLOSED', () => left.getSync('key'))
  await using again = await openAt(dir)
  assert.equal(text(again.getSync('key')), 'value')
})

test('A change of the number of shards keeps values, siblings, deletes, expiry, buckets and contexts', {
  timeout: 240_000,
}, async () => {
  const dir = newDirectory()
  let reopened = await openAt(dir, { shards: 1 })
  const count = 500
  await reopened.putBucket('kept', { ttlMs: 500_000 })
  for (let index = 0; index < count; index++) await reopened.put(`key ${index}`, `value ${index}`, { durability: 'os' })
  for (let index = 0; index < count; index += 5) await reopened.delete(`key ${index}`, { durability: 'os' })
  const { expires } = await reopened.bucket('kept').put('key', 'in bucket')
  const stale = await reopened.put('cart', 'base')
  await reopened.put('cart', 'left', { context: stale.context })
  await reopened.put('cart', 'right', { context: stale.context })
  const deleted = await reopened.put('gone', 'value')
  await reopened.delete('gone')
  let cart = (await reopened.get('cart'))!
  for (const shards of [3, 2, 1, 3]) {
    await reopened.close()
    reopened = await openAt(dir, { shards })
    for (let index = 0; index < count; index++) {
      assert.equal(text(reopened.getSync(`key ${index}`)), index % 5 === 0 ? undefined : `value ${index}`)
    }
    const inBucket = (await reopened.bucket('kept').get('key'))!
    assert.equal(text(inBucket.value), 'in bucket')
    assert.equal(inBucket.expires, expires)
    assert.equal(reopened.buckets().find(({ name }) => name === 'kept')!.ttlMs, 500_000)
    const now = (await reopened.get('cart'))!
    assert.deepEqual(textsOf(now), textsOf(cart))
    assert.equal(now.etag, cart.etag)
    assert.equal(text(now.value), text(cart.value))
    assert.equal(reopened.getSync('gone'), undefined)
    // A context of an earlier run still names what it saw, and nothing else.
    const written = await reopened.put('cart', `of ${shards} shards`, { context: stale.context })
    assert.equal(written.siblings, cart.siblings.length + 1)
    cart = (await reopened.get('cart'))!
    assert.equal((await keysOf(reopened)).length, count - count / 5 + 1)
  }
  await reopened.put('cart', 'merged', { context: cart.context })
  assert.deepEqual(textsOf(await reopened.get('cart')), ['merged'])
  // The context covers the deleted value, not the tombstone: the new value stands beside nothing.
  await reopened.put('gone', 'back', { context: deleted.context })
  assert.deepEqual(textsOf(await reopened.get('gone')), ['back'])
  await reopened.close()
})

test('A process that leaves its store open and idle ends by itself, after its last write settled', {
  timeout: 240_000,
}, async () => {
  for (const mode of ['idle', 'pending']) {
    const dir = newDirectory()
    const program = join(import.meta.dirname, 'process', 'idle-store.ts')
    const child = spawn(process.execPath, [program, dir, mode], { stdio: ['ignore', 'pipe', 'inherit'] })
    let said = ''
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      said += part
    })
    const killer = setTimeout(() => child.kill('SIGKILL'), 100_000)
    const how = await new Promise((resolve) => child.on('close', (code, signal) => resolve(signal ?? code)))
    clearTimeout(killer)
    assert.equal(how, 0)
    assert.equal(said, mode === 'idle' ? 'idle ' : 'idle settled ')
    await using again = await openAt(dir)
    assert.equal(text(again.getSync('first')), 'acknowledged')
    if (mode === 'pending') assert.equal(text(again.getSync('second')), 'sent')
  }
})

// The whole against a model.

/** Live versions of a key in the order of their writes, and the number of the latest write that any of its contexts may cover. */
type ModelKey = { versions: { seen: number; value: string }[]; contexts: { upTo: number; bytes: Uint8Array }[] }

type Command =
  | { kind: 'put' | 'delete'; key: number; context: number | undefined; batch: boolean }
  | { kind: 'create' | 'match' | 'get' | 'delete-bucket'; key: number }
  | { kind: 'list'; prefix: number }
  | { kind: 'reopen'; shards: number }

const modelKeys: readonly Key[] = [
  'a',
  'ab',
  'abc',
  'grüße',
  new Uint8Array([0]),
  new Uint8Array([0, 0xff, 0x80]),
  '{tag}1',
  '{tag}2',
]
const keyIndex = fc.nat({ max: modelKeys.length - 1 })
const commands: fc.Arbitrary<Command[]> = fc.array(
  fc.oneof(
    {
      weight: 40,
      arbitrary: fc.record({
        kind: fc.constantFrom('put' as const, 'put' as const, 'delete' as const),
        key: keyIndex,
        context: fc.option(fc.nat({ max: 5 }), { nil: undefined }),
        batch: fc.boolean(),
      }),
    },
    {
      weight: 20,
      arbitrary: fc.record({
        kind: fc.constantFrom('create' as const, 'match' as const, 'get' as const),
        key: keyIndex,
      }),
    },
    { weight: 5, arbitrary: fc.record({ kind: fc.constant('list' as const), prefix: keyIndex }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('delete-bucket' as const), key: fc.constant(0) }) },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('reopen' as const), shards: fc.integer({ min: 1, max: 3 }) }),
    },
  ),
  { minLength: 10, maxLength: 80 },
)

/** The store and what it ought to hold, step by step. */
class Modelled {
  readonly #dir: string
  readonly #name: string
  #store: Store
  #keys: ModelKey[] = []
  #writes = 0

  constructor(dir: string, opened: Store, name: string) {
    this.#dir = dir
    this.#store = opened
    this.#name = name
    this.#clear()
  }

  get store(): Store {
    return this.#store
  }

  #clear(): void {
    this.#keys = modelKeys.map(() => ({ versions: [], contexts: [] }))
  }

  async run(command: Command): Promise<void> {
    const bucket = this.#store.bucket(this.#name)
    switch (command.kind) {
      case 'put':
      case 'delete':
        await this.#write(bucket, command.key, command.kind, command.context, command.batch)
        break
      case 'create': {
        const model = this.#keys[command.key]!
        const writing = bucket.put(modelKeys[command.key]!, `v${++this.#writes}`, { ifNoneMatch: '*' })
        if (model.versions.length > 0) await rejectsWith('PRECONDITION_FAILED', writing)
        else this.#noteWrite(model, `v${this.#writes}`, undefined, (await writing).context)
        break
      }
      case 'match': {
        const model = this.#keys[command.key]!
        const present = await bucket.get(modelKeys[command.key]!)
        await rejectsWith(
          'PRECONDITION_FAILED',
          bucket.put(modelKeys[command.key]!, 'never', { ifMatch: '0123456789abcdef' }),
        )
        if (present === undefined) break
        const value = `v${++this.#writes}`
        const written = await bucket.put(modelKeys[command.key]!, value, { ifMatch: present.etag })
        this.#noteWrite(model, value, undefined, written.context)
        break
      }
      case 'get':
        await this.#check(bucket, command.key)
        break
      case 'list':
        await this.#list(bucket, modelKeys[command.prefix]!)
        break
      case 'delete-bucket':
        await this.#store.deleteBucket(this.#name)
        await this.#store.putBucket(this.#name)
        this.#clear()
        break
      case 'reopen':
        await this.#store.close()
        this.#store = await openAt(this.#dir, { shards: command.shards })
        await this.checkAll()
    }
  }

  async #write(
    bucket: BucketStore,
    index: number,
    op: 'put' | 'delete',
    which: number | undefined,
    inBatch: boolean,
  ): Promise<void> {
    const key = modelKeys[index]!
    const model = this.#keys[index]!
    const context = which === undefined ? undefined : model.contexts[which % Math.max(1, model.contexts.length)]
    const value = `v${++this.#writes}`
    const options = { context: context?.bytes }
    if (inBatch) {
      const operation: BatchOperation = op === 'put' ? { op, key, value, options } : { op, key, options }
      const [result, after] = await bucket.batch([operation, { op: 'get', key }])
      assert.ok(result!.written, String(result!.error))
      this.#noteWrite(model, op === 'put' ? value : undefined, context?.upTo, result!.written.context)
      assert.deepEqual(textsOf(after!.entry), model.versions.map((version) => version.value).sort())
      return
    }
    const written = op === 'put' ? await bucket.put(key, value, options) : await bucket.delete(key, options)
    this.#noteWrite(model, op === 'put' ? value : undefined, context?.upTo, written.context)
    assert.equal(written.siblings, model.versions.length)
  }

  /** A context covers what was written up to its making; a write without one covers everything. */
  #noteWrite(
    model: ModelKey,
    value: string | undefined,
    upTo: number | undefined,
    context: Uint8Array | undefined,
  ): void {
    model.versions = upTo === undefined ? [] : model.versions.filter((version) => version.seen > upTo)
    if (value !== undefined) model.versions.push({ seen: this.#writes, value })
    if (context !== undefined) model.contexts.push({ upTo: this.#writes, bytes: context })
  }

  async #check(bucket: BucketStore, index: number): Promise<void> {
    const key = modelKeys[index]!
    const model = this.#keys[index]!
    const entry = await bucket.get(key)
    assert.deepEqual(textsOf(entry), model.versions.map(({ value }) => value).sort())
    assert.equal(text(bucket.getSync(key)), text(entry?.value))
    if (entry?.context !== undefined) model.contexts.push({ upTo: this.#writes, bytes: entry.context })
  }

  async #list(bucket: BucketStore, prefix: Key): Promise<void> {
    const expected = this.#keys.flatMap((model, index) => {
      const key = Buffer.from(typeof modelKeys[index]! === 'string' ? bytes(modelKeys[index]) : modelKeys[index]!)
      const start = Buffer.from(typeof prefix === 'string' ? bytes(prefix) : prefix)
      return model.versions.length > 0 && key.subarray(0, start.length).equals(start) ? [key.toString('hex')] : []
    })
    const listed: string[] = []
    for await (const { key } of bucket.list({ prefix })) listed.push(Buffer.from(key).toString('hex'))
    assert.deepEqual(listed.sort(), expected.sort())
  }

  async checkAll(): Promise<void> {
    const bucket = this.#store.bucket(this.#name)
    for (let index = 0; index < modelKeys.length; index++) await this.#check(bucket, index)
  }
}

test('Store behaves as a map of version sets, over reopening with any number of shards', {
  timeout: 600_000 * scale,
}, async () => {
  const dir = newDirectory()
  let opened = await openAt(dir)
  let runs = 0
  try {
    await fc.assert(
      fc.asyncProperty(commands, async (script) => {
        const name = `model-${runs++}`
        await opened.putBucket(name)
        const modelled = new Modelled(dir, opened, name)
        try {
          for (const command of script) await modelled.run(command)
          await modelled.checkAll()
        } finally {
          opened = modelled.store
        }
        await opened.deleteBucket(name)
      }),
      { numRuns: Math.ceil(20 * scale) },
    )
  } finally {
    await opened.close()
  }
})
