/** Which buckets a thread knows: what is of a deleted one may be dropped, and what is of one that it has not heard of yet must not. */

/** Can be posted between threads. */
export type KnownBuckets = {
  readonly live: ReadonlySet<number>
  /** Ids are given out in order: from this one on they are not known. */
  readonly below: number
}

/** Whether a bucket was deleted: its id was given out, and is not in use. */
export function isRetired({ live, below }: KnownBuckets, bucketId: number): boolean {
  return bucketId < below && !live.has(bucketId)
}
