/** The frames between threads, byte for byte: what a coordinator sends and what a shard answers. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { errorNumberOf } from '../../src/base/errors.ts'
import type { BucketId } from '../../src/base/ids.ts'
import { KeyHash } from '../../src/base/key-hash.ts'
import { partitionOfSlot, slotOfKey } from '../../src/cluster/slots.ts'
import { emptySet } from '../../src/replication/local-replica.ts'
import {
  CommandFlag,
  FrameKind,
  highHalf,
  joinHalves,
  listCommandBytes,
  recordsReplyBytes,
  vectorEntryBytes,
  writeCommandBytes,
  writeReplyBytes,
} from '../../src/shard/command.ts'
import { Shard } from '../../src/shard/shard.ts'
import { ReadResult } from '../../src/storage/resident-reader.ts'
import { createShardMemory } from '../../src/storage/shard-memory.ts'
import { digestOfDot } from '../../src/versions/version-set.ts'
import { CoordinatorRig, type SentFrame } from '../replication/coordinator-rig.ts'
import { SimClock } from '../sim/sim-clock.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { bytesOf, crc32 } from '../storage/store-rig.ts'
import { bucketOf } from './shard-rig.ts'

const bucket = bucketOf({ id: 0x8000_0007 as BucketId, valueBytesMax: 0x20_0000 })
const key = bytesOf('key-1')
const ignored = (): void => {}
const u16 = (value: number): string => Uint8Array.of(value, value >>> 8).toHex()
const u32 = (value: number): string => Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24).toHex()
const slot = slotOfKey(key, 0, key.length)

function hashOf(bytes: Uint8Array): number {
  const hash = new KeyHash({ low: 5, high: 6 })
  hash.update(bucket.id, bytes, 0, bytes.length)
  return hash.low
}

function assertFrame(frame: SentFrame, parts: readonly string[]): void {
  assert.equal(frame.u8.toHex(), parts.join('').replaceAll(' ', ''))
}

test('Command: the numbers of frames and flags, and the sizes of heads', () => {
  const commands = {
    put: 1,
    delete: 2,
    get: 3,
    list: 4,
    merge: 5,
    track: 6,
    compare: 7,
    keepHint: 8,
    dropHint: 9,
    ask: 10,
  }
  assert.deepEqual(FrameKind, { ...commands, writeReply: 129, recordsReply: 130, setReply: 131, answer: 132 })
  assert.deepEqual(CommandFlag, {
    context: 1,
    ifMatchAny: 2,
    ifNoneMatch: 4,
    lastWriteWins: 8,
    ifMatch: 16,
    replicated: 32,
  })
  assert.deepEqual(
    [writeCommandBytes, listCommandBytes, writeReplyBytes, recordsReplyBytes, vectorEntryBytes],
    [48, 32, 32, 16, 16],
  )
})

test('Command: halves join to the number they came from', () => {
  for (const value of [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 2 ** 32, 2 ** 41 + 7, 2 ** 48 - 1, 2 ** 53 - 1]) {
    const low = Int32Array.of(0)
    low[0] = value
    assert.equal(joinHalves(low[0], highHalf(value)), value)
  }
})

test('Command: a put with everything has exactly these bytes', () => {
  const rig = new CoordinatorRig()
  // The context of a first write, as its reply shows it.
  let context: Uint8Array | undefined
  rig.coordinator.put(bucket, key, bytesOf('v'), {}, (_, answer) => {
    context = answer!.context
  })
  rig.answerWrite(rig.sent[0]!)
  rig.clock.jumpEpoch(0x0000_0200_0000_1000 - rig.clock.epochMs())
  rig.coordinator.put(
    bucket,
    key,
    bytesOf('value'),
    { context, ttlMs: 0x100, contentType: 'x/own', durability: 'interval', ifMatch: ['0123456789abcdef', 'no digest'] },
    ignored,
  )
  assertFrame(rig.sent[1]!, [
    `01 11 ${u16(slot)}`, // put; context and if-match
    u32(rig.sent[1]!.i32[1]!), // request id
    '07000080', // bucket
    u32(hashOf(key)),
    '00008000', // greatest version set
    '0500 0100', // bytes of the key, entries of the context
    '05000000', // bytes of the value
    '01 05 01 01', // content type spelled out, its bytes; durability; digests
    '00110000 00020000', // expiry
    '00000000 00000000', // timestamp
    '6b65792d31', // key
    padding(rig.sent[1]!, 53, 3),
    '01000000 02000000 09000000 00000000', // context: actor (1, 2) up to 9
    'efcdab89 67452301', // digest
    '782f6f776e', // content type
    padding(rig.sent[1]!, 85, 3),
    '76616c7565', // value
    padding(rig.sent[1]!, 93, 3),
  ])
})

/** Padding is whatever the ring held before. */
function padding(frame: SentFrame, at: number, bytes: number): string {
  const hex = frame.u8.slice(at, at + bytes).toHex()
  assert.equal(hex, 'a5'.repeat(bytes), 'Nobody writes the padding')
  return hex
}

