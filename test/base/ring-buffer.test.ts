/** The ring on one thread: layout, model, limits, corruption, wakes at every interleaving point, allocation. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { AssertionError } from '../../src/base/assert.ts'
import type { RingRegion } from '../../src/base/ring-buffer.ts'
import { createRing, declareDead, frameBytesMaxOf, placeRing, ringBytesTotal } from '../../src/base/ring-buffer.ts'
import type { RingHandler } from '../../src/base/ring-consumer.ts'
import { RingConsumer } from '../../src/base/ring-consumer.ts'
import { RingProducer } from '../../src/base/ring-producer.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? '1')
const messageBytesMax = 1 << 20

type Pair = { region: RingRegion; producer: RingProducer; consumer: RingConsumer }

function pairOf(capacityBytes: number, outboxBytesMax = 1 << 20): Pair {
  const region = createRing(capacityBytes)
  return {
    region,
    producer: new RingProducer(region, {
      outboxBytesMax,
      messageBytesMax: outboxBytesMax === 0 ? frameBytesMaxOf(capacityBytes) : messageBytesMax,
    }),
    consumer: new RingConsumer(region, { messageBytesMax }),
  }
}

const byteOf = (sequence: number, index: number): number => (sequence * 31 + index * 7 + (index >> 8)) & 255

function encode(producer: RingProducer, sequence: number, bytes: number): void {
  for (let index = 0; index < bytes; index++) producer.u8[producer.start + index] = byteOf(sequence, index)
}

const isMessage = (u8: Uint8Array, start: number, sequence: number, bytes: number): boolean => {
  for (let index = 0; index < bytes; index++) if (u8[start + index] !== byteOf(sequence, index)) return false
  return true
}

/** Bytes as text, four to a group, for drawings. */
const hex = (region: RingRegion, from: number, to: number): string =>
  Buffer.from(region.buffer).subarray(from, to).toString('hex').replace(/.{8}/g, '$& ').trim()

const nothing: RingHandler = () => {}

test('createRing() lays header, frames, padding and pieces out as drawn', () => {
  const { region, producer, consumer } = pairOf(128)
  assert.equal(ringBytesTotal(128), 1024 + 128)
  assert.equal(region.buffer.byteLength, 1024 + 128)
  assert.equal(hex(region, 0, 8), '53575231 80000000')
  const header = new Int32Array(region.buffer, 0, 256)

  assert.equal(producer.reserve(5), 8)
  producer.u8.set([1, 2, 3, 4, 5], producer.start)
  producer.commit()
  assert.equal(producer.reserve(0), 24)
  producer.commit()
  assert.equal(header[32], 0, 'nothing is visible before publish()')
  producer.publish()
  assert.equal(header[32], 24)
  assert.equal(hex(region, 1024, 1048), '05000000 52494e47 01020304 05000000 00000000 42494e47')

  consumer.drain(nothing, 10)
  assert.equal(header[64], 24)
  assert.ok(consumer.prepareSleep())
  assert.equal(header[96], 1)
  consumer.awake()
  assert.equal(header[96], 0)
  assert.equal(producer.wantRoom(), true)

  // A message of 40 bytes in pieces of at most 24: prefix and 16, then 24.
  assert.ok(
    producer.send(
      Uint8Array.from({ length: 40 }, (_, index) => index),
      0,
      40,
    ),
  )
  producer.publish()
  assert.equal(
    hex(region, 1048, 1112),
    '18000040 4a494e47 28000000 00000000 00010203 04050607 08090a0b 0c0d0e0f ' +
      '18000060 6a494e47 10111213 14151617 18191a1b 1c1d1e1f 20212223 24252627',
  )
  assert.equal(consumer.drain(nothing, 10), 1)

  // 128 - 88 = 40 bytes are left: a frame of 24 takes 32, the next leaves 8 of padding.
  assert.equal(producer.reserve(24), 96)
  producer.commit()
  assert.equal(producer.reserve(1), 8)
  producer.commit()
  producer.publish()
  assert.equal(hex(region, 1024 + 120, 1024 + 128), '00000020 2a494e47')
  assert.equal(header[32], 144)

  declareDead(region, 'producer', 7)
  declareDead(region, 'consumer', 9)
  assert.equal(header[160], 7)
  assert.equal(header[192], 9)
  assert.equal(consumer.producerDeathEpoch, 7)
  assert.equal(producer.consumerDeathEpoch, 9)
  assert.equal(consumer.drain(nothing, 10), 2, 'what a dead producer published is still there')
})

