/** What env.ts says of the door `Shards`, as tests that every implementation must pass. */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import type { Shards } from '../../src/env.ts'

export type ShardsUnderTest = {
  /** The door of one thread, over three shards that are up. */
  readonly shards: Shards
  /** Lets a shard take all that it can see; copies of the frames, in the order in which they came. */
  readonly take: (shard: number) => readonly Uint8Array[]
  /** Ends the turn of the door's thread. */
  readonly endTurn: () => void
  /** A shard answers with these bytes, of which the first is at least 129. False where the reply was dropped. */
  readonly reply: (shard: number, frame: Uint8Array) => boolean
  /** Copies of the replies that came to the door's thread, in their order, since the last call. */
  readonly takeReplies: () => readonly Uint8Array[]
  /** The thread of a shard ends. */
  readonly takeDown: (shard: number) => void
  /** It has a new one, which knows nothing of what was sent before. */
  readonly bringUp: (shard: number) => void
  /** So many bytes in one shard's queue are surely too many. */
  readonly tooManyBytes: number
}

const frameBytesMin = 8
/** First byte of every command here; replies have 129 and more. */
const commandKind = 1
const replyKind = 130

function byteOf(number: number, index: number): number {
  return (number * 37 + index * 11 + (index >> 8)) & 255
}

/** A frame that tells its number and has all bytes determined by it. */
function frameOf(number: number, bytes: number, kind = commandKind): Uint8Array {
  const frame = Uint8Array.from({ length: bytes }, (_, index) => byteOf(number, index))
  new DataView(frame.buffer).setUint32(4, number, true)
  frame[0] = kind
  return frame
}

function send(shards: Shards, shard: number, frame: Uint8Array): boolean {
  const target = shards.begin(shard, frame.length)
  if (target === undefined) return false
  const { u8, i32, start } = target
  assert.equal(start % 4, 0, 'A frame starts at a multiple of 4')
  assert.ok(start + frame.length <= u8.length, 'The frame lies within its memory')
  u8.set(frame, start)
  // Both views show the same bytes.
  assert.equal(i32[(start >>> 2) + 1], new DataView(frame.buffer, frame.byteOffset).getInt32(4, true))
  i32[(start >>> 2) + 1] = new DataView(frame.buffer, frame.byteOffset).getInt32(4, true)
  shards.commit(shard)
  return true
}

/** Frames as long as they are; their memory may be padded. */
function assertFrames(actual: readonly Uint8Array[], expected: readonly Uint8Array[]): void {
  assert.deepEqual(
    actual.map((frame) => new DataView(frame.buffer, frame.byteOffset).getUint32(4, true)),
    expected.map((frame) => new DataView(frame.buffer, frame.byteOffset).getUint32(4, true)),
    'The frames come once, in their order',
  )
  for (const [index, frame] of actual.entries()) {
    assert.equal(Buffer.compare(frame, expected[index]!), 0, `The bytes of frame ${index}`)
  }
}

