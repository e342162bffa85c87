/**
 * What a node durably knows about itself, as rows of its catalog. JSON, since the rows are few and small and a person may
 * have to read them.
 *
 *   identity      { format, nodeId, clusterId, clusterKey (base64) }      written once
 *   log           { generation, shards, segmentBytes, retired: [generation ...] }
 *   actor         { low, high, device, inode, catalogInode, catalogBornMs } the incarnation that names this node's writes
 *   unsynced      { since }                                              present while unsynced acknowledgements may exist
 *   ends          { generation, ends: [{ sequence, bytes } ...] }        of the log, by shard; present from a clean stop to the next start
 *   row/, table/, flushed/                                               tables: storage/table-rows.ts, storage/tables.ts
 *   buckets/NAME  { id, n, r, w, ... }                                   and `bucketId` { next }; of a member what the topology says, for backups
 *   joining       {}                                                     present once the node was told to join a cluster
 *   topology/     the chain of a member's cluster: cluster/topology/catalog-chain-store.ts
 */
import { SunwiseError } from '../base/errors.ts'
import { bucketIdOf } from '../base/ids.ts'
import { defaultBucketName, newBucketProperties } from '../cluster/topology/buckets.ts'
import { hintBucketId, Limits } from '../config.ts'
import type { Catalog, CatalogEdit } from '../env.ts'
import type { Bucket } from '../replication/requests.ts'
import type { LogPosition } from '../storage/log-group.ts'

/** Version of the data directory as a whole. */
export const directoryFormatVersion = 1

export type Identity = {
  readonly format: number
  readonly nodeId: string
  readonly clusterId: string
  readonly clusterKey: string
}

export type LogRow = {
  readonly generation: number
  readonly shards: number
  readonly segmentBytes: number
  /** Generations whose data stands in newer ones, and whose files may still be there. */
  readonly retired: readonly number[]
}

export type ActorRow = {
  readonly low: number
  readonly high: number
  /** Of the data directory: another one means a copy or a restore. */
  readonly device: number
  readonly inode: number
  /** Of the catalog's file: another one means a restore. */
  readonly catalogInode: number
  readonly catalogBornMs: number
}

/** A bucket as it was asked for: without a limit of values it takes that of the server. */
export type StoredBucket = Omit<Bucket, 'valueBytesMax'> & { readonly valueBytesMax: number | undefined }

const encode = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value))

/** Reads and writes the rows; every write is durable when its promise resolves. */
export class NodeRecord {
  readonly #catalog: Catalog

  constructor(catalog: Catalog) {
    this.#catalog = catalog
  }

  get identity(): Identity | undefined {
    return this.#read<Identity>('identity')
  }

  get log(): LogRow | undefined {
    return this.#read<LogRow>('log')
  }

  get actor(): ActorRow | undefined {
    return this.#read<ActorRow>('actor')
  }

  get isUnsynced(): boolean {
    return this.#catalog.get('unsynced') !== undefined
  }

  /** Where the last clean stop ended the logs of this generation, by shard; undefined if the last end was none. */
  cleanEnds(generation: number): readonly LogPosition[] | undefined {
    const row = this.#read<{ generation: number; ends: LogPosition[] }>('ends')
    return row?.generation === generation ? row.ends : undefined
  }

  buckets(): StoredBucket[] {
    return this.#catalog.scan('buckets/').map(([, bytes]) => this.#parse<StoredBucket>('buckets', bytes))
  }

  /** Ids of buckets are given out in order, and never again. */
  get nextBucketId(): number {
    return this.#read<{ next: number }>('bucketId')?.next ?? 1
  }

  putIdentity(identity: Identity): Promise<void> {
    return this.#commit([{ op: 'put', key: 'identity', value: encode(identity) }])
  }

  /** Whether the node has an epoch of a cluster's topology. */
  get isMember(): boolean {
    return this.#catalog.get('topology/topology') !== undefined
  }

  get isJoining(): boolean {
    return this.#catalog.get('joining') !== undefined
  }

