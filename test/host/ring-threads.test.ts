/**
 * The ring across real threads, since the simulator cannot see shared memory: content and order under every mix of speeds,
 * deaths in mid-stream, and hunts for lost wakes. A lost wake shows as a test that hangs until its deadline.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createRing, declareDead } from '../../src/base/ring-buffer.ts'
import { RingConsumer } from '../../src/base/ring-consumer.ts'
import { RingProducer } from '../../src/base/ring-producer.ts'
import type { Role, Traffic } from './ring-peer.ts'
import { CheckingConsumer, consume, Draw, defaultTraffic, messageBytesMax, Peer, pause, produce } from './ring-peer.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? '1')
const deadline = { timeout: 60_000 * Math.max(1, scale) }
const MiB = 1 << 20

const runs: readonly { readonly name: string; readonly capacityBytes: number; readonly traffic: Partial<Traffic> }[] = [
  { name: '10^6 messages of random lengths', capacityBytes: MiB, traffic: { messages: 1_000_000 } },
  {
    name: 'a slow consumer, so that the ring is always full',
    capacityBytes: 16 * 1024,
    traffic: { messages: 100_000, consumerPauseMax: 50_000 },
  },
  {
    name: 'a slow producer, so that the consumer sleeps all the time',
    capacityBytes: 16 * 1024,
    traffic: { messages: 20_000, producerPauseMax: 50_000, batchMax: 1 },
  },
  {
    name: 'a ring so small that both sleep all the time',
    capacityBytes: 256,
    traffic: { messages: 50_000, bytesMax: 56, batchMax: 4 },
  },
  {
    name: 'a small ring where most messages travel in pieces',
    capacityBytes: 1024,
    traffic: { messages: 30_000, bytesMax: 1500 },
  },
  {
    name: 'messages of 16 MiB between small ones',
    capacityBytes: MiB,
    traffic: { messages: 20_000, largeEvery: 2500, largeBytes: 16 * MiB },
  },
  {
    name: 'every atomic access delayed at random',
    capacityBytes: 1024,
    traffic: { messages: 50_000, bytesMax: 120, jitterMax: 300, batchMax: 2 },
  },
  {
    name: 'every atomic access delayed at random while messages travel in pieces',
    capacityBytes: 256,
    traffic: { messages: 10_000, bytesMax: 300, jitterMax: 300, consumerPauseMax: 2_000 },
  },
]

for (const { name, capacityBytes, traffic: part } of runs) {
  for (const role of ['produce', 'consume'] as const) {
    test(`Another thread ${role}s: ${name}`, deadline, async () => {
      const traffic: Traffic = { ...defaultTraffic, ...part, seed: role === 'produce' ? 11 : 12 }
      const scaled = { ...traffic, messages: Math.ceil(traffic.messages * scale) }
      const region = createRing(capacityBytes)
      await using peer = new Peer(role, region, scaled)
      const ours = await (role === 'produce' ? consume : produce)(region, peer.bell, scaled)
      const theirs = await peer.summary
      assert.equal(ours.messages, scaled.messages)
      assert.equal(theirs.messages, scaled.messages)
      assert.equal(theirs.bytes, ours.bytes)
      const bells = ours.rung + theirs.rung
      console.log(
        `${name}, other thread ${role}s: ${ours.bytes} bytes, ${(bells / scaled.messages).toFixed(4)} bells a message`,
      )
    })
  }
}

/** Strict alternation over two rings: each side publishes one message and then waits for the other's. */
async function alternate(role: Role, rounds: number, part: Partial<Traffic>): Promise<number> {
  const there = createRing(256)
  const back = createRing(256)
  const traffic = { ...defaultTraffic, ...part, messages: rounds }
  await using peer = new Peer(role, there, traffic, back)
  const producer = new RingProducer(there, { outboxBytesMax: 0, messageBytesMax: 8 })
  const consumer = new RingConsumer(back, { messageBytesMax: 8 })
  const draw = new Draw(5)
  let answered = 0
  const take = (_u8: Uint8Array, i32: Int32Array, start: number): void => {
    assert.equal(i32[start >> 2], answered++)
  }
  for (let round = 0; round < rounds; round++) {
    assert.ok(producer.reserve(8) >= 0)
    producer.i32[producer.start >> 2] = round
    producer.commit()
    if (producer.publish()) peer.bell.ring()
    if (role === 'answer polled') {
      const startMs = performance.now()
      while (consumer.drain(take, 10) === 0) {
        if (performance.now() - startMs > 5_000) assert.fail(`round ${round}: the other thread sleeps beside a message`)
      }
      // Hits the moment in which the other side goes to sleep.
      pause(draw.upTo(traffic.producerPauseMax))
    } else {
      while (consumer.drain(take, 10) === 0) {
        if (consumer.prepareSleep()) await peer.bell.heard()
        consumer.awake()
      }
    }
  }
  assert.equal(answered, rounds)
  return (await peer.summary).heard
}

