/**
 * What a replica has of a partition, in 34 KiB: a tree of 4096 leaves over the hashes of (key, dots) of all its keys. Two replicas compare
 * roots, then what is below nodes that differ, and so find the leaves that differ with bytes in proportion to their number.
 *
 * Hashes are added, lane by lane modulo 2^32, not chained: whoever writes a key takes its old hash out of the leaf and puts the new one
 * in, without looking at the leaf's other keys, and a node is the sum of its children. (Sums, not XOR: the same hash twice must
 * show. Riak's TicTac trees do the like with XOR of 4 bytes; Cassandra builds chained trees by reading all data.) Two lanes of 32 bits:
 * of random differences one in 2^64 goes unseen.
 *
 *   node 0        root                 children of node n: 16 n + 1 to 16 n + 16
 *   node 1        first of 16
 *   node 17       first of 256
 *   node 273      first of 4096 leaves
 *
 *   words of the memory: low and high lane of node 0, of node 1, and so on
 *
 * A tree to which nothing was added has no memory of its own: it reads from zeros that all empty ones share. So a node that takes part in
 * a thousand partitions, of which few hold something, pays for those few.
 *
 * Invariant: each inner node is the sum of its children. The memory may be shared; one writer. It does not know keys, and does not say
 * which side of a difference is newer.
 */
import { assert } from '../base/assert.ts'

export const treeArity = 16
export const treeLeaves = 4096
export const treeNodes = 1 + 16 + 256 + treeLeaves
/** Words of a tree's memory. */
export const treeWords = 2 * treeNodes
const firstLeaf = treeNodes - treeLeaves
/** What an empty tree holds; never written. */
const zeros = new Int32Array(treeWords)

export class HashTree {
  #words: Int32Array

  /** Over memory of `treeWords` words, zeros for an empty tree; without, the tree takes its own with the first that is added. */
  constructor(words: Int32Array = zeros) {
    assert(words.length === treeWords, 'A tree has its memory')
    this.#words = words
  }

  /** Bytes that are this tree's alone. */
  get bytes(): number {
    return this.#words === zeros ? 0 : this.#words.byteLength
  }

  /** Puts the hash of a key's dots into its leaf. */
  add(leaf: number, low: number, high: number): void {
    if (this.#words === zeros) this.#words = new Int32Array(treeWords)
    for (let node = firstLeaf + leaf; ; node = (node - 1) >>> 4) {
      this.#words[2 * node] = (this.#words[2 * node]! + low) | 0
      this.#words[2 * node + 1] = (this.#words[2 * node + 1]! + high) | 0
      if (node === 0) return
    }
  }

  /** Takes out a hash that was put in. */
  remove(leaf: number, low: number, high: number): void {
    this.add(leaf, -low | 0, -high | 0)
  }

  /** Lanes of a node. */
  low(node: number): number {
    return this.#words[2 * node]!
  }

  high(node: number): number {
    return this.#words[2 * node + 1]!
  }

  /** Lanes of all children of these inner nodes, one after the other: what is sent to be compared. */
  children(nodes: readonly number[]): Int32Array {
    const lanes = new Int32Array(2 * treeArity * nodes.length)
    for (const [index, node] of nodes.entries()) {
      const first = 2 * (treeArity * node + 1)
      lanes.set(this.#words.subarray(first, first + 2 * treeArity), 2 * treeArity * index)
    }
    return lanes
  }

  /** Children of these inner nodes whose lanes are not those that another tree has of them. */
  differing(nodes: readonly number[], lanes: Int32Array): number[] {
    assert(lanes.length === 2 * treeArity * nodes.length, 'There are lanes for all children')
    const differing: number[] = []
    let at = 0
    for (const node of nodes) {
      for (let child = treeArity * node + 1; child <= treeArity * (node + 1); child++, at += 2) {
        if (lanes[at] !== this.low(child) || lanes[at + 1] !== this.high(child)) differing.push(child)
      }
    }
    return differing
  }

  /** Whether inner nodes are the sums of their children: for who suspects the memory. */
  isWhole(): boolean {
    for (let node = 0; node < firstLeaf; node++) {
      let low = 0
      let high = 0
      for (let child = treeArity * node + 1; child <= treeArity * (node + 1); child++) {
        low = (low + this.low(child)) | 0
        high = (high + this.high(child)) | 0
      }
      if (low !== this.low(node) || high !== this.high(node)) return false
    }
    return true
  }
}

/** Whether a node is a leaf: below it there are only keys. */
export function isLeaf(node: number): boolean {
  return node >= firstLeaf
}

/** The leaf of a node that is one. */
export function leafOfNode(node: number): number {
  assert(isLeaf(node) && node < treeNodes, 'The node is a leaf')
  return node - firstLeaf
}
