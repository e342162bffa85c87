/** The turns of a serving thread: on while there is work, asleep without, awake by the bell. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createRing } from '../../src/base/ring-buffer.ts'
import { Limits } from '../../src/config.ts'
import { createBellPorts, Doorbell } from '../../src/host/doorbell.ts'
import { ThreadLinks, threadOfShard } from '../../src/host/thread-links.ts'
import { TurnLoop } from '../../src/host/turn-loop.ts'
import { FrameKind } from '../../src/shard/command.ts'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** A worker whose turns are those of a loop, and a front end that is driven by hand. */
class Rig implements Disposable {
  readonly frontBell = new Doorbell()
  readonly workerBell = new Doorbell()
  readonly front: ThreadLinks
  readonly worker: ThreadLinks
  readonly loop: TurnLoop
  commands = 0
  /** Turns that are to say that they worked although no message came. */
  busyTurns = 0
  /** Turns say that what the rings hold must wait for others. */
  isHeldUp = false
  /** Stands for another thread that acts between the draining of a turn and its end. */
  behindDrain: () => void = () => {}

  constructor() {
    this.frontBell.onWake(() => {})
    this.front = new ThreadLinks(1, this.frontBell, () => true)
    this.worker = new ThreadLinks(1, this.workerBell, () => true)
    this.loop = new TurnLoop(this.worker, this.workerBell, () => {
      const messages = this.worker.drain(() => !this.isHeldUp)
      this.behindDrain()
      if (this.busyTurns > 0) this.busyTurns--
      if (this.isHeldUp) return 'heldUp'
      return messages > 0 || this.busyTurns > 0 ? 'worked' : 'idle'
    })
    this.front.handle(
      () => {},
      () => {},
      () => {},
    )
    this.worker.handle(
      () => this.commands++,
      () => {},
      this.loop.schedule,
    )
    const there = createRing(Limits.ringBytes)
    const back = createRing(Limits.ringBytes)
    const [portOfFront, portOfWorker] = createBellPorts()
    this.front.connect({ peer: threadOfShard(0), outgoing: there, incoming: back, port: portOfFront })
    this.worker.connect({ peer: 0, outgoing: back, incoming: there, port: portOfWorker })
  }

  send(): void {
    const target = this.front.begin(0, 16)!
    target.i32[target.start >>> 2] = FrameKind.put
    this.front.commit(0)
    this.front.publish()
  }

  /** Settles when the loop takes no more turns although the event loop goes round. */
  async asleep(): Promise<void> {
    for (let quiet = 0; quiet < 50; ) {
      const before = this.loop.turns
      await turn()
      quiet = this.loop.turns === before ? quiet + 1 : 0
    }
  }

  [Symbol.dispose](): void {
    this.loop.stop()
    this.frontBell[Symbol.dispose]()
    this.workerBell[Symbol.dispose]()
  }
}

test('TurnLoop goes to sleep without work, and a message wakes it', async () => {
  using rig = new Rig()
  rig.loop.schedule()
  await rig.asleep()
  const turns = rig.loop.turns
  assert.ok(turns >= 1)
  rig.send()
  assert.equal(rig.frontBell.bellsRung, 1, 'A sleeping loop must be rung')
  while (rig.commands === 0) await turn()
  assert.ok(rig.loop.turns > turns)
  await rig.asleep()
  rig.send()
  assert.equal(rig.frontBell.bellsRung, 2)
  while (rig.commands === 1) await turn()
})

test('TurnLoop takes turns without a bell while its work says that there is more', async () => {
  using rig = new Rig()
  rig.busyTurns = 100
  rig.loop.schedule()
  rig.loop.schedule()
  while (rig.busyTurns > 0) await turn()
  assert.ok(rig.loop.turns >= 100)
  assert.equal(rig.workerBell.bellsHeard, 0)
  assert.ok(rig.loop.longestTurnMs >= 0)
})

test('TurnLoop loses no message that comes while it goes to sleep', async () => {
  using rig = new Rig()
  rig.loop.schedule()
  for (let sent = 1; sent <= 2000; sent++) {
    rig.send()
    // One to a few turns of the event loop: now before, now behind the moment of going to sleep.
    for (let wait = sent % 5; wait > 0; wait--) await turn()
  }
  await rig.asleep()
  assert.equal(rig.commands, 2000)
})

test('TurnLoop stays awake for a message that came behind the draining of an idle turn', {
  timeout: 60_000,
}, async () => {
  using rig = new Rig()
  rig.behindDrain = () => {
    rig.behindDrain = () => {}
    rig.send()
  }
  rig.loop.schedule()
  await rig.asleep()
  assert.equal(rig.commands, 1)
  assert.equal(rig.frontBell.bellsRung, 0)
})

test('TurnLoop.stop() ends all turns, also of a bell that was rung before', async () => {
  using rig = new Rig()
  rig.loop.schedule()
  await rig.asleep()
  rig.send()
  rig.loop.stop()
  const { turns } = rig.loop
  for (let round = 0; round < 50; round++) await turn()
  rig.loop.schedule()
  await turn()
  assert.equal(rig.loop.turns, turns)
  assert.equal(rig.commands, 0)
})

test('TurnLoop that is held up leaves the processor to others, looks again in a moment, and takes what waited', async () => {
  using rig = new Rig()
  rig.isHeldUp = true
  rig.loop.schedule()
  await turn()
  rig.send()
  const before = rig.loop.turns
  const startMs = performance.now()
  while (performance.now() - startMs < 30) await turn()
  const turns = rig.loop.turns - before
  assert.ok(turns >= 5 && turns <= 40, `${turns} turns in 30 ms`)
  assert.equal(rig.commands, 0)
  rig.isHeldUp = false
  for (let waits = 0; rig.commands === 0; waits++) {
    assert.ok(waits < 1e6, 'What waited is taken')
    await turn()
  }
  await rig.asleep()
  // Whatever schedules a turn need not wait for the moment to pass.
  rig.isHeldUp = true
  rig.loop.schedule()
  await turn()
  const held = rig.loop.turns
  rig.loop.schedule()
  await turn()
  assert.ok(rig.loop.turns > held)
})
