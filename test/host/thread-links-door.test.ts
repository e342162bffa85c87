/** The rings of a thread pass what env.ts says of the door `Shards`. All ends live on this thread; the rings do not mind. */
import type { TestContext } from 'node:test'
import { createRing } from '../../src/base/ring-buffer.ts'
import { Limits } from '../../src/config.ts'
import { createBellPorts, Doorbell } from '../../src/host/doorbell.ts'
import { ThreadLinks, threadOfShard } from '../../src/host/thread-links.ts'
import { type ShardsUnderTest, shardsSuite } from '../conformance/shards-suite.ts'

const shardCount = 3
const always = (): boolean => true

function underTest(t: TestContext): ShardsUnderTest {
  const bells: Doorbell[] = []
  t.after(() => {
    for (const bell of bells) bell[Symbol.dispose]()
  })
  const bellOf = (): Doorbell => {
    const bell = new Doorbell()
    bells.push(bell)
    bell.onWake(() => {})
    return bell
  }
  const front = new ThreadLinks(shardCount, bellOf(), always)
  const lengths = new Map<number, number>()
  let replies: Uint8Array[] = []
  front.handle(
    () => {},
    (u8, i32, start) => replies.push(u8.slice(start, start + lengths.get(i32[(start >>> 2) + 1]!)!)),
    () => {},
  )
  const taken: Uint8Array[][] = []
  const workers: ThreadLinks[] = []
  const bringUp = (shard: number): void => {
    const worker = new ThreadLinks(shardCount, bellOf(), always)
    taken[shard] = []
    worker.handle(
      (_thread, u8, _i32, start, bytes) => taken[shard]!.push(u8.slice(start, start + bytes)),
      () => {},
      () => {},
    )
    const toWorker = createRing(Limits.ringBytes)
    const toFront = createRing(Limits.ringBytes)
    const [portOfFront, portOfWorker] = createBellPorts()
    front.connect({ peer: threadOfShard(shard), outgoing: toWorker, incoming: toFront, port: portOfFront })
    worker.connect({ peer: 0, outgoing: toFront, incoming: toWorker, port: portOfWorker })
    workers[shard] = worker
  }
  for (let shard = 0; shard < shardCount; shard++) bringUp(shard)
  return {
    shards: front,
    take: (shard) => {
      while (workers[shard]!.drain(always) > 0);
      return taken[shard]!.splice(0)
    },
    endTurn: () => front.publish(),
    reply: (shard, frame) => {
      const worker = workers[shard]!
      const target = worker.beginReply(0, frame.length)
      if (target === undefined) return false
      target.u8.set(frame, target.start)
      lengths.set(target.i32[(target.start >>> 2) + 1]!, frame.length)
      worker.commitReply(0)
      worker.publish()
      return true
    },
    takeReplies: () => {
      while (front.drain(always) > 0);
      const all = replies
      replies = []
      return all
    },
    takeDown: (shard) => front.disconnect(threadOfShard(shard)),
    bringUp,
    tooManyBytes: Limits.ringBytes + Limits.ringOutboxBytesMax + 8 * 1024 * 1024,
  }
}

shardsSuite('ThreadLinks', underTest)
