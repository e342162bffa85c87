/** What `sunwise bench` prints of one benchmark: db_bench's line and percentiles, a histogram if wanted, or one JSON object. */
import { histogramValueMax } from '../../base/histogram.ts'
import { formatCount } from '../quantity.ts'
import type { BenchResult } from './bench-run.ts'

const percentiles = { p50: 50, p99: 99, p999: 99.9 } as const
const barWidth = 20

/** Milliseconds over operations, in microseconds. */
const microsPerOperation = ({ elapsedMs, operations }: BenchResult): number => (elapsedMs * 1000) / operations

/** `fillseq : 2.1 micros/op 476,190 ops/s 53 MB/s; p50 ...`, in one line. MB are 2^20 bytes, as db_bench counts. */
export function resultLine(result: BenchResult): string {
  const { name, operations, elapsedMs, bytes, reads, found, histogram } = result
  const seconds = elapsedMs / 1000
  const latencies = Object.entries(percentiles).map(
    ([label, percent]) => `${label.replace('p999', 'p99.9')} ${microsText(histogram.percentile(percent))}`,
  )
  const rate = `${formatCount(operations / seconds)} ops/s`
  const megabytes = `${(bytes / 2 ** 20 / seconds).toFixed(1)} MB/s`
  const share = reads === 0 ? '' : ` (${formatCount(found)} of ${formatCount(reads)} found)`
  return `${name.padEnd(16)} : ${microsPerOperation(result).toFixed(3)} micros/op ${rate} ${megabytes}; ${latencies.join(' ')} us${share}`
}

const microsText = (nanoseconds: number): string => (nanoseconds / 1000).toFixed(nanoseconds < 100_000 ? 2 : 0)

/** The same as data; times in microseconds. */
export function resultObject(result: BenchResult): Record<string, number | string> {
  const { name, operations, elapsedMs, bytes, reads, found, histogram } = result
  return {
    name,
    operations,
    seconds: elapsedMs / 1000,
    microsPerOperation: microsPerOperation(result),
    operationsPerSecond: (operations * 1000) / elapsedMs,
    bytesPerSecond: (bytes * 1000) / elapsedMs,
    reads,
    found,
    p50Micros: histogram.percentile(50) / 1000,
    p99Micros: histogram.percentile(99) / 1000,
    p999Micros: histogram.percentile(99.9) / 1000,
    maxMicros: histogram.max() / 1000,
  }
}

/** One line per power of two nanoseconds in which something was counted: how many, their share, the share up to there, a bar. */
export function histogramLines(result: BenchResult): string[] {
  const { histogram } = result
  const count = histogram.count()
  const lines: string[] = []
  let below = 0
  for (let limit = 127; below < count && limit <= histogramValueMax; limit = 2 * limit + 1) {
    const upTo = histogram.countAtMost(limit)
    const share = (upTo - below) / count
    if (share > 0) {
      const range = `<= ${((limit + 1) / 1000).toFixed(3)} us`.padStart(20)
      const cells = [String(upTo - below).padStart(10), percentText(share), percentText(upTo / count)]
      lines.push(`${range} ${cells.join(' ')} ${'#'.repeat(Math.round(share * barWidth))}`.trimEnd())
    }
    below = upTo
  }
  return lines
}

const percentText = (share: number): string => `${(100 * share).toFixed(2)} %`.padStart(9)
