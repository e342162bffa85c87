/**
 * The real catalog: the door `Catalog` over an LMDB environment in a directory of its own. Small data of one thread: reads are
 * served from LMDB's pages, and a commit calls back after LMDB has synced it.
 *
 * A row is stored as
 *
 *     4 bytes   CRC-32 of the key, a zero byte and the value, little-endian
 *     n bytes   value
 *
 * since LMDB has no checksums. The row `#format` holds the version of this layout in decimal digits.
 *
 * LMDB trusts its file and the disk more than it may: a damaged file ends the process with a signal, and a write that finds the
 * disk full damages the heap. So the file is checked before LMDB maps it (catalog-file.ts), room for a commit is written to
 * the file beforehand (a full disk then is a plain DISK_FULL and nothing has happened), and after any error of LMDB itself no
 * further commit is handed to it.
 *
 * A new catalog is made under another name and renamed when it is complete, so that a crash leaves all of it or nothing.
 *
 * Not here: what the rows mean (node-record.ts); locking (one process per data directory: directory-lock.ts).
 */
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { crc32 } from 'node:zlib'
import { open, type RootDatabase } from 'lmdb'
import { assert } from '../base/assert.ts'
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { Catalog, CatalogEdit, Done } from '../env.ts'
import { catalogFileName, checkCatalogFile } from './catalog-file.ts'
import { diskError, zeroFill } from './disk.ts'

const formatKey = '#format'
const formatVersion = '1'
const checksumBytes = 4
/** LMDB enlarges its map beyond this by itself. */
const mapBytes = 64 * 1024 * 1024
/** Commits that may wait; one more is OVERLOADED. */
/** Pages that any commit may take for the tree of free pages and its own path. */
const pagesPerCommit = 32
/** Pages that one edit may take besides those of its value: a copy of each level of the tree, and splits. */
const pagesPerEdit = 8
/** The file grows by so many pages at a time. */
const pagesPerExtension = 256

type Pending = { readonly edits: readonly CatalogEdit[]; readonly done: Done }

/** The door `Catalog` over one directory. */
export class HostCatalog implements Catalog {
  readonly #directory: string
  readonly #database: RootDatabase<Buffer, string>
  readonly #queue: Pending[] = []
  #running: Promise<void> | undefined
  #failure: SunwiseError | undefined
  #isClosed = false

  private constructor(directory: string, database: RootDatabase<Buffer, string>) {
    this.#directory = directory
    this.#database = database
  }

  /**
   * Opens the catalog in `directory`, or creates it; its parent must exist. Rejects with CATALOG_CORRUPT where what is there is
   * damaged or of another version, and with DISK_FAILED or DISK_FULL where the disk refuses.
   */
  static async open(directory: string): Promise<HostCatalog> {
    try {
      if (!existsSync(directory)) await createCatalog(directory)
      checkCatalogFile(directory)
    } catch (error) {
      throw error instanceof SunwiseError ? error : diskError('open the catalog', directory, error)
    }
    const catalog = new HostCatalog(directory, openEnvironment(directory))
    try {
      catalog.#checkFormat()
    } catch (error) {
      await catalog.close()
      throw error
    }
    return catalog
  }

  /** @throws CATALOG_CORRUPT where the row is damaged, DISK_FAILED where it cannot be read. */
  get(key: string): Uint8Array | undefined {
    checkKey(key)
    return this.#get(key)
  }

