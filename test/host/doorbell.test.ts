/** The bell of a thread, over real ports on one thread. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { AssertionError } from '../../src/base/assert.ts'
import { threadIdOf } from '../../src/base/ids.ts'
import { createBellPorts, Doorbell } from '../../src/host/doorbell.ts'

const here = threadIdOf(0)
const there = threadIdOf(3)

/** A connected pair, and a promise for the next wake of the second. */
function pairOf(): { ringer: Doorbell; sleeper: Doorbell; nextWake: () => Promise<void> } {
  const [ringerPort, sleeperPort] = createBellPorts()
  const ringer = new Doorbell()
  const sleeper = new Doorbell()
  let resolve: () => void = () => {}
  ringer.onWake(() => {})
  sleeper.onWake(() => resolve())
  ringer.connect(there, ringerPort)
  sleeper.connect(here, sleeperPort)
  const nextWake = (): Promise<void> =>
    new Promise((done) => {
      resolve = done
    })
  return { ringer, sleeper, nextWake }
}

test('Doorbell.ring() calls the wake callback of the other side, and both count', async () => {
  const { ringer, sleeper, nextWake } = pairOf()
  for (let count = 1; count <= 3; count++) {
    ringer.ring(there)
    await nextWake()
    assert.equal(ringer.bellsRung, count)
    assert.equal(sleeper.bellsHeard, count)
  }
  assert.equal(ringer.bellsHeard, 0)
  ringer[Symbol.dispose]()
  sleeper[Symbol.dispose]()
})

test('Doorbell.ring() does nothing for a thread that is not or no longer connected', async () => {
  const { ringer, sleeper } = pairOf()
  ringer.ring(threadIdOf(7))
  ringer.disconnect(there)
  ringer.disconnect(there)
  ringer.ring(there)
  assert.equal(ringer.bellsRung, 0)
  sleeper[Symbol.dispose]()
})

test('Doorbell.connect() replaces the port of an earlier incarnation and closes it', async () => {
  const { ringer, sleeper, nextWake } = pairOf()
  const [oldPort, oldPeer] = createBellPorts()
  sleeper.connect(threadIdOf(1), oldPort)
  const isClosed = once(oldPeer, 'close')
  const [newPort, newPeer] = createBellPorts()
  sleeper.connect(threadIdOf(1), newPort)
  await isClosed
  const woken = nextWake()
  newPeer.postMessage(0)
  await woken
  assert.equal(sleeper.bellsHeard, 1)
  ringer[Symbol.dispose]()
  sleeper[Symbol.dispose]()
})

test('Doorbell takes one callback, before it is connected', () => {
  const bell = new Doorbell()
  const [port, peer] = createBellPorts()
  assert.throws(() => bell.connect(here, port), AssertionError)
  bell.onWake(() => {})
  assert.throws(() => bell.onWake(() => {}), AssertionError)
  port.close()
  peer.close()
})

test('Doorbell.unref() lets a thread end that is still connected; without it the thread stays', async () => {
  const source = `
    import { Doorbell, createBellPorts } from '${new URL('../../src/host/doorbell.ts', import.meta.url).href}'
    import { workerData, parentPort } from 'node:worker_threads'
    const bell = new Doorbell()
    const [port, peer] = createBellPorts()
    bell.onWake(() => {})
    if (workerData === 'before') bell.unref()
    bell.connect(0, port)
    peer.unref()
    if (workerData === 'after') bell.unref()
    if (workerData === 'taken back') { bell.unref(); bell.ref() }
    parentPort.postMessage('connected')
  `
  const run = (when: string): Worker =>
    new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), { workerData: when })
  for (const when of ['before', 'after']) await once(run(when), 'exit')
  for (const when of ['never', 'taken back']) {
    const worker = run(when)
    let hasEnded = false
    worker.once('exit', () => {
      hasEnded = true
    })
    await once(worker, 'message')
    // A thread with nothing to do ends within a few turns of another one that starts and ends meanwhile.
    await once(run('before'), 'exit')
    assert.equal(hasEnded, false, when)
    await worker.terminate()
  }
})