test('Command: a delete, a read and a list have exactly these bytes', () => {
  const rig = new CoordinatorRig()
  rig.coordinator.delete(bucketOf({ ...bucket, conflict: 'lww' }), key, { durability: 'os', ifNoneMatch: '*' }, ignored)
  assertFrame(rig.sent[0]!, [
    `02 0c ${u16(slot)}`, // delete; if-none-match, last write wins
    u32(rig.sent[0]!.i32[1]!),
    '07000080',
    u32(hashOf(key)),
    '00008000',
    '0500 0000',
    '00000000',
    '00 00 00 00',
    '00000000 00000000',
    u32(rig.sent[0]!.i32[10]!) + u32(rig.sent[0]!.i32[11]!),
    '6b65792d31',
    padding(rig.sent[0]!, 53, 3),
  ])
  rig.readResult = ReadResult.contended
  rig.coordinator.get(bucket, key, {}, ignored)
  assertFrame(rig.sent[1]!, [
    `03 00 ${u16(slot)}`,
    u32(rig.sent[1]!.i32[1]!),
    '07000080',
    u32(hashOf(key)),
    '00000000',
    '0500 0000',
    '00'.repeat(24),
    '6b65792d31',
    padding(rig.sent[1]!, 53, 3),
  ])
  rig.clock.jumpEpoch(0x0000_0200_0000_1000 - rig.clock.epochMs())
  rig.coordinator.list(bucket, { limit: 77, values: true, prefix: bytesOf('ke') }, ignored)
  assertFrame(rig.sent[2]!, [
    '04 01 0000', // list, with values, from partition 0
    u32(rig.sent[2]!.i32[1]!),
    '07000080',
    '4d000000', // limit
    '00004000', // greatest answer
    '0200 0000', // bytes of the prefix, of the key before
    '00100000 00020000', // now
    '6b65',
    padding(rig.sent[2]!, 34, 2),
  ])
})

// A shard's answers.

type Reply = { readonly thread: number; readonly hex: string }

function openShard(): { readonly shard: Shard; readonly replies: Reply[]; readonly clock: SimClock } {
  const replies: Reply[] = []
  const clock = new SimClock()
  const disk = new SimDisk()
  disk.makeDirectoryNow('log')
  let reserved: { readonly thread: number; readonly u8: Uint8Array } | undefined
  const shard = new Shard(
    {
      disk,
      directory: 'log',
      memory: createShardMemory({ segmentBytes: 8192, segments: 16, chunksMax: 4096, budgetBytes: 16 * 8192 }),
      budgetBytes: 16 * 8192,
      crc32,
      hashSeed: { low: 5, high: 6 },
      shard: 0,
      shards: 1,
      actor: { low: 0x1111_1111, high: 0x9222_2222 },
      preallocate: true,
      syncIntervalMs: 100,
      salvage: false,
      partitionOfSlot,
      isRetiredBucket: () => false,
    },
    clock,
    {
      beginReply: (thread, bytes) => {
        const u8 = new Uint8Array((bytes + 3) & ~3).fill(0xa5)
        reserved = { thread, u8 }
        return { u8, i32: new Int32Array(u8.buffer), start: 0 }
      },
      commitReply: (thread) => {
        assert.equal(reserved?.thread, thread)
        replies.push({ thread, hex: reserved!.u8.toHex() })
      },
    },
    { unsyncedWanted: ignored, actorIsStale: ignored, resumed: ignored, failed: ignored },
  )
  shard.store.recover(ignored, (error) => assert.ifError(error))
  return { shard, replies, clock }
}

