/** The chain's rows in the node's catalog, under `topology/`. */
import type { Catalog, Done } from '../../env.ts'
import type { ChainRowName, ChainRows, ChainStore } from './chain-store.ts'

const prefix = 'topology/'
const names: readonly ChainRowName[] = ['topology', 'vote', 'ballot', 'acceptor']

export class CatalogChainStore implements ChainStore {
  readonly #catalog: Catalog

  constructor(catalog: Catalog) {
    this.#catalog = catalog
  }

  /** What the rows hold. @throws CATALOG_CORRUPT, DISK_FAILED */
  read(): ChainRows {
    return Object.fromEntries(names.map((name) => [name, this.#catalog.get(prefix + name)]))
  }

  save(rows: ChainRows, done: Done): void {
    const edits = names.flatMap((name) => {
      const value = rows[name]
      return value === undefined ? [] : [{ op: 'put' as const, key: prefix + name, value }]
    })
    this.#catalog.commit(edits, done)
  }
}