test('placeRing() puts rings side by side in one buffer', () => {
  const total = ringBytesTotal(256)
  const buffer = new SharedArrayBuffer(total * 2)
  const regions = [placeRing(buffer, 0, 256), placeRing(buffer, total, 256)]
  const seen: number[] = []
  const pairs = regions.map((region) => ({
    producer: new RingProducer(region, { outboxBytesMax: 0, messageBytesMax: 16 }),
    consumer: new RingConsumer(region, { messageBytesMax: 16 }),
  }))
  for (let lap = 0; lap < 100; lap++) {
    for (const [which, { producer }] of pairs.entries()) {
      assert.ok(producer.reserve(8) >= 0)
      producer.i32[producer.start >> 2] = which
      producer.commit()
      producer.publish()
    }
    for (const { consumer } of pairs) consumer.drain((_, i32, start) => seen.push(i32[start >> 2]!), 8)
  }
  assert.deepEqual(
    seen,
    Array.from({ length: 200 }, (_, index) => index % 2),
  )
})

test('Rings refuse impossible capacities, places, second owners and foreign memory', () => {
  for (const capacityBytes of [0, 64, 100, 129, 2 ** 31, 127.5, Number.NaN]) {
    assert.throws(() => createRing(capacityBytes), AssertionError)
  }
  assert.throws(() => placeRing(new SharedArrayBuffer(4096), 64, 128), AssertionError)
  assert.throws(() => placeRing(new SharedArrayBuffer(1024), 0, 128), AssertionError)
  const { region, producer, consumer } = pairOf(128)
  assert.throws(() => placeRing(region.buffer, 0, 128), AssertionError)
  producer.reserve(1)
  producer.commit()
  producer.publish()
  consumer.drain(nothing, 1)
  assert.throws(() => new RingProducer(region, { outboxBytesMax: 0, messageBytesMax: 8 }), AssertionError)
  assert.throws(() => new RingConsumer(region, { messageBytesMax: 8 }), AssertionError)
  const blank = { buffer: new SharedArrayBuffer(2048), byteOffset: 0, capacityBytes: 128 }
  assert.throws(() => new RingConsumer(blank, { messageBytesMax: 8 }), AssertionError)
  assert.throws(() => new RingConsumer({ ...region, capacityBytes: 256 }, { messageBytesMax: 8 }), AssertionError)
  assert.throws(
    () => new RingProducer(createRing(128), { outboxBytesMax: 0, messageBytesMax: 25 }),
    /carries no message larger than a frame/,
  )
  assert.throws(() => declareDead(region, 'consumer', 0), AssertionError)
})

test('RingProducer refuses misuse: too many bytes, commit without or beyond a reservation, bad ranges', () => {
  const { producer } = pairOf(128)
  assert.equal(producer.frameBytesMax, 24)
  assert.throws(() => producer.reserve(25), AssertionError)
  assert.throws(() => producer.reserve(-1), AssertionError)
  assert.throws(() => producer.reserveOrQueue(messageBytesMax + 1), AssertionError)
  assert.throws(() => producer.commit(), AssertionError)
  producer.reserve(8)
  assert.throws(() => producer.commit(9), AssertionError)
  producer.publish()
  assert.throws(() => producer.commit(), AssertionError, 'publish() forgets the reservation')
  assert.throws(() => producer.send(new Uint8Array(4), 2, 5), AssertionError)
  assert.throws(() => producer.send(new Uint8Array(4), 3, 2), AssertionError)
})