function tell(shard: Shard, frame: SentFrame): void {
  shard.receive(3, frame.u8, frame.i32, 0, frame.u8.length)
  shard.flush()
}

test('Command: the replies of a shard have exactly these bytes', () => {
  const rig = new CoordinatorRig(1)
  const { shard, replies, clock } = openShard()
  const id = (index: number): string => u32(rig.sent[index]!.i32[1]!)
  const dot = (counter: string): string => `11111111 22222292 ${counter} 00000000`
  const expiresAt = u32(clock.epochMs() + 1000) + u32(Math.floor((clock.epochMs() + 1000) / 2 ** 32))
  rig.coordinator.put(bucket, key, bytesOf('value'), {}, ignored)
  rig.coordinator.put(bucket, key, bytesOf('soon'), { ttlMs: 1000 }, ignored)
  rig.coordinator.put(bucket, key, bytesOf('never'), { ifNoneMatch: '*' }, ignored)
  rig.coordinator.delete(bucket, key, {}, ignored)
  rig.coordinator.delete(bucket, bytesOf('absent'), {}, ignored)
  rig.readResult = ReadResult.contended
  rig.coordinator.get(bucket, bytesOf('absent'), {}, ignored)
  for (const frame of rig.sent) tell(shard, frame)
  const failed = u16(errorNumberOf.get('PRECONDITION_FAILED')!)
  const tombstone = digestOfDot(0x1111_1111, 0x9222_2222, 3, true)
  const digestOfTombstone = u32(tombstone.low) + u32(tombstone.high)
  assert.deepEqual(
    replies,
    [
      // kind, outcome, error | request | siblings, durable, present | vector | digest | expiry | dot
      `81 00 0000 ${id(0)} 0100 01 01 01000000 00000000 00000000 00000000 00000000 ${dot('01000000')}`,
      `81 00 0000 ${id(1)} 0100 01 01 01000000 00000000 00000000 ${expiresAt} ${dot('02000000')}`,
      `81 00 ${failed} ${id(2)} 0100 01 01 01000000 00000000 00000000 ${expiresAt} ${dot('02000000')}`,
      `81 00 0000 ${id(3)} 0000 01 01 01000000 ${digestOfTombstone} 00000000 00000000 ${dot('03000000')}`,
      `81 00 0000 ${id(4)} 0000 01 00 00000000 00000000 00000000 00000000 00000000`,
      // kind, outcome, error | request | bytes of records | where a list goes on
      `82 00 0000 ${id(5)} 00000000 00000000`,
    ].map((hex) => ({ thread: 3, hex: hex.replaceAll(' ', '') })),
  )
})

/** One command looks at so many partitions at most. */
function tagInPartitionBelow(partition: number): string {
  for (let index = 10; ; index++) {
    const tag = `{${index}}`
    if (partitionOfSlot(slotOfKey(bytesOf(tag), 0, tag.length)) < partition) return tag
  }
}

