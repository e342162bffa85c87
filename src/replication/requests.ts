/**
 * What edges (HTTP, library, command line) ask of a coordinator, and what they get: plain values and one callback each.
 * A coordinator is an object without a thread; one per thread serves all edges of that thread.
 *
 * Ownership: `key`, `value` and `context` belong to the coordinator only until the method returns (it copies them into the
 * owner's queue); answers are fresh and belong to the receiver. `done` is called exactly once, possibly before the method
 * returns, with either an error or an answer.
 */
import type { SunwiseError } from '../base/errors.ts'
import type { BucketId } from '../base/ids.ts'
import type { Durability } from '../config.ts'

export type Bucket = {
  readonly id: BucketId
  readonly name: string
  /** Replicas per key, read quorum, write quorum. */
  readonly n: number
  readonly r: QuorumLevel
  readonly w: QuorumLevel
  readonly sloppy: boolean
  readonly conflict: 'siblings' | 'lww'
  /** Undefined: the server's. */
  readonly durability: Durability | undefined
  /** Default time to live of its values; undefined: none. */
  readonly ttlMs: number | undefined
  readonly valueBytesMax: number
}

/** `one`, `quorum` (majority), `all` (current replicas), or a number of replicas. */
export type QuorumLevel = 'one' | 'quorum' | 'all' | number

/** Digest of a version set: 16 lower-case hexadecimal digits, without quotes. */
export type ETag = string

export type ReadOptions = {
  readonly r?: QuorumLevel | undefined
  readonly timeoutMs?: number | undefined
}

export type WriteOptions = {
  readonly w?: QuorumLevel | undefined
  /** Other nodes may stand in for replicas that are down; undefined: as the bucket says. The receipt tells whether they did. */
  readonly sloppy?: boolean | undefined
  readonly timeoutMs?: number | undefined
  /** Opaque bytes from an earlier answer: the write replaces exactly what that answer showed. BAD_CONTEXT if unreadable. */
  readonly context?: Uint8Array | undefined
  /** The write applies only if the present version set has one of these digests, else PRECONDITION_FAILED. */
  readonly ifMatch?: readonly ETag[] | '*' | undefined
  /** The write applies only if no live value is present. */
  readonly ifNoneMatch?: '*' | undefined
  /** Milliseconds from now; undefined: the bucket's; Infinity: none even if the bucket has one. */
  readonly ttlMs?: number | undefined
  /** Stored with the value and given back; undefined: application/octet-stream. */
  readonly contentType?: string | undefined
  readonly durability?: Durability | undefined
  /** The bytes of `key` never change, so the coordinator may keep them instead of a copy. */
  readonly ownsKey?: boolean | undefined
}

/** One node's part in an answer. */
export type ReceiptNode = {
  readonly node: string
  /** It holds the value for a replica that was out of reach. */
  readonly isFallback: boolean
  /** What it has was on stable storage when it answered. */
  readonly isDurable: boolean
}

/** Which consistency an answer really got. */
export type Receipt = {
  /** Replicas that answered in time, of those that hold the key. */
  readonly acks: number
  readonly replicas: number
  /** A fallback was counted. */
  readonly sloppy: boolean
  /** Every ack was on stable storage. */
  readonly durable: boolean
  /** Epoch of the topology the answer was made under. */
  readonly epoch: number
  /** Who answered; undefined where a partition has one replica. */
  readonly nodes?: readonly ReceiptNode[] | undefined
  /** Replicas that a read found behind and brought up. */
  readonly repaired?: number | undefined
}

export type StoredValue = {
  readonly value: Uint8Array
  readonly contentType: string
  /** Milliseconds since 1970; undefined: never expires. */
  readonly expiresAtMs: number | undefined
}

export type ReadAnswer = {
  /** Live values: none (absent or deleted), one, or siblings with the deterministic winner first. */
  readonly values: readonly StoredValue[]
  /** Undefined where the key was never written. */
  readonly etag: ETag | undefined
  /** Undefined where the key was never written; present for a deleted key. */
  readonly context: Uint8Array | undefined
  readonly receipt: Receipt
}

