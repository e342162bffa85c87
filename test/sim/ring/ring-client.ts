/** A client of the simulated ring for tests that say each step: every call lets time pass until it is answered. */
import assert from 'node:assert/strict'
import type { SunwiseError } from '../../../src/base/errors.ts'
import type { ChangeOutcome, TopologyChange } from '../../../src/cluster/topology/proposals.ts'
import type {
  Bucket,
  QuorumLevel,
  ReadAnswer,
  ReadOptions,
  WriteAnswer,
  WriteOptions,
} from '../../../src/replication/requests.ts'
import { ActorRegistry } from '../../../src/versions/actor-registry.ts'
import { decodeSet } from '../../../src/versions/set-codec.ts'
import type { RingSim } from './ring-sim.ts'
import type { SimNode } from './sim-node.ts'

const answerMs = 20_000

export class RingClient {
  readonly sim: RingSim

  constructor(sim: RingSim) {
    this.sim = sim
  }

  /** Starts all nodes, and waits until they know each other. */
  start(): this {
    this.sim.start()
    this.sim.pass(500)
    return this
  }

  /** Writes, and fails the test where the write fails. */
  put(at: SimNode, key: string, value: string, options: WriteOptions = {}): WriteAnswer {
    return this.#write(at, (done) =>
      at.act(({ coordinator }) =>
        coordinator.put(this.#bucket, Buffer.from(key), Buffer.from(value), { timeoutMs: 5000, ...options }, done),
      ),
    )
  }

  delete(at: SimNode, key: string, options: WriteOptions = {}): WriteAnswer {
    return this.#write(at, (done) =>
      at.act(({ coordinator }) =>
        coordinator.delete(this.#bucket, Buffer.from(key), { timeoutMs: 5000, ...options }, done),
      ),
    )
  }

  #write(
    at: SimNode,
    begin: (done: (error: SunwiseError | undefined, answer: WriteAnswer | undefined) => void) => void,
  ): WriteAnswer {
    let written: WriteAnswer | undefined
    begin((error, answer) => {
      assert.equal(error, undefined, `A write at ${at.name} failed: ${error?.message}`)
      written = answer
    })
    assert.ok(this.sim.passUntil(() => written !== undefined, answerMs))
    return written!
  }

  get(at: SimNode, key: string, options: ReadOptions = {}): ReadAnswer {
    let found: ReadAnswer | undefined
    at.act(({ coordinator }) =>
      coordinator.get(this.#bucket, Buffer.from(key), { timeoutMs: 5000, ...options }, (error, answer) => {
        assert.equal(error, undefined, `A read of ${key} at ${at.name} failed: ${error?.message}`)
        found = answer
      }),
    )
    assert.ok(this.sim.passUntil(() => found !== undefined, answerMs))
    return found!
  }

  /** The values of a key, sorted. */
  values(at: SimNode, key: string, r: QuorumLevel = 'quorum'): string[] {
    return this.get(at, key, { r })
      .values.map(({ value }) => Buffer.from(value).toString())
      .sort()
  }

  /** What a node itself has of a key: its values, sorted, a deleted one as a cross; undefined: nothing at all. */
  held(at: SimNode, key: string): string | undefined {
    const bytes = this.sim.held(at, key)
    const set = decodeSet(bytes, 0, bytes.length, new ActorRegistry().indexOf)
    assert.ok(typeof set !== 'string')
    if (set.versions.length === 0) return undefined
    const shown = set.versions.map(({ tombstone, value }) => (tombstone ? '†' : Buffer.from(value).toString()))
    return shown.sort().join(' ')
  }

  /** Waits until hints and exchanges have nothing to do any more: each node compared all that it has with all others, twice, and found nothing. */
  settle(limitMs = 300_000): void {
    const { sim } = this
    const up = (): SimNode[] => sim.nodes.filter((node) => node.isUp)
    sim.passUntilNoticed()
    const isSettled = (): boolean => up().every(({ node }) => node.hints.count === 0 && node.repairs.markCount === 0)
    assert.ok(sim.passUntil(isSettled, limitMs), 'Hints and marks come to their ends')
    for (let before = -1; ; ) {
      const repaired = up().reduce((sum, { node }) => sum + node.exchanges.differing, 0)
      if (repaired === before) return
      before = repaired
      const targets = up().map(({ node }) => {
        const pairs = node.repairStatus().length
        return node.exchanges.ended - node.exchanges.partial + 2 * pairs
      })
      const isThrough = (): boolean =>
        up().every(({ node: { exchanges } }, index) => exchanges.ended - exchanges.partial >= targets[index]!)
      assert.ok(sim.passUntil(isThrough, limitMs), 'Replicas converge')
    }
  }

  get #bucket(): Bucket {
    return this.sim.bucket
  }
}

/** Asks one node for a change of the topology; what came of it, later. */
export function askForChange(at: SimNode, apply: TopologyChange): { outcome: ChangeOutcome | undefined } {
  const asked: { outcome: ChangeOutcome | undefined } = { outcome: undefined }
  at.act((node) =>
    node.change(apply, (outcome) => {
      asked.outcome = outcome
    }),
  )
  return asked
}
