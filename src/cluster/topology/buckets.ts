/** What properties a bucket may have. */
import { Limits } from '../../config.ts'
import type { BucketLevel, TopologyBucket } from './topology.ts'

export type BucketProperties = { readonly [Name in keyof Omit<TopologyBucket, 'id' | 'name'>]?: TopologyBucket[Name] }

/** The bucket that always exists. */
export const defaultBucketName = 'default'

export const newBucketProperties = {
  n: 3,
  r: 'quorum',
  w: 'quorum',
  sloppy: false,
  conflict: 'siblings',
  durability: undefined,
  ttlMs: undefined,
  valueBytesMax: undefined,
} as const satisfies Omit<TopologyBucket, 'id' | 'name'>

/** What is wrong with a bucket; undefined where nothing is. */
export function bucketProblem(bucket: Omit<TopologyBucket, 'id'>): string | undefined {
  const { name, n, r, w, sloppy, conflict, durability, ttlMs, valueBytesMax } = bucket
  if (name.length > Limits.bucketNameBytesMax || !/^[A-Za-z0-9._-]+$/.test(name)) {
    return `name "${name.slice(0, 200)}": use 1 to ${Limits.bucketNameBytesMax} of A-Z a-z 0-9 . _ -`
  }
  if (!isWhole(n, 1, Limits.replicasMax)) return `n=${n}: it must be 1 to ${Limits.replicasMax}`
  if (!isLevel(r, n)) return `r=${r}: it must be one, quorum, all, or 1 to n`
  if (!isLevel(w, n)) return `w=${w}: it must be one, quorum, all, or 1 to n`
  if (typeof sloppy !== 'boolean') return `sloppy=${String(sloppy)}: it must be true or false`
  if (conflict !== 'siblings' && conflict !== 'lww') return `conflict=${String(conflict)}: it must be siblings or lww`
  if (durability !== undefined && !['sync', 'interval', 'os'].includes(durability)) {
    return `durability=${String(durability)}: it must be sync, interval or os`
  }
  if (ttlMs !== undefined && !isWhole(ttlMs, 1, Limits.ttlMsMax)) {
    return `ttl=${ttlMs}: it must be a whole number of milliseconds from 1 to ${Limits.ttlMsMax}`
  }
  if (valueBytesMax !== undefined && !isWhole(valueBytesMax, 1, Limits.valueBytesMax)) {
    return `valueBytesMax=${valueBytesMax}: it must be 1 to ${Limits.valueBytesMax}`
  }
  return undefined
}

function isLevel(level: BucketLevel, n: number): boolean {
  return level === 'one' || level === 'quorum' || level === 'all' || (typeof level === 'number' && isWhole(level, 1, n))
}

function isWhole(value: number, least: number, most: number): boolean {
  return Number.isInteger(value) && value >= least && value <= most
}
