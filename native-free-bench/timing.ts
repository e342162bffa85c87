/** Loops that time work for a given while: one for synchronous calls, one for calls that are in flight together. */
import type { Measurement } from './case.ts'

/**
 * Calls `work(count)` until `durationMs` has passed; `work` does `count` operations. The clock is read once per call, so
 * `count` is to be some hundred operations at least. The value is nanoseconds per operation.
 */
export function timeLoop(durationMs: number, count: number, work: (count: number) => void): Measurement {
  let operations = 0
  const start = performance.now()
  let elapsedMs = 0
  do {
    work(count)
    operations += count
    elapsedMs = performance.now() - start
  } while (elapsedMs < durationMs)
  return { value: (elapsedMs * 1e6) / operations, operations, counts: {} }
}

/**
 * Keeps `inFlight` calls of `operate` waiting at once until `durationMs` has passed, then waits for the last of them. Each
 * call stands for `weight` operations. The value is operations per second.
 */
export async function timeInFlight(
  durationMs: number,
  inFlight: number,
  weight: number,
  operate: () => Promise<unknown>,
): Promise<Measurement> {
  let calls = 0
  const start = performance.now()
  const end = start + durationMs
  const loop = async (): Promise<void> => {
    do {
      await operate()
      calls++
    } while (performance.now() < end)
  }
  await Promise.all(Array.from({ length: inFlight }, loop))
  const operations = calls * weight
  return { value: (operations * 1000) / (performance.now() - start), operations, counts: {} }
}
