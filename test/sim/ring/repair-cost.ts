/**
 * What repair costs: two replicas of ten thousand keys in sixteen partitions, of which some differ, and the bytes that go between them until they
 * are equal. `node test/sim/ring/repair-cost.ts` prints a table.
 */
import assert from 'node:assert/strict'
import { partitionOfKey } from '../../../src/cluster/slots.ts'
import { encodeSet } from '../../../src/versions/set-codec.ts'
import type { ActorTable } from '../../../src/versions/version-set.ts'
import { RingSim } from './ring-sim.ts'
import type { SimNode } from './sim-node.ts'

export type RepairCost = {
  readonly differing: number
  /** Of one round of exchanges in which nothing differs: every partition, from both sides. */
  readonly idleBytes: number
  /** Of a round that brings all together, without what it would cost in any case. */
  readonly repairBytes: number
  readonly bytesPerKey: number
  readonly keysRepaired: number
  readonly simulatedMs: number
}

const keyCount = 10_000
const tags = 16
const valueBytes = 24
/** Merges under way at a time. */
const batch = 1000
const roundMsMax = 600_000

export class RepairCostRig {
  readonly #sim: RingSim
  readonly #keys = Array.from({ length: keyCount }, (_, index) => Buffer.from(`{tag${index % tags}}key${index}`))
  /** By partition and actor, the last counter. */
  readonly #counters = new Map<string, number>()
  #actors = 1

  constructor() {
    this.#sim = new RingSim({
      seed: 'repair cost',
      nodes: 2,
      operations: 0,
      faults: [],
      keys: ['key'],
      exchangeRestMs: 20,
      isSteady: true,
    })
    this.#sim.start()
    this.#sim.pass(500)
    const [first, second] = this.#sim.nodes
    this.#write([first!, second!], this.#keys)
    this.#round()
  }

  /** So many keys are written on one side only; then both compare until they are equal. */
  measure(differing: number): RepairCost {
    const idleBytes = this.#round()
    const [first, second] = this.#sim.nodes
    const step = Math.floor(keyCount / differing)
    const keys = Array.from({ length: differing }, (_, index) => this.#keys[index * step]!)
    const before = this.#sum(({ keysRepaired }) => keysRepaired)
    const beganMs = this.#sim.events.nowMs
    this.#write([first!], keys)
    const bytes = this.#round()
    const simulatedMs = Math.round(this.#sim.events.nowMs - beganMs)
    for (const key of keys) {
      const text = key.toString()
      assert.deepEqual(this.#sim.held(second!, text), this.#sim.held(first!, text), text)
    }
    const keysRepaired = this.#sum(({ keysRepaired }) => keysRepaired) - before
    const repairBytes = bytes - idleBytes
    return { differing, idleBytes, repairBytes, bytesPerKey: repairBytes / differing, keysRepaired, simulatedMs }
  }

  /** Takes in a new version of each key on these nodes. */
  #write(nodes: readonly SimNode[], keys: readonly Buffer[]): void {
    const actor = this.#actors++
    const table: ActorTable = { lowOf: () => actor, highOf: () => 77 }
    for (let start = 0; start < keys.length; start += batch) {
      let left = 0
      for (const key of keys.slice(start, start + batch)) {
        const name = `${partitionOfKey(key)} ${actor}`
        const counter = (this.#counters.get(name) ?? 0) + 1
        this.#counters.set(name, counter)
        const version = {
          actor: 0,
          counter,
          tombstone: false,
          expiresAtMs: 0,
          timestamp: 0,
          contentType: 'application/octet-stream',
          value: Buffer.alloc(valueBytes, actor),
        }
        const set = encodeSet({ versions: [version], vector: [{ actor: 0, counter }] }, table)
        for (const node of nodes) {
          left++
          node.act(({ replica }) =>
            replica.merge(1, key, set, false, 'os', 60_000, (error) => {
              assert.equal(error, undefined)
              left--
            }),
          )
        }
      }
      assert.ok(this.#sim.passUntil(() => left === 0, roundMsMax))
    }
  }

  /** Lets both nodes compare all of it, and again where something was left; the bytes that went. */
  #round(): number {
    const bytesBefore = this.#sum(({ bytesSent, bytesReceived }) => bytesSent + bytesReceived)
    const nowMs = this.#sim.nodes[0]!.clock.epochMs()
    const isThrough = (): boolean =>
      this.#sim.nodes.every(({ node }) => {
        const statuses = node.repairStatus()
        return statuses.length >= tags && statuses.every(({ equalAsOfMs = 0 }) => equalAsOfMs > nowMs)
      })
    assert.ok(this.#sim.passUntil(isThrough, roundMsMax), 'The replicas become equal')
    return this.#sum(({ bytesSent, bytesReceived }) => bytesSent + bytesReceived) - bytesBefore
  }

  #sum(of: (exchanges: SimNode['node']['exchanges']) => number): number {
    return this.#sim.nodes.reduce((sum, { node }) => sum + of(node.exchanges), 0)
  }
}

if (import.meta.main) {
  const rig = new RepairCostRig()
  console.log(`${keyCount} keys, values of ${valueBytes} bytes, ${tags} partitions, 2 replicas`)
  console.log('differing   bytes of a round without   bytes to repair   per key   milliseconds')
  for (const differing of [1, 10, 100, 1000]) {
    const { idleBytes, repairBytes, bytesPerKey, simulatedMs } = rig.measure(differing)
    const row = [String(differing).padStart(9), String(idleBytes).padStart(26), String(repairBytes).padStart(17)]
    console.log([...row, bytesPerKey.toFixed(0).padStart(9), String(simulatedMs).padStart(14)].join(' '))
  }
}
