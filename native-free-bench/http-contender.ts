/**
 * A server as a contender: it runs in a process of its own and is measured from this one. A round is a closed loop, whose
 * rate is the measured value, then open loops at 50 % and 80 % of the contender's own peak, whose latencies are counts.
 */
import type { Contender, Measurement } from './case.ts'
import { perOperation } from './counts.ts'
import { Child } from './isolate.ts'
import { LoadGenerator, type LoadTarget } from './load-generator.ts'

export type HttpPlan = {
  /** Server module relative to this folder; it must tell the fact `port`. */
  readonly module: string
  readonly options: unknown
  readonly requests: readonly Uint8Array[]
  readonly replies: LoadTarget['replies']
  readonly connections: number
  readonly roundMs: number
  /** Keys that one request stands for. */
  readonly keysPerRequest?: number
  /** Whether latency at 50 % and 80 % of the peak is measured too. */
  readonly latency?: boolean
  /** Flags of the server's process. */
  readonly nodeFlags?: readonly string[]
}

const shares = [0.5, 0.8]

/** An opener of the server and of the load generator that measures it. */
export function overHttp(plan: HttpPlan): () => Promise<Contender> {
  return async () => {
    const server = await Child.open(plan.module, plan.options, plan.nodeFlags)
    try {
      const { requests, replies, connections } = plan
      const load = await LoadGenerator.connect({
        port: server.fact('port'),
        connections,
        threads: 1,
        requests,
        replies,
      })
      return new HttpContender(plan, server, load)
    } catch (error) {
      await server.close()
      throw error
    }
  }
}

class HttpContender {
  readonly #plan: HttpPlan
  readonly #server: Child
  readonly #load: LoadGenerator
  #peak = 0

  constructor(plan: HttpPlan, server: Child, load: LoadGenerator) {
    this.#plan = plan
    this.#server = server
    this.#load = load
  }

  async run(): Promise<Measurement> {
    const { roundMs, keysPerRequest = 1, latency = false } = this.#plan
    const before = await this.#server.totals()
    const result = await this.#load.run({ durationMs: roundMs })
    const { 'heap B/op': _, ...counts } = perOperation(before, await this.#server.totals(), result.replies)
    refuseFailures(result.failures)
    this.#peak = Math.max(this.#peak, result.repliesPerSecond)
    counts['p50 ms at 100 %'] = result.latency.percentile(50) / 1e6
    counts['p99 ms at 100 %'] = result.latency.percentile(99) / 1e6
    if (latency) {
      for (const share of shares) Object.assign(counts, await this.#latencyAt(share))
    }
    return { value: result.repliesPerSecond * keysPerRequest, operations: result.replies, counts }
  }

  async close(): Promise<void> {
    await this.#load.close()
    await this.#server.close()
  }

  async #latencyAt(share: number): Promise<Record<string, number>> {
    const rate = { durationMs: this.#plan.roundMs / 2, ratePerSecond: this.#peak * share }
    const { latency, failures, unsent } = await this.#load.run(rate)
    refuseFailures(failures)
    const suffix = `ms at ${share * 100} %`
    return {
      [`p50 ${suffix}`]: latency.percentile(50) / 1e6,
      [`p99 ${suffix}`]: latency.percentile(99) / 1e6,
      [`unsent at ${share * 100} %`]: unsent,
    }
  }
}

function refuseFailures(failures: number): void {
  if (failures > 0) throw new Error(`${failures} replies were not 2xx`)
}

/** One request as it stands on the wire. `body` undefined: none. */
export function renderRequest(method: string, path: string, body?: Uint8Array, contentType?: string): Uint8Array {
  const lines = [`${method} ${path} HTTP/1.1`, 'Host: 127.0.0.1']
  if (body !== undefined) {
    lines.push(`Content-Type: ${contentType ?? 'application/octet-stream'}`, `Content-Length: ${body.length}`)
  }
  return Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), body ?? Buffer.alloc(0)])
}