export type WriteAnswer = {
  /** Undefined where a delete found nothing. */
  readonly etag: ETag | undefined
  readonly context: Uint8Array | undefined
  /** Live values the key has now. */
  readonly siblings: number
  readonly expiresAtMs: number | undefined
  readonly receipt: Receipt
}

export type BatchOperation =
  | { readonly op: 'get'; readonly key: Uint8Array }
  | {
      readonly op: 'put'
      readonly key: Uint8Array
      readonly value: Uint8Array
      readonly options?: WriteOptions | undefined
    }
  | { readonly op: 'delete'; readonly key: Uint8Array; readonly options?: WriteOptions | undefined }

/** One result per operation, in request order. */
export type BatchResult =
  | { readonly op: 'get'; readonly answer: ReadAnswer }
  | { readonly op: 'put' | 'delete'; readonly answer: WriteAnswer }
  | { readonly op: 'get' | 'put' | 'delete'; readonly error: SunwiseError }

export type ListOptions = {
  /** Replicas of each partition that are asked; undefined: as the bucket says for reads. */
  readonly r?: QuorumLevel | undefined
  readonly prefix?: Uint8Array | undefined
  /** Opaque bytes from an earlier page; BAD_CURSOR if unreadable. */
  readonly cursor?: Uint8Array | undefined
  readonly limit: number
  readonly values: boolean
  readonly timeoutMs?: number | undefined
}

export type ListedKey = {
  readonly key: Uint8Array
  /** Present if values were asked for; siblings with the winner first. */
  readonly answer: ReadAnswer | undefined
}

/** Keys in the order (partition, key bytes): not the order of the keys over the whole bucket. */
export type ListPage = {
  readonly keys: readonly ListedKey[]
  /** Undefined at the end of the bucket. */
  readonly cursor: Uint8Array | undefined
  /**
   * Of the partition that the fewest replicas answered for, and durable only where all of the page is; undefined where partitions have one
   * replica, or none was looked at.
   */
  readonly receipt?: Receipt | undefined
}

export type Callback<Answer> = (error: SunwiseError | undefined, answer: Answer | undefined) => void

/** Everything an edge may ask about data. */
export type Coordinator = {
  get(bucket: Bucket, key: Uint8Array, options: ReadOptions, done: Callback<ReadAnswer>): void
  put(bucket: Bucket, key: Uint8Array, value: Uint8Array, options: WriteOptions, done: Callback<WriteAnswer>): void
  delete(bucket: Bucket, key: Uint8Array, options: WriteOptions, done: Callback<WriteAnswer>): void
  /** Not atomic; operations on one key apply in request order. Settles when all have; `timeoutMs` is one deadline for all. */
  batch(
    bucket: Bucket,
    operations: readonly BatchOperation[],
    options: { readonly timeoutMs?: number | undefined },
    done: Callback<readonly BatchResult[]>,
  ): void
  list(bucket: Bucket, options: ListOptions, done: Callback<ListPage>): void
}

/** What an edge may ask about buckets. Names: 1 to 128 bytes of A-Z a-z 0-9 . _ - */
export type BucketAdmin = {
  /** A map look-up: no I/O. */
  find(name: string): Bucket | undefined
  all(): readonly Bucket[]
  /** Creates it or changes its mutable properties (`n` and `conflict` are immutable: CONFLICT). */
  put(
    name: string,
    properties: BucketProperties,
    done: Callback<{ readonly bucket: Bucket; readonly created: boolean }>,
  ): void
  /** Retires its id: its data is gone at once and reclaimed later. `default` cannot be deleted (CONFLICT). */
  delete(name: string, done: Callback<undefined>): void
}

export type BucketProperties = Partial<Omit<Bucket, 'id' | 'name'>>
