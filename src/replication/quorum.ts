/** The arithmetic of quorums: values in, values out. */
import { SunwiseError } from '../base/errors.ts'
import type { QuorumLevel } from './requests.ts'

/** How many of `replicas` copies a level asks for; a majority for `quorum`. Undefined level: the bucket's. */
export function acksNeeded(level: QuorumLevel, replicas: number): number {
  if (level === 'one') return 1
  if (level === 'quorum') return Math.floor(replicas / 2) + 1
  if (level === 'all') return replicas
  return level
}

/**
 * Checks a level against a bucket's `n` and the replicas there are now.
 *
 * @returns BAD_QUORUM for a number that is not from 1 to n, QUORUM_NOT_MET (outcome none) for more than there are now.
 */
export function checkLevel(level: QuorumLevel, n: number, replicas: number, name: 'r' | 'w'): SunwiseError | undefined {
  if (typeof level !== 'number') return undefined
  if (!Number.isInteger(level) || level < 1 || level > n) {
    return new SunwiseError(
      'BAD_QUORUM',
      `Cannot use ${name}=${level}: it must be an integer from 1 to the bucket's n, ${n}`,
    )
  }
  if (level > replicas) {
    return new SunwiseError('QUORUM_NOT_MET', `Cannot reach ${name}=${level}: there are ${replicas} replicas now`, {
      outcome: 'none',
      extra: { needed: level, replicas },
    })
  }
  return undefined
}
