/** The other end of sunwise-ring.ts: copies every frame out and answers with its first word, as a shard would. */
import { type MessagePort, workerData } from 'node:worker_threads'
import { threadIdOf } from '../../src/base/ids.ts'
import type { RingRegion } from '../../src/base/ring-buffer.ts'
import { RingConsumer } from '../../src/base/ring-consumer.ts'
import { RingProducer } from '../../src/base/ring-producer.ts'
import { Doorbell } from '../../src/host/doorbell.ts'
import { keyBytes, valueBytes } from '../key-set.ts'

type Shared = {
  readonly requests: RingRegion
  readonly replies: RingRegion
  readonly port: MessagePort
  readonly mode: 'awake' | 'asleep'
  readonly stop: Int32Array
}

const { requests, replies, port, mode, stop } = workerData as Shared
const parent = threadIdOf(0)
const frameWords = (keyBytes + valueBytes) / 4
const consumer = new RingConsumer(requests, { messageBytesMax: 1024 })
const producer = new RingProducer(replies, { outboxBytesMax: 1 << 20, messageBytesMax: 1024 })
const bell = new Doorbell()
const out = new Int32Array(frameWords)

const answer = (_u8: Uint8Array, i32: Int32Array, start: number): void => {
  const base = start >> 2
  for (let word = 0; word < frameWords; word++) out[word] = i32[base + word]!
  producer.reserveOrQueue(8)
  producer.i32[producer.start >> 2] = out[0]!
  producer.commit()
}

function turn(): void {
  consumer.drain(answer, 1024)
  if (producer.publish()) bell.ring(parent)
  if (consumer.mustWakeProducer()) bell.ring(parent)
}

/** Works until there is nothing left; the first call may find what was sent while this thread started. */
function work(): void {
  consumer.awake()
  // Awake, one bell starts a stretch of spinning.
  while (mode === 'awake' && Atomics.load(stop, 0) === 0) turn()
  do turn()
  while (!consumer.prepareSleep())
}

bell.onWake(work)
bell.connect(parent, port)
if (mode === 'asleep') work()
