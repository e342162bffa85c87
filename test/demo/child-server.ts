/** `sunwise start` as a child process, for the demonstration: started, killed hard, stopped gently. */
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'

const program = join(import.meta.dirname, '..', '..', 'src', 'main.ts')

/** What the ready line says. */
export type ReadyLine = {
  readonly http: string
  readonly pid: number
  readonly shards: number
  readonly recoveredRecords: number
}

/** A running child. */
export class ChildServer {
  readonly ready: ReadyLine
  /** Milliseconds from the start of the process to its ready line. */
  readonly startMs: number
  readonly #child: ChildProcess
  readonly #exited: Promise<string>

  constructor(child: ChildProcess, exited: Promise<string>, ready: ReadyLine, startMs: number) {
    this.#child = child
    this.#exited = exited
    this.ready = ready
    this.startMs = startMs
  }

  /** Starts a server on a free loopback port. Rejects if it ends before it is ready, with what it said. */
  static async start(directory: string, flags: readonly string[]): Promise<ChildServer> {
    const started = performance.now()
    const words = ['start', '--data-dir', directory, '--http', '127.0.0.1:0', '-o', 'json', ...flags]
    const child = spawn(process.execPath, [program, ...words], { stdio: ['ignore', 'pipe', 'pipe'] })
    let said = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-4_000)
    })
    const exited = new Promise<string>((resolve) => {
      child.on('exit', (code, signal) => resolve(`${signal ?? `exit code ${code}`}`))
    })
    const line = await new Promise<string>((resolve, reject) => {
      let text = ''
      child.stdout.setEncoding('utf8').on('data', (part: string) => {
        text += part
        if (text.includes('\n')) resolve(text)
      })
      exited.then((how) => reject(new Error(`The server ended before it was ready (${how}): ${said}`)))
    })
    return new ChildServer(child, exited, JSON.parse(line) as ReadyLine, performance.now() - started)
  }

  /** SIGKILL: the process gets no chance to write anything more. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#exited
  }

  /** SIGTERM; gives how it ended. */
  stop(): Promise<string> {
    this.#child.kill('SIGTERM')
    return this.#exited
  }
}