test('RingProducer.reserve() fills the ring to the last byte and then says full until room is released', () => {
  const { producer, consumer } = pairOf(128, 0)
  for (let frame = 0; frame < 4; frame++) {
    assert.ok(producer.reserve(24) >= 0)
    producer.commit()
  }
  assert.equal(producer.reserve(0), -1)
  assert.equal(producer.reserveOrQueue(0), -1, 'there is no outbox')
  producer.publish()
  assert.equal(producer.wantRoom(), false)
  assert.equal(consumer.mustWakeProducer(), false, 'the ring is still full')
  assert.equal(consumer.drain(nothing, 1), 1)
  assert.equal(consumer.mustWakeProducer(), false, 'three quarters are still used')
  assert.ok(producer.reserve(24) >= 0, 'but one frame fits')
  assert.equal(consumer.drain(nothing, 1), 1)
  assert.equal(consumer.mustWakeProducer(), true)
  assert.equal(consumer.mustWakeProducer(), false, 'once')
  assert.equal(producer.wantRoom(), true)
})

test('RingProducer forgets a reservation that is not committed, with its padding', () => {
  const { producer, consumer } = pairOf(128)
  const seen: number[] = []
  const handler: RingHandler = (_u8, i32, start) => seen.push(i32[start >> 2]!)
  for (let lap = 0; lap < 50; lap++) {
    producer.reserve(24)
    producer.i32[producer.start >> 2] = -1
    producer.reserve(20)
    producer.i32[producer.start >> 2] = lap
    producer.commit(4 + (lap % 3) * 8)
    producer.reserve(24)
    producer.publish()
    consumer.drain(handler, 8)
  }
  assert.deepEqual(
    seen,
    Array.from({ length: 50 }, (_, index) => index),
  )
})

test('Indices wrap around 2^32 without notice', () => {
  const { producer, consumer } = pairOf(1 << 26)
  const bytes = producer.frameBytesMax - 1000
  let messages = 0
  const handler: RingHandler = (_u8, i32, start, length) => {
    assert.equal(length, bytes)
    assert.equal(i32[start >> 2], messages++)
  }
  for (let index = 0; index < 700; index++) {
    // 700 x 16 MiB = 2.7 laps of the index; only the first word is touched.
    assert.ok(producer.reserve(bytes) >= 0)
    producer.i32[producer.start >> 2] = index
    producer.commit()
    producer.publish()
    if (index % 3 === 2) consumer.drain(handler, 10)
  }
  consumer.drain(handler, 10)
  assert.equal(messages, 700)
})

test('RingConsumer.drain() hands over what was published when it was called, and framesMax at most', () => {
  const { producer, consumer } = pairOf(1024)
  const sendOne = (): void => {
    producer.reserve(8)
    producer.commit()
    producer.publish()
  }
  for (let index = 0; index < 5; index++) sendOne()
  let messages = 0
  const echo: RingHandler = () => {
    messages++
    if (messages < 100) sendOne()
  }
  assert.equal(consumer.drain(echo, 3), 3)
  assert.equal(consumer.drain(echo, 100), 5, 'two old ones and three that the first call caused')
  assert.throws(() => consumer.drain(() => consumer.drain(nothing, 1), 1), /own handler/)
})

test('RingConsumer.drain() releases room after every eighth of the ring, while it is still draining', () => {
  const { producer, consumer } = pairOf(1024)
  for (let index = 0; index < 32; index++) {
    producer.reserve(24)
    producer.commit()
  }
  producer.publish()
  assert.equal(producer.reserve(0), -1)
  let handled = 0
  let firstRoom = 0
  consumer.drain(() => {
    handled++
    if (firstRoom === 0 && producer.reserve(24) >= 0) firstRoom = handled
  }, 100)
  assert.equal(firstRoom, 5, 'four frames of 32 bytes are an eighth')
})

