/**
 * Looks at an LMDB data file before LMDB maps it. LMDB follows page numbers and offsets without checking them, and what they
 * lead to outside of the file or of a page ends the process with a signal. So this walks everything that is reachable from the
 * newest root and refuses what does not add up. It takes about a microsecond per page of small rows, and knows nothing of rows:
 * their checksums are the catalog's matter.
 *
 * The file, in pages of `pageBytes`, little-endian (LMDB data format 2 with transaction ids in page headers):
 *
 *     page header   8 number   8 transaction   2 pad   2 flags   2 lower   2 upper (or, overflow pages: 4 count)
 *     meta page     24 header  4 magic 0xbeefc0de  4 version  8 address  8 map bytes  48 free tree  48 main tree
 *     (0 and 1)     8 last page  8 transaction
 *     tree          4 pad (of the free tree: pageBytes)  2 flags  2 depth  8 branch  8 leaf  8 overflow  8 entries  8 root
 *     branch, leaf  24 header  2 offset of each node, from the end of the header; `lower` ends them
 *     branch node   2+2 low page number  2 high page number  2 key bytes  key
 *     leaf node     2+2 value bytes  2 flags (1: in overflow pages, whose first number stands in place of the value)
 *                   2 key bytes  key  value
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { SunwiseError } from '../base/errors.ts'

/** Name that LMDB gives its data file. */
export const catalogFileName = 'data.mdb'

const pageHeaderBytes = 24
const nodeHeaderBytes = 8
const metaFlag = 0x08
const branchFlag = 0x01
const leafFlag = 0x02
const overflowFlag = 0x04
const inOverflowPages = 0x01
const magic = 0xbeefc0de
const version = 2
const depthMax = 32
/** Flag of a tree whose keys are numbers in the machine's byte order. */
const integerKeys = 0x08
/** Pages at the end that LMDB took and gave back within one transaction were never written. */
const bytesBehindMax = 64 * 1024 * 1024
/** LMDB's root of an empty tree. */
const noPage = 2 ** 64

type Tree = {
  readonly hasOrderedBytes: boolean
  readonly depth: number
  readonly entries: number
  readonly root: number
}
type Meta = {
  readonly transaction: number
  readonly lastPage: number
  readonly pageBytes: number
  readonly trees: readonly Tree[]
}

/**
 * Checks the data file in `directory`. @throws CATALOG_CORRUPT, naming the first thing that does not add up; an error of
 * node:fs where the file cannot be read.
 */
export function checkCatalogFile(directory: string): void {
  const path = join(directory, catalogFileName)
  const bytes = readFileSync(path)
  const metas = [readMeta(bytes, 0, path), undefined]
  const { pageBytes } = metas[0]!
  metas[1] = readMeta(bytes, pageBytes, path)
  if (metas[1].pageBytes !== pageBytes) throw damaged(path, 'its two meta pages differ about the page size')
  // LMDB writes them in turn. A wrong number would bring an old state back.
  const isInTurn = Math.abs(metas[0]!.transaction - metas[1].transaction) === 1 && metas[0]!.transaction % 2 === 0
  const isTrue = [metas[0]!, metas[1]].every((meta) => hasOwnRoots(bytes, meta))
  if (!isInTurn || !isTrue) throw damaged(path, 'the transaction numbers of its meta pages are wrong')
  const newest = metas[0]!.transaction >= metas[1].transaction ? metas[0]! : metas[1]
  const walk = new TreeWalk(bytes, pageBytes, path)
  for (const tree of newest.trees) walk.check(tree)
  if (newest.lastPage < walk.highestPage || newest.lastPage * pageBytes > bytes.length + bytesBehindMax) {
    throw damaged(path, `its last page is said to be ${newest.lastPage}`)
  }
}

function damaged(path: string, why: string): SunwiseError {
  return new SunwiseError('CATALOG_CORRUPT', `Cannot use the catalog "${path}": ${why}; restore a backup`)
}

/** Numbers above 2^53 lose digits, which is as well: none of them is valid. */
function readU64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32
}

function readMeta(bytes: Buffer, at: number, path: string): Meta {
  if (bytes.length < at + 512) throw damaged(path, `it ends at byte ${bytes.length}, before its meta pages do`)
  if (bytes.readUInt16LE(at + 18) !== metaFlag || bytes.readUInt32LE(at + 24) !== magic) {
    throw damaged(path, `there is no meta page at byte ${at}`)
  }
  const found = bytes.readUInt32LE(at + 28)
  if (found !== version) throw damaged(path, `its LMDB format is ${found}, and this program reads ${version}`)
  const pageBytes = bytes.readUInt32LE(at + 48)
  if (pageBytes < 512 || pageBytes > 65_536 || (pageBytes & (pageBytes - 1)) !== 0) {
    throw damaged(path, `its page size is ${pageBytes}`)
  }
  // The free tree, then the main tree: keys that are numbers, and plain ones.
  for (const [start, flags] of [
    [at + 48, integerKeys],
    [at + 96, 0],
  ] as const) {
    const found = bytes.readUInt16LE(start + 4)
    if (found !== flags) throw damaged(path, `a tree has flags ${found} instead of ${flags}`)
  }
  const tree = (start: number): Tree => ({
    hasOrderedBytes: (bytes.readUInt16LE(start + 4) & integerKeys) === 0,
    depth: bytes.readUInt16LE(start + 6),
    entries: readU64(bytes, start + 32),
    root: readU64(bytes, start + 40),
  })
  return {
    transaction: readU64(bytes, at + 152),
    lastPage: readU64(bytes, at + 144),
    pageBytes,
    trees: [tree(at + 48), tree(at + 96)],
  }
}

