/** The name a user probably meant: the nearest of the known ones by edit distance, or none where nothing is near. */

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let row = 1; row <= a.length; row++) {
    const current = [row]
    for (let column = 1; column <= b.length; column++) {
      const replaced = previous[column - 1]! + (a[row - 1] === b[column - 1] ? 0 : 1)
      current.push(Math.min(replaced, previous[column]! + 1, current[column - 1]! + 1))
    }
    previous = current
  }
  return previous[b.length]!
}

/**
 * The end of a sentence about an unknown name: `; did you mean 'ttl'?`, or the list of what is known. Names longer than 32
 * characters are not compared, so that the cost does not grow with hostile input.
 */
export function suggest(unknown: string, known: readonly string[]): string {
  let best: string | undefined
  let bestDistance = 3
  if (unknown.length <= 32) {
    for (const name of known) {
      const distance = editDistance(unknown.toLowerCase(), name.toLowerCase())
      if (distance < bestDistance && distance < name.length) {
        best = name
        bestDistance = distance
      }
    }
  }
  if (best !== undefined) return `; did you mean '${best}'?`
  return known.length === 0 ? '; there are none here' : `; known are ${known.join(', ')}`
}

/** A user's text for an error message: quoted, and cut to 64 characters. */
export function quote(text: string): string {
  return `'${text.length > 64 ? `${text.slice(0, 64)}...` : text}'`
}
