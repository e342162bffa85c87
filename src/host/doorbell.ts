/**
 * The bell of a thread: how a thread that sleeps in its event loop learns that a ring (base/ring-buffer.ts) holds something
 * for it, or has room again. Each pair of threads shares one MessageChannel; a ring of the bell is one constant message
 * through it, and carries no data: the woken thread looks at all of its rings.
 *
 * Rings of the bell are the dear part (the sender pays about 8 us, the receiver wakes 25 us later), so they are counted, and rung only
 * when a ring says so. `Atomics.waitAsync` measured the same within noise in both figures, and it neither keeps the event
 * loop alive nor can be told not to, costs a promise per sleep, and cannot be taken back when a thread ends; hence ports.
 *
 * It does not know the rings, and it does not detect that a peer died: a message to a dead peer goes nowhere.
 */
import { MessageChannel, type MessagePort } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import type { ThreadId } from '../base/ids.ts'

/** The two ends of the bells between two threads; post one of them to its thread (in `transferList`, too). */
export function createBellPorts(): readonly [MessagePort, MessagePort] {
  const channel = new MessageChannel()
  return [channel.port1, channel.port2]
}

/** One per thread. Owns the ports that it was connected with. */
export class Doorbell {
  readonly #ports: (MessagePort | undefined)[] = []
  #onWake: (() => void) | undefined = undefined
  #isReferenced = true
  #bellsRung = 0
  #bellsHeard = 0

  /** Bells that this thread rang: each costs a system call and wakes a thread. */
  get bellsRung(): number {
    return this.#bellsRung
  }

  /** Bells that were heard. Several may stand for one sleep, when several threads ring at once. */
  get bellsHeard(): number {
    return this.#bellsHeard
  }

  /** Sets what is called, on a turn of its own, for each bell heard. One callback per thread; set it before connecting. */
  onWake(callback: () => void): void {
    assert(this.#onWake === undefined, 'A doorbell wakes one callback')
    this.#onWake = callback
  }

  /** Connects with thread `peer` through this side's port; closes the port of an earlier incarnation of it. */
  connect(peer: ThreadId, port: MessagePort): void {
    assert(this.#onWake !== undefined, 'Doorbell.connect() comes after onWake()')
    this.disconnect(peer)
    this.#ports[peer] = port
    port.on('message', this.#hear)
    if (!this.#isReferenced) port.unref()
  }

  /** Forgets thread `peer`; no error if it is not connected. */
  disconnect(peer: ThreadId): void {
    const port = this.#ports[peer]
    if (port === undefined) return
    this.#ports[peer] = undefined
    port.off('message', this.#hear)
    port.close()
  }

  /** Wakes thread `peer`. Does nothing while it is not connected: whoever connects it looks at its rings first. */
  ring(peer: ThreadId): void {
    const port = this.#ports[peer]
    if (port === undefined) return
    this.#bellsRung++
    port.postMessage(0)
  }

  /** Lets the process or thread end although bells may still be heard. */
  unref(): void {
    this.#isReferenced = false
    for (const port of this.#ports) port?.unref()
  }

  /** Takes `unref` back: hearing bells keeps the thread alive, as it does at first. */
  ref(): void {
    this.#isReferenced = true
    for (const port of this.#ports) port?.ref()
  }

  /** Forgets every peer. */
  [Symbol.dispose](): void {
    for (let peer = 0; peer < this.#ports.length; peer++) this.disconnect(peer as ThreadId)
  }

  readonly #hear = (): void => {
    this.#bellsHeard++
    this.#onWake?.()
  }
}
