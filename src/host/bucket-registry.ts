/** Buckets on the node thread: checks a change, stores it in the catalog, and has everybody go by it before it is answered. */
import { SunwiseError } from '../base/errors.ts'
import type { Durability } from '../config.ts'
import { Limits } from '../config.ts'
import type { Bucket, BucketProperties, QuorumLevel } from '../replication/requests.ts'
import { defaultBucket, isBucketName, type NodeRecord, type StoredBucket } from './node-record.ts'

const durabilities: readonly Durability[] = ['sync', 'interval', 'os']

/** Who takes changes of buckets. */
export type BucketChanges = {
  put(name: string, properties: BucketProperties): Promise<{ bucket: Bucket; created: boolean }>
  delete(name: string): Promise<undefined>
}

export class BucketRegistry implements BucketChanges {
  readonly #record: NodeRecord
  readonly #valueBytesMax: number
  readonly #changed: (buckets: readonly Bucket[]) => Promise<void>
  #buckets: Map<string, StoredBucket>
  /** Changes run one behind the other. */
  #queue: Promise<unknown> = Promise.resolve()

  /** `changed` tells all threads; its promise is fulfilled when all of them go by the new buckets. */
  constructor(record: NodeRecord, valueBytesMax: number, changed: (buckets: readonly Bucket[]) => Promise<void>) {
    this.#record = record
    this.#valueBytesMax = valueBytesMax
    this.#changed = changed
    this.#buckets = new Map(record.buckets().map((bucket) => [bucket.name, bucket]))
  }

  /** The buckets, each with the limit of values that holds for it now. */
  get all(): readonly Bucket[] {
    return [...this.#buckets.values()].map((bucket) => this.#inForce(bucket))
  }

  /** The buckets as they were asked for. */
  get stored(): readonly StoredBucket[] {
    return [...this.#buckets.values()]
  }

  /** Ids that were given out so far are below this. */
  get below(): number {
    return this.#record.nextBucketId
  }

  /** A bucket without a limit of its own takes what this server takes; one with, no more than that. */
  #inForce(bucket: StoredBucket): Bucket {
    return { ...bucket, valueBytesMax: Math.min(bucket.valueBytesMax ?? this.#valueBytesMax, this.#valueBytesMax) }
  }

  async ensureDefault(): Promise<void> {
    if (!this.#buckets.has('default')) await this.put('default', {})
  }

  put(name: string, properties: BucketProperties): Promise<{ bucket: Bucket; created: boolean }> {
    return this.#inTurn(() => this.#put(name, properties))
  }

  delete(name: string): Promise<undefined> {
    return this.#inTurn(async () => {
      if (name === 'default') throw new SunwiseError('CONFLICT', 'Cannot delete bucket "default": it always exists')
      if (!this.#buckets.has(name))
        throw new SunwiseError('BUCKET_NOT_FOUND', `Cannot delete bucket "${name}": there is none`)
      await this.#record.deleteBucket(name)
      this.#buckets.delete(name)
      await this.#changed(this.all)
      return undefined
    })
  }

  /** Others have decided which buckets there are. */
  adopt(buckets: readonly StoredBucket[], below: number): Promise<void> {
    return this.#inTurn(async () => {
      await this.#record.replaceBuckets(buckets, below)
      this.#buckets = new Map(buckets.map((bucket) => [bucket.name, bucket]))
      await this.#changed(this.all)
    })
  }

  #inTurn<Result>(change: () => Promise<Result>): Promise<Result> {
    const result = this.#queue.then(change)
    this.#queue = result.catch(() => undefined)
    return result
  }

  async #put(name: string, properties: BucketProperties): Promise<{ bucket: Bucket; created: boolean }> {
    if (!isBucketName(name)) {
      throw new SunwiseError(
        'BAD_BUCKET',
        `Cannot name a bucket "${name.slice(0, 200)}": use 1 to 128 of A-Z a-z 0-9 . _ -`,
      )
    }
    const present = this.#buckets.get(name)
    if (present === undefined && this.#buckets.size >= Limits.bucketsMax) {
      throw new SunwiseError(
        'TOO_MANY_BUCKETS',
        `Cannot create bucket "${name}": there are ${Limits.bucketsMax} already`,
      )
    }
    const base = present ?? { ...defaultBucket(), id: undefined }
    const wanted = { ...base, ...withoutUndefined(properties), name, id: present?.id }
    if (present !== undefined && (wanted.n !== present.n || wanted.conflict !== present.conflict)) {
      throw new SunwiseError(
        'CONFLICT',
        `Cannot change n or conflict of bucket "${name}": create another bucket and copy`,
      )
    }
    // A limit that an earlier start allowed is kept, and capped: only one that is given now must fit.
    checkProperties({ ...wanted, valueBytesMax: properties.valueBytesMax }, this.#valueBytesMax)
    const bucket = await this.#record.putBucket(wanted)
    this.#buckets.set(name, bucket)
    await this.#changed(this.all)
    return { bucket: this.#inForce(bucket), created: present === undefined }
  }
}

function withoutUndefined(properties: BucketProperties): BucketProperties {
  return Object.fromEntries(Object.entries(properties).filter(([, value]) => value !== undefined))
}

function checkProperties(bucket: Omit<StoredBucket, 'id'>, valueBytesMax: number): void {
  const bad = (what: string): never => {
    throw new SunwiseError('BAD_BUCKET', `Cannot give bucket "${bucket.name}" ${what}`)
  }
  if (!Number.isInteger(bucket.n) || bucket.n < 1 || bucket.n > Limits.replicasMax)
    bad(`n=${bucket.n}: it must be 1 to ${Limits.replicasMax}`)
  checkLevel(bucket.r, bucket.n, 'r', bad)
  checkLevel(bucket.w, bucket.n, 'w', bad)
  if (typeof bucket.sloppy !== 'boolean') bad(`sloppy=${String(bucket.sloppy)}: it must be true or false`)
  if (bucket.conflict !== 'siblings' && bucket.conflict !== 'lww') {
    bad(`conflict=${String(bucket.conflict)}: it must be siblings or lww`)
  }
  if (bucket.durability !== undefined && !durabilities.includes(bucket.durability)) {
    bad(`durability=${String(bucket.durability)}: it must be sync, interval or os`)
  }
  const { ttlMs } = bucket
  if (ttlMs !== undefined && !(Number.isInteger(ttlMs) && ttlMs > 0 && ttlMs <= Limits.ttlMsMax)) {
    bad(`ttl=${ttlMs}: it must be a whole number of milliseconds from 1 to ${Limits.ttlMsMax}`)
  }
  const bytes = bucket.valueBytesMax
  if (bytes !== undefined && !(Number.isInteger(bytes) && bytes >= 1 && bytes <= valueBytesMax)) {
    bad(`valueBytesMax=${bytes}: it must be 1 to ${valueBytesMax}, the limit of this server`)
  }
}

function checkLevel(level: QuorumLevel, n: number, name: string, bad: (what: string) => never): void {
  if (level === 'one' || level === 'quorum' || level === 'all') return
  if (!Number.isInteger(level) || level < 1 || level > n)
    bad(`${name}=${level}: it must be one, quorum, all, or 1 to n`)
}
