import assert from 'node:assert/strict'
import { test } from 'node:test'
import { faultKinds, RingSim, type RingSimOptions } from './ring-sim.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

function run(options: Partial<RingSimOptions> & { readonly seed: string }): RingSim {
  const sim = new RingSim({ nodes: 3, operations: 400, faults: faultKinds, ...options })
  const result = sim.run()
  assert.deepEqual(result.violations, [], `seed ${options.seed}: npm run sim -- --seed ${options.seed}`)
  return sim
}

test('RingSim: the same seed twice has the same trace, another seed another one', () => {
  const hashOf = (seed: string): string =>
    new RingSim({ seed, nodes: 5, operations: 300, faults: faultKinds }).run().hash
  assert.equal(hashOf('again'), hashOf('again'))
  assert.notEqual(hashOf('again'), hashOf('other'))
})

test('RingSim: without faults every write is acknowledged, and a sequential blind writer makes no siblings', () => {
  const sim = run({ seed: 'calm', faults: [], nodes: 5 })
  const failed = sim.history.writes.filter(({ outcome }) => outcome !== 'acked')
  assert.deepEqual(failed, [])
  const alone = run({ seed: 'alone', faults: [], nodes: 5, clients: 1 })
  const shown = alone.history.reads.map(({ values }) => values.length)
  assert.ok(shown.length > 50)
  assert.ok(Math.max(...shown) <= 1, 'One writer after the other makes no siblings')
})

test('RingSim: under all faults nothing acknowledged is lost, nothing deleted comes back, no quorum read is stale', () => {
  let acked = 0
  for (let seed = 0; seed < 60 * scale; seed++) acked += run({ seed: `all ${seed}`, nodes: 3 + (seed % 5) }).acked
  assert.ok(acked > 60 * 40 * scale, `${acked} writes were acknowledged`)
})

test('RingSim: with sloppy quorums nothing acknowledged is lost', () => {
  for (let seed = 0; seed < 20 * scale; seed++) run({ seed: `sloppy ${seed}`, nodes: 4 + (seed % 4), sloppy: true })
})

test('RingSim: below sync nothing acknowledged is lost when processes are killed', () => {
  const faults = faultKinds.filter((kind) => kind !== 'power')
  for (let seed = 0; seed < 20 * scale; seed++) run({ seed: `os ${seed}`, durability: 'os', faults })
})
