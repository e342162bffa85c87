import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import {
  HashTree,
  isLeaf,
  leafOfNode,
  treeArity,
  treeLeaves,
  treeNodes,
  treeWords,
} from '../../src/versions/hash-tree.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
type Entry = { readonly leaf: number; readonly low: number; readonly high: number }
const entryOf = fc.record({
  leaf: fc.nat(treeLeaves - 1),
  low: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
  high: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
})

function treeOf(entries: readonly Entry[]): HashTree {
  const tree = new HashTree()
  for (const { leaf, low, high } of entries) tree.add(leaf, low, high)
  return tree
}

/** Leaves that differ, as two replicas find them, and the lanes that were sent for it. */
function compare(a: HashTree, b: HashTree): { leaves: number[]; lanes: number } {
  let nodes = a.low(0) === b.low(0) && a.high(0) === b.high(0) ? [] : [0]
  let lanes = 2
  while (nodes.length > 0 && !isLeaf(nodes[0]!)) {
    const sent = b.children(nodes)
    lanes += sent.length
    nodes = a.differing(nodes, sent)
  }
  return { leaves: nodes.map(leafOfNode), lanes }
}

test('HashTree: the same entries in any order make the same tree; what is taken out was never there', () => {
  const property = fc.property(fc.array(entryOf), fc.array(entryOf), (kept, passing) => {
    const words = new Int32Array(treeWords)
    const tree = new HashTree(words)
    for (const { leaf, low, high } of [...passing, ...kept]) tree.add(leaf, low, high)
    for (const { leaf, low, high } of passing) tree.remove(leaf, low, high)
    assert.ok(tree.isWhole())
    const other = new Int32Array(treeWords)
    const reversed = new HashTree(other)
    for (const { leaf, low, high } of [...kept].reverse()) reversed.add(leaf, low, high)
    assert.deepEqual(words, other)
  })
  fc.assert(property, { numRuns: Math.ceil(60 * scale) })
})

test('HashTree: a comparison finds exactly the leaves whose entries differ', () => {
  const property = fc.property(fc.array(entryOf), fc.array(entryOf), fc.array(entryOf), (both, left, right) => {
    const a = treeOf([...both, ...left])
    const b = treeOf([...both, ...right])
    const sums = new Map<number, readonly [number, number]>()
    const count = ({ leaf, low, high }: Entry, sign: number): void => {
      const [lowSum, highSum] = sums.get(leaf) ?? [0, 0]
      sums.set(leaf, [(lowSum + sign * low) | 0, (highSum + sign * high) | 0])
    }
    for (const entry of left) count(entry, 1)
    for (const entry of right) count(entry, -1)
    const wanted = [...sums].filter(([, [low, high]]) => low !== 0 || high !== 0).map(([leaf]) => leaf)
    assert.deepEqual(
      compare(a, b).leaves,
      wanted.sort((one, two) => one - two),
    )
  })
  fc.assert(property, { numRuns: Math.ceil(60 * scale) })
})

test('HashTree: the same entry twice is another tree than none', () => {
  const entry = { leaf: 5, low: 7, high: 9 }
  assert.deepEqual(compare(treeOf([entry, entry]), treeOf([])).leaves, [5])
})

test('HashTree: what is sent grows with the difference, not with the data', (t) => {
  const random = new SeededRandom('exchange')
  const draw = (): Entry => ({ leaf: random.below(treeLeaves), low: random.u32() | 0, high: random.u32() | 0 })
  const data = Array.from({ length: 50_000 }, draw)
  const bytes = [0, 1, 10, 100].map((missing) => {
    const { leaves, lanes } = compare(treeOf(data), treeOf(data.slice(missing)))
    assert.ok(leaves.length <= missing && leaves.length >= missing * 0.9)
    return 4 * lanes
  })
  t.diagnostic(`${bytes.join(', ')} bytes for 0, 1, 10 and 100 differing keys`)
  assert.equal(bytes[0], 8)
  assert.ok(bytes[1]! <= 8 + 3 * 8 * treeArity)
  assert.ok(bytes[3]! < 100 * bytes[1]!)
  assert.equal(treeNodes, 4369)
})

test('HashTree: damage of its memory is found', () => {
  const words = new Int32Array(treeWords)
  const tree = new HashTree(words)
  tree.add(4095, 1, 2)
  assert.ok(tree.isWhole())
  words[2 * 300]! ^= 4
  assert.ok(!tree.isWhole())
})

test("HashTree: an empty one has no memory of its own, and the first entry of one is no other tree's", () => {
  const trees = Array.from({ length: 1024 }, () => new HashTree())
  assert.equal(
    trees.reduce((sum, { bytes }) => sum + bytes, 0),
    0,
  )
  trees[0]!.add(7, 1, 2)
  assert.equal(trees[0]!.bytes, 4 * treeWords)
  for (const tree of trees.slice(1)) {
    assert.equal(tree.bytes, 0)
    assert.equal(tree.low(0) | tree.high(0), 0)
  }
  assert.deepEqual(trees[0]!.differing([0], trees[1]!.children([0])).length, 1)
  trees[0]!.remove(7, 1, 2)
  assert.deepEqual(compare(trees[0]!, trees[1]!).leaves, [])
})