test('Command: a list is answered with records, and with where it goes on', () => {
  const rig = new CoordinatorRig(1)
  const { shard, replies } = openShard()
  const tag = tagInPartitionBelow(256)
  const names = [`${tag}a`, `${tag}b`, `${tag}c`]
  for (const name of names) rig.coordinator.put(bucket, bytesOf(name), bytesOf('val'), {}, ignored)
  rig.coordinator.list(bucket, { limit: 2, values: false }, ignored)
  rig.coordinator.list(bucket, { limit: 1, values: true }, ignored)
  rig.coordinator.list(bucket, { limit: 9, values: false, prefix: bytesOf('none') }, ignored)
  rig.coordinator.list(bucket, { limit: 9, values: false, prefix: bytesOf('{none}') }, ignored)
  for (const frame of rig.sent) tell(shard, frame)
  const of = (text: string): number => slotOfKey(bytesOf(text), 0, text.length)
  const partition = partitionOfSlot(of(tag))
  const record = (bytes: number, text: string, counter: number): string =>
    [
      u32(bytes),
      u16(of(text)),
      u16(text.length),
      '07000080',
      '11 00 0000', // simple, one byte of padding behind the value; content type; actor
      u32(counter),
      '0000 0000',
      bytesOf(text).toHex(),
      '000000', // padding of the key
    ].join('')
  const id = (index: number): string => u32(rig.sent[index]!.i32[1]!)
  const head = (index: number, bytes: number, next: number): string =>
    `82 00 0000 ${id(index)} ${u32(bytes)} ${u32(next)}`
  const more = partition | (1 << 16)
  const value = `${bytesOf('val').toHex()}00`
  assert.deepEqual(
    replies.slice(3).map(({ hex }) => hex),
    [
      head(3, 64, more) + record(32, names[0]!, 1) + record(32, names[1]!, 2),
      head(4, 36, more) + record(36, names[0]!, 1) + value,
      // The shard stops after so many partitions, and tells which is next.
      head(5, 0, 256),
      // All keys of a hash tag are in one partition.
      head(6, 0, partitionOfSlot(of('{none}')) + 1),
    ].map((hex) => hex.replaceAll(' ', '')),
  )
})

test('Command: hints that are left, removed, read and listed have exactly these bytes', () => {
  const rig = new CoordinatorRig()
  const { replica } = rig
  rig.clock.jumpEpoch(0x0000_0200_0000_1000 - rig.clock.epochMs())
  const about = { target: 'n2', bucketId: bucket.id, key }
  const hash = new KeyHash({ low: 5, high: 6 })
  const hintKey = '026e32' + '80000007' + '6b65792d31' // target, bucket, key
  hash.update(0xffff_fffe, Uint8Array.fromHex(hintKey), 0, 12)
  const head = (kind: string, frame: SentFrame): string[] => [
    `${kind} ${u16(slot)}`, // of the key that it is about
    u32(frame.i32[1]!), // request id
    'feffffff', // bucket of hints
    u32(hash.low),
    '00000000',
    '0c00 0000', // bytes of the key
  ]
  const set = emptySet
  replica.keepHint(about, set, 'sync', 1000, ignored)
  assertFrame(rig.sent[0]!, [
    ...head('08 00', rig.sent[0]!),
    u32(set.length),
    '00 00 02 00', // durability
    '00000000 00000000',
    '00100000 00020000', // when it was left
    hintKey,
    set.toHex(),
  ])
  replica.dropHint(about, 1000, ignored)
  assertFrame(rig.sent[1]!, [
    ...head('09 00', rig.sent[1]!),
    '00000000',
    '00 00 00 00',
    '00000000 00000000',
    '00100000 00020000',
    hintKey,
  ])
  replica.readHint(about, 1000, ignored)
  // Behind the changes before.
  assertFrame(rig.sent[2]!, [...head('03 01', rig.sent[2]!), '00000000'.repeat(6), hintKey])
  replica.listHints({ partition: 7, after: Uint8Array.of(1, 2, 3, 4) }, true, 0x1000, 1000, ignored)
  assertFrame(rig.sent[3]!, [
    '04 07 0700', // with values, behind a key, this partition alone
    u32(rig.sent[3]!.i32[1]!),
    'feffffff',
    '00010000', // hints of a page
    '00100000', // bytes of a page
    '0000 0400', // bytes of the prefix, of the key
    '00000000 00000000',
    '01020304',
  ])
})
