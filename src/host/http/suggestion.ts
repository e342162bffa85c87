/** The name a user probably meant: the nearest of the known ones by edit distance, or none where nothing is near. */
import { nearestName } from '../../base/edit-distance.ts'

/**
 * The end of a sentence about an unknown name: `; did you mean 'ttl'?`, or the list of what is known. Names longer than 32
 * characters are not compared, so that the cost does not grow with hostile input.
 */
export function suggest(unknown: string, known: readonly string[]): string {
  const isShort = unknown.length <= 32
  const candidates = known.filter((name) => name.length > 1)
  const nearest = isShort ? nearestName(unknown, candidates, Math.min(2, unknown.length - 1)) : undefined
  if (nearest !== undefined) return `; did you mean '${nearest}'?`
  return known.length === 0 ? '; there are none here' : `; known are ${known.join(', ')}`
}

/** A user's text for an error message: quoted, and cut to 64 characters. */
export function quote(text: string): string {
  return `'${text.length > 64 ? `${text.slice(0, 64)}...` : text}'`
}
