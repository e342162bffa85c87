/** What is said where replicas refuse, are too few, or send what cannot be read. */
import { SunwiseError } from '../base/errors.ts'
import type { ActorRegistry } from '../versions/actor-registry.ts'
import { decodeSet } from '../versions/set-codec.ts'
import type { VersionSet } from '../versions/version-set.ts'
import { messageOf } from './checks.ts'

/** A replica that disagrees on who holds a key is asked again after so long: news of an epoch travel in less. */
export const askAgainMs = 50

export function quorumNotMet(
  needed: number,
  acks: number,
  replicas: number,
  outcome: 'none' | 'partial',
): SunwiseError {
  const message = `Cannot reach ${needed} of the key's ${replicas} replicas: ${acks} ${acks === 1 ? 'answers' : 'answer'}`
  return new SunwiseError('QUORUM_NOT_MET', message, { outcome, extra: { needed, acks, replicas } })
}

export function wrongEpoch(): SunwiseError {
  return new SunwiseError('WRONG_EPOCH', 'This node does not hold the key any more; try again')
}

/** What another node says that it could not do. */
export function failureOf(
  { code, outcome }: { readonly code: SunwiseError['code']; readonly outcome: SunwiseError['outcome'] },
  node: string,
): SunwiseError {
  return new SunwiseError(code, `${messageOf(code)} (${node})`, { outcome })
}

/** Whether a replica and who asked it did not agree yet on who holds the key, and in a moment do; nothing was done. */
export function passesSoon(failure: { readonly code: SunwiseError['code'] } | undefined): boolean {
  return failure?.code === 'WRONG_EPOCH' || failure?.code === 'NOT_READY'
}

/** The versions that a replica sent, or INTERNAL. */
export function decodedSet(bytes: Uint8Array, actors: ActorRegistry): VersionSet | SunwiseError {
  const set = decodeSet(bytes, 0, bytes.length, actors.indexOf)
  if (typeof set !== 'string') return set
  return new SunwiseError('INTERNAL', `Cannot read the versions that a replica sent: ${set}`)
}
