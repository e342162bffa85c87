/** How far apart two names are, for "did you mean ...?". */

/**
 * Damerau-Levenshtein distance (optimal string alignment): a swapped pair is one mistake. Time grows with the product of the
 * lengths, so callers bound what strangers send.
 */
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

/** The known name with the fewest mistakes, ignoring case, if it has at most `mistakesMax`; the first of equals. */
export function nearestName(name: string, known: Iterable<string>, mistakesMax: number): string | undefined {
  let nearest: string | undefined
  let fewest = mistakesMax + 1
  for (const candidate of known) {
    const mistakes = editDistance(name.toLowerCase(), candidate.toLowerCase())
    if (mistakes >= fewest) continue
    nearest = candidate
    fewest = mistakes
  }
  return nearest
}
