/** What the front end's tests share: a server over the fake coordinator, a keep-alive client, and raw sockets. */
import { type IncomingHttpHeaders, request } from 'node:http'
import { connect } from 'node:net'
import type { EpochMs, MonotonicMs } from '../../../src/base/ids.ts'
import { HttpCounters, renderHttpMetrics } from '../../../src/host/http/counters.ts'
import { type HttpLimits, httpLimitsOf } from '../../../src/host/http/front.ts'
import { createHttpServer, type HttpServer, type HttpServerOptions } from '../../../src/host/http/server.ts'
import { FakeBuckets, FakeCoordinator } from './fake-coordinator.ts'

export type Answer = {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

export type CallOptions = {
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Uint8Array | string
}

/** Limits of a node of ordinary size. */
export function limitsFor(valueBytesMax: number): HttpLimits {
  return httpLimitsOf({ memoryBytes: 2 ** 30, shards: 1, valueBytesMax })
}

export class Harness {
  readonly coordinator = new FakeCoordinator()
  readonly buckets = new FakeBuckets()
  readonly counters = new HttpCounters()
  readonly logged: string[] = []
  readonly live: string[] = []
  readonly ready: string[] = []
  readonly warnings: string[] = []
  readonly server: HttpServer
  port = 0

  constructor(options: Partial<HttpServerOptions> = {}) {
    this.server = createHttpServer({
      coordinator: this.coordinator,
      buckets: this.buckets,
      clock: {
        monotonicMs: () => performance.now() as MonotonicMs,
        epochMs: () => Date.now() as EpochMs,
      },
      limits: limitsFor(1024 * 1024),
      counters: this.counters,
      logger: { error: (message) => this.logged.push(message) },
      requestIdPrefix: 'test-',
      health: { liveProblems: () => this.live, readyProblems: () => this.ready, readyWarnings: () => this.warnings },
      metrics: () => renderHttpMetrics([this.counters]),
      version: '1.2.3',
      nodeId: 'n1',
      allowedHosts: ['kv.example'],
      ...options,
    })
  }

  static async start(options: Partial<HttpServerOptions> = {}): Promise<Harness> {
    const harness = new Harness(options)
    const address = await harness.server.listen({ host: '127.0.0.1', port: 0, reusePort: false, exclusive: true })
    harness.port = address.port
    return harness
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.drain(0)
  }

  call(method: string, path: string, options: CallOptions = {}): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const outgoing = request({ host: '127.0.0.1', port: this.port, method, path, headers: { ...options.headers } })
      outgoing.on('error', reject)
      outgoing.on('response', (incoming) => {
        const chunks: Buffer[] = []
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
        incoming.on('error', reject)
        incoming.on('end', () => {
          resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: Buffer.concat(chunks) })
        })
      })
      outgoing.end(options.body)
    })
  }

  async json(method: string, path: string, options: CallOptions = {}): Promise<Record<string, unknown>> {
    const answer = await this.call(method, path, options)
    return { ...JSON.parse(answer.body.toString()), httpStatus: answer.status }
  }

  /** Sends pieces on one connection, ends it if asked to, and gives what came back until the server closed or `enough`. */
  raw(
    pieces: readonly (string | Buffer)[],
    options: { end?: boolean; enough?: (text: string) => boolean } = {},
  ): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.port, '127.0.0.1')
      let text = ''
      const timer = setTimeout(() => {
        socket.destroy()
        reject(new Error(`The server left the connection open after ${JSON.stringify(text.slice(0, 500))}`))
      }, 10_000)
      socket.on('error', () => {})
      socket.on('close', () => {
        clearTimeout(timer)
        resolve(text)
      })
      socket.on('data', (chunk) => {
        text += chunk.toString('latin1')
        if (options.enough?.(text) === true) socket.destroy()
      })
      for (const piece of pieces) socket.write(piece)
      if (options.end === true) socket.end()
    })
  }
}

/** The status codes of the answers in a raw response text. */
export function statusesOf(text: string): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]))
}

/** The code of the first problem document in a raw response text. */
export function problemCodeOf(text: string): string | undefined {
  return /"code":"([A-Z_]+)"/.exec(text)?.[1]
}

/** Waits until a condition that another part of this process makes true is true; rejects after `limitMs`. */
export function until(condition: () => boolean, limitMs = 10_000): Promise<void> {
  return new Promise((resolve, reject) => {
    const deadlineMs = performance.now() + limitMs
    const look = (): void => {
      if (condition()) resolve()
      else if (performance.now() > deadlineMs) reject(new Error(`Not so within ${limitMs} ms: ${condition}`))
      else setImmediate(look)
    }
    look()
  })
}
