import { bucketIdOf } from '../src/base/ids.ts'
import { newBucketProperties } from '../src/cluster/topology/buckets.ts'
import { Limits } from '../src/config.ts'
import type { Bucket } from '../src/replication/requests.ts'

/** A bucket as a cluster makes one, with what a test wants otherwise. */
export const bucketOf = (parts: Partial<Bucket> = {}): Bucket => ({
  id: bucketIdOf(1),
  name: 'default',
  ...newBucketProperties,
  valueBytesMax: Limits.valueBytesDefault,
  ...parts,
})
