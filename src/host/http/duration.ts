/** Durations as users write them: `1500` and `1500ms` are milliseconds, `30s`, `5m`, `2h` and `7d` carry their unit. */

const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/**
 * Milliseconds of a duration in decimal digits with an optional unit. Undefined if it is malformed, zero, or above `maxMs`:
 * a duration is never clamped, since a caller who asked for 200 years must not get 100 (CASSANDRA-14092).
 */
export function parseDurationMs(text: string, maxMs: number): number | undefined {
  let digits = 0
  let value = 0
  while (digits < text.length) {
    const digit = text.charCodeAt(digits) - 48
    if (digit < 0 || digit > 9) break
    value = value * 10 + digit
    digits++
  }
  if (digits === 0 || digits > 15) return undefined
  const unit = digits === text.length ? 'ms' : text.slice(digits)
  const scale = Object.hasOwn(unitMs, unit) ? unitMs[unit]! : 0
  const milliseconds = value * scale
  return milliseconds > 0 && milliseconds <= maxMs ? milliseconds : undefined
}
