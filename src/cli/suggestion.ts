/** "Did you mean ...?" for names that nobody knows. */

/** Damerau-Levenshtein distance (optimal string alignment): a swapped pair is one mistake. O(a x b). */
export function editDistance(a: string, b: string): number {
  let before: number[] = []
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1
      let best = Math.min(previous[j]! + 1, row[j - 1]! + 1, previous[j - 1]! + cost)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, before[j - 2]! + 1)
      row.push(best)
    }
    before = previous
    previous = row
  }
  return previous[b.length]!
}

/**
 * ` (did you mean X?)` for the known name closest to `name`, or an empty text when none is close: at most 2 mistakes,
 * and fewer than half of the letters.
 */
export function suggestionFor(name: string, known: Iterable<string>): string {
  if (name.length > 100) return ''
  let closest = ''
  let distanceMin = Math.min(2, Math.ceil(name.length / 2) - 1) + 1
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase())
    if (distance < distanceMin) {
      closest = candidate
      distanceMin = distance
    }
  }
  return closest === '' ? '' : ` (did you mean ${closest}?)`
}
