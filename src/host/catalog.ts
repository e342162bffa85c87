/**
 * The real catalog: the door `Catalog` over an LMDB environment in the data directory. Small data of one thread, so reads are
 * served by LMDB's own pages and every commit waits until it is durable.
 */
import { open, type RootDatabase } from 'lmdb'
import { SunwiseError } from '../base/errors.ts'
import type { Catalog, CatalogEdit, Done } from '../env.ts'

const formatKey = 'catalogFormat'
const formatVersion = '1'
const mapBytes = 64 * 1024 * 1024

export class HostCatalog implements Catalog {
  readonly #database: RootDatabase<Buffer, string>

  private constructor(database: RootDatabase<Buffer, string>) {
    this.#database = database
  }

  /** Opens or creates the catalog in `directory`. Rejects with CATALOG_CORRUPT where it cannot be read. */
  static async open(directory: string): Promise<HostCatalog> {
    let database: RootDatabase<Buffer, string>
    let found: Buffer | undefined
    try {
      database = open<Buffer, string>({
        path: directory,
        encoding: 'binary',
        mapSize: mapBytes,
        overlappingSync: false,
        noSubdir: false,
        maxReaders: 32,
      })
      found = database.get(formatKey)
    } catch (cause) {
      throw new SunwiseError('CATALOG_CORRUPT', `Cannot open the catalog in "${directory}": ${String(cause)}`, {
        cause,
      })
    }
    if (found === undefined) {
      await database.put(formatKey, Buffer.from(formatVersion))
    } else if (found.toString() !== formatVersion) {
      await database.close()
      const message = `The catalog in "${directory}" has format ${found.toString().slice(0, 20)}, this program reads ${formatVersion}; use a matching release`
      throw new SunwiseError('CATALOG_CORRUPT', message)
    }
    return new HostCatalog(database)
  }

  get(key: string): Uint8Array | undefined {
    const value = this.#database.get(key)
    return value === undefined ? undefined : new Uint8Array(value)
  }

  scan(prefix: string): [string, Uint8Array][] {
    const rows: [string, Uint8Array][] = []
    for (const { key, value } of this.#database.getRange({ start: prefix })) {
      if (!key.startsWith(prefix)) break
      rows.push([key, new Uint8Array(value)])
    }
    return rows
  }

  commit(edits: readonly CatalogEdit[], done: Done): void {
    this.#database
      .transaction(() => {
        for (const edit of edits) {
          if (edit.op === 'put') void this.#database.put(edit.key, Buffer.from(edit.value))
          else void this.#database.remove(edit.key)
        }
      })
      .then(() => this.#database.flushed)
      .then(
        () => done(undefined),
        (cause: unknown) => {
          done(new SunwiseError('DISK_FAILED', `Cannot commit to the catalog: ${String(cause)}`, { cause }))
        },
      )
  }

  close(): Promise<void> {
    return this.#database.close()
  }
}