/** Runs the suite against the doors that `makeShards` makes; `name` stands before each test's name. */
export function shardsSuite(name: string, makeShards: (t: TestContext) => ShardsUnderTest): void {
  const on = (what: string, run: (under: ShardsUnderTest) => void): void => {
    test(`${name}: ${what}`, (t) => run(makeShards(t)))
  }
  const numbers = (count: number): number[] => Array.from({ length: count }, (_, index) => index)

  on('frames come whole, once, in the order of their commits, each to its shard', ({ shards, take }) => {
    assert.equal(shards.count, 3)
    const frames = numbers(300).map((number) => frameOf(number, frameBytesMin + ((number * 7) % 600)))
    for (const [number, frame] of frames.entries()) assert.ok(send(shards, number % 3, frame))
    shards.publish()
    for (const shard of [2, 0, 1]) {
      assertFrames(
        take(shard),
        frames.filter((_, number) => number % 3 === shard),
      )
      assert.deepEqual(take(shard), [])
    }
  })

  on('a frame may have any length, up to that of the largest value', ({ shards, take }) => {
    const lengths = [8, 9, 10, 11, 12, 13, 100, 4095, 4096, 4097, 300_000, 8, 1_048_576 + 3, 17_000_000, 9]
    const frames = lengths.map((bytes, number) => frameOf(number, bytes))
    for (const frame of frames) assert.ok(send(shards, 1, frame))
    shards.publish()
    const taken: Uint8Array[] = []
    // A frame larger than the queue between threads comes in pieces, as room appears.
    for (let turns = 0; taken.length < frames.length; turns++) {
      taken.push(...take(1))
      shards.publish()
      assert.ok(turns < 1000, `Only ${taken.length} frames came`)
    }
    assertFrames(taken, frames)
  })

  on(
    'a shard need not see a few frames before publish(), and sees everything behind it',
    ({ shards, take, endTurn }) => {
      const frames = numbers(4).map((number) => frameOf(number, 32))
      send(shards, 0, frames[0]!)
      send(shards, 1, frames[1]!)
      assert.deepEqual([take(0), take(1)], [[], []])
      shards.publish()
      assertFrames(take(0), [frames[0]!])
      assertFrames(take(1), [frames[1]!])
      shards.publish()
      assert.deepEqual([take(0), take(1)], [[], []])
      send(shards, 0, frames[2]!)
      send(shards, 0, frames[3]!)
      assert.deepEqual(take(0), [])
      endTurn()
      assertFrames(take(0), [frames[2]!, frames[3]!])
    },
  )

  on('a frame that was begun and not committed is forgotten', ({ shards, take }) => {
    const frames = numbers(3).map((number) => frameOf(number, 48))
    send(shards, 0, frames[0]!)
    for (const bytes of [16, 400, 8]) assert.ok(shards.begin(0, bytes) !== undefined)
    send(shards, 0, frames[1]!)
    assert.ok(shards.begin(0, 1000) !== undefined)
    shards.publish()
    send(shards, 0, frames[2]!)
    shards.publish()
    assertFrames(take(0), frames)
  })

  on('a full queue refuses and loses nothing, and takes frames again when there is room', (under) => {
    const { shards, take, tooManyBytes } = under
    const bytes = Math.floor(tooManyBytes / 64)
    const frames: Uint8Array[] = []
    for (let number = 0; ; number++) {
      const frame = frameOf(number, bytes)
      if (!send(shards, 0, frame)) break
      frames.push(frame)
      assert.ok(frames.length * bytes <= tooManyBytes, 'A queue has an end')
    }
    assert.equal(shards.isUp(0), true)
    assert.ok(frames.length > 0)
    const other = frameOf(7, 64)
    assert.ok(send(shards, 1, other), 'Another queue has room')
    const taken: Uint8Array[] = []
    for (let turns = 0; taken.length < frames.length; turns++) {
      shards.publish()
      taken.push(...take(0))
      assert.ok(turns < 10_000, `Only ${taken.length} frames came`)
    }
    assertFrames(taken, frames)
    assertFrames(take(1), [other])
    const last = frameOf(99, bytes)
    assert.ok(send(shards, 0, last))
    const lastTaken: Uint8Array[] = []
    for (let turns = 0; turns < 1000 && lastTaken.length === 0; turns++) {
      shards.publish()
      lastTaken.push(...take(0))
    }
    assertFrames(lastTaken, [last])
  })

  on('a shard that is down takes nothing, and its successor nothing that was meant for it', (under) => {
    const { shards, take, takeDown, bringUp } = under
    assert.deepEqual(
      numbers(3).map((shard) => shards.isUp(shard)),
      [true, true, true],
    )
    send(shards, 1, frameOf(1, 64))
    shards.publish()
    send(shards, 1, frameOf(2, 64))
    takeDown(1)
    assert.deepEqual(
      numbers(3).map((shard) => shards.isUp(shard)),
      [true, false, true],
    )
    assert.equal(send(shards, 1, frameOf(3, 64)), false)
    shards.publish()
    const other = frameOf(4, 64)
    assert.ok(send(shards, 2, other))
    shards.publish()
    assertFrames(take(2), [other])
    bringUp(1)
    assert.equal(shards.isUp(1), true)
    const fresh = frameOf(5, 64)
    assert.ok(send(shards, 1, fresh))
    shards.publish()
    assertFrames(take(1), [fresh])
  })

  on('replies come whole, once, in the order in which each shard made them', ({ shards, take, reply, takeReplies }) => {
    const frames = numbers(200).map((number) => frameOf(number, 16 + ((number * 13) % 700), replyKind))
    for (const [number, frame] of frames.entries()) {
      send(shards, number % 3, frameOf(number, 16))
      shards.publish()
      assert.equal(take(number % 3).length, 1)
      assert.ok(reply(number % 3, frame))
    }
    const replies = takeReplies()
    for (const shard of numbers(3)) {
      assertFrames(
        replies.filter((frame) => new DataView(frame.buffer, frame.byteOffset).getUint32(4, true) % 3 === shard),
        frames.filter((_, number) => number % 3 === shard),
      )
    }
    assert.equal(replies.length, frames.length)
    assert.deepEqual(takeReplies(), [])
  })

  test(`${name}: each queue is a queue, whatever is sent, published, taken, ended and restarted`, (t) => {
    const shard = fc.integer({ min: 0, max: 2 })
    const step = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({ do: fc.constant('send' as const), shard, bytes: fc.integer({ min: 8, max: 3000 }) }),
      },
      {
        weight: 1,
        arbitrary: fc.record({ do: fc.constant('forget' as const), shard, bytes: fc.integer({ min: 8, max: 3000 }) }),
      },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('publish' as const), shard, bytes: fc.constant(0) }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('take' as const), shard, bytes: fc.constant(0) }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('flip' as const), shard, bytes: fc.constant(0) }) },
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        const { shards, take, takeDown, bringUp } = makeShards(t)
        // What was committed may be seen before it is published, in order; what was published must be.
        const queues = numbers(3).map(() => ({ committed: [] as Uint8Array[], visible: [] as Uint8Array[] }))
        for (const [number, { do: what, shard: which, bytes }] of steps.entries()) {
          const queue = queues[which]!
          if (what === 'send') {
            const frame = frameOf(number, bytes)
            const isSent = send(shards, which, frame)
            assert.ok(shards.isUp(which) || !isSent)
            if (isSent) queue.committed.push(frame)
          } else if (what === 'forget') {
            shards.begin(which, bytes)
          } else if (what === 'publish') {
            shards.publish()
            for (const each of queues) each.visible.push(...each.committed.splice(0))
          } else if (what === 'take') {
            if (!shards.isUp(which)) continue
            const taken = take(which)
            const early = Math.max(0, taken.length - queue.visible.length)
            assertFrames(taken, [...queue.visible.splice(0), ...queue.committed.splice(0, early)])
          } else {
            if (shards.isUp(which)) takeDown(which)
            else bringUp(which)
            queue.committed.length = 0
            queue.visible.length = 0
          }
        }
      }),
      { numRuns: 60 },
    )
  })
}
