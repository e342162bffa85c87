/** The rings of a thread to its peers: frames, replies, bells, limits. Both ends live on this thread; the rings do not mind. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createRing } from '../../src/base/ring-buffer.ts'
import { Limits } from '../../src/config.ts'
import { createBellPorts, Doorbell } from '../../src/host/doorbell.ts'
import { type Link, ThreadLinks, threadOfShard } from '../../src/host/thread-links.ts'
import { FrameKind } from '../../src/shard/command.ts'

type Received = { readonly from: number; readonly kind: number; readonly payload: number }

class End implements Disposable {
  readonly bell = new Doorbell()
  readonly links: ThreadLinks
  readonly commands: Received[] = []
  readonly replies: Received[] = []
  sends = 0
  heard = 0
  isShardUp = true

  constructor(shards = 1) {
    this.bell.onWake(() => this.heard++)
    this.links = new ThreadLinks(shards, this.bell, () => this.isShardUp)
    this.links.handle(
      (from, u8, i32, start) => this.commands.push({ from, kind: u8[start]!, payload: i32[(start >>> 2) + 1]! }),
      (u8, i32, start) => this.replies.push({ from: -1, kind: u8[start]!, payload: i32[(start >>> 2) + 1]! }),
      () => this.sends++,
    )
  }

  [Symbol.dispose](): void {
    this.bell[Symbol.dispose]()
  }
}

/** A front end (thread 0) and the worker of shard 0 (thread 1). */
function connectedPair(): { readonly front: End; readonly worker: End } & Disposable {
  const front = new End()
  const worker = new End()
  connect(front, worker)
  return {
    front,
    worker,
    [Symbol.dispose]: () => {
      front[Symbol.dispose]()
      worker[Symbol.dispose]()
    },
  }
}

function connect(front: End, worker: End): void {
  const toWorker = createRing(Limits.ringBytes)
  const toFront = createRing(Limits.ringBytes)
  const [portOfFront, portOfWorker] = createBellPorts()
  front.links.connect({ peer: threadOfShard(0), outgoing: toWorker, incoming: toFront, port: portOfFront })
  worker.links.connect({ peer: 0, outgoing: toFront, incoming: toWorker, port: portOfWorker })
}

function send(end: End, payload: number, bytes = 16): boolean {
  const target = end.links.begin(0, bytes)
  if (target === undefined) return false
  target.i32[target.start >>> 2] = FrameKind.put
  target.i32[(target.start >>> 2) + 1] = payload
  end.links.commit(0)
  return true
}

function reply(end: End, thread: number, payload: number): boolean {
  const target = end.links.beginReply(thread, 16)
  if (target === undefined) return false
  target.i32[target.start >>> 2] = FrameKind.writeReply
  target.i32[(target.start >>> 2) + 1] = payload
  end.links.commitReply(thread)
  return true
}

const always = (): boolean => true
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** One more thread, numbered `thread`, with rings to and from `worker`. */
function connectFurther(worker: End, thread: number): End {
  const end = new End()
  const toWorker = createRing(Limits.ringBytes)
  const fromWorker = createRing(Limits.ringBytes)
  const [portOfEnd, portOfWorker] = createBellPorts()
  end.links.connect({ peer: threadOfShard(0), outgoing: toWorker, incoming: fromWorker, port: portOfEnd })
  worker.links.connect({ peer: thread, outgoing: fromWorker, incoming: toWorker, port: portOfWorker })
  return end
}

test('ThreadLinks carries commands to a shard and replies back, in order', () => {
  using pair = connectedPair()
  const { front, worker } = pair
  for (let payload = 0; payload < 100; payload++) assert.ok(send(front, payload))
  front.links.publish()
  assert.equal(worker.links.drain(always), 100)
  assert.deepEqual(
    worker.commands,
    Array.from({ length: 100 }, (_, payload) => ({ from: 0, kind: FrameKind.put, payload })),
  )
  for (const { from, payload } of worker.commands) assert.ok(reply(worker, from, payload + 1000))
  worker.links.publish()
  assert.equal(front.links.drain(always), 100)
  assert.deepEqual(
    front.replies.map(({ payload }) => payload),
    Array.from({ length: 100 }, (_, payload) => payload + 1000),
  )
  assert.equal(front.commands.length, 0)
})

test('ThreadLinks shows messages at publish(), and sixteen at a time before, so that both threads work at once', () => {
  using pair = connectedPair()
  const { front, worker } = pair
  for (let payload = 0; payload < 15; payload++) send(front, payload)
  assert.equal(worker.links.drain(always), 0)
  send(front, 15)
  assert.equal(worker.links.drain(always), 16)
  for (let payload = 0; payload < 40; payload++) send(front, payload)
  assert.equal(worker.links.drain(always), 32)
  front.links.publish()
  assert.equal(worker.links.drain(always), 8)
  for (const { payload } of worker.commands.slice(0, 17)) reply(worker, 0, payload)
  assert.equal(front.links.drain(always), 16)
  worker.links.publish()
  assert.equal(front.links.drain(always), 1)
})

test('ThreadLinks wakes a sleeper for the first messages that it shows', () => {
  using pair = connectedPair()
  const { front, worker } = pair
  assert.ok(worker.links.prepareSleep())
  for (let payload = 0; payload < 15; payload++) send(front, payload)
  assert.equal(front.bell.bellsRung, 0)
  send(front, 15)
  assert.equal(front.bell.bellsRung, 1)
  for (let payload = 0; payload < 40; payload++) send(front, payload)
  assert.equal(front.bell.bellsRung, 1, 'Once is enough')
})