  /** The identity of a node that was told to join a cluster. */
  putJoining(identity: Identity): Promise<void> {
    return this.#commit([
      { op: 'put', key: 'identity', value: encode(identity) },
      { op: 'put', key: 'joining', value: encode({}) },
    ])
  }

  /** Puts these buckets in the place of all that there are. */
  replaceBuckets(buckets: readonly StoredBucket[], next: number): Promise<void> {
    const names = new Set(buckets.map(({ name }) => name))
    const gone = this.buckets().filter(({ name }) => !names.has(name))
    return this.#commit([
      ...gone.map(({ name }) => ({ op: 'delete' as const, key: `buckets/${name}` })),
      ...buckets.map((bucket) => ({ op: 'put' as const, key: `buckets/${bucket.name}`, value: encode(bucket) })),
      { op: 'put', key: 'bucketId', value: encode({ next }) },
    ])
  }

  /** Changes the log, and whatever changes with it, at once. */
  putLog(log: LogRow, edits: readonly CatalogEdit[] = []): Promise<void> {
    return this.#commit([...edits, { op: 'put', key: 'log', value: encode(log) }])
  }

  putActor(actor: ActorRow): Promise<void> {
    return this.#commit([{ op: 'put', key: 'actor', value: encode(actor) }])
  }

  noteUnsynced(sinceMs: number): Promise<void> {
    return this.#commit([{ op: 'put', key: 'unsynced', value: encode({ since: sinceMs }) }])
  }

  /** A clean stop: all is on stable storage, and so far the logs reach. */
  noteCleanStop(generation: number, ends: readonly LogPosition[]): Promise<void> {
    return this.#commit([
      { op: 'delete', key: 'unsynced' },
      { op: 'put', key: 'ends', value: encode({ generation, ends }) },
    ])
  }

  clearEnds(): Promise<void> {
    return this.#commit([{ op: 'delete', key: 'ends' }])
  }

  /** Stores a bucket; a new one (`id` undefined) gets the next id, which is never used again. */
  async putBucket(bucket: Omit<StoredBucket, 'id'> & { readonly id: Bucket['id'] | undefined }): Promise<StoredBucket> {
    const next = this.nextBucketId
    if (bucket.id === undefined && next >= hintBucketId) {
      throw new SunwiseError('TOO_MANY_BUCKETS', `Cannot create bucket "${bucket.name}": all ids were given out`)
    }
    const stored: StoredBucket = { ...bucket, id: bucket.id ?? bucketIdOf(next) }
    const edits: CatalogEdit[] = [{ op: 'put', key: `buckets/${bucket.name}`, value: encode(stored) }]
    if (bucket.id === undefined) edits.push({ op: 'put', key: 'bucketId', value: encode({ next: next + 1 }) })
    await this.#commit(edits)
    return stored
  }

  deleteBucket(name: string): Promise<void> {
    return this.#commit([{ op: 'delete', key: `buckets/${name}` }])
  }

  #read<Row>(key: string): Row | undefined {
    const bytes = this.#catalog.get(key)
    return bytes === undefined ? undefined : this.#parse<Row>(key, bytes)
  }

  #parse<Row>(key: string, bytes: Uint8Array): Row {
    try {
      return JSON.parse(new TextDecoder().decode(bytes)) as Row
    } catch (cause) {
      throw new SunwiseError('CATALOG_CORRUPT', `Cannot read row "${key}" of the catalog; restore a backup`, { cause })
    }
  }

  #commit(edits: readonly CatalogEdit[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#catalog.commit(edits, (error) => (error === undefined ? resolve() : reject(error)))
    })
  }
}

/** Whether a row of the catalog belongs into a backup as it is: what names an incarnation does not, and tables come from the shards. */
export function isOwnRow(key: string): boolean {
  return ['identity', 'log', 'bucketId'].includes(key) || key.startsWith('buckets/')
}

/** The bucket that always exists. */
export function defaultBucket(): Omit<StoredBucket, 'id'> {
  return { name: defaultBucketName, ...newBucketProperties }
}

/** Names that buckets may have. */
export function isBucketName(name: string): boolean {
  return name.length >= 1 && name.length <= Limits.bucketNameBytesMax && /^[A-Za-z0-9._-]+$/.test(name)
}
