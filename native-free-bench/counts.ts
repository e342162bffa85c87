/**
 * Counts of a process while it works, which the noise of a shared machine cannot touch: heap bytes allocated, system calls
 * that read or write, bytes handed to the kernel, times a thread went to sleep, and processor time.
 *
 * Heap bytes are those of the thread that asks; the rest is the whole process. What the operating system does not tell
 * (anything but Linux) is left out rather than shown as 0.
 */
import { readFileSync } from 'node:fs'
import { getHeapStatistics } from 'node:v8'

/** Running totals; names carry the unit. */
export type Totals = Readonly<Record<string, number>>

/** Totals since the process started. */
export function totalsNow(): Totals {
  const usage = process.resourceUsage()
  const totals: Record<string, number> = {
    'cpu us': usage.userCPUTime + usage.systemCPUTime,
    sleeps: usage.voluntaryContextSwitches,
  }
  // @types/node lags behind: the field is in V8 since Node 24.
  const heap = getHeapStatistics() as ReturnType<typeof getHeapStatistics> & { total_allocated_bytes?: number }
  if (heap.total_allocated_bytes !== undefined) totals['heap B'] = heap.total_allocated_bytes
  const io = processIo()
  if (io !== undefined) {
    totals['read+write calls'] = io.calls
    totals['written B'] = io.bytesWritten
  }
  return totals
}

/** What happened from `before` to `after`, per operation; a `longest ...` is no sum and stays as it is after. */
export function perOperation(before: Totals, after: Totals, operations: number): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const [name, total] of Object.entries(after)) {
    const start = before[name]
    if (name.startsWith('longest')) counts[name] = total
    else if (start !== undefined) counts[`${name}/op`] = (total - start) / operations
  }
  return counts
}

function processIo(): { calls: number; bytesWritten: number } | undefined {
  try {
    const text = readFileSync('/proc/self/io', 'latin1')
    const field = (name: string): number => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(text)?.[1])
    const calls = field('syscr') + field('syscw')
    const bytesWritten = field('wchar')
    return Number.isFinite(calls + bytesWritten) ? { calls, bytesWritten } : undefined
  } catch {
    return undefined
  }
}
