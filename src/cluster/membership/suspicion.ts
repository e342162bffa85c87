/**
 * How long a member is suspected before it is taken for down: Lifeguard's dynamic suspicion (Dadgar, Phillips, Currey, "Lifeguard: Local
 * Health Awareness for More Accurate Failure Detection", 2018), with the formulas of hashicorp/memberlist.
 *
 *   least   multiplier x max(1, log10 n) x probe interval        a suspicion that others confirmed; `leastMsMax` at the most
 *   most    6 x least                                            one that nobody did
 *   wanted  multiplier - 2 confirmations bring it from `most` down to `least`, by the logarithm of their number
 *
 * In a cluster so small that there are not as many others, nobody could confirm: `least` at once, but never below
 * `smallClusterMs`, since one lost ping must not decide. In a large one news need hops, whose number grows with log n, but each takes
 * a fraction of a second: what a stall and its refutation need stops growing long before, and so does `least`.
 */

export type SuspicionOptions = {
  readonly multiplier: number
  readonly maxMultiplier: number
  readonly probeIntervalMs: number
  readonly smallClusterMs: number
  readonly leastMsMax: number
}

/** Confirmations by others that make a suspicion as short as it gets, in a cluster of `members`. */
export function confirmationsWanted(members: number, { multiplier }: SuspicionOptions): number {
  const wanted = Math.max(0, multiplier - 2)
  // Neither the suspect nor who suspects it can confirm.
  return members - 2 < wanted ? 0 : wanted
}

/** Milliseconds from the first suspicion of a member to its end, with `confirmations` by others so far. */
export function suspicionMs(members: number, confirmations: number, options: SuspicionOptions): number {
  const { multiplier, maxMultiplier, probeIntervalMs, smallClusterMs, leastMsMax } = options
  const grown = multiplier * Math.max(1, Math.log10(Math.max(1, members))) * probeIntervalMs
  const least = Math.min(grown, leastMsMax)
  const wanted = confirmationsWanted(members, options)
  if (wanted === 0) return Math.max(least, smallClusterMs)
  const most = maxMultiplier * least
  const share = Math.log(confirmations + 1) / Math.log(wanted + 1)
  return Math.max(least, most - (most - least) * share)
}
