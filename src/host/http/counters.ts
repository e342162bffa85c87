/**
 * Counters of the HTTP front end, one array per thread over shared memory, and their Prometheus text. A thread alone writes
 * its array; the thread that renders reads all of them. Counting allocates nothing.
 *
 * The array holds 64-bit floats, at these indices:
 *
 *     0                    connections open now
 *     1                    connections accepted
 *     2                    connections refused at the limit
 *     3                    requests that were not HTTP or did not arrive in time
 *     4                    bytes of request bodies
 *     5                    bytes of response bodies
 *     6                    requests whose client went away before the answer
 *     8  + method * 6      requests by method and status class (index 1 to 5 of the class)
 *     44 + method * 20     latency of a method: 18 buckets (not cumulative), then the sum of milliseconds
 *     164 + code number    problem answers by error code
 *
 * A reader may see a count that is a moment old; on 64-bit machines a number is never half written.
 */
import { type ErrorCode, ErrorTable, errorNumberOf } from '../../base/errors.ts'

/** Methods in the order of their numbers; the last stands for all others. */
export const countedMethods = ['GET', 'HEAD', 'PUT', 'DELETE', 'POST', 'OTHER'] as const

/** Upper bounds of the latency buckets in milliseconds; one more bucket takes what is above. */
const boundsMs = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000]

const openAt = 0
const acceptedAt = 1
const droppedAt = 2
const clientErrorsAt = 3
const bytesInAt = 4
const bytesOutAt = 5
const abandonedAt = 6
const requestsAt = 8
const latencyAt = requestsAt + countedMethods.length * 6
const latencyStride = 20
const problemsAt = latencyAt + countedMethods.length * latencyStride
const length = problemsAt + Object.keys(ErrorTable).length + 1

/** The number of a method for `HttpCounters.request`. */
export function methodNumberOf(method: string | undefined): number {
  switch (method) {
    case 'GET':
      return 0
    case 'HEAD':
      return 1
    case 'PUT':
      return 2
    case 'DELETE':
      return 3
    case 'POST':
      return 4
    default:
      return 5
  }
}

/** One thread's counters. */
export class HttpCounters {
  /** Bytes of shared memory that one thread's counters need. */
  static readonly bytes = length * 8
  readonly #values: Float64Array

  /** Over `memory` (zeroed, at least `HttpCounters.bytes`), which other threads may read; without it, fresh shared memory. */
  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(HttpCounters.bytes)) {
    this.#values = new Float64Array(memory, 0, length)
  }

  /** The numbers, for rendering; never written by the reader. */
  get values(): Float64Array {
    return this.#values
  }

  /** A request was answered. `durationMs` runs from its headers to the answer's last byte handed to the socket. */
  request(methodNumber: number, status: number, durationMs: number, bytesIn: number, bytesOut: number): void {
    const values = this.#values
    const statusClass = (status / 100) | 0
    const request = requestsAt + methodNumber * 6 + (statusClass >= 1 && statusClass <= 5 ? statusClass : 5)
    values[request] = values[request]! + 1
    let bucket = 0
    while (bucket < boundsMs.length && durationMs > boundsMs[bucket]!) bucket++
    const latency = latencyAt + methodNumber * latencyStride
    values[latency + bucket] = values[latency + bucket]! + 1
    const sum = latency + boundsMs.length + 1
    values[sum] = values[sum]! + durationMs
    values[bytesInAt] = values[bytesInAt]! + bytesIn
    values[bytesOutAt] = values[bytesOutAt]! + bytesOut
  }

  /** An answer was a problem document of this code. */
  problem(code: ErrorCode): void {
    this.#add(problemsAt + (errorNumberOf.get(code) ?? 0), 1)
  }

  connectionOpened(): void {
    this.#add(openAt, 1)
    this.#add(acceptedAt, 1)
  }

  connectionClosed(): void {
    this.#add(openAt, -1)
  }

  connectionDropped(): void {
    this.#add(droppedAt, 1)
  }

  /** Something that is not HTTP, or a request that did not arrive in time. */
  clientError(): void {
    this.#add(clientErrorsAt, 1)
  }

  /** The client went away before its answer. */
  requestAbandoned(): void {
    this.#add(abandonedAt, 1)
  }

  #add(index: number, amount: number): void {
    this.#values[index] = this.#values[index]! + amount
  }
}

/** The sum of all threads' counters as Prometheus text (exposition format 0.0.4), each family with HELP and TYPE. */
export function renderHttpMetrics(counters: readonly HttpCounters[]): string {
  const total = new Float64Array(length)
  for (const one of counters) for (let index = 0; index < length; index++) total[index]! += one.values[index]!
  const lines: string[] = []
  const family = (name: string, type: string, help: string): void => {
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`)
  }
  const single = (name: string, type: string, help: string, index: number): void => {
    family(name, type, help)
    lines.push(`${name} ${total[index]}`)
  }
  single('sunwise_http_connections', 'gauge', 'HTTP connections open now', openAt)
  single('sunwise_http_connections_accepted_total', 'counter', 'HTTP connections accepted', acceptedAt)
  single('sunwise_http_connections_dropped_total', 'counter', 'HTTP connections refused at the limit', droppedAt)
  single(
    'sunwise_http_client_errors_total',
    'counter',
    'Requests that were not HTTP or did not arrive in time',
    clientErrorsAt,
  )
  single(
    'sunwise_http_requests_abandoned_total',
    'counter',
    'Requests whose client went away before the answer',
    abandonedAt,
  )
  single('sunwise_http_request_bytes_total', 'counter', 'Bytes of request bodies', bytesInAt)
  single('sunwise_http_response_bytes_total', 'counter', 'Bytes of response bodies', bytesOutAt)

  family('sunwise_http_requests_total', 'counter', 'Requests answered, by method and status class')
  countedMethods.forEach((method, number) => {
    for (let statusClass = 1; statusClass <= 5; statusClass++) {
      const count = total[requestsAt + number * 6 + statusClass]!
      if (statusClass > 1) {
        lines.push(`sunwise_http_requests_total{method="${method}",status="${statusClass}xx"} ${count}`)
      }
    }
  })

  family('sunwise_http_request_duration_seconds', 'histogram', 'Time from request headers to the answer, by method')
  countedMethods.forEach((method, number) => {
    const start = latencyAt + number * latencyStride
    let cumulative = 0
    for (let bucket = 0; bucket <= boundsMs.length; bucket++) {
      cumulative += total[start + bucket]!
      const bound = bucket === boundsMs.length ? '+Inf' : String(boundsMs[bucket]! / 1000)
      lines.push(`sunwise_http_request_duration_seconds_bucket{method="${method}",le="${bound}"} ${cumulative}`)
    }
    const sumSeconds = Math.round(total[start + boundsMs.length + 1]! * 1e6) / 1e9
    lines.push(`sunwise_http_request_duration_seconds_sum{method="${method}"} ${sumSeconds}`)
    lines.push(`sunwise_http_request_duration_seconds_count{method="${method}"} ${cumulative}`)
  })

  family('sunwise_http_problems_total', 'counter', 'Problem answers, by error code')
  for (const [code, number] of errorNumberOf) {
    lines.push(`sunwise_http_problems_total{code="${code}"} ${total[problemsAt + number]}`)
  }
  return `${lines.join('\n')}\n`
}