test('A handler that throws neither loses nor repeats a message, small or large', () => {
  const { producer, consumer } = pairOf(256)
  const sizes = [8, 200, 16, 300, 8]
  for (const [sequence, bytes] of sizes.entries()) {
    producer.reserveOrQueue(bytes)
    encode(producer, sequence, bytes)
    producer.commit()
  }
  const taken: number[] = []
  const handler: RingHandler = (u8, _i32, start, bytes) => {
    assert.ok(isMessage(u8, start, taken.length, bytes))
    assert.equal(bytes, sizes[taken.length])
    taken.push(bytes)
    throw new RangeError('the handler failed')
  }
  for (let turn = 0; turn < 50 && taken.length < sizes.length; turn++) {
    producer.publish()
    try {
      consumer.drain(handler, 100)
    } catch (error) {
      assert.ok(error instanceof RangeError)
    }
  }
  assert.deepEqual(taken, sizes)
  assert.equal(consumer.drain(handler, 100), 0)
})

test('RingConsumer drops the buffer of a large message once it was handed over', () => {
  const { producer, consumer } = pairOf(1024)
  const sizes: number[] = []
  for (const bytes of [900, 100_000, 300]) {
    assert.ok(producer.send(new Uint8Array(bytes), 0, bytes))
    while (producer.outboxBytes > 0 || sizes.at(-1) !== bytes) {
      producer.publish()
      consumer.drain((_u8, _i32, _start, length) => sizes.push(length), 100)
    }
    assert.ok(consumer.messageBufferBytes <= 1024)
    assert.equal(producer.outboxBytes, 0)
  }
  assert.deepEqual(sizes, [900, 100_000, 300])
})

test('The outbox is bounded: what would break the bound is refused and nothing is sent', () => {
  const { producer, consumer } = pairOf(1024, 4096)
  const sizes: number[] = []
  const note: RingHandler = (_u8, _i32, _start, bytes) => sizes.push(bytes)
  assert.ok(producer.send(new Uint8Array(3000), 0, 3000))
  assert.equal(producer.reserve(8), -1, 'nothing overtakes a queued message')
  assert.ok(producer.send(new Uint8Array(8), 0, 8), 'a small one may queue behind it')
  assert.equal(producer.send(new Uint8Array(3000), 0, 3000), false)
  assert.ok(producer.outboxBytes <= 4096)
  for (let turn = 0; turn < 20; turn++) {
    producer.publish()
    consumer.drain(note, 100)
  }
  assert.deepEqual(sizes, [3000, 8])
  assert.ok(producer.send(new Uint8Array(9000), 0, 9000), 'an empty outbox takes one message above its bound')
  assert.equal(producer.send(new Uint8Array(1), 0, 1), false)
})

// The model: messages in commit order, how many of them are published; every step checks what it can.
type Step =
  | { readonly does: 'reserve' | 'queue' | 'abandon'; readonly bytes: number; readonly unused: number }
  | { readonly does: 'publish' | 'sleep' | 'awake' | 'throw' }
  | { readonly does: 'drain'; readonly framesMax: number }

const stepOf = (frameBytesMax: number): fc.Arbitrary<Step> => {
  const small = fc.oneof(
    fc.integer({ min: 0, max: frameBytesMax }),
    fc.constantFrom(0, frameBytesMax, frameBytesMax - 8),
  )
  const any = fc.oneof(small, fc.integer({ min: 0, max: frameBytesMax * 20 }))
  const unused = fc.integer({ min: 0, max: 9 })
  return fc.oneof(
    { weight: 8, arbitrary: fc.record({ does: fc.constant('reserve' as const), bytes: small, unused }) },
    { weight: 4, arbitrary: fc.record({ does: fc.constant('queue' as const), bytes: any, unused }) },
    { weight: 1, arbitrary: fc.record({ does: fc.constant('abandon' as const), bytes: any, unused }) },
    { weight: 4, arbitrary: fc.constant({ does: 'publish' as const }) },
    { weight: 1, arbitrary: fc.constantFrom({ does: 'sleep' as const }, { does: 'awake' as const }) },
    { weight: 1, arbitrary: fc.constant({ does: 'throw' as const }) },
    {
      weight: 3,
      arbitrary: fc.record({ does: fc.constant('drain' as const), framesMax: fc.integer({ min: 1, max: 9 }) }),
    },
  )
}

