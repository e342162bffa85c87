/** What env.ts says of the door `Catalog`, as tests that every implementation must pass. */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { AssertionError } from '../../src/base/assert.ts'
import type { SunwiseError } from '../../src/base/errors.ts'
import type { Catalog, CatalogEdit } from '../../src/env.ts'

export type CatalogUnderTest = {
  /** An empty catalog. */
  readonly catalog: Catalog
  /** Ends commits that wait for somebody to end them. */
  readonly settle?: () => void
  /** The process ends at once after the last callback; returns the catalog as the next one finds it. */
  readonly restart: () => Promise<Catalog>
}

export type CatalogMaker = (t: TestContext) => Promise<CatalogUnderTest> | CatalogUnderTest

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text)
const textOf = (bytes: Uint8Array | undefined): string | undefined =>
  bytes === undefined ? undefined : new TextDecoder().decode(bytes)
const put = (key: string, value: string): CatalogEdit => ({ op: 'put', key, value: bytesOf(value) })
const remove = (key: string): CatalogEdit => ({ op: 'delete', key })
const rowsOf = (catalog: Catalog, prefix: string): [string, string][] =>
  catalog.scan(prefix).map(([key, value]) => [key, textOf(value)!])

/** Runs the suite against the catalogs that `makeCatalog` makes; `name` stands before each test's name. */
export function catalogSuite(name: string, makeCatalog: CatalogMaker): void {
  const on = (what: string, run: (under: CatalogUnderTest, t: TestContext) => Promise<void>): void => {
    test(`${name}: ${what}`, async (t) => run(await makeCatalog(t), t))
  }
  const commit = (under: CatalogUnderTest, edits: readonly CatalogEdit[]): Promise<void> =>
    new Promise((resolve, reject) => {
      let calls = 0
      under.catalog.commit(edits, (error: SunwiseError | undefined) => {
        assert.equal(++calls, 1, 'The callback comes once')
        if (error === undefined) setImmediate(resolve)
        else reject(error)
      })
      under.settle?.()
    })

  on('a new catalog is empty', async ({ catalog }) => {
    assert.equal(catalog.get('a'), undefined)
    assert.deepEqual(catalog.scan(''), [])
  })

  on('a committed row can be read when the callback comes', async (under) => {
    await new Promise<void>((resolve) => {
      under.catalog.commit([put('a', '1')], (error) => {
        assert.equal(error, undefined)
        assert.equal(textOf(under.catalog.get('a')), '1')
        assert.deepEqual(rowsOf(under.catalog, ''), [['a', '1']])
        resolve()
      })
      under.settle?.()
    })
  })

  on('a commit applies its edits in their order', async (under) => {
    await commit(under, [put('a', '1'), put('b', '1'), put('c', '1')])
    await commit(under, [
      put('a', '2'),
      remove('b'),
      put('a', '3'),
      put('d', '1'),
      remove('d'),
      remove('c'),
      put('c', '2'),
    ])
    assert.deepEqual(rowsOf(under.catalog, ''), [
      ['a', '3'],
      ['c', '2'],
    ])
  })

  on('commits apply in the order of their calls, without waiting for each other', async (under) => {
    const order: number[] = []
    const all = Array.from(
      { length: 50 },
      (_, index) =>
        new Promise<void>((resolve) => {
          under.catalog.commit(
            [put('last', String(index)), put(`row${index}`, 'x'), remove(`row${index - 1}`)],
            (error) => {
              assert.equal(error, undefined)
              order.push(index)
              resolve()
            },
          )
        }),
    )
    under.settle?.()
    await Promise.all(all)
    assert.deepEqual(
      order,
      order.map((_, index) => index),
    )
    assert.deepEqual(rowsOf(under.catalog, ''), [
      ['last', '49'],
      ['row49', 'x'],
    ])
  })

  on('readers see all edits of a commit or none', async (under) => {
    await commit(under, [put('a', '0'), put('b', '0')])
    let isDone = false
    const done = new Promise<void>((resolve) => {
      under.catalog.commit([put('a', '1'), put('b', '1')], () => {
        isDone = true
        resolve()
      })
    })
    const looks: string[] = []
    const look = (): void => {
      if (isDone) return
      looks.push(
        under.catalog
          .scan('')
          .map(([, value]) => textOf(value))
          .join(''),
      )
      setImmediate(look)
    }
    look()
    under.settle?.()
    await done
    looks.push(
      under.catalog
        .scan('')
        .map(([, value]) => textOf(value))
        .join(''),
    )
    for (const seen of looks) assert.ok(seen === '00' || seen === '11', seen)
    assert.equal(looks.at(-1), '11')
  })

  on('an empty commit and a deletion of nothing succeed', async (under) => {
    await commit(under, [])
    await commit(under, [remove('nothing')])
    assert.deepEqual(under.catalog.scan(''), [])
  })

  on('values are copied on the way in, before commit() returns, and on the way out', async (under) => {
    const value = bytesOf('mine')
    const done = new Promise<void>((resolve) => under.catalog.commit([{ op: 'put', key: 'a', value }], () => resolve()))
    value.fill(0)
    under.settle?.()
    await done
    const read = under.catalog.get('a')!
    assert.equal(textOf(read), 'mine')
    read.fill(0)
    under.catalog.scan('')[0]![1].fill(0)
    assert.equal(textOf(under.catalog.get('a')), 'mine')
    assert.equal(textOf(under.catalog.scan('a')[0]![1]), 'mine')
  })

  on('a value read stays what it was while others are read and written', async (under) => {
    await commit(under, [put('a', 'first'), put('b', 'second')])
    const a = under.catalog.get('a')
    const b = under.catalog.get('b')
    await commit(under, [put('a', 'changed'), remove('b')])
    assert.deepEqual([textOf(a), textOf(b)], ['first', 'second'])
  })

  on('scan() gives the keys with the prefix, in order of their bytes', async (under) => {
    const keys = ['a', 'a/', 'a/10', 'a/9', 'a/B', 'a/b', 'a/b/c', 'a0', 'A/1', 'b', 'a/~', 'a/ ', 'a/%', '!', '~']
    await commit(
      under,
      keys.map((key) => put(key, key)),
    )
    const sorted = [...keys].sort()
    for (const prefix of ['', 'a', 'a/', 'a/b', 'b', 'c', '~', '~~', 'A/1', '!']) {
      const expected = sorted.filter((key) => key.startsWith(prefix)).map((key) => [key, key])
      assert.deepEqual(rowsOf(under.catalog, prefix), expected, `prefix "${prefix}"`)
    }
  })

  on('values may be empty or large, keys up to 500 characters long, commits of many rows', async (under) => {
    const large = new Uint8Array(300_000).map((_, index) => index * 7)
    const longest = 'k'.repeat(500)
    await commit(under, [
      { op: 'put', key: 'large', value: large },
      put('empty', ''),
      put(longest, 'long'),
      ...Array.from({ length: 2000 }, (_, index) => put(`many/${index}`, `${index}`)),
    ])
    assert.deepEqual(under.catalog.get('large'), large)
    assert.deepEqual(under.catalog.get('empty'), new Uint8Array(0))
    assert.equal(textOf(under.catalog.get(longest)), 'long')
    assert.equal(under.catalog.scan('many/').length, 2000)
    await commit(
      under,
      Array.from({ length: 2000 }, (_, index) => remove(`many/${index}`)),
    )
    assert.equal(under.catalog.scan('many/').length, 0)
  })

  on('a key that is not 1 to 500 printable ASCII characters, or begins with #, is a bug', async ({ catalog }) => {
    const isBug = (error: unknown): boolean => error instanceof AssertionError || error instanceof assert.AssertionError
    for (const key of ['', 'k'.repeat(501), 'é', 'a\n', '\0', '#format']) {
      assert.throws(() => catalog.get(key), isBug)
      assert.throws(() => catalog.commit([put('fine', ''), put(key, '')], () => {}), isBug)
      assert.throws(() => catalog.commit([remove(key)], () => {}), isBug)
    }
    assert.equal(catalog.get('fine'), undefined)
  })

  on('what was committed is there after a restart', async (under) => {
    await commit(under, [put('a', '1'), put('b', '2')])
    await commit(under, [remove('a'), put('c', '3')])
    const catalog = await under.restart()
    assert.deepEqual(rowsOf(catalog, ''), [
      ['b', '2'],
      ['c', '3'],
    ])
  })

  on('it is an ordered map: random commits and reads give what a plain map gives', async (under) => {
    const key = fc.constantFrom('a', 'a/1', 'a/2', 'a/10', 'b', 'b/x', 'c')
    const edit = fc.oneof(
      fc.record({ op: fc.constant('put' as const), key, value: fc.uint8Array({ maxLength: 5000 }) }),
      fc.record({ op: fc.constant('delete' as const), key }),
    )
    const model = new Map<string, Uint8Array>()
    await fc.assert(
      fc.asyncProperty(
        fc.array(edit, { maxLength: 6 }),
        fc.constantFrom('', 'a', 'a/', 'b/'),
        async (edits, prefix) => {
          await commit(under, edits)
          for (const change of edits) {
            if (change.op === 'put') model.set(change.key, change.value)
            else model.delete(change.key)
          }
          const expected = [...model].filter(([name]) => name.startsWith(prefix)).sort(([a], [b]) => (a < b ? -1 : 1))
          assert.deepEqual(under.catalog.scan(prefix), expected)
          for (const name of ['a', 'a/10', 'c']) assert.deepEqual(under.catalog.get(name), model.get(name))
        },
      ),
      { numRuns: 40, endOnFailure: true },
    )
  })
}