  /** @throws as `get` does. */
  scan(prefix: string): [string, Uint8Array][] {
    assert(!this.#isClosed, 'A closed catalog is not read')
    const rows: [string, Uint8Array][] = []
    try {
      for (const { key, value } of this.#database.getRange(prefix === '' ? {} : { start: prefix })) {
        if (!key.startsWith(prefix)) break
        if (key !== formatKey) rows.push([key, this.#unseal(key, value)])
      }
    } catch (error) {
      throw this.#readError(error)
    }
    return rows
  }

  commit(edits: readonly CatalogEdit[], done: Done): void {
    for (const { key } of edits) checkKey(key)
    if (this.#isClosed) return done(new SunwiseError('CLOSED', 'Cannot commit to the catalog: it is closed'))
    if (this.#failure !== undefined) return done(this.#failure)
    if (this.#queue.length >= Limits.catalogCommitsPendingMax) {
      return done(
        new SunwiseError('OVERLOADED', `Cannot commit to the catalog: ${Limits.catalogCommitsPendingMax} commits wait`),
      )
    }
    this.#queue.push({
      edits: edits.map((edit) => (edit.op === 'put' ? { ...edit, value: seal(edit.key, edit.value) } : edit)),
      done,
    })
    this.#running ??= this.#run()
  }

  /** Waits for the commits under way, then closes. */
  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    await this.#running
    await this.#database.close()
  }

  async #run(): Promise<void> {
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      next.done(this.#failure ?? (await this.#apply(next.edits)))
    }
    this.#running = undefined
  }

  async #apply(edits: readonly CatalogEdit[]): Promise<SunwiseError | undefined> {
    try {
      await this.#makeRoom(edits)
    } catch (error) {
      // LMDB has not been touched: the next commit may find room.
      return diskError('extend the catalog', this.#directory, error)
    }
    try {
      await applyEdits(this.#database, edits)
      return undefined
    } catch (error) {
      const message = `Cannot commit to the catalog "${this.#directory}": ${messageOf(error)}; restart the node`
      this.#failure = new SunwiseError('DISK_FAILED', message, { cause: error })
      return this.#failure
    }
  }

  /** Writes zeros behind LMDB's last page where the file might not have the pages that a commit may need. */
  async #makeRoom(edits: readonly CatalogEdit[]): Promise<void> {
    const { pageSize, lastPageNumber } = this.#database.getStats() as { pageSize: number; lastPageNumber: number }
    let pages = pagesPerCommit
    for (const edit of edits) {
      pages += pagesPerEdit
      if (edit.op === 'put') pages += Math.ceil(edit.value.length / pageSize)
    }
    const bytes = (lastPageNumber + 1 + pages) * pageSize
    const path = join(this.#directory, catalogFileName)
    if (statSync(path).size < bytes) await extendFile(path, bytes + pagesPerExtension * pageSize)
  }

  #checkFormat(): void {
    const found = this.#get(formatKey)
    if (found === undefined) throw corrupt(this.#directory, 'it has no format row')
    const version = Buffer.from(found).toString('latin1').slice(0, 20)
    if (version !== formatVersion) {
      throw corrupt(
        this.#directory,
        `it has format ${version}, and this program reads ${formatVersion}; use a matching release`,
      )
    }
  }

  #get(key: string): Uint8Array | undefined {
    assert(!this.#isClosed, 'A closed catalog is not read')
    try {
      const row = this.#database.get(key)
      return row === undefined ? undefined : this.#unseal(key, row)
    } catch (error) {
      throw this.#readError(error)
    }
  }

  #unseal(key: string, row: Buffer): Uint8Array {
    const value = new Uint8Array(row.subarray(checksumBytes))
    if (row.length < checksumBytes || row.readUInt32LE(0) !== checksumOf(key, value)) {
      throw corrupt(this.#directory, `the checksum of row "${key}" is wrong; restore a backup`)
    }
    return value
  }

  #readError(error: unknown): SunwiseError {
    if (error instanceof SunwiseError) return error
    const message = `Cannot read the catalog "${this.#directory}": ${messageOf(error)}; restart the node`
    return new SunwiseError('DISK_FAILED', message, { cause: error })
  }
}

function checkKey(key: string): void {
  assert(
    /^[!-~ ]{1,500}$/.test(key) && !key.startsWith('#'),
    'A catalog key is 1 to 500 printable ASCII characters without # first',
  )
}

function checksumOf(key: string, value: Uint8Array): number {
  return crc32(value, crc32(`${key}\0`))
}

function seal(key: string, value: Uint8Array): Buffer {
  const row = Buffer.alloc(checksumBytes + value.length)
  row.writeUInt32LE(checksumOf(key, value), 0)
  row.set(value, checksumBytes)
  return row
}

function corrupt(directory: string, why: string): SunwiseError {
  return new SunwiseError('CATALOG_CORRUPT', `Cannot use the catalog "${directory}": ${why}`)
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function openEnvironment(directory: string): RootDatabase<Buffer, string> {
  try {
    return open<Buffer, string>({
      path: directory,
      encoding: 'binary',
      mapSize: mapBytes,
      overlappingSync: false,
      noSubdir: false,
      maxReaders: 32,
    })
  } catch (cause) {
    throw new SunwiseError('CATALOG_CORRUPT', `Cannot open the catalog "${directory}": ${messageOf(cause)}`, { cause })
  }
}

/** One LMDB transaction; resolves after its sync. Every promise that LMDB makes on the way is waited for, or its failure would count as unhandled. */
async function applyEdits(database: RootDatabase<Buffer, string>, edits: readonly CatalogEdit[]): Promise<void> {
  const parts: Promise<unknown>[] = []
  const whole = database.batch(() => {
    for (const edit of edits) {
      parts.push(edit.op === 'put' ? database.put(edit.key, edit.value as Buffer) : database.remove(edit.key))
    }
  })
  const results = await Promise.allSettled([whole, ...parts])
  for (const result of results) {
    if (result.status === 'fulfilled') continue
    const reason: unknown = result.reason
    // The reason proper is the rejection of yet another promise.
    if (reason instanceof Error && 'commitError' in reason) await reason.commitError
    throw reason
  }
}

async function createCatalog(directory: string): Promise<void> {
  const unfinished = `${directory}.new`
  rmSync(unfinished, { recursive: true, force: true })
  mkdirSync(unfinished, { mode: 0o700 })
  // LMDB makes the first two pages, since it takes a file of zeros for a damaged one; then comes the room for the first commit.
  const database = openEnvironment(unfinished)
  try {
    await extendFile(join(unfinished, catalogFileName), pagesPerExtension * 4096)
    await applyEdits(database, [{ op: 'put', key: formatKey, value: seal(formatKey, Buffer.from(formatVersion)) }])
  } finally {
    await database.close()
  }
  syncDirectory(unfinished)
  renameSync(unfinished, directory)
  syncDirectory(dirname(directory))
}

function syncDirectory(directory: string): void {
  const descriptor = openSync(directory, 'r')
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

/** Extends a file by synced zeros to at least `bytes`; after an error it is as it was. */
function extendFile(path: string, bytes: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const descriptor = openSync(path, 'r+')
    zeroFill(descriptor, bytes, (error) => {
      closeSync(descriptor)
      if (error === undefined) resolve()
      else reject(error)
    })
  })
}