/** Whether no tree's root is younger than the transaction that the meta page names. LMDB keeps the roots of both. */
function hasOwnRoots(bytes: Buffer, { transaction, pageBytes, trees }: Meta): boolean {
  return trees.every(({ root }) => {
    const start = root * pageBytes
    return root === noPage || start + pageBytes > bytes.length || readU64(bytes, start + 8) <= transaction
  })
}

/** Walks trees of one file; no page may be reached twice. */
class TreeWalk {
  readonly #bytes: Buffer
  readonly #pageBytes: number
  readonly #path: string
  readonly #reached = new Set<number>([0, 1])
  #entries = 0
  #hasOrderedBytes = true
  /** The last key met, and whether it is that of a branch, which the next leaf's may equal. */
  #lastKey: Buffer | undefined
  #isBound = false

  constructor(bytes: Buffer, pageBytes: number, path: string) {
    this.#bytes = bytes
    this.#pageBytes = pageBytes
    this.#path = path
  }

  get highestPage(): number {
    return Math.max(...this.#reached)
  }

  check(tree: Tree): void {
    this.#entries = 0
    this.#hasOrderedBytes = tree.hasOrderedBytes
    this.#lastKey = undefined
    if (tree.depth > depthMax) throw damaged(this.#path, `a tree is ${tree.depth} levels deep`)
    if (tree.root !== noPage) this.#checkPage(tree.root, tree.depth)
    if (this.#entries !== tree.entries) {
      throw damaged(this.#path, `a tree has ${this.#entries} entries instead of ${tree.entries}`)
    }
  }

  /** Start of a page in the file, whose number, length and flags are as they should be. */
  #startOf(page: number, pages: number, flags: number): number {
    const start = page * this.#pageBytes
    if (!(start + pages * this.#pageBytes <= this.#bytes.length)) {
      throw damaged(this.#path, `it refers to page ${page}, beyond its end`)
    }
    for (let next = page; next < page + pages; next++) {
      if (this.#reached.has(next)) throw damaged(this.#path, `page ${next} is used twice`)
      this.#reached.add(next)
    }
    if (readU64(this.#bytes, start) !== page || this.#bytes.readUInt16LE(start + 18) !== flags) {
      throw damaged(this.#path, `page ${page} is not what it should be`)
    }
    return start
  }

  #checkPage(page: number, levels: number): void {
    if (levels < 1) throw damaged(this.#path, `page ${page} lies below the leaves`)
    const start = this.#startOf(page, 1, levels === 1 ? leafFlag : branchFlag)
    const body = start + pageHeaderBytes
    const end = start + this.#pageBytes
    const lower = this.#bytes.readUInt16LE(start + 20)
    if ((lower & 1) !== 0 || body + lower > end) throw damaged(this.#path, `page ${page} has ${lower} bytes of offsets`)
    for (let at = body; at < body + lower; at += 2) {
      const node = body + this.#bytes.readUInt16LE(at)
      const keyEnd = node + nodeHeaderBytes
      if (node < body + lower || keyEnd > end || keyEnd + this.#bytes.readUInt16LE(node + 6) > end) {
        throw damaged(this.#path, `page ${page} has an entry outside of it`)
      }
      const key = this.#bytes.subarray(keyEnd, keyEnd + this.#bytes.readUInt16LE(node + 6))
      if (levels > 1) {
        // The first key of a branch means nothing.
        if (at > body) this.#checkOrder(page, key, true)
        this.#checkPage(this.#bytes.readUInt32LE(node) + this.#bytes.readUInt16LE(node + 4) * 2 ** 32, levels - 1)
      } else {
        this.#checkOrder(page, key, false)
        this.#checkLeaf(page, node, end)
      }
    }
  }

  /** Keys ascend along the leaves; the key of a branch lies between the leaves before it and those below it. */
  #checkOrder(page: number, key: Buffer, isBranch: boolean): void {
    if (!this.#hasOrderedBytes) return
    const order = this.#lastKey === undefined ? 1 : Buffer.compare(key, this.#lastKey)
    if (order < 0 || (order === 0 && !this.#isBound))
      throw damaged(this.#path, `page ${page} has its keys out of order`)
    this.#lastKey = key
    this.#isBound = isBranch
  }

  #checkLeaf(page: number, node: number, end: number): void {
    this.#entries++
    const flags = this.#bytes.readUInt16LE(node + 4)
    const valueBytes = this.#bytes.readUInt32LE(node)
    const value = node + nodeHeaderBytes + this.#bytes.readUInt16LE(node + 6)
    const heldBytes = flags === inOverflowPages ? 8 : valueBytes
    if ((flags !== 0 && flags !== inOverflowPages) || value + heldBytes > end) {
      throw damaged(this.#path, `page ${page} has a value outside of it`)
    }
    if (flags !== inOverflowPages) return
    const pages = Math.ceil((pageHeaderBytes + valueBytes) / this.#pageBytes)
    const first = readU64(this.#bytes, value)
    const start = this.#startOf(first, pages, overflowFlag)
    if (this.#bytes.readUInt32LE(start + 20) < pages)
      throw damaged(this.#path, `page ${first} is too short for its value`)
  }
}