test('No wake is lost in 10^5 rounds of ping-pong in which both sides sleep', deadline, async () => {
  const rounds = Math.ceil(100_000 * scale)
  const startMs = performance.now()
  const wakes = await alternate('answer', rounds, {})
  console.log(`both asleep: ${(((performance.now() - startMs) * 1000) / rounds).toFixed(1)} us a round, ${wakes} wakes`)
})

test('No wake is lost when messages come just while the consumer falls asleep', deadline, async () => {
  const rounds = Math.ceil(100_000 * scale)
  const wakes = await alternate('answer polled', rounds, { producerPauseMax: 4_000, consumerPauseMax: 6_000 })
  console.log(`falling asleep: ${wakes} wakes in ${rounds} rounds`)
  assert.ok(wakes > 0, 'the consumer did sleep')
})

test('No wake is lost when the accesses of a consumer that falls asleep are delayed', deadline, async () => {
  const rounds = Math.ceil(50_000 * scale)
  const wakes = await alternate('answer polled', rounds, { producerPauseMax: 12_000, jitterMax: 3_000 })
  console.log(`falling asleep slowly: ${wakes} wakes in ${rounds} rounds`)
  assert.ok(wakes > 0, 'the consumer did sleep')
})

test('A producer terminated in mid-stream leaves whole messages only, and a fresh ring goes on', deadline, async () => {
  const draw = new Draw(9)
  let total = 0
  for (let epoch = 1; epoch <= Math.ceil(10 * scale); epoch++) {
    const traffic = {
      ...defaultTraffic,
      seed: epoch,
      messages: 1e9,
      bytesMax: 2000,
      largeEvery: 100,
      largeBytes: 200_000,
    }
    const region = createRing(64 * 1024)
    await using peer = new Peer('produce', region, traffic)
    const end = new CheckingConsumer(region, traffic)
    const enough = 1000 + draw.upTo(5000)
    while (end.messages < enough) {
      end.drain()
      if (end.consumer.mustWakeProducer()) peer.bell.ring()
      if (!end.consumer.prepareSleep()) continue
      await peer.bell.heard()
      end.consumer.awake()
    }
    let isOver = false
    const ended = peer.worker.terminate().finally(() => {
      isOver = true
    })
    // Goes on draining, so that death meets the producer at work and not asleep beside a full ring.
    while (!isOver) {
      end.drain()
      if (end.consumer.mustWakeProducer()) peer.bell.ring()
      await new Promise((resolve) => setImmediate(resolve))
    }
    await ended
    declareDead(region, 'producer', epoch)
    for (let before = -1; before !== end.messages; ) {
      before = end.messages
      for (let turn = 0; turn < 1000; turn++) end.drain()
    }
    assert.equal(end.consumer.producerDeathEpoch, epoch)
    assert.ok(end.consumer.prepareSleep(), 'nothing is left but perhaps a message without its end')
    total += end.messages
  }
  console.log(`terminated producers: ${total} whole messages`)
})

test(
  'A consumer terminated in mid-stream fills the ring of its producer, and a fresh ring goes on',
  deadline,
  async () => {
    for (let epoch = 1; epoch <= Math.ceil(5 * scale); epoch++) {
      const traffic = { ...defaultTraffic, seed: epoch, messages: 1e9 }
      const region = createRing(64 * 1024)
      await using peer = new Peer('consume', region, traffic)
      const producing = produce(region, peer.bell, { ...traffic, messages: 20_000 })
      await producing
      await peer.worker.terminate()
      declareDead(region, 'consumer', epoch)
      const fresh = createRing(64 * 1024)
      await using successor = new Peer('consume', fresh, { ...traffic, messages: 20_000 })
      await produce(fresh, successor.bell, { ...traffic, messages: 20_000 })
      assert.equal((await successor.summary).messages, 20_000)
    }
    const region = createRing(1024)
    declareDead(region, 'consumer', 3)
    const producer = new RingProducer(region, { outboxBytesMax: 1024, messageBytesMax })
    while (producer.reserve(100) >= 0) producer.commit()
    assert.equal(producer.publish(), false)
    assert.equal(producer.consumerDeathEpoch, 3)
    assert.ok(producer.send(new Uint8Array(100), 0, 100))
    while (producer.send(new Uint8Array(100), 0, 100)) assert.ok(producer.outboxBytes <= 1024)
  },
)
