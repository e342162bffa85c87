import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { catalogSuite } from '../conformance/catalog-suite.ts'
import { SimCatalog } from './sim-catalog.ts'

for (const completions of ['immediate', 'queued'] as const) {
  catalogSuite(`SimCatalog, ${completions}`, () => {
    const catalog = new SimCatalog({ completions })
    return {
      catalog,
      settle: () => catalog.drain(),
      restart: async () => {
        catalog.crash(new SeededRandom(1))
        return catalog
      },
    }
  })
}

const put = (key: string, value: number) => ({ op: 'put', key, value: new Uint8Array([value]) }) as const
const ignore = (): void => {}
const rowsOf = (catalog: SimCatalog): string =>
  catalog
    .scan('')
    .map(([key, value]) => `${key}${value[0]}`)
    .join(' ')

test('SimCatalog: a crash keeps whole commits, the earlier before the later, and all that are done', () => {
  const seen = new Set<string>()
  for (let seed = 0; seed < 100; seed++) {
    const catalog = new SimCatalog({ completions: 'queued' })
    catalog.commit([put('a', 0)], ignore)
    catalog.drain()
    for (const value of [1, 2, 3]) catalog.commit([put('a', value), put('b', value)], () => assert.fail('never done'))
    assert.equal(catalog.pending, 3)
    catalog.crash(new SeededRandom(seed))
    catalog.drain()
    seen.add(rowsOf(catalog))
  }
  assert.deepEqual([...seen].sort(), ['a0', 'a1 b1', 'a2 b2', 'a3 b3'])
})

test('SimCatalog: a commit under way may be seen early or late, never partly', () => {
  const seen = new Set<string>()
  for (let seed = 0; seed < 50; seed++) {
    const catalog = new SimCatalog({ completions: 'queued', random: new SeededRandom(seed) })
    catalog.commit([put('a', 1), put('b', 1)], ignore)
    catalog.commit([put('a', 2), put('b', 2)], ignore)
    seen.add(rowsOf(catalog))
    catalog.step()
    assert.match(rowsOf(catalog), /^a([12]) b\1$/)
  }
  assert.deepEqual([...seen].sort(), ['', 'a1 b1', 'a2 b2'])
})

test('SimCatalog.fail(): DISK_FULL changes nothing and passes; DISK_FAILED leaves all or nothing and stays', () => {
  const left = new Set<string>()
  for (let seed = 0; seed < 50; seed++) {
    const catalog = new SimCatalog({ random: new SeededRandom(seed) })
    const errors: (SunwiseError | undefined)[] = []
    const note = (error: SunwiseError | undefined): void => void errors.push(error)
    catalog.fail({ nth: 2, error: 'ENOSPC' })
    catalog.fail({ nth: 4, error: 'EIO' })
    for (const value of [1, 2, 3, 4, 5]) catalog.commit([put('a', value), put('b', value)], note)
    assert.deepEqual(
      errors.map((error) => error?.code),
      [undefined, 'DISK_FULL', undefined, 'DISK_FAILED', 'DISK_FAILED'],
    )
    left.add(rowsOf(catalog))
    catalog.crash(new SeededRandom(seed))
    // A new process may write again.
    catalog.commit([put('a', 9)], (error) => assert.equal(error, undefined))
    assert.equal(catalog.get('a')?.[0], 9)
  }
  assert.deepEqual([...left].sort(), ['a3 b3', 'a4 b4'])
})

test('SimCatalog.fail() can fail for ever', () => {
  const catalog = new SimCatalog()
  catalog.fail({ times: Number.POSITIVE_INFINITY, error: 'ENOSPC' })
  for (let round = 0; round < 5; round++)
    catalog.commit([put('a', 1)], (error) => assert.equal(error?.code, 'DISK_FULL'))
  assert.equal(catalog.get('a'), undefined)
  assert.equal(catalog.commits, 5)
})

test('SimCatalog refuses commits beyond its limit, as the real one', () => {
  const catalog = new SimCatalog({ completions: 'queued' })
  let refused = 0
  for (let round = 0; round < 1030; round++)
    catalog.commit([put('a', 1)], (error) => (error?.code === 'OVERLOADED' ? refused++ : 0))
  assert.equal(refused, 6)
})

test('SimCatalog: a snapshot is a copy of what is durable, and can be put back', () => {
  const catalog = new SimCatalog({ completions: 'queued' })
  catalog.commit([put('a', 1)], ignore)
  catalog.drain()
  catalog.commit([put('a', 2)], ignore)
  const image = catalog.snapshot()
  catalog.drain()
  assert.equal(rowsOf(catalog), 'a2')
  catalog.restore(image)
  assert.equal(rowsOf(catalog), 'a1')
  catalog.commit([put('a', 3)], ignore)
  catalog.drain()
  catalog.restore(image)
  assert.equal(rowsOf(catalog), 'a1')
})

test('SimCatalog: the same seed gives the same run', () => {
  const run = (seed: number): string => {
    const random = new SeededRandom(seed)
    const catalog = new SimCatalog({ random: random.fork('catalog'), completions: 'queued' })
    const trace: string[] = []
    for (let round = 0; round < 60; round++) {
      const choice = random.below(10)
      if (choice < 6) catalog.commit([put(`k${random.below(4)}`, round)], (error) => trace.push(error?.code ?? 'done'))
      else if (choice < 8) catalog.step()
      else if (choice < 9) catalog.fail({ error: random.pick(['EIO', 'ENOSPC'] as const) })
      else catalog.crash(random)
      trace.push(rowsOf(catalog))
    }
    return trace.join('|')
  }
  fc.assert(
    fc.property(fc.integer(), (seed) => assert.equal(run(seed), run(seed))),
    { numRuns: 20 },
  )
  assert.notEqual(run(1), run(2))
})
