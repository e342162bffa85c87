/** A terminal in memory: what a command prints can be read, what it reads can be given, signals can be sent. */
import { type PassThrough, Readable, Writable } from 'node:stream'
import type { OutputStream, Terminal } from '../../src/cli/terminal.ts'

type Shape = { readonly isTTY?: boolean; readonly columns?: number }

class Collector extends Writable {
  readonly chunks: Buffer[] = []

  override _write(chunk: Buffer, _: BufferEncoding, done: () => void): void {
    this.chunks.push(chunk)
    done()
  }
}

export class FakeTerminal implements Terminal {
  environment: Record<string, string | undefined> = {}
  stdin: Readable = Readable.from([])
  readonly stdout: OutputStream
  readonly stderr: OutputStream
  readonly exitCodes: number[] = []
  readonly #output = new Collector()
  readonly #errors = new Collector()
  readonly #listeners = new Set<(signal: 'SIGINT' | 'SIGTERM') => void>()

  constructor(shape: Shape = {}, stderr?: PassThrough) {
    this.stdout = Object.assign(this.#output, shape)
    this.stderr = stderr ?? Object.assign(this.#errors, shape)
  }

  get outputBytes(): Buffer {
    return Buffer.concat(this.#output.chunks)
  }

  get output(): string {
    return this.outputBytes.toString('utf8')
  }

  get errorText(): string {
    return Buffer.concat(this.#errors.chunks).toString('utf8')
  }

  get listenerCount(): number {
    return this.#listeners.size
  }

  onSignal(listener: (signal: 'SIGINT' | 'SIGTERM') => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  signal(signal: 'SIGINT' | 'SIGTERM'): void {
    for (const listener of this.#listeners) listener(signal)
  }

  exit(code: number): void {
    this.exitCodes.push(code)
  }
}
