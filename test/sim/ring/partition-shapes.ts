/**
 * Shapes of a network that is not whole, as the links that are cut in them:
 *
 *   halves       two groups, about as large
 *   one          one node by itself
 *   bridge       two groups that only one node reaches
 *   majorities   each node reaches another majority: those next to it in a ring
 *   deaf, mute   one node that nothing reaches, or that reaches nobody
 *   oneWay       one group hears the other, and is not heard
 *   scattered    every other link, whichever way
 */
export const partitionShapes = [
  'halves',
  'one',
  'bridge',
  'majorities',
  'deaf',
  'mute',
  'oneWay',
  'scattered',
  'mend',
] as const
export type PartitionShape = Exclude<(typeof partitionShapes)[number], 'mend'>

export type Cut = readonly [from: string, to: string]

/** The links that are cut, each way by itself; which node has which part is by the order of the names. */
export function cutsOf(shape: PartitionShape, names: readonly string[]): Cut[] {
  const half = Math.max(1, Math.floor(names.length / 2))
  const [left, right] = [names.slice(0, half), names.slice(half)]
  switch (shape) {
    case 'halves':
      return bothWays(pairsOf(left, right))
    case 'one':
      return bothWays(pairsOf(names.slice(0, 1), names.slice(1)))
    case 'bridge':
      return bothWays(pairsOf(left, right.slice(0, -1)))
    case 'majorities':
      return bothWays(pairsBeyond(names, Math.ceil(Math.floor(names.length / 2) / 2)))
    case 'deaf':
      return pairsOf(names.slice(1), names.slice(0, 1))
    case 'mute':
      return pairsOf(names.slice(0, 1), names.slice(1))
    case 'oneWay':
      return pairsOf(left, right)
    default:
      return pairsOf(names, names).filter(([from, to], index) => from !== to && index % 2 === 0)
  }
}

function pairsOf(from: readonly string[], to: readonly string[]): Cut[] {
  return from.flatMap((one) => to.map((other): Cut => [one, other]))
}

/** Pairs that are farther from each other than that, around the ring. */
function pairsBeyond(names: readonly string[], reach: number): Cut[] {
  return names.flatMap((one, place) =>
    names.slice(place + 1).flatMap((other, distance): Cut[] => {
      const forward = distance + 1
      return Math.min(forward, names.length - forward) > reach ? [[one, other]] : []
    }),
  )
}

function bothWays(cuts: readonly Cut[]): Cut[] {
  return cuts.flatMap(([from, to]): Cut[] => [
    [from, to],
    [to, from],
  ])
}
