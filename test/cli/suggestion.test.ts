import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { editDistance } from '../../src/base/edit-distance.ts'
import { suggestionFor } from '../../src/cli/suggestion.ts'

test('editDistance() counts insertions, removals, replacements and swaps of neighbours', () => {
  const distances: [string, string, number][] = [
    ['', '', 0],
    ['', 'abc', 3],
    ['abc', 'abc', 0],
    ['durabilty', 'durability', 1],
    ['shrads', 'shards', 1],
    ['kitten', 'sitting', 3],
  ]
  for (const [a, b, distance] of distances) assert.equal(editDistance(a, b), distance, `${a} ${b}`)
})

test('editDistance() is symmetric and zero only for equals', () => {
  const word = fc.string({ maxLength: 8 })
  fc.assert(
    fc.property(word, word, (a, b) => {
      assert.equal(editDistance(a, b), editDistance(b, a))
      assert.equal(editDistance(a, b) === 0, a === b)
    }),
  )
})

test('suggestionFor() names the closest known name, or nothing', () => {
  const known = ['memory', 'durability', 'http']
  assert.equal(suggestionFor('memroy', known), ' (did you mean memory?)')
  assert.equal(suggestionFor('Durabilty', known), ' (did you mean durability?)')
  assert.equal(suggestionFor('xyz', known), '')
  assert.equal(suggestionFor('', known), '')
  assert.equal(suggestionFor('m'.repeat(1_000_000), known), '')
})