const runOf = fc
  .constantFrom(128, 256, 1024)
  .chain((capacityBytes) =>
    fc.tuple(
      fc.constant(capacityBytes),
      fc.constantFrom(0, capacityBytes, capacityBytes * 8),
      fc.array(stepOf(frameBytesMaxOf(capacityBytes)), { maxLength: 200, size: 'max' }),
    ),
  )

test('A ring behaves as a queue for any run of reservations, publications, drains, throws and sleeps', () => {
  fc.assert(
    fc.property(runOf, ([capacityBytes, outboxBytesMax, steps]) => {
      const { producer, consumer } = pairOf(capacityBytes, outboxBytesMax)
      const committed: number[] = []
      let taken = 0
      let mustThrow = false
      let isAsleep = false
      const handler: RingHandler = (u8, i32, start, bytes) => {
        assert.equal(start % 8, 0)
        assert.equal(u8.buffer, i32.buffer)
        assert.equal(bytes, committed[taken])
        assert.ok(isMessage(u8, start, taken, bytes), 'the content is that of the message')
        taken++
        if (mustThrow) {
          mustThrow = false
          throw new RangeError('as asked')
        }
      }
      const drain = (framesMax: number): void => {
        const before = taken
        try {
          assert.equal(consumer.drain(handler, framesMax), taken - before)
        } catch (error) {
          if (!(error instanceof RangeError)) throw error
        }
      }
      const publish = (): void => {
        const mustWake = producer.publish()
        if (mustWake) assert.ok(isAsleep, 'only a sleeper is woken')
        if (mustWake) isAsleep = false
      }
      for (const step of steps) {
        switch (step.does) {
          case 'reserve':
          case 'queue':
          case 'abandon': {
            if (step.bytes > frameBytesMaxOf(capacityBytes) && outboxBytesMax === 0) break
            const start = step.does === 'reserve' ? producer.reserve(step.bytes) : producer.reserveOrQueue(step.bytes)
            if (start < 0) {
              assert.ok(taken < committed.length, 'an empty ring has room')
              break
            }
            if (step.does === 'abandon') break
            const bytes = Math.max(0, step.bytes - step.unused)
            encode(producer, committed.length, bytes)
            producer.commit(bytes)
            committed.push(bytes)
            break
          }
          case 'publish':
            publish()
            break
          case 'sleep':
            isAsleep = consumer.prepareSleep()
            break
          case 'awake':
            consumer.awake()
            isAsleep = false
            break
          case 'throw':
            mustThrow = true
            break
          case 'drain':
            drain(step.framesMax)
            break
        }
        assert.ok(producer.outboxBytes <= Math.max(outboxBytesMax, capacityBytes * 6))
      }
      // From here on each side acts only when its bell rings: nothing may get stuck.
      mustThrow = false
      consumer.awake()
      producer.publish()
      let hasProducerBell = false
      let hasConsumerBell = true
      while (hasProducerBell || hasConsumerBell) {
        if (hasConsumerBell) {
          hasConsumerBell = false
          consumer.awake()
          do {
            drain(5)
            if (consumer.mustWakeProducer()) hasProducerBell = true
          } while (!consumer.prepareSleep())
        } else {
          hasProducerBell = false
          hasConsumerBell = producer.publish()
        }
      }
      assert.equal(taken, committed.length)
      assert.equal(producer.outboxBytes, 0)
      assert.equal(consumer.drain(handler, 100), 0)
    }),
    { numRuns: Math.round(1000 * scale) },
  )
})

