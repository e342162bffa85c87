/**
 * `sunwise start` as a process of the operating system, for tests: started, asked, killed, stopped. What it says on stderr is
 * kept, for assertions and for the message of a failed start.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { Agent, type OutgoingHttpHeaders, request } from 'node:http'
import { join } from 'node:path'

const program = join(import.meta.dirname, '..', '..', 'src', 'main.ts')
const saidCharactersMax = 100_000

/** How a process ended. */
export type Ending = { readonly code: number | null; readonly signal: NodeJS.Signals | null; readonly said: string }

/** What the ready line says. */
export type Ready = {
  readonly http: string
  readonly port: number
  readonly pid: number
  readonly shards: number
  readonly nodeId: string
  /** Where other nodes reach it; of a member of a cluster. */
  readonly peer?: string
  readonly recoveredRecords: number
}

/** A whole answer. */
export type Reply = { readonly status: number; readonly headers: NodeJS.Dict<string | string[]>; readonly body: Buffer }

export type StartOptions = {
  readonly flags?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
}

/** A child that runs the server, ready or not. */
export class ServerProcess implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #exited: Promise<Ending>
  readonly #ready: Promise<Ready | undefined>
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 64 })
  #said = ''
  #known: Ready | undefined
  #isGone = false

  private constructor(directory: string, { flags = [], env = {} }: StartOptions) {
    const words = ['start', '--data-dir', directory, '-o', 'json', ...flags]
    if (!flags.includes('--http')) words.push('--http', '127.0.0.1:0')
    if (!flags.includes('--memory')) words.push('--memory', '288mb')
    this.#child = spawn(process.execPath, [program, ...words], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    })
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#said = (this.#said + text).slice(-saidCharactersMax)
    })
    this.#exited = new Promise((resolve) => {
      this.#child.on('close', (code, signal) => {
        this.#isGone = true
        this.#agent.destroy()
        resolve({ code, signal, said: this.#said })
      })
    })
    const line = new Promise<Ready>((resolve) => {
      let text = ''
      this.#child.stdout!.setEncoding('utf8').on('data', (part: string) => {
        text += part
        const end = text.indexOf('\n')
        if (end >= 0 && this.#known === undefined) {
          this.#known = JSON.parse(text.slice(0, end)) as Ready
          resolve(this.#known)
        }
      })
    })
    this.#ready = Promise.race([line, this.#exited.then(() => undefined)])
  }

  /** A process that was only spawned, for tests that expect it to end or that kill it before it is ready. */
  static spawn(directory: string, options: StartOptions = {}): ServerProcess {
    return new ServerProcess(directory, options)
  }

  /** A process that serves; rejects, with what it said, if it ends before. */
  static async start(directory: string, options: StartOptions = {}): Promise<ServerProcess> {
    const server = new ServerProcess(directory, options)
    if ((await server.#ready) !== undefined) return server
    const { code, signal, said } = await server.#exited
    throw new Error(`The server ended before it was ready (${signal ?? `code ${code}`}): ${said}`)
  }

  /** Only of one that has started. */
  get ready(): Ready {
    if (this.#known === undefined) throw new Error('The server has not said that it is ready')
    return this.#known
  }

  /** Whether it comes to serve; false if it ends before. */
  get isReady(): Promise<boolean> {
    return this.#ready.then((ready) => ready !== undefined)
  }

  /** Settles when /readyz says that all shards serve, or the process has ended; rejects after 60 s without either. */
  get whenServing(): Promise<void> {
    return this.#untilServing()
  }

  async #untilServing(): Promise<void> {
    const by = performance.now() + 60_000
    while (!this.isGone) {
      const reply = await this.ask('GET', '/readyz').catch(() => undefined)
      if (reply?.status === 200) return
      if (performance.now() > by) throw new Error(`The server does not come back: ${this.#said}`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }

  get pid(): number {
    return this.#child.pid!
  }

  /** Everything on stderr so far. */
  get said(): string {
    return this.#said
  }

  get exited(): Promise<Ending> {
    return this.#exited
  }

  /** The process has ended. */
  get isGone(): boolean {
    return this.#isGone || this.#child.killed
  }

  /** SIGKILL; settles when the process is gone. */
  kill(): Promise<Ending> {
    this.#child.kill('SIGKILL')
    return this.#exited
  }

  /** SIGTERM; settles when the process is gone. */
  stop(): Promise<Ending> {
    this.#child.kill('SIGTERM')
    return this.#exited
  }

  /** No test leaves its process behind, however it ends. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /** One request over a kept connection; rejects where no whole answer came. */
  ask(method: string, path: string, body?: Uint8Array | string, headers: OutgoingHttpHeaders = {}): Promise<Reply> {
    return askAt(this.ready.port, this.#agent, method, path, body, headers)
  }
}

/** One request to a port of this machine; rejects where no whole answer came within 30 s. */
export function askAt(
  port: number,
  agent: Agent | false,
  method: string,
  path: string,
  body?: Uint8Array | string,
  headers: OutgoingHttpHeaders = {},
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }
    const sent = request(
      { host: '127.0.0.1', port, agent, method, path, headers: { ...length, ...headers }, timeout: 30_000 },
      (reply) => {
        const parts: Buffer[] = []
        reply.on('data', (part: Buffer) => parts.push(part))
        reply.on('error', reject)
        reply.on('end', () => {
          if (!reply.complete) return reject(new Error('The answer was cut'))
          resolve({ status: reply.statusCode!, headers: reply.headers, body: Buffer.concat(parts) })
        })
      },
    )
    sent.on('timeout', () => sent.destroy(new Error('No answer within 30 s')))
    sent.on('error', reject)
    sent.end(body)
  })
}

/** Code and outcome of a problem document. */
export function problemOf(reply: Reply): { readonly code: string; readonly outcome: string; readonly detail: string } {
  return JSON.parse(reply.body.toString('utf8')) as { code: string; outcome: string; detail: string }
}

/** The path of a key in the bucket `default`. */
export function pathOf(key: string): string {
  return `/v1/kv/default/${encodeURIComponent(key)}`
}
