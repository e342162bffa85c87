/**
 * What a command sees of the process around it: streams, environment, signals. Data goes to stdout; progress, logs and
 * errors go to stderr. Commands get this as an argument, so tests run them whole without a process.
 */
import type { Readable, Writable } from 'node:stream'
import { styleText } from 'node:util'

/** An output stream, perhaps on a terminal. */
export type OutputStream = Writable & { readonly isTTY?: boolean; readonly columns?: number }

/** The process as commands may use it. */
export type Terminal = {
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly stdin: Readable
  readonly stdout: OutputStream
  readonly stderr: OutputStream
  /** Calls `listener` for each SIGINT and SIGTERM until the function that it returns is called. */
  onSignal(listener: (signal: 'SIGINT' | 'SIGTERM') => void): () => void
  /** Ends the process at once. */
  exit(code: number): void
}

/** Writes to `stream` and settles when it wants more; rejects when the reader went away. */
export function print(stream: Writable, data: string | Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(data, (error) => (error ? reject(error) : resolve()))
  })
}

/** A line for people on stderr, which never fails the command. */
export function note(terminal: Terminal, line: string): void {
  if (terminal.stderr.writable) terminal.stderr.write(`${line}\n`)
}

/** `text` in a style where `stream` shows styles; NO_COLOR, FORCE_COLOR and redirections are respected. */
export function styled(
  terminal: Terminal,
  stream: OutputStream,
  style: 'red' | 'green' | 'yellow' | 'bold' | 'dim',
  text: string,
): string {
  const { NO_COLOR, FORCE_COLOR } = terminal.environment
  const forced = FORCE_COLOR !== undefined && FORCE_COLOR !== '' && FORCE_COLOR !== '0'
  const shown = NO_COLOR ? false : forced || stream.isTTY === true
  return shown ? styleText(style, text, { validateStream: false }) : text
}