test('RingConsumer.drain() reports every kind of corruption and hands nothing of it over', () => {
  const spoil = (soundMessages: number, change: (header: Int32Array, data: Int32Array) => void): void => {
    const { region, producer, consumer } = pairOf(256)
    for (let index = 0; index < 2; index++) {
      producer.reserve(8)
      producer.commit()
    }
    producer.publish()
    change(new Int32Array(region.buffer, 0, 256), new Int32Array(region.buffer, 1024, 64))
    let messages = 0
    for (let turn = 0; turn < 2; turn++) {
      assert.throws(() => consumer.drain(() => messages++, 10), AssertionError, 'and it stays corrupt')
    }
    assert.equal(messages, soundMessages)
  }
  const kind = (number: number, bytes: number): number => (number << 29) | bytes
  /** Writes words of the data: [index, value]. */
  const words =
    (...changes: readonly [number, number][]) =>
    (_header: Int32Array, data: Int32Array): void => {
      for (const [index, value] of changes) data[index] = value
    }
  const writeIndex =
    (value: number) =>
    (header: Int32Array): void => {
      header[32] = value
    }
  spoil(0, writeIndex(-8))
  spoil(0, writeIndex(264))
  spoil(0, writeIndex(33))
  spoil(1, writeIndex(24)) // cuts the second frame
  spoil(2, writeIndex(64)) // shows what was never written
  spoil(0, words([0, kind(0, 32)])) // longer than what was published
  spoil(0, words([0, kind(0, 2 ** 29 - 1)]))
  spoil(0, words([1, 0])) // stamp
  spoil(1, words([5, 0x474e4952]))
  spoil(1, words([4, kind(4, 8)])) // kind
  spoil(1, words([4, kind(7, 8)]))
  spoil(1, words([4, kind(3, 8)])) // piece of nothing
  spoil(1, words([4, kind(2, 4)])) // first piece without its prefix
  spoil(1, words([4, kind(2, 8)], [6, messageBytesMax + 1]))
  spoil(1, words([4, kind(2, 8)], [6, -1]))
  spoil(1, words([4, kind(2, 8)], [6, 0]))
  spoil(0, words([0, kind(2, 8)], [2, 100])) // a whole message inside a large one
  spoil(0, words([0, kind(2, 8)], [2, 100], [4, kind(2, 8)], [6, 100]))
  spoil(0, words([0, kind(2, 8)], [2, 7], [4, kind(3, 8)])) // more than announced
  spoil(0, words([0, kind(2, 8)], [2, 7], [4, kind(3, 0)])) // an empty piece
})

test('A producer that dies between its stores leaves nothing to see', () => {
  const { region, producer, consumer } = pairOf(256)
  producer.reserve(32)
  producer.u8.fill(0xff)
  assert.equal(consumer.drain(nothing, 10), 0)
  producer.reserve(32)
  producer.commit()
  assert.equal(consumer.drain(nothing, 10), 0)
  assert.ok(consumer.prepareSleep())
  declareDead(region, 'producer', 1)
  assert.equal(consumer.drain(nothing, 10), 0)
  assert.equal(consumer.producerDeathEpoch, 1)
})

type AtomicsName = 'load' | 'store' | 'exchange'

/** Runs `body`, and `intruder` once just before its `step`-th atomic access; says whether it came to that. */
function intrude(step: number, body: () => void, intruder: () => void): boolean {
  const names: AtomicsName[] = ['load', 'store', 'exchange']
  const originals = names.map((name) => Atomics[name])
  const restore = (): void => {
    for (const [index, name] of names.entries()) Object.assign(Atomics, { [name]: originals[index] })
  }
  let accesses = 0
  let didIntrude = false
  for (const [index, name] of names.entries()) {
    const original = originals[index] as (...parameters: unknown[]) => unknown
    Object.assign(Atomics, {
      [name]: (...parameters: unknown[]) => {
        if (accesses++ === step) {
          restore()
          didIntrude = true
          intruder()
        }
        return original.apply(Atomics, parameters)
      },
    })
  }
  try {
    body()
  } finally {
    restore()
  }
  return didIntrude
}

