/** "Did you mean ...?" for names that nobody knows. */
import { nearestName } from '../base/edit-distance.ts'

/**
 * ` (did you mean X?)` for the known name closest to `name`, or an empty text when none is close: at most 2 mistakes,
 * and fewer than half of the letters.
 */
export function suggestionFor(name: string, known: Iterable<string>): string {
  if (name.length > 100) return ''
  const nearest = nearestName(name, known, Math.min(2, Math.ceil(name.length / 2) - 1))
  return nearest === undefined ? '' : ` (did you mean ${nearest}?)`
}