test('ThreadLinks tells once per publish that something waits to be published', () => {
  using pair = connectedPair()
  const { front } = pair
  send(front, 1)
  send(front, 2)
  assert.equal(front.sends, 1)
  front.links.publish()
  send(front, 3)
  assert.equal(front.sends, 2)
})

test('ThreadLinks carries the frames of a thread to itself', () => {
  using end = new End()
  const ring = createRing(Limits.ringBytes)
  const link: Link = { peer: threadOfShard(0), outgoing: ring, incoming: ring, port: undefined }
  end.links.connect(link)
  assert.ok(send(end, 7))
  end.links.publish()
  assert.equal(end.links.drain(always), 1)
  assert.deepEqual(end.commands, [{ from: 1, kind: FrameKind.put, payload: 7 }])
  assert.ok(reply(end, 1, 8))
  end.links.publish()
  assert.equal(end.links.drain(always), 1)
  assert.equal(end.replies[0]!.payload, 8)
})

test('ThreadLinks rings the bell of a sleeping peer, and of no other', async () => {
  using pair = connectedPair()
  const { front, worker } = pair
  send(front, 1)
  front.links.publish()
  await turn()
  assert.equal(front.bell.bellsRung, 0)
  assert.equal(worker.links.prepareSleep(), false, 'What came before it slept is not slept over')
  worker.links.drain(always)
  assert.equal(worker.links.prepareSleep(), true)
  send(front, 2)
  send(front, 3)
  assert.equal(front.bell.bellsRung, 0)
  front.links.publish()
  assert.equal(front.bell.bellsRung, 1)
  while (worker.heard === 0) await turn()
  worker.links.awake()
  assert.equal(worker.links.drain(always), 2)
  send(front, 4)
  front.links.publish()
  assert.equal(front.bell.bellsRung, 1)
})

test('ThreadLinks.drain() stops between rings when it may not continue', () => {
  using pair = connectedPair()
  const { front, worker } = pair
  send(front, 1)
  front.links.publish()
  assert.equal(
    worker.links.drain(() => false),
    0,
  )
  assert.equal(worker.links.drain(always), 1)
})

test('ThreadLinks refuses a frame when ring and outbox are full, and takes it once there is room', () => {
  using pair = connectedPair()
  const { front, worker } = pair
  const bytes = 1024 * 1024
  let sent = 0
  while (send(front, sent, bytes)) {
    sent++
    assert.ok(sent < 100, 'The outbox has no end')
  }
  assert.ok(sent * bytes <= Limits.ringBytes + Limits.ringOutboxBytesMax + 2 * bytes)
  assert.ok(sent * bytes >= Limits.ringOutboxBytesMax - 2 * bytes)
  let received = 0
  for (let rounds = 0; received < sent; rounds++) {
    front.links.publish()
    received += worker.links.drain(always)
    assert.ok(rounds < 10_000, `Only ${received} of ${sent} came through`)
  }
  assert.deepEqual(
    worker.commands.map(({ payload }) => payload),
    Array.from({ length: sent }, (_, index) => index),
  )
  assert.ok(send(front, 0, bytes))
})

test('ThreadLinks.begin() and isUp() know a shard that is down or not connected', () => {
  using pair = connectedPair()
  const { front, worker } = pair
  assert.equal(front.links.isUp(0), true)
  front.isShardUp = false
  assert.equal(front.links.isUp(0), false)
  front.isShardUp = true
  front.links.disconnect(threadOfShard(0))
  front.links.disconnect(threadOfShard(0))
  assert.equal(front.links.isUp(0), false)
  assert.equal(send(front, 1), false)
  assert.equal(worker.links.droppedReplies, 0)
  worker.links.disconnect(0)
  assert.equal(reply(worker, 0, 1), false)
  assert.equal(worker.links.droppedReplies, 1)
})

test('ThreadLinks.connect() to a new incarnation of a peer forgets what was meant for the old one', () => {
  using pair = connectedPair()
  const { front, worker } = pair
  send(front, 1)
  front.links.publish()
  using second = new End()
  connect(front, second)
  send(front, 2)
  front.links.publish()
  assert.equal(second.links.drain(always), 1)
  assert.deepEqual(
    second.commands.map(({ payload }) => payload),
    [2],
  )
  assert.equal(worker.links.drain(always), 1)
})

test('ThreadLinks ends a drain when its time is over, and begins the next one with another ring', () => {
  using pair = connectedPair()
  const { front, worker } = pair
  using further = connectFurther(worker, 7)
  for (const end of [front, further]) {
    for (let payload = 0; payload < 150; payload++) assert.ok(send(end, payload))
    end.links.publish()
  }
  const seen: number[] = []
  for (let drains = 0; drains < 6; drains++) {
    const before = worker.commands.length
    const taken = worker.links.drain(always, 0)
    const portion = worker.commands.slice(before)
    assert.equal(portion.length, taken)
    assert.equal(new Set(portion.map(({ from }) => from)).size, 1)
    assert.ok(taken > 0 && taken < 100, `One portion, not ${taken}`)
    seen.push(portion[0]!.from)
  }
  assert.deepEqual(seen.slice(0, 2).sort(), [0, 7])
  assert.equal(worker.commands.length, 300)
  for (const from of [0, 7]) {
    const payloads = worker.commands.filter((command) => command.from === from).map(({ payload }) => payload)
    assert.deepEqual(
      payloads,
      Array.from({ length: 150 }, (_, payload) => payload),
    )
  }
})