test('No wake of the consumer is lost when one side runs between any two atomic accesses of the other', () => {
  let points = 0
  for (const isProducerInside of [true, false]) {
    for (let step = 0; ; step++) {
      const { producer, consumer } = pairOf(256)
      producer.reserve(8)
      producer.commit()
      let mustWake = false
      let isAsleep = false
      const publish = (): void => {
        mustWake = producer.publish()
      }
      const sleep = (): void => {
        isAsleep = consumer.prepareSleep()
      }
      const didIntrude = isProducerInside ? intrude(step, sleep, publish) : intrude(step, publish, sleep)
      if (!didIntrude) break
      points++
      assert.ok(
        !isAsleep || mustWake,
        `asleep beside a message, at access ${step} (producer inside: ${isProducerInside})`,
      )
    }
  }
  assert.ok(points >= 4, `only ${points} points`)
})

test('No wake of the producer is lost when one side runs between any two atomic accesses of the other', () => {
  let points = 0
  for (const isProducerInside of [true, false]) {
    for (let step = 0; step < 60; step++) {
      const { producer, consumer } = pairOf(128)
      const sizes: number[] = []
      const handler: RingHandler = (_u8, _i32, _start, bytes) => sizes.push(bytes)
      while (producer.reserve(24) >= 0) producer.commit()
      producer.publish()
      assert.ok(producer.send(new Uint8Array(2000), 0, 2000))
      let hasProducerBell = false
      let hasConsumerBell = false
      const publish = (): void => {
        hasProducerBell = false
        if (producer.publish()) hasConsumerBell = true
      }
      const drain = (): void => {
        hasConsumerBell = false
        consumer.awake()
        do {
          consumer.drain(handler, 100)
          if (consumer.mustWakeProducer()) hasProducerBell = true
        } while (!consumer.prepareSleep())
      }
      const didIntrude = isProducerInside ? intrude(step, drain, publish) : intrude(step, publish, drain)
      if (!didIntrude) break
      points++
      while (hasProducerBell || hasConsumerBell) {
        if (hasConsumerBell) drain()
        else publish()
      }
      assert.deepEqual(sizes, [24, 24, 24, 24, 2000], `stuck, at access ${step} (producer inside: ${isProducerInside})`)
    }
  }
  assert.ok(points >= 10, `only ${points} points`)
})

test('RingProducer.wantRoom() says that there is room, or a bell comes, whenever the consumer drains', () => {
  let points = 0
  for (let step = 0; ; step++) {
    const { producer, consumer } = pairOf(128)
    while (producer.reserve(24) >= 0) producer.commit()
    producer.publish()
    let hasRoom = false
    let hasBell = false
    const didIntrude = intrude(
      step,
      () => {
        hasRoom = producer.wantRoom()
      },
      () => {
        consumer.drain(nothing, 100)
        hasBell = consumer.mustWakeProducer()
      },
    )
    if (!didIntrude) break
    points++
    assert.ok(hasRoom || hasBell, `neither room nor bell, at access ${step}`)
  }
  assert.ok(points >= 2, `only ${points} points`)
})

test('Small messages allocate nothing', () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const { producer, consumer } = pairOf(1 << 20)
  let sum = 0
  const handler: RingHandler = (_u8, i32, start, bytes) => {
    sum = (sum + i32[start >> 2]! + bytes) | 0
  }
  const run = (messages: number): void => {
    for (let index = 0; index < messages; index++) {
      if (producer.reserve(8 + (index % 13) * 8) < 0) assert.fail('the ring is full')
      producer.i32[producer.start >> 2] = index
      producer.commit()
      if (index % 64 !== 63) continue
      producer.publish()
      consumer.drain(handler, 1000)
      consumer.mustWakeProducer()
    }
  }
  run(200_000)
  collect()
  const before = process.memoryUsage().heapUsed
  run(1_000_000)
  const grownBytes = process.memoryUsage().heapUsed - before
  console.log(`heap growth over 10^6 messages: ${grownBytes} bytes (${sum})`)
  assert.ok(grownBytes < 1_000_000, `${grownBytes} bytes were allocated: one per message or more`)
})
