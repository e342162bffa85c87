/** Members come and go under load and faults: the ring's nodes agree, data moves, and no promise is broken meanwhile. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { changeKinds, faultKinds, RingSim, type RingSimOptions } from './ring-sim.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const moveMs = 600_000

function start(seed: string, options: Partial<RingSimOptions>): RingSim {
  return new RingSim({ seed, nodes: 3, operations: 0, faults: [], ...options })
}

test('RingSim: members come and go under all faults, and nothing acknowledged is lost, nothing deleted comes back', () => {
  let epochs = 0
  for (let seed = 0; seed < scale; seed++) {
    const sim = new RingSim({
      seed: `members ${seed}`,
      nodes: 6,
      members: 4,
      operations: 600,
      faults: [...faultKinds, ...changeKinds, ...changeKinds, ...changeKinds, ...changeKinds],
      changesMax: 4,
    })
    assert.deepEqual(sim.run().violations, [], `seed members ${seed}`)
    epochs += sim.topology.epoch
    sim.dispose()
  }
  assert.ok(epochs > 20 * scale, `${epochs} epochs`)
})

test('RingSim: 1, 2, 3, 2, 1 members, with a node that crashes at every step', () => {
  for (let seed = 0; seed < scale; seed++) {
    const sim = start(`grow ${seed}`, { members: 1 })
    sim.start()
    sim.pass(1000)
    const written = new Map<string, string>()
    let step = 0
    const write = (): void => {
      let left = 0
      for (let index = 0; index < 12; index++) {
        const key = `{tag${index % 4}}key${index}`
        const value = `${step} ${index}`
        const at = sim.random.pick(sim.nodes.filter((node) => node.isUp && node.node.topology !== undefined))
        left++
        at.act(({ coordinator }) =>
          coordinator.put(sim.bucket, Buffer.from(key), Buffer.from(value), { timeoutMs: 5000 }, (error) => {
            left--
            if (error === undefined) written.set(key, value)
            else assert.fail(`${key} at ${at.name}: ${error.message}`)
          }),
        )
      }
      assert.ok(sim.passUntil(() => left === 0, 10_000))
    }
    write()
    for (const change of [() => sim.join('n1'), () => sim.join('n2'), () => sim.leave('n0'), () => sim.leave('n1')]) {
      step++
      const epoch = sim.topology.epoch
      change()
      assert.ok(
        sim.passUntil(() => sim.topology.epoch > epoch, 30_000),
        `change ${step} begins`,
      )
      // Somebody crashes at every epoch of it.
      for (let last = sim.topology.epoch; !sim.isAtRest; last = sim.topology.epoch) {
        assert.ok(
          sim.passUntil(() => sim.isAtRest || sim.topology.epoch > last, moveMs),
          `change ${step} goes on: ${sim.explain()}`,
        )
        const node = sim.random.pick(sim.nodes)
        if (!node.isUp || sim.random.chance(1, 2)) continue
        node.kill()
        sim.pass(sim.random.below(300))
        node.start()
      }
      sim.pass(20_000)
      write()
    }
    assert.deepEqual(sim.memberNames, ['n2'])
    let read = 0
    for (const [key, value] of written) {
      sim.nodes[2]!.act(({ coordinator }) =>
        coordinator.get(sim.bucket, Buffer.from(key), {}, (error, answer) => {
          assert.equal(error, undefined)
          assert.deepEqual(
            answer!.values.map((version) => Buffer.from(version.value).toString()),
            [value],
          )
          read++
        }),
      )
    }
    assert.ok(sim.passUntil(() => read === written.size, 5000))
  }
})
